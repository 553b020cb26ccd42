"""Sweeps: the grid, a task from a description that JSON can represent, the comparison over seeds, lost workers."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handgrad.distributed.sweep import Sweep, plot, run_task
from handgrad.recipes import RECIPES

ROOT = Path(__file__).parents[2]
RECIPE = RECIPES["second"].replace(hidden=(8,), epochs=2, batch_size=50, deskew=False, shrink=1, validation=100)


@pytest.fixture
def data(digits, tmp_path: Path) -> Path:
    """A data set of 8x8 images as an .npz file."""
    np.savez(tmp_path / "digits.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), digits, strict=True)))
    return tmp_path / "digits.npz"


def row(lr: float, seed: int, accuracy: float | None) -> dict[str, object]:
    if accuracy is None:
        return {"lr": lr, "seed": seed, "seconds": 1.0, "error": "training diverged"}
    return {"lr": lr, "seed": seed, "val_accuracy": accuracy, "val_loss": 0.1, "seconds": 1.0}


@pytest.fixture
def sweep(data: Path) -> Sweep:
    return Sweep(RECIPE, str(data), {"lr": [0.01, 0.1], "hidden": [(8,), (8, 4)]}, seeds=2)


def test_the_tasks_are_all_combinations_with_every_seed(sweep: Sweep) -> None:
    tasks = sweep.tasks()
    found = [(task["recipe"]["lr"], tuple(task["recipe"]["hidden"]), task["recipe"]["seed"]) for task in tasks]
    first = [(0.01, (8,)), (0.01, (8, 4)), (0.1, (8,)), (0.1, (8, 4))]
    assert found == [(*settings, 0) for settings in first] + [(*settings, 1) for settings in first]


def test_a_task_is_json_and_gives_the_same_numbers_again(sweep: Sweep) -> None:
    task = sweep.tasks()[0]
    first, again = run_task(task), run_task(json.loads(json.dumps(task)))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert first["val_accuracy"] > 0.2
    assert len(json.dumps(task)) < 2000  # the path of the data, not the data


def test_the_test_set_has_no_influence(sweep: Sweep, data: Path) -> None:
    task = sweep.tasks()[0]
    first = run_task(task)
    arrays = dict(np.load(data))
    np.savez(data, **{**arrays, "x_test": 255 - arrays["x_test"], "y_test": arrays["y_test"][::-1]})
    assert {**run_task({**task, "sweep": "another"}), "seconds": 0} == {**first, "seconds": 0}


def test_a_training_that_diverges_is_a_result_with_an_error(sweep: Sweep) -> None:
    task = sweep.tasks()[0]
    outcome = run_task({**task, "recipe": {**task["recipe"], "optimizer": "sgd", "lr": 1e18}})
    assert "diverged" in outcome["error"]
    assert "val_accuracy" not in outcome


def test_a_worker_without_the_data_or_with_another_version_says_so(sweep: Sweep) -> None:
    task = sweep.tasks()[0]
    problem = run_task({**task, "data": "/nowhere/digits.npz", "sweep": "another"})["problem"]
    assert "cannot read the data: there is no data set '/nowhere/digits.npz'" in problem
    assert "install the same version" in run_task({**task, "handgrad": "0.0.1"})["problem"]


def test_the_column_of_the_labels_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b,c\n" + "".join(f"{i % 3},{i % 2},{i}.5\n" for i in range(60)))
    sweep = Sweep(RECIPES["post"].replace(epochs=1, validation=10), str(path), {"lr": [0.1, 0.2]}, label="b")
    assert "val_accuracy" in run_task(sweep.tasks()[0])
    assert shlex.split(sweep.command({"lr": 0.1}))[4:8] == ["--data", str(path), "--label", "b"]


def test_the_best_setting_has_the_highest_mean_accuracy_and_no_failure(data: Path) -> None:
    sweep = Sweep(RECIPE, str(data), {"lr": [0.1, 0.2, 0.3]}, seeds=2)
    rows = [row(0.1, 0, 0.90), row(0.2, 0, 0.93), row(0.3, 0, 0.99), row(0.1, 1, 0.94), row(0.2, 1, 0.97),
            row(0.3, 1, None)]  # fmt: skip
    best, second, failed = sweep.summaries(rows)
    assert (best.settings, second.settings, failed.settings) == ({"lr": 0.2}, {"lr": 0.1}, {"lr": 0.3})
    assert (best.mean, best.std) == pytest.approx((0.95, np.std([0.93, 0.97], ddof=1)))
    assert (failed.seeds, failed.failed) == (1, 1)


def test_a_setting_within_two_standard_errors_is_not_clearly_worse(data: Path) -> None:
    sweep = Sweep(RECIPE, str(data), {"lr": [0.1, 0.2]}, seeds=2)
    best = [row(0.1, 0, 0.95), row(0.1, 1, 0.96)]
    assert sweep.indistinguishable(sweep.summaries([*best, row(0.2, 0, 0.94), row(0.2, 1, 0.96)])) == 1
    assert sweep.indistinguishable(sweep.summaries([*best, row(0.2, 0, 0.90), row(0.2, 1, 0.91)])) == 0
    assert sweep.indistinguishable(sweep.summaries([best[0], row(0.2, 0, 0.95)])) == 0  # one seed has no spread


def test_the_title_of_the_plot_is_never_parsed_as_a_formula(sweep: Sweep, tmp_path: Path) -> None:
    rows = [row(0.01, 0, 0.5) | {"hidden": (8,)}]
    plot(replace(sweep, data="/data/a$^$b.csv"), rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_an_invalid_combination_is_one_line(data: Path, rejects) -> None:
    with rejects("momentum 0.9 needs the optimizer"):
        Sweep(RECIPE, str(data), {"momentum": [0.9], "optimizer": ["sgd", "adam"]})


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_grid_search_of_scikit_learn_runs_on_dask_by_joblib(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    program = ROOT / "examples" / "cluster" / "grid_search_dask.py"
    distributed = pytest.importorskip("distributed")
    options = {"protocol": "tcp", "n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(processes=False, host="127.0.0.1", silence_logs=50, **options) as cluster:
        monkeypatch.setattr(sys, "argv", [str(program), cluster.scheduler_address])
        runpy.run_path(str(program), run_name="__main__")
    assert "best parameters: {'alpha':" in capsys.readouterr().out


def test_the_files_for_slurm_and_kubernetes_are_valid() -> None:
    yaml = pytest.importorskip("yaml")
    directory = ROOT / "examples" / "cluster"
    compile((directory / "slurm_dask.py").read_text(), "slurm_dask.py", "exec")
    cluster = yaml.safe_load((directory / "kubernetes_dask.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    scheduler = cluster["spec"]["scheduler"]
    ports = {port["name"] for port in scheduler["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in scheduler["service"]["ports"]} == ports
    worker = cluster["spec"]["worker"]["spec"]
    assert [mount["name"] for mount in worker["containers"][0]["volumeMounts"]] == [
        v["name"] for v in worker["volumes"]
    ]

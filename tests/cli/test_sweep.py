"""handgrad sweep: the table, the best setting, a scheduler by address, resuming, killed workers, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handgrad import HandgradError
from handgrad.cli.sweep import _Results
from handgrad.data.mnist import MnistNotFoundError
from handgrad.distributed.sweep import Sweep
from handgrad.recipes import RECIPES

distributed = pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # Dask needs it

SETTINGS = ("--recipe", "second", "--epochs", 2, "--batch-size", 50, "--hidden", "16,8x8")


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with one worker, a thread of this process."""
    options = {"protocol": "tcp", "n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(processes=False, host="127.0.0.1", silence_logs=50, **options) as cluster:
        yield cluster.scheduler_address


def read(directory: Path) -> list[dict[str, str]]:
    """The rows of sweep.csv."""
    with open(directory / "sweep.csv") as file:
        return list(csv.DictReader(file))


def test_the_best_setting_is_a_command_that_trains_the_same_network(
    tmp_path: Path, data: Path, scheduler: str, invoke
) -> None:
    out = tmp_path / "sweep"
    code, stdout, stderr = invoke(
        "sweep", *SETTINGS, "--data", data, "--seeds", 2, "--scheduler", scheduler, "--out", out
    )
    assert (code, stderr) == (0, "")
    assert "recipe second: 2 settings, 2 seeds, 4 trainings" in stdout
    rows = read(out)
    assert sorted((row["hidden"], row["seed"]) for row in rows) == [
        ("16", "0"),
        ("16", "1"),
        ("8x8", "0"),
        ("8x8", "1"),
    ]
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    command = shlex.split(stdout.splitlines()[-1].removeprefix("train it: "))
    assert command[:2] == ["handgrad", "train"]
    assert invoke(*command[1:], "--out", tmp_path / "run")[0] == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    best = next(line for line in stdout.splitlines() if line.startswith("best: hidden "))
    same = next(row for row in rows if row["seed"] == "0" and best.startswith(f"best: hidden {row['hidden']}:"))
    assert history["val_accuracy"][-1] == pytest.approx(float(same["val_accuracy"]))


def test_a_resumed_sweep_trains_only_what_is_missing(tmp_path: Path, data: Path, scheduler: str, invoke) -> None:
    out = tmp_path / "sweep"
    arguments = ("--scheduler", scheduler, "--json")
    assert invoke("sweep", *SETTINGS, "--data", data, "--seeds", 1, *arguments, "--out", out)[0] == 0
    content = json.loads((out / "sweep.json").read_text())
    kept, removed = content["results"]
    content["results"] = [{**kept, "host": "kept"}]
    (out / "sweep.json").write_text(json.dumps(content))
    code, stdout, _ = invoke("sweep", "--resume", out, "--seeds", 2, *arguments)
    assert code == 0
    trained = [json.loads(line) for line in stdout.splitlines()][:-1]
    assert len(trained) == 3
    same = next(row for row in trained if (row["hidden"], row["seed"]) == (removed["hidden"], 0))
    assert same["val_accuracy"] == removed["val_accuracy"]
    assert [row["host"] for row in read(out)].count("kept") == 1
    assert len(read(out)) == 4
    assert "contains a sweep" in invoke("sweep", "--recipe", "second", "--out", out)[2]


def test_settings_that_diverge_are_failures_in_the_table(tmp_path: Path, data: Path, scheduler: str, invoke) -> None:
    out = tmp_path / "sweep"
    settings = ("--recipe", "second", "--optimizer", "sgd", "--lr", "0.1,1e18", "--epochs", 1, "--seeds", 1)
    code, stdout, _ = invoke("sweep", "--data", data, *settings, "--scheduler", scheduler, "--out", out)
    assert code == 0
    assert "best: lr 0.1:" in stdout
    failed = next(row for row in read(out) if row["error"])
    assert (failed["lr"], failed["val_accuracy"]) == ("1e+18", "")


def test_errors_are_one_line(
    tmp_path: Path, data: Path, scheduler: str, invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = {
        ("--scheduler", "tcp://127.0.0.1:1"): "there is no Dask scheduler at tcp://127.0.0.1:1",
        ("--scheduler", "here"): "there is no Dask scheduler at here",
        ("--scheduler", scheduler, "--data", "/nowhere"): "cannot read the data: there is no data set '/nowhere'",
        ("--data", "/nowhere"): "there is no data set '/nowhere'",
        ("--scheduler", scheduler, "--workers", "2"): "leave it out with --scheduler",
        ("--lr", "0.1,x"): "expected values with commas between them",
        ("--optimizer", "sgd,adm"): "did you mean 'adam'?",
        ("--resume", "nothing"): "cannot read nothing/sweep.json",
        ("--data", str(data), "--validation", "1500"): "expected less than the 1500 training examples",
    }
    for arguments, message in cases.items():
        with monkeypatch.context() as changed:
            if "no Dask scheduler" in message:
                changed.setattr("handgrad.distributed.sweep.CONNECT_SECONDS", 0.2)
            code, _, stderr = invoke("sweep", *arguments)
        assert code == 2, arguments
        assert message in stderr
        assert stderr.count("\n") == 1, stderr
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'handgrad[dask]'" in invoke("sweep")[2]


def test_a_sweep_of_another_process_that_has_ended_is_not_overwritten(tmp_path: Path) -> None:
    chosen = Sweep(RECIPES["post"], "mnist", {"lr": [0.1, 0.2]})
    results = [
        _Results(tmp_path / "sweep", chosen, [], new=True, quiet=True, as_json=False) for _ in range(2)
    ]  # of two processes that have found no sweep there
    with results[0] as first:
        first.open()
        first.write()
    with results[1] as second, pytest.raises(HandgradError, match="another process has started a sweep in"):
        second.open()


def test_a_resumed_sweep_of_mnist_never_uses_synthetic_digits(
    tmp_path: Path, data: Path, scheduler: str, invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sweep"
    assert invoke("sweep", *SETTINGS, "--data", data, "--seeds", 1, "--scheduler", scheduler, "--out", out)[0] == 0
    text = (out / "sweep.json").read_text()
    (out / "sweep.json").write_text(json.dumps({**json.loads(text), "data": "mnist"}))

    def not_found(name: str, label: str | None = None) -> None:
        raise MnistNotFoundError(f"{name} was not found")

    for module in ("options", "sweep"):
        monkeypatch.setattr(f"handgrad.cli.{module}.load", not_found)
    code, _, stderr = invoke("sweep", "--resume", out, "--seeds", 2)
    assert (code, stderr.startswith("handgrad: mnist was not found; 2 of 4 trainings finished")) == (2, True)


def start(cwd: Path, data: Path, environment, epochs: int = 15) -> subprocess.Popen[str]:
    """Start a sweep with two local processes, in a separate process group, and wait for its first result."""
    arguments = ("--seeds", 3, "--workers", 2, "--data", data, "--out", "sweep")
    program = [sys.executable, "-W", "error", "-m", "handgrad", "sweep", *SETTINGS[:2], "--epochs", epochs, "--hidden",
               "16,32", *arguments]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [*map(str, program)], cwd=cwd, env=environment(cwd, {}), text=True, start_new_session=True, **pipes
    )
    while process.poll() is None and not ((cwd / "sweep" / "sweep.csv").exists() and read(cwd / "sweep")):
        time.sleep(0.02)
    return process


def test_a_killed_worker_is_replaced(tmp_path: Path, data: Path, environment) -> None:
    process = start(tmp_path, data, environment)
    children = psutil.Process(process.pid).children(recursive=True)
    worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
    os.kill(worker.pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert len(read(tmp_path / "sweep")) == 6


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, data: Path, environment) -> None:
    process = start(tmp_path, data, environment, epochs=300)  # it must not end before the signal on a busy machine
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.count("\n") == 1, stderr
    assert "to continue, run handgrad sweep --resume sweep" in stderr
    assert 1 <= len(read(tmp_path / "sweep")) < 6

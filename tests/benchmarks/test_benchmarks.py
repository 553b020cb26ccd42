"""What the benchmarks race does the same work: every peer ends at handgrad's weights. Needs the extra `peers`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.peers
for package in ("torch", "jax", "sklearn"):
    pytest.importorskip(package, reason="make test-peers installs it")

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are no part of the package
from benchmarks import growth, resources, steps, tables  # noqa: E402
from benchmarks.peers import CASES, PEERS, TOLERANCE, Case, Task, task_of  # noqa: E402
from benchmarks.workers import PeerError, Worker, Workers  # noqa: E402

# As they are raced but for the widest case, which would take a minute: its hidden layers have 256 units here.
TASKS = [
    task_of(dataclasses.replace(case, sizes=tuple(256 if n == 2048 else n for n in case.sizes)), optimizer)
    for case in CASES
    for optimizer in ("sgd", "adam")
]
ENTRIES = [
    pytest.param(peer, task, form, id=f"{task.case.name}-{task.optimizer}-{peer}-{form}")
    for peer in PEERS
    for task in TASKS
    for form in PEERS[peer].forms[: 1 if peer == "jax-step" else None]  # its step is the scan's, in both forms
    if PEERS[peer].enters(task)
]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as started:
        yield started


@pytest.mark.parametrize(("peer", "task", "form"), ENTRIES)
def test_a_peer_ends_at_handgrads_weights(workers: Workers, peer: str, task: Task, form: str) -> None:
    worker = workers.get(peer, 1)
    worker.ask("prepare", task, form)
    assert steps.agree(worker, workers, task, peer) < TOLERANCE


@pytest.mark.parametrize(
    ("peer", "optimizer"), [*((peer, "sgd") for peer in PEERS), ("torch", "adam"), ("sklearn", "adam")]
)
def test_a_learning_rate_one_percent_off_is_seen(workers: Workers, peer: str, optimizer: str) -> None:
    task = next(task for task in TASKS if task.optimizer == optimizer)
    worker = workers.get(peer, 1)
    worker.ask("prepare", dataclasses.replace(task, lr=1.01 * task.lr), PEERS[peer].forms[0])
    assert steps.agree(worker, workers, task, peer) > TOLERANCE


def test_a_race_is_run_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(steps, "PART", tmp_path)
    only = ["--short", "--rounds", "2", "--case", "784-30-10/64", "--optimizer", "adam", "--peer", "sklearn"]
    assert steps.main(only) == 0
    assert "| sklearn " in capsys.readouterr().out
    (race,) = json.loads((tmp_path / "steps.json").read_text())["races"]
    assert (race["case"], race["optimizer"]) == ("784-30-10/64", "adam")
    assert all(len(peer["step_seconds"]) == 2 for peer in race["peers"].values())
    assert "| sklearn " in (tmp_path / "steps.md").read_text()
    assert (tmp_path / "steps.png").stat().st_size > 10_000


def test_a_peer_that_disagrees_is_left_out_loudly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    calibrate = steps.calibrate

    def plant(workers: Workers, peer: str, task: Task, length: steps.Length) -> steps.Entrant:
        entrant = calibrate(workers, peer, task, length)
        if peer == "sklearn":
            entrant.worker.ask("prepare", dataclasses.replace(task, lr=1.01 * task.lr), entrant.form)
        return entrant

    monkeypatch.setattr(steps, "calibrate", plant)
    monkeypatch.setattr(steps, "PART", tmp_path)
    only = ["--short", "--rounds", "1", "--case", "784-30-10/64", "--optimizer", "sgd", "--peer", "sklearn"]
    assert steps.main(only) == 1
    assert "sklearn is left out" in capsys.readouterr().err
    assert "sklearn was left out: DISAGREES" in (tmp_path / "steps.md").read_text()


def test_what_a_peer_raises_comes_with_its_traceback() -> None:
    worker = Worker("handgrad", 1)
    with pytest.raises(PeerError, match="prepare comes first"):
        worker.ask("train", 1)
    worker.close()
    with pytest.raises(PeerError, match="the process of handgrad died"):
        worker.ask("train", 1)


def test_a_point_of_a_curve_has_every_library(workers: Workers) -> None:
    curve = next(curve for curve in growth.curves() if curve.name == "batch")
    point = growth.point(workers, curve, 16, rounds=1)
    assert set(point) == set(growth.LIBRARIES)
    assert all(of["seconds"][0] > 0 for of in point.values())


def test_every_point_of_every_curve_is_a_case() -> None:
    for curve in growth.curves():
        for value in curve.values:
            case = curve.case(value)
            assert case.sizes[0] == 784
            assert case.sizes[-1] == 10
            assert case.batches * case.batch <= 60_000


def test_the_operations_of_a_step_are_counted() -> None:
    # 784 x 30 forward and for dW; 30 x 10 forward, for dW and for dx; a multiplication and an addition for each of 10
    assert Case((784, 30, 10), 10, 1).flop == 2 * 10 * (2 * 784 * 30 + 3 * 30 * 10)


def test_what_numpy_needs_on_the_disk() -> None:
    size, names = resources.installed("numpy")
    assert names == ["numpy"]
    assert size > 10e6
    assert resources.installed("handgrad")[0] > size


def test_a_table_stands_straight() -> None:
    assert tables.table(("a", "b"), [("xyz", "1"), ("x", "10")]).splitlines() == [
        "| a   |  b |",
        "| --- | -: |",
        "| xyz |  1 |",
        "| x   | 10 |",
    ]


def test_misuse_is_one_line(capsys) -> None:
    for main in (steps.main, growth.main):
        with pytest.raises(SystemExit) as ended:
            main(["--rounds", "0"])
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith("--rounds 0: expected 1 or more")

"""All peers of the benchmarks compute the same training. Needs the extra `peers`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.peers
for package in ("torch", "jax", "sklearn"):
    pytest.importorskip(package, reason="make test-peers installs it")

from benchmarks import steps  # noqa: E402
from benchmarks.peers import CASES, PEERS, TOLERANCE, Task, task_of  # noqa: E402
from benchmarks.workers import PeerError, Worker, Workers  # noqa: E402

# The cases of the benchmarks, but with 256 units instead of 2,048, which would take a minute.
TASKS = [
    task_of(dataclasses.replace(case, sizes=tuple(256 if n == 2048 else n for n in case.sizes)), optimizer)
    for case in CASES
    for optimizer in ("sgd", "adam")
]
ENTRIES = [
    pytest.param(peer, task, form, id=f"{task.case.name}-{task.optimizer}-{peer}-{form}")
    for peer in PEERS
    for task in TASKS
    for form in PEERS[peer].forms[: 1 if peer == "jax-step" else None]  # the step is that of jax-scan
    if PEERS[peer].enters(task)
]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as started:
        yield started


@pytest.mark.parametrize(("peer", "task", "form"), ENTRIES)
def test_peer_reaches_the_weights_of_handgrad(workers: Workers, peer: str, task: Task, form: str) -> None:
    worker = workers.get(peer, 1)
    worker.call("prepare", task, form)
    assert steps.agree(worker, workers, task, peer) < TOLERANCE


@pytest.mark.parametrize(
    ("peer", "optimizer"), [*((peer, "sgd") for peer in PEERS), ("torch", "adam"), ("sklearn", "adam")]
)
def test_learning_rate_one_percent_off_is_detected(workers: Workers, peer: str, optimizer: str) -> None:
    task = next(task for task in TASKS if task.optimizer == optimizer)
    worker = workers.get(peer, 1)
    worker.call("prepare", dataclasses.replace(task, lr=1.01 * task.lr), PEERS[peer].forms[0])
    assert steps.agree(worker, workers, task, peer) > TOLERANCE


def test_peer_with_wrong_weights_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    """handgrad is measured and reported; the planted error of scikit-learn is not."""
    calibrate = steps.calibrate

    def plant(workers: Workers, peer: str, task: Task, length: steps.Length) -> steps.Entrant:
        entrant = calibrate(workers, peer, task, length)
        if peer == "sklearn":
            entrant.worker.call("prepare", dataclasses.replace(task, lr=1.01 * task.lr), entrant.form)
        return entrant

    monkeypatch.setattr(steps, "calibrate", plant)
    monkeypatch.setattr(steps, "PART", tmp_path)
    only = ["--quick", "--rounds", "2", "--case", "784-30-10/64", "--optimizer", "sgd", "--peer", "sklearn"]
    assert steps.main(only) == 1
    assert "sklearn is left out" in capsys.readouterr().err
    (result,) = json.loads((tmp_path / "steps.json").read_text())["races"]
    assert list(result["peers"]) == ["handgrad"]
    assert len(result["peers"]["handgrad"]["step_seconds"]) == 2
    assert "sklearn was left out: " in (tmp_path / "steps.md").read_text()
    assert (tmp_path / "steps.png").exists()


def test_exception_in_a_worker_is_raised_with_its_message() -> None:
    worker = Worker("handgrad", 1)
    with pytest.raises(PeerError, match="call prepare first"):
        worker.call("train", 1)
    worker.close()
    with pytest.raises(PeerError, match="the process of handgrad ended"):
        worker.call("train", 1)

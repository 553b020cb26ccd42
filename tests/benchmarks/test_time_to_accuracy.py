"""Time to accuracy: which epoch and which number of seconds count, and that every method trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import time_to_accuracy as benchmark


def method(*accuracies: list[float], epochs: int | None = None) -> dict[str, Any]:
    """A method with one run for each list of accuracies, with epochs of 2 seconds."""
    runs = [{"seconds": [2.0 * (i + 1) for i in range(len(run))], "accuracy": run} for run in accuracies]
    return {"epochs": epochs, "threads": 1, "runs": runs}


def test_constant_rate_counts_until_the_first_epoch_at_the_target() -> None:
    """An accuracy that falls below the target again still counts."""
    some = method([0.97, 0.98, 0.979, 0.985], [0.97, 0.975, 0.981], [0.98])
    assert benchmark.cells(some, 0.98) == ("4.0 (2.0 to 6.0)", "1 to 3")
    assert benchmark.cells(some, 0.99) == ("not in 8 s", "4")
    assert benchmark.accuracy(some) == "at most 98.50%"


def test_seed_that_misses_the_target_is_reported_and_not_left_out_of_the_median() -> None:
    assert benchmark.cells(method([0.98], [0.97, 0.97]), 0.98) == ("not in 4 s (1 of 2 do)", "2")
    assert benchmark.cells(method([0.98, 0.99], [0.98, 0.98, 0.985]), 0.99) == ("not in 6 s (1 of 2 do)", "3")


def test_recipe_counts_at_its_end_if_the_mean_reaches_the_target() -> None:
    assert benchmark.cells(method([0.991], [0.9895], epochs=4), 0.99) == ("2.0 (2.0 to 2.0)", "4")
    assert benchmark.cells(method([0.991], [0.9885], epochs=4), 0.99) == ("", "")
    assert benchmark.cells(method([0.991], epochs=4), 0.98) == ("2.0", "4")


def test_the_time_excludes_preparation_and_evaluation(mnist, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves by 10 in the preparation and in each evaluation, and by 1 in each epoch."""
    now = 0.0

    def train(x: Any, y: Any, seed: int, epochs: int) -> benchmark.Training:
        nonlocal now
        now += 10
        yield None
        for epoch in range(epochs):
            now += 1
            yield lambda images, epoch=epoch: predict(len(images), epoch)

    def predict(count: int, epoch: int) -> Any:
        nonlocal now
        now += 10
        return np.full(count, epoch)

    monkeypatch.setitem(benchmark.METHODS, "some", benchmark.Method(train, "", ""))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    monkeypatch.delattr(benchmark.os, "sched_setaffinity", raising=False)
    result = benchmark.run("some", 0, 3, 1.0, 100, 1)
    assert result["seconds"] == [1, 2, 3]
    assert result["accuracy"][1] == 0.1135  # the share of ones in the test set
    assert benchmark.run("some", 0, 3, 0.11, 100, 1)["seconds"] == [1, 2]  # it stops at the target


@pytest.mark.peers
@pytest.mark.parametrize("name", benchmark.METHODS)
def test_every_method_learns(mnist, name: str) -> None:
    for package in {"torch": ("torch", "PIL"), "keras": ("keras", "jax"), "sklearn": ("sklearn",)}.get(
        name.partition("-")[0], ()
    ):
        pytest.importorskip(package, reason="make test-peers installs it")
    result = benchmark.in_new_process(name, 0, 3, 1.0, 6_000, threads=1)
    assert result["accuracy"][-1] > 0.89
    assert len(result["accuracy"]) == (1 if benchmark.METHODS[name].epochs else 3)

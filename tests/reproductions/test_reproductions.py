"""Reproductions: verdicts and tables are computed correctly, finished runs are kept, and the trainings run."""

from __future__ import annotations

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handgrad import SGD, HandgradError, Network, check_gradient
from handgrad.data import Dataset
from reproductions import glorot, gradients, he, neurons, nielsen, plain, simard, srivastava, tables
from reproductions.tables import Row, Run, Table

TABLES = [module.TABLE for module in (neurons, gradients, he, nielsen, plain, simard, srivastava, glorot)]


def example_table(**changes: Any) -> Table:
    """A table with two rows and no training."""
    runs = {"a": Run({"lr": 0.5}, 3), "b": Run({"lr": 1.0}, 2)}
    rows = [Row("first", "test", 0.95, "a", "best"), Row("second", "test", 0.9, "b", "best")]
    table = Table("example", "Author (2000).", lambda settings, seed: {}, runs, rows)
    return dataclasses.replace(table, **changes)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


# ---- Verdicts and tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.9529, 0.9531], "yes"),  # at least 0.3 points are allowed
        ([0.9532, 0.9534], "no"),
        ([0.940, 0.948], "yes"),  # the difference is 0.6 points, two sd are 1.1
        ([0.930, 0.940], "no"),  # the difference is 1.5 points, at most one point is allowed
        ([0.80, 0.99], "cannot tell"),
    ],
)
def test_row_agrees_within_two_standard_deviations_but_at_most_one_point(values: list[float], verdict: str) -> None:
    table = example_table()
    assert table.verdict(table.rows[0], values) == verdict
    assert table.verdict(dataclasses.replace(table.rows[0], paper=None), values) == ""


def test_bound_has_one_side() -> None:
    table = example_table(least=0.0, most=0.0)
    below, above = (Row("a", "test", 0.9, "a", "best", bound) for bound in "<>")
    assert table.verdict(below, [0.2, 0.3]) == table.verdict(above, [0.91]) == "yes"
    assert table.verdict(above, [0.2, 0.3]) == table.verdict(below, [0.91]) == "no"


def test_best_of_three_uses_complete_groups_only() -> None:
    rows = [Row("first", "test", 0.95, "a", "best", best_of=3, last="last")]
    done = [{"metrics": {"best": 0.9 + seed / 100, "last": 0.1 * seed}} for seed in range(5)]
    *_, row = example_table(rows=rows).lines({"runs": {"a": {"done": done}}}).splitlines()
    assert cells(row)[3:8] == ["92.00%", "no", "92.00% to 92.00%", "10.00% ± 10.00", "1 x 3"]


# ---- Kept runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs (name, seed), without training, in an empty directory."""
    runs: list[tuple[str, int]] = []

    def one(name: str, run: str, seed: int) -> dict[str, Any]:
        if seed == 7:
            raise RuntimeError("power failure")
        runs.append((run, seed))
        return {"seed": seed, "metrics": {"best": 0.95 + seed / 1000}, "seconds": 5.0}

    monkeypatch.setattr(tables, "HERE", tmp_path)
    monkeypatch.setattr(tables, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(1))
    monkeypatch.setattr(tables, "as_completed", list)
    monkeypatch.setattr(tables, "one", one)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # `reproduce` sets it for its processes
    return runs


def test_only_missing_runs_and_runs_with_other_settings_are_done(
    finished: list[tuple[str, int]], tmp_path: Path
) -> None:
    tables.reproduce(example_table(), 1, seeds=1)
    assert finished == [("a", 0), ("b", 0)]
    tables.reproduce(example_table(), 1)
    assert finished[2:] == [("a", 1), ("b", 1), ("a", 2)]
    runs = {"a": Run({"lr": 0.5}, 9), "b": Run({"lr": 2.0}, 2)}
    with pytest.raises(RuntimeError):  # runs that finished before the error are kept
        tables.reproduce(example_table(runs=runs), 1)
    assert finished[5:] == [("b", 0), ("b", 1), ("a", 3), ("a", 4), ("a", 5), ("a", 6), ("a", 8)]
    record = json.loads((tmp_path / "example.json").read_text())
    assert [run["seed"] for run in record["runs"]["a"]["done"]] == list(range(7))


def test_table_has_mean_spread_range_and_verdict(finished: list[tuple[str, int]], tmp_path: Path) -> None:
    tables.reproduce(example_table(), 1)
    *_, first, second = [line for line in (tmp_path / "example.md").read_text().splitlines() if line.startswith("|")]
    assert cells(first) == ["first", "test", "95.00%", "95.10% ± 0.10", "yes", "95.00% to 95.20%", "3"]
    assert cells(second)[4] == "no"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_kept_runs_have_the_settings_of_the_script(table: Table) -> None:
    record = tables.read(table.name)
    assert {name: run["settings"] for name, run in record["runs"].items()} == {
        name: json.loads(json.dumps(run.settings)) for name, run in table.runs.items()
    }
    for row in table.rows:
        for done in record["runs"][row.run]["done"]:
            assert {row.metric, row.last or row.metric} <= set(done["metrics"])


# ---- Trainings -------------------------------------------------------------------------------------------------------


def test_neurons_reproduce_the_kept_outputs() -> None:
    for name, run in neurons.RUNS.items():
        (done,) = tables.read("neurons")["runs"][name]["done"]
        assert neurons.train(run.settings, 0) == pytest.approx(done["metrics"], rel=1e-4)


def test_gradients_reproduce_the_kept_norms(mnist: Path) -> None:
    for name, run in gradients.RUNS.items():
        kept = tables.read("gradients")["runs"][name]["done"][1]["metrics"]
        assert gradients.train(run.settings, 1) == pytest.approx(kept, rel=1e-4)


@pytest.mark.parametrize("table", [he.TABLE, simard.TABLE, srivastava.TABLE, glorot.TABLE], ids=lambda t: t.name)
def test_short_training_has_finite_metrics_and_depends_on_the_seed(table: Table, mnist: Path) -> None:
    settings = {**list(table.runs.values())[-1].settings, "images": 200, "epochs": 1}
    first, again, other = (table.train(settings, seed) for seed in (4, 4, 5))
    assert first == again != other
    assert all(math.isfinite(value) for value in first.values())
    assert {row.metric for row in table.rows} <= set(first)


def test_validation_digits_are_not_those_of_the_test_set(mnist: Path) -> None:
    (x, y), (x_validation, _) = tables.digits({"images": 100, "validation": True})
    train, test = tables.digits({"images": 60_000})
    np.testing.assert_array_equal(x_validation, train[0][50_000:])
    np.testing.assert_array_equal(x, train[0][:100])
    np.testing.assert_array_equal(y, train[1][:100])
    assert len(test[0]) == 10_000


def test_softsign_passes_the_gradient_check() -> None:
    z = np.random.default_rng(0).standard_normal((5, 7))
    check_gradient(glorot.Softsign(), z)

    class Wrong(glorot.Softsign):
        def backward(self, da: Any) -> Any:
            return da * self.d

    with pytest.raises(HandgradError, match="dx is wrong"):
        check_gradient(Wrong(), z)


@pytest.mark.parametrize("normalized", [False, True])
def test_glorot_initialization_is_uniform_in_the_published_range(normalized: bool) -> None:
    settings = {**glorot.RUNS["tanh N"].settings, "normalized": normalized}
    for W, _ in glorot.initial_network(settings, np.random.SeedSequence(0)).weights:
        n_out, n_in = W.shape
        r = math.sqrt(6 / (n_in + n_out)) if normalized else 1 / math.sqrt(n_in)
        assert 0.99 * r < abs(W).max() <= r * (1 + 1e-6)


def test_nielsens_scaled_initialization_has_random_biases() -> None:
    network = nielsen.randomize_biases(Network([784, 200, 10], init="lecun", rng=0), 0)
    assert network.layers[0].W.std() == pytest.approx(1 / 28, rel=0.02)
    assert network.layers[0].b.std() == pytest.approx(1, rel=0.15)


def test_simards_alpha_corresponds_to_a_displacement_in_pixels() -> None:
    """Blurred noise, created as in the paper, has the computed root mean square."""
    rng = np.random.default_rng(0)
    distance = np.arange(-20, 21)
    k = np.exp(-(distance**2) / (2 * simard.SIGMA**2))
    k /= k.sum()
    fields = rng.uniform(-1, 1, (2, 300, 300))
    for axis in (1, 2):
        fields = np.apply_along_axis(np.convolve, axis, fields, k, mode="valid")
    measured = simard.ALPHA * math.sqrt(2 * np.mean(fields**2))
    assert simard.displacement(simard.ALPHA, simard.SIGMA) == pytest.approx(measured, rel=0.05)


def test_plain_numpy_and_handgrad_train_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same initial weights, same order, with regularization and a smaller last batch: the same accuracy per epoch."""
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 136, (10_300, 28, 28), np.uint8), rng.integers(0, 10, 10_300, np.uint8)
    x += (rng.integers(0, 2, (10, 28, 28), np.uint8) * 120)[y]
    data = Dataset(x[300:], y[300:], x[:300], y[:300], "patterns", tuple("0123456789"))
    data = dataclasses.replace(data, x_train=np.concatenate([x[:43], data.x_train]), y_train=np.append(y[:43], y[300:]))
    monkeypatch.setattr(plain, "load", {"mnist": data}.__getitem__)
    epochs, n, hidden, lr, lambda_, seed = 6, 43, 12, 0.5, 2.0, 6
    settings = nielsen.settings_for(hidden, lr=lr, lambda_=lambda_, images=n, epochs=epochs)
    metrics = plain.train(settings, seed)

    rng = np.random.default_rng(seed)
    network = Network([784, hidden, 10], dtype=np.float64)
    for p in network.named_parameters.values():
        p[...] = rng.standard_normal(p.shape)
    x_train, t = data.x_train[:n].reshape(n, 784) / 255, np.eye(10)[data.y_train[:n]]
    optimizer, accuracy = SGD(lr, l2=lambda_ / n), []
    for _ in range(epochs):
        for batch in np.split(rng.permutation(n), range(10, n, 10)):
            optimizer.train_step(network, x_train[batch], t[batch], lr)
        accuracy.append(network.evaluate(data.x_test, data.y_test).accuracy)
    assert max(accuracy) > accuracy[-1]  # the best and the last epoch differ
    assert metrics == {"best": max(accuracy), "last": accuracy[-1]}

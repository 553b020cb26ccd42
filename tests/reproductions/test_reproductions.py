"""Published tables: what agrees, what is kept, and that the tables are the commands'."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the reproductions are no part of the package

from handgrad import HandgradError, Network, check_gradient
from reproductions import glorot, gradients, he, neurons, nielsen, page, plain, simard, srivastava, tables
from reproductions.tables import Row, Run, Table

ROOT = Path(__file__).parents[1]
SHORT = [module.TABLE for module in (neurons, gradients, he, nielsen, plain)]
LONG = [module.TABLE for module in (simard, srivastava, glorot)]
ALL = pytest.mark.parametrize("chosen", SHORT + LONG, ids=lambda table: table.name)


def made(**choices: Any) -> Table:
    """A table of one row, of accuracies, trained by nothing."""
    runs = {"a": Run({"lr": 0.5}, 3), "b": Run({"lr": 1.0}, 2)}
    rows = [Row("first", "test", 0.95, "a", "best"), Row("second", "test", 0.9, "b", "best")]
    return Table("made", "Nobody (2000).", lambda settings, seed: {}, runs, rows, **choices)


# ---- What agrees -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.9529, 0.9531], "yes"),  # 0.3 points are allowed in any case
        ([0.9532, 0.9534], "no"),
        ([0.940, 0.948], "yes"),  # 0.6 points off, within two sd, 1.1
        ([0.930, 0.940], "no"),  # 1.5 points off: two sd are 1.4, and no more than one point is allowed
        ([0.80, 0.99], "cannot tell"),
        ([0.941, 0.959], "yes"),  # a standard error of 0.9 points
        ([0.9525], "yes"),
        ([0.954], "no"),
    ],
)
def test_a_row_agrees_within_two_sd_but_no_more_than_a_point(values: list[float], verdict: str) -> None:
    chosen = made()
    assert chosen.verdict(chosen.rows[0], values) == verdict
    assert chosen.verdict(dataclasses.replace(chosen.rows[0], paper=None), values) == ""


def test_a_bound_is_of_one_side() -> None:
    chosen = made(least=0.0, most=0.0)
    below, above = (Row("a", "test", 0.9, "a", "best", bound) for bound in "<>")
    assert chosen.verdict(below, [0.2, 0.3]) == chosen.verdict(above, [0.91]) == "yes"
    assert chosen.verdict(above, [0.2, 0.3]) == chosen.verdict(below, [0.91]) == "no"


def test_the_rule_is_told_in_words() -> None:
    assert made(least=0.0, most=0.0).rule() == "A row agrees where the mean is on the right side of the bound."
    assert made(least=0.005, most=0.005).rule() == "A row agrees where ours is within 0.50% of the paper's figure."
    within = "A row agrees where the mean is within two sd of the paper's figure"
    assert made(least=0.0, most=math.inf).rule() == f"{within}."
    told = f"{within}, 0.30% at least and 1.00% at most"
    tells = " Where the mean's own standard error is above 1.00%, the seeds cannot tell."
    assert made().rule() == f"{told}.{tells}"
    bounded = dataclasses.replace(made(), rows=[Row("a", "test", 0.9, "a", "best", "<")])
    assert bounded.rule() == f"{told}, or passes a bound by no more than that.{tells}"


def test_the_best_of_three_is_of_each_three() -> None:
    assert tables._bests([1, 5, 2, 4, 3, 6], 3) == [5, 6]
    assert tables._bests([1, 5], 1) == [1, 5]


def test_seeds_that_are_in_no_best_of_three_are_not_counted() -> None:
    chosen = made()
    rows = [Row("first", "test", 0.95, "a", "best", best_of=3, last="last")]
    done = [{"figures": {"best": 0.9 + seed / 100, "last": 0.1 * seed}} for seed in range(5)]
    *_, told = dataclasses.replace(chosen, rows=rows).lines({"runs": {"a": {"done": done}}}).splitlines()
    cells = [cell.strip() for cell in told.strip("|").split("|")]
    assert cells[3:7] == ["92.00%", "92.00% to 92.00%", "10.00% ± 10.00", "1 x 3"]
    assert not dataclasses.replace(chosen, rows=rows).lines({"runs": {"a": {"done": done[:2]}}}).splitlines()[2:]


# ---- What is kept ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_turn: type) -> list[tuple[str, int]]:
    """What was run, as (run, seed), in a directory of its own; nothing is trained."""
    seen: list[tuple[str, int]] = []

    def one(name: str, run: str, seed: int) -> dict[str, Any]:
        if seed == 7:
            raise RuntimeError("the power is gone")
        seen.append((run, seed))
        return {"seed": seed, "figures": {"best": 0.95 + seed / 1000}, "seconds": 5.0}

    monkeypatch.setattr(tables, "HERE", tmp_path)
    monkeypatch.setattr(tables, "ProcessPoolExecutor", in_turn)
    monkeypatch.setattr(tables, "as_completed", list)
    monkeypatch.setattr(tables, "one", one)
    monkeypatch.setattr(tables, "source", lambda: "abc")
    monkeypatch.setattr(tables, "machine", lambda: {"processor": "one"})
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    return seen


def test_runs_that_are_there_are_not_done_again(ran: list[tuple[str, int]], tmp_path: Path) -> None:
    tables.reproduce(made(), 1, seeds=1)
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert ran == [("a", 0), ("b", 0)]
    tables.reproduce(made(), 1)
    assert ran == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
    record = json.loads((tmp_path / "made.json").read_text())
    assert [run["seed"] for run in record["runs"]["a"]["done"]] == [0, 1, 2]
    assert record["runs"]["b"]["done"][0] | {"seconds": 5.0} == {
        "seed": 0,
        "figures": {"best": 0.95},
        "seconds": 5.0,
        "on": f"one, NumPy {np.__version__}",
        "source": "abc",
    }
    tables.reproduce(made(), 1, again=True)
    assert len(ran) == 10


def test_what_was_done_is_kept_when_a_command_is_cut_short(ran: list[tuple[str, int]], tmp_path: Path) -> None:
    chosen = made()
    chosen.runs["a"] = Run({"lr": 0.5}, 9)
    with pytest.raises(RuntimeError):
        tables.reproduce(chosen, 1)
    record = json.loads((tmp_path / "made.json").read_text())
    assert [run["seed"] for run in record["runs"]["a"]["done"]] == list(range(7))
    assert "| first" in (tmp_path / "made.md").read_text()


def test_a_run_of_other_settings_is_done_anew_and_no_other(ran: list[tuple[str, int]]) -> None:
    tables.reproduce(made(), 1)
    ran.clear()
    chosen = made()
    chosen.runs["b"] = Run({"lr": 2.0}, 2)
    tables.reproduce(chosen, 1)
    assert ran == [("b", 0), ("b", 1)]


def test_the_table_tells_mean_spread_range_and_whether_they_agree(ran: list[tuple[str, int]], tmp_path: Path) -> None:
    tables.reproduce(made(), 1)
    *_, first, second = [line for line in (tmp_path / "made.md").read_text().splitlines() if line.startswith("|")]
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells == ["first", "test", "95.00%", "95.10% ± 0.10", "95.00% to 95.20%", "3", "yes"]
    assert second.split("|")[-2].strip() == "no"
    assert f"Ours: one, NumPy {np.__version__}; one BLAS thread." in (tmp_path / "made.md").read_text()


def test_a_row_without_a_figure_to_be_held_to_says_what_the_paper_has(ran: list[tuple[str, int]]) -> None:
    rows = [
        Row("first", "test", None, "a", "best", said="1.60%, another network"),
        Row("second", "test", 0.5, "a", "best", ">", said="learns"),
    ]
    record = {"runs": {"a": {"done": [{"figures": {"best": 0.9}}, {"figures": {"best": 0.9}}]}}}
    *_, first, second = dataclasses.replace(made(), rows=rows).lines(record).splitlines()
    assert [first.split("|")[i].strip() for i in (3, -2)] == ["1.60%, another network", ""]
    assert [second.split("|")[i].strip() for i in (3, -2)] == ["learns", "yes"]


# ---- What the scripts do ---------------------------------------------------------------------------------------------

# Each training, made small.
TINY = {"images": 300, "epochs": 1}


@ALL
def test_every_row_is_of_a_run_and_its_figures(chosen: Table, mnist: Path) -> None:
    assert {row.run for row in chosen.rows} == set(chosen.runs)
    figures: dict[str, dict[str, float]] = {}
    for name in list(chosen.runs)[:1] + list(chosen.runs)[-1:]:
        settings = chosen.runs[name].settings
        tiny = {key: value for key, value in TINY.items() if key in settings and chosen is not neurons.TABLE}
        figures[name] = chosen.train({**settings, **tiny}, 0)
    for row in chosen.rows:
        if row.run in figures:
            assert {row.figure, row.last or row.figure} <= set(figures[row.run])
            assert all(math.isfinite(value) for value in figures[row.run].values())


def test_the_test_set_is_not_read_where_rates_are_tried(mnist: Path) -> None:
    (x, y), seen = tables.digits({"images": 100, "held_out": True})
    whole, test = tables.digits({"images": 60_000})
    assert (len(x), len(whole[0]), len(test[0])) == (100, 60_000, 10_000)
    np.testing.assert_array_equal(seen[0], whole[0][50_000:])
    np.testing.assert_array_equal(x, whole[0][:100])
    np.testing.assert_array_equal(y, whole[1][:100])
    tried: list[dict[str, Any]] = []
    for chosen in LONG:
        few = dataclasses.replace(chosen, train=lambda choices, seed: tried.append(choices) or {"error": 0.0})
        tables.tune(few, images=100, epochs=1)
    assert all(choices["held_out"] for choices in tried)
    assert len(tried) == sum(len(chosen.runs) * len(chosen.rates) for chosen in LONG)


def test_softsign_has_its_derivative_and_a_wrong_one_is_caught() -> None:
    z = np.random.default_rng(0).standard_normal((5, 7))
    check_gradient(glorot.Softsign(), z)

    class Wrong(glorot.Softsign):
        def backward(self, da: Any) -> Any:
            return da * self.d

    with pytest.raises(HandgradError, match="dx is wrong"):
        check_gradient(Wrong(), z)


@pytest.mark.parametrize("normalised", [False, True])
def test_glorots_starts(normalised: bool) -> None:
    choices = {**glorot.RUNS["tanh N"].settings, "normalised": normalised}
    for W, _ in glorot.born(choices, np.random.default_rng(0)).weights:
        n_out, n_in = W.shape
        r = math.sqrt(6 / (n_in + n_out)) if normalised else 1 / math.sqrt(n_in)
        assert 0.99 * r < abs(W).max() <= r * (1 + 1e-6)


def test_nielsens_scaled_start() -> None:
    network = nielsen.scaled(Network([784, 200, 10], init="lecun", rng=0), 0)
    dense = network.layers[0]
    assert dense.W.std() == pytest.approx(1 / 28, rel=0.02)
    assert dense.b.std() == pytest.approx(1, rel=0.15)
    other = nielsen.scaled(Network([784, 200, 10], init="lecun", rng=0), 1)
    assert np.any(dense.b != other.layers[0].b)


def test_nielsens_scaled_start_is_of_the_runs_own_seed(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(nielsen, "scaled", lambda network, seed: seeds.append(seed))
    for seed in (0, 3):
        nielsen.train(nielsen.settings(3, images=10, epochs=1, init="scaled"), seed)
    assert seeds == [0, 3]


def test_simards_alpha_in_pixels() -> None:
    """Noise is drawn and blurred as the paper has it, and the displacement measured."""
    rng = np.random.default_rng(0)
    reach = np.arange(-20, 21)
    k = np.exp(-(reach**2) / (2 * simard.SIGMA**2))
    k /= k.sum()
    fields = rng.uniform(-1, 1, (2, 300, 300))
    for axis in (1, 2):
        fields = np.apply_along_axis(np.convolve, axis, fields, k, mode="valid")
    measured = simard.ALPHA * math.sqrt(2 * np.mean(fields**2))
    assert simard.displacement(simard.ALPHA, simard.SIGMA) == pytest.approx(measured, rel=0.05)
    assert simard.RUNS["elastic"].settings["moves"]["elastic"] == pytest.approx(1.96, abs=0.005)


# ---- What is told ----------------------------------------------------------------------------------------------------


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def kept(chosen: Table) -> dict[str, Any]:
    path = ROOT / "reproductions" / f"{chosen.name}.json"
    if not path.exists():
        pytest.skip(f"{chosen.name} has not been run")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


@ALL
def test_what_is_kept_is_of_the_settings_in_the_script(chosen: Table) -> None:
    record = kept(chosen)
    assert set(record["runs"]) == set(chosen.runs)
    for name, run in chosen.runs.items():
        assert record["runs"][name]["settings"] == json.loads(json.dumps(run.settings)), name
        seeds = [done["seed"] for done in record["runs"][name]["done"]]
        assert seeds == list(range(len(seeds))), name
        assert len(seeds) == run.seeds, name


@ALL
def test_the_table_is_that_of_what_is_kept(chosen: Table) -> None:
    told = (ROOT / "reproductions" / f"{chosen.name}.md").read_text() if kept(chosen) else ""
    assert lines(told) == chosen.lines(kept(chosen)).splitlines()
    assert chosen.rule() in " ".join(told.split())


def test_the_page_has_every_table_as_it_is() -> None:
    made_by_commands = [line for path in (ROOT / "reproductions").glob("*.md") for line in lines(path.read_text())]
    told = page.PAGE.read_text()
    assert sorted(lines(told)) == sorted(made_by_commands)
    assert page.with_tables(told) == told


def test_make_runs_every_script() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word, chosen in (("SHORT", SHORT), ("LONG", LONG)):
        (names,) = [line.partition(":= ")[2] for line in makefile.splitlines() if line.startswith(f"{word} := ")]
        assert set(names.split()) == {table.name for table in chosen}

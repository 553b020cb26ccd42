"""Records: finished seeds are not repeated, and the table is computed from the files."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handgrad.recipes import RECIPES, RESULTS, Recipe, Result
from records import run as records
from records.errors import errors_of


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs (name, seed), without training, in an empty directory."""
    runs: list[tuple[str, int]] = []

    def one(name: str, seed: int, cores: list[int], source: str) -> dict[str, Any]:
        if seed == 13:
            raise RuntimeError("power failure")
        runs.append((name, seed))
        return {"seed": seed, "correct": 9800 + seed, "seconds": 5.0 + seed, "cores": len(cores)}

    monkeypatch.setattr(records, "HERE", tmp_path)
    monkeypatch.setattr(records, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(1))
    monkeypatch.setattr(records, "as_completed", list)
    monkeypatch.setattr(records, "one", one)
    monkeypatch.setattr(records, "machine", lambda: {"cores": 2, "processor": "one"})
    monkeypatch.setattr(records, "revision", lambda: {"source": "abc", "commit": "c"})
    monkeypatch.setattr(records, "cores_here", lambda: [0, 1])
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # `run` sets it for its processes
    return runs


def test_finished_seeds_are_not_repeated(finished: list[tuple[str, int]], tmp_path: Path) -> None:
    records.run("quick", 2, 1)
    records.run("quick", 4, 1)
    assert finished == [("quick", seed) for seed in range(4)]
    with pytest.raises(RuntimeError):
        records.run("quick", 20, 2, again=True)
    assert len(json.loads((tmp_path / "quick.json").read_text())["runs"]) >= 12


def test_cores_of_a_seed_are_the_share_of_its_worker(finished: list[tuple[str, int]], tmp_path: Path) -> None:
    for name, workers, cores in [("small", 2, 1), ("best", 1, 2)]:
        records.run(name, 2, workers)
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert [record["cores"], *(run["cores"] for run in record["runs"])] == [cores] * 3
    assert finished == [("small", 0), ("small", 1), ("best", 0), ("best", 1)]


def test_file_from_another_source_is_only_replaced_with_again(
    finished: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.run("quick", 1, 1)
    kept = (tmp_path / "quick.json").read_bytes()
    monkeypatch.setattr(records, "revision", lambda: {"source": "def", "commit": "d"})
    with pytest.raises(SystemExit, match=r"quick\.json is from another source"):
        records.run("quick", 2, 1)
    assert (tmp_path / "quick.json").read_bytes() == kept
    records.run("quick", 1, 1, again=True)
    assert finished == [("quick", 0)] * 2


def test_table_has_mean_range_and_median_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "HERE", tmp_path)
    for name, correct, seconds in [
        ("best", [9963], [600.0]),
        ("ensemble", [9970], [700.0]),
        ("quick", [9840, 9850, 9860], [9.04, 3.0, 12.0]),
        ("minute-20s", [9900, 9902], [98.0, 102.0]),
    ]:
        runs = [{"correct": right, "seconds": time} for right, time in zip(correct, seconds, strict=True)]
        config = records.recipe_of(name).replace(hidden=(30, 20), shrink=1, hog=0, hog_order=1).config()
        (tmp_path / f"{name}.json").write_text(json.dumps({"recipe": config, "cores": 2, "runs": runs}))
    _, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in records.lines().splitlines()]
    assert rows == [
        ["`quick`", "784-30-20-10", "98.50% ± 0.10", "98.40 to 98.60", "3", "9.0 s", "2"],
        ["`minute` `--epochs 10`", "784-30-20-10", "99.01% ± 0.01", "99.00 to 99.02", "2", "1.7 min", "2"],
        ["`best`", "784-30-20-10", "99.63%", "99.63 to 99.63", "1", "10 min", "2"],
        ["`ensemble`", "4 x 784-30-20-10", "99.70%", "99.70 to 99.70", "1", "12 min", "2"],
    ]


def test_records_are_those_of_the_current_recipes() -> None:
    for name in records.NAMES:
        record = json.loads((records.HERE / f"{name}.json").read_text())
        assert Recipe.from_config(record["recipe"]) == records.recipe_of(name), name


def test_results_of_the_recipes_are_those_of_the_records() -> None:
    """The recipe post has no record: `make train` prints its result."""
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in records.lines().splitlines()]
    found = {
        name: Result(accuracy, time, int(cores)) for name, _, accuracy, _, _, time, cores in rows if name in RESULTS
    }
    assert {name: result for name, result in RESULTS.items() if name != "post"} == found
    assert list(RESULTS) == list(RECIPES)


def test_errors_of_a_record_are_its_wrong_predictions(
    finished: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, predictions = np.array([3, 1, 4, 1, 5]), np.array([3, 7, 4, 1, 0])
    result = records._result(RECIPES["best"].replace(seed=2), predictions, y, 1.5)
    assert (result["seed"], result["correct"]) == (2, 3)
    monkeypatch.setattr(records, "one", lambda *_: result)
    records.run("best", 1, 1)
    assert errors_of(tmp_path / "best.json") == {1: 7, 4: 0}


@pytest.mark.parametrize("workers", ["0", "2", "4"])
def test_workers_that_cannot_share_the_cores_equally_are_rejected(
    workers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(records, "cores_here", lambda: [0, 1, 2])
    monkeypatch.setattr("sys.argv", ["records.run", "quick", "--workers", workers])
    with pytest.raises(SystemExit):
        records.main()
    assert f"{workers} workers cannot share 3 cores equally" in capsys.readouterr().err

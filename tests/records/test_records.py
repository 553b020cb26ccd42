"""The records: what was run is not run again, what was run otherwise is, and the table is of what the files hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the records are no part of the package
from handgrad.recipes import RECIPES, Recipe
from records import run as records


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_turn: type) -> list[tuple[str, int]]:
    """What was run, as (name, seed), in a directory of its own; nothing is trained."""
    seen: list[tuple[str, int]] = []

    def one(name: str, seed: int, cores: list[int], source: str) -> dict[str, Any]:
        if (name, seed) == ("quick", 13):
            raise RuntimeError("the power is gone")
        seen.append((name, seed))
        return {"seed": seed, "correct": 9800 + seed, "seconds": 5.0 + seed, "cores": len(cores)}

    monkeypatch.setattr(records, "HERE", tmp_path)
    monkeypatch.setattr(records, "ProcessPoolExecutor", in_turn)
    monkeypatch.setattr(records, "as_completed", list)
    monkeypatch.setattr(records, "one", one)
    monkeypatch.setattr(records, "machine", lambda: {"cores": 2, "processor": "one"})
    monkeypatch.setattr(records, "revision", lambda: {"source": "abc", "commit": "c"})
    monkeypatch.setattr(records, "cores_here", lambda: [0, 1])
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # `run` sets it for its processes
    return seen


def test_seeds_that_are_there_are_not_run_again(ran: list[tuple[str, int]], tmp_path: Path) -> None:
    records.run("quick", 2, 1)
    records.run("quick", 4, 1)
    records.run("quick", 3, 1)
    assert ran == [("quick", seed) for seed in range(4)]
    record = json.loads((tmp_path / "quick.json").read_text())
    assert [run["seed"] for run in record["runs"]] == [0, 1, 2, 3]
    assert (record["source"], record["commit"], record["cores"]) == ("abc", "c", 2)
    assert Recipe.from_config(record["recipe"]) == records.chosen("quick")


def test_what_was_done_is_kept_when_a_run_ends_early(ran: list[tuple[str, int]], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        records.run("quick", 20, 1)
    assert len(json.loads((tmp_path / "quick.json").read_text())["runs"]) == 13


def test_a_file_of_another_source_recipe_or_machine_stays_until_asked(
    ran: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.run("quick", 1, 1)
    for what in (
        lambda: monkeypatch.setattr(records, "revision", lambda: {"source": "def", "commit": "d"}),
        lambda: monkeypatch.setitem(RECIPES, "quick", RECIPES["quick"].with_choices(lr=0.123)),
        lambda: monkeypatch.setattr(records, "machine", lambda: {"cores": 2, "processor": "another"}),
        lambda: monkeypatch.setattr(records, "cores_here", lambda: [0]),
    ):
        kept = (tmp_path / "quick.json").read_bytes()
        what()
        with pytest.raises(SystemExit, match=r"quick\.json is of another"):
            records.run("quick", 2, 1)
        assert (tmp_path / "quick.json").read_bytes() == kept
        records.run("quick", 1, 1, again=True)
    assert ran == [("quick", 0)] * 5


def test_workers_have_a_share_of_the_cores_each(ran: list[tuple[str, int]], tmp_path: Path) -> None:
    records.run("quick", 3, 2)
    record = json.loads((tmp_path / "quick.json").read_text())
    assert (record["cores"], [run["cores"] for run in record["runs"]]) == (1, [1, 1, 1])


def test_a_line_of_the_ladder_is_its_recipe_on_the_whole_training_set() -> None:
    for name in records.LADDER:
        recipe = records.chosen(name)
        its_own = RECIPES[recipe.name]
        assert recipe.validation == 0
        epochs = records.SHORTER[name][1] if name in records.SHORTER else its_own.epochs
        assert recipe == its_own.with_choices(validation=0, epochs=epochs)


def test_the_table_has_a_line_for_each_file_in_the_ladders_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "HERE", tmp_path)
    monkeypatch.setattr(records, "LADDER", ["quick", "minute-20s", "minute", "ensemble"])
    for name, correct, seconds in [
        ("ensemble", [9970], [700.0]),
        ("quick", [9840, 9850, 9860], [9.04, 3.0, 12.0]),
        ("minute-20s", [9900, 9902], [98.0, 102.0]),
    ]:
        rows = zip(range(9), correct, seconds, strict=False)
        runs = [{"seed": seed, "correct": right, "seconds": took, "cores": 2} for seed, right, took in rows]
        config = records.chosen(name).with_choices(hidden=(30, 20)).config()
        (tmp_path / f"{name}.json").write_text(json.dumps({"recipe": config, "cores": 2, "runs": runs}))
    _, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in records.lines().splitlines()]
    assert [line[0] for line in lines] == ["`quick`", "`minute` `--epochs 4`", "`ensemble`"]
    assert [line[1].partition(" x ")[0] for line in lines][2] == "5"
    assert all(line[1].endswith("-30-20-10") for line in lines)
    assert lines[0][2:] == ["98.50% ± 0.10", "98.40 to 98.60", "3", "9.0 s", "2"]
    assert lines[1][2:] == ["99.01% ± 0.01", "99.00 to 99.02", "2", "1.7 min", "2"]
    assert lines[2][2:] == ["99.70%", "99.70 to 99.70", "1", "12 min", "2"]


@pytest.mark.parametrize(
    ("seconds", "told"), [(1.04, "1.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (150, "2.5 min"), (4000, "67 min")]
)
def test_times_are_told_in_what_people_count_in(seconds: float, told: str) -> None:
    assert records._time(seconds) == told


def test_the_revision_tells_a_source_that_was_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "src").mkdir()
    (tmp_path / "records").mkdir()
    (tmp_path / "src/a.py").write_text("a = 1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "a")
    monkeypatch.setattr(records, "HERE", tmp_path / "records")
    commit = git("rev-parse", "HEAD")
    source = git("rev-parse", "HEAD:src")
    assert records.revision() == {"source": source, "commit": commit}
    (tmp_path / "records/quick.json").write_text("{}")
    assert records.revision() == {"source": source, "commit": commit}
    (tmp_path / "src/a.py").write_text("a = 2\n")
    with pytest.raises(SystemExit, match="no commit has"):
        records.revision()
    git("commit", "--quiet", "--all", "-m", "b")
    assert records.revision()["source"] != source


# ---- What is kept ----------------------------------------------------------------------------------------------------


def test_the_records_table_is_that_of_the_files() -> None:
    assert records.lines() == (records.HERE / "table.md").read_text().rstrip("\n")


def test_a_record_is_of_the_recipe_that_goes_by_its_name() -> None:
    for name in records.LADDER:
        record = json.loads((records.HERE / f"{name}.json").read_text())
        config = json.loads(json.dumps(records.chosen(name).config()))
        assert {choice: config[choice] for choice in record["recipe"]} == record["recipe"], name
        assert len(record["source"]) == len(record["commit"]) == 40
        seeds = [run["seed"] for run in record["runs"]]
        assert seeds == list(range(len(seeds)))
        assert len(seeds) >= (2 if name in ("best", "ensemble") else 5)

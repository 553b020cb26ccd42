"""The figures in the documents are those that the commands wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
RECORDS = (ROOT / "docs" / "records.md").read_text()


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_every_table_is_as_it_was_measured() -> None:
    measured = {line for path in (ROOT / "benchmarks/results").glob("*.md") for line in table_lines(path.read_text())}
    told = table_lines(PERFORMANCE)
    assert len(told) > 30
    assert [line for line in told if line not in measured] == []


def test_the_readmes_ratios_are_those_of_the_race() -> None:
    races = json.loads((ROOT / "benchmarks/results/steps.json").read_text())["races"]
    found = {(race["case"], race["optimizer"]): race["peers"] for race in races}
    rows = re.findall(
        r"^\| (784-[-0-9]+), (\d+), SGD \| (.*) \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE
    )
    assert len(rows) == 5
    for sizes, batch, told in rows:
        peers = {name: np.array(peer["step_seconds"]) for name, peer in found[f"{sizes}/{batch}", "sgd"].items()}
        names = ("torch", "torch-compile", "jax-step", "jax-scan", "sklearn")
        ratios = [float(np.median(peers[name] / peers["handgrad"])) for name in names]
        assert [float(ratio) for ratio in told.split(" | ")] == pytest.approx(ratios, rel=0.05)


def test_every_record_is_as_it_was_made() -> None:
    """The tables of docs/records.md and the README, but that of what others published, are the commands' own lines."""
    made = {line for path in (ROOT / "records").glob("*.md") for line in table_lines(path.read_text())}
    made |= set(table_lines((ROOT / "benchmarks/results/pictures.md").read_text()))
    before, _, after = RECORDS.partition("## Beside what is published")
    told = table_lines(before + after[after.index("\n## ") :])
    assert len(told) > 30
    assert [line for line in told if line not in made] == []
    table = table_lines((ROOT / "records" / "table.md").read_text())
    assert len(table) >= 9
    assert [line for line in table if line not in (ROOT / "README.md").read_text()] == []


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", PERFORMANCE + RECORDS))
def test_every_link_leads_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()


@pytest.mark.parametrize("name", re.findall(r"`(?:\w+/)*(\w+\.py)`", PERFORMANCE))
def test_every_file_that_is_named_is_there(name: str) -> None:
    assert list(ROOT.glob(f"src/**/{name}")) + list(ROOT.glob(f"benchmarks/{name}"))


def test_the_program_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PERFORMANCE, flags=re.DOTALL)
    exec(compile(program, "docs/performance.md", "exec"), {})

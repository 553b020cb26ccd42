"""The README is true: its snippets run and print what they say, its commands work, its map and figures are current."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks import readme
from benchmarks.tables import between

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(word: str) -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(word + " ")]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_every_snippet_runs_and_prints_what_it_says(number: int, request: pytest.FixtureRequest) -> None:
    snippet = blocks("python")[number]
    if '"mnist"' in snippet:
        request.getfixturevalue("mnist")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(snippet, "README.md", "exec"), {})
    expected = re.findall(r"^print\(.*\)  # (.*)$", snippet, re.MULTILINE)
    printed = said.getvalue().splitlines()
    assert len(printed) == len(expected) > 0
    for line, promise in zip(printed, expected, strict=True):
        if promise.startswith("about "):
            assert float(line) == pytest.approx(float(promise.removeprefix("about ")), abs=0.01)
        else:
            assert line == promise


def test_every_handgrad_command_works(mnist: Path, tmp_path: Path) -> None:
    picture = np.full((60, 60), 255, np.uint8)
    picture[10:50, 28:32] = 0
    Image.fromarray(picture).save(tmp_path / "digit.png")
    environment = {**os.environ, "HANDGRAD_DATA": str(mnist)}
    told = commands("handgrad")
    assert len(told) >= 6
    for command in told:
        if command[1] == "parity" and find_spec("torch") is None:  # of the extra peers
            continue
        if command[1] == "train":  # as it stands, but for one epoch
            command = [*command, "--epochs", "1"] if "--resume" not in command else command
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)


def test_every_make_target_and_extra_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {command[1] for command in commands("make")} | set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"train", "test"} <= told <= targets
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\[(\w+)\]\"", " ".join(" ".join(c) for c in blocks("console")))) <= set(extras)


def test_what_commands_made_is_as_they_made_it() -> None:
    """The race, the records, the book's figures, and the map with the lines of code as they are: `make readme`."""
    assert readme.filled(README) == README
    for part in ("| 784-30-10, 10, SGD |", "| `minute` ", "| 784-30-10, cross-entropy ", "| `layers.py` |"):
        assert part in README


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""Doc\n\nstring."""\n\n# comment\nx = 1  # and one\n\n', 1),
        ('def f(\n    a,\n):\n    """Doc."""\n    return """a\nb"""\n', 5),
        ('async def f():\n    """Doc."""\n\n\nclass C:\n    """Doc.\n\n    And so on."""\n', 2),
        ('x = """\n\n# no comment\n"""\n"""no docstring,\n\nfor it comes later"""\n', 4 + 3),
        ('x = f"""\n\n# {1}\n\n{\n2}"""\n', 6),
        ("x = (\n    1,  # one\n\n    # none\n)\n", 3),
        ('def é(): "é"; return """a\n\nb"""\n', 3),
        ('def f():\n    "a" \\\n    "docstring"\n', 1),
        ("", 0),
    ],
)
def test_a_line_of_code_is_neither_blank_nor_comment_nor_docstring(source: str, lines: int) -> None:
    assert readme.code_lines(source) == lines


def test_the_map_wants_words_for_every_file() -> None:
    with pytest.raises(SystemExit, match=r"not in both: layers\.py"):
        readme.source_map(README.replace("| `layers.py` |", "| `strata` |"))


def test_a_part_that_has_no_place_is_refused() -> None:
    text = "above\n<!-- map -->\nold\n<!-- /map -->\nbelow"
    assert between(text, {"map": "new"}) == "above\n<!-- map -->\n\nnew\n\n<!-- /map -->\nbelow"
    for bad in (text.replace("/map", "/race"), text.replace("<!-- map", "<!-- race"), ""):
        with pytest.raises(ValueError, match="no place for map"):
            between(bad, {"map": "new"})


def test_training_says_what_the_readme_shows(mnist: Path, tmp_path: Path) -> None:
    """Line by line; of what was measured the words alone, for figures differ between machines."""
    command = [sys.executable, "-m", "handgrad", "train", "--recipe", "post", "--epochs", "2"]
    environment = {**os.environ, "HANDGRAD_DATA": str(mnist)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    def words(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if line != "..."]
        return [re.sub(r" *\d[\d,.]*", " 0", x) if x.startswith(("epoch ", "test:")) else x for x in lines]

    (shown,) = re.findall(r"<!-- train -->\n\n```text\n(.*?)```", README, re.DOTALL)
    assert words(shown) == words(done.stdout)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link

"""The README is true: its snippets run and print what they say, its commands work, its map and figures are current."""

from __future__ import annotations

import ast
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


def test_the_map_has_every_file_and_its_lines_of_code() -> None:
    told = {
        name: int(lines) for name, lines in re.findall(r"^\| `([\w/]+\.py)` \|.*\| (\d+) \|$", README, re.MULTILINE)
    }
    package = ROOT / "src" / "handgrad"
    have = {str(path.relative_to(package)): path for path in package.rglob("*.py") if not path.name.startswith("__")}
    assert set(told) == set(have)
    for name, path in have.items():
        assert told[name] == pytest.approx(code_lines(path.read_text()), rel=0.1, abs=5), name


def code_lines(source: str) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for i, line in lines if line.strip() and not line.lstrip().startswith("#") and i not in docstrings)


def test_the_results_are_those_that_the_command_made() -> None:
    rows = [line for line in (ROOT / "reproductions" / "nielsen.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 6
    for row in rows:
        assert row in README


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link

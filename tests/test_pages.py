"""The executed pages are whole before Sphinx runs them: header, notebook, cells, links, nothing from elsewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
TOCTREES = [
    [line for line in body.splitlines() if line and not line.startswith(":")]
    for body in re.findall(r"```{toctree}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
]
STORY, LATER, HOUSE = TOCTREES
TEXTS = {path.stem: path.read_text() for path in DOCS.glob("*.md")}
# One line, its title: a page that is still to be written.
CHAPTERS = [name for name in STORY + LATER if name != "errata" and len(TEXTS.get(name, "").splitlines()) > 1]
EXECUTED = [name for name, text in TEXTS.items() if "{code-cell}" in text]
HEADER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3}
---

# """
TAGS = {"hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell", "raises-exception"}
ELSEWHERE = re.compile(r"<script|<link|<img|<iframe|!\[[^]]*\]\(https?:|\bcdn\b|https?://\S+\.(?:js|css|woff2?)\b")


def cells(text: str) -> list[tuple[list[str], str]]:
    """The tags and the code of each cell."""
    found = re.findall(r"^```{code-cell}[^\n]*\n(?::tags: \[([^]]*)\]\n)?(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [([tag.strip() for tag in tags.split(",") if tag], code) for tags, code in found]


def faults(name: str, text: str) -> list[str]:
    """What is wrong with an executed page, in words."""
    wrong = []
    if not text.startswith(HEADER):
        wrong.append("does not begin with the notebook's header and a title")
    if f"{{nb-download}}`{name}.ipynb`" not in text:
        wrong.append("does not offer its notebook")
    if not cells(text) or len(cells(text)) != text.count("{code-cell}"):
        wrong.append("has no cell, or one that is not closed")
    for tags, code in cells(text):
        if set(tags) - TAGS:
            wrong.append(f"has unknown tags: {tags}")
        try:
            ast.parse(code)
        except SyntaxError as error:
            wrong.append(f"has a cell that is no Python: {error}")
    if ELSEWHERE.search(text):
        wrong.append(f"takes something from elsewhere: {ELSEWHERE.search(text)}")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        if not (DOCS / target).exists():
            wrong.append(f"links to {target}, which is not there")
    return wrong


def test_the_contents_name_every_page_and_no_other() -> None:
    named = STORY + LATER + HOUSE
    assert len(named) == len(set(named))
    assert set(named) == set(TEXTS) - {"index"}


@pytest.mark.parametrize("name", EXECUTED)
def test_a_page_that_is_run_is_whole(name: str) -> None:
    assert faults(name, TEXTS[name]) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_is_run(name: str) -> None:
    assert name in EXECUTED


@pytest.mark.parametrize("here", [name for name in STORY[:-2] if name in CHAPTERS])
def test_a_chapter_of_the_story_leads_to_the_next(here: str) -> None:
    last = TEXTS[here].rstrip().rsplit("\n\n", 1)[-1]
    assert f"]({STORY[STORY.index(here) + 1]}.md)" in last


def test_faults_are_found() -> None:
    good = HEADER + "A page\n\n{nb-download}`page.ipynb`\n\n```{code-cell}\n:tags: [hide-input]\nx = 1\n```\n"
    assert faults("page", good) == []
    bad = [
        good.removeprefix("---\n"),
        good.replace("page.ipynb", "other.ipynb"),
        good.replace("x = 1\n```", "x = 1\n"),
        good.replace("hide-input", "hidden"),
        good.replace("x = 1", "x = "),
        good + '<script src="https://cdn.example.org/mathjax.js"></script>',
        good + "![a picture](https://example.org/a.png)",
        good + "[a page](nowhere.md#at-all)",
    ]
    assert [len(faults("page", text)) for text in bad] == [1] * len(bad)


def test_formulas_are_set_without_the_net() -> None:
    configuration = (DOCS / "conf.py").read_text()
    assert "sphinx-mathjax-offline" in configuration
    assert not ELSEWHERE.search(configuration)
    assert "mathjax_path" not in configuration

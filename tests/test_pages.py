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
CHAPTERS = [name for name in STORY + LATER if name != "errata"]
EXECUTED = [name for name, text in TEXTS.items() if "{code-cell}" in text]
HEADER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3}
---

# """
TAGS = {"hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell", "raises-exception"}
ELSEWHERE = re.compile(r"<script|<link|<img|<iframe|!\[[^]]*\]\(https?:|\bcdn\b|https?://\S+\.(?:js|css|woff2?)\b")


CELL = re.compile(r"^```{code-cell}[^\n]*\n((?::\w+: [^\n]*\n)*)(.*?)^```$", re.DOTALL | re.MULTILINE)
OPTIONS = re.compile(r"(?::tags: \[([^]\n]*)\]\n)?(?::mystnb: {image: {alt: \"([^\"\n]*)\"}}\n)?")
FIGURES = {"plt.subplots", "plt.figure"}


def cells(text: str) -> list[tuple[list[str], str, str]]:
    """The tags, the alternative text and the code of each cell whose options are of the two known kinds."""
    found = [(OPTIONS.fullmatch(options), code) for options, code in CELL.findall(text)]
    return [
        ([tag.strip() for tag in (match[1] or "").split(",") if tag], match[2] or "", code)
        for match, code in found
        if match
    ]


def draws(tree: ast.Module, drawers: set[str]) -> bool:
    """Whether a cell makes a figure. Functions that make one when they are called are added to the drawers."""
    drawn = False
    for statement in tree.body:
        called = {ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)}
        if called & drawers:
            if isinstance(statement, ast.FunctionDef):
                drawers.add(statement.name)
            else:
                drawn = True
    return drawn


def faults(name: str, text: str) -> list[str]:
    """What is wrong with an executed page, in words."""
    wrong = []
    if not text.startswith(HEADER):
        wrong.append("does not begin with the notebook's header and a title")
    if f"{{nb-download}}`{name}.ipynb`" not in text:
        wrong.append("does not offer its notebook")
    if not cells(text) or len(cells(text)) != text.count("{code-cell}"):
        wrong.append("has no cell, or one that is not closed, or one with unknown options")
    drawers = set(FIGURES)
    for tags, alt, code in cells(text):
        if set(tags) - TAGS:
            wrong.append(f"has unknown tags: {tags}")
        try:
            drawn = draws(ast.parse(code), drawers)
        except SyntaxError as error:
            wrong.append(f"has a cell that is no Python: {error}")
            continue
        if drawn != bool(alt):
            wrong.append(f"has a picture without a text, or a text without a picture: {code[:60]!r}")
        if re.search(r"[\"']#[0-9A-Fa-f]{6}[\"']", code):
            wrong.append(
                f"has a colour of its own, which may not be read on black, where the style has C0, C1: {code[:60]!r}"
            )
        if alt and not alt.endswith("."):
            wrong.append(f"says of a picture what is no sentence: {alt}")
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


@pytest.mark.parametrize("here", STORY[:-2])
def test_a_chapter_of_the_story_leads_to_the_next(here: str) -> None:
    last = TEXTS[here].rstrip().rsplit("\n\n", 1)[-1]
    assert f"]({STORY[STORY.index(here) + 1]}.md)" in last


def test_faults_are_found() -> None:
    good = HEADER + "A page\n\n{nb-download}`page.ipynb`\n\n```{code-cell}\n:tags: [hide-input]\nx = 1\n```\n"
    alt = ':mystnb: {image: {alt: "A line, rising."}}\n'
    picture = "```{code-cell}\n" + alt + "fig, ax = plt.subplots()\n```\n"
    function = "```{code-cell}\ndef draw():\n    plt.figure()\n```\n"
    call = "```{code-cell}\n" + alt + "draw()\n```\n"
    assert faults("page", good + picture + function + call) == []
    bad = [
        good.removeprefix("---\n"),
        good.replace("page.ipynb", "other.ipynb"),
        good.replace("x = 1\n```", "x = 1\n"),
        good.replace("hide-input", "hidden"),
        good.replace("x = 1", "x = "),
        good + '<script src="https://cdn.example.org/mathjax.js"></script>',
        good + "![a picture](https://example.org/a.png)",
        good + "[a page](nowhere.md#at-all)",
        good + picture.replace(alt, ""),
        good + picture.replace("plt.subplots()", "None"),
        good + picture.replace("rising.", "rising"),
        good + picture.replace("alt:", "text:"),
        good + function + call.replace(alt, ""),
        good.replace("x = 1", 'x = "#0072B2"'),
    ]
    assert [len(faults("page", text)) for text in bad] == [1] * len(bad)


def contrast(one: str, other: str) -> float:
    """Of two colours rrggbb, from 1 to 21: WCAG 2, relative luminances."""
    linear = [
        [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in bytes.fromhex(colour))]
        for colour in (one, other)
    ]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)


def test_inks_are_read_on_white_and_on_black() -> None:
    assert contrast("ffffff", "000000") == pytest.approx(21)
    assert contrast("ffffff", "e69f00") == pytest.approx(2.25, abs=0.01)
    style = (DOCS / "handgrad.mplstyle").read_text()
    texts = re.findall(r"^(?:text|axes|xtick|ytick)\.\w*color: (\w{6})$", style, re.MULTILINE)
    lines = re.findall(r'"([0-9a-f]{6})"', style)
    assert len(texts) == 6
    assert len(set(lines)) == 6
    for page in ("ffffff", "000000"):
        assert min(contrast(ink, page) for ink in texts) >= 4.5
        assert min(contrast(ink, page) for ink in lines) >= 3.5
    assert contrast(lines[0], lines[1]) > 1.3  # most pictures have two lines, and may be printed in grey


def test_formulas_are_set_without_the_net() -> None:
    configuration = (DOCS / "conf.py").read_text()
    assert "sphinx-mathjax-offline" in configuration
    assert not ELSEWHERE.search(configuration)
    assert "mathjax_path" not in configuration

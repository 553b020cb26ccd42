"""The notebooks that readers download: they need no file of the repository, and Jupyter shows their text correctly.

`make docs` executes every page in an empty directory.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CELL = re.compile(r"^```{code-cell}[^\n]*\n(?::\w+: [^\n]*\n)*(.*?)^```$", re.S | re.M)
PAGES = {path: path.read_text() for path in sorted((ROOT / "docs").glob("[!_]*/**/*.md"))}
NOTEBOOKS = {path: text for path, text in PAGES.items() if "{nb-download}" in text}
CODE_CELL = re.compile(r"^```{code-cell}[^\n]*\n(?::tags: \[([^\n]*)\]\n)?(?::\w+: [^\n]*\n)*(.*?)^```$", re.S | re.M)
REPOSITORY = {path.name for path in ROOT.iterdir() if path.is_dir()}


def load_extension(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = load_extension("notebooks")


def needs_the_repository(code: str) -> list[str]:
    """What the code of a page uses that is not installed with handgrad: modules, sys.path, relative files."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            modules = []
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("../"):
                found.append(node.value)
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
                found.append("sys.path")
        tops = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
        found += sorted(tops & REPOSITORY)
    return found


def test_a_page_that_is_offered_as_a_notebook_uses_only_what_is_installed() -> None:
    found = {path.stem: needs_the_repository("\n".join(CELL.findall(text))) for path, text in NOTEBOOKS.items()}
    assert {page: names for page, names in found.items() if names} == {}


def test_the_names_of_the_notebooks_are_unique() -> None:
    assert len({path.stem for path in NOTEBOOKS}) == len(NOTEBOOKS)


def test_code_that_needs_the_repository_is_noticed() -> None:
    assert needs_the_repository("from handgrad.data import load\nimport numpy as np\nopen('digit.png', 'w')") == []
    code = "import sys\nsys.path.insert(0, '../examples')\nfrom benchmarks.steps import main\nimport records"
    assert sorted(needs_the_repository(code)) == ["../examples", "benchmarks", "records", "sys.path"]


def test_the_text_of_a_notebook_has_no_syntax_of_sphinx(tmp_path: Path) -> None:
    tmp_path.joinpath("neuron.svg").write_text("<svg/>")
    text = (
        "# Title\n\nDownload this page as a notebook: {nb-download}`title.ipynb`\n\n"
        ":::{admonition} What you will learn\n:class: tip\n\n- one\n- two\n:::\n\n<!-- lab: xor -->\n"
        "See {download}`the post <../../examples/post.py>`, [losses](losses.md#softmax) and [it](https://a.org).\n\n"
        "![A neuron](neuron.svg)\n"
    )
    image = base64.b64encode(b"<svg/>").decode()
    assert notebooks.portable_text(text, tmp_path) == (
        "# Title\n\n\n> **What you will learn**\n>\n> - one\n> - two\n\n"
        "See the post, *losses* and [it](https://a.org).\n\n"
        f"![A neuron](data:image/svg+xml;base64,{image})\n"
    )


def test_the_links_of_a_notebook_are_absolute_if_the_address_of_the_documentation_is_known() -> None:
    directory = ROOT / "docs" / "tutorials"
    text = "[losses](losses.md#softmax), [notation](../reference/notation.md), [here](#here)"
    assert notebooks.portable_text(text, directory, "https://a.org/docs/") == (
        "[losses](https://a.org/docs/tutorials/losses.html#softmax), "
        "[notation](https://a.org/docs/reference/notation.html), here"
    )


def test_cells_that_only_draw_are_collapsed_in_jupyter_and_stay_unchanged() -> None:
    cell: dict[str, Any] = {"cell_type": "code", "metadata": {"tags": ["remove-input"]}, "source": ["plot()\n", "x"]}
    other: dict[str, Any] = {"cell_type": "code", "metadata": {}, "source": ["y"]}
    result = notebooks.portable({"cells": [cell, other], "nbformat": 4}, ROOT)
    assert result["cells"][0]["metadata"]["jupyter"] == {"source_hidden": True}
    assert [cell["source"] for cell in result["cells"]] == [["plot()\n", "x"], ["y"]]
    assert result["cells"][1]["metadata"] == {}


def code_cells(page: str) -> list[str]:
    """The code of the notebook that is made from a page, cell by cell."""
    cells = [
        {"cell_type": "code", "metadata": {"tags": tags.split(", ")}, "source": [code]}
        for tags, code in CODE_CELL.findall(page)
    ]
    return ["".join(cell["source"]) for cell in notebooks.portable({"cells": cells}, ROOT)["cells"]]


def test_a_notebook_has_no_hidden_assertions_and_keeps_those_of_a_solution() -> None:
    page = (
        "```{code-cell}\nx = 1\n```\n\n"
        "```{code-cell}\n:tags: [remove-cell]\nfor value in [x]:\n    assert value == 1\n```\n\n"
        "```{code-cell}\n:tags: [remove-cell]\nimport math\n```\n\n"
        '```{code-cell}\n:tags: [hide-cell]\n:mystnb: {code_prompt_show: "Show the solution"}\nassert x == 1\n```\n'
    )
    assert code_cells(page) == ["x = 1\n", "import math\n", "assert x == 1\n"]


def test_no_cell_needs_a_name_that_only_a_hidden_assertion_defines(tmp_path: Path) -> None:
    for path, page in NOTEBOOKS.items():
        tmp_path.joinpath(path.stem).with_suffix(".py").write_text("\n".join(code_cells(page)))
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select=F821",
        "--output-format=concise",
        "-q",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr

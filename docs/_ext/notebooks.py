"""The notebooks that readers download: made from the pages so that they run and read well in Jupyter, anywhere.

Jupyter does not know the directives, roles and relative links of Sphinx. `portable` replaces them. It leaves out the
hidden assertions, which check the numbers of the text during the build: another processor may round differently.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

DOWNLOAD = re.compile(r"^Download this page as a notebook:.*\n?", re.MULTILINE)
COMMENT = re.compile(r"^<!--.*?-->\n?", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(
    r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w-]+)\} *(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)$", re.M | re.S
)
OPTION = re.compile(r"\A(?::[\w-]+:.*\n)+\n?")
ROLE = re.compile(r"\{[\w:]+\}`([^`<]+?)(?: *<[^>]*>)?`")
IMAGE = re.compile(r"!\[(?P<alt>[^]]*)\]\((?P<file>[^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[(?P<text>[^]]*)\]\((?P<target>[^)\s]+)\)")
MIME = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}
ASSERTION = re.compile(r"^\s*assert\b", re.MULTILINE)
HIDDEN = {"hide-cell", "hide-input", "remove-input", "remove-cell"}  # tags


def portable(notebook: dict[str, Any], directory: Path, base_url: str = "") -> dict[str, Any]:
    """Return a notebook whose text needs no other file.

    Parameters
    ----------
    notebook : dict
        The notebook as JSON.
    directory : Path
        The directory of the page, to which its links are relative.
    base_url : str
        Address of the documentation. Without it, links to other pages become plain text.
    """
    cells = []
    for cell in notebook["cells"]:
        source, tags = "".join(cell["source"]), set(cell["metadata"].get("tags", ()))
        if cell["cell_type"] == "markdown":
            source = portable_text(source, directory, base_url)
            if not source.strip():
                continue
        elif "remove-cell" in tags and ASSERTION.search(source):
            continue  # no later cell needs the names that it defines, as a test checks
        elif HIDDEN & tags:
            cell["metadata"].setdefault("jupyter", {})["source_hidden"] = True  # collapsed in Jupyter
        cells.append({**cell, "source": source.splitlines(keepends=True)})
    return {**notebook, "cells": cells}


def portable_text(text: str, directory: Path, base_url: str = "") -> str:
    """Replace the syntax of Sphinx in Markdown: directives become quotations, images are embedded, links absolute."""

    def quote(match: re.Match[str]) -> str:
        body = OPTION.sub("", match["body"])
        heading = [f"**{match['title'] or match['name'].capitalize()}**", ""]
        return "\n".join(f"> {line}".rstrip() for line in [*heading, *body.splitlines()])

    def embed(match: re.Match[str]) -> str:
        path = directory / match["file"]
        mime = MIME.get(path.suffix)
        if mime is None or not path.exists():
            return match[0]
        return f"![{match['alt']}](data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()})"

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if re.match(r"\w+:", target):
            return match[0]
        if not target:
            return match["text"]  # an anchor of the same page, which Jupyter names differently
        if not base_url or not target.endswith(".md"):
            return f"*{match['text']}*"
        page = (directory / target).resolve().relative_to(Path(__file__).parents[1]).with_suffix(".html")
        return f"[{match['text']}]({base_url.rstrip('/')}/{page.as_posix()}{'#' * bool(anchor)}{anchor})"

    text = DIRECTIVE.sub(quote, COMMENT.sub("", DOWNLOAD.sub("", text)))
    return IMAGE.sub(embed, LINK.sub(link, ROLE.sub(r"\1", text)))


def clean_notebooks(app: Any, error: Exception | None) -> None:
    """Make all notebooks of a build portable."""
    if error is not None:
        return
    files = [Path(app.srcdir, f"{name}.md") for name in app.env.found_docs]
    pages = {path.stem: path.parent for path in files if "{nb-download}" in path.read_text()}  # their names are unique
    for path in Path(app.outdir).glob("_downloads/*/*.ipynb"):
        notebook = portable(json.loads(path.read_text()), pages[path.stem], app.config.html_baseurl)
        path.write_text(json.dumps(notebook, indent=1) + "\n")


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", clean_notebooks)
    return {"parallel_read_safe": True}

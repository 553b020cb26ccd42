"""Table cells with a number, a range or a short quantity are never broken into several lines."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

QUANTITY = re.compile(r"[-+−±~<>≤≥×%°·.,:;/()\[\]\d\sa-zA-Zµ]{1,26}")
NUMBER_FIRST = re.compile(r"[-+−±~<>≤≥(\[]?\s*(?:about )?\d")


def keep_numbers_together(app: Any, document: nodes.document, docname: str) -> None:
    """Give cells such as "99.16% ± 0.02" and "3.6 min" the class "number"."""
    for entry in document.findall(nodes.entry):
        text = entry.astext().strip()
        if NUMBER_FIRST.match(text) and QUANTITY.fullmatch(text) and len(text.split()) <= 5:
            entry["classes"].append("number")


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-resolved", keep_numbers_together)
    return {"parallel_read_safe": True}

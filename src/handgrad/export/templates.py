"""Templates of exported files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np

from ..arrays import Array

# ---- What is written: a template, filled -----------------------------------------------------------------------------


def render(template: str, values: Mapping[str, Any]) -> str:
    """The template with every «name» replaced by its value.

    A line that is nothing but «name», of a list, becomes its lines, each as far in as it; of an empty one it is gone. A
    line that begins with «?name» is there only where that is true.
    """
    lines: list[str] = []
    for line in template.strip("\n").split("\n"):
        asked = re.match("«\\?(\\w+)»", line)
        if asked is not None:
            if not values[asked[1]]:
                continue
            line = line[asked.end() :]
        alone = re.fullmatch("( *)«(\\w+)»", line)
        if alone is not None and isinstance(values[alone[2]], list):
            lines += [f"{alone[1]}{part}".rstrip() for part in values[alone[2]]]
        else:
            lines.append(re.sub("«(\\w+)»", lambda name: str(values[name[1]]), line))
    return "\n".join(lines) + "\n"


def functions(sources: Mapping[str, str], used: Container[str]) -> list[str]:
    """The lines of those functions that are used, an empty line before each."""
    return [line for word, text in sources.items() if word in used for line in text.rstrip("\n").split("\n")]


def shown(name: str) -> str:
    """A file's name as it may stand in any comment: letters, digits, and what can neither end a line nor a comment."""
    return re.sub(r"[^\w .,+=@()-]", "_", name)


def identifier(name: str) -> str:
    """A name for a variable or function in C, from a file's name."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return word if word and not word[0].isdigit() else f"model_{word}".rstrip("_")


def quoted(text: str) -> str:
    """A string in Python's source, in ASCII."""
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def packed(items: Iterable[str], indent: str, width: int = WIDTH) -> list[str]:
    """Items with commas between, as many to a line as it holds."""
    lines: list[str] = []
    line = indent
    for item in items:
        if line != indent and len(line) + len(item) + 1 > width:
            lines.append(line.rstrip())
            line = indent
        line += f"{item}, "
    return [*lines, line.rstrip()]


def called(name: str, items: Iterable[str], opening: str, closing: str, indent: str = "    ") -> list[str]:
    """`name = [items]`, on a line of its own where it fits."""
    items = list(items)
    whole = f"{name} = {opening}{', '.join(items)}{closing}"
    if opening == "(" and len(items) == 1:
        whole = f"{name} = ({items[0]},)"
    return [whole] if len(whole) <= WIDTH else [f"{name} = {opening}", *packed(items, indent), closing]


def paragraphs(texts: Iterable[str], indent: str = "") -> list[str]:
    """Lines of these paragraphs, one empty line between two."""
    lines: list[str] = []
    for text in texts:
        lines += ["", *textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)]
    return [f"{indent}{line}".rstrip() for line in lines[1:]]


def base64_lines(array: Array) -> list[str]:
    """The numbers as little-endian float32, in base64."""
    from base64 import b64encode

    text = b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
    return [text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]

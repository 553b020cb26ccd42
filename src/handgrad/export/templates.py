"""Templates of exported files, and the functions that format names, text and numbers in them."""

from __future__ import annotations

import json
import re
import textwrap
from base64 import b64encode
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np

from ..arrays import Array

WIDTH = 100  # characters per line in exported files


def render(template: str, values: Mapping[str, Any]) -> str:
    """Replace every «name» in a template by its value.

    Parameters
    ----------
    template : str
        Text. Newlines at the start and at the end are ignored.
    values : mapping
        Values by name. If «name» is alone on a line, each line of the value gets the indentation of that line, and an
        empty value removes the line.

    Returns
    -------
    str
        The text, with one newline at the end.

    Raises
    ------
    KeyError
        If a name has no value.
    """
    lines: list[str] = []
    for line in template.strip("\n").split("\n"):
        block = re.fullmatch("( *)«(\\w+)»", line)
        if block is None:
            lines.append(re.sub("«(\\w+)»", lambda name: str(values[name[1]]), line))
        elif values[block[2]] != "":
            lines += [f"{block[1]}{part}".rstrip() for part in str(values[block[2]]).split("\n")]
    return "\n".join(lines) + "\n"


def used_functions(sources: Mapping[str, str], used: Container[str]) -> str:
    """Return the source of the functions whose names are in `used`, without the last newline."""
    return "".join(text for name, text in sources.items() if name in used).removesuffix("\n")


# ---- Names and strings from the model --------------------------------------------------------------------------------


def safe_filename(name: str) -> str:
    """Return a file name that is safe in any comment or docstring: without quotes, backslashes, `*/` and newlines."""
    return re.sub(r"[^\w .,+=@()-]", "_", name)


def identifier(name: str) -> str:
    """Return a C and JavaScript identifier for a file name."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return word if word and not word[0].isdigit() else f"model_{word}".rstrip("_")


def python_string(text: str) -> str:
    """Return a Python string literal in ASCII."""
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def js_string(text: str) -> str:
    """Return a JavaScript string literal in ASCII. `<` and `>` are escapes, so that no text ends an HTML script."""
    return json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e")


def c_string(text: str) -> str:
    """Return a C string literal. Bytes that are not plain ASCII are octal escapes, which end after three digits."""
    data = text.encode("utf-8", "backslashreplace")
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in data) + '"'


# ---- Layout ----------------------------------------------------------------------------------------------------------


def wrap(items: Iterable[str], indent: str, width: int = WIDTH) -> list[str]:
    """Return lines of comma-separated items, each line as full as `width` allows."""
    lines: list[str] = []
    line = indent
    for item in items:
        if line != indent and len(line) + len(item) + 1 > width:
            lines.append(line.rstrip())
            line = indent
        line += f"{item}, "
    return [*lines, line.rstrip()]


def assignment(name: str, items: Iterable[str], opening: str, closing: str, indent: str = "    ") -> str:
    """Return the source of `name = [items]`, on one line if it fits."""
    items = list(items)
    line = f"{name} = {opening}{', '.join(items)}{closing}"
    if opening == "(" and len(items) == 1:
        line = f"{name} = ({items[0]},)"
    return line if len(line) <= WIDTH else "\n".join([f"{name} = {opening}", *wrap(items, indent), closing])


def paragraphs(texts: Iterable[str], indent: str = "") -> str:
    """Return paragraphs of wrapped lines, separated by empty lines."""
    lines: list[str] = []
    for text in texts:
        lines += ["", *textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)]
    return "\n".join(f"{indent}{line}".rstrip() for line in lines[1:])


def align_comments(text: str) -> str:
    """Align the comments at the end of lines, `  # `, in each block of lines without an empty line."""
    blocks = [[line.partition("  # ") for line in block.split("\n")] for block in text.split("\n\n")]
    lines = []
    for block in blocks:
        column = max((len(code) for code, mark, _ in block if mark), default=0)
        lines.append("\n".join(f"{code:{column}}  # {comment}" if mark else code for code, mark, comment in block))
    return "\n\n".join(lines)


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def base64_lines(array: Array) -> list[str]:
    """Return the values as little-endian float32 in base64, WIDTH characters per line."""
    text = b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
    return [text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]

"""Put the tables of the reproductions, as their commands wrote them, into docs/reproductions.md and the README.

    python -m reproductions.page

A table stands between <!-- NAME --> and <!-- /NAME -->; the README has those rows of Nielsen's that are of the
quadratic cost and of cross-entropy on all 50,000 digits.
"""

from __future__ import annotations

import re

from benchmarks.tables import save

from .tables import HERE

PAGE = HERE.parent / "docs" / "reproductions.md"
README = HERE.parent / "README.md"
IN_README = re.compile(r"\| 784-(30|100)-10, (quadratic, lr 3|cross-entropy) .*\| +test, best epoch")


def table(name: str) -> list[str]:
    """The lines of NAME.md's table; none where it has not been made."""
    path = HERE / f"{name}.md"
    return [line for line in path.read_text().splitlines() if line.startswith("|")] if path.exists() else []


def with_tables(text: str) -> str:
    """The text, each table in it as it is now."""

    def one(match: re.Match[str]) -> str:
        name, part = match[1], match[2] or ""
        lines = table(name)
        if part:
            lines = lines[:2] + [line for line in lines if IN_README.match(line)]
        return "\n".join([f"<!-- {name}{part} -->", "", *lines, *([""] * bool(lines)), f"<!-- /{name} -->"])

    return re.sub(r"<!-- (\w+)( in short)? -->\n.*?<!-- /\1 -->", one, text, flags=re.DOTALL)


def main() -> None:
    """Both files."""
    for path in (PAGE, README):
        save(path, with_tables(path.read_text()))


if __name__ == "__main__":
    main()

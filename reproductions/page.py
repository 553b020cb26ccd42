"""Put the tables of the reproductions, as their commands wrote them, into docs/reproductions.md.

    python -m reproductions.page

A table stands between <!-- NAME --> and <!-- /NAME -->.
"""

from __future__ import annotations

from benchmarks.tables import between, save

from .tables import HERE

PAGE = HERE.parent / "docs" / "reproductions.md"


def with_tables(text: str) -> str:
    """The text, each table in it as it is now, and how it was made below it."""
    parts = {path.stem: path.read_text().partition("\n\n")[2].strip() for path in HERE.glob("*.md")}
    return between(text, parts)


def main() -> None:
    """The page."""
    save(PAGE, with_tables(PAGE.read_text()))


if __name__ == "__main__":
    main()

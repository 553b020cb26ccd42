"""Update the tables in docs/explanation/reproductions.md from reproductions/NAME.md.

    python -m reproductions.page

A table is placed between <!-- NAME --> and <!-- /NAME -->.
"""

from __future__ import annotations

from benchmarks.tables import between, save

from .tables import HERE

PAGE = HERE.parent / "docs" / "explanation" / "reproductions.md"


def with_tables(text: str) -> str:
    """Return the text with the current tables, each followed by its rule of agreement."""
    parts = {path.stem: path.read_text().partition("\n\n")[2].strip() for path in HERE.glob("*.md")}
    return between(text, parts)


def main() -> None:
    """Run the command line."""
    save(PAGE, with_tables(PAGE.read_text()))


if __name__ == "__main__":
    main()

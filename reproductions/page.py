"""Put the tables of the reproductions, as their commands wrote them, into docs/reproductions.md.

    python -m reproductions.page

A table stands between <!-- NAME --> and <!-- /NAME -->.
"""

from __future__ import annotations

from benchmarks.tables import between, save

from .tables import HERE

PAGE = HERE.parent / "docs" / "reproductions.md"


def table(name: str) -> list[str]:
    """The lines of NAME.md's table."""
    return [line for line in (HERE / f"{name}.md").read_text().splitlines() if line.startswith("|")]


def with_tables(text: str) -> str:
    """The text, each table in it as it is now."""
    return between(text, {path.stem: "\n".join(table(path.stem)) for path in HERE.glob("*.md")})


def main() -> None:
    """The page."""
    save(PAGE, with_tables(PAGE.read_text()))


if __name__ == "__main__":
    main()

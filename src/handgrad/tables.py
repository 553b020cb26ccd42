"""Tables that show themselves: aligned text in a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import printable

MAX_CELL = 200  # characters


class Table:
    """A table of text. `print(table)` shows aligned columns, and a notebook shows an HTML table.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        Cells. A column is aligned to the right if all its cells are numbers.
    caption : str
        A line below the table.
    """

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
        self.header, self.caption = tuple(header), printable(caption)
        self.rows = [tuple(printable(cell, MAX_CELL) for cell in row) for row in rows]

    def __repr__(self) -> str:
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        right = [_are_numbers(column[1:]) for column in columns]
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in (self.header, *self.rows)
        ]
        rule = "─" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, *([self.caption] if self.caption else [])])

    def _repr_html_(self) -> str:
        """Return the table in HTML, with all text escaped."""
        from html import escape  # late: only notebooks need it

        right = [_are_numbers(column) for column in zip(*self.rows, strict=True)] or [False] * len(self.header)

        def row(tag: str, cells: Sequence[str]) -> str:
            styled = zip(cells, right, strict=True)
            return "".join(
                f'<{tag} style="text-align: {"right" if number else "left"}">{escape(cell)}</{tag}>'
                for cell, number in styled
            )

        body = "".join(f"<tr>{row('td', cells)}</tr>" for cells in self.rows)
        caption = f"<p>{escape(self.caption)}</p>" if self.caption else ""
        return f"<table><thead><tr>{row('th', self.header)}</tr></thead><tbody>{body}</tbody></table>{caption}"


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether each cell is empty or starts like a number."""
    return all(cell.lstrip("-")[:1].isdigit() for cell in cells if cell)

"""Tables: CSV files with one example per row and a column of labels."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError
from ..io.atomic import read_bytes
from .dataset import Dataset, shorten
from .idx import decompress

LABELS = ("label", "labels", "class", "classes", "target", "y")  # names of the column of labels, any case
INDICES = ("", "id", "index", "unnamed: 0")  # names of columns that number the rows
MISSING = ("", "?", "na", "n/a", "nan", "null", "none", "<na>")
DELIMITERS = ",;\t|"
PIXEL_NAME, POSITION_NAME = re.compile(r"(pixel|px|pix)[ _.-]?\d+", re.I), re.compile(r"(\d+)x(\d+)")
LEADING_ZERO = re.compile(r"[+-]?0\d")
MIN_PIXELS, MIN_BRIGHTEST = 64, 128  # of a table without a header that is read as images
MAX_LABEL = 1000  # characters
PEEK, CHUNK = 20, 2000  # rows: to find the header and the labels; read at a time


class Table(NamedTuple):
    """The content of a CSV file.

    Attributes
    ----------
    x : ndarray of shape (count, n)
        The columns of numbers: uint8 if all of them are integers from 0 to 255, else float64.
    y : ndarray of shape (count,)
        The labels, floats if all of them are numbers, else strings. Empty without a column of labels.
    columns : list of str or None
        Names of the columns of x, if the file has a header.
    notes : list of str
        Which column has the labels, and which columns are left out.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    columns: list[str] | None
    notes: list[str]


def load_table(
    path: Path,
    *,
    label: str | int | None = None,
    classes: Any = None,
    divide: bool = True,
    feature_names: Sequence[str] | None = None,
    name: str | None = None,
) -> Dataset:
    """Load a CSV file as a data set.

    If "train" occurs in the name of the file, and the file with "test" instead has the same columns, that file is the
    test set. Otherwise a fifth of the rows is.

    Parameters
    ----------
    path : Path
        The file, plain or gzipped.
    label, feature_names
        See `read_table`.
    classes, divide
        See `Dataset.from_arrays`.
    name : str, optional
        Name of the data set; the name of the file by default.

    Raises
    ------
    HandgradError
        If the file cannot be read or is not a table of numbers with a column of labels.
    """
    table, name = read_table(path, label=label, feature_names=feature_names), name or path.name
    x, y, notes = as_pixels(table.x, table.columns), table.y, list(table.notes)
    test_set: tuple[NDArray[Any], ...] = ()
    other = test_file(path)
    if other is not None:
        try:
            test = read_table(other, label=label, feature_names=feature_names)
        except HandgradError:
            test = None
        if test is not None and test.x.shape[1] == table.x.shape[1] and test.columns == table.columns:
            test_set = test.x.reshape(-1, *x.shape[1:]), test.y
            order = np.random.default_rng(0).permutation(len(x))
            x, y = x[order], y[order]
            notes.append(f"the test set is {other.name}")
    try:
        dataset = Dataset.from_arrays(x, y, *test_set, classes=classes, divide=divide, name=name, notes=notes)
    except HandgradError as error:
        about_labels = str(error).startswith(f"{name}: y ")
        hint = f"; {table.notes[0]} (label or --label chooses another one)" if about_labels else ""
        raise HandgradError(f"{error}{hint}") from error
    columns = tuple(table.columns or ())
    has_names = not dataset.is_images and len(columns) == len(set(columns)) > 0
    return replace(dataset, feature_names=columns) if has_names else dataset


def test_file(path: Path) -> Path | None:
    """Return the existing file with "test" instead of "train" in its name, or None."""
    name = re.sub("train(ing)?", lambda found: "TEST" if found[0].isupper() else "test", path.name, flags=re.I)
    other = path.with_name(name)
    return other if other != path and other.is_file() else None


def as_pixels(x: NDArray[Any], columns: list[str] | None) -> NDArray[Any]:
    """Return the rows as images (count, height, width) if the columns are pixels, else unchanged.

    Columns are pixels if their names are pixel0, pixel1, ... or 1x1, 1x2, .... Without a header they are pixels if
    their number is a square, at least 64, and the values are integers from 0 to 255, of which one is at least 128.
    """
    height = width = math.isqrt(x.shape[1])
    positions = [POSITION_NAME.fullmatch(name) for name in columns or ()]
    if positions and all(positions):
        height, width = (max(int(found[side]) for found in positions if found) for side in (1, 2))
        first = min(int(found[1]) for found in positions if found)  # counted from 0 or from 1
        height, width = height + 1 - first, width + 1 - first
    elif columns is not None:
        height *= all(PIXEL_NAME.fullmatch(name) for name in columns)
    elif x.dtype != np.uint8 or x.shape[1] < MIN_PIXELS or x.max() < MIN_BRIGHTEST:
        height = 0
    return x.reshape(-1, height, width) if height * width == x.shape[1] else x


def read_table(
    path: Path,
    *,
    label: str | int | None = None,
    feature_names: Sequence[str] | None = None,
    n_features: int | None = None,
) -> Table:
    """Read a CSV file.

    The delimiter is the comma, the semicolon, the tabulator, the vertical bar, or else white space. Lines that start
    with # at the top of the file are left out, except for the header of numpy.savetxt, and so is the line "sep=;" of
    Excel. The column of the labels is the one named label, class, target or y; or else the only column of text; or else
    the first column, or the last one if the first has fractions. Columns without a name and columns named id or index
    are left out.

    Parameters
    ----------
    path : Path
        The file, plain or gzipped, in UTF-8, UTF-16 or Latin-1.
    label : str or int, optional
        Name or number, from 0, of the column of labels.
    feature_names : sequence of str, optional
        Names of the columns of x, for a file with a header. The file may have them in another order, and may have other
        columns.
    n_features : int, optional
        Number of features, to read a file that may have no labels: labels are not read if the columns are found by
        `feature_names`, or if there are only `n_features` columns. By default, a column of labels is expected.

    Raises
    ------
    HandgradError
        If the file cannot be read, for rows of different lengths, and for cells that are missing or not numbers.
    """
    text, name = _decode(decompress(read_bytes(path), path.name), path.name), path.name
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    delimiter = _prepare(lines)
    reader = _Reader(lines, delimiter, name)
    peek = reader.peek(PEEK)
    if not peek or len(peek[0]) < (2 if n_features is None else 1):
        raise HandgradError(f"{name} is not a table: expected a column of labels and columns of numbers, as a CSV file")
    header = [cell.strip() for cell in peek[0]] if _is_header(peek) else None
    if header and all(len(row) == len(header) + 1 for row in peek[1:]):
        # A delimiter at the end of each row, or the row names of R's write.table
        header = [*header, ""] if not any(row[-1].strip() for row in peek[1:]) else ["", *header]
    if len(peek) == 1 and not any(map(_is_number, peek[0])):  # a header
        raise HandgradError(f"{name} has no rows: expected at least two examples")
    used = _columns_of(feature_names, header, name) if header and feature_names else []
    indices = [i for i, other in enumerate(header or ()) if other.lower() in INDICES]
    if n_features is not None and (used or len(header or peek[0]) - len(indices) == n_features):
        column = None
    else:
        column = _label_column(label, header, peek[1:] if header else peek, name, used)
    if header and column in used:
        raise HandgradError(f"{name}: the column {header[column]!r} is a feature of the model: it cannot be the label")
    if header:
        reader.skip()
    if header and used:
        left_out = [i for i in range(len(header)) if i not in (*used, column)]
    else:
        left_out = [i for i in indices if i != column]
        if column is not None and header and len(left_out) == len(header) - 1:
            left_out = []  # the only column besides the labels
    features, labels = reader.read(column, header, left_out)
    names = None if header is None else [other for i, other in enumerate(header) if i not in (*left_out, column)]
    if header and used:
        names, found = [header[i] for i in used], names or []
        features = features[:, [found.index(other) for other in names]]
    notes = []
    if column is not None:
        notes.append(f"the labels are {f'the column {header[column]!r}' if header else f'column {column} (from 0)'}")
    if header and names is not None:
        if left_out:
            notes.append(f"left out: the column {', '.join(repr(header[i]) for i in left_out)}")
        if [other.isdigit() for other in names] == [True] * len(names):
            names = None  # numbers instead of names, as pandas writes them
    return Table(features, labels, names, notes)


def _prepare(lines: list[str]) -> str:
    """Empty the lines that are not part of the table, in place; return the delimiter."""
    used = list(itertools.islice((i for i, line in enumerate(lines) if line.strip()), PEEK))
    if used and (found := re.fullmatch(r"sep=(.)\s*", lines[used[0]], re.IGNORECASE)):  # Excel
        lines[used[0]] = ""
        return found[1]
    comments = list(itertools.takewhile(lambda i: lines[i].startswith("#"), used))
    first = lines[used[len(comments)]] if len(comments) < len(used) else ""
    delimiter = _delimiter(first)
    for i in comments:
        header = lines[i].lstrip("# ")
        cells, expected = (text.split(None if delimiter == " " else delimiter) for text in (header, first))
        if len(cells) != len(expected):
            lines[i] = ""
        elif cells[0]:  # the last one is the header of numpy.savetxt; a label # has no text behind it
            lines[i] = header if i == comments[-1] else ""
    return delimiter


def _delimiter(line: str) -> str:
    line = _outside_quotes(line)
    delimiter = max(DELIMITERS, key=line.count)
    return delimiter if delimiter in line else " "


def _decode(data: bytes, name: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if b"\0" in data[:10_000]:
        raise HandgradError(f"{name} is not a text file: expected a table as a CSV file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


class _Reader:
    """The rows of a table, with their line numbers for messages."""

    def __init__(self, lines: list[str], delimiter: str, name: str) -> None:
        self.lines, self.delimiter, self.name = lines, delimiter, name
        self.first = 0  # line after the header
        self.quoted = any('"' in line for line in lines)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row that is not empty."""
        lines: Iterable[str] = itertools.islice(self.lines, self.first, None)
        if self.delimiter == " ":
            for number, line in enumerate(lines, self.first + 1):
                if line.strip():
                    yield number, line.split()
            return
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=self.delimiter, skipinitialspace=True)
        try:
            for row in reader:
                if any(row) and (len(row) > 1 or row[0].strip()):
                    yield self.first + reader.line_num, row
        except csv.Error as error:
            raise HandgradError(f"{self.name}, line {self.first + reader.line_num}: {error}") from error

    def peek(self, count: int) -> list[list[str]]:
        return [row for _, row in itertools.islice(self.rows(), count)]

    def skip(self) -> None:
        """Skip the header."""
        self.first = next(number for number, _ in self.rows())

    def read(
        self, column: int | None, header: list[str] | None, left_out: Sequence[int]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The features and the labels of all rows, without the columns that are left out."""
        other = sorted([*left_out, *([] if column is None else [column])], reverse=True)  # than features
        whole = None if self.quoted or self.delimiter == " " else self._whole_numbers()
        if whole is not None and (header is None or whole.shape[1] == len(header)):
            if column is None:
                return np.delete(whole, other, axis=1), np.zeros(0)
            if not self._zeros(column, whole):
                return np.delete(whole, other, axis=1), whole[:, column].astype(np.float64)
        parts: list[NDArray[np.float64]] = []
        labels: list[str] = []
        rows, width = self.rows(), None
        while chunk := list(itertools.islice(rows, CHUNK)):
            width = len(header) if header else width or len(chunk[0][1])
            for number, row in chunk:
                if len(row) != width:
                    raise HandgradError(f"{self.name}, line {number} has {len(row)} cells: expected {width}")
                if column is not None:
                    labels.append(self._label(row[column].strip(), number))
                for i in other:
                    del row[i]
            parts.append(self._numbers(chunk, [i for i in range(width) if i not in other], header))
        if not parts:
            raise HandgradError(f"{self.name} has no rows: expected at least two examples")
        return _as_bytes(np.concatenate(parts)), _as_numbers(labels)

    def _label(self, label: str, number: int) -> str:
        """Validate a label in a line."""
        if label.lower() in MISSING:
            raise HandgradError(f"{self.name}, line {number} has no label: remove such rows")
        if "\n" in label:
            raise HandgradError(
                f"{self.name}, line {number} ends a label with a line break: close the quotation mark before it"
            )
        if len(label) > MAX_LABEL:  # NumPy's strings take the space of the longest one
            raise HandgradError(
                f"{self.name}, line {number} has a label of {len(label):,} characters: expected at most {MAX_LABEL:,}"
            )
        return label

    def _whole_numbers(self) -> NDArray[np.uint8] | None:
        """All cells, if they are integers from 0 to 255: a tenth of the time of other numbers."""
        parts = []
        for first in range(self.first, len(self.lines), CHUNK):
            chunk = [line for line in self.lines[first : min(first + CHUNK, len(self.lines))] if line.strip()]
            if not chunk:
                continue
            try:
                parts.append(np.loadtxt(chunk, np.uint8, delimiter=self.delimiter, comments=None, ndmin=2))
            except (ValueError, OverflowError):
                return None
        return np.concatenate(parts) if parts and len({part.shape[1] for part in parts}) == 1 else None

    def _zeros(self, column: int, whole: NDArray[np.uint8]) -> bool:
        """Whether a label has a leading zero."""
        count = whole.shape[1]
        for line in itertools.islice(self.lines, self.first, None):
            if column < count / 2:
                cells = line.split(self.delimiter, column + 1)[column : column + 1]
            else:
                cells = line.rsplit(self.delimiter, count - column)[-(count - column) :][:1]
            if cells and LEADING_ZERO.match(cells[0].strip()):
                return True
        return False

    def _numbers(
        self, chunk: list[tuple[int, list[str]]], columns: Sequence[int], header: list[str] | None
    ) -> NDArray[Any]:
        rows = [row for _, row in chunk]
        try:
            x = np.array(rows, np.float64)
        except ValueError:
            x = np.array([[self._number(cell) for cell in row] for row in rows])
        if np.isfinite(x).all():
            return x
        i, j = np.argwhere(~np.isfinite(x))[0]
        number, cell = chunk[i][0], rows[i][j].strip()
        j = columns[j]
        where = f"{self.name}, line {number}, column {repr(header[j]) if header else j + 1}"
        if cell.lower() in MISSING:
            raise HandgradError(f"{where} has no value: fill in missing values, or remove such rows")
        raise HandgradError(
            f"{where} contains {cell[:40]!r}: expected a number; encode text as numbers, for example one column for "
            "each value, and name the column of the labels 'label'"
        )

    def _number(self, cell: str) -> float:
        """The number in a cell, with a decimal comma if the delimiter is another character; NaN if there is none."""
        try:
            return float(cell if self.delimiter == "," else cell.replace(",", "."))
        except ValueError:
            return math.nan


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row has text above a column of numbers, or the numbers 0, 1, ... or 1, 2, ... of columns."""
    first, rest = rows[0], rows[1:]
    for j, cell in enumerate(first):
        below = [row[j] for row in rest if j < len(row) and row[j].strip().lower() not in MISSING]
        text = not _is_number(cell) and cell.strip().lower() not in MISSING
        if text and below and all(map(_is_number, below)):
            return True
    numbers = [cell.strip() for cell in first if _is_number(cell)]
    if not any(numbers == [str(start + j) for j in range(len(numbers))] for start in (0, 1)):
        return False
    # pandas writes such numbers for the columns of an array, next to the name of a column of labels
    named = any(
        cell.strip().lower() in LABELS and all(row[j] != cell for row in rest if j < len(row))
        for j, cell in enumerate(first)
    )
    return (named and len(numbers) > 0) or len(numbers) == len(first) > 3


def _columns_of(feature_names: Sequence[str], header: list[str], name: str) -> list[int]:
    """The numbers of the columns with these names."""
    for feature in feature_names:
        if header.count(feature) != 1:
            found = "two columns" if feature in header else "no column"
            raise HandgradError(f"{name} has {found} {feature!r}: expected the features {shorten(feature_names)}")
    return [header.index(feature) for feature in feature_names]


def _label_column(
    label: str | int | None,
    header: list[str] | None,
    rows: Sequence[Sequence[str]],
    name: str,
    features: Sequence[int],
) -> int:
    """The number of the column of labels, which is none of the features."""
    width = len(header or rows[0])
    if isinstance(label, str) and label not in (header or ()) and re.fullmatch(r"-?\d{1,9}", label):
        label = int(label)
    if isinstance(label, str) or (label is not None and not -width <= label < width):
        if header is None or label not in header:
            known = ", ".join(header[:10]) if header else f"0 to {width - 1}"
            raise HandgradError(f"{name} has no column {label!r}: expected one of {known}")
        return header.index(label)
    if label is not None:
        return label % width
    lower = {j: cell.lower() for j, cell in enumerate(header or ()) if j not in features}
    for word in LABELS:
        for j, cell in lower.items():
            if cell == word:
                return j
    columns = [j for j in range(width) if j not in features and lower.get(j) not in INDICES]
    if features and not columns:
        raise HandgradError(f"{name} has no column of labels: expected one next to the {len(features)} features")
    cells = {j: [row[j].strip() for row in rows if j < len(row)] for j in columns}
    text = [j for j in columns if not all(_is_number(c) or c.lower() in MISSING for c in cells[j])]
    if len(text) == 1 or not columns:
        return text[0] if text else 0
    fractions = any(_is_number(c) and not float(c.replace(",", ".")).is_integer() for c in cells[columns[0]])
    return columns[-1] if fractions else columns[0]


def _as_numbers(labels: list[str]) -> NDArray[Any]:
    """Labels as floats if all of them are numbers without leading zeros, else as strings: 01 and 1 are two labels."""
    if any(map(LEADING_ZERO.match, labels)):
        return np.array(labels)
    try:
        return np.array([float(label) for label in labels])
    except ValueError:
        return np.array(labels)


def _as_bytes(x: NDArray[np.float64]) -> NDArray[Any]:
    """Integers from 0 to 255 as uint8."""
    whole = x.min() >= 0 and x.max() <= 255 and (x == np.rint(x)).all()
    return x.astype(np.uint8) if whole else x

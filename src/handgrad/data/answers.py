"""Predictions for any number of examples: read from files, predicted and written one block at a time.

With several processes, each of them opens the data and maps the model file into memory, so that they share the memory
of the weights, and of the data if it is in a file that is read in blocks. Processes receive the number of a block and
return its answers, which the main process writes in order: one byte for each image in an .npy file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_array, check_int
from ..blas import one_blas_thread
from ..errors import HandgradError
from ..io.atomic import as_path, read_bytes, replacing
from ..io.models import load as load_model
from ..model import Model, binary_to_two_columns
from ..training import prefetch
from .archives import read_unlabelled
from .dataset import as_examples
from .idx import decompress, parse_idx
from .mapped import check_consecutive, is_npy_name, load_npy, open_images
from .processes import run
from .stream import FileRows
from .tables import as_pixels, read_table, test_file

BLOCK_ROWS = 2048  # 1.6 MB of 28x28 pixels
_NUMBERED = re.compile(r"images(?:-(\d+))?\.npy")


class Examples(NamedTuple):
    """Examples to predict, and what was done to them when they were read."""

    x: Any
    notes: Sequence[str] = ()


def read_examples(data: str, model: Model, label: str | None = None) -> Examples:
    """Open the examples in a file or a directory; images in files that are not compressed are read when they are used.

    Parameters
    ----------
    data : str
        An IDX file of images, an .npy file of images or numbers, a directory of images.npy or images-0.npy,
        images-1.npy, ..., a CSV or .npz file with or without labels, or any data set of `handgrad.data.load`, whose
        test examples are used: all examples in their order if it has no test set.
    model : Model
        The model that will predict. The columns of a table are those of its features, and images of a folder are
        resized to the size of its images.
    label : str, optional
        Column of the labels of a CSV file, which are not used.
    """
    from . import check_label, load  # the package, which is complete by now

    check_label(label, data)
    path = as_path(data)
    if path.is_dir():
        if parts := _numbered_files(path):
            return Examples(FileRows([open_images(part) for part in parts], "blocks"))
    elif path.is_file() and (examples := _read_file(path, model, label)) is not None:
        return examples
    dataset = load(data, size=model.image_shape, label=label, divide=False, feature_names=model.feature_names)
    return Examples(dataset.x_test, dataset.notes)


def files_to_read(data: str) -> list[Path]:
    """Return the .npy and CSV files that `read_examples` may read, which answers must not replace."""
    from . import table_file

    path = as_path(data)
    if not path.is_dir():
        return [path]
    table = table_file(path)
    tables = [] if table is None else [table, test_file(table) or table]
    return tables + [entry for entry in path.iterdir() if _NUMBERED.fullmatch(entry.name) or is_npy_name(entry.name)]


def _numbered_files(directory: Path) -> list[Path]:
    """images.npy, or images-0.npy, images-1.npy, ..., in the order of their numbers."""
    found: dict[int, Path] = {}
    for entry in sorted(directory.iterdir()):
        if match := _NUMBERED.fullmatch(entry.name):
            number = int(match[1] or -1)
            if number in found:
                raise HandgradError(f"{directory} contains {found[number].name} and {entry.name}: remove one of them")
            found[number] = entry
    numbers = sorted(found)
    check_consecutive(directory, numbers, "images")
    return [found[number] for number in numbers]


def _read_file(path: Path, model: Model, label: str | None) -> Examples | None:
    """The examples in a file that has no test set, or None."""
    from . import TABLES

    mapped = load_npy(path) if path.suffix == ".npy" else None
    if mapped is not None and (mapped.dtype != np.uint8 or mapped.ndim != 3):
        return Examples(as_examples(path.name, mapped))
    if mapped is not None or _starts_like_idx(path):
        return Examples(FileRows([open_images(path)], "blocks"))
    if re.search(r"idx3-ubyte\.gz$", path.name):
        return Examples(parse_idx(decompress(read_bytes(path), path.name), path.name))
    if path.name.lower().endswith(TABLES):
        table = read_table(path, label=label, feature_names=model.feature_names, n_features=model.n_in)
        return Examples(as_examples(path.name, as_pixels(table.x, table.columns)), table.notes)
    if path.suffix.lower() == ".npz" and (x := read_unlabelled(path)) is not None:
        return Examples(as_examples(path.name, x))
    return None


class Processes(NamedTuple):
    """A number of processes, and the model file and the function that opens the data in each of them."""

    workers: int
    model: Path
    read: Callable[[Model], Examples]


def write_answers(
    model: Model,
    x: Any,
    path: Path,
    progress: Callable[[int], object] = lambda count: None,
    processes: Processes | None = None,
) -> list[int]:
    """Write the predicted class of each example to a file, atomically.

    Parameters
    ----------
    model : Model
        A classifier.
    x : array-like or Rows
        Examples.
    path : Path
        File to write. NAME.csv has the columns index, class and probability; any other file is an .npy file of class
        indices, uint8 for up to 256 classes.
    progress : callable
        Called with the number of examples that were predicted since the last call.
    processes : Processes, optional
        Several processes that open the files of `model` and `x`, with one BLAS thread each. By default, this process.

    Returns
    -------
    list of int
        How often each class was predicted.
    """
    x = model.check_inputs(x)
    counts = np.zeros(model.n_classes, np.int64)
    as_csv = path.suffix == ".csv"
    try:
        with replacing(path) as file, _answers(model, x, as_csv, processes) as answers:
            if as_csv:
                file.write(b"index,class,probability\n")
            else:
                descr = np.lib.format.dtype_to_descr(_index_dtype(model))
                header = {"descr": descr, "fortran_order": False, "shape": (len(x),)}
                np.lib.format.write_array_header_1_0(file, header)
            for content, found in answers:
                file.write(content)
                counts += found
                progress(int(found.sum()))
    except OSError as error:
        raise HandgradError(f"cannot write {path}: {error.strerror or error}") from error
    return [int(count) for count in counts]


Answers = tuple[bytes, NDArray[np.int64]]  # a part of the file, and how often each class was predicted in it


@contextmanager
def _answers(model: Model, x: Any, as_csv: bool, processes: Processes | None) -> Iterator[Iterator[Answers]]:
    """The answers of each block, from this process or from several."""
    numbers = range(-(-len(x) // BLOCK_ROWS))
    if processes is not None and min(check_int("workers", processes.workers, 1), len(numbers)) > 1:
        with run(_ProcessAnswers(processes, as_csv), numbers, processes.workers) as answers:
            yield answers
        return
    own = _BlockAnswers(model, x, as_csv)
    yield (own.answer(number, block) for number, block in enumerate(prefetch(own.read, len(numbers))))


class _BlockAnswers:
    """Reads blocks of examples and predicts their classes."""

    def __init__(self, model: Model, x: Any, as_csv: bool) -> None:
        self.model, self.x, self.as_csv = model, x, as_csv
        self.names, self.dtype = [_quoted(name) for name in model.classes], _index_dtype(model)

    def read(self, number: int) -> NDArray[Any]:
        return as_array("x", self.x[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS])

    def answer(self, number: int, block: NDArray[Any]) -> Answers:
        if self.as_csv:
            p = binary_to_two_columns(self.model.predict_proba(block))
            k, best, first = p.argmax(axis=1), p.max(axis=1), number * BLOCK_ROWS
            tied = np.count_nonzero(p == best[:, None], axis=1) > 1  # both are rounded to 1, but not their logits
            if tied.any():
                k[tied] = self.model.predict(block[tied])
            lines = (f"{first + i},{self.names[j]},{q:.6f}\n" for i, (j, q) in enumerate(zip(k, best, strict=True)))
            content = "".join(lines).encode()
        else:
            k = self.model.predict(block)
            content = k.astype(self.dtype).tobytes()
        return content, np.bincount(k, minlength=self.model.n_classes)


class _ProcessAnswers:
    """Answers blocks in a process of its own, which opens the model and the examples at its first block."""

    def __init__(self, processes: Processes, as_csv: bool) -> None:
        self.files, self.as_csv = processes, as_csv

    @functools.cached_property
    def opened(self) -> _BlockAnswers:
        model = load_model(self.files.model, mmap=True)
        return _BlockAnswers(model, model.check_inputs(self.files.read(model).x), self.as_csv)

    def __call__(self, number: int) -> Answers:
        with one_blas_thread():
            return self.opened.answer(number, self.opened.read(number))


def _index_dtype(model: Model) -> np.dtype[Any]:
    """The dtype of class indices in an .npy file."""
    return np.dtype(np.uint8 if model.n_classes <= 256 else np.int32)


def _quoted(name: str) -> str:
    """A name as a cell of a CSV file."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\r\n]', name) else name


def _starts_like_idx(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\0\0\x08\x03"
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror}") from error

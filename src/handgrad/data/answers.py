"""Predictions for any number of examples: read from files, predicted and written one block at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_array
from ..errors import HandgradError
from ..io.atomic import as_path, replacing
from ..model import Model, binary_to_two_columns
from ..training import prefetch
from .idx import decompress, parse_idx, read_bytes
from .mapped import open_images
from .stream import FileRows

BLOCK_ROWS = 2048  # 1.6 MB of 28x28 pixels
_NUMBERED = re.compile(r"images(?:-(\d+))?\.npy")


def read_examples(data: str) -> Any:
    """Open the examples in a file or a directory; those in files that are not compressed are read when they are used.

    Parameters
    ----------
    data : str
        An IDX or .npy file of images, a directory of images.npy or images-0.npy, images-1.npy, ..., or any data set of
        `handgrad.data.load`, whose test examples are used.
    """
    from . import load  # the package, which is complete by now

    path = as_path(data)
    if path.is_dir():
        found = {int(match[1] or -1): entry for entry in path.iterdir() if (match := _NUMBERED.fullmatch(entry.name))}
        if found:
            return FileRows([open_images(found[number]) for number in sorted(found)], "blocks")
    elif path.is_file() and (path.suffix == ".npy" or _starts_like_idx(path)):
        return FileRows([open_images(path)], "blocks")
    elif path.is_file() and re.search(r"idx3-ubyte\.gz$", path.name):
        return parse_idx(decompress(read_bytes(path), path.name), path.name)
    return load(data).x_test


def write_answers(
    model: Model, x: Any, path: Path, progress: Callable[[int], object] = lambda count: None
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

    Returns
    -------
    list of int
        How often each class was predicted.
    """
    x = model.check_inputs(x)
    counts = np.zeros(model.n_classes, np.int64)
    names = [_quoted(name) for name in model.classes]

    def read(number: int) -> NDArray[Any]:
        return as_array("x", x[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS])

    try:
        with replacing(path) as file:
            if path.suffix == ".csv":
                file.write(b"index,class,probability\n")
            else:
                dtype = np.dtype(np.uint8 if len(counts) <= 256 else np.int32)
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (len(x),)}
                np.lib.format.write_array_header_1_0(file, header)
            first = 0
            for block in prefetch(read, -(-len(x) // BLOCK_ROWS)):
                if path.suffix == ".csv":
                    p = binary_to_two_columns(model.predict_proba(block))
                    k = p.argmax(axis=1)
                    best = p[np.arange(len(p)), k]
                    lines = (f"{first + i},{names[j]},{q:.6f}\n" for i, (j, q) in enumerate(zip(k, best, strict=True)))
                    file.write("".join(lines).encode())
                else:
                    k = model.predict(block)
                    file.write(k.astype(dtype).tobytes())
                counts += np.bincount(k, minlength=len(counts))
                first += len(block)
                progress(len(block))
    except OSError as error:
        raise HandgradError(f"cannot write {path}: {error.strerror or error}") from error
    return [int(count) for count in counts]


def _quoted(name: str) -> str:
    """A name as a cell of a CSV file."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\r\n]', name) else name


def _starts_like_idx(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\0\0\x08\x03"
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror}") from error

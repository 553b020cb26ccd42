"""Memory-mapped data sets: IDX files, .npy files and folders of .npy files, whose images are read when they are used.

    train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-...     IDX, not compressed
    train-images.npy, train-labels.npy, test-images.npy, test-labels.npy
    train-images-0.npy, train-labels-0.npy, train-images-1.npy, ...     shards, in the order of their numbers

Images are uint8 of shape (count, height, width), labels are integers of shape (count,). Small files are read into
memory. Large ones stay on the disk, and a training converts one block at a time to floats.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError
from ..io.atomic import read_bytes
from .dataset import FILES, Dataset
from .idx import HEADER_BYTES, decompress, parse_header, parse_idx
from .labels import encode_labels
from .stream import FileRows, Part, available_memory, choose_shuffle, reading

MAP_BYTES = 256 << 20  # images of at least this size are mapped, smaller ones are read into memory
_NPY = re.compile(r"(train|test)-(images|labels)(?:-(\d+))?\.npy")


def open_images(path: Path) -> Part:
    """Open an IDX or .npy file of images without reading it. Raises HandgradError for other and damaged files."""
    dtype, shape, start = _npy_header(path) if path.suffix == ".npy" else _idx_header(path)
    if dtype.newbyteorder("=") != np.uint8 or len(shape) != 3:
        raise HandgradError(
            f"{path} is {dtype.newbyteorder('=')} of shape {shape}: expected images, uint8 of shape "
            "(count, height, width)"
        )
    if 0 in shape:
        raise HandgradError(f"{path} has shape {shape}: expected at least one image")
    return Part(path, start, shape)


def read_labels(path: Path) -> NDArray[Any]:
    """Read an IDX or .npy file of labels, plain or gzipped."""
    if path.suffix == ".npy":
        dtype, shape, _ = _npy_header(path)
        labels = np.array(load_npy(path))
    else:
        labels = parse_idx(decompress(read_bytes(path), path.name), path.name)
        dtype, shape = labels.dtype, labels.shape
    if dtype.kind not in "iu" or len(shape) != 1:
        raise HandgradError(f"{path} is {dtype} of shape {shape}: expected labels, integers of shape (count,)")
    return labels


def is_npy_name(name: str) -> bool:
    """Return whether a file of images or labels that `load_npy_folder` reads can have this name."""
    return _NPY.fullmatch(name) is not None


def has_npy_names(directory: Path) -> bool:
    """Return whether a directory has .npy files of images or labels with the names that `load_npy_folder` reads."""
    return any(is_npy_name(entry.name) for entry in directory.iterdir())


def load_idx(directory: Path, paths: Mapping[str, Path], shuffle: str = "auto") -> Dataset | None:
    """Load four IDX files, without reading the training images if they are large; None if they should be read.

    Parameters
    ----------
    directory : Path
        The directory, whose name becomes the name of the data set.
    paths : mapping of str to Path
        The file of each name in FILES.
    shuffle : {"auto", "rows", "blocks"}
        See `handgrad.data.load`.
    """
    images = paths[FILES["x_train"]]
    with reading(images), images.open("rb") as file:
        compressed, size = file.read(2) == b"\x1f\x8b", images.stat().st_size
    if compressed and choose_shuffle(0, shuffle) == shuffle == "blocks":
        raise HandgradError(f"{images} is compressed, so that blocks of it cannot be read: decompress it with gunzip")
    if compressed or (size < MAP_BYTES and shuffle == "auto"):
        return None
    y_train, y_test = (read_labels(paths[FILES[name]]) for name in ("y_train", "y_test"))
    test = paths[FILES["x_test"]]
    with reading(test), test.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    x_test = parse_idx(decompress(read_bytes(test), test.name), test.name) if compressed else _read([open_images(test)])
    return _dataset([open_images(images)], y_train, x_test, y_test, directory.resolve().name, shuffle)


def load_npy_folder(
    directory: Path, shuffle: str = "auto", classes: Sequence[str] | Mapping[Any, str] | None = None
) -> Dataset:
    """Load a folder of .npy files, one pair of files or numbered shards, for training and for testing.

    Parameters
    ----------
    directory : Path
        The folder.
    shuffle : {"auto", "rows", "blocks"}
        See `handgrad.data.load`.
    classes : sequence of str, or mapping of label to str, optional
        Names of the classes.

    Raises
    ------
    HandgradError
        If a file is missing or damaged, or if images and labels do not match.
    """
    found: dict[tuple[str, str], dict[int, Path]] = {}
    for entry in sorted(directory.iterdir()):
        if match := _NPY.fullmatch(entry.name):
            numbered = found.setdefault((match[1], match[2]), {})
            number = -1 if match[3] is None else int(match[3])
            if number in numbered:
                raise HandgradError(
                    f"{directory} contains {numbered[number].name} and {entry.name}: remove one of them"
                )
            numbered[number] = entry
    parts = {part: _pairs(directory, part, found) for part in ("train", "test")}
    opened = {part: [open_images(images) for images, _ in pairs] for part, pairs in parts.items()}
    labels = {part: [read_labels(path) for _, path in pairs] for part, pairs in parts.items()}
    for part, pairs in parts.items():
        for (images, path), image_part, y in zip(pairs, opened[part], labels[part], strict=True):
            first = opened["train"][0]
            if image_part.shape[1:] != first.shape[1:]:
                raise HandgradError(
                    f"{images} has images of {image_part.shape[1:]} pixels and {first.path.name} of {first.shape[1:]}: "
                    "expected the same size"
                )
            if len(y) != image_part.shape[0]:
                raise HandgradError(f"{images} has {image_part.shape[0]} images and {path.name} has {len(y)} labels")
    y_train, y_test = (np.concatenate(labels[part]) for part in ("train", "test"))
    name = directory.resolve().name
    return _dataset(opened["train"], y_train, _read(opened["test"]), y_test, name, shuffle, classes)


def check_consecutive(directory: Path, numbers: Sequence[int], name: str) -> None:
    """Raise HandgradError if a number is missing between the sorted numbers of files; -1 is a name without a number."""
    for number, following in itertools.pairwise(numbers):
        if following != number + 1:
            where = f"{name}-{number + 1}.npy" if number >= 0 else "numbers in the names of all files"
            raise HandgradError(f"{directory} lacks {where}: expected files with consecutive numbers")


def _pairs(directory: Path, part: str, found: Mapping[tuple[str, str], Mapping[int, Path]]) -> list[tuple[Path, Path]]:
    """The files of images and of labels, in the order of their numbers."""
    images, labels = found.get((part, "images"), {}), found.get((part, "labels"), {})
    numbers = sorted({*images, *labels})
    if not numbers:
        raise HandgradError(f"{directory} does not contain {part}-images.npy and {part}-labels.npy, or numbered shards")
    check_consecutive(directory, numbers, f"{part}-images")
    for number in numbers:
        if number not in images or number not in labels:
            present, absent_kind = (labels, "images") if number not in images else (images, "labels")
            other = present[number].name.replace("labels" if absent_kind == "images" else "images", absent_kind)
            raise HandgradError(f"{directory} contains {present[number].name}, but not {other}")
    return [(images[number], labels[number]) for number in numbers]


def _dataset(
    parts: Sequence[Part],
    y_train: NDArray[Any],
    x_test: NDArray[Any],
    y_test: NDArray[Any],
    name: str,
    shuffle: str,
    classes: Sequence[str] | Mapping[Any, str] | None = None,
) -> Dataset:
    size = sum(int(np.prod(part.shape)) for part in parts)
    chosen, notes = choose_shuffle(size, shuffle), []
    if chosen == "rows" and size < MAP_BYTES and shuffle == "auto":
        x: Any = _read(parts)
    else:
        x = FileRows(parts, chosen)
    if chosen == "blocks":
        why = f", because {_gigabytes(size)} do not fit into {_gigabytes(available_memory())}" * (shuffle == "auto")
        notes.append(f"shuffled in blocks{why}")
    try:
        labels, test_labels, names = encode_labels(y_train, y_test, classes)
    except HandgradError as error:
        raise HandgradError(f"{name}: {error}") from error
    return Dataset(x, labels, x_test, test_labels, name, names, tuple(notes))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _read(parts: Sequence[Part]) -> NDArray[np.uint8]:
    """All images: mapped if they are one large file, else in memory."""
    if len(parts) == 1 and int(np.prod(parts[0].shape)) >= MAP_BYTES:
        return parts[0].map()
    return np.asarray(FileRows(parts, "blocks"))


def _idx_header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    with reading(path), path.open("rb") as file:
        start, size = file.read(HEADER_BYTES), path.stat().st_size
    if start[:2] == b"\x1f\x8b":
        raise HandgradError(f"{path} is compressed and cannot be mapped into memory: decompress it with gunzip")
    return parse_header(start, size, str(path))


def _npy_header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    mapped = load_npy(path)
    if mapped.ndim > 1 and not mapped.flags.c_contiguous:
        raise HandgradError(f"{path} is stored column by column: save numpy.ascontiguousarray(x)")
    return mapped.dtype, mapped.shape, mapped.offset


def load_npy(path: Path) -> Any:
    """Map a .npy file into memory; the array has an `offset`. Raises HandgradError for other and damaged files."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, TypeError, OverflowError, SyntaxError) as error:
        raise HandgradError(f"{path} is not an .npy file of numbers, or is incomplete: {error}") from error

"""Data sets: training and test images, validation split, directories of IDX files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError
from .idx import decompress, parse_idx, read_bytes

Bytes = NDArray[np.uint8]  # images (count, height, width), background 0 and strokes 255; or labels (count,)

FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Split(NamedTuple):
    """Training, validation and test sets.

    Attributes
    ----------
    train, validation, test : tuple of (ndarray, ndarray)
        Images of shape (count, height, width) and labels of shape (count,), both uint8.
    """

    train: tuple[Bytes, Bytes]
    validation: tuple[Bytes, Bytes]
    test: tuple[Bytes, Bytes]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test images with their labels.

    Parameters
    ----------
    x_train, x_test : ndarray of uint8, shape (count, height, width)
        Images. Both arrays have the same height and width.
    y_train, y_test : ndarray of uint8, shape (count,)
        Labels, each less than len(classes).
    name : str
        Name of the data set, used in messages.
    classes : tuple of str
        Names of the classes: label i belongs to classes[i].

    Raises
    ------
    HandgradError
        If an array has another dtype or shape, if an array is empty, or if a label has no class.
    """

    x_train: Bytes
    y_train: Bytes
    x_test: Bytes
    y_test: Bytes
    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check("train", self.x_train, self.y_train)
        self._check("test", self.x_test, self.y_test)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise HandgradError(
                f"{self.name}: x_train has images of {_size(self.x_train)} pixels and x_test of {_size(self.x_test)}: "
                "expected the same height and width"
            )

    def __repr__(self) -> str:
        train, test = len(self.x_train), len(self.x_test)
        size, classes = _size(self.x_train), len(self.classes)
        return f"{self.name}: {train:,} training images, {test:,} test images, {size} pixels, {classes} classes"

    def split(self, validation: int = 10_000) -> Split:
        """Split the training set: the last `validation` examples become the validation set.

        The default splits MNIST into 50,000, 10,000 and 10,000 examples, as Nielsen does.

        Parameters
        ----------
        validation : int
            Number of validation examples, at least 1 and less than len(x_train).

        Returns
        -------
        Split
            Views of the arrays of this data set, not copies.

        Raises
        ------
        HandgradError
            If `validation` is out of range.

        References
        ----------
        Nielsen, "Neural Networks and Deep Learning", 2015, chapter 1.
        """
        count = len(self.x_train)
        if not 1 <= validation < count:
            raise HandgradError(
                f"{self.name}: cannot use {validation} of the {count} training images for validation: "
                f"expected 1 to {count - 1}"
            )
        n_train = count - validation
        return Split(
            train=(self.x_train[:n_train], self.y_train[:n_train]),
            validation=(self.x_train[n_train:], self.y_train[n_train:]),
            test=(self.x_test, self.y_test),
        )

    def _check(self, part: str, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Check dtype, shape and labels of one part, "train" or "test"."""
        if x.dtype != np.uint8 or x.ndim != 3:
            raise HandgradError(
                f"{self.name}: x_{part} is {x.dtype} of shape {x.shape}: expected uint8 of shape (count, height, width)"
            )
        if y.dtype != np.uint8 or y.ndim != 1:
            raise HandgradError(
                f"{self.name}: y_{part} is {y.dtype} of shape {y.shape}: expected uint8 of shape (count,)"
            )
        if x.size == 0:
            raise HandgradError(f"{self.name}: x_{part} of shape {x.shape} is empty: expected at least one pixel")
        if len(x) != len(y):
            raise HandgradError(
                f"{self.name}: x_{part} has {len(x)} images and y_{part} has {len(y)} labels: "
                "expected one label per image"
            )
        if y.max() >= len(self.classes):
            raise HandgradError(
                f"{self.name}: y_{part} contains the label {y.max()}, but there are {len(self.classes)} classes: "
                f"expected labels from 0 to {len(self.classes) - 1}"
            )


def _size(images: Bytes) -> str:
    """Height and width as text, such as 28x28."""
    height, width = images.shape[1:]
    return f"{height}x{width}"


def read_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Read a directory of four IDX files with MNIST's file names.

    The directory may contain MNIST, Fashion-MNIST, KMNIST or your own data, of any height and width. The classes are
    0, 1, ... up to the highest training label. A file name may end in .gz and may have a dot instead of the hyphen
    before "idx". EMNIST needs conversion first: its file names differ and its images are transposed.

    Parameters
    ----------
    directory : path-like
        Directory of the four files. Its name becomes the name of the data set.

    Returns
    -------
    Dataset
        The four arrays, with the labels' numbers as class names.

    Raises
    ------
    HandgradError
        If a file is missing or damaged, or if images and labels do not match.
    """
    return build_dataset(read_payloads(Path(directory)), Path(directory).resolve().name)


def read_payloads(directory: Path) -> dict[str, bytes]:
    """Read the four files in a directory.

    Parameters
    ----------
    directory : Path
        Directory of the four files, plain or gzipped.

    Returns
    -------
    dict of str to bytes
        Uncompressed content by file name, in the order of FILES.

    Raises
    ------
    HandgradError
        If a file is missing or damaged.
    """
    found = {name: matching_files(directory, name) for name in FILES.values()}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise HandgradError(f"{directory} does not contain {', '.join(missing)}: add the missing files, plain or .gz")
    return {name: decompress(read_bytes(paths[0]), paths[0].name) for name, paths in found.items()}


def matching_files(directory: Path, name: str) -> list[Path]:
    """List the files in a directory that can stand for an IDX file name.

    Parameters
    ----------
    directory : Path
        Directory to search.
    name : str
        One of the names in FILES.

    Returns
    -------
    list of Path
        Existing files, in this order: NAME, NAME.gz, then both with ".idx" instead of "-idx".
    """
    dotted = name.replace("-idx", ".idx")
    candidates = (directory / (stem + suffix) for stem in (name, dotted) for suffix in ("", ".gz"))
    return [path for path in candidates if os.path.isfile(path)]


def build_dataset(payloads: Mapping[str, bytes], name: str) -> Dataset:
    """Build a data set from the content of four IDX files.

    Parameters
    ----------
    payloads : mapping of str to bytes
        Uncompressed content by file name.
    name : str
        Name of the data set.

    Returns
    -------
    Dataset
        The four arrays, with the labels' numbers as class names.

    Raises
    ------
    HandgradError
        If a file is damaged, or if images and labels do not match.
    """
    arrays = {field: parse_idx(payloads[file], file) for field, file in FILES.items()}
    y = arrays["y_train"]
    labels = range(int(y.max()) + 1) if y.size and y.dtype == np.uint8 else ()  # Dataset rejects any other y_train
    return Dataset(**arrays, name=name, classes=tuple(map(str, labels)))

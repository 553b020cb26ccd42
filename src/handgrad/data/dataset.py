"""A set of labelled pictures, to train on and to test on, and the four IDX files that it is kept in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError
from .idx import parse_idx, payload_of, read_bytes

Bytes = NDArray[np.uint8]  # images (count, height, width), 0 the paper and 255 the ink; or labels (count,)

FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Split(NamedTuple):
    """Three parts of a set, images and labels each: to learn from, to choose by, to report."""

    train: tuple[Bytes, Bytes]
    validation: tuple[Bytes, Bytes]
    test: tuple[Bytes, Bytes]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their labels, all of one height and width.

    x_train, x_test (count, height, width) uint8; y_train, y_test (count,) uint8, each label below len(classes).
    Raises HandgradError where the arrays are not that, or a part is empty.
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
                f"{self.name}: the images to train on are {_by(self.x_train)} and those to test on {_by(self.x_test)}: "
                "expected one size"
            )

    def __repr__(self) -> str:
        train, test = len(self.x_train), len(self.x_test)
        size = _by(self.x_train)
        return f"{self.name}: {train:,} images to train on, {test:,} to test on, {size}, {len(self.classes)} classes"

    def split(self, validation: int = 10_000) -> Split:
        """The last `validation` of the training set held out, the rest to train on.

        Of MNIST 50,000, 10,000 and 10,000: the parts of Nielsen, Neural Networks and Deep Learning, chapter 1.
        """
        count = len(self.x_train)
        if not 1 <= validation < count:
            raise HandgradError(
                f"{validation} images cannot be held out of the {count} that {self.name} has to train on: "
                f"expected 1 to {count - 1}"
            )
        kept = count - validation
        return Split(
            train=(self.x_train[:kept], self.y_train[:kept]),
            validation=(self.x_train[kept:], self.y_train[kept:]),
            test=(self.x_test, self.y_test),
        )

    def _check(self, part: str, x: NDArray[Any], y: NDArray[Any]) -> None:
        if x.dtype != np.uint8 or x.ndim != 3:
            raise HandgradError(
                f"{self.name}: x_{part} is {x.dtype} of shape {x.shape}: expected uint8 (count, height, width)"
            )
        if y.dtype != np.uint8 or y.ndim != 1:
            raise HandgradError(f"{self.name}: y_{part} is {y.dtype} of shape {y.shape}: expected uint8 (count,)")
        if x.size == 0:
            raise HandgradError(f"{self.name}: x_{part} has the shape {x.shape}: there is no pixel in it")
        if len(x) != len(y):
            raise HandgradError(
                f"{self.name}: x_{part} has {len(x)} images and y_{part} {len(y)} labels: expected one each"
            )
        if y.max() >= len(self.classes):
            raise HandgradError(
                f"{self.name}: y_{part} holds the label {y.max()}, but there are {len(self.classes)} classes: "
                f"expected 0 to {len(self.classes) - 1}"
            )


def _by(images: Bytes) -> str:
    height, width = images.shape[1:]
    return f"{height}x{width}"


def read_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """The set in a directory of four IDX files of MNIST's names: MNIST, Fashion-MNIST, KMNIST, or your own.

    Any height and width, any number of classes: 0, 1, ... to the highest label to train on. The names may end in .gz
    and have a dot before idx. (EMNIST comes under other names, its pictures lying on their sides.)
    Raises HandgradError where a file is missing or damaged, or the four do not fit together.
    """
    return dataset_from(read_payloads(Path(directory)), Path(directory).resolve().name)


def read_payloads(directory: Path) -> dict[str, bytes]:
    """The four files in `directory` by name, gunzipped. Raises HandgradError where one is missing or damaged."""
    found = {name: variants(directory, name) for name in FILES.values()}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise HandgradError(f"{directory} holds no {', '.join(missing)}: put the missing there, plain or as .gz")
    return {name: payload_of(read_bytes(paths[0]), paths[0].name) for name, paths in found.items()}


def variants(directory: Path, name: str) -> list[Path]:
    """The files in `directory` that may be `name`: so named or with a dot before idx, plain first, then .gz."""
    dotted = name.replace("-idx", ".idx")
    candidates = (directory / (stem + suffix) for stem in (name, dotted) for suffix in ("", ".gz"))
    return [path for path in candidates if os.path.isfile(path)]


def dataset_from(payloads: Mapping[str, bytes], name: str) -> Dataset:
    """The set in four IDX payloads. Raises HandgradError where one is damaged or they do not fit together."""
    arrays = {field: parse_idx(payloads[file], file) for field, file in FILES.items()}
    y = arrays["y_train"]
    known = range(int(y.max()) + 1) if y.size and y.dtype == np.uint8 else ()  # where it is not, Dataset says so
    return Dataset(**arrays, name=name, classes=tuple(map(str, known)))

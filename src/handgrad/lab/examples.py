"""Training and validation examples of the data sets that the page offers. Nothing is downloaded.

The test set of MNIST is never used: validation examples are the end of its training set.
"""

from __future__ import annotations

import functools
import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset, load
from ..data.mnist import MnistNotFoundError, load_mnist
from ..data.synthetic import synthetic_digits
from ..errors import HandgradError
from .points import POINTS

N_TRAIN = 60_000  # maximum number of training examples
TITLES = {
    "mnist": "MNIST",
    "synthetic": "Synthetic digits",
    "own": "Your data",
    "xor": "XOR",
    "circles": "Circles",
    "moons": "Moons",
    "spirals": "Spirals",
}
MAX_PIXELS = 4096  # of an image of the user's data


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a run.

    Attributes
    ----------
    x_train, x_validation : ndarray of shape (count, height, width), uint8, or (count, 2), float32
        Images or points.
    y_train, y_validation : ndarray of shape (count,)
        Labels.
    classes : tuple of str
        Names of the classes.
    code : tuple of str
        Lines of Python that make x_train, y_train, x_validation and y_validation, imports first.
    """

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_validation: NDArray[Any]
    y_validation: NDArray[Any]
    classes: tuple[str, ...]
    code: tuple[str, ...]

    @property
    def is_images(self) -> bool:
        """Whether the examples are images."""
        return self.x_train.ndim == 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example: (height, width) or (2,)."""
        return self.x_train.shape[1:]

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return int(np.prod(self.shape))


class Library:
    """The data sets of a server, loaded when they are first used.

    Parameters
    ----------
    own : str, optional
        Name or path of the user's data set, for `handgrad.data.load`. It is the data set "own" of the page.
    """

    def __init__(self, own: str | None = None) -> None:
        self.own = None if own in (None, "mnist", "synthetic") else own
        self._lock = threading.Lock()  # two requests must not load the same data set twice
        self._datasets: dict[str, Dataset | HandgradError] = {}

    def names(self) -> tuple[str, ...]:
        """Names of the data sets, also of those that are not available."""
        return tuple(name for name in TITLES if name != "own" or self.own is not None)

    def describe(self) -> list[dict[str, Any]]:
        """Return what the page shows of each data set."""
        return [self._describe(name) for name in self.names()]

    def _describe(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = {"name": name, "title": TITLES[name], "available": True, "image": True, "reason": None}
        if name in POINTS:
            return {**row, "image": False, "n_in": 2, "n_classes": 2, "n_train": 5000}
        if name == "synthetic":
            return {**row, "n_in": 784, "n_classes": 10, "n_train": N_TRAIN}
        try:
            dataset = self.dataset(name)
        except HandgradError as error:
            return {**row, "available": False, "reason": str(error), "n_in": 784, "n_classes": 10, "n_train": 0}
        pixels = int(np.prod(dataset.x_train.shape[1:]))
        size = {"n_in": pixels, "n_classes": len(dataset.classes), "n_train": available(dataset)}
        return {**row, **size, "title": dataset.name if name == "own" else row["title"]}

    def dataset(self, name: str) -> Dataset:
        """Return MNIST or the user's data set. Raises HandgradError if it cannot be loaded, without a download."""
        with self._lock:
            if name not in self._datasets:
                try:
                    self._datasets[name] = self._load(name)
                except MnistNotFoundError:
                    raise  # it is searched again: handgrad data fetch can provide it while the server runs
                except HandgradError as error:
                    self._datasets[name] = error
            found = self._datasets[name]
        if isinstance(found, HandgradError):
            raise found
        return found

    def _load(self, name: str) -> Dataset:
        if name == "mnist":
            try:
                return load_mnist(fetch=False)
            except MnistNotFoundError:
                raise MnistNotFoundError("MNIST was not found: run handgrad data fetch, then reload the page") from None
        dataset = load(str(self.own))
        if not dataset.is_images or dataset.x_train[0].size > MAX_PIXELS:
            raise HandgradError(f"{dataset.name}: expected images of at most {MAX_PIXELS:,} pixels")
        return dataset

    def examples(self, name: str, n_train: int) -> Examples:
        """Return the training and validation examples of a run.

        Raises HandgradError if the data set is unknown, not available or too small.
        """
        if name not in self.names():
            raise HandgradError(f"unknown data set {name!r}: expected {', '.join(self.names())}")
        if name in POINTS:
            return _points(name, n_train)
        if name == "synthetic":
            return _synthetic(n_train)
        dataset = self.dataset(name)
        if n_train > available(dataset):
            raise HandgradError(f"n_train is {n_train:,}: {dataset.name} has {available(dataset):,} training examples")
        count = validation_size(n_train, len(dataset.x_train))
        x, y = dataset.x_train, dataset.y_train
        code = (
            "from handgrad.data import load",
            "",
            f"data = load({json.dumps(name if name == 'mnist' else self.own, ensure_ascii=False)})",
            f"x_train, y_train = data.x_train[:{n_train}], data.y_train[:{n_train}]",
            f"x_validation, y_validation = data.x_train[-{count}:], data.y_train[-{count}:]",
        )
        return Examples(x[:n_train], y[:n_train], x[-count:], y[-count:], dataset.classes, code)


def available(dataset: Dataset) -> int:
    """Return the largest number of training examples: five sixths of the training set, 50,000 of MNIST."""
    count = len(dataset.x_train)
    return min(count - max(1, min(10_000, count // 6)), N_TRAIN)


def validation_size(n_train: int, count: int) -> int:
    """Return the number of validation examples: half of those for training, 1,000 to 10,000, at most a sixth."""
    return max(1, min(max(1000, n_train // 2), 10_000, count // 6))


@functools.lru_cache(2)
def _synthetic(n_train: int) -> Examples:
    count = validation_size(n_train, N_TRAIN)
    code = (
        "from handgrad.data.synthetic import synthetic_digits",
        "",
        f"x_train, y_train, x_validation, y_validation = synthetic_digits({n_train}, {count})",
    )
    return Examples(*synthetic_digits(n_train, count), tuple("0123456789"), code)


def _points(name: str, n_train: int) -> Examples:
    make, count = POINTS[name], 500
    code = (
        f"from handgrad.lab.points import {name}",
        "",
        f"x_train, y_train = {name}({n_train}, rng=0)",
        f"x_validation, y_validation = {name}({count}, rng=1)",
    )
    return Examples(*make(n_train, 0), *make(count, 1), ("0", "1"), code)

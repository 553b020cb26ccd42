"""Data sets: training and test examples, from arrays or from directories of IDX files; validation split."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Labels, as_array, check_fraction, check_inputs
from ..errors import HandgradError, HandgradWarning, calls_of_handgrad
from ..io.atomic import read_bytes
from .idx import decompress, parse_idx
from .labels import encode_labels, seem_to_be_numbers

FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
TEST_SHARE = 0.2  # of examples without a test set
BRIGHT = 128  # grey level of a bright background
GREY = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue: ITU-R BT.601

Examples = NDArray[Any]  # images, uint8, (count, height, width), background 0 and strokes 255; or floats (count, n)


class Split(NamedTuple):
    """Training, validation and test sets.

    Attributes
    ----------
    train, validation, test : tuple of (ndarray, ndarray)
        Images of shape (count, height, width), or numbers of shape (count, n), and labels of shape (count,).
    """

    train: tuple[Examples, Labels]
    validation: tuple[Examples, Labels]
    test: tuple[Examples, Labels]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test examples with their labels. `Dataset.from_arrays` accepts more kinds of arrays.

    Parameters
    ----------
    x_train, x_test : ndarray
        Images, uint8 of shape (count, height, width), or numbers, floats of shape (count, n). Both arrays have the same
        kind and the same size of an example.
    y_train, y_test : ndarray of integers, shape (count,)
        Labels, at least 0 and less than len(classes).
    name : str
        Name of the data set, used in messages.
    classes : tuple of str
        Names of the classes: label i belongs to classes[i].
    notes : tuple of str
        What was done to the examples when they were read. `handgrad train` prints it.
    feature_names : tuple of str, optional
        Names of the numbers of an example, if they are columns of a table.

    Raises
    ------
    HandgradError
        If an array has another dtype or shape, if an array is empty, or if a label has no class.
    """

    x_train: Examples
    y_train: Labels
    x_test: Examples
    y_test: Labels
    name: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] | None = None

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        x_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        *,
        classes: Sequence[str] | Mapping[Any, str] | None = None,
        test: float = TEST_SHARE,
        divide: bool = True,
        name: str = "data",
        notes: Sequence[str] = (),
    ) -> Dataset:
        """Create a data set from arrays, lists or DataFrames.

        Parameters
        ----------
        x : array-like
            Images of shape (count, height, width), with 1 or 3 channels as the last or the second axis if there are
            four axes, or numbers of shape (count, n). Integer pixels are 0 to 255, float and boolean pixels are in
            [0, 1]. Colour becomes grey.
        y : array-like of shape (count,)
            Labels: strings, integers, floats that are integers, or one-hot rows (count, n_classes).
        x_test, y_test : array-like, optional
            Test set. Without it, a random share of the examples of each class becomes the test set, and the other
            examples are shuffled. With it, the training examples are shuffled only if they are sorted by class, so
            that a validation set has all classes. The result is always the same for the same data.
        classes : sequence of str, or mapping of label to str, optional
            Names of the classes, for the labels 0, 1, ... or else for the sorted labels; or the name of each label. By
            default, the names are the labels.
        test : float
            Share of the test set if there is none, more than 0 and less than 1.
        divide : bool
            False: without a test set, all examples in their order are both the training and the test set, to evaluate a
            trained model.
        name : str
            Name of the data set.
        notes : sequence of str
            See `Dataset`.

        Raises
        ------
        HandgradError
            For arrays that do not match, missing values and pixels out of range, and if a label of the test set does
            not occur in the training set.

        Warns
        -----
        HandgradWarning
            If the labels seem to be numbers to predict: more than 20 different integers, each for less than 20 examples
            on average.

        Examples
        --------
        >>> from handgrad.data import Dataset
        >>> Dataset.from_arrays([[1.0], [2.0], [3.0], [4.0], [5.0]], ["no", "no", "no", "yes", "yes"])
        data: 4 training examples, 1 test example, 1 feature, 2 classes
        """
        features, notes = as_examples("x", x), list(notes)
        if (x_test is None) != (y_test is None):
            raise HandgradError(f"{name}: x_test and y_test belong together: pass both, or neither")
        try:
            labels, test_labels, names = encode_labels(y, y_test, classes, limit=divide)
        except HandgradError as error:
            raise HandgradError(f"{name}: {error}") from error
        if divide and classes is None and seem_to_be_numbers(names, len(labels)):
            warnings.warn(
                f"{name}: y has {len(names)} different numbers in {len(labels):,} examples, and each of them becomes a "
                "class: to predict a number, use MLPRegressor, or Network(..., loss='squared_error'), in Python",
                HandgradWarning,
                stacklevel=calls_of_handgrad(),
            )
        if x_test is not None:
            if len(features) == len(labels) and labels[0] < labels[-1] and (labels[:-1] <= labels[1:]).all():
                order = np.random.default_rng(0).permutation(len(labels))  # or the last examples would be of one class
                features, labels = features[order], labels[order]
                notes.append("the training examples are shuffled, because they are sorted by class")
            return cls(features, labels, as_examples("x_test", x_test), test_labels, name, names, tuple(notes))
        if len(features) != len(labels):
            raise HandgradError(f"{name}: x has {len(features)} examples and y has {len(labels)} labels")
        if not divide:
            notes.append("all examples are used, in their order")
            return cls(features, labels, features, labels, name, names, tuple(notes))
        train, held_out = split_by_class(labels, test)
        notes.append(f"the test set is a random {test:.0%} of the examples")
        return cls(
            features[train], labels[train], features[held_out], labels[held_out], name, names, notes=tuple(notes)
        )

    def __post_init__(self) -> None:
        self._check("train", self.x_train, self.y_train)
        self._check("test", self.x_test, self.y_test)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise HandgradError(
                f"{self.name}: x_train has {self._size(self.x_train)} and x_test {self._size(self.x_test)}: "
                "expected the same size"
            )

    def __repr__(self) -> str:
        what = "image" if self.is_images else "example"
        train, test = _count(len(self.x_train), f"training {what}"), _count(len(self.x_test), f"test {what}")
        return f"{self.name}: {train}, {test}, {self.describe_example()}"

    def describe_example(self) -> str:
        """Return the size of an example and the number of classes: "28x28 pixels, 10 classes"."""
        return f"{self._size(self.x_train)}, {_count(len(self.classes), 'class')}"

    @property
    def is_images(self) -> bool:
        """Whether the examples are images."""
        return self.x_train.ndim == 3

    def split(self, validation: int | None = None) -> Split:
        """Split the training set: the last `validation` examples become the validation set.

        Parameters
        ----------
        validation : int, optional
            Number of validation examples, at least 1 and less than len(x_train). The default is a sixth of the training
            set, at most 10,000. It splits MNIST into 50,000, 10,000 and 10,000 examples, as Nielsen does.

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
        if validation is None:
            validation = validation_size(10_000, count)
        if not isinstance(validation, int | np.integer) or not 1 <= validation < count:
            what = "images" if self.is_images else "examples"
            raise HandgradError(
                f"{self.name}: cannot use {validation!r} of the {count} training {what} for validation: "
                f"expected 1 to {count - 1}"
            )
        n_train = count - validation
        return Split(
            train=(self.x_train[:n_train], self.y_train[:n_train]),
            validation=(self.x_train[n_train:], self.y_train[n_train:]),
            test=(self.x_test, self.y_test),
        )

    def with_classes(self, classes: Sequence[str]) -> Dataset:
        """Return the data set with the labels of a model that has these classes.

        A model that knows ten digits can then be evaluated on a data set that has only some of them. Classes that are
        named by their numbers, as those of IDX files, are the first classes of the model.

        Raises
        ------
        HandgradError
            If the model does not have one of the classes.
        """
        classes = tuple(classes)
        numbered = self.classes == tuple(map(str, range(len(self.classes))))
        known = set(self.classes) <= set(classes)
        if self.classes == classes or (numbered and not known and len(self.classes) <= len(classes)):
            return self
        missing = [name for name in self.classes if name not in classes]
        if missing:
            raise HandgradError(
                f"{self.name} has the class '{missing[0]}': expected the classes {shorten(classes)} of the model"
            )
        index = np.array([classes.index(name) for name in self.classes])
        return replace(self, y_train=index[self.y_train], y_test=index[self.y_test], classes=classes)

    def _check(self, part: str, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Check dtype, shape and labels of one part, "train" or "test"."""
        if not (x.dtype == np.uint8 and x.ndim == 3) and not (x.dtype.kind == "f" and x.ndim == 2):
            raise HandgradError(
                f"{self.name}: x_{part} is {x.dtype} of shape {x.shape}: expected images, uint8 of shape "
                "(count, height, width), or numbers, floats of shape (count, n); Dataset.from_arrays converts arrays"
            )
        if y.dtype.kind not in "iu" or y.ndim != 1:
            raise HandgradError(
                f"{self.name}: y_{part} is {y.dtype} of shape {y.shape}: expected integers of shape (count,)"
            )
        if x.size == 0:
            raise HandgradError(f"{self.name}: x_{part} of shape {x.shape} is empty: expected at least one example")
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise HandgradError(f"{self.name}: x_{part}[{row}, {column}] is {x[row, column]}: expected a number")
        if len(x) != len(y):
            what = "images" if x.ndim == 3 else "examples"
            raise HandgradError(
                f"{self.name}: x_{part} has {len(x)} {what} and y_{part} has {len(y)} labels: "
                f"expected one label per {what[:-1]}"
            )
        wrong = y[(y < 0) | (y >= len(self.classes))]
        if wrong.size:
            raise HandgradError(
                f"{self.name}: y_{part} contains the label {wrong.max()}, but there are {len(self.classes)} classes: "
                f"expected labels from 0 to {len(self.classes) - 1}"
            )

    @staticmethod
    def _size(x: Examples) -> str:
        """Size of an example as text: "28x28 pixels" or "4 features"."""
        if x.ndim == 2:
            return _count(x.shape[1], "feature")
        height, width = x.shape[1:]
        return f"{height}x{width} pixels"


def has_bright_background(x: NDArray[np.uint8]) -> bool:
    """Return whether the border of most images (count, height, width) is bright."""
    x = np.asarray(x)
    border = np.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1)
    return bool(np.median(np.median(border, axis=1)) >= BRIGHT)


def _count(number: int, noun: str) -> str:
    """A number with its noun: "1 test image", "3 classes"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """List names for a message, the first ones of many."""
    names = list(names)
    return ", ".join(names[:limit]) + (f", ... ({len(names)})" if len(names) > limit else "")


def validation_size(wanted: int, count: int) -> int:
    """Return the number of validation examples: `wanted`, but at most a sixth of the `count` training examples."""
    return min(wanted, count // 6)


def as_examples(name: str, x: Any) -> Examples:
    """Convert examples to those of a `Dataset`: images to uint8 (count, height, width), numbers to floats (count, n).

    Parameters
    ----------
    name : str
        Name of the array in messages.
    x : array-like
        See `Dataset.from_arrays`.

    Raises
    ------
    HandgradError
        For other shapes, values that are no numbers, missing values, and pixels out of range.
    """
    if hasattr(x, "toarray") or hasattr(x, "collect"):
        remedy = f"{name}.toarray()" if hasattr(x, "toarray") else f"{name}.collect()"
        raise HandgradError(f"{name} is a {type(x).__name__}, which is not an array: pass {remedy}")
    if np.ma.is_masked(x):
        raise HandgradError(f"{name} has masked values: fill in or remove missing values")
    x = as_array(name, x.to_numpy() if hasattr(x, "to_numpy") else x)
    if x.ndim == 0:
        raise HandgradError(f"{name} is {str(x)[:40]!r}: expected numbers (count, n), or images (count, height, width)")
    if x.dtype.kind in "OUS":  # a DataFrame with columns of several types
        x = _as_numbers(name, x)
    if x.dtype.kind == "b" and x.ndim == 2:
        x = x.astype(np.float32)
    if x.size == 0:
        raise HandgradError(
            f"{name} is empty, with shape {x.shape}: expected numbers (count, n), or images (count, height, width)"
        )
    if x.ndim not in (2, 3, 4) or x.dtype.kind not in "fiub":
        raise HandgradError(
            f"{name} has dtype {x.dtype} and shape {x.shape}: expected numbers (count, n), or images "
            "(count, height, width)"
        )
    if x.ndim == 2:
        # float32 represents integers up to 2^24 exactly; larger and finer numbers stay float64, for Standardize
        exact = x.dtype.itemsize <= 2 or x.dtype == np.float32
        numbers: Examples = x.astype(np.float32 if exact else np.float64, copy=False)
        return numbers
    x = _grey(name, x)
    x = check_inputs(x, x.shape[1] * x.shape[2])
    return x if x.dtype == np.uint8 else np.asarray(np.rint(np.clip(x, 0, 1) * 255), np.uint8)


def _as_numbers(name: str, x: NDArray[Any]) -> NDArray[np.float64]:
    """Convert an array of objects or strings to floats."""
    try:
        return np.asarray(x, np.float64)
    except (ValueError, TypeError):
        for index, value in np.ndenumerate(x):
            try:
                float(value)
            except (ValueError, TypeError):
                where = ", ".join(map(str, index))
                raise HandgradError(
                    f"{name}[{where}] is {str(value)[:40]!r}: expected a number; encode text as numbers, "
                    "and fill in or remove missing values"
                ) from None
        raise


def _grey(name: str, x: NDArray[Any]) -> NDArray[Any]:
    """Convert images with one or three channels, as the last or the second axis, to (count, height, width)."""
    if x.ndim == 3:
        return x
    for axis in (3, 1):  # channels last, channels first
        if x.shape[axis] == 1:
            return x.reshape(x.shape[:axis] + x.shape[axis + 1 :])
        if x.shape[axis] == 3:
            grey = np.tensordot(x, GREY, axes=(axis, 0))
            return grey if x.dtype.kind == "f" else np.rint(grey).astype(np.int64)
    raise HandgradError(f"{name} has shape {x.shape}: expected images with 1 or 3 channels, or without that axis")


def split_by_class(labels: Labels, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide the examples at random: a share of each class for testing, all others for training.

    Returns
    -------
    train, test : ndarray of int
        Indices in random order, the same ones for the same labels.
    """
    check_fraction("test", share, "(0, 1)")
    if len(labels) < 2:
        raise HandgradError("a single example cannot be divided into a training and a test set: expected 2 or more")
    order = np.random.default_rng(0).permutation(len(labels))
    rank, sizes = np.empty(len(labels), np.intp), np.bincount(labels)
    by_class = np.argsort(labels[order], kind="stable")
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_test = rank < np.minimum(np.rint(share * sizes), sizes - 1)[labels[order]]
    if not is_test.any():
        is_test[np.argmax(sizes[labels[order]])] = True
    return order[~is_test], order[is_test]


def read_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Read a directory of four IDX files with MNIST's file names.

    The directory may contain MNIST, Fashion-MNIST, KMNIST or your own data, of any height and width. The classes are
    the training labels. A file name may end in .gz and may have a dot instead of the hyphen
    before "idx". `handgrad.data.load` also reads EMNIST and QMNIST, whose files differ.

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
    return {name: decompress(read_bytes(path), path.name) for name, path in find_files(directory).items()}


def find_files(directory: Path) -> dict[str, Path]:
    """Return the path of each of the four files in a directory. Raises HandgradError if a file is missing."""
    found = {name: matching_files(directory, name) for name in FILES.values()}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise HandgradError(f"{directory} does not contain {', '.join(missing)}: add the missing files, plain or .gz")
    return {name: paths[0] for name, paths in found.items()}


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
    arrays: dict[str, Any] = {field: parse_idx(payloads[file], file) for field, file in FILES.items()}
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    if y_train.ndim != 1 or y_train.dtype.kind not in "iu" or not y_train.size:
        return Dataset(**arrays, name=name, classes=())  # raises the error
    try:
        known = y_test.ndim == 1 and y_test.dtype.kind in "iu" and y_test.size
        y_train, encoded, classes = encode_labels(y_train, y_test if known else None)
    except HandgradError as error:
        raise HandgradError(f"{name}: {error}") from error
    arrays |= {"y_train": y_train, "y_test": encoded if known else y_test}
    return Dataset(**arrays, name=name, classes=classes)

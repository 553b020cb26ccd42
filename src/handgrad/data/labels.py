"""Labels: class indices and class names from labels of any kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Labels, as_array
from ..errors import HandgradError
from ..model import check_distinct

FEW = 20  # this number of different labels is accepted for any number of examples
MAX_CLASSES = 10_000
MIN_EXAMPLES = 20  # of a class, on average, if there are more than FEW classes that are named by integers


def encode_labels(
    y: Any,
    y_test: Any = None,
    classes: Sequence[str] | Mapping[Any, str] | None = None,
    *,
    limit: bool = True,
) -> tuple[Labels, Labels, tuple[str, ...]]:
    """Convert labels of any kind to class indices.

    Parameters
    ----------
    y, y_test : array-like of shape (count,)
        Labels of the training set and of the test set, which may be missing: strings, integers, floats that are
        integers, booleans, or one-hot rows (count, n_classes). Strings that are integers are sorted as numbers.
    classes : sequence of str, or mapping of label to str, optional
        Names of the classes, for the labels 0, 1, ... or else for the sorted labels; or the name of each label.
    limit : bool
        Limit the number of different labels by the number of examples.

    Returns
    -------
    y, y_test : ndarray of int, shape (count,)
        Class indices. Integers that are class indices already are returned unchanged.
    classes : tuple of str
        Name of each class.

    Raises
    ------
    HandgradError
        For missing labels, numbers that are not integers, almost as many different labels as examples, labels of the
        test set that the training set does not have, and classes that do not match.
    """
    y = _as_labels("y", y)
    y_test = y[:0] if y_test is None else _as_labels("y_test", y_test)
    if len(y) == 0:
        raise HandgradError("y has no labels: expected one for each example")
    if (y.dtype.kind in "iu") != (y_test.dtype.kind in "iu"):
        y, y_test = y.astype(str), y_test.astype(str)
    present = np.unique(y)
    if y.dtype.kind not in "iu" and all(_is_integer(label) for label in present):
        present = present[np.argsort([int(label) for label in present], kind="stable")]
    labels = present.tolist()
    if limit and len(labels) > min(max(FEW, len(y) / 2), MAX_CLASSES):
        raise HandgradError(
            f"y has {len(labels):,} different labels in {len(y):,} examples: expected a few classes; if y is a number "
            "to predict, use MLPRegressor, or Network(..., loss='squared_error')"
        )
    if classes is None:
        names = tuple(map(str, labels))
    elif isinstance(classes, Mapping):
        named = {str(key): str(name) for key, name in classes.items()}
        missing = [label for label in labels if str(label) not in named]
        if missing:
            raise HandgradError(f"classes has no name for the label {missing[0]!r}")
        names = tuple(named[str(label)] for label in labels)
    else:
        labels, names = _named(labels, y, y_test, classes)
    check_distinct(names)
    index = {label: i for i, label in enumerate(labels)}
    return _indices("y", y, index), _indices("y_test", y_test, index), names


def seem_to_be_numbers(names: Sequence[str], count: int) -> bool:
    """Return whether the labels of `count` examples, with these names, seem to be numbers to predict: a regression."""
    return len(names) > max(FEW, count / MIN_EXAMPLES) and all(map(_is_integer, names))


def _named(
    labels: list[Any], y: NDArray[Any], y_test: NDArray[Any], classes: Sequence[str]
) -> tuple[list[Any], tuple[str, ...]]:
    """The label of each class and its name, for a sequence of names."""
    if isinstance(classes, str | set | frozenset):  # a set has no order
        raise HandgradError(f"classes must be a list of names, got {classes!r}")
    names = tuple(map(str, classes))
    integers = y.dtype.kind in "iu"
    if integers and labels[0] >= 0 and max(labels[-1], y_test.max(initial=0)) < len(names):
        return list(range(len(names))), names  # also classes without an example
    if not integers and set(labels) <= set(names):
        return list(names), names
    if len(names) == len(labels):
        return labels, names
    raise HandgradError(
        f"classes has {len(names)} names and y has the {len(labels)} labels {', '.join(map(str, labels[:10]))}: "
        "expected one name for each label, or a mapping of label to name"
    )


def _as_labels(name: str, y: Any) -> NDArray[Any]:
    """Labels (count,) as integers, if they are, else as strings."""
    y = as_array(name, y.to_numpy() if hasattr(y, "to_numpy") else y)
    if y.dtype.kind == "T":  # strings of variable width
        y = y.astype(object)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "fiub" and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)  # one-hot rows
    if y.ndim != 1:
        raise HandgradError(f"{name} has shape {y.shape}: expected one label for each example, (count,)")
    if y.dtype.kind == "O":
        y = _from_objects(name, y)
    if y.dtype.kind == "f":
        wrong = y[y != np.rint(y)]
        if wrong.size:
            what = "a missing label" if np.isnan(wrong).any() else f"the label {wrong[0]:g}"
            raise HandgradError(
                f"{name} contains {what}: expected integers or text; "
                "remove such rows, or use a regression if y is a number to predict"
            )
        if not (np.abs(y) < 2**53).all():
            raise HandgradError(f"{name} contains the label {y[np.argmax(np.abs(y))]:g}: expected integers or text")
        y = y.astype(np.int64)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "U" and y.size and (np.char.strip(y) == "").any():
        raise HandgradError(f"{name}[{int((np.char.strip(y) == '').argmax())}] is empty: expected a label")
    return np.asarray(y if y.dtype.kind in "iu" else y.astype(str))


def _from_objects(name: str, y: NDArray[Any]) -> NDArray[Any]:
    """Labels in an array of Python objects, as pandas has them: as numbers if all are numbers, else as strings."""
    for i, label in enumerate(y):
        if label is None or label != label or str(label) in ("<NA>", "NaT"):
            raise HandgradError(f"{name}[{i}] is missing: expected a label; remove such rows")
    if all(isinstance(label, int | float | np.number) and not isinstance(label, bool) for label in y):
        return y.astype(np.float64)
    return np.array([label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label) for label in y])


def _indices(name: str, y: NDArray[Any], index: dict[Any, int]) -> Labels:
    """The class index of each label."""
    if not y.size:
        return np.zeros(0, np.intp)
    if y.dtype.kind in "iu" and list(index) == list(range(len(index))) and y.min() >= 0 and y.max() < len(index):
        return y
    values, inverse = np.unique(y, return_inverse=True)
    unknown = [value for value in values.tolist() if value not in index]
    if unknown:
        known = ", ".join(map(str, list(index)[:10])) + (", ..." if len(index) > 10 else "")
        raise HandgradError(f"{name} contains the label {unknown[0]}: expected those of the training set, {known}")
    return np.array([index[value] for value in values.tolist()], np.intp)[inverse.reshape(-1)]


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return len(text) < 20

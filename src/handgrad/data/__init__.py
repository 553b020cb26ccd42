"""Data sets of labelled examples: MNIST, IDX directories, tables, folders of images, arrays, synthetic digits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arrays import Rows
from ..errors import HandgradError, submodule
from ..io.atomic import as_path
from ..model import check_distinct
from .dataset import Dataset, Split, read_dataset

__all__ = ["Dataset", "Split", "load", "read_dataset"]

COMPRESSED = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz", ".rar")
TABLES = (".csv", ".tsv", ".txt", ".data", ".tab", ".gz")
FORMATS = (
    "mnist, synthetic, a directory of IDX or .npy files, a folder with one folder of images for each class, a CSV "
    "file, or an .npz file"
)


def load(
    name: str,
    *,
    classes: Sequence[str] | Mapping[Any, str] | None = None,
    size: tuple[int, int] | None = None,
    label: str | int | None = None,
    shuffle: str = "auto",
    divide: bool = True,
    feature_names: Sequence[str] | None = None,
) -> Dataset:
    """Load a data set by name, from a file or from a directory.

    Parameters
    ----------
    name : str or path-like
        "mnist": MNIST, downloaded if no copy is found on this machine. "synthetic": 60,000 training and 10,000 test
        digits that `handgrad.data.synthetic` renders. Any other string is a path:

        - a directory of four IDX files, or the directory that torchvision downloads to: ROOT/FashionMNIST or ROOT, for
          MNIST, Fashion-MNIST, KMNIST, QMNIST and EMNIST; for a split of EMNIST ROOT/EMNIST/digits, .../letters, ...;
        - a folder of .npy files, train-images.npy, train-labels.npy, test-images.npy and test-labels.npy, or numbered
          shards, train-images-0.npy, train-labels-0.npy, train-images-1.npy, ...;
        - a folder with one folder of image files for each class, or with the folders train and test of such folders;
        - a CSV file with a column of labels; pixels are read as images, all other columns as numbers;
        - an .npz file with x_train, y_train, x_test and y_test, as Keras has it, or with x and y.

        Without a test set, a random fifth of the examples is the test set, see `divide`.
    classes : sequence of str, or mapping of label to str, optional
        Names of the classes, see `Dataset.from_arrays`.
    size : (height, width), optional
        Size of the images of a folder in pixels. By default the most common size, at most 64 pixels per side.
    label : str or int, optional
        Name or number, from 0, of the column of labels of a CSV file, and only of a CSV file. "3" is the number 3 if no
        column has this name.
    shuffle : {"auto", "rows", "blocks"}
        For IDX and .npy files that are not compressed. The training images of files of more than 256 MiB stay on the
        disk and are read when they are used. "rows": an epoch reads them in any order, as in memory. "blocks": an epoch
        reads blocks of 512 images in random order and mixes 64 of them in a buffer, for files larger than memory.
        "auto": "rows" if the files fit into the available memory.
    divide : bool
        False: of data without a test set, all examples in their order are both the training and the test set. Use it
        to evaluate a trained model on other data than those of the training.
    feature_names : sequence of str, optional
        Names of the features that a model expects, `model.feature_names`: the columns of a CSV file with a header are
        used in this order, and other columns are left out.

    Returns
    -------
    Dataset
        Training and test examples with their labels.

    Raises
    ------
    HandgradError
        If the path contains no complete data set, if MNIST is neither found nor downloaded, or if `label` is given for
        data that are not a CSV file.

    Examples
    --------
    >>> from handgrad.data import load
    >>> load("synthetic")
    synthetic digits: 60,000 training images, 10,000 test images, 28x28 pixels, 10 classes
    """
    if shuffle not in ("auto", "rows", "blocks"):
        raise HandgradError(f"shuffle must be auto, rows or blocks, got {shuffle!r}")
    try:
        dataset = _load(name, classes, size, shuffle, divide, {"label": label, "feature_names": feature_names})
    except OSError as error:  # a name that is too long, or a directory without permission
        raise HandgradError(f"cannot read {name}: {error.strerror or error}") from error
    if shuffle == "blocks" and not isinstance(dataset.x_train, Rows):
        raise HandgradError(f"shuffle='blocks' needs a directory of IDX or .npy files, not {str(name)!r}")
    return dataset


def _load(
    name: str,
    classes: Sequence[str] | Mapping[Any, str] | None,
    size: tuple[int, int] | None,
    shuffle: str,
    divide: bool,
    columns: dict[str, Any],
) -> Dataset:
    check_label(columns["label"], name)
    if name == "synthetic":
        from .synthetic import synthetic_digits

        x_train, y_train, x_test, y_test = synthetic_digits()
        dataset = Dataset(x_train, y_train, x_test, y_test, name="synthetic digits", classes=tuple("0123456789"))
        return _renamed(dataset, classes)
    from .mnist import MNIST, load_mnist, load_user_data

    if name == "mnist":
        return _renamed(load_mnist(), classes)
    path = as_path(name)
    if path.is_dir() or not path.exists():  # EMNIST/digits is no directory, but files in EMNIST/raw
        dataset_or_none = load_user_data(path, MNIST, shuffle)
        if dataset_or_none is not None:
            return _renamed(dataset_or_none, classes)
    if path.is_dir():
        from .mapped import has_npy_names, load_npy_folder

        if has_npy_names(path):
            return load_npy_folder(path, shuffle, classes)
    table = table_file(path)
    if table is not None:
        from .tables import load_table

        directory_name = path.resolve().name if path.is_dir() else None
        return load_table(table, classes=classes, divide=divide, name=directory_name, **columns)
    if not path.exists():
        raise HandgradError(f"there is no data set {str(name)!r}: expected {FORMATS}")
    if path.is_dir():
        from .folders import load_folder

        return load_folder(path, size=size, classes=classes, divide=divide)
    if path.suffix.lower() == ".npz":
        from .archives import load_npz

        if path.stat().st_size == MNIST.npz.size:
            return _renamed(load_mnist(path), classes)
        return load_npz(path, classes=classes, divide=divide)
    if path.suffix.lower() in COMPRESSED:
        raise HandgradError(f"{path} is compressed: expected a .csv or .csv.gz file; decompress it first")
    raise HandgradError(f"{path} is not a data set that handgrad reads: expected {FORMATS}")


def table_file(path: Path) -> Path | None:
    """Return the CSV file at a path, which may be a directory with nothing else; None for other data."""
    if not path.is_dir():
        return path if path.is_file() and path.name.lower().endswith(TABLES) else None
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    tables = [entry for entry in entries if re.search(r"\.[ct]sv(\.gz)?$", entry.name, re.IGNORECASE)]
    if len(tables) > 1:  # such as train.csv and test.csv
        tables = [table for table in tables if "train" in table.name.lower()]
    return tables[0] if len(tables) == 1 and not any(entry.is_dir() for entry in entries) else None


def check_label(label: str | int | None, name: str) -> None:
    """Raise HandgradError if there is a column of labels for data that are not a CSV file."""
    path = as_path(name)
    if label is not None and table_file(path) is None and not path.name.lower().endswith(TABLES):
        raise HandgradError(f"{name} is not a CSV file: leave out the column of its labels, {label!r}")


def _renamed(dataset: Dataset, classes: Sequence[str] | Mapping[Any, str] | None) -> Dataset:
    """The data set with other names of the classes."""
    if classes is None:
        return dataset
    if isinstance(classes, Mapping):
        named = {str(label): str(name) for label, name in classes.items()}
        classes = [named.get(name, name) for name in dataset.classes]
    if isinstance(classes, str) or len(classes) != len(dataset.classes):
        raise HandgradError(f"classes must be {len(dataset.classes)} names, got {classes!r}")
    names = tuple(map(str, classes))
    check_distinct(names)
    return replace(dataset, classes=names)


if not TYPE_CHECKING:  # modules that few programs need

    def __getattr__(name: str) -> Any:
        return submodule(__name__, name)

"""Data sets as torchvision stores them: Fashion-MNIST, KMNIST, EMNIST and QMNIST, by their directories and file names.

    ROOT/FashionMNIST/raw, ROOT/KMNIST/raw      MNIST's file names
    ROOT/EMNIST/raw                             emnist-digits-train-images-idx3-ubyte, ..., for each of six splits
    ROOT/QMNIST/raw                             qmnist-train-images-idx3-ubyte, qmnist-train-labels-idx2-int, ...

The images of EMNIST are stored column by column. The labels of QMNIST are rows of eight numbers, of which the first is
the class.

References
----------
Xiao, Rasul & Vollgraf (2017), Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms.
Clanuwat et al. (2018), Deep learning for classical Japanese literature. KMNIST.
Cohen et al. (2017), EMNIST: an extension of MNIST to handwritten letters.
Yadav & Bottou (2019), Cold case: the lost MNIST digits. QMNIST.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HandgradError
from .dataset import FILES, Dataset, matching_files
from .idx import read_idx
from .labels import encode_labels

DIRECTORIES = ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST")  # in ROOT
_UPPER_AND_DISTINCT_LOWER = string.digits + string.ascii_uppercase + "abdefghnqrt"
# Names of the labels 0, 1, 2, ...; the letters of EMNIST begin with label 1.
CLASSES: dict[str, Sequence[str]] = {
    "fashionmnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "emnist-byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "emnist-bymerge": _UPPER_AND_DISTINCT_LOWER,
    "emnist-balanced": _UPPER_AND_DISTINCT_LOWER,
    "emnist-letters": " " + string.ascii_lowercase,
}
_IMAGES = re.compile(r"(.+)-(?:train|test)-images[-.]idx3-ubyte(?:\.gz)?")


def candidates(path: Path) -> list[Path]:
    """List where the files may be: in the directory itself, or in torchvision's layout below it.

    Parameters
    ----------
    path : Path
        A directory with the files, ROOT/FashionMNIST or ROOT.

    Returns
    -------
    list of Path
        The directories that exist, in the order of the search.
    """
    below = [path / name / raw for name in DIRECTORIES for raw in ("raw", "")]
    return [directory for directory in (path, path / "raw", *below) if os.path.isdir(directory)]


def has_mnist_names(directory: Path) -> bool:
    """Whether a directory contains a file with one of MNIST's four names."""
    return any(matching_files(directory, name) for name in FILES.values())


def prefixes(directory: Path) -> list[str]:
    """List what precedes "-train-images-idx3-ubyte" in the names of a directory's files, as "emnist-digits"."""
    try:
        matches = [_IMAGES.fullmatch(name) for name in os.listdir(directory)]
    except OSError as error:
        raise HandgradError(f"cannot read {directory}: {error.strerror}") from error
    return sorted({match[1] for match in matches if match})


def dataset_name(directory: Path) -> str:
    """Return the name of a data set: that of its directory, or of the one above if that is "raw"."""
    directory = directory.resolve()
    known = directory.name == "raw" and directory.parent.name in DIRECTORIES[1:]
    return directory.parent.name if known else directory.name


def with_known_classes(dataset: Dataset, key: str) -> Dataset:
    """Return the data set with the names of the classes of Fashion-MNIST, KMNIST or a split of EMNIST, by its name."""
    names = CLASSES.get(key.lower(), CLASSES.get(re.sub("[-_]", "", key.lower())))
    if names is None or not all(label.isdecimal() and int(label) < len(names) for label in dataset.classes):
        return dataset
    return replace(dataset, classes=tuple(names[int(label)] for label in dataset.classes))


def read_prefixed(path: Path) -> Dataset | None:
    """Read a data set whose four files have a prefix: a split of EMNIST, or QMNIST.

    Parameters
    ----------
    path : Path
        A directory, or a directory and a prefix, such as ROOT/EMNIST/raw/emnist-digits or ROOT/EMNIST/digits.

    Returns
    -------
    Dataset or None
        None if there are no such files.

    Raises
    ------
    HandgradError
        If there are several data sets, if a file is missing or damaged, or if images and labels do not match.
    """
    if os.path.isdir(path):
        found = [(directory, prefix) for directory in candidates(path) for prefix in prefixes(directory)]
    else:
        wanted = path.name.lower()
        found = [
            (directory, prefix)
            for directory in (candidates(path.parent) if os.path.isdir(path.parent) else ())
            for prefix in prefixes(directory)
            if prefix.lower() in (wanted, f"emnist-{wanted}")
        ]
    if not found:
        return None
    directory, prefix = found[0]
    if len(found) > 1:
        names = ", ".join(dict.fromkeys(other for _, other in found))
        raise HandgradError(f"{path} contains the data sets {names}: give one of them, as {directory / prefix}")
    return _read(directory, prefix)


def _read(directory: Path, prefix: str) -> Dataset:
    """Read the four files with a prefix."""
    arrays: dict[str, Any] = {}
    missing = []
    for field in FILES:
        x_or_y, _, part = field.partition("_")
        names = [f"{prefix}-{part}-images-idx3-ubyte"]
        if x_or_y == "y":
            names = [f"{prefix}-{part}-labels-idx1-ubyte", f"{prefix}-{part}-labels-idx2-int"]
        files = [file for name in names for file in matching_files(directory, name)]
        if files:
            arrays[field] = read_idx(files[0])
        else:
            missing.append(" or ".join(names))
    if missing:
        raise HandgradError(f"{directory} does not contain {', '.join(missing)}: add the missing files, plain or .gz")
    is_emnist = prefix.lower().startswith("emnist")
    for field, array in arrays.items():
        if field[0] == "x" and is_emnist and array.ndim == 3:
            arrays[field] = np.ascontiguousarray(array.transpose(0, 2, 1))
        if field[0] == "y" and array.ndim == 2 and array.shape[1]:
            arrays[field] = array[:, 0].copy()
    name = prefix.replace("emnist-", "EMNIST ") if is_emnist else prefix.upper() if prefix == "qmnist" else prefix
    try:
        arrays["y_train"], arrays["y_test"], classes = encode_labels(arrays["y_train"], arrays["y_test"])
    except HandgradError as error:
        raise HandgradError(f"{name}: {error}") from error
    return with_known_classes(Dataset(**arrays, name=name, classes=classes), prefix)

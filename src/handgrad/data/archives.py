"""NumPy archives: .npz files with arrays of examples and labels."""

from __future__ import annotations

import io
import math
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError
from ..io.atomic import read_bytes
from .dataset import Dataset

# Names of the arrays, in any case: (x, y) of the training set, of the test set, or of all examples.
TRAIN = (
    ("x_train", "y_train"),
    ("train_images", "train_labels"),
    ("train_x", "train_y"),
    ("train_data", "train_labels"),
)
TEST = (("x_test", "y_test"), ("test_images", "test_labels"), ("test_x", "test_y"), ("test_data", "test_labels"))
VALIDATION = (("x_val", "y_val"), ("val_images", "val_labels"), ("val_x", "val_y"), ("x_valid", "y_valid"))
ALL: tuple[tuple[str, str], ...] = (
    ("x", "y"),
    ("images", "labels"),
    ("data", "target"),
    ("data", "labels"),
    ("features", "labels"),
)
ALL += (("x", "label"), ("x", "labels"), ("arr_0", "arr_1"))
NAMES = ("classes", "class_names", "target_names")
ARRAY_NAME = re.compile(r"(?!__MACOSX/).*\.npy", re.DOTALL)
MAX_BYTES = 1 << 33
EXPECTED = "expected x_train, y_train, x_test and y_test, or x and y"


def load_npz(path: Path, *, classes: Any = None, divide: bool = True) -> Dataset:
    """Load an .npz file as a data set.

    It contains x_train, y_train, x_test and y_test, as the files of Keras, or x and y, of which a fifth becomes the
    test set. Names with "images" and "labels" are accepted as well, and an array "classes" of names. Validation
    examples (x_val, y_val) are added at the end of the training set.

    Parameters
    ----------
    path : Path
        The file.
    classes, divide
        See `Dataset.from_arrays`.

    Raises
    ------
    HandgradError
        If the file is damaged, lacks an array, or contains Python objects.
    """
    arrays = read_npz(path)
    found = {part: _pair(arrays, pairs) for part, pairs in (("train", TRAIN), ("val", VALIDATION), ("test", TEST))}
    train, validation, test = found["train"] or _pair(arrays, ALL), found["val"], found["test"]
    if train is None:
        names = ", ".join(arrays) or "no array"
        raise HandgradError(f"{path} contains {names[:200]}: {EXPECTED}")
    if classes is None:
        classes = next((list(map(str, np.atleast_1d(arrays[name]))) for name in NAMES if name in arrays), None)
    x, y = train
    if test is None:
        test, validation = validation, None
    if validation is not None:
        if x.ndim != validation[0].ndim or x.shape[1:] != validation[0].shape[1:] or y.ndim != validation[1].ndim:
            raise HandgradError(f"{path}: the validation examples have another shape than the training examples")
        x, y = np.concatenate([x, validation[0]]), np.concatenate([y, validation[1]])
    if test is None:
        return Dataset.from_arrays(x, y, classes=classes, divide=divide, name=path.name)
    return Dataset.from_arrays(x, y, *test, classes=classes, name=path.name)


def read_unlabelled(path: Path) -> NDArray[Any] | None:
    """Read the examples of an .npz file that contains no labels; None if it contains labels, or several arrays."""
    arrays, pairs = read_npz(path), (*TRAIN, *TEST, *VALIDATION, *ALL)
    names = {x for x, _ in pairs if x in arrays}
    return arrays[names.pop()] if len(names) == 1 and not any(y in arrays for _, y in pairs) else None


def _pair(
    arrays: dict[str, NDArray[Any]], pairs: tuple[tuple[str, str], ...]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The first pair of which both arrays exist."""
    return next(((arrays[x], arrays[y]) for x, y in pairs if x in arrays and y in arrays), None)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file by their names in lower case.

    The sizes in the headers are checked before memory is allocated.

    Raises
    ------
    HandgradError
        If the file is damaged, too large, or contains Python objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            members = [info for info in archive.infolist() if ARRAY_NAME.fullmatch(info.filename)]
            if sum(info.file_size for info in members) > MAX_BYTES:
                raise HandgradError(f"{path} decompresses to more than {MAX_BYTES:,} bytes: expected a smaller file")
            return {info.filename.removesuffix(".npy").lower(): _read_member(archive, info) for info in members}
    except HandgradError as error:
        raise HandgradError(f"{path}: {error}".replace(f"{path}: {path}", str(path))) from error
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error}") from error
    except Exception as error:  # zipfile, zlib and NumPy raise errors of a dozen kinds for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HandgradError(f"{path} is not an .npz file, or is damaged: {reason[:200]}") from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    name = info.filename
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise HandgradError(f"{name} has version {version} of the .npy format: expected (1, 0) or (2, 0)")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise HandgradError(f"{name} contains Python objects: save arrays of numbers or text")
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "fiubUSMm" or min(shape, default=0) < 0 or file.tell() + size != info.file_size:
            raise HandgradError(f"{name} has dtype {dtype} and shape {shape}: the file is damaged or not an array")
        data = bytearray(file.read())
    array = np.frombuffer(data, dtype) if size else np.empty(math.prod(shape), dtype)
    array = array.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)
    if array.size and dtype.kind == "U" and np.ascontiguousarray(array).view(np.uint32).max() > sys.maxunicode:
        raise HandgradError(f"{name} contains characters that do not exist: the file is damaged")
    return array

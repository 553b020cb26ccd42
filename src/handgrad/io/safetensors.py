"""Safetensors files: named arrays, and a JSON description in the metadata. Reading them never executes code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError, optional
from .atomic import replace_file

FORMAT = 1  # version of the description in the metadata


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a file to read its arrays one by one. Raises HandgradError if it is invalid, also while it is read."""
    safetensors = optional("safetensors")
    try:
        path.open("rb").close()  # for a directory, safetensors only says "No such device"
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except HandgradError:
        raise
    except (OverflowError, ValueError) as error:  # an empty array with a dimension of 2^63, for example
        raise HandgradError(f"{path} has an array of a shape that NumPy does not support: {error}") from error
    except (AttributeError, TypeError) as error:  # bfloat16, for example
        raise HandgradError(f"{path} has a dtype that NumPy does not support: {error}") from error
    except safetensors.SafetensorError as error:
        raise HandgradError(f"{path} {_guess_type(path)}: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read all arrays and the metadata. Raises HandgradError if the file is invalid."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]], description: dict[str, Any]) -> None:
    """Write arrays and their description as a handgrad file, atomically."""
    safetensors = optional("safetensors.numpy")
    contiguous = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    metadata = {"handgrad": json.dumps({"format": FORMAT, **description})}
    try:
        _check_text(description)
    except UnicodeEncodeError as error:
        raise HandgradError(
            f"cannot write {path}: a name contains a lone surrogate, which is not a character"
        ) from error
    replace_file(path, safetensors.save(contiguous, metadata))


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays of a handgrad file and their description."""
    arrays, metadata = read_tensors(path)
    return arrays, parse_description(path, metadata)


def parse_description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Parse the description in the metadata. Raises HandgradError if it is missing, invalid, or of a newer format."""
    if "handgrad" not in metadata:
        raise HandgradError(
            f"{path} is a safetensors file, but not a handgrad file: if it is a PyTorch state dict, "
            f"run handgrad import {path}"
        )
    try:
        values: dict[str, Any] = json.loads(metadata["handgrad"])
        version = values["format"]
        _check_text(values)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise HandgradError(f"{path} is damaged: unreadable metadata: {error!r}") from error
    if version != FORMAT:
        raise HandgradError(f"{path} has format {version!r}: this version of handgrad reads format {FORMAT}")
    return values


def _check_text(values: Any) -> None:
    """Raise UnicodeEncodeError, a ValueError, if a string contains a lone surrogate, which cannot be printed."""
    json.dumps(values, ensure_ascii=False).encode()


def _guess_type(path: Path) -> str:
    """Describe a file that is not a safetensors file, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".keras" and start[:2] == b"PK":
        return "is a Keras file: convert it with handgrad import"
    if start == b"\x89HDF":
        return (
            "is an HDF5 file, the older format of Keras: expected a .safetensors or .keras file; convert it in Keras "
            f"with keras.models.load_model({path.name!r}).save({path.stem + '.keras'!r})"
        )
    if start[:1] == b"\x80" or start[:2] == b"PK":
        return (
            "is a pickle or a zip of pickles, which can execute code: expected a .safetensors file; convert it with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors'), or with "
            "torch.load(...)['model_state_dict'] for a checkpoint"
        )
    return "is not a safetensors file, or is incomplete"

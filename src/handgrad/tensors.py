"""Safetensors files read: arrays with names, and a few texts beside them. Nothing in them runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .errors import HandgradError, optional


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open for its arrays one by one. Raises HandgradError where it is none, now or as it is read."""
    safetensors = optional("safetensors")
    try:
        path.open("rb").close()  # of a directory safetensors only says "No such device"
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except (AttributeError, TypeError) as error:  # bfloat16 and its like
        raise HandgradError(f"{path} holds numbers of a type that NumPy does not have: {error}") from error
    except safetensors.SafetensorError as error:
        raise HandgradError(f"{path} {_what_it_is(path)}: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """All arrays of a file, and its metadata. Raises HandgradError where it is no safetensors file, or damaged."""
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no dict)


def _what_it_is(path: Path) -> str:
    """A file that is no safetensors file, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".keras" and start[:2] == b"PK":
        return "is a Keras file, which handgrad import reads: expected a .safetensors file"
    if start == b"\x89HDF":
        return "is an HDF5 file: expected a .safetensors file, or a .keras file, which model.save writes in Keras"
    if start[:1] == b"\x80" or start[:2] == b"PK":
        return (
            "looks like a pickle, or a zip of them, which can run code when read: expected a .safetensors file, which "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors') writes"
        )
    return "is no safetensors file, or only a part of one"

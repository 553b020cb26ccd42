"""Safetensors files: named arrays, and a JSON description in the metadata. Reading them never executes code.

    length of the header (8 bytes), header (JSON: dtype, shape and place of each array), arrays

The format allows any order of the arrays. handgrad writes those of a network in the order of θ, one after the other, so
that θ is a part of the file that can be mapped into memory. `save_file` of the package safetensors sorts them by name.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import CACHE_LINE, aligned_empty
from ..errors import HandgradError, optional
from .atomic import replace_file

FORMAT = 1  # version of the description in the metadata
TYPES = {"BOOL": "?", "F16": "<f2", "F32": "<f4", "F64": "<f8"} | {
    f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)
}


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


def read_tensors(path: Path, *, mapped: bool = False) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read all arrays and the metadata.

    Parameters
    ----------
    path : Path
        The file.
    mapped : bool
        Map the file into memory instead of reading it: the arrays are views of it. What is written into them is not
        written to the file, and takes memory.

    Raises
    ------
    HandgradError
        If the file is invalid.
    """
    with open_tensors(path) as file:
        if mapped and sys.byteorder == "little":
            return _map_tensors(path)
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)


def _map_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays of a valid file as views of a private mapping, and the metadata."""
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(memory[:8], "little")
    header = json.loads(memory[8:start])
    metadata = header.pop("__metadata__", None) or {}
    arrays = {}
    for name, info in header.items():
        if info["dtype"] not in TYPES:
            raise TypeError(info["dtype"])
        arrays[name] = np.ndarray(info["shape"], TYPES[info["dtype"]], memory, start + info["data_offsets"][0])
    return arrays, metadata


def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return a vector of all elements of arrays of one dtype: a view if they are consecutive in a mapped file."""
    size, memory = sum(array.size for array in arrays), arrays[0].base
    begins = [array.ctypes.data for array in arrays]
    ends = [begin + array.nbytes for begin, array in zip(begins, arrays, strict=True)]
    is_one = all(array.base is memory for array in arrays) and begins[1:] == ends[:-1]
    if isinstance(memory, mmap.mmap) and is_one and arrays[0].flags.aligned:
        return np.ndarray(size, arrays[0].dtype, memory, begins[0] - np.frombuffer(memory, np.uint8).ctypes.data)
    vector = aligned_empty(size, arrays[0].dtype)
    return np.concatenate([array.reshape(-1) for array in arrays], out=vector)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], description: dict[str, Any]) -> None:
    """Write arrays and their description as a handgrad file, atomically.

    Arrays of one dtype are written in their order. The first array of floats begins at a cache line.
    """
    try:
        _check_text(description)
    except UnicodeEncodeError as error:
        raise HandgradError(
            f"cannot write {path}: a name contains a lone surrogate, which is not a character"
        ) from error
    types = {np.dtype(code): name for name, code in TYPES.items()}
    values = {name: np.asarray(value, value.dtype.newbyteorder("<"), order="C") for name, value in arrays.items()}
    # Large types first, so that every array is aligned.
    ordered = sorted(values, key=lambda name: (-values[name].itemsize, values[name].dtype.kind))
    header: dict[str, Any] = {"__metadata__": {"handgrad": json.dumps({"format": FORMAT, **description})}}
    begin = 0
    for name in ordered:
        value, end = values[name], begin + values[name].nbytes
        header[name] = {"dtype": types[value.dtype], "shape": value.shape, "data_offsets": [begin, end]}
        begin = end
    first = min((header[name]["data_offsets"][0] for name in ordered if values[name].dtype.kind == "f"), default=0)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text) + first) % CACHE_LINE)
    replace_file(path, len(text).to_bytes(8, "little"), text, *(values[name] for name in ordered))


def read_arrays(path: Path, *, mapped: bool = False) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays of a handgrad file and their description. For `mapped` see `read_tensors`."""
    arrays, metadata = read_tensors(path, mapped=mapped)
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

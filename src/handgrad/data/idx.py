"""IDX, the format of MNIST's files: one array, big-endian, plain or gzipped.

    byte            holds
    0, 1            0, 0
    2               the type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    3               the number of dimensions
    4 ...           the size of each dimension, four bytes each
    then            the elements, the last dimension running fastest, and nothing behind them

Source: "The IDX file format" on the page of the MNIST database, yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..atomic import replacing
from ..errors import HandgradError

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MOST_DIMENSIONS = 64  # NumPy's own limit
MOST_UNZIPPED = 1 << 30  # bytes; twice the largest set in this format, EMNIST ByClass


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file, plain or gzipped. Raises HandgradError where it cannot be read or is not whole."""
    path = Path(path)
    return parse_idx(payload_of(read_bytes(path), path.name), path.name)


def parse_idx(payload: bytes, name: str) -> NDArray[Any]:
    """The array in the bytes of an IDX file, in the machine's own byte order; `name` is for the errors.

    Raises HandgradError for anything but a whole IDX file: wrong magic, unknown type, bytes missing, bytes too many.
    """
    if len(payload) < 4 or payload[:2] != b"\0\0":
        raise HandgradError(
            f"{name} is not an IDX file: it begins with the bytes '{payload[:4].hex(' ')}', "
            "expected '00 00', a type and a number of dimensions"
        )
    dtype, ndim = TYPES.get(payload[2]), payload[3]
    if dtype is None:
        known = ", ".join(f"{code:02x} {dtype.name}" for code, dtype in TYPES.items())
        raise HandgradError(f"{name} holds IDX type {payload[2]:02x}: the types are {known}")
    if not 1 <= ndim <= MOST_DIMENSIONS:
        raise HandgradError(f"{name} says that it has {ndim} dimensions: expected 1 to {MOST_DIMENSIONS}")
    start = 4 + 4 * ndim
    if len(payload) < start:
        raise HandgradError(
            f"{name} ends within its header, after {len(payload)} of {start} bytes: copy or fetch it again"
        )
    shape = struct.unpack_from(f">{ndim}I", payload, 4)
    if math.prod(size or 1 for size in shape) * dtype.itemsize > sys.maxsize:  # an empty array is a size to NumPy too
        raise HandgradError(f"{name} says that its shape is {shape}: no memory holds that; copy or fetch it again")
    expected = start + math.prod(shape) * dtype.itemsize
    if len(payload) != expected:
        wrong = "cut off" if len(payload) < expected else "followed by something else"
        raise HandgradError(
            f"{name} is {wrong}: it has {len(payload)} bytes, expected {expected} for {dtype.name} of shape {shape}; "
            "copy or fetch it again"
        )
    return np.frombuffer(payload, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def idx_payload(array: ArrayLike) -> bytes:
    """The bytes of `array` as an IDX file: what `parse_idx` reads. Raises HandgradError where the format has no such.

    array: uint8, int8, int16, int32, float32 or float64, of one or more dimensions.
    """
    array = np.asarray(array)
    code = next((code for code, dtype in TYPES.items() if dtype == array.dtype.newbyteorder(">")), None)
    if code is None:
        known = ", ".join(dtype.name for dtype in TYPES.values())
        raise HandgradError(f"an IDX file cannot hold {array.dtype}: cast to one of {known}")
    if array.ndim < 1 or max(array.shape) >= 1 << 32:
        raise HandgradError(f"an IDX file cannot hold the shape {array.shape}: expected dimensions, each below 2^32")
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(TYPES[code], copy=False).tobytes()


def write_idx(path: str | os.PathLike[str], array: ArrayLike) -> None:
    """Write `array` as an IDX file, gzipped where the name ends in .gz, whole or not at all.

    Raises HandgradError where the format or the disk does not take it.
    """
    path, payload = Path(path), idx_payload(array)
    try:
        with replacing(path) as file:
            file.write(gzip.compress(payload, mtime=0) if path.suffix == ".gz" else payload)
    except OSError as error:
        raise HandgradError(f"{path} cannot be written: {error.strerror}") from error


def payload_of(data: bytes, name: str, limit: int = MOST_UNZIPPED) -> bytes:
    """The bytes of a file, gunzipped where its first bytes say that it is gzipped, whatever its name says."""
    return gunzipped(data, name, limit) if data[:2] == b"\x1f\x8b" else data


def gunzipped(data: bytes, name: str, limit: int = MOST_UNZIPPED) -> bytes:
    """What was gzipped into `data`. Raises HandgradError where that is cut off, corrupt, or more than `limit` bytes."""
    payload = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while chunk := stream.read(1 << 20):
                payload += chunk
                if len(payload) > limit:
                    raise HandgradError(f"{name} unzips to more than the {limit} bytes expected: it is another file")
    except (EOFError, OSError, zlib.error) as error:
        raise HandgradError(f"{name} is a damaged gzip file ({error}): copy or fetch it again") from error
    return bytes(payload)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file as they are. Raises HandgradError where there is none or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise HandgradError(f"{path} cannot be read: {error.strerror}") from error

"""IDX files: parsing and writing.

IDX is the format of MNIST's files: one array, big-endian, plain or gzipped.

    byte            content
    0, 1            0, 0
    2               dtype code: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    3               number of dimensions
    4 ...           size of each dimension, four bytes each
    then            the elements in C order (the last dimension varies fastest), and nothing after them

References
----------
LeCun, Cortes & Burges, "The MNIST database of handwritten digits", section "The IDX file format",
yann.lecun.com/exdb/mnist.
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

from ..errors import HandgradError
from ..io.atomic import read_bytes, replacing

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_DIMENSIONS = 64  # NumPy's own limit
HEADER_BYTES = 4 + 4 * MAX_DIMENSIONS  # the largest header
MAX_UNCOMPRESSED = 1 << 30  # bytes; twice the size of the largest data set in this format, EMNIST ByClass


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, plain or gzipped.

    Parameters
    ----------
    path : path-like
        File to read. Its first bytes decide whether it is gzipped, not its name.

    Returns
    -------
    ndarray
        The array in native byte order.

    Raises
    ------
    HandgradError
        If the file cannot be read, is not an IDX file or is damaged.
    """
    path = Path(path)
    return parse_idx(decompress(read_bytes(path), path.name), path.name)


def parse_idx(payload: bytes, name: str) -> NDArray[Any]:
    """Parse the content of an IDX file.

    Parameters
    ----------
    payload : bytes
        Uncompressed content of the file.
    name : str
        Name of the file, used in error messages.

    Returns
    -------
    ndarray
        The array in native byte order, writable.

    Raises
    ------
    HandgradError
        If the first bytes, the dtype code or the shape are invalid, or if bytes are missing or left over.
    """
    dtype, shape, start = parse_header(payload, len(payload), name)
    return np.frombuffer(payload, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def parse_header(payload: bytes, size: int, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Parse the header of an IDX file.

    Parameters
    ----------
    payload : bytes
        The first HEADER_BYTES bytes of the file, or all of it.
    size : int
        Number of bytes of the whole file.
    name : str
        Name of the file, used in error messages.

    Returns
    -------
    dtype : numpy.dtype
        Type of the elements, big-endian.
    shape : tuple of int
        Shape of the array.
    start : int
        Number of bytes before the first element.

    Raises
    ------
    HandgradError
        If the first bytes, the dtype code or the shape are invalid, or if bytes are missing or left over.
    """
    if len(payload) < 4 or payload[:2] != b"\0\0":
        raise HandgradError(
            f"{name} is not an IDX file: it starts with the bytes '{payload[:4].hex(' ')}', "
            "expected '00 00', a dtype code and the number of dimensions"
        )
    dtype, ndim = TYPES.get(payload[2]), payload[3]
    if dtype is None:
        known = ", ".join(f"{code:02x} {dtype.name}" for code, dtype in TYPES.items())
        raise HandgradError(f"{name} has the IDX dtype code {payload[2]:02x}: expected one of {known}")
    if not 1 <= ndim <= MAX_DIMENSIONS:
        raise HandgradError(f"{name} has {ndim} dimensions according to its header: expected 1 to {MAX_DIMENSIONS}")
    start = 4 + 4 * ndim
    if len(payload) < start:
        raise HandgradError(
            f"{name} is truncated within its header: it has {size} bytes, expected at least {start}; "
            "copy or download it again"
        )
    shape = struct.unpack_from(f">{ndim}I", payload, 4)
    if math.prod(size or 1 for size in shape) * dtype.itemsize > sys.maxsize:  # a limit of NumPy, also for empty arrays
        raise HandgradError(
            f"{name} has the shape {shape} according to its header: this is too large for any memory; "
            "copy or download it again"
        )
    expected = start + math.prod(shape) * dtype.itemsize
    if size != expected:
        problem = "is truncated" if size < expected else "has extra bytes at the end"
        raise HandgradError(
            f"{name} {problem}: it has {size} bytes, expected {expected} for {dtype.name} of shape {shape}; "
            "copy or download it again"
        )
    return dtype, shape, start


def encode_idx(array: ArrayLike) -> bytes:
    """Encode an array as the content of an IDX file, the inverse of `parse_idx`.

    Parameters
    ----------
    array : array_like of uint8, int8, int16, int32, float32 or float64
        Array of one or more dimensions, in any memory layout and byte order.

    Returns
    -------
    bytes
        Content of the file, not compressed.

    Raises
    ------
    HandgradError
        If the format does not support the dtype or the shape.
    """
    array = np.asarray(array)
    code = next((code for code, dtype in TYPES.items() if dtype == array.dtype.newbyteorder(">")), None)
    if code is None:
        known = ", ".join(dtype.name for dtype in TYPES.values())
        raise HandgradError(f"IDX files do not support the dtype {array.dtype}: cast the array to one of {known}")
    if array.ndim < 1 or max(array.shape) >= 1 << 32:
        raise HandgradError(
            f"IDX files do not support the shape {array.shape}: expected at least one dimension, each below 2^32"
        )
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(TYPES[code], copy=False).tobytes()


def write_idx(path: str | os.PathLike[str], array: ArrayLike) -> None:
    """Write an array to an IDX file, atomically.

    Parameters
    ----------
    path : path-like
        File to write. It is gzipped if its name ends in .gz.
    array : array_like of uint8, int8, int16, int32, float32 or float64
        Array of one or more dimensions.

    Raises
    ------
    HandgradError
        If the format does not support the array, or if the file cannot be written.
    """
    path, payload = Path(path), encode_idx(array)
    try:
        with replacing(path) as file:
            file.write(gzip.compress(payload, mtime=0) if path.suffix == ".gz" else payload)
    except OSError as error:
        raise HandgradError(f"cannot write {path}: {error.strerror}") from error


def decompress(data: bytes, name: str, limit: int = MAX_UNCOMPRESSED) -> bytes:
    """Decompress the content of a file if it starts with gzip's magic number, else return it unchanged.

    Parameters
    ----------
    data : bytes
        Content of the file.
    name : str
        Name of the file, used in error messages.
    limit : int
        Maximum number of bytes after decompression.

    Returns
    -------
    bytes
        Uncompressed content.

    Raises
    ------
    HandgradError
        If the gzip data is damaged or decompresses to more than `limit` bytes.
    """
    return gunzip(data, name, limit) if data[:2] == b"\x1f\x8b" else data


def gunzip(data: bytes, name: str, limit: int = MAX_UNCOMPRESSED) -> bytes:
    """Decompress gzip data and stop at `limit` bytes, so that a decompression bomb does not fill the memory.

    Parameters
    ----------
    data : bytes
        One or more gzip members.
    name : str
        Name of the file, used in error messages.
    limit : int
        Maximum number of bytes after decompression.

    Returns
    -------
    bytes
        Uncompressed content.

    Raises
    ------
    HandgradError
        If the data is truncated, corrupt or decompresses to more than `limit` bytes.
    """
    payload = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while chunk := stream.read(1 << 20):
                payload += chunk
                if len(payload) > limit:
                    raise HandgradError(f"{name} decompresses to more than {limit} bytes: expected a smaller file")
    except (EOFError, OSError, zlib.error) as error:
        raise HandgradError(f"{name} is a damaged gzip file ({error}): copy or download it again") from error
    return bytes(payload)

"""What passes from room to room: arrays of examples, arrays of labels, and streams of chance."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import HandgradError

Array = NDArray[np.floating[Any]]  # float32 to train, float64 to check: one of the two in the whole of a network
Labels = NDArray[np.integer[Any]]  # (count,) classes 0, 1, ..., n_out - 1
# Whatever np.random.default_rng takes; None is a new draw at every run. As a string, for NumPy loads its random numbers
# when they are first named, and that takes longer than all of handgrad.
Seed: TypeAlias = "np.random.Generator | int | None"

PIXEL = np.array(1 / 255)
FLOAT32_MAX = np.finfo(np.float32).max
CACHE_LINE = 64  # bytes
LARGE = 1024  # numbers above which a buffer lies by columns


class Streams(NamedTuple):
    """Independent streams of chance from one seed: more draws from one never move another."""

    initialization: np.random.Generator
    dropout: np.random.Generator
    shuffling: np.random.Generator


def streams(rng: Seed) -> Streams:
    """The streams that `rng` spawns, of NumPy's default kind, whose state is a few integers."""
    seed = np.random.default_rng(rng).bit_generator.seed_seq
    if not isinstance(seed, np.random.SeedSequence):
        raise HandgradError("the generator has no SeedSequence to spawn from: expected one of np.random.default_rng")
    return Streams(*(np.random.default_rng(child) for child in seed.spawn(3)))


def as_examples(x: ArrayLike, n_in: int) -> NDArray[Any]:
    """x as (count, n_in), in the type it has: bytes are pixels, and stay bytes until they are computed with.

    x (count, n_in) or (count, height, width) with height * width = n_in, of any real type.
    Raises HandgradError for other shapes, no examples, and values that are not finite numbers.
    """
    x = as_array("x", x)
    if x.dtype.kind not in "fiub":
        raise HandgradError(f"x holds {x.dtype}: expected numbers, pixels as uint8 or floats in [0, 1]")
    if x.ndim >= 2 and len(x) == 0:
        raise HandgradError(f"x has shape {x.shape}: there is no example in it")
    if x.ndim < 2 or x[0:1].size != n_in:
        raise HandgradError(
            f"x has shape {x.shape}: expected (examples, {n_in}), or images of {n_in} pixels each; "
            "one example alone is x[None]"
        )
    x = x.reshape(len(x), n_in)
    if x.dtype.kind == "f":
        for first in range(0, len(x), 4096):  # a block at a time: the mask of the whole would be memory for nothing
            block = x[first : first + 4096]
            if (
                np.vdot(block, block) <= FLOAT32_MAX
            ):  # a third of the time of looking at each; no NaN or infinity passes
                continue
            good = np.abs(block) <= FLOAT32_MAX
            if not good.all():
                row, column = np.argwhere(~good)[0] + (first, 0)
                raise HandgradError(f"x[{row}, {column}] is {x[row, column]}: every input must be a finite float32")
    return x


def aligned(count: int, dtype: DTypeLike) -> Array:
    """Room for so many numbers that begins where a line of the cache does.

    NumPy's own room may lie across the lines, and does where it is large: products of a small batch then take a
    twelfth longer, updates a sixth.
    """
    size = count * np.dtype(dtype).itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    first = -room.ctypes.data % CACHE_LINE
    numbers: Array = room[first : first + size].view(dtype)
    return numbers


def buffer(batch: int, width: int, dtype: DTypeLike) -> Array:
    """Room for (batch, width) numbers; for more than LARGE of them it lies in memory column by column.

    Then BLAS need not transpose W to walk it for z = x Wᵀ and dx = dz W: a product of 16 x 784 x 256 takes half of the
    time, one of 128 x 512 x 512 a seventh less. Few numbers are faster by rows, as all else walks along them.
    """
    return aligned(batch * width, dtype).reshape((batch, width), order="F" if batch * width > LARGE else "C")


def as_floats(x: NDArray[Any], out: Array) -> Array:
    """x as the network computes with it, written into `out`: bytes are pixels, p / 255 in [0, 1]; all else as it is."""
    if x.dtype == np.uint8:
        np.multiply(x, PIXEL, out=out, dtype=out.dtype)
    else:
        np.copyto(out, x, casting="unsafe")
    return out


def as_labels(y: ArrayLike, n_out: int, count: int | None = None) -> Labels:
    """y as (count,) integers in 0 ... n_out - 1. Raises HandgradError where they are anything else."""
    y = as_array("y", y)
    if y.ndim != 1 or len(y) != (len(y) if count is None else count):
        expected = "(count,)" if count is None else f"({count},), one label for each example in x"
        raise HandgradError(f"y has shape {y.shape}: expected {expected}")
    if y.dtype.kind not in "iub":
        raise HandgradError(f"y holds {y.dtype}: expected integer labels, 0 to {n_out - 1}")
    wrong = y[(y < 0) | (y >= n_out)]
    if wrong.size:
        raise HandgradError(f"y holds the label {wrong[0]}: of {n_out} classes the labels are 0 to {n_out - 1}")
    return y.astype(np.intp, copy=False)


def as_weights(weights: ArrayLike, count: int, dtype: DTypeLike) -> Array:
    """Weights of `count` examples as (count, 1), scaled to a mean of 1.

    Raises HandgradError where they are not so many numbers, 0 or more, or all of them 0.
    """
    w = as_array("sample_weight", weights)
    if w.shape != (count,) or w.dtype.kind not in "fiub":
        raise HandgradError(f"sample_weight holds {w.dtype} of shape {w.shape}: expected ({count},) numbers")
    if not (np.isfinite(w).all() and w.min() >= 0 and w.max() > 0):
        raise HandgradError("sample_weight: expected finite numbers, 0 or more, and not all of them 0")
    w = w / w.max()  # first, that no sum overflows
    w /= w.mean()
    column: Array = w.astype(dtype).reshape(count, 1)
    return column


def as_whole(name: str, value: SupportsIndex, least: int) -> int:
    """`value` as an int. Raises HandgradError, calling it `name`, below `least` or for no whole number."""
    try:
        n = operator.index(value)
    except TypeError:
        n = least - 1
    if n < least:
        raise HandgradError(f"{name} {value!r}: expected a whole number, {least} or more")
    return n


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """`value` as an array. Raises HandgradError, calling it `name`, where it is none."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise HandgradError(f"{name} is no array: its rows are of different lengths") from error

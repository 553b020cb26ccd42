"""Arrays: array types, input validation, random generators, aligned buffers."""

from __future__ import annotations

import math
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import HandgradError

Array = NDArray[np.floating[Any]]  # float32 to train, float64 to check; a network uses one of them throughout
Labels = NDArray[np.integer[Any]]  # (count,) class indices 0, 1, ..., n_out - 1
# None: a different result at every run. The annotation is a string because NumPy imports its random module when the
# name is first used, which takes longer than importing all of handgrad.
Seed: TypeAlias = "np.random.Generator | np.random.SeedSequence | int | None"

PIXEL = np.array(1 / 255)
FLOAT32_MAX = np.finfo(np.float32).max
FLOAT_MAX = sys.float_info.max  # an integer of Python may be larger
CACHE_LINE = 64  # bytes
COLUMN_MAJOR_ABOVE = 1024  # number of elements above which a layer's buffer is stored column by column
CHECK_ROWS = 4096  # rows that are checked for NaN and infinity at a time
PIXEL_TOLERANCE = 1e-6  # float images may exceed [0, 1] by rounding


# ---- Random generators -----------------------------------------------------------------------------------------------


class Rngs(NamedTuple):
    """Independent random generators from one seed: drawing more numbers from one does not change the others."""

    initialization: np.random.Generator
    dropout: np.random.Generator
    shuffling: np.random.Generator


def spawn_rngs(rng: Seed) -> Rngs:
    """Create the generators for initialization, dropout and shuffling.

    Parameters
    ----------
    rng : int, numpy.random.SeedSequence, numpy.random.Generator or None
        The same integer gives the same generators. A SeedSequence spawns new ones at every call. A Generator is used at
        its current position and advances. None gives different generators at every call.
    """
    if isinstance(rng, np.random.Generator):
        sequence = np.random.SeedSequence(rng.integers(2**32, size=4).tolist())
    elif isinstance(rng, np.random.SeedSequence):
        sequence = rng
    else:
        try:
            sequence = np.random.SeedSequence(rng)
        except (TypeError, ValueError) as error:
            raise HandgradError(f"rng must be an integer >= 0, a Generator or None, got {rng!r}") from error
    return Rngs(*(np.random.default_rng(child) for child in sequence.spawn(3)))


def make_rng(rng: Seed) -> np.random.Generator:
    """Return the generator for a seed, or a Generator unchanged. Raises HandgradError for anything else."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise HandgradError(f"rng must be an integer >= 0, a Generator or None, got {rng!r}") from error


# ---- Buffers ---------------------------------------------------------------------------------------------------------


def aligned_empty(count: int, dtype: DTypeLike) -> Array:
    """Return an uninitialized vector that starts at a cache line.

    NumPy's own large arrays start 16 bytes after a cache line. With them, products of a small batch take 8 % longer and
    updates 17 % longer.
    """
    size = count * np.dtype(dtype).itemsize
    return _align(np.empty(size + CACHE_LINE, np.uint8), size, dtype)


def aligned_zeros(count: int, dtype: DTypeLike) -> Array:
    """Return a vector of zeros that starts at a cache line. A large one takes no memory until it is written."""
    size = count * np.dtype(dtype).itemsize
    return _align(np.zeros(size + CACHE_LINE, np.uint8), size, dtype)


def _align(memory: NDArray[np.uint8], size: int, dtype: DTypeLike) -> Array:
    first = -memory.ctypes.data % CACHE_LINE
    vector: Array = memory[first : first + size].view(dtype)
    return vector


def layer_buffer(batch: int, width: int, dtype: DTypeLike) -> Array:
    """Return an uninitialized (batch, width) array, column-major if it is large.

    With column-major z and dx, BLAS does not have to transpose W in z = x Wᵀ and dx = dz W. A product of 16 x 784 x 256
    takes half the time, a product of 128 x 512 x 512 takes 14 % less. Small arrays are faster row by row, because all
    other operations traverse them in that order.
    """
    order = "F" if batch * width > COLUMN_MAJOR_ABOVE else "C"
    return aligned_empty(batch * width, dtype).reshape((batch, width), order=order)  # type: ignore[call-overload,no-any-return]


def row_blocks(count: int, rows: int = 1024) -> list[slice]:
    """Return slices that divide `count` rows into blocks, so that only a block of intermediate results is in memory."""
    return [slice(first, first + rows) for first in range(0, count, rows)]


# ---- Examples in files -----------------------------------------------------------------------------------------------


class Rows(ABC):
    """Examples in files, which are read when they are used: they replace the array x where it does not fit into memory.

    A slice is a view, as that of an array. An array of indices reads these examples, and `numpy.asarray` reads all. See
    `handgrad.data.stream`.

    Attributes
    ----------
    shape : tuple of int
        (count, n_in) or (count, height, width).
    dtype : numpy.dtype
        Type of the elements.
    in_blocks : bool
        Whether the random order of an epoch mixes neighbouring examples only in a buffer.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_blocks = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, rows: Any) -> Any:
        """Return a view for a slice, and an array for indices."""

    @abstractmethod
    def subset(self, rows: NDArray[np.intp]) -> Rows:
        """Return the examples with these indices, without reading them."""

    @abstractmethod
    def transformed(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Rows:
        """Return the examples with a function applied to those that are read, for example `Deskew(28, 28)`."""

    @abstractmethod
    def in_order(self, rng: np.random.Generator) -> RowsInOrder:
        """Return the examples of one epoch, in a random order."""

    @abstractmethod
    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all examples."""


class RowsInOrder(ABC):
    """The examples of one epoch: `order[first:last]` are the next indices, and `take` copies their examples."""

    @abstractmethod
    def __getitem__(self, positions: slice) -> NDArray[np.intp]:
        """Return the indices of the examples at these positions. The positions must ascend."""

    @abstractmethod
    def take(self, indices: NDArray[np.intp], axis: int = 0, out: Any = None, mode: str = "clip") -> Any:
        """Copy these examples, at positions that were asked for last, to `out`: `numpy.take` calls this method."""


# ---- Inputs, labels, weights -----------------------------------------------------------------------------------------


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Convert to an array. Raises HandgradError for rows of different lengths, and for tensors that need a gradient."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise HandgradError(f"{name} is not an array: its rows have different lengths") from error
    except (RuntimeError, TypeError) as error:  # of PyTorch: "... Use tensor.detach().numpy() instead."
        raise HandgradError(f"{name} is a {type(value).__name__} that is not an array: {error}") from error


def check_inputs(x: ArrayLike, n_in: int, image_shape: tuple[int, int] | None = None) -> NDArray[Any]:
    """Validate a set of examples: numbers (count, n_in) or images (count, height, width).

    The input is a set of images if it has the shape (count, height, width), or if `image_shape` is given. Images with
    integer pixels hold 0 to 255 and are returned as uint8; they are divided by 255 when the network uses them. Images
    with float pixels must be in [0, 1]. Everything else is numbers, which are used unchanged.

    Parameters
    ----------
    x : array-like of shape (count, n_in) or (count, height, width)
        Any real dtype. Axes of length 1 after the first one are ignored if an image remains.
    n_in : int
        Number of inputs of the model.
    image_shape : (height, width), optional
        Set if the model reads images.

    Returns
    -------
    ndarray of shape (count, n_in), or (count, height, width) for images
        A view of x where possible; never a float copy of integer pixels.

    Raises
    ------
    HandgradError
        For other shapes, no examples, values that are not finite, and pixels out of range.
    """
    if isinstance(x, Rows):
        _check_rows(x, n_in, image_shape)
        return cast("NDArray[Any]", x)
    x = as_array("x", x)
    if x.dtype.kind not in "fiub":
        hint = "; convert x, as with x.to_numpy(float) or x.toarray()" if x.dtype == object else ""
        raise HandgradError(
            f"x has dtype {x.dtype}: expected numbers, or images with pixels 0 to 255 or in [0, 1]{hint}"
        )
    if x.ndim >= 2 and len(x) == 0:
        raise HandgradError(f"x has shape {x.shape}: expected at least one example")
    if x.ndim < 2 or math.prod(x.shape[1:]) != n_in:
        raise HandgradError(
            f"x has shape {x.shape}: expected ({x.shape[0] if x.ndim else 1}, {n_in}), or images of {n_in} pixels; "
            "pass a single example as x[None]"
        )
    if x.ndim > 3:
        x = x.reshape(len(x), *(size for size in x.shape[1:] if size > 1))
    if x.ndim == 3 and image_shape is not None and x.shape[1:] != image_shape:
        raise HandgradError(f"x has images of {x.shape[1:]} pixels: expected {image_shape}")
    if x.ndim != 3:
        x = x.reshape(len(x), *(image_shape or (n_in,)))
    if x.dtype.kind == "f":
        _check_finite(x.reshape(len(x), n_in))
    return _check_pixels(x) if x.ndim == 3 else x


def _check_rows(x: Rows, n_in: int, image_shape: tuple[int, int] | None) -> None:
    """Validate the shape and the type of examples in files: images of integer pixels."""
    expected = (
        f"({len(x)}, height, width), uint8, with {n_in} pixels"
        if image_shape is None
        else f"images of {image_shape} pixels"
    )
    if len(x) == 0 or x.ndim != 3 or x.dtype != np.uint8 or math.prod(x.shape[1:]) != n_in:
        raise HandgradError(f"x has shape {x.shape} and dtype {x.dtype}: expected {expected}")
    if image_shape is not None and x.shape[1:] != image_shape:
        raise HandgradError(f"x has images of {x.shape[1:]} pixels: expected {image_shape}")


def _check_finite(x: NDArray[Any]) -> None:
    for first in range(0, len(x), CHECK_ROWS):  # in blocks, because a mask of all of x would take a quarter of x
        block = x[first : first + CHECK_ROWS]
        # The sum of squares is not finite if an element is not. It takes a third of the time of np.isfinite.
        if np.vdot(block, block) <= FLOAT32_MAX:
            continue
        finite = np.abs(block) <= FLOAT32_MAX
        if not finite.all():
            row, column = np.argwhere(~finite)[0] + (first, 0)
            raise HandgradError(f"x[{row}, {column}] is {x[row, column]}: expected finite float32 values")


def _check_pixels(x: NDArray[Any]) -> NDArray[Any]:
    """Images with integer pixels as uint8, with float or boolean pixels in [0, 1]."""
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "b":
        return x.astype(np.float32)
    low, high = x.min(), x.max()
    if x.dtype.kind == "f":
        if low < -PIXEL_TOLERANCE or high > 1 + PIXEL_TOLERANCE:
            raise HandgradError(
                f"x has images with float pixels from {low:g} to {high:g}: expected [0, 1]; divide by the "
                "largest value, or reshape to (count, n_in) if the values are not pixels"
            )
        return x
    if low < 0 or high > 255:
        raise HandgradError(f"x has images with integer pixels from {low} to {high}: expected 0 to 255")
    return x.astype(np.uint8)


def as_floats(x: NDArray[Any], out: Array) -> Array:
    """Write checked inputs into the float buffer `out` (count, n_in). Integer pixels are divided by 255."""
    rows = np.asarray(x).reshape(out.shape)  # reads the examples of Rows
    np.copyto(out, rows, casting="unsafe")
    if x.ndim == 3 and x.dtype == np.uint8:
        np.multiply(out, PIXEL, out, dtype=out.dtype)
    return out


def check_labels(y: ArrayLike, n_classes: int, count: int | None = None) -> Labels:
    """Validate class indices (count,) in 0 ... n_classes - 1. Raises HandgradError for anything else."""
    y = as_array("y", y)
    if y.ndim != 1 or len(y) != (len(y) if count is None else count):
        expected = "(count,)" if count is None else f"({count},), one label for each example in x"
        raise HandgradError(f"y has shape {y.shape}: expected {expected}")
    if y.dtype.kind not in "iub":
        raise HandgradError(f"y has dtype {y.dtype}: expected integer labels, 0 to {n_classes - 1}")
    wrong = y[(y < 0) | (y >= n_classes)]
    if wrong.size:
        raise HandgradError(f"y contains the label {wrong[0]}: expected 0 to {n_classes - 1} for {n_classes} classes")
    return y.astype(np.intp, copy=False)


def check_sample_weight(weights: ArrayLike, count: int, dtype: DTypeLike) -> Array:
    """Validate sample weights (count,) and return them as (count, 1), scaled to a mean of 1.

    Raises HandgradError unless all weights are finite, at least 0, and not all 0.
    """
    w = as_array("sample_weight", weights)
    if w.shape != (count,) or w.dtype.kind not in "fiub":
        raise HandgradError(f"sample_weight has dtype {w.dtype} and shape {w.shape}: expected {count} numbers")
    if not (np.isfinite(w).all() and w.min() >= 0 and w.max() > 0):
        raise HandgradError("sample_weight must be finite and >= 0, and not all weights may be 0")
    with np.errstate(under="ignore"):  # tiny weights become 0, also for programs with np.seterr(all="raise")
        w = w / w.max()  # first, so that the mean does not overflow
        w /= w.mean()
        column: Array = w.astype(dtype).reshape(count, 1)
    return column


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def check_int(name: str, value: SupportsIndex, minimum: int) -> int:
    """Validate an integer >= minimum."""
    try:
        n = operator.index(value)
    except TypeError:
        n = minimum - 1
    if n < minimum:
        raise HandgradError(f"{name} must be an integer >= {minimum}, got {value!r}")
    return n


def check_positive(name: str, value: float) -> float:
    """Validate a finite number > 0, and return it as a float."""
    number = _as_float(value)
    if not 0 < number < math.inf:
        raise HandgradError(f"{name} must be a finite number > 0, got {value!r}")
    return number


def check_non_negative(name: str, value: float) -> float:
    """Validate a finite number >= 0, and return it as a float."""
    number = _as_float(value)
    if not 0 <= number < math.inf:
        raise HandgradError(f"{name} must be a finite number >= 0, got {value!r}")
    return number


def check_fraction(name: str, value: float, interval: str = "[0, 1)") -> float:
    """Validate a number between 0 and 1, and return it as a float.

    The brackets of `interval` say whether 0 and 1 are included.
    """
    number = _as_float(value)
    if not (0 < number < 1 or (number == 0 and "[" in interval) or (number == 1 and "]" in interval)):
        raise HandgradError(f"{name} must be in {interval}, got {value!r}")
    return number


def _as_float(value: object) -> float:
    """Return a real number as a Python float, because JSON cannot hold a scalar of NumPy; NaN for anything else."""
    if isinstance(value, int):
        return float(value) if abs(value) <= FLOAT_MAX else math.nan
    return float(value) if isinstance(value, float | np.integer | np.floating) else math.nan

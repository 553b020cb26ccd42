"""What is done to the pictures before a network sees them, in training as in every answer.

It is the network's own and stands in its file: a model that learnt from upright digits makes upright what it is asked.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, as_array, as_examples, as_whole
from .errors import HandgradError

# Pixels that are worked on at a time, 128 MNIST digits: few enough for their floats, some 10 KiB a digit, to stay in
# the processor's cache, many enough that the cost of NumPy's calls vanishes. Measured on two cores that other programs
# had a share in: 16 digits at a time take twice as long, 64 a quarter more, 256 and 512 about as long.
BLOCK = 128 * 784

FLAT = 1e-12  # of the height², the variance below which ink lies in a single row, but for rounding


class Preprocessing(ABC):
    """What every preprocessing is to the network: a map of examples to examples, each by itself."""

    n_in: int  # the numbers in an example
    n_out: int  # and in what becomes of it
    image_shape: tuple[int, int] | None = None  # (height, width) of what comes out, where that is a picture

    @abstractmethod
    def __call__(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """x (count, n_in) -> (count, n_out) of the same dtype, in an array of its own or in `out`.

        `out` may be x itself where n_out is n_in.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make it again, for the model file."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


class Deskew(Preprocessing):
    """Pictures of (height, width) pixels, sheared upright, with the centre of their ink in the middle.

    With p(y, x) the ink, m = Σ p, (cy, cx) = Σ p (y, x) / m its centre, (ym, xm) the picture's middle:

        a = cov / var_y     the slant: var_y = Σ p (y - cy)² / m, cov = Σ p (x - cx) (y - cy) / m
        out(y, x) = p(y + cy - ym, x + a (y - ym) + cx - xm)

    between pixels bilinear, zero outside. A picture without ink stays as it is; one row of ink has no slant. Then, with
    `shrink` s, each s x s pixels become one, their mean.

    Bytes and other integers are computed with in floats, and rounded. LeCun et al. (1998), section III.A, "deslanted".
    """

    image_shape: tuple[int, int]

    def __init__(self, height: int, width: int, shrink: int = 1) -> None:
        self.height, self.width = as_whole("height", height, 1), as_whole("width", width, 1)
        self.shrink = as_whole("shrink", shrink, 1)
        if self.height % self.shrink or self.width % self.shrink:
            raise HandgradError(f"shrink {shrink} of {height}x{width} pixels: expected a divisor of both")
        self.image_shape = self.height // self.shrink, self.width // self.shrink
        self.n_in, self.n_out = self.height * self.width, math.prod(self.image_shape)

    def config(self) -> dict[str, Any]:
        """The size of the pictures, and by what they shrink."""
        return {"height": self.height, "width": self.width} | ({"shrink": self.shrink} if self.shrink > 1 else {})

    def __call__(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """x (count, height * width) or (count, height, width), ink above 0 -> as many in the same form and dtype.

        Raises HandgradError for other shapes, and for values below 0, which are no ink.
        """
        x = as_array("x", x)
        pictures = as_examples(x, self.n_in).reshape(-1, self.height, self.width)
        if x.dtype.kind in "fi" and x.min() < 0:
            raise HandgradError(f"x holds {x.min()}: {self!r} takes ink, numbers from 0, paper, upwards")
        if out is None:
            out = np.empty((len(x), *(self.image_shape if x.ndim == 3 else (self.n_out,))), x.dtype)
        block = min(len(x), max(1, BLOCK // self.n_in))
        room = _Room(block, self.height, self.width, x.dtype)
        for first in range(0, len(x), block):
            rows = slice(first, first + block)
            upright = room.upright(pictures[rows])
            out[rows] = (upright if self.shrink == 1 else self._shrunk(upright)).reshape(out[rows].shape)
        return out

    def _shrunk(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """(count, height, width) -> (count, height / s, width / s): the sum of s rows, of s columns, over s²."""
        s, dtype = self.shrink, pictures.dtype
        rows = pictures.reshape(-1, self.height // s, s, self.width)
        total = rows[:, :, 0].astype(np.result_type(dtype, np.float32))
        for k in range(1, s):
            total += rows[:, :, k]
        columns = total.reshape(*total.shape[:-1], self.width // s, s)
        mean = columns[..., 0].copy()
        for k in range(1, s):
            mean += columns[..., k]
        mean *= 1 / s**2
        return mean.astype(dtype) if dtype.kind == "f" else np.rint(mean).astype(dtype)


class _Room:
    """The memory for some pictures at a time, laid so that all of the work is on whole rows.

    A shift by s + f pixels, s whole and 0 <= f < 1, is a mean of neighbours, (1 - f) p(s) + f p(s + 1). The f are taken
    first, where the pixels lie: of rows f is one number a picture, of columns one number a row. What is left, the s, is
    a copy of each row from another place.

        ink         rows -1 ... height, columns -1 ... width - 1: a pixel of paper on every side, as the column after a
                    row's last is the next row's first
        mean        rows -1 ... height - 1
        field       the means as they are to be copied, with so much paper around them that no copy needs a test
    """

    def __init__(self, count: int, height: int, width: int, dtype: np.dtype[Any]) -> None:
        self.height, self.width, self.dtype = height, width, dtype
        floats = np.result_type(dtype, np.float32)  # float64 for float64, float32 for bytes
        self.ink = np.zeros((count, height + 2, width + 1), floats)
        size = (height + 1) * (width + 1)
        self.mean, self.difference = np.zeros(count * size + 1, floats), np.empty(count * size, floats)

        margin = height // 2 + 2  # a centre of ink is at most half of the height away from the middle
        self.field = np.zeros((count + 1, height + 1 + margin, 2 * width + 1), dtype)
        self.means = self.field[:count, margin:, width:]
        # Every row of `width` pixels that begins anywhere in the field, as one item: NumPy copies an item at once, and
        # so a row in a quarter of the time that it takes for its pixels one by one.
        item = np.dtype((np.void, width * dtype.itemsize))
        self.rows_from = np.ndarray((self.field.size - width + 1,), item, self.field, strides=(dtype.itemsize,))
        self.origin = np.arange(count)[:, None] * (height + 1 + margin) + margin  # the field's row of each first mean

        self.y, self.x = np.arange(-1, height + 1) - (height - 1) / 2, np.arange(-1, width) - (width - 1) / 2
        self.by_x = np.stack([np.ones_like(self.x), self.x], axis=1).astype(floats)
        y, zero = self.y, np.zeros_like(self.y)
        # [Σₓ p, Σₓ p x] of each row -> [m, Σ p y, Σ p x, Σ p y², Σ p x y]
        by_y = np.stack([[y**0, zero], [y, zero], [zero, y**0], [y**2, zero], [zero, y]])
        self.by_y = by_y.transpose(2, 1, 0).reshape(-1, 5)

    def upright(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """(count, height, width) -> (count, height, width), for no more pictures than there is room for."""
        count, height, width = pictures.shape
        ink = self.ink[:count]
        np.copyto(ink[:, 1:-1, 1:], pictures, casting="unsafe")
        cy, cx, a = self._moments(ink)
        down = np.floor(cy)

        size = (height + 1) * (width + 1)
        ink, mean = ink.reshape(count, -1), self.mean[: count * size + 1]
        column, f = mean[:-1].reshape(count, size), (cy - down).astype(ink.dtype)
        np.subtract(ink[:, width + 1 :], ink[:, : -width - 1], out=column)
        column *= f
        column += ink[:, : -width - 1]

        difference = self.difference[: count * size]
        row = difference.reshape(count, height + 1, width + 1)
        along = a * (self.y[:-1] - down) + cx  # of the rows where they lie: row y of the picture comes from y + down
        np.subtract(mean[1:], mean[:-1], out=difference)
        row *= (along - np.floor(along)).astype(ink.dtype)[:, :, None]
        difference += mean[:-1]
        if self.dtype.kind == "f":
            np.copyto(self.means[:count, : height + 1], row, casting="unsafe")
        else:
            np.rint(row, out=self.means[:count, : height + 1], casting="unsafe")

        along = np.floor(a * self.y[1:-1] + cx).clip(-width - 1, width)  # further off is paper alone
        begin = (self.origin[:count] + down + np.arange(1, height + 1)) * (2 * width + 1) + along + (width + 1)
        rows: NDArray[Any] = self.rows_from[begin.astype(np.intp)].view(self.dtype)
        return rows.reshape(count, height, width)

    def _moments(self, ink: Array) -> tuple[Array, Array, Array]:
        """(count, 1) each: the centre (cy, cx), from the picture's middle, and the slant a.

        The rows' sums, of bytes, are exact in float32; the squares' difference is taken in float64.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # 0 / 0: no ink
            sums = (ink.reshape(-1, self.width + 1) @ self.by_x).astype(np.float64)
            moments = sums.reshape(len(ink), -1) @ self.by_y
            cy, cx, yy, xy = (moments[:, 1:] / moments[:, :1]).T[:, :, None]
            variance = yy - cy * cy
            a = np.where(variance > FLAT * self.height**2, (xy - cx * cy) / variance, 0)
            known = np.isfinite(cy + cx + a)
        return np.where(known, cy, 0), np.where(known, cx, 0), np.where(known, a, 0)


PREPROCESSING: dict[str, type[Preprocessing]] = {"Deskew": Deskew}  # by the names that a model file gives them

"""Pictures moved as a hand would have moved: turned, sheared, sized, shifted and bent, another way each time.

Every pixel of the new picture is read from a place (v, u) of the old one, between four pixels of it:

    v = v₀ + M₀ (Y, X) + d₀ + E₀(Y, X)
    u = u₀ + M₁ (Y, X) + d₁ + E₁(Y, X)       Y, X from the picture's middle (v₀, u₀), in pixels

M is the affine part, d the shift. E is the elastic part of Simard, Steinkraus & Platt (2003): a random field, smooth
over `smoothness` pixels. They blur noise; a blurred noise's covariance is known, exp(-r² / 4 smoothness²), so the field
is as well a sum of that covariance's eigenvectors, each times a random number (Karhunen-Loève). Two dozen of them hold
99 % of it. So all of v is one product of matrices, of what is drawn for the pictures and of what is fixed:

    v = [ M₀₀  M₀₁  v₀ + d₀  ε₁ ε₂ ... ] [ Y  X  1  e₁ e₂ ... ]ᵀ
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, as_whole
from .errors import HandgradError

# Pixels that are made at a time. 128 pictures of 28x28 at a time: 94,000 a second on one core; 16 at a time: 55,000.
BLOCK = 100_352
KEPT = 0.99  # of the elastic field's variance


class Augmentation:
    """x (count, height * width) bytes -> pictures moved at random, floats in [0, 1].

    rotation    degrees, up to so many either way
    scale       height and width each multiplied by 1 - scale ... 1 + scale
    shear       columns moved sideways by up to so many pixels a pixel of height
    shift       pixels, up to so many, down and across
    elastic     pixels, the root mean square of |E|: of Simard's α = 34, σ = 4 it is about 2
    smoothness  pixels, the σ of the blur that makes noise into E

    All but E are drawn evenly from their ranges. Lengths are in pixels of these pictures. What a picture is moved out
    of is 0, the paper. Raises HandgradError for numbers that are none of these.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        shift: float = 0.0,
        elastic: float = 0.0,
        smoothness: float = 5.0,
    ) -> None:
        self.height, self.width = as_whole("a picture of height", height, 1), as_whole("a picture of width", width, 1)
        strengths = {"rotation": rotation, "scale": scale, "shear": shear, "shift": shift, "elastic": elastic}
        for name, value in strengths.items():
            if not 0 <= value < (1 if name == "scale" else math.inf):
                range_ = "0 or more, below 1" if name == "scale" else "a finite number, 0 or more"
                raise HandgradError(f"augmentation with {name} {value}: expected {range_}")
        if not 0 < smoothness < math.inf:
            raise HandgradError(f"augmentation with smoothness {smoothness}: expected a number of pixels above 0")
        self.rotation, self.scale, self.shear, self.shift = math.radians(rotation), scale, shear, shift

        Y, X = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2
        fields = (
            elastic / math.sqrt(2) * _smooth_fields(height, width, smoothness) if elastic else np.empty((0, Y.size))
        )
        self.basis = np.concatenate([[Y.ravel(), X.ravel(), np.ones(Y.size)], fields]).astype(np.float32)
        self._make_room()

    def __call__(self, x: NDArray[Any], rng: np.random.Generator, out: Array) -> Array:
        """Fill `out` (count, height * width) with pictures made from the bytes x, each moved as `rng` has it."""
        if x.dtype != np.uint8 or x.shape[1:] != (self.height * self.width,):
            raise HandgradError(
                f"augmentation of {x.dtype} of shape {x.shape}: expected pictures as bytes, "
                f"(count, {self.height * self.width})"
            )
        for first in range(0, len(x), self._block):
            rows = slice(first, first + self._block)
            places = self._draw(len(x[rows]), rng)
            self._read(x[rows], places, out[rows])
        return out

    def _draw(self, count: int, rng: np.random.Generator) -> Array:
        """The left matrices (2, count, 3 + fields) of v and of u."""
        turn, tall, wide, slant, down, across = rng.uniform(-1, 1, (6, count))
        angle, slant = self.rotation * turn, self.shear * slant
        cos, sin = np.cos(angle), np.sin(angle)
        tall, wide = 1 / (1 + self.scale * tall), 1 / (1 + self.scale * wide)
        drawn = np.empty((2, count, len(self.basis)), np.float32)
        # M = [cos -sin; sin cos] [1 0; slant 1] diag(tall, wide)
        drawn[0, :, 0], drawn[0, :, 1] = (cos - sin * slant) * tall, -sin * wide
        drawn[1, :, 0], drawn[1, :, 1] = (sin + cos * slant) * tall, cos * wide
        drawn[0, :, 2] = (self.height - 1) / 2 + self.shift * down
        drawn[1, :, 2] = (self.width - 1) / 2 + self.shift * across
        drawn[:, :, 3:] = rng.standard_normal((2, count, len(self.basis) - 3), np.float32)
        return drawn

    def _read(self, x: NDArray[np.uint8], drawn: Array, out: Array) -> None:
        """The pictures x read at the places that `drawn` gives, bilinearly.

        The four pixels around a place are laid as the four bytes of one number first, a cell; so one gather brings all
        four. Cell (i, j) has the pixels of rows i - 1 and i, columns j - 1 and j, those outside the picture 0.
        """
        count, height, width = len(x), self.height, self.width
        v, u, i, j = (room[:count] for room in (self._v, self._u, self._i, self._j))
        cell = self._cell[:count]
        for place, numbers, size in ((v, drawn[0], height), (u, drawn[1], width)):
            np.matmul(numbers, self.basis, out=place)
            place += 1  # the cells begin a pixel before the picture
            np.clip(place, 0, np.nextafter(np.float32(size + 1), np.float32(0)), out=place)  # beyond it, all is paper
        np.floor(v, out=i)
        np.floor(u, out=j)
        v -= i
        u -= j
        i *= width + 1
        i += j
        i += self._first[:count]
        np.copyto(cell, i, casting="unsafe")  # the number of the cell: a float32 holds it exactly

        padded, cells = self._padded[:count], self._cells[:count]
        padded[:, 1:-1, 1:-1] = x.reshape(count, height, width)
        np.left_shift(padded[:, 1:, 1:], 8, out=cells)
        for corner in (padded[:, 1:, :-1], padded[:, :-1, 1:]):
            cells |= corner
            cells <<= 8
        cells |= padded[:, :-1, :-1]
        np.take(self._cells.reshape(-1), cell, out=self._found[:count], mode="clip")
        corners = self._corners[:count]
        np.copyto(corners, self._found[:count].view(np.uint8).reshape(corners.shape))
        top_left, top_right, low_left, low_right = (corners[..., byte] for byte in self._order)

        # p = top + v (low - top), top and low each left + u (right - left)
        top, low = i, j
        np.subtract(top_right, top_left, out=top)
        top *= u
        top += top_left
        np.subtract(low_right, low_left, out=low)
        low *= u
        low += low_left
        low -= top
        low *= v
        low += top
        np.multiply(low, np.float32(1 / 255), out=out)

    def _make_room(self) -> None:
        pixels, cells = self.height * self.width, (self.height + 1) * (self.width + 1)
        self._block = block = max(1, BLOCK // pixels)
        self._v, self._u, self._i, self._j = np.empty((4, block, pixels), np.float32)
        self._cell = np.empty((block, pixels), np.int64)
        self._first = np.arange(block, dtype=np.float32)[:, None] * cells
        self._padded = np.zeros((block, self.height + 2, self.width + 2), np.uint32)
        self._cells = np.empty((block, self.height + 1, self.width + 1), np.uint32)
        self._found = np.empty((block, pixels), np.uint32)
        self._corners = np.empty((block, pixels, 4), np.float32)
        # Where the bytes of 0x03020100 lie in memory: the lowest first here, the highest first on other processors.
        self._order = np.argsort(np.array(0x03020100, np.uint32).reshape(1).view(np.uint8))


def _smooth_fields(height: int, width: int, smoothness: float) -> Array:
    """e (fields, height * width): Σ εₖ eₖ with εₖ ~ N(0, 1) is a random field, smooth, of mean square 1.

    The covariance exp(-((y - y')² + (x - x')²) / 4 smoothness²) is a product of one by rows and one by columns, so its
    eigenvectors are products of theirs. Those of the largest eigenvalues are taken, KEPT of the whole.
    """
    by_rows, rows = _eigenvectors(height, smoothness)
    by_columns, columns = _eigenvectors(width, smoothness)
    variance = np.outer(by_rows, by_columns)
    order = np.argsort(-variance, axis=None)
    kept = order[: 1 + int(np.searchsorted(np.cumsum(variance.ravel()[order]), KEPT * variance.sum()))]
    i, j = np.unravel_index(kept, variance.shape)
    fields = np.sqrt(variance[i, j])[:, None, None] * rows[i][:, :, None] * columns[j][:, None, :]
    fields *= math.sqrt(height * width / np.vdot(fields, fields))
    return fields.reshape(len(kept), height * width)


def _eigenvectors(size: int, smoothness: float) -> tuple[Array, Array]:
    """Eigenvalues (size,), none below 0, and eigenvectors (size, size), one a row, of exp(-r² / 4 smoothness²)."""
    place = np.arange(size)
    values, vectors = np.linalg.eigh(np.exp(-((place[:, None] - place) ** 2) / (4 * smoothness**2)))
    return np.maximum(values, 0), vectors.T

"""Data augmentation: random rotation, scaling, shear, shift and elastic distortion of the training images.

Every pixel (Y, X) of the new image is read from a position (v, u) of the original image, by bilinear interpolation:

    v = v₀ + M₀ (Y, X) + d₀ + E₀(Y, X)
    u = u₀ + M₁ (Y, X) + d₁ + E₁(Y, X)       Y, X relative to the centre (v₀, u₀) of the image, in pixels

M is the affine part and d the shift. E is the elastic distortion of Simard, Steinkraus & Platt (2003): a random field
that is smooth over `smoothness` pixels. They blur white noise. The covariance of blurred noise is known,
exp(-r² / 4 smoothness²), so that the field can also be computed as a sum of the eigenvectors of the covariance, each
times a random number (Karhunen-Loève). About two dozen eigenvectors hold 99 % of the variance. Therefore all of v is
one matrix product of random coefficients, one row per image, and fixed basis functions:

    v = [ M₀₀  M₀₁  v₀ + d₀  ε₁ ε₂ ... ] [ Y  X  1  e₁ e₂ ... ]ᵀ
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, check_fraction, check_int, check_non_negative, check_positive, row_blocks
from ..errors import HandgradError, KnownAttributes

# Pixels processed at once: 128 images of 28x28 give 94,000 images per second on one core; 16 give 55,000.
BLOCK_PIXELS = 100_352
KEPT_VARIANCE = 0.99  # of the elastic field


class Augmentation(KnownAttributes):
    """Random affine and elastic distortion of images.

    Every image is transformed independently. All parameters of the transformation except the elastic field are drawn
    uniformly from their ranges. Pixels from outside the image are 0.

    Parameters
    ----------
    height, width : int
        Size of the images in pixels.
    rotation : float, default 0
        Maximum rotation in degrees, in both directions.
    scale : float, default 0
        Height and width are each multiplied by a factor in [1 - scale, 1 + scale]. Must be in [0, 1).
    shear : float, default 0
        Maximum horizontal shift in pixels per pixel of height.
    shift : float, default 0
        Maximum shift in pixels, vertically and horizontally.
    elastic : float, default 0
        Root mean square of the elastic displacement |E| in pixels. Simard's α = 34, σ = 4 is about 2.
    smoothness : float, default 5
        Standard deviation σ, in pixels, of the Gaussian blur that defines E.

    Raises
    ------
    HandgradError
        If a size is not a positive integer, or a strength is outside its range.

    References
    ----------
    Simard, Steinkraus and Platt (2003), "Best practices for convolutional neural networks applied to visual document
    analysis".

    Examples
    --------
    >>> import numpy as np
    >>> from handgrad import Augmentation
    >>> augment = Augmentation(28, 28, rotation=10, shift=1, elastic=1.5)
    >>> augment
    Augmentation(28, 28, rotation=10, shift=1, elastic=1.5)
    >>> x = np.zeros((5, 28, 28), np.uint8)
    >>> augment(x, np.random.default_rng(0), out=np.empty((5, 784), np.float32)).shape
    (5, 784)
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
        self.height, self.width = check_int("height", height, 1), check_int("width", width, 1)
        strengths = {"rotation": rotation, "scale": scale, "shear": shear, "shift": shift, "elastic": elastic}
        for name, value in strengths.items():
            (check_fraction if name == "scale" else check_non_negative)(name, value)
        if not 1e-3 <= check_positive("smoothness", smoothness) <= 1e6:
            raise HandgradError(f"smoothness must be a number of pixels from 0.001 to 1e6, got {smoothness}")
        self.rotation, self.scale, self.shear, self.shift = math.radians(rotation), scale, shear, shift
        self._strengths = {name: value for name, value in strengths.items() if value}
        if elastic and smoothness != 5:
            self._strengths["smoothness"] = smoothness

        Y, X = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2
        fields = (
            elastic / math.sqrt(2) * _smooth_fields(height, width, smoothness) if elastic else np.empty((0, Y.size))
        )
        self.basis = np.concatenate([[Y.ravel(), X.ravel(), np.ones(Y.size)], fields]).astype(np.float32)
        self._unused: list[_Buffers] = []  # of calls that have ended

    def __call__(self, x: NDArray[Any], rng: np.random.Generator, out: Array) -> Array:
        """Transform a batch of images.

        Parameters
        ----------
        x : ndarray of uint8, shape (count, height, width) or (count, height * width)
            The original images.
        rng : numpy.random.Generator
            Source of the random numbers.
        out : ndarray of float32 or float64, shape (count, height, width) or (count, height * width)
            Array for the result, pixels in [0, 1].

        Returns
        -------
        ndarray
            `out`.

        Raises
        ------
        HandgradError
            If x is not uint8, or x or `out` has another shape.
        """
        pixels = self.height * self.width
        shapes = (len(x), pixels), (len(x), self.height, self.width)
        expected = f"(count, {self.height}, {self.width}) or (count, {pixels})"
        if x.dtype != np.uint8 or x.shape not in shapes:
            raise HandgradError(f"x holds {x.dtype} of shape {x.shape}: {self!r} expects uint8 images {expected}")
        if out.shape not in shapes:
            raise HandgradError(
                f"out has shape {out.shape}: {self!r} expects {expected}, with the {len(x)} images of x"
            )
        try:
            buffers = self._unused.pop()  # each of several threads that call at the same time has its own
        except IndexError:
            buffers = _Buffers(self.height, self.width)
        for rows in row_blocks(len(x), buffers.block):
            coefficients = self._draw(len(x[rows]), rng)
            self._resample(x[rows], coefficients, out[rows], buffers)
        self._unused.append(buffers)
        return out

    def __repr__(self) -> str:
        strengths = "".join(f", {name}={value!r}" for name, value in self._strengths.items())
        return f"Augmentation({self.height}, {self.width}{strengths})"

    def _draw(self, count: int, rng: np.random.Generator) -> Array:
        """Draw the coefficients (2, count, 3 + fields) of v and u."""
        turn, tall, wide, slant, down, across = rng.uniform(-1, 1, (6, count))
        angle, slant = self.rotation * turn, self.shear * slant
        cos, sin = np.cos(angle), np.sin(angle)
        tall, wide = 1 / (1 + self.scale * tall), 1 / (1 + self.scale * wide)
        coefficients = np.empty((2, count, len(self.basis)), np.float32)
        # M = [cos -sin; sin cos] [1 0; slant 1] diag(tall, wide)
        coefficients[0, :, 0], coefficients[0, :, 1] = (cos - sin * slant) * tall, -sin * wide
        coefficients[1, :, 0], coefficients[1, :, 1] = (sin + cos * slant) * tall, cos * wide
        coefficients[0, :, 2] = (self.height - 1) / 2 + self.shift * down
        coefficients[1, :, 2] = (self.width - 1) / 2 + self.shift * across
        coefficients[:, :, 3:] = rng.standard_normal((2, count, len(self.basis) - 3), np.float32)
        return coefficients

    def _resample(self, x: NDArray[np.uint8], coefficients: Array, out: Array, buffers: _Buffers) -> None:
        """Read the images x at the positions given by `coefficients`, by bilinear interpolation.

        The four pixels around a position are first packed as the four bytes of one integer, a cell, so that a single
        gather reads all four. Cell (i, j) holds the pixels of rows i - 1 and i, columns j - 1 and j; pixels outside
        the image are 0.
        """
        count, height, width = len(x), self.height, self.width
        v, u, i, j = (buffer[:count] for buffer in (buffers.v, buffers.u, buffers.i, buffers.j))
        cell = buffers.cell[:count]
        for position, numbers, size in ((v, coefficients[0], height), (u, coefficients[1], width)):
            np.matmul(numbers, self.basis, out=position)
            position += 1  # cells start one pixel before the image
            np.clip(position, 0, np.nextafter(np.float32(size + 1), np.float32(0)), out=position)  # beyond, all is 0
        np.floor(v, out=i)
        np.floor(u, out=j)
        v -= i
        u -= j
        i *= width + 1
        i += j
        i += buffers.first[:count]
        np.copyto(cell, i, casting="unsafe")  # the index of the cell; float32 represents it exactly

        padded, cells = buffers.padded[:count], buffers.cells[:count]
        padded[:, 1:-1, 1:-1] = x.reshape(count, height, width)
        np.left_shift(padded[:, 1:, 1:], 8, out=cells)
        for corner in (padded[:, 1:, :-1], padded[:, :-1, 1:]):
            cells |= corner
            cells <<= 8
        cells |= padded[:, :-1, :-1]
        np.take(buffers.cells.reshape(-1), cell, out=buffers.gathered[:count], mode="clip")
        corners = buffers.corners[:count]
        np.copyto(corners, buffers.gathered[:count].view(np.uint8).reshape(corners.shape))
        top_left, top_right, low_left, low_right = (corners[..., byte] for byte in buffers.byte_order)

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
        np.multiply(low.reshape(out.shape), np.float32(1 / 255), out=out)


class _Buffers:
    """The memory for the images that are transformed at once."""

    def __init__(self, height: int, width: int) -> None:
        pixels, cells = height * width, (height + 1) * (width + 1)
        self.block = block = max(1, BLOCK_PIXELS // pixels)
        self.v, self.u, self.i, self.j = np.empty((4, block, pixels), np.float32)
        self.cell = np.empty((block, pixels), np.int64)
        self.first = np.arange(block, dtype=np.float32)[:, None] * cells
        self.padded = np.zeros((block, height + 2, width + 2), np.uint32)
        self.cells = np.empty((block, height + 1, width + 1), np.uint32)
        self.gathered = np.empty((block, pixels), np.uint32)
        self.corners = np.empty((block, pixels, 4), np.float32)
        # Positions of the bytes of 0x03020100 in memory: lowest byte first on little-endian processors.
        self.byte_order = np.argsort(np.array(0x03020100, np.uint32).reshape(1).view(np.uint8))


def _smooth_fields(height: int, width: int, smoothness: float) -> Array:
    """e (fields, height * width): Σ εₖ eₖ with εₖ ~ N(0, 1) is a smooth random field of mean square 1.

    The covariance exp(-((y - y')² + (x - x')²) / 4 smoothness²) is a product of a factor for rows and a factor for
    columns, so that its eigenvectors are products of the eigenvectors of the two factors. The fields are those of the
    largest eigenvalues, up to KEPT_VARIANCE of the sum.
    """
    row_values, rows = _eigenvectors(height, smoothness)
    column_values, columns = _eigenvectors(width, smoothness)
    variance = np.outer(row_values, column_values)
    order = np.argsort(-variance, axis=None)
    kept = order[: 1 + int(np.searchsorted(np.cumsum(variance.ravel()[order]), KEPT_VARIANCE * variance.sum()))]
    i, j = np.unravel_index(kept, variance.shape)
    fields = np.sqrt(variance[i, j])[:, None, None] * rows[i][:, :, None] * columns[j][:, None, :]
    fields *= math.sqrt(height * width / np.vdot(fields, fields))
    return fields.reshape(len(kept), height * width)


def _eigenvectors(size: int, smoothness: float) -> tuple[Array, Array]:
    """Eigenvalues (size,), clipped at 0, and eigenvectors (size, size), one per row, of exp(-r² / 4 smoothness²)."""
    position = np.arange(size)
    values, vectors = np.linalg.eigh(np.exp(-((position[:, None] - position) ** 2) / (4 * smoothness**2)))
    return np.maximum(values, 0), vectors.T

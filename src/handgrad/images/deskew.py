"""Deskewing: remove the slant of handwritten digits and centre them, before training and before every prediction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Array, as_array, check_inputs, check_int
from ..errors import HandgradError
from ..preprocessing import Preprocessing

# Pixels processed at once: 128 MNIST digits. The float buffers, about 10 KiB per digit, then stay in the processor's
# cache, and the overhead of NumPy's calls is negligible. Measured on two cores shared with other programs: 16 digits at
# once take twice as long, 64 take a quarter longer, 256 and 512 take about as long.
BLOCK_PIXELS = 128 * 784

FLAT = 1e-12  # relative to height²: with less vertical variance all intensity is in one row, up to rounding


class Deskew(Preprocessing):
    """Remove the slant of each image and move its centre of mass to the centre of the image.

    With the pixel values p(y, x) ≥ 0, their sum m = Σ p, the centre of mass (cy, cx) = Σ p (y, x) / m and the centre of
    the image (ym, xm):

        a = cov / var_y     the slant: var_y = Σ p (y - cy)² / m, cov = Σ p (x - cx) (y - cy) / m
        out(y, x) = p(y + cy - ym, x + a (y - ym) + cx - xm)

    Values between pixels are interpolated bilinearly; pixels outside the image are 0. An image of zeros is unchanged,
    and an image with a single non-zero row has slant 0. With `shrink` s, each block of s x s pixels is then replaced
    by its mean. Integers are processed as floats and rounded.

    Parameters
    ----------
    height, width : int
        Size of the input images in pixels.
    shrink : int, default 1
        Downsampling factor. It must divide the height and the width.

    Attributes
    ----------
    n_in, n_out : int
        Number of pixels of an image before and after: height * width, and height * width / shrink².
    image_shape_in, image_shape_out : tuple of int
        (height, width) before and after.

    Raises
    ------
    HandgradError
        If `height`, `width` or `shrink` is not a positive integer, or `shrink` does not divide both sizes.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document recognition", section III.A
    ("deslanted" images).

    Examples
    --------
    >>> import numpy as np
    >>> from handgrad import Deskew
    >>> Deskew(28, 28)(np.zeros((5, 28, 28), np.uint8)).shape
    (5, 28, 28)
    >>> Deskew(28, 28, shrink=2)(np.zeros((5, 784), np.uint8)).shape
    (5, 196)
    """

    image_shape_in: tuple[int, int]
    image_shape_out: tuple[int, int]

    def __init__(self, height: int, width: int, shrink: int = 1) -> None:
        self.height, self.width = check_int("height", height, 1), check_int("width", width, 1)
        self.shrink = check_int("shrink", shrink, 1)
        if self.shrink > min(self.height, self.width):
            raise HandgradError(
                f"shrink must be at most {min(self.height, self.width)} for images of {height}x{width} pixels, "
                f"got {shrink}"
            )
        if self.height % self.shrink or self.width % self.shrink:
            raise HandgradError(f"shrink must divide both sides of images of {height}x{width} pixels, got {shrink}")
        self.image_shape_in = self.height, self.width
        self.image_shape_out = self.height // self.shrink, self.width // self.shrink
        self.n_in, self.n_out = math.prod(self.image_shape_in), math.prod(self.image_shape_out)

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, without `shrink` if it is 1.

        Returns
        -------
        dict
            "height", "width" and, if it is above 1, "shrink".
        """
        return {"height": self.height, "width": self.width} | ({"shrink": self.shrink} if self.shrink > 1 else {})

    def __call__(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Deskew a batch of images.

        Parameters
        ----------
        x : array-like, shape (count, height, width) or (count, height * width)
            Images of any real dtype. The background is 0, all other pixels are positive.
        out : ndarray, optional
            Array for the result. It may be x itself if `shrink` is 1.

        Returns
        -------
        ndarray, shape (count, height / shrink, width / shrink) or (count, n_out)
            The deskewed images, in the dtype of x, with as many dimensions as x. It is `out` if `out` is given.

        Raises
        ------
        HandgradError
            If x has another shape, or contains negative values, NaN or infinity.
        """
        x = as_array("x", x)
        rows = x.reshape(len(x), -1) if x.ndim == 3 else x  # as numbers, because any non-negative values are valid
        images = check_inputs(rows, self.n_in).reshape(-1, self.height, self.width)
        if x.ndim == 3 and x.shape[1:] != self.image_shape_in:
            raise HandgradError(
                f"x has shape {x.shape}: {self!r} expects (count, {self.height}, {self.width}) or (count, {self.n_in})"
            )
        if x.dtype.kind in "fi" and x.min() < 0:
            raise HandgradError(f"x contains {x.min()}: {self!r} expects pixels of 0 (the background) or more")
        if out is None:
            out = np.empty((len(x), *(self.image_shape_out if x.ndim == 3 else (self.n_out,))), x.dtype)
        block = min(len(x), max(1, BLOCK_PIXELS // self.n_in))
        workspace = _Workspace(block, self.height, self.width, x.dtype)
        for first in range(0, len(x), block):
            chunk = slice(first, first + block)
            deskewed = workspace.deskew(images[chunk])
            out[chunk] = (deskewed if self.shrink == 1 else self._block_means(deskewed)).reshape(out[chunk].shape)
        return out

    def _block_means(self, images: NDArray[Any]) -> NDArray[Any]:
        """(count, height, width) -> (count, height / s, width / s): the sum over s rows and s columns, times 1 / s²."""
        s, dtype = self.shrink, images.dtype
        rows = images.reshape(-1, self.height // s, s, self.width)
        total = rows[:, :, 0].astype(np.result_type(dtype, np.float32))
        for k in range(1, s):
            total += rows[:, :, k]
        columns = total.reshape(*total.shape[:-1], self.width // s, s)
        mean = columns[..., 0].copy()
        for k in range(1, s):
            mean += columns[..., k]
        mean *= 1 / s**2
        return mean.astype(dtype) if dtype.kind == "f" else np.rint(mean).astype(dtype)


class _Workspace:
    """Buffers for a block of images, arranged so that every operation works on whole rows.

    A shift by s + f pixels, s an integer and 0 <= f < 1, is the mean of two neighbours, (1 - f) p(s) + f p(s + 1). The
    means are computed first, at the original positions: f is one number per image for a shift along y, and one number
    per row for a shift along x. The shift by s then only copies each row from another position.

        pixels      rows -1 ... height, columns -1 ... width - 1: the image with a border of one zero pixel. The column
                    after the last one of a row is the first one of the next row.
        mean        rows -1 ... height - 1
        field       the means to be copied, with a border of zeros so wide that no copy needs a bounds check
    """

    def __init__(self, count: int, height: int, width: int, dtype: np.dtype[Any]) -> None:
        self.height, self.width, self.dtype = height, width, dtype
        floats = np.result_type(dtype, np.float32)  # float64 for float64, float32 for uint8
        self.pixels = np.zeros((count, height + 2, width + 1), floats)
        size = (height + 1) * (width + 1)
        self.mean, self.difference = np.zeros(count * size + 1, floats), np.empty(count * size, floats)

        margin = height // 2 + 2  # the centre of mass is at most half the height away from the centre of the image
        self.field = np.zeros((count + 1, height + 1 + margin, 2 * width + 1), dtype)
        self.means = self.field[:count, margin:, width:]
        # One item for each run of `width` pixels in the field, at every offset. NumPy copies an item at once, so that
        # copying a row takes a quarter of the time of copying its pixels one by one.
        item = np.dtype((np.void, width * dtype.itemsize))
        self.rows_from = np.ndarray((self.field.size - width + 1,), item, self.field, strides=(dtype.itemsize,))
        self.origin = np.arange(count)[:, None] * (height + 1 + margin) + margin  # field row of each image's first mean

        self.y, self.x = np.arange(-1, height + 1) - (height - 1) / 2, np.arange(-1, width) - (width - 1) / 2
        self.by_x = np.stack([np.ones_like(self.x), self.x], axis=1).astype(floats)
        y, zero = self.y, np.zeros_like(self.y)
        # [Σₓ p, Σₓ p x] of each row -> [m, Σ p y, Σ p x, Σ p y², Σ p x y]
        by_y = np.stack([[y**0, zero], [y, zero], [zero, y**0], [y**2, zero], [zero, y]])
        self.by_y = by_y.transpose(2, 1, 0).reshape(-1, 5)

    def deskew(self, images: NDArray[Any]) -> NDArray[Any]:
        """(count, height, width) -> (count, height, width), for at most as many images as the workspace holds."""
        count, height, width = images.shape
        pixels = self.pixels[:count]
        np.copyto(pixels[:, 1:-1, 1:], images, casting="unsafe")
        cy, cx, a = self._moments(pixels)
        down = np.floor(cy)

        size = (height + 1) * (width + 1)
        pixels, mean = pixels.reshape(count, -1), self.mean[: count * size + 1]
        column, f = mean[:-1].reshape(count, size), (cy - down).astype(pixels.dtype)
        np.subtract(pixels[:, width + 1 :], pixels[:, : -width - 1], out=column)
        column *= f
        column += pixels[:, : -width - 1]

        difference = self.difference[: count * size]
        row = difference.reshape(count, height + 1, width + 1)
        along = a * (self.y[:-1] - down) + cx  # at the source rows: row y of the result is read from row y + down
        np.subtract(mean[1:], mean[:-1], out=difference)
        row *= (along - np.floor(along)).astype(pixels.dtype)[:, :, None]
        difference += mean[:-1]
        if self.dtype.kind == "f":
            np.copyto(self.means[:count, : height + 1], row, casting="unsafe")
        else:
            np.rint(row, out=self.means[:count, : height + 1], casting="unsafe")

        along = np.floor(a * self.y[1:-1] + cx).clip(-width - 1, width)  # a larger shift only reads zeros
        begin = (self.origin[:count] + down + np.arange(1, height + 1)) * (2 * width + 1) + along + (width + 1)
        rows: NDArray[Any] = self.rows_from[begin.astype(np.intp)].view(self.dtype)
        return rows.reshape(count, height, width)

    def _moments(self, pixels: Array) -> tuple[Array, Array, Array]:
        """Centre of mass (cy, cx), relative to the centre of the image, and slant a, each (count, 1).

        Sums over rows of bytes are exact in float32. The difference of squares is computed in float64.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # 0 / 0: an image of zeros
            sums = (pixels.reshape(-1, self.width + 1) @ self.by_x).astype(np.float64)
            moments = sums.reshape(len(pixels), -1) @ self.by_y
            cy, cx, yy, xy = (moments[:, 1:] / moments[:, :1]).T[:, :, None]
            variance = yy - cy * cy
            a = np.where(variance > FLAT * self.height**2, (xy - cx * cy) / variance, 0)
            known = np.isfinite(cy + cx + a)
        return np.where(known, cy, 0), np.where(known, cx, 0), np.where(known, a, 0)

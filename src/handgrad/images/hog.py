"""HOG: histograms of oriented gradients, a fixed first layer for images of strokes."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array, aligned_empty, check_int, row_blocks
from ..errors import HandgradError
from ..layers import Identity, Layer
from ..network import Network

ORIENTATIONS = 8  # east, west, south, north, and the four between them
SIGMA = 0.5  # standard deviation of the weights of a cell, in cells. Measured: 0.5 to 0.8 are equally accurate
# Row and column of each direction, in the order of the output, in an image of 3 x 3 squares: north is above the centre.
COMPASS = (1, 2), (1, 0), (2, 1), (0, 1), (2, 2), (2, 0), (0, 2), (0, 0)
EPSILON = 1e-6  # limits the slope of the square root at 0
MAX_NUMBERS = 1 << 26  # of the components of an example, or pixels times cells: limits the buffers and the outputs
BLOCK_PIXELS = 32 * 784  # pixels processed at once. The components, 8 numbers per pixel, then stay in the cache


class HOG(Layer):
    """Histograms of oriented gradients: how much of the ink's edges in a cell points in each of 8 directions.

    With the pixels p(y, x) and 0 outside the image, the gradient of the ink is

        gx = p(y, x + 1) - p(y, x - 1),  gy = p(y + 1, x) - p(y - 1, x)

    Its components in the two nearest of 8 directions are h, where all others are 0:

        h_east = max(0,  gx - |gy|)    h_southeast = max(0, min( gx,  gy))
        h_west = max(0, -gx - |gy|)    h_southwest = max(0, min(-gx,  gy))
        h_south = max(0,  gy - |gx|)   h_northeast = max(0, min( gx, -gy))
        h_north = max(0, -gy - |gx|)   h_northwest = max(0, min(-gx, -gy))

    The output, for each direction k and each of `cells` x `cells` cells c, is the square root of the sum of h_k with
    Gaussian weights K_c around the centre of the cell, whose sum over the image is about 1, and less at its border:

        y_kc = √(Σ h_k K_c + ε),  K_c(y, x) = ky_c(y) kx_c(x)

    The sum is computed along x first, and then along y.

    The output changes less than the pixels if a stroke is moved, thicker or thinner, so that a network on HOG makes
    fewer errors than the same network on pixels (half of them for the recipe `quick`). The layer has no parameters. Its
    place is before the first Dense layer.

    The outputs for one direction are an image of `cells` x `cells` pixels. A second HOG with `channels=8` computes the
    gradients of these 8 images: a curve, a corner or the end of a stroke is a change of direction.

    Parameters
    ----------
    height, width : int
        Size of the images in pixels.
    cells : int
        Number of cells along each side.
    channels : int
        Number of images that an example consists of. Their outputs are concatenated in the order of the images.

    Raises
    ------
    HandgradError
        If a size is not a positive integer, the images are too large, or there are more cells than pixels along a side.

    References
    ----------
    Dalal & Triggs (2005), Histograms of oriented gradients for human detection. The decomposition, the Gaussian weights
    and the square root: Liu, Nakashima, Sako & Fujisawa (2003), Handwritten digit recognition: benchmarking of
    state-of-the-art techniques. Gradients of the 8 images: Huang, Zhu, Wang & Chen (2014), HSOG: a novel local image
    descriptor based on histograms of the second-order gradients.

    Examples
    --------
    >>> from handgrad import HOG, Dense, Network
    >>> network = Network([HOG(28, 28, cells=7), Dense(392, 10)], loss="cross_entropy", rng=0)
    >>> network.n_in
    784
    >>> layers = [HOG(28, 28, cells=14), HOG(14, 14, cells=5, channels=8)]  # second-order gradients
    >>> network = Network([*layers, Dense(1600, 10)], loss="cross_entropy", rng=0)
    """

    n_in: int
    fixed = True
    workspace = ("x", "y", "dx", "images", "gx", "gy", "h", "ky", "kx", "along_x")

    def __init__(self, height: int, width: int, cells: int = 7, channels: int = 1) -> None:
        self.size = check_int("HOG: height", height, 1), check_int("HOG: width", width, 1)
        self.cells, self.channels = check_int("HOG: cells", cells, 1), check_int("HOG: channels", channels, 1)
        self.image_shape = self.size if channels == 1 else None  # an example of several images has no single shape
        if cells > min(height, width):
            raise HandgradError(
                f"HOG: cells must be at most {min(height, width)} for images of {height}x{width} pixels, got {cells}"
            )
        per_pixel = max(ORIENTATIONS * channels, cells**2)
        if (height + 2) * (width + 1) * per_pixel > MAX_NUMBERS:  # a model file could ask for any size
            raise HandgradError(
                f"HOG: images of {height}x{width} pixels with {cells}x{cells} cells need too much memory: "
                "expected smaller images, or fewer in an example"
            )
        self.n_in, self.n_out = channels * height * width, channels * ORIENTATIONS * cells**2

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.infer(x)

    def infer(self, x: Array) -> Array:
        for rows in row_blocks(len(x), len(self.images) // self.channels):
            h = self._components(x[rows])
            along_x, y = self.along_x[: len(h)], self.y[rows].reshape(-1, self.cells, self.cells)
            np.dot(h.reshape(-1, h.shape[2]), self.kx.T, out=along_x.reshape(-1, self.cells))
            np.matmul(self.ky, along_x, out=y)  # Σ h K
            y += EPSILON
            np.sqrt(y, out=y)  # y = √(Σ h K + ε)
        return self.y

    def backward(self, dy: Array) -> Array:
        for rows in row_blocks(len(dy), len(self.images) // self.channels):
            h = self._components(self.x[rows])
            ds = (dy[rows] / (2 * self.y[rows])).reshape(-1, self.cells, self.cells)  # dy/ds = 1 / 2y, s = Σ h K + ε
            dh = np.matmul(np.matmul(self.ky.T, ds), self.kx)  # dL/dh = Σ ds K
            dh *= h > 0
            self._dx(dh, out=self.dx[rows].reshape(-1, math.prod(self.size)))
        return self.dx

    def _components(self, x: Array) -> Array:
        """h of all images of x: (8 images, height + 2, width + 1), the 8 directions of an image one by one."""
        count, (height, width) = len(x) * self.channels, self.size
        self.images[:count, 1:-1, 1:] = x.reshape(count, height, width)
        p, gx, gy, below = self.images[:count].reshape(-1), self.gx[:count], self.gy[:count], width + 1
        np.subtract(p[2:], p[:-2], out=gx.reshape(-1)[1:-1])
        np.subtract(p[2 * below :], p[: -2 * below], out=gy.reshape(-1)[below:-below])
        h = self.h[:count]
        size_x, size_y, west, north = np.abs(gx), np.abs(gy), -gx, -gy
        for k, (along, across) in enumerate(((gx, size_y), (west, size_y), (gy, size_x), (north, size_x))):
            np.subtract(along, across, out=h[:, k])
        for k, (a, b) in enumerate(((gx, gy), (west, gy), (gx, north), (west, north)), 4):
            np.minimum(a, b, out=h[:, k])
        np.maximum(h, 0, out=h)
        return h.reshape(-1, height + 2, width + 1)

    def _dx(self, dh: Array, out: Array) -> None:
        """dL/dx of a block of images (images, pixels) from dL/dh.

        With X = |gx| and Y = |gy|, only two of the components are not 0: |X - Y| towards the larger one, and min(X, Y)
        between the two. So dX = ±d|X - Y| + (X < Y) dmin, and the same for dY.
        """
        count, (height, width), below = len(out), self.size, self.size[1] + 1
        dh = dh.reshape(count, ORIENTATIONS, -1)
        straight, between = dh[:, :4].sum(axis=1), dh[:, 4:].sum(axis=1)
        gx, gy = self.gx[:count], self.gy[:count]
        x_larger = np.abs(gx) > np.abs(gy)
        dgx = np.sign(gx) * np.where(x_larger, straight, between - straight)
        dgy = np.sign(gy) * np.where(x_larger, between - straight, straight)
        dp, dgx, dgy = np.zeros(dgx.size, out.dtype), dgx.reshape(-1), dgy.reshape(-1)  # 0 in the border, as K
        dp[1:-1] = dgx[:-2] - dgx[2:]  # p(x) is in gx(x - 1), and with a minus sign in gx(x + 1)
        dp[below:-below] += dgy[: -2 * below] - dgy[2 * below :]
        out[...] = dp.reshape(count, height + 2, width + 1)[:, 1:-1, 1:].reshape(count, -1)

    def width(self, n_in: int) -> int:
        return self.n_out

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        height, width = self.size
        block = max(1, min(batch, BLOCK_PIXELS // self.n_in))  # a process may have no rows in a batch
        images, pixels = block * self.channels, (height + 2) * (width + 1)
        # A border of zeros: a row above and below, and a column that is before a row and after the one above it.
        self.images = np.zeros((images, height + 2, width + 1), dtype)
        self.gx, self.gy = np.zeros((2, images, pixels), dtype)
        self.h = np.zeros((images, ORIENTATIONS, pixels), dtype)
        self.along_x = np.zeros((images * ORIENTATIONS, height + 2, self.cells), dtype)
        ky, kx = self.windows
        self.ky = np.pad(ky.astype(dtype), ((0, 0), (1, 1)))
        self.kx = np.pad(kx.astype(dtype), ((0, 0), (1, 0)))
        self.y = aligned_empty(batch * self.n_out, dtype).reshape(batch, self.n_out)
        self.dx = aligned_empty(batch * self.n_in, dtype).reshape(batch, self.n_in)

    @property
    def windows(self) -> tuple[Array, Array]:
        """The Gaussian weights ky (cells, height) and kx (cells, width)."""
        height, width = self.size
        return _gaussians(height, self.cells), _gaussians(width, self.cells)

    def config(self) -> dict[str, Any]:
        channels = {} if self.channels == 1 else {"channels": self.channels}
        return {"height": self.size[0], "width": self.size[1], "cells": self.cells} | channels


def compass(features: Array, cells: int) -> Array:
    """Arrange outputs of HOG, or weights on them, as images: the cells of each direction on its side of the centre.

    Parameters
    ----------
    features : ndarray of shape (count, 8 cells²)
        Outputs of HOG, or rows of the weights of the layer after it.
    cells : int
        Number of cells along each side.

    Returns
    -------
    ndarray of shape (count, 3 cells + 2, 3 cells + 2)
        NaN in the centre and between the directions.
    """
    images = np.full((len(features), 3 * cells + 2, 3 * cells + 2), np.nan, features.dtype)
    for k, (row, column) in enumerate(COMPASS):
        top, left = row * (cells + 1), column * (cells + 1)
        direction = features[:, k * cells**2 : (k + 1) * cells**2]
        images[:, top : top + cells, left : left + cells] = direction.reshape(-1, cells, cells)
    return images


def after_hog(network: Network, x: Array) -> tuple[Network, Array]:
    """Return a copy of a network with Identity in place of each HOG before other layers, and the outputs of HOG for x.

    Identity keeps the numbers of the other layers. The network is the same if its first layer is not HOG.
    """
    count = next(i for i, layer in enumerate(network.layers) if not isinstance(layer, HOG))
    if not count:
        return network, x
    outputs, twin = network.outputs_of(count - 1, x), copy.copy(network)
    twin.image_shape = None
    return twin.with_layers([*(Identity() for _ in range(count)), *twin.layers[count:]], network.parameters), outputs


def _gaussians(size: int, cells: int) -> Array:
    """The weights (cells, size) of the pixels along one side: Gaussian densities around the centres of the cells."""
    cell = size / cells
    distance = (np.arange(size) - (np.arange(cells)[:, None] + 0.5) * cell + 0.5) / (SIGMA * cell)
    return np.exp(-(distance**2) / 2) / (math.sqrt(2 * math.pi) * SIGMA * cell)

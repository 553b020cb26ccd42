"""Matrix products: the fastest call for the shapes of a layer, chosen once per batch size.

Each function returns a function of (a, b, out) that computes out = a @ b. The choice depends on the shapes, the memory
order and the processor only, so that the same program gives the same bits on the same machine.

OpenBLAS multiplies small matrices without copying them first, which is up to twice as fast. Its float32 kernels for
AVX-512 do so up to SMALL multiplications, and up to SMALL_OUTPUT elements of the output if the rows of both matrices
are multiplied, as in x Wᵀ. A larger product is therefore computed in pieces that are small enough. Measured on one
core:

    product                        in one call    in pieces
    64 x 784 x 30, x Wᵀ                  56 us        30 us
    64 x 784 x 30, dzᵀ x                 35 us        31 us
    64 x 784 x 100, x Wᵀ                122 us       100 us
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, row_blocks

Product = Callable[[Array, Array, Array], Array]

SMALL = 1_000_000
SMALL_OUTPUT = 1_200
# Multiplications up to which the products are split. With a larger one, BLAS's own second thread is faster.
SPLIT_ROWS_UP_TO = 5_100_000
SPLIT_SUM_UP_TO = 2_000_000
LONG = 512  # with shorter rows, a piece takes less time than its call


def plain_product(out: Array) -> Product:
    """Return the product in one call: np.dot, or np.matmul for column-major output.

    np.dot starts 0.4 us sooner, but only writes C-contiguous output.
    """
    return np.dot if out.flags.c_contiguous else np.matmul


def product_of_rows(z: Array, n_in: int) -> Product:
    """Return the product for z = x Wᵀ, with z (batch, n_out) and rows of length n_in: in pieces of the units."""
    batch, n_out = z.shape
    size = min(SMALL_OUTPUT, SMALL // n_in) // max(batch, 1)
    if not splits(batch * n_in * n_out, SPLIT_ROWS_UP_TO, z.dtype) or z.flags.c_contiguous or n_in < LONG or size < 8:
        return plain_product(z)
    units = row_blocks(n_out, size // 8 * 8)  # the kernels compute eight units at a time

    def product(x: Array, W_T: Array, z: Array) -> Array:
        for u in units:
            np.matmul(x, W_T[:, u], z[:, u])
        return z

    return product


def product_over_batch(dW: Array, batch: int) -> Product:
    """Return the product for dW = dzᵀ x, with dW (n_out, n_in), summed over the batch: in pieces of the units."""
    n_out, n_in = dW.shape
    if not splits(batch * n_in * n_out, SPLIT_SUM_UP_TO, dW.dtype) or n_in < LONG:
        return np.dot
    units = row_blocks(n_out, max(1, SMALL // (batch * n_in)))

    def product(dz_T: Array, x: Array, dW: Array) -> Array:
        for u in units:
            np.dot(dz_T[u], x, dW[u])
        return dW

    return product


def splits(multiplications: int, most: int, dtype: np.dtype[Any]) -> bool:
    """Whether a product of this size is computed in pieces."""
    return SMALL < multiplications <= most and dtype == np.float32 and has_small_kernels()


@functools.cache
def has_small_kernels() -> bool:
    """Whether NumPy uses OpenBLAS on a processor with AVX-512."""
    config = np.show_config(mode="dicts")  # leaves out what is empty, such as a list "found" of nothing
    blas = config.get("Build Dependencies", {}).get("blas", {}).get("name", "")
    found = config.get("SIMD Extensions", {}).get("found", [])
    return "openblas" in blas and any("AVX512" in name or name == "X86_V4" for name in found)

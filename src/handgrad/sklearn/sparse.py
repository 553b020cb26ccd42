"""Examples of which most numbers are 0, as words in a text: the first layer multiplies what is there and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import Array
from ..layers import Dense
from ..network import BLOCK, Network

# The share of numbers that are not 0 up to which a product with them alone is faster than one with all, written out:
# a number costs it as much as 50 cost BLAS. A forward and backward pass of 200 rows by 20,000 x 100 in float32, one
# thread, written out and sparse: 29 and 9 ms with 0.5 % of them, 25 and 22 ms with 2 %, 28 and 50 ms with 4 %.
SPARSE = 0.02
FLOATS = 4_000_000  # numbers of a sparse matrix that are written out at a time


def is_sparse(X: Any) -> bool:
    """Whether X is a sparse matrix, and sparse enough to be left one."""
    return not isinstance(X, np.ndarray) and X.nnz <= SPARSE * X.shape[0] * X.shape[1]


def blocks_of(X: Any) -> Iterator[tuple[slice, Any]]:
    """(rows, those rows of X), which are written out where they are not `is_sparse`."""
    written = not isinstance(X, np.ndarray) and not is_sparse(X)
    block = max(1, min(BLOCK, FLOATS // X.shape[1])) if written else BLOCK
    for first in range(0, X.shape[0], block):
        rows = slice(first, first + block)
        yield rows, X[rows].toarray() if written else X[rows]


class SparseDense(Dense):
    """z = x Wᵀ + b for the rows x of a sparse matrix, unit by unit, so that W is walked as it lies in memory."""

    def infer(self, x: Any) -> Array:
        for unit, weights in enumerate(self.W):
            self.z[:, unit] = x @ weights  # zⱼ = x wⱼ
        self.z += self.b
        return self.z

    def backward_parameters(self, dz: Array) -> None:
        columns = self.x.T
        for unit, dw in enumerate(self.dW):
            dw[...] = columns @ dz[:, unit]  # dL/dwⱼ = xᵀ dzⱼ
        np.dot(self.ones, dz, out=self.db)


class SparseNetwork(Network):
    """A shadow of a network, on the same θ and dθ, whose first layer takes rows of a sparse matrix."""

    def __init__(self, network: Network) -> None:
        vars(self).update(vars(network.with_own_buffers()))
        dense, sparse = network.layers[0], object.__new__(SparseDense)
        vars(sparse).update(vars(dense))
        self.layers = [sparse, *self.layers[1:]]

    def forward(self, x: Any) -> Array:
        """x (batch, n_in), sparse -> z (batch, n_out), as in training."""
        self._allocate_buffers(x.shape[0])
        for layer in self.layers:
            x = layer.forward(x)
        z: Array = x
        return z

    def outputs(self, x: Any) -> Array:
        """z (count, n_out) of all rows of x, at once."""
        self._allocate_buffers(x.shape[0])
        for layer in self.layers:
            x = layer.infer(x)
        z: Array = x
        return z


def maybe_sparse(network: Network, X: Any) -> Network:
    """The network as it takes X."""
    return SparseNetwork(network) if is_sparse(X) else network

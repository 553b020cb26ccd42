"""Sparse matrices: networks whose first layer multiplies only the stored elements of its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import Array
from ..layers import Dense
from ..network import PREDICT_ROWS, Network

# Largest density (share of nonzero elements) at which a sparse product is faster than a dense one: an element of a
# sparse product costs as much as 50 elements of BLAS. A forward and backward pass of 200 rows by 20,000 x 100 in
# float32 on one thread, dense and sparse: 29 and 9 ms at density 0.5 %, 25 and 22 ms at 2 %, 28 and 50 ms at 4 %.
MAX_DENSITY = 0.02
DENSE_FLOATS = 4_000_000  # elements of a sparse matrix that are converted to a dense array at a time


def is_sparse(X: Any) -> bool:
    """Return whether X is a sparse matrix whose density is low enough for sparse products."""
    return not isinstance(X, np.ndarray) and X.nnz <= MAX_DENSITY * X.shape[0] * X.shape[1]


def row_blocks(X: Any) -> Iterator[tuple[slice, Any]]:
    """Yield (rows, X[rows]) in blocks. Rows of a sparse matrix become dense unless `is_sparse(X)`."""
    convert = not isinstance(X, np.ndarray) and not is_sparse(X)
    block = max(1, min(PREDICT_ROWS, DENSE_FLOATS // X.shape[1])) if convert else PREDICT_ROWS
    for first in range(0, X.shape[0], block):
        rows = slice(first, first + block)
        yield rows, X[rows].toarray() if convert else X[rows]


class SparseDense(Dense):
    """A Dense layer for a sparse x, on the parameters of another Dense layer: z = x Wᵀ + b.

    The products are computed unit by unit, so that W and dW are accessed in memory order.
    """

    def __init__(self, dense: Dense) -> None:
        super().__init__(dense.n_in, dense.n_out, dense.init)
        self.W, self.b, self.dW, self.db = dense.W, dense.b, dense.dW, dense.db

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
    """A replica of a network, with the same θ and dθ, whose inputs are rows of a sparse matrix.

    Parameters
    ----------
    network : Network
        A network whose first layer is Dense.
    """

    def __init__(self, network: Network) -> None:
        vars(self).update(vars(network.with_own_buffers()))  # Network.__init__ would create a new θ
        first, *others = self.layers
        assert isinstance(first, Dense)
        self.layers = [SparseDense(first), *others]

    def forward(self, x: Any) -> Array:
        """Compute the logits z (batch, n_out) of a sparse x (batch, n_in), in training mode."""
        self._allocate_buffers(x.shape[0])
        for layer in self.layers:
            x = layer.forward(x)
        z: Array = x
        return z

    def outputs(self, x: Any) -> Array:
        """Return the logits z (count, n_out) of all rows of x, in a new array. Safe from several threads."""
        replica = self.with_own_buffers()
        replica._allocate_buffers(x.shape[0])
        for layer in replica.layers:
            x = layer.infer(x)
        z: Array = x
        return z


def maybe_sparse(network: Network, X: Any) -> Network:
    """Return a network with the parameters of `network` that accepts rows of X: a SparseNetwork if X is sparse."""
    return SparseNetwork(network) if is_sparse(X) else network

"""Muon: momentum orthogonalized by Newton-Schulz iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, aligned_empty, check_int, check_positive
from .network import Network
from .optimizers import UPDATE_CHUNK, Nesterov

# X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X. The coefficient a is the growth of small singular values. Jordan et al. (2024).
QUINTIC = 3.4445, -4.7750, 2.0315
MINIMUM_NORM = 1e-16


class Muon(Nesterov):
    """Muon: steps of the same length in every direction of a weight matrix.

    v ← μ v + g,  W ← W - lr √max(1, n_out / n_in) U Vᵀ,  U S Vᵀ = g + μ v (singular value decomposition)

    for every matrix W (n_out, n_in) except the last one, whose rows are classes. `newton_schulz` approximates U Vᵀ. The
    last matrix and all vectors take a step of `Nesterov` with the learning rate fallback_lr_scale · lr.

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        μ, in [0, 1).
    fallback_lr_scale : float
        Factor on the learning rate of the last matrix and of vectors.
    iterations : int
        Number of Newton-Schulz iterations.
    **options
        Penalties and limits of `Optimizer`.

    References
    ----------
    Jordan et al. (2024), Muon: an optimizer for hidden layers in neural networks.
    """

    def __init__(
        self,
        lr: float = 0.02,
        momentum: float = 0.95,
        fallback_lr_scale: float = 1.0,
        iterations: int = 5,
        **options: Any,
    ) -> None:
        super().__init__(lr, momentum, **options)
        self.fallback_lr_scale = check_positive("fallback_lr_scale", fallback_lr_scale)
        self.iterations = check_int("iterations", iterations, 1)

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        """Update a block: a whole matrix (n_out, n_in), or a part of the other parameters as a vector."""
        if theta.ndim == 1:
            super().update(theta, g, state, scratch, lr * self.fallback_lr_scale)
            return
        (v,) = state
        v *= self.momentum
        v += g
        u = np.multiply(v, self.momentum, out=scratch[: v.size].reshape(v.shape))
        u += g
        u = newton_schulz(u, self.iterations, scratch[v.size :])
        n_out, n_in = theta.shape
        u *= lr * math.sqrt(max(1, n_out / n_in))
        theta -= u

    def _attach(self, network: Network) -> None:
        """Divide θ into its matrices, and the other parameters into blocks."""
        super()._attach(network)
        named, first = network.named_parameters, 0
        matrices = [name for name, p in named.items() if p.ndim == 2][:-1]
        sizes = [named[name].size + newton_schulz_workspace(named[name].shape) for name in matrices]
        scratch = aligned_empty(max([min(UPDATE_CHUNK, network.parameters.size), *sizes]), network.dtype)
        self._blocks, self._scales = [], []
        for name, p in named.items():
            flat = slice(first, first := first + p.size)
            layer = network.layers[int(name.partition(".")[0])]
            if not layer.trainable:
                continue
            theta, g, state = network.parameters[flat], network.gradient_buffer[flat], self.state[:, flat]
            if name in matrices:
                parts = [(theta.reshape(p.shape), g.reshape(p.shape), [s.reshape(p.shape) for s in state], scratch)]
            else:
                cuts = [slice(begin, begin + UPDATE_CHUNK) for begin in range(0, p.size, UPDATE_CHUNK)]
                parts = [(theta[c], g[c], [s[c] for s in state], scratch[: theta[c].size]) for c in cuts]
            self._blocks += parts
            self._scales += [layer.lr_scale] * len(parts)


def newton_schulz(G: Array, steps: int = 5, workspace: Array | None = None) -> Array:
    """Approximate U Vᵀ of G = U S Vᵀ by matrix products.

    X ← (a I + b A + c A²) X,  A = X Xᵀ,  starting from X = G / ‖G‖

    Each step maps every singular value s to a s + b s³ + c s⁵ and does not change U and V. Five steps map singular
    values from 0.0015 ‖G‖ on to 0.68 ... 1.21. They do not converge to 1, which an optimizer step does not need. If
    n_out > n_in, A is Xᵀ X, the smaller product, and is multiplied from the right.

    Parameters
    ----------
    G : ndarray of shape (n_out, n_in)
        The matrix.
    steps : int
        Number of iterations.
    workspace : ndarray of shape (newton_schulz_workspace(G.shape),), optional
        Memory for the computation; the result is a view of it.

    Returns
    -------
    ndarray of shape (n_out, n_in)

    References
    ----------
    Björck & Bowie (1971); coefficients of Jordan et al. (2024).
    """
    a, b, c = QUINTIC
    n_out, n_in = G.shape
    n, tall = min(G.shape), n_out > n_in
    if workspace is None:
        workspace = aligned_empty(newton_schulz_workspace(G.shape), G.dtype)
    X, Y = workspace[: 2 * G.size].reshape(2, n_out, n_in)
    A, B = workspace[2 * G.size : newton_schulz_workspace(G.shape)].reshape(2, n, n)
    diagonal = B.reshape(-1)[:: n + 1]
    # Below the minimum norm, squares underflow in float32; X is then shorter than 1, which does no harm.
    np.multiply(G, 1 / max(math.sqrt(np.vdot(G, G)), MINIMUM_NORM), out=X)
    for _ in range(steps):
        if tall:
            np.dot(X.T, X, out=A)
        else:
            np.dot(X, X.T, out=A)
        np.dot(A, A.T, out=B)  # A = Aᵀ: in this form BLAS computes only one half, 33 % less time at n = 800
        B *= c
        A *= b
        B += A
        diagonal += a  # B = a I + b A + c A², so that only the product traverses X
        X, Y = (np.dot(X, B, out=Y) if tall else np.dot(B, X, out=Y)), X
    return X


def newton_schulz_workspace(shape: tuple[int, ...]) -> int:
    """Return the number of elements that `newton_schulz` needs: two matrices like G and two of its smaller side."""
    return 2 * math.prod(shape) + 2 * min(shape) ** 2

"""The orthogonal matrix that is nearest to a matrix, near enough, by products alone: what Muon's steps are made of."""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array, aligned

# X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X: a large, for it is how fast small singular values grow. Jordan et al. (2024).
QUINTIC = 3.4445, -4.7750, 2.0315
LEAST_NORM = 1e-16


def newton_schulz(G: Array, steps: int = 5, room: Array | None = None) -> Array:
    """U Vᵀ of G = U S Vᵀ, near enough:  X ← (a I + b A + c A²) X,  A = X Xᵀ,  from X = G / ‖G‖

    G (n_out, n_in) -> (n_out, n_in). Each step takes every singular value s to a s + b s³ + c s⁵ and leaves U and V as
    they are; five take those from 0.0015 ‖G‖ on into 0.68 ... 1.21. There they stay and do not come to 1, nor need to
    for a step. For n_out > n_in A is Xᵀ X, the smaller one, and stands on the right. Products of matrices alone:
    Björck & Bowie (1971), with the numbers of Jordan et al. (2024).

    The result lies in `room`, which has `newton_schulz_room(G.shape)` numbers or more; without one it is made.
    """
    a, b, c = QUINTIC
    n_out, n_in = G.shape
    n, tall = min(G.shape), n_out > n_in
    if room is None:
        room = aligned(newton_schulz_room(G.shape), G.dtype)
    X, Y = room[: 2 * G.size].reshape(2, n_out, n_in)
    A, B = room[2 * G.size : newton_schulz_room(G.shape)].reshape(2, n, n)
    diagonal = B.reshape(-1)[:: n + 1]
    # Below the least norm the squares of a float32 fade away; then X is shorter than 1, which does no harm.
    np.multiply(G, 1 / max(math.sqrt(np.vdot(G, G)), LEAST_NORM), out=X)
    for _ in range(steps):
        if tall:
            np.dot(X.T, X, out=A)
        else:
            np.dot(X, X.T, out=A)
        np.dot(A, A.T, out=B)  # A = Aᵀ: written so, BLAS works out one half alone, a third less time at n = 800
        B *= c
        A *= b
        B += A
        diagonal += a  # B = a I + b A + c A²: so X is passed over by the product alone
        X, Y = (np.dot(X, B, out=Y) if tall else np.dot(B, X, out=Y)), X
    return X


def newton_schulz_room(shape: tuple[int, ...]) -> int:
    """How many numbers `newton_schulz` needs room for: two matrices as large as G, two as wide as its smaller side."""
    return 2 * math.prod(shape) + 2 * min(shape) ** 2

"""Weight initializers: normal, LeCun, Xavier (Glorot), Kaiming (He), zeros.

An initializer fills a weight matrix W (n_out, n_in) and a bias b (n_out,) in place, from the random generator it is
given. All except `normal` and `zeros` have one goal: z = x Wᵀ + b has about the same variance as x for any layer size,
so that activations and gradients neither grow nor vanish from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .arrays import Array

Initializer = Callable[[Array, Array, "np.random.Generator"], None]


def normal(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W, b ~ N(0, 1): the initialization of the blog post and of Nielsen's chapter 1. Wide layers start saturated."""
    W[...] = rng.standard_normal(W.shape)
    b[...] = rng.standard_normal(b.shape)


def lecun(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W ~ N(0, 1 / n_in), b = 0: z has the variance of x. LeCun et al. (1998), Efficient BackProp, section 4.6."""
    _gaussian(W, b, rng, variance=1 / W.shape[1])


def xavier_normal(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W ~ N(0, 2 / (n_in + n_out)), b = 0: a compromise for the variances of z and dx. Glorot & Bengio (2010)."""
    _gaussian(W, b, rng, variance=2 / sum(W.shape))


def xavier_uniform(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W ~ U(-r, r), r = √(6 / (n_in + n_out)), b = 0: the variance of `xavier_normal`. Glorot & Bengio (2010), (16)."""
    _uniform(W, b, rng, variance=2 / sum(W.shape))


def kaiming_normal(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W ~ N(0, 2 / n_in), b = 0: twice LeCun's variance, because a ReLU zeroes half of z. He et al. (2015), (10)."""
    _gaussian(W, b, rng, variance=2 / W.shape[1])


def kaiming_uniform(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W ~ U(-r, r), r = √(6 / n_in), b = 0: the variance of `kaiming_normal`. He et al. (2015)."""
    _uniform(W, b, rng, variance=2 / W.shape[1])


def zeros(W: Array, b: Array, rng: np.random.Generator) -> None:
    """W = 0, b = 0: all units of a hidden layer then learn the same. For demonstrations, and for the last layer."""
    W[...] = 0
    b[...] = 0


def _gaussian(W: Array, b: Array, rng: np.random.Generator, variance: float) -> None:
    W[...] = rng.normal(0, math.sqrt(variance), W.shape)
    b[...] = 0


def _uniform(W: Array, b: Array, rng: np.random.Generator, variance: float) -> None:
    r = math.sqrt(3 * variance)  # Var[U(-r, r)] = r² / 3
    W[...] = rng.uniform(-r, r, W.shape)
    b[...] = 0


INITIALIZERS: dict[str, Initializer] = {
    "normal": normal,
    "lecun": lecun,
    "xavier_normal": xavier_normal,
    "xavier_uniform": xavier_uniform,
    "kaiming_normal": kaiming_normal,
    "kaiming_uniform": kaiming_uniform,
    "zeros": zeros,
}

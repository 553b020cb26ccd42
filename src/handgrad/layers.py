"""The links of the chain, simplest first. Each one is its derivation: forward, and beside it backward.

A layer maps a batch x (batch, n_in) to y (batch, n_out). Given dy, the derivative of the loss by y, `backward` gives
dx, the derivative of the loss by x, and leaves those by its own parameters in dW and db: the chain rule, once.

A layer of your own needs `forward` and `backward` and nothing else. If it has parameters, `shapes` names them:
`{"W": (n_out, n_in)}` gives it `self.W` and, for backward to write into, `self.dW`: views into the network's two
vectors. `handgrad.check_gradient` then tells whether the derivation holds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .arrays import Array, Streams, as_whole, buffer
from .errors import HandgradError, unknown
from .initializers import INITIALIZERS

# Numbers as arrays of no dimension, exact in both types: a Python number is converted at every call, which takes as
# long, 0.3 us, as all else in a call on a small batch, seven times in a step of the post's network.
ZERO, HALF, ONE = (np.array(number, np.float32) for number in (0, 0.5, 1))


class Layer(ABC):
    """What every layer is to the network. `forward` keeps what `backward` will need, so the two go in pairs.

    What comes in is only read, and what goes out has its dtype: x may be the user's own array.
    """

    n_in: int | None = None  # the width of x that the layer takes, None: any
    # The parameters by name: a matrix (n_out, n_in) is a weight, a vector a bias.
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    rng: np.random.Generator | None = None  # the stream of a layer that draws while it trains

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """x (batch, n_in) -> y (batch, n_out), as in training."""

    @abstractmethod
    def backward(self, dy: Array) -> Array:
        """dy (batch, n_out) -> dx (batch, n_in), for the x that `forward` saw last."""

    def backward_parameters(self, dy: Array) -> None:
        """Only the derivatives by the parameters. The first layer's dx is the picture's, which nobody asks for."""
        self.backward(dy)

    def backward_input(self, dy: Array) -> Array:
        """Only dx: where a picture is to change, nobody asks for the derivatives by the parameters."""
        return self.backward(dy)

    def infer(self, x: Array) -> Array:
        """The map as it is once trained. Layers that draw in training differ here."""
        return self.forward(x)

    def width(self, n_in: int) -> int:
        """n_out for a given n_in."""
        return n_in

    def initialize(self, streams: Streams) -> None:
        """Give the parameters their first values, and the layer its own stream where it needs one."""

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        """Make the buffers that forward and backward write into: once for a batch size, not once for a batch."""

    def config(self) -> dict[str, Any]:
        """The arguments that make this layer again, for the model file."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


# ---- Affine ---------------------------------------------------------------------------------------------------------


class Dense(Layer):
    """z = x Wᵀ + b

    x (batch, n_in), W (n_out, n_in), b (n_out,) -> z (batch, n_out). Row i of W belongs to unit i, as in the post.
    """

    n_in: int
    W: Array
    b: Array
    dW: Array
    db: Array

    def __init__(self, n_in: int, n_out: int, init: str = "kaiming_normal") -> None:
        n_in, n_out = as_whole("a layer of size", n_in, 1), as_whole("a layer of size", n_out, 1)
        if init not in INITIALIZERS:
            raise unknown("initializer", init, INITIALIZERS)
        self.n_in, self.n_out, self.init = n_in, n_out, init
        self.shapes = {"W": (n_out, n_in), "b": (n_out,)}

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.infer(x)

    def infer(self, x: Array) -> Array:
        self.z_product(x, self.W.T, out=self.z)  # z = x Wᵀ
        self.z += self.b  #                            + b
        return self.z

    def backward(self, dz: Array) -> Array:
        self.backward_parameters(dz)
        return self.backward_input(dz)

    def backward_parameters(self, dz: Array) -> None:
        np.dot(dz.T, self.x, out=self.dW)  # dL/dW = dzᵀ x, summed over the batch by the product
        np.dot(self.ones, dz, out=self.db)  # dL/db = 1ᵀ dz: as a product, half the time of dz.sum(axis=0)

    def backward_input(self, dz: Array) -> Array:
        return self.dx_product(dz, self.W, out=self.dx)  # dL/dx = dz W

    def width(self, n_in: int) -> int:
        return self.n_out

    def initialize(self, streams: Streams) -> None:
        INITIALIZERS[self.init](self.W, self.b, streams.initialization)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.z = buffer(batch, self.n_out, dtype)
        self.dx = buffer(batch, self.n_in, dtype)
        self.ones = np.ones(batch, dtype)
        # np.dot begins 0.4 us sooner than np.matmul, but writes by rows alone.
        self.z_product = np.dot if self.z.flags.c_contiguous else np.matmul
        self.dx_product = np.dot if self.dx.flags.c_contiguous else np.matmul

    def config(self) -> dict[str, Any]:
        return {"n_in": self.n_in, "n_out": self.n_out, "init": self.init}


# ---- Activations: a = f(z), element by element -----------------------------------------------------------------------


class Identity(Layer):
    """a = z"""

    def forward(self, z: Array) -> Array:
        return z

    def backward(self, da: Array) -> Array:
        return da  # da/dz = 1


class _Activation(Layer):
    """Two buffers of the batch's shape: `a` for forward, `dz` for backward."""

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.a = buffer(batch, n_in, dtype)
        self.dz = buffer(batch, n_in, dtype)


class Sigmoid(_Activation):
    """a = σ(z) = 1 / (1 + e⁻ᶻ)"""

    def forward(self, z: Array) -> Array:
        return sigmoid(z, out=self.a)

    def backward(self, da: Array) -> Array:
        dz = np.subtract(ONE, self.a, out=self.dz)
        dz *= self.a  # da/dz = a (1 - a)
        dz *= da
        return dz


class Tanh(_Activation):
    """a = tanh(z)"""

    def forward(self, z: Array) -> Array:
        return np.tanh(z, out=self.a)

    def backward(self, da: Array) -> Array:
        dz = np.multiply(self.a, self.a, out=self.dz)
        np.subtract(ONE, dz, out=dz)  # da/dz = 1 - a²
        dz *= da
        return dz


class Relu(_Activation):
    """a = max(z, 0). At the kink, z = 0, the derivative is taken to be 0."""

    def forward(self, z: Array) -> Array:
        return np.maximum(z, self.zeros, out=self.a)

    def backward(self, da: Array) -> Array:
        # da/dz = [z > 0]; the mask as a factor, not as an index: 10 times the speed
        return np.multiply(da, self.a > ZERO, out=self.dz)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        super().allocate(batch, n_in, dtype)
        self.zeros = buffer(batch, n_in, dtype)  # NumPy takes the larger of two arrays 3 times as fast as of one and 0
        self.zeros[...] = 0


class LeakyRelu(_Activation):
    """a = z where z > 0, else slope · z. Maas et al. (2013)."""

    def __init__(self, slope: float = 0.01) -> None:
        if not 0 < slope < 1:
            raise HandgradError(f"LeakyRelu with slope {slope}: expected a number between 0 and 1")
        self.slope = slope

    def forward(self, z: Array) -> Array:
        np.multiply(z, self.slope, out=self.a)
        return np.maximum(z, self.a, out=self.a)  # slope < 1: the larger of the two is the right one on either side

    def backward(self, da: Array) -> Array:
        np.multiply(da, self.slope, out=self.dz)
        np.copyto(self.dz, da, where=self.a > 0)  # da/dz = 1 where z > 0, else slope
        return self.dz

    def config(self) -> dict[str, Any]:
        return {"slope": self.slope}


class Softplus(_Activation):
    """a = ln(1 + eᶻ), a smooth max(z, 0). Its derivative is the sigmoid."""

    def forward(self, z: Array) -> Array:
        return np.logaddexp(0, z, out=self.a)

    def backward(self, da: Array) -> Array:
        dz = np.negative(self.a, out=self.dz)
        np.expm1(dz, out=dz)
        np.negative(dz, out=dz)  # da/dz = σ(z) = 1 - e⁻ᵃ, from the output
        dz *= da
        return dz


class Gelu(_Activation):
    """a = z (1 + t) / 2,  t = tanh(u),  u = √(2/π) (z + 0.044715 z³)

    The tanh form of Hendrycks & Gimpel (2016); PyTorch's GELU(approximate="tanh"). NumPy has no erf for the exact one.
    """

    def forward(self, z: Array) -> Array:
        self.z = z
        u = math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)
        self.t = np.tanh(u, out=u)
        np.add(1, self.t, out=self.a)
        self.a *= z
        self.a *= 0.5
        return self.a

    def backward(self, da: Array) -> Array:
        z, t = self.z, self.t
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)
        dz = np.multiply(z, (1 - t * t) * du, out=self.dz)  # da/dz = (1 + t + z (1 - t²) du/dz) / 2
        dz += t
        dz += 1
        dz *= 0.5
        dz *= da
        return dz


def sigmoid(z: Array, out: Array | None = None) -> Array:
    """σ(z) = (1 + tanh(z / 2)) / 2: no exponential that could overflow, and no division."""
    a = np.multiply(z, HALF, out=out)
    np.tanh(a, out=a)
    a *= HALF
    a += HALF
    return a


# ---- Noise ----------------------------------------------------------------------------------------------------------


class Dropout(Layer):
    """In training y = x m / (1 - rate), each m 0 with probability `rate`, else 1; once trained y = x.

    Inverted: the division keeps the mean of y at x, so that inference has nothing to do. Srivastava et al. (2014).
    """

    rng: np.random.Generator

    def __init__(self, rate: float = 0.5) -> None:
        if not 0 <= rate < 1:
            raise HandgradError(f"Dropout with rate {rate}: expected a number from 0 up to, but not, 1")
        self.rate = rate

    def forward(self, x: Array) -> Array:
        self.rng.random(out=self.m, dtype=self.m.dtype.type)
        np.greater_equal(self.m, self.rate, out=self.m)
        self.m *= 1 / (1 - self.rate)
        return np.multiply(x, self.m, out=self.y)

    def backward(self, dy: Array) -> Array:
        return np.multiply(dy, self.m, out=self.dx)  # dL/dx = dy m / (1 - rate)

    def infer(self, x: Array) -> Array:
        return x

    def initialize(self, streams: Streams) -> None:
        (self.rng,) = streams.dropout.spawn(1)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.m = buffer(batch, n_in, dtype)
        self.y = buffer(batch, n_in, dtype)
        self.dx = buffer(batch, n_in, dtype)

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}


# ---- Normalisation --------------------------------------------------------------------------------------------------


class BatchNorm(Layer):
    """y = g x̂ + b,  x̂ = (x - μ) / σ,  σ = √(mean((x - μ)²) + ε): in training over the batch, each column by itself.

    Once trained, μ and σ² are the running statistics: running ← running + momentum (the batch's - running), the
    batch's variance taken over batch - 1 there, as in PyTorch. They live in θ, with derivative 0, so copies,
    checkpoints, a best epoch brought back and averaged weights hold them, and no gradient moves them; `forward` does.
    (PyTorch keeps them apart from its parameters: here θ is longer by them.)
    One example alone has no spread: it gives y = b and dx = 0, and leaves the running statistics as they are.

    With c = x - μ and dx̂ = g dy, sums and means over the batch:

        dσ² = Σ dx̂ c (-1/2) / σ³ = -batch mean(dx̂ x̂) / 2σ²
        dμ  = -Σ dx̂ / σ          = -batch mean(dx̂) / σ         what comes through σ² is 0, for Σ c is
        dx  = dx̂ / σ + dσ² 2c / batch + dμ / batch
            = g/σ (dy - mean(dy) - x̂ mean(dy x̂))

    x, y (batch, n); g, b, running_mean, running_var (n,). Ioffe & Szegedy (2015).
    """

    n_in: int
    g: Array
    b: Array
    running_mean: Array
    running_var: Array
    dg: Array
    db: Array
    drunning_mean: Array
    drunning_var: Array

    def __init__(self, n: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        self.n_in = n = as_whole("a layer of size", n, 1)
        if not 0 < momentum <= 1:
            raise HandgradError(f"BatchNorm with momentum {momentum}: expected a number above 0, at most 1")
        if not 0 < epsilon < math.inf:
            raise HandgradError(f"BatchNorm with epsilon {epsilon}: expected a finite number above 0")
        self.momentum, self.epsilon = float(momentum), float(epsilon)
        self.shapes = {"g": (n,), "b": (n,), "running_mean": (n,), "running_var": (n,)}

    def forward(self, x: Array) -> Array:
        batch, c, y = len(x), self.c, self.y
        mu = np.dot(self.ones, x)
        mu *= 1 / batch  # μ = mean(x)
        np.subtract(_in_order_of(c, x), mu, out=c)  # c = x - μ
        var = np.dot(self.ones, np.multiply(c, c, out=y))  # in y, which has nothing yet
        var *= 1 / batch  # mean(c²)
        if batch > 1:
            self.running_mean += self.momentum * (mu - self.running_mean)
            self.running_var += self.momentum * (var * (batch / (batch - 1)) - self.running_var)
        self.r = 1 / np.sqrt(var + self.epsilon)  # r = 1 / σ
        np.multiply(c, self.g * self.r, out=y)  # y = g x̂, x̂ = c r: x̂ itself would be a pass more, a fifth of the time
        y += self.b  #                              + b
        return y

    def backward(self, dy: Array) -> Array:
        self.backward_parameters(dy)
        return self._dx(dy, self.db, self.dg)

    def backward_parameters(self, dy: Array) -> None:
        self.db[...], self.dg[...] = self._sums(dy)
        self.drunning_mean.fill(0)
        self.drunning_var.fill(0)

    def backward_input(self, dy: Array) -> Array:
        return self._dx(dy, *self._sums(dy))

    def _sums(self, dy: Array) -> tuple[Array, Array]:
        db = np.dot(self.ones, dy)  # dL/db = 1ᵀ dy
        dg = np.dot(self.ones, np.multiply(dy, self.c, out=self.dx))  # in dx, which has nothing yet
        dg *= self.r  # dL/dg = 1ᵀ (dy x̂)
        return db, dg

    def _dx(self, dy: Array, db: Array, dg: Array) -> Array:
        share, dx = 1 / len(dy), self.dx
        np.multiply(self.c, dg * self.r * -share, out=dx)  # dL/dx = g/σ (-x̂ mean(dy x̂)
        dx += dy  #                                                       + dy
        dx -= db * share  #                                               - mean(dy))
        dx *= self.g * self.r
        return dx

    def infer(self, x: Array) -> Array:
        s, t = self.affine()
        np.multiply(_in_order_of(self.y, x), s, out=self.y)
        self.y += t
        return self.y

    def affine(self) -> tuple[Array, Array]:
        """(s, t), each (n,), of the y = s x + t that it is once trained: s = g / σ, t = b - s μ."""
        s = self.g / np.sqrt(self.running_var + self.epsilon)
        return s, self.b - s * self.running_mean

    def initialize(self, streams: Streams) -> None:
        self.g[...] = self.running_var[...] = 1
        self.b[...] = self.running_mean[...] = 0

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.c = buffer(batch, n_in, dtype)
        self.y = buffer(batch, n_in, dtype)
        self.dx = buffer(batch, n_in, dtype)
        self.ones = np.ones(batch, dtype)

    def config(self) -> dict[str, Any]:
        return {"n": self.n_in, "momentum": self.momentum, "epsilon": self.epsilon}


def _in_order_of(room: Array, x: Array) -> Array:
    """x, where it lies in memory as `room` does, by rows or by columns; else x copied into `room`.

    A picture comes by rows. NumPy turns them into columns six times as fast where it copies as where it computes.
    """
    if x.flags.c_contiguous != room.flags.c_contiguous:
        np.copyto(room, x)
        return room
    return x


ACTIVATIONS: dict[str, type[Layer]] = {
    "identity": Identity,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": Relu,
    "leaky_relu": LeakyRelu,
    "softplus": Softplus,
    "gelu": Gelu,
}

_ALL: tuple[type[Layer], ...] = (Dense, Dropout, BatchNorm, *ACTIVATIONS.values())
LAYERS = {layer.__name__: layer for layer in _ALL}  # in a file as in code: LeakyRelu

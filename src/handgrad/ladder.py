"""Ladder network: a multi-layer perceptron that also learns to remove noise from its input.

The encoder is a perceptron with batch normalization and with Gaussian noise ε on every level k = 0, ..., K. The decoder
computes values without noise, ẑ, from the top to the bottom. On every level it sees the noisy values z̃ of the encoder:

    z̃₀ = x + ε                            x̂ = f(z̃₀, u₀),    u₀ = N(ẑ₁ V₁ᵀ)
    z̃₁ = N(h₀ W₁ᵀ) + b₁ + ε               ẑ₁ = f(z̃₁, u₁),   u₁ = N(ẑ₂ V₂ᵀ)
    ...                                   ...
    z̃_K = N(h_K₋₁ W_Kᵀ) + b_K + ε         ẑ_K = f(z̃_K, u_K), u_K = N(softmax(y))

with h₀ = z̃₀, hₖ = max(z̃ₖ, 0), the logits y = g z̃_K, and the normalization N(z) = (z - μ) / σ of each column over the
batch. The layer adds a cost to the loss, the mean squared error of the reconstruction x̂ times a factor λ:

    C = λ / n Σⱼ (x̂ⱼ - xⱼ)²       for an example x of n numbers

The noise is a strong regularization. The cost keeps what the classes alone would not need: the encoder has to describe
the whole input, and the direct paths through z̃ carry the details that do not matter for the class.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from .arrays import Array, Rngs, aligned_empty, check_int, check_non_negative, layer_buffer
from .errors import HandgradError
from .initializers import INITIALIZERS
from .layers import ONE, BatchNorm, Dense, Layer, ReLU, sigmoid
from .losses import softmax

DENOISING = 10  # parameters a₁, ..., a₁₀ of f for each unit
STATISTICS_SHARE = 8  # the running statistics use an eighth of each batch, which takes a few percent of the time
MOMENTUM = 0.005  # of the running statistics: with 0.02, the first epochs of the recipe make 5 % more errors
EARLY = 4  # update t of the running statistics has the momentum 4 / (t + 3) as long as it is larger

Known = TypeVar("Known", bound=Layer)


class Ladder(Layer):
    """All layers of a ladder network for classification, with ReLU.

    In inference, without noise and decoder, it is the sequence Dense, BatchNorm, ReLU, ..., Dense, BatchNorm, and
    `fold_batchnorm` replaces it by these layers. The running statistics are those without noise. The loss should be
    cross-entropy, because the decoder starts from the softmax of the logits.

    Each unit has its own denoising function f with ten parameters:

        f(z̃, u) = (z̃ - μ) v + μ,   μ = a₁ σ(a₂ u + a₃) + a₄ u + a₅,   v = a₆ σ(a₇ u + a₈) + a₉ u + a₁₀

    If z has a normal distribution with the mean μ(u), the best reconstruction of z from z̃ = z + ε has this form. At the
    start of a training μ = 0 and v = 1, so that ẑ = z̃.

    Parameters
    ----------
    sizes : sequence of int
        n₀, ..., n_K: number of inputs, width of each hidden layer, number of classes.
    noise : float
        Standard deviation of ε.
    cost_factor : float
        Factor λ of the reconstruction error.

    References
    ----------
    Rasmus, Valpola, Honkala, Berglund & Raiko (2015), Semi-supervised learning with ladder networks. The cost is that
    of the variant "bottom-level cost", in which only the input is reconstructed.

    Examples
    --------
    >>> from handgrad import Ladder, Network
    >>> network = Network([Ladder([784, 100, 50, 10])], loss="cross_entropy", rng=0)
    """

    n_in: int
    W1: Array
    g: Array
    running_count: Array
    drunning_count: Array
    rng: np.random.Generator
    workspace = ("x", "encoder", "clean", "decoder", "z0", "epsilon", "error", "dz1", "p")

    def __init__(self, sizes: Sequence[int], noise: float = 0.3, cost_factor: float = 2000.0) -> None:
        self.sizes = [check_int("Ladder: size", n, 1) for n in sizes] if isinstance(sizes, Sequence) else []
        if len(self.sizes) < 2:
            raise HandgradError(f"Ladder: sizes must be a list of at least two sizes, as [784, 100, 10], got {sizes!r}")
        self.noise = check_non_negative("Ladder: noise", noise)
        self.cost_factor = check_non_negative("Ladder: cost_factor", cost_factor)
        self.n_in = self.sizes[0]
        encoder: dict[str, tuple[int, ...]] = {}
        decoder: dict[str, tuple[int, ...]] = {}
        for k, (n_in, n_out) in enumerate(itertools.pairwise(self.sizes), 1):
            encoder |= {f"W{k}": (n_out, n_in), f"b{k}": (n_out,)}
            encoder |= {f"running_mean{k}": (n_out,), f"running_var{k}": (n_out,)}
            decoder |= {f"V{k}": (n_in, n_out)}
        denoising = {f"a{k}": (DENOISING * n,) for k, n in enumerate(self.sizes)}
        counted = {"running_count": (1,)}  # number of updates of the running statistics, saved with them
        self.parameter_shapes = encoder | {"g": (self.sizes[-1],)} | counted | decoder | denoising

    # ---- Encoder -----------------------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        self.x = x
        if self.trainable:
            self._update_statistics(x)
        np.copyto(self.z0, x)
        h = self._add_noise(self.z0)  # z̃₀ = x + ε
        for dense, norm, activation in self.encoder:
            z = self._add_noise(norm.forward(dense.forward(h)))  # z̃ = N(h Wᵀ) + b + ε
            h = activation.forward(z)  # h = max(z̃, 0), or y = g z̃
        self.p = softmax(h)
        return h

    def backward(self, dy: Array) -> Array:
        self.backward_parameters(dy)
        dx = self.encoder[0].dense.backward_input(self.dz1)
        dx += self.decoder[0].denoising.dz
        dx -= self.error  # dC/dx̂, because x is the target too
        return dx

    def backward_parameters(self, dy: Array) -> None:
        dh = self._backward_decoder()
        dh += dy
        for k in reversed(range(len(self.encoder))):
            dense, norm, activation = self.encoder[k]
            dz = activation.backward(dh)
            dz += self.decoder[k + 1].denoising.dz  # z̃ is an input of the decoder too
            dz = norm.backward(dz)
            dense.backward_parameters(dz)
            if k:
                dh = dense.backward_input(dz)
        self.dz1 = dz
        self.drunning_count.fill(0)

    def backward_input(self, dy: Array) -> Array:
        for dense, norm, activation in reversed(self.encoder):
            dy = dense.backward_input(norm.backward_input(activation.backward_input(dy)))
        return dy

    def infer(self, x: Array) -> Array:
        for dense, norm, activation in self.encoder:
            x = activation.forward(norm.infer(dense.infer(x)))
        return x

    def _add_noise(self, z: Array) -> Array:
        epsilon = self.epsilon[: z.size]
        self.rng.standard_normal(out=epsilon, dtype=epsilon.dtype.type)
        epsilon *= self.noise
        flat = z.ravel(order="K")  # a view of the contiguous buffer, in the order of its memory
        flat += epsilon
        return z

    def _update_statistics(self, x: Array) -> None:
        """Update the running statistics with those of the values without noise, normalized as in inference."""
        # Not the first eighth: `Adversarial` perturbs the first half of a batch.
        h = x[::STATISTICS_SHARE] if len(x) >= STATISTICS_SHARE else x
        self.running_count += 1
        t = max(1.0, float(self.running_count[0]))  # a gradient check has any number
        momentum = max(MOMENTUM, EARLY / (t + EARLY - 1))
        for dense, norm, activation in self.clean:
            z = dense.infer(h)
            norm.running_mean += momentum * (z.mean(axis=0) - norm.running_mean)
            norm.running_var += momentum * (np.square(z - norm.running_mean).mean(axis=0) - norm.running_var)
            h = activation.forward(norm.infer(z))

    # ---- Decoder -----------------------------------------------------------------------------------------------------

    def cost(self, weight: float | Array) -> float:
        error = np.subtract(self.reconstruction(), self.x, out=self.error)
        squares = np.einsum("ij,ij->i", error, error)[:, None]
        return self.cost_factor / self.n_in * float(np.sum(weight * squares))

    def reconstruction(self) -> Array:
        """Compute x̂ for the x of the last `forward`. The next call overwrites it."""
        z_hat = self.p
        for k in reversed(range(len(self.sizes))):
            dense, norm, denoising = self.decoder[k]
            u = norm.forward(dense.forward(z_hat) if dense else z_hat)  # u = N(ẑ Vᵀ), or N(softmax(y))
            z_hat = denoising.forward(self.encoder[k - 1].norm.y if k else self.z0, u)  # ẑ = f(z̃, u)
        return z_hat

    def _backward_decoder(self) -> Array:
        """Compute the derivatives of the cost: dy, those of the decoder, and dz̃ of each level in its `denoising`."""
        d = np.subtract(self.reconstruction(), self.x, out=self.error)
        d *= self.example_weight
        d *= 2 * self.cost_factor / self.n_in  # dC/dx̂ = 2 λ/n (x̂ - x)
        for dense, norm, denoising in self.decoder:
            d = norm.backward(denoising.backward(d))
            if dense:
                dense.backward_parameters(d)
                d = dense.backward_input(d)
        d -= np.einsum("ij,ij->i", d, self.p)[:, None]  # p = softmax(y): dy = p (dp - Σ dp p)
        d *= self.p
        return d

    # ---- Parameters and buffers --------------------------------------------------------------------------------------

    def width(self, n_in: int) -> int:
        return self.sizes[-1]

    def seed(self, rngs: Rngs) -> None:
        (self.rng,) = rngs.dropout.spawn(1)

    def initialize(self, rngs: Rngs) -> None:
        for name in self.parameter_shapes:
            p = getattr(self, name)
            if name[0] in "WV":
                INITIALIZERS["lecun"](p, np.empty(len(p), p.dtype), rngs.initialization)
            else:
                p.fill(name == "g" or name.startswith("running_var"))
        for k in range(len(self.sizes)):
            getattr(self, f"a{k}").reshape(DENOISING, -1)[[1, 6, 9]] = 1  # a₂, a₇, a₁₀

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.encoder = self._encoder(batch, dtype)
        rows = -(-batch // STATISTICS_SHARE) if batch >= STATISTICS_SHARE else batch
        self.clean = self._encoder(rows, dtype)  # without noise, for the statistics
        self.decoder = []
        for k, n in enumerate(self.sizes):
            is_top = k + 1 == len(self.sizes)
            dense = None if is_top else _bound(Dense(self.sizes[k + 1], n), batch, dtype, W=self._views(f"V{k + 1}"))
            norm = _bound(BatchNorm(n), batch, dtype)
            self.decoder.append(_DecoderLevel(dense, norm, _Denoising(*self._views(f"a{k}"), batch)))
        self.z0, self.error = layer_buffer(batch, n_in, dtype), layer_buffer(batch, n_in, dtype)
        self.epsilon = aligned_empty(batch * max(self.sizes), dtype)

    def encoder_layers(self) -> list[Layer]:
        """Return the layers of inference with the parameters of this layer, for `fold_batchnorm`."""
        levels = self._encoder(1, self.W1.dtype)
        last = levels[-1].norm
        last.g, last.b = self.g, self.g * last.b  # y = g (N(h Wᵀ) + b)
        return [layer for level in levels for layer in level if not isinstance(layer, _Scale)]

    def _encoder(self, batch: int, dtype: DTypeLike) -> list[_EncoderLevel]:
        levels = []
        for k, (n_in, n_out) in enumerate(itertools.pairwise(self.sizes), 1):
            dense = _bound(Dense(n_in, n_out), batch, dtype, W=self._views(f"W{k}"))
            given = {name: self._views(f"{name}{k}") for name in ("b", "running_mean", "running_var")}
            norm = _bound(BatchNorm(n_out), batch, dtype, **given)
            norm.trainable = False  # its `forward` sees noise and does not update the running statistics
            activation: Layer = ReLU() if k + 1 < len(self.sizes) else _Scale(*self._views("g"))
            activation.allocate(batch, n_out, dtype)
            levels.append(_EncoderLevel(dense, norm, activation))
        return levels

    def _views(self, name: str) -> tuple[Array, Array]:
        return getattr(self, name), getattr(self, f"d{name}")

    def config(self) -> dict[str, Any]:
        return {"sizes": self.sizes, "noise": self.noise, "cost_factor": self.cost_factor}


class _EncoderLevel(NamedTuple):
    """The layers of level k ≥ 1: z̃ = N(h Wᵀ) + b + ε, and h = max(z̃, 0) or y = g z̃."""

    dense: Dense
    norm: BatchNorm
    activation: Layer


class _Scale(Layer):
    """y = g z̃."""

    def __init__(self, g: Array, dg: Array) -> None:
        self.g, self.dg = g, dg

    def forward(self, z: Array) -> Array:
        self.z = z
        return np.multiply(z, self.g, out=self.y)

    def backward(self, dy: Array) -> Array:
        np.einsum("ij,ij->j", dy, self.z, out=self.dg)
        return self.backward_input(dy)

    def backward_input(self, dy: Array) -> Array:
        return np.multiply(dy, self.g, out=self.dz)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.y, self.dz = layer_buffer(batch, n_in, dtype), layer_buffer(batch, n_in, dtype)


class _Denoising:
    """The denoising function f of a level.

    Parameters
    ----------
    a, da : ndarray of shape (10 n,)
        a₁, ..., a₁₀ of n units, and the derivatives.
    batch : int
        Number of examples.
    """

    def __init__(self, a: Array, da: Array, batch: int) -> None:
        self.a, self.da = a.reshape(DENOISING, -1), da.reshape(DENOISING, -1)
        buffers = [layer_buffer(batch, a.size // DENOISING, a.dtype) for _ in range(9)]
        self.mu, self.v, self.s_mu, self.s_v, self.r, self.z_hat, self.dz, self.du, self.scratch = buffers
        self.ones = np.ones(batch, a.dtype)

    def forward(self, z: Array, u: Array) -> Array:
        self.u = u
        self._curve(u, self.a[:5], self.s_mu, self.mu)
        self._curve(u, self.a[5:], self.s_v, self.v)
        np.subtract(z, self.mu, out=self.r)  # r = z̃ - μ
        z_hat = np.multiply(self.r, self.v, out=self.z_hat)
        z_hat += self.mu
        return z_hat

    def backward(self, dz_hat: Array) -> Array:
        """Compute du, and dz̃ in `dz`, from dẑ. It overwrites what `forward` has kept."""
        dz = np.multiply(dz_hat, self.v, out=self.dz)  # dẑ/dz̃ = v
        dmu = np.subtract(dz_hat, dz, out=self.mu)  # dẑ/dμ = 1 - v
        dv = np.multiply(dz_hat, self.r, out=self.r)  # dẑ/dv = z̃ - μ
        self.du.fill(0)
        self._curve_backward(dmu, self.a[:5], self.da[:5], self.s_mu)
        self._curve_backward(dv, self.a[5:], self.da[5:], self.s_v)
        return self.du

    def _curve(self, u: Array, a: Array, s: Array, y: Array) -> None:
        """Write s = σ(a₂ u + a₃) and y = a₁ s + a₄ u + a₅."""
        np.multiply(u, a[1], out=s)
        s += a[2]
        sigmoid(s, s)
        np.multiply(s, a[0], out=y)
        y += np.multiply(u, a[3], out=self.scratch)
        y += a[4]

    def _curve_backward(self, dy: Array, a: Array, da: Array, s: Array) -> None:
        """Add the derivative with respect to u to `du`, and write those with respect to a₁, ..., a₅."""
        u, scratch = self.u, self.scratch
        np.dot(self.ones, np.multiply(dy, s, out=scratch), out=da[0])
        np.dot(self.ones, np.multiply(dy, u, out=scratch), out=da[3])
        np.dot(self.ones, dy, out=da[4])
        dt = np.subtract(ONE, s, out=scratch)  # t = a₂ u + a₃, ds/dt = s (1 - s)
        dt *= s
        dt *= dy
        dt *= a[0]
        np.dot(self.ones, dt, out=da[2])
        np.dot(self.ones, np.multiply(dt, u, out=s), out=da[1])
        dt *= a[1]  # dL/du = dt a₂ + dy a₄
        self.du += dt
        self.du += np.multiply(dy, a[3], out=dy)


class _DecoderLevel(NamedTuple):
    """The layers of level k: u = N(ẑ Vᵀ), or N(softmax(y)) on the top level without `dense`; ẑ = f(z̃, u)."""

    dense: Dense | None
    norm: BatchNorm
    denoising: _Denoising


def _bound(layer: Known, batch: int, dtype: DTypeLike, **given: tuple[Array, Array]) -> Known:
    """Give a layer its buffers and its parameters with their derivatives. Those that are not given are constant."""
    for name, shape in layer.parameter_shapes.items():
        if name in given:
            p, dp = given[name]
        else:
            p, dp = np.full(shape, name in ("g", "running_var"), dtype), np.empty(shape, dtype)
        setattr(layer, name, p)
        setattr(layer, f"d{name}", dp)
    layer.allocate(batch, layer.n_in or 0, dtype)
    return layer

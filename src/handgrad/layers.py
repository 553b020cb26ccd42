"""Layers: Dense, activations, Dropout, BatchNorm. Each class has `forward` and, next to it, `backward`.

A layer maps a batch x (batch, n_in) to y (batch, n_out). Notation: dy is the derivative of the loss L with respect to
y, an array of the same shape as y. Given dy, `backward` returns dx, the derivative with respect to the input, and
writes the derivatives with respect to the layer's own parameters into dW and db: one application of the chain rule.

A custom layer needs `forward` and `backward` only. If it has parameters, `parameter_shapes` names them:
`{"W": (n_out, n_in)}` gives the layer `self.W` and, for `backward` to write into, `self.dW`. Both are views of the
network's two vectors. `handgrad.check_gradient` tests whether the derivation is correct.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from .arrays import Array, Rngs, check_fraction, check_int, check_positive, layer_buffer
from .errors import Misnamed, check_name
from .initializers import INITIALIZERS
from .products import Product, plain_product, product_of_rows, product_over_batch

# Constants as zero-dimensional arrays, exact in float32 and float64. NumPy converts a Python number at every call. The
# conversion takes 0.3 us, as long as the rest of a call on a small batch, seven times in a step of 784-30-10.
ZERO, HALF, ONE = (np.array(number, np.float32) for number in (0, 0.5, 1))


class Layer(ABC):
    """Base class of layers.

    `forward` keeps what `backward` needs: call `backward` after the `forward` of the same x. Inputs are never modified,
    because x may be the user's array. Outputs have the dtype of the input.

    Attributes
    ----------
    n_in : int or None
        Required width of the input; None accepts any width.
    image_shape : (height, width) or None
        Size of the images that the layer needs if it is the first of a network; None accepts any inputs.
    parameter_shapes : mapping of str to tuple
        Shapes of the parameters by name. A matrix (n_out, n_in) is a weight, a vector is a bias.
    rng : numpy.random.Generator or None
        Random generator of a layer that is random in training.
    workspace : tuple of str
        Names of the attributes that `allocate` and `forward` set. Copies and pickles leave them out.
    fixed : bool
        Whether y depends on x alone: no parameters, no random numbers, no state. If the first layers of a network are
        fixed and its inputs do not change between epochs, `Trainer` computes their outputs only once. The checks before
        and after a training leave out networks with custom layers that are not fixed.
    example_weight : float or ndarray of shape (batch, 1)
        For layers with a `cost`: the weights of the examples in the loss, which `Network.backprop` sets during its
        backward pass. Otherwise they are 0.
    in_network : bool
        Whether the layer belongs to a network. Two networks cannot share a layer.
    trainable : bool
        Set it to False before a `fit` to freeze the parameters of the layer: the optimizer does not change them, and
        their derivatives, and that of a `cost` of the layer, are 0 and not computed. A frozen BatchNorm keeps its
        running statistics too, but still normalizes with the statistics of the batch in training. Model files do not
        contain it.
    lr_scale : float
        Factor on the learning rate of the parameters of the layer, > 0. Set it before a `fit`. It also applies to
        decoupled weight decay. Checkpoints contain it, model files do not.
    """

    n_in: int | None = None
    image_shape: tuple[int, int] | None = None
    parameter_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    rng: np.random.Generator | None = None
    workspace: ClassVar[tuple[str, ...]] = ()
    fixed = False
    example_weight: float | Array = 0.0
    in_network = False
    trainable = True
    _lr_scale = 1.0
    requires_grad = Misnamed("set layer.trainable = False to freeze a layer")
    frozen, freeze = Misnamed(requires_grad.hint), Misnamed(requires_grad.hint)
    lr, learning_rate = (Misnamed("set layer.lr_scale, a factor on the learning rate") for _ in range(2))

    @property
    def lr_scale(self) -> float:
        """Factor on the learning rate of the parameters of the layer."""
        return self._lr_scale

    @lr_scale.setter
    def lr_scale(self, scale: float) -> None:
        self._lr_scale = check_positive("lr_scale", scale)

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Compute y (batch, n_out) from x (batch, n_in), in training mode."""

    @abstractmethod
    def backward(self, dy: Array) -> Array:
        """Compute dx (batch, n_in) from dy (batch, n_out), for the x of the last `forward`."""

    def backward_parameters(self, dy: Array) -> None:
        """Compute the derivatives with respect to the parameters only. The first layer does not need dx."""
        self.backward(dy)

    def backward_input(self, dy: Array) -> Array:
        """Compute dx only, for derivatives with respect to an image."""
        return self.backward(dy)

    def infer(self, x: Array) -> Array:
        """Compute y in inference mode. Layers that are random in training differ from `forward`."""
        return self.forward(x)

    def cost(self, weight: float | Array) -> float:
        """Return the cost that the layer adds to the loss, Σᵢ weightᵢ Cᵢ, for the x of the last `forward`.

        With the weights `example_weight`, `backward` and `backward_parameters` include its derivative. `backward_input`
        and the loss that a training reports do not include it. Most layers have no cost.
        """
        return 0.0

    def width(self, n_in: int) -> int:
        """Return n_out for a given n_in."""
        return n_in

    def initialize(self, rngs: Rngs) -> None:
        """Initialize the parameters."""

    def seed(self, rngs: Rngs) -> None:
        """Create the random generator `rng` of a layer that is random in training."""

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        """Allocate the buffers of `forward` and `backward`: once per batch size, not once per batch."""

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, for the model file."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the workspace and the views of the network's vectors, which every copy has to allocate again."""
        left_out = {name for symbol in self.parameter_shapes for name in (symbol, f"d{symbol}")}
        left_out |= {*self.workspace, "in_network"}
        return {k: v for k, v in vars(self).items() if k not in left_out}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


# ---- Dense ----------------------------------------------------------------------------------------------------------


class Dense(Layer):
    """Fully connected layer.

    z = x Wᵀ + b

    with x (batch, n_in), W (n_out, n_in), b (n_out,) and z (batch, n_out). Row i of W belongs to unit i, as in the blog
    post and in PyTorch.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and of units.
    init : str
        Name of an initializer, see `handgrad.initializers`.
    """

    n_in: int
    W: Array
    b: Array
    dW: Array
    db: Array
    dz: Array | None
    dz_T: Array
    z_product: Product
    dx_product: Product
    dW_product: Product
    workspace = ("x", "z", "dz", "dz_T", "dx", "ones", "z_product", "dx_product", "dW_product")
    weight = Misnamed("the weights are layer.W; set them with layer.W[...] = values")
    weights, kernel = Misnamed(weight.hint), Misnamed(weight.hint)
    bias = Misnamed("the biases are layer.b; set them with layer.b[...] = values")

    def __init__(self, n_in: int, n_out: int, init: str = "kaiming_normal") -> None:
        n_in, n_out = check_int("n_in", n_in, 1), check_int("n_out", n_out, 1)
        self.n_in, self.n_out, self.init = n_in, n_out, check_name("initializer", init, INITIALIZERS)
        self.parameter_shapes = {"W": (n_out, n_in), "b": (n_out,)}

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.infer(x)

    def infer(self, x: Array) -> Array:
        z = self.z_product(x, self.W.T, self.z)  # z = x Wᵀ
        z += self.b  #                                 + b
        return z

    def backward(self, dz: Array) -> Array:
        self.backward_parameters(dz)
        return self.backward_input(dz)

    def backward_parameters(self, dz: Array) -> None:
        if dz is not self.dz:  # it is the same buffer in every step, and a new view takes 0.1 us
            self.dz, self.dz_T = dz, dz.T
        self.dW_product(self.dz_T, self.x, self.dW)  # dL/dW = dzᵀ x, summed over the batch by the product
        np.dot(self.ones, dz, self.db)  # dL/db = 1ᵀ dz: as a product, half the time of dz.sum(axis=0)

    def backward_input(self, dz: Array) -> Array:
        return self.dx_product(dz, self.W, self.dx)  # dL/dx = dz W

    def width(self, n_in: int) -> int:
        return self.n_out

    def initialize(self, rngs: Rngs) -> None:
        INITIALIZERS[self.init](self.W, self.b, rngs.initialization)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.z = layer_buffer(batch, self.n_out, dtype)
        self.dx = layer_buffer(batch, self.n_in, dtype)
        self.ones = np.ones(batch, dtype)
        self.dz = None
        self.z_product = product_of_rows(self.z, n_in)
        self.dx_product = plain_product(self.dx)
        self.dW_product = product_over_batch(self.dW, batch)

    def config(self) -> dict[str, Any]:
        return {"n_in": self.n_in, "n_out": self.n_out, "init": self.init}


# ---- Activations: a = f(z), elementwise ------------------------------------------------------------------------------


class Identity(Layer):
    """Identity activation.

    a = z
    """

    def forward(self, z: Array) -> Array:
        return z

    def backward(self, da: Array) -> Array:
        return da  # da/dz = 1


class _Activation(Layer):
    """Base class with two buffers of shape (batch, width): `a` for forward, `dz` for backward."""

    workspace: ClassVar[tuple[str, ...]] = ("a", "dz")

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.a = layer_buffer(batch, n_in, dtype)
        self.dz = layer_buffer(batch, n_in, dtype)


class Sigmoid(_Activation):
    """Logistic sigmoid.

    a = σ(z) = 1 / (1 + e⁻ᶻ)
    """

    def forward(self, z: Array) -> Array:
        return sigmoid(z, self.a)

    def backward(self, da: Array) -> Array:
        dz = np.subtract(ONE, self.a, self.dz)
        dz *= self.a  # da/dz = a (1 - a)
        dz *= da
        return dz


class Tanh(_Activation):
    """Hyperbolic tangent.

    a = tanh(z)
    """

    def forward(self, z: Array) -> Array:
        return np.tanh(z, out=self.a)

    def backward(self, da: Array) -> Array:
        dz = np.multiply(self.a, self.a, out=self.dz)
        np.subtract(ONE, dz, out=dz)  # da/dz = 1 - a²
        dz *= da
        return dz


class ReLU(_Activation):
    """Rectified linear unit.

    a = max(z, 0), with the derivative 0 at z = 0.
    """

    workspace = (*_Activation.workspace, "zeros")

    def forward(self, z: Array) -> Array:
        return np.maximum(z, self.zeros, out=self.a)

    def backward(self, da: Array) -> Array:
        # da/dz = [z > 0]; the mask is a factor, because indexing with it takes 10 times as long
        return np.multiply(da, self.a > ZERO, out=self.dz)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        super().allocate(batch, n_in, dtype)
        self.zeros = layer_buffer(batch, n_in, dtype)  # np.maximum of two arrays takes a third of the time of (z, 0)
        self.zeros[...] = 0


class LeakyReLU(_Activation):
    """Leaky rectified linear unit.

    a = z if z > 0, else slope · z

    Parameters
    ----------
    slope : float
        Slope for z < 0, between 0 and 1.

    References
    ----------
    Maas et al. (2013), Rectifier nonlinearities improve neural network acoustic models.
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = check_fraction("LeakyReLU: slope", slope, "(0, 1)")

    def forward(self, z: Array) -> Array:
        np.multiply(z, self.slope, out=self.a)
        return np.maximum(z, self.a, out=self.a)  # for slope < 1, a is the larger of z and slope · z

    def backward(self, da: Array) -> Array:
        np.multiply(da, self.slope, out=self.dz)
        np.copyto(self.dz, da, where=self.a > 0)  # da/dz = 1 if z > 0, else slope
        return self.dz

    def config(self) -> dict[str, Any]:
        return {"slope": self.slope}


class Softplus(_Activation):
    """Softplus, a smooth approximation of ReLU. The derivative is the sigmoid.

    a = ln(1 + eᶻ)
    """

    def forward(self, z: Array) -> Array:
        return softplus(z, self.a)

    def backward(self, da: Array) -> Array:
        dz = np.negative(self.a, out=self.dz)
        np.expm1(dz, out=dz)
        np.negative(dz, out=dz)  # da/dz = σ(z) = 1 - e⁻ᵃ, computed from the output
        dz *= da
        return dz


class GELU(_Activation):
    """Gaussian error linear unit, tanh approximation.

    a = z (1 + t) / 2,  t = tanh(u),  u = √(2/π) (z + 0.044715 z³)

    PyTorch's GELU(approximate="tanh"). `ExactGELU` is the exact form, which takes four times as long.

    References
    ----------
    Hendrycks & Gimpel (2016), Gaussian error linear units.
    """

    workspace = (*_Activation.workspace, "z", "t")

    def forward(self, z: Array) -> Array:
        self.z = z
        with np.errstate(over="ignore"):  # the tanh of an infinite u is correct
            u = math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)
        self.t = np.tanh(u, out=u)
        np.add(ONE, self.t, out=self.a)
        self.a *= z
        self.a *= HALF
        return self.a

    def backward(self, da: Array) -> Array:
        z, t = self.z, self.t
        try:
            with np.errstate(over="raise"):
                du = 3 * 0.044715 * z * z
        except FloatingPointError:  # 1 - t² is 0 there, and 0 times infinity would be NaN
            du = 3 * 0.044715 * np.square(np.clip(z, -1e3, 1e3))
        du += ONE
        du *= math.sqrt(2 / math.pi)
        dz: Array = np.multiply(z, (ONE - t * t) * du, out=self.dz)  # da/dz = (1 + t + z (1 - t²) du/dz) / 2
        dz += t
        dz += ONE
        dz *= HALF
        dz *= da
        return dz


class ExactGELU(_Activation):
    """Gaussian error linear unit, exact form.

    a = z Φ(z),  Φ(z) = (1 + erf(z / √2)) / 2,  φ(z) = Φ'(z) = exp(-z² / 2) / √(2π)

    Φ is the distribution function of N(0, 1), see `normal_cdf`. PyTorch's GELU() and Keras's gelu.

    References
    ----------
    Hendrycks & Gimpel (2016), Gaussian error linear units.
    """

    workspace = (*_Activation.workspace, "z", "cdf", "e")

    def forward(self, z: Array) -> Array:
        self.z = z
        self.cdf, self.e = normal_cdf(z)
        return np.multiply(z, self.cdf, out=self.a)

    def backward(self, da: Array) -> Array:
        dz = np.multiply(self.z, self.e, out=self.dz)
        dz *= 1 / math.sqrt(2 * math.pi)
        dz += self.cdf  # da/dz = Φ(z) + z φ(z)
        dz *= da
        return dz


class SiLU(_Activation):
    """Sigmoid linear unit, also called swish.

    a = z σ(z)

    References
    ----------
    Elfwing, Uchibe & Doya (2018), Sigmoid-weighted linear units for neural network function approximation in
    reinforcement learning.
    """

    workspace = (*_Activation.workspace, "z", "s")

    def forward(self, z: Array) -> Array:
        self.z = z
        sigmoid(z, out=self.s)
        return np.multiply(z, self.s, out=self.a)

    def backward(self, da: Array) -> Array:
        dz = np.subtract(ONE, self.s, out=self.dz)
        dz *= self.z
        dz += ONE
        dz *= self.s  # da/dz = s + z s (1 - s) = s (1 + z (1 - s)), s = σ(z)
        dz *= da
        return dz

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        super().allocate(batch, n_in, dtype)
        self.s = layer_buffer(batch, n_in, dtype)


class ELU(_Activation):
    """Exponential linear unit.

    a = z if z > 0, else α (eᶻ - 1)

    Parameters
    ----------
    alpha : float
        α > 0; the output is greater than -α.

    References
    ----------
    Clevert, Unterthiner & Hochreiter (2016), Fast and accurate deep network learning by exponential linear units.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_positive("ELU: alpha", alpha)

    def forward(self, z: Array) -> Array:
        a = np.minimum(z, ZERO, out=self.a)  # for z > 0 the exponential would overflow
        np.expm1(a, out=a)
        a *= self.alpha
        np.copyto(a, z, where=z > ZERO)
        return a

    def backward(self, da: Array) -> Array:
        dz = np.add(self.a, self.alpha, out=self.dz)  # da/dz = α eᶻ = a + α for z <= 0
        np.copyto(dz, ONE, where=self.a > ZERO)  # da/dz = 1 for z > 0
        dz *= da
        return dz

    def config(self) -> dict[str, Any]:
        return {"alpha": self.alpha}


class SELU(_Activation):
    """Scaled exponential linear unit.

    a = λ z if z > 0, else λ α (eᶻ - 1),  α = 1.6733, λ = 1.0507

    With these constants and weights of variance 1 / n_in (the initializer "lecun"), mean 0 and variance 1 of the inputs
    are kept: for z ~ N(0, 1), E[a] = 0 and E[a²] = 1.

    References
    ----------
    Klambauer et al. (2017), Self-normalizing neural networks.
    """

    ALPHA: ClassVar[float] = 1.6732632423543772
    LAMBDA: ClassVar[float] = 1.0507009873554805

    def forward(self, z: Array) -> Array:
        a = np.minimum(z, ZERO, out=self.a)  # for z > 0 the exponential would overflow
        np.expm1(a, out=a)
        a *= self.ALPHA
        np.copyto(a, z, where=z > ZERO)
        a *= self.LAMBDA
        return a

    def backward(self, da: Array) -> Array:
        dz = np.add(self.a, self.LAMBDA * self.ALPHA, out=self.dz)  # da/dz = λ α eᶻ = a + λ α for z <= 0
        np.copyto(dz, self.LAMBDA, where=self.a > ZERO)  # da/dz = λ for z > 0
        dz *= da
        return dz


def sigmoid(z: Array, out: Array | None = None) -> Array:
    """Compute σ(z) = (1 + tanh(z / 2)) / 2, a form without division and without an exponential that overflows."""
    a = np.multiply(z, HALF, out)  # out as the third argument saves 0.05 us
    np.tanh(a, a)
    a *= HALF
    a += HALF
    return a


def softplus(z: Array, out: Array | None = None) -> Array:
    """Compute ln(1 + eᶻ) = max(z, 0) + ln(1 + e^-|z|), whose exponential does not overflow.

    It takes a fifth of the time of np.logaddexp(0, z) in float32.
    """
    a: Array = np.abs(z, out)
    np.negative(a, a)
    np.exp(a, a)
    np.log1p(a, a)
    a += np.maximum(z, ZERO)
    return a


# Coefficients of F in `normal_cdf`, computed with mpmath: cₖ = 2/N Σⱼ F(vⱼ) cos(k θⱼ), and half of that for k = 0, with
# N = 80 points θⱼ = π (j + 1/2) / N, cos θⱼ = (4 - vⱼ) / (4 + vⱼ). The sum of all further coefficients is 5e-17.
_CDF_COEFFICIENTS = (
    *(0.9704512045660766, 0.7517088168395706, 0.22219355567525104, 0.048517753260446085, 0.006925920496242481),
    *(0.00032059847439814995, -0.00010054739163210679, -1.8903369019706965e-05, 1.010356885474631e-06),
    *(6.145334749397824e-07, -3.3810201200691756e-09, -2.0686508061742833e-08, -1.1282603632469507e-10),
    *(7.774015228388695e-10, -9.941424191404708e-12, -3.174482949858303e-11, 1.842480684470494e-12),
    *(1.3128616466710965e-12, -1.7415362652654813e-13, -4.9072740317044244e-14, 1.2931384326165576e-14),
    *(1.2180663521726341e-15, -8.052147372620933e-16, 2.8604941442616213e-17),
)


def normal_cdf(z: Array) -> tuple[Array, Array]:
    """Compute Φ(z) = (1 + erf(z / √2)) / 2 and e(z) = exp(-z² / 2). NumPy has no erf.

    Φ(-v) = e(v) F(v) / (4 + v),  Φ(v) = 1 - Φ(-v),  v = |z|

    F varies slowly, from 2 at v = 0 to 1 / √(2π) at v = ∞. In the variable s = (4 - v) / (4 + v) in (-1, 1] it is a
    smooth function on a bounded interval, and therefore a rapidly converging Chebyshev series Σₖ cₖ Tₖ(s): 24 terms for
    float64, 12 for float32. Clenshaw's recurrence sums the series:

        bₖ = cₖ + 2 s bₖ₊₁ - bₖ₊₂,  Σₖ cₖ Tₖ(s) = c₀ + s b₁ - b₂

    The relative error is a few roundings, also for negative z with a tiny Φ(z).

    Returns
    -------
    cdf, e : ndarray
        Φ(z) and e(z), new arrays.

    References
    ----------
    Schonfelder (1978), Chebyshev expansions for the error and related functions.
    """
    v = np.minimum(np.abs(z), 40)  # e(40) is 0 in float64; z² may overflow
    e = np.square(v)
    e *= -0.5
    np.exp(e, out=e)
    v += 4
    s = (8 - v) / v  # v is 4 + |z| here
    twice_s = s + s
    b, b_next, free = np.zeros_like(s), np.zeros_like(s), np.empty_like(s)
    terms = _CDF_COEFFICIENTS if z.dtype.itemsize > 4 else _CDF_COEFFICIENTS[:12]
    for c in terms[:0:-1]:
        np.multiply(twice_s, b, out=free)
        free -= b_next
        free += c
        b, b_next, free = free, b, b_next
    s *= b
    s -= b_next
    s += terms[0]  # F
    s *= e
    s /= v  # Φ(-|z|)
    return np.where(z < 0, s, 1 - s), e


# ---- Dropout --------------------------------------------------------------------------------------------------------


class Dropout(Layer):
    """Dropout: set each input to 0 with probability `rate` in training.

    training    y = x m / (1 - rate),  m = 0 with probability `rate`, else 1
    inference   y = x

    The division keeps the mean of y equal to x, so that inference needs no scaling (inverted dropout).

    Parameters
    ----------
    rate : float
        Probability of setting an input to 0, in [0, 1).

    References
    ----------
    Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting.
    """

    rng: np.random.Generator
    workspace = ("m", "y", "dx")
    p = Misnamed("the dropout rate is layer.rate")

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = check_fraction("Dropout: rate", rate)

    def forward(self, x: Array) -> Array:
        self.rng.random(out=self.m, dtype=self.m.dtype.type)
        np.greater_equal(self.m, self.rate, out=self.m)
        self.m *= 1 / (1 - self.rate)
        return np.multiply(x, self.m, out=self.y)

    def backward(self, dy: Array) -> Array:
        return np.multiply(dy, self.m, out=self.dx)  # dL/dx = dy m / (1 - rate)

    def infer(self, x: Array) -> Array:
        return x

    def seed(self, rngs: Rngs) -> None:
        (self.rng,) = rngs.dropout.spawn(1)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.m = layer_buffer(batch, n_in, dtype)
        self.y = layer_buffer(batch, n_in, dtype)
        self.dx = layer_buffer(batch, n_in, dtype)

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}


# ---- Batch normalization --------------------------------------------------------------------------------------------


class BatchNorm(Layer):
    """Batch normalization.

    y = g x̂ + b,  x̂ = (x - μ) / σ,  σ = √(mean((x - μ)²) + ε)

    with x, y (batch, n) and g, b, running_mean, running_var (n,). In training μ and σ² are the mean and the variance of
    each column over the batch. In inference they are the running statistics, which training updates by

        running ← running + momentum (batch statistic - running)

    with the unbiased variance (divisor batch - 1), as in PyTorch. The running statistics are part of θ with derivative
    0, so that copies, checkpoints, restored best epochs and averaged weights include them; only `forward` changes them.
    (PyTorch stores them apart from the parameters, so that θ is shorter there.) A batch of one example has no variance:
    y = b, dx = 0, and the running statistics do not change.

    Derivation of dx, with c = x - μ, dx̂ = g dy, and sums and means over the batch:

        dσ² = Σ dx̂ c (-1/2) / σ³ = -batch mean(dx̂ x̂) / 2σ²
        dμ  = -Σ dx̂ / σ          = -batch mean(dx̂) / σ         the term through σ² is 0, because Σ c = 0
        dx  = dx̂ / σ + dσ² 2c / batch + dμ / batch
            = g/σ (dy - mean(dy) - x̂ mean(dy x̂))

    Parameters
    ----------
    n : int
        Number of inputs.
    momentum : float
        Weight of the batch in the running statistics, in (0, 1]. PyTorch's convention; Keras uses 1 - momentum.
    epsilon : float
        ε, added to the variance.

    References
    ----------
    Ioffe & Szegedy (2015), Batch normalization: accelerating deep network training by reducing internal covariate
    shift.
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
    workspace = ("c", "y", "dx", "ones", "r")

    def __init__(self, n: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        self.n_in = n = check_int("BatchNorm: n", n, 1)
        self.momentum = check_fraction("BatchNorm: momentum", momentum, "(0, 1]")
        self.epsilon = check_positive("BatchNorm: epsilon", epsilon)
        self.parameter_shapes = {"g": (n,), "b": (n,), "running_mean": (n,), "running_var": (n,)}

    def forward(self, x: Array) -> Array:
        batch, c, y = len(x), self.c, self.y
        mu = np.dot(self.ones, x)
        mu *= 1 / batch  # μ = mean(x)
        np.subtract(_in_order_of(c, x), mu, out=c)  # c = x - μ
        var = np.dot(self.ones, np.multiply(c, c, out=y))  # y serves as scratch memory here
        var *= 1 / batch  # mean(c²)
        if batch > 1 and self.trainable:
            self.running_mean += self.momentum * (mu - self.running_mean)
            self.running_var += self.momentum * (var * (batch / (batch - 1)) - self.running_var)
        self.r = 1 / np.sqrt(var + self.epsilon)  # r = 1 / σ
        np.multiply(c, self.g * self.r, out=y)  # y = g x̂, x̂ = c r; storing x̂ would take one more pass, 20 % of the time
        y += self.b  #                              + b
        return y

    def backward(self, dy: Array) -> Array:
        self.backward_parameters(dy)
        return self._dx(dy, self.db, self.dg, len(dy))

    def backward_parameters(self, dy: Array) -> None:
        self.db[...], self.dg[...] = self._sums(dy)
        self.drunning_mean.fill(0)
        self.drunning_var.fill(0)

    def backward_input(self, dy: Array) -> Array:
        return self._dx(dy, *self._sums(dy), len(dy))

    def _sums(self, dy: Array) -> tuple[Array, Array]:
        db = np.dot(self.ones, dy)  # dL/db = 1ᵀ dy
        dg = np.dot(self.ones, np.multiply(dy, self.c, out=self.dx))  # dx serves as scratch memory here
        dg *= self.r  # dL/dg = 1ᵀ (dy x̂)
        return db, dg

    def _dx(self, dy: Array, db: Array, dg: Array, batch: int) -> Array:
        scale, dx = 1 / batch, self.dx
        np.multiply(self.c, dg * self.r * -scale, out=dx)  # dL/dx = g/σ (-x̂ mean(dy x̂)
        dx += dy  #                                                       + dy
        dx -= db * scale  #                                               - mean(dy))
        dx *= self.g * self.r
        return dx

    def infer(self, x: Array) -> Array:
        s, t = self.affine()
        np.multiply(_in_order_of(self.y, x), s, out=self.y)
        self.y += t
        return self.y

    def affine(self) -> tuple[Array, Array]:
        """Return (s, t), each (n,), of the inference form y = s x + t: s = g / σ, t = b - s μ."""
        s = self.g / np.sqrt(self.running_var + self.epsilon)
        return s, self.b - s * self.running_mean

    def initialize(self, rngs: Rngs) -> None:
        self.g[...] = self.running_var[...] = 1
        self.b[...] = self.running_mean[...] = 0

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        self.c = layer_buffer(batch, n_in, dtype)
        self.y = layer_buffer(batch, n_in, dtype)
        self.dx = layer_buffer(batch, n_in, dtype)
        self.ones = np.ones(batch, dtype)

    def config(self) -> dict[str, Any]:
        return {"n": self.n_in, "momentum": self.momentum, "epsilon": self.epsilon}


def _in_order_of(buffer: Array, x: Array) -> Array:
    """Return x in the memory order of `buffer`, copied into it if necessary.

    Input examples are stored row by row. Copying them into column order is six times as fast as computing across
    orders.
    """
    if x.flags.c_contiguous != buffer.flags.c_contiguous:
        np.copyto(buffer, x)
        return buffer
    return x


ACTIVATIONS: dict[str, type[Layer]] = {
    "identity": Identity,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "softplus": Softplus,
    "gelu": GELU,
    "exact_gelu": ExactGELU,
    "silu": SiLU,
    "elu": ELU,
    "selu": SELU,
}

_ALL: tuple[type[Layer], ...] = (Dense, Dropout, BatchNorm, *ACTIVATIONS.values())
LAYERS = {layer.__name__: layer for layer in _ALL}  # the names in model files are the class names

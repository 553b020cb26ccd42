"""Hand-derived against numerical: is the backward that was derived on paper the derivative of the forward?

Everything is checked as a number L that depends on an array p: a loss is one already, and a layer y = f(x) becomes
one as L = ⟨w, y⟩ with a random w, for which dL/dy = w. Along a random direction v,

    (L(p + h v) - L(p - h v)) / 2h    must equal    ⟨dL/dp, v⟩,  dL/dp as backward gives it:

all the entries of the gradient in one number, for the cost of two forwards. The central difference is off by O(h²),
and by rounding of O(ε / h): with h = 1e-5 in float64 both leave about ten digits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array, Seed, as_array, as_examples, streams
from .errors import HandgradError
from .layers import Layer
from .losses import Loss
from .network import Network, bind

STEP = 1e-5  # h
DIRECTIONS = 3  # random directions tried for each derivative
ROUNDINGS = 8  # of L, that the numerical derivative of a constant may show: 1.1 were the most of 360 measured
TOLERANCE = 1e-6  # a derivative that is wrong by one part in a thousand has an error of about 1e-3


class GradientError(HandgradError):
    """A derived gradient is not the derivative."""


class Check(NamedTuple):
    """One derivative, checked."""

    name: str
    error: float  # |numerical - derived| against the gradient's length, the largest over the directions

    @property
    def passed(self) -> bool:
        """Whether the error is within TOLERANCE; a NaN is not."""
        return self.error <= TOLERANCE


def check_gradient(
    subject: Layer | Loss | Network, x: ArrayLike, y: ArrayLike | None = None, *, rng: Seed = 0
) -> list[Check]:
    """Check every derivative of a layer, a loss or a network, in float64, and return the error of each.

    layer    x (batch, n_in): dx, and the derivatives by its parameters, which are drawn anew
    loss     x (batch, n_out), taken as the outputs z, and y, labels or rows: dz
    network  x (batch, n_in) and y, labels or rows: the derivatives by its parameters, at the values they have, and dx

    Keep x off the kinks, a ReLU's 0 for one: there is no derivative there. Raises GradientError at the first derivative
    that is wrong, and names it.
    """
    checks = []
    for check in gradient_errors(subject, x, y, rng=rng):
        checks.append(check)
        if not check.passed:
            raise GradientError(
                f"{check.name} is wrong: its relative error is {check.error:.1e}, expected at most {TOLERANCE:.0e}"
            )
    return checks


def gradient_errors(
    subject: Layer | Loss | Network, x: ArrayLike, y: ArrayLike | None = None, *, rng: Seed = 0
) -> Iterator[Check]:
    """What `check_gradient` raises for, as it comes, right or wrong."""
    rng = np.random.default_rng(rng)
    x = as_array("x", x)
    n_in = subject.n_in if isinstance(subject, Layer | Network) else None
    x = as_examples(x, n_in or (x.shape[1] if x.ndim == 2 else 1)).astype(np.float64)
    subject = copy.deepcopy(subject)  # it may be part of a network, which must stay whole
    if isinstance(subject, Layer):
        yield from _layer(subject, x, rng)
    elif y is None:
        raise HandgradError(f"check_gradient of {subject!r} without y: expected labels or rows of targets")
    elif isinstance(subject, Loss):
        yield from _loss(subject, x, y, rng)
    else:
        yield from _network(subject, x, y, rng)


def _layer(layer: Layer, x: Array, rng: np.random.Generator) -> Iterator[Check]:
    theta, gradient = bind([layer], x.dtype)
    gradient[...] = np.nan  # backward writes all of it, and adds to none
    layer.initialize(streams(rng))
    theta += rng.standard_normal(theta.shape)  # no parameter at a special value, such as a bias of 0
    layer.allocate(len(x), x.shape[1], x.dtype)
    rewind = _rewind([layer])
    w = rng.standard_normal(layer.forward(x).shape)

    def value() -> float:
        rewind()
        return float(np.vdot(w, layer.forward(x)))

    value()
    with np.errstate(all="ignore"):  # a wrong gradient may be infinite: it is reported, not warned of
        dx = layer.backward(w).copy()
    derived = {name: getattr(layer, f"d{name}").copy() for name in layer.shapes}
    kind = type(layer).__name__
    yield Check(f"{kind} dx", _error(value, x, dx, rng))
    for name, dp in derived.items():
        yield Check(f"{kind} d{name}", _error(value, getattr(layer, name), dp, rng))


def _loss(loss: Loss, z: Array, y: ArrayLike, rng: np.random.Generator) -> Iterator[Check]:
    t = loss.targets(y, len(z), z.shape[1], z.dtype)
    loss.allocate(len(z), z.shape[1], z.dtype)
    with np.errstate(all="ignore"):
        dz = loss.backward(z, t, 1 / len(z)).copy()
    yield Check(f"{type(loss).__name__} dz", _error(lambda: loss.value(z, t), z, dz, rng))


def _network(network: Network, x: Array, y: ArrayLike, rng: np.random.Generator) -> Iterator[Check]:
    network = network.astype(np.float64)
    t = network.loss.targets(y, len(x), network.n_out, network.dtype)
    rewind = _rewind(network.layers)

    def value() -> float:
        rewind()
        return network.loss.value(network.forward(x), t)

    rewind()
    network.gradient[...] = np.nan
    with np.errstate(all="ignore"):
        network.backprop(x, t)
    derived = network.gradient.copy()
    rewind()
    with np.errstate(all="ignore"):
        dx = network.input_gradient(x, t).copy()
    first = 0
    for name, p in network.named_parameters.items():
        dp = derived[first : first + p.size].reshape(p.shape)
        first += p.size
        i, _, symbol = name.partition(".")
        yield Check(f"layer {i} {type(network.layers[int(i)]).__name__} d{symbol}", _error(value, p, dp, rng))
    yield Check("dx", _error(value, x, dx, rng))


def _error(value: Callable[[], float], p: Array, dp: Array, rng: np.random.Generator) -> float:
    """The largest difference between numerical and derived along random directions of p, which `value` depends on.

    It is taken against ‖dp‖, the typical size of ⟨dp, v⟩, so that a direction almost across the gradient does not
    blow up rounding; and where the numerical derivative is larger, dp is short, against that. Where the derivative is
    0, as that by a bias below a BatchNorm, nothing but L's own rounding is left: so much passes in any case.
    """
    original, worst = p.copy(), 0.0
    for _ in range(DIRECTIONS):
        v = rng.standard_normal(p.shape)
        p[...] = original + STEP * v
        above = value()
        p[...] = original - STEP * v
        below = value()
        p[...] = original
        numerical = (above - below) / (2 * STEP)
        with np.errstate(all="ignore"):
            difference = abs(numerical - float(np.vdot(dp, v)))
            if difference:
                rounding = ROUNDINGS * np.finfo(np.float64).eps * max(abs(above), abs(below)) / STEP
                scale = max(float(np.linalg.norm(dp)), abs(numerical), rounding / TOLERANCE)
                worst = float(np.maximum(worst, np.divide(difference, scale)))  # keeps a NaN
    return worst


def _rewind(layers: list[Layer]) -> Callable[[], None]:
    """A function that puts the layers' streams back: every forward must draw the same dropout."""
    states = [(layer.rng.bit_generator, layer.rng.bit_generator.state) for layer in layers if layer.rng is not None]

    def rewind() -> None:
        for generator, state in states:
            generator.state = state

    return rewind

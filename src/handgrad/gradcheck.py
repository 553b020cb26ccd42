"""Gradient check: compare the hand-derived gradients with finite differences.

Every check concerns a number L that depends on an array p. A loss is such a number; a layer y = f(x) becomes one as
L = ⟨w, y⟩ with a random w, for which dL/dy = w. Along a random direction v,

    (L(p + h v) - L(p - h v)) / 2h    must equal    ⟨dL/dp, v⟩,  with dL/dp from backward.

This compares all entries of the gradient at the cost of two forward passes. The error of the central difference is
O(h²), and rounding adds O(ε / h): with h = 1e-5 in float64, about ten digits are correct. If they differ, the step may
have crossed a kink, as that of a ReLU at 0. Then a smaller h gives another central difference, and decides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .arrays import Array, Seed, as_array, as_floats, check_inputs, make_rng, spawn_rngs
from .errors import HandgradError
from .layers import ACTIVATIONS, BatchNorm, Dense, Dropout, Layer
from .losses import LOSSES, BinaryCrossEntropy, CrossEntropy, Loss, SquaredError, softmax
from .network import Network, bind

STEPS = 1e-5, 1e-7  # h: the second one is tried if the first one shows a difference
DIRECTIONS = 3  # number of random directions for each derivative
ROUNDINGS = 8  # rounding errors of L that the numerical derivative of a constant may show; at most 1.1 in 360 measured
TOLERANCE = 1e-6  # a derivative with an error of one part in a thousand has a relative error of about 1e-3


class GradientError(HandgradError):
    """A derived gradient differs from the numerical derivative."""


class Check(NamedTuple):
    """The check of one derivative.

    Attributes
    ----------
    name : str
    error : float
        |numerical - derived| relative to the length of the gradient, the maximum over the directions.
    """

    name: str
    error: float

    @property
    def passed(self) -> bool:
        """Whether the error is at most TOLERANCE. NaN does not pass."""
        return self.error <= TOLERANCE


def check_gradient(
    subject: Layer | Loss | Network, x: ArrayLike, y: ArrayLike | None = None, *, rng: Seed = 0
) -> list[Check]:
    """Check every derivative of a layer, a loss or a network in float64.

    Parameters
    ----------
    subject : Layer, Loss or Network
        Layer: checks dx and the derivatives with respect to its parameters, which get random values.
        Loss: checks dz, for the mean and for weights of the examples. Network: checks the derivatives with respect to
        its parameters, at their values, and dx.
    x : array-like of shape (batch, n_in)
        Inputs; for a loss the logits z (batch, n_out). Avoid points without a derivative, such as 0 for a ReLU, and
        equal pixels on opposite sides of a pixel for HOG, as in the background of an image.
    y : array-like of shape (batch,) or (batch, n_out), optional
        Labels or targets. Required for a loss and a network.
    rng : int or numpy.random.Generator
        Seed of the random directions.

    Returns
    -------
    list of Check

    Raises
    ------
    GradientError
        For the first derivative that is wrong, and for a layer or a loss whose arrays have another shape or dtype than
        a network needs.
    """
    checks = []
    for check in gradient_errors(subject, x, y, rng=rng):
        checks.append(check)
        if not check.passed:
            symbol, hint = check.name.rpartition(" ")[2], ""
            if np.isnan(check.error) and isinstance(subject, Layer | Network) and symbol != "dx":
                hint = f"; backward must write all of it: self.{symbol}[...] = values"
            raise GradientError(
                f"{check.name} is wrong: relative error {check.error:.1e}, expected at most {TOLERANCE:.0e}{hint}"
            )
    return checks


def gradient_errors(
    subject: Layer | Loss | Network, x: ArrayLike, y: ArrayLike | None = None, *, rng: Seed = 0
) -> Iterator[Check]:
    """Yield the checks of `check_gradient` one by one, also if a derivative is wrong."""
    if not isinstance(subject, Layer | Loss | Network):
        raise HandgradError(f"check_gradient: expected a layer, a loss or a network, got {subject!r}")
    rng = make_rng(rng)
    x = as_array("x", x)
    n_in = subject.n_in if isinstance(subject, Layer | Network) else None
    x = check_inputs(x, n_in or (x.shape[1] if x.ndim == 2 else 1))
    x = as_floats(x, np.empty((len(x), x[0].size)))
    subject = copy.deepcopy(subject)  # it may belong to a network, which must not change
    if isinstance(subject, Layer):
        yield from _check_layer(subject, x, rng)
    elif y is None:
        raise HandgradError(f"check_gradient of {subject!r} needs y: labels or targets")
    elif isinstance(subject, Loss):
        yield from _check_loss(subject, x, y, rng)
    else:
        yield from _check_network(subject, x, y, rng)


def _check_layer(layer: Layer, x: Array, rng: np.random.Generator) -> Iterator[Check]:
    kind = type(layer).__name__
    _check_arrays_of_layer(copy.deepcopy(layer), x.astype(np.float32))
    derivatives = _prepare(layer, x, rng)
    rewind = _rewind([layer])
    w = rng.standard_normal(layer.forward(x).shape)
    weight = 1 / np.arange(1, len(x) + 1)[:, None]  # of the examples in the cost of the layer

    def value() -> float:
        rewind()
        return float(np.vdot(w, layer.forward(x))) + layer.cost(weight)

    value()
    layer.example_weight = weight
    with np.errstate(all="ignore"):  # a wrong gradient may be infinite: it is reported as an error, not as a warning
        dx = layer.backward(w).copy()
    derived = {name: dp.copy() for name, dp in derivatives.items()}
    yield Check(f"{kind} dx", _error(value, x, dx, rng))
    for name, dp in derived.items():
        yield Check(f"{kind} d{name}", _error(value, getattr(layer, name), dp, rng))


def _prepare(layer: Layer, x: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Give a layer random parameters and its buffers. Returns the derivatives that `backward` must write, by name."""
    theta, gradient = bind([layer], x.dtype)
    gradient[...] = np.nan  # backward must write all of it, and must not add to it
    derivatives = {name: getattr(layer, f"d{name}") for name in layer.parameter_shapes}
    rngs = spawn_rngs(rng)
    layer.initialize(rngs)
    layer.seed(rngs)
    theta += rng.standard_normal(theta.shape, x.dtype)  # no parameter has a special value, such as a bias of 0
    for name in layer.parameter_shapes:
        if name.startswith("running_var"):
            np.abs(getattr(layer, name), out=getattr(layer, name))
    layer.allocate(len(x), x.shape[1], x.dtype)
    return derivatives


def _check_arrays_of_layer(layer: Layer, x: Array) -> None:
    """Raise GradientError if y or dx of a layer in float32 has another shape or dtype than the network needs."""
    kind, n_out = type(layer).__name__, layer.width(x.shape[1])
    _prepare(layer, x, np.random.default_rng(0))
    with np.errstate(all="ignore"):
        y = layer.forward(x)
        _check_array(f"{kind}: y of forward", y, (len(x), n_out), x.dtype)
        _check_array(f"{kind}: dx of backward", layer.backward(np.ones_like(y)), x.shape, x.dtype)


def _check_array(name: str, array: Array, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    expected = f"expected shape {shape} and dtype {dtype}, as for the inputs of a network in float32"
    if not isinstance(array, np.ndarray):
        raise GradientError(f"{name} is {array!r}: {expected}")
    if array.shape != shape or array.dtype != dtype:
        raise GradientError(f"{name} has shape {array.shape} and dtype {array.dtype}: {expected}")


def _check_loss(loss: Loss, z: Array, y: ArrayLike, rng: np.random.Generator) -> Iterator[Check]:
    kind = type(loss).__name__
    for dtype in (np.float32, z.dtype):
        t = loss.targets(y, len(z), z.shape[1], dtype)
        loss.allocate(len(z), z.shape[1], dtype)
        with np.errstate(all="ignore"):
            dz = loss.backward(z.astype(dtype), t, 1 / len(z)).copy()
        _check_array(f"{kind}: dz of backward", dz, z.shape, dtype)
    yield Check(f"{kind} dz", _error(lambda: loss.value(z, t), z, dz, rng))
    weight = 1 / np.arange(1, len(z) + 1)[:, None]
    with np.errstate(all="ignore"):
        dz = loss.backward(z, t, weight).copy()
    weighted = _error(lambda: float(np.vdot(loss.per_example(z, t), weight)), z, dz, rng)
    yield Check(f"{kind} dz with weights of the examples", weighted)


def _check_network(network: Network, x: Array, y: ArrayLike, rng: np.random.Generator) -> Iterator[Check]:
    network = network.astype(np.float64)
    for layer in network.layers:
        layer.trainable = True  # derivatives of frozen layers are not computed
    t = network.loss.targets(y, len(x), network.n_out, network.dtype)
    rewind = _rewind(network.layers)

    def loss() -> float:
        rewind()
        return network.loss.value(network.forward(x), t)

    def objective() -> float:
        return loss() + sum(layer.cost(1 / len(x)) for layer in network.layers)

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
        yield Check(f"layer {i} {type(network.layers[int(i)]).__name__} d{symbol}", _error(objective, p, dp, rng))
    yield Check("dx", _error(loss, x, dx, rng))


def _error(value: Callable[[], float], p: Array, dp: Array, rng: np.random.Generator) -> float:
    """The largest relative difference between numerical and derived along random directions of p.

    The difference is relative to ‖dp‖, the typical size of ⟨dp, v⟩, so that a direction almost orthogonal to the
    gradient does not amplify rounding; if the numerical derivative is larger, dp is too short, and it is relative to
    that. If the derivative is 0, as for a bias before a BatchNorm, only the rounding of L is left, which is tolerated.
    """
    worst = 0.0
    for _ in range(DIRECTIONS):
        v = rng.standard_normal(p.shape)
        error, numerical, _ = _error_along(v, value, p, dp, STEPS[0])
        if not error <= TOLERANCE:  # or NaN
            finer_error, finer, rounding = _error_along(v, value, p, dp, STEPS[1])
            if abs(finer - numerical) > rounding:  # a kink
                error = finer_error
        worst = float(np.maximum(worst, error))  # keeps a NaN
    return worst


def _error_along(v: Array, value: Callable[[], float], p: Array, dp: Array, h: float) -> tuple[float, float, float]:
    """The relative error, the numerical derivative and its rounding error, along v with the step h."""
    original = p.copy()
    with np.errstate(all="ignore"):  # a running variance may become negative
        p[...] = original + h * v
        above = value()
        p[...] = original - h * v
        below = value()
    p[...] = original
    numerical = (above - below) / (2 * h)
    with np.errstate(all="ignore"):
        difference = abs(numerical - float(np.vdot(dp, v)))
        rounding = ROUNDINGS * np.finfo(np.float64).eps * max(abs(above), abs(below)) / h
        scale = max(float(np.linalg.norm(dp)), abs(numerical), rounding / TOLERANCE)
        return float(np.divide(difference, scale)) if difference else 0.0, numerical, rounding


def _rewind(layers: list[Layer]) -> Callable[[], None]:
    """A function that resets the layers' random generators, so that every forward pass draws the same dropout."""
    states = [(layer.rng.bit_generator, layer.rng.bit_generator.state) for layer in layers if layer.rng is not None]

    def rewind() -> None:
        for generator, state in states:
            generator.state = state

    return rewind


# ---- All of handgrad -------------------------------------------------------------------------------------------------


def check_all(rng: Seed = 0) -> Iterator[Check]:
    """Check every layer, every loss, every activation with every loss, and whole networks."""
    rng = np.random.default_rng(rng)
    layers: list[Layer] = [Dense(5, 3), Dropout(0.4), *(activation() for activation in ACTIVATIONS.values())]
    layers.append(BatchNorm(5, epsilon=0.1))  # an ε that is large enough for an error in it to show
    for batch in (1, 2, 7):
        for layer in layers:
            for check in gradient_errors(layer, rng.standard_normal((batch, 5)), rng=rng):
                yield check._replace(name=f"{check.name}, batch {batch}")
    yield from _check_all_losses(rng)
    yield from _check_all_networks(rng)


def _check_all_losses(rng: np.random.Generator) -> Iterator[Check]:
    for batch in (1, 7):
        for smoothing in (0.0, 0.1):
            losses = [CrossEntropy(smoothing), BinaryCrossEntropy(smoothing), SquaredError("sigmoid", smoothing)]
            for loss in losses:
                z, y = 3 * rng.standard_normal((batch, 4)), rng.integers(0, 4, batch)
                for check in gradient_errors(loss, z, y, rng=rng):
                    yield check._replace(name=f"{check.name}, batch {batch}, label smoothing {smoothing:g}")
        for make in LOSSES.values():
            if make.is_classification:
                continue
            z, counts = rng.standard_normal((batch, 4)), rng.poisson(2, (batch, 4))
            for check in gradient_errors(make(), z, counts, rng=rng):
                yield check._replace(name=f"{check.name}, batch {batch}")
    for temperature in (0.5, 4.0):
        z, rows = 3 * rng.standard_normal((7, 4)), softmax(rng.standard_normal((7, 4)))
        for check in gradient_errors(CrossEntropy(0.1, temperature), z, rows, rng=rng):
            yield check._replace(name=f"{check.name}, soft labels, temperature {temperature:g}")


def _check_all_networks(rng: np.random.Generator) -> Iterator[Check]:
    losses: list[Loss] = [make() for make in LOSSES.values()] + [SquaredError("sigmoid")]
    for activation in ACTIVATIONS:
        for loss in losses:
            network = Network([6, 5, 4], activation=activation, loss=loss, init="lecun", rng=rng, dtype=np.float64)
            yield from _check_named(f"{activation} + {loss!r}", network, 3, rng)
    for activation, make_layer in ACTIVATIONS.items():
        network = Network([Dense(6, 4), make_layer()], loss="squared_error", rng=rng, dtype=np.float64)
        yield from _check_named(f"output {activation} + squared_error", network, 3, rng)

    for loss in (SquaredError("sigmoid"), BinaryCrossEntropy()):
        network = Network([6, 5, 1], activation="tanh", loss=loss, rng=rng, dtype=np.float64)
        yield from _check_named(f"one output + {loss!r}", network, 5, rng)

    yield from _check_named("784-30-10", Network([784, 30, 10], rng=rng, dtype=np.float64), 10, rng)
    deep = Network(
        [7, 6, 5, 4, 3], activation=["tanh", "relu", "gelu"], loss="cross_entropy", rng=rng, dtype=np.float64
    )
    yield from _check_named("deep [7, 6, 5, 4, 3], tanh, relu, gelu", deep, 1, rng)
    dropped = [Dropout(0.2), Dense(8, 6), ACTIVATIONS["leaky_relu"](), Dropout(0.5), Dense(6, 3)]
    yield from _check_named("dropout of inputs and hidden units", Network(dropped, rng=rng, dtype=np.float64), 5, rng)
    for batch in (2, 7):
        norms = [BatchNorm(n, epsilon=0.1) for n in (7, 6, 5, 3)]
        layers = [norms[0], Dense(7, 6), norms[1], ACTIVATIONS["gelu"](), Dense(6, 5), ACTIVATIONS["tanh"]()]
        layers += [norms[2], Dropout(0.3), Dense(5, 3), norms[3]]
        network = Network(layers, loss="cross_entropy", rng=rng, dtype=np.float64)
        yield from _check_named(f"batch norm of inputs, hidden units and outputs, batch {batch}", network, batch, rng)


def _check_named(title: str, network: Network, batch: int, rng: np.random.Generator) -> Iterator[Check]:
    x = rng.standard_normal((batch, network.n_in))
    labels = network.loss.is_classification
    y = rng.integers(0, network.n_classes, batch) if labels else rng.poisson(2, (batch, network.n_out))
    for check in gradient_errors(network, x, y, rng=rng):
        yield check._replace(name=f"{title}: {check.name}")

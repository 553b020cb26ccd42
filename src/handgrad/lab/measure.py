"""Measurements on copies of a network: gradients, saturation, confusion, activations, decision boundary, one step.

Nothing here changes the network of a run: each function computes on a copy, or only reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..adversarial import deepfool
from ..arrays import Array, as_floats
from ..errors import HandgradError
from ..gradcheck import TOLERANCE, Check, gradient_errors
from ..images.hog import HOG, after_hog
from ..layers import ACTIVATIONS, BatchNorm, Dense, Dropout, Identity, Layer, Sigmoid, Tanh
from ..model import Model, binary_to_two_columns, confusion_matrix
from ..network import Network
from ..wrappers import unwrap

PROBE = 100  # examples of the batch on which gradients and saturation are measured
MARGIN = 0.01  # a bounded output within this share of its range from an end is saturated
ATTEMPTS = 6  # of a gradient check
BOUNDARY = 80  # points of a decision boundary on each side
SHOWN = 8  # numbers of a large array that the walkthrough shows
SMALL = 64  # size of an array that the walkthrough shows completely
SMALL_EXAMPLE = "2-2-1"  # name of the example of `small_network`


# ---- While a network is trained --------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """Measurements on the probe batch.

    Attributes
    ----------
    gradient_norms : list of float
        ‖[dW db]‖ of each layer with parameters.
    saturated : list of float or None
        For each activation and for the output: the share of its outputs, over units and examples, that are within 1 %
        of an end of its range. None if the activation is not bounded on both sides.
    dead : list of float or None
        For each activation and for the output: the share of units that are 0 for all examples. None unless ReLU.
    """

    gradient_norms: list[float]
    saturated: list[float | None]
    dead: list[float | None]


class Probe:
    """A fixed batch, and a copy of the network on which it is measured.

    Parameters
    ----------
    network : Network
        The network that is trained.
    x : ndarray
        Preprocessed examples.
    y : ndarray of shape (count,)
        Labels.
    """

    def __init__(self, network: Network, x: NDArray[Any], y: NDArray[Any]) -> None:
        self._twin = network.astype(network.dtype)
        self._x = floats(network, x[:PROBE])
        self._t = network.loss.targets(y[:PROBE], len(self._x), network.n_out, network.dtype)
        self._parts = [layer for layer in self._twin.layers if layer.parameter_shapes]

    @np.errstate(all="ignore")  # a diverging network has infinite outputs
    def measure(self, parameters: Array) -> Measured:
        """Measure the network with these parameters."""
        twin = self._twin
        twin.parameters[...] = parameters
        twin._allocate_buffers(len(self._x))
        a, saturated, dead = self._x, list[float | None](), list[float | None]()
        for layer in twin.layers:
            a = layer.forward(a)
            if is_activation(layer):
                saturated.append(saturated_share(layer, a))
                dead.append(dead_share(layer, a))
        if twin.loss.output_activation == "sigmoid":
            saturated.append(_near_ends(twin.loss.activation(a), 0, 1))
            dead.append(None)
        twin.backward(twin.loss.backward(a, self._t, 1 / len(self._x)))
        return Measured([layer_norm(layer, "d") for layer in self._parts], saturated, dead)


def is_activation(layer: Layer) -> bool:
    """Whether a layer is an activation."""
    return type(layer) in ACTIVATIONS.values() and type(layer) is not Identity


def layer_norm(layer: Layer, prefix: str = "") -> float:
    """Return the norm of the parameters of a layer, or with the prefix "d" that of their gradient."""
    parts = (getattr(layer, prefix + name) for name in layer.parameter_shapes if not name.startswith("running"))
    return math.sqrt(sum(float(np.vdot(part, part)) for part in parts))


def saturated_share(layer: Layer, a: Array) -> float | None:
    """Return the share of the outputs a of a sigmoid or tanh within 1 % of an end of the range, or None."""
    if isinstance(layer, Sigmoid):
        return _near_ends(a, 0, 1)
    return _near_ends(a, -1, 1) if isinstance(layer, Tanh) else None


def _near_ends(a: Array, low: float, high: float) -> float:
    margin = MARGIN * (high - low)
    return float(np.mean((a < low + margin) | (a > high - margin)))


def dead_share(layer: Layer, a: Array) -> float | None:
    """Return the share of units of a ReLU that are 0 for all examples, or None for another activation."""
    return float(np.mean(~(a > 0).any(axis=0))) if type(layer) is ACTIVATIONS["relu"] else None


def update_ratios(network: Network, before: Array) -> list[float | None]:
    """Return ‖W after - W before‖ / ‖W before‖ of one step, for each layer with parameters."""
    ratios: list[float | None] = []
    first = 0
    with np.errstate(all="ignore"):
        for layer in network.layers:
            size = sum(math.prod(shape) for shape in layer.parameter_shapes.values())
            if not size:
                continue
            old, new = before[first : first + size], network.parameters[first : first + size]
            length = float(np.linalg.norm(old))
            ratios.append(float(np.linalg.norm(new - old)) / length if length else None)
            first += size
    return ratios


def layer_name(layer: Layer) -> str:
    """Return a short name: "Dense 784-30", "HOG 784-392", "Sigmoid", "LeakyReLU(slope=0.01)"."""
    if isinstance(layer, Dense | HOG):
        return f"{type(layer).__name__} {layer.n_in}-{layer.n_out}"
    return repr(layer).removesuffix("()")


def layer_table(network: Network) -> list[dict[str, Any]]:
    """Return a row for each layer, and one for the activation of the output, which belongs to the loss."""
    rows: list[dict[str, Any]] = []
    width = network.n_in
    for i, layer in enumerate(network.layers):
        width = layer.width(width)
        kind = type(layer).__name__.lower() if layer.parameter_shapes or not is_activation(layer) else "activation"
        count = sum(math.prod(shape) for shape in layer.parameter_shapes.values())
        rows.append({"index": i, "name": layer_name(layer), "kind": kind, "shape": [width], "n_parameters": count})
    if network.loss.output_activation == "sigmoid":
        rows.append({"index": None, "name": "Sigmoid of the output", "kind": "output", "shape": [width]})
        rows[-1]["n_parameters"] = 0
    return rows


# ---- Predictions -----------------------------------------------------------------------------------------------------


def floats(network: Network, x: NDArray[Any]) -> Array:
    """Return preprocessed examples as the network sees them, (count, n_in)."""
    x = network.check_inputs(x)
    return as_floats(x, np.empty((len(x), network.n_in), network.dtype))


def probabilities(network: Network, x: ArrayLike) -> Array:
    """Return the probabilities (count, classes) with a sum of at most 1."""
    p = binary_to_two_columns(network.predict_proba(x)).astype(np.float64)
    p /= np.maximum(p.sum(axis=1, keepdims=True), 1)  # one sigmoid per class: the sum may be above 1
    return p


class Predictions(NamedTuple):
    """The predictions of a network for the validation examples.

    Attributes
    ----------
    labels : ndarray of shape (count,)
        Predicted classes.
    confidence : ndarray of shape (count,)
        Their probabilities.
    """

    labels: NDArray[Any]
    confidence: NDArray[Any]


def predictions(network: Network, x: NDArray[Any]) -> Predictions:
    """Predict the classes of preprocessed examples."""
    with np.errstate(all="ignore"):
        p = probabilities(network, x)
    labels = p.argmax(axis=1)
    return Predictions(labels, p[np.arange(len(p)), labels])


def confusion(predicted: Predictions, y: NDArray[Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the confusion matrix [true][predicted] and the accuracy."""
    matrix = confusion_matrix(y.astype(np.intp), predicted.labels, len(classes))
    return {"classes": classes, "matrix": matrix.tolist(), "accuracy": float(np.trace(matrix)) / len(y)}


def cell(predicted: Predictions, y: NDArray[Any], true: int | None, label: int | None) -> NDArray[np.intp]:
    """Return the indices of the examples of a cell of the confusion matrix, the most confident first.

    Without a class, the cell is a whole column or row.
    """
    chosen = np.ones(len(y), bool)
    if true is not None:
        chosen &= y == true
    if label is not None:
        chosen &= predicted.labels == label
    indices = np.flatnonzero(chosen)
    return indices[np.argsort(-predicted.confidence[indices], kind="stable")]


def activations(network: Network, x: NDArray[Any]) -> dict[str, Any]:
    """Return the outputs of the layers for one preprocessed example, as `layers` and `probabilities`."""
    with np.errstate(all="ignore"):
        outputs = network.activations(x)
        rows = layer_table(network)
        layers = [
            {"name": row["name"], "kind": row["kind"], "values": a[0].tolist()}
            for row, a in zip(rows, outputs, strict=False)
            if row["kind"] != "dropout"
        ]
        return {"layers": layers, "probabilities": probabilities(network, x)[0].tolist()}


def core(model: Model) -> Network:
    """Return the network inside the wrappers of a model."""
    network = unwrap(model).core
    if not isinstance(network, Network):
        raise HandgradError("this model has no single network")
    return network


def flip(model: Model, digit: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the smallest change of a prepared digit that changes the answer of the network."""
    network, preprocessing = core(model), unwrap(model).preprocessing
    if preprocessing is not None:
        digit = np.asarray(preprocessing(digit[None])[0])
    found = deepfool(network, digit)
    height, width = network.image_shape or (1, network.n_in)
    return {
        "from": network.classes[found.class_before],
        "to": network.classes[found.class_after],
        "width": width,
        "height": height,
        "pixels": np.rint(255 * found.image.reshape(height, width)).astype(np.uint8),
        "change": np.rint(128 + 127 * np.clip(found.perturbation.reshape(height, width), -1, 1)).astype(np.uint8),
        "norm": found.l2,
        "largest": found.linf,
    }


def boundary(network: Network, x: NDArray[Any]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return the probability of class 1 on a grid (rows from the bottom, columns), and the range of both coordinates.

    The grid covers the points x (count, 2).
    """
    side = float(np.abs(x).max()) * 1.1
    line = np.linspace(-side, side, BOUNDARY, dtype=network.dtype)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    with np.errstate(all="ignore"):
        p = binary_to_two_columns(network.predict_proba(grid))
        shares = p[:, 1] / np.maximum(p.sum(axis=1), 1e-12)
    return shares.reshape(BOUNDARY, BOUNDARY).astype(np.float32), (-side, side)


# ---- Gradient check --------------------------------------------------------------------------------------------------


def check(network: Network, x: NDArray[Any], y: NDArray[Any], count: int = 8) -> dict[str, Any]:
    """Compare the derived gradients of the network with numerical ones, in float64, on a few examples.

    A numerical derivative is wrong if the step crosses the kink of a ReLU. Therefore a derivative that differs is
    checked again on other examples, in other directions: a wrong gradient differs every time. HOG has a kink wherever
    the pixels next to each other are equal, as in the background. Therefore only the layers after it are checked.
    """
    best: dict[str, Check] = {}
    for attempt in range(ATTEMPTS):
        rows = slice(attempt * count, (attempt + 1) * count)
        if not len(x[rows]) or (best and all(one.passed for one in best.values())):
            break
        for one in gradient_errors(*after_hog(network, floats(network, x[rows])), y[rows], rng=attempt):
            best[one.name] = min(best.get(one.name, one), one, key=lambda each: (not each.passed, each.error))
    return {
        "largest_relative_error": max(one.error for one in best.values()),
        "n_checked": int(network.parameters.size),
        "n_examples": min(count, len(x)),
        "tolerance": TOLERANCE,
        "ok": all(one.passed for one in best.values()),
        "per_layer": [{"name": one.name, "error": one.error, "ok": one.passed} for one in best.values()],
    }


# ---- One forward and backward pass -----------------------------------------------------------------------------------


def small_network() -> tuple[Network, Array, NDArray[np.int64], float]:
    """Return a 2-2-1 network with sigmoids, an example, its label and a learning rate: numbers that fit on a page.

    They are those of the tutorial "Backpropagation by numbers".
    """
    network = Network([2, 2, 1], rng=0, dtype=np.float64)
    network.parameters[...] = [1, -1, -1, 1, 0, 0, 1, -1, 0]  # W1, b1, W2, b2
    return network, np.array([[1.0, 0.0]]), np.array([0]), 1.0


def walkthrough(network: Network, x: Array, y: ArrayLike, lr: float) -> dict[str, Any]:
    """Return a forward and a backward pass, a step of gradient descent and the new loss, with all numbers.

    BatchNorm uses its running statistics, because with those of one example its output is constant and all gradients
    before it are 0.

    Parameters
    ----------
    network : Network
        It is copied, so that it does not change.
    x : ndarray of shape (1, n_in)
        One example, floats.
    y : array-like of shape (1,)
        Its label.
    lr : float
        Learning rate of the step.
    """
    twin = network.astype(np.float64)
    with np.errstate(all="ignore"):
        return {"steps": list(_passes(twin, np.asarray(x, np.float64), y, lr))}


def _passes(network: Network, x: Array, y: ArrayLike, lr: float) -> Iterator[dict[str, Any]]:
    t = network.loss.targets(y, 1, network.n_out, network.dtype)
    network._allocate_buffers(1)
    names = _symbols(network)
    yield _step("Input", "x", None, x=x[0], t=t[0])
    a = x
    for i, layer in enumerate(network.layers):
        before, a = a, _forward(layer, a)
        given, result = names[i]
        values = {given: before[0], result: a[0]}
        if isinstance(layer, Dense):
            values, formula = {"W": layer.W, "b": layer.b, **values}, f"{result} = W {given} + b"
        elif isinstance(layer, BatchNorm):
            statistics = {"μ": layer.running_mean, "σ": np.sqrt(layer.running_var + layer.epsilon)}
            values = {"g": layer.g, "b": layer.b, **statistics, **values}
            formula = f"{result} = g ({given} - μ) / σ + b, with the running μ and σ"
        else:
            formula = f"{result} = {_function(layer)}({given})"
        yield _step(f"Forward: {layer_name(layer)}", formula, i, **values)
    p, last = network.loss.activation(a), names[-1][1]
    value = np.array([network.loss.value(a, t)])
    formula = f"p = {network.loss.output_activation}({last}), L = {_loss(network)}"
    yield _step(f"Output and loss: {type(network.loss).__name__}", formula, None, p=p[0], t=t[0], L=value)
    dz = network.loss.backward(a, t, 1.0).copy()
    yield _step("Backward: the loss", f"d{last} = {_loss_derivative(network)}", None, **{f"d{last}": dz[0]})
    for i in reversed(range(len(network.layers))):
        layer, (given, result) = network.layers[i], names[i]
        upstream = dz[0].copy()
        dz = dz * layer.affine()[0] if isinstance(layer, BatchNorm) else layer.backward(dz).copy()
        if isinstance(layer, Dense):
            formula = f"dW = d{result} {given}ᵀ, db = d{result}, d{given} = Wᵀ d{result}"
            values = {f"d{result}": upstream, "dW": layer.dW, "db": layer.db, f"d{given}": dz[0]}
        else:
            formula = f"d{given} = {_derivative(layer, given, result)} d{result}"
            values = {f"d{result}": upstream, f"d{given}": dz[0]}
        yield _step(f"Backward: {layer_name(layer)}", formula, i, **values)
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            new = {"W": layer.W - lr * layer.dW, "b": layer.b - lr * layer.db}
            yield _step(
                f"Step: {layer_name(layer)}",
                f"W ← W - {lr:g} dW, b ← b - {lr:g} db",
                i,
                dW=layer.dW,
                db=layer.db,
                **new,
            )
            layer.W[...], layer.b[...] = new["W"], new["b"]
    values, a = {}, x
    for layer, (_, result) in zip(network.layers, names, strict=True):
        a = a * layer.m if isinstance(layer, Dropout) else _forward(layer, a)  # the same units are dropped
        values[result] = a[0].copy()
    p, new_value = network.loss.activation(a), np.array([network.loss.value(a, t)])
    formula = f"With the new W and b: L = {value[0]:.4f} → {new_value[0]:.4f}"
    yield _step("Forward again", formula, None, **values, p=p[0], L=new_value)


def _forward(layer: Layer, a: Array) -> Array:
    return layer.infer(a) if isinstance(layer, BatchNorm) else layer.forward(a)


def _symbols(network: Network) -> list[tuple[str, str]]:
    """(input, output) of each layer in the symbols of the derivation: x, z1, a1, z2, ..."""
    names, current, dense, active = [], "x", 0, 0
    for layer in network.layers:
        if isinstance(layer, Dense):
            dense += 1
            result = f"z{dense}"
        elif is_activation(layer):
            active += 1
            result = f"a{dense}"
        else:
            result = f"{current}'"
        names.append((current, result))
        current = result
    return names


def _function(layer: Layer) -> str:
    return {"Sigmoid": "σ", "Tanh": "tanh"}.get(type(layer).__name__, type(layer).__name__)


def _derivative(layer: Layer, given: str, result: str) -> str:
    known = {
        "Sigmoid": f"{result} (1 - {result}) ·",
        "Tanh": f"(1 - {result}²) ·",
        "ReLU": f"[{given} > 0] ·",
        "HOG": f"(∂{result}/∂{given})ᵀ",
        "BatchNorm": "g / σ ·",
    }
    return known.get(type(layer).__name__, f"{_function(layer)}'({given}) ·")


def _loss(network: Network) -> str:
    return {
        "BinaryCrossEntropy": "-Σ [t ln p + (1 - t) ln(1 - p)]",
        "CrossEntropy": "-Σ t ln p",
        "SquaredError": "½ Σ (p - t)²",
    }[type(network.loss).__name__]


def _loss_derivative(network: Network) -> str:
    return "(p - t) p (1 - p)" if type(network.loss).__name__ == "SquaredError" else "p - t"


def _step(title: str, equation: str, layer: int | None, **values: Array) -> dict[str, Any]:
    shown = {name: _summary(value) for name, value in values.items()}
    return {"title": title, "equation": equation, "layer": layer, "values": shown}


def _summary(value: Array) -> dict[str, Any]:
    """A small array completely, a large one as shape, smallest, largest and first values."""
    summary: dict[str, Any] = {"shape": list(value.shape)}
    if value.size <= SMALL:
        return {**summary, "all": value.tolist()}
    first = value.ravel()[:SHOWN].tolist()
    return {**summary, "min": float(value.min()), "max": float(value.max()), "first": first}

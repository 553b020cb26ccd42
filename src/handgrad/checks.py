"""Training checks: warnings about numbers that are not scaled, a large initial loss, inactive units, chance accuracy.

`Trainer.fit` makes these checks once before the first epoch and once after the last one, on a few hundred examples. The
limits are far from everything that a working training shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Rows, row_blocks
from .layers import ACTIVATIONS, LAYERS, SELU, BatchNorm, Dense, Dropout, Identity, Layer, Sigmoid, Tanh
from .losses import most_probable
from .network import Network

MAX_ROWS = 256  # examples that a check looks at
MIN_ROWS = 16
ROWS_PER_EXAMPLE = 200  # examples that are trained for each example that a check looks at: less than 1 % of the time
LARGE_FEATURE = 30.0  # root mean square of a feature; it should be about 1
# |mean| + standard deviation of the targets of a regression; they should be about 1. With 8-30-1, Adam and 50 epochs of
# 1,000 examples, R² is 0.93 for 0 + 1 and 0.51 for 50 + 25. It is 0.34 for 150 + 75, and negative for 1,000 + 300.
LARGE_TARGET = 100.0
MIN_PIXELS = 64  # of features that may be pixels
DARKEST_SCALE = 1.001 / 255  # brightest pixel of images that were divided by 255 twice
DARK_IMAGES = 32  # brightest pixel of images that hold other integers than 0 to 255
LARGE_LOSS = 10.0  # initial loss, relative to that of equal probabilities
MIN_UNITS, INACTIVE_SHARE = 8, 0.8  # of a layer
# Share of the outputs of a layer that are at the bounds. The network of the blog post has 0.46 before training and 0.78
# after 8 epochs; ten times as large weights give 0.94, and a hundred times as large ones 0.995 after training.
SATURATED_BEFORE, SATURATED_AFTER = 0.9, 0.98
SATURATED, CONSTANT = 1e-3, 1e-4  # range of a unit's output: of a sigmoid or tanh, and relative to its largest value
# Initializers that suit an activation; kaiming_normal suits all others. For Sigmoid and SELU, they are not the default.
SUITABLE_INITIALIZERS: dict[type[Layer], str] = {
    Sigmoid: "lecun",
    SELU: "lecun",
    Tanh: "xavier_normal",
    Identity: "xavier_normal",
}
WINDOWS, WINDOW_ROWS = 256, 64  # neighbours whose classes are compared
SORTED_CHANGES = 0.1  # changes of the class from one example to the next, relative to a random order
LABEL_ROWS = 1 << 16  # rows of targets whose labels are counted at a time
MIN_STEPS, MIN_EXAMPLES, MAX_PRIOR = 200, 100, 0.9  # for chance_accuracy


@np.errstate(under="ignore")  # small numbers become 0, also for programs with np.seterr(all="raise")
def before_training(
    network: Network, x: NDArray[Any], t: Array | None, examples: int, names: Sequence[Any] | None = None
) -> dict[str, str]:
    """Check the inputs and the loss before the first step.

    Parameters
    ----------
    network : Network
        The network, with its initial parameters.
    x : ndarray of shape (count, n_in) or (count, height, width)
        Validated examples.
    t : ndarray of shape (count, n_out), optional
        Their targets.
    examples : int
        Number of examples that will be trained, in all epochs. It limits the number of examples that are checked.
    names : sequence, optional
        Names of the columns of x.

    Returns
    -------
    dict of str to str
        Warnings by the name of the check: "order", "targets", "scale", "loss", "units".
    """
    found: dict[str, str] = {}
    if isinstance(x, Rows) and x.in_blocks and t is not None and (problem := _sorted_by_class(t)):
        found["order"] = problem
    if t is not None and (problem := _large_targets(network, t[_spread(len(t), MAX_ROWS)])):
        found["targets"] = problem
    problem = _scale(network, x[_spread(len(x), MAX_ROWS)], names)
    if problem:
        return found | {"scale": problem}
    rows = _rows(len(x), examples)
    if len(rows) == 0:
        return found
    problem = None if t is None else _initial_loss(network, x[rows], t[rows])
    if problem:
        return found | {"loss": problem}
    problem = _saturated_units(_hidden_outputs(network, x[rows]), SATURATED_BEFORE)
    return found | ({"units": problem} if problem else {})


@np.errstate(under="ignore")
def after_training(
    network: Network, x: NDArray[Any], t: Array | None, examples: int, steps: int, accuracy: float | None
) -> dict[str, str]:
    """Check the activations and the accuracy after the last step.

    Parameters
    ----------
    network, x, t, examples
        See `before_training`.
    steps : int
        Number of steps.
    accuracy : float or None
        Training accuracy of the last epoch.

    Returns
    -------
    dict of str to str
        Warnings by the name of the check: "units", "accuracy".
    """
    rows, problems = _rows(len(x), examples), {}
    hidden = _hidden_outputs(network, x[rows]) if len(rows) else []
    if problem := _inactive_units(hidden) or _saturated_units(hidden, SATURATED_AFTER):
        problems["units"] = problem
    enough = steps >= MIN_STEPS and len(x) >= MIN_EXAMPLES
    if enough and t is not None and accuracy is not None and (problem := _chance_accuracy(t, accuracy)):
        problems["accuracy"] = problem
    return problems


def _rows(count: int, examples: int) -> NDArray[np.intp]:
    """Indices of the examples that are checked, spread over all of them; none if the training is very short."""
    rows = min(MAX_ROWS, examples // ROWS_PER_EXAMPLE, count)
    return _spread(count, rows) if rows >= MIN_ROWS else np.arange(0)


def _spread(count: int, rows: int) -> NDArray[np.intp]:
    """Indices of at most this number of examples, spread over all of them."""
    rows = min(rows, count)
    return np.arange(0, count, count // rows)[:rows]


def _scale(network: Network, x: NDArray[Any], names: Sequence[Any] | None) -> str | None:
    """A feature that is much larger than 1, or images whose pixels are in another range than [0, 1] or 0 to 255."""
    if x.ndim == 3:
        high = int(x.max())
        if x.dtype != np.uint8 or not 0 < high < DARK_IMAGES:
            return None
        return (
            f"the brightest of the integer pixels is {high}, but they are read as 0 (black) to 255 (white): "
            f"pass x / {high}, floats in [0, 1]"
        )
    if _divided_twice(network, x):
        return (
            f"the largest pixel is {x.max():.2g}: the pixels seem to be divided by 255 twice; divide integers by 255 "
            "once, or pass images of integers"
        )
    first = next((layer for layer in network.layers if not isinstance(layer, Dropout | Identity)), None)
    if network.image_shape is not None or isinstance(first, BatchNorm):
        return None
    sizes = np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=0))
    j = int(sizes.argmax())
    if not sizes[j] > LARGE_FEATURE:
        return None
    name = repr(str(names[j])) if names is not None and len(names) == x.shape[1] else str(j)
    low, high = x[:, j].min(), x[:, j].max()
    pixels = x.shape[1] >= 64 and x.min() >= 0 and x.max() <= 255
    remedy = "divide the pixels by 255" if pixels else "scale = Standardize.fit(x), train on scale(x)"
    wrapped = "" if pixels else ", and predict with Preprocessed(network, scale)"
    return (
        f"column {name} of x has values from {low:g} to {high:g}: networks need features of about 1 in size; "
        f"{remedy}{wrapped}"
    )


def _divided_twice(network: Network, x: NDArray[Any]) -> bool:
    """Whether all features are in [0, 1 / 255], as pixels are that were divided by 255 twice."""
    if x.dtype.kind != "f" or (network.image_shape is None and x.shape[1] < MIN_PIXELS):
        return False
    return bool(x.min() >= 0 and 0 < x.max() <= DARKEST_SCALE)


def _large_targets(network: Network, t: Array) -> str | None:
    """Targets of a regression that are far from the outputs of a network before training, which are about 1."""
    loss = network.loss
    if loss.is_classification or loss.output_activation != "identity" or not isinstance(network.layers[-1], Dense):
        return None
    sizes = np.abs(t.mean(axis=0, dtype=np.float64)) + t.std(axis=0, dtype=np.float64)
    j = int(sizes.argmax())
    if sizes[j] <= LARGE_TARGET:
        return None
    column = f"column {j} of y" if t.shape[1] > 1 else "y"
    return (
        f"{column} has values from {t[:, j].min():g} to {t[:, j].max():g}: networks need targets of about 1 in size; "
        "train on (y - mean) / std with mean, std = y.mean(axis=0), y.std(axis=0), and predict with "
        "mean + std * network.predict(x)"
    )


def _initial_loss(network: Network, x: NDArray[Any], t: Array) -> str | None:
    """A loss that is much larger than that of a network without knowledge."""
    loss = network.loss
    known = all(_is_known(layer) and type(layer) is not BatchNorm for layer in network.layers)
    if not (loss.is_classification and known):
        return None
    with np.errstate(all="ignore"):
        z = network.outputs(x)
        value, equal = loss.value(z, t), loss.value(np.zeros_like(z), t)
    if value <= LARGE_LOSS * equal:
        return None
    return (
        f"the loss before training is {value:.3g}, and that of equal probabilities for {network.n_classes} classes is "
        f"{equal:.3g}: the initial weights are too large; use {_initializer(network.layers)}"
    )


def _is_known(layer: Layer) -> bool:
    """Whether `infer` is a function of x alone. That of a custom layer may be random."""
    return type(layer) in LAYERS.values() or layer.fixed


def _initializer(layers: Sequence[Layer]) -> str:
    """The argument that chooses the initializer for the last activation of these layers."""
    kinds = [type(layer) for layer in layers if type(layer) in ACTIVATIONS.values()]
    return f'init="{SUITABLE_INITIALIZERS.get((kinds or [Identity])[-1], "kaiming_normal")}"'


def _hidden_outputs(network: Network, x: NDArray[Any]) -> list[tuple[int, Layer, Array]]:
    """Index, layer and outputs of the hidden activations; none for custom layers and if all examples are equal."""
    if not all(map(_is_known, network.layers)) or not (x != x[0]).any():
        return []
    last = max((i for i, layer in enumerate(network.layers) if isinstance(layer, Dense)), default=0)
    hidden = [
        i
        for i, layer in enumerate(network.layers[:last])
        if type(layer) in ACTIVATIONS.values() and type(layer) is not Identity
    ]
    if not hidden:
        return []
    with np.errstate(all="ignore"):
        outputs = network.activations(x)
    return [(i, network.layers[i], outputs[i]) for i in hidden]


def _inactive_units(hidden: Sequence[tuple[int, Layer, Array]]) -> str | None:
    """A hidden layer most of whose units give the same output for every example."""
    for i, layer, a in hidden:
        bounded = isinstance(layer, Sigmoid | Tanh)
        limit = SATURATED if bounded else CONSTANT * np.abs(a).max(axis=0)
        constant = int((np.ptp(a, axis=0) <= limit).sum())
        if a.shape[1] >= MIN_UNITS and constant >= INACTIVE_SHARE * a.shape[1]:
            what = "are saturated" if bounded else "are dead"
            other = "" if bounded else ", or use LeakyReLU"
            return (
                f"{constant} of the {a.shape[1]} units of layer {i} ({layer!r}) {what}: they give the same output for "
                f"all of {len(a)} examples; use a lower learning rate, scaled inputs and {_initializer([layer])}{other}"
            )
    return None


def _saturated_units(hidden: Sequence[tuple[int, Layer, Array]], limit: float) -> str | None:
    """A hidden layer of sigmoids or tanhs almost all of whose outputs are at the bounds, where the derivative is 0."""
    for i, layer, a in hidden:
        if not isinstance(layer, Sigmoid | Tanh) or a.shape[1] < MIN_UNITS:
            continue
        low = -1 if isinstance(layer, Tanh) else 0
        share = float((np.minimum(a - low, 1 - a) < SATURATED).mean())
        if share >= limit:
            return (
                f"the units of layer {i} ({layer!r}) are saturated: {share:.1%} of their outputs are {low} or 1 within "
                f"{SATURATED:g}, where the derivative is almost 0, because the weights or the inputs of the layer are "
                f"large; use {_initializer([layer])}, scaled inputs and a lower learning rate"
            )
    return None


def _sorted_by_class(t: Array) -> str | None:
    """Neighbours that have the same class much more often than examples in random order have."""
    windows = [most_probable(t[first : first + WINDOW_ROWS]) for first in _spread(len(t), WINDOWS)]
    share = np.bincount(np.concatenate(windows)) / sum(map(len, windows))
    expected = 1 - float(np.vdot(share, share))  # probability that two random examples have different classes
    changes = sum(np.count_nonzero(np.diff(labels)) for labels in windows) / sum(len(labels) - 1 for labels in windows)
    if changes >= SORTED_CHANGES * expected:
        return None
    return (
        "the examples are sorted by class, and an epoch mixes neighbours only in a buffer, so that training is less "
        "accurate: shuffle the files once with handgrad data shuffle SOURCE DESTINATION"
    )


def _chance_accuracy(t: Array, accuracy: float) -> str | None:
    """A training accuracy that is not better than that of always choosing the most common class."""
    counts = np.zeros(max(2, t.shape[1]), np.int64)
    for rows in row_blocks(len(t), LABEL_ROWS):
        counts += np.bincount(most_probable(t[rows]), minlength=len(counts))
    prior = counts.max() / len(t)
    if prior > MAX_PRIOR or accuracy > prior + math.sqrt(prior * (1 - prior) / len(t)):
        return None
    return (
        f"the training accuracy is {accuracy:.1%} after training, and always choosing the most common class gives "
        f"{prior:.1%}: check that the labels belong to the examples and that the inputs are scaled, and try other "
        "learning rates"
    )

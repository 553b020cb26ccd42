"""Training checks: warnings about features that are not scaled, a large initial loss, inactive units, chance accuracy.

`Trainer.fit` makes these checks once before the first epoch and once after the last one, on a few hundred examples. The
limits are far from everything that a working training shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .errors import HandgradError
from .layers import ACTIVATIONS, LAYERS, BatchNorm, Dense, Dropout, Identity, Sigmoid, Tanh
from .network import Network

MAX_ROWS = 256  # examples that a check looks at
MIN_ROWS = 16
ROWS_PER_EXAMPLE = 200  # examples that are trained for each example that a check looks at: less than 1 % of the time
LARGE_FEATURE = 30.0  # root mean square of a feature; it should be about 1
DARK_IMAGES = 32  # brightest pixel of images that hold other integers than 0 to 255
LARGE_LOSS = 10.0  # initial loss, relative to that of equal probabilities
MIN_UNITS, INACTIVE_SHARE = 8, 0.8  # of a layer
SATURATED, CONSTANT = 1e-3, 1e-4  # range of a unit's output: of a sigmoid or tanh, and relative to its largest value
MIN_STEPS, MIN_EXAMPLES, MAX_PRIOR = 200, 100, 0.9  # for chance_accuracy


def check_views(network: Network) -> None:
    """Raise HandgradError if a parameter was replaced by another array, which training would not change."""
    address, size = network.parameters.ctypes.data, network.parameters.itemsize
    for name, p in network.named_parameters.items():
        if not isinstance(p, np.ndarray) or p.ctypes.data != address or p.dtype != network.dtype:
            i, _, symbol = name.partition(".")
            raise HandgradError(
                f"{symbol} of layer {i} is not the network's array any more: set the values with "
                f"network.layers[{i}].{symbol}[...] = values, all parameters with network.parameters[...] = values"
            )
        address += p.size * size


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
        Warnings by the name of the check: "scale" or "loss".
    """
    rows = _rows(len(x), examples)
    if len(rows) == 0:
        return {}
    sample = x[rows]
    problem = _scale(network, sample, names)
    if problem:
        return {"scale": problem}
    problem = None if t is None else _initial_loss(network, sample, t[rows])
    return {"loss": problem} if problem else {}


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
    if len(rows) and (problem := _inactive_units(network, x[rows])):
        problems["units"] = problem
    enough = steps >= MIN_STEPS and len(x) >= MIN_EXAMPLES
    if enough and t is not None and accuracy is not None and (problem := _chance_accuracy(t, accuracy)):
        problems["accuracy"] = problem
    return problems


def _rows(count: int, examples: int) -> NDArray[np.intp]:
    """Indices of the examples that are checked, spread over all of them; none if the training is very short."""
    rows = min(MAX_ROWS, examples // ROWS_PER_EXAMPLE, count)
    return np.arange(0, count, count // rows)[:rows] if rows >= MIN_ROWS else np.arange(0)


def _scale(network: Network, x: NDArray[Any], names: Sequence[Any] | None) -> str | None:
    """A feature that is much larger than 1, or images whose integers are not 0 to 255."""
    if x.ndim == 3:
        high = int(x.max())
        if x.dtype != np.uint8 or not 0 < high < DARK_IMAGES:
            return None
        return (
            f"the brightest of the integer pixels is {high}, but they are read as 0 (black) to 255 (white): "
            f"pass x / {high}, floats in [0, 1]"
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


def _initial_loss(network: Network, x: NDArray[Any], t: Array) -> str | None:
    """A loss that is much larger than that of a network without knowledge."""
    loss = network.loss
    known = all(type(layer) in LAYERS.values() and type(layer) is not BatchNorm for layer in network.layers)
    if not (loss.is_classification and known):  # custom layers may be random in inference too
        return None
    with np.errstate(all="ignore"):
        z = network.outputs(x)
        value, equal = loss.value(z, t), loss.value(np.zeros_like(z), t)
    if value <= LARGE_LOSS * equal:
        return None
    return (
        f"the loss before training is {value:.3g}, and that of equal probabilities for {network.n_classes} classes is "
        f"{equal:.3g}: the initial weights are too large; use the default initializer of the activation"
    )


def _inactive_units(network: Network, x: NDArray[Any]) -> str | None:
    """A hidden layer most of whose units give the same output for every example."""
    if not all(type(layer) in LAYERS.values() for layer in network.layers) or not (x != x[0]).any():
        return None
    last = max(i for i, layer in enumerate(network.layers) if isinstance(layer, Dense))
    hidden = [
        i
        for i, layer in enumerate(network.layers[:last])
        if type(layer) in ACTIVATIONS.values() and type(layer) is not Identity
    ]
    if not hidden:
        return None
    with np.errstate(all="ignore"):
        outputs = network.activations(x)
    for i in hidden:
        a, layer = outputs[i], network.layers[i]
        bounded = isinstance(layer, Sigmoid | Tanh)
        limit = SATURATED if bounded else CONSTANT * np.abs(a).max(axis=0)
        constant = int((np.ptp(a, axis=0) <= limit).sum())
        if a.shape[1] >= MIN_UNITS and constant >= INACTIVE_SHARE * a.shape[1]:
            what = "are saturated" if bounded else "are dead"
            other = "" if bounded else ", or use LeakyReLU"
            return (
                f"{constant} of the {a.shape[1]} units of layer {i} ({layer!r}) {what}: they give the same output for "
                f"all of {len(x)} examples; use a lower learning rate, scaled inputs and the default initializer{other}"
            )
    return None


def _chance_accuracy(t: Array, accuracy: float) -> str | None:
    """A training accuracy that is not better than that of always choosing the most common class."""
    labels = (t[:, 0] > 0.5).astype(np.intp) if t.shape[1] == 1 else t.argmax(axis=1)
    prior = np.bincount(labels).max() / len(labels)
    if prior > MAX_PRIOR or accuracy > prior + math.sqrt(prior * (1 - prior) / len(labels)):
        return None
    return (
        f"the training accuracy is {accuracy:.1%} after training, and always choosing the most common class gives "
        f"{prior:.1%}: check that the labels belong to the examples and that the inputs are scaled, and try other "
        "learning rates"
    )

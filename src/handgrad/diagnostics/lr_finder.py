"""Finding settings: the learning rate range test, and overfitting of one batch as a check of a training."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Array, Seed, aligned_empty, as_floats, check_int, check_positive, spawn_rngs
from ..errors import HandgradError, unknown
from ..layers import Dropout
from ..network import Network
from ..optimizers import OPTIMIZERS, Lookahead, Optimizer
from .plots import GREY, TRAINING, VALIDATION, new_axes

SMOOTHING = 0.9  # weight of the earlier losses in the smoothed loss: about the last ten batches
DIVERGED = 4.0  # the test ends when the smoothed loss is this multiple of its minimum
MARGIN = 10.0  # the suggestion is the learning rate at the minimum, divided by this
MIN_FALL = 0.01  # smallest fall of the smoothed loss, as a fraction of the first one, for a suggestion


@dataclass(frozen=True, eq=False)
class LRRangeTest:
    """Result of `find_lr`.

    Attributes
    ----------
    lrs : ndarray of shape (count,)
        Learning rate of each step.
    losses : ndarray of shape (count,)
        Loss of the batch of each step, before the step.
    smoothed : ndarray of shape (count,)
        Exponential moving average of the losses.
    suggestion : float or None
        A tenth of the learning rate at which the smoothed loss is smallest. None if the loss does not fall.
    diverged : bool
        Whether the loss grew at the largest learning rates. If it did not, a larger `lr_max` may give a better
        suggestion.
    """

    lrs: NDArray[np.float64] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    smoothed: NDArray[np.float64] = field(repr=False)
    suggestion: float | None
    diverged: bool

    def plot(self, ax: Any = None) -> Any:
        """Plot the losses by learning rate, with the suggestion.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.figure.Figure or matplotlib.axes.Axes
            The new figure, or `ax`.
        """
        result, axes = new_axes(ax, (6.4, 4))
        axes.plot(self.lrs, self.losses, color=TRAINING, lw=1, label="loss of the batch")
        axes.plot(self.lrs, self.smoothed, color=VALIDATION, lw=1.8, label="smoothed")
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color=GREY, ls="--", lw=1, label=f"suggestion: {self.suggestion:.2g}")
        axes.set_xscale("log")
        low, high = float(self.smoothed.min()), float(self.smoothed[0])
        axes.set_ylim(low - 0.1 * (high - low + 1e-12), high + 0.7 * (high - low + 1e-12))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
        return result


def find_lr(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    optimizer: str | Optimizer = "sgd",
    *,
    batch_size: int = 32,
    lr_min: float = 1e-5,
    lr_max: float = 10.0,
    steps: int = 100,
    rng: Seed = 0,
) -> LRRangeTest:
    """Find a learning rate by a range test: train with a learning rate that grows from step to step.

    lr of step i = lr_min (lr_max / lr_min)^(i / (steps - 1)),  i = 0 ... steps - 1

    At small learning rates the loss hardly changes, then it falls, and at large ones training diverges. The test ends
    early when the smoothed loss is four times its minimum, or infinite. It trains a copy: the network and the optimizer
    do not change.

    Parameters
    ----------
    network : Network
        The network, with the weights from which training will start.
    x : array-like of shape (count, n_in) or (count, height, width)
        Training examples, preprocessed as in training.
    y : array-like of shape (count,) or (count, n_out)
        Labels or targets.
    optimizer : str or Optimizer
        Name of an optimizer, such as "sgd" or "adam", with its defaults; or an optimizer, whose learning rate and
        whose state of earlier steps are ignored.
    batch_size : int
        Number of examples in a batch. Use the batch size of the training, because the suggestion depends on it.
    lr_min, lr_max : float
        First and last learning rate.
    steps : int
        Number of steps, at least 10. If they need more examples than x has, the examples are used again.
    rng : int, numpy.random.Generator or None
        Seed of the order of the examples.

    Returns
    -------
    LRRangeTest
        The losses, and a suggested learning rate.

    Raises
    ------
    HandgradError
        For invalid input.

    References
    ----------
    Smith (2017), Cyclical learning rates for training neural networks, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from handgrad import Network
    >>> from handgrad.diagnostics import find_lr
    >>> x = np.random.default_rng(0).standard_normal((200, 2))
    >>> result = find_lr(Network([2, 8, 2], rng=0), x, (x[:, 0] > 0).astype(int))
    >>> bool(0.001 < result.suggestion <= 1)
    True
    """
    lr_min, lr_max = check_positive("lr_min", lr_min), check_positive("lr_max", lr_max)
    if lr_min >= lr_max:
        raise HandgradError(f"lr_min must be less than lr_max, got {lr_min:g} and {lr_max:g}")
    steps, batch_size = check_int("steps", steps, 10), check_int("batch_size", batch_size, 1)
    twin, optimizer = _copy_network(network), _make_optimizer(optimizer, lr_min)
    x, t = _examples(twin, x, y)
    lrs = np.geomspace(lr_min, lr_max, steps)
    losses: list[float] = []
    smoothed: list[float] = []
    average, weight, diverged = 0.0, 0.0, False
    batches = _batches(len(t), min(batch_size, len(t)), spawn_rngs(rng).shuffling)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # divergence is what the test looks for
        for lr, rows in zip(lrs, batches, strict=False):  # the batches have no end
            batch, t_batch = _floats(twin, x[rows]), t[rows]
            loss = twin.loss.value(optimizer.train_step(twin, batch, t_batch, float(lr)), t_batch)
            average, weight = SMOOTHING * average + (1 - SMOOTHING) * loss, SMOOTHING * weight + 1 - SMOOTHING
            if not math.isfinite(average) or average / weight > DIVERGED * min(smoothed, default=math.inf):
                diverged = True
                break
            losses.append(loss)
            smoothed.append(average / weight)
    if not losses:
        raise HandgradError("the loss of the first batch is not finite: scale the inputs")
    best = int(np.argmin(smoothed))
    fell = smoothed[best] < (1 - MIN_FALL) * smoothed[0]
    count = len(losses)
    return LRRangeTest(
        lrs[:count],
        np.array(losses),
        np.array(smoothed),
        float(lrs[best]) / MARGIN if fell else None,
        diverged or smoothed[-1] > 1.1 * smoothed[best],
    )


@dataclass(frozen=True, eq=False)
class OverfitTest:
    """Result of `overfit_one_batch`.

    Attributes
    ----------
    losses : ndarray of shape (steps + 1,)
        Loss of the batch before the first step and after each step.
    passed : bool
        Whether the last loss is close to the smallest possible loss, which is 0 for most losses: closer than
        `tolerance` times that of a constant prediction, the mean of the targets.
    limit : float
        The largest loss that passes.
    """

    losses: NDArray[np.float64] = field(repr=False)
    passed: bool
    limit: float

    def __bool__(self) -> bool:
        """The same as `passed`, for use in an assert statement."""
        return self.passed

    def plot(self, ax: Any = None) -> Any:
        """Plot the loss by step on a logarithmic scale, with the limit. Parameters and result as `LRRangeTest.plot`."""
        result, axes = new_axes(ax, (6.4, 4))
        axes.plot(self.losses, color=VALIDATION, lw=1.8, label="loss")
        axes.axhline(self.limit, color=GREY, ls="--", lw=1, label=f"limit: {self.limit:.2g}")
        if self.losses.min() > 0:
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
        return result


def overfit_one_batch(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    steps: int = 600,
    *,
    optimizer: str | Optimizer = "adam",
    lr: float | None = None,
    batch_size: int = 32,
    tolerance: float = 0.01,
    rng: Seed = 0,
) -> OverfitTest:
    """Check a training by overfitting one batch: a network that learns can memorize a few examples.

    If the loss does not come close to 0, the learning rate, the gradient of a custom layer, the scale of the inputs or
    the labels are probably wrong: for example, equal inputs with different labels. The check trains a copy without
    dropout: the network and the optimizer do not change.

    Parameters
    ----------
    network : Network
        The network to check.
    x : array-like of shape (count, n_in) or (count, height, width)
        Examples, preprocessed as in training.
    y : array-like of shape (count,) or (count, n_out)
        Labels or targets.
    steps : int
        Number of steps.
    optimizer : str or Optimizer
        Name of an optimizer, or an optimizer, whose state of earlier steps is ignored.
    lr : float, optional
        Learning rate; by default that of the optimizer, and 0.03 for the name of an optimizer.
    batch_size : int
        Number of random examples in the batch, at most all of x.
    tolerance : float
        Fraction of the loss of a constant prediction that counts as near zero.
    rng : int, numpy.random.Generator or None
        Seed of the choice of the examples.

    Returns
    -------
    OverfitTest
        The losses, and whether the check passed.

    Raises
    ------
    HandgradError
        For invalid input.
    """
    steps, batch_size = check_int("steps", steps, 1), check_int("batch_size", batch_size, 1)
    tolerance = check_positive("tolerance", tolerance)
    twin, optimizer = _copy_network(network), _make_optimizer(optimizer, 0.03)
    lr = optimizer.lr if lr is None else check_positive("lr", lr)
    for layer in twin.layers:
        if isinstance(layer, Dropout):
            layer.rate = 0.0
    x, t = _examples(twin, x, y)
    rows = next(_batches(len(t), min(batch_size, len(t)), spawn_rngs(rng).shuffling))
    batch, t = _floats(twin, x[rows]), t[rows]
    losses = []
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for _ in range(steps):
            losses.append(twin.loss.value(optimizer.train_step(twin, batch, t, lr), t))
        losses.append(twin.loss.value(twin.forward(batch), t))
        # The smallest loss is not 0 for soft labels, which have an entropy, and for counts.
        floor = twin.loss.value(twin.loss.inverse_activation(t), t)
        mean = np.ascontiguousarray(np.broadcast_to(t.mean(axis=0), t.shape))
        constant = twin.loss.value(twin.loss.inverse_activation(mean), t) - floor
    limit = floor + tolerance * (constant if np.ptp(t, axis=0).any() else 1.0)  # equal targets: constant is 0
    return OverfitTest(np.array(losses), bool(losses[-1] <= limit), limit)


# ---- Helpers ---------------------------------------------------------------------------------------------------------


def _copy_network(network: Network) -> Network:
    if not isinstance(network, Network):
        raise HandgradError(f"network must be a Network, got {network!r}: use the network in the wrappers")
    return copy.deepcopy(network)


def _make_optimizer(optimizer: str | Optimizer, lr: float) -> Optimizer:
    """A new optimizer of this name, or a copy of an optimizer without its state."""
    if isinstance(optimizer, Optimizer):
        twin = copy.deepcopy(optimizer)
        parts = [twin, twin.inner] if isinstance(twin, Lookahead) else [twin]
        for part in parts:
            part.state, part.steps = part.state[:, :0], 0
        return twin
    if not isinstance(optimizer, str):
        raise HandgradError(f"optimizer must be a name or an optimizer, as SGD(0.1), got {optimizer!r}")
    if optimizer.lower() not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    return OPTIMIZERS[optimizer.lower()](lr=lr)


def _examples(network: Network, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], Array]:
    """Validated inputs, and the targets (count, n_out)."""
    x = network.check_inputs(x)
    return x, network.loss.targets(y, len(x), network.n_out, network.dtype)


def _floats(network: Network, x: NDArray[Any]) -> Array:
    """Checked inputs as floats (count, n_in) of the network's dtype."""
    return as_floats(x, aligned_empty(len(x) * network.n_in, network.dtype).reshape(len(x), network.n_in))


def _batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """The indices of random batches of equal size, without an end."""
    while True:
        order = rng.permutation(count)
        for first in range(0, count - batch_size + 1, batch_size):
            yield order[first : first + batch_size]

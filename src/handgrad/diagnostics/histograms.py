"""Histograms of the activations and of the gradients of each layer, recorded after each epoch of a training."""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Array, as_array, as_floats, check_int
from ..errors import HandgradError
from ..layers import Dropout
from ..network import Network
from ..training import Callback, Trainer

MAX_ROWS = 512  # examples that are used
MAX_RECORDS = 64  # epochs that are kept


class Histogram(NamedTuple):
    """The distribution of values.

    Attributes
    ----------
    counts : ndarray of shape (bins,)
        Number of values in each bin.
    edges : ndarray of shape (bins + 1,)
        Edges of the bins, from the smallest to the largest value.
    """

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]


class Histograms(Callback):
    """Record histograms of the activations and of the gradients of each layer after each epoch.

    The activations are the outputs of each layer in inference. The gradients are those of the mean loss with respect to
    each weight matrix, in training mode, of a copy of the network. Their histograms are those of log10 |dW|, because
    the order of magnitude shows whether gradients vanish; derivatives that are 0 are left out.

    At most 64 epochs are kept: when there are more, every second one is dropped, and from then on half as many epochs
    are recorded. The memory is therefore bounded.

    Parameters
    ----------
    x : array-like of shape (count, n_in) or (count, height, width)
        Examples, preprocessed as in training. The first 512 are used.
    y : array-like of shape (count,) or (count, n_out)
        Their labels or targets.
    bins : int
        Number of bins of each histogram.
    every : int
        Number of epochs between two records.

    Attributes
    ----------
    epochs : list of int
        Numbers of the recorded epochs, counted from 1.
    activations : dict of str to list of Histogram
        By the name of the layer, as "ReLU 1" for `network.layers[1]`: one histogram for each recorded epoch. Dropout
        has none, because it does nothing in inference.
    gradients : dict of str to list of Histogram
        By the name of the layer, as "Dense 0": log10 |dW|.

    Raises
    ------
    HandgradError
        From `fit`, if x and y do not fit the network.

    Examples
    --------
    >>> from handgrad import Adam, Network, Trainer
    >>> x, y = [[0.0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> histograms = Histograms(x, y, bins=10)
    >>> network = Network([2, 8, 2], activation="tanh", loss="cross_entropy", rng=0)
    >>> trainer = Trainer(network, Adam(0.1), batch_size=4, callbacks=[histograms], rng=0)
    >>> _ = trainer.fit(x, y, epochs=3, progress=False)
    >>> list(histograms.activations), list(histograms.gradients), histograms.epochs
    (['Dense 0', 'Tanh 1', 'Dense 2'], ['Dense 0', 'Dense 2'], [1, 2, 3])
    """

    def __init__(self, x: ArrayLike, y: ArrayLike, *, bins: int = 50, every: int = 1) -> None:
        self._x, self._y = as_array("x", x)[:MAX_ROWS], as_array("y", y)[:MAX_ROWS]
        self.bins, self.every = check_int("Histograms: bins", bins, 2), check_int("Histograms: every", every, 1)
        self._forget()

    def _forget(self) -> None:
        self._step = self.every  # epochs between two records; it is doubled when there are too many
        self.epochs: list[int] = []
        self.activations: dict[str, list[Histogram]] = {}
        self.gradients: dict[str, list[Histogram]] = {}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Validate the examples, and start again for a new training."""
        network = trainer.network
        x = network.check_inputs(self._x)
        network.loss.targets(self._y, len(x), network.n_out, network.dtype)
        if trainer.epoch == 0:
            self._forget()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Record the histograms, of the weights that are also evaluated on the validation set."""
        if trainer.epoch % self._step:
            return
        activations, gradients = measure(trainer.network, self._x, self._y)
        gradients = {name: np.log10(np.abs(dW[dW != 0])) for name, dW in gradients.items()}
        for kept, measured in ((self.activations, activations), (self.gradients, gradients)):
            for name, values in measured.items():
                kept.setdefault(name, []).append(histogram(values, self.bins))
        self.epochs.append(trainer.epoch)
        if len(self.epochs) > MAX_RECORDS:
            self._step *= 2
            chosen = [i for i, epoch in enumerate(self.epochs) if epoch % self._step == 0]
            self.epochs = [self.epochs[i] for i in chosen]
            for kept in (self.activations, self.gradients):
                kept |= {name: [records[i] for i in chosen] for name, records in kept.items()}

    def plot(self, *, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot all histograms by epoch: see `handgrad.diagnostics.plots.histograms`."""
        from .plots import histograms

        named = self.activations | {f"log10 |gradient| of {name}": records for name, records in self.gradients.items()}
        return histograms(self.epochs, named, path=path)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue."""
        parts = {"activations": self.activations, "gradients": self.gradients}
        state: dict[str, Any] = {"epochs": list(self.epochs), "step": self._step}
        for part, named in parts.items():
            records = [[*h.counts, *h.edges] for histograms in named.values() for h in histograms]
            state[f"{part}.names"] = list(named)
            state[part] = np.array(records).reshape(len(named), len(self.epochs), 2 * self.bins + 1)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises HandgradError if it is invalid, or has another number of bins."""
        epochs, step = state["epochs"], check_int("Histograms: step", state["step"], 1)
        loaded = {}
        for part in ("activations", "gradients"):
            names, records = state[f"{part}.names"], state[part]
            valid = isinstance(epochs, list) and isinstance(names, list) and isinstance(records, np.ndarray)
            valid = valid and len(epochs) <= MAX_RECORDS and all(type(epoch) is int for epoch in epochs)
            if not valid or records.shape != (len(names), len(epochs), 2 * self.bins + 1):
                raise HandgradError(f"Histograms: the state is not one of histograms with {self.bins} bins")
            loaded[part] = {
                str(name): [Histogram(row[: self.bins], row[self.bins :]) for row in rows]
                for name, rows in zip(names, records, strict=True)
            }
        self.epochs, self._step = list(epochs), step
        self.activations, self.gradients = loaded["activations"], loaded["gradients"]


def measure(network: Network, x: ArrayLike, y: ArrayLike) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the activations and the gradients of the weights, by the names of the layers. The network is unchanged."""
    x = network.check_inputs(x)
    names = [f"{type(layer).__name__} {i}" for i, layer in enumerate(network.layers)]
    outputs = zip(names, network.layers, network.activations(x), strict=True)
    activations = {name: a for name, layer, a in outputs if not isinstance(layer, Dropout)}
    twin = copy.deepcopy(network)
    floats = as_floats(x, np.empty((len(x), twin.n_in), twin.dtype))
    twin.backprop(floats, twin.loss.targets(y, len(x), twin.n_out, twin.dtype))
    gradients = {
        name: getattr(layer, f"d{symbol}")
        for name, layer in zip(names, twin.layers, strict=True)
        for symbol, shape in layer.parameter_shapes.items()
        if len(shape) > 1
    }
    return activations, gradients


def histogram(values: ArrayLike, bins: int) -> Histogram:
    """Count the finite values in bins of equal width from the smallest to the largest one."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    counts, edges = np.histogram(flat, bins, value_range(flat))
    return Histogram(counts.astype(np.float64), edges)


def value_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the smallest and the largest value, or a range around a single value."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, which the bins of NumPy cannot resolve
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return low, high

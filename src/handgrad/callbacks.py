"""Callbacks: early stopping, weight averaging (EMA, SWA), checkpoints, a CSV log."""

from __future__ import annotations

import math
import os
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from .arrays import Array, aligned_empty, check_fraction, check_int, check_non_negative
from .errors import MAX_MESSAGE, HandgradError, HandgradWarning, calls_of_handgrad, printable
from .history import csv_lines, larger_is_better
from .io.atomic import as_path
from .io.safetensors import read_arrays, write_arrays
from .optimizers import MAX_STEPS, UPDATE_CHUNK
from .training import Callback, Trainer


class EarlyStopping(Callback):
    """Stop when a metric has not improved for several epochs.

    Parameters
    ----------
    monitor : str
        Name of a metric in the history. Larger is better for names that end in "accuracy" or "score", smaller is better
        for all others.
    patience : int
        Number of epochs without improvement after which training stops.
    min_delta : float
        Smallest change that counts as an improvement.
    restore_best : bool
        End with the weights of the best epoch.

    Attributes
    ----------
    best : float or None
        Best value so far.
    best_epoch : int
        Number of the best epoch, counted from 1.

    A new `fit` starts without a best value. Training continues from the restored weights. An epoch in which the metric
    is NaN is one without improvement.
    """

    order = 1  # after the averages, whose weights it restores

    def __init__(
        self, monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0, restore_best: bool = True
    ) -> None:
        self.monitor, self.restore_best = monitor, restore_best
        self.patience = check_int("EarlyStopping: patience", patience, 1)
        self.min_delta = check_non_negative("EarlyStopping: min_delta", min_delta)
        self._trainer: weakref.ref[Trainer] | None = None
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the trainer: a copy continues with the trainer that it is given."""
        return vars(self) | {"_trainer": None}

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self.best_parameters: Array | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == trainer.first_epoch or (self._trainer is not None and self._trainer() is not trainer):
            self._forget()
        self._trainer = weakref.ref(trainer)
        if (
            self.monitor in ("val_loss", "val_accuracy")
            and not trainer.has_validation
            and trainer.epoch < trainer.epochs
        ):
            raise HandgradError(f"EarlyStopping: '{self.monitor}' needs a validation set: pass validation= to fit")

    def on_epoch_end(self, trainer: Trainer) -> None:
        value = trainer.metrics.get(self.monitor)
        if value is None:
            hint = "" if trainer.has_validation else "; pass validation= to fit"
            known = ", ".join(trainer.metrics)
            raise HandgradError(f"EarlyStopping: no metric '{self.monitor}' in this epoch, only {known}{hint}")
        value = float(value)  # a callback may add a number of NumPy, which JSON cannot hold
        gain = 0.0 if self.best is None else value - self.best
        if not larger_is_better(self.monitor):
            gain = -gain
        if not math.isnan(value) and (self.best is None or gain > self.min_delta):
            self.best, self.best_epoch = value, trainer.epoch
            if self.restore_best:
                self.best_parameters = trainer.network.parameters.copy()
        elif trainer.epoch - max(self.best_epoch, trainer.first_epoch) >= self.patience:
            trainer.stop = True

    def on_train_end(self, trainer: Trainer) -> None:
        if self.best_parameters is not None:
            trainer.network.parameters[...] = self.best_parameters

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "best_parameters": self.best_parameters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        best, best_epoch = state["best"], check_int("EarlyStopping: best_epoch", state["best_epoch"], 0)
        if not (best is None or (isinstance(best, float | int) and not math.isnan(best))):
            raise HandgradError(f"EarlyStopping: best must be a number, got {best!r}")
        best_parameters = _check_vector("EarlyStopping: best_parameters", state["best_parameters"])
        self.best, self.best_epoch, self.best_parameters, self._trainer = best, best_epoch, best_parameters, None


class _WeightAverage(Callback, ABC):
    """Base class of averages of the weights: μ ← μ + r (θ - μ) after each step, starting with μ = θ.

    The last steps of a training fluctuate around a minimum because of the noise of the batches; their mean is closer to
    it. All of θ is averaged, including the running statistics of BatchNorm.

    Training continues with the raw weights. The averaged weights are evaluated after each epoch, are what EarlyStopping
    compares and restores, and are the weights of the network at the end of `fit`. The raw weights are kept: the next
    `fit` continues from them, unless θ was changed in between. In that case, for another trainer, and after a `fit`
    that was interrupted within an epoch, the average starts again.
    """

    order = -1

    def __init__(self) -> None:
        self.average: Array = np.empty(0, np.float32)  # μ
        self.count = 0  # number of averaged θ
        self.raw: Array | None = None  # θ, while the network has μ
        self._trainer: weakref.ref[Trainer] | None = None
        self._within_epoch = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the trainer: a copy continues with the trainer that it is given."""
        return {name: value for name, value in vars(self).items() if name != "_blocks"} | {"_trainer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the average, which is in a file after joblib.load(..., mmap_mode="r")."""
        vars(self).update(state)
        self.average = np.array(self.average)

    @abstractmethod
    def _rate(self, trainer: Trainer) -> float:
        """Return r of this step, 0 to skip it. Increments `count`."""

    def on_train_begin(self, trainer: Trainer) -> None:
        if sum(isinstance(callback, _WeightAverage) for callback in trainer.callbacks) > 1:
            raise HandgradError(f"the callbacks {trainer.callbacks} average the weights twice: expected one EMA or SWA")
        theta = trainer.network.parameters
        unchanged = self.raw is None or np.array_equal(theta, self.average)
        another = self._trainer is not None and self._trainer() is not trainer
        if another or self._within_epoch or not unchanged:
            self.count = 0
        elif self.raw is not None:
            theta[...] = self.raw
        if self.count == 0:
            self.average = aligned_empty(theta.size, theta.dtype)
        self.raw, self._trainer, self._within_epoch = None, weakref.ref(trainer), False
        cuts = [slice(first, first + UPDATE_CHUNK) for first in range(0, theta.size, UPDATE_CHUNK)]
        scratch = aligned_empty(min(UPDATE_CHUNK, theta.size), theta.dtype)
        self._blocks = [(theta[c], self.average[c], scratch[: theta[c].size]) for c in cuts]

    def on_batch_end(self, trainer: Trainer) -> None:
        self._within_epoch = True
        rate = self._rate(trainer)
        if self.count == 1 and rate:
            self.average[...] = trainer.network.parameters
        elif rate:
            for theta, average, scratch in self._blocks:  # in blocks that stay in the cache, as in an optimizer
                np.subtract(theta, average, out=scratch)
                scratch *= rate
                average += scratch

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        self._within_epoch = False
        self._use_average(trainer)

    def on_evaluation_end(self, trainer: Trainer) -> None:
        if self.raw is not None:
            trainer.network.parameters[...] = self.raw
            self.raw = None

    def on_train_end(self, trainer: Trainer) -> None:
        self._use_average(trainer)

    def _use_average(self, trainer: Trainer) -> None:
        if self.count:
            self.raw = trainer.network.parameters.copy()
            trainer.network.parameters[...] = self.average

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.copy() if self.count else None, "count": self.count, "raw": self.raw}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        name = type(self).__name__
        count = check_int(f"{name}: count", state["count"], 0)
        average = _check_vector(f"{name}: average", state["average"])
        raw = _check_vector(f"{name}: raw", state["raw"])
        if count > MAX_STEPS or (average is None) != (count == 0):
            raise HandgradError(f"{name}: the state has the average of {count} steps, but no vector for it")
        if average is not None:
            self.average = average.copy()
        self.count, self.raw, self._trainer, self._within_epoch = count, raw, None, False


def _check_vector(name: str, vector: Any) -> Array | None:
    """Validate a vector of parameters in a state, or None."""
    if vector is None:
        return None
    if not (isinstance(vector, np.ndarray) and vector.ndim == 1 and vector.dtype.kind == "f"):
        raise HandgradError(f"{name} must be a vector of floats")
    if not np.isfinite(vector).all():
        raise HandgradError(f"{name} contains NaN or infinity")
    return vector


class EMA(_WeightAverage):
    """Exponential moving average of the weights.

    μ = (1 - d) Σᵢ dᵗ⁻ⁱ θᵢ / (1 - dᵗ) over the steps i = 1 ... t,  that is  μ ← μ + (1 - d) / (1 - dᵗ) (θ - μ)

    As in Adam, the division by 1 - dᵗ makes the sum of the weights 1, so that the initial network does not count.

    Parameters
    ----------
    decay : float
        d, in [0, 1). The average covers about the last 1 / (1 - d) steps.
    every : int
        Average only every n-th θ, with dⁿ as the decay: the same number of steps at 1/n of the cost.
    """

    def __init__(self, decay: float = 0.999, *, every: int = 1) -> None:
        super().__init__()
        self.decay, self.every = check_fraction("EMA: decay", decay), check_int("EMA: every", every, 1)

    def _rate(self, trainer: Trainer) -> float:
        if (trainer.epoch * trainer.batches + trainer.batch) % self.every:
            return 0.0
        self.count += 1
        d = self.decay**self.every
        return (1 - d) / (1 - d**self.count)


class SWA(_WeightAverage):
    """Stochastic weight averaging: the mean of θ after each step of the last part of a run.

    Parameters
    ----------
    start : float
        Fraction of the run after which averaging starts, in [0, 1). A run that stops earlier ends with its raw weights.

    References
    ----------
    Izmailov et al. (2018), Averaging weights leads to wider optima and better generalization; there once per epoch.
    """

    def __init__(self, start: float = 0.75) -> None:
        super().__init__()
        self.start = check_fraction("SWA: start", start)

    def _rate(self, trainer: Trainer) -> float:
        done, total = trainer.epoch - trainer.first_epoch, trainer.epochs - trainer.first_epoch
        if done * trainer.batches + trainer.batch < self.start * total * trainer.batches:
            self.count = 0
            return 0.0
        self.count += 1
        return 1 / self.count


class Checkpoint(Callback):
    """Write everything the next epoch depends on to a file, after each epoch.

    Parameters
    ----------
    path : path-like
        The file. It is replaced atomically.
    max_share : float
        Largest share of the time for writing, in (0, 1]. If writing takes longer, only some epochs are saved; the last
        one always is.

    Attributes
    ----------
    epoch : int
        Number of the last saved epoch.
    """

    order = 2  # after all others, whose states it saves
    main_process_only = True

    def __init__(self, path: str | os.PathLike[str], max_share: float = 1.0) -> None:
        self.path, self.max_share = as_path(path), check_fraction("Checkpoint: max_share", max_share, "(0, 1]")
        self.epoch = 0
        self._due = -math.inf  # time.monotonic() after which the next epoch is saved

    def on_train_begin(self, trainer: Trainer) -> None:
        self.epoch, self._due = trainer.epoch, -math.inf

    def on_epoch_end(self, trainer: Trainer) -> None:
        begin = time.monotonic()
        if begin < self._due and trainer.epoch < trainer.epochs and not trainer.stop:
            return
        state = trainer.state_dict()
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in state.items() if name not in arrays}
        write_arrays(self.path, arrays, {"state": values, "optimizer": repr(trainer.optimizer)})
        self.epoch, end = trainer.epoch, time.monotonic()
        self._due = end + (end - begin) * (1 / self.max_share - 1)


class CSVLogger(Callback):
    """Write the metrics of each epoch as a row of a CSV file.

    The first column is `epoch`, counted from 1, and the others are the metrics of the history. A metric that was not
    measured is empty. The file is replaced when `fit` begins and then contains the epochs that the trainer has already
    finished. A resumed run therefore continues the file of the interrupted run, and a new run starts a new file.

    Parameters
    ----------
    path : path-like
        The file. Its directory must exist.

    Raises
    ------
    HandgradError
        From `fit`, if the file cannot be written.
    """

    main_process_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = as_path(path)
        self._columns: list[str] = []  # of the file

    def on_train_begin(self, trainer: Trainer) -> None:
        self._rewrite(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if list(trainer.history) != self._columns:
            self._rewrite(trainer)  # a new metric is a new column
            return
        # Append, because History.to_csv waits for the disk: it takes 12 ms, and 45 ms after 1,000 epochs.
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(csv_lines(trainer.history, trainer.epoch - 1))
        except OSError as error:
            raise HandgradError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _rewrite(self, trainer: Trainer) -> None:
        self._columns = list(trainer.history)
        trainer.history.to_csv(self.path)


def resume(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Load a checkpoint into a trainer like the interrupted one. Then call `fit` with `until_epoch`.

    Raises HandgradError if the file is no checkpoint, is damaged, or is from another training. The trainer is unchanged
    in that case. Gives a HandgradWarning if the optimizer has other options than that of the interrupted training.
    """
    arrays, description = read_arrays(as_path(path))
    state = description.get("state")
    if not isinstance(state, dict):
        raise HandgradError(f"{path} is not a checkpoint: its metadata has no training state")
    for i, callback in enumerate(trainer.callbacks):
        if isinstance(callback, EarlyStopping | _WeightAverage):
            _check_size(path, trainer, {k: v for k, v in arrays.items() if k.startswith(f"callbacks.{i}.")})
    try:
        trainer.load_state_dict({**state, **arrays})
    except HandgradError as error:
        raise HandgradError(f"{path}: {error}") from error
    saved, now = description.get("optimizer"), repr(trainer.optimizer)
    if isinstance(saved, str) and saved != now:
        message = f"{path}: the interrupted training had the optimizer {saved}, and continues with {now}"
        warnings.warn(printable(message, MAX_MESSAGE), HandgradWarning, stacklevel=calls_of_handgrad())


def _check_size(path: str | os.PathLike[str], trainer: Trainer, vectors: dict[str, Any]) -> None:
    """Raise HandgradError unless the vectors have the size and the dtype of the parameters."""
    theta = trainer.network.parameters
    for name, vector in vectors.items():
        if vector.shape != theta.shape or vector.dtype != theta.dtype:
            raise HandgradError(
                f"{path} is the checkpoint of another training: {name} has shape {vector.shape} and dtype "
                f"{vector.dtype}: expected {theta.shape} and {theta.dtype}"
            )

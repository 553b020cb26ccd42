"""When a training is to end before its last epoch, and with which weights."""

from __future__ import annotations

from typing import Any

from .arrays import Array
from .errors import HandgradError
from .training import Callback, Trainer


class EarlyStopping(Callback):
    """Stop when `monitor` has not become better by more than `min_delta` for `patience` epochs.

    With `restore_best` the network ends with the weights of its best epoch; `best_epoch` (counted from 1) names it.
    """

    def __init__(
        self, monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0, restore_best: bool = True
    ) -> None:
        if patience < 1 or min_delta < 0:
            raise HandgradError(f"patience {patience}, min_delta {min_delta}: expected 1 epoch or more, and 0 or more")
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        self.best: float | None = None
        self.best_epoch = 0
        self.best_parameters: Array | None = None
        self._trainer: Trainer | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget what another training left."""
        if self._trainer not in (None, trainer):
            self.best, self.best_epoch, self.best_parameters = None, 0, None
        self._trainer = trainer

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Compare, keep the best, stop."""
        if not trainer.history.get(self.monitor):
            have = ", ".join(name for name, values in trainer.history.items() if values)
            raise HandgradError(f"EarlyStopping watches '{self.monitor}', and the history has {have}: give validation=")
        value = trainer.history[self.monitor][-1]
        gain = 0.0 if self.best is None else value - self.best
        if not self.monitor.endswith(("accuracy", "score")):
            gain = -gain
        if self.best is None or gain > self.min_delta:
            self.best, self.best_epoch = value, trainer.epoch
            if self.restore_best:
                self.best_parameters = trainer.network.parameters.copy()
        elif trainer.epoch - self.best_epoch >= self.patience:
            trainer.stop = True

    def on_train_end(self, trainer: Trainer) -> None:
        """Go back to the best epoch's weights; another `fit` goes on from there."""
        if self.best_parameters is not None:
            trainer.network.parameters[...] = self.best_parameters

    def __getstate__(self) -> dict[str, Any]:
        """A copy comes without the trainer, and goes on with the one that it is given."""
        return self.__dict__ | {"_trainer": None}

    def state(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_epoch": self.best_epoch, "best_parameters": self.best_parameters}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the best so far from a checkpoint."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_parameters = state["best_parameters"]
        self._trainer = None

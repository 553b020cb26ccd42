"""Run directories: configuration, history, checkpoints and results of a training, so that it can be resumed.

config.json               the recipe, the data set and the version of handgrad
checkpoint.safetensors    the training state; checkpoint-1, checkpoint-2, ... of the members of an ensemble
history.json              one number per epoch for each metric; history-1, history-2, ... of an ensemble
model.safetensors         the trained model
report.png                learning curves, weights, confusion matrix and errors; updated during a long run
teacher/                  the run of a teacher that is a recipe
"""

from __future__ import annotations

import time
from pathlib import Path

from .. import __version__
from ..data import Dataset
from ..errors import HandgradError
from ..io.atomic import read_json, write_json
from ..recipes import Recipe
from ..training import Callback, Trainer
from ..wrappers import Preprocessed
from .options import with_path

REPORT_SECONDS = 60  # between two reports during a run


class RunDirectory:
    """The directory of a run.

    It is created when training begins, so that invalid settings leave nothing behind.

    Parameters
    ----------
    path : Path
        The directory.
    recipe : Recipe
        The settings of the run.
    data : str
        Name of the data set, as for --data.
    new : bool
        False if a run in the directory is resumed.
    parent : RunDirectory, optional
        Directory that must be created first.
    """

    def __init__(self, path: Path, recipe: Recipe, data: str, *, new: bool, parent: RunDirectory | None = None) -> None:
        self.path, self.recipe, self.data, self.new, self.parent = path, recipe, data, new, parent
        self._created = False

    def create(self) -> None:
        """Create the directory and its config.json, once.

        Raises HandgradError if it cannot be written, or if another run has created it in the meantime.
        """
        if self._created:
            return
        if self.parent is not None:
            self.parent.create()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.new:  # of two runs that start at the same time, one gets the directory
                (self.path / "config.json").touch(exist_ok=False)
        except OSError as error:
            raise HandgradError(f"cannot start a run in {self.path}: {error.strerror}") from error
        config = {**self.recipe.config(), "data": self.data, "handgrad": __version__}
        write_json(self.path / "config.json", config)
        self._created = True


def read_config(path: Path) -> tuple[Recipe, str]:
    """Read config.json of a run directory.

    Returns
    -------
    recipe : Recipe
        The settings of the run.
    data : str
        Name of the data set, as for --data.

    Raises
    ------
    HandgradError
        If the file is missing, or was not written by `handgrad train`.
    """
    file = path / "config.json"
    config = read_json(file)
    try:
        data = config.pop("data")
        config.pop("handgrad")
    except (KeyError, TypeError, AttributeError) as error:
        raise HandgradError(f"{file} was not written by handgrad train: expected a recipe with its data set") from error
    return with_path(file, Recipe.from_config, config), str(data)


class HistoryWriter(Callback):
    """Writes the history to a file after each epoch."""

    def __init__(self, run: RunDirectory, suffix: str) -> None:
        self.run, self.name = run, f"history{suffix}.json"

    def on_train_begin(self, trainer: Trainer) -> None:
        """Create the run directory."""
        self.run.create()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Write the history."""
        write_json(self.run.path / self.name, trainer.history)


class GrowingReport(Callback):
    """Writes report.png once a minute: on the validation set, or only learning curves and weights without one."""

    def __init__(self, run: RunDirectory, dataset: Dataset) -> None:
        self.run, self.dataset = run, dataset
        self._last = 0.0  # time.monotonic() of the last report

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._last = time.monotonic()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Write a report if the last one is a minute old, except after the last epoch."""
        if time.monotonic() - self._last < REPORT_SECONDS or trainer.epoch == trainer.epochs:
            return
        from ..diagnostics.plots import report  # late: matplotlib takes longer to import than an epoch takes

        recipe, x, y = self.run.recipe, self.dataset.x_train, self.dataset.y_train
        first = len(x) - recipe.validation
        preprocessing = recipe.preprocessing(x.shape[1:])
        network = trainer.network
        report(
            self.run.path / "report.png",
            network if preprocessing is None else Preprocessed(network, preprocessing),
            trainer.history,
            *((x[first:], y[first:]) if recipe.validation else ()),
            title=f"{recipe.name}: after {trainer.epoch} of {trainer.epochs} epochs",
            part="validation",
        )
        self._last = time.monotonic()

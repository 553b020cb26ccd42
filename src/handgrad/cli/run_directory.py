"""Run directories: configuration, history, checkpoints and results of a training, so that it can be resumed.

config.json               the recipe, the data set and the version of handgrad
checkpoint.safetensors    the training state; checkpoint-1, checkpoint-2, ... of the members of an ensemble
history.json              one number per epoch for each metric; history-1, history-2, ... of an ensemble
start.safetensors         the model that a fine-tuning starts from
model.safetensors         the trained model
model.md                  model card: settings, data, results, environment, how to load the model
result.json               the result on the test set; written at the end of a run
report.png                learning curves, weights, confusion matrix and errors; updated during a long run
teacher/                  the run of a teacher that is a recipe
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..arrays import check_int
from ..data import Dataset
from ..errors import HandgradError
from ..io.atomic import read_json, remove_temporary_files, write_json
from ..io.locks import DirectoryLock, LockedError
from ..io.models import load, save
from ..model import Model
from ..recipes import Recipe
from ..training import Callback, Trainer
from ..wrappers import Preprocessed
from .options import with_path

RESULT = "result.json"
START = "start.safetensors"
REPORT_SECONDS = 60  # between two reports during a run


class Start(NamedTuple):
    """What a fine-tuning starts from.

    Attributes
    ----------
    model : Model
        The model.
    path : str
        Where it is from.
    freeze : int
        Number of Dense layers whose weights do not change.
    """

    model: Model
    path: str
    freeze: int


class RunConfig(NamedTuple):
    """What config.json of a run contains.

    Attributes
    ----------
    recipe : Recipe
        The settings.
    data : str
        Name of the data set, as for --data.
    label : str or None
        Column of the labels of a CSV file, as for --label.
    shuffle : {"rows", "blocks"} or None
        Order of the examples in an epoch, for files that are read when they are used.
    origin : str or None
        Path of the model that a fine-tuning starts from.
    freeze : int
        Number of Dense layers whose weights do not change.
    """

    recipe: Recipe
    data: str
    label: str | None
    shuffle: str | None
    origin: str | None
    freeze: int


class RunDirectory:
    """The directory of a run.

    It is created when training begins, so that invalid settings leave nothing behind. As long as a process trains in
    the directory, it holds a lock of it: use it in a `with` statement, which locks the directory of a resumed run.

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
    start : Start, optional
        What a fine-tuning starts from.
    parent : RunDirectory, optional
        Directory that must be created first.
    is_main : bool
        False in a process of a parallel training that writes nothing, and therefore locks nothing.
    shuffle : str, optional
        Order of the examples in an epoch, "rows" or "blocks", for files that are read when they are used. A resumed run
        has the same order, also if the memory is not the same.
    label : str, optional
        Column of the labels of a CSV file, as for --label.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        data: str,
        *,
        new: bool,
        start: Start | None = None,
        parent: RunDirectory | None = None,
        is_main: bool = True,
        shuffle: str | None = None,
        label: str | None = None,
    ) -> None:
        self.path, self.recipe, self.data, self.new, self.parent = path, recipe, data, new, parent
        self.start, self.is_main, self.shuffle, self.label = start, is_main, shuffle, label
        self._created = self._saved = False
        self._lock: DirectoryLock | None = None

    def __enter__(self) -> RunDirectory:
        if not self.new and self.is_main:
            self.lock()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def lock(self) -> None:
        """Lock the existing directory, once. Raises HandgradError if another process trains in it."""
        if self._lock is None:
            try:
                self._lock = DirectoryLock(self.path)
            except LockedError as error:
                raise HandgradError(f"{error}: wait until it ends, or choose another directory") from error
            except OSError as error:
                raise HandgradError(f"cannot write to {self.path}: {error.strerror}") from error

    def create(self) -> None:
        """Create the directory and its config.json, once, and remove temporary files that a killed process has left.

        Raises HandgradError if it cannot be written, or if another process has started a run in it in the meantime.
        """
        if self._created:
            return
        if self.parent is not None:
            self.parent.create()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HandgradError(f"cannot start a run in {self.path}: {error.strerror}") from error
        self.lock()
        remove_temporary_files(self.path)
        if self.new and has_run(self.path):
            raise HandgradError(f"another process has started a run in {self.path}: choose another directory")
        config = {**self.recipe.config(), "data": self.data, "handgrad": __version__}
        if self.start is not None:
            if self.new:
                save(self.start.model, self.path / START)  # before config.json, which makes the directory a run
            config |= {"from": self.start.path, "freeze": self.start.freeze}
        if self.shuffle is not None:
            config["shuffle"] = self.shuffle
        if self.label is not None:
            config["label"] = self.label
        write_json(self.path / "config.json", config)
        self._created = True

    def save(self, model: Model) -> None:
        """Write the trained model."""
        save(model, self.path / "model.safetensors")
        self._saved = True

    def finish(self, numbers: dict[str, Any], *, stopped: bool) -> None:
        """Write the result of the finished run; `stopped` if early stopping has ended it."""
        write_json(self.path / RESULT, {**numbers, "until_epoch": self.recipe.epochs, "stopped": stopped})

    def interrupted(self, saved: str) -> str:
        """Describe what an interrupted process leaves and how to continue; `saved` describes the saved epochs."""
        if self._saved:
            model = self.path / "model.safetensors"
            return f"{model} is saved; for its result and report, run handgrad train --resume {self.path}"
        if not has_run(self.path):
            return "nothing was saved"
        return f"{saved}; to continue, run handgrad train --resume {self.path}"


def is_unused(path: Path) -> bool:
    """Return whether a directory is empty, apart from hidden files of a process that was killed as it started."""
    try:
        return all(entry.name.startswith(".") for entry in path.iterdir())
    except OSError:
        return False


def has_run(path: Path) -> bool:
    """Return whether a directory contains a run.

    A process that is killed before its config.json leaves none, and neither does a system that crashes before the
    content of config.json is on the disk: such a directory has no settings and nothing that was trained.
    """
    config = path / "config.json"
    if not config.exists():
        return False
    return _is_readable(config) or any(path.glob("checkpoint*.safetensors")) or (path / "model.safetensors").exists()


def _is_readable(config: Path) -> bool:
    """Whether the file contains a JSON object, unlike an empty, incomplete or zero-filled one."""
    try:
        return isinstance(read_json(config), dict)
    except HandgradError:
        return False


def read_config(path: Path) -> RunConfig:
    """Read config.json of a run directory.

    Raises HandgradError if the file is missing or damaged, or was not written by `handgrad train`.
    """
    file = path / "config.json"
    if file.exists() and not _is_readable(file):
        remedy = (
            f"start another run, and load the weights that {path} has with handgrad.load"
            if has_run(path)
            else f"nothing was trained yet; start the run again with handgrad train --out {path}"
        )
        raise HandgradError(f"{file} is damaged, so that the settings of the run are lost: {remedy}")
    config = read_json(file)
    try:
        data = str(config.pop("data"))
        config.pop("handgrad")
        origin, freeze, shuffle, label = (config.pop(name, None) for name in ("from", "freeze", "shuffle", "label"))
    except (KeyError, TypeError, AttributeError) as error:
        raise HandgradError(f"{file} was not written by handgrad train: expected a recipe with its data set") from error
    if shuffle not in (None, "rows", "blocks"):
        raise HandgradError(f"{file}: shuffle must be rows or blocks, got {shuffle!r}")
    return RunConfig(
        with_path(file, Recipe.from_config, config),
        data,
        None if label is None else str(label),
        shuffle,
        None if origin is None else str(origin),
        with_path(file, check_int, "freeze", freeze or 0, 0),
    )


def read_start(path: Path, config: RunConfig) -> Start | None:
    """Read what the run in a directory starts from: a model in case of fine-tuning, or None."""
    return None if config.origin is None else Start(load(path / START), config.origin, config.freeze)


def read_result(path: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the result.json of a finished run, or None if there is something to train or to evaluate.

    A run that early stopping has ended is finished for every number of epochs.
    """
    try:
        result = read_json(path / RESULT)
        numbers = result["epochs"], result["test"]["correct"], result["test"]["total"]
        finished = result["stopped"] is True or result["until_epoch"] == recipe.epochs
    except (HandgradError, KeyError, TypeError):
        return None
    is_valid = all(type(number) is int for number in numbers) and 0 <= numbers[1] <= numbers[2] != 0
    return dict(result) if is_valid and finished and (path / "model.safetensors").exists() else None


class HistoryWriter(Callback):
    """Writes the history to a file after each epoch."""

    main_process_only = True

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

    main_process_only = True

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
        start = self.run.start
        preprocessing = recipe.fit_preprocessing(x, None if start is None else start.model)
        network = trainer.network
        report(
            self.run.path / "report.png",
            network if preprocessing is None else Preprocessed(network, preprocessing),
            trainer.history,
            *((np.asarray(x[first:]), y[first:]) if recipe.validation else ()),
            title=f"{recipe.name}: after {trainer.epoch} of {trainer.epochs} epochs",
            part="validation",
            soft_labels=recipe.teacher is not None,
        )
        self._last = time.monotonic()

"""Sweeps: train a grid of settings with several random seeds on the workers of a Dask cluster.

    sweep = Sweep(RECIPES["quick"].replace(validation=10_000), "mnist", {"lr": [1e-3, 3e-3]}, seeds=5)
    with local_client(workers=2) as client:
        rows = [sweep.row(task, outcome) for task, outcome in run(client, sweep.tasks())]
    for summary in sweep.summaries(rows):
        print(summary)

`handgrad sweep` does this on the command line. A task is a dict that JSON can represent. It contains the name or the
path of the data, not the data, so that a task takes 1 kB and can run again on another worker. A worker loads the data
once for all tasks of a sweep. Settings are compared on the validation set; the test set is never used.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import shlex
import socket
import statistics
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..arrays import check_int
from ..blas import one_blas_thread
from ..data import Dataset, load
from ..data.dataset import has_bright_background
from ..errors import HandgradError, HandgradWarning, optional
from ..recipes import RECIPES, Recipe
from ..training import Trainer

MEASURES = ("val_accuracy", "val_loss", "accuracy", "epochs", "seconds", "host")
RETRIES = 2  # of a task that raises an exception; a task whose worker is lost runs on another worker
CONNECT_SECONDS = 10
IGNORE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"  # the main process ends the workers


class LostSchedulerError(HandgradError):
    """The connection to the scheduler was lost."""


class Summary(NamedTuple):
    """The results of one setting over the seeds.

    Attributes
    ----------
    settings : dict
        Value of each setting of the grid.
    seeds : int
        Number of seeds with a result.
    failed : int
        Number of seeds without one, because the training diverged, for example.
    mean : float
        Mean validation accuracy.
    std : float
        Sample standard deviation of the validation accuracy over the seeds; NaN for one seed.
    loss : float
        Mean validation loss.
    seconds : float
        Mean time of a training.
    """

    settings: dict[str, Any]
    seeds: int
    failed: int
    mean: float
    std: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """A grid of settings of a recipe, each with several seeds.

    Parameters
    ----------
    recipe : Recipe
        The settings that are the same in all trainings. Its validation set is the one that settings are compared on.
    data : str
        Name or path of the data set, as for `handgrad.data.load`. All workers must be able to read it.
    values : dict of str to sequence
        The settings to combine, and the values of each.
    seeds : int
        Number of seeds: seed, seed + 1, ..., where seed is the seed of the recipe.
    label : str, optional
        Column of the labels of a CSV file, as for `handgrad.data.load`.

    Raises
    ------
    HandgradError
        If a combination is not a valid recipe.
    """

    recipe: Recipe
    data: str
    values: dict[str, list[Any]]
    seeds: int = 1
    label: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)  # workers load the data once for it

    def __post_init__(self) -> None:
        check_int("seeds", self.seeds, 1)
        self.recipes()

    def settings(self) -> list[dict[str, Any]]:
        """Return the combinations of the values."""
        return [dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*self.values.values())]

    def recipes(self) -> list[Recipe]:
        """Return the recipes of the combinations."""
        return [self.recipe_of(settings) for settings in self.settings()]

    def for_examples(self, count: int) -> Sweep:
        """Return the sweep for `count` training examples: at most a sixth of them, and at least one, are validated on.

        Without a number in the recipe, it is a sixth.
        """
        sixth = max(1, count // 6)
        return replace(self, recipe=self.recipe.replace(validation=min(self.recipe.validation or sixth, sixth)))

    def recipe_of(self, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe of one combination. Raises HandgradError if it is invalid."""
        return Recipe.from_config({**self.recipe.config(), **settings})

    def tasks(self) -> list[dict[str, Any]]:
        """Return the tasks, for `run_task`: every combination with the first seed, then with the second, ..."""
        return [
            {
                "settings": settings,
                "recipe": self.recipe_of({**settings, "seed": self.recipe.seed + i}).config(),
                "data": self.data,
                "label": self.label,
                "sweep": self.token,
                "handgrad": __version__,
            }
            for i in range(self.seeds)
            for settings in self.settings()
        ]

    def row(self, task: Mapping[str, Any], outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a finished task in the table: settings, seed, measures or the error."""
        message = outcome.get("error") or outcome.get("lost")
        error = {"error": message} if message else {}
        measures = {name: outcome[name] for name in MEASURES if name in outcome}
        return {**task["settings"], "seed": task["recipe"]["seed"], **measures, **error}

    def summaries(self, rows: Sequence[Mapping[str, Any]]) -> list[Summary]:
        """Return a summary of each setting that has a row, the best first.

        The best setting has the highest mean validation accuracy. Settings of which a training failed are last.
        """
        found = []
        for settings in self.settings():
            own = rows_of(rows, settings)
            if own:
                good = [row for row in own if "error" not in row]
                accuracies = [row["val_accuracy"] for row in good]
                found.append(
                    Summary(
                        settings,
                        seeds=len(good),
                        failed=len(own) - len(good),
                        mean=_mean(accuracies),
                        std=statistics.stdev(accuracies) if len(good) > 1 else math.nan,
                        loss=_mean([row["val_loss"] for row in good]),
                        seconds=_mean([row["seconds"] for row in good]),
                    )
                )
        return sorted(found, key=lambda summary: (summary.failed > 0, -summary.mean if summary.seeds else 0.0))

    def indistinguishable(self, summaries: Sequence[Summary]) -> int:
        """Return how many settings are not clearly worse than the best one.

        The difference between two means is clear if it is larger than two standard errors, 2 √(s²/n + s'²/n'). Without
        a spread, for one seed, the result is 0.
        """
        best, *others = summaries
        errors = [2 * math.sqrt(best.std**2 / max(1, best.seeds) + s.std**2 / max(1, s.seeds)) for s in others]
        return sum(best.mean - s.mean < error for s, error in zip(others, errors, strict=True) if not s.failed)

    def check(self, data: Mapping[str, Any]) -> None:
        """Raise HandgradError if the data, as `describe_data` describes them, and a value of a setting do not fit."""
        if self.recipe.validation >= data["examples"]:
            raise HandgradError(
                f"validation {self.recipe.validation}: expected less than the {data['examples']} training examples, "
                f"for example {data['examples'] // 6}"
            )
        first = self.settings()[0]
        for name, values in self.values.items():
            for value in values:
                recipe = self.recipe_of({**first, name: value})
                recipe.trainer(tuple(data["shape"]), data["classes"])

    def command(self, settings: Mapping[str, Any]) -> str:
        """Return the line `handgrad train ...` of a setting, which gives the network of the first seed."""
        recipe = self.recipe_of(settings)
        base = RECIPES[recipe.name]
        words = ["handgrad", "train", "--recipe", recipe.name]
        words += [] if self.data == "mnist" else ["--data", self.data]
        words += [] if self.label is None else ["--label", self.label]
        for setting in fields(Recipe):
            value = getattr(recipe, setting.name)
            if value == getattr(base, setting.name):
                continue
            flag = setting.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words += [f"--{flag}", text]
        return shlex.join(words)


def rows_of(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of one combination of settings."""
    return [row for row in rows if all(row[name] == value for name, value in settings.items())]


def _mean(numbers: Sequence[float]) -> float:
    return statistics.fmean(numbers) if numbers else math.nan


def format_value(value: Any) -> str:
    """Return a value as it is written on the command line of a sweep: 512x512, on, 0.001, tanh+relu."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return "x".join(map(str, value)) or "none"
    return str(value).replace(",", "+")


def format_settings(settings: Mapping[str, Any]) -> str:
    """Return "lr 0.001, hidden 512x512"."""
    return ", ".join(f"{name.replace('_', ' ')} {format_value(value)}" for name, value in settings.items())


# ---- Tasks, which run in the workers ---------------------------------------------------------------------------------

_loading = threading.Lock()


@functools.lru_cache(maxsize=1)
def _load(data: str, sweep: str, label: str | None) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandgradWarning)  # they are about the data, not about a task
        return load(data, label=label)


def _dataset(data: str, sweep: str, label: str | None) -> Dataset:
    """The data set, which is loaded once per sweep and process."""
    with _loading:
        return _load(data, sweep, label)


def _problem(data: str, sweep: str, version: str, label: str | None) -> str | None:
    """Why this worker cannot run tasks of the sweep, or None."""
    host = socket.gethostname()
    if version != __version__:
        return f"the worker on {host} has handgrad {__version__}, but this process {version}: install the same version"
    try:
        _dataset(data, sweep, label)
    except HandgradError as error:
        return f"the worker on {host} cannot read the data: {error}"
    return None


def describe_data(data: str, sweep: str, version: str, label: str | None = None) -> dict[str, Any]:
    """Load the data in a worker, and return what `describe` returns.

    If the worker cannot run tasks, the only item is "problem", a line of text.
    """
    problem = _problem(data, sweep, version, label)
    if problem is not None:
        return {"problem": problem}
    return describe(_dataset(data, sweep, label))


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what a sweep has to know about a data set."""
    return {
        "name": dataset.name,
        "examples": len(dataset.x_train),
        "shape": list(dataset.x_train.shape[1:]),
        "classes": len(dataset.classes),
        "bright": dataset.is_images and has_bright_background(dataset.x_train[:1000]),
    }


def run_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Train one recipe, with one BLAS thread, and evaluate it on its validation set.

    Parameters
    ----------
    task : dict
        An item of `Sweep.tasks`.

    Returns
    -------
    dict
        "val_accuracy" and "val_loss" of the model, "accuracy" of the training set in the last epoch, "epochs",
        "seconds", and "host". If the training failed, because it diverged for example, "error" has the message. If the
        worker cannot read the data, or has another version of handgrad, the only item is "problem".
    """
    label = task.get("label")
    problem = _problem(task["data"], task["sweep"], task["handgrad"], label)
    if problem is not None:
        return {"problem": problem}
    dataset, recipe = _dataset(task["data"], task["sweep"], label), Recipe.from_config(task["recipe"])
    x, y = dataset.x_train, dataset.y_train
    first = len(x) - recipe.validation
    trainers: list[Trainer] = []
    started = time.perf_counter()
    host = {"host": socket.gethostname()}
    with one_blas_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HandgradWarning)  # the table shows what they say
        try:
            model = recipe.train(
                x, y, len(dataset.classes), on_trainer=lambda trainer, member: trainers.append(trainer)
            )
            validation = model.evaluate(x[first:], y[first:])
        except HandgradError as error:
            return {"error": str(error), "seconds": time.perf_counter() - started, **host}
    return {
        "val_accuracy": validation.accuracy,
        "val_loss": validation.loss,
        "accuracy": float(trainers[-1].history["accuracy"][-1]),
        "epochs": sum(trainer.epoch for trainer in trainers),
        "seconds": time.perf_counter() - started,
        **host,
    }


# ---- Dask ------------------------------------------------------------------------------------------------------------


@contextmanager
def local_client(workers: int) -> Iterator[Any]:
    """A Dask client of new processes on this machine, one thread each. They end with the `with` block.

    The scheduler accepts connections from this machine only. A process that dies is replaced.
    """
    distributed = _distributed()
    with (
        _quiet(),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # with None, it would listen on all interfaces
            memory_limit=0,  # Dask would restart a process that it considers too large
            silence_logs=logging.CRITICAL,
            preload=[IGNORE_CTRL_C],
        ) as cluster,
    ):
        try:
            with distributed.Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            with contextlib.suppress(Exception):
                cluster.sync(_end, list(cluster.workers.values()))


async def _end(nannies: Sequence[Any]) -> None:
    """End the processes at once. By default, Dask waits four seconds for a training."""
    await asyncio.gather(*(nanny.close(timeout=0.1) for nanny in nannies))


@contextmanager
def cluster_client(address: str) -> Iterator[Any]:
    """A Dask client of the scheduler at an address, such as tcp://10.0.0.1:8786.

    Raises HandgradError if there is no scheduler.
    """
    distributed = _distributed()
    with _quiet():
        try:
            distributed.comm.get_address_host_port(address)  # raises ValueError sooner than a client
            client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise HandgradError(
                f"there is no Dask scheduler at {address} ({_cause(error)}): start one with dask scheduler, and "
                "workers with dask worker"
            ) from error
        with client:
            yield client


def _distributed() -> Any:
    """The package `distributed` of Dask."""
    return optional("distributed", "dask")


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the `with` block, Dask logs nothing: what matters is in the outcomes and in exceptions."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The first line of the message of an error, or its type."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def run(client: Any, tasks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Run tasks on a Dask cluster: an iterator of (task, outcome) in the order in which they finish.

    A task whose worker is lost runs again on another one, and a task that raises an exception runs up to three times.
    If that does not help, its outcome has the only item "lost", a line of text. Tasks that have not finished when the
    iterator is closed are cancelled.

    Raises
    ------
    HandgradError
        If a worker cannot read the data or has another version of handgrad. The outcomes until then are valid.
    LostSchedulerError
        If the connection to the scheduler is lost.
    """
    distributed = _distributed()
    futures = client.map(run_task, tasks, pure=False, retries=RETRIES, key=f"handgrad-{uuid.uuid4().hex[:8]}")
    task_of = {future.key: task for future, task in zip(futures, tasks, strict=True)}
    try:
        for future in distributed.as_completed(futures, loop=client.loop):
            outcome = _outcome(future)
            if "problem" in outcome:
                raise HandgradError(outcome["problem"])
            yield task_of[future.key], outcome
    finally:
        client.cancel(futures)


def _outcome(future: Any) -> dict[str, Any]:
    """What the future of a task contains."""
    distributed = _distributed()
    if future.status in ("cancelled", "lost"):
        raise LostSchedulerError("the connection to the Dask scheduler was lost")
    error = future.exception()
    if error is None:
        return dict(future.result())
    if isinstance(error, distributed.KilledWorker):
        return {"lost": "each worker that ran this training ended unexpectedly: is there enough memory?"}
    if isinstance(error, ImportError):
        return {"problem": f"a worker cannot import handgrad ({_cause(error)}): install it on every machine"}
    return {"lost": f"{type(error).__name__}: {_cause(error)}"}


def inspect_data(client: Any, sweep: Sweep) -> dict[str, Any]:
    """Return what `describe_data` returns in one worker. Raises HandgradError if the worker cannot read the data."""
    arguments = sweep.data, sweep.token, __version__, sweep.label
    future = client.submit(describe_data, *arguments, pure=False, retries=RETRIES)
    error = future.exception()
    if error is not None:
        if isinstance(error, ImportError):
            raise HandgradError(f"a worker cannot import handgrad ({_cause(error)}): install it on every machine")
        raise HandgradError(f"no worker could load the data: {type(error).__name__}: {_cause(error)}")
    described = dict(future.result())
    if "problem" in described:
        raise HandgradError(described["problem"])
    return described


# ---- Plot ------------------------------------------------------------------------------------------------------------

MAX_PLOTTED = 40  # settings


def plot(sweep: Sweep, rows: Sequence[Mapping[str, Any]], path: str | Path | None = None) -> Any:
    """Plot the validation accuracy of each setting, the best at the top: one point per seed, and the mean.

    Returns the Matplotlib figure, and writes it to a PNG file if there is a path. At most 40 settings are shown.
    """
    from ..diagnostics.plots import (  # late: matplotlib is slow
        GREY,
        MAX_TITLE,
        TEXT,
        TRAINING,
        VALIDATION,
        _finish,
        _short,
        new_figure,
    )

    shown = [summary for summary in sweep.summaries(rows) if summary.seeds][:MAX_PLOTTED]
    figure = new_figure((8, 1.4 + 0.28 * max(1, len(shown))))
    axes = figure.subplots()
    points = [
        (100 * row["val_accuracy"], i)
        for i, summary in enumerate(shown)
        for row in rows_of(rows, summary.settings)
        if "error" not in row
    ]
    means = [(100 * summary.mean, i) for i, summary in enumerate(shown)]
    for label, pairs, style in (
        ("one seed", points, {"marker": "o", "ms": 5, "alpha": 0.7, "color": TRAINING}),
        ("mean", means, {"marker": "D", "ms": 6, "color": VALIDATION}),
    ):
        axes.plot([x for x, _ in pairs], [i for _, i in pairs], ls="", label=label, **style)
    axes.set_yticks(range(len(shown)), [format_settings(s.settings) or sweep.recipe.name for s in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("validation accuracy in %", color=GREY)
    title = _short(f"{sweep.recipe.name} on {Path(sweep.data).name}", MAX_TITLE)
    axes.set_title(title, fontsize=11, color=TEXT, loc="left", parse_math=False)
    axes.grid(axis="x", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(frameon=False, fontsize=9, labelcolor=TEXT)
    return _finish(figure, path)

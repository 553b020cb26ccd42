"""A run: a recipe trained on a set of pictures, in a directory that a killed run goes on from, and told as it goes.

config.json               what the run is
checkpoint.safetensors    where it stands; history.json its numbers so far; of a ensemble one for each member, -2
model.safetensors         what came out, and report.png a picture of it, which grows with a long run
teacher/                  the run of a teacher that is a recipe
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from .._blas import blas_threads
from ..callbacks import Checkpoint, resume
from ..data.dataset import Dataset
from ..errors import HandgradError
from ..io.atomic import write_json
from ..io.models import load as load_model
from ..io.models import save
from ..model import Model, Evaluation
from ..network import Network
from ..recipes import RECIPES, Recipe
from ..training import Callback, Trainer
from ..wrappers import Ensemble


def train(
    chosen: Recipe, dataset: Dataset, run: Run, tell: ProgressReporter
) -> tuple[Network | Ensemble, list[Trainer]]:
    """Train all that the recipe says, its teacher first, and save it: what answers, and a trainer for each member."""
    (x, y), validation = (dataset.x_train, dataset.y_train), None
    if chosen.validation:
        (x, y), validation, _ = dataset.split(chosen.validation)
    height, width = x.shape[1:]
    chosen.trainer((height, width), len(dataset.classes))  # what is wrong with it is told before a teacher is trained
    teacher = None if chosen.teacher is None else _teacher(chosen, dataset, run, tell)
    trainers = []
    for member in range(chosen.members):
        trainer = chosen.trainer((height, width), len(dataset.classes), member=member, teacher=teacher)
        trainer.network.classes = dataset.classes
        suffix = f"-{member + 1}" if chosen.members > 1 else ""
        checkpoint = Checkpoint(run.place / f"checkpoint{suffix}.safetensors", share=0.05)
        tell.begin(chosen, trainer, dataset, len(x), checkpoint, member)
        trainer.callbacks += [HistoryWriter(run, suffix), tell, GrowingReport(run, chosen.name, validation), checkpoint]
        if not run.new and checkpoint.path.exists():
            resume(trainer, checkpoint.path)
        with blas_threads(trainer.network, chosen.batch_size):
            trainer.fit(x, y, epochs=chosen.epochs, validation=validation)
        trainers.append(trainer)
    classifier = chosen.classifier([trainer.network for trainer in trainers])
    save(classifier, run.place / "model.safetensors")
    return classifier, trainers


def _teacher(pupil: Recipe, dataset: Dataset, run: Run, tell: ProgressReporter) -> Model:
    """The model that the pupil's recipe names: a file's, or a recipe's, trained in the pupil's own directory, once."""
    if pupil.teacher not in RECIPES:
        return load_model(str(pupil.teacher))
    run.begin()  # one that is stopped in its teacher's training can go on
    place = run.place / "teacher"
    if not run.new and (place / "model.safetensors").exists():
        return load_model(place / "model.safetensors")
    chosen = RECIPES[pupil.teacher].with_choices(validation=pupil.validation, seed=pupil.seed)
    known = not run.new and (place / "config.json").exists()
    config = run.config | chosen.config()
    return train(chosen, dataset, Run(place, config, new=not known), tell)[0]


class Run:
    """The directory of a run, made when all is seen to be well: config.json says what the run is."""

    def __init__(self, place: Path, config: dict[str, Any], *, new: bool) -> None:
        self.place, self.config, self.new, self.begun = place, config, new, False

    def begin(self) -> None:
        """Make it, once."""
        if self.begun:
            return
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            if self.new:  # of two runs that begin at once, one has it
                (self.place / "config.json").touch(exist_ok=False)
        except OSError as error:
            raise HandgradError(f"cannot begin a run in {self.place}: {error.strerror}") from error
        write_json(self.place / "config.json", self.config)
        self.begun = True


class HistoryWriter(Callback):
    """Keeps the history of a member in the run's directory."""

    def __init__(self, run: Run, suffix: str) -> None:
        self.run, self.name = run, f"history{suffix}.json"

    def on_train_begin(self, trainer: Trainer) -> None:
        """Let there be a directory."""
        self.run.begin()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Write it anew."""
        write_json(self.run.place / self.name, trainer.history)


class GrowingReport(Callback):
    """In a long run, a report every minute: of the held-out set, or where there is none of the curves alone."""

    def __init__(self, run: Run, name: str, held_out: tuple[Any, Any] | None) -> None:
        self.run, self.name, self.held_out = run, name, held_out or ()
        self.last = 0.0  # on the clock

    def on_train_begin(self, trainer: Trainer) -> None:
        """The first is due in a minute."""
        self.last = time.monotonic()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Write report.png anew, where the last one is a minute old."""
        if time.monotonic() - self.last < 60 or trainer.epoch == trainer.epochs:
            return
        from ..diagnostics.plots import report

        title = f"{self.name}: after {trainer.epoch} of {trainer.epochs} epochs"
        place = self.run.place / "report.png"
        report(place, trainer.network, trainer.history, *self.held_out, title=title, part="validation")
        self.last = time.monotonic()


def sizes_of(network: Network) -> list[int]:
    return [network.n_in, *(len(W) for W, _ in network.weights)]


def describe(recipe: Recipe, network: Network) -> str:
    """The network and its training, in a line or two."""
    line = (
        f"{recipe.name}: {sizes_of(network)}, {network.parameters.size:,} parameters, {recipe.activation}, "
        f"{recipe.loss}, {recipe.optimizer} lr {recipe.lr:g}, batches of {recipe.batch_size}, seed {recipe.seed}"
    )
    plain = {choice.name: choice.default for choice in fields(Recipe)}
    told = ("name", "hidden", "activation", "loss", "optimizer", "lr", "batch_size", "seed", "epochs", "validation")
    more = [
        name.replace("_", " ") + ("" if value is True else f" {value}")
        for name, value in recipe.config().items()
        if name not in told and value != plain[name]
    ]
    return f"{line}\nwith {', '.join(more)}" if more else line


class ProgressReporter(Callback):
    """Tells a person, or with `as_json` a program, how training goes: a bar on a terminal, a line for each epoch."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.lines, self.as_json = not (quiet or as_json), as_json
        self.epochs_as_json = as_json and not quiet
        self.what = self.whose = ""  # the lines to begin with, and whose epochs they are
        self.which: dict[str, Any] = {}  # the same for programs
        self.bar: Any = None
        self.trainer: Trainer | None = None
        self.checkpoint: Checkpoint | None = None

    def warn(self, line: str) -> None:
        """One line that must be seen, on stderr even when quiet."""
        click.secho(f"*** {line} ***", err=True, bold=True, fg="yellow")

    def begin(
        self, recipe: Recipe, trainer: Trainer, dataset: Dataset, count: int, checkpoint: Checkpoint, member: int
    ) -> None:
        """Know what is about to be trained, on what."""
        self.stop()
        self.trainer, self.checkpoint = trainer, checkpoint
        held_out = f", {recipe.validation:,} to watch it by" if recipe.validation else ""
        self.what = (
            f"{describe(recipe, trainer.network)}\n"
            f"{dataset.name}: {count:,} to train on{held_out}, {len(dataset.x_test):,} to test on"
        )
        self.which = {"recipe": recipe.name} | ({} if recipe.members == 1 else {"member": member + 1})
        self.whose = "" if recipe.members == 1 else f" of member {member + 1} of {recipe.members}"
        if member:
            self.what = f"member {member + 1} of {recipe.members}"

    def kept(self) -> str:
        """What a run that is stopped now can go on from."""
        if self.trainer is None or self.checkpoint is None:
            return "nothing is done yet"
        return f"{self.checkpoint.epoch} of {self.trainer.epochs} epochs{self.whose} are done and kept"

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the bar, which shows itself on a terminal only and at most ten times a second."""
        if self.lines:
            click.echo(self.what)
            if trainer.epoch:
                click.echo(f"going on after epoch {trainer.epoch}")
            from tqdm import tqdm

            done, total = trainer.epoch * trainer.batches, trainer.epochs * trainer.batches
            self.bar = tqdm(total=total, initial=done, unit="batch", leave=False, disable=None, file=sys.stderr)

    def on_batch_end(self, trainer: Trainer) -> None:
        """Move the bar, now and then: it tells the time that is left."""
        if self.bar is not None and trainer.batch % 100 == 0:
            self.bar.update(trainer.epoch * trainer.batches + trainer.batch - self.bar.n)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """The epoch's numbers."""
        numbers = {name: values[-1] for name, values in trainer.history.items()}
        if self.epochs_as_json:
            click.echo(json.dumps({**self.which, "epoch": trainer.epoch, **numbers}))
        if not self.lines:
            return
        line = f"epoch {trainer.epoch:{len(str(trainer.epochs))}}/{trainer.epochs}"
        line += f"  loss {numbers['loss']:.4f}  train {numbers['accuracy']:7.2%}"
        if trainer.validation is not None:
            line += f"  validation loss {numbers['val_loss']:.4f}  {count_of(trainer.validation)}"
        line += f"  {numbers['seconds']:.2f} s"
        if self.bar is not None:
            self.bar.clear()
        click.echo(line)
        if self.bar is not None:
            self.bar.update(trainer.epoch * trainer.batches - self.bar.n)

    def stop(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def result(self, test: Evaluation, trainers: list[Trainer], run: Path) -> None:
        """What came out, and where it is."""
        epochs = sum(trainer.epoch for trainer in trainers)
        seconds = sum(sum(trainer.history["seconds"]) for trainer in trainers)
        if self.as_json:
            result = {"loss": test.loss, "accuracy": test.accuracy, "correct": test.correct, "total": test.total}
            click.echo(json.dumps({"test": result, "epochs": epochs, "seconds": seconds, "run": str(run)}))
            return
        told = f"{epochs} epoch{'s' if epochs > 1 else ''} in {seconds:.1f} s"
        click.echo(f"test: {count_of(test)} right, loss {test.loss:.4f}; {told}")
        histories = "history.json" if len(trainers) == 1 else f"history-1.json to history-{len(trainers)}.json"
        click.echo(f"results in {run}: model.safetensors, {histories}, config.json, report.png")
        click.echo(f"try: handgrad predict {run / 'model.safetensors'} PICTURE.png")


def count_of(evaluation: Evaluation) -> str:
    return f"{evaluation.correct:,} / {evaluation.total:,} ({evaluation.accuracy:.2%})"

"""Progress of a training on the terminal: settings, one line per epoch, a progress bar, the result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..callbacks import Checkpoint
from ..data import Dataset
from ..images.hog import HOG
from ..io.atomic import encode_json
from ..ladder import Ladder
from ..layers import Dense
from ..model import Evaluation
from ..network import Network
from ..progress import ProgressBar
from ..recipes import Recipe
from ..training import Trainer
from .echo import echo, warn

# Settings that the first two lines of `describe` and the line of the data set show.
_SHOWN = {"name", "hidden", "activation", "loss", "optimizer", "lr", "schedule", "batch_size", "epochs", "seed"}
_SHOWN |= {"validation", "members"}


def layer_sizes(network: Network) -> list[str]:
    """Return the number of inputs, "HOG" with the number of its outputs, and the width of each Dense layer or level."""
    hog = [f"HOG {layer.n_out}" for layer in network.layers if isinstance(layer, HOG)]
    levels = [str(n) for layer in network.layers if isinstance(layer, Ladder) for n in layer.sizes[1:]]
    dense = [str(layer.n_out) for layer in network.layers if isinstance(layer, Dense)]
    return [str(network.n_in), *hog, *levels, *dense]


def format_sizes(network: Network) -> str:
    """Return "[784, 30, 10]"."""
    return f"[{', '.join(layer_sizes(network))}]"


def describe(recipe: Recipe, network: Network) -> list[str]:
    """Describe a network and its training in two lines, and other settings in a third if there are any."""
    lines = [
        f"recipe {recipe.name}: {format_sizes(network)}, {network.parameters.size:,} parameters, "
        f"activation {recipe.activation}, loss {recipe.loss}",
        f"training: {recipe.optimizer}, learning rate {recipe.lr:g} ({recipe.schedule}), "
        f"batch size {recipe.batch_size}, {count(recipe.epochs, 'epoch')}, seed {recipe.seed}",
    ]
    others = changed_settings(recipe, recipe.config().keys() - _SHOWN)
    return [*lines, f"also: {others}"] if others else lines


def describe_smoothing(recipe: Recipe) -> list[str]:
    """Say in one line which of the losses are with label smoothing, if any are. A teacher's labels are not smoothed."""
    calibrated = recipe.calibration != 1 or recipe.validation > 0
    losses = {"training": recipe.teacher is None, "validation": recipe.validation > 0, "test": not calibrated}
    *others, last = [name for name, smoothed in losses.items() if smoothed] or [""]
    if not recipe.label_smoothing or not last:
        return []
    names = f"{', '.join(others)} and {last}" if others else last
    rest = ", not the test loss" if calibrated else ""
    return [f"label smoothing {recipe.label_smoothing:g} increases the {names} loss{rest}"]


def changed_settings(recipe: Recipe, names: Collection[str]) -> str:
    """Return the named settings that differ from their defaults: "rotation 3, scale 0.1"."""
    defaults = {setting.name: setting.default for setting in fields(Recipe)}
    return ", ".join(
        name.replace("_", " ") + ("" if value is True else f" {_value_text(value)}")
        for name, value in recipe.config().items()
        if name in names and value != defaults[name]
    )


def _value_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).removesuffix(".0")


def count(number: int, noun: str) -> str:
    """Return "1 epoch", "2 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_correct(evaluation: Evaluation) -> str:
    """Return "9,531 / 10,000 correct (95.31%)"."""
    return f"{evaluation.correct:,} / {evaluation.total:,} correct ({evaluation.accuracy:.2%})"


def result_numbers(test: Evaluation, trainers: Sequence[Trainer]) -> dict[str, Any]:
    """Return the result of a run on the test set, the number of epochs and their time, as JSON values."""
    numbers = {"loss": test.loss, "accuracy": test.accuracy, "correct": test.correct, "total": test.total}
    epochs = sum(trainer.epoch for trainer in trainers)
    seconds = sum(sum(trainer.history["seconds"]) for trainer in trainers)
    return {"test": numbers, "epochs": epochs, "seconds": seconds}


class ProgressReporter(ProgressBar):
    """Prints the progress of a training: a progress bar on a terminal and a line for each epoch, or JSON.

    Parameters
    ----------
    quiet : bool
        Print only the result.
    as_json : bool
        Print JSON, one object per line.
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json
        self.text = not (quiet or as_json)
        self.json_epochs = as_json and not quiet
        self._heading: list[str] = []
        self._member = ""
        self._json_labels: dict[str, Any] = {}
        self._recipe: Recipe | None = None
        self._checkpoint: Checkpoint | None = None

    def start(
        self,
        recipe: Recipe,
        network: Network,
        dataset: Dataset,
        checkpoint: Checkpoint,
        member: int,
        note: str | None = None,
    ) -> None:
        """Prepare for the training of a member of the ensemble, counted from 0, or of the only network.

        `note` is another line of the heading.
        """
        self.stop()
        self._recipe, self._checkpoint = recipe, checkpoint
        self._json_labels = {"recipe": recipe.name} | ({} if recipe.members == 1 else {"member": member + 1})
        self._member = "" if recipe.members == 1 else f"member {member + 1} of {recipe.members}"
        validation = f", {recipe.validation:,} validation" if recipe.validation else ""
        heading = [
            *describe(recipe, network),
            *describe_smoothing(recipe),
            *([] if note is None else [note]),
            f"{dataset.name}: {len(dataset.x_train) - recipe.validation:,} training examples{validation}, "
            f"{len(dataset.x_test):,} test",
        ]
        if dataset.notes:
            heading.append(f"data: {dataset.describe_example()}; {'; '.join(dataset.notes)}")
        self._heading = [*(heading if member == 0 else []), *([self._member] if self._member else [])]

    def saved(self) -> str:
        """Describe what a run that is stopped now can continue from."""
        if self._recipe is None or self._checkpoint is None:
            return "no epoch was saved"
        where = f" of {self._member}" if self._member else ""
        return f"{self._checkpoint.epoch} of {count(self._recipe.epochs, 'epoch')}{where} saved"

    def on_train_begin(self, trainer: Trainer) -> None:
        """Print the heading and open the progress bar, which is shown only on a terminal."""
        if not self.text:
            return
        echo(*self._heading)
        if trainer.epoch:
            echo(f"continuing after epoch {trainer.epoch}")
        self.open(trainer, leave=False)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Print the metrics of the epoch."""
        if self.json_epochs:
            echo(encode_json({**self._json_labels, "epoch": trainer.epoch, **trainer.metrics}))
        if not self.text:
            return
        metrics = trainer.metrics
        line = f"epoch {trainer.epoch:{len(str(trainer.epochs))}}/{trainer.epochs}"
        line += f"  training loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:6.2%}"
        if "val_loss" in metrics:
            line += f"  validation loss {metrics['val_loss']:.4f}, accuracy {metrics['val_accuracy']:6.2%}"
        line += f"  {metrics['seconds']:.2f} s"
        if self.bar is not None:
            self.bar.clear()
        echo(line)
        self.move(trainer.epoch * trainer.batches)

    def stop(self) -> None:
        """Close the progress bar."""
        self.close()

    def warn(self, message: str) -> None:
        """Close the progress bar and print a warning."""
        self.close()
        warn(message)

    def result(self, test: Evaluation, trainers: Sequence[Trainer], directory: Path, data: str) -> None:
        """Print the result on the test set, and where the files are."""
        numbers = result_numbers(test, trainers)
        if self.as_json:
            echo(encode_json({**numbers, "run": str(directory)}))
            return
        echo(f"test: {format_correct(test)}, loss {test.loss:.4f}")
        early = ", ended by early stopping" if any(trainer.stop for trainer in trainers) else ""
        echo(f"trained {count(numbers['epochs'], 'epoch')} in {numbers['seconds']:.1f} s{early}")
        histories = "history.json" if len(trainers) == 1 else f"history-1.json to history-{len(trainers)}.json"
        echo(f"results in {directory}: model.safetensors, model.md, report.png, {histories}, config.json")
        model, is_images = directory / "model.safetensors", trainers[-1].network.image_shape is not None
        hint = f"predict {model} IMAGE.png" if is_images else f"evaluate {model} --data {data}"
        echo(f"try: handgrad {hint}")

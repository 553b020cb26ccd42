"""The Python program that repeats a run: the calls that the lab has made, with the same weights bit for bit."""

from __future__ import annotations

import json
from typing import NamedTuple

from ..recipes import RECIPES
from .run import Run, Snapshot
from .settings import FROM_PAGE, Settings

WIDTH = 88  # characters of a line
OPTIMIZERS = {"sgd": "SGD", "momentum": "Momentum", "nesterov": "Nesterov", "adam": "Adam", "adamw": "AdamW"}

HEADER = '''"""{title}"""

import os

# The last bits of a sum depend on the number of threads.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
'''
FINISHED = '''

class Finished(Exception):
    """The last step is done."""'''
PLAN = '''

class Plan(Callback):
    """{what}"""
'''
RATES = """    rates = {rates}
"""
ON_BATCH_END = """    def on_batch_end(self, trainer):
        step = trainer.epoch * trainer.batches + trainer.batch"""
CHANGE = """        trainer.optimizer.lr = self.rates.get(step, trainer.optimizer.lr)"""
STOP = """        if step == {step}:
            raise Finished"""


class _Course(NamedTuple):
    """What happens in a run.

    `lr` is the first learning rate; `rates` are the changes, after a number of steps; `stop` is the step at which the
    program stops, or None if it trains whole epochs.
    """

    lr: float
    rates: dict[int, float]
    stop: int | None
    epochs: int
    diverged: bool

    @property
    def needs_callback(self) -> bool:
        return bool(self.rates) or self.stop is not None


def script(run: Run, snapshot: Snapshot) -> str:
    """Return a program that trains the network of a run up to a snapshot.

    It uses the public functions of handgrad only, and ends with the variable `network`.
    """
    settings, course = run.settings, _course(run, snapshot.step)
    first, *examples = run.examples.code
    lines = [
        HEADER.format(title=f"Repeat a run of handgrad lab: {snapshot.step:,} steps."),
        *_imports(settings, course, first),
        *_callback(course),
        *examples,
        "",
        *_trainer(settings, run.examples.n_in, len(run.examples.classes), course),
        "",
    ]
    if snapshot.step or course.diverged:
        lines += [*_fit(course), ""]
    return "\n".join([*lines, "print(network.evaluate(x_validation, y_validation))", ""])


def _course(run: Run, step: int) -> _Course:
    """What has happened in a run up to a step."""
    rates = {when: lr for when, lr in sorted(run.rates.items()) if when < step}
    lr, diverged = rates.pop(0, run.settings.lr), run.status == "diverged"
    complete = run.status == "finished" and step == run.step
    # The schedule of a recipe depends on the number of epochs, which therefore must not change.
    whole = step % run.epoch_steps == 0 and run.settings.recipe is None
    epochs = step // run.epoch_steps if whole and not diverged else run.settings.epochs
    return _Course(lr, rates, None if diverged or complete or whole else step, epochs, diverged)


def _imports(settings: Settings, course: _Course, examples: str) -> list[str]:
    names = {"Callback"} if course.needs_callback else set()
    names |= {"HandgradError"} if course.diverged else set()
    lines = {examples}
    if settings.recipe is None:
        names |= {"Network", "Trainer", OPTIMIZERS[settings.optimizer]}
        names |= {"SquaredError"} if settings.loss == "squared_error" else set()
    else:
        lines.add("from handgrad.recipes import RECIPES")
    if names:
        constants_first = sorted(names, key=lambda name: (not name.isupper(), name))
        lines.add(f"from handgrad import {', '.join(constants_first)}")
    return sorted(lines, key=lambda line: line.split(" import")[0])


def _callback(course: _Course) -> list[str]:
    """The classes that change the learning rate and stop within an epoch."""
    if not course.needs_callback:
        return []
    what = ["change the learning rate after the steps in `rates`"] if course.rates else []
    what += [f"stop after step {course.stop:,}"] if course.stop is not None else []
    sentence = " and ".join(what)
    lines = [FINISHED] if course.stop is not None else []
    lines.append(PLAN.format(what=f"{sentence[0].upper()}{sentence[1:]}."))
    lines += [RATES.format(rates=course.rates)] if course.rates else []
    lines.append(ON_BATCH_END)
    lines += [CHANGE] if course.rates else []
    lines += [STOP.format(step=course.stop)] if course.stop is not None else []
    return [*lines, ""]


def _trainer(settings: Settings, n_in: int, n_out: int, course: _Course) -> list[str]:
    """The lines that make `network` and `trainer`."""
    callbacks = {"callbacks": "[Plan()]"} if course.needs_callback else {}
    if settings.recipe is not None:
        return _recipe_trainer(settings, n_out, course.lr, callbacks)
    squared = settings.loss == "squared_error"
    options = {
        "activation": json.dumps(settings.activation),
        "loss": 'SquaredError("sigmoid")' if squared else json.dumps(settings.loss),
        **({"init": json.dumps(settings.initializer)} if settings.initializer else {}),
        **({"dropout": repr(settings.dropout)} if settings.dropout else {}),
        "rng": repr(settings.seed),
    }
    penalty = f", l2={settings.l2!r}" if settings.l2 else ""
    optimizer = f"{OPTIMIZERS[settings.optimizer]}({course.lr!r}{penalty})"
    training = {"batch_size": repr(settings.batch_size), **callbacks, "rng": repr(settings.seed)}
    return [
        *_call("network = Network", [str([n_in, *settings.hidden, n_out])], options),
        *_call("trainer = Trainer", ["network", optimizer], training),
    ]


def _recipe_trainer(settings: Settings, n_out: int, lr: float, callbacks: dict[str, str]) -> list[str]:
    recipe = RECIPES[str(settings.recipe)]
    chosen = {name: getattr(settings, name) for name in FROM_PAGE} | {"lr": lr, "threads": 1}
    changed = {name: repr(value) for name, value in chosen.items() if value != getattr(recipe, name)}
    name = f'recipe = RECIPES["{settings.recipe}"]'
    lines = [*(_call(f"{name}.replace", [], changed) if changed else [name]), "shape = x_train.shape[1:]"]
    if recipe.deskew:
        lines += [
            "preprocessing = recipe.preprocessing(shape)",
            "x_train, x_validation = preprocessing(x_train), preprocessing(x_validation)",
        ]
    return [*lines, *_call("trainer = recipe.trainer", ["shape", str(n_out)], callbacks), "network = trainer.network"]


def _fit(course: _Course) -> list[str]:
    """The call that trains."""
    options = {"until_epoch": str(course.epochs), "validation": "(x_validation, y_validation)"}
    call = _call("trainer.fit", ["x_train", "y_train"], options, WIDTH - 4)
    if course.stop is None and not course.diverged:
        return call
    error, ending = ("HandgradError as error", "print(error)") if course.diverged else ("Finished", "pass")
    return ["try:", *(f"    {line}" for line in call), f"except {error}:", f"    {ending}"]


def _call(function: str, arguments: list[str], options: dict[str, str], width: int = WIDTH) -> list[str]:
    """A call on one line, or with one argument on each line if it would be too long."""
    given = [*arguments, *(f"{name}={value}" for name, value in options.items())]
    line = f"{function}({', '.join(given)})"
    return [line] if len(line) <= width else [f"{function}(", *(f"    {argument}," for argument in given), ")"]

"""The Python program that repeats a run: the calls that the lab has made, with the same weights bit for bit."""

from __future__ import annotations

from ..recipes import RECIPES
from .session import Run, Snapshot
from .settings import FROM_PAGE, Settings

OPTIMIZERS = {"sgd": "SGD", "momentum": "Momentum", "nesterov": "Nesterov", "adam": "Adam", "adamw": "AdamW"}

HEADER = '''"""{title}"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the last bits of a sum depend on the number of threads
'''
PLAN = '''

class Plan(Callback):
    """{what}"""

    def on_batch_end(self, trainer):
        step = trainer.epoch * trainer.batches + trainer.batch
'''
RATES = """        trainer.optimizer.lr = {rates}.get(step, trainer.optimizer.lr)
"""
STOP = """        if step == {step}:
            raise Finished
"""


def script(run: Run, snapshot: Snapshot) -> str:
    """Return a program that trains the network of a run up to a snapshot.

    It uses the public functions of handgrad only, and ends with the variable `network`.
    """
    settings, step = run.settings, snapshot.step
    rates = {when: lr for when, lr in sorted(run.rates.items()) if when < step}
    settings_lr = rates.pop(0, settings.lr)
    diverged, complete = run.status == "diverged", run.status == "finished" and step == run.step
    constant = settings.recipe is None
    whole = step % run.epoch_steps == 0 and constant
    stops = step > 0 and not (diverged or complete or whole)
    names = _names(settings, plan=bool(rates or stops), diverged=diverged)
    imports = {run.examples.code[0]}
    if names:
        imports.add(f"from handgrad import {', '.join(sorted(names, key=_order))}")
    if settings.recipe is not None:
        imports.add("from handgrad.recipes import RECIPES")
    lines = [HEADER.format(title=_title(run, step)), *sorted(imports, key=lambda line: line.split(" import")[0])]
    if stops:
        lines += ["", "", "class Finished(Exception):", '    """The last step is done."""']
    if rates or stops:
        what = [f"Change the learning rate after {_listed(rates)}"] if rates else []
        what += [f"stop after step {step:,}" if rates else f"Stop after step {step:,}"] if stops else []
        lines.append(PLAN.format(what=" and ".join(what) + ".").rstrip("\n"))
        lines += [RATES.format(rates=rates).rstrip("\n")] if rates else []
        lines += [STOP.format(step=step).rstrip("\n")] if stops else []
        lines += ["", ""]
    sizes = run.examples.n_in, len(run.examples.classes)
    lines += [*run.examples.code[1:], "", *_trainer(settings, *sizes, settings_lr, plan=bool(rates or stops))]
    if step or diverged:
        epochs = step // run.epoch_steps if whole and not diverged else settings.epochs
        lines += ["", *_fit(epochs, stops=stops, diverged=diverged)]
    data = "x_validation, y_validation"
    lines += ["", f"print(network.evaluate({data}))", ""]
    return "\n".join(lines)


def _title(run: Run, step: int) -> str:
    epochs = f"{step / run.epoch_steps:.4g} epochs"
    return f"Repeat a run of handgrad lab: {step:,} steps, {epochs}, with the same weights bit for bit."


def _names(settings: Settings, *, plan: bool, diverged: bool) -> set[str]:
    """What the program imports from handgrad."""
    names = {"Callback"} if plan else set()
    if settings.recipe is None:
        names |= {"Network", "Trainer", OPTIMIZERS[settings.optimizer]}
        names |= {"SquaredError"} if settings.loss == "squared_error" else set()
    return names | ({"HandgradError"} if diverged else set())


def _order(name: str) -> tuple[bool, str]:
    """Constants first, as in the order of ruff."""
    return not name.isupper(), name


def _listed(rates: dict[int, float]) -> str:
    return "step " + ", ".join(f"{step:,}" for step in rates)


def _trainer(settings: Settings, n_in: int, n_out: int, lr: float, *, plan: bool) -> list[str]:
    """The lines that make `network` and `trainer`."""
    callbacks = {"callbacks": "[Plan()]"} if plan else {}
    if settings.recipe is not None:
        return _recipe_trainer(settings, n_out, lr, callbacks)
    n_hidden = ", ".join(map(str, settings.hidden))
    sizes = f"[{n_in}, {n_hidden + ', ' if n_hidden else ''}{n_out}]"
    options = {
        "activation": repr(settings.activation),
        "loss": 'SquaredError("sigmoid")' if settings.loss == "squared_error" else repr(settings.loss),
    }
    options |= {"init": repr(settings.initializer)} if settings.initializer else {}
    options |= {"dropout": repr(settings.dropout)} if settings.dropout else {}
    options |= {"rng": repr(settings.seed)}
    penalty = f", l2={settings.l2!r}" if settings.l2 else ""
    optimizer = f"{OPTIMIZERS[settings.optimizer]}({lr!r}{penalty})"
    training = {"batch_size": repr(settings.batch_size), **callbacks, "rng": repr(settings.seed)}
    return [
        *_call("network = Network", sizes, options),
        *_call("trainer = Trainer", f"network, {optimizer}", training),
    ]


def _recipe_trainer(settings: Settings, n_out: int, lr: float, callbacks: dict[str, str]) -> list[str]:
    recipe = RECIPES[str(settings.recipe)]
    changed = {name: getattr(settings, name) for name in FROM_PAGE} | {"lr": lr}
    changed = {name: value for name, value in changed.items() if value != getattr(recipe, name)}
    options = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    lines = [f'recipe = RECIPES["{settings.recipe}"]' + (f".replace({options})" if options else "")]
    lines += ["shape = x_train.shape[1:]"]
    if recipe.deskew:
        lines += [
            "preprocessing = recipe.preprocessing(shape)",
            "x_train, x_validation = preprocessing(x_train), preprocessing(x_validation)",
        ]
    arguments = "".join(f", {name}={value}" for name, value in callbacks.items())
    return [*lines, f"trainer = recipe.trainer(shape, {n_out}{arguments})", "network = trainer.network"]


def _call(function: str, first: str, options: dict[str, str]) -> list[str]:
    """A call on one line, or with one option on each line if it would be too long."""
    arguments = [first, *(f"{name}={value}" for name, value in options.items())]
    line = f"{function}({', '.join(arguments)})".replace("'", '"')
    if len(line) <= 100:
        return [line]
    return [f"{function}(", *(f"    {argument},".replace("'", '"') for argument in arguments), ")"]


def _fit(epochs: int, *, stops: bool, diverged: bool) -> list[str]:
    call = [
        f"trainer.fit(x_train, y_train, until_epoch={epochs}, validation=(x_validation, y_validation), progress=False)"
    ]
    if not (stops or diverged):
        return call
    error = "Finished" if stops else "HandgradError as error"
    ending = "pass" if stops else "print(error)"
    return ["try:", *(f"    {line}" for line in call), f"except {error}:", f"    {ending}"]

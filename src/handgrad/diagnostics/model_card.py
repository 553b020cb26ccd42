"""Model card: a Markdown page about a trained model, with its settings, data, results and environment."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data import Dataset
from ..errors import printable
from ..model import Evaluation, Model
from ..network import Network
from ..wrappers import Ensemble, unwrap

MAX_TEXT = 200  # characters of a name or a value
MAX_CLASSES = 30  # names of classes that are listed
SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#$:@])")  # also $ of formulas, : of addresses and @ of mentions on GitHub


def model_card(
    model: Model,
    history: Mapping[str, Sequence[float]] | None = None,
    *,
    dataset: Dataset | str | None = None,
    settings: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
    title: str = "Model card",
    file: str = "model.safetensors",
) -> str:
    """Describe a trained model in Markdown: model, data, settings, results, environment, and how to load it.

    Names and values are escaped, so that they are shown as they are and cannot contain links, HTML or further rows.

    Parameters
    ----------
    model : Model
        The trained model.
    history : dict of str to list of float, optional
        `trainer.history`, for the results of the last epoch and the best validation loss.
    dataset : Dataset or str, optional
        The data, or a description of them.
    settings : mapping of str to values, optional
        The settings of the training, such as `recipe.config()`. Settings that are None are omitted.
    evaluation : Evaluation, optional
        Result on the test set, `model.evaluate(x_test, y_test)`.
    title : str
        Heading of the page.
    file : str
        Name of the model file, for the section that loads it.

    Returns
    -------
    str
        The page, which ends with a line break.

    Examples
    --------
    >>> from handgrad import Network
    >>> from handgrad.diagnostics.model_card import model_card
    >>> print(model_card(Network([4, 3, 2], rng=0), settings={"lr": 0.5}).splitlines()[0])
    # Model card
    """
    settings = {name: value for name, value in (settings or {}).items() if value is not None}
    sections = [
        ("Model", _table("property", "value", _model_rows(model))),
        ("Data", _data(dataset) if dataset is not None else ""),
        ("Settings", _table("setting", "value", settings.items()) if settings else ""),
        ("Results", _results(history or {}, evaluation)),
        ("Environment", _table("software", "version", _environment())),
        ("Use", _use(model, file)),
    ]
    parts = [f"# {_escape(title)}"]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections if text]
    return "\n\n".join(parts) + "\n"


def _model_rows(model: Model) -> list[tuple[str, Any]]:
    parts = unwrap(model)
    core = parts.core
    while isinstance(core, Ensemble):
        core = unwrap(core.members[0]).core
    rows: list[tuple[str, Any]] = []
    if isinstance(parts.core, Ensemble):
        rows.append(("ensemble", f"mean probability of {len(parts.core.members)} models; the first is described"))
    if isinstance(core, Network):
        rows.append(("layers", ", ".join(map(repr, core.layers))))
        rows.append(("parameters", f"{core.parameters.size:,} in {core.dtype}"))
    if parts.preprocessing is not None:
        rows.append(("preprocessing", repr(parts.preprocessing)))
    if parts.shifts > 1:
        rows.append(("test-time augmentation", f"{parts.shifts} shifts"))
    rows.append(("loss", repr(model.loss)))
    rows.append(("inputs", _inputs(model)))
    if model.loss.is_classification:
        names = list(model.classes[:MAX_CLASSES])
        more = f", and {model.n_classes - len(names)} more" if model.n_classes > len(names) else ""
        rows.append((f"{model.n_classes} classes", ", ".join(printable(name, 40) for name in names) + more))
    else:
        rows.append(("outputs", f"{model.n_out} numbers"))
    return rows


def _inputs(model: Model) -> str:
    if model.image_shape is None:
        return f"{model.n_in} numbers" + (f": {', '.join(model.feature_names)}" if model.feature_names else "")
    height, width = model.image_shape
    return f"grey images of {height} x {width} pixels, bright strokes on a dark background"


def _data(dataset: Dataset | str) -> str:
    if isinstance(dataset, str):
        return _escape(dataset)
    rows: list[tuple[str, Any]] = [("name", dataset.name)]
    rows += [("training examples", f"{len(dataset.x_train):,}"), ("test examples", f"{len(dataset.x_test):,}")]
    notes = "".join(f"\n- {_escape(note)}" for note in dataset.notes)
    return _table("property", "value", rows) + (f"\n{notes}" if notes else "")


def _results(history: Mapping[str, Sequence[float]], evaluation: Evaluation | None) -> str:
    rows: list[tuple[str, Any]] = []
    if evaluation is not None:
        rows.append(("test loss", f"{evaluation.loss:.4g}"))
        if evaluation.correct is not None:
            rows.append(
                (
                    "test accuracy",
                    f"{evaluation.accuracy:.2%} ({evaluation.correct:,} of {evaluation.total:,} examples)",
                )
            )
    history = {name: [math.nan if v is None else v for v in values] for name, values in history.items()}  # as in JSON
    measured = {name: [i for i, v in enumerate(values) if math.isfinite(v)] for name, values in history.items()}
    rows += [("epochs", len(values)) for values in list(history.values())[:1]]
    for name, indices in measured.items():
        if indices and name not in ("lr", "seconds"):
            value, is_last = history[name][indices[-1]], indices[-1] == len(history[name]) - 1
            shown = f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4g}"
            rows.append((f"{name}, {'last epoch' if is_last else f'epoch {indices[-1] + 1}'}", shown))
    if measured.get("val_loss"):
        losses = history["val_loss"]
        best = min(measured["val_loss"], key=lambda i: losses[i])
        rows.append(("val_loss, best epoch", f"{losses[best]:.4g} (epoch {best + 1})"))
    return _table("metric", "value", rows) if rows else ""


def _environment() -> list[tuple[str, str]]:
    from .. import __version__  # late: the package imports its version last

    return [
        ("handgrad", __version__),
        ("NumPy", np.__version__),
        ("Python", platform.python_version()),
        ("platform", f"{platform.system()} {platform.machine()}"),
    ]


def _use(model: Model, file: str) -> str:
    if model.image_shape is None:
        inputs = f"x: numbers (count, {model.n_in})"
    else:
        height, width = model.image_shape
        inputs = f"x: images (count, {height}, {width}), integers 0 to 255 or floats in [0, 1]"
    if model.loss.is_classification:
        calls = "labels = model.predict(x)\np = model.predict_proba(x)"
        names = "\nnames = [model.classes[label] for label in labels]"
    else:
        calls, names = "y = model.predict(x)", ""
    quoted = printable(json.dumps(file, ensure_ascii=False))
    code = f"from handgrad import load\n\nmodel = load({quoted})\n# {inputs}\n{calls}{names}"
    return f"```python\n{code}\n```"


# ---- Markdown --------------------------------------------------------------------------------------------------------


def _table(first: str, second: str, rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {first} | {second} |", "| --- | --- |"]
    lines += [f"| {_escape(str(name))} | {_escape(_value(value))} |" for name, value in rows]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    """A text as one line of Markdown that is shown as it is."""
    return SPECIAL.sub(r"\\\1", printable(text.strip(), MAX_TEXT))

"""Pictures of a training: its curves, its weights, what it takes for what, and its worst mistakes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import as_examples, as_labels
from .errors import optional
from .files import replace_file
from .layers import Dense
from .network import Network
from .training import History

INK, QUIET, TRAIN, HELD_OUT = "#222222", "#8a8a8a", "#9aa7b5", "#1f5f99"
MOST_UNITS = 60  # weight images in a report; of more hidden units, those with the largest weights
MISTAKES = 30


def report(
    path: str | os.PathLike[str], network: Network, history: History, x: NDArray[Any], y: NDArray[Any], *, title: str
) -> None:
    """Write report.png: loss and accuracy by epoch, first-layer weights, the confusion matrix, the worst mistakes.

    x, y are the examples that it reports on. Panels of pictures are left out where the network was not trained on any.
    """
    figure = optional("matplotlib.figure").Figure(figsize=(14, 10.5), layout="constrained")
    right = network.evaluate(x, y)
    figure.suptitle(
        f"{title}\ntest {right.accuracy:.2%}: {right.correct:,} of {right.total:,}",
        fontsize=15,
        color=INK,
        x=0.01,
        ha="left",
    )
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    curves, weights = upper.subfigures(1, 2, width_ratios=[1.35, 1])
    confusion, mistakes = lower.subfigures(1, 2, width_ratios=[1, 1.15])
    _curves(curves, history)
    _confusion(confusion, network, x, y)
    if network.image_shape is not None:
        _weights(weights, network, network.image_shape)
        _mistakes(mistakes, network, x, y, network.image_shape)
    _write(path, figure)


def digit_grid(path: str | os.PathLike[str], digits: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """Write digits (count, height, width) as one picture, each under its caption."""
    columns = min(len(digits), 8)
    rows = math.ceil(len(digits) / columns)
    figure = optional("matplotlib.figure").Figure(figsize=(1.6 * columns, 1.9 * rows), layout="constrained")
    for axes, digit, caption in zip(_grid(figure, rows, columns, len(digits)), digits, captions, strict=True):
        axes.imshow(digit, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(caption, fontsize=10, color=INK)
    _write(path, figure)


def _curves(figure: Any, history: History) -> None:
    """Loss and accuracy over the epochs, training as it went and the held-out set after each epoch."""
    epochs = np.arange(1, len(history["loss"]) + 1)
    for axes, name, word in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("loss", "accuracy, %"), strict=True):
        scale = 100 if name == "accuracy" else 1
        for key, colour, label in ((name, TRAIN, "training"), (f"val_{name}", HELD_OUT, "validation")):
            if key in history:
                values = scale * np.array(history[key])
                axes.plot(
                    epochs, values, color=colour, lw=1.8, marker="o", ms=3 if len(epochs) < 40 else 0, label=label
                )
        axes.set_title(word, fontsize=11, color=INK, loc="left")
        axes.set_xlabel("epoch", color=QUIET)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=QUIET)
        axes.grid(axis="y", color="#eeeeee")


def _weights(figure: Any, network: Network, shape: tuple[int, int]) -> None:
    """Each first-layer unit's weights as a picture of the input: red where ink speaks for it, blue against."""
    first = next(layer for layer in network.layers if layer.shapes)
    if not isinstance(first, Dense):
        return
    W = first.W
    strongest = np.sort(np.argsort(np.abs(W).sum(axis=1))[::-1][:MOST_UNITS])
    columns = math.ceil(math.sqrt(len(strongest) * 1.2))
    rows = math.ceil(len(strongest) / columns)
    several = f", {len(strongest)} of {len(W)}" if len(strongest) < len(W) else ""
    figure.suptitle(f"weights of the first layer{several}", fontsize=11, color=INK, x=0.02, ha="left")
    limit = float(np.quantile(np.abs(W), 0.995)) or 1.0
    for axes, unit in zip(_grid(figure, rows, columns, len(strongest)), strongest, strict=True):
        axes.imshow(W[unit].reshape(shape), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")


def _confusion(figure: Any, network: Network, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Counts by truth and answer, coloured by the mistakes alone: the diagonal would drown them."""
    counts = network.confusion_matrix(x, y)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    axes = figure.subplots()
    axes.imshow(wrong, cmap="Blues", vmin=0, vmax=max(1, wrong.max()) * 1.3)
    names, ticks = network.classes, np.arange(len(counts))
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set_title("truth by row, answer by column", fontsize=11, color=INK, loc="left")
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if len(counts) <= 26:
        for i, j in np.argwhere(counts):
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=9, color=QUIET if i == j else INK)


def _mistakes(figure: Any, network: Network, x: NDArray[Any], y: NDArray[Any], shape: tuple[int, int]) -> None:
    """The wrong answers that the network was surest of."""
    probabilities = network.probabilities(x)
    labels = as_labels(y, network.n_out)
    answers = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    surplus = probabilities[wrong, answers[wrong]] - probabilities[wrong, labels[wrong]]
    worst = wrong[np.argsort(-surplus, kind="stable")[:MISTAKES]]
    word = "the worst mistakes: answer, truth" if len(worst) else "no mistakes"
    figure.suptitle(word, fontsize=11, color=INK, x=0.02, ha="left")
    pictures = as_examples(x, network.n_in).reshape(-1, *shape)
    columns = 6
    rows = max(1, math.ceil(len(worst) / columns))
    for axes, i in zip(_grid(figure, rows, columns, len(worst)), worst, strict=True):
        axes.imshow(pictures[i], cmap="gray_r", interpolation="nearest")
        axes.set_title(f"{network.classes[answers[i]]}, {network.classes[labels[i]]}", fontsize=9, color=INK, pad=2)


def _grid(figure: Any, rows: int, columns: int, count: int) -> list[Any]:
    """`count` panels without axes, in rows and columns."""
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels:
        panel.set_axis_off()
    return panels[:count]


def _write(path: str | os.PathLike[str], figure: Any) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor="white")
    replace_file(path, png.getvalue())

"""Pictures of a training: its curves, its weights, what it takes for what, and its worst mistakes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, Labels, check_inputs, check_labels
from ..errors import HandgradError, optional
from ..io.atomic import replace_file
from ..layers import Dense
from ..model import Model, by_class, confusion_matrix
from ..network import Network
from ..training import Augment, History
from ..wrappers import Ensemble

CAPTION = {"ha": "center", "fontsize": 9, "color": "#222222", "parse_math": False, "in_layout": False}
INK, QUIET, TRAIN, HELD_OUT = "#222222", "#8a8a8a", "#9aa7b5", "#1f5f99"
MOST_UNITS = 60  # weight images in a report; of more hidden units, those with the largest weights
MISTAKES = 32


def report(
    path: str | os.PathLike[str],
    classifier: Model,
    history: History,
    x: NDArray[Any] | None = None,
    y: NDArray[Any] | None = None,
    *,
    title: str,
    part: str = "test",
) -> None:
    """Write report.png: loss and accuracy by epoch, first-layer weights, the confusion matrix, the worst mistakes.

    x, y are the examples that it reports on, the `part` of a set; without them it has the curves and the weights alone.
    The weights are a ensemble's first member's. Pictures are left out where the network was not trained on any. Where
    the answers are numbers it has the loss alone, and neither accuracy nor mistakes.
    """
    figure = optional("matplotlib.figure").Figure(figsize=(14, 10.5))
    shape = classifier.image_shape
    # Places by hand (left, bottom, width, height): matplotlib's own layout takes two seconds to find as good ones.
    _curve(figure.add_axes((0.04, 0.55, 0.23, 0.32)), history, "loss", "loss")
    if classifier.loss.is_classification:
        _curve(figure.add_axes((0.32, 0.55, 0.23, 0.32)), history, "accuracy", "accuracy, %", scale=100)
    network = classifier.members[0] if isinstance(classifier, Ensemble) else classifier
    if isinstance(network, Network) and network.input_shape is not None:
        _weights(figure.add_axes((0.59, 0.53, 0.40, 0.34)), network, network.input_shape)
    headline = title
    if x is not None and y is not None and not classifier.loss.is_classification:
        headline += f"\n{part} loss {classifier.evaluate(x, y).loss:.4g}"
    elif x is not None and y is not None:
        z, labels = classifier.outputs(x), check_labels(y, classifier.n_classes, len(x))
        right = int((classifier.loss.labels(z) == labels).sum())
        headline += f"\n{part} {right / len(z):.2%}: {right:,} of {len(z):,}"
        _confusion(figure.add_axes((0.03, 0.03, 0.42, 0.44)), classifier, z, labels)
        if shape is not None:
            pictures = check_inputs(x, classifier.n_in).reshape(-1, *shape)
            _mistakes(figure.add_axes((0.48, 0.02, 0.51, 0.45)), classifier, z, labels, pictures)
    figure.text(0.02, 0.98, headline, fontsize=15, color=INK, va="top", parse_math=False)
    _write(path, figure)


def augmentation_grid(
    path: str | os.PathLike[str], digits: NDArray[np.uint8], augment: Augment, rng: np.random.Generator
) -> None:
    """Write digits (count, height, width) as rows of one picture: each as it is, then made anew eleven times."""
    count, height, width = digits.shape
    flat = digits.reshape(count, -1)
    anew = [augment(flat, rng, np.empty(flat.shape, np.float32)) for _ in range(11)]
    figure = optional("matplotlib.figure").Figure(figsize=(12, 1 + 0.95 * count), layout="constrained")
    axes = figure.subplots()
    pictures = np.stack([flat / 255, *anew], axis=1).reshape(-1, height, width)
    _pictures(axes, pictures, 1 + len(anew), cmap="gray_r", vmin=0, vmax=1)
    axes.set_title("as it is, and as training sees it", fontsize=11, color=INK, loc="left")
    _write(path, figure)


def digit_grid(path: str | os.PathLike[str], digits: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """Write digits (count, height, width) as one picture, each under its caption. HandgradError: there are none."""
    if len(digits) == 0:
        raise HandgradError(f"cannot write {path}: there is no digit to show, expected one or more")
    columns = min(len(digits), 8)
    rows = math.ceil(len(digits) / columns)
    figure = optional("matplotlib.figure").Figure(figsize=(1.6 * columns, 2.1 * rows), layout="constrained")
    _pictures(figure.subplots(), digits, columns, captions, cmap="gray", vmin=0, vmax=255)
    _write(path, figure)


def change_rows(
    path: str | os.PathLike[str],
    pictures: Array,
    changes: Array,
    captions: Sequence[tuple[str, str, str]],
    *,
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write a row for each of the pictures: it, its change, the two together, each under its caption.

    pictures, changes (count, height, width). The change is red where ink was added, blue where it was taken away, in
    one scale for all. HandgradError: there are none.
    """
    count = len(pictures)
    if count == 0:
        raise HandgradError(f"cannot write {path}: there is no picture to show, expected one or more")
    figure = optional("matplotlib.figure").Figure(figsize=(6.4, 2.1 * count), layout="constrained")
    grey = {"cmap": "gray", "vmin": limits[0], "vmax": limits[1]}
    largest = float(np.abs(changes).max()) or 1.0
    signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    columns = [(pictures, grey), (changes, signed), (pictures + changes, grey)]
    for axes, (shown, look), words in zip(figure.subplots(1, 3), columns, zip(*captions, strict=True), strict=True):
        _pictures(axes, shown, 1, words, **look)
    _write(path, figure)


def _curve(axes: Any, history: History, name: str, word: str, scale: float = 1) -> None:
    """One number over the epochs: of training as it went, and of the held-out set after each epoch."""
    epochs = np.arange(1, len(history[name]) + 1)
    for key, colour, label in ((name, TRAIN, "training"), (f"val_{name}", HELD_OUT, "validation")):
        if key in history:
            values = scale * np.array(history[key])
            axes.plot(epochs, values, color=colour, lw=1.8, marker="o", ms=3 if len(epochs) < 40 else 0, label=label)
    axes.set_title(word, fontsize=11, color=INK, loc="left")
    axes.set_xlabel("epoch", color=QUIET)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=QUIET)
    axes.grid(axis="y", color="#eeeeee")


def _weights(axes: Any, network: Network, shape: tuple[int, int]) -> None:
    """Each first-layer unit's weights as a picture of the input: red where ink speaks for it, blue against."""
    first = next(layer for layer in network.layers if layer.parameter_shapes)
    if not isinstance(first, Dense):
        axes.set_axis_off()
        return
    W = first.W
    strongest = np.sort(np.argsort(np.abs(W).sum(axis=1))[::-1][:MOST_UNITS])
    limit = float(np.quantile(np.abs(W), 0.995)) or 1.0
    columns = math.ceil(math.sqrt(len(strongest) * 1.2))
    _pictures(axes, W[strongest].reshape(-1, *shape), columns, cmap="RdBu_r", vmin=-limit, vmax=limit)
    several = f", {len(strongest)} of {len(W)}" if len(strongest) < len(W) else ""
    axes.set_title(f"weights of the first layer{several}", fontsize=11, color=INK, loc="left")


def _confusion(axes: Any, network: Model, z: Array, labels: Labels) -> None:
    """Counts by truth and answer, coloured by the mistakes alone: the diagonal would drown them."""
    counts = confusion_matrix(labels, network.loss.labels(z), network.n_classes)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    axes.imshow(wrong, cmap="Blues", vmin=0, vmax=max(1, wrong.max()) * 1.3)
    names, ticks = network.classes, np.arange(len(counts))
    axes.set_xticks(ticks, names, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_title("truth by row, answer by column", fontsize=11, color=INK, loc="left")
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if len(counts) <= 26:
        for i, j in np.argwhere(counts):
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=9, color=QUIET if i == j else INK)


def _mistakes(axes: Any, network: Model, z: Array, labels: Labels, pictures: NDArray[Any]) -> None:
    """The wrong answers that the network was surest of."""
    probabilities, answers = by_class(network.loss.activation(z)), network.loss.labels(z)
    wrong = np.flatnonzero(answers != labels)
    surplus = probabilities[wrong, answers[wrong]] - probabilities[wrong, labels[wrong]]
    worst = wrong[np.argsort(-surplus, kind="stable")[:MISTAKES]]
    captions = [f"{network.classes[answers[i]]}, {network.classes[labels[i]]}" for i in worst]
    _pictures(axes, pictures[worst], 8, captions, cmap="gray_r")
    word = "the worst mistakes: answer, truth" if len(worst) else "no mistakes"
    axes.set_title(word, fontsize=11, color=INK, loc="left")


def _pictures(axes: Any, pictures: NDArray[Any], columns: int, captions: Sequence[str] = (), **look: Any) -> None:
    """Pictures (count, height, width) in rows of `columns`, their captions above them, as one image.

    One image, because the layout of as many axes as pictures takes matplotlib ten seconds.
    """
    axes.set_axis_off()
    if len(pictures) == 0:
        return
    count, height, width = pictures.shape
    above, gap = (round(0.4 * height) if captions else 0), max(1, width // 8)
    rows = math.ceil(count / columns)
    mosaic = np.full((rows * (above + height + gap), columns * (width + gap)), np.nan)
    for k, picture in enumerate(pictures):
        top, left = (k // columns) * (above + height + gap) + above, (k % columns) * (width + gap)
        mosaic[top : top + height, left : left + width] = picture
        if captions:
            axes.text(left + width / 2, top - 0.1 * height, captions[k], **CAPTION)
    axes.imshow(mosaic, interpolation="nearest", **look)


def _write(path: str | os.PathLike[str], figure: Any) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor="white")
    replace_file(path, png.getvalue())

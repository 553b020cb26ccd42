"""Plots as PNG files: training report, digits, data augmentation, adversarial perturbations."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, Labels, check_inputs, check_labels
from ..errors import HandgradError, optional, printable
from ..io.atomic import replace_file
from ..layers import Dense
from ..model import Model, binary_to_two_columns, confusion_matrix
from ..network import Network
from ..training import Augmentation, History
from ..wrappers import Ensemble, unwrap

CAPTION = {"ha": "center", "fontsize": 9, "color": "#222222", "parse_math": False, "in_layout": False}
TEXT, GREY, TRAINING, VALIDATION = "#222222", "#8a8a8a", "#9aa7b5", "#1f5f99"  # colours
MAX_UNITS = 60  # weight images in a report; of more hidden units, those with the largest weights
MAX_ERRORS = 32  # wrongly classified images in a report
MAX_NAME, MAX_CAPTION, MAX_TITLE = 16, 48, 160  # characters of a class name, above an image, in a line of the title
VERSIONS = 11  # augmented versions of each image


def report(
    path: str | os.PathLike[str],
    model: Model,
    history: History,
    x: NDArray[Any] | None = None,
    y: NDArray[Any] | None = None,
    *,
    title: str,
    part: str = "test",
) -> None:
    """Write a report: loss and accuracy per epoch, first-layer weights, confusion matrix, worst errors.

    A regression has only the loss. Images are omitted if the inputs of the model are not images. Of an ensemble, the
    weights of the first member are shown.

    Parameters
    ----------
    path : path-like
        The PNG file.
    model : Model
        The trained model.
    history : dict of str to list of float
        `trainer.history`. Epochs in which a metric was not measured (NaN) are skipped.
    x : ndarray of shape (count, n_in) or (count, height, width), optional
        Examples for the confusion matrix and the errors, which are omitted without examples.
    y : ndarray of shape (count,), optional
        Their labels, or the targets of a regression.
    title : str
        Title of the report.
    part : str
        Name of the set that x and y are from, for example "validation".

    Raises
    ------
    HandgradError
        If the file cannot be written.
    """
    figure = optional("matplotlib.figure").Figure(figsize=(14, 10.5))
    # Positions (left, bottom, width, height) are fixed, because matplotlib's layout engine takes two seconds.
    _curve(figure.add_axes((0.04, 0.55, 0.23, 0.32)), history, "loss", "loss")
    if model.loss.is_classification:
        _curve(figure.add_axes((0.32, 0.55, 0.23, 0.32)), history, "accuracy", "accuracy in %", scale=100)
    network = _first_network(model)
    if network is not None and network.image_shape is not None:
        _weights(figure.add_axes((0.59, 0.53, 0.40, 0.34)), network, network.image_shape)
    headline = title
    if x is not None and y is not None and not model.loss.is_classification:
        headline += f"\n{part}: loss {model.evaluate(x, y).loss:.4g}"
    elif x is not None and y is not None:
        z, labels = model.outputs(x), check_labels(y, model.n_classes, len(x))
        correct = int((model.loss.labels(z) == labels).sum())
        headline += f"\n{part}: {correct:,} / {len(z):,} correct ({correct / len(z):.2%})"
        _confusion(figure.add_axes((0.03, 0.03, 0.42, 0.44)), model, z, labels)
        if model.image_shape is not None:
            images = check_inputs(x, model.n_in).reshape(-1, *model.image_shape)
            _errors(figure.add_axes((0.48, 0.02, 0.51, 0.45)), model, z, labels, images)
    headline = "\n".join(_short(line, MAX_TITLE) for line in headline.split("\n"))
    figure.text(0.02, 0.98, headline, fontsize=15, color=TEXT, va="top", parse_math=False)
    _write(path, figure)


def augmentation_grid(
    path: str | os.PathLike[str], images: NDArray[np.uint8], augment: Augmentation, rng: np.random.Generator
) -> None:
    """Write one row per image: the image and eleven augmented versions of it.

    Parameters
    ----------
    path : path-like
        The PNG file.
    images : ndarray of shape (count, height, width), uint8
        Images, preprocessed as in training.
    augment : Augmentation
        The data augmentation, `trainer.augment`.
    rng : numpy.random.Generator
        Random generator of the augmentation.

    Raises
    ------
    HandgradError
        If the file cannot be written.
    """
    count, height, width = images.shape
    versions = [augment(images, rng, np.empty((count, height * width), np.float32)) for _ in range(VERSIONS)]
    figure = optional("matplotlib.figure").Figure(figsize=(12, 1 + 0.95 * count), layout="constrained")
    axes = figure.subplots()
    rows = np.stack([images.reshape(count, -1) / 255, *versions], axis=1).reshape(-1, height, width)
    _image_grid(axes, rows, 1 + VERSIONS, cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(f"training image, and {VERSIONS} augmented versions", fontsize=11, color=TEXT, loc="left")
    _write(path, figure)


def digit_grid(path: str | os.PathLike[str], digits: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """Write digits in rows of eight, each with a caption above it.

    Parameters
    ----------
    path : path-like
        The PNG file.
    digits : ndarray of shape (count, height, width), uint8
        The digits, at least one.
    captions : sequence of str
        One caption for each digit.

    Raises
    ------
    HandgradError
        If there are no digits, or if the file cannot be written.
    """
    if len(digits) == 0:
        raise HandgradError(f"cannot write {path}: there are no digits, expected at least one")
    columns = min(len(digits), 8)
    rows = math.ceil(len(digits) / columns)
    figure = optional("matplotlib.figure").Figure(figsize=(1.6 * columns, 2.1 * rows), layout="constrained")
    _image_grid(figure.subplots(), digits, columns, captions, cmap="gray", vmin=0, vmax=255)
    _write(path, figure)


def perturbation_grid(
    path: str | os.PathLike[str],
    images: Array,
    perturbations: Array,
    captions: Sequence[tuple[str, str, str]],
    *,
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write one row per image: the image, its perturbation, and their sum, each with a caption above it.

    A perturbation is red where it increases a pixel and blue where it decreases one. All have the same colour scale.

    Parameters
    ----------
    path : path-like
        The PNG file.
    images, perturbations : ndarray of shape (count, height, width)
        At least one of each.
    captions : sequence of (str, str, str)
        Three captions for each row.
    limits : (float, float)
        Pixel values that are shown in black and in white.

    Raises
    ------
    HandgradError
        If there are no images, or if the file cannot be written.
    """
    count = len(images)
    if count == 0:
        raise HandgradError(f"cannot write {path}: there are no images, expected at least one")
    figure = optional("matplotlib.figure").Figure(figsize=(6.4, 2.1 * count), layout="constrained")
    grey = {"cmap": "gray", "vmin": limits[0], "vmax": limits[1]}
    largest = float(np.abs(perturbations).max()) or 1.0
    signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    columns = [(images, grey), (perturbations, signed), (images + perturbations, grey)]
    for axes, (shown, style), texts in zip(figure.subplots(1, 3), columns, zip(*captions, strict=True), strict=True):
        _image_grid(axes, shown, 1, texts, **style)
    _write(path, figure)


# ---- Panels ----------------------------------------------------------------------------------------------------------


def _first_network(model: Model) -> Network | None:
    """The network in the wrappers, or the first member's."""
    core = unwrap(model).core
    while isinstance(core, Ensemble):
        core = unwrap(core.members[0]).core
    return core if isinstance(core, Network) else None


def _curve(axes: Any, history: History, name: str, title: str, scale: float = 1) -> None:
    """A metric by epoch, of the training set and of the validation set."""
    for key, colour, label in ((name, TRAINING, "training"), (f"val_{name}", VALIDATION, "validation")):
        if key not in history:
            continue
        values = scale * np.array(history[key], float)
        measured = np.flatnonzero(np.isfinite(values))
        size = 3 if len(measured) < 40 else 0
        axes.plot(measured + 1, values[measured], color=colour, lw=1.8, marker="o", ms=size, label=label)
    axes.set_title(title, fontsize=11, color=TEXT, loc="left")
    axes.set_xlabel("epoch", color=GREY)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9, labelcolor=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY)
    axes.grid(axis="y", color="#eeeeee")


def _weights(axes: Any, network: Network, shape: tuple[int, int]) -> None:
    """The weights of each unit of the first layer as an image: red is positive, blue is negative."""
    first = next(layer for layer in network.layers if layer.parameter_shapes)
    if not isinstance(first, Dense):
        axes.set_axis_off()
        return
    W = first.W
    strongest = np.sort(np.argsort(np.abs(W).sum(axis=1))[::-1][:MAX_UNITS])
    limit = float(np.quantile(np.abs(W), 0.995)) or 1.0
    columns = math.ceil(math.sqrt(len(strongest) * 1.2))
    _image_grid(axes, W[strongest].reshape(-1, *shape), columns, cmap="RdBu_r", vmin=-limit, vmax=limit)
    part = f": {len(strongest)} of {len(W)} units" if len(strongest) < len(W) else ""
    axes.set_title(f"weights of the first layer{part}", fontsize=11, color=TEXT, loc="left")


def _confusion(axes: Any, model: Model, z: Array, labels: Labels) -> None:
    """The confusion matrix. Only errors are coloured, because the diagonal is much larger."""
    counts = confusion_matrix(labels, model.loss.labels(z), model.n_classes)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    axes.imshow(wrong, cmap="Blues", vmin=0, vmax=max(1, wrong.max()) * 1.3)
    names, ticks = [_short(name) for name in model.classes], np.arange(len(counts))
    axes.set_xticks(ticks, names, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_title("confusion matrix: true class (row), predicted class (column)", fontsize=11, color=TEXT, loc="left")
    axes.tick_params(length=0, colors=TEXT)
    axes.spines[:].set_visible(False)
    if len(counts) <= 26:
        for i, j in np.argwhere(counts):
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=9, color=GREY if i == j else TEXT)


def _errors(axes: Any, model: Model, z: Array, labels: Labels, images: NDArray[Any]) -> None:
    """The wrong predictions whose probability exceeds that of the true class most."""
    p, predicted = binary_to_two_columns(model.loss.activation(z)), model.loss.labels(z)
    wrong = np.flatnonzero(predicted != labels)
    excess = p[wrong, predicted[wrong]] - p[wrong, labels[wrong]]
    worst = wrong[np.argsort(-excess, kind="stable")[:MAX_ERRORS]]
    captions = [f"{_short(model.classes[labels[i]])} / {_short(model.classes[predicted[i]])}" for i in worst]
    _image_grid(axes, images[worst], 8, captions, cmap="gray_r")
    title = "worst errors: true class / predicted class" if len(worst) else "no errors"
    axes.set_title(title, fontsize=11, color=TEXT, loc="left")


def _image_grid(axes: Any, images: NDArray[Any], columns: int, captions: Sequence[str] = (), **style: Any) -> None:
    """Images (count, height, width) in rows of `columns`, captions above them, as one image.

    With one axes object for each image, matplotlib's layout takes ten seconds.
    """
    axes.set_axis_off()
    if len(images) == 0:
        return
    count, height, width = images.shape
    above, gap = (round(0.4 * height) if captions else 0), max(1, width // 8)
    rows = math.ceil(count / columns)
    mosaic = np.full((rows * (above + height + gap), columns * (width + gap)), np.nan)
    for k, image in enumerate(images):
        top, left = (k // columns) * (above + height + gap) + above, (k % columns) * (width + gap)
        mosaic[top : top + height, left : left + width] = image
        if captions:
            axes.text(left + width / 2, top - 0.1 * height, _short(captions[k], MAX_CAPTION), **CAPTION)
    axes.imshow(mosaic, interpolation="nearest", **style)


def _short(text: str, length: int = MAX_NAME) -> str:
    """A text as one line of limited length. matplotlib draws 100,000 letters in 20 seconds."""
    return printable(text, length)


def _write(path: str | os.PathLike[str], figure: Any) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor="white")
    replace_file(path, png.getvalue())

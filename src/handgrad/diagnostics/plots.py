"""Plots: learning curves, confusion matrix, errors, weights, activations, gradients, training report, image grids.

A function that draws one panel takes `ax`, the axes of an existing figure, and returns them. Without `ax`, and for
a function that draws several panels, the result is a new Figure, which a notebook displays. With `path`, the figure is
also written to a PNG file. pyplot is neither used nor changed.
"""

from __future__ import annotations

import copy
import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Array, Labels, as_array, as_floats, check_inputs, check_labels
from ..errors import HandgradError, optional, printable
from ..images.hog import HOG, compass
from ..io.atomic import replace_file
from ..layers import Dense, Dropout, Identity
from ..model import Model, binary_to_two_columns
from ..model import confusion_matrix as count_predictions
from ..network import Network
from ..training import AugmentFunction
from ..wrappers import Ensemble, unwrap
from .histograms import Histogram, value_range

CAPTION = {"ha": "center", "fontsize": 9, "color": "#222222", "parse_math": False, "in_layout": False}
TEXT, GREY, TRAINING, VALIDATION = "#222222", "#6b6b6b", "#9aa7b5", "#1f5f99"  # colours
SIGNS = "red: positive, blue: negative"  # of weights
MAX_UNITS = 60  # weight images; of more hidden units, those with the largest weights
MAX_HOG_UNITS = 12  # the same after HOG: larger images, because small images of 8 grids cannot be read
MAX_ERRORS = 32  # wrongly classified images
MAX_ROWS = 512  # examples in the plots of activations and gradients
BINS = 60  # of a histogram
MAX_NAME, MAX_CAPTION, MAX_TITLE = 16, 48, 160  # characters of a class name, above an image, in a line of the title
VERSIONS = 11  # augmented versions of each image


def report(
    path: str | os.PathLike[str] | None,
    model: Model,
    history: Mapping[str, Sequence[float]],
    x: NDArray[Any] | None = None,
    y: NDArray[Any] | None = None,
    *,
    title: str,
    part: str = "test",
    soft_labels: bool = False,
) -> Any:
    """Draw a report: loss and accuracy per epoch, first-layer weights, confusion matrix, worst errors.

    A regression has only the loss. Images are omitted if the inputs of the model are not images. Of an ensemble, the
    weights of the first member are shown.

    Parameters
    ----------
    path : path-like or None
        The PNG file; None only returns the figure.
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
    soft_labels : bool
        Whether the training loss is for the labels of a teacher, to which label smoothing does not apply.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    HandgradError
        If the file cannot be written.
    """
    figure = new_figure((14, 10.5), layout=None)
    # Positions (left, bottom, width, height) are fixed, because matplotlib's layout engine takes two seconds.
    network = _first_network(model)  # with label smoothing, which a calibrated model does not have
    smoothing = getattr((network or model).loss, "label_smoothing", 0.0)
    smoothed = f" (label smoothing {smoothing:g})" if smoothing else ""
    notes = " (labels of the teacher)" if soft_labels else smoothed, smoothed
    _curve(figure.add_axes((0.04, 0.55, 0.23, 0.32)), history, "loss", "loss", notes=notes)
    if model.loss.is_classification:
        _curve(figure.add_axes((0.32, 0.55, 0.23, 0.32)), history, "accuracy", "accuracy in %", scale=100)
    images = None if network is None else _weight_images(network)
    if images is not None:
        _weights(figure.add_axes((0.59, 0.53, 0.40, 0.34)), images)
    headline = title
    if x is not None and y is not None and not model.loss.is_classification:
        headline += f"\n{part}: loss {model.evaluate(x, y).loss:.4g}"
    elif x is not None and y is not None:
        z, labels = model.outputs(x), check_labels(y, model.n_classes, len(x))
        correct = int((model.loss.labels(z) == labels).sum())
        headline += f"\n{part}: {correct:,} / {len(z):,} correct ({correct / len(z):.2%})"
        _confusion(figure.add_axes((0.03, 0.03, 0.42, 0.44)), model, z, labels)
        if model.image_shape is not None:
            digits = check_inputs(x, model.n_in).reshape(-1, *model.image_shape)
            _errors(figure.add_axes((0.48, 0.02, 0.51, 0.45)), model, z, labels, digits)
    headline = "\n".join(_short(line, MAX_TITLE) for line in headline.split("\n"))
    figure.text(0.02, 0.98, headline, fontsize=15, color=TEXT, va="top", parse_math=False)
    return _finish(figure, path)


def history(
    history: Mapping[str, Sequence[float]],
    ax: Any = None,
    *,
    metric: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Plot a metric by epoch, for the training set and the validation set.

    Parameters
    ----------
    history : dict of str to list of float
        `trainer.history`. Epochs in which a metric was not measured (NaN) are skipped.
    ax : matplotlib.axes.Axes, optional
        Where to draw one metric. By default a new figure, with panels for the loss and the accuracy.
    metric : str, optional
        Name of the metric without "val_". By default the loss, and in a new figure also the accuracy if there is one.
    path : path-like, optional
        The PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The new figure, or `ax`.

    Raises
    ------
    HandgradError
        If there is no such metric, or if the file cannot be written.
    """
    known = list(dict.fromkeys(name.removeprefix("val_") for name in history))
    if metric is None:
        names = [name for name in known if name in ("loss", "accuracy")]  # the loss comes first
        names = names[:1] if ax is not None else names
    else:
        names = [metric.removeprefix("val_")]
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise HandgradError(f"the history has no metric '{metric or 'loss'}': it has {', '.join(known) or 'no epochs'}")
    if ax is None:
        result = new_figure((5 * len(names), 3.6))
        panels = list(result.subplots(1, len(names), squeeze=False)[0])
    else:
        result, axes = new_axes(ax, (5, 3.6))
        panels = [axes]
    for axes, name in zip(panels, names, strict=True):
        percent = name.endswith("accuracy")
        _curve(axes, history, name, f"{name} in %" if percent else name, scale=100 if percent else 1)
    return _finish(result, path)


def confusion_matrix(
    model: Model, x: ArrayLike, y: ArrayLike, ax: Any = None, *, path: str | os.PathLike[str] | None = None
) -> Any:
    """Plot the confusion matrix. Only errors are coloured, because the diagonal is much larger.

    Parameters
    ----------
    model : Model
        A classifier.
    x : array-like of shape (count, n_in) or (count, height, width)
        Examples.
    y : array-like of shape (count,)
        Their labels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    path : path-like, optional
        The PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The new figure, or `ax`.

    Raises
    ------
    HandgradError
        For a regression, and if the file cannot be written.
    """
    z, labels = _classified(model, x, y)
    side = min(12.0, 2.5 + 0.45 * model.n_classes)
    result, axes = new_axes(ax, (max(side, 5.2), side))
    _confusion(axes, model, z, labels)
    return _finish(result, path)


def errors(
    model: Model, x: ArrayLike, y: ArrayLike, ax: Any = None, *, path: str | os.PathLike[str] | None = None
) -> Any:
    """Show the worst errors: up to 32 images whose predicted probability exceeds that of the true class most.

    Parameters and result as for `confusion_matrix`.

    Raises
    ------
    HandgradError
        If the inputs of the model are not images, for a regression, and if the file cannot be written.
    """
    if model.image_shape is None:
        raise HandgradError("the inputs of the model are not images: set model.image_shape = (height, width)")
    z, labels = _classified(model, x, y)
    images = check_inputs(x, model.n_in, model.image_shape).reshape(-1, *model.image_shape)
    result, axes = new_axes(ax, (8, 6))
    _errors(axes, model, z, labels, images)
    return _finish(result, path)


def weights(model: Model, ax: Any = None, *, path: str | os.PathLike[str] | None = None) -> Any:
    """Plot the weights of the first layer: as one image for each unit if the inputs are images, or else as a matrix.

    Red is positive, blue is negative. Of more than 60 units, the 60 with the largest weights are shown as images. Of an
    ensemble, the weights of the first member are shown. After `handgrad.HOG`, a unit has one weight for each direction
    and cell: its image has the cells of the 8 directions around its centre, on the side in which the ink increases. Of
    these, 12 units are shown. The weights after second-order gradients are a matrix.

    Parameters
    ----------
    model : Model
        A network, or a model with a network in it.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    path : path-like, optional
        The PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure or matplotlib.axes.Axes
        The new figure, or `ax`.

    Raises
    ------
    HandgradError
        If the first layer with parameters is not Dense, and if the file cannot be written.
    """
    network = _network_of(model)
    first = next(layer for layer in network.layers if layer.parameter_shapes)
    if not isinstance(first, Dense):
        raise HandgradError(f"the first layer with parameters is {first!r}: expected a Dense layer")
    result, axes = new_axes(ax, (7, 6))
    images = _weight_images(network)
    if images is not None:
        _weights(axes, images)
        return _finish(result, path)
    limit = float(np.abs(first.W).max()) or 1.0
    axes.imshow(first.W, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set_title(f"weights of the first layer\n{SIGNS}", fontsize=11, color=TEXT, loc="left")
    axes.set_xlabel("input", color=GREY)
    axes.set_ylabel("unit", color=GREY)
    return _finish(result, path)


def activations(model: Model, x: ArrayLike, *, path: str | os.PathLike[str] | None = None) -> Any:
    """Plot the activations of every layer in inference as matrices: one row for each example, one column for each unit.

    Vertical stripes are units with the same output for all examples.

    Parameters
    ----------
    model : Model
        A network, or a model with a network in it. Of an ensemble, the first member is shown.
    x : array-like of shape (count, n_in) or (count, height, width)
        Examples; the first 512 are used.
    path : path-like, optional
        The PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, one panel for each layer.

    Raises
    ------
    HandgradError
        For invalid inputs, and if the file cannot be written.
    """
    network, x = _network_inputs(model, x)
    outputs = network.activations(x)
    figure, panels = _panels(len(outputs))
    for axes, (title, values) in zip(panels, _titled(network, outputs), strict=True):
        limit = float(np.abs(values).max()) or 1.0
        axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=10, color=TEXT, loc="left")
        axes.tick_params(colors=GREY)
    return _finish(figure, path)


def activation_histograms(model: Model, x: ArrayLike, *, path: str | os.PathLike[str] | None = None) -> Any:
    """Plot a histogram of the activations of every layer in inference.

    A sigmoid or tanh whose histogram has all its mass at the two ends is saturated; a ReLU with all its mass at 0 is
    inactive. Parameters and result as for `activations`.
    """
    network, x = _network_inputs(model, x)
    return _finish(_histograms(_titled(network, network.activations(x))), path)


def gradient_histograms(model: Model, x: ArrayLike, y: ArrayLike, *, path: str | os.PathLike[str] | None = None) -> Any:
    """Plot a histogram of the gradient of the mean loss with respect to the weights of every layer.

    Gradients that shrink or grow by an order of magnitude from layer to layer show that the initial weights do not fit
    the activation. The gradient is computed with a copy of the network, in training mode.

    Parameters
    ----------
    model : Model
        A network, or a model with a network in it. Of an ensemble, the first member is shown.
    x : array-like of shape (count, n_in) or (count, height, width)
        Examples; the first 512 are used.
    y : array-like of shape (count,) or (count, n_out)
        Labels or targets.
    path : path-like, optional
        The PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, one panel for each weight matrix.

    Raises
    ------
    HandgradError
        For invalid inputs, and if the file cannot be written.
    """
    network, x = _network_inputs(model, x)
    twin = copy.deepcopy(network)
    floats = as_floats(x, np.empty((len(x), twin.n_in), twin.dtype))
    twin.backprop(floats, twin.loss.targets(as_array("y", y)[:MAX_ROWS], len(x), twin.n_out, twin.dtype))
    gradients = [
        (f"gradient of {type(layer).__name__} {i}", getattr(layer, f"d{name}"))
        for i, layer in enumerate(twin.layers)
        for name, shape in layer.parameter_shapes.items()
        if len(shape) > 1
    ]
    return _finish(_histograms(gradients), path)


def histograms(
    epochs: Sequence[int], named: Mapping[str, Sequence[Histogram]], *, path: str | os.PathLike[str] | None = None
) -> Any:
    """Plot how distributions change from epoch to epoch, as `Histograms.plot` does.

    Each panel has one column for each epoch. The darker a value, the more frequent it is in this epoch: the colour is
    the square root of the frequency, relative to that of the most frequent value of the epoch. A sigmoid or tanh whose
    values are all at the two ends is saturated. Gradients that are orders of magnitude smaller in the first layers than
    in the last ones vanish.

    Parameters
    ----------
    epochs : sequence of int
        Numbers of the epochs, increasing.
    named : dict of str to sequence of Histogram
        The histograms of each panel, one for each epoch.
    path : path-like, optional
        The PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, one panel for each name.

    Raises
    ------
    HandgradError
        If there are no histograms, and if the file cannot be written.
    """
    if not named or not epochs:
        raise HandgradError("there are no histograms: add the callback Histograms to a training of at least one epoch")
    numbers = np.array(epochs, float)
    middles = (numbers[1:] + numbers[:-1]) / 2
    first, last = (middles[0], middles[-1]) if len(middles) else (numbers[0] + 0.5, numbers[0] - 0.5)
    columns = np.concatenate([[2 * numbers[0] - first], middles, [2 * numbers[-1] - last]])
    figure, panels = _panels(len(named))
    for axes, (title, records) in zip(panels, named.items(), strict=True):
        shares = [np.concatenate([[0], h.counts.cumsum()]) / max(h.counts.sum(), 1) for h in records]
        ends = [np.interp((0.002, 0.998), share, h.edges) for share, h in zip(shares, records, strict=True)]
        rows = np.linspace(min(low for low, _ in ends), max(high for _, high in ends), BINS + 1)
        image = [np.diff(np.interp(rows, h.edges, share)) for share, h in zip(shares, records, strict=True)]
        density = np.sqrt(np.transpose([column / (column.max() or 1) for column in image]))
        axes.pcolormesh(columns, rows, density, cmap="Blues", vmin=0, vmax=1, rasterized=True)
        axes.set_title(_short(title, MAX_CAPTION), fontsize=10, color=TEXT, loc="left", parse_math=False)
        axes.set_xlabel("epoch", color=GREY)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(colors=GREY, labelsize=8)
    return _finish(figure, path)


def augmentation_grid(
    path: str | os.PathLike[str] | None,
    images: NDArray[np.uint8],
    augment: AugmentFunction,
    rng: np.random.Generator,
    *,
    title: str = "training image (left of the line) and augmented versions",
) -> Any:
    """Draw one row per image: the image and, on the right of a line, eleven augmented versions of it.

    Parameters
    ----------
    path : path-like or None
        The PNG file; None only returns the figure.
    images : ndarray of shape (count, height, width), uint8
        Images, preprocessed as in training.
    augment : AugmentFunction
        The data augmentation, `trainer.augment`.
    rng : numpy.random.Generator
        Random generator of the augmentation.
    title : str
        Title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    HandgradError
        If the file cannot be written.
    """
    count, height, width = images.shape
    versions = [augment(images, rng, np.empty((count, height * width), np.float32)) for _ in range(VERSIONS)]
    figure = new_figure((12, 1 + 0.95 * count))
    axes = figure.subplots()
    rows = np.stack([images.reshape(count, -1) / 255, *versions], axis=1).reshape(-1, height, width)
    _image_grid(axes, rows, 1 + VERSIONS, cmap="gray_r", vmin=0, vmax=1)
    axes.axvline(width + (_gap(width) - 1) / 2, color=GREY, lw=1)
    lines = "\n".join(_short(line, MAX_TITLE) for line in title.split("\n"))
    axes.set_title(lines, fontsize=11, color=TEXT, loc="left", parse_math=False)
    return _finish(figure, path)


def digit_grid(path: str | os.PathLike[str] | None, digits: NDArray[np.uint8], captions: Sequence[str]) -> Any:
    """Draw digits in rows of eight, each with a caption above it.

    Parameters
    ----------
    path : path-like or None
        The PNG file; None only returns the figure.
    digits : ndarray of shape (count, height, width), uint8
        The digits, at least one.
    captions : sequence of str
        One caption for each digit.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    HandgradError
        If there are no digits, or if the file cannot be written.
    """
    if len(digits) == 0:
        raise HandgradError("cannot draw a grid: there are no digits, expected at least one")
    columns = min(len(digits), 8)
    rows = math.ceil(len(digits) / columns)
    figure = new_figure((1.6 * columns, 2.1 * rows))
    _image_grid(figure.subplots(), digits, columns, captions, cmap="gray", vmin=0, vmax=255)
    return _finish(figure, path)


def perturbation_grid(
    path: str | os.PathLike[str] | None,
    images: Array,
    perturbations: Array,
    captions: Sequence[tuple[str, str, str]],
    *,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Any:
    """Draw one row per image: the image, its perturbation, and their sum, each with a caption above it.

    A perturbation is red where it increases a pixel and blue where it decreases one. All have the same colour scale.

    Parameters
    ----------
    path : path-like or None
        The PNG file; None only returns the figure.
    images, perturbations : ndarray of shape (count, height, width)
        At least one of each.
    captions : sequence of (str, str, str)
        Three captions for each row.
    limits : (float, float)
        Pixel values that are shown in black and in white.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    HandgradError
        If there are no images, or if the file cannot be written.
    """
    count = len(images)
    if count == 0:
        raise HandgradError("cannot draw a grid: there are no images, expected at least one")
    figure = new_figure((6.4, 2.1 * count))
    grey = {"cmap": "gray", "vmin": limits[0], "vmax": limits[1]}
    largest = float(np.abs(perturbations).max()) or 1.0
    signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    columns = [(images, grey), (perturbations, signed), (images + perturbations, grey)]
    for axes, (shown, style), texts in zip(figure.subplots(1, 3), columns, zip(*captions, strict=True), strict=True):
        _image_grid(axes, shown, 1, texts, **style)
    return _finish(figure, path)


# ---- Panels ----------------------------------------------------------------------------------------------------------


def _first_network(model: Model) -> Network | None:
    """The network in the wrappers, or the first member's."""
    core = unwrap(model).core
    while isinstance(core, Ensemble):
        core = unwrap(core.members[0]).core
    return core if isinstance(core, Network) else None


def _network_of(model: Model) -> Network:
    """The network in a model. Raises HandgradError if there is none."""
    network = _first_network(model)
    if network is None:
        raise HandgradError(f"expected a network, or a model with a network in it, got {model!r}")
    return network


def _network_inputs(model: Model, x: ArrayLike) -> tuple[Network, NDArray[Any]]:
    """The network in a model, and what it receives of the first examples."""
    x = model.check_inputs(x)[:MAX_ROWS]
    while not isinstance(model, Network):
        parts = unwrap(model)
        if parts.preprocessing is not None:
            x = parts.preprocessing(x)
        if not isinstance(parts.core, Ensemble | Network):
            raise HandgradError(f"expected a network, or a model with a network in it, got {model!r}")
        model = parts.core.members[0] if isinstance(parts.core, Ensemble) else parts.core
    return model, model.check_inputs(x)


def _classified(model: Model, x: ArrayLike, y: ArrayLike) -> tuple[Array, Labels]:
    """The logits of the examples, and the validated labels."""
    if not model.loss.is_classification:
        raise HandgradError(f"{model.loss!r} is a regression loss: its predictions are numbers, not classes")
    z = model.outputs(x)
    return z, check_labels(y, model.n_classes, len(z))


def _titled(network: Network, outputs: Sequence[Array]) -> list[tuple[str, Array]]:
    """A title for the outputs of each layer."""
    return [
        (f"{type(layer).__name__} {i}", a) for i, (layer, a) in enumerate(zip(network.layers, outputs, strict=True))
    ]


def _panels(count: int) -> tuple[Any, list[Any]]:
    """A new figure, and axes in rows of up to four."""
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = new_figure((max(3.0 * columns, 4), 2.4 * rows))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _histograms(named: Sequence[tuple[str, Array]]) -> Any:
    """A figure with one histogram for each array. The title has the standard deviation."""
    figure, panels = _panels(len(named))
    for axes, (title, values) in zip(panels, named, strict=True):
        flat = np.asarray(values, np.float64).ravel()
        axes.hist(flat, bins=BINS, range=value_range(flat), color=VALIDATION)
        axes.set_title(f"{title}: std {flat.std():.2g}", fontsize=10, color=TEXT, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=GREY, labelsize=8)
        axes.set_yticks([])
    return figure


def _curve(
    axes: Any,
    history: Mapping[str, Sequence[float]],
    name: str,
    title: str,
    scale: float = 1,
    notes: tuple[str, str] = ("", ""),
) -> None:
    """A metric by epoch, of the training set and of the validation set, with a note after each of these names."""
    curves = (name, TRAINING, f"training{notes[0]}"), (f"val_{name}", VALIDATION, f"validation{notes[1]}")
    for key, colour, label in curves:
        if key not in history:
            continue
        values = scale * np.array(history[key], float)
        measured = np.flatnonzero(np.isfinite(values))
        size = 3 if len(measured) < 40 else 0
        axes.plot(measured + 1, values[measured], color=colour, lw=1.8, marker="o", ms=size, label=label)
    axes.set_title(_short(title, MAX_CAPTION), fontsize=11, color=TEXT, loc="left", parse_math=False)
    axes.set_xlabel("epoch", color=GREY)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.legend(frameon=False, fontsize=9, labelcolor=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY)
    axes.grid(axis="y", color="#eeeeee")


class _WeightImages(NamedTuple):
    """The weights of each unit (units, height, width), how many units are shown, and the title."""

    images: Array
    most: int
    title: str


def _weight_images(network: Network) -> _WeightImages | None:
    """The weights of each unit of the first layer as images; None if its inputs are not pixels or HOG of pixels."""
    first = next(i for i, layer in enumerate(network.layers) if layer.parameter_shapes)
    layer = network.layers[first]
    if not isinstance(layer, Dense):
        return None
    before = next((f for f in network.layers[:first][::-1] if not isinstance(f, Dropout | Identity)), None)
    if isinstance(before, HOG):
        if before.channels > 1:
            return None
        images = np.pad(compass(layer.W, before.cells), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        return _WeightImages(images, MAX_HOG_UNITS, "weights for the 8 directions of HOG")
    if network.image_shape is None or layer.n_in != network.n_in:
        return None
    return _WeightImages(layer.W.reshape(-1, *network.image_shape), MAX_UNITS, "weights of the first layer")


def _weights(axes: Any, found: _WeightImages) -> None:
    """The weights of the units with the largest ones as images: red is positive, blue is negative."""
    images, most, title = found
    sizes = np.abs(images)
    strongest = np.sort(np.argsort(np.nansum(sizes, axis=(1, 2)))[::-1][:most])
    finite = sizes[np.isfinite(sizes)]
    limit = float(np.quantile(finite, 0.995) if finite.size else 1.0) or 1.0
    columns = math.ceil(math.sqrt(len(strongest) * 1.2))
    _image_grid(axes, images[strongest], columns, cmap="RdBu_r", vmin=-limit, vmax=limit)
    part = f": {len(strongest)} of {len(images)} units" if len(strongest) < len(images) else ""
    axes.set_title(f"{title}{part}\n{SIGNS}", fontsize=11, color=TEXT, loc="left")


def _confusion(axes: Any, model: Model, z: Array, labels: Labels) -> None:
    """The confusion matrix. Only errors are coloured, because the diagonal is much larger."""
    counts = count_predictions(labels, model.loss.labels(z), model.n_classes)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    image = axes.imshow(wrong, cmap="Blues", vmin=0, vmax=max(1, wrong.max()) * 1.3)
    names, ticks = [_short(name) for name in model.classes], np.arange(len(counts))
    axes.set_xticks(ticks, names, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_title("confusion matrix: true class (row), predicted class (column)", fontsize=11, color=TEXT, loc="left")
    axes.tick_params(length=0, colors=TEXT)
    axes.spines[:].set_visible(False)
    if len(counts) <= 26:
        # White text on a luminance below 0.18 and black text on others have a contrast of 4.5 or more.
        dark = image.to_rgba(wrong)[..., :3] ** 2.2 @ (0.2126, 0.7152, 0.0722) < 0.18
        for i, j in np.argwhere(counts):
            colour = GREY if i == j else "white" if dark[i, j] else "black"
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=9, color=colour)


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
    above, gap = (round(0.4 * height) if captions else 0), _gap(width)
    rows = math.ceil(count / columns)
    mosaic = np.full((rows * (above + height + gap), columns * (width + gap)), np.nan)
    for k, image in enumerate(images):
        top, left = (k // columns) * (above + height + gap) + above, (k % columns) * (width + gap)
        mosaic[top : top + height, left : left + width] = image
        if captions:
            axes.text(left + width / 2, top - 0.1 * height, _short(captions[k], MAX_CAPTION), **CAPTION)
    axes.imshow(mosaic, interpolation="nearest", **style)


def _gap(width: int) -> int:
    """The distance in pixels between images of this width."""
    return max(1, width // 8)


def _short(text: str, length: int = MAX_NAME) -> str:
    """A text as one line of limited length, because matplotlib draws 100,000 letters in 20 seconds.

    Characters that the font does not have, such as emoji, become boxes. matplotlib would draw them with a warning.
    """
    known = _characters(tuple(optional("matplotlib").rcParams["font.family"]))
    box = "\N{WHITE SQUARE}" if ord("\N{WHITE SQUARE}") in known else "?"
    return "".join(c if ord(c) in known else box for c in printable(text, length))


@functools.cache
def _characters(families: tuple[str, ...]) -> frozenset[int]:
    """The characters of the fonts of these families."""
    fonts, ft2font = optional("matplotlib.font_manager"), optional("matplotlib.ft2font")
    paths = [fonts.findfont(fonts.FontProperties(family=[family])) for family in families]
    return frozenset(code for path in paths for code in ft2font.FT2Font(path).get_charmap())


# ---- Figures ---------------------------------------------------------------------------------------------------------


def new_figure(size: tuple[float, float], layout: str | None = "constrained") -> Any:
    """Create a Figure of a size in inches, without pyplot. A notebook displays it, although no backend is active."""
    figure = optional("matplotlib.figure").Figure(figsize=size, layout=layout)
    figure._repr_png_ = functools.partial(_png, figure)
    return figure


def new_axes(ax: Any, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return (result, axes): a new figure and its axes, or `ax` twice."""
    if ax is not None:
        if not hasattr(ax, "imshow"):
            raise HandgradError(f"ax must be matplotlib axes, as of figure.subplots(), got {type(ax).__name__}")
        return ax, ax
    figure = new_figure(size)
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, facecolor="white")
    return png.getvalue()


def _finish(result: Any, path: str | os.PathLike[str] | None) -> Any:
    """Write a figure, or the figure of axes, to a file if there is a path, and return it."""
    if path is not None:
        replace_file(path, _png(result.figure))  # a Figure is its own figure
    return result

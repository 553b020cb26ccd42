"""Inference graphs: a network as a list of steps, with the activation of its output. All export targets start here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..arrays import Array
from ..errors import HandgradError
from ..images.deskew import Deskew
from ..layers import ACTIVATIONS, LAYERS, BatchNorm, Dense, Dropout, Identity, Layer
from ..losses import AbsoluteError, BinaryCrossEntropy, CrossEntropy, Huber, LogCosh, Loss, Poisson, SquaredError
from ..model import Model
from ..network import Network
from ..wrappers import Ensemble, fold_batchnorm, unwrap

# The activation that turns the logits z into predictions, by loss. SquaredError has "sigmoid" for classification.
OUTPUT_ACTIVATIONS: dict[type[Loss], str] = {
    CrossEntropy: "softmax",
    BinaryCrossEntropy: "sigmoid",
    SquaredError: "identity",
    AbsoluteError: "identity",
    Huber: "identity",
    LogCosh: "identity",
    Poisson: "exp",
}
ACTIVATION_NAMES = {layer: name for name, layer in ACTIVATIONS.items()}


class Step(NamedTuple):
    """One operation of the forward pass: z = W x + b, a = s x + t, or an activation."""

    kind: str  # "dense", "scale", or the name of the activation
    n_in: int
    n_out: int
    arrays: dict[str, Array]  # by their names in the exported file: W1, b1
    layer: Layer

    @property
    def slope(self) -> float:
        """Slope of a leaky ReLU."""
        return float(self.layer.config()["slope"])


@dataclass(frozen=True)
class InferenceGraph:
    """A network for inference, in float32.

    Attributes
    ----------
    network : Network
        The network with all layers of its model file, without preprocessing.
    steps : list of Step
        The same function with BatchNorm folded into the Dense layers, without Dropout and Identity.
    output_activation : {"softmax", "sigmoid", "identity", "exp"}
        The activation that turns the logits into predictions.
    source : str
        Name of the model file, safe in any comment; empty if there is no file.
    notes : tuple of str
        What a reader of the exported file must know.
    deskew : Deskew or None
        Preprocessing that the target includes.
    shifts : int
        Number of shifts of the test-time augmentation that the target includes.
    weights : str
        Name of the file next to the exported script that contains its weights.
    """

    network: Network
    steps: list[Step]
    output_activation: str
    source: str
    notes: tuple[str, ...]
    deskew: Deskew | None = None
    shifts: int = 1
    weights: str = ""

    @property
    def is_classification(self) -> bool:
        """Whether the file offers labels and probabilities. For a regression it offers predicted numbers only."""
        return self.network.loss.is_classification

    @property
    def is_binary(self) -> bool:
        """Whether the single output is the probability of class 1, so that the label is 1 if z > 0."""
        return self.is_classification and self.network.n_out == 1

    @property
    def arrays(self) -> dict[str, Array]:
        """All arrays of the steps by name."""
        return {name: array for step in self.steps for name, array in step.arrays.items()}

    @property
    def used(self) -> set[str]:
        """The kinds of the steps and the output activation: the names of the functions that a file needs."""
        return {self.output_activation, *(step.kind for step in self.steps)}

    @property
    def n_in(self) -> int:
        """Number of values in an example, before the preprocessing."""
        return self.network.n_in if self.deskew is None else self.deskew.n_in

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) of an example before the preprocessing, if it is an image."""
        return self.network.image_shape if self.deskew is None else self.deskew.image_shape_in

    @property
    def values(self) -> dict[str, Any]:
        """Values for all templates."""
        return {
            "n_in": self.n_in,
            "n_out": self.network.n_out,
            "image_shape": self.image_shape,
            "examples": "examples.npy" if self.image_shape is None else "images.npy",
        }

    def head(self, language: str = "") -> list[str]:
        """Return the paragraphs at the top of a file: what it contains, its input and its output."""
        sizes = [self.steps[0].n_in, *(step.n_out for step in self.steps if step.kind == "dense")]
        title = f"Network {'-'.join(map(str, sizes))}"
        title += f" of {self.source}" if self.source else ""
        title += f" in {language}" if language else ""
        return [
            f"{title}. Written by handgrad {__version__}.",
            f"Input: {self._input()}.",
            f"Output: {self._output()}.",
            *self.notes,
        ]

    def _input(self) -> str:
        if self.image_shape is None:
            return f"x, {self.n_in} numbers, with the same scaling as in training"
        height, width = self.image_shape
        return (
            f"x, the {self.n_in} pixels of an image of height {height} and width {width}, row by row, as floats in "
            "[0, 1] (bytes / 255). The background is 0, ink is 1"
        )

    def _output(self) -> str:
        n_out = self.network.n_out
        if not self.is_classification:
            y = {"identity": "the outputs of the last layer", "exp": "e^z for the outputs z of the last layer"}
            return f"{n_out} number{'s' * (n_out > 1)} per example, {y[self.output_activation]}"
        if self.is_binary:
            return (
                "the probability of class 1, the sigmoid of the last layer's output. The label is 1 if it exceeds 1/2"
            )
        p = {"softmax": "the softmax of the outputs", "sigmoid": "the sigmoid of each output"}[self.output_activation]
        return f"{n_out} probabilities, {p} of the last layer. The label is the index of the largest one, from 0"


def inference_graph(
    model: Model, source: str = "", *, without_preprocessing: bool = False, supports_preprocessing: bool = False
) -> InferenceGraph:
    """Create the inference graph of a model.

    Parameters
    ----------
    model : Model
        A network, possibly with preprocessing and test-time augmentation.
    source : str
        Name of the model file, safe in any comment.
    without_preprocessing : bool
        Leave out the preprocessing and the test-time augmentation.
    supports_preprocessing : bool
        Whether the target can include a Deskew and test-time augmentation.

    Raises
    ------
    HandgradError
        For ensembles, custom layers, losses and preprocessing, weights that are not finite, and preprocessing that the
        target does not support.
    """
    network, preprocessing, shifts = unwrap(model)
    if isinstance(network, Ensemble):
        raise HandgradError(
            f"an ensemble cannot be exported: the model has {len(network.members)} members; export a single network, "
            "trained with --members 1"
        )
    if not isinstance(network, Network):
        raise HandgradError(f"cannot export {network!r}: expected a network of handgrad")
    activation = _output_activation(network)
    included = supports_preprocessing and not without_preprocessing
    if not without_preprocessing:
        _check_preprocessing(preprocessing, shifts, supports_preprocessing)
    notes = []
    if preprocessing is not None:
        notes.append(
            f"The image is preprocessed as by handgrad's {preprocessing!r}."
            if included
            else f"The image must be preprocessed by handgrad's {preprocessing!r} first."
        )
    if shifts > 1:
        notes.append(
            f"The predictions are averaged over {shifts} shifts of the image."
            if included
            else f"handgrad averages the predictions over {shifts} shifts of the image. This file does not."
        )
    if network.dtype != np.float32:
        notes.append(f"The network was trained in {network.dtype}. The weights are rounded to float32 here.")
    folded = fold_batchnorm(network).astype(np.float32)
    if not np.isfinite(folded.parameters).all():
        raise HandgradError("the weights of the network are not finite: train it again")
    network = network.astype(np.float32)
    if preprocessing is not None and network.image_shape is None:
        network.image_shape = preprocessing.image_shape_out
    return InferenceGraph(
        network=network,
        steps=list(_steps(folded)),
        output_activation=activation,
        source=source,
        notes=tuple(notes),
        deskew=preprocessing if included and isinstance(preprocessing, Deskew) else None,
        shifts=shifts if included else 1,
    )


def _output_activation(network: Network) -> str:
    """The output activation. Raises HandgradError for custom layers and losses, and a softmax of one output."""
    for i, layer in enumerate(network.layers):
        if type(layer) not in LAYERS.values():
            raise HandgradError(f"custom layers cannot be exported: layer {i} is {type(layer).__name__}")
    loss = network.loss
    if type(loss) not in OUTPUT_ACTIVATIONS:
        known = ", ".join(known.__name__ for known in OUTPUT_ACTIVATIONS)
        raise HandgradError(f"custom losses cannot be exported: the loss is {type(loss).__name__}, expected {known}")
    if isinstance(loss, CrossEntropy) and network.n_out == 1:
        raise HandgradError("the softmax of a single output is always 1: expected the loss binary_cross_entropy")
    return "sigmoid" if isinstance(loss, SquaredError) and loss.is_classification else OUTPUT_ACTIVATIONS[type(loss)]


def _check_preprocessing(preprocessing: Any, shifts: int, supported: bool) -> None:
    """Raise HandgradError for preprocessing or test-time augmentation that the target cannot include."""
    has = [] if preprocessing is None else [f"the preprocessing {preprocessing!r}"]
    has += [f"test-time augmentation over {shifts} shifts"] if shifts > 1 else []
    apart = "--without-preprocessing exports the network alone"
    if has and not supported:
        raise HandgradError(f"the model has {' and '.join(has)}: only --to python can include this; {apart}")
    if preprocessing is not None and type(preprocessing) is not Deskew:
        raise HandgradError(f"custom preprocessing cannot be exported: the model has {has[0]}; {apart}")


def _steps(network: Network) -> Iterator[Step]:
    """The steps of a network. The arrays are numbered from 1."""
    width, number = network.n_in, 0
    for layer in network.layers:
        n_in, width = width, layer.width(width)
        if isinstance(layer, Dense):
            number += 1
            yield Step("dense", n_in, width, {f"W{number}": layer.W, f"b{number}": layer.b}, layer)
        elif isinstance(layer, BatchNorm):
            number += 1
            s, t = layer.affine()
            yield Step("scale", n_in, width, {f"s{number}": s, f"t{number}": t}, layer)
        elif not isinstance(layer, Dropout | Identity):
            yield Step(ACTIVATION_NAMES[type(layer)], n_in, width, {}, layer)

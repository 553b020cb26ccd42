"""What every export is made of: a network as plain steps, how its outputs are read, and what no export can hold.

What is decided for all targets is decided here, once; a target only writes it down in its own language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..arrays import Array
from ..errors import HandgradError
from ..images.deskew import Deskew
from ..layers import ACTIVATIONS, LAYERS, BatchNorm, Dense, Dropout, Identity, Layer
from ..losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    Huber,
    LogCosh,
    Loss,
    Poisson,
    Quadratic,
    CrossEntropy,
    SquaredError,
)
from ..network import Network
from ..wrappers import Ensemble

# How the outputs z become the answers, probabilities or numbers, by the loss that they were trained with.
READINGS: dict[type[Loss], str] = {
    CrossEntropy: "softmax",
    BinaryCrossEntropy: "sigmoid",
    Quadratic: "identity",
    SquaredError: "identity",
    AbsoluteError: "identity",
    Huber: "identity",
    LogCosh: "identity",
    Poisson: "exp",
}
# A single output is a yes or no: the label is 1 above this z, where its probability is 1/2. (The softmax of one is
# always 1: its only label is 0.)
THRESHOLDS = {"sigmoid": 0.0, "identity": 0.5}

WORDS = {layer: word for word, layer in ACTIVATIONS.items()}
WIDTH = 100  # of the lines in what is written


class Step(NamedTuple):
    """A link of the chain as it answers: z = W x + b, a = s x + t, or an activation."""

    kind: str  # "dense", "scale", or the activation's word: "relu"
    n_in: int
    n_out: int
    arrays: dict[str, Array]  # by the names that the written code gives them: W1, b1
    layer: Layer

    @property
    def slope(self) -> float:
        """Of a leaky ReLU."""
        return float(self.layer.config()["slope"])


@dataclass(frozen=True)
class InferenceGraph:
    """A network that answers by its layers alone, in float32.

    network   layer for layer as its model file has it, without what is in front of the first layer
    steps     the same chain with each BatchNorm in the Dense beside it, without the layers that answer x
    deskew    what is in front, where the target writes that too; and `views`, over how many shifts it answers
    """

    network: Network
    steps: list[Step]
    reading: str
    source: str  # the model file's name, as it may stand in any comment; empty where there is no file
    notes: tuple[str, ...]  # what the reader of the file must know
    deskew: Deskew | None = None
    views: int = 1
    weights: str = ""  # the name of the file that a script loads them from, beside it

    @property
    def is_classification(self) -> bool:
        """Whether the answers are classes: what is written offers `predict`, a label, and `probabilities`.

        Else they are numbers, and `predict` gives those.
        """
        return self.network.loss.is_classification

    @property
    def threshold(self) -> float | None:
        """The z above which a single output's label is 1; None where the label is the largest output's."""
        return THRESHOLDS.get(self.reading) if self.is_classification and self.network.n_out == 1 else None

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array of the steps by its name."""
        return {name: array for step in self.steps for name, array in step.arrays.items()}

    def head(self, how: str = "") -> list[str]:
        """The paragraphs that a written file begins with."""
        sizes = [self.steps[0].n_in, *(step.n_out for step in self.steps if step.kind == "dense")]
        whose = f"The network of {self.source}" if self.source else "A network"
        begin = f"{whose}, {'-'.join(map(str, sizes))}{how}: written by handgrad {__version__}."
        return [begin, f"{self.inputs} {self.outputs}", *self.notes]

    @property
    def values(self) -> dict[str, Any]:
        """What every template may ask for."""
        network, is_classification = self.network, self.is_classification
        return {
            "n_in": network.n_in,
            "n_in": self.n_in,
            "n_out": network.n_out,
            "image_shape": self.image_shape,
            "is_classification": is_classification,
            "numbers": not is_classification,
            "reader": "probabilities"
            if is_classification
            else "predict",  # the function that gives what the loss reads
            "file": "digit.npy" if is_classification else "examples.npy",
        }

    @property
    def used(self) -> set[str]:
        """The kinds of its steps, and its reading."""
        return {self.reading, *(step.kind for step in self.steps)}

    @property
    def n_in(self) -> int:
        """The numbers in an example as it is given."""
        return self.network.n_in if self.deskew is None else self.deskew.n_in

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) of an example as it is given, where that is a picture."""
        return self.network.image_shape if self.deskew is None else (self.deskew.height, self.deskew.width)

    @property
    def inputs(self) -> str:
        """What x is, in a sentence."""
        if self.image_shape is None:
            return f"x holds {self.n_in} floats as the network was trained on: of bytes, x / 255 in [0, 1]."
        height, width = self.image_shape
        return (
            f"x holds the {self.n_in} pixels of a picture {height} high and {width} wide, row by row, "
            "as floats in [0, 1], bytes / 255: 0 is paper, 1 is ink."
        )

    @property
    def outputs(self) -> str:
        """What comes of x, in a sentence or two."""
        n_out = self.network.n_out
        if not self.is_classification:
            y = {"identity": "the last layer's outputs as they are", "exp": "e^z of each of the last layer's outputs z"}
            return f"The answers are numbers, {n_out} for each example: {y[self.reading]}. There is no label."
        p = {
            "softmax": "The probabilities are the softmax of the last layer's outputs",
            "sigmoid": "Each probability is the sigmoid of one of the last layer's outputs",
            "identity": "The probabilities are the last layer's outputs as they are",
        }[self.reading]
        if self.threshold is not None:
            return f"{p}; the label is 1 where it is above 1/2, else 0."
        return f"{p}, one for each of {n_out} classes; the label is the largest's, counted from 0."

    @property
    def printed(self) -> str:
        """What a program prints of the examples that it reads."""
        return "the label and the probabilities of each" if self.is_classification else "the answer to each"


def as_plain(
    network: Network | Ensemble, source: str, *, without_preprocessing: bool = False, whole: bool = False
) -> InferenceGraph:
    """The network as every target can have it; `whole`, with what is in front of its first layer.

    Raises HandgradError, naming it, for what no target can have.
    """
    if isinstance(network, Ensemble):
        raise HandgradError(
            f"the model is a ensemble of {len(network.members)} networks, and an export is of one: "
            "give a model that was trained with --members 1"
        )
    for layer in network.layers:
        if type(layer) not in LAYERS.values():
            raise HandgradError(f"the network has {type(layer).__name__}, a layer of your own, which no export knows")
    if type(network.loss) not in READINGS:
        known = ", ".join(loss.__name__ for loss in READINGS)
        raise HandgradError(
            f"the network was trained with {type(network.loss).__name__}, of which no export knows how it reads "
            f"the outputs: expected one of {known}"
        )
    whole = whole and not without_preprocessing and type(network.preprocessing) in (Deskew, type(None))
    notes = [] if whole else _notes(network, without_preprocessing)
    if network.dtype != np.float32:
        notes.append(f"It was trained in {network.dtype}; its numbers are rounded to float32 here.")
    behind = network.preprocessed()
    behind.views = 1
    folded = behind.folded().astype(np.float32)
    if not np.isfinite(folded.parameters).all():
        raise HandgradError("the network holds weights that are not finite numbers: train it again")
    return InferenceGraph(
        network=behind.astype(np.float32),
        steps=list(_steps(folded)),
        reading=READINGS[type(network.loss)],
        source=shown(source),
        notes=tuple(notes),
        deskew=network.preprocessing if whole and isinstance(network.preprocessing, Deskew) else None,
        views=network.views if whole else 1,
    )


def _notes(network: Network, without_preprocessing: bool) -> list[str]:
    """What is left out in front of the first layer. Raises HandgradError where that is not asked for."""
    seen, views = network.preprocessing, network.views
    has = [] if seen is None else [f"sees its pictures through {seen!r}"]
    has += [f"answers by the mean over {views} shifts of a picture"] if views > 1 else []
    if has and not without_preprocessing:
        raise HandgradError(
            f"the network {' and '.join(has)}, which goes with --to python alone: "
            "with --without-preprocessing the net behind it is exported, and what is in front is yours to do"
        )
    notes = [] if seen is None else [f"These pixels must be what handgrad's {seen!r} makes of a picture."]
    if views > 1:
        notes.append(f"handgrad answers by the mean over {views} shifts of a picture, this by the picture alone.")
    return notes


def _steps(network: Network) -> Iterable[Step]:
    """The chain's links, those with arrays counted from 1."""
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
            yield Step(WORDS[type(layer)], n_in, width, {}, layer)

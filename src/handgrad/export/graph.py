"""Inference graphs: a model as a tree of operations, with the steps of each network. All export targets start here.

    Preprocessed(TestTimeAugmentation(network, 5), Deskew(28, 28))

is the tree Deskewed, Floats, Shifted, Forward: deskew the image, convert the pixels to floats in [0, 1], average over
shifts, and apply the network and the activation of its output. The result of each node is an array of predictions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .. import __version__
from ..arrays import Array
from ..errors import HandgradError
from ..images.deskew import Deskew
from ..images.hog import HOG
from ..ladder import Ladder
from ..layers import ACTIVATIONS, LAYERS, BatchNorm, Dense, Dropout, Identity, Layer
from ..losses import LOSSES, CrossEntropy, Loss
from ..model import Model
from ..network import Network
from ..preprocessing import Standardize
from ..wrappers import Ensemble, Preprocessed, TestTimeAugmentation, fold_batchnorm

ACTIVATION_NAMES = {layer: name for name, layer in ACTIVATIONS.items()}
PARAMETERS = {"leaky_relu": "slope", "elu": "alpha"}  # of activations, by their names in `config`


# ---- Nodes -----------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One operation of the forward pass: z = W x + b, a = s x + t, HOG, or an activation."""

    kind: str  # "dense", "scale", "hog", or the name of the activation
    n_in: int
    n_out: int
    arrays: dict[str, Array]  # by their names in the exported file: W1, b1; KY1 and KX1 of HOG
    layer: Layer | None = None  # None: a scale that is not a BatchNorm

    @property
    def parameter(self) -> float | None:
        """The parameter of an activation: the slope of LeakyReLU, α of ELU, None for all others."""
        if self.layer is None or self.kind not in PARAMETERS:
            return None
        return float(self.layer.config()[PARAMETERS[self.kind]])


@dataclass(frozen=True, eq=False)
class Forward:
    """A network and the activation of its output.

    Attributes
    ----------
    network : Network
        All layers of the model file, in float32.
    steps : list of Step
        The same function with BatchNorm folded into the Dense layers and the temperature into the last one, without
        Dropout and Identity.
    temperature : float
        Divides the outputs of `network`; `steps` include it.
    prefix : str
        Start of the names of its arrays in a model file: "1." for the second member of an ensemble.
    number : int
        1, 2, ... in the order of the model file.
    """

    network: Network
    steps: list[Step]
    temperature: float
    prefix: str
    number: int


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of the predictions of several nodes."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Shifted:
    """The mean of the predictions over shifts of an image by one pixel."""

    part: Node
    shifts: int
    image_shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Tempered:
    """Predictions with a temperature T: activation(z / T), z being the logits of the predictions of `part`."""

    part: Node
    temperature: float


@dataclass(frozen=True, eq=False)
class Deskewed:
    """Deskew the image. With `rounds` its pixels are integers, and the results are rounded to integers."""

    part: Node
    deskew: Deskew
    rounds: bool


@dataclass(frozen=True, eq=False)
class Standardized:
    """(x - mean) / scale, in float64: mean and scale (n_in,)."""

    part: Node
    mean: Array
    scale: Array


@dataclass(frozen=True, eq=False)
class Floats:
    """Convert to float32. The pixels of integer images are divided by 255."""

    part: Node


Node: TypeAlias = "Forward | Mean | Shifted | Tempered | Deskewed | Standardized | Floats"


def walk(node: Node) -> Iterator[Node]:
    """Yield the nodes of a tree, each one after its parts."""
    for part in parts(node):
        yield from walk(part)
    yield node


def parts(node: Node) -> tuple[Node, ...]:
    """Return the parts of a node."""
    if isinstance(node, Forward):
        return ()
    return node.parts if isinstance(node, Mean) else (node.part,)


# ---- The graph -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InferenceGraph:
    """A model for inference, in float32.

    Attributes
    ----------
    root : Node
        The tree.
    n_in, n_out : int
        Number of values in an example, before the preprocessing, and of predictions.
    image_shape : (height, width) or None
        Set if an example is an image, before the preprocessing.
    classes : tuple of str
        Names of the classes.
    is_classification : bool
        Whether the file offers labels and probabilities. For a regression it offers predicted numbers only.
    output_activation : {"softmax", "sigmoid", "identity", "exp"}
        The activation that turns the logits into predictions.
    source : str
        Name of the model file, safe in any comment; empty if there is no file.
    notes : tuple of str
        What a reader of the exported file must know.
    weights : str
        Name of the file next to the exported script that contains its weights.
    """

    root: Node
    n_in: int
    n_out: int
    image_shape: tuple[int, int] | None
    classes: tuple[str, ...]
    is_classification: bool
    output_activation: str
    source: str
    notes: tuple[str, ...]
    weights: str = ""

    @cached_property
    def nodes(self) -> list[Node]:
        """All nodes of the tree, each one after its parts."""
        return list(walk(self.root))

    @cached_property
    def preparation(self) -> list[Deskewed | Standardized | Floats]:
        """The functions of the input that come before all others."""
        found: list[Deskewed | Standardized | Floats] = []
        for node in reversed(self.nodes):
            if not isinstance(node, Deskewed | Standardized | Floats):
                break
            found.append(node)
        return found

    @property
    def core(self) -> Node:
        """The tree after the preparation."""
        return self.nodes[-1 - len(self.preparation)]

    @property
    def averaged(self) -> list[Node]:
        """The nodes of the core, each one after its parts; empty if the core is a single network."""
        return [] if isinstance(self.core, Forward) else self.nodes[: len(self.nodes) - len(self.preparation)]

    @cached_property
    def networks(self) -> list[Forward]:
        """The networks, in the order of the model file."""
        return sorted((node for node in self.nodes if isinstance(node, Forward)), key=lambda node: node.number)

    @property
    def network(self) -> Network:
        """The first network."""
        return self.networks[0].network

    @property
    def steps(self) -> list[Step]:
        """The steps of the first network."""
        return self.networks[0].steps

    @property
    def is_binary(self) -> bool:
        """Whether the single output is the probability of class 1, so that the label is 1 if z > 0."""
        return self.is_classification and self.n_out == 1

    @property
    def takes_bytes(self) -> bool:
        """Whether a file in a language with static types reads bytes: Deskew rounds the pixels of integer images."""
        return any(isinstance(node, Deskewed) and node.rounds for node in self.nodes)

    @property
    def arrays(self) -> dict[str, Array]:
        """All arrays of the steps by name."""
        steps = [step for forward in self.networks for step in forward.steps]
        return {name: array for step in steps for name, array in step.arrays.items()}

    @property
    def used(self) -> set[str]:
        """The kinds of the nodes and steps and the output activation: names of the functions that a file needs.

        "pixel" is the function that some of them need to read pixels outside the image as 0.
        """
        kinds = {step.kind for forward in self.networks for step in forward.steps}
        used = {self.output_activation, *kinds, *(type(node).__name__ for node in self.nodes)}
        return used | {"pixel"} if used & {"Deskewed", "Shifted", "hog"} else used

    @property
    def values(self) -> dict[str, Any]:
        """Values for all templates."""
        return {
            "n_in": self.n_in,
            "n_out": self.n_out,
            "image_shape": self.image_shape,
            "examples": "examples.npy" if self.image_shape is None else "images.npy",
        }

    def head(self, language: str = "", pixels: str = "") -> list[str]:
        """Return the paragraphs at the top of a file: what it contains, its input and its output.

        Parameters
        ----------
        language : str
            The language or framework of the file.
        pixels : str
            The values of the pixels. By default these are bytes if `takes_bytes`, otherwise floats.
        """
        names = list(dict.fromkeys(architecture(forward.steps) for forward in self.networks))
        several = len(self.networks) > 1
        title = f"{f'Ensemble of {len(self.networks)} networks' if several else 'Network'} {' and '.join(names[:3])}"
        title += " ..." * (len(names) > 3)
        title += f" of {self.source}" if self.source else ""
        title += f" in {language}" if language else ""
        return [
            f"{title}. Written by handgrad {__version__}.",
            f"Input: {self._input(pixels)}.",
            f"Output: {self._output()}.",
            *self.notes,
        ]

    def _input(self, pixels: str) -> str:
        if self.image_shape is None:
            scaling = "" if any(isinstance(node, Standardized) for node in self.nodes) else ", with the same scaling"
            return f"x, {self.n_in} numbers{f'{scaling} as in training' if scaling else ', not standardized'}"
        height, width = self.image_shape
        if not pixels:
            pixels = (
                "bytes from 0, the background, to 255, ink"
                if self.takes_bytes
                else "floats in [0, 1] (bytes / 255). The background is 0, ink is 1"
            )
        return f"x, the {self.n_in} pixels of an image of height {height} and width {width}, row by row, as {pixels}"

    def _output(self) -> str:
        n_out = self.n_out
        if not self.is_classification:
            y = {"identity": "the outputs of the last layer", "exp": "e^z for the outputs z of the last layer"}
            return f"{n_out} number{'s' * (n_out > 1)} per example, {y[self.output_activation]}"
        if self.is_binary:
            return (
                "the probability of class 1, the sigmoid of the last layer's output. The label is 1 if it exceeds 1/2"
            )
        p = {"softmax": "the softmax of the outputs", "sigmoid": "the sigmoid of each output"}[self.output_activation]
        return f"{n_out} probabilities, {p} of the last layer. The label is the index of the largest one, from 0"


def architecture(steps: list[Step]) -> str:
    """Return the widths of the layers, as "784-30-10" or "784-HOG 392-30-10"."""
    widths = {"dense": "{}", "hog": "HOG {}"}
    inputs = steps[0].n_in if steps else 0
    return "-".join([str(inputs), *(widths[step.kind].format(step.n_out) for step in steps if step.kind in widths)])


# ---- From models -----------------------------------------------------------------------------------------------------


def inference_graph(model: Model, source: str = "", *, without_preprocessing: bool = False) -> InferenceGraph:
    """Create the inference graph of a model.

    Parameters
    ----------
    model : Model
        A network, or an ensemble or a wrapper of handgrad around networks.
    source : str
        Name of the model file, safe in any comment.
    without_preprocessing : bool
        Leave out the preprocessing and the test-time augmentation.

    Raises
    ------
    HandgradError
        For custom layers, losses, models and preprocessing, and weights that are not finite.
    """
    builder = _Builder(without_preprocessing)
    root = builder.tree(model, "")
    inner = next(builder.inner(model)) if without_preprocessing else model
    if any(other.n_in != inner.n_in for other in builder.inner(model)):
        raise HandgradError("the members of the ensemble have different preprocessing: export it with them")
    image_shape = inner.image_shape
    if without_preprocessing and image_shape is None and isinstance(model, Preprocessed):
        image_shape = model.preprocessing.image_shape_out
    root = _with_floats(root, is_image=image_shape is not None)
    return InferenceGraph(
        root=root,
        n_in=inner.n_in,
        n_out=model.n_out,
        image_shape=image_shape,
        classes=model.classes,
        is_classification=model.loss.is_classification,
        output_activation=output_activation(model.loss, model.n_out),
        source=source,
        notes=tuple(builder.notes),
    )


class _Builder:
    """Builds the tree of a model, and collects the notes."""

    def __init__(self, without_preprocessing: bool) -> None:
        self.without = without_preprocessing
        self.notes: list[str] = []
        self.numbers, self.arrays = itertools.count(1), itertools.count(1)  # of networks and of arrays

    def inner(self, model: Model) -> Iterator[Model]:
        """The models that read the inputs of the exported file."""
        if isinstance(model, Ensemble):
            for member in model.members:
                yield from self.inner(member)
        elif isinstance(model, Network) or (isinstance(model, Preprocessed) and not self.without):
            yield model
        else:
            yield from self.inner(model.model)  # type: ignore[attr-defined]

    def tree(self, model: Model, prefix: str) -> Node:
        """The tree of a model. `prefix` is the start of the names of its arrays in a model file."""
        if isinstance(model, Network):
            return self._forward(model, prefix)
        if isinstance(model, Ensemble):
            trees = tuple(self.tree(member, f"{prefix}{i}.") for i, member in enumerate(model.members))
            return _mean(trees)
        if isinstance(model, Preprocessed):
            return self._preprocessed(model, prefix)
        if isinstance(model, TestTimeAugmentation):
            return self._shifted(model, prefix)
        if type(model).__name__ == "Calibrated":
            return _tempered(self.tree(model.model, prefix), float(model.temperature), self.arrays)  # type: ignore[attr-defined]
        hint = "; export the network_ of an estimator" if hasattr(model, "network_") else ""
        raise HandgradError(f"cannot export {model!r}: expected a network, an ensemble or a wrapper of handgrad{hint}")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _forward(self, network: Network, prefix: str) -> Forward:
        _check_layers(network)
        output_activation(network.loss, network.n_out)
        if network.dtype != np.float32:
            self.note(f"The network was trained in {network.dtype}. The weights are rounded to float32 here.")
        with np.errstate(all="ignore"):  # weights that are not finite are an error below
            folded = fold_batchnorm(network).astype(np.float32)
            steps = list(_steps(folded, self.arrays))
        arrays = [folded.parameters, *(array for step in steps for array in step.arrays.values())]
        if not all(np.isfinite(array).all() for array in arrays):
            raise HandgradError("the weights of the network are not finite: train it again")
        return Forward(network.astype(np.float32), steps, 1.0, prefix, next(self.numbers))

    def _shifted(self, model: TestTimeAugmentation, prefix: str) -> Node:
        part = self.tree(model.model, prefix)
        if model.shifts == 1:
            return part
        if self.without:
            self.note(f"handgrad averages the predictions over {model.shifts} shifts of the image. This file does not.")
            return part
        self.note(f"The predictions are averaged over {model.shifts} shifts of the image.")
        if model.image_shape is None:  # it was set to None after the model was created
            raise HandgradError("test-time augmentation needs a model of images: set its image_shape")
        return Shifted(part, model.shifts, model.image_shape)

    def _preprocessed(self, model: Preprocessed, prefix: str) -> Node:
        preprocessing: Any = model.preprocessing
        what = "image" if model.image_shape is not None else "input"
        if self.without:
            self.note(f"The {what} must be preprocessed by handgrad's {preprocessing!r} first.")
            return self.tree(model.model, prefix)
        if type(preprocessing) is Deskew:
            self.note(
                f"The image is preprocessed as by handgrad's {preprocessing!r}. As in handgrad, the deskewed pixels of "
                "integer images are rounded to integers."
            )
            return Deskewed(self.tree(model.model, prefix), preprocessing, rounds=True)
        if type(preprocessing) is Standardize:
            self.note("The input is standardized in this file: (x - mean) / scale for each number.")
            return Standardized(self.tree(model.model, prefix), preprocessing.mean, preprocessing.scale)
        raise HandgradError(
            f"custom preprocessing cannot be exported: the model has the preprocessing {preprocessing!r}; "
            "--without-preprocessing exports the network alone"
        )


def _mean(trees: tuple[Node, ...]) -> Node:
    """The mean of trees. What all of them do first to the input is done once."""
    first, *others = trees
    if not others:
        return first
    if isinstance(first, Deskewed | Standardized | Shifted) and all(_same(first, other) for other in others):
        return replace(first, part=_mean(tuple(parts(tree)[0] for tree in trees)))
    return Mean(trees)


def _same(a: Node, b: Node) -> bool:
    """Whether two nodes are the same, apart from their parts."""
    if isinstance(a, Deskewed) and isinstance(b, Deskewed):
        return a.deskew == b.deskew
    if isinstance(a, Shifted) and isinstance(b, Shifted):
        return a.shifts == b.shifts
    if isinstance(a, Standardized) and isinstance(b, Standardized):
        return np.array_equal(a.mean, b.mean) and np.array_equal(a.scale, b.scale)
    return False


def _tempered(node: Node, temperature: float, arrays: Iterator[int]) -> Node:
    """A tree with the temperature T: in the last step of a single network, or where the predictions are averaged."""
    if not 0 < temperature < math.inf:
        raise HandgradError(f"the temperature must be a finite number > 0, got {temperature!r}")
    if isinstance(node, Deskewed | Standardized):
        return replace(node, part=_tempered(node.part, temperature, arrays))
    if not isinstance(node, Forward):
        return Tempered(node, temperature)
    *steps, last = node.steps
    if last.kind == "dense":
        scaled = {name: (array / np.float64(temperature)).astype(np.float32) for name, array in last.arrays.items()}
        steps.append(last._replace(arrays=scaled))
    else:
        n, number = last.n_out, next(arrays)
        values = {f"s{number}": np.full(n, 1 / temperature, np.float32), f"t{number}": np.zeros(n, np.float32)}
        steps += [last, Step("scale", n, n, values)]
    return replace(node, steps=steps, temperature=node.temperature * temperature)


def _with_floats(node: Node, is_image: bool) -> Node:
    """Add the conversions to floats: after Deskew, which rounds integer images, and after Standardize."""
    if any(isinstance(other, Deskewed if is_image else Standardized) for other in _before_shifts(node)):
        if isinstance(node, Mean):
            return replace(node, parts=tuple(_with_floats(part, is_image) for part in node.parts))
        assert not isinstance(node, Forward)
        return replace(node, part=_with_floats(node.part, is_image))
    return Floats(_on_floats(node))


def _before_shifts(node: Node) -> Iterator[Node]:
    """The nodes of a tree that receive the original pixels."""
    yield node
    if not isinstance(node, Shifted):
        for part in parts(node):
            yield from _before_shifts(part)


def _on_floats(node: Node) -> Node:
    """A tree whose input is floats: Deskew does not round."""
    if isinstance(node, Forward):
        return node
    if isinstance(node, Mean):
        return replace(node, parts=tuple(map(_on_floats, node.parts)))
    node = replace(node, part=_on_floats(node.part))
    return replace(node, rounds=False) if isinstance(node, Deskewed) else node


def _check_layers(network: Network) -> None:
    for i, layer in enumerate(network.layers):
        if type(layer) not in (*LAYERS.values(), HOG, Ladder):  # `fold_batchnorm` replaces Ladder by its encoder
            raise HandgradError(f"custom layers cannot be exported: layer {i} is {type(layer).__name__}")


def output_activation(loss: Loss, n_out: int) -> str:
    """Return the output activation. Raises HandgradError for custom losses and for a softmax of one output."""
    if type(loss) not in LOSSES.values():
        known = ", ".join(known.__name__ for known in LOSSES.values())
        raise HandgradError(f"custom losses cannot be exported: the loss is {type(loss).__name__}, expected {known}")
    if isinstance(loss, CrossEntropy) and n_out == 1:
        raise HandgradError("the softmax of a single output is always 1: expected the loss binary_cross_entropy")
    return loss.output_activation


def _steps(network: Network, numbers: Iterator[int]) -> Iterator[Step]:
    """The steps of a network. The arrays of a file are numbered from 1."""
    width = network.n_in
    for layer in network.layers:
        n_in, width = width, layer.width(width)
        if isinstance(layer, Dense):
            number = next(numbers)
            yield Step("dense", n_in, width, {f"W{number}": layer.W, f"b{number}": layer.b}, layer)
        elif isinstance(layer, BatchNorm):
            number = next(numbers)
            s, t = layer.affine()
            yield Step("scale", n_in, width, {f"s{number}": s, f"t{number}": t}, layer)
        elif isinstance(layer, HOG):
            number = next(numbers)
            along_y, along_x = (window.astype(np.float32) for window in layer.windows)
            yield Step("hog", n_in, width, {f"KY{number}": along_y, f"KX{number}": along_x}, layer)
        elif not isinstance(layer, Dropout | Identity):
            yield Step(ACTIVATION_NAMES[type(layer)], n_in, width, {}, layer)

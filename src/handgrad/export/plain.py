"""What every export is made of: a network as plain steps, how its outputs are read, and what no export can hold.

What is decided for all targets is decided here, once; a target only writes it down in its own language.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import __version__
from ..arrays import Array
from ..committee import Committee
from ..errors import HandgradError
from ..layers import ACTIVATIONS, LAYERS, BatchNorm, Dense, Dropout, Identity, Layer
from ..losses import CrossEntropy, Loss, Quadratic, SoftmaxCrossEntropy
from ..network import Network
from ..preprocessing import Deskew

# How the outputs z become probabilities, by the loss that they were trained with.
READINGS: dict[type[Loss], str] = {
    SoftmaxCrossEntropy: "softmax",
    CrossEntropy: "sigmoid",
    Quadratic: "identity",
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
class Plain:
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
    def threshold(self) -> float | None:
        """The z above which a single output's label is 1; None where the label is the largest output's."""
        return THRESHOLDS.get(self.reading) if self.network.n_out == 1 else None

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
        network = self.network
        return {"n_in": network.n_in, "n_raw": self.n_raw, "n_out": network.n_out, "image_shape": self.image_shape}

    @property
    def used(self) -> set[str]:
        """The kinds of its steps, and its reading."""
        return {self.reading, *(step.kind for step in self.steps)}

    @property
    def n_raw(self) -> int:
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
            return f"x holds {self.n_raw} floats as the network was trained on: of bytes, x / 255 in [0, 1]."
        height, width = self.image_shape
        return (
            f"x holds the {self.n_raw} pixels of a picture {height} high and {width} wide, row by row, "
            "as floats in [0, 1], bytes / 255: 0 is paper, 1 is ink."
        )

    @property
    def outputs(self) -> str:
        """What comes of x, in a sentence or two."""
        n_out = self.network.n_out
        p = {
            "softmax": "The probabilities are the softmax of the last layer's outputs",
            "sigmoid": "Each probability is the sigmoid of one of the last layer's outputs",
            "identity": "The probabilities are the last layer's outputs as they are",
        }[self.reading]
        if self.threshold is not None:
            return f"{p}; the label is 1 where it is above 1/2, else 0."
        return f"{p}, one for each of {n_out} classes; the label is the largest's, counted from 0."


def as_plain(
    network: Network | Committee, source: str, *, without_preprocessing: bool = False, whole: bool = False
) -> Plain:
    """The network as every target can have it; `whole`, with what is in front of its first layer.

    Raises HandgradError, naming it, for what no target can have.
    """
    if isinstance(network, Committee):
        raise HandgradError(
            f"the model is a committee of {len(network.members)} networks, and an export is of one: "
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
    return Plain(
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


# ---- What is written: a template, filled -----------------------------------------------------------------------------


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with every «name» replaced by its value.

    A line that is nothing but «name», of a list, becomes its lines, each as far in as it; of an empty one it is gone. A
    line that begins with «?name» is there only where that is true.
    """
    lines: list[str] = []
    for line in template.strip("\n").split("\n"):
        asked = re.match("«\\?(\\w+)»", line)
        if asked is not None:
            if not values[asked[1]]:
                continue
            line = line[asked.end() :]
        alone = re.fullmatch("( *)«(\\w+)»", line)
        if alone is not None and isinstance(values[alone[2]], list):
            lines += [f"{alone[1]}{part}".rstrip() for part in values[alone[2]]]
        else:
            lines.append(re.sub("«(\\w+)»", lambda name: str(values[name[1]]), line))
    return "\n".join(lines) + "\n"


def functions(sources: Mapping[str, str], used: Container[str]) -> list[str]:
    """The lines of those functions that are used, an empty line before each."""
    return [line for word, text in sources.items() if word in used for line in text.rstrip("\n").split("\n")]


def shown(name: str) -> str:
    """A file's name as it may stand in any comment: letters, digits, and what can neither end a line nor a comment."""
    return re.sub(r"[^\w .,+=@()-]", "_", name)


def identifier(name: str) -> str:
    """A name for a variable or function in C, from a file's name."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return word if word and not word[0].isdigit() else f"model_{word}".rstrip("_")


def quoted(text: str) -> str:
    """A string in Python's source, in ASCII."""
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def packed(items: Iterable[str], indent: str, width: int = WIDTH) -> list[str]:
    """Items with commas between, as many to a line as it holds."""
    lines: list[str] = []
    line = indent
    for item in items:
        if line != indent and len(line) + len(item) + 1 > width:
            lines.append(line.rstrip())
            line = indent
        line += f"{item}, "
    return [*lines, line.rstrip()]


def called(name: str, items: Iterable[str], opening: str, closing: str, indent: str = "    ") -> list[str]:
    """`name = [items]`, on a line of its own where it fits."""
    items = list(items)
    whole = f"{name} = {opening}{', '.join(items)}{closing}"
    if opening == "(" and len(items) == 1:
        whole = f"{name} = ({items[0]},)"
    return [whole] if len(whole) <= WIDTH else [f"{name} = {opening}", *packed(items, indent), closing]


def paragraphs(texts: Iterable[str], indent: str = "") -> list[str]:
    """Lines of these paragraphs, one empty line between two."""
    lines: list[str] = []
    for text in texts:
        lines += ["", *textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)]
    return [f"{indent}{line}".rstrip() for line in lines[1:]]


def base64_lines(array: Array) -> list[str]:
    """The numbers as little-endian float32, in base64."""
    from base64 import b64encode

    text = b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
    return [text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]

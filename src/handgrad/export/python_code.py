"""Python code that the NumPy file and the scripts for PyTorch and Keras have in common: preprocessing and averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..images.deskew import FLAT
from ..images.hog import HOG, SIGMA
from ..network import Network
from ..wrappers import SHIFTS
from .graph import Deskewed, Floats, Forward, InferenceGraph, Mean, Node, Shifted, Standardized, Tempered
from .templates import assignment, python_string, render, used_functions, wrap

TO_FLOATS = '''

def to_floats(x):
    """Convert x to float32, one row for each example«conversion»."""
    «body»
'''

CHECK_PIXELS = '''
def check_pixels(x):
    """Return x as an array. Raises ValueError for pixels out of range."""
    x = np.asarray(x)
    if not ((x >= -1e-6) & (x <= (255 if x.dtype.kind in "iu" else 1 + 1e-6))).all():
        raise ValueError("x has pixels out of range: expected integers 0 to 255, or floats in [0, 1]")
    return x
'''

FUNCTIONS = {
    "Deskewed": '''

def deskew(p, height, width, shrink=1):
    """Remove the slant of images p and centre them. With `shrink` s, s x s pixels become their mean.

    This is handgrad's Deskew, with the same arithmetic: integers are rounded to integers as there.
    """
    if len(p) > 1000:  # blocks need less memory
        return np.concatenate([deskew(p[i : i + 1000], height, width, shrink) for i in range(0, len(p), 1000)])
    integers = check_pixels(p).dtype.kind in "iu"
    p = np.asarray(p, np.float32).reshape(-1, height, width)
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    rows, rows_x = p.sum(axis=2, dtype=float), p @ x
    m = np.maximum(rows.sum(axis=1), 1e-30)
    cy, cx = rows @ y / m, rows_x.sum(axis=1) / m
    variance, flat = rows @ y**2 / m - cy * cy, «flat» * height**2
    slant = np.where(variance > flat, (rows_x @ y / m - cx * cy) / np.maximum(variance, flat), 0)

    # out(y, x) = p(y + cy, x + slant y + cx), interpolated along y and then along x, and 0 outside the image
    along = slant[:, None] * y + cx[:, None]
    fy, fx = cy - np.floor(cy), along - np.floor(along)
    fy, fx = fy.astype(np.float32)[:, None, None], fx.astype(np.float32)[:, :, None]
    k, i = np.arange(len(p))[:, None, None], np.arange(height)[:, None] + np.floor(cy)[:, None, None]
    j = np.arange(width) + np.floor(along)[:, :, None]
    i, j = i.clip(-2, height).astype(int) + 2, j.clip(-2, width).astype(int) + 2
    p = np.pad(p, ((0, 0), (2, 2), (2, 2)))
    left, right = (p[k, i, c] + fy * (p[k, i + 1, c] - p[k, i, c]) for c in (j, j + 1))
    p = left + fx * (right - left)
    p = np.rint(p) if integers else p
    if shrink > 1:
        p = p.reshape(-1, height // shrink, shrink, width // shrink, shrink).sum(axis=(2, 4))
        p = p * np.float32(1 / shrink**2)
        p = np.rint(p) if integers else p
    return p.astype(np.uint8 if integers else np.float32).reshape(len(p), -1)
'''.replace("«flat»", repr(FLAT)),
    "Standardized": '''

def standardize(x, mean, scale):
    """Return (x - mean) / scale, in float64, for x (count, n_in)."""
    return (np.asarray(x, np.float64).reshape(len(x), -1) - mean) / scale
''',
    "Shifted": '''

def shifted(x, height, width, shifts):
    """Yield the images x (count, height * width) shifted by one pixel. Pixels shifted in are 0."""
    padded = np.pad(x.reshape(-1, height, width), ((0, 0), (1, 1), (1, 1)))
    for down, right in shifts:
        yield padded[:, 1 - down :, 1 - right :][:, :height, :width].reshape(len(x), -1)
''',
}

# The weights of HOG, in the scripts whose modules create them.
GAUSSIANS = '''
def gaussians(size, cells):
    """Return the weights (cells, size) of the pixels along one side: Gaussians around the centres of the cells."""
    cell = size / cells
    deviation = «width» * cell
    distance = (np.arange(size) - (np.arange(cells)[:, None] + 0.5) * cell + 0.5) / deviation
    return (np.exp(-(distance**2) / 2) / (np.sqrt(2 * np.pi) * deviation)).astype(np.float32)
'''.replace("«width»", repr(SIGMA))


class PythonCode:
    """The parts of a Python file.

    Parameters
    ----------
    graph : InferenceGraph
        The model.
    predictions : callable
        (network, input) -> the expression of the predictions of a network, both as code.
    tempered : mapping of str to str
        The expression of predictions with a temperature, by the output activation. {p} are predictions, {T} is the
        temperature.
    """

    def __init__(
        self, graph: InferenceGraph, predictions: Callable[[Forward, str], str], tempered: dict[str, str]
    ) -> None:
        self.graph, self.predictions, self.tempered = graph, predictions, tempered
        self.core = graph.core
        self.names: dict[Node, str] = {node: f"p{number}" for number, node in enumerate(graph.averaged, 1)}
        standardized = [node for node in graph.nodes if isinstance(node, Standardized)]
        self.standardized = {node: number for number, node in enumerate(standardized, 1)}

    @property
    def prepared(self) -> str:
        """The input of the core, as code."""
        value = "x"
        for node in self.graph.preparation:
            value = self._prepared(node, value)
        return value

    @property
    def prediction(self) -> str:
        """The expression of the predictions for the input x."""
        if isinstance(self.core, Forward):
            return self.predictions(self.core, self.prepared)
        return f"{self.names[self.core]}({self.prepared})"

    @property
    def functions(self) -> str:
        """The functions: conversion to floats, deskewing, shifts, and one function for each average and its parts."""
        body = ["return np.asarray(x, np.float32).reshape(len(x), -1)"]
        conversion = ""
        if self.graph.image_shape is not None:
            conversion = ". Integers are divided by 255"
            body = ["x = check_pixels(x)", 'x = x / 255 if x.dtype.kind in "iu" else x', *body]
        values = {"body": "\n".join(body), "conversion": conversion}
        sources = [
            CHECK_PIXELS if self.graph.image_shape is not None else "",
            render(TO_FLOATS, values).removesuffix("\n"),
            used_functions(FUNCTIONS, self.graph.used).strip("\n"),
            *("\n".join(self._function(node)) for node in self.names),
        ]
        return "\n\n\n".join(source.strip("\n") for source in sources if source)

    @property
    def constants(self) -> str:
        """The mean and the scale of each Standardize."""
        lines = []
        for node, number in self.standardized.items():
            for name, array in ((f"MEAN{number}", node.mean), (f"SCALE{number}", node.scale)):
                lines += [f"{name} = np.array([", *wrap(map(repr, array.tolist()), "    "), "])"]
        return "\n".join(lines)

    @property
    def conversion(self) -> str:
        """How `predict` reads its input: the end of a docstring."""
        return "" if self.graph.image_shape is None else " or images"

    def _prepared(self, node: Node, value: str) -> str:
        if isinstance(node, Deskewed):
            deskew = node.deskew
            shrink = f", {deskew.shrink}" if deskew.shrink > 1 else ""
            return f"deskew({value}, {deskew.height}, {deskew.width}{shrink})"
        if isinstance(node, Standardized):
            number = self.standardized[node]
            return f"standardize({value}, MEAN{number}, SCALE{number})"
        assert isinstance(node, Floats)
        return f"to_floats({value})"

    def _function(self, node: Node) -> Iterator[str]:
        """The function of a node. It returns predictions (count, n_out)."""
        yield f"def {self.names[node]}(x):"
        if isinstance(node, Forward):
            yield f"    return {self.predictions(node, 'x')}"
        elif isinstance(node, Mean):
            names = [self.names[part] for part in node.parts]
            yield f'    """Return the mean predictions of {len(names)} models."""'
            line = f"    return sum(p(x) for p in ({', '.join(names)})) / {len(names)}"
            if len(line) <= 100:
                yield line
            else:
                yield "    models = ("
                yield from wrap(names, "        ")
                yield "    )"
                yield f"    return sum(p(x) for p in models) / {len(names)}"
        elif isinstance(node, Shifted):
            height, width = node.image_shape
            yield f'    """Return the mean predictions over {node.shifts} shifts (down, right) of the image."""'
            yield f"    shifts = {', '.join(map(str, SHIFTS[node.shifts]))}"
            image = f"shifted(x, {height}, {width}, shifts)"
            yield f"    return sum({self.names[node.part]}(image) for image in {image}) / {node.shifts}"
        elif isinstance(node, Tempered):
            yield '    """Return the calibrated predictions: the logits are divided by a temperature."""'
            yield f"    p = {self.names[node.part]}(x)"
            expression = self.tempered[self.graph.output_activation]
            yield f"    return {expression.format(p='p', T=repr(node.temperature))}"
        else:
            yield f"    return {self.names[node.part]}({self._prepared(node, 'x')})"


def hog_module(networks: Iterable[Network], module: str) -> str:
    """Return the source of `module` and of the function for its weights if a network has a HOG, otherwise ""."""
    if not any(isinstance(layer, HOG) for network in networks for layer in network.layers):
        return ""
    return f"{GAUSSIANS}\n{module}\n"


def hog_code(layer: HOG) -> str:
    """Return the code that creates a HOG module, as "HOG(28, 28, 7)"."""
    return f"HOG({', '.join(map(str, layer.config().values()))})"


def network_names(graph: InferenceGraph, name: str) -> dict[Forward, str]:
    """Return a name for each network: `name` for a single one, otherwise with a number."""
    several = len(graph.networks) > 1
    return {forward: f"{name}{forward.number}" if several else name for forward in graph.networks}


def label(graph: InferenceGraph, z: str, as_integer: str, axis: str) -> str:
    """Return the labels (count,), as code.

    Parameters
    ----------
    graph : InferenceGraph
        The model.
    z : str
        The logits of a single network, as code. They are not rounded where the probabilities are 1.
    as_integer : str
        Method that converts booleans to integers.
    axis : str
        Name of the argument for the axis.
    """
    alone = isinstance(graph.core, Forward)
    value = z if alone else "predict_proba(x)"
    if graph.is_binary:
        return f"({value}[:, 0] > {0 if alone else 0.5}).{as_integer}"
    return f"{value}.argmax({axis}=1)"


def classification(graph: InferenceGraph, predict: str) -> dict[str, str]:
    """The parts of a Python file that only a classification has: `predict` for labels, and the class names."""
    if not graph.is_classification:
        return {"classes": "", "predict": ""}
    return {"classes": assignment("CLASSES", map(python_string, graph.classes), "(", ")"), "predict": predict}


def print_code(graph: InferenceGraph) -> str:
    """Return the Python lines that print the predicted class of each example and its probability, or the numbers."""
    if not graph.is_classification:
        return 'for y in predict(x):\n    print(*(f"{number:.6g}" for number in y))'
    probability = "p[0] if label else 1 - p[0]" if graph.is_binary else "p[label]"
    return (
        f'for label, p in zip(predict(x), predict_proba(x)):\n    print(f"{{CLASSES[label]}}  {{{probability}:.2%}}")'
    )


PIXELS = "integers 0 to 255, or as floats in [0, 1] (bytes / 255). The background is 0, ink is 255 or 1"


def head(graph: InferenceGraph, framework: str, notes: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the title of the docstring, and its other paragraphs."""
    title, *others = graph.head(framework, PIXELS)
    return title, [*others, *notes]


def common_values(graph: InferenceGraph, code: PythonCode, name: str) -> dict[str, Any]:
    """Return the values that the templates of all Python files need."""
    return graph.values | {
        "name": name,
        "function": "predict_proba" if graph.is_classification else "predict",
        "predictions": "probabilities" if graph.is_classification else "predictions",
        "or_images": code.conversion,
        "functions": code.functions,
        "constants": code.constants,
        "print": print_code(graph),
    }


TINY = repr(float(np.finfo(np.float32).tiny))  # the smallest probability whose logarithm is computed
EPSILON = repr(float(np.finfo(np.float32).epsneg))  # float32 does not distinguish probabilities closer to 0 or 1

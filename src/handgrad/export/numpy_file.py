"""Export to a Python file that needs NumPy only: one line per layer, with the weights as text at the end."""

from __future__ import annotations

from collections.abc import Iterator

from ..images.deskew import FLAT
from ..wrappers import SHIFTS
from .graph import InferenceGraph
from .templates import assignment, base64_lines, paragraphs, python_string, render, used_functions

TEMPLATE = '''
"""«title»

    python «name» «examples»     prints the predictions for the examples in a file

«head»
"""

import base64
import sys

import numpy as np

«classes»
IMAGE_SHAPE = «image_shape»


«predict»
def «function»(x):
    """Return the «predictions» (count, «n_out») for x (count, «n_in»)«or_images»."""
    return «prediction»


def outputs(x):
    """Return the outputs of the last layer (count, «n_out») for floats x (count, «n_in_network»)."""
    «chain»
«functions»


def to_floats(x):
    """Convert x to floats (count, «n_in_network»)«conversion»."""
    «to_floats»
«deskew»


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    «print»


def decode(text, *shape):
    """Decode the weights in `text`: float32, little-endian, in base64."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


«weights»

if __name__ == "__main__":
    main()
'''

PREDICT = '''
def predict(x):
    """Return the label of each example (count,) for x (count, «n_in»)«or_images»."""
    return «label»
'''

DESKEW = '''
def deskew(p):
    """Remove the slant of images p (count, «height», «width») and centre them, as handgrad's Deskew does."""
    y, x = np.arange(«height») - «ym», np.arange(«width») - «xm»
    m = np.maximum(p.sum(axis=(1, 2), dtype=float), 1e-30)
    cy, cx = p.sum(axis=2) @ y / m, p.sum(axis=1) @ x / m
    variance = p.sum(axis=2) @ y**2 / m - cy**2
    covariance = np.einsum("kij,i,j->k", p, y, x) / m - cy * cx
    slant = np.where(variance > «flat», covariance / np.maximum(variance, «flat»), 0)

    # out(y, x) = p(y + cy, x + slant y + cx), with bilinear interpolation, and 0 outside the image
    rows = (y + cy[:, None])[:, :, None] + «ym»
    columns = x + (slant[:, None] * y + cx[:, None])[:, :, None] + «xm»
    i, j = np.floor(rows), np.floor(columns)
    fy, fx = rows - i, columns - j
    i, j = i.clip(-2, «height»).astype(int) + 2, j.clip(-2, «width»).astype(int) + 2
    padded, k = np.pad(p, ((0, 0), (2, 2), (2, 2))), np.arange(len(p))[:, None, None]
    above = (1 - fx) * padded[k, i, j] + fx * padded[k, i, j + 1]
    below = (1 - fx) * padded[k, i + 1, j] + fx * padded[k, i + 1, j + 1]
    return (1 - fy) * above + fy * below
'''

SHIFTED = '''
def shifted(x):
    """Yield the images x (count, «n_in») shifted by one pixel: down, right, ... Pixels shifted in are 0."""
    padded = np.pad(x.reshape(-1, «height», «width»), ((0, 0), (1, 1), (1, 1)))
    for down, right in «shifts»:
        yield padded[:, 1 - down : 1 - down + «height», 1 - right : 1 - right + «width»].reshape(len(x), -1)
'''

FUNCTIONS = {
    "sigmoid": """

def sigmoid(z):
    return 0.5 * np.tanh(0.5 * z) + 0.5  # = 1 / (1 + exp(-z)), without overflow
""",
    "softplus": """

def softplus(z):
    return np.logaddexp(0, z)  # = log(1 + exp(z)), without overflow
""",
    "gelu": """

def gelu(z):
    u = 0.7978845608028654 * (z + 0.044715 * z * z * z)  # sqrt(2 / pi)
    return 0.5 * z * (1 + np.tanh(u))
""",
    "softmax": """

def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))  # subtracting the largest z avoids overflow
    return p / p.sum(axis=1, keepdims=True)
""",
    "exp": """

def exp(z):
    with np.errstate(over="ignore"):  # infinity is the correct value
        return np.exp(z)
""",
}
CALLS = {"relu": "np.maximum({}, 0)", "tanh": "np.tanh({})", "identity": "{}"}
CALLS |= {name: f"{name}({{}})" for name in FUNCTIONS}


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file `name`."""
    title, *head = graph.head("NumPy")
    z, call = "outputs(to_floats(x))", CALLS[graph.output_activation].format
    label, prediction = _label(z, 0 if graph.is_binary else None), call(z)
    functions = [used_functions(FUNCTIONS, graph.used)]
    if graph.shifts > 1:
        label = _label("predict_proba(x)", 0.5 if graph.is_binary else None)
        prediction = f"sum({call('outputs(image)')} for image in shifted(to_floats(x))) / {graph.shifts}"
        functions.append(f"\n\n{_shifted(graph)}")
    weights = [
        "\n".join([f'{key} = decode("""', *base64_lines(array), f'""", {", ".join(map(str, array.shape))})\n'])
        for key, array in graph.arrays.items()
    ]
    images = graph.image_shape is not None
    values = graph.values | {
        "title": title,
        "name": name,
        "head": paragraphs(head),
        "function": "predict_proba" if graph.is_classification else "predict",
        "predictions": "probabilities" if graph.is_classification else "predictions",
        "prediction": prediction,
        "label": label,
        "chain": "\n".join(chain(graph)),
        "functions": "\n".join(filter(None, functions)),
        "or_images": " or images" if images else "",
        "n_in_network": graph.network.n_in,
        "conversion": f": {'deskewed ' * (graph.deskew is not None)}pixels in [0, 1], integers / 255" if images else "",
        "to_floats": "\n".join(_to_floats(graph)),
        "deskew": f"\n\n{_deskew(graph)}" if graph.deskew is not None else "",
        "weights": "\n".join(weights).removesuffix("\n"),
        "print": print_code(graph),
    }
    values |= classification(graph, render(PREDICT, values) + "\n")
    return render(TEMPLATE, values).encode()


def classification(graph: InferenceGraph, predict: str) -> dict[str, str]:
    """The parts of a Python file that only a classification has: `predict` for labels, and the class names."""
    if not graph.is_classification:
        return {"classes": "", "predict": ""}
    return {"classes": assignment("CLASSES", map(python_string, graph.network.classes), "(", ")"), "predict": predict}


def _to_floats(graph: InferenceGraph) -> Iterator[str]:
    """The body of `to_floats`. Integer images are divided by 255. Their deskewed pixels are rounded to integers."""
    if graph.image_shape is None:
        yield "return np.asarray(x, np.float32)"
        return
    yield "x = np.asarray(x)"
    yield 'integers = x.dtype.kind in "iu"'
    if graph.deskew is not None:
        (height, width), s = graph.deskew.image_shape_in, graph.deskew.shrink
        yield f"x = deskew(x.reshape(-1, {height}, {width}))"
        yield "x = np.rint(x) if integers else x"
        if s > 1:
            yield f"x = x.reshape(-1, {height // s}, {s}, {width // s}, {s}).mean(axis=(2, 4))"
            yield "x = np.rint(x) if integers else x"
    yield "return np.asarray(x / 255 if integers else x, np.float32).reshape(len(x), -1)"


def _deskew(graph: InferenceGraph) -> str:
    """The source of `deskew`."""
    assert graph.deskew is not None
    height, width = graph.deskew.image_shape_in
    values = {"height": height, "width": width, "ym": (height - 1) / 2, "xm": (width - 1) / 2}
    return render(DESKEW, values | {"flat": f"{FLAT * height**2:.3g}"}).removesuffix("\n")


def _shifted(graph: InferenceGraph) -> str:
    """The source of `shifted`."""
    assert graph.network.image_shape is not None
    height, width = graph.network.image_shape
    values = {"n_in": graph.network.n_in, "height": height, "width": width, "shifts": SHIFTS[graph.shifts]}
    return render(SHIFTED, values).removesuffix("\n")


def chain(graph: InferenceGraph) -> Iterator[str]:
    """Yield the body of `outputs`: a line for each layer with its activation."""
    value = a = "x"
    for step in graph.steps:
        if value != "x" and (step.arrays or step.kind == "leaky_relu"):  # these use their input by name
            yield f"a = {value}"
            a = "a"
        if step.kind == "dense":
            W, b = step.arrays
            value = f"{a} @ {W}.T + {b}"
        elif step.kind == "scale":
            s, t = step.arrays
            value = f"{s} * {a} + {t}"
        elif step.kind == "leaky_relu":
            value = f"np.maximum({a}, {step.slope!r} * {a})"
        else:
            value = CALLS[step.kind].format(value)
    yield f"return {value}"


def _label(z: str, threshold: float | None) -> str:
    """The labels (count,) of logits or probabilities z (count, n_out)."""
    return f"{z}.argmax(axis=1)" if threshold is None else f"({z}[:, 0] > {threshold}).astype(int)"


def print_code(graph: InferenceGraph) -> str:
    """Return the Python lines that print the predicted class of each example and its probability, or the numbers."""
    if not graph.is_classification:
        return 'for y in predict(x):\n    print(*(f"{number:.6g}" for number in y))'
    probability = "p[0] if label else 1 - p[0]" if graph.is_binary else "p[label]"
    return (
        f'for label, p in zip(predict(x), predict_proba(x)):\n    print(f"{{CLASSES[label]}}  {{{probability}:.2%}}")'
    )

"""A Python file that needs NumPy alone: the chain line by line, the weights as text at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..images.deskew import FLAT
from ..network import SHIFTS
from .graph import InferenceGraph
from .templates import base64_lines, called, render, functions, paragraphs, quoted

TEMPLATE = '''
"""«title»

    python «name» «file»     answers to what is in the file: one example, or several

«head»
"""

import base64
import sys

import numpy as np

«?is_classification»«classes»
IMAGE_SHAPE = «image_shape»


«?is_classification»def predict(x):
«?is_classification»    """x (count, «n_in»), or as many pictures -> the label of each: (count,) integers."""
«?is_classification»    return «label»
«?is_classification»
«?is_classification»
def «reader»(x):
    """x (count, «n_in»), or as many pictures -> (count, «n_out»)."""
    return «read»


def outputs(x):
    """x (count, «n_in») floats -> (count, «n_out»), what the last layer makes of them."""
    «chain»
«functions»


def floats(x):
    """Numbers or pictures of any kind -> (count, «n_in») floats, of bytes in [0, 1]«upright»."""
    x = np.asarray(x)
    is_bytes = x.dtype == np.uint8
    «deskewed»
    return np.asarray(x / 255 if is_bytes else x, np.float32).reshape(len(x), -1)
«deskew»


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    «told»


def numbers(text, *shape):
    """The weights in `text`: float32, little-endian, in base64."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


«weights»

if __name__ == "__main__":
    main()
'''

DESKEW = '''

def deskew(p):
    """Pictures p (count, «height», «width») sheared upright, their ink's centre in the middle: handgrad's Deskew."""
    p = p.reshape(-1, «height», «width»)
    y, x = np.arange(«height») - «ym», np.arange(«width») - «xm»
    ink = np.maximum(p.sum(axis=(1, 2), dtype=float), 1e-30)
    cy, cx = p.sum(axis=2) @ y / ink, p.sum(axis=1) @ x / ink
    variance = p.sum(axis=2) @ y**2 / ink - cy**2
    covariance = np.einsum("kij,i,j->k", p, y, x) / ink - cy * cx
    slant = np.where(variance > «flat», covariance / np.maximum(variance, «flat»), 0)

    # out(y, x) = p(y + cy, x + slant y + cx): between pixels bilinear, and 0 outside
    rows = (y + cy[:, None])[:, :, None] + «ym»
    columns = x + (slant[:, None] * y + cx[:, None])[:, :, None] + «xm»
    i, j = np.floor(rows), np.floor(columns)
    fy, fx = rows - i, columns - j
    i, j = i.clip(-2, «height»).astype(int) + 2, j.clip(-2, «width»).astype(int) + 2
    field, k = np.pad(p, ((0, 0), (2, 2), (2, 2))), np.arange(len(p))[:, None, None]
    above = (1 - fx) * field[k, i, j] + fx * field[k, i, j + 1]
    below = (1 - fx) * field[k, i + 1, j] + fx * field[k, i + 1, j + 1]
    return (1 - fy) * above + fy * below
'''

VIEWS = '''

def shifts(x):
    """The pictures x (count, «n_in»), and as they are a pixel further down, right, ...; what comes in is paper."""
    paper = np.pad(x.reshape(-1, «height», «width»), ((0, 0), (1, 1), (1, 1)))
    for down, across in «shifts»:
        yield paper[:, 1 - down : 1 - down + «height», 1 - across : 1 - across + «width»].reshape(len(x), -1)
'''

FUNCTIONS = {
    "sigmoid": """

def sigmoid(z):
    return 0.5 * np.tanh(0.5 * z) + 0.5  # = 1 / (1 + exp(-z)), and nothing overflows
""",
    "softplus": """

def softplus(z):
    return np.logaddexp(0, z)  # = log(1 + exp(z)), and nothing overflows
""",
    "gelu": """

def gelu(z):
    u = 0.7978845608028654 * (z + 0.044715 * z * z * z)  # sqrt(2 / pi)
    return 0.5 * z * (1 + np.tanh(u))
""",
    "softmax": """

def softmax(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))  # the largest is taken out, so nothing overflows
    return p / p.sum(axis=1, keepdims=True)
""",
    "exp": """

def exp(z):
    with np.errstate(over="ignore"):  # infinite is what it is there
        return np.exp(z)
""",
}
CALLS = {"relu": "np.maximum({}, 0)", "tanh": "np.tanh({})", "identity": "{}"}
CALLS |= {word: f"{word}({{}})" for word in FUNCTIONS}


def write(plain: InferenceGraph, name: str) -> bytes:
    """The file's text; `name` is the file's own."""
    title, *head = plain.head(", in NumPy alone")
    weights = []
    for key, array in plain.arrays.items():
        shape = ", ".join(map(str, array.shape))
        weights += [f'{key} = numbers("""', *base64_lines(array), f'""", {shape})', ""]
    values = {
        "title": title,
        "name": name,
        "head": paragraphs(head),
        "classes": called("CLASSES", map(quoted, plain.network.classes), "(", ")"),
        "label": label("outputs(floats(x))", plain.threshold),
        "read": CALLS[plain.reading].format("outputs(floats(x))"),
        "chain": list(chain(plain)),
        "functions": functions(FUNCTIONS, plain.used),
        "upright": "",
        "deskewed": [],
        "deskew": [],
        "told": told(plain),
        "weights": weights[:-1],
    }
    return render(TEMPLATE, plain.values | values | deskewed(plain) | viewed(plain)).encode()


def deskewed(plain: InferenceGraph) -> dict[str, Any]:
    """The parts that set pictures upright, where the network sees them so. Of bytes handgrad makes bytes."""
    if (deskew := plain.deskew) is None:
        return {}
    (height, width), s = (deskew.height, deskew.width), deskew.shrink
    lines = ["x = deskew(x)", "x = np.rint(x) if is_bytes else x"]
    if s > 1:
        lines += [f"x = x.reshape(-1, {height // s}, {s}, {width // s}, {s}).mean(axis=(2, 4))", lines[1]]
    sizes = {"height": height, "width": width, "ym": (height - 1) / 2, "xm": (width - 1) / 2}
    text = render(DESKEW, sizes | {"flat": f"{FLAT * height**2:.3g}"})
    return {"upright": ", upright", "deskewed": lines, "deskew": ["", "", *text.rstrip("\n").split("\n")]}


def viewed(plain: InferenceGraph) -> dict[str, Any]:
    """The parts that answer by the mean over shifts, where the network does."""
    if plain.views == 1 or (shape := plain.network.image_shape) is None:
        return {}
    values = {"n_in": plain.network.n_in, "height": shape[0], "width": shape[1], "shifts": SHIFTS[plain.views]}
    one = CALLS[plain.reading].format("outputs(view)")
    text = render(VIEWS, values)
    return {
        "label": label("probabilities(x)", None if plain.threshold is None else 0.5),
        "read": f"sum({one} for view in shifts(floats(x))) / {plain.views}",
        "functions": [*functions(FUNCTIONS, plain.used), "", "", *text.rstrip("\n").split("\n")],
    }


def chain(plain: InferenceGraph) -> Iterator[str]:
    """The body of `outputs`: a line for each layer with its activation."""
    value = a = "x"
    for step in plain.steps:
        if value != "x" and (step.arrays or step.kind == "leaky_relu"):  # they need a name for what comes to them
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


def label(z: str, threshold: float | None) -> str:
    """The labels (count,) of outputs z (count, n_out), or of probabilities, in NumPy."""
    return f"{z}.argmax(axis=1)" if threshold is None else f"({z}[:, 0] > {threshold:g}).astype(int)"


def told(plain: InferenceGraph) -> list[str]:
    """The lines that print of each example its class and how likely it is, or its numbers."""
    if not plain.is_classification:
        return ["for y in predict(x):", '    print(*(f"{number:.6g}" for number in y))']
    told = 'f"{label}  {p[0]:.4f}"' if plain.threshold is not None else 'f"{CLASSES[label]}  {p[label]:.2%}"'
    return ["for label, p in zip(predict(x), probabilities(x)):", f"    print({told})"]

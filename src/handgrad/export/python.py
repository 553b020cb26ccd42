"""A Python file that needs NumPy alone: the chain line by line, the weights as text at its end."""

from __future__ import annotations

from collections.abc import Iterator

from .plain import Plain, base64_lines, called, filled, functions, paragraphs, quoted

TEMPLATE = '''
"""«title»

    python «name» digit.npy     tells what is in the file: one example, or several

«head»
"""

import base64
import sys

import numpy as np

«classes»
IMAGE_SHAPE = «image_shape»


def predict(x):
    """x (count, «n_in») -> the label of each: (count,) integers."""
    return «label»


def probabilities(x):
    """x (count, «n_in») -> (count, «n_out»)."""
    return «probabilities»


def outputs(x):
    """x (count, «n_in»), or as many pictures -> z (count, «n_out»), what the last layer makes of them."""
    x = np.asarray(x)
    a = np.asarray(x / 255 if x.dtype == np.uint8 else x, np.float32).reshape(len(x), -1)
    «chain»
«functions»


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    for label, p in zip(predict(x), probabilities(x)):
        print(«told»)


def numbers(text, *shape):
    """The weights in `text`: float32, little-endian, in base64."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


«weights»

if __name__ == "__main__":
    main()
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
}
CALLS = {"relu": "np.maximum({}, 0)", "tanh": "np.tanh({})", "identity": "{}"}
CALLS |= {word: f"{word}({{}})" for word in FUNCTIONS}


def write(plain: Plain, name: str) -> bytes:
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
        "label": label(plain, "outputs(x)"),
        "probabilities": CALLS[plain.reading].format("outputs(x)"),
        "chain": list(chain(plain)),
        "functions": functions(FUNCTIONS, plain.used),
        "told": told(plain),
        "weights": weights[:-1],
    }
    return filled(TEMPLATE, plain.values | values).encode()


def chain(plain: Plain) -> Iterator[str]:
    """The body of `outputs`: a line for each layer with its activation."""
    value = "a"
    for step in plain.steps:
        if value != "a" and (step.arrays or step.kind == "leaky_relu"):  # they need a name for what comes to them
            yield f"a = {value}"
            value = "a"
        if step.kind == "dense":
            W, b = step.arrays
            value = f"a @ {W}.T + {b}"
        elif step.kind == "scale":
            s, t = step.arrays
            value = f"{s} * a + {t}"
        elif step.kind == "leaky_relu":
            value = f"np.maximum(a, {step.slope!r} * a)"
        else:
            value = CALLS[step.kind].format(value)
    yield f"return {value}"


def label(plain: Plain, z: str) -> str:
    """The labels (count,) of outputs z (count, n_out), in NumPy."""
    if plain.threshold is None:
        return f"{z}.argmax(axis=1)"
    return f"({z}[:, 0] > {plain.threshold:g}).astype(int)"


def told(plain: Plain) -> str:
    """What is printed of an example: its class and how likely it is."""
    return 'f"{label}  {p[0]:.4f}"' if plain.threshold is not None else 'f"{CLASSES[label]}  {p[label]:.2%}"'

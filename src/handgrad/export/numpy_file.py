"""Export to a Python file that needs NumPy only: one line per layer, with the weights as text at the end."""

from __future__ import annotations

from collections.abc import Iterator

from ..images import hog
from .graph import Forward, InferenceGraph, Step
from .python_code import EPSILON, TINY, PythonCode, classification, common_values, head, label, network_names
from .templates import base64_lines, paragraphs, render, used_functions

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


«networks»
«activations»


«functions»


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

NETWORK = '''
def «outputs»(x):
    """Return the outputs of the last layer (count, «n_out») for floats x (count, «n_in»)."""
    «chain»
'''

PREDICT = '''
def predict(x):
    """Return the label of each example (count,) for x (count, «n_in»)«or_images»."""
    return «label»
'''

FUNCTIONS = {
    "hog": '''

def hog(x, ky, kx):
    """Return histograms of oriented gradients: how much edge there is in each of 8 directions, for each cell of a grid.

    x (count, channels * height * width), and the weights of the cells along each side, ky (cells, height) and
    kx (cells, width).
    """
    if len(x) > 1000:  # blocks need less memory
        return np.concatenate([hog(x[i : i + 1000], ky, kx) for i in range(0, len(x), 1000)])
    p = np.pad(x.reshape(-1, ky.shape[1], kx.shape[1]), ((0, 0), (1, 1), (1, 1)))
    gx, gy = p[:, 1:-1, 2:] - p[:, 1:-1, :-2], p[:, 2:, 1:-1] - p[:, :-2, 1:-1]
    components = (
        *(gx - abs(gy), -gx - abs(gy), gy - abs(gx), -gy - abs(gx)),  # east, west, south, north
        *(np.minimum(gx, gy), np.minimum(-gx, gy)),  # southeast, southwest
        *(np.minimum(gx, -gy), np.minimum(-gx, -gy)),  # northeast, northwest
    )
    h = np.maximum(np.stack(components, axis=1), 0)
    return np.sqrt(ky @ (h @ kx.T) + «epsilon»).reshape(len(x), -1)
'''.replace("«epsilon»", repr(hog.EPSILON)),
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
    "exact_gelu": """

def exact_gelu(z):
    import math

    return 0.5 * z * (1 + np.vectorize(math.erf, otypes=[z.dtype])(z * math.sqrt(0.5)))
""",
    "silu": """

def silu(z):
    return z * (0.5 * np.tanh(0.5 * z) + 0.5)  # z / (1 + exp(-z)), without overflow
""",
    "elu": """

def elu(z, alpha):
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))
""",
    "selu": """

def selu(z):
    return 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(np.minimum(z, 0)))
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


# Predictions p with the temperature T, by the output activation.
_CLIPPED = f"np.clip({{p}}, {EPSILON}, 1 - {EPSILON})"
TEMPERED = {
    "softmax": f"softmax(np.log(np.maximum({{p}}, {TINY})) / {{T}})",
    "sigmoid": f"sigmoid((np.log({_CLIPPED}) - np.log1p(-{_CLIPPED})) / {{T}})",
}


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file `name`."""
    names = network_names(graph, "outputs")

    def predictions(forward: Forward, x: str) -> str:
        return CALLS[graph.output_activation].format(f"{names[forward]}({x})")

    code = PythonCode(graph, predictions, TEMPERED)
    title, paragraphs_of_head = head(graph, "NumPy")
    networks = [
        render(
            NETWORK,
            {
                "outputs": names[forward],
                "n_in": forward.network.n_in,
                "n_out": graph.n_out,
                "chain": "\n".join(chain(forward.steps)),
            },
        )
        for forward in graph.networks
    ]
    weights = [f"{code.constants}\n"] if code.constants else []
    weights += [
        "\n".join([f'{key} = decode("""', *base64_lines(array), f'""", {", ".join(map(str, array.shape))})\n'])
        for key, array in graph.arrays.items()
    ]
    values = common_values(graph, code, name) | {
        "title": title,
        "head": paragraphs(paragraphs_of_head),
        "prediction": code.prediction,
        "label": label(graph, f"{next(iter(names.values()))}({code.prepared})", "astype(int)", "axis"),
        "networks": "\n\n".join(networks).removesuffix("\n"),
        "activations": used_functions(FUNCTIONS, graph.used),
        "weights": "\n".join(weights).removesuffix("\n"),
    }
    values |= classification(graph, render(PREDICT, values) + "\n")
    return render(TEMPLATE, values).encode()


def chain(steps: list[Step]) -> Iterator[str]:
    """Yield the body of `outputs`: a line for each layer with its activation."""
    value = a = "x"
    for step in steps:
        if value != "x" and (step.arrays or step.kind == "leaky_relu"):  # these use their input by name
            yield f"a = {value}"
            a = "a"
        if step.kind == "dense":
            W, b = step.arrays
            value = f"{a} @ {W}.T + {b}"
        elif step.kind == "scale":
            s, t = step.arrays
            value = f"{s} * {a} + {t}"
        elif step.kind == "hog":
            value = f"hog({a}, {', '.join(step.arrays)})"
        elif step.kind == "leaky_relu":
            value = f"np.maximum({a}, {step.parameter!r} * {a})"
        elif step.kind == "elu":
            value = f"elu({value}, {step.parameter!r})"
        else:
            value = CALLS[step.kind].format(value)
    yield f"return {value}"

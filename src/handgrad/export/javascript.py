"""Export to a JavaScript module without dependencies, for browsers and Node.js."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..images.deskew import FLAT
from ..images.hog import EPSILON as HOG_EPSILON
from ..images.hog import HOG
from ..wrappers import SHIFTS
from .graph import Deskewed, Forward, InferenceGraph, Mean, Node, Shifted, Standardized, Step, Tempered
from .python_code import EPSILON, TINY, network_names
from .templates import assignment, base64_lines, identifier, js_string, paragraphs, render, used_functions, wrap

TEMPLATE = """
// «title»
//
//     import * as «stem» from "./«name»"; // in Node.js, and in a script of type "module" of a web page
//     «stem».predict(x);
//
«head»

«classes»
export const IMAGE_SHAPE = «shape»; // height, width

«predict»
/** Returns the «predictions» (an array of «n_out») for x, «expected». */
export function «function»(x) {
  return «prediction»;
}

«networks»
function check(x) {
  if (x.length !== «n_in») throw new RangeError(`x has ${x.length} numbers: expected «n_in»`);
  return x;
}
«functions»
«nodes»

// Decodes the weights in `text`: float32, little-endian, in base64.
function decode(text) {
  const bytes = new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => bytes.getFloat32(4 * i, true));
}

«weights»

// Runs only if Node.js executes this file: prints a line for each example from stdin.
if (globalThis.process?.argv?.[1]) {
  const { readFileSync, realpathSync } = await import("node:fs");
  const { pathToFileURL } = await import("node:url");
  if (import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
    const bytes = readFileSync(0);
    «read»
    for (let i = 0; i + «n_in» <= x.length; i += «n_in») {
      const example = x.subarray(i, i + «n_in»);
      console.log(«printed»);
    }
    if (bytes.length % «example_bytes» !== 0) {
      console.error("incomplete last example: expected «n_in» «values»");
      process.exitCode = 1;
    }
  }
}
"""

PREDICT = """
/** Returns the label for x, «expected». */
export function predict(x) {
  const z = «z»;
  return «label»;
}
"""

NETWORK = """
// The outputs of the last layer for «n_in» numbers.
function «outputs»(x) {
  «chain»
}
"""

READ_FLOATS = """
const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const x = Float32Array.from({ length: bytes.length >> 2 }, (_, i) => view.getFloat32(4 * i, true));"""

FUNCTIONS = {
    "dense": """
// z = W x + b: row i of W belongs to unit i.
function dense(W, b, x) {
  const z = Float64Array.from(b);
  for (let i = 0; i < z.length; i++) {
    for (let j = 0; j < x.length; j++) z[i] += W[i * x.length + j] * x[j];
  }
  return z;
}
""",
    "scale": """
// a = s z + t
const scale = (s, t, z) => Float64Array.from(z, (value, i) => s[i] * value + t[i]);
""",
    "sigmoid": """
const sigmoid = (z) => z.map((value) => 1 / (1 + Math.exp(-value)));
""",
    "tanh": """
const tanh = (z) => z.map(Math.tanh);
""",
    "relu": """
const relu = (z) => z.map((value) => Math.max(value, 0));
""",
    "leaky_relu": """
const leakyRelu = (z, slope) => z.map((value) => Math.max(value, slope * value));
""",
    "softplus": """
// log(1 + exp(z)), without overflow
const softplus = (z) => z.map((value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value))));
""",
    "gelu": """
const gelu = (z) =>
  z.map((value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))));
""",
    "exact_gelu": """
// 2/sqrt(pi) exp(-v^2) (v + 2 v^3/3 + 4 v^5/15 + ...)
function erf(z) {
  const v = Math.min(Math.abs(z), 6);
  let term = v;
  let sum = v;
  for (let n = 1; term > 1e-17 * sum; n++) sum += term *= (2 * v * v) / (2 * n + 1);
  return (Math.sign(z) * 2 * Math.exp(-v * v) * sum) / Math.sqrt(Math.PI);
}
const exactGelu = (z) => z.map((value) => 0.5 * value * (1 + erf(value * Math.SQRT1_2)));
""",
    "silu": """
const silu = (z) => z.map((value) => value / (1 + Math.exp(-value)));
""",
    "elu": """
const elu = (z, alpha) => z.map((value) => (value > 0 ? value : alpha * Math.expm1(value)));
""",
    "selu": """
const selu = (z) =>
  z.map((value) => 1.0507009873554805 * (value > 0 ? value : 1.6732632423543772 * Math.expm1(value)));
""",
    "softmax": """
// exp(z) / sum of exp(z); subtracting the largest z avoids overflow
function softmax(z) {
  const largest = z.reduce((a, b) => Math.max(a, b));
  const p = z.map((value) => Math.exp(value - largest));
  const sum = p.reduce((a, b) => a + b);
  return p.map((value) => value / sum);
}
""",
    "exp": """
const exp = (z) => z.map(Math.exp);
""",
    "Bytes": """
// Whether x is an array of bytes, as a Uint8Array. The numbers in all other arrays are floats.
const isBytes = (x) => x.BYTES_PER_ELEMENT === 1;

function checkPixels(x) {
  if (!isBytes(x) && !x.every((value) => value >= -1e-6 && value <= 1 + 1e-6)) {
    throw new RangeError("x has pixels outside [0, 1]: expected floats in [0, 1], or bytes in a Uint8Array");
  }
  return x;
}

function toFloats(x) {
  checkPixels(x);
  return Float32Array.from(x, (value) => (isBytes(x) ? value / 255 : value));
}
""",
    "pixel": """
// A pixel of the image p; 0 outside the image
const pixel = (p, height, width, i, j) => (i < 0 || j < 0 || i >= height || j >= width ? 0 : p[i * width + j]);
""",
    "hog": """
// Histograms of oriented gradients of the image p. h are the components of its gradient (gx, gy) in 8 directions. For
// each of them and each cell (cy, cx), y = sqrt(sum of max(0, h) KY KX + epsilon).
function hogImage(KY, KX, p, height, width, cells) {
  const y = new Float64Array(8 * cells * cells);
  for (let i = 0; i < height; i++) {
    const sums = new Float64Array(8 * cells); // along row i
    for (let j = 0; j < width; j++) {
      const gx = pixel(p, height, width, i, j + 1) - pixel(p, height, width, i, j - 1);
      const gy = pixel(p, height, width, i + 1, j) - pixel(p, height, width, i - 1, j);
      const h = [
        gx - Math.abs(gy), // east
        -gx - Math.abs(gy), // west
        gy - Math.abs(gx), // south
        -gy - Math.abs(gx), // north
        Math.min(gx, gy), // southeast
        Math.min(-gx, gy), // southwest
        Math.min(gx, -gy), // northeast
        Math.min(-gx, -gy), // northwest
      ];
      for (let k = 0; k < 8; k++) {
        if (h[k] <= 0) continue;
        for (let cx = 0; cx < cells; cx++) sums[k * cells + cx] += h[k] * KX[cx * width + j];
      }
    }
    for (let k = 0; k < 8; k++) {
      for (let cy = 0; cy < cells; cy++) {
        for (let cx = 0; cx < cells; cx++) {
          y[(k * cells + cy) * cells + cx] += sums[k * cells + cx] * KY[cy * height + i];
        }
      }
    }
  }
  return y.map((sum) => Math.sqrt(sum + «epsilon»));
}

// The same for each of the images of p, one after another
function hog(KY, KX, p, height, width, cells) {
  const pixels = height * width;
  const outputs = 8 * cells * cells;
  const images = p.length / pixels;
  const y = new Float64Array(images * outputs);
  for (let i = 0; i < images; i++) {
    y.set(hogImage(KY, KX, p.slice(i * pixels, (i + 1) * pixels), height, width, cells), i * outputs);
  }
  return y;
}
""".replace("«epsilon»", repr(HOG_EPSILON)),
    "Deskewed": """
// Removes the slant of an image and centres it; shrinks it by s. Bytes are rounded to bytes. This is handgrad's Deskew,
// with the same arithmetic: 32-bit floats between the pixels.
function deskew(p, height, width, s = 1) {
  const rounds = isBytes(checkPixels(p));
  const round = (value) => {
    const nearest = Math.round(value);
    return !rounds ? value : nearest - value === 0.5 && nearest % 2 ? nearest - 1 : nearest;
  };
  const between = (a, b, f) => Math.fround(a + Math.fround(f * Math.fround(b - a)));
  let [m, cy, cx, yy, xy] = [0, 0, 0, 0, 0];
  for (let i = 0; i < height; i++) {
    const y = i - (height - 1) / 2;
    for (let j = 0; j < width; j++) {
      const x = j - (width - 1) / 2;
      const value = p[i * width + j];
      m += value;
      cy += value * y;
      cx += value * x;
      yy += value * y * y;
      xy += value * x * y;
    }
  }
  m = Math.max(m, 1e-30); // an image of zeros
  cy /= m;
  cx /= m;
  const variance = yy / m - cy * cy;
  const slant = variance > «flat» * height * height ? (xy / m - cx * cy) / variance : 0;

  // out(y, x) = p(y + cy, x + slant y + cx), interpolated along y and then along x
  const down = Math.floor(cy);
  const fy = Math.fround(cy - down);
  const w = width / s;
  const sums = new Float32Array((height / s) * w);
  for (let i = 0; i < height; i++) {
    const along = slant * (i - (height - 1) / 2) + cx;
    const right = Math.floor(along);
    const fx = Math.fround(along - right);
    for (let j = 0; j < width; j++) {
      const [v, u] = [i + down, j + right];
      const a = between(pixel(p, height, width, v, u), pixel(p, height, width, v + 1, u), fy);
      const b = between(pixel(p, height, width, v, u + 1), pixel(p, height, width, v + 1, u + 1), fy);
      sums[Math.floor(i / s) * w + Math.floor(j / s)] += round(between(a, b, fx));
    }
  }
  const mean = Math.fround(1 / (s * s));
  return (rounds ? Uint8Array : Float32Array).from(sums, (sum) => (s > 1 ? round(Math.fround(sum * mean)) : sum));
}
""".replace("«flat»", repr(FLAT)),
    "Standardized": """
const standardize = (x, mean, scale) => Float64Array.from(x, (value, j) => (value - mean[j]) / scale[j]);
""",
    "Mean": """
// The mean of arrays of predictions
const mean = (all) => all[0].map((_, k) => all.reduce((sum, p) => sum + p[k], 0) / all.length);
""",
    "Shifted": """
// Shifts an image by one pixel. Pixels shifted in are 0.
function shift(x, height, width, down, right) {
  return x.map((_, k) => pixel(x, height, width, Math.floor(k / width) - down, (k % width) - right));
}
""",
}
NAMES = {"leaky_relu": "leakyRelu", "exact_gelu": "exactGelu"}

# The logits of predictions p, divided by the temperature T, by the output activation.
TEMPERED = {
    "softmax": f"{{p}}.map((p) => Math.log(Math.max(p, {TINY})) / {{T}})",
    "sigmoid": f"{{p}}.map((p) => Math.min(Math.max(p, {EPSILON}), 1 - {EPSILON}))"
    ".map((p) => (Math.log(p) - Math.log1p(-p)) / {T})",
}
PIXELS = (
    "bytes in a Uint8Array or Uint8ClampedArray, 0 to 255, or in any other array as floats in [0, 1] (bytes / 255). "
    "The background is 0, ink is 255 or 1"
)


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file `name`."""
    title, *head = graph.head("JavaScript", PIXELS)
    bytes_per_value, values_read = (1, "bytes") if graph.takes_bytes else (4, "float32 values")
    program = (
        f"node {name} < EXAMPLES  reads examples of {graph.n_in} {values_read} and prints "
        f"{'the label and the probabilities' if graph.is_classification else 'the prediction'} of each example. "
        "(The suffix .mjs tells Node.js that the file is a module.)"
    )
    function = "predictProba" if graph.is_classification else "predict"
    code = _Code(graph)
    used = graph.used - {"Floats"}
    if graph.image_shape is not None:
        used |= {"Bytes"}
    if "Shifted" in used:
        used |= {"Mean"}
    weights = [
        "\n".join([f"const {key} = decode(`", *base64_lines(array), "`);"]) for key, array in graph.arrays.items()
    ]
    weights += code.constants
    values = graph.values | {
        "title": title,
        "stem": identifier(name.rpartition(".")[0] or name),
        "name": name,
        "head": "\n".join(f"// {line}".rstrip() for line in paragraphs([*head, program]).split("\n")),
        "classes": "",
        "shape": json.dumps(graph.image_shape),
        "expected": f"an array of {graph.n_in} {'numbers' if graph.image_shape is None else 'pixels'}",
        "predict": "",
        "function": function,
        "predictions": "probabilities" if graph.is_classification else "predictions",
        "prediction": code.predictions(graph.core, code.prepared),
        "printed": f"{'predict(example), ' * graph.is_classification}...{function}(example)",
        "networks": "\n".join(
            render(
                NETWORK,
                {
                    "outputs": outputs,
                    "n_in": forward.network.n_in,
                    "chain": "\n".join(_chain(forward.steps)),
                },
            )
            for forward, outputs in code.outputs.items()
        ),
        "functions": used_functions(FUNCTIONS, used),
        "nodes": "\n".join(["", *code.functions]) if code.functions else "",
        "read": "const x = bytes;" if graph.takes_bytes else READ_FLOATS.strip("\n"),
        "example_bytes": bytes_per_value * graph.n_in,
        "values": values_read,
        "weights": "\n\n".join(weights),
    }
    if graph.is_classification:
        values["classes"] = assignment("export const CLASSES", map(js_string, graph.classes), "[", "];", indent="  ")
        values["predict"] = render(PREDICT, values | _label(graph, code))
    return render(TEMPLATE, values).encode()


class _Code:
    """The expressions of a file, and one function for each node that is part of an average."""

    def __init__(self, graph: InferenceGraph) -> None:
        self.graph, self.outputs = graph, network_names(graph, "outputs")
        self.names = {node: f"predictions{number}" for number, node in enumerate(graph.averaged, 1)}
        nodes = [node for node in graph.nodes if isinstance(node, Standardized)]
        self.standardized = {node: (f"mean{number}", f"scale{number}") for number, node in enumerate(nodes, 1)}

    @property
    def constants(self) -> list[str]:
        """The definitions of the mean and the scale of each Standardize."""
        return [
            "\n".join([f"const {name} = [", *wrap(map(repr, array.tolist()), "  "), "];"])
            for node, names in self.standardized.items()
            for name, array in zip(names, (node.mean, node.scale), strict=True)
        ]

    @property
    def functions(self) -> list[str]:
        """The definitions of the functions of the nodes."""
        return [line for node, name in self.names.items() for line in self._function(node, name)]

    @property
    def prepared(self) -> str:
        """The input of the core."""
        value = "check(x)"
        for node in self.graph.preparation:
            value = self._prepared(node, value)
        return value

    def predictions(self, node: Node, x: str) -> str:
        """The predictions of a network, or the call of the function of another node."""
        if not isinstance(node, Forward) or self.names.get(node) is not None:
            return f"{self.names[node]}({x})"
        return self._activation(f"{self.outputs[node]}({x})")

    def _activation(self, z: str) -> str:
        activation = self.graph.output_activation
        return z if activation == "identity" else f"{activation}({z})"

    def _prepared(self, node: Node, x: str) -> str:
        if isinstance(node, Deskewed):
            d = node.deskew
            return f"deskew({x}, {d.height}, {d.width}{f', {d.shrink}' if d.shrink > 1 else ''})"
        if isinstance(node, Standardized):
            return f"standardize({x}, {', '.join(self.standardized[node])})"
        return x if self.graph.image_shape is None else f"toFloats({x})"

    def _function(self, node: Node, name: str) -> list[str]:
        if isinstance(node, Forward):
            return [f"const {name} = (x) => {self._activation(f'{self.outputs[node]}(x)')};"]
        if isinstance(node, Mean):
            calls = [f"{self.names[part]}(x)" for part in node.parts]
            return [f"const {name} = (x) =>", "  mean([", *wrap(calls, "    "), "  ]);"]
        part = self.names[node.part]
        if isinstance(node, Shifted):
            (height, width), shifts = node.image_shape, ", ".join(f"[{a}, {b}]" for a, b in SHIFTS[node.shifts])
            return [
                f"const {name} = (x) => // shifts: down, right",
                f"  mean([{shifts}].map(",
                f"    ([down, right]) => {part}(shift(x, {height}, {width}, down, right)),",
                "  ));",
            ]
        if isinstance(node, Tempered):
            z = TEMPERED[self.graph.output_activation].format(p=f"{part}(x)", T=repr(node.temperature))
            return [f"const {name} = (x) =>", f"  {self._activation(z)};"]
        return [f"const {name} = (x) => {part}({self._prepared(node, 'x')});"]


def _label(graph: InferenceGraph, code: _Code) -> dict[str, str]:
    """The logits of a single network, or the probabilities, and the label for them."""
    alone = isinstance(graph.core, Forward)
    z = f"{code.outputs[graph.networks[0]]}({code.prepared})" if alone else "predictProba(x)"
    binary = f"Number(z[0] > {0 if alone else 0.5})"
    return {"z": z, "label": binary if graph.is_binary else "z.indexOf(z.reduce((a, b) => Math.max(a, b)))"}


def _chain(steps: list[Step]) -> Iterator[str]:
    """The body of `outputs`: a line for each layer with its activation."""
    value, count = "x" if steps[0].arrays else "Float64Array.from(x)", 0
    for i, step in enumerate(steps):
        if step.arrays:
            if i:
                count += 1
                yield f"const a{count} = {value};"
                value = f"a{count}"
            sizes = ""
            if isinstance(step.layer, HOG):
                (height, width), cells = step.layer.size, step.layer.cells
                sizes = f", {height}, {width}, {cells}"
            value = f"{step.kind}({', '.join(step.arrays)}, {value}{sizes})"
        else:
            parameter = "" if step.parameter is None else f", {step.parameter!r}"
            value = f"{NAMES.get(step.kind, step.kind)}({value}{parameter})"
    yield f"return {value};"

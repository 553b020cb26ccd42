"""A JavaScript module that needs nothing: it runs in a browser and in node."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .graph import InferenceGraph
from .templates import base64_lines, called, render, functions, identifier, paragraphs

TEMPLATE = """
// «title»
//
//     import * as «stem» from "./«name»"; // in node, and in a page's <script type="module">
//     «stem».predict(x);
//
«head»

«?is_classification»«classes»
export const IMAGE_SHAPE = «shape»; // height, width

«?is_classification»/** The label of x, «n_in» numbers. */
«?is_classification»export function predict(x) {
«?is_classification»  const z = outputs(x);
«?is_classification»  return «label»;
«?is_classification»}
«?is_classification»
«?is_classification»/** The probabilities of x, «n_in» numbers: as many as there are classes. */
«?numbers»/** The answer to x, «n_in» numbers: «n_out» of them. */
export function «reader»(x) {
  return «read»;
}

// What the last layer makes of x.
function outputs(x) {
  if (x.length !== «n_in») throw new RangeError(`x holds ${x.length} numbers: expected «n_in»`);
  «chain»
}
«functions»

// The weights in `text`: float32, little-endian, in base64.
function numbers(text) {
  const bytes = new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => bytes.getFloat32(4 * i, true));
}

«weights»

// Run by node itself, not imported: examples in, a line for each out.
if (globalThis.process?.argv?.[1]) {
  const { readFileSync, realpathSync } = await import("node:fs");
  const { pathToFileURL } = await import("node:url");
  if (import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
    const bytes = readFileSync(0);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const x = Float32Array.from({ length: bytes.length >> 2 }, (_, i) => view.getFloat32(4 * i, true));
    for (let i = 0; i + «n_in» <= x.length; i += «n_in») {
      const example = x.subarray(i, i + «n_in»);
      console.log(«told»);
    }
    if (bytes.length % (4 * «n_in») !== 0) {
      console.error("the last example is not whole: expected «n_in» float32");
      process.exitCode = 1;
    }
  }
}
"""

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
// log(1 + exp(z)), and nothing overflows
const softplus = (z) => z.map((value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value))));
""",
    "gelu": """
const gelu = (z) =>
  z.map((value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))));
""",
    "softmax": """
// exp(z) / sum of exp(z); the largest z is taken out, so nothing overflows
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
}
CALLED = {"leaky_relu": "leakyRelu"}


def write(plain: InferenceGraph, name: str) -> bytes:
    """The file's text; `name` is the file's own."""
    title, *head = plain.head(", in JavaScript")
    program = (
        f"node {name} < EXAMPLES  reads examples of {plain.network.n_in} float32, and prints {plain.printed}. "
        "(Node takes the file for a module by the end of its name, .mjs.)"
    )
    weights = []
    for key, array in plain.arrays.items():
        weights += [f"const {key} = numbers(`", *base64_lines(array), "`);", ""]
    values = {
        "title": title,
        "stem": identifier(name.rpartition(".")[0] or name),
        "name": name,
        "head": [f"// {line}" for line in paragraphs([*head, program])],
        "classes": called("export const CLASSES", map(json.dumps, plain.network.classes), "[", "];", indent="  "),
        "shape": json.dumps(plain.network.image_shape),
        "label": label(plain),
        "told": f"{'predict(example), ' * plain.is_classification}...{plain.values['reader']}(example)",
        "read": "outputs(x)" if plain.reading == "identity" else f"{plain.reading}(outputs(x))",
        "chain": list(chain(plain)),
        "functions": functions(FUNCTIONS, plain.used),
        "weights": weights[:-1],
    }
    return render(TEMPLATE, plain.values | values).encode()


def chain(plain: InferenceGraph) -> Iterator[str]:
    """The body of `outputs`: a line for each layer with its activation."""
    value, count = "x" if plain.steps[0].arrays else "Float64Array.from(x)", 0
    for i, step in enumerate(plain.steps):
        if step.arrays:
            if i:
                count += 1
                yield f"const a{count} = {value};"
                value = f"a{count}"
            value = f"{step.kind}({', '.join(step.arrays)}, {value})"
        else:
            more = f", {step.slope!r}" if step.kind == "leaky_relu" else ""
            value = f"{CALLED.get(step.kind, step.kind)}({value}{more})"
    yield f"return {value};"


def label(plain: InferenceGraph) -> str:
    """The label of outputs z."""
    if plain.threshold is not None:
        return f"Number(z[0] > {plain.threshold:g})"
    return "z.indexOf(z.reduce((a, b) => Math.max(a, b)))"

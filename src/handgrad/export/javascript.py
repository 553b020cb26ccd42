"""Export to a JavaScript module without dependencies, for browsers and Node.js."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .graph import InferenceGraph
from .templates import assignment, base64_lines, identifier, paragraphs, render, used_functions

TEMPLATE = """
// «title»
//
//     import * as «stem» from "./«name»"; // in Node.js, and in <script type="module"> of a web page
//     «stem».predict(x);
//
«head»

«classes»
export const IMAGE_SHAPE = «shape»; // height, width

«predict»
/** Returns the «predictions» (an array of «n_out») for x, an array of «n_in» numbers. */
export function «function»(x) {
  return «prediction»;
}

// The outputs of the last layer.
function outputs(x) {
  if (x.length !== «n_in») throw new RangeError(`x has ${x.length} numbers: expected «n_in»`);
  «chain»
}
«functions»

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
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const x = Float32Array.from({ length: bytes.length >> 2 }, (_, i) => view.getFloat32(4 * i, true));
    for (let i = 0; i + «n_in» <= x.length; i += «n_in») {
      const example = x.subarray(i, i + «n_in»);
      console.log(«printed»);
    }
    if (bytes.length % (4 * «n_in») !== 0) {
      console.error("incomplete last example: expected «n_in» float32 values");
      process.exitCode = 1;
    }
  }
}
"""

PREDICT = """
/** Returns the label for x, an array of «n_in» numbers. */
export function predict(x) {
  const z = outputs(x);
  return «label»;
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
// log(1 + exp(z)), without overflow
const softplus = (z) => z.map((value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value))));
""",
    "gelu": """
const gelu = (z) =>
  z.map((value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))));
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
}
NAMES = {"leaky_relu": "leakyRelu"}


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file `name`."""
    title, *head = graph.head("JavaScript")
    program = (
        f"node {name} < EXAMPLES  reads examples of {graph.n_in} float32 values and prints "
        f"{'the label and the probabilities' if graph.is_classification else 'the prediction'} of each example. "
        "(The suffix .mjs tells Node.js that the file is a module.)"
    )
    function = "predictProba" if graph.is_classification else "predict"
    values = graph.values | {
        "title": title,
        "stem": identifier(name.rpartition(".")[0] or name),
        "name": name,
        "head": "\n".join(f"// {line}".rstrip() for line in paragraphs([*head, program]).split("\n")),
        "classes": "",
        "shape": json.dumps(graph.image_shape),
        "predict": "",
        "function": function,
        "predictions": "probabilities" if graph.is_classification else "predictions",
        "prediction": "outputs(x)"
        if graph.output_activation == "identity"
        else f"{graph.output_activation}(outputs(x))",
        "printed": f"{'predict(example), ' * graph.is_classification}...{function}(example)",
        "label": "Number(z[0] > 0)" if graph.is_binary else "z.indexOf(z.reduce((a, b) => Math.max(a, b)))",
        "chain": "\n".join(_chain(graph)),
        "functions": used_functions(FUNCTIONS, graph.used),
        "weights": "\n\n".join(
            "\n".join([f"const {key} = decode(`", *base64_lines(array), "`);"]) for key, array in graph.arrays.items()
        ),
    }
    if graph.is_classification:
        values["classes"] = assignment(
            "export const CLASSES", map(json.dumps, graph.network.classes), "[", "];", indent="  "
        )
        values["predict"] = render(PREDICT, values)
    return render(TEMPLATE, values).encode()


def _chain(graph: InferenceGraph) -> Iterator[str]:
    """The body of `outputs`: a line for each layer with its activation."""
    value, count = "x" if graph.steps[0].arrays else "Float64Array.from(x)", 0
    for i, step in enumerate(graph.steps):
        if step.arrays:
            if i:
                count += 1
                yield f"const a{count} = {value};"
                value = f"a{count}"
            value = f"{step.kind}({', '.join(step.arrays)}, {value})"
        else:
            slope = f", {step.slope!r}" if step.kind == "leaky_relu" else ""
            value = f"{NAMES.get(step.kind, step.kind)}({value}{slope})"
    yield f"return {value};"

"""Export to a C file that needs the C standard library only: C99, without warnings."""

from __future__ import annotations

from collections.abc import Iterator

from ..arrays import Array
from .graph import InferenceGraph
from .templates import assignment, c_string, identifier, paragraphs, render, used_functions, wrap

TEMPLATE = """
/*«head» */

#include <math.h>

/* Copy these declarations to the files that use this one. */
«declarations»

/* The weights are defined at the end of the file. */
«weights_declared»
«functions»

/* The outputs z[«n_out»] of the last layer for x[«n_in»] */
static void outputs(const float *x, float *z)
{
    «chain»
}

void «stem»_«function»(const float *x, float *«y»)
{
    outputs(x, «y»);
    «activation»
}

«predict»
#ifdef «macro»
#include <stdio.h>

int main(void)
{
    float x[«n_in»], «y»[«n_out»];
    size_t count;
    while ((count = fread(x, sizeof *x, «n_in», stdin)) == «n_in») {
        «stem»_«function»(x, «y»);
        «print_label»
        for (int k = 0; k < «n_out»; k++)
            printf("%.9g%c", «y»[k], k < «n_out» - 1 ? ' ' : '\\n');
    }
    if (count > 0)
        fprintf(stderr, "incomplete last example: expected «n_in» float32 values, got %d\\n", (int)count);
    return count > 0;
}
#endif

«classes»
«weights»
"""

PREDICT = """
int «stem»_predict(const float *x)
{
    float z[«n_out»];
    outputs(x, z);
    «label»
}
"""

# Activations work in place on n numbers.
FUNCTIONS = {
    "dense": """
/* z = W x + b: row i of W belongs to unit i. */
static void dense(const float *W, const float *b, const float *x, float *z, int n_out, int n_in)
{
    for (int i = 0; i < n_out; i++) {
        z[i] = b[i];
        for (int j = 0; j < n_in; j++)
            z[i] += W[i * n_in + j] * x[j];
    }
}
""",
    "scale": """
/* a = s z + t */
static void scale(const float *s, const float *t, const float *z, float *a, int n)
{
    for (int i = 0; i < n; i++)
        a[i] = s[i] * z[i] + t[i];
}
""",
    "sigmoid": """
/* 1 / (1 + exp(-z)), without overflow */
static void sigmoid(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] = 0.5f * tanhf(0.5f * z[i]) + 0.5f;
}
""",
    "tanh": """
static void hyperbolic_tangent(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] = tanhf(z[i]);
}
""",
    "relu": """
/* max(z, 0) */
static void relu(float *z, int n)
{
    for (int i = 0; i < n; i++)
        if (z[i] < 0)
            z[i] = 0;
}
""",
    "leaky_relu": """
static void leaky_relu(float *z, int n, float slope)
{
    for (int i = 0; i < n; i++)
        if (z[i] < 0)
            z[i] *= slope;
}
""",
    "softplus": """
/* log(1 + exp(z)), without overflow */
static void softplus(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] = (z[i] > 0 ? z[i] : 0) + log1pf(expf(-fabsf(z[i])));
}
""",
    "gelu": """
static void gelu(float *z, int n)
{
    for (int i = 0; i < n; i++) {
        float u = 0.7978845608f * (z[i] + 0.044715f * z[i] * z[i] * z[i]); /* sqrt(2 / pi) */
        z[i] = 0.5f * z[i] * (1 + tanhf(u));
    }
}
""",
    "softmax": """
/* exp(z) / sum of exp(z); subtracting the largest z avoids overflow */
static void softmax(float *z, int n)
{
    float largest = z[0], sum = 0;
    for (int i = 1; i < n; i++)
        if (z[i] > largest)
            largest = z[i];
    for (int i = 0; i < n; i++)
        sum += z[i] = expf(z[i] - largest);
    for (int i = 0; i < n; i++)
        z[i] /= sum;
}
""",
    "exp": """
static void exponential(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] = expf(z[i]);
}
""",
}
NAMES = {"tanh": "hyperbolic_tangent", "exp": "exponential"}  # tanh and exp are functions of the C library


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file `name`. Its stem is the prefix of all names that the file exports."""
    stem = identifier(name.rpartition(".")[0] or name)
    macro, n_in, n_out, n_classes = f"{stem.upper()}_MAIN", graph.n_in, graph.network.n_out, len(graph.network.classes)
    classes = f"const char *const {stem}_classes[{n_classes}]"
    program = (
        f"cc -O2 -D{macro} {name} -lm  compiles a program that reads examples of {n_in} float32 values from stdin and "
        f"prints {'the label and the probabilities' if graph.is_classification else 'the prediction'} of each example. "
        "x.astype(np.float32).tofile(file) writes such examples in NumPy."
    )
    values = graph.values | {
        "head": paragraphs([*graph.head("C"), program], "   ")[2:],
        "declarations": "\n".join(_declarations(graph, stem, classes)),
        "weights_declared": "\n".join(f"static const float {key}[{a.size}];" for key, a in graph.arrays.items()),
        "functions": used_functions(FUNCTIONS, graph.used),
        "stem": stem,
        "macro": macro,
        "function": "predict_proba" if graph.is_classification else "predict",
        "y": "p" if graph.is_classification else "y",
        "chain": "\n".join(_chain(graph)),
        "activation": "",
        "label": "\n".join(_label(graph)),
        "predict": "",
        "print_label": "",
        "classes": "",
        "weights": "\n\n".join(
            "\n".join([f"static const float {key}[{array.size}] = {{", *_numbers(array), "};"])
            for key, array in graph.arrays.items()
        ),
    }
    if graph.output_activation != "identity":
        activation = NAMES.get(graph.output_activation, graph.output_activation)
        values["activation"] = f"{activation}({values['y']}, {n_out});"
    if graph.is_classification:
        values["predict"] = render(PREDICT, values)
        values["print_label"] = f'printf("%d ", {stem}_predict(x));'
        values["classes"] = assignment(classes, map(c_string, graph.network.classes), "{", "};") + "\n"
    return render(TEMPLATE, values).encode()


def _declarations(graph: InferenceGraph, stem: str, classes: str) -> Iterator[str]:
    """The declarations of what the file exports."""
    n_in, n_out = graph.n_in, graph.network.n_out
    if graph.is_classification:
        predict_proba = f"void {stem}_predict_proba(const float *x, float *p);"
        yield f"{predict_proba} /* x[{n_in}] -> the probabilities p[{n_out}] */"
        yield f"{f'int {stem}_predict(const float *x);':{len(predict_proba)}} /* x[{n_in}] -> the label */"
        yield f"extern {classes};"
    else:
        yield f"void {stem}_predict(const float *x, float *y); /* x[{n_in}] -> y[{n_out}] */"
    if graph.image_shape is not None:
        height, width = graph.image_shape
        yield f"enum {{ {stem}_height = {height}, {stem}_width = {width} }};"


def _chain(graph: InferenceGraph) -> Iterator[str]:
    """The body of `outputs`: a buffer for the output of each layer with weights, z for the last one; then the calls."""
    with_arrays = [i for i, step in enumerate(graph.steps) if step.arrays]
    buffers = {i: f"a{number}" for number, i in enumerate(with_arrays, 1)} | {with_arrays[-1]: "z"}
    for i in with_arrays[:-1]:
        yield f"float {buffers[i]}[{graph.steps[i].n_out}];"
    value = "x"
    if not graph.steps[0].arrays:  # activations work in place, and x belongs to the caller
        value, n_in = "a0", graph.n_in
        yield from (f"float a0[{n_in}];", f"for (int j = 0; j < {n_in}; j++)", "    a0[j] = x[j];")
    for i, step in enumerate(graph.steps):
        if step.arrays:
            sizes = f"{step.n_out}, {step.n_in}" if step.kind == "dense" else f"{step.n_out}"
            yield f"{step.kind}({', '.join(step.arrays)}, {value}, {buffers[i]}, {sizes});"
            value = buffers[i]
        else:
            slope = f", {step.slope!r}f" if step.kind == "leaky_relu" else ""
            yield f"{NAMES.get(step.kind, step.kind)}({value}, {step.n_out}{slope});"


def _label(graph: InferenceGraph) -> list[str]:
    """The statements that return the label for the logits z."""
    if graph.is_binary:
        return ["return z[0] > 0;"]
    return [
        "int best = 0;",
        f"for (int k = 1; k < {graph.network.n_out}; k++)",
        "    if (z[k] > z[best])",
        "        best = k;",
        "return best;",
    ]


def _numbers(array: Array) -> Iterator[str]:
    """The values as the shortest literals that are exact. Each row starts a new line."""
    for row in array.reshape(-1, array.shape[-1]):
        yield from wrap((f"{value}f" for value in map(str, row)), "    ")

"""A C file that needs nothing but the C library's mathematics: C99, without a warning."""

from __future__ import annotations

from collections.abc import Iterator

from ..arrays import Array
from .graph import InferenceGraph
from .templates import called, render, functions, identifier, packed, paragraphs

TEMPLATE = """
/*«head» */

#include <math.h>

/* What this file offers: put these lines where it is used. */
«offers»

/* The weights, which stand at the end. */
«declared»
«functions»

/* x[«n_in»] -> z[«n_out»], what the last layer makes of x */
static void outputs(const float *x, float *z)
{
    «chain»
}

void «stem»_«reader»(const float *x, float *«y»)
{
    outputs(x, «y»);
«?reads»    «read»(«y», «n_out»);
}

«?is_classification»int «stem»_predict(const float *x)
«?is_classification»{
«?is_classification»    float z[«n_out»];
«?is_classification»    outputs(x, z);
«?is_classification»    «label»
«?is_classification»}
«?is_classification»
#ifdef «macro»
#include <stdio.h>

int main(void)
{
    float x[«n_in»], «y»[«n_out»];
    size_t got;
    while ((got = fread(x, sizeof *x, «n_in», stdin)) == «n_in») {
        «stem»_«reader»(x, «y»);
«?is_classification»        printf("%d ", «stem»_predict(x));
        for (int k = 0; k < «n_out»; k++)
            printf("%.9g%c", «y»[k], k < «n_out» - 1 ? ' ' : '\\n');
    }
    if (got > 0)
        fprintf(stderr, "the last example is not whole: expected «n_in» float32, got %d\\n", (int)got);
    return got > 0;
}
#endif

«?is_classification»«classes»
«?is_classification»
«weights»
"""

# On the n numbers at z, in place. A NaN stays one.
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
/* 1 / (1 + exp(-z)), and nothing overflows */
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
/* log(1 + exp(z)), and nothing overflows */
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
/* exp(z) / sum of exp(z); the largest z is taken out, so nothing overflows */
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
CALLED = {"tanh": "hyperbolic_tangent", "exp": "exponential"}  # tanh and exp are the library's own


def write(plain: InferenceGraph, name: str) -> bytes:
    """The file's text; `name` is the file's own, and its stem is in the names of all that the file offers."""
    stem = identifier(name.rpartition(".")[0] or name)
    macro, n_in, n_out = f"{stem.upper()}_MAIN", plain.network.n_in, plain.network.n_out
    program = (
        f"cc -O2 -D{macro} {name} -lm  makes a program: it reads examples of {n_in} float32 from stdin, and prints "
        f"{plain.printed}. In NumPy x.astype(np.float32).tofile(file) writes them."
    )
    names = f"const char *const {stem}_classes[{len(plain.network.classes)}]"
    if plain.is_classification:
        reads, predicts = (
            f"void {stem}_probabilities(const float *x, float *p);",
            f"int {stem}_predict(const float *x);",
        )
        offers = [f"{reads} /* x[{n_in}] -> p[{n_out}] */", f"{predicts:{len(reads)}} /* x[{n_in}] -> the label */"]
        offers.append(f"extern {names};")
    else:
        offers = [f"void {stem}_predict(const float *x, float *y); /* x[{n_in}] -> y[{n_out}] */"]
    if plain.network.image_shape is not None:
        height, image_width = plain.network.image_shape
        offers.append(f"enum {{ {stem}_height = {height}, {stem}_width = {image_width} }};")
    weights = []
    for key, array in plain.arrays.items():
        weights += [f"static const float {key}[{array.size}] = {{", *numbers(array), "};", ""]
    values = {
        "head": "\n".join(paragraphs([*plain.head(", in C"), program], "   "))[2:],
        "offers": offers,
        "declared": [f"static const float {key}[{array.size}];" for key, array in plain.arrays.items()],
        "functions": functions(FUNCTIONS, plain.used),
        "stem": stem,
        "macro": macro,
        "chain": list(chain(plain)),
        "reads": plain.reading != "identity",
        "read": CALLED.get(plain.reading, plain.reading),
        "y": "p" if plain.is_classification else "y",
        "label": label(plain),
        "classes": called(names, map(c_string, plain.network.classes), "{", "};"),
        "weights": weights[:-1],
    }
    return render(TEMPLATE, plain.values | values).encode()


def chain(plain: InferenceGraph) -> Iterator[str]:
    """The body of `outputs`: room for what each layer makes, then a call for each step, the last layer's into z."""
    rooms = {i: f"a{number}" for number, i in enumerate((i for i, step in enumerate(plain.steps) if step.arrays), 1)}
    *inner, last = rooms
    rooms[last] = "z"
    for i in inner:
        yield f"float {rooms[i]}[{plain.steps[i].n_out}];"
    value = "x"
    if not plain.steps[0].arrays:  # what is done in place is not done to the caller's x
        value, n_in = "a0", plain.network.n_in
        yield from (f"float a0[{n_in}];", f"for (int j = 0; j < {n_in}; j++)", "    a0[j] = x[j];")
    for i, step in enumerate(plain.steps):
        if step.arrays:
            sizes = f"{step.n_out}, {step.n_in}" if step.kind == "dense" else f"{step.n_out}"
            yield f"{step.kind}({', '.join(step.arrays)}, {value}, {rooms[i]}, {sizes});"
            value = rooms[i]
        else:
            more = f", {step.slope!r}f" if step.kind == "leaky_relu" else ""
            yield f"{CALLED.get(step.kind, step.kind)}({value}, {step.n_out}{more});"


def label(plain: InferenceGraph) -> list[str]:
    """The label of outputs z."""
    if plain.threshold is not None:
        return [f"return z[0] > {plain.threshold!r}f;"]
    return [
        "int best = 0;",
        f"for (int k = 1; k < {plain.network.n_out}; k++)",
        "    if (z[k] > z[best])",
        "        best = k;",
        "return best;",
    ]


def numbers(array: Array) -> Iterator[str]:
    """The numbers, each as short as tells it exactly; a row begins a line."""
    for row in array.reshape(-1, array.shape[-1]):
        yield from packed((f"{value}f" for value in map(str, row)), "    ")


def c_string(text: str) -> str:
    """A string of C: what is not plain ASCII in octal, which ends after three digits whatever follows."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in _bytes(text))
    return f'"{"".join(plain)}"'


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")

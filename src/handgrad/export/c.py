"""Export to a C file that needs the C standard library only: C99, without warnings."""

from __future__ import annotations

from collections.abc import Iterator

from ..arrays import Array
from ..images.deskew import FLAT
from ..images.hog import EPSILON as HOG_EPSILON
from ..images.hog import HOG, ORIENTATIONS
from ..wrappers import SHIFTS
from .graph import Deskewed, Floats, Forward, InferenceGraph, Mean, Node, Shifted, Standardized, Step, Tempered
from .python_code import EPSILON, TINY, network_names
from .templates import assignment, c_string, identifier, paragraphs, render, used_functions, wrap

TEMPLATE = """
/*«head» */

#include <math.h>

/* Copy these declarations to the files that use this one. */
«declarations»

/* The weights are defined at the end of the file. */
«weights_declared»
«functions»

«nodes»

void «stem»_«function»(const «type» *x, float *«y»)
{
    «calls»
}

«predict»
#ifdef «macro»
#include <stdio.h>

int main(void)
{
    «type» x[«n_in»];
    float «y»[«n_out»];
    size_t count;
    while ((count = fread(x, sizeof *x, «n_in», stdin)) == «n_in») {
        «stem»_«function»(x, «y»);
        «print_label»
        for (int k = 0; k < «n_out»; k++)
            printf("%.9g%c", «y»[k], k < «n_out» - 1 ? ' ' : '\\n');
    }
    if (count > 0)
        fprintf(stderr, "incomplete last example: expected «n_in» «values», got %d\\n", (int)count);
    return count > 0;
}
#endif

«classes»
«weights»
"""

PREDICT = """
int «stem»_predict(const «type» *x)
{
    float z[«n_out»];
    «calls»
    «label»
}
"""

# The outputs z of a network; the predictions of a node.
FUNCTION = """
/* «comment» */
static void «name»(const float *x, float *«result»)
{
    «body»
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
    "exact_gelu": """
/* z times the distribution function of the normal distribution */
static void exact_gelu(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] = 0.5f * z[i] * erfcf(-0.7071067812f * z[i]); /* sqrt(1 / 2) */
}
""",
    "silu": """
/* z / (1 + exp(-z)), without overflow */
static void silu(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] *= 0.5f * tanhf(0.5f * z[i]) + 0.5f;
}
""",
    "elu": """
static void elu(float *z, int n, float alpha)
{
    for (int i = 0; i < n; i++)
        if (z[i] < 0)
            z[i] = alpha * expm1f(z[i]);
}
""",
    "selu": """
static void selu(float *z, int n)
{
    for (int i = 0; i < n; i++)
        z[i] = 1.050700987f * (z[i] > 0 ? z[i] : 1.673263242f * expm1f(z[i]));
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
    "pixel": """
/* A pixel of the image p; 0 outside the image */
static float pixel(const float *p, int height, int width, int i, int j)
{
    return i < 0 || j < 0 || i >= height || j >= width ? 0 : p[i * width + j];
}
""",
    "hog": """
/* Histograms of oriented gradients of the image p. h are the components of its gradient (gx, gy) in 8 directions. For
   each of them and each cell (cy, cx), y = sqrt(sum of max(0, h) KY KX + epsilon). The buffer sums[8 cells] is for the
   sums along a row of pixels. */
static void hog_image(const float *KY, const float *KX, const float *p, float *sums, float *y, int height, int width,
                      int cells)
{
    for (int c = 0; c < 8 * cells * cells; c++)
        y[c] = 0;
    for (int i = 0; i < height; i++) {
        for (int c = 0; c < 8 * cells; c++)
            sums[c] = 0;
        for (int j = 0; j < width; j++) {
            const float gx = pixel(p, height, width, i, j + 1) - pixel(p, height, width, i, j - 1);
            const float gy = pixel(p, height, width, i + 1, j) - pixel(p, height, width, i - 1, j);
            const float h[8] = {
                gx - fabsf(gy),  /* east */
                -gx - fabsf(gy), /* west */
                gy - fabsf(gx),  /* south */
                -gy - fabsf(gx), /* north */
                fminf(gx, gy),   /* southeast */
                fminf(-gx, gy),  /* southwest */
                fminf(gx, -gy),  /* northeast */
                fminf(-gx, -gy), /* northwest */
            };
            for (int k = 0; k < 8; k++)
                if (h[k] > 0)
                    for (int cx = 0; cx < cells; cx++)
                        sums[k * cells + cx] += h[k] * KX[cx * width + j];
        }
        for (int k = 0; k < 8; k++)
            for (int cy = 0; cy < cells; cy++)
                for (int cx = 0; cx < cells; cx++)
                    y[(k * cells + cy) * cells + cx] += sums[k * cells + cx] * KY[cy * height + i];
    }
    for (int c = 0; c < 8 * cells * cells; c++)
        y[c] = sqrtf(y[c] + «epsilon»f);
}

/* The same for each of the images of p, one after another */
static void hog(const float *KY, const float *KX, const float *p, float *sums, float *y, int height, int width,
                int cells, int channels)
{
    for (int i = 0; i < channels; i++)
        hog_image(KY, KX, p + i * height * width, sums, y + i * 8 * cells * cells, height, width, cells);
}
""".replace("«epsilon»", repr(HOG_EPSILON)),
    "Deskewed": """
/* The value between a and b at 0 <= f < 1. The processor must round the product: volatile prevents fused operations. */
static float between(float a, float b, float f)
{
    volatile float product = f * (b - a);
    return a + product;
}

/* Remove the slant of an image p and centre it; shrink it by s. Rounds to integers if rounds is 1. This is handgrad's
   Deskew, with the same arithmetic. */
static void deskew(const float *p, float *out, int height, int width, int s, int rounds)
{
    const double y0 = 0.5 * (height - 1), x0 = 0.5 * (width - 1);
    double m = 0, cy = 0, cx = 0, yy = 0, xy = 0, slant = 0;
    for (int i = 0; i < height; i++) {
        double row = 0, row_x = 0;
        for (int j = 0; j < width; j++) {
            row += p[i * width + j];
            row_x += p[i * width + j] * (j - x0);
        }
        m += row;
        cy += row * (i - y0);
        cx += row_x;
        yy += row * (i - y0) * (i - y0);
        xy += row_x * (i - y0);
    }
    if (m < 1e-30)
        m = 1e-30; /* an image of zeros */
    cy /= m;
    cx /= m;
    volatile double cy_cy = cy * cy, cx_cy = cx * cy;
    const double variance = yy / m - cy_cy;
    if (variance > «flat» * height * height)
        slant = (xy / m - cx_cy) / variance;

    /* out(y, x) = p(y + cy, x + slant y + cx), interpolated along y and then along x */
    const int down = (int)floor(cy), h = height / s, w = width / s;
    const float fy = (float)(cy - down), mean = (float)(1.0 / (s * s));
    for (int k = 0; k < h * w; k++)
        out[k] = 0;
    for (int i = 0; i < height; i++) {
        volatile double slant_y = slant * (i - y0);
        const double along = slant_y + cx, left = floor(along);
        const float fx = (float)(along - left);
        const int right = left < -width - 1 ? -width - 1 : left > width ? width : (int)left;
        for (int j = 0; j < width; j++) {
            const int v = i + down, u = j + right;
            const float a = between(pixel(p, height, width, v, u), pixel(p, height, width, v + 1, u), fy);
            const float b = between(pixel(p, height, width, v, u + 1), pixel(p, height, width, v + 1, u + 1), fy);
            const float value = between(a, b, fx);
            out[i / s * w + j / s] += rounds ? rintf(value) : value;
        }
    }
    for (int k = 0; s > 1 && k < h * w; k++)
        out[k] = rounds ? rintf(out[k] * mean) : out[k] * mean;
}
""".replace("«flat»", repr(FLAT)),
    "Standardized": """
/* out = (x - mean) / scale */
static void standardize(const float *x, const double *mean, const double *scale, float *out, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = (float)((x[i] - mean[i]) / scale[i]);
}
""",
    "Shifted": """
/* Shift an image by one pixel. Pixels shifted in are 0. */
static void shift(const float *x, float *out, int height, int width, int down, int right)
{
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++)
            out[i * width + j] = pixel(x, height, width, i - down, j - right);
}
""",
    "Floats": """
/* Convert pixels from bytes to [0, 1]. */
static void to_floats(const float *x, float *out, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = x[i] * (1.0f / 255);
}
""",
}
NAMES = {"tanh": "hyperbolic_tangent", "exp": "exponential"}  # tanh and exp are functions of the C library

# Predictions p with the temperature T, by the output activation.
TEMPERED = {
    "softmax": [f"p[k] = logf(p[k] > {TINY}f ? p[k] : {TINY}f) / {{T}}f;"],
    "sigmoid": [
        f"p[k] = p[k] < {EPSILON}f ? {EPSILON}f : p[k] > 1 - {EPSILON}f ? 1 - {EPSILON}f : p[k];",
        "p[k] = (logf(p[k]) - log1pf(-p[k])) / {T}f;",
    ],
}


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file `name`. Its stem is the prefix of all names that the file exports."""
    stem = identifier(name.rpartition(".")[0] or name)
    macro, n_in, n_classes = f"{stem.upper()}_MAIN", graph.n_in, len(graph.classes)
    classes = f"const char *const {stem}_classes[{n_classes}]"
    kind = ("unsigned char", "bytes", "uint8") if graph.takes_bytes else ("float", "float32 values", "float32")
    program = (
        f"cc -O2 -D{macro} {name} -lm  compiles a program that reads examples of {n_in} {kind[1]} from stdin and "
        f"prints {'the label and the probabilities' if graph.is_classification else 'the prediction'} of each example. "
        f"x.astype(np.{kind[2]}).tofile(file) writes such examples in NumPy."
    )
    code = _Code(graph)
    used = graph.used - (set() if graph.takes_bytes else {"Floats"})
    weights = [
        "\n".join([f"static const float {key}[{array.size}] = {{", *_numbers(array, "f"), "};"])
        for key, array in graph.arrays.items()
    ]
    weights += [
        "\n".join([f"static const double {key}[{array.size}] = {{", *_numbers(array, ""), "};"])
        for key, array in code.constants.items()
    ]
    y = "p" if graph.is_classification else "y"
    values = graph.values | {
        "head": paragraphs([*graph.head("C"), program], "   ")[2:],
        "declarations": "\n".join(_declarations(graph, stem, classes, kind[0])),
        "weights_declared": "\n".join(
            [f"static const float {key}[{a.size}];" for key, a in graph.arrays.items()]
            + [f"static const double {key}[{a.size}];" for key, a in code.constants.items()]
        ),
        "functions": used_functions(FUNCTIONS, used),
        "nodes": code.functions.strip("\n"),
        "stem": stem,
        "macro": macro,
        "type": kind[0],
        "values": kind[1],
        "function": "predict_proba" if graph.is_classification else "predict",
        "y": y,
        "calls": "\n".join(code.calls(y, predictions=True)),
        "predict": "",
        "print_label": "",
        "classes": "",
        "weights": "\n\n".join(weights),
    }
    if graph.is_classification:
        parts = {"calls": "\n".join(code.calls("z", predictions=False)), "label": "\n".join(_label(graph))}
        values["predict"] = render(PREDICT, values | parts)
        values["print_label"] = f'printf("%d ", {stem}_predict(x));'
        values["classes"] = assignment(classes, map(c_string, graph.classes), "{", "};") + "\n"
    return render(TEMPLATE, values).encode()


def _declarations(graph: InferenceGraph, stem: str, classes: str, kind: str) -> Iterator[str]:
    """The declarations of what the file exports."""
    n_in, n_out = graph.n_in, graph.n_out
    if graph.is_classification:
        predict_proba = f"void {stem}_predict_proba(const {kind} *x, float *p);"
        yield f"{predict_proba} /* x[{n_in}] -> the probabilities p[{n_out}] */"
        yield f"{f'int {stem}_predict(const {kind} *x);':{len(predict_proba)}} /* x[{n_in}] -> the label */"
        yield f"extern {classes};"
    else:
        yield f"void {stem}_predict(const {kind} *x, float *y); /* x[{n_in}] -> y[{n_out}] */"
    if graph.image_shape is not None:
        height, width = graph.image_shape
        yield f"enum {{ {stem}_height = {height}, {stem}_width = {width} }};"


class _Code:
    """The functions of a file: the outputs of each network, and the predictions of each node of the core."""

    def __init__(self, graph: InferenceGraph) -> None:
        self.graph, self.outputs = graph, network_names(graph, "outputs")
        self.names = {node: f"predictions{number}" for number, node in enumerate(graph.averaged, 1)}
        nodes = [node for node in graph.nodes if isinstance(node, Standardized)]
        self.standardized = {node: (f"mean{number}", f"scale{number}") for number, node in enumerate(nodes, 1)}

    @property
    def constants(self) -> dict[str, Array]:
        """The mean and the scale of each Standardize by name."""
        pairs = [(names, (node.mean, node.scale)) for node, names in self.standardized.items()]
        return {name: array for names, arrays in pairs for name, array in zip(names, arrays, strict=True)}

    @property
    def functions(self) -> str:
        """The source of all functions."""
        sources = [
            self._function(
                self.outputs[forward],
                f"The outputs z[{self.graph.n_out}] of the last layer for x[{forward.network.n_in}]",
                _chain(forward.steps),
                "z",
            )
            for forward in self.graph.networks
        ]
        sources += [self._function(name, *self._node(node), "p") for node, name in self.names.items()]
        return "\n".join(sources)

    def calls(self, result: str, predictions: bool) -> Iterator[str]:
        """The body of an exported function, which writes predictions, or the logits of a single network."""
        value, core = "x", self.graph.core
        if self.graph.takes_bytes:
            value = "bytes"
            yield from (f"float bytes[{self.graph.n_in}];", f"for (int j = 0; j < {self.graph.n_in}; j++)")
            yield "    bytes[j] = x[j];"
        for number, node in enumerate(self.graph.preparation, 1):
            if not self._is_nothing(node):
                yield from self._prepare(node, value, f"x{number}")
                value = f"x{number}"
        if not isinstance(core, Forward):
            yield f"{self.names[core]}({value}, {result});"
            return
        yield f"{self.outputs[core]}({value}, {result});"
        if predictions:
            yield from self._activation(result)

    def _function(self, name: str, comment: str, body: Iterator[str], result: str) -> str:
        return render(FUNCTION, {"name": name, "comment": comment, "body": "\n".join(body), "result": result})

    def _activation(self, result: str) -> Iterator[str]:
        activation = self.graph.output_activation
        if activation != "identity":
            yield f"{NAMES.get(activation, activation)}({result}, {self.graph.n_out});"

    def _is_nothing(self, node: Node) -> bool:
        """Whether a node does nothing, because the input is floats."""
        return isinstance(node, Floats) and not self.graph.takes_bytes

    def _prepare(self, node: Deskewed | Standardized | Floats, x: str, out: str) -> Iterator[str]:
        """The statements that apply a function of the input."""
        if isinstance(node, Deskewed):
            d = node.deskew
            yield f"float {out}[{d.n_out}];"
            yield f"deskew({x}, {out}, {d.height}, {d.width}, {d.shrink}, {int(node.rounds)});"
            return
        n = _n_in(node)
        yield f"float {out}[{n}];"
        if isinstance(node, Standardized):
            yield f"standardize({x}, {', '.join(self.standardized[node])}, {out}, {n});"
        else:
            yield f"to_floats({x}, {out}, {n});"

    def _node(self, node: Node) -> tuple[str, Iterator[str]]:
        """The comment and the body of the function of a node."""
        n_out = self.graph.n_out
        if isinstance(node, Forward):
            return "The predictions of a network", iter([f"{self.outputs[node]}(x, p);", *self._activation("p")])
        if isinstance(node, Mean):
            return f"The mean predictions of {len(node.parts)} models", self._mean(node)
        if isinstance(node, Shifted):
            return f"The mean predictions over {node.shifts} shifts of the image", self._shifts(node)
        if isinstance(node, Tempered):
            body = [f"{self.names[node.part]}(x, p);", f"for (int k = 0; k < {n_out}; k++) {{"]
            body += [f"    {line.format(T=repr(node.temperature))}" for line in TEMPERED[self.graph.output_activation]]
            return "The calibrated predictions", iter([*body, "}", *self._activation("p")])
        if self._is_nothing(node):
            return "The predictions for floats", iter([f"{self.names[node.part]}(x, p);"])
        return "The predictions for an input that is prepared", iter(
            [*self._prepare(node, "x", "x1"), f"{self.names[node.part]}(x1, p);"]
        )

    def _mean(self, node: Mean) -> Iterator[str]:
        n_out = self.graph.n_out
        yield f"float q[{n_out}];"
        yield f"for (int k = 0; k < {n_out}; k++)"
        yield "    p[k] = 0;"
        for part in node.parts:
            yield f"{self.names[part]}(x, q);"
            yield f"for (int k = 0; k < {n_out}; k++)"
            yield f"    p[k] += q[k] / {len(node.parts)};"

    def _shifts(self, node: Shifted) -> Iterator[str]:
        (height, width), n_out, count = node.image_shape, self.graph.n_out, node.shifts
        shifts = [f"{{{down}, {right}}}" for down, right in SHIFTS[count]]
        yield "/* down, right */"
        yield assignment(f"static const int shifts[{count}][2]", shifts, "{", "};")
        yield f"float image[{height * width}], q[{n_out}];"
        yield f"for (int k = 0; k < {n_out}; k++)"
        yield "    p[k] = 0;"
        yield f"for (int i = 0; i < {count}; i++) {{"
        yield f"    shift(x, image, {height}, {width}, shifts[i][0], shifts[i][1]);"
        yield f"    {self.names[node.part]}(image, q);"
        yield f"    for (int k = 0; k < {n_out}; k++)"
        yield f"        p[k] += q[k] / {count};"
        yield "}"


def _n_in(node: Node) -> int:
    """Number of values that a node reads."""
    if isinstance(node, Forward):
        return node.network.n_in
    if isinstance(node, Deskewed):
        return node.deskew.n_in
    return _n_in(node.parts[0] if isinstance(node, Mean) else node.part)


def _chain(steps: list[Step]) -> Iterator[str]:
    """The body of `outputs`: a buffer for the output of each layer with weights, z for the last one; then the calls."""
    with_arrays = [i for i, step in enumerate(steps) if step.arrays]
    buffers = {i: f"a{number}" for number, i in enumerate(with_arrays, 1)} | {with_arrays[-1]: "z"}
    cells = max((step.layer.cells for step in steps if isinstance(step.layer, HOG)), default=0)
    if cells:
        yield f"float sums[{ORIENTATIONS * cells}];"
    for i in with_arrays[:-1]:
        yield f"float {buffers[i]}[{steps[i].n_out}];"
    value = "x"
    if not steps[0].arrays:  # activations work in place, and x belongs to the caller
        value, n_in = "a0", steps[0].n_in
        yield from (f"float a0[{n_in}];", f"for (int j = 0; j < {n_in}; j++)", "    a0[j] = x[j];")
    for i, step in enumerate(steps):
        if step.arrays:
            out, sizes = buffers[i], f"{step.n_out}"
            if step.kind == "dense":
                sizes = f"{step.n_out}, {step.n_in}"
            elif isinstance(step.layer, HOG):
                (height, width), cells, channels = step.layer.size, step.layer.cells, step.layer.channels
                out, sizes = f"sums, {buffers[i]}", f"{height}, {width}, {cells}, {channels}"
            yield f"{step.kind}({', '.join(step.arrays)}, {value}, {out}, {sizes});"
            value = buffers[i]
        else:
            parameter = "" if step.parameter is None else f", {step.parameter!r}f"
            yield f"{NAMES.get(step.kind, step.kind)}({value}, {step.n_out}{parameter});"


def _label(graph: InferenceGraph) -> list[str]:
    """The statements that return the label for z: the logits of a single network, or probabilities."""
    if graph.is_binary:
        return [f"return z[0] > {'0' if isinstance(graph.core, Forward) else '0.5f'};"]
    return [
        "int best = 0;",
        f"for (int k = 1; k < {graph.n_out}; k++)",
        "    if (z[k] > z[best])",
        "        best = k;",
        "return best;",
    ]


def _numbers(array: Array, suffix: str) -> Iterator[str]:
    """The values as the shortest literals that are exact. Each row starts a new line."""
    for row in array.reshape(-1, array.shape[-1]):
        yield from wrap((f"{value}{suffix}" for value in map(str, row)), "    ")

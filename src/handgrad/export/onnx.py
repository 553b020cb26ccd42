"""Export to an ONNX graph of standard operators: Gemm, an activation, Gemm, ...

The outputs are `probabilities` and `label`. A regression has one output, `predictions`. Deskewing is part of the graph:
moments by MatMul, bilinear interpolation by GatherElements. The layer HOG is part of it too: differences of slices.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import optional
from ..images import hog
from ..images.deskew import FLAT, Deskew
from ..layers import BatchNorm
from ..wrappers import SHIFTS
from .graph import Deskewed, Floats, Forward, InferenceGraph, Mean, Node, Shifted, Standardized, Step, Tempered
from .python_code import EPSILON, TINY

OPERATORS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "leaky_relu": "LeakyRelu",
    "softplus": "Softplus",
    "gelu": "Gelu",
    "exact_gelu": "Gelu",
    "elu": "Elu",
    "selu": "Selu",
    "softmax": "Softmax",
    "identity": "Identity",
    "exp": "Exp",
}
OPSET = 17  # supported by all common runtimes
GELU_OPSET = 20  # the first version with the operator Gelu


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the file, after ONNX's checker has validated it."""
    onnx = optional("onnx", "onnx")
    helper = onnx.helper
    code = _Nodes(onnx, graph)
    predictions = "probabilities" if graph.is_classification else "predictions"
    value = code.input(graph.n_in)
    core = graph.core
    for node in graph.preparation:
        value = code.prepare(node, value)
    if isinstance(core, Forward):
        scores = code.outputs(core, value, "z")
        code.activation(scores, predictions)
    else:
        scores = code.predictions(core, value, predictions)
    float32, int64, uint8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.UINT8
    outputs = [helper.make_tensor_value_info(predictions, float32, ["batch", graph.n_out])]
    properties = {"image_shape": json.dumps(graph.image_shape), "handgrad": __version__}
    if graph.is_classification:
        outputs.append(helper.make_tensor_value_info("label", int64, ["batch"]))
        properties["classes"] = json.dumps(graph.classes)
        code.label(scores, 0 if isinstance(core, Forward) else 0.5)

    onnx_graph = helper.make_graph(
        code.nodes,
        "handgrad",
        [helper.make_tensor_value_info("x", uint8 if graph.takes_bytes else float32, ["batch", graph.n_in])],
        outputs,
        code.arrays,
    )
    opset = helper.make_opsetid("", GELU_OPSET if {"gelu", "exact_gelu"} & graph.used else OPSET)
    model = helper.make_model(
        onnx_graph,
        producer_name="handgrad",
        producer_version=__version__,
        doc_string="\n".join(graph.head()),
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Nodes:
    """The operators and the constant arrays of an ONNX graph."""

    def __init__(self, onnx: Any, graph: InferenceGraph) -> None:
        self.onnx, self.graph = onnx, graph
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.constants: dict[bytes, str] = {}
        self.numbers = itertools.count(1)

    # ---- Operators ---------------------------------------------------------------------------------------------------

    def operator(
        self, operator: str, *inputs: str | NDArray[Any] | np.generic, output: str = "", **attributes: Any
    ) -> str:
        """Add an operator, whose inputs are values or constants; return the name of its output."""
        output = output or f"{operator.lower()}_{next(self.numbers)}"
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(self.onnx.helper.make_node(operator, names, [output], name=f"node_{output}", **attributes))
        return output

    def constant(self, value: NDArray[Any] | np.generic, name: str = "") -> str:
        """Add a constant, or return the name of an equal one."""
        array = np.array(value, order="C")
        key = name.encode() or repr((array.dtype, array.shape)).encode() + array.tobytes()
        if key not in self.constants:
            self.constants[key] = name or f"constant_{len(self.constants) + 1}"
            self.arrays.append(self.onnx.numpy_helper.from_array(array, self.constants[key]))
        return self.constants[key]

    def cast(self, value: str, dtype: str) -> str:
        """Convert to float32, float64 or int64."""
        types = self.onnx.TensorProto
        return self.operator("Cast", value, to={"f4": types.FLOAT, "f8": types.DOUBLE, "i8": types.INT64}[dtype])

    def reshape(self, value: str, *shape: int, output: str = "") -> str:
        return self.operator("Reshape", value, np.array(shape, np.int64), output=output)

    # ---- Predictions -------------------------------------------------------------------------------------------------

    def input(self, n_in: int) -> str:
        """The input, in float32."""
        return self.cast("x", "f4") if self.graph.takes_bytes else "x"

    def predictions(self, node: Node, x: str, output: str = "") -> str:
        """Add the predictions (batch, n_out) of a node for x (batch, n_in)."""
        if isinstance(node, Forward):
            return self.activation(self.outputs(node, x), output)
        if isinstance(node, Mean):
            total = self.operator("Sum", *(self.predictions(part, x) for part in node.parts))
            return self.operator("Div", total, np.float32(len(node.parts)), output=output)
        if isinstance(node, Shifted):
            return self._shifted(node, x, output)
        if isinstance(node, Tempered):
            return self._tempered(node, x, output)
        return self.predictions(node.part, self.prepare(node, x), output)

    def outputs(self, forward: Forward, x: str, output: str = "") -> str:
        """Add the outputs z (batch, n_out) of a network."""
        for i, step in enumerate(forward.steps):
            last = output if i == len(forward.steps) - 1 else ""
            if step.kind == "dense":
                W, b = (self.constant(array, name) for name, array in step.arrays.items())
                x = self.operator("Gemm", x, W, b, output=last, transB=1)
            elif isinstance(step.layer, BatchNorm):  # a BatchNorm without an adjacent Dense
                bn, number = step.layer, next(self.numbers)
                inputs = [self.constant(getattr(bn, key), f"{key}_{number}") for key in bn.parameter_shapes]
                x = self.operator("BatchNormalization", x, *inputs, output=last, epsilon=bn.epsilon)
            elif step.kind == "scale":
                s, t = (self.constant(array, name) for name, array in step.arrays.items())
                x = self.operator("Add", self.operator("Mul", x, s), t, output=last)
            elif step.kind == "hog":
                x = self._hog(step, x, last)
            elif step.kind == "silu":
                x = self.operator("Mul", x, self.operator("Sigmoid", x), output=last)
            else:
                x = self.operator(OPERATORS[step.kind], x, output=last, **_attributes(step))
        return x

    def _hog(self, step: Step, x: str, output: str) -> str:
        """√(Σ h K + ε) of the 8 components h of the gradient. See `images.hog`."""
        op = self.operator
        (ky, along_y), (kx, along_x) = step.arrays.items()
        height, width = along_y.shape[1], along_x.shape[1]
        p = op("Pad", self.reshape(x, -1, 1, height, width), np.array([0, 0, 1, 1, 0, 0, 1, 1]))

        def pixels(row: int, column: int) -> str:
            """p(y + row - 1, x + column - 1)"""
            return op("Slice", p, np.array([row, column]), np.array([row + height, column + width]), np.array([2, 3]))

        gx, gy = op("Sub", pixels(1, 2), pixels(1, 0)), op("Sub", pixels(2, 1), pixels(0, 1))
        west, north, size_x, size_y = op("Neg", gx), op("Neg", gy), op("Abs", gx), op("Abs", gy)
        straight = [op("Sub", *pair) for pair in ((gx, size_y), (west, size_y), (gy, size_x), (north, size_x))]
        between = [op("Min", *pair) for pair in ((gx, gy), (west, gy), (gx, north), (west, north))]
        h = op("Relu", op("Concat", *straight, *between, axis=1))
        along = op("MatMul", h, self.constant(along_x.T, kx))
        sums = op("MatMul", self.constant(along_y, ky), along)
        return self.reshape(op("Sqrt", op("Add", sums, np.float32(hog.EPSILON))), -1, step.n_out, output=output)

    def activation(self, z: str, output: str = "") -> str:
        """Add the activation of the output."""
        activation = self.graph.output_activation
        axis = {"axis": 1} if activation == "softmax" else {}
        return self.operator(OPERATORS[activation], z, output=output, **axis)

    def label(self, scores: str, threshold: float) -> None:
        """Add the label: the index of the largest score, or whether a single score exceeds the threshold."""
        if self.graph.is_binary:
            is_one = self.operator("Greater", scores, np.float32(threshold))
            self.operator("Squeeze", self.cast(is_one, "i8"), np.array([1]), output="label")
        else:
            self.operator("ArgMax", scores, output="label", axis=1, keepdims=0)

    def _shifted(self, node: Shifted, x: str, output: str) -> str:
        """All shifts of all images are one batch. Index `pixels` is a pixel of value 0."""
        (height, width), pixels = node.image_shape, node.image_shape[0] * node.image_shape[1]
        padded = np.full((height + 2, width + 2), pixels)
        padded[1:-1, 1:-1] = np.arange(pixels).reshape(height, width)
        indices = [
            padded[1 - down : 1 - down + height, 1 - right : 1 - right + width].ravel()
            for down, right in SHIFTS[node.shifts]
        ]
        with_zero = self.operator("Pad", x, np.array([0, 0, 0, 1]))
        images = self.reshape(self.operator("Gather", with_zero, np.array(indices), axis=1), -1, pixels)
        p = self.reshape(self.predictions(node.part, images), -1, node.shifts, self.graph.n_out)
        total = self.operator("ReduceSum", p, np.array([1]), keepdims=0)
        return self.operator("Div", total, np.float32(node.shifts), output=output)

    def _tempered(self, node: Tempered, x: str, output: str) -> str:
        p = self.predictions(node.part, x)
        if self.graph.output_activation == "softmax":
            z = self.operator("Log", self.operator("Max", p, np.float32(float(TINY))))
        else:
            low = np.float32(float(EPSILON))
            p = self.operator("Clip", p, low, np.float32(1) - low)
            odds = self.operator("Div", p, self.operator("Sub", np.float32(1), p))
            z = self.operator("Log", odds)
        return self.activation(self.operator("Div", z, np.float32(node.temperature)), output)

    # ---- Preprocessing -----------------------------------------------------------------------------------------------

    def prepare(self, node: Deskewed | Standardized | Floats, x: str) -> str:
        """Add a function of the input."""
        if isinstance(node, Deskewed):
            return self._deskewed(node.deskew, x, node.rounds)
        if isinstance(node, Standardized):
            centred = self.operator("Sub", self.cast(x, "f8"), node.mean)
            return self.cast(self.operator("Div", centred, node.scale), "f4")
        return self.operator("Mul", x, np.float32(1 / 255)) if self.graph.takes_bytes else x

    def _deskewed(self, deskew: Deskew, x: str, rounds: bool) -> str:
        """handgrad's Deskew with the same arithmetic: float64 for the moments, float32 for the pixels."""
        height, width, s, op = deskew.height, deskew.width, deskew.shrink, self.operator
        y, across = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
        images = self.reshape(x, -1, height, width)
        rows = op("MatMul", self.cast(images, "f8"), np.stack([across**0, across], axis=1))  # Σₓ p, Σₓ p x
        rows = self.reshape(rows, -1, 2 * height)

        def moment(of_p: NDArray[Any], of_px: NDArray[Any]) -> str:
            return op("MatMul", rows, np.stack([of_p, of_px], axis=1).reshape(2 * height, 1))

        zero = 0 * y
        m = op("Max", moment(y**0, zero), np.float64(1e-30))
        cy, cx = op("Div", moment(y, zero), m), op("Div", moment(zero, y**0), m)
        variance = op("Sub", op("Div", moment(y**2, zero), m), op("Mul", cy, cy))
        covariance = op("Sub", op("Div", moment(zero, y), m), op("Mul", cx, cy))
        flat = np.float64(FLAT * height**2)
        slant = op("Div", covariance, op("Max", variance, flat))
        slant = op("Where", op("Greater", variance, flat), slant, np.float64(0))

        # out(y, x) = p(y + cy, x + slant y + cx), interpolated along y and then along x, and 0 outside the image
        down, along = op("Floor", cy), op("Add", op("Mul", slant, y), cx)  # (batch, 1), (batch, height)
        right = op("Floor", along)
        fy, fx = self.cast(op("Sub", cy, down), "f4"), self.cast(op("Sub", along, right), "f4")
        fx = op("Unsqueeze", fx, np.array([2]))
        fy = op("Unsqueeze", fy, np.array([2]))
        i = op("Add", np.arange(height, dtype=np.float64), down)
        j = op("Add", np.arange(width, dtype=np.float64), op("Unsqueeze", right, np.array([2])))
        i = self._clip(i, height)
        j = self._clip(j, width)
        stride = width + 4
        first = op("Mul", op("Unsqueeze", i, np.array([2])), np.int64(stride))
        index = self.reshape(op("Add", first, j), -1, height * width)
        padded = self.reshape(op("Pad", images, np.array([0, 2, 2, 0, 2, 2])), -1, (height + 4) * stride)

        def pixels(offset: int) -> str:
            at = index if offset == 0 else op("Add", index, np.int64(offset))
            return self.reshape(op("GatherElements", padded, at, axis=1), -1, height, width)

        def between(a: str, b: str, f: str) -> str:
            return op("Add", a, op("Mul", f, op("Sub", b, a)))

        left, right = (between(pixels(offset), pixels(offset + stride), fy) for offset in (0, 1))
        result = between(left, right, fx)
        result = op("Round", result) if rounds else result
        if s > 1:
            result = self.reshape(result, -1, height // s, s, width // s, s)
            result = op("Mul", op("ReduceSum", result, np.array([2, 4]), keepdims=0), np.float32(1 / s**2))
            result = op("Round", result) if rounds else result
        return self.reshape(result, -1, deskew.n_out)

    def _clip(self, position: str, size: int) -> str:
        """Indices into the padded image: positions beyond its border of 2 pixels are on the border."""
        clipped = self.operator("Min", self.operator("Max", position, np.float64(-2)), np.float64(size))
        return self.cast(self.operator("Add", clipped, np.float64(2)), "i8")


def _attributes(step: Step) -> dict[str, Any]:
    """The attributes of the operator of an activation."""
    if step.parameter is not None:
        return {"alpha": step.parameter}
    return {"approximate": "tanh"} if step.kind == "gelu" else {}

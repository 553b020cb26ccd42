"""Export to an ONNX graph of standard operators: Gemm, an activation, Gemm, ...

The outputs are `probabilities` and `label`. A regression has one output, `predictions`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .. import __version__
from ..errors import optional
from ..layers import BatchNorm
from .graph import InferenceGraph, Step

OPERATORS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "leaky_relu": "LeakyRelu",
    "softplus": "Softplus",
    "gelu": "Gelu",
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
    network, nodes, arrays = graph.network, [], []

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def constants(**values: Any) -> list[str]:
        for key, value in values.items():
            arrays.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), key))
        return list(values)

    value = "x"
    for i, step in enumerate(graph.steps):
        output = "z" if i == len(graph.steps) - 1 else f"{step.kind}_{i}"
        if step.kind == "dense":
            value = node("Gemm", [value, *constants(**step.arrays)], output, transB=1)
        elif isinstance(step.layer, BatchNorm):  # a BatchNorm without an adjacent Dense
            bn = step.layer
            inputs = constants(**{f"{key}_{i}": getattr(bn, key) for key in bn.parameter_shapes})
            value = node("BatchNormalization", [value, *inputs], output, epsilon=bn.epsilon)
        else:
            value = node(OPERATORS[step.kind], [value], output, **_attributes(step))
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    predictions = "probabilities" if graph.is_classification else "predictions"
    activation = graph.output_activation
    node(OPERATORS[activation], ["z"], predictions, **({"axis": 1} if activation == "softmax" else {}))
    outputs = [helper.make_tensor_value_info(predictions, float32, ["batch", network.n_out])]
    properties = {"image_shape": json.dumps(network.image_shape), "handgrad": __version__}
    if graph.is_classification:
        outputs.append(helper.make_tensor_value_info("label", int64, ["batch"]))
        properties["classes"] = json.dumps(network.classes)
    if graph.is_binary:
        (zero,) = constants(zero=np.float32(0))
        is_one = node("Cast", [node("Greater", ["z", zero], "is_positive")], "labels", to=int64)
        node("Squeeze", [is_one, *constants(axes=np.array([1]))], "label")
    elif graph.is_classification:
        node("ArgMax", ["z"], "label", axis=1, keepdims=0)

    onnx_graph = helper.make_graph(
        nodes,
        "handgrad",
        [helper.make_tensor_value_info("x", float32, ["batch", network.n_in])],
        outputs,
        arrays,
    )
    opset = helper.make_opsetid("", GELU_OPSET if "gelu" in graph.used else OPSET)
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


def _attributes(step: Step) -> dict[str, Any]:
    """The attributes of the operator of an activation."""
    if step.kind == "leaky_relu":
        return {"alpha": step.slope}
    return {"approximate": "tanh"} if step.kind == "gelu" else {}

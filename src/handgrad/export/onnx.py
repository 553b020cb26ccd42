"""An ONNX graph of ONNX's own operators: Gemm, an activation, Gemm, ..., and both the probabilities and the label.

Of a network whose answers are numbers there is one output, the predictions.
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
OPSET = 17  # old enough for the runtimes there are
OPSET_OF_GELU = 20


def write(plain: InferenceGraph, name: str) -> bytes:
    """The model's bytes, looked over by onnx's own checker."""
    onnx = optional("onnx", "onnx")
    helper, numbers = onnx.helper, onnx.numpy_helper
    network, nodes, arrays = plain.network, [], []

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=f"make_{output}", **attributes))
        return output

    def constants(**values: Any) -> list[str]:
        for key, value in values.items():
            arrays.append(numbers.from_array(np.ascontiguousarray(value), key))
        return list(values)

    value = "x"
    for i, step in enumerate(plain.steps):
        output = "z" if i == len(plain.steps) - 1 else f"{step.kind}_{i}"
        if step.kind == "dense":
            value = node("Gemm", [value, *constants(**step.arrays)], output, transB=1)
        elif isinstance(step.layer, BatchNorm):  # with no Dense beside it
            bn = step.layer
            kept = {"g": bn.g, "b": bn.b, "running_mean": bn.running_mean, "running_var": bn.running_var}
            inputs = constants(**{f"{key}_{i}": array for key, array in kept.items()})
            value = node("BatchNormalization", [value, *inputs], output, epsilon=bn.epsilon)
        else:
            value = node(OPERATORS[step.kind], [value], output, **attributes(step))
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    read = "probabilities" if plain.is_classification else "predictions"
    node(OPERATORS[plain.reading], ["z"], read, **({"axis": 1} if plain.reading == "softmax" else {}))
    outputs = [helper.make_tensor_value_info(read, float32, ["batch", network.n_out])]
    properties = {"image_shape": json.dumps(network.image_shape), "handgrad": __version__}
    if plain.is_classification:
        outputs.append(helper.make_tensor_value_info("label", int64, ["batch"]))
        properties["classes"] = json.dumps(network.classes)
    if plain.is_classification and plain.threshold is None:
        node("ArgMax", ["z"], "label", axis=1, keepdims=0)
    elif plain.is_classification:
        (half,) = constants(threshold=np.float32(plain.threshold))
        above = node("Cast", [node("Greater", ["z", half], "above")], "above_as_int64", to=int64)
        node("Squeeze", [above, *constants(axes=np.array([1]))], "label")

    graph = helper.make_graph(
        nodes,
        "handgrad",
        [helper.make_tensor_value_info("x", float32, ["batch", network.n_in])],
        outputs,
        arrays,
    )
    opset = helper.make_opsetid("", OPSET_OF_GELU if "gelu" in {step.kind for step in plain.steps} else OPSET)
    model = helper.make_model(
        graph,
        producer_name="handgrad",
        producer_version=__version__,
        doc_string="\n".join(plain.head()),
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
    )
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def attributes(step: Step) -> dict[str, Any]:
    """What the operator of an activation is told."""
    if step.kind == "leaky_relu":
        return {"alpha": step.layer.config()["slope"]}
    return {"approximate": "tanh"} if step.kind == "gelu" else {}

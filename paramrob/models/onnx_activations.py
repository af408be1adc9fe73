"""ONNX operators that act on each number, or on the last axis."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx
from onnx import TensorProto

from paramrob.models.network import Activation, ActivationKind, Softmax
from paramrob.models.onnx_builder import Builder, Handler, Value, axis_of
from paramrob.models.onnx_constants import RefusedError, cast_is_exact

_PLAIN: dict[str, ActivationKind] = {
    "HardSwish": "hardswish",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Tanh": "tanh",
}
# A bound that no finite number of the type exceeds is none.
_LARGEST = {
    TensorProto.FLOAT16: 65504.0,
    TensorProto.BFLOAT16: 3.3895313892515355e38,
    TensorProto.FLOAT: 3.4028234663852886e38,
    TensorProto.DOUBLE: 1.7976931348623157e308,
}


def plain(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate an activation without attributes."""
    return graph.activation(name, Activation(_PLAIN[node.op_type]), graph.value(node))


def leaky_relu(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate LeakyRelu."""
    slope = float(graph.attribute(node, "alpha"))
    if not 0 <= slope <= 1:
        raise RefusedError(f"alpha = {slope!r} lies outside [0, 1]; train with one inside")
    return graph.activation(name, Activation("leaky_relu", slope), graph.value(node))


def elu(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Elu."""
    alpha = float(graph.attribute(node, "alpha"))
    if not alpha >= 0:
        raise RefusedError(f"alpha = {alpha!r} is negative; train with one of 0 or more")
    return graph.activation(name, Activation("elu", alpha=alpha), graph.value(node))


def gelu(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Gelu, exact or by tanh."""
    approximate = bytes(graph.attribute(node, "approximate"))
    if approximate not in (b"none", b"tanh"):
        raise RefusedError(f"approximate = {approximate!r} is unknown; export with none or tanh")
    kind: ActivationKind = "gelu" if approximate == b"none" else "gelu_tanh"
    return graph.activation(name, Activation(kind), graph.value(node))


def hard_sigmoid(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate HardSigmoid of any slope as a clamp of an affine map."""
    alpha, beta = (float(graph.attribute(node, key)) for key in ("alpha", "beta"))
    value = graph.number(f"{name}.alpha", "mul", graph.value(node), alpha)
    value = graph.number(f"{name}.beta", "add", value, beta)
    return graph.activation(name, Activation("clamp", low=0.0, high=1.0), value)


def clip_bounds(
    graph: Builder, node: onnx.NodeProto, elem_type: int
) -> tuple[float | None, float | None]:
    """Return what Clip clips to; ``None`` where that binds no number of the type.

    Raises:
        RefusedError: a bound is computed, or no number.
    """
    found: list[float | None] = []
    schema = onnx.defs.get_schema("Clip", graph.opset, "")
    for index, (key, sign) in enumerate((("min", -1.0), ("max", 1.0)), start=1):
        bound = None
        if key in schema.attributes:
            bound = graph.attribute(node, key)
        elif graph.has(node, index):
            bound = graph.constant(node, index).value.item()
        bound = None if bound is None else float(bound)
        if bound is not None and math.isnan(bound):
            raise RefusedError(f"its {key} is NaN; give it a number")
        free = bound is None or sign * bound >= _LARGEST[elem_type]
        found.append(None if free else bound)
    return found[0], found[1]


def clip(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Clip: a clamp, or a ReLU where it only clips at zero from below."""
    value = graph.value(node)
    low, high = clip_bounds(graph, node, value.elem_type)
    if low is None and high is None:
        return value
    if low == 0 and high is None:
        return graph.activation(name, Activation("relu"), value)
    if low is None or high is None:
        raise RefusedError(
            f"clips to {low!r} .. {high!r}, on one side; give it both bounds, or clip at 0 from "
            "below"
        )
    if not -_LARGEST[TensorProto.DOUBLE] <= low <= high <= _LARGEST[TensorProto.DOUBLE]:
        raise RefusedError(f"clips to {low!r} .. {high!r}, which is no interval; mend its bounds")
    return graph.activation(name, Activation("clamp", low=low, high=high), value)


def softmax(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Softmax over the last axis."""
    value = graph.value(node)
    rank = len(value.dims)
    axis = axis_of(int(graph.attribute(node, "axis")), rank)
    # Before opset 13 the axes from `axis` on are one flat axis.
    flat = graph.opset < 13 and axis > 0 and all(d == 1 for d in value.dims[axis:-1])
    if axis != rank - 1 and not flat:
        raise RefusedError(
            f"normalises over axis {axis} of {value.dims}; only the last axis is supported"
        )
    return graph.emit(name, Softmax(), value, value.dims)


def cast(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate a Cast that changes no value, or none but by the rounding of floats."""
    value = graph.value(node, padded=True, quantized=True)
    target = int(graph.attribute(node, "to"))
    if value.elem_type == TensorProto.INT32 and target in (TensorProto.FLOAT, TensorProto.DOUBLE):
        # sums of integers on their way back to real numbers, of which floats stand for
        return replace(value, elem_type=target)
    if not cast_is_exact(value.elem_type, target):
        names = tuple(map(TensorProto.DataType.Name, (value.elem_type, target)))
        raise RefusedError(
            "rounds a computed value from {} to {}, which a network of real numbers does "
            "not; export without this cast".format(*names)
        )
    return replace(value, elem_type=target)


def dropout(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Dropout at inference: nothing."""
    if any(graph.uses.get(mask, 0) for mask in node.output[1:] if mask):
        raise RefusedError("its mask is used; export the model for inference")
    if graph.has(node, 2) and graph.constant(node, 2).value.any():
        raise RefusedError("is in training mode; export the model for inference")
    return graph.value(node, padded=True, quantized=True)


def identity(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Identity: nothing."""
    return graph.value(node, padded=True, quantized=True)


HANDLERS: dict[str, Handler] = {
    "Cast": cast,
    "Clip": clip,
    "Dropout": dropout,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "Identity": identity,
    "LeakyRelu": leaky_relu,
    "Softmax": softmax,
    **dict.fromkeys(_PLAIN, plain),
}

"""ONNX operators of quantized models, in both forms that quantizers write.

A tensor of integers stands for the real numbers ``(q - zero_point) * scale`` of its grid. Weights
and biases become exactly those numbers: an integer of 16 bits times a float32 scale is a float64
number, and where a bias of 32 bits times two scales is not, what the nearest float64 lacks is
added behind the layer. A QuantizeLinear is a :class:`~paramrob.models.ops.Quantize` node. The
operators on integers are what the ONNX specification says of them: QLinearConv is DequantizeLinear,
Conv, QuantizeLinear, in real numbers, and so for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from paramrob.errors import ModelError
from paramrob.models.network import Quantize
from paramrob.models.onnx_activations import leaky_relu, plain
from paramrob.models.onnx_builder import Builder, Handler, Value
from paramrob.models.onnx_constants import FLOATS, Constant, RefusedError
from paramrob.models.onnx_dense import elementwise, gemm, matmul
from paramrob.models.onnx_grids import (
    AGAIN,
    along,
    float_type,
    grid_of,
    only_integers,
    range_of,
    said_type,
    scaled,
    scales_of,
    type_name,
    zero_points,
)
from paramrob.models.onnx_images import conv, global_pool, pool
from paramrob.models.onnx_shapes import concat

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""


def quantize(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate QuantizeLinear of a computed tensor."""
    return _onto(
        graph, name, graph.value(node), *grid_of(graph, node, 1, 2, said_type(graph, node))
    )


def dequantize(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate DequantizeLinear of a computed tensor: what it stands for is known already."""
    value = _read_at(graph, node, 0, 1, 2)
    return replace(value, elem_type=float_type(graph, node))


def dynamic(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Refuse DynamicQuantizeLinear."""
    raise RefusedError(
        "computes its scale from each input, so that there is no fixed grid; quantize the model "
        "statically, with calibration data"
    )


def qlinear_conv(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate QLinearConv."""
    weight = _constant_at(graph, node, 3, 4, 5, axis=0)
    inputs = [_view(graph, node, 0, 1, 2), _hold(graph, node, 3, weight)]
    if graph.has(node, 8):
        inputs.append(_bias(graph, node, 8, 1, 4))
    value = _as_float(graph, node, name, conv, "Conv", inputs)
    return _onto(graph, f"{name}.quantize", value, *grid_of(graph, node, 6, 7))


def qlinear_matmul(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate QLinearMatMul by a constant."""
    inputs = [_view(graph, node, 0, 1, 2), _view(graph, node, 3, 4, 5, axis=-1)]
    value = _as_float(graph, node, name, matmul, "MatMul", inputs)
    return _onto(graph, f"{name}.quantize", value, *grid_of(graph, node, 6, 7))


def qgemm(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate QGemm, whose result is a tensor of floats where it names no scale for it."""
    outputs = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    inputs = [_view(graph, node, 0, 1, 2), _view(graph, node, 3, 4, 5, axis=outputs)]
    if graph.has(node, 6):
        inputs.append(_bias(graph, node, 6, 1, 4))
    value = _as_float(graph, node, name, gemm, "Gemm", inputs)
    if not graph.has(node, 7):
        return value
    return _onto(graph, f"{name}.quantize", value, *grid_of(graph, node, 7, 8))


def qlinear_pair(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate QLinearAdd, and QLinearMul by a constant."""
    inputs = [_view(graph, node, 0, 1, 2), _view(graph, node, 3, 4, 5)]
    op_type = node.op_type.removeprefix("QLinear")
    value = _as_float(graph, node, name, elementwise, op_type, inputs)
    return _onto(graph, f"{name}.quantize", value, *grid_of(graph, node, 6, 7))


def qlinear_concat(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate QLinearConcat of computed tensors."""
    inputs = [_view(graph, node, i, i + 1, i + 2) for i in range(2, len(node.input), 3)]
    value = _as_float(graph, node, name, concat, "Concat", inputs)
    return _onto(graph, f"{name}.quantize", value, *grid_of(graph, node, 0, 1))


def qlinear_one(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate the pools and activations, which have one input."""
    if any(a.name == "channels_last" and a.i for a in node.attribute):
        raise RefusedError("channels_last = 1 is not supported; export with channels first")
    handler, op_type = _ONE[node.op_type]
    inputs = [_view(graph, node, 0, 1, 2)]
    value = _as_float(graph, node, name, handler, op_type, inputs)
    return _onto(graph, f"{name}.quantize", value, *grid_of(graph, node, 3, 4))


def integer_product(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate MatMulInteger and ConvInteger by a constant: their results are whole numbers."""
    value = graph.value(node, quantized=True)
    grid = value.grid
    zero = graph.constant(node, 2).value if graph.has(node, 2) else np.array(0)
    if not value.is_quantized or grid is None or zero.size != 1 or zero.item() != grid.zero_point:
        raise RefusedError(f"reads its input with another zero point than it has; {AGAIN}")
    steps = graph.number(f"{name}.steps", "div", replace(value, grid=None), grid.scale)
    weight = graph.constant(node, 1)
    range_of(weight.elem_type)
    axis = 0 if node.op_type == "ConvInteger" else -1
    shift = zero_points(graph, node, 3, weight.elem_type, weight.shape, axis)
    whole = replace(
        weight, value=weight.value.astype(np.int64) - shift, elem_type=TensorProto.FLOAT
    )
    inputs = [
        _hold(graph, node, 0, replace(steps, elem_type=TensorProto.FLOAT)),
        _hold(graph, node, 1, whole),
    ]
    handler, op_type = _PRODUCTS[node.op_type]
    result = _as_float(graph, node, name, handler, op_type, inputs)
    return replace(result, elem_type=TensorProto.INT32)


def _onto(graph: Builder, name: str, value: Value, grid: Quantize, elem_type: int) -> Value:
    """Return the integers of a grid that a computed tensor is rounded to."""
    if value.elem_type not in FLOATS:
        raise RefusedError(f"quantizes {type_name(value.elem_type)}; only floats are supported")
    if value.grid != grid:  # what lies on the grid stays where it is
        value = graph.emit(name, grid, value, value.dims)
    return replace(value, elem_type=elem_type, grid=grid)


def _as_float(
    graph: Builder,
    node: onnx.NodeProto,
    name: str,
    handler: Handler,
    op_type: str,
    inputs: Sequence[str],
) -> Value:
    """Translate the operator on floats that a node on integers stands for."""
    inner = onnx.helper.make_node(op_type, inputs, node.output[:1])
    inner.attribute.extend(a for a in node.attribute if a.name != "channels_last")
    try:
        return handler(graph, inner, name)
    finally:
        for tensor in inputs:
            graph.values.pop(tensor, None)
            graph.constants.pop(tensor, None)


def _hold(graph: Builder, node: onnx.NodeProto, index: int, found: Value | Constant) -> str:
    """Return a name, which no tensor of a file has, under which the graph holds an operand."""
    tensor = f"{node.output[0]}\0{index}"
    if isinstance(found, Value):
        graph.values[tensor] = found
    else:
        graph.constants[tensor] = found
    return tensor


def _view(
    graph: Builder, node: onnx.NodeProto, index: int, scale: int, zero: int, axis: int | None = None
) -> str:
    """Hold the real numbers that an operand stands for."""
    if graph.is_computed(node.input[index]):
        value = _read_at(graph, node, index, scale, zero)
        return _hold(graph, node, index, replace(value, elem_type=TensorProto.FLOAT))
    return _hold(graph, node, index, _constant_at(graph, node, index, scale, zero, axis))


def _read_at(graph: Builder, node: onnx.NodeProto, index: int, scale: int, zero: int) -> Value:
    """Return a computed operand, of the grid that the node reads it on."""
    value = graph.value(node, index, padded=True, quantized=True)
    if not value.is_quantized or value.grid is None:
        kind = type_name(value.elem_type)
        raise RefusedError(f"dequantizes computed numbers of type {kind}; {only_integers()}")
    if grid_of(graph, node, scale, zero, value.elem_type) != (value.grid, value.elem_type):
        raise RefusedError(
            f"reads its input {node.input[index]!r} with another scale, zero point or type than it "
            f"was quantized with; {AGAIN}"
        )
    return value


def _constant_at(
    graph: Builder, node: onnx.NodeProto, index: int, scale: int, zero: int, axis: int | None
) -> Constant:
    constant = graph.constant(node, index)
    range_of(constant.elem_type)
    shape = constant.shape
    factors = along(scales_of(graph, node, scale), node.input[scale], shape, axis)
    shift = zero_points(graph, node, zero, constant.elem_type, shape, axis)
    return scaled(constant, factors, shift, TensorProto.FLOAT)


def _bias(graph: Builder, node: onnx.NodeProto, index: int, first: int, second: int) -> str:
    """Hold a bias of 32 bits, whose scale is the product of two."""
    constant = graph.constant(node, index)
    if constant.elem_type != TensorProto.INT32:
        raise ModelError(
            f"the bias {constant.root!r} is {type_name(constant.elem_type)}, which has to be "
            f"INT32; {AGAIN}"
        )
    scale = scales_of(graph, node, first) * scales_of(graph, node, second)
    spread = along(scale.ravel(), node.input[second], constant.shape, -1)
    return _hold(graph, node, index, scaled(constant, spread, np.array(0), TensorProto.FLOAT))


_ONE: dict[str, tuple[Handler, str]] = {
    "QLinearAveragePool": (pool, "AveragePool"),
    "QLinearGlobalAveragePool": (global_pool, "GlobalAveragePool"),
    "QLinearLeakyRelu": (leaky_relu, "LeakyRelu"),
    "QLinearSigmoid": (plain, "Sigmoid"),
}
_PRODUCTS: dict[str, tuple[Handler, str]] = {
    "ConvInteger": (conv, "Conv"),
    "MatMulInteger": (matmul, "MatMul"),
}
HANDLERS: dict[str, Handler] = {
    "ConvInteger": integer_product,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic,
    "MatMulInteger": integer_product,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize,
}
MICROSOFT_HANDLERS: dict[str, Handler] = {
    "DequantizeLinear": dequantize,
    "QGemm": qgemm,
    "QLinearAdd": qlinear_pair,
    "QLinearConcat": qlinear_concat,
    "QLinearMul": qlinear_pair,
    "QuantizeLinear": quantize,
    **dict.fromkeys(_ONE, qlinear_one),
}

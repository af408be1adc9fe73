"""ONNX operators that are dense layers, sums, and operations with a constant."""

from __future__ import annotations

import numpy as np
import onnx

from paramrob.models.network import Add, Dense, ElementwiseKind, Shape
from paramrob.models.onnx_builder import Builder, Handler, Value
from paramrob.models.onnx_constants import Constant, RefusedError

_ELEMENTWISE: dict[str, tuple[ElementwiseKind, ElementwiseKind | None]] = {
    "Add": ("add", "add"),
    "Sub": ("sub", "rsub"),
    "Mul": ("mul", "mul"),
    "Div": ("div", None),
}


def gemm(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Gemm: a dense layer, its bias with it where it is one."""
    value = graph.value(node)
    if graph.attribute(node, "transA"):
        raise RefusedError("transA = 1 mixes the inputs of a batch; export without it")
    alpha, beta = (float(graph.attribute(node, key)) for key in ("alpha", "beta"))
    has_bias = graph.has(node, 2) and beta != 0
    if alpha != 1 or (has_bias and beta != 1):
        raise RefusedError(
            f"alpha = {alpha!r}, beta = {beta!r}; multiply them into the weight and the bias "
            "and export with 1"
        )
    weight = graph.constant(node, 1)
    bias = graph.constant(node, 2) if has_bias else None
    weight = weight if graph.attribute(node, "transB") else weight.transposed()
    dims = (value.dims[0], weight.shape[0])
    fused = None
    if bias is not None:
        _check_broadcast(bias, dims)
        fused = _as_bias(bias, dims)
    value = _dense(graph, name, value, weight, fused, dims)
    if bias is not None and fused is None:
        return graph.elementwise(f"{name}.C", "add", value, bias)
    return value


def matmul(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate MatMul by a constant matrix or vector."""
    if node.input[0] in graph.constants:
        return _matmul_left(graph, node, name)
    value, weight = graph.value(node), graph.constant(node, 1)
    if len(weight.shape) == 2:
        dims = (*value.dims[:-1], weight.shape[1])
        return _dense(graph, name, value, weight.transposed(), None, dims)
    if len(weight.shape) != 1:
        raise RefusedError(f"multiplies by a tensor of shape {weight.shape}; use a matrix")
    dims = (*value.dims[:-1], 1)
    value = _dense(graph, name, value, weight.reshaped((1, -1)), None, dims)
    return graph.shaped(f"{name}.reshape", value, dims[:-1])


def _matmul_left(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    weight, value = graph.constant(node, 0), graph.value(node, 1)
    if len(value.dims) != 1 or len(weight.shape) != 2:
        raise RefusedError("its first operand is a constant; exchange the operands")
    return _dense(graph, name, value, weight, None, weight.shape[:1])


def _dense(
    graph: Builder, name: str, value: Value, weight: Constant, bias: Constant | None, dims: Shape
) -> Value:
    stored = None if bias is None else graph.parameter(bias.nearest())
    op = Dense(graph.parameter(weight), stored)
    return graph.with_rest(name, graph.emit(name, op, value, dims), bias)


def elementwise(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Add, Sub, Mul and Div with a constant, and Add of two computed tensors."""
    computed = [graph.is_computed(tensor) for tensor in node.input]
    if all(computed):
        if node.op_type == "Add":
            return add(graph, node, name)
        raise RefusedError("both operands are computed; one must be a constant")
    left = computed.index(True) == 0
    kind = _ELEMENTWISE[node.op_type][0 if left else 1]
    if kind is None:
        raise RefusedError("divides a constant by a computed value; that is not supported")
    value = graph.value(node, 0 if left else 1)
    return _with_constant(graph, name, kind, value, graph.constant(node, 1 if left else 0))


def _with_constant(
    graph: Builder, name: str, kind: ElementwiseKind, value: Value, constant: Constant
) -> Value:
    _check_broadcast(constant, value.dims)
    bias = _as_bias(constant, value.dims)
    if kind == "add" and bias is not None:
        biased = graph.with_bias(value, bias)
        if biased is not None:
            return biased
    return graph.elementwise(name, kind, value, constant)


def add(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate a sum: of computed tensors, then of constants, one after the other."""
    indices = range(len(node.input))
    computed = [i for i in indices if graph.is_computed(node.input[i])]
    constants = [i for i in indices if i not in computed]
    values = [graph.value(node, i) for i in computed]
    if len({v.dims for v in values}) != 1:
        shapes = ", ".join(str(v.dims) for v in values)
        raise RefusedError(f"adds computed tensors of different shapes {shapes}; give them one")
    value = values[0]
    if len(values) > 1:
        value = graph.emit(name, Add(), values, value.dims)
    for position, i in enumerate(constants):
        last = len(values) == 1 and position == 0
        called = name if last else f"{name}.constant{i}"
        value = _with_constant(graph, called, "add", value, graph.constant(node, i))
    return value


def _check_broadcast(constant: Constant, dims: Shape) -> None:
    """Refuse a constant that would enlarge its operand, or give it more axes."""
    try:
        fits = np.broadcast_shapes(constant.shape, dims) == dims
    except ValueError:
        fits = False
    if not fits:
        raise RefusedError(
            f"its constant of shape {constant.shape} does not broadcast to the operand's {dims}; "
            "give it that shape"
        )


def _as_bias(constant: Constant, dims: Shape) -> Constant | None:
    """Return the constant as a ``(width,)`` bias where it is one, else ``None``."""
    width = dims[-1] if dims else 0
    if constant.value.size != width or (constant.shape and constant.shape[-1] != width):
        return None
    return constant.reshaped((width,))


HANDLERS: dict[str, Handler] = {
    "Add": elementwise,
    "Div": elementwise,
    "Gemm": gemm,
    "MatMul": matmul,
    "Mul": elementwise,
    "Sub": elementwise,
    "Sum": add,
}

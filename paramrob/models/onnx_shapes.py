"""ONNX operators that move numbers, and those that compute shapes from constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from paramrob.models.network import Concat, Shape, Transpose
from paramrob.models.onnx_builder import Builder, Handler, Value, axis_of
from paramrob.models.onnx_constants import (
    Constant,
    RefusedError,
    cast_constant,
    from_array,
    node_constant,
    resolve_shape,
)

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
_MOST_NUMBERS = 1000
_ARITHMETIC = {"Add": np.add, "Mul": np.multiply, "Sub": np.subtract}


def flatten(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Flatten."""
    value = graph.value(node, quantized=True)
    axis = int(graph.attribute(node, "axis"))
    axis += len(value.dims) if axis < 0 else 0
    first = math.prod(value.dims[:axis])
    return graph.shaped(name, value, (first, math.prod(value.dims) // first))


def reshape(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Reshape."""
    value = graph.value(node, quantized=True)
    target, allow_zero = _target(graph, node)
    return graph.shaped(name, value, resolve_shape(value.dims, target, allow_zero))


def squeeze(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Squeeze and Unsqueeze."""
    value = graph.value(node, quantized=True)
    return graph.shaped(name, value, _squeezed(graph, node, value.dims))


def transpose(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Transpose; an axis of size one that stood for the batch may move too."""
    value = graph.value(node, quantized=True)
    rank = len(value.dims)
    given = graph.attribute(node, "perm")
    order = tuple(range(rank))[::-1] if given is None else tuple(int(a) for a in given)
    if sorted(order) != list(range(rank)):
        raise RefusedError(f"perm = {list(order)} is no order of {rank} axes; export again")
    dims = tuple(value.dims[a] for a in order)
    dropped = len(value.dims) - len(value.shape)
    moved = tuple(a - dropped for a in order if a >= dropped)
    if moved != tuple(range(len(moved))):
        turned = tuple(value.shape[a] for a in moved)
        value = graph.emit(name, Transpose(moved), value, (1,) * dropped + turned)
        name = f"{name}.reshape"
    return graph.shaped(name, value, dims)


def concat(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Concat of computed tensors."""
    if not all(graph.is_computed(tensor) for tensor in node.input):
        raise RefusedError("joins a constant to a computed tensor; only computed ones may be")
    values = [graph.value(node, i, quantized=True) for i in range(len(node.input))]
    if len(values) == 1:
        return values[0]
    if values[0].is_quantized and len({value.grid for value in values}) > 1:
        raise RefusedError(
            "joins integers of different scales or zero points; put a DequantizeLinear before it"
        )
    first = values[0].dims
    axis = axis_of(int(graph.attribute(node, "axis")), len(first))
    dropped = len(first) - len(values[0].shape)
    if axis < dropped:
        raise RefusedError("joins along the batch axis; only the other axes are supported")
    dims = (*first[:axis], sum(v.dims[axis] for v in values), *first[axis + 1 :])
    return graph.emit(name, Concat(axis - dropped), values, dims)


def shape_of(graph: Builder, node: onnx.NodeProto) -> Constant:
    """Return what Shape says of a computed tensor or a constant, for a batch of one."""
    tensor = node.input[0]
    known = graph.constants.get(tensor)
    dims = graph.value(node, padded=True, quantized=True).dims if known is None else known.shape
    start, end = graph.attribute(node, "start"), graph.attribute(node, "end")
    taken = np.array(dims[start:end], dtype=np.int64)
    return from_array(taken, node.output[0], TensorProto.INT64)


def fold(graph: Builder, node: onnx.NodeProto) -> Constant:
    """Return what a node computes from constants alone.

    Raises:
        RefusedError: it is none of those that exporters leave in a graph.
    """
    kind = node.op_type
    if kind == "Constant":
        return node_constant(node)
    if kind not in _FOLDS and kind not in _ARITHMETIC:
        raise RefusedError("computes on constants alone; export with constant folding")
    constant = graph.constant(node, 0)
    if kind == "Identity":
        return constant
    if kind == "Cast":
        return _cast(constant, int(graph.attribute(node, "to")))
    if kind == "Transpose":
        return constant.transposed(graph.attribute(node, "perm"))
    if kind == "Reshape":
        target, allow_zero = _target(graph, node)
        return constant.reshaped(resolve_shape(constant.shape, target, allow_zero))
    if kind in ("Squeeze", "Unsqueeze"):
        return constant.reshaped(_squeezed(graph, node, constant.shape))
    return _folded_integers(graph, node)


def _cast(constant: Constant, target: int) -> Constant:
    if target in _INTEGERS and constant.elem_type in _INTEGERS:
        return replace(constant, elem_type=target)
    return cast_constant(constant, target)


def _folded_integers(graph: Builder, node: onnx.NodeProto) -> Constant:
    """Compute on shapes; parameters are never computed."""
    operands = [graph.constant(node, i) for i in range(len(node.input)) if node.input[i]]
    if any(c.elem_type not in _INTEGERS for c in operands):
        raise RefusedError("computes on constants alone; export with constant folding")
    values = [c.value.astype(np.int64) for c in operands]
    if node.op_type == "ConstantOfShape":
        return _filled(graph, node, values[0])
    if node.op_type == "Slice":
        found = _sliced(graph, node, values[0])
    elif node.op_type == "Concat":
        found = np.concatenate(values, axis=int(graph.attribute(node, "axis")))
    elif node.op_type == "Gather":
        found = np.take(values[0], values[1], axis=int(graph.attribute(node, "axis")))
    else:
        found = np.asarray(_ARITHMETIC[node.op_type](values[0], values[1]))
    return from_array(found, node.output[0], TensorProto.INT64)


def _filled(graph: Builder, node: onnx.NodeProto, shape: npt.NDArray[np.int64]) -> Constant:
    """Return what ConstantOfShape makes, as long as it is whole numbers for a shape."""
    given = graph.attribute(node, "value")
    if given is None or given.data_type not in _INTEGERS or shape.prod() > _MOST_NUMBERS:
        raise RefusedError("computes on constants alone; export with constant folding")
    number = int(numpy_helper.to_array(given).item())
    filled = np.full(tuple(shape.ravel()), number, dtype=np.int64)
    return from_array(filled, node.output[0], TensorProto.INT64)


def _sliced(
    graph: Builder, node: onnx.NodeProto, array: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    starts, ends = (graph.integers(node, k, i) or [] for i, k in enumerate(("starts", "ends"), 1))
    axes = graph.integers(node, "axes", 3) or list(range(len(starts)))
    steps = (graph.integers(node, "steps", 4) if graph.opset >= 10 else None) or [1] * len(starts)
    slices = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # counting down to before the first entry is written as a very negative end
        stop = None if step < 0 and end < -array.shape[axis] else end
        slices[axis_of(axis, array.ndim)] = slice(start, stop, step)
    return array[tuple(slices)]


def _target(graph: Builder, node: onnx.NodeProto) -> tuple[Sequence[int], bool]:
    target = graph.constant(node, 1).value
    return [int(t) for t in target.ravel()], bool(graph.attribute(node, "allowzero"))


def _squeezed(graph: Builder, node: onnx.NodeProto, dims: Shape) -> Shape:
    given = graph.integers(node, "axes", 1)
    if node.op_type == "Unsqueeze":
        rank = len(dims) + len(given or ())
        new = {axis_of(a, rank) for a in given or ()}
        if len(new) != len(given or ()):
            raise RefusedError(f"names an axis twice in {given}; export again")
        rest = iter(dims)
        return tuple(1 if a in new else next(rest) for a in range(rank))
    if given is None:
        return tuple(d for d in dims if d != 1)
    gone = {axis_of(a, len(dims)) for a in given}
    if any(dims[a] != 1 for a in gone):
        raise RefusedError(f"squeezes the axes {sorted(gone)} of {dims}; only those of size 1 can")
    return tuple(d for a, d in enumerate(dims) if a not in gone)


_FOLDS = (
    "Cast", "Concat", "ConstantOfShape", "Gather", "Identity", "Reshape", "Slice", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip

HANDLERS: dict[str, Handler] = {
    "Concat": concat,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": squeeze,
}

"""Grids of an ONNX graph: scales and zero points, and the exact numbers that integers stand for.

An integer ``q`` stands for ``(q - zero_point) * scale``, with one scale and zero point for a whole
tensor, one for each place along an axis, or one for each block along it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from paramrob.errors import ModelError
from paramrob.models.network import Quantize
from paramrob.models.onnx_builder import Builder, axis_of
from paramrob.models.onnx_constants import FLOATS, INTEGER_RANGES, Constant, RefusedError

AGAIN = "quantize the model again"
# A float32 has 24 bits, a float64 53.
_EXACT_STEPS = 2**29
Numbers = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


def check_types(graph: onnx.GraphProto) -> None:
    """Refuse a zero point of another type than the integers, which onnx's checker does not name.

    Raises:
        ModelError: naming the tensor.
    """
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in FOLDS or len(node.input) < 3 or node.input[2] not in types:
            continue
        zero = node.input[2]
        if node.op_type == "QuantizeLinear":
            types[node.output[0]] = types[zero]
        elif types.get(node.input[0], types[zero]) != types[zero]:
            raise _mistyped(zero, types[zero], types[node.input[0]])


def _mistyped(zero: str, given: int, wanted: int) -> ModelError:
    return ModelError(
        f"the zero point {zero!r} is {type_name(given)}, but the integers are "
        f"{type_name(wanted)}; {AGAIN}"
    )


def fold_quantize(graph: Builder, node: onnx.NodeProto) -> Constant:
    """Return what QuantizeLinear makes of a constant, exactly: ties go to the even integer."""
    constant = graph.constant(node, 0)
    if constant.elem_type not in FLOATS or constant.rest is not None:
        raise RefusedError(f"quantizes {constant.root!r}, which is no tensor of floats")
    elem_type = zero_type(graph, node, 2) or said_type(graph, node) or TensorProto.UINT8
    low, high = range_of(elem_type)
    scale, zero = _spread(graph, node, constant, elem_type)
    given = constant.value.astype(np.float64)
    if not np.isfinite(given).all():
        raise ModelError(f"the tensor {constant.root!r} holds NaN or infinity; {AGAIN}")
    # A quotient of a number by a float32 one is a tie, or farther from it than float64 errs.
    steps = np.clip(np.rint(given / scale) + zero, low, high).astype(np.int64)
    return replace(constant, value=steps, elem_type=elem_type, stored=type_name(elem_type).lower())


def fold_dequantize(graph: Builder, node: onnx.NodeProto) -> Constant:
    """Return what DequantizeLinear makes of a constant, exactly."""
    constant = graph.constant(node, 0)
    if constant.elem_type not in INTEGER_RANGES and constant.elem_type != TensorProto.INT32:
        raise RefusedError(f"dequantizes {type_name(constant.elem_type)}; {only_integers()}")
    scale, zero = _spread(graph, node, constant, constant.elem_type)
    return scaled(constant, scale, zero, float_type(graph, node))


def scaled(
    constant: Constant, scale: Numbers, zero: Steps | npt.NDArray[Any], elem_type: int
) -> Constant:
    """Return ``(q - zero) * scale``, with what the float64 numbers lack of it."""
    steps = constant.value.astype(np.int64) - zero
    value = np.asarray(steps * scale, dtype=np.float64)
    plain_scale = np.array_equal(scale, scale.astype(np.float32))
    small = steps.size == 0 or int(np.abs(steps).max()) < _EXACT_STEPS
    rest = None if plain_scale and small else _lacking(constant.root, steps, scale, value)
    return replace(constant, value=value, elem_type=elem_type, rest=rest)


def _lacking(root: str, steps: Steps, scale: Numbers, value: Numbers) -> Numbers | None:
    """Return what rounded products lack of the exact ones: numbers of less than 53 bits."""
    factors = np.broadcast_to(scale, steps.shape).ravel().tolist()
    triples = zip(steps.ravel().tolist(), factors, value.ravel().tolist(), strict=True)
    exact = [n * Fraction(s) - Fraction(v) for n, s, v in triples]
    rest = np.array([float(r) for r in exact])
    if any(Fraction(f) != r for f, r in zip(rest.tolist(), exact, strict=True)):
        raise ModelError(f"the tensor {root!r} times its scale is too small for float64; {AGAIN}")
    return rest.reshape(steps.shape) if rest.any() else None


def grid_of(
    graph: Builder, node: onnx.NodeProto, scale: int, zero: int, elem_type: int | None = None
) -> tuple[Quantize, int]:
    """Return the grid that a node names, and the type of its integers."""
    kind = zero_type(graph, node, zero) or elem_type or TensorProto.UINT8
    if elem_type is not None and kind != elem_type:
        raise _mistyped(node.input[zero], kind, elem_type)
    low, high = range_of(kind)
    scales = scales_of(graph, node, scale)
    zeros = graph.constant(node, zero).value if graph.has(node, zero) else np.array(0)
    if scales.size != 1 or zeros.size != 1:
        raise RefusedError(
            f"quantizes computed numbers with {scales.size} scales and {zeros.size} zero points; "
            "only one for the whole tensor is supported"
        )
    return Quantize(float(scales.item()), int(zeros.item()), low, high), kind


def _spread(
    graph: Builder, node: onnx.NodeProto, constant: Constant, elem_type: int
) -> tuple[Numbers, Steps]:
    """Return scales and zero points of QuantizeLinear or DequantizeLinear for each number."""
    axis, block = (graph.attribute(node, key) for key in ("axis", "block_size"))
    axis = 1 if axis is None else int(axis)
    scales = scales_of(graph, node, 1)
    if not block:
        zeros = zero_points(graph, node, 2, elem_type, constant.shape, axis)
        return along(scales, node.input[1], constant.shape, axis), zeros
    axis = axis_of(axis, len(constant.shape))
    blocks = tuple(-(-d // block) if i == axis else d for i, d in enumerate(constant.shape))
    given = _zero_array(graph, node, 2, elem_type)
    zeros = np.zeros(blocks, dtype=np.int64) if given is None else given
    for i, found in ((1, scales), (2, zeros)):
        if found.shape != blocks:
            raise _unfit(node.input[i], found.shape, constant.shape)
    place = np.arange(constant.shape[axis]) // block
    return np.take(scales, place, axis), np.take(zeros, place, axis)


def scales_of(graph: Builder, node: onnx.NodeProto, index: int) -> Numbers:
    """Return constant scales.

    Raises:
        ModelError: one is zero, negative, infinite or NaN, or no float of at most 32 bits.
    """
    constant = graph.constant(node, index)
    if constant.elem_type not in FLOATS or constant.elem_type == TensorProto.DOUBLE:
        raise ModelError(
            f"the scale {constant.root!r} is {type_name(constant.elem_type)}, no float; {AGAIN}"
        )
    scales = constant.value.astype(np.float64)
    odd = ~(np.isfinite(scales) & (scales > 0))
    if odd.any():
        raise ModelError(
            f"the scale {constant.root!r} is {float(scales[odd].flat[0])!r}, which has to be a "
            f"positive number; {AGAIN}"
        )
    return scales


def zero_type(graph: Builder, node: onnx.NodeProto, index: int) -> int | None:
    """Return the type of zero points, if there are any."""
    return graph.constant(node, index).elem_type if graph.has(node, index) else None


def _zero_array(graph: Builder, node: onnx.NodeProto, index: int, elem_type: int) -> Steps | None:
    if not graph.has(node, index):
        return None
    constant = graph.constant(node, index)
    if constant.elem_type != elem_type:
        raise _mistyped(constant.root, constant.elem_type, elem_type)
    return constant.value.astype(np.int64)


def zero_points(
    graph: Builder,
    node: onnx.NodeProto,
    index: int,
    elem_type: int,
    shape: tuple[int, ...],
    axis: int | None,
) -> Steps:
    """Return zero points that broadcast to ``shape``, 0 where the node gives none.

    Raises:
        ModelError: they are of another type than the integers, or do not fit their shape.
    """
    zeros = _zero_array(graph, node, index, elem_type)
    if zeros is None:
        return np.array(0, dtype=np.int64)
    return np.asarray(along(zeros, node.input[index], shape, axis))


def along(given: npt.NDArray[Any], tensor: str, shape: tuple[int, ...], axis: int | None) -> Any:
    """Return one number for a whole tensor, or one for each place along an axis, to broadcast."""
    if given.size == 1:
        return given.reshape(())
    if axis is None or not shape:
        raise _unfit(tensor, given.shape, shape)
    axis = axis_of(axis, len(shape))
    if given.size != shape[axis]:
        raise _unfit(tensor, given.shape, shape)
    return given.reshape(tuple(-1 if i == axis else 1 for i in range(len(shape))))


def _unfit(tensor: str, given: tuple[int, ...], shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"the tensor {tensor!r} of shape {given} does not fit what it scales or shifts, of shape "
        f"{shape}; {AGAIN}"
    )


def said_type(graph: Builder, node: onnx.NodeProto) -> int | None:
    """Return the type that ``output_dtype`` names, if it names one."""
    return int(graph.attribute(node, "output_dtype") or 0) or None


def float_type(graph: Builder, node: onnx.NodeProto) -> int:
    """Return the type of DequantizeLinear's result."""
    return said_type(graph, node) or graph.constant(node, 1).elem_type


def range_of(elem_type: int) -> tuple[int, int]:
    """Return the least and the largest integer of a type that tensors are quantized to.

    Raises:
        RefusedError: it is no such type.
    """
    if elem_type not in INTEGER_RANGES:
        raise RefusedError(f"quantizes to {type_name(elem_type)}; {only_integers()}")
    return INTEGER_RANGES[elem_type]


def only_integers() -> str:
    """Return which types are supported."""
    return f"only {', '.join(map(type_name, INTEGER_RANGES))} are supported"


def type_name(elem_type: int) -> str:
    """Return ONNX's name of a type."""
    return str(TensorProto.DataType.Name(elem_type))


FOLDS: dict[str, Callable[[Builder, onnx.NodeProto], Constant]] = {
    "DequantizeLinear": fold_dequantize,
    "QuantizeLinear": fold_quantize,
}

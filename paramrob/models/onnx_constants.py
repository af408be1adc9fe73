"""Constants of an ONNX graph: exact values, and where in the file each of them is stored.

A constant keeps, beside its values, the flat position that each has in the tensor that stores
it. Two uses of one tensor under the same positions are one parameter; under others (transposed,
reshaped) they are the same numbers at different places, which the IR cannot name as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from paramrob.errors import ModelError

FLOATS: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
}
INTEGER_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}
"""The integers that a quantized tensor may hold."""
# A cast from the first to any of the others changes no value.
_WIDER = {
    TensorProto.FLOAT16: (TensorProto.FLOAT, TensorProto.DOUBLE),
    TensorProto.BFLOAT16: (TensorProto.FLOAT, TensorProto.DOUBLE),
    TensorProto.FLOAT: (TensorProto.DOUBLE,),
    TensorProto.DOUBLE: (),
}
# Casts of constants that numpy rounds once, to nearest even.
_ROUNDED_ONCE = {
    (TensorProto.DOUBLE, TensorProto.FLOAT),
    (TensorProto.DOUBLE, TensorProto.FLOAT16),
    (TensorProto.FLOAT, TensorProto.FLOAT16),
}
_NUMPY = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
}


class RefusedError(Exception):
    """Why a node cannot be read; the caller adds which node it is."""


@dataclass(frozen=True)
class Constant:
    """An array that the file stores, seen through transpositions, reshapes and casts.

    ``root`` names the initialiser or Constant output that stores it, ``places`` holds the flat
    position of every entry there, ``stored`` is the dtype whose values these are and
    ``elem_type`` the one that the graph now gives it (a widening cast changes the latter alone).
    ``rest`` is what ``value`` lacks of the exact numbers, where float64 cannot hold them.
    """

    root: str
    value: npt.NDArray[Any]
    places: npt.NDArray[np.int64]
    elem_type: int
    stored: str
    rest: npt.NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    def reshaped(self, shape: Sequence[int]) -> Constant:
        """Return the same numbers in row-major order under another shape."""
        rest = None if self.rest is None else self.rest.reshape(shape)
        return replace(
            self, value=self.value.reshape(shape), places=self.places.reshape(shape), rest=rest
        )

    def transposed(self, axes: Sequence[int] | None = None) -> Constant:
        """Return the constant with its axes permuted (reversed by default)."""
        rest = None if self.rest is None else self.rest.transpose(axes)
        return replace(
            self,
            value=self.value.transpose(axes),
            places=self.places.transpose(axes),
            rest=rest,
        )

    def nearest(self) -> Constant:
        """Return the constant without its rest."""
        return self if self.rest is None else replace(self, rest=None)

    def same_as(self, other: Constant) -> bool:
        """Whether both put the same numbers of one tensor at the same places."""
        return (
            self.root == other.root
            and np.array_equal(self.places, other.places)
            and np.array_equal(self.value, other.value)
            and np.array_equal(_or_zero(self.rest), _or_zero(other.rest))
        )


def _or_zero(rest: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    return np.zeros(()) if rest is None else rest


def tensor_constant(tensor: TensorProto, root: str) -> Constant:
    """Return the exact contents of a tensor.

    Raises:
        ModelError: the tensor's bytes do not fit its type and shape.
    """
    try:
        value = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"the tensor {root!r} cannot be read ({error}); export the model again"
        ) from error
    if tensor.data_type == TensorProto.BFLOAT16:
        value = value.astype(np.float32)
    if tensor.data_type in INTEGER_RANGES:
        _check_integers(tensor, root)
        if value.dtype.kind not in "iu":  # numpy has no type of four bits
            value = value.astype(np.int16)
    return from_array(value, root, tensor.data_type)


def _check_integers(tensor: TensorProto, root: str) -> None:
    """Refuse numbers that are stored wider than their type and do not fit it."""
    low, high = INTEGER_RANGES[tensor.data_type]
    packed = tensor.data_type in (TensorProto.INT4, TensorProto.UINT4)
    odd = [] if packed else [v for v in tensor.int32_data if not low <= v <= high]
    if odd:
        kind = TensorProto.DataType.Name(tensor.data_type)
        raise ModelError(
            f"the tensor {root!r} holds {odd[0]}, which lies outside {kind}, {low} .. {high}; "
            "quantize the model again"
        )


def from_array(value: npt.NDArray[Any], root: str, elem_type: int) -> Constant:
    """Return the constant that ``root`` stores as ``value``."""
    places = np.arange(value.size, dtype=np.int64).reshape(value.shape)
    stored = FLOATS.get(elem_type, str(value.dtype))
    if elem_type in INTEGER_RANGES:
        stored = TensorProto.DataType.Name(elem_type).lower()
    return Constant(root, value, places, elem_type, stored)


def node_constant(node: onnx.NodeProto) -> Constant:
    """Return what a Constant node holds.

    Raises:
        RefusedError: it holds strings or a sparse tensor.
    """
    attribute = node.attribute[0]
    root = node.output[0]
    if attribute.name == "value":
        return tensor_constant(attribute.t, root)
    kinds: dict[str, tuple[type[Any], int]] = {
        "value_float": (np.float32, TensorProto.FLOAT),
        "value_floats": (np.float32, TensorProto.FLOAT),
        "value_int": (np.int64, TensorProto.INT64),
        "value_ints": (np.int64, TensorProto.INT64),
    }
    if attribute.name not in kinds:
        raise RefusedError(f"holds {attribute.name}; store the constant as a dense tensor")
    dtype, elem_type = kinds[attribute.name]
    value = np.array(onnx.helper.get_attribute_value(attribute), dtype=dtype)
    return from_array(value, root, elem_type)


def cast_is_exact(source: int, target: int) -> bool:
    """Whether a cast between two floating-point types changes no value."""
    return source == target or target in _WIDER.get(source, ())


def cast_constant(constant: Constant, target: int) -> Constant:
    """Return the constant cast as ONNX defines it: to nearest, ties to even.

    Raises:
        RefusedError: the target is no floating-point type, or numpy may round twice.
    """
    if constant.elem_type == target:
        return constant
    if target not in FLOATS:
        raise RefusedError(
            f"casts a constant to {TensorProto.DataType.Name(target)}; store it in its final type"
        )
    if cast_is_exact(constant.elem_type, target):
        return replace(constant, elem_type=target)
    names = tuple(TensorProto.DataType.Name(t) for t in (constant.elem_type, target))
    integers = constant.value.dtype.kind in "iu"
    if target in _NUMPY and not (integers and (np.abs(constant.value.astype(float)) > 2**53).any()):
        with np.errstate(over="ignore"):
            value = constant.value.astype(_NUMPY[target])
        if np.array_equal(value.astype(np.float64), constant.value.astype(np.float64)):
            return replace(constant, value=value, elem_type=target)
        if (constant.elem_type, target) in _ROUNDED_ONCE:
            return replace(constant, value=value, elem_type=target, stored=FLOATS[target])
    raise RefusedError(
        "rounds a constant from {} to {}, which runtimes do in different ways; "
        "store it in its final type".format(*names)
    )


def resolve_shape(
    shape: Sequence[int], target: Sequence[int], allow_zero: bool = False
) -> tuple[int, ...]:
    """Return the shape that ONNX's Reshape makes of ``shape``.

    Raises:
        RefusedError: the numbers do not fit.
    """
    total = math.prod(shape)
    sizes = [int(t) for t in target]
    if not allow_zero:
        if any(t == 0 and i >= len(shape) for i, t in enumerate(sizes)):
            raise RefusedError(f"reshapes {tuple(shape)} to {sizes}: a 0 has no axis to copy")
        sizes = [shape[i] if t == 0 else t for i, t in enumerate(sizes)]
    known = math.prod(t for t in sizes if t != -1)
    if sizes.count(-1) == 1 and known > 0 and total % known == 0:
        sizes[sizes.index(-1)] = total // known
    if min(sizes, default=1) < 0 or math.prod(sizes) != total:
        raise RefusedError(
            f"reshapes {tuple(shape)} (one input at a time) to {list(target)}; "
            "export the model with a dynamic batch axis or a batch of one"
        )
    return tuple(sizes)

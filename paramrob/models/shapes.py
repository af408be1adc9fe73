"""The shape that a node gives to its result, and the windows that it slides over its input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import numpy as np
import numpy.typing as npt

from paramrob.errors import ModelError
from paramrob.models.ops import (
    Activation,
    ActivationKind,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    ElementwiseKind,
    Op,
    Pool,
    PoolKind,
    Quantize,
    Reshape,
    Softmax,
    Transpose,
)

Shape = tuple[int, ...]
Indices = npt.NDArray[np.int64]


def check_op(name: str, op: Op) -> None:
    """Refuse what :meth:`Network.evaluate` and the engines have no meaning for.

    Raises:
        ModelError: with the node's name.
    """
    if isinstance(op, Activation):
        _check_activation(name, op)
    elif isinstance(op, Quantize):
        _check_quantize(name, op)
    elif isinstance(op, Elementwise) and op.kind not in get_args(ElementwiseKind):
        raise ModelError(f"node {name!r}: no elementwise operation {op.kind!r}")
    elif isinstance(op, (Pool, AdaptivePool)) and op.kind not in get_args(PoolKind):
        raise ModelError(f"node {name!r}: no pooling {op.kind!r}; there are average and max")
    elif isinstance(op, BatchNorm) and not (math.isfinite(op.epsilon) and op.epsilon >= 0):
        raise ModelError(f"node {name!r}: the epsilon {op.epsilon!r} is no number of 0 or more")


def _check_quantize(name: str, op: Quantize) -> None:
    with np.errstate(over="ignore"):
        stored = float(np.float32(op.scale))
    if not (0 < op.scale < math.inf and stored == op.scale):
        raise ModelError(f"node {name!r}: the scale {op.scale!r} is no positive float32 number")
    if not (op.low < op.high and op.low <= op.zero_point <= op.high):
        raise ModelError(
            f"node {name!r}: the zero point {op.zero_point} lies outside the range "
            f"[{op.low}, {op.high}] of its integers"
        )
    if not -(2**16) <= op.low <= op.high <= 2**16:
        raise ModelError(f"node {name!r}: integers of more than 16 bits are not supported")
    if op.deviation < 0:
        raise ModelError(f"node {name!r}: a deviation of {op.deviation} steps; give 0 or more")


def _check_activation(name: str, op: Activation) -> None:
    if op.kind not in get_args(ActivationKind):
        raise ModelError(f"node {name!r}: no activation {op.kind!r}")
    # Every relaxation rests on a leaky ReLU being monotone and convex.
    if op.kind == "leaky_relu" and not 0.0 <= op.slope <= 1.0:
        raise ModelError(
            f"node {name!r}: the negative slope {op.slope!r} of a leaky ReLU lies "
            "outside [0, 1]; train the model with a slope inside"
        )
    if op.kind == "clamp" and not (
        math.isfinite(op.low) and math.isfinite(op.high) and op.low <= op.high
    ):
        raise ModelError(f"node {name!r} clamps to [{op.low!r}, {op.high!r}], which is no interval")
    if op.kind == "elu" and not (math.isfinite(op.alpha) and op.alpha >= 0):
        raise ModelError(f"node {name!r}: the alpha {op.alpha!r} of an ELU is negative")
    if op.kind == "softplus" and not (math.isfinite(op.beta) and op.beta > 0):
        raise ModelError(f"node {name!r}: the beta {op.beta!r} of a softplus is not positive")


def result_shape(
    name: str, op: Op, before: tuple[Shape, ...], stored: Shape, parameters: Mapping[str, Shape]
) -> Shape:
    """Return the shape of a node's result.

    Args:
        name: of the node, for messages.
        op: what it computes.
        before: the shapes of its inputs, one at least.
        stored: the shape that the node claims, which a reshape and an adaptive pool take.
        parameters: the shapes of the network's parameters.

    Raises:
        ModelError: the shapes do not fit.
    """
    for parameter in _named(op):
        if parameter not in parameters:
            raise ModelError(f"node {name!r} uses an unknown parameter {parameter!r}")
    several = isinstance(op, (Add, Concat))
    if len(before) < 1 or (len(before) != 1) != several:
        raise ModelError(f"node {name!r} needs {'two or more' if several else 'one'} input(s)")
    if isinstance(op, Add):
        if len(set(before)) != 1:
            raise ModelError(f"node {name!r} adds results of different shapes {before}")
        return before[0]
    if isinstance(op, Concat):
        return _concat(name, op, before)
    return _one_input(name, op, before[0], stored, parameters)


def _named(op: Op) -> tuple[str, ...]:
    from paramrob.models.ops import node_parameters

    return node_parameters(op)


def _one_input(
    name: str, op: Op, before: Shape, stored: Shape, parameters: Mapping[str, Shape]
) -> Shape:
    if isinstance(op, Dense):
        return _dense(name, op, before, parameters)
    if isinstance(op, Conv):
        return _conv(name, op, before, parameters)
    if isinstance(op, BatchNorm):
        for parameter in _named(op):
            if not before or parameters[parameter] != before[:1]:
                raise ModelError(
                    f"node {name!r}: statistics of shape {parameters[parameter]} on an input of "
                    f"shape {before}"
                )
    if isinstance(op, Elementwise) and not _broadcasts(parameters[op.parameter], before):
        raise ModelError(
            f"node {name!r}: {parameters[op.parameter]} does not broadcast to {before}"
        )
    if isinstance(op, Softmax) and not before:
        raise ModelError(f"node {name!r}: a softmax needs an axis, its input has none")
    if isinstance(op, Reshape):
        if math.prod(stored) != math.prod(before):
            raise ModelError(f"node {name!r} reshapes {before} to {stored}")
        return stored
    if isinstance(op, Transpose):
        if sorted(op.order) != list(range(len(before))):
            raise ModelError(f"node {name!r}: {op.order} is no order of the axes of {before}")
        return tuple(before[axis] for axis in op.order)
    if isinstance(op, (Pool, AdaptivePool)):
        return _pooled(name, op, before, stored)
    return before


def _dense(name: str, op: Dense, before: Shape, parameters: Mapping[str, Shape]) -> Shape:
    weight = parameters[op.weight]
    if len(weight) != 2 or not before or weight[1] != before[-1]:
        raise ModelError(f"layer {name!r}: weight of shape {weight} on an input of shape {before}")
    if op.bias is not None and parameters[op.bias] != weight[:1]:
        raise ModelError(f"layer {name!r}: bias of shape {parameters[op.bias]}, weight {weight}")
    return (*before[:-1], weight[0])


def _conv(name: str, op: Conv, before: Shape, parameters: Mapping[str, Shape]) -> Shape:
    weight = parameters[op.weight]
    axes = len(weight) - 2
    fits = (
        axes in (1, 2)
        and len(before) == axes + 1
        and op.groups >= 1
        and before[0] == weight[1] * op.groups
        and weight[0] % op.groups == 0
    )
    if not fits:
        raise ModelError(
            f"layer {name!r}: a kernel of shape {weight} in {op.groups} group(s) on an input of "
            f"shape {before}"
        )
    if op.bias is not None and parameters[op.bias] != weight[:1]:
        raise ModelError(f"layer {name!r}: bias of shape {parameters[op.bias]}, weight {weight}")
    sizes = slid(name, before[1:], weight[2:], op.stride, op.padding, op.dilation)
    return (weight[0], *sizes)


def _concat(name: str, op: Concat, before: tuple[Shape, ...]) -> Shape:
    axis = op.axis
    rest = {(*s[:axis], *s[axis + 1 :]) for s in before}
    if any(not 0 <= axis < len(s) for s in before) or len(rest) != 1:
        raise ModelError(f"node {name!r} joins shapes {before} along axis {axis}")
    return (*before[0][:axis], sum(s[axis] for s in before), *before[0][axis + 1 :])


def _pooled(name: str, op: Pool | AdaptivePool, before: Shape, stored: Shape) -> Shape:
    if len(before) not in (2, 3):
        raise ModelError(f"node {name!r} pools an input of shape {before}; it needs channels first")
    if isinstance(op, AdaptivePool):
        if len(stored) != len(before) or stored[0] != before[0] or min(stored) < 1:
            raise ModelError(f"node {name!r} pools {before} to {stored}")
        return stored
    sizes = slid(name, before[1:], op.kernel, op.stride, op.padding, op.dilation)
    return (before[0], *sizes)


def slid(
    name: str,
    size: Shape,
    kernel: Shape,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Shape:
    """Return how many windows fit along each axis.

    Raises:
        ModelError: no window fits, or a number is missing or senseless.
    """
    if not len(size) == len(kernel) == len(stride) == len(padding) == len(dilation):
        raise ModelError(f"layer {name!r}: kernel, stride, padding and dilation need {len(size)}")
    if min((*kernel, *stride, *dilation)) < 1 or min(min(p) for p in padding) < 0:
        raise ModelError(f"layer {name!r}: kernel, stride and dilation start at 1, padding at 0")
    found = []
    for n, k, s, (first, last), d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = n + first + last - d * (k - 1) - 1
        if room < 0:
            raise ModelError(f"layer {name!r}: a window of {k} is larger than its input of {n}")
        found.append(room // s + 1)
    return tuple(found)


def _positions(
    size: int, count: int, kernel: int, stride: int, before: int, dilation: int
) -> Indices:
    """Return ``(count, kernel)`` positions along one axis, -1 where a window leaves it."""
    at = np.arange(count)[:, None] * stride - before + np.arange(kernel)[None] * dilation
    return np.where((at >= 0) & (at < size), at, -1)


def _grid(axes: list[Indices], size: Shape) -> Indices:
    """Combine the axes' positions: ``(windows, members)`` flat indices, -1 for none."""
    found = axes[0]
    for n, axis in zip(size[1:], axes[1:], strict=True):
        a, b = found[:, None, :, None], axis[None, :, None, :]
        both = np.where((a >= 0) & (b >= 0), a * n + b, -1)
        found = both.reshape(both.shape[0] * both.shape[1], -1)
    return found


def conv_windows(op: Conv, kernel: Shape, size: Shape, sizes: Shape) -> Indices:
    """Return what each output position of a convolution reads.

    Args:
        op: the convolution.
        kernel: the kernel's spatial shape.
        size: the input's spatial shape.
        sizes: the result's spatial shape.

    Returns:
        ``(positions, kernel positions)`` flat indices into one channel of the input, row-major;
        -1 for a zero of the padding.
    """
    axes = [
        _positions(n, m, k, s, p[0], d)
        for n, m, k, s, p, d in zip(
            size, sizes, kernel, op.stride, op.padding, op.dilation, strict=True
        )
    ]
    return _grid(axes, size)


def pool_windows(op: Pool | AdaptivePool, size: Shape, sizes: Shape) -> tuple[Indices, Indices]:
    """Return what each output position of a pool covers, and what an average divides by.

    Args:
        op: the pool.
        size: the input's spatial shape.
        sizes: the result's spatial shape.

    Returns:
        ``(positions, members)`` flat indices into one channel, -1 for none, and ``(positions,)``
        divisors.
    """
    if isinstance(op, AdaptivePool):
        axes = []
        for n, m in zip(size, sizes, strict=True):
            starts = [(i * n) // m for i in range(m)]
            ends = [-((-(i + 1) * n) // m) for i in range(m)]
            longest = max(b - a for a, b in zip(starts, ends, strict=True))
            at = np.array(starts)[:, None] + np.arange(longest)[None]
            axes.append(np.where(at < np.array(ends)[:, None], at, -1))
    else:
        axes = [
            _positions(n, m, k, s, p[0], d)
            for n, m, k, s, p, d in zip(
                size, sizes, op.kernel, op.stride, op.padding, op.dilation, strict=True
            )
        ]
    found = _grid(axes, size)
    members = (found >= 0).sum(axis=1)
    if isinstance(op, Pool) and op.include_padding:
        members = np.full_like(members, math.prod(op.kernel))
    if not ((found >= 0).any(axis=1)).all():
        raise ModelError("a pooling window covers nothing but padding; give it less padding")
    return found, members


def _broadcasts(constant: Shape, to: Shape) -> bool:
    try:
        return np.broadcast_shapes(constant, to) == to
    except ValueError:
        return False

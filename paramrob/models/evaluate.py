"""One node's result in float64, for samples and searches: never a proof."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from paramrob.errors import ModelError
from paramrob.models.ops import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Op,
    Pool,
    Quantize,
    Softmax,
    Transpose,
)
from paramrob.models.shapes import Indices, Shape, conv_windows, pool_windows

Array = npt.NDArray[np.float64]
_ERF = np.frompyfunc(math.erf, 1, 1)


def apply_node(op: Op, given: Sequence[Array], shape: Shape, values: Mapping[str, Array]) -> Array:
    """Return one node's result in float64.

    Args:
        op: what the node computes.
        given: its inputs, ``(batch, ...)`` each.
        shape: of its result, without the batch axis.
        values: the parameters by name.

    Returns:
        ``(batch, *shape)``.
    """
    if isinstance(op, Add):
        return np.asarray(np.sum(np.stack(given), axis=0))
    if isinstance(op, Concat):
        return np.concatenate(given, axis=op.axis + 1)
    h = given[0]
    if isinstance(op, (Dense, Conv, BatchNorm, Elementwise)):
        return _affine(op, h, shape, values)
    if isinstance(op, (Pool, AdaptivePool)):
        return _pool(op, h, shape)
    if isinstance(op, Activation):
        return activate(op, h)
    if isinstance(op, Quantize):
        return quantize(op, h)
    if isinstance(op, Softmax):
        e = np.exp(h - h.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    if isinstance(op, Transpose):
        return np.transpose(h, (0, *(axis + 1 for axis in op.order)))
    return h.reshape(h.shape[0], *shape)


def _affine(
    op: Dense | Conv | BatchNorm | Elementwise, h: Array, shape: Shape, values: Mapping[str, Array]
) -> Array:
    if isinstance(op, Dense):
        y: Array = h @ values[op.weight].T
        return y if op.bias is None else y + values[op.bias]
    if isinstance(op, Conv):
        return _conv(op, h, shape, values)
    if isinstance(op, Elementwise):
        c = values[op.parameter]
        if op.kind == "rsub":
            return c - h
        function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
        result: Array = function[op.kind](h, c)
        return result
    column = (-1,) + (1,) * (h.ndim - 2)
    scale = 1.0 / np.sqrt(values[op.variance] + op.epsilon)
    y = (h - values[op.mean].reshape(column)) * scale.reshape(column)
    if op.weight is not None:
        y = y * values[op.weight].reshape(column)
    return y if op.bias is None else y + values[op.bias].reshape(column)


def gather(h: Array, windows: Indices, padding: float) -> Array:
    """Return ``(batch, channels, positions, members)`` from ``(batch, channels, *size)``."""
    flat = h.reshape(h.shape[0], h.shape[1], -1)
    padded = np.concatenate([flat, np.full((*flat.shape[:2], 1), padding)], axis=2)
    return np.asarray(padded[:, :, windows])


def _conv(op: Conv, h: Array, shape: Shape, values: Mapping[str, Array]) -> Array:
    weight = values[op.weight]
    windows = conv_windows(op, weight.shape[2:], h.shape[2:], shape[1:])
    seen = gather(h, windows, 0.0)
    batch, channels, positions, members = seen.shape
    seen = seen.reshape(batch, op.groups, channels // op.groups, positions, members)
    kernel = weight.reshape(op.groups, weight.shape[0] // op.groups, weight.shape[1], members)
    y = np.einsum("bgcpm,gocm->bgop", seen, kernel, optimize=True)
    y = y.reshape(batch, weight.shape[0], *shape[1:])
    if op.bias is not None:
        y = y + values[op.bias].reshape((-1,) + (1,) * (h.ndim - 2))
    return np.asarray(y)


def _pool(op: Pool | AdaptivePool, h: Array, shape: Shape) -> Array:
    windows, divisors = pool_windows(op, h.shape[2:], shape[1:])
    if op.kind == "max":
        y = gather(h, windows, -np.inf).max(axis=3)
    else:
        y = gather(h, windows, 0.0).sum(axis=3) / divisors
    return np.asarray(y.reshape(h.shape[0], *shape))


def quantize(op: Quantize, h: Array) -> Array:
    """Return the nearest numbers of a grid in float64."""
    steps = np.rint(h / op.scale) + op.zero_point
    return np.asarray((np.clip(steps, op.low, op.high) - op.zero_point) * op.scale)


def activate(op: Activation, z: Array) -> Array:
    """Return the activation of ``z`` in float64."""
    kind = op.kind
    if kind == "relu":
        return np.maximum(z, 0.0)
    if kind == "leaky_relu":
        return np.where(z > 0, z, op.slope * z)
    if kind == "sigmoid":
        return _sigmoid(z)
    if kind == "tanh":
        return np.tanh(z)
    if kind == "identity":
        return z
    if kind == "clamp":
        return np.clip(z, op.low, op.high)
    if kind == "hardsigmoid":
        return np.clip(z / 6 + 0.5, 0.0, 1.0)
    if kind == "hardswish":
        return z * np.clip(z / 6 + 0.5, 0.0, 1.0)
    return _curved(op, z)


def _curved(op: Activation, z: Array) -> Array:
    if op.kind == "softplus":
        return np.asarray(np.logaddexp(0.0, op.beta * z) / op.beta)
    if op.kind == "elu":
        return np.where(z > 0, z, op.alpha * np.expm1(np.minimum(z, 0.0)))
    if op.kind == "silu":
        return z * _sigmoid(z)
    if op.kind == "gelu":
        return np.asarray(0.5 * z * (1.0 + np.asarray(_ERF(z / math.sqrt(2.0)), dtype=np.float64)))
    if op.kind == "gelu_tanh":
        inner = math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)
        return np.asarray(0.5 * z * (1.0 + np.tanh(inner)))
    raise ModelError(f"no activation {op.kind!r}")


def _sigmoid(z: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))

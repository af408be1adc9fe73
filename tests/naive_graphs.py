"""Networks executed number by number, in fractions or in mpmath's decimals: slow and obvious."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import mpmath
import numpy as np

from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    Array,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Input,
    Network,
    Node,
    Pool,
    Softmax,
    Transpose,
)

Lift = Callable[[float], Any]
Tensor = Any
"""A numpy array of objects."""


def exactly(value: float) -> Any:
    """Return a float64 as a fraction."""
    return Fraction(value)


def closely(value: float) -> Any:
    """Return a float64 as an mpmath number, which it is exactly."""
    return mpmath.mpf(value)


def naive(network: Network, x: Sequence[float] | Array, lift: Lift) -> list[Any]:
    """Execute a network on one input, every float64 lifted to exact or long numbers."""
    seen: dict[str, Tensor] = {}
    for node in network.nodes:
        if isinstance(node.op, Input):
            flat = np.array([lift(float(v)) for v in np.ravel(x)], dtype=object)
            seen[node.name] = flat.reshape(node.shape)
            continue
        values = {n: _lifted(p.value, lift) for n, p in network.parameters.items()}
        result = _node(node, [seen[name] for name in node.inputs], values, lift)
        seen[node.name] = result.reshape(node.shape)
    return list(seen[network.nodes[-1].name].ravel())


def _lifted(value: Array, lift: Lift) -> Tensor:
    flat = np.empty(value.size, dtype=object)
    flat[:] = [lift(v) for v in value.ravel().tolist()]
    return flat.reshape(value.shape)


def _node(node: Node, given: list[Tensor], values: dict[str, Tensor], lift: Lift) -> Tensor:
    op, h = node.op, given[0]
    if isinstance(op, Dense):
        y = np.einsum("...i,oi->...o", h, values[op.weight], optimize=False)
        return y if op.bias is None else y + values[op.bias]
    if isinstance(op, Conv):
        return _conv(node, op, h, values, lift)
    if isinstance(op, BatchNorm):
        result = np.empty(h.shape, dtype=object)
        for at in np.ndindex(h.shape):
            c = at[0]
            t = (h[at] - values[op.mean][c]) / _root(values[op.variance][c] + lift(op.epsilon))
            t = t if op.weight is None else t * values[op.weight][c]
            result[at] = t if op.bias is None else t + values[op.bias][c]
        return result
    if isinstance(op, Elementwise):
        c = values[op.parameter]
        return {
            "add": lambda: h + c,
            "sub": lambda: h - c,
            "mul": lambda: h * c,
            "div": lambda: h / c,
            "rsub": lambda: c - h,
        }[op.kind]()
    if isinstance(op, Add):
        return sum(given[1:], h)
    if isinstance(op, Concat):
        return np.concatenate(given, axis=op.axis)
    if isinstance(op, Transpose):
        return h.transpose(op.order)
    if isinstance(op, (Pool, AdaptivePool)):
        return _pool(node, op, h)
    if isinstance(op, Activation):
        return np.array([_activate(op, z, lift) for z in h.ravel()], dtype=object)
    if isinstance(op, Softmax):
        rows = [[mpmath.exp(z) for z in row] for row in h.reshape(-1, h.shape[-1])]
        return np.array([[e / sum(row) for e in row] for row in rows], dtype=object)
    return h


def _root(square: Any) -> Any:
    if isinstance(square, Fraction):
        above, below = math.isqrt(square.numerator), math.isqrt(square.denominator)
        assert Fraction(above, below) ** 2 == square
        return Fraction(above, below)
    return mpmath.sqrt(square)


def _conv(node: Node, op: Conv, h: Tensor, values: dict[str, Tensor], lift: Lift) -> Tensor:
    weight = values[op.weight]
    per_group, out_per_group = weight.shape[1], weight.shape[0] // op.groups
    result = np.empty(node.shape, dtype=object)
    for o, *place in np.ndindex(node.shape):
        total = lift(0.0) if op.bias is None else values[op.bias][o]
        for c, *tap in np.ndindex(weight.shape[1:]):
            at = [
                p * s - pad[0] + t * d
                for p, s, pad, t, d in zip(
                    place, op.stride, op.padding, tap, op.dilation, strict=True
                )
            ]
            if all(0 <= a < n for a, n in zip(at, h.shape[1:], strict=True)):
                total += weight[(o, c, *tap)] * h[(o // out_per_group * per_group + c, *at)]
        result[(o, *place)] = total
    return result


def _pool(node: Node, op: Pool | AdaptivePool, h: Tensor) -> Tensor:
    result = np.empty(node.shape, dtype=object)
    for c, *place in np.ndindex(node.shape):
        if isinstance(op, AdaptivePool):
            spans = [
                range(math.floor(Fraction(p * n, m)), math.ceil(Fraction((p + 1) * n, m)))
                for p, n, m in zip(place, h.shape[1:], node.shape[1:], strict=True)
            ]
        else:
            spans = [
                range(p * s - pad[0], p * s - pad[0] + k * d, d)
                for p, s, pad, k, d in zip(
                    place, op.stride, op.padding, op.kernel, op.dilation, strict=True
                )
            ]
        inside = [
            h[(c, *at)]
            for at in product(*spans)
            if all(0 <= a < n for a, n in zip(at, h.shape[1:], strict=True))
        ]
        whole = isinstance(op, Pool) and op.include_padding
        count = math.prod(len(s) for s in spans) if whole else len(inside)
        result[(c, *place)] = (
            max(inside) if op.kind == "max" else sum(inside[1:], inside[0]) / count
        )
    return result


def _activate(op: Activation, z: Any, lift: Lift) -> Any:
    kind, zero = op.kind, lift(0.0)
    if kind in ("hardsigmoid", "hardswish"):
        gate = min(max(z / 6 + lift(0.5), zero), lift(1.0))
        return gate if kind == "hardsigmoid" else z * gate
    if kind == "clamp":
        return min(max(z, lift(op.low)), lift(op.high))
    if kind in ("relu", "leaky_relu", "elu") and z > 0:
        return z
    if kind == "relu":
        return zero
    if kind == "leaky_relu":
        return lift(op.slope) * z
    if kind == "identity":
        return z
    return smooth(op, z)


def smooth(op: Activation, z: Any) -> Any:
    """Return a transcendental activation in mpmath's arithmetic."""
    if op.kind == "elu":
        return mpmath.mpf(op.alpha) * mpmath.expm1(z)
    if op.kind == "softplus":
        beta = mpmath.mpf(op.beta)
        return mpmath.log1p(mpmath.exp(beta * z)) / beta
    if op.kind == "gelu":
        return z * mpmath.ncdf(z)
    if op.kind == "gelu_tanh":
        inner = mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3)
        return z / (1 + mpmath.exp(-2 * inner))  # (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u))
    gate = 1 / (1 + mpmath.exp(-z))
    return {"sigmoid": gate, "silu": z * gate, "tanh": mpmath.tanh(z)}[op.kind]

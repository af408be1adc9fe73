"""Graphs evaluated on rationals from the definitions of their layers: slow, plain, on its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Network,
    Node,
    Pool,
    Transpose,
)

Exact = npt.NDArray[Any]
"""An array of fractions."""
BITS = 2000
"""To how many bits a square root is taken; nothing is compared more closely than that."""


def exact(values: Any) -> Exact:
    """Return the fractions that floats are."""
    array = np.asarray(values)
    found = np.empty(array.shape, dtype=object)
    for at in np.ndindex(array.shape):
        value = array[at]
        found[at] = value if isinstance(value, Fraction) else Fraction(float(value))
    return found


def evaluate(
    network: Network, x: Any, parameters: Mapping[str, Any] | None = None
) -> list[Fraction]:
    """Return the exact results for one input and parameters, floats or fractions."""
    values = {name: exact(p.value) for name, p in network.parameters.items()}
    values |= {name: exact(value) for name, value in (parameters or {}).items()}
    seen = {network.nodes[0].name: exact(x).reshape(network.input_shape)}
    for node in network.nodes[1:]:
        given = [seen[name] for name in node.inputs]
        seen[node.name] = _node(node, given, values).reshape(node.shape)
    return list(seen[network.nodes[-1].name].reshape(-1))


def _node(node: Node, given: Sequence[Exact], values: Mapping[str, Exact]) -> Exact:
    op, h = node.op, given[0]
    if isinstance(op, Add):
        return np.asarray(sum(given[1:], h))
    if isinstance(op, Concat):
        return np.concatenate(given, axis=op.axis)
    if isinstance(op, Transpose):
        return h.transpose(op.order)
    if isinstance(op, Dense):
        y = np.asarray(h.dot(values[op.weight].T))
        return y if op.bias is None else y + values[op.bias]
    if isinstance(op, Elementwise):
        c = values[op.parameter]
        if op.kind in ("add", "sub"):
            return np.asarray(h + c if op.kind == "add" else h - c)
        if op.kind == "rsub":
            return np.asarray(c - h)
        return np.asarray(h * c if op.kind == "mul" else h / c)
    if isinstance(op, Conv):
        return _conv(op, h, node.shape, values)
    if isinstance(op, BatchNorm):
        return _batch_norm(op, h, values)
    if isinstance(op, (Pool, AdaptivePool)):
        return _pool(op, h, node.shape)
    if isinstance(op, Activation):
        return _mapped(op, h)
    return h


def _conv(op: Conv, h: Exact, shape: tuple[int, ...], values: Mapping[str, Exact]) -> Exact:
    kernel, y = values[op.weight], np.empty(shape, dtype=object)
    group, out = kernel.shape[1], kernel.shape[0] // op.groups
    for at in np.ndindex(shape):
        total = Fraction(0) if op.bias is None else values[op.bias][at[0]]
        for member in np.ndindex(kernel.shape[1:]):
            channel = (at[0] // out) * group + member[0]
            place = [
                p * s - before + k * d
                for p, s, (before, _), k, d in zip(
                    at[1:], op.stride, op.padding, member[1:], op.dilation, strict=True
                )
            ]
            if all(0 <= p < n for p, n in zip(place, h.shape[1:], strict=True)):
                total += kernel[(at[0], *member)] * h[(channel, *place)]
        y[at] = total
    return y


def root(value: Fraction) -> Fraction:
    """Return a square root to ``BITS`` bits."""
    scaled = value.numerator * value.denominator << (2 * BITS)
    return Fraction(math.isqrt(scaled), value.denominator << BITS)


def _batch_norm(op: BatchNorm, h: Exact, values: Mapping[str, Exact]) -> Exact:
    y = np.empty(h.shape, dtype=object)
    for at in np.ndindex(h.shape):
        c = at[0]
        scale = 1 / root(values[op.variance][c] + Fraction(op.epsilon))
        weight = Fraction(1) if op.weight is None else values[op.weight][c]
        bias = Fraction(0) if op.bias is None else values[op.bias][c]
        y[at] = (h[at] - values[op.mean][c]) * scale * weight + bias
    return y


def _pool(op: Pool | AdaptivePool, h: Exact, shape: tuple[int, ...]) -> Exact:
    y = np.empty(shape, dtype=object)
    for at in np.ndindex(shape):
        axes, size = [], 1
        for axis, p in enumerate(at[1:]):
            n, m = h.shape[1 + axis], shape[1 + axis]
            if isinstance(op, AdaptivePool):
                span = list(range(p * n // m, -(-(p + 1) * n // m)))
            else:
                first = p * op.stride[axis] - op.padding[axis][0]
                span = [first + k * op.dilation[axis] for k in range(op.kernel[axis])]
            size *= len(span)
            axes.append([i for i in span if 0 <= i < n])
        members = [h[(at[0], *place)] for place in itertools.product(*axes)]
        if op.kind == "max":
            y[at] = max(members)
            continue
        counts_all = isinstance(op, AdaptivePool) or op.include_padding
        y[at] = sum(members, Fraction(0)) / (size if counts_all else len(members))
    return y


def _mapped(op: Activation, h: Exact) -> Exact:
    zero, one = Fraction(0), Fraction(1)

    def act(z: Any) -> Fraction:
        if op.kind == "relu":
            return Fraction(max(z, zero))
        if op.kind == "leaky_relu":
            return Fraction(z if z > 0 else Fraction(op.slope) * z)
        if op.kind == "clamp":
            return Fraction(min(max(z, Fraction(op.low)), Fraction(op.high)))
        inside = min(max(z / 6 + Fraction(1, 2), zero), one)
        return Fraction({"hardsigmoid": inside, "hardswish": z * inside, "identity": z}[op.kind])

    y = np.empty(h.shape, dtype=object)
    for at in np.ndindex(h.shape):
        y[at] = act(h[at])
    return y

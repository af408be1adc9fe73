"""A network executed in emulated floating-point arithmetic, every operation rounded on its own.

Written from the formats' definitions on exact float64 operations: products of two numbers of up to
24 bits are exact in float64, and their sum rounded to odd rounds correctly once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    Network,
    Node,
    Pool,
    Softmax,
    Transpose,
    activate,
)
from paramrob.models.shapes import conv_windows, pool_windows

BITS = {"float64": (53, -1022), "float32": (24, -126), "float16": (11, -14), "bfloat16": (8, -126)}
"""Bits of the significand, and the exponent of the smallest normal number."""
TOP = {"float64": 1023, "float32": 127, "float16": 15, "bfloat16": 127}


def rounded(x: Array, name: str, flush: bool = False) -> Array:
    """Round to nearest even; beyond the range infinite; subnormals 0 with ``flush``."""
    if name == "float64":
        return np.where(flush & (np.abs(x) < 2.0**-1022), 0.0, x)
    bits, least = BITS[name]
    x = np.asarray(x, dtype=np.float64)
    exponent = np.maximum(np.frexp(x)[1] - 1, least)
    with np.errstate(over="ignore"):
        y = np.ldexp(np.rint(np.ldexp(x, bits - 1 - exponent)), exponent - bits + 1)
    y = np.where(np.isfinite(x), y, x)
    y = np.where(np.abs(y) > (2 - 2.0 ** (1 - bits)) * 2.0 ** TOP[name], np.copysign(np.inf, y), y)
    return np.where(flush & (np.abs(y) < 2.0**least), 0.0, y)


def to_odd(a: Array, b: Array) -> Array:
    """Return ``a + b`` in float64, an inexact sum with its last bit set."""
    s = a + b
    t = s - a
    lost = (a - (s - t)) + (b - t)
    even = (s.view(np.int64) & 1) == 0
    move = (lost != 0) & even & np.isfinite(s)
    return np.where(move, np.nextafter(s, np.where(lost > 0, np.inf, -np.inf)), s)


@dataclass
class Machine:
    """One way to execute: formats, whether sums fuse, whether subnormals vanish, the order.

    ``order`` is ``shuffled``, ``sequential``, ``reversed`` or ``pairwise``; ``late`` adds biases
    after a sum was stored; ``wobble`` is by how many units in the last place (of 1 for
    sigmoids) activations are off.
    """

    storage: str
    accumulator: str
    fused: bool = False
    flush: bool = False
    order: str = "shuffled"
    late: bool = False
    wobble: float = 3.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def store(self, x: Array) -> Array:
        return rounded(x, self.storage, self.flush)

    def inner(self, x: Array) -> Array:
        return rounded(x, self.accumulator, self.flush)

    def plus(self, a: Array, b: Array) -> Array:
        return self.inner(a + b)

    def fma(self, a: Array, b: Array, c: Array) -> Array:
        if self.accumulator == "float64" or not self.fused:
            return self.plus(self.inner(a * b), c)
        return self.inner(to_odd(a * b, c))

    def dot(self, a: Array, b: Array, bias: Array | None) -> Array:
        """Sum products ``(rows, terms)`` and a bias ``(rows,)``; stored."""
        with np.errstate(all="ignore"):
            late = self.late and bias is not None
            total = self.summed(a, b, None if late else bias)
            y = self.store(total)
            return self.store(y + bias) if late and bias is not None else y

    def summed(self, a: Array, b: Array, bias: Array | None) -> Array:
        rows, terms = a.shape
        order = np.broadcast_to(np.arange(terms), (rows, terms))
        if self.order == "shuffled":
            order = self.rng.permuted(order.copy(), axis=1)
        elif self.order == "reversed":
            order = order[:, ::-1]
        a, b = np.take_along_axis(a, order, 1), np.take_along_axis(b, order, 1)
        first = np.zeros(rows) if bias is None else bias
        if self.order == "pairwise":
            parts = np.concatenate([self.inner(a * b), first[:, None]], axis=1)
            while parts.shape[1] > 1:
                odd = parts[:, 2 * (parts.shape[1] // 2) :]
                even = parts[:, : 2 * (parts.shape[1] // 2)]
                parts = np.concatenate([self.plus(even[:, ::2], even[:, 1::2]), odd], axis=1)
            return parts[:, 0]
        begins = self.rng.integers(2) == 0
        total = first if begins else np.zeros(rows)
        for j in range(terms):
            total = self.fma(a[:, j], b[:, j], total)
        return total if begins else self.plus(total, first)

    def run(self, network: Network, x: Array, parameters: Mapping[str, Array]) -> Array:
        """Return the stored result for one input; parameters and input are rounded first."""
        values = {n: self.store(np.asarray(v)) for n, v in parameters.items()}
        seen = {network.nodes[0].name: self.store(x.reshape(network.input_shape))}
        with np.errstate(all="ignore"):
            for node in network.nodes[1:]:
                given = [seen[name] for name in node.inputs]
                seen[node.name] = self.node(node, given, values)
        return seen[network.nodes[-1].name].reshape(-1)

    def node(self, node: Node, given: list[Array], values: Mapping[str, Array]) -> Array:
        op, h = node.op, given[0]
        if isinstance(op, Add):
            total = given[0]
            for i in self.rng.permutation(len(given) - 1):
                total = self.store(total + given[i + 1])
            return total
        if isinstance(op, Concat):
            return np.concatenate(given, axis=op.axis)
        if isinstance(op, Transpose):
            return h.transpose(op.order)
        if isinstance(op, Dense):
            return self.dense(op, h, values).reshape(node.shape)
        if isinstance(op, Conv):
            return self.conv(op, h, node, values)
        if isinstance(op, BatchNorm):
            return self.batch_norm(op, h, values)
        if isinstance(op, Elementwise):
            c = np.broadcast_to(values[op.parameter], node.shape)
            found = {"add": h + c, "sub": h - c, "rsub": c - h, "mul": h * c}.get(op.kind)
            return self.store(h / c if found is None else found)
        if isinstance(op, (Pool, AdaptivePool)):
            return self.pool(op, h, node)
        if isinstance(op, Activation):
            return self.activation(op, h)
        if isinstance(op, Softmax):
            return self.softmax(h)
        return h.reshape(node.shape)

    def dense(self, op: Dense, h: Array, values: Mapping[str, Array]) -> Array:
        weight = values[op.weight]
        bias = None if op.bias is None else values[op.bias]
        flat = h.reshape(-1, h.shape[-1])
        rows = [self.dot(weight, np.broadcast_to(v, weight.shape), bias) for v in flat]
        return np.stack(rows)

    def conv(self, op: Conv, h: Array, node: Node, values: Mapping[str, Array]) -> Array:
        weight = values[op.weight]
        windows = conv_windows(op, weight.shape[2:], h.shape[1:], node.shape[1:])
        padded = np.concatenate([h.reshape(h.shape[0], -1), np.zeros((h.shape[0], 1))], axis=1)
        seen = padded[:, windows]  # channels, positions, members
        group, out = h.shape[0] // op.groups, weight.shape[0]
        result = np.zeros((out, windows.shape[0]))
        for o in range(out):
            start = (o // (out // op.groups)) * group
            part = seen[start : start + group].transpose(1, 0, 2).reshape(windows.shape[0], -1)
            kernel = np.broadcast_to(weight[o].reshape(-1), part.shape)
            bias = None
            if op.bias is not None:
                bias = np.full(part.shape[0], values[op.bias][o])
            result[o] = self.dot(kernel, part, bias)
        return result.reshape(node.shape)

    def batch_norm(self, op: BatchNorm, h: Array, values: Mapping[str, Array]) -> Array:
        column = (-1,) + (1,) * (h.ndim - 1)
        mean = values[op.mean].reshape(column)
        root = self.inner(
            np.sqrt(self.inner(values[op.variance] + self.inner(np.array(op.epsilon))))
        )
        root = self.inner(1 / root).reshape(column)
        weight = np.ones(1) if op.weight is None else values[op.weight].reshape(column)
        bias = np.zeros(1) if op.bias is None else values[op.bias].reshape(column)
        if self.rng.integers(2):
            y = self.inner(self.inner(h - mean) * root)
            return self.store(self.inner(self.inner(y * weight) + bias))
        scale = self.inner(root * weight)
        shift = self.inner(bias - self.inner(mean * scale))
        if self.fused and self.accumulator != "float64":
            return self.store(self.inner(to_odd(*np.broadcast_arrays(h * scale, shift))))
        return self.store(self.inner(self.inner(h * scale) + shift))

    def pool(self, op: Pool | AdaptivePool, h: Array, node: Node) -> Array:
        windows, divisors = pool_windows(op, h.shape[1:], node.shape[1:])
        empty = -np.inf if op.kind == "max" else 0.0
        flat = np.concatenate([h.reshape(h.shape[0], -1), np.full((h.shape[0], 1), empty)], axis=1)
        seen = flat[:, windows]
        if op.kind == "max":
            return np.asarray(seen.max(axis=2).reshape(node.shape))
        rows = seen.reshape(-1, seen.shape[2])
        total = self.summed(rows, np.ones_like(rows), None).reshape(seen.shape[:2])
        if self.rng.integers(2):
            return self.store(self.inner(total / divisors)).reshape(node.shape)
        return self.store(self.inner(total * self.inner(1.0 / divisors))).reshape(node.shape)

    def activation(self, op: Activation, z: Array) -> Array:
        if op.kind in ("relu", "identity"):
            return np.maximum(z, 0.0) if op.kind == "relu" else z
        if op.kind == "leaky_relu":
            return np.where(z > 0, z, self.store(z * self.store(np.array(op.slope))))
        if op.kind == "clamp":
            return np.clip(z, self.store(np.array(op.low)), self.store(np.array(op.high)))
        y = activate(op, z)
        unit = 2.0 ** -BITS[self.storage][0]
        bounded = op.kind in ("sigmoid", "tanh", "hardsigmoid")
        gate = op.kind in ("silu", "gelu", "gelu_tanh", "hardswish")
        size = np.ones_like(y) if bounded else np.abs(z) if gate else np.abs(y)
        off = self.rng.uniform(-2, 2, size=y.shape) * self.wobble * unit * size
        return self.store(y + off)

    def softmax(self, z: Array) -> Array:
        e = self.store(np.exp(self.store(z - z.max(-1, keepdims=True))))
        total = self.summed(e.reshape(1, -1), np.ones((1, e.size)), None)
        return self.store(e / total)


def machines(storage: str, accumulator: str, seed: int = 0) -> list[Machine]:
    """Return machines of every order, fused and not, with and without subnormal numbers."""
    rng = np.random.default_rng(seed)
    return [
        Machine(storage, accumulator, fused, flush, order, bool(rng.integers(2)), 3.0, rng)
        for order in ("shuffled", "sequential", "reversed", "pairwise")
        for fused in (False, True)
        for flush in (False, True)
    ]

"""A layer executed on arb balls, which enclose the exact value at any working precision.

Dense layers and convolutions are products of ``arb_mat`` matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import flint

from paramrob.errors import ReplayError
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
    Node,
    Pool,
    Quantize,
    Shape,
    Softmax,
    Transpose,
)
from paramrob.replay_curves import activate_ball, order
from paramrob.replay_exact import constants_of, scale_squares
from paramrob.replay_layout import conv_columns, moved, pool_rows
from paramrob.replay_numbers import Number, maximum, softmax, to_arb, to_fmpq

Balls = list[Number]


class BallSteps:
    """The layers of one network with given parameters, on balls.

    Args:
        values: the parameters by name; their matrices are kept from one precision to the next.
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        self._values = values
        self._matrices: dict[tuple[str, int], list[Number]] = {}

    def step(self, node: Node, before: Sequence[Shape], given: Sequence[Balls]) -> Balls:
        """Return the node's result at the working precision.

        Args:
            node: any but an input or a reshape.
            before: the shapes of its inputs.
            given: its inputs.

        Raises:
            ReplayError: a division by a parameter that is zero, or no such node.
        """
        op, h = node.op, given[0]
        if isinstance(op, Dense):
            return self._dense(op, before[0], h)
        if isinstance(op, Conv):
            return self._conv(op, before[0], node.shape, h)
        if isinstance(op, BatchNorm):
            return self._batch_norm(node, op, h)
        if isinstance(op, Elementwise):
            return _elementwise(node, op, self._values[op.parameter], h)
        if isinstance(op, Activation):
            return [activate_ball(op, z) for z in h]
        if isinstance(op, Quantize):
            return [quantized_ball(op, z) for z in h]
        if isinstance(op, Softmax):
            return _softmax(h, before[0][-1])
        if isinstance(op, Add):
            return [sum(row[1:], row[0]) for row in zip(*given, strict=True)]
        if isinstance(op, (Transpose, Concat)):
            numbers = [z for part in given for z in part]
            return [numbers[i] for i in moved(op, before)]
        if isinstance(op, (Pool, AdaptivePool)):
            return _pool(op, before[0], node.shape, h)
        raise ReplayError(f"node {node.name!r} cannot be replayed: {op!r}; report this")

    def _dense(self, op: Dense, before: Shape, h: Balls) -> Balls:
        weight, key = self._values[op.weight], (op.weight, 0)
        if key not in self._matrices:
            flat = weight.T.ravel().tolist()
            self._matrices[key] = [flint.arb_mat(weight.shape[1], weight.shape[0], flat)]
        rows = math.prod(before[:-1])
        product = flint.arb_mat(rows, before[-1], h) * self._matrices[key][0]
        result: Balls = product.entries()
        if op.bias is None:
            return result
        biases = [flint.arb(b) for b in self._values[op.bias].tolist()] * rows
        return [z + b for z, b in zip(result, biases, strict=True)]

    def _conv(self, op: Conv, before: Shape, after: Shape, h: Balls) -> Balls:
        weight, key = self._values[op.weight], (op.weight, op.groups)
        rows, members = weight.shape[0] // op.groups, math.prod(weight.shape[1:])
        if key not in self._matrices:
            self._matrices[key] = [
                flint.arb_mat(rows, members, flat)
                for flat in weight.reshape(op.groups, -1).tolist()
            ]
        positions, padded = math.prod(after[1:]), [*h, flint.arb(0)]
        result: Balls = []
        columns = conv_columns(op, weight.shape, before, after)
        for kernel, places in zip(self._matrices[key], columns, strict=True):
            seen = flint.arb_mat(members, positions, [padded[i] for i in places])
            result += (kernel * seen).entries()
        if op.bias is None:
            return result
        biases = [flint.arb(b) for b in self._values[op.bias].tolist()]
        return [z + biases[i // positions] for i, z in enumerate(result)]

    def _batch_norm(self, node: Node, op: BatchNorm, h: Balls) -> Balls:
        each = math.prod(node.shape[1:])
        squares = scale_squares(node, op, self._values)
        scales = [flint.arb(to_fmpq(square)).rsqrt() for square in squares]
        if op.weight is not None:
            weights = self._values[op.weight].tolist()
            scales = [s * flint.arb(w) for s, w in zip(scales, weights, strict=True)]
        means = [flint.arb(m) for m in self._values[op.mean].tolist()]
        result = [(z - means[i // each]) * scales[i // each] for i, z in enumerate(h)]
        if op.bias is None:
            return result
        biases = [flint.arb(b) for b in self._values[op.bias].tolist()]
        return [z + biases[i // each] for i, z in enumerate(result)]


def _elementwise(node: Node, op: Elementwise, parameter: Array, h: Balls) -> Balls:
    constants = [flint.arb(c) for c in constants_of(node, op, parameter).tolist()]
    pairs = list(zip(h, constants, strict=True))
    if op.kind == "add":
        return [z + c for z, c in pairs]
    if op.kind == "sub":
        return [z - c for z, c in pairs]
    if op.kind == "rsub":
        return [c - z for z, c in pairs]
    if op.kind == "mul":
        return [z * c for z, c in pairs]
    return [z / c for z, c in pairs]


def _softmax(h: Sequence[Number], width: int) -> Balls:
    result: Balls = []
    for start in range(0, len(h), width):
        row = h[start : start + width]
        if all(isinstance(n, flint.fmpq) for n in row):
            top = max(row)  # rationals keep their differences exact
        else:
            top = max((z.mid() for z in row), key=order)
        result += softmax([n - top for n in row])
    return result


def _pool(op: Pool | AdaptivePool, before: Shape, after: Shape, h: Balls) -> Balls:
    rows, divisors = pool_rows(op, before, after)
    if op.kind == "max":
        return [maximum([h[i] for i in row]) for row in rows]
    return [
        sum([h[i] for i in row], flint.arb(0)) / d for row, d in zip(rows, divisors, strict=True)
    ]


def quantized_ball(op: Quantize, z: Number) -> Number:
    """Enclose the rounded number: every integer that some number of the ball rounds to."""
    steps, half = to_arb(z) / flint.arb(op.scale), flint.arb(0.5)
    if not steps.is_finite():
        return flint.arb(op.least).union(flint.arb(op.most))
    # the ends of a ball that is an exact half round either way
    ends = ((steps.lower() - half).ceil(), (steps.upper() + half).floor())
    low, high = flint.arb(op.low - op.zero_point), flint.arb(op.high - op.zero_point)
    first, last = (end.max(low).min(high) for end in ends)
    return (first * flint.arb(op.scale)).union(last * flint.arb(op.scale))

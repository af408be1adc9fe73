"""A network executed exactly: integers over powers of two, then balls.

Every float64 is an integer times a power of two, so a layer is one product of integer matrices.
Divisions keep one common odd denominator. From the first sigmoid, tanh or softmax on, numbers
are arb balls, which enclose the exact value at any working precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import flint
import numpy as np

from paramrob.errors import ReplayError
from paramrob.models.network import (
    Activation,
    Array,
    Dense,
    Elementwise,
    Network,
    Node,
    Reshape,
    Shape,
    Softmax,
)
from paramrob.replay_numbers import Number, dyadic, sigmoid, softmax, tanh, to_arb


@dataclass(frozen=True)
class _Exact:
    """The numbers ``values[i] * 2**exponent / denominator``; the denominator is odd."""

    values: list[Number]
    exponent: int
    denominator: Number

    def numbers(self) -> list[Number]:
        """Return them as rationals."""
        up = flint.fmpz(1) << max(self.exponent, 0)
        down = self.denominator << max(-self.exponent, 0)
        return [flint.fmpq(v * up, down) for v in self.values]


def _chain(network: Network) -> list[tuple[Node, Shape]]:
    """Return the nodes from the input to the output, each with the shape of its input."""
    nodes = {node.name: node for node in network.nodes}
    node, chain = network.nodes[-1], []
    while node.inputs:
        before = nodes[node.inputs[0]]
        chain.append((node, before.shape))
        node = before
    return chain[::-1]


def _is_trivial(node: Node) -> bool:
    """Whether the node keeps the flat sequence of numbers as it is."""
    op = node.op
    return isinstance(op, Reshape) or (isinstance(op, Activation) and op.kind == "identity")


def _is_transcendental(node: Node) -> bool:
    op = node.op
    return isinstance(op, Softmax) or (
        isinstance(op, Activation) and op.kind in ("sigmoid", "tanh")
    )


class ExactRun:
    """One network on one input, at any working precision.

    Args:
        network: any network; its stored parameters stand where ``parameters`` names none.
        x: the input, ``network.input_size`` float64 numbers in row-major order.
        parameters: values to use instead, by name.

    Attributes:
        squashed: ``sigmoid`` or ``softmax`` where that ends the network (one softmax, over all
            outputs), else ``None``.

    Raises:
        ReplayError: a division by a parameter that is zero.
    """

    def __init__(
        self, network: Network, x: Array, parameters: Mapping[str, Array] | None = None
    ) -> None:
        stored = {name: p.value for name, p in network.parameters.items()}
        self._values: Mapping[str, Array] = stored | dict(parameters or {})
        self._balls: dict[str, Number] = {}
        chain = [(n, before) for n, before in _chain(network) if not _is_trivial(n)]
        self.squashed = _squash(chain[-1][0], network.output_size) if chain else None
        values, exponent = dyadic(np.asarray(x, dtype=np.float64))
        state = _Exact([flint.fmpz(v) for v in values], exponent, flint.fmpz(1))
        done = 0
        for node, before in chain:
            if _is_transcendental(node):
                break
            state = self._exact_step(node, before, state)
            done += 1
        self._state, self._rest = state, chain[done:]

    def run(self) -> tuple[list[Number], list[Number]]:
        """Return ``(scores, outputs)`` at the working precision.

        ``scores`` are the numbers before the final sigmoid or softmax (``squashed``), the
        outputs themselves where there is none.
        """
        if not self._rest:
            numbers = self._state.numbers()
            return numbers, numbers
        before, after = self._squash_exact()
        for node, shape in self._rest[1:]:
            before, after = after, self._ball_step(node, shape, after)
        return (before if self.squashed else after), after

    def _squash_exact(self) -> tuple[list[Number], list[Number]]:
        """Apply the first transcendental node, whose inputs are exact."""
        node, shape = self._rest[0]
        numbers = self._state.numbers()
        if not isinstance(node.op, Softmax):
            return numbers, self._ball_step(node, shape, numbers)
        width = shape[-1]
        after: list[Number] = []
        for start in range(0, len(numbers), width):
            row = numbers[start : start + width]
            top = max(row)
            after += softmax([n - top for n in row])
        return numbers, after

    def _exact_step(self, node: Node, before: Shape, state: _Exact) -> _Exact:
        op = node.op
        if isinstance(op, Dense):
            return self._exact_dense(op, before, state)
        if isinstance(op, Elementwise):
            return _exact_elementwise(node, op, self._values[op.parameter], state)
        if isinstance(op, Activation) and op.kind == "relu":
            values = [v if v > 0 else flint.fmpz(0) for v in state.values]
            return _Exact(values, state.exponent, state.denominator)
        if isinstance(op, Activation) and op.kind == "leaky_relu":
            (slope,), exponent = dyadic(np.array([op.slope]))
            slope, exponent = slope << max(exponent, 0), min(exponent, 0)
            values = [v << -exponent if v > 0 else v * slope for v in state.values]
            return _Exact(values, state.exponent + exponent, state.denominator)
        raise ReplayError(f"node {node.name!r} cannot be replayed: {op!r}; report this")

    def _exact_dense(self, op: Dense, before: Shape, state: _Exact) -> _Exact:
        weight = self._values[op.weight]
        entries, exponent = dyadic(weight.T)
        matrix = flint.fmpz_mat(weight.shape[1], weight.shape[0], entries)
        rows = math.prod(before[:-1])
        product = flint.fmpz_mat(rows, before[-1], state.values) * matrix
        result = _Exact(product.entries(), state.exponent + exponent, state.denominator)
        return result if op.bias is None else _added(result, np.tile(self._values[op.bias], rows))

    def _ball_step(self, node: Node, before: Shape, h: list[Number]) -> list[Number]:
        op = node.op
        if isinstance(op, Dense):
            return self._ball_dense(op, before, h)
        if isinstance(op, Elementwise):
            return _ball_elementwise(node, op, self._values[op.parameter], h)
        h = [to_arb(z) for z in h]
        if isinstance(op, Softmax):
            return _ball_softmax(h, before[-1])
        if isinstance(op, Activation):
            return [_ball_activation(op, z) for z in h]
        raise ReplayError(f"node {node.name!r} cannot be replayed: {op!r}; report this")

    def _ball_dense(self, op: Dense, before: Shape, h: list[Number]) -> list[Number]:
        weight = self._values[op.weight]
        if op.weight not in self._balls:
            flat = weight.T.ravel().tolist()
            self._balls[op.weight] = flint.arb_mat(weight.shape[1], weight.shape[0], flat)
        rows = math.prod(before[:-1])
        product = flint.arb_mat(rows, before[-1], h) * self._balls[op.weight]
        result: list[Number] = product.entries()
        if op.bias is None:
            return result
        bias = np.tile(self._values[op.bias], rows).tolist()
        return [z + flint.arb(b) for z, b in zip(result, bias, strict=True)]


def _squash(node: Node, size: int) -> str | None:
    if isinstance(node.op, Softmax):
        return "softmax" if node.shape[-1] == size else None
    return "sigmoid" if isinstance(node.op, Activation) and node.op.kind == "sigmoid" else None


def _added(state: _Exact, constants: Array) -> _Exact:
    values, exponent = dyadic(constants)
    base = min(exponent, state.exponent)
    up, scale = state.exponent - base, state.denominator << (exponent - base)
    sums = [(v << up) + c * scale for v, c in zip(state.values, values, strict=True)]
    return _Exact(sums, base, state.denominator)


def _constants(node: Node, op: Elementwise, parameter: Array) -> Array:
    if op.kind == "div" and not parameter.all():
        raise ReplayError(f"node {node.name!r} divides by {op.parameter!r}, which holds a zero")
    return np.broadcast_to(parameter, node.shape).ravel()


def _exact_elementwise(node: Node, op: Elementwise, parameter: Array, state: _Exact) -> _Exact:
    constants = _constants(node, op, parameter)
    if op.kind == "add":
        return _added(state, constants)
    if op.kind == "sub":
        return _added(state, -constants)
    if op.kind == "rsub":
        negated = [-v for v in state.values]
        return _added(_Exact(negated, state.exponent, state.denominator), constants)
    values, exponent = dyadic(constants)
    if op.kind == "mul":
        products = [v * c for v, c in zip(state.values, values, strict=True)]
        return _Exact(products, state.exponent + exponent, state.denominator)
    return _divided(state, values, exponent)


def _divided(state: _Exact, values: list[int], exponent: int) -> _Exact:
    """Return the quotients by ``values * 2**exponent`` over one common odd denominator."""
    twos = [(v & -v).bit_length() - 1 for v in values]
    odd = [v >> t for v, t in zip(values, twos, strict=True)]
    common, most = math.lcm(*odd), max(twos)
    factors = [(common // o) << (most - t) for o, t in zip(odd, twos, strict=True)]
    quotients = [v * f for v, f in zip(state.values, factors, strict=True)]
    return _Exact(quotients, state.exponent - exponent - most, state.denominator * common)


def _ball_elementwise(
    node: Node, op: Elementwise, parameter: Array, h: list[Number]
) -> list[Number]:
    constants = [flint.arb(c) for c in _constants(node, op, parameter).tolist()]
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


def _ball_softmax(h: list[Number], width: int) -> list[Number]:
    result: list[Number] = []
    for start in range(0, len(h), width):
        row = h[start : start + width]
        top = max((z.mid() for z in row), key=_order)
        result += softmax([z - top for z in row])
    return result


def _order(point: Number) -> float:
    """Return a sort key: any shift is correct, a large one keeps exp small."""
    value = float(point)
    return -math.inf if math.isnan(value) else value


def _ball_activation(op: Activation, z: Number) -> Number:
    if op.kind == "sigmoid":
        return sigmoid(z)
    if op.kind == "tanh":
        return tanh(z)
    zero = flint.arb(0)
    if z > 0:
        return z
    if op.kind == "relu":
        return z.max(zero)
    negative = flint.arb(op.slope) * z.min(zero)
    return negative if z <= 0 else negative.union(z.max(zero))

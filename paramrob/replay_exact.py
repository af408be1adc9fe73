"""A layer executed exactly, on integers over one power of two and one odd denominator.

Every float64 is an integer times a power of two, so a dense layer or a convolution is a product
of integer matrices. Divisions keep one common odd denominator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import flint
import numpy as np

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
from paramrob.replay_layout import conv_columns, moved, pool_rows
from paramrob.replay_numbers import Number, dyadic

# a hard swish squares its numbers, so that their lengths double from one to the next
_LONGEST = 2**16
_MOST_BITS = 2**30
_EXACT_ACTIVATIONS = ("relu", "leaky_relu", "clamp", "hardsigmoid", "hardswish")


@dataclass(frozen=True)
class Exact:
    """The numbers ``values[i] * 2**exponent / denominator``; the denominator is odd, above 0."""

    values: list[Number]
    exponent: int
    denominator: Number

    def numbers(self) -> list[Number]:
        """Return them as rationals."""
        up = flint.fmpz(1) << max(self.exponent, 0)
        down = self.denominator << max(-self.exponent, 0)
        return [flint.fmpq(v * up, down) for v in self.values]

    def balls(self) -> list[Number]:
        """Return them as balls, at the working precision."""
        denominator, exponent = flint.arb(self.denominator), self.exponent
        return [flint.arb((v, exponent)) / denominator for v in self.values]

    def is_short(self) -> bool:
        """Whether it is reasonable to go on with exact numbers from here."""
        bits = max((abs(v) for v in self.values), default=flint.fmpz(0)).bit_length()
        bits += self.denominator.bit_length()
        return bool(bits <= _LONGEST and bits * len(self.values) <= _MOST_BITS)


def exact_input(x: Array) -> Exact:
    """Return float64 numbers as they are."""
    values, exponent = dyadic(x)
    return Exact([flint.fmpz(v) for v in values], exponent, flint.fmpz(1))


def stays_exact(node: Node, values: Mapping[str, Array]) -> bool:
    """Whether the node takes rationals to rationals.

    Raises:
        ReplayError: a batch normalisation divides by the root of a number that is not positive.
    """
    op = node.op
    if isinstance(op, BatchNorm):
        return None not in map(_root, scale_squares(node, op, values))
    if isinstance(op, Activation):
        return op.kind in _EXACT_ACTIVATIONS
    return not isinstance(op, Softmax)


def scale_squares(node: Node, op: BatchNorm, values: Mapping[str, Array]) -> list[Fraction]:
    """Return ``variance + epsilon`` of each channel.

    Raises:
        ReplayError: one of them is not positive.
    """
    epsilon = Fraction(op.epsilon)
    squares = [Fraction(v) + epsilon for v in values[op.variance].tolist()]
    if min(squares) <= 0:
        raise ReplayError(f"node {node.name!r} divides by the root of {op.variance!r}, below 0")
    return squares


def _root(square: Fraction) -> Fraction | None:
    """Return the root of a positive rational where it is rational."""
    above, below = math.isqrt(square.numerator), math.isqrt(square.denominator)
    if above * above != square.numerator or below * below != square.denominator:
        return None
    return Fraction(above, below)


def exact_step(
    node: Node, before: Sequence[Shape], given: Sequence[Exact], values: Mapping[str, Array]
) -> Exact:
    """Return the node's result.

    Args:
        node: one that :func:`stays_exact`.
        before: the shapes of its inputs.
        given: its inputs.
        values: the parameters by name.

    Raises:
        ReplayError: a division by a parameter that is zero, or no such node.
    """
    op, state = node.op, given[0]
    if isinstance(op, Dense):
        return _dense(op, before[0], state, values)
    if isinstance(op, Conv):
        return _conv(op, before[0], node.shape, state, values)
    if isinstance(op, Elementwise):
        return _elementwise(node, op, values[op.parameter], state)
    if isinstance(op, BatchNorm):
        return _batch_norm(node, op, state, values)
    if isinstance(op, Add):
        aligned = _aligned(given)
        sums = [sum(row, flint.fmpz(0)) for row in zip(*(s.values for s in aligned), strict=True)]
        return Exact(sums, aligned[0].exponent, aligned[0].denominator)
    if isinstance(op, (Transpose, Concat)):
        aligned = _aligned(given)
        numbers = [v for s in aligned for v in s.values]
        taken = [numbers[i] for i in moved(op, before)]
        return Exact(taken, aligned[0].exponent, aligned[0].denominator)
    if isinstance(op, (Pool, AdaptivePool)):
        return _pool(op, before[0], node.shape, state)
    if isinstance(op, Activation):
        return _activation(op, state)
    if isinstance(op, Quantize):
        return _quantized(op, state)
    raise ReplayError(f"node {node.name!r} cannot be replayed: {op!r}; report this")


def _dense(op: Dense, before: Shape, state: Exact, values: Mapping[str, Array]) -> Exact:
    weight = values[op.weight]
    entries, exponent = dyadic(weight.T)
    matrix = flint.fmpz_mat(weight.shape[1], weight.shape[0], entries)
    rows = math.prod(before[:-1])
    product = flint.fmpz_mat(rows, before[-1], state.values) * matrix
    result = Exact(product.entries(), state.exponent + exponent, state.denominator)
    return result if op.bias is None else _added(result, np.tile(values[op.bias], rows))


def _conv(
    op: Conv, before: Shape, after: Shape, state: Exact, values: Mapping[str, Array]
) -> Exact:
    weight = values[op.weight]
    entries, exponent = dyadic(weight)
    rows, members = weight.shape[0] // op.groups, math.prod(weight.shape[1:])
    positions, size = math.prod(after[1:]), rows * members
    padded = [*state.values, flint.fmpz(0)]
    results: list[Number] = []
    for g, places in enumerate(conv_columns(op, weight.shape, before, after)):
        kernel = flint.fmpz_mat(rows, members, entries[g * size : (g + 1) * size])
        columns = flint.fmpz_mat(members, positions, [padded[i] for i in places])
        results += (kernel * columns).entries()
    result = Exact(results, state.exponent + exponent, state.denominator)
    if op.bias is None:
        return result
    return _added(result, np.repeat(values[op.bias], positions))


def _batch_norm(node: Node, op: BatchNorm, state: Exact, values: Mapping[str, Array]) -> Exact:
    each = math.prod(node.shape[1:])
    state = _added(state, -np.repeat(values[op.mean], each))
    roots = [_root(square) for square in scale_squares(node, op, values)]
    known = [root for root in roots if root is not None]
    most = max(root.denominator for root in known)  # a power of two, as float64 numbers have
    scaled = [root.numerator * (most // root.denominator) for root in known]
    divisors = [v for v in scaled for _ in range(each)]
    state = _divided(state, divisors, 1 - most.bit_length())
    if op.weight is not None:
        state = _multiplied(state, np.repeat(values[op.weight], each))
    return state if op.bias is None else _added(state, np.repeat(values[op.bias], each))


def _aligned(given: Sequence[Exact]) -> list[Exact]:
    """Return the inputs over one exponent and one denominator."""
    if len(given) == 1:
        return list(given)
    exponent = min(state.exponent for state in given)
    denominator = flint.fmpz(math.lcm(*(int(state.denominator) for state in given)))
    found = []
    for state in given:
        factor = (denominator // state.denominator) << (state.exponent - exponent)
        numbers = state.values if factor == 1 else [v * factor for v in state.values]
        found.append(Exact(numbers, exponent, denominator))
    return found


def _added(state: Exact, constants: Array) -> Exact:
    values, exponent = dyadic(constants)
    base = min(exponent, state.exponent)
    up, scale = state.exponent - base, state.denominator << (exponent - base)
    sums = [(v << up) + c * scale for v, c in zip(state.values, values, strict=True)]
    return Exact(sums, base, state.denominator)


def _multiplied(state: Exact, constants: Array) -> Exact:
    values, exponent = dyadic(constants)
    products = [v * c for v, c in zip(state.values, values, strict=True)]
    return Exact(products, state.exponent + exponent, state.denominator)


def _divided(state: Exact, values: Sequence[int], exponent: int) -> Exact:
    """Return the quotients by ``values * 2**exponent`` over one common odd denominator."""
    twos = [(v & -v).bit_length() - 1 for v in values]
    odd = [v >> t for v, t in zip(values, twos, strict=True)]
    common, most = math.lcm(*odd), max(twos)
    factors = [(common // o) << (most - t) for o, t in zip(odd, twos, strict=True)]
    quotients = [v * f for v, f in zip(state.values, factors, strict=True)]
    return Exact(quotients, state.exponent - exponent - most, state.denominator * common)


def constants_of(node: Node, op: Elementwise, parameter: Array) -> Array:
    """Return an elementwise node's constant for each of its results.

    Raises:
        ReplayError: a divisor is zero.
    """
    if op.kind == "div" and not parameter.all():
        raise ReplayError(f"node {node.name!r} divides by {op.parameter!r}, which holds a zero")
    return np.broadcast_to(parameter, node.shape).ravel()


def _elementwise(node: Node, op: Elementwise, parameter: Array, state: Exact) -> Exact:
    constants = constants_of(node, op, parameter)
    if op.kind == "add":
        return _added(state, constants)
    if op.kind == "sub":
        return _added(state, -constants)
    if op.kind == "rsub":
        negated = [-v for v in state.values]
        return _added(Exact(negated, state.exponent, state.denominator), constants)
    if op.kind == "mul":
        return _multiplied(state, constants)
    return _divided(state, *dyadic(constants))


def _pool(op: Pool | AdaptivePool, before: Shape, after: Shape, state: Exact) -> Exact:
    rows, divisors = pool_rows(op, before, after)
    values = state.values
    if op.kind == "max":
        highest = [max([values[i] for i in row]) for row in rows]
        return Exact(highest, state.exponent, state.denominator)
    sums = [sum([values[i] for i in row], flint.fmpz(0)) for row in rows]
    return _divided(Exact(sums, state.exponent, state.denominator), divisors, 0)


def _activation(op: Activation, state: Exact) -> Exact:
    if op.kind == "relu":
        values = [v if v > 0 else flint.fmpz(0) for v in state.values]
        return Exact(values, state.exponent, state.denominator)
    if op.kind == "leaky_relu":
        (slope,), exponent = dyadic(np.array([op.slope]))
        slope, exponent = slope << max(exponent, 0), min(exponent, 0)
        values = [v << -exponent if v > 0 else v * slope for v in state.values]
        return Exact(values, state.exponent + exponent, state.denominator)
    if op.kind == "clamp":
        return _clamped(state, op.low, op.high)
    # hardsigmoid(z) = clamp(z + 3, 0, 6) / 6
    shifted = _clamped(_added(state, np.full(len(state.values), 3.0)), 0.0, 6.0)
    gate = _divided(shifted, [6] * len(state.values), 0)
    if op.kind == "hardsigmoid":
        return gate
    products = [v * g for v, g in zip(state.values, gate.values, strict=True)]
    exponent = state.exponent + gate.exponent
    return Exact(products, exponent, state.denominator * gate.denominator)


def _quantized(op: Quantize, state: Exact) -> Exact:
    """Round ``h / scale`` to an integer, ties to even: a quotient of integers."""
    (scale,), exponent = dyadic(np.array([op.scale]))
    up, down = max(state.exponent - exponent, 0), max(exponent - state.exponent, 0)
    divisor = (state.denominator * scale) << down
    values = []
    for value in state.values:
        quotient, rest = divmod(value << up, divisor)
        if 2 * rest > divisor or (2 * rest == divisor and quotient % 2 == 1):
            quotient += 1
        steps = min(max(quotient + op.zero_point, op.low), op.high) - op.zero_point
        values.append(flint.fmpz(steps * scale))
    return Exact(values, exponent, flint.fmpz(1))


def _clamped(state: Exact, low: float, high: float) -> Exact:
    ends, exponent = dyadic(np.array([low, high]))
    base = min(exponent, state.exponent)
    least, most = (end * (state.denominator << (exponent - base)) for end in ends)
    up = state.exponent - base
    values = [min(max(v << up, least), most) for v in state.values]
    return Exact(values, base, state.denominator)

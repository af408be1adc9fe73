"""Activations of balls: each encloses the exact value at the working precision.

Arguments may lie anywhere in float64's range and beyond, where arb's own functions give up or
lose all relative accuracy; the forms here do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flint

from paramrob.models.network import Activation
from paramrob.replay_numbers import Number, exponential, sigmoid, tanh


def activate_ball(op: Activation, z: Number) -> Number:
    """Enclose an activation of a ball."""
    if op.kind == "leaky_relu":
        return _pieces(z, lambda t: flint.arb(op.slope) * t)
    if op.kind == "elu":
        return _pieces(z, lambda t: flint.arb(op.alpha) * _expm1(t))
    if op.kind == "clamp":
        return z.max(flint.arb(op.low)).min(flint.arb(op.high))
    if op.kind == "softplus":
        return softplus(z * flint.arb(op.beta)) / flint.arb(op.beta)
    return _PLAIN[op.kind](z)


def _pieces(z: Number, left: Callable[[Number], Number]) -> Number:
    """Enclose ``z`` right of 0 and ``left(z)``, which is monotone and 0 at 0, left of it."""
    if z > 0:
        return z
    if z <= 0:
        return left(z)
    return left(z.lower()).union(z.max(flint.arb(0)))


def _expm1(z: Number) -> Number:
    """Enclose ``exp(z) - 1`` of a ball that is not positive."""
    return z.expm1() if z > -1 else exponential(z) - 1


def softplus(z: Number) -> Number:
    """Enclose ``log(1 + exp(z))`` of a ball, to a relative accuracy also where it is tiny."""
    if z > 0:
        return z + exponential(-z).log1p()
    if z <= 0:
        return exponential(z).log1p()
    if not z.is_finite():
        return flint.arb(0, math.inf)
    return softplus(z.lower()).union(softplus(z.upper()))


def gelu(z: Number) -> Number:
    """Enclose ``z Phi(z) = z/2 erfc(-z / sqrt(2))`` of a ball."""
    return z * (-z / flint.arb(2).sqrt()).erfc() / 2


def gelu_tanh(z: Number) -> Number:
    """Enclose ``z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))``, the decimal taken exactly."""
    cubic = z * (1 + flint.arb(flint.fmpq(44715, 10**6)) * z**2)
    return z * sigmoid((8 / flint.arb.pi()).sqrt() * cubic)


def hardsigmoid(z: Number) -> Number:
    """Enclose ``clamp(z/6 + 1/2, 0, 1)`` of a ball."""
    return (z + 3).max(flint.arb(0)).min(flint.arb(6)) / 6


_PLAIN: dict[str, Callable[[Number], Number]] = {
    "relu": lambda z: z.max(flint.arb(0)),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "silu": lambda z: z * sigmoid(z),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "hardsigmoid": hardsigmoid,
    "hardswish": lambda z: z * hardsigmoid(z),
}


def order(point: Number) -> float:
    """Return a sort key: any shift of a softmax is correct, a large one keeps exp small."""
    value = float(point)
    return -math.inf if math.isnan(value) else value

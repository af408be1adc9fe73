"""Rational enclosures of the logistic function, its inverse and tanh, outward to about 2**-120."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import flint

from paramrob.replay_numbers import Number, sigmoid, softmax, tanh, to_arb, to_fmpq

PRECISION = 128

# A sigmoid of -1e20 has an exponent of 67 bits: its numerator would fill the memory.
_TINY = Fraction(1, 1 << 4096)
_TINY_BALL = flint.arb((1, -4096))

Enclosure = tuple[Fraction, Fraction]


def rational_ends(number: Number) -> Enclosure:
    """Return exact rationals around an ``fmpq`` (itself twice) or a finite ball (its ends)."""
    if isinstance(number, flint.fmpq):
        value = Fraction(int(number.p), int(number.q))
        return value, value
    return _dyadic(number.lower(), -1), _dyadic(number.upper(), 1)


def _dyadic(point: Number, towards: int) -> Fraction:
    """Return an exact ball's value; one too tiny to write out is moved up (1) or down (-1)."""
    if abs(point) < _TINY_BALL:
        if point == 0:
            return Fraction(0)
        return Fraction(0) if (point > 0) == (towards < 0) else towards * _TINY
    mantissa, exponent = point.man_exp()
    mantissa, exponent = int(mantissa), int(exponent)
    return Fraction(mantissa << exponent) if exponent >= 0 else Fraction(mantissa, 1 << -exponent)


@lru_cache(maxsize=4096)
def logit_ends(level: Fraction) -> Enclosure:
    """Enclose ``log(level / (1 - level))`` for a level strictly between 0 and 1; 1/2 gives 0, 0."""
    if level == Fraction(1, 2):
        return Fraction(0), Fraction(0)
    with flint.ctx.workprec(PRECISION):
        return rational_ends(to_arb(to_fmpq(level / (1 - level))).log())


def sigmoid_ends(z: Number) -> Enclosure:
    """Enclose ``1 / (1 + exp(-z))`` of a rational or a ball."""
    with flint.ctx.workprec(PRECISION):
        low, high = rational_ends(sigmoid(to_arb(z)))
    return max(low, Fraction(0)), min(high, Fraction(1))


def activation_ends(
    kind: str, lower: Fraction | None, upper: Fraction | None
) -> tuple[Fraction, Fraction]:
    """Enclose the sigmoid or tanh of everything between two rationals (``None``: unbounded)."""
    function = sigmoid if kind == "sigmoid" else tanh
    least, most = Fraction(0 if kind == "sigmoid" else -1), Fraction(1)
    with flint.ctx.workprec(PRECISION):
        if lower is not None:
            least = max(least, _coarse(function(to_arb(to_fmpq(lower))), -1))
        if upper is not None:
            most = min(most, _coarse(function(to_arb(to_fmpq(upper))), 1))
    return least, most


def _coarse(ball: Number, towards: int) -> Fraction:
    """Round an end to a multiple of 2**-60: a bound need not be sharper."""
    scaled = rational_ends(ball)[towards > 0] * (1 << 60)
    return Fraction(math.floor(scaled) if towards < 0 else math.ceil(scaled), 1 << 60)


def softmax_ends(scores: Sequence[Number]) -> list[Enclosure]:
    """Enclose the softmax of rationals or balls."""
    with flint.ctx.workprec(PRECISION):
        balls = [to_arb(score) for score in scores]
        top = max(float(b.mid()) for b in balls)
        ends = [rational_ends(p) for p in softmax([b - top for b in balls])]
    return [(max(low, Fraction(0)), min(high, Fraction(1))) for low, high in ends]

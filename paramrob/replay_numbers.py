"""Exact numbers for replay: rationals, balls, and their outward rounding to float64.

A number is a rational (``fmpq``) as long as only ``+ - * /`` and ReLU made it, and an arb ball
from the first exponential on. Balls depend on the working precision ``flint.ctx.prec``, which
callers set with ``flint.ctx.workprec``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import flint
import numpy as np

from paramrob.exact import float_above, float_below
from paramrob.models.network import Array
from paramrob.verdict import Interval

Number: TypeAlias = Any
"""``flint.fmpq`` (exact) or ``flint.arb`` (a ball that encloses); flint has no type stubs."""

RELATIVE_BITS = 70
_ABSOLUTE = flint.arb((1, -200))
# beyond it exp is far below every accuracy asked for, and arb's own exp gives up
_FAR = 2**40


def dyadic(values: Array) -> tuple[list[int], int]:
    """Return integers ``m`` and one exponent ``e`` with ``values.flat[i] == m[i] * 2**e``."""
    mantissa, exponent = np.frexp(values.ravel())
    whole = (mantissa * 2.0**53).astype(np.int64)
    present = whole != 0
    if not present.any():
        return [0] * whole.size, 0
    # an odd mantissa keeps float32 values, which are short, short
    trailing = np.where(present, np.frexp((whole & -whole).astype(np.float64))[1] - 1, 0)
    whole >>= trailing
    exponent = exponent.astype(np.int64) - 53 + trailing
    base = int(exponent[present].min())
    shift = np.where(present, exponent - base, 0)
    if int((53 - trailing + shift).max()) <= 62:
        return (whole << shift).tolist(), base
    return [m << s for m, s in zip(whole.tolist(), shift.tolist(), strict=True)], base


def to_fmpq(value: Fraction) -> Number:
    """Return the rational as flint's."""
    return flint.fmpq(value.numerator, value.denominator)


def to_arb(number: Number) -> Number:
    """Return a ball around the number, at the working precision."""
    return number if isinstance(number, flint.arb) else flint.arb(number)


def greater(a: Number, b: Number) -> bool | None:
    """Whether ``a > b``; ``None`` where the balls cannot tell."""
    if isinstance(a, flint.fmpq) and isinstance(b, flint.fmpq):
        return bool(a > b)
    a, b = to_arb(a), to_arb(b)
    if a > b:
        return True
    return False if a <= b else None


def maximum(numbers: Sequence[Number]) -> Number:
    """Return (an enclosure of) the largest number."""
    if all(isinstance(n, flint.fmpq) for n in numbers):
        return max(numbers)
    best = to_arb(numbers[0])
    for number in numbers[1:]:
        best = best.max(to_arb(number))
    return best


def is_accurate(number: Number) -> bool:
    """Whether the number is exact, or known to 70 bits, or to an absolute 2**-200."""
    if isinstance(number, flint.fmpq):
        return True
    if not number.is_finite():
        return False
    return bool(number.rel_accuracy_bits() >= RELATIVE_BITS or number.rad() < _ABSOLUTE)


def _tail() -> Number:
    """Return a ball that holds every number between 0 and exp(-_FAR)."""
    return flint.arb(0).union(flint.arb((1, -_FAR)))


def exponential(z: Number) -> Number:
    """Enclose exp of a ball; infinite where the ball reaches too far up."""
    if z < -_FAR:
        return _tail()
    if z < _FAR:
        # a ball that also reaches far down: exp is monotone
        return z.exp() if z > -2 * _FAR else z.upper().exp().union(flint.arb(0))
    return flint.arb(0, math.inf)


def sigmoid(z: Number) -> Number:
    """Enclose 1/(1+exp(-z)) of a ball, to a relative accuracy also where it is tiny."""
    z = to_arb(z)
    if z < 0:
        e = exponential(z)
        result = e / (1 + e)
    else:
        result = 1 / (1 + exponential(-z))
    return result if result.is_finite() else flint.arb(0.5, 0.5)


def tanh(z: Number) -> Number:
    """Enclose tanh of a ball."""
    result = z.tanh()
    return result if result.is_finite() else flint.arb(0, 1)


def softmax(differences: Sequence[Number]) -> list[Number]:
    """Enclose the softmax of balls that were shifted so that the largest is about 0."""
    powers = [exponential(to_arb(d)) for d in differences]
    total = sum(powers[1:], powers[0])
    shares = [p / total for p in powers]
    return [s if s.is_finite() else flint.arb(0.5, 0.5) for s in shares]


def _point_below(point: Number) -> float:
    """Return a float64 at most one unit below the largest that is ``<= point`` (an exact arb)."""
    nearest = float(point)
    if math.isinf(nearest):
        return nearest if nearest < 0 else math.nextafter(math.inf, 0.0)
    return nearest if flint.arb(nearest) <= point else math.nextafter(nearest, -math.inf)


def outward(number: Number) -> Interval:
    """Return the number's enclosure with ends rounded outward to float64."""
    if isinstance(number, flint.fmpq):
        value = Fraction(int(number.p), int(number.q))
        return Interval(float_below(value), float_above(value))
    if not number.is_finite():
        return Interval(-math.inf, math.inf)
    return Interval(_point_below(number.lower()), -_point_below(-number.upper()))


def clipped(interval: Interval, low: float, high: float) -> Interval:
    """Return the part of an enclosure that lies in ``[low, high]``, where the number must lie."""
    return Interval(max(interval.lower, low), min(interval.upper, high))

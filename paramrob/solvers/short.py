"""Short rationals near given ones: Z3's simplex slows down as its numbers grow."""

from __future__ import annotations

import math
from fractions import Fraction

from paramrob.solvers.ranges import Range

_BITS = (12, 24, 48, 96)
_MODEL_BITS = 240
"""Values of a candidate are cut to about so many digits; it is only a candidate."""


def largest(known: Range) -> Fraction | None:
    """Return the largest magnitude in a range, if it has one."""
    return None if known[0] is None or known[1] is None else max(abs(known[0]), abs(known[1]))


def short(value: Fraction, slip: Fraction) -> Fraction:
    """Return a short number within ``slip`` of a value, itself if that is shorter."""
    step = Fraction(1, 2 ** max(0, math.ceil(-math.log2(slip))))
    short = round(value / step) * step
    return short if short.denominator < value.denominator else value


def rounded_up(value: Fraction) -> Fraction:
    """Return a number of about eight binary digits at or above a positive one."""
    step = Fraction(2) ** (math.floor(math.log2(value)) - 8)
    return math.ceil(value / step) * step


def nearby(left: Fraction, right: Fraction, result: Fraction) -> tuple[Fraction, Fraction] | None:
    """Return short numbers near the factors whose tangent plane excludes the product's value."""
    above = result > left * right
    for bits in _BITS:
        step = Fraction(2) ** -bits
        a = left // step * step
        # Where (x - a)(y - b) is not positive, the plane is an upper bound of the product.
        b = -(-right // step) * step if above else right // step * step
        plane = b * left + a * right - a * b
        if (result > plane) if above else (result < plane):
            return a, b
    return None


def shortened(value: Fraction) -> Fraction:
    """Return a value, rounded where it is very long."""
    if value.denominator.bit_length() <= _MODEL_BITS:
        return value
    step = Fraction(2) ** -_MODEL_BITS
    return round(value / step) * step

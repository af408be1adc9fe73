"""Numbers as a person reads them, never on the wrong side of what was proved."""

from __future__ import annotations

import math
import sys
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

from paramrob.verdict import Interval

_LEAST_DIGITS = 4
_MOST_DIGITS = 17


def rounded_down(value: float, digits: int) -> str:
    """Return ``value`` in ``digits`` significant digits, rounded towards minus infinity."""
    return _spelled(value, digits, ROUND_FLOOR)


def rounded_up(value: float, digits: int) -> str:
    """Return ``value`` in ``digits`` significant digits, rounded towards plus infinity."""
    return _spelled(value, digits, ROUND_CEILING)


def nearest_text(value: float, digits: int = 10) -> str:
    """Return ``value`` to the nearest in at most ``digits`` significant digits."""
    return _spelled(value, digits, ROUND_HALF_EVEN)


def bracket_texts(lower: float, upper: float) -> tuple[str, str]:
    """Return both ends with digits enough to show how close they are.

    The lower end is rounded down and the upper end up, so what is printed is still a bracket.
    """
    digits = _LEAST_DIGITS
    size = max(abs(lower), abs(upper))
    if math.isfinite(size) and upper > lower:
        # Two digits of the width: the printed bracket is hardly wider than the real one.
        width = min(upper - lower, sys.float_info.max)
        digits = math.ceil(math.log10(size) - math.log10(width)) + 2
    elif math.isfinite(size):
        digits = 10
    digits = min(max(digits, _LEAST_DIGITS), _MOST_DIGITS)
    return rounded_down(lower, digits), rounded_up(upper, digits)


def middle(interval: Interval) -> float:
    """Return the float64 that stands for a proved enclosure in a report."""
    if interval.lower == interval.upper:
        return interval.lower
    return interval.lower + (interval.upper - interval.lower) / 2


def _spelled(value: float, digits: int, rounding: str) -> str:
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    exact = Context(prec=digits, rounding=rounding).create_decimal(Decimal(value))
    if exact == 0:
        return "0"
    # What is only a rounding away from a short decimal reads better short.
    short = exact.normalize(Context(prec=digits))
    text = format(short, "f") if -6 < short.adjusted() < 12 else format(short, "E")
    return text.replace("E", "e").replace("e+", "e")

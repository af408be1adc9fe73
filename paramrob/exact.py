"""Exact decimals and their outward or inward rounding to float64.

A number that a person types (``--delta 0.01``) means that decimal, not the nearest double.
It is kept as a :class:`fractions.Fraction` and rounded only where a proof needs a float: away
from the set for proofs, into the set for witnesses.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from paramrob.errors import InputError

_LONGEST = 1000
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\Z", re.ASCII)
_LARGEST = Fraction(math.nextafter(math.inf, 0.0))


def parse_decimal(text: str | int | float | Fraction, what: str = "number") -> Fraction:
    """Return the exact value of a decimal.

    A ``str`` is the decimal that it spells. A ``float`` is taken as its shortest decimal
    (``0.1`` means one tenth), which is what the person who typed it meant.

    Raises:
        InputError: the text is no finite decimal, or its magnitude is beyond float64.
    """
    if isinstance(text, bool):
        raise InputError(f"{what}: expected a number, got {text!r}")
    if isinstance(text, (Fraction, int)):
        value = Fraction(text)
    else:
        spelled = repr(float(text)) if isinstance(text, float) else str(text).strip()
        if len(spelled) > _LONGEST or not _DECIMAL.match(spelled):
            shown = spelled if len(spelled) <= 60 else spelled[:60] + "..."
            raise InputError(f"{what}: {shown!r} is not a finite decimal number; write e.g. 0.01")
        value = Fraction(spelled)
    if abs(value) > _LARGEST:
        raise InputError(f"{what}: the magnitude is beyond float64; give at most 1.797e308")
    return value


def float_below(value: Fraction) -> float:
    """Return the largest float64 ``<= value`` (``-inf`` below the range)."""
    try:
        nearest = float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.nextafter(math.inf, 0.0)
    if math.isinf(nearest):
        return nearest if nearest < 0 else math.nextafter(math.inf, 0.0)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)


def float_above(value: Fraction) -> float:
    """Return the smallest float64 ``>= value`` (``inf`` above the range)."""
    return 0.0 - float_below(-value)  # a zero keeps no minus sign


def decimal_text(value: Fraction) -> str:
    """Return the shortest decimal spelling of ``value`` that is exact, else its fraction."""
    denominator = value.denominator
    twos = fives = 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    places = max(twos, fives)
    if denominator != 1 or places > 40:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    whole, part = (digits[:-places], digits[-places:]) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + (f".{part}" if part else "")

"""Decimals and their outward rounding, against exact rationals."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paramrob.errors import InputError
from paramrob.exact import decimal_text, float_above, float_below, parse_decimal

MAX = math.nextafter(math.inf, 0.0)
TINY = math.ulp(0.0)


def rationals() -> st.SearchStrategy[Fraction]:
    """Rationals of every magnitude, near floats and far from them, beyond their range too."""
    scaled = st.builds(
        lambda n, d, e: Fraction(n, d) * Fraction(10) ** e,
        st.integers(-(10**20), 10**20),
        st.integers(1, 10**20),
        st.integers(-345, 320),
    )
    nearby = st.builds(
        lambda x, n, e: Fraction(x) + Fraction(n) * Fraction(10) ** e,
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-3, 3),
        st.integers(-330, 300),
    )
    return scaled | nearby


@settings(deadline=None)
@given(rationals())
def test_float_below_is_the_largest_float_below(value: Fraction) -> None:
    below = float_below(value)
    assert below < math.inf
    assert below == -math.inf or Fraction(below) <= value
    above = math.nextafter(below, math.inf)
    assert above == math.inf or Fraction(above) > value


@settings(deadline=None)
@given(rationals())
def test_float_above_is_the_smallest_float_above(value: Fraction) -> None:
    above = float_above(value)
    assert above > -math.inf
    assert above == math.inf or Fraction(above) >= value
    below = math.nextafter(above, -math.inf)
    assert below == -math.inf or Fraction(below) < value


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_their_own_rounding(x: float) -> None:
    assert float_below(Fraction(x)) == float_above(Fraction(x)) == x


@pytest.mark.parametrize(
    ("value", "below", "above"),
    [
        (Fraction(10) ** 400, MAX, math.inf),
        (-(Fraction(10) ** 400), -math.inf, -MAX),
        (Fraction(MAX) + 1, MAX, math.inf),
        (-Fraction(MAX) - 1, -math.inf, -MAX),
        (Fraction(1, 10**400), 0.0, TINY),
        (-Fraction(1, 10**400), -TINY, 0.0),
    ],
)
def test_the_ends_of_the_range(value: Fraction, below: float, above: float) -> None:
    assert float_below(value) == below
    assert float_above(value) == above


def test_zero_has_no_sign() -> None:
    assert math.copysign(1.0, float_above(Fraction(0))) == 1.0
    assert math.copysign(1.0, float_above(-Fraction(1, 10**400))) == 1.0


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=30))
def test_a_typed_decimal_is_that_decimal(value: Decimal) -> None:
    assume(len(str(value)) < 1000)
    assert parse_decimal(str(value)) == Fraction(value)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_its_shortest_decimal(x: float) -> None:
    assert parse_decimal(x) == Fraction(repr(x))
    assert float(parse_decimal(x)) == x


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", Fraction(1, 100)),
        (" 1e-2\n", Fraction(1, 100)),
        ("+.5", Fraction(1, 2)),
        ("-5.", Fraction(-5)),
        (0.1, Fraction(1, 10)),
        (np.float64(0.1), Fraction(1, 10)),
        (np.float32(0.1), Fraction(1, 10)),
        (3, Fraction(3)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_what_is_accepted(text: float | str | Fraction, value: Fraction) -> None:
    assert parse_decimal(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nan",
        "inf",
        "-inf",
        "1/3",
        "0x10",
        "1_000",
        "1e",
        "1,5",
        "1 2",
        "1e9999",
        "1e400",
        "1e-99999",
        "٣",
        "0." + "1" * 5000,
        "9" * 400,
        math.nan,
        math.inf,
        True,
        10**400,
        Fraction(10) ** 400,
    ],
)
def test_what_is_refused(text: float | str | Fraction) -> None:
    with pytest.raises(InputError, match=r"^delta: .*; (write|give)|^delta: expected"):
        parse_decimal(text, "delta")


@settings(deadline=None)
@given(rationals())
def test_decimal_text_is_exact(value: Fraction) -> None:
    assert Fraction(decimal_text(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(1, 100), "0.01"),
        (Fraction(-5, 4), "-1.25"),
        (Fraction(3), "3"),
        (Fraction(0), "0"),
        (Fraction(100), "100"),
        (Fraction(1, 3), "1/3"),
        (Fraction(1, 2**50), f"1/{2**50}"),
    ],
)
def test_decimal_text(value: Fraction, text: str) -> None:
    assert decimal_text(value) == text

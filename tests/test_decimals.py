from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramrob.decimals import bracket_texts, middle, nearest_text, rounded_down, rounded_up
from paramrob.verdict import Interval

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, st.integers(1, 17))
def test_directed_rounding_stays_on_its_side(value: float, digits: int) -> None:
    below, above = Fraction(rounded_down(value, digits)), Fraction(rounded_up(value, digits))
    assert below <= Fraction(value) <= above
    assert above - below <= abs(Fraction(value)) * Fraction(10) ** (1 - digits)


@given(FINITE, FINITE)
def test_a_printed_bracket_encloses_the_real_one(a: float, b: float) -> None:
    lower, upper = bracket_texts(min(a, b), max(a, b))
    assert Fraction(lower) <= Fraction(min(a, b))
    assert Fraction(max(a, b)) <= Fraction(upper)


@pytest.mark.parametrize(
    ("ends", "texts"),
    [
        ((0.057525714, 0.057526712), ("0.05752571", "0.05752672")),
        ((0.0, 0.0), ("0", "0")),
        ((0.0, 1e-6), ("0", "1e-6")),
        ((0.25, math.inf), ("0.25", "infinity")),
        ((0.5, 0.5), ("0.5", "0.5")),
    ],
)
def test_a_bracket_shows_how_close_it_is(ends: tuple[float, float], texts: tuple[str, str]) -> None:
    assert bracket_texts(*ends) == texts


def test_an_enclosure_is_shown_by_a_number_in_it() -> None:
    assert middle(Interval(0.1, 0.1)) == 0.1
    assert 0.1 <= middle(Interval(0.1, 0.2)) <= 0.2
    assert math.isinf(middle(Interval(1.0, math.inf)))
    assert nearest_text(1 / 3) == "0.3333333333"
    assert nearest_text(1e300) == "1e300"

"""Lines bound their curves everywhere they claim to, and exclude the point that asked for them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.solvers.curves import CurveName, cut, ends

CURVES: st.SearchStrategy[CurveName] = st.sampled_from(["sigmoid", "exp"])
PLACES = st.floats(-30, 30).map(Fraction)
GAPS = st.floats(-12, 0).map(lambda e: Fraction(10**e))
SHARES = st.lists(st.fractions(0, 1), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(CURVES, PLACES, GAPS, st.booleans(), SHARES)
def test_a_cut_bounds_the_curve_and_excludes_the_point(
    curve: CurveName, a: Fraction, gap: Fraction, above: bool, shares: list[Fraction]
) -> None:
    low, high = ends(curve, a, 120)
    t = high + gap if above else low - gap
    line = cut(curve, a, t)
    if line is None:
        assert gap < 10**-9 or abs(a) > 15
        return
    assert line.at(a) < t if above else line.at(a) > t
    # At most half of the distance is left.
    assert abs(line.at(a) - (high if above else low)) <= gap * Fraction(51, 100)
    left = Fraction(-40) if line.lower is None else line.lower
    right = Fraction(40) if line.upper is None else line.upper
    assert left <= a <= right
    for share in (Fraction(0), *shares, Fraction(1)):
        x = left + share * (right - left)
        bottom, top = ends(curve, x, 200)
        slack = Fraction(1, 2**180) * max(Fraction(1), top)
        assert line.at(x) >= bottom - slack if above else line.at(x) <= top + slack


@given(CURVES, PLACES)
def test_a_point_on_the_curve_is_not_cut(curve: CurveName, a: Fraction) -> None:
    assert cut(curve, a, sum(ends(curve, a), Fraction(0)) / 2) is None


@pytest.mark.parametrize("a", [0.0, 5e-324, -1e-200, 599.0, -599.0, 1e9, -1e9, 1e300])
@pytest.mark.parametrize("gap", [1.0, 1e-12])
def test_extreme_places(a: float, gap: float) -> None:
    low, high = ends("sigmoid", Fraction(a))
    tiny = Fraction(1, 2**90)
    assert -tiny <= low <= high <= 1 + tiny
    for t in (high + Fraction(gap), low - Fraction(gap)):
        line = cut("sigmoid", Fraction(a), t)
        assert line is None or (line.at(Fraction(a)) < t) == (t > high)

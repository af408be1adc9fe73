"""Input boxes and points: outward ends enclose, inward ends lie inside, exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paramrob.domain import Box, Point, box_from_floats
from paramrob.errors import InputError

ENDS = st.builds(
    lambda n, e: Fraction(n) * Fraction(10) ** e,
    st.integers(-(10**17), 10**17),
    st.integers(-337, 283),
)


@settings(deadline=None)
@given(st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=4))
def test_outer_encloses_and_inner_lies_inside(pairs: list[tuple[Fraction, Fraction]]) -> None:
    ends = [(min(pair), max(pair)) for pair in pairs]
    try:
        box = Box(tuple(low for low, _ in ends), tuple(high for _, high in ends))
    except InputError:
        assume(False)
    outer, inner = box.outer(), box.inner()
    for i, (low, high) in enumerate(ends):
        assert Fraction(float(outer[0][i])) <= low
        assert Fraction(float(outer[1][i])) >= high
        assert outer[0][i] <= inner[0][i] <= inner[1][i] <= outer[1][i]
        if low != high:
            assert low <= Fraction(float(inner[0][i]))
            assert Fraction(float(inner[1][i])) <= high
    for x in (*inner, inner[0] / 2 + inner[1] / 2):
        assert box.contains(np.clip(x, *inner))


@settings(deadline=None)
@given(ENDS)
def test_one_number_is_met_by_its_nearest_float_only(value: Fraction) -> None:
    box = Box((value,), (value,))
    (x,), _ = box.inner()
    assert x == float(value)
    assert box.contains(np.array([x]))
    assert not box.contains(np.array([math.nextafter(x, math.inf)]))
    assert not box.contains(np.array([math.nextafter(x, -math.inf)]))


def test_contains_is_exact() -> None:
    box = Box((Fraction(1, 10),), (Fraction(3, 10),))
    assert Fraction(0.1) > Fraction(1, 10)
    assert box.contains(np.array([0.1]))
    assert not box.contains(np.array([math.nextafter(0.1, 0)]))
    assert Fraction(0.3) < Fraction(3, 10)
    assert box.contains(np.array([0.3]))
    assert not box.contains(np.array([math.nextafter(0.3, 1)]))
    assert not box.contains(np.array([math.nan]))
    assert not box.contains(np.array([math.inf]))


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        ([Fraction(1)], [Fraction(0)], "swap them"),
        ([Fraction(1)], [], "lower ends"),
        ([Fraction(1, 10**400)], [Fraction(2, 10**400)], "widen the box"),
        ([Fraction(0)], [Fraction(10) ** 400], "beyond float64"),
        ([-(Fraction(10) ** 400)], [Fraction(0)], "beyond float64"),
        ([Fraction(10) ** 400], [Fraction(10) ** 400], "beyond float64"),
        ([Fraction(10) ** 401], [Fraction(10) ** 400], "beyond float64"),
    ],
)
def test_boxes_that_are_refused(lower: list[Fraction], upper: list[Fraction], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Box(tuple(lower), tuple(upper))


def test_boxes_from_floats() -> None:
    box = box_from_floats([0.1, -1.0], [0.2, -1.0])
    assert box.lower == (Fraction(0.1), Fraction(-1))
    np.testing.assert_array_equal(box.outer(), box.inner())
    assert (box.size, box.scope) == (2, "global")
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="finite"):
            box_from_floats([0.0], [bad])


def test_zero_ends_have_no_sign() -> None:
    ends = np.concatenate(Box((Fraction(0),) * 2, (Fraction(0), Fraction(1))).outer())
    assert not np.signbit(ends).any()


def test_points() -> None:
    point = Point((0.1, -2.0))
    assert (point.size, point.scope) == (2, "local")
    np.testing.assert_array_equal(point.outer(), [[0.1, -2.0]] * 2)
    np.testing.assert_array_equal(point.inner(), point.outer())
    assert point.contains(np.array([0.1, -2.0]))
    assert not point.contains(np.array([0.1, -2.0000000000000004]))
    for bad in (math.nan, -math.inf):
        with pytest.raises(InputError, match="finite"):
            Point((bad,))

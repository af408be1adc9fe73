"""Rational enclosures against closed forms and much higher precision."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramrob.encoders.enclose import (
    activation_ends,
    logit_ends,
    rational_ends,
    sigmoid_ends,
    softmax_ends,
)
from tests.encoders.forward import rational

LEVELS = st.fractions(0, 1, max_denominator=10**9).filter(lambda v: 0 < v < 1)


def exact(ends: tuple[Fraction, Fraction], truth: Any) -> bool:
    """Whether a ball lies between two rationals."""
    with flint.ctx.workprec(600):
        return bool(rational(ends[0]) <= truth) and bool(truth <= rational(ends[1]))


@given(LEVELS)
def test_a_logit_is_enclosed_tightly(level: Fraction) -> None:
    ends = logit_ends(level)
    with flint.ctx.workprec(600):
        assert level == Fraction(1, 2) or exact(
            ends, (flint.arb(rational(level / (1 - level)))).log()
        )
    assert ends[1] - ends[0] <= Fraction(1, 1 << 90)


def test_one_half_is_exact() -> None:
    assert logit_ends(Fraction(1, 2)) == (Fraction(0), Fraction(0))


@given(st.fractions(-60, 60))
def test_a_sigmoid_and_a_tanh_are_enclosed(z: Fraction) -> None:
    with flint.ctx.workprec(600):
        ball = flint.arb(rational(z))
        sigmoid, tanh = 1 / (1 + (-ball).exp()), ball.tanh()
    assert exact(sigmoid_ends(rational(z)), sigmoid)
    assert exact(activation_ends("sigmoid", z, z), sigmoid)
    assert exact(activation_ends("tanh", z, z), tanh)


@pytest.mark.parametrize("size", ["1e3", "1e20", "1e300"])
def test_far_out_an_end_is_written_out_in_few_digits(size: str) -> None:
    z = Fraction(size)
    for low, high in (
        activation_ends("sigmoid", -z, -z),
        activation_ends("sigmoid", z, z),
        activation_ends("tanh", -z, z),
        sigmoid_ends(rational(-z)),
        softmax_ends([rational(-z), rational(z)])[0],
    ):
        assert -1 <= low < high <= 1
        assert max(low.denominator, high.denominator).bit_length() < 10**4
    assert sigmoid_ends(rational(-Fraction("1e20")))[0] == 0


def test_a_tiny_ball_keeps_its_sign_outward() -> None:
    tiny = flint.arb((1, -(10**12)))
    low, high = rational_ends(tiny)
    assert low == 0 < high
    low, high = rational_ends(-tiny)
    assert low < 0 == high
    assert rational_ends(flint.arb(0)) == (Fraction(0), Fraction(0))


def test_unbounded_and_infinite_ends() -> None:
    assert activation_ends("sigmoid", None, None) == (Fraction(0), Fraction(1))
    assert activation_ends("tanh", None, Fraction(0))[0] == -1


def test_a_softmax_is_enclosed() -> None:
    scores = [Fraction(1, 3), Fraction(-2), Fraction(5, 7)]
    with flint.ctx.workprec(600):
        powers = [flint.arb(rational(s)).exp() for s in scores]
        truth = [p / sum(powers[1:], powers[0]) for p in powers]
    for ends, share in zip(softmax_ends([rational(s) for s in scores]), truth, strict=True):
        assert exact(ends, share)

"""Bisection on delta against deciders whose critical value is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from paramrob.engine import Settings, estimate
from paramrob.errors import InputError
from paramrob.largest_delta import ASIDE, SHARE, Decide, largest_delta
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.verdict import INTERRUPTED, TIME_UP, Outcome, Verdict, Witness
from tests.corpus import LINE, at
from tests.known_problems import problem

F = Fraction
LABELS = problem(LINE, at(1.0), F(1, 4), "value", F(0), Property("labels"))
QUICK = Settings("z3", tolerance=1e-3)
WITNESS = Witness(input=LABELS.domain.inner()[0], parameters={})


def delta_of(subject: Problem) -> Fraction:
    weight = subject.uncertain.network.parameters["w0"]
    return subject.uncertain.perturbation.interval(weight).absolute


def knows(
    critical: Fraction, is_open: Callable[[Fraction], bool], asked: list[Fraction] | None = None
) -> Decide:
    """Return a decider that is right, or says nothing."""

    def decide(subject: Problem, seconds: float) -> Outcome:
        delta = delta_of(subject)
        if asked is not None:
            asked.append(delta)
        if is_open(delta):
            return Outcome(Verdict.UNKNOWN, "too hard")
        if delta < critical:
            return Outcome(Verdict.ROBUST)
        return Outcome(Verdict.NOT_ROBUST, witness=WITNESS)

    return decide


@hypothesis_settings(derandomize=True, database=None, deadline=None)
@given(st.fractions(F(1, 10**4), F(500), max_denominator=10**6))
def test_it_closes_in_on_the_critical_value(critical: Fraction) -> None:
    found = largest_delta(LABELS, QUICK, 60, knows(critical, lambda _: False))
    bracket = found.brackets["delta"]
    assert bracket.lower <= critical <= bracket.upper
    assert bracket.width <= 1e-3
    assert bracket.witness is WITNESS
    assert found.reason is None


@hypothesis_settings(derandomize=True, database=None, deadline=None)
@given(st.sampled_from([F(1, 128), F(1, 32), F(1, 2), F(5, 64), F(3, 8)]), st.integers(4, 9))
def test_what_is_open_at_the_critical_value_alone_does_not_stop_it(
    critical: Fraction, digits: int
) -> None:
    near = F(1, 10**digits)
    found = largest_delta(LABELS, QUICK, 60, knows(critical, lambda d: abs(d - critical) < near))
    assert found.reason is None
    assert found.brackets["delta"].width <= 1e-3
    assert found.brackets["delta"].lower <= critical <= found.brackets["delta"].upper


def test_what_stays_open_on_every_side_ends_it_with_the_reason() -> None:
    asked: list[Fraction] = []
    found = largest_delta(LABELS, QUICK, 60, knows(F(1, 2), lambda d: F(1, 4) < d < 1, asked))
    assert found.reason is not None
    assert "too hard" in found.reason
    assert found.brackets["delta"].lower <= 0.25
    assert found.brackets["delta"].upper >= 1
    assert len(set(asked)) == len(asked)
    nothing = largest_delta(LABELS, QUICK, 60, knows(F(1, 2), lambda _: True, asked := []))
    assert len(asked) == 1 + len(ASIDE)
    assert (nothing.brackets["delta"].lower, nothing.brackets["delta"].upper) == (0.0, math.inf)


def test_a_property_that_always_holds_ends_it() -> None:
    found = largest_delta(LABELS, QUICK, 60, knows(F(10**9), lambda _: False))
    assert found.reason is not None
    assert "every delta" in found.reason
    assert found.brackets["delta"].lower > 10**6
    assert found.brackets["delta"].upper == math.inf


def test_one_decision_has_a_share_of_what_is_left() -> None:
    given_seconds: list[float] = []

    def decide(subject: Problem, seconds: float) -> Outcome:
        given_seconds.append(seconds)
        return Outcome(Verdict.UNKNOWN, "too hard")

    largest_delta(LABELS, QUICK, 60, decide)
    assert given_seconds
    assert all(0 < seconds <= 60 / SHARE for seconds in given_seconds)
    none = largest_delta(LABELS, QUICK, 0, decide)
    assert none.reason == TIME_UP


def test_interrupts_leave_what_was_found() -> None:
    def interrupted(subject: Problem, seconds: float) -> Outcome:
        if delta_of(subject) > F(1, 4):
            raise KeyboardInterrupt
        return Outcome(Verdict.ROBUST, exact_encoding=False)

    found = largest_delta(LABELS, QUICK, 60, interrupted)
    assert found.reason == INTERRUPTED
    assert 0 < found.brackets["delta"].lower <= 0.25
    assert not found.exact_encoding

    def swallowed(subject: Problem, seconds: float) -> Outcome:
        return Outcome(Verdict.UNKNOWN, INTERRUPTED)

    found = largest_delta(LABELS, QUICK, 60, swallowed)
    assert found.reason is not None
    assert INTERRUPTED in found.reason


@pytest.mark.parametrize(("asked", "answered"), [("auto", "bounds"), ("z3", "z3")])
def test_the_outcome_names_the_engine(asked: str, answered: str) -> None:
    outcome = estimate(LABELS, "delta", Settings(asked, tolerance=1e-2, timeout=300))
    assert outcome.solver == answered
    assert outcome.brackets["delta"].lower <= 0.5 <= outcome.brackets["delta"].upper
    assert outcome.brackets["delta"].width <= 1e-2


def test_it_needs_a_property() -> None:
    with pytest.raises(InputError, match="for which property"):
        largest_delta(replace(LABELS, property=None), QUICK, 60, knows(F(1), lambda _: False))

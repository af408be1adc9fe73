"""Bisection believes proofs and replayed witnesses, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest

from paramrob.encoders.terms import Comparison, Constant, Query, Variable, scale
from paramrob.errors import SoundnessError
from paramrob.solvers.base import Answer, Capabilities, Solver, State, status_of
from paramrob.solvers.maximize import maximize
from paramrob.verdict import Bracket, Status, Witness
from tests.solvers.hand import query

BEST = Fraction(2, 7)
WITNESS = Witness(np.zeros(1), {}, replayed=True)
ASKED = query({"x": ("0", "1")}, {"q": scale(BEST, Variable("x"))}, logic="QF_LRA")


class Oracle(Solver):
    """Knows the supremum; may be told to err."""

    capabilities = Capabilities("icp", frozenset(), frozenset(), "direct", "everything")

    def __init__(self, lies: bool = False, hard: float = 0.0) -> None:
        self.lies, self.hard = lies, hard
        self.thresholds: list[Fraction] = []

    @classmethod
    def state(cls) -> State:
        return State("1", "")

    def close(self) -> None:
        pass

    def check(self, query: Query, budget: float, precision: float | None = None) -> Answer:
        wanted = query.constraints[-1]
        assert isinstance(wanted, Comparison)
        assert isinstance(wanted.right, Constant)
        threshold = wanted.right.value
        self.thresholds.append(threshold)
        if abs(threshold - BEST) < self.hard:
            return Answer(Status.UNKNOWN, reason="too hard; raise --timeout")
        if threshold > BEST and not self.lies:
            return Answer(Status.UNSAT)
        return Answer(Status.DELTA_SAT, {"x": Fraction(1)}, 1e-3)


def attained(model: Mapping[str, Fraction]) -> tuple[float, Witness] | None:
    return float(BEST * model["x"]) - 1e-12, WITNESS


def refused(model: Mapping[str, Fraction]) -> tuple[float, Witness] | None:
    return None


@pytest.mark.parametrize("hint", [None, Bracket(0.28571, 0.28572), Bracket(0.1, 0.9)])
@pytest.mark.parametrize("top", [1.0, float("inf")])
def test_both_ends_close_in(hint: Bracket | None, top: float) -> None:
    found = maximize(ASKED, Bracket(0.0, top), Oracle(), 10, 1e-6, attained, hint)
    assert found.bracket.width <= 1e-6
    assert found.bracket.lower <= BEST <= found.bracket.upper
    assert found.bracket.witness is WITNESS
    assert found.reason is None


def test_a_wrong_hint_costs_time_and_nothing_else() -> None:
    for hint in (Bracket(0.9, 0.95), Bracket(0.01, 0.02)):
        found = maximize(ASKED, Bracket(0.0, 1.0), Oracle(), 10, 1e-6, attained, hint)
        assert found.bracket.lower <= BEST <= found.bracket.upper
        assert found.bracket.width <= 1e-6


def test_candidates_that_fail_replay_leave_the_lower_end() -> None:
    oracle = Oracle()
    found = maximize(ASKED, Bracket(0.0, 1.0), oracle, 10, 1e-6, refused)
    # Each failing candidate is asked for once more, with less leeway.
    assert oracle.thresholds.count(Fraction(1, 4)) == 2
    assert found.bracket.lower == 0.0
    assert found.bracket.witness is None
    assert BEST <= found.bracket.upper <= BEST + Fraction(1, 10**5)
    assert found.reason is not None
    assert "did not survive exact replay" in found.reason
    assert "0.001" in found.reason


def test_a_sat_beyond_the_supremum_proves_nothing() -> None:
    found = maximize(ASKED, Bracket(0.0, 1.0), Oracle(lies=True), 10, 1e-6, attained)
    assert found.bracket.lower <= BEST
    assert found.bracket.upper == 1.0
    assert found.reason is not None


def test_what_is_too_hard_stays_open() -> None:
    hint = Bracket(float(BEST) - 1e-9, float(BEST) + 1e-9)
    found = maximize(ASKED, Bracket(0.0, 1.0), Oracle(hard=1e-3), 10, 1e-6, attained, hint)
    assert BEST < found.bracket.upper <= BEST + Fraction(1, 100)
    assert found.bracket.lower > 0.28
    assert found.reason == "too hard; raise --timeout"


def test_a_proof_against_a_witness_is_a_contradiction() -> None:
    def more(model: Mapping[str, Fraction]) -> tuple[float, Witness] | None:
        return 0.6, WITNESS

    with pytest.raises(SoundnessError, match="attains"):
        maximize(ASKED, Bracket(0.0, 1.0), Oracle(), 10, 1e-6, more)


def test_words_without_a_meaning_are_errors() -> None:
    assert status_of("z3", "unsat") is Status.UNSAT
    for word in ("UNSAT", "valid", "", None, 1, ["unsat"]):
        with pytest.raises(SoundnessError):
            status_of("dreal", word)

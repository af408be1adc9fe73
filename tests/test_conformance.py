"""Every installed engine on every problem of the corpus: it may leave some open, never be wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from paramrob import engine
from paramrob.engine import Settings
from paramrob.replay import refutes
from paramrob.solvers.registry import solver_class
from paramrob.verdict import Bracket, Outcome, Verdict
from tests.corpus import CORPUS, ROOM, Known

ENGINES = {
    "bounds": Settings("bounds", timeout=1.5, tolerance=1e-6),
    "z3": Settings("z3", encoding="aggregated", timeout=3.0, tolerance=1e-4),
    "z3 direct": Settings("z3", encoding="direct", timeout=1.0, tolerance=1e-3),
    "icp": Settings("icp", timeout=1.0, tolerance=1e-3),
    "dreal": Settings("dreal", timeout=1.0, tolerance=1e-3),
}
"""Settings by engine.

Each engine runs on the whole corpus but for ``z3 direct``, which decides at points and boxes of
no width: elsewhere parameters are multiplied with inputs, which Z3 often leaves open after its
whole time, and the formula is tried by ``icp`` as well. What takes an engine its whole time and
proves nothing has a short one.
"""


def _pairs() -> list[tuple[str, Known]]:
    pairs = [(name, known) for name in ENGINES for known in CORPUS.values()]
    return [(name, known) for name, known in pairs if name != "z3 direct" or _suits_direct(known)]


def _suits_direct(known: Known) -> bool:
    low, high = known.problem.domain.outer()
    return known.verdict is not None and bool((low == high).all())


PATIENT = 60.0
PAIRS = _pairs()


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What is imported when first used is not an engine's time."""
    subject = CORPUS["line, labels"].problem
    engine.decide(subject, Settings("bounds"))


def installed(solver: str) -> None:
    if solver != "bounds" and solver_class(solver).state().version is None:
        pytest.skip(f"{solver} is not installed")


@pytest.mark.parametrize(
    ("name", "known"), PAIRS, ids=[f"{name}: {known.name}" for name, known in PAIRS]
)
def test_engine(name: str, known: Known) -> None:
    settings = ENGINES[name]
    installed(settings.solver)
    must = name in known.decided_by
    # Who must answer has time enough on a slow machine too; it stops as soon as it knows.
    timeout = PATIENT if must else min(settings.timeout, 1.0)
    settings = replace(settings, timeout=timeout)
    if known.verdict is not None:
        check_verdict(known, engine.decide(known.problem, settings), must)
    else:
        outcome = engine.estimate(known.problem, known.quantity, settings)
        check_brackets(known, outcome, settings.tolerance if must else math.inf)


def check_verdict(known: Known, outcome: Outcome, must: bool) -> None:
    if outcome.verdict is Verdict.UNKNOWN:
        assert outcome.reason
        assert not must, f"left open: {outcome.reason}"
        return
    assert outcome.verdict is known.verdict
    if outcome.verdict is Verdict.NOT_ROBUST:
        assert outcome.witness is not None
        assert outcome.witness.replayed
        assert refutes(known.problem, outcome.witness)


def check_brackets(known: Known, outcome: Outcome, width: float) -> None:
    assert outcome.verdict is None
    assert set(outcome.brackets) == set(known.values)
    for name, value in known.values.items():
        bracket = outcome.brackets[name]
        assert bracket.lower - ROOM <= value <= bracket.upper + ROOM
        assert bracket.width <= width, f"left open: {outcome.reason}"
        check_witness(name, bracket)


def check_witness(name: str, bracket: Bracket) -> None:
    """A lower end above 0 is attained; for delta it is the upper end that is refuted."""
    if name == "delta":
        assert (bracket.witness is not None) == math.isfinite(bracket.upper)
        return
    if bracket.lower == 0:
        return
    assert bracket.witness is not None
    assert bracket.witness.replayed
    reached = bracket.witness.change if name == "epsilon" else bracket.witness.margin
    assert reached is not None
    assert reached.upper >= bracket.lower

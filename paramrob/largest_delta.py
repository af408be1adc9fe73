"""The largest box of parameters for which a property holds, by bisection on decisions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.exact import float_above, float_below
from paramrob.problem import Problem, UncertainNetwork
from paramrob.verdict import INTERRUPTED, TIME_UP, Bracket, Outcome, Verdict, Witness

Decide: TypeAlias = Callable[[Problem, float], Outcome]
"""Decide a problem's property within so many seconds."""

ASIDE = (Fraction(3, 8), Fraction(5, 8), Fraction(1, 8), Fraction(7, 8))
"""Where else between the ends to ask when the middle stays open."""
SHARE = 4
"""One decision has this part of the time that is left: the critical value itself may take all."""
_FIRST = Fraction(1, 128)
_FACTOR = 4
_LARGEST = 1 << 20
_NO_END = "the property holds for every delta that was tried"


def largest_delta(problem: Problem, settings: Settings, seconds: float, decide: Decide) -> Outcome:
    """Bracket the largest ``delta`` for which ``problem.property`` holds.

    Boxes of one centre are nested, so what holds for a ``delta`` holds for every smaller one: the
    lower end is the largest that was proved, the upper end the smallest that was refuted. The
    critical value itself can be undecidable; a value that stays open is asked on either side.

    Args:
        problem: its perturbation says which parameters move, its property what has to hold.
        settings: tolerance and progress.
        seconds: wall time of the whole.
        decide: one decision.

    Returns:
        A bracket ``delta`` with the witness that refutes its upper end; why it is no narrower.
        Whose decisions they were is left to the caller.

    Raises:
        InputError: there is no property.
    """
    if problem.property is None:
        raise InputError("the largest delta for which property? give --epsilon, --sigma or labels")
    search = _Search(problem, settings, time.monotonic() + seconds, decide)
    reason = None
    while reason is None and not search.done:
        try:
            reason = search.step()
        except KeyboardInterrupt:
            reason = INTERRUPTED
    return search.outcome(reason)


@dataclass
class _Search:
    problem: Problem
    settings: Settings
    deadline: float
    decide: Decide
    lower: Fraction = Fraction(0)
    upper: Fraction | None = None
    witness: Witness | None = None
    exact: bool = True
    delta: Fraction = _FIRST
    around: tuple[Fraction, Fraction] | None = None
    """Between which ends a value was left open, since when nothing was decided."""
    tried: int = 0

    @property
    def done(self) -> bool:
        """Whether the bracket is as narrow as it was asked to be."""
        tolerance = Fraction(self.settings.tolerance)
        return self.upper is not None and self.upper - self.lower <= tolerance

    def step(self) -> str | None:
        """Decide for one value and choose the next; return why there is none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return TIME_UP
        outcome = self.decide(self._boxed(), left / SHARE)
        self.exact = self.exact and outcome.exact_encoding
        if outcome.verdict is Verdict.ROBUST:
            self.lower = self.delta
        elif outcome.verdict is Verdict.NOT_ROBUST:
            self.upper, self.witness = self.delta, outcome.witness
        else:
            return self._aside(outcome.reason or "the engine gave no reason")
        self.around, self.tried = None, 0
        if self.settings.progress:
            top = math.inf if self.upper is None else float(self.upper)
            self.settings.progress("delta", float(self.lower), top)
        if self.upper is not None:
            self.delta = (self.lower + self.upper) / 2
            return None
        self.delta *= _FACTOR
        return _NO_END if self.lower > _LARGEST else None

    def _boxed(self) -> Problem:
        box = self.problem.uncertain.perturbation.scaled(self.delta)
        uncertain = UncertainNetwork(self.problem.uncertain.network, box)
        return replace(self.problem, uncertain=uncertain)

    def _aside(self, why: str) -> str | None:
        """Go to another value beside the one that was left open, if there is one."""
        if self.tried == len(ASIDE) or INTERRUPTED in why:
            return f"delta = {float(self.delta):.6g} was left open: {why}"
        if self.around is None:
            top = 2 * self.delta - self.lower if self.upper is None else self.upper
            self.around = self.lower, top
        low, high = self.around
        self.delta = low + (high - low) * ASIDE[self.tried]
        self.tried += 1
        return None

    def outcome(self, reason: str | None) -> Outcome:
        """Return the bracket, rounded outward."""
        top = math.inf if self.upper is None else float_above(self.upper)
        bracket = Bracket(float_below(self.lower), top, self.witness)
        return Outcome(None, reason, {"delta": bracket}, exact_encoding=self.exact)

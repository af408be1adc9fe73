"""Maximising a quantity by bisection on decision queries.

No solver's own optimum is believed: the upper end is a threshold that was proved ``unsat``, the
lower end what a replayed witness attains.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from paramrob.encoders.terms import Query
from paramrob.errors import SoundnessError
from paramrob.solvers.base import Answer, Solver
from paramrob.verdict import Approximation, Bracket, Status, Witness

Attained: TypeAlias = Callable[[Mapping[str, Fraction]], tuple[float, Witness] | None]
"""Replay a candidate: a proved lower bound of the quantity that it attains, and its witness."""

_FINEST = 1e-13
_FINER = 1e-3
_TRIES = 2
_CLOSER = 10
_LEAST_SECONDS = 0.02


@dataclass(frozen=True)
class Maximum:
    """The bracket reached, and why it is no narrower (``None`` where it is within tolerance)."""

    bracket: Bracket
    reason: str | None = None
    queries: int = 0


def maximize(
    query: Query,
    bracket: Bracket,
    solver: Solver,
    budget: float,
    tolerance: float,
    attained: Attained,
    hint: Bracket | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Maximum:
    """Bracket the supremum of a query's quantity.

    Args:
        query: with a quantity; :meth:`Query.with_threshold` asks whether it reaches a value.
        bracket: what holds beforehand: a lower end with its replayed witness (or 0), an upper end.
        solver: decides the queries.
        budget: wall time in seconds.
        tolerance: absolute width at which the bracket is closed.
        attained: replays candidates.
        hint: where another engine believes the supremum to be: the first thresholds close in
            on it from both sides. Nothing is concluded from it.
        progress: told the ends now and then.

    Raises:
        SoundnessError: a witness attains more than was proved possible.
    """
    search = _Bisection(query, bracket, solver, budget, tolerance, attained, hint)
    while search.step():
        if progress is not None:
            progress(search.lower, search.upper)
    return search.result()


def _gaps(hint: Bracket, tolerance: float) -> list[float]:
    """Return the distances from a hint at which thresholds are tried, the easy ones first."""
    if not math.isfinite(hint.upper):
        return []
    gap, last = max(hint.upper, tolerance), tolerance / 4
    found = []
    while gap > 2 * last:
        found.append(gap)
        gap /= _CLOSER
    return [*found, last]


class _Bisection:
    def __init__(
        self,
        query: Query,
        bracket: Bracket,
        solver: Solver,
        budget: float,
        tolerance: float,
        attained: Attained,
        hint: Bracket | None,
    ) -> None:
        self._query, self._solver, self._attained = query, solver, attained
        self._deadline = time.monotonic() + budget
        self._tolerance = tolerance
        self.lower, self.upper, self._witness = bracket.lower, bracket.upper, bracket.witness
        # Below it nothing is asked any more: thresholds there are open for good.
        self._floor = bracket.lower
        self._queries = 0
        self._why: str | None = None
        gaps = [] if hint is None else _gaps(hint, tolerance)
        self._above = [hint.upper + gap for gap in gaps] if hint else []
        self._below = [hint.lower - gap for gap in gaps if gap < hint.lower] if hint else []

    def result(self) -> Maximum:
        done = self.upper - self.lower <= self._tolerance
        reason = None if done else self._why or "the time was used up; raise --timeout"
        bracket = Bracket(self.lower, self.upper, self._witness)
        return Maximum(bracket, reason, self._queries)

    def step(self) -> bool:
        """Ask one question; whether there is another."""
        left = self._deadline - time.monotonic()
        if self.upper - self.lower <= self._tolerance or left <= _LEAST_SECONDS:
            return False
        threshold = self._next()
        if threshold is None:
            return False
        precision = None
        for _ in range(_TRIES):
            answer = self._asked(threshold, precision)
            if self._settled(threshold, answer):
                return True
            if answer.status is not Status.DELTA_SAT or not answer.precision:
                break
            # The candidate is not one: ask for less leeway.
            precision = max(answer.precision * _FINER, _FINEST)
        self._leave_open(threshold, answer)
        return True

    def _asked(self, threshold: float, precision: float | None) -> Answer:
        self._queries += 1
        # Half of what is left, so that an easier threshold can follow one that is too hard.
        left = max(self._deadline - time.monotonic(), _LEAST_SECONDS)
        query = self._query.with_threshold(Fraction(threshold))
        return self._solver.check(query, left / 2, precision)

    def _settled(self, threshold: float, answer: Answer) -> bool:
        """Whether an answer moves one of the ends."""
        if answer.status is Status.UNSAT and self._query.approximation is not Approximation.UNDER:
            self._prove(threshold)
            return True
        return answer.model is not None and self._improve(answer.model)

    def _leave_open(self, threshold: float, answer: Answer) -> None:
        # What lies nearer to the supremum is harder still.
        if self._above and threshold > self._above[-1]:
            self._above = []
        elif self._below and threshold < self._below[-1]:
            self._below = []
        else:
            self._floor = max(self._floor, threshold)
        if answer.status is Status.UNKNOWN:
            self._why = answer.reason
        else:
            near = "" if answer.precision is None else f" (precision {answer.precision:.1g})"
            self._why = (
                f"a candidate at {threshold:.9g} did not survive exact replay{near}; "
                "try another --solver or --encoding"
            )

    def _next(self) -> float | None:
        """Return the next threshold."""
        while self._above or self._below:
            # In turn, so that both ends are known roughly before either is known well.
            from_above = len(self._above) >= len(self._below)
            threshold = (self._above if from_above else self._below).pop(0)
            if self.lower < threshold < self.upper:
                return threshold
        low = max(self.lower, self._floor)
        if math.isinf(self.upper):
            return max(2 * low, 1.0)
        middle = low + (self.upper - low) / 2
        narrow = self.upper - low <= max(self._tolerance / 8, _FINEST * abs(self.upper))
        return None if narrow or not low < middle < self.upper else middle

    def _prove(self, threshold: float) -> None:
        if threshold < self.lower:
            raise SoundnessError(
                f"{self._query.name}: {threshold!r} was proved to be out of reach and a replayed "
                f"witness attains {self.lower!r}; please report it with the model"
            )
        self.upper = min(self.upper, threshold)

    def _improve(self, model: Mapping[str, Fraction]) -> bool:
        found = self._attained(model)
        if found is None or not found[0] > self.lower:
            return False
        if found[0] > self.upper:
            raise SoundnessError(
                f"{self._query.name}: a replayed witness attains {found[0]!r}, more than the "
                f"{self.upper!r} that was proved possible; please report it with the model"
            )
        self.lower, self._witness = found
        return True

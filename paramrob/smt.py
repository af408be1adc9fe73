"""Deciding and estimating through a formula and a solver: Eq. 6 to 13 of arXiv 1903.10672."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from paramrob.encoders import aggregated, direct
from paramrob.encoders.goals import GoalName
from paramrob.encoders.presolve import Presolve, presolve
from paramrob.encoders.terms import Query
from paramrob.engine import Settings
from paramrob.errors import BackendError, InputError, ReplayError
from paramrob.exact import float_above
from paramrob.largest_delta import largest_delta
from paramrob.problem import Problem, check_labels, check_real
from paramrob.properties import Quantity
from paramrob.replay import refutes, replay
from paramrob.solvers.base import Answer, Solver
from paramrob.solvers.keep import solver_for
from paramrob.solvers.maximize import maximize
from paramrob.verdict import (
    Approximation,
    Bracket,
    Interval,
    Outcome,
    Status,
    Verdict,
    Witness,
    verdict_from,
)

MOST_TERMS = 200_000
"""Weights beyond which a formula is not worth its memory."""
_TRIES = 3
_FINER = 1e-3
_NEAR = Fraction(1, 50)
"""Share of its width within which a candidate's value is also tried at the end of its box."""
_HINT_SHARE = 0.25
_HINT_SECONDS = 5.0


def decide(problem: Problem, settings: Settings) -> Outcome:
    """Decide ``problem.property`` with ``settings.solver``.

    Raises:
        InputError: no property is asked.
        BackendError: the solver is missing, or the problem has no encoding.
        SoundnessError: the solver's answer has no meaning.
    """
    started = time.monotonic()
    if problem.property is None:
        raise InputError("no property to decide; give one or estimate a quantity")
    with solver_for(settings.solver) as solver:
        outcome = _decide(problem, settings, solver, started + settings.timeout)
    return replace(outcome, engine_seconds=time.monotonic() - started)


def estimate(
    problem: Problem,
    quantity: Quantity,
    settings: Settings,
    known: Mapping[str, Bracket] | None = None,
) -> Outcome:
    """Bracket a quantity with ``settings.solver``.

    Args:
        problem: the problem; for ``delta`` its property is the one that has to hold.
        quantity: what is bracketed.
        settings: how to solve.
        known: brackets that hold, by name, to start from; without them the bound engine says
            where to look first and nothing is concluded from it.

    Raises:
        InputError: no such quantity, or one that needs labels or a property that are missing.
        BackendError: the solver is missing, or the problem has no encoding.
        SoundnessError: the solver's answer has no meaning, or contradicts what is known.
    """
    started = time.monotonic()
    deadline = started + settings.timeout
    with solver_for(settings.solver) as solver:
        if quantity == "delta":
            found = largest_delta(
                problem,
                settings,
                settings.timeout,
                lambda p, seconds: _decide(p, settings, solver, time.monotonic() + seconds),
            )
            outcome = replace(found, solver=settings.solver)
        elif quantity in ("epsilon", "sigma"):
            outcome = _maxima(problem, quantity, settings, solver, deadline, known)
        else:
            raise InputError(f"no quantity {quantity!r}; choose epsilon, sigma or delta")
    return replace(outcome, engine_seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Formulas:
    """The queries of one problem for one solver; ranges are computed once."""

    problem: Problem
    settings: Settings
    solver: Solver
    known: Presolve | None

    @classmethod
    def of(cls, problem: Problem, settings: Settings, solver: Solver) -> _Formulas:
        check_real(problem, f"a formula for {settings.solver}")
        for network in (problem.reference, problem.uncertain.network):
            if network.parameter_count > MOST_TERMS:
                raise BackendError(
                    f"a formula over {network.parameter_count} parameters is too large for "
                    f"{settings.solver}; use --solver bounds"
                )
        known = None
        same = problem.reference.architecture == problem.uncertain.network.architecture
        if settings.presolve and same:
            known = presolve(problem)
        return cls(problem, settings, solver, known)

    @property
    def encoding(self) -> str:
        """What was asked for, else the solver's own choice."""
        return self.settings.encoding or self.solver.capabilities.encoding

    @property
    def relaxed(self) -> bool:
        """Whether each use of a shared parameter has its own, or a grid is the box around it."""
        network, box = self.problem.uncertain.network, self.problem.uncertain.perturbation
        slacks = self.encoding == "aggregated"
        return any(
            bool(box.interval(p).radius().any())
            for name, p in network.parameters.items()
            if box.only_ends or (slacks and network.is_shared(name))
        )

    def query(self, goal: GoalName) -> Query:
        """Return the query that asks for a goal."""
        # The paper's formula keeps its sigmoid where the solver understands it.
        invert = self.encoding == "aggregated" or self.solver.capabilities.name == "z3"
        encode = aggregated.encode if self.encoding == "aggregated" else direct.encode
        return encode(self.problem, goal, self.known, invert)

    def replayed(
        self,
        query: Query,
        model: Mapping[str, Fraction],
        wanted: Callable[[Witness], bool],
    ) -> Witness | None:
        """Return the first form of a candidate that survives exact replay and is wanted.

        A delta-complete solver's point lies beside the ends of its box where the solution lies
        on them, so the point is tried as it is and with such values moved to the ends.
        """
        for values in (model, _snapped(query, model)):
            try:
                x, parameters = query.decode(values)
                witness = replay(self.problem, x, self.problem.uncertain.possible(parameters))
            except ReplayError:
                continue
            if wanted(witness):
                return witness
        return None


def _snapped(query: Query, model: Mapping[str, Fraction]) -> dict[str, Fraction]:
    values = dict(model)
    for declaration in query.declarations:
        name, low, high = declaration.variable.name, declaration.lower, declaration.upper
        if name in values and low is not None and high is not None:
            near = _NEAR * (high - low)
            if values[name] <= low + near:
                values[name] = low
            elif values[name] >= high - near:
                values[name] = high
    return values


def _decide(problem: Problem, settings: Settings, solver: Solver, deadline: float) -> Outcome:
    formulas = _Formulas.of(problem, settings, solver)
    query = formulas.query("property")
    precision = None
    for _ in range(_TRIES):
        left = deadline - time.monotonic()
        if left <= 0:
            reason: str | None = "the time was used up; raise --timeout"
            return _outcome(formulas, Verdict.UNKNOWN, reason=reason)
        answer = solver.check(query, left, precision)
        witness = None
        if answer.model is not None:
            witness = formulas.replayed(query, answer.model, lambda w: refutes(problem, w))
        verdict = verdict_from(answer.status, query.approximation, witness)
        if verdict is not Verdict.UNKNOWN:
            return _outcome(formulas, verdict, witness=witness)
        if answer.status is not Status.DELTA_SAT or not answer.precision:
            break
        # The candidate is not one: ask for less leeway.
        precision = answer.precision * _FINER
    return _outcome(formulas, Verdict.UNKNOWN, reason=_why(answer, query))


def _why(answer: Answer, query: Query) -> str:
    if answer.status is Status.UNKNOWN:
        return answer.reason or "the solver gave no reason; try another --solver"
    if answer.status is Status.UNSAT:
        return "the formula leaves something out, so its unsatisfiability proves nothing"
    near = "" if answer.precision is None else f" up to {answer.precision:.1g}"
    loose = "" if query.approximation is Approximation.EXACT else " and the formula is a relaxation"
    return (
        f"the formula is satisfiable{near}{loose}, but the candidate did not survive exact "
        "replay; use --solver bounds"
    )


def _outcome(
    formulas: _Formulas,
    verdict: Verdict | None,
    reason: str | None = None,
    witness: Witness | None = None,
    brackets: Mapping[str, Bracket] | None = None,
) -> Outcome:
    return Outcome(
        verdict,
        reason,
        brackets or {},
        witness,
        formulas.settings.solver,
        exact_encoding=not formulas.relaxed,
    )


def _maxima(
    problem: Problem,
    quantity: Quantity,
    settings: Settings,
    solver: Solver,
    deadline: float,
    known: Mapping[str, Bracket] | None,
) -> Outcome:
    if quantity == "sigma":
        check_labels(problem.reference, problem.output)
    goals = _goals(problem, quantity)
    # The property takes no part in an estimate.
    formulas = _Formulas.of(replace(problem, property=None), settings, solver)
    hints = known if known is not None else _hints(problem, quantity, settings, deadline)
    brackets: dict[str, Bracket] = {}
    reasons: list[str] = []
    for left, goal in zip(range(len(goals), 0, -1), goals, strict=True):
        now = time.monotonic()
        budget = max(deadline - now, 0.0) / left
        query = formulas.query(goal)
        start = Bracket(0.0, _ceiling(problem, goal))
        hint = hints.get(goal)
        if known is not None and hint is not None:
            start = hint
        found = maximize(
            query,
            start,
            solver,
            budget,
            settings.tolerance,
            _measured(formulas, query, goal),
            hint,
            _progress(settings, goal),
        )
        brackets[goal] = found.bracket
        if found.reason:
            reasons.append(found.reason)
    return _outcome(formulas, None, reasons[0] if reasons else None, brackets=brackets)


def _goals(problem: Problem, quantity: Quantity) -> list[GoalName]:
    if quantity == "epsilon":
        return ["epsilon"]
    return ["sigma"] if problem.reference.output_size > 1 else ["sigma_above", "sigma_below"]


def _ceiling(problem: Problem, goal: GoalName) -> float:
    """Return what the quantity never exceeds."""
    kind, level = problem.output.kind, problem.output.level
    squashed = kind in ("probability", "logit", "logits", "probabilities")
    if not squashed or goal == "sigma":
        return math.inf
    if level is None or goal == "epsilon":
        return 1.0
    return float_above(1 - level if goal == "sigma_above" else level)


def _hints(
    problem: Problem, quantity: Quantity, settings: Settings, deadline: float
) -> Mapping[str, Bracket]:
    """Return the bound engine's brackets, to choose the first thresholds by."""
    from paramrob.bounds import decision

    if not settings.presolve:
        return {}
    seconds = min(_HINT_SHARE * (deadline - time.monotonic()), _HINT_SECONDS)
    quiet = replace(settings, solver="bounds", timeout=max(seconds, 0.01), progress=None)
    try:
        return decision.estimate(problem, quantity, quiet).brackets
    except BackendError:
        return {}


def _progress(settings: Settings, goal: str) -> Callable[[float, float], None] | None:
    progress = settings.progress
    if progress is None:
        return None
    return lambda low, high: progress(goal, low, high)


def _measured(
    formulas: _Formulas, query: Query, goal: GoalName
) -> Callable[[Mapping[str, Fraction]], tuple[float, Witness] | None]:
    def wanted(witness: Witness) -> bool:
        measure = _measure(witness, goal)
        return measure is not None and measure.lower > 0

    def attained(model: Mapping[str, Fraction]) -> tuple[float, Witness] | None:
        witness = formulas.replayed(query, model, wanted)
        measure = None if witness is None else _measure(witness, goal)
        return None if witness is None or measure is None else (measure.lower, witness)

    return attained


def _measure(witness: Witness, goal: GoalName) -> Interval | None:
    if goal == "epsilon":
        return witness.change
    before, after = witness.labels
    if before is None or after is None or before == after:
        return None
    side = {"sigma_above": 1, "sigma_below": 0}
    if goal in side and before != side[goal]:
        return None
    return witness.margin

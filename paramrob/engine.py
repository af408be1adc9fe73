"""Deciding and estimating: the one entry to every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from paramrob.domain import Ball
from paramrob.errors import BackendError, SoundnessError
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.verdict import INTERRUPTED, Outcome, Verdict

SOLVERS = ("auto", "bounds", "z3", "dreal", "icp")
ENCODINGS = ("direct", "aggregated")
Encoding = Literal["direct", "aggregated"]
Method = Literal["ibp", "crown-ibp", "crown", "alpha"]
METHODS: tuple[Method, ...] = ("ibp", "crown-ibp", "crown", "alpha")
Progress = Callable[[str, float, float], None]

BOUNDS_SHARE = 0.75
"""Of the time under ``auto``, for the bound engine; solvers have the rest."""
WORTH_A_FORMULA = 1000
"""Parameters up to which ``auto`` tries a solver on what the bound engine leaves open."""


_BETWEEN = (
    "parameters between their two values are covered by proofs and are no counterexamples: where "
    "they alone break the property, it stays open"
)


@dataclass(frozen=True)
class Settings:
    """How to solve.

    Attributes:
        solver: one of ``SOLVERS``.
        timeout: engine wall time in seconds.
        tolerance: absolute width at which a bracket is closed.
        device: ``cpu`` or ``cuda``.
        encoding: one of ``ENCODINGS``; ``None`` is the solver's own choice.
        presolve: whether a formula's variables are bounded beforehand by the bound engine.
        cross_check: a second solver, which has to agree; both get half of the time.
        method: of the bound pass at points, one of ``METHODS``; the cheapest that decides by
            default.
        memory: bytes that the bound pass may use, roughly.
        seed: of the local searches; verdicts do not depend on it, witnesses may.
        progress: called with the quantity's name and the ends of its current bracket, now and
            then; a ``KeyboardInterrupt`` stops the engine, which then returns what it has.
    """

    solver: str = "auto"
    timeout: float = 60.0
    tolerance: float = 1e-6
    device: str = "cpu"
    encoding: Encoding | None = None
    presolve: bool = True
    cross_check: str | None = None
    seed: int = 0
    method: Method | None = None
    memory: int = 1 << 30
    progress: Progress | None = None


def decide(problem: Problem, settings: Settings | None = None) -> Outcome:
    """Decide the problem's property; ``verdict`` of the outcome is never ``None``.

    Raises:
        BackendError: the solver asked for cannot be used.
        SoundnessError: two solvers contradict each other.
    """
    settings = settings or Settings()
    return _checked(problem, settings, lambda given: _decide(problem, given))


def estimate(problem: Problem, quantity: Quantity, settings: Settings | None = None) -> Outcome:
    """Bracket ``epsilon``, ``sigma`` or ``delta``; the outcome's ``verdict`` is ``None``.

    For ``delta`` the problem's property is the one that has to hold.

    Raises:
        BackendError: the solver asked for cannot be used.
        SoundnessError: two solvers contradict each other.
    """
    settings = settings or Settings()
    return _checked(problem, settings, lambda given: _estimate(problem, quantity, given))


def takes_points(problem: Problem, settings: Settings) -> bool:
    """Whether :func:`decide_points` is the way for many problems like this one."""
    if settings.solver not in ("auto", "bounds") or settings.cross_check is not None:
        return False
    from paramrob.bounds import route

    return route.suits_pass(problem, settings)


def decide_points(problems: Sequence[Problem], settings: Settings) -> Iterator[tuple[int, Outcome]]:
    """Decide a property at many points, in batches; what stays open, one by one.

    Args:
        problems: at points or around them, alike but for these; :func:`takes_points` holds.
        settings: their ``timeout`` is for all of them.

    Yields:
        A problem's place among ``problems`` and its outcome, in the order in which they are
        found. Problems that the time did not suffice for are left out.

    Raises:
        BackendError: a layer that the bound pass does not know.
        SoundnessError: an engine answered about another arithmetic.
    """
    for place, outcome in _points(problems, settings):
        yield place, _about(problems[place], outcome)


def _points(problems: Sequence[Problem], settings: Settings) -> Iterator[tuple[int, Outcome]]:
    from paramrob.bounds import route

    started = time.monotonic()
    left_open: list[tuple[int, Outcome]] = []
    for place, outcome in route.stream_points(problems, settings):
        if outcome.verdict is Verdict.UNKNOWN:
            left_open.append((place, outcome))
        else:
            yield place, outcome
    left = settings.timeout - (time.monotonic() - started)
    if left_open and left > 0:
        yield from _left_open(problems, left_open, replace(settings, timeout=left))
    else:
        yield from left_open


def _left_open(
    problems: Sequence[Problem], first: list[tuple[int, Outcome]], settings: Settings
) -> Iterator[tuple[int, Outcome]]:
    """Yield what the rest of the pass, then the searches one by one, say of these points."""
    from paramrob.bounds import route

    started = time.monotonic()
    still: list[tuple[int, Outcome]] = []
    batches = route.finish_points([problems[place] for place, _ in first], settings)
    finished = (outcome for batch in batches for outcome in batch)
    for place, outcome in first:
        found = next(finished, None)
        if found is None or found.verdict is Verdict.UNKNOWN:
            still.append((place, _later(outcome, 0.0 if found is None else found.engine_seconds)))
        else:
            yield place, _later(found, outcome.engine_seconds)
    for done, (place, outcome) in enumerate(still):
        left = settings.timeout - (time.monotonic() - started)
        share = replace(settings, timeout=left / (len(still) - done))
        yield place, outcome if left <= 0 else _searched(problems[place], outcome, share)


def _later(outcome: Outcome, seconds: float) -> Outcome:
    return replace(outcome, engine_seconds=outcome.engine_seconds + seconds)


def reference_labels(problems: Sequence[Problem], settings: Settings) -> list[int | None]:
    """Return the reference's labels at points, ``None`` where only exact execution tells them."""
    from paramrob.bounds import route

    if settings.solver not in ("auto", "bounds"):
        return [None] * len(problems)
    try:
        return route.reference_labels(problems, settings)
    except BackendError:
        return [None] * len(problems)


def _searched(problem: Problem, first: Outcome, settings: Settings) -> Outcome:
    """Return what comes of a point that the pass left open, within the time of the settings."""
    from paramrob.bounds import route

    started = time.monotonic()
    second = _second_solver(problem, settings)
    fresh = replace(first, engine_seconds=0.0)
    outcome = route.search(problem, fresh, _first_share(settings, second))
    outcome = _by_second(problem, outcome, settings, second, started)
    return _later(outcome, first.engine_seconds)


def _checked(problem: Problem, settings: Settings, solve: Callable[[Settings], Outcome]) -> Outcome:
    """Solve once, or twice and compare."""
    other = settings.cross_check
    for name in (settings.solver, other or settings.solver):
        if name not in SOLVERS:
            raise BackendError(f"no solver {name!r}; choose from {', '.join(SOLVERS)}")
    if settings.method not in (None, *METHODS):
        raise BackendError(f"no method {settings.method!r}; choose from {', '.join(METHODS)}")
    if settings.encoding not in (None, *ENCODINGS):
        raise BackendError(f"no encoding {settings.encoding!r}; choose direct or aggregated")
    if other is None:
        return _about(problem, solve(settings))
    from paramrob.crosscheck import check_agreement, confirmed

    started = time.monotonic()
    first = solve(replace(settings, timeout=settings.timeout / 2, cross_check=None))
    if _stopped(first):
        return _about(problem, first)
    left = max(settings.timeout - (time.monotonic() - started), settings.timeout / 2)
    second = solve(replace(settings, solver=other, timeout=left, cross_check=None))
    check_agreement(problem, first, second)
    return _about(problem, confirmed(first, second))


def _about(problem: Problem, outcome: Outcome) -> Outcome:
    """Make sure that an engine answered about the arithmetic that was asked about.

    Where it left open what is asked of a grid, say what proofs of grids cover.
    """
    if outcome.semantics != problem.semantics:
        raise SoundnessError(
            f"an engine answered for {outcome.semantics} arithmetic, asked about "
            f"{problem.semantics}; this is a defect of paramrob: please report it"
        )
    if outcome.reason and problem.uncertain.perturbation.only_ends:
        return replace(outcome, reason=f"{outcome.reason}; {_BETWEEN}")
    return outcome


def _decide(problem: Problem, settings: Settings) -> Outcome:
    if settings.solver not in ("auto", "bounds"):
        from paramrob import smt

        return smt.decide(problem, settings)
    from paramrob.bounds import route

    started = time.monotonic()
    second = _second_solver(problem, settings)
    outcome = route.decide(problem, _first_share(settings, second))
    return _by_second(problem, outcome, settings, second, started)


def _by_second(
    problem: Problem, outcome: Outcome, settings: Settings, second: str | None, started: float
) -> Outcome:
    """Ask the second solver about what the bound engine left open, unless the user stopped it."""
    if second is None or outcome.verdict is not Verdict.UNKNOWN or _stopped(outcome):
        return outcome
    from paramrob import smt

    try:
        found = smt.decide(problem, _rest(settings, second, started))
    except BackendError:
        return outcome
    except KeyboardInterrupt:
        seconds = time.monotonic() - started
        return replace(outcome, reason=INTERRUPTED, engine_seconds=seconds)
    if found.verdict is Verdict.UNKNOWN:
        return replace(outcome, engine_seconds=time.monotonic() - started)
    return replace(found, engine_seconds=time.monotonic() - started)


def _estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
    if settings.solver not in ("auto", "bounds"):
        from paramrob import smt

        return smt.estimate(problem, quantity, settings)
    from paramrob.bounds import route

    started = time.monotonic()
    second = None if quantity == "delta" else _second_solver(problem, settings)
    outcome = route.estimate(problem, quantity, _first_share(settings, second))
    closed = all(b.width <= settings.tolerance for b in outcome.brackets.values())
    if second is None or closed or _stopped(outcome):
        return outcome
    from paramrob import smt

    rest = _rest(settings, second, started)
    try:
        found = smt.estimate(problem, quantity, rest, known=outcome.brackets)
    except BackendError:
        return outcome
    except KeyboardInterrupt:
        seconds = time.monotonic() - started
        return replace(outcome, reason=INTERRUPTED, engine_seconds=seconds)
    if all(b == outcome.brackets[name] for name, b in found.brackets.items()):
        return replace(outcome, engine_seconds=time.monotonic() - started)
    both = f"{outcome.solver}, {found.solver}"
    return replace(found, solver=both, engine_seconds=time.monotonic() - started)


def _stopped(outcome: Outcome) -> bool:
    return INTERRUPTED in (outcome.reason or "")


def _second_solver(problem: Problem, settings: Settings) -> str | None:
    """Return what ``auto`` turns to where the bound engine leaves something open."""
    bounds_alone = settings.method is not None or problem.arithmetic is not None
    if isinstance(problem.domain, Ball) or bounds_alone:
        return None
    if settings.solver != "auto" or problem.uncertain.network.parameter_count > WORTH_A_FORMULA:
        return None
    from paramrob.portfolio import preferred

    return preferred(problem)


def _first_share(settings: Settings, second: str | None) -> Settings:
    return (
        settings if second is None else replace(settings, timeout=BOUNDS_SHARE * settings.timeout)
    )


def _rest(settings: Settings, second: str, started: float) -> Settings:
    left = settings.timeout - (time.monotonic() - started)
    return replace(settings, solver=second, timeout=max(left, 0.01))

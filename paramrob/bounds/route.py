"""Which of the two bound engines answers: the search on chains, or the pass over graphs.

The search (:mod:`paramrob.bounds.decision`) takes chains of dense layers, over boxes too, and
closes brackets. The pass (:mod:`paramrob.bounds.graph`) takes any graph at points, many at a
time. What the pass leaves open at a point of a chain goes to the search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from paramrob import single_run
from paramrob.bounds import decision
from paramrob.domain import Ball, Box
from paramrob.engine import Settings
from paramrob.errors import BackendError, InputError
from paramrob.layers import Stage, stages
from paramrob.problem import Problem, check_real
from paramrob.properties import Quantity
from paramrob.verdict import Bracket, Outcome, Verdict

if TYPE_CHECKING:
    from paramrob.bounds.graph.points import PointsPass

FINISHED_AT_ONCE = 16
"""Points that go through optimised slopes and branch and bound at a time."""
NO_MARGIN = "replay does not tell how far the point is from the boundary; scale the model's numbers"
SMALL = 1000
"""Parameters up to which the search alone is as fast."""


def is_chain(problem: Problem) -> bool:
    """Whether the search knows all layers of both networks, which are alike, in real numbers."""
    if problem.arithmetic is not None:
        return False
    networks = (problem.reference, problem.uncertain.network)
    try:
        ours, theirs = (stages(network, problem.output) for network in networks)
    except BackendError:
        return False
    return ours[0] == theirs[0] and [*map(_form, ours[1])] == [*map(_form, theirs[1])]


def _form(stage: Stage) -> tuple[object, ...]:
    """Return what two networks of one architecture have in common at a stage."""
    return (stage.kind, None if stage.node is None else stage.node.shape)


def suits_pass(problem: Problem, settings: Settings) -> bool:
    """Whether the pass over graphs is asked first."""
    if isinstance(problem.domain, Box):
        return False
    large = problem.uncertain.network.parameter_count > SMALL
    return (
        large
        or settings.method is not None
        or isinstance(problem.domain, Ball)
        or not is_chain(problem)
    )


def decide(problem: Problem, settings: Settings) -> Outcome:
    """Decide ``problem.property``.

    Raises:
        InputError: no property is asked.
        BackendError: neither engine can express the problem.
    """
    if isinstance(problem.domain, Box) and not is_chain(problem):
        from paramrob.bounds.graph import box_answers

        check_real(problem, "the search over boxes of inputs")
        return box_answers.decide(problem, settings)
    if not suits_pass(problem, settings):
        return decision.decide(problem, settings)
    return search(problem, decide_points([problem], settings)[0], settings)


def search(problem: Problem, first: Outcome, settings: Settings) -> Outcome:
    """Ask exact execution or the search, where they know the problem, about what is left open.

    Args:
        problem: at a point.
        first: what the pass says; its time has been spent of the settings' ``timeout``.
        settings: as the pass had them.
    """
    open_ = first.verdict is Verdict.UNKNOWN and settings.method is None
    if open_ and single_run.is_single(problem):
        first = single_run.executed(problem, first)
    left = settings.timeout - first.engine_seconds
    chain = _can_search(problem, settings) and is_chain(problem)
    if first.verdict is not Verdict.UNKNOWN or not chain or left <= 0:
        return first
    found = decision.decide(problem, replace(settings, timeout=left))
    return replace(found, engine_seconds=first.engine_seconds + found.engine_seconds)


def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
    """Bracket a quantity.

    Raises:
        InputError: no such quantity, or one that needs labels or a property that are missing.
        BackendError: neither engine can express the problem.
    """
    if isinstance(problem.domain, Box) and quantity != "delta" and not is_chain(problem):
        from paramrob.bounds.graph import box_answers

        check_real(problem, "the search over boxes of inputs")
        return box_answers.estimate(problem, quantity, settings)
    if is_chain(problem) and _can_search(problem, settings):
        return decision.estimate(problem, quantity, settings)
    if quantity == "epsilon":
        return estimate_points([problem], settings)[0]
    if quantity == "sigma":
        return _sigma(problem, settings)
    if quantity == "delta":
        return _delta(problem, settings)
    raise InputError(f"no quantity {quantity!r}; choose epsilon, sigma or delta")


def decide_points(problems: Sequence[Problem], settings: Settings) -> list[Outcome]:
    """Decide a property at many points with the pass over graphs.

    Args:
        problems: at points or around them, alike but for these; one at least.
        settings: their ``timeout`` is for all of them.

    Raises:
        InputError: no property is asked.
        BackendError: a layer that the pass does not know.
    """
    from paramrob.bounds.graph import points

    return points.decide_points(problems, *_opened(problems[0], settings))


def stream_points(problems: Sequence[Problem], settings: Settings) -> Iterator[tuple[int, Outcome]]:
    """Yield each problem's place and outcome of :func:`decide_points`, as they are found.

    Problems that the time did not suffice for are left out; what takes longest is left to
    :func:`finish_points`.
    """
    from paramrob.bounds.graph import chunk, points

    place = 0
    pass_, deadline = _opened(problems[0], settings)
    pass_.quick()
    for batch in points.stream(problems, pass_, deadline, first=points.FIRST_BATCH):
        for outcome in batch:
            if outcome.reason != chunk.TIME_UP:
                yield place, outcome
            place += 1


def finish_points(problems: Sequence[Problem], settings: Settings) -> Iterator[list[Outcome]]:
    """Yield what the rest of the pass says of problems that :func:`stream_points` left open.

    They come in order, some at a time; all have a like share of the time.
    """
    from paramrob.bounds.graph import points

    if settings.method is not None:
        return
    pass_, deadline = _opened(problems[0], settings)
    at_once = min(FINISHED_AT_ONCE, pass_.batch)
    for start in range(0, len(problems), at_once):
        part = problems[start : start + at_once]
        now = time.monotonic()
        share = (deadline - now) * len(part) / (len(problems) - start)
        if share <= 0:
            return
        yield points.finish_points(part, pass_, now + share)


def _opened(problem: Problem, settings: Settings) -> tuple[PointsPass, float]:
    """Return the pass for problems like this one, and when it has to end."""
    from paramrob.bounds.graph import points

    if problem.property is None:
        raise InputError("no property to decide; give one or estimate a quantity")
    deadline = time.monotonic() + settings.timeout
    return points.PointsPass(problem, settings.device, settings.memory, settings.method), deadline


def reference_labels(problems: Sequence[Problem], settings: Settings) -> list[int | None]:
    """Return the reference's labels at points, ``None`` where bounds of its results do not tell.

    Raises:
        BackendError: a layer that the pass does not know.
    """
    from paramrob.bounds.graph import labels

    return labels.reference_labels(problems, settings.device, settings.memory)


def estimate_points(problems: Sequence[Problem], settings: Settings) -> list[Outcome]:
    """Bracket epsilon at many points with the pass over graphs; see :func:`decide_points`."""
    from paramrob.bounds.graph import points

    deadline = time.monotonic() + settings.timeout
    pass_ = points.PointsPass(problems[0], settings.device, settings.memory, settings.method)
    found = points.estimate_points(problems, pass_, deadline)
    closed = [all(b.width <= settings.tolerance for b in o.brackets.values()) for o in found]
    return [replace(o, reason=None) if c else o for o, c in zip(found, closed, strict=True)]


def _delta(problem: Problem, settings: Settings) -> Outcome:
    """Bisect on the box of parameters by decisions of the pass."""
    from paramrob.largest_delta import largest_delta

    def decided(trial: Problem, seconds: float) -> Outcome:
        share = replace(settings, timeout=seconds)
        if isinstance(trial.domain, Box):
            return decide(trial, share)
        return decide_points([trial], share)[0]

    started = time.monotonic()
    found = largest_delta(problem, settings, settings.timeout, decided)
    spent = time.monotonic() - started
    return replace(found, semantics=problem.semantics, engine_seconds=spent)


def _sigma(problem: Problem, settings: Settings) -> Outcome:
    """At a point sigma is 0 where the label stays, else the reference's own margin."""
    from paramrob.properties import Property
    from paramrob.replay import replay

    asked = replace(problem, property=Property("labels"))
    found = decide(asked, settings)
    domain = problem.domain
    x = domain.inner()[0] if isinstance(domain, Box) else domain.centre()
    still = replay(problem, x, {})
    names = ["sigma"] if problem.reference.output_size > 1 else ["sigma_above", "sigma_below"]
    brackets = {name: Bracket(0.0, 0.0) for name in names}
    if found.verdict is not Verdict.ROBUST and still.margin is None:
        brackets = dict.fromkeys(names, Bracket(0.0, float("inf")))
    elif found.verdict is not Verdict.ROBUST and still.margin is not None:
        label = still.labels[0]
        ours = "sigma" if len(names) == 1 else ("sigma_above" if label else "sigma_below")
        low = 0.0 if found.witness is None else still.margin.lower
        brackets[ours] = Bracket(low, still.margin.upper, found.witness)
        if label is None:
            brackets = dict.fromkeys(names, Bracket(0.0, still.margin.upper))
    reason = None
    if any(b.width > settings.tolerance for b in brackets.values()):
        reason = found.reason or NO_MARGIN
    return replace(found, verdict=None, reason=reason, brackets=brackets, witness=None)


def _can_search(problem: Problem, settings: Settings) -> bool:
    return not isinstance(problem.domain, Ball) and settings.method is None

"""The largest change of the confidence over a set of points, which is all that is wanted of them.

Every point gets a bracket from the pass over graphs, many at a time. The search, which takes
longer, then goes to the points whose upper ends stand highest: no others can change the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from paramrob import engine
from paramrob.clock import Clock
from paramrob.domain import Ball, Box
from paramrob.engine import Settings
from paramrob.errors import BackendError
from paramrob.problem import Problem
from paramrob.verdict import Bracket

_FIRST, _MOST = 16, 256
"""Points that go through the pass at a time, at first and at most."""
OPEN = Bracket(0.0, math.inf)


def narrow(
    problems: Sequence[Problem], found: list[Bracket], settings: Settings, search: bool = True
) -> None:
    """Narrow the brackets of epsilon of several problems, as far as their largest needs it.

    Args:
        problems: at points, around them, or one over a box, alike but for the domain.
        found: a bracket each, :data:`OPEN` where nothing is known; narrowed in place. The lower
            ends are attained by witnesses.
        settings: their ``timeout`` is for all problems, ``tolerance`` the width of the largest
            that is enough.
        search: whether the search follows the pass.

    Raises:
        BackendError: the solver asked for cannot be used.
        SoundnessError: two answers contradict each other.
    """
    clock = Clock(settings.timeout)
    if not isinstance(problems[0].domain, Box) and settings.solver in ("auto", "bounds"):
        _first_brackets(problems, found, settings, clock)
    if search and is_searched(problems[0], settings):
        _search(problems, found, settings, clock)


def largest(found: Sequence[Bracket]) -> Bracket:
    """Return the bracket of the largest of several quantities."""
    low = max(found, key=lambda b: b.lower)
    return Bracket(low.lower, max(b.upper for b in found), low.witness)


def both(a: Bracket, b: Bracket) -> Bracket:
    """Return what two brackets of one quantity say together.

    Raises:
        SoundnessError: they do not meet.
    """
    low = max(a, b, key=lambda bracket: bracket.lower)
    return Bracket(low.lower, min(a.upper, b.upper), low.witness)


def is_searched(problem: Problem, settings: Settings) -> bool:
    """Whether more time may narrow a bracket that the pass over graphs gave."""
    from paramrob.bounds import route

    if isinstance(problem.domain, Box) or settings.solver not in ("auto", "bounds"):
        return True
    return not isinstance(problem.domain, Ball) and route.is_chain(problem)


def _first_brackets(
    problems: Sequence[Problem], found: list[Bracket], settings: Settings, clock: Clock
) -> None:
    """Ask the pass, where it knows the network, about the points of which nothing is known."""
    from paramrob.bounds import route

    todo = [at for at, bracket in enumerate(found) if math.isinf(bracket.upper)]
    size = _FIRST
    while todo and clock.left > 0:
        part, todo = todo[:size], todo[size:]
        size = min(2 * size, _MOST)
        share = replace(settings, timeout=clock.left)
        try:
            outcomes = route.estimate_points([problems[at] for at in part], share)
        except BackendError:
            return
        for at, outcome in zip(part, outcomes, strict=True):
            found[at] = both(outcome.brackets.get("epsilon", OPEN), found[at])


def _search(
    problems: Sequence[Problem], found: list[Bracket], settings: Settings, clock: Clock
) -> None:
    """Narrow the brackets that stand highest until the largest is known or the time is over."""
    todo = set(range(len(problems)))
    while todo and clock.left > 0:
        lower, upper = max(b.lower for b in found), max(b.upper for b in found)
        if upper - lower <= settings.tolerance:
            return
        rivals = [at for at in todo if found[at].upper > lower + settings.tolerance]
        if not rivals:
            return
        at = max(rivals, key=lambda i: found[i].upper)
        todo.remove(at)
        share = replace(settings, timeout=clock.left / len(rivals))
        outcome = engine.estimate(problems[at], "epsilon", share)
        found[at] = both(outcome.brackets.get("epsilon", OPEN), found[at])

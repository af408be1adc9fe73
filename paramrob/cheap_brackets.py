"""Brackets that ``check`` adds to its verdict where they cost little, held against the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from paramrob import engine
from paramrob.clock import Clock
from paramrob.engine import Settings
from paramrob.errors import SoundnessError
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.several import has_labels
from paramrob.verdict import Bracket, Outcome, Verdict

CHEAP_SECONDS = 2.0
"""How long ``check`` may go on for brackets that nobody asked for."""

_BY_BOUNDS = "brackets that were not asked for are the bound engine's"


def with_brackets(
    problem: Problem, outcome: Outcome, settings: Settings, stopped: Callable[[], bool]
) -> Outcome:
    """Add the brackets of epsilon and sigma where they are cheap, and hold them to the verdict."""
    clock = Clock(settings.timeout)
    outcome = implied(problem, outcome)
    # Formulas are decided one threshold at a time: no bracket of theirs is cheap.
    cheap = replace(settings, solver="bounds", cross_check=None)
    missing = _missing(problem, outcome)
    if missing and settings.solver not in ("auto", "bounds"):
        outcome = replace(outcome, notes=(*outcome.notes, _BY_BOUNDS))
    for quantity in missing:
        if stopped() or clock.left <= 0:
            break
        try:
            extra = engine.estimate(problem, quantity, replace(cheap, timeout=clock.left))
        except KeyboardInterrupt:
            break
        found = {k: b for k, b in extra.brackets.items() if math.isfinite(b.upper)}
        outcome = replace(
            outcome,
            brackets={**found, **outcome.brackets},
            engine_seconds=outcome.engine_seconds + extra.engine_seconds,
        )
    check_agreement(problem, outcome)
    return outcome


def _missing(problem: Problem, outcome: Outcome) -> list[Quantity]:
    missing: list[Quantity] = []
    if "epsilon" not in outcome.brackets:
        missing.append("epsilon")
    if has_labels(problem) and not any(k.startswith("sigma") for k in outcome.brackets):
        # Whoever asks about labels wants this one first.
        missing.insert(0, "sigma")
    return missing


def implied(problem: Problem, outcome: Outcome) -> Outcome:
    """Add ``sigma = 0``, which proved labels mean: there is no input whose label flips."""
    is_labels = problem.property is not None and problem.property.name == "labels"
    if not is_labels or outcome.verdict is not Verdict.ROBUST:
        return outcome
    names = ["sigma"] if problem.reference.output_size > 1 else ["sigma_above", "sigma_below"]
    zero = dict.fromkeys(names, Bracket(0.0, 0.0))
    return replace(outcome, brackets={**zero, **outcome.brackets})


def check_agreement(problem: Problem, outcome: Outcome) -> None:
    """Refuse a verdict and brackets that cannot both be true.

    Raises:
        SoundnessError: they contradict each other.
    """
    asked = problem.property
    if asked is None or outcome.verdict not in (Verdict.ROBUST, Verdict.NOT_ROBUST):
        return
    if asked.name == "confidence":
        names, threshold = ["epsilon"], asked.epsilon
    else:
        names = [k for k in outcome.brackets if k.startswith("sigma")]
        threshold = asked.sigma or Fraction(0)
    found = [outcome.brackets[k] for k in names if k in outcome.brackets]
    if not found or threshold is None:
        return
    above = any(b.lower > threshold for b in found)
    # A flip exactly at sigma refutes the margin, a change of exactly epsilon does not refute.
    reached = any(
        b.upper > threshold or (b.upper == threshold and asked.name != "confidence") for b in found
    )
    robust = outcome.verdict is Verdict.ROBUST
    if (robust and above) or (not robust and not reached):
        ends = "; ".join(f"[{b.lower!r}, {b.upper!r}]" for b in found)
        raise SoundnessError(
            f"the verdict {outcome.verdict.value} on {asked.name} contradicts the bracket {ends}; "
            "this is a defect of paramrob: please report it with the model"
        )

"""Verdicts and brackets over boxes of inputs, for any two networks."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from fractions import Fraction

from torch import Tensor

from paramrob.bounds.graph.boxes import NO_NUMBER, BoxPass, Found, attained
from paramrob.bounds.graph.limits import Limits
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.exact import float_below
from paramrob.problem import Problem, check_labels
from paramrob.properties import Quantity
from paramrob.replay import refutes
from paramrob.verdict import Bracket, Outcome, Verdict

INF = float("inf")
AT_THRESHOLD = "bounds and threshold are too near to each other for float64; change the threshold"


def decide(problem: Problem, settings: Settings) -> Outcome:
    """Decide ``problem.property`` over its box.

    Raises:
        InputError: no property is asked.
        BackendError: a layer that the pass does not know.
    """
    claim = problem.property
    if claim is None:
        raise InputError("no property to decide; give one or estimate a quantity")
    started = time.monotonic()
    deadline = started + settings.timeout
    pass_ = BoxPass(problem, settings)

    def refuted(found: Found) -> bool:
        return found.witness is not None and refutes(problem, found.witness)

    if claim.name == "confidence":
        enough = float_below(claim.epsilon or Fraction(0))
        names = ["epsilon"]
    else:
        # labels: no flip at all; margin: none at sigma or beyond
        enough = -INF if not claim.sigma else below(float_below(claim.sigma))
        names = sigma_names(problem)
    searches: list[Found] = []
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        limit = time.monotonic() + (deadline - time.monotonic()) / left
        found = pass_.search(
            lambda limits, name=name: score_of(limits, name),  # type: ignore[misc]
            name,
            limit,
            enough,
            lambda witness: refutes(problem, witness),
        )
        searches.append(found)
        if refuted(found):
            break
    return _verdict(problem, pass_, searches, enough, time.monotonic() - started)


def _verdict(
    problem: Problem, pass_: BoxPass, searches: list[Found], enough: float, seconds: float
) -> Outcome:
    last = searches[-1]
    common = Outcome(exact_encoding=pass_.exact, engine_seconds=seconds)
    if last.witness is not None and refutes(problem, last.witness):
        return replace(common, verdict=Verdict.NOT_ROBUST, witness=last.witness)
    if all(found.proved <= enough for found in searches):
        return replace(common, verdict=Verdict.ROBUST)
    reasons = [found.reason for found in searches if found.reason]
    return replace(common, verdict=Verdict.UNKNOWN, reason=(reasons or [AT_THRESHOLD])[0])


def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
    """Bracket epsilon or sigma over the problem's box.

    Raises:
        InputError: the quantity is delta, or needs labels that are missing.
        BackendError: a layer that the pass does not know.
    """
    started = time.monotonic()
    deadline = started + settings.timeout
    if quantity == "delta":
        raise InputError("delta is found by decisions; ask for epsilon or sigma here")
    if quantity == "sigma":
        check_labels(problem.reference, problem.output)
    names = ["epsilon"] if quantity == "epsilon" else sigma_names(problem)
    pass_ = BoxPass(problem, settings)
    brackets, reasons = {}, []
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        limit = time.monotonic() + (deadline - time.monotonic()) / left
        found = pass_.search(lambda limits, name=name: score_of(limits, name), name, limit)  # type: ignore[misc]
        brackets[name] = _bracket(name, found)
        if found.reason is not None:
            reasons.append(found.reason)
    wide = any(b.width > settings.tolerance for b in brackets.values())
    return Outcome(
        None,
        (reasons or [NO_NUMBER])[0] if wide else None,
        brackets,
        engine_seconds=time.monotonic() - started,
        exact_encoding=pass_.exact,
    )


def sigma_names(problem: Problem) -> list[str]:
    """Return the names of sigma's brackets."""
    return ["sigma"] if problem.reference.output_size > 1 else ["sigma_above", "sigma_below"]


def score_of(limits: Limits, name: str) -> Tensor:
    """Return the limit of that name."""
    return limits.epsilon if name == "epsilon" else limits.sigma[name]


def below(value: float) -> float:
    """Return the next smaller number: a flip at sigma itself refutes."""
    return math.nextafter(value, -INF)


def _bracket(name: str, found: Found) -> Bracket:
    """Return the bracket; what replay says of the witness is its lower end."""
    value = None if found.witness is None else attained(name, found.witness)
    upper = max(found.proved, 0.0)
    if value is None or not value > 0:
        return Bracket(0.0, upper)
    return Bracket(value, upper, found.witness)

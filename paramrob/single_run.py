"""Problems of one input and one parameter vector: executed exactly, they are decided."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from paramrob.domain import Point
from paramrob.models.network import Network, Quantize
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.replay import refutes, replay
from paramrob.verdict import Outcome, Verdict, Witness

METHOD = "execution"
"""What an outcome names as its method where this decided."""


def is_single(problem: Problem) -> bool:
    """Whether the problem has one input, one parameter vector, and one way to execute them."""
    uncertain = problem.uncertain
    return (
        isinstance(problem.domain, Point)
        and problem.arithmetic is None
        and not _deviates(uncertain.network)
        and not any(
            uncertain.interval(name).radius().any() for name in uncertain.network.parameters
        )
    )


def executed(problem: Problem, first: Outcome) -> Outcome:
    """Decide such a problem by exact execution.

    Args:
        problem: :func:`is_single` holds.
        first: what bounds leave open.

    Returns:
        ``first`` where the numbers are balls that do not tell.
    """
    witness = replay(problem, problem.domain.inner()[0], {})
    if refutes(problem, witness):
        return replace(
            first, verdict=Verdict.NOT_ROBUST, reason=None, witness=witness, method=METHOD
        )
    if problem.property is not None and _holds(problem.property, witness):
        return replace(first, verdict=Verdict.ROBUST, reason=None, method=METHOD)
    return first


def _deviates(network: Network) -> bool:
    return any(isinstance(n.op, Quantize) and n.op.deviation for n in network.nodes)


def _holds(claim: Property, witness: Witness) -> bool:
    """Whether a replayed run proves the claim: what its enclosures leave open proves nothing."""
    if claim.name == "confidence":
        change, epsilon = witness.change, claim.epsilon
        return change is not None and epsilon is not None and _at_most(change.upper, epsilon)
    if None not in witness.labels and witness.labels[0] == witness.labels[1]:
        return True
    margin, sigma = witness.margin, claim.sigma
    near = margin is not None and sigma is not None and _below(margin.upper, sigma)
    return claim.name == "margin" and near


def _at_most(value: float, bound: Fraction) -> bool:
    return value < float("inf") and Fraction(value) <= bound


def _below(value: float, bound: Fraction) -> bool:
    return value < float("inf") and Fraction(value) < bound

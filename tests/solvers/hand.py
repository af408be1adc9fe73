"""Queries written by hand, whose answers are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from paramrob.encoders.terms import (
    Comparison,
    Declaration,
    Definition,
    Formula,
    Logic,
    Query,
    Term,
    Variable,
    any_of,
    constant,
)
from paramrob.models.network import Array
from paramrob.verdict import Approximation

F = Fraction


def undecoded(model: Mapping[str, Fraction]) -> tuple[Array, dict[str, Array]]:
    return np.array([float(v) for v in model.values()]), {}


def query(
    boxes: Mapping[str, tuple[str, str]],
    definitions: Mapping[str, Term],
    *constraints: Formula,
    logic: Logic = "QF_NRA_EXP",
) -> Query:
    """Return a query that maximises its last definition."""
    declarations = tuple(
        Declaration(Variable(name), F(low), F(high), name) for name, (low, high) in boxes.items()
    )
    defined = tuple(Definition(Variable(name), term) for name, term in definitions.items())
    return Query(
        "hand-made",
        declarations,
        defined,
        constraints,
        logic,
        Approximation.EXACT,
        undecoded,
        target=defined[-1].variable,
    )


def slack_query(delta: Fraction) -> Query:
    """Return ``sigmoid(2 x - 1 + s) - sigmoid(2 x - 1)`` on [0, 1] with ``|s| <= delta (x+1)``.

    Rises with the slack; at a logit z its size is ``sigmoid(z + delta (x+1)) - sigmoid(z)``.
    """
    from paramrob.encoders.terms import Sigmoid, add, negate, scale, subtract

    x, s, r = Variable("x"), Variable("s"), Variable("r")
    z, p, d = Variable("z"), Variable("p"), Variable("d")
    declarations = (
        Declaration(x, F(0), F(1), "input"),
        Declaration(s, None, None, "slack", r),
    )
    definitions = (
        Definition(z, add(scale(F(2), x), constant(-1))),
        Definition(r, add(scale(delta, x), constant(delta))),
        Definition(p, add(z, s)),
        Definition(d, subtract(Sigmoid(p), Sigmoid(z))),
    )

    def above(t: Fraction) -> Formula:
        return any_of(Comparison(">=", d, constant(t)), Comparison("<=", d, constant(-t)))

    constraints = (Comparison("<=", s, r), Comparison("<=", negate(s), r))
    return Query(
        "slack",
        declarations,
        definitions,
        constraints,
        "QF_NRA_EXP",
        Approximation.EXACT,
        undecoded,
        above=above,
    )


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def slack_optimum(delta: float) -> float:
    """Return the largest change of :func:`slack_query`, by a fine search over the input."""
    best = 0.0
    for i in range(200_001):
        x = i / 200_000
        z, reach = 2 * x - 1, delta * (x + 1)
        best = max(best, sigmoid(z + reach) - sigmoid(z), sigmoid(z) - sigmoid(z - reach))
    return best

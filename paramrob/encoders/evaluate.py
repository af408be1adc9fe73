"""Terms and formulas evaluated: exactly (rationals and balls) or in floating point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from paramrob.encoders.terms import (
    And,
    Comparison,
    Constant,
    Definition,
    Exp,
    Formula,
    Maximum,
    Product,
    Quotient,
    Scaled,
    Sigmoid,
    Sum,
    Term,
    Variable,
)
from paramrob.replay_numbers import (
    exponential,
    greater,
    maximum,
    sigmoid,
    tanh,
    to_arb,
    to_fmpq,
)


@dataclass(frozen=True)
class Arithmetic:
    """One kind of numbers; they understand ``+ * /`` among each other."""

    lift: Callable[[Fraction], Any]
    maximum: Callable[[Any, Any], Any]
    exp: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]


EXACT = Arithmetic(
    to_fmpq,
    lambda a, b: maximum((a, b)),
    lambda z: exponential(to_arb(z)),
    sigmoid,
    lambda z: tanh(to_arb(z)),
)
"""``fmpq`` until an exponential, from then on ``arb`` at the working precision."""


def _float_exp(z: float) -> float:
    return math.exp(z) if z < 709 else math.inf


FLOAT = Arithmetic(
    float,
    max,
    _float_exp,
    lambda z: 0.5 * (1.0 + math.tanh(0.5 * z)),
    math.tanh,
)
"""float64 to nearest: for candidates, never for proofs."""


def evaluate(term: Term, values: Mapping[str, Any], numbers: Arithmetic = EXACT) -> Any:
    """Return a term's value from those of its variables."""
    if isinstance(term, Constant):
        return numbers.lift(term.value)
    if isinstance(term, Variable):
        return values[term.name]
    if isinstance(term, Sum):
        total = evaluate(term.terms[0], values, numbers)
        for part in term.terms[1:]:
            total = total + evaluate(part, values, numbers)
        return total
    if isinstance(term, Scaled):
        return numbers.lift(term.factor) * evaluate(term.term, values, numbers)
    if isinstance(term, (Product, Quotient, Maximum)):
        left, right = (evaluate(t, values, numbers) for t in (term.left, term.right))
        if isinstance(term, Maximum):
            return numbers.maximum(left, right)
        return left * right if isinstance(term, Product) else left / right
    inside = evaluate(term.term, values, numbers)
    if isinstance(term, Exp):
        return numbers.exp(inside)
    return numbers.sigmoid(inside) if isinstance(term, Sigmoid) else numbers.tanh(inside)


def complete(
    definitions: Iterable[Definition],
    declared: Mapping[str, Fraction],
    numbers: Arithmetic = EXACT,
) -> dict[str, Any]:
    """Return the values of all variables from those of the declared ones."""
    values = {name: numbers.lift(value) for name, value in declared.items()}
    for definition in definitions:
        values[definition.variable.name] = evaluate(definition.term, values, numbers)
    return values


def holds(formula: Formula, values: Mapping[str, Any]) -> bool | None:
    """Whether a formula holds at exact values; ``None`` where balls cannot tell."""
    if isinstance(formula, Comparison):
        return _compared(formula, values)
    answers = [holds(part, values) for part in formula.parts]
    if isinstance(formula, And):
        return False if False in answers else None if None in answers else True
    return True if True in answers else None if None in answers else False


def _compared(comparison: Comparison, values: Mapping[str, Any]) -> bool | None:
    left, right = evaluate(comparison.left, values), evaluate(comparison.right, values)
    if comparison.operator == ">":
        return greater(left, right)
    if comparison.operator == "<":
        return greater(right, left)
    beyond = greater(left, right)
    less = greater(right, left)
    if comparison.operator == "<=":
        return None if beyond is None else not beyond
    if comparison.operator == ">=":
        return None if less is None else not less
    if beyond or less:
        return False
    return None if beyond is None or less is None else True

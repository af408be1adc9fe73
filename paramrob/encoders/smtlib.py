"""Queries as SMT-LIB 2 text: the portable standard, and dReal's dialect.

Every definition is a declared variable with an equation, so that a file is linear in the network
and no solver has to expand anything. ``exp`` is no part of the standard; cvc5 (logic ``QF_NRAT``)
and dReal know it. dReal computes with float64: a rational that is none becomes a variable between
its two neighbours, which lets more points in, never fewer, so that its ``unsat`` still proves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal

from paramrob.encoders.terms import (
    And,
    Comparison,
    Constant,
    Definition,
    Exp,
    Formula,
    Maximum,
    Or,
    Product,
    Query,
    Quotient,
    Scaled,
    Sigmoid,
    Sum,
    Term,
    Variable,
)
from paramrob.exact import float_above, float_below
from paramrob.verdict import Approximation

Dialect = Literal["portable", "dreal"]
LONGEST_DECIMAL = 60
SHORT_DECIMAL = 17


def to_smtlib(
    query: Query,
    dialect: Dialect = "portable",
    comments: Sequence[str] = (),
    precision: str = "0.000001",
) -> str:
    """Return a query as SMT-LIB 2 text.

    Args:
        query: what is asked; ``unsat`` says that nothing satisfies it.
        dialect: ``portable``, or ``dreal`` (``max``, ``tanh``, hexadecimal floats).
        comments: further lines for the head of the file.
        precision: dReal's delta, a decimal.
    """
    printer = _DReal() if dialect == "dreal" else _Portable()
    body = list(_body(query, printer))
    logic = printer.logic(query)
    head = [_comment(line) for line in (*_head(query), *comments)]
    head.append(f"(set-logic {logic})")
    if dialect == "dreal":
        head.append(f"(set-option :precision {precision})")
    return "\n".join([*head, *printer.constants(), *body, "(check-sat)", "(exit)", ""])


def _head(query: Query) -> Iterator[str]:
    yield query.name
    yield "unsat: nothing does, the property holds for the whole box"
    if query.approximation is Approximation.EXACT:
        yield "sat: a counterexample (exact encoding)"
    else:
        yield "sat: a candidate that has to be replayed (the encoding lets more points in)"


def _comment(text: str) -> str:
    return "; " + "".join(c if c.isprintable() else " " for c in text)


def _body(query: Query, printer: _Portable) -> Iterator[str]:
    for declaration in query.declarations:
        name = declaration.variable.name
        yield f"{_declare(name)} {_comment(declaration.meaning)}"
        yield from printer.bounds(name, declaration.lower, declaration.upper)
    for definition in query.definitions:
        yield from _definition(definition, printer)
    for formula in query.constraints:
        parts = formula.parts if isinstance(formula, And) and formula.parts else (formula,)
        for part in parts:
            yield f"(assert {printer.formula(part)})"


def _definition(definition: Definition, printer: _Portable) -> Iterator[str]:
    name = definition.variable.name
    yield f"{_declare(name)} {_comment(definition.meaning)}"
    yield f"(assert (= {name} {printer.term(definition.term)}))"
    yield from printer.bounds(name, definition.lower, definition.upper)


def _declare(name: str) -> str:
    return f"(declare-fun {name} () Real)"


class _Portable:
    """Prints terms and formulas of the standard."""

    def logic(self, query: Query) -> str:
        return "QF_NRAT" if query.logic == "QF_NRA_EXP" else query.logic

    def constants(self) -> list[str]:
        """Return declarations of constants that the terms printed so far need."""
        return []

    def bounds(self, name: str, lower: Fraction | None, upper: Fraction | None) -> Iterator[str]:
        """Yield the assertions of a variable's range."""
        if lower is not None:
            yield f"(assert (<= {self.number(lower)} {name}))"
        if upper is not None:
            yield f"(assert (<= {name} {self.number(upper)}))"

    def number(self, value: Fraction) -> str:
        """Return an exact literal: a decimal where there is a short one, else a fraction."""
        return _signed(value, self.magnitude)

    def magnitude(self, value: Fraction) -> str:
        """Return the literal of a number that is not negative."""
        decimal = _decimal(value, LONGEST_DECIMAL)
        return decimal or f"(/ {value.numerator}.0 {value.denominator}.0)"

    def term(self, term: Term) -> str:
        """Return a term."""
        if isinstance(term, Constant):
            return self.number(term.value)
        if isinstance(term, Variable):
            return term.name
        if isinstance(term, Sum):
            return f"(+ {' '.join(self.term(t) for t in term.terms)})"
        if isinstance(term, Scaled):
            inside = self.term(term.term)
            return (
                f"(- {inside})" if term.factor == -1 else f"(* {self.number(term.factor)} {inside})"
            )
        if isinstance(term, (Product, Quotient)):
            sign = "*" if isinstance(term, Product) else "/"
            return f"({sign} {self.term(term.left)} {self.term(term.right)})"
        if isinstance(term, Maximum):
            return self.maximum(self.term(term.left), self.term(term.right))
        inside = self.term(term.term)
        if isinstance(term, Exp):
            return f"(exp {inside})"
        if isinstance(term, Sigmoid):
            return f"(/ 1.0 (+ 1.0 (exp (- {inside}))))"
        return self.tanh(inside)

    def maximum(self, left: str, right: str) -> str:
        """Return the larger of two printed terms."""
        return f"(ite (>= {left} {right}) {left} {right})"

    def tanh(self, inside: str) -> str:
        """Return tanh of a printed term."""
        return f"(- (/ 2.0 (+ 1.0 (exp (* (- 2.0) {inside})))) 1.0)"

    def formula(self, formula: Formula) -> str:
        """Return a formula."""
        if isinstance(formula, Comparison):
            return f"({formula.operator} {self.term(formula.left)} {self.term(formula.right)})"
        if not formula.parts:
            return "true" if isinstance(formula, And) else "false"
        sign = "or" if isinstance(formula, Or) else "and"
        return f"({sign} {' '.join(self.formula(part) for part in formula.parts)})"


class _DReal(_Portable):
    """Prints dReal's dialect; numbers are float64 or variables between two of them."""

    def __init__(self) -> None:
        self._between: dict[Fraction, str] = {}

    def logic(self, query: Query) -> str:
        return "QF_NRA"

    def constants(self) -> list[str]:
        lines = []
        for value, name in self._between.items():
            lines.append(f"{_declare(name)} ; {value.numerator}/{value.denominator}, no float64")
            lines += self.bounds(name, value, value)
        return lines

    def bounds(self, name: str, lower: Fraction | None, upper: Fraction | None) -> Iterator[str]:
        low = -math.inf if lower is None else float_below(lower)
        high = math.inf if upper is None else float_above(upper)
        if math.isfinite(low):
            yield f"(assert (<= {_signed(Fraction(low), _float)} {name}))"
        if math.isfinite(high):
            yield f"(assert (<= {name} {_signed(Fraction(high), _float)}))"

    def magnitude(self, value: Fraction) -> str:
        if float_below(value) == float_above(value):
            return _float(value)
        return self._between.setdefault(value, f"c{len(self._between)}")

    def maximum(self, left: str, right: str) -> str:
        return f"(max {left} {right})"

    def tanh(self, inside: str) -> str:
        return f"(tanh {inside})"


def _signed(value: Fraction, magnitude: Callable[[Fraction], str]) -> str:
    return magnitude(value) if value >= 0 else f"(- {magnitude(-value)})"


def _float(value: Fraction) -> str:
    """Return an exact literal of a float64 that is not negative."""
    return _decimal(value, SHORT_DECIMAL) or float(value).hex()


def _decimal(value: Fraction, longest: int) -> str | None:
    """Return the exact decimal of a number that is not negative, if it is short enough."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0 and power <= longest:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1 or places > longest:
        return None
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    if len(digits) > longest:
        return None
    whole = digits[:-places] if places else digits
    return f"{whole}.{digits[-places:] if places else '0'}"

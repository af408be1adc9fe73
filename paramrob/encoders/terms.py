"""The neutral formula: a small immutable term graph over the reals with exact rationals.

A :class:`Query` asks whether some assignment of its declared variables satisfies everything at
once: the bounds of the declarations, the equations of the definitions and all constraints. A
definition names one quantity (a neuron, say) and is used by that name afterwards, so that a
query's size is linear in the network's. Rectifiers and absolute values are a :class:`Maximum`
(``relu(z) = max(z, 0)``, ``leaky(z) = max(z, slope z)``, ``|h| = max(h, -h)``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from paramrob.errors import SoundnessError
from paramrob.models.network import Array
from paramrob.verdict import Approximation

Operator = Literal["<=", "<", ">=", ">", "="]
Logic = Literal["QF_LRA", "QF_NRA", "QF_NRA_EXP"]
LOGICS: tuple[Logic, ...] = ("QF_LRA", "QF_NRA", "QF_NRA_EXP")


@dataclass(frozen=True, slots=True)
class Constant:
    """An exact rational."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared or defined real; ``name`` is a plain SMT-LIB symbol."""

    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of two terms or more."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Scaled:
    """A term times an exact rational."""

    factor: Fraction
    term: Term


@dataclass(frozen=True, slots=True)
class Product:
    """The product of two terms, neither of them constant."""

    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Quotient:
    """``left / right``; whoever builds one makes sure that ``right`` cannot be 0."""

    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Maximum:
    """The larger of two terms."""

    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Exp:
    """The exponential."""

    term: Term


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """``1 / (1 + exp(-term))``."""

    term: Term


@dataclass(frozen=True, slots=True)
class Tanh:
    """``tanh(term) = 2 sigmoid(2 term) - 1``."""

    term: Term


Term: TypeAlias = (
    Constant | Variable | Sum | Scaled | Product | Quotient | Maximum | Exp | Sigmoid | Tanh
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``left operator right``."""

    operator: Operator
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class And:
    """All of these; of none: true."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of these at least; of none: false."""

    parts: tuple[Formula, ...]


Formula: TypeAlias = Comparison | And | Or
TRUE = And(())
FALSE = Or(())
ZERO = Constant(Fraction(0))
ONE = Constant(Fraction(1))


@dataclass(frozen=True)
class Declaration:
    """A free variable; ``lower`` and ``upper`` (ends included) are part of the formula.

    ``within`` names a definition that does not depend on this variable and bounds its magnitude;
    the constraints say so too. It is a hint for solvers that need a box to start from.
    """

    variable: Variable
    lower: Fraction | None
    upper: Fraction | None
    meaning: str
    within: Variable | None = None


@dataclass(frozen=True)
class Definition:
    """``variable = term``, a function of what stands before it.

    ``lower`` and ``upper`` are proved of every assignment that satisfies the declarations and
    the slack constraints: to assert them changes no answer.
    """

    variable: Variable
    term: Term
    lower: Fraction | None = None
    upper: Fraction | None = None
    meaning: str = ""


Decoder: TypeAlias = Callable[[Mapping[str, Fraction]], tuple[Array, dict[str, Array]]]
"""From exact values of the declared variables to ``(x, parameters)``: float64, ``x`` flattened and
inside the domain, one array for each parameter of the uncertain network inside its interval."""


@dataclass(frozen=True)
class Query:
    """One question to a solver: can all of this hold together?

    Attributes:
        name: what is asked, for people.
        declarations: the free variables: inputs, parameters or slacks.
        definitions: in order of dependence.
        constraints: a conjunction.
        logic: the smallest of ``LOGICS`` that holds the query with any threshold.
        approximation: of the problem: only ``EXACT`` and ``OVER`` can prove by ``unsat``.
        decode: turns a solver's values of the declared variables into a candidate.
        target: the quantity to maximise, where it is one variable.
        above: the formula for "the quantity is at least this", where there is a quantity.
        comments: property, model and the like; printers repeat them.
    """

    name: str
    declarations: tuple[Declaration, ...]
    definitions: tuple[Definition, ...]
    constraints: tuple[Formula, ...]
    logic: Logic
    approximation: Approximation
    decode: Decoder
    target: Variable | None = None
    above: Callable[[Fraction], Formula] | None = None
    comments: tuple[str, ...] = ()

    def with_threshold(self, value: Fraction) -> Query:
        """Return the query that also wants the quantity to be at least ``value``.

        ``unsat`` then says that the quantity's supremum is at most ``value``.

        Raises:
            SoundnessError: this query has no quantity.
        """
        if self.above is not None:
            wanted = self.above(value)
        elif self.target is not None:
            wanted = Comparison(">=", self.target, Constant(value))
        else:
            raise SoundnessError(f"{self.name}: a query without a quantity takes no threshold")
        return replace(self, constraints=(*self.constraints, wanted))


def children(term: Term) -> tuple[Term, ...]:
    """Return the terms that a term is made of."""
    if isinstance(term, (Constant, Variable)):
        return ()
    if isinstance(term, Sum):
        return term.terms
    if isinstance(term, (Product, Quotient, Maximum)):
        return (term.left, term.right)
    return (term.term,)


def comparisons(formula: Formula) -> Iterator[Comparison]:
    """Yield the comparisons of a formula."""
    if isinstance(formula, Comparison):
        yield formula
        return
    for part in formula.parts:
        yield from comparisons(part)


def constant(value: Fraction | int) -> Constant:
    """Return a constant."""
    return Constant(Fraction(value))


def add(*terms: Term) -> Term:
    """Return the sum, with constants collected and nested sums flattened."""
    fixed = Fraction(0)
    rest: list[Term] = []
    for term in terms:
        for part in term.terms if isinstance(term, Sum) else (term,):
            if isinstance(part, Constant):
                fixed += part.value
            else:
                rest.append(part)
    if fixed or not rest:
        rest.append(Constant(fixed))
    return rest[0] if len(rest) == 1 else Sum(tuple(rest))


def scale(factor: Fraction, term: Term) -> Term:
    """Return ``factor * term``."""
    if factor == 0:
        return ZERO
    if isinstance(term, Constant):
        return Constant(factor * term.value)
    if factor == 1:
        return term
    if isinstance(term, Scaled):
        return scale(factor * term.factor, term.term)
    return Scaled(factor, term)


def negate(term: Term) -> Term:
    """Return ``-term``."""
    return scale(Fraction(-1), term)


def subtract(left: Term, right: Term) -> Term:
    """Return ``left - right``."""
    return add(left, negate(right))


def multiply(left: Term, right: Term) -> Term:
    """Return ``left * right``."""
    if isinstance(left, Constant):
        return scale(left.value, right)
    if isinstance(right, Constant):
        return scale(right.value, left)
    return Product(left, right)


def divide(left: Term, right: Term) -> Term:
    """Return ``left / right``; ``right`` must not be able to become 0."""
    if isinstance(right, Constant):
        return scale(1 / right.value, left)
    return ZERO if left == ZERO else Quotient(left, right)


def maximum(left: Term, right: Term) -> Term:
    """Return the larger of the two."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return left if left.value >= right.value else right
    return Maximum(left, right)


_HOLDS: Mapping[Operator, Callable[[Fraction, Fraction], bool]] = {
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
}


def compare(left: Term, operator: Operator, right: Term) -> Formula:
    """Return the comparison, decided where both sides are constant."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return TRUE if _HOLDS[operator](left.value, right.value) else FALSE
    return Comparison(operator, left, right)


def all_of(*parts: Formula) -> Formula:
    """Return the conjunction, flattened; false if one part is."""
    flat = [p for part in parts for p in (part.parts if isinstance(part, And) else (part,))]
    if FALSE in flat:
        return FALSE
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(*parts: Formula) -> Formula:
    """Return the disjunction, flattened; true if one part is."""
    flat = [p for part in parts for p in (part.parts if isinstance(part, Or) else (part,))]
    if TRUE in flat:
        return TRUE
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def logic_of(terms: Iterator[Term]) -> Logic:
    """Return the smallest logic that holds all these terms."""
    rank = 0
    stack = list(terms)
    while stack:
        term = stack.pop()
        if isinstance(term, (Exp, Sigmoid, Tanh)):
            return "QF_NRA_EXP"
        if isinstance(term, (Product, Quotient)):
            rank = 1
        stack += children(term)
    return LOGICS[rank]

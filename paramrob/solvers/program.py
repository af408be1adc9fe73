"""A query as a flat list of operations, which can cross to another process as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from paramrob.encoders.terms import (
    And,
    Comparison,
    Constant,
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
    Tanh,
    Term,
    Variable,
)
from paramrob.errors import SoundnessError

Node: TypeAlias = tuple[Any, ...]
"""``("var", i)``, ``("const", q)``, ``("sum", ids)``, ``("scale", q, id)``, ``("mul" | "div" |
"max", id, id)`` or ``("exp" | "sigmoid" | "tanh", id)``; ids are places in the list of nodes."""

Clause: TypeAlias = tuple[Any, ...]
"""``("cmp", operator, id, id)``, ``("and", clauses)`` or ``("or", clauses)``."""

_PAIRS = {Product: "mul", Quotient: "div", Maximum: "max"}
_FUNCTIONS = {Exp: "exp", Sigmoid: "sigmoid", Tanh: "tanh"}


@dataclass(frozen=True)
class Slot:
    """A variable: its bounds are part of the formula, or proved of it."""

    name: str
    lower: Fraction | None
    upper: Fraction | None
    within: int | None = None


@dataclass(frozen=True)
class Program:
    """A query without its meaning.

    The first ``declared`` variables are free; ``definitions`` gives the others, in order, as
    nodes.
    """

    variables: tuple[Slot, ...]
    declared: int
    nodes: tuple[Node, ...]
    definitions: tuple[int, ...]
    constraints: tuple[Clause, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the program with its rationals as text."""
        return {
            "variables": [
                [v.name, _text(v.lower), _text(v.upper), v.within] for v in self.variables
            ],
            "declared": self.declared,
            "nodes": [[_text(part) for part in node] for node in self.nodes],
            "definitions": list(self.definitions),
            "constraints": [list(c) for c in self.constraints],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Program:
        """Return what :meth:`as_json` wrote."""
        return cls(
            tuple(Slot(n, _number(a), _number(b), within) for n, a, b, within in data["variables"]),
            data["declared"],
            tuple(_read(node) for node in data["nodes"]),
            tuple(data["definitions"]),
            tuple(data["constraints"]),
        )

    def says_slack(self, clause: Clause) -> bool:
        """Whether a constraint is ``s <= r`` or ``-s <= r`` of a variable within ``r``."""
        if clause[0] != "cmp" or clause[1] != "<=":
            return False
        left, right = (self.nodes[k] for k in clause[2:])
        if left[0] == "scale" and left[1] == -1:
            left = self.nodes[left[2]]
        both = left[0] == "var" and right[0] == "var"
        return bool(both and right[1] == self.variables[left[1]].within)


def _text(part: Any) -> Any:
    return str(part) if isinstance(part, Fraction) else part


def _number(text: str | None) -> Fraction | None:
    return None if text is None else Fraction(text)


def _read(node: Sequence[Any]) -> Node:
    if node[0] in ("const", "scale"):
        return (node[0], Fraction(node[1]), *node[2:])
    return tuple(node)


def flatten(query: Query) -> Program:
    """Return the program of a query.

    Raises:
        SoundnessError: a term uses a variable before its definition, or is none.
    """
    return _Flattener(query).program()


class _Flattener:
    def __init__(self, query: Query) -> None:
        self._query = query
        self._nodes: list[Node] = []
        self._known: dict[str, int] = {}
        self._places: dict[str, int] = {}

    def program(self) -> Program:
        query = self._query
        for declaration in query.declarations:
            self._name(declaration.variable)
        definitions = []
        for definition in query.definitions:
            definitions.append(self._node(definition.term))
            self._name(definition.variable)
        slots = []
        for d in query.declarations:
            within = None if d.within is None else self._index(d.within)
            slots.append(Slot(d.variable.name, d.lower, d.upper, within))
        slots += [Slot(d.variable.name, d.lower, d.upper) for d in query.definitions]
        constraints = tuple(self._clause(c) for c in query.constraints)
        return Program(
            tuple(slots),
            len(query.declarations),
            tuple(self._nodes),
            tuple(definitions),
            constraints,
        )

    def _name(self, variable: Variable) -> None:
        if variable.name in self._known:
            raise SoundnessError(f"{self._query.name}: {variable.name} stands for two things")
        self._known[variable.name] = len(self._known)

    def _index(self, variable: Variable) -> int:
        if variable.name not in self._known:
            raise SoundnessError(f"{self._query.name}: {variable.name} is used but not defined")
        return self._known[variable.name]

    def _add(self, *node: Any) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _node(self, term: Term) -> int:
        if isinstance(term, Variable):
            if term.name not in self._places:
                self._places[term.name] = self._add("var", self._index(term))
            return self._places[term.name]
        if isinstance(term, Constant):
            return self._add("const", term.value)
        if isinstance(term, Sum):
            return self._add("sum", [self._node(t) for t in term.terms])
        if isinstance(term, Scaled):
            return self._add("scale", term.factor, self._node(term.term))
        if isinstance(term, (Product, Quotient, Maximum)):
            return self._add(_PAIRS[type(term)], self._node(term.left), self._node(term.right))
        if isinstance(term, (Exp, Sigmoid, Tanh)):
            return self._add(_FUNCTIONS[type(term)], self._node(term.term))
        raise SoundnessError(f"{self._query.name}: {type(term).__name__} is no term")

    def _clause(self, formula: Formula) -> Clause:
        if isinstance(formula, Comparison):
            left, right = self._node(formula.left), self._node(formula.right)
            return ("cmp", formula.operator, left, right)
        if isinstance(formula, (And, Or)):
            kind = "and" if isinstance(formula, And) else "or"
            return (kind, [self._clause(part) for part in formula.parts])
        raise SoundnessError(f"{self._query.name}: {type(formula).__name__} is no formula")

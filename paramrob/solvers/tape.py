"""A program in the form of the interval worker: outward rounded, cases instead of disjunctions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

from paramrob.errors import BackendError, SoundnessError
from paramrob.exact import float_above, float_below
from paramrob.solvers.program import Clause, Node, Program

MOST_CASES = 4096
Goal: TypeAlias = list[Any]
"""``[place, strict]``: the value there has to be ``>= 0``, or ``> 0``."""
_MINUS = Fraction(-1)


class Tape:
    """Operations over earlier places, in order.

    ``["in", i]``: input ``i``; ``["lin", low, high, [[low, high, place], ...]]``: a constant and
    a linear combination, all coefficients enclosed; ``["mul" | "div" | "max", place, place]``;
    ``["exp" | "sigmoid" | "tanh", place]``. Floats are hexadecimal.

    A slack ``s`` with ``|s| <= r`` becomes ``u r`` with ``u`` in [-1, 1], which is the same set:
    the constraints that say so hold by themselves then and are left out.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._operations: list[list[Any]] = []
        self._bounds: dict[int, list[str]] = {}
        self._inputs: dict[int, int] = {}
        self._slack_places: dict[int, int] = {}
        self._within = _within(program)
        self._places: list[int] = []
        self._defined = {k: i for i, k in enumerate(program.definitions)}
        for k, node in enumerate(program.nodes):
            self._places.append(self._place(node))
            self._bound_definition(k)
        kept = [c for c in program.constraints if not program.says_slack(c)]
        self._cases = list(_expanded([self._cases_of(c) for c in kept]))

    def as_json(self) -> dict[str, Any]:
        """Return the question to the worker."""
        boxes = []
        for i, slot in enumerate(self._program.variables[: self._program.declared]):
            is_slack = i in self._within
            low = _MINUS if is_slack else slot.lower
            boxes.append([_below(low), _above(Fraction(1) if is_slack else slot.upper)])
        return {
            "names": [v.name for v in self._program.variables[: self._program.declared]],
            "boxes": boxes,
            "slacks": [[i, place] for i, place in self._slack_places.items()],
            "operations": self._operations,
            "bounds": [[place, *ends] for place, ends in self._bounds.items()],
            "cases": self._cases,
        }

    def _add(self, *operation: Any) -> int:
        self._operations.append(list(operation))
        return len(self._operations) - 1

    def _place(self, node: Node) -> int:
        kind = node[0]
        if kind == "var":
            return self._variable(node[1])
        if kind in ("const", "sum", "scale"):
            return self._linear(node)
        if kind in ("mul", "div", "max"):
            return self._add(kind, self._places[node[1]], self._places[node[2]])
        if kind not in ("exp", "sigmoid", "tanh"):
            raise SoundnessError(f"a program with an operation {kind!r}")
        return self._add(kind, self._places[node[1]])

    def _variable(self, i: int) -> int:
        if i >= self._program.declared:
            return self._places[self._program.definitions[i - self._program.declared]]
        if i not in self._inputs:
            place = self._add("in", i)
            if i in self._within:
                reach = self._variable(self._within[i])
                place = self._slack_places[i] = self._add("mul", place, reach)
            self._inputs[i] = place
        return self._inputs[i]

    def _linear(self, node: Node) -> int:
        constant = Fraction(0)
        parts: dict[int, Fraction] = {}
        for k in node[1] if node[0] == "sum" else [None]:
            part = node if k is None else self._program.nodes[k]
            if part[0] == "const":
                constant += part[1]
                continue
            factor, place = Fraction(1), self._places[k] if k is not None else 0
            if part[0] == "scale":
                factor, place = part[1], self._places[part[2]]
            parts[place] = parts.get(place, Fraction(0)) + factor
        return self._combination(constant, parts)

    def _combination(self, constant: Fraction, parts: dict[int, Fraction]) -> int:
        terms = [[_below(q), _above(q), place] for place, q in parts.items() if q]
        return self._add("lin", _below(constant), _above(constant), terms)

    def _bound_definition(self, k: int) -> None:
        if k in self._defined:
            slot = self._program.variables[self._program.declared + self._defined[k]]
            if slot.lower is not None or slot.upper is not None:
                self._bounds[self._places[k]] = [_below(slot.lower), _above(slot.upper)]

    def _cases_of(self, clause: Clause) -> list[list[Goal]]:
        if clause[0] == "and":
            return list(_expanded([self._cases_of(part) for part in clause[1]]))
        if clause[0] == "or":
            return [case for part in clause[1] for case in self._cases_of(part)]
        operator, left, right = clause[1:]
        forward, backward = self._difference(left, right), self._difference(right, left)
        if operator == "=":
            return [[[forward, False], [backward, False]]]
        strict = operator in ("<", ">")
        if operator not in ("<", "<=", ">", ">="):
            raise SoundnessError(f"a program with a comparison {operator!r}")
        return [[[forward if operator in (">", ">=") else backward, strict]]]

    def _difference(self, left: int, right: int) -> int:
        constant = Fraction(0)
        parts: dict[int, Fraction] = {}
        for k, sign in ((left, 1), (right, -1)):
            node = self._program.nodes[k]
            if node[0] == "const":
                constant += sign * node[1]
            else:
                place = self._places[k]
                parts[place] = parts.get(place, Fraction(0)) + sign
        return self._combination(constant, parts)


def _within(program: Program) -> dict[int, int]:
    """Return the slacks and what bounds them."""
    slots = enumerate(program.variables[: program.declared])
    return {i: slot.within for i, slot in slots if slot.within is not None}


def _expanded(parts: Sequence[list[list[Goal]]]) -> Iterator[list[Goal]]:
    """Yield the cases of a conjunction of disjunctions."""
    count = 1
    for part in parts:
        count *= len(part)
    if count > MOST_CASES:
        raise BackendError(f"the formula has {count} cases, too many for icp; use --solver z3")
    for choice in product(*parts):
        yield [goal for goals in choice for goal in goals]


def _below(value: Fraction | None) -> str:
    return "-inf" if value is None else float_below(value).hex()


def _above(value: Fraction | None) -> str:
    return "inf" if value is None else float_above(value).hex()

"""A program executed exactly at one assignment of its free variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import flint

from paramrob.errors import SoundnessError
from paramrob.replay_numbers import Number, greater, sigmoid, to_arb, to_fmpq
from paramrob.solvers.program import Clause, Node, Program


def evaluate(program: Program, values: Mapping[str, Fraction]) -> list[Number]:
    """Return the value of every node: ``fmpq``, or a ball behind an exponential.

    The definitions are followed, their bounds are not looked at.

    Raises:
        SoundnessError: a free variable has no value, or a divisor is not proved to differ from 0.
    """
    free = _free(program, values)
    found: list[Number] = []
    for node in program.nodes:
        found.append(_value(program, node, free, found))
    return found


def within_reach(program: Program, values: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Return the values with each slack that is too large moved to the end of its reach.

    A reach is computed from the layers before its slack, with their slacks moved already. One
    that is no rational is left alone.

    Raises:
        SoundnessError: as :func:`evaluate`.
    """
    free = _free(program, values)
    found: list[Number] = []
    for node in program.nodes:
        within = program.variables[node[1]].within if node[0] == "var" else None
        if within is not None and within >= program.declared:
            place = program.definitions[within - program.declared]
            reach = found[place] if place < len(found) else None
            if reach is not None and _rational(reach):
                free[node[1]] = min(max(free[node[1]], -reach), reach)
        found.append(_value(program, node, free, found))
    slots = program.variables[: program.declared]
    return {
        slot.name: Fraction(int(number.p), int(number.q))
        for slot, number in zip(slots, free, strict=True)
    }


def _free(program: Program, values: Mapping[str, Fraction]) -> list[Number]:
    slots = program.variables[: program.declared]
    for slot in slots:
        if slot.name not in values:
            raise SoundnessError(f"the solver's model says nothing about {slot.name}")
    return [to_fmpq(values[slot.name]) for slot in slots]


def holds(program: Program, numbers: Sequence[Number]) -> bool:
    """Whether all bounds of free variables and all constraints are proved at these values."""
    for i, slot in enumerate(program.variables[: program.declared]):
        places = [k for k, node in enumerate(program.nodes) if node == ("var", i)]
        if places and not _within(numbers[places[0]], slot.lower, slot.upper):
            return False
    return all(satisfied(c, numbers) for c in program.constraints)


def satisfied(clause: Clause, numbers: Sequence[Number]) -> bool:
    """Whether a constraint is proved at these values."""
    kind = clause[0]
    if kind == "and":
        return all(satisfied(part, numbers) for part in clause[1])
    if kind == "or":
        return any(satisfied(part, numbers) for part in clause[1])
    operator, a, b = clause[1], numbers[clause[2]], numbers[clause[3]]
    if operator in ("<", ">"):
        return greater(*((a, b) if operator == ">" else (b, a))) is True
    if operator in ("<=", ">="):
        return greater(*((a, b) if operator == "<=" else (b, a))) is False
    return greater(a, b) is False and greater(b, a) is False


def _within(number: Number, lower: Fraction | None, upper: Fraction | None) -> bool:
    below = lower is not None and greater(to_fmpq(lower), number) is not False
    above = upper is not None and greater(number, to_fmpq(upper)) is not False
    return not (below or above)


def _value(program: Program, node: Node, free: Sequence[Number], found: list[Number]) -> Number:
    kind = node[0]
    if kind == "var":
        i = node[1] - program.declared
        return free[node[1]] if i < 0 else found[program.definitions[i]]
    if kind == "const":
        return to_fmpq(node[1])
    if kind == "sum":
        return _sum([found[k] for k in node[1]])
    if kind == "scale":
        return _times(to_fmpq(node[1]), found[node[2]])
    if kind in ("exp", "sigmoid", "tanh"):
        return _function(kind, found[node[1]])
    a, b = found[node[1]], found[node[2]]
    if kind == "mul":
        return _times(a, b)
    if kind == "max":
        return max(a, b) if _rational(a, b) else to_arb(a).max(to_arb(b))
    if kind != "div":
        raise SoundnessError(f"a program with an operation {kind!r}")
    if _rational(a, b) and b != 0:
        return a / b
    if isinstance(b, flint.arb) and not b.contains(0):
        return to_arb(a) / b
    raise SoundnessError("a divisor that may be 0 in a program")


def _rational(*numbers: Number) -> bool:
    return all(isinstance(n, flint.fmpq) for n in numbers)


def _sum(numbers: Sequence[Number]) -> Number:
    exact = sum((n for n in numbers if _rational(n)), flint.fmpq(0))
    balls = [n for n in numbers if not _rational(n)]
    return sum(balls, to_arb(exact)) if balls else exact


def _times(a: Number, b: Number) -> Number:
    return a * b if _rational(a, b) else to_arb(a) * to_arb(b)


def _function(kind: str, a: Number) -> Number:
    if kind == "sigmoid":
        return sigmoid(a)
    ball = to_arb(a)
    return ball.exp() if kind == "exp" else ball.tanh()

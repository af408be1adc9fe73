"""Ranges of a program's nodes in exact rationals, from the bounds that it states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

from paramrob.solvers.curves import ends
from paramrob.solvers.program import Node, Program

Range: TypeAlias = tuple[Fraction | None, Fraction | None]
_Choice: TypeAlias = Callable[[Fraction, Fraction], Fraction]
_FAR = 200
"""Beyond it a sigmoid's or tanh's proved end is its limit, and an exponential has no end."""


def node_ranges(program: Program) -> list[Range]:
    """Return proved ends of every node; ``None`` where there is none."""
    found: list[Range] = []
    stated = dict(zip(program.definitions, program.variables[program.declared :], strict=True))
    for k, node in enumerate(program.nodes):
        low, high = _range(program, node, found)
        if k in stated:
            low = _tighter(max, low, stated[k].lower)
            high = _tighter(min, high, stated[k].upper)
        found.append((low, high))
    return found


def _range(program: Program, node: Node, found: Sequence[Range]) -> Range:
    kind = node[0]
    if kind == "var":
        slot = program.variables[node[1]]
        i = node[1] - program.declared
        known: Range = (None, None) if i < 0 else found[program.definitions[i]]
        return _tighter(max, slot.lower, known[0]), _tighter(min, slot.upper, known[1])
    if kind == "const":
        return node[1], node[1]
    if kind == "sum":
        return _sum([found[k][0] for k in node[1]]), _sum([found[k][1] for k in node[1]])
    if kind == "scale":
        return _scaled(node[1], found[node[2]])
    if kind == "max":
        (a, b), (c, d) = found[node[1]], found[node[2]]
        return _tighter(max, a, c), None if b is None or d is None else max(b, d)
    if kind == "mul":
        return _product(found[node[1]], found[node[2]])
    if kind == "div":
        return _quotient(found[node[1]], found[node[2]])
    return _curve(kind, found[node[1]])


def _tighter(choose: _Choice, a: Fraction | None, b: Fraction | None) -> Fraction | None:
    if a is None or b is None:
        return b if a is None else a
    return choose(a, b)


def _sum(parts: Sequence[Fraction | None]) -> Fraction | None:
    known = [p for p in parts if p is not None]
    return sum(known, Fraction(0)) if len(known) == len(parts) else None


def _scaled(factor: Fraction, given: Range) -> Range:
    low, high = (None if end is None else factor * end for end in given)
    return (low, high) if factor >= 0 else (high, low)


def _product(a: Range, b: Range) -> Range:
    corners = [None if x is None or y is None else x * y for x in a for y in b]
    known = [c for c in corners if c is not None]
    return (min(known), max(known)) if len(known) == len(corners) else (None, None)


def _quotient(a: Range, b: Range) -> Range:
    low, high = b
    if low is None or high is None or low <= 0 <= high:
        # A positive divisor without an upper end keeps the sign and the size of what it divides.
        if low is None or low <= 0:
            return None, None
        return _product(a, (Fraction(0), 1 / low))
    return _product(a, (1 / high, 1 / low))


def _curve(kind: str, given: Range) -> Range:
    low, high = given
    if kind == "exp":
        bottom = Fraction(0) if low is None or low < -_FAR else ends("exp", low)[0]
        return bottom, None if high is None or high > _FAR else ends("exp", high)[1]
    factor = 2 if kind == "tanh" else 1
    bottom = Fraction(0) if low is None or low < -_FAR else ends("sigmoid", factor * low)[0]
    top = Fraction(1) if high is None or high > _FAR else ends("sigmoid", factor * high)[1]
    return (2 * bottom - 1, 2 * top - 1) if kind == "tanh" else (bottom, top)

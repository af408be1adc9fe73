"""The cuts that Z3 needs where a formula is not linear: tangents, chords and tangent planes.

See :mod:`paramrob.solvers.z3_worker`, in whose process this runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import z3

from paramrob.solvers.curves import CurveName, Line, cut
from paramrob.solvers.program import Program
from paramrob.solvers.short import nearby


@dataclass(frozen=True)
class Curve:
    """``result = curve(argument)``, both names of Z3 variables."""

    curve: CurveName
    argument: Any
    result: Any


@dataclass(frozen=True)
class Times:
    """``result = left * right``."""

    left: Any
    right: Any
    result: Any


@dataclass
class Known:
    """Cuts of earlier questions about the same definitions: a threshold changes none of them."""

    definitions: str = ""
    lines: dict[int, list[tuple[bool, Line]]] = field(default_factory=dict)
    planes: dict[int, list[tuple[Fraction, Fraction]]] = field(default_factory=dict)


class Cuts:
    """The nonlinear operations of one program, ``atoms`` by node, and their cuts in a solver."""

    def __init__(self, solver: Any, known: Known) -> None:
        self._solver = solver
        self._known = known
        self.atoms: dict[int, Curve | Times] = {}

    def refine(self, model: Any) -> float | None:
        """Add the cuts that exclude the model; return how far off it is if there are none."""
        added = False
        worst = Fraction(0)
        for k, atom in self.atoms.items():
            result = fraction(model, atom.result)
            if isinstance(atom, Curve):
                line = cut(atom.curve, fraction(model, atom.argument), result)
                if line is not None:
                    above = line.at(fraction(model, atom.argument)) < result
                    self._add_line(atom, line, above)
                    self._known.lines.setdefault(k, []).append((above, line))
                    added = True
                continue
            left, right = fraction(model, atom.left), fraction(model, atom.right)
            if left * right != result:
                worst = max(worst, abs(left * right - result))
                point = nearby(left, right, result)
                if point is not None:
                    self.add_planes(atom, *point)
                    self._known.planes.setdefault(k, []).append(point)
                    added = True
        return None if added else max(float(worst), 2.0**-90)

    def recall(self, program: Program) -> None:
        """Add the cuts of earlier questions, if they were about the same definitions."""
        last = max(program.definitions, default=-1) + 1
        said = json.dumps(
            [[str(v) for v in program.variables], program.definitions, str(program.nodes[:last])]
        )
        if said != self._known.definitions:
            self._known.definitions = said
            self._known.lines.clear()
            self._known.planes.clear()
        for kept in (self._known.lines, self._known.planes):
            for k in [k for k in kept if k >= last]:
                del kept[k]
        for k, atom in self.atoms.items():
            if isinstance(atom, Curve):
                for above, line in self._known.lines.get(k, []):
                    self._add_line(atom, line, above)
            else:
                for point in self._known.planes.get(k, []):
                    self.add_planes(atom, *point)

    def _add_line(self, atom: Curve, line: Line, above: bool) -> None:
        bound = rational(line.slope) * atom.argument + rational(line.intercept)
        wanted = atom.result <= bound if above else atom.result >= bound
        outside = []
        if line.lower is not None:
            outside.append(atom.argument < rational(line.lower))
        if line.upper is not None:
            outside.append(atom.argument > rational(line.upper))
        self._solver.add(z3.Or(*outside, wanted))

    def add_planes(self, atom: Times, a: Fraction, b: Fraction) -> None:
        """Add ``(x - a)(y - b) >= 0`` where both have one sign, ``<= 0`` where they differ."""
        p, q = rational(a), rational(b)
        plane = q * atom.left + p * atom.right - rational(a * b)
        low_x, high_x = atom.left <= p, atom.left >= p
        low_y, high_y = atom.right <= q, atom.right >= q
        same = z3.Or(z3.And(low_x, low_y), z3.And(high_x, high_y))
        differ = z3.Or(z3.And(low_x, high_y), z3.And(high_x, low_y))
        self._solver.add(z3.Implies(same, atom.result >= plane))
        self._solver.add(z3.Implies(differ, atom.result <= plane))


def rational(value: Fraction) -> Any:
    """Return a Z3 number."""
    return z3.RealVal(f"{value.numerator}/{value.denominator}")


def fraction(model: Any, variable: Any) -> Fraction:
    """Return what a Z3 model makes of a variable."""
    value = model.eval(variable, model_completion=True)
    return Fraction(value.numerator_as_long(), value.denominator_as_long())

"""Z3 in a process of its own: linear real arithmetic, and cuts for what is not linear.

Every exponential, sigmoid, tanh and product becomes a variable of its own. As long as Z3 finds
values that satisfy the rest, they are tried on the real functions; where these differ, cuts that
exclude the values are added: tangents and chords of the curves (:mod:`paramrob.solvers.curves`)
and tangent planes of the products (Cimatti et al., Incremental linearization, TACAS 2017). All
cuts are consequences of the formula, so ``unsat`` is proved, and ``sat`` is said only where the
formula itself holds at the values found.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import flint
import z3

from paramrob.errors import SoundnessError
from paramrob.solvers.curves import CurveName, Line, cut
from paramrob.solvers.evaluate import evaluate, holds
from paramrob.solvers.lifeline import serve
from paramrob.solvers.program import Clause, Node, Program
from paramrob.solvers.ranges import Range, node_ranges
from paramrob.solvers.short import largest, nearby, rounded_up, short, shortened

_MEMORY_MB = 4096
_PRECISION = 192
_NONLINEAR = ("exp", "sigmoid", "tanh", "mul", "div")
_SLIPS = (Fraction(1, 1000), Fraction(1, 10**6))
"""What short coefficients may add to a sum."""
_MARGINS = (16, 30, 44)
"""Binary digits of what an inner point has to spare, the largest tried first."""
_INNER_EVERY = 4


@dataclass(frozen=True)
class _Curve:
    """``result = curve(argument)``, both names of Z3 variables."""

    curve: CurveName
    argument: Any
    result: Any


@dataclass(frozen=True)
class _Times:
    """``result = left * right``."""

    left: Any
    right: Any
    result: Any


@dataclass
class _Known:
    """Cuts of earlier questions about the same definitions: a threshold changes none of them."""

    definitions: str = ""
    lines: dict[int, list[tuple[bool, Line]]] = field(default_factory=dict)
    planes: dict[int, list[tuple[Fraction, Fraction]]] = field(default_factory=dict)


class _Refinement:
    """One program in Z3, and the cuts that it needs."""

    def __init__(self, program: Program, known: _Known, slip: Fraction | None = None) -> None:
        self._program = program
        self._known = known
        self._slip = slip
        nonlinear = any(node[0] in _NONLINEAR for node in program.nodes)
        # The plain core is the faster one when cuts are added in between.
        self._solver = z3.SimpleSolver() if nonlinear else z3.SolverFor("QF_LRA")
        self._variables = [z3.Real(f"v{i}") for i in range(len(program.variables))]
        self._atoms: dict[int, _Curve | _Times] = {}
        self._ranges: list[Range] = node_ranges(program) if nonlinear else []
        self._terms: list[Any] = []
        for k, node in enumerate(program.nodes):
            self._terms.append(self._term(k, node))
        for variable, slot in zip(self._variables, program.variables, strict=True):
            self._bound(variable, (slot.lower, slot.upper))
        for variable, k in zip(
            self._variables[program.declared :], program.definitions, strict=True
        ):
            self._solver.add(variable == self._terms[k])
        for clause in program.constraints:
            self._solver.add(self._formula(clause))
        self._remember()

    def run(self, deadline: float) -> dict[str, Any]:
        """Return the worker's answer."""
        rounds = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return _unknown(f"the time was used up after {rounds} rounds; raise --timeout")
            self._solver.set("timeout", max(1, int(1000 * left)))
            native = str(self._solver.check())
            if native == "unsat":
                return {"status": "unsat"}
            if native != "sat":
                reason = self._solver.reason_unknown()
                return _unknown(f"z3 gave up after {rounds} rounds ({reason}); raise --timeout")
            model = self._solver.model()
            values = self._values(model)
            if not self._atoms:
                return _candidate("sat", self._inner(deadline) or values)
            if self._is_true(values):
                return _candidate("sat", values)
            far = self._refine(model)
            if far is not None or rounds % _INNER_EVERY == _INNER_EVERY - 1:
                inner = self._inner(deadline)
                if inner is not None and self._is_true(inner):
                    return _candidate("sat", inner)
            if far is not None:
                return _candidate("delta-sat", values) | {"precision": far}
            rounds += 1

    def _inner(self, deadline: float) -> dict[str, Fraction] | None:
        """Return values that satisfy the constraints with something to spare, if there are any.

        Z3 likes vertices, where constraints hold with equality and rounding breaks them.
        """
        for bits in _MARGINS:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._solver.push()
            for clause in self._program.constraints:
                if not self._program.says_slack(clause):
                    self._solver.add(self._formula(clause, _rational(Fraction(1, 2**bits))))
            self._solver.set("timeout", max(1, int(1000 * left)))
            found = str(self._solver.check()) == "sat"
            values = self._values(self._solver.model()) if found else None
            self._solver.pop()
            if values is not None:
                return values
        return None

    def _values(self, model: Any) -> dict[str, Fraction]:
        slots = self._program.variables[: self._program.declared]
        return {
            slot.name: shortened(_fraction(model, variable))
            for slot, variable in zip(slots, self._variables, strict=False)
        }

    def _is_true(self, values: dict[str, Fraction]) -> bool:
        with flint.ctx.workprec(_PRECISION):
            try:
                return holds(self._program, evaluate(self._program, values))
            except SoundnessError:
                return False

    def _refine(self, model: Any) -> float | None:
        """Add the cuts that exclude the model; return how far off it is if there are none."""
        added = False
        worst = Fraction(0)
        for k, atom in self._atoms.items():
            result = _fraction(model, atom.result)
            if isinstance(atom, _Curve):
                line = cut(atom.curve, _fraction(model, atom.argument), result)
                if line is not None:
                    above = line.at(_fraction(model, atom.argument)) < result
                    self._add_line(atom, line, above)
                    self._known.lines.setdefault(k, []).append((above, line))
                    added = True
                continue
            left, right = _fraction(model, atom.left), _fraction(model, atom.right)
            if left * right != result:
                worst = max(worst, abs(left * right - result))
                point = nearby(left, right, result)
                if point is not None:
                    self._add_planes(atom, *point)
                    self._known.planes.setdefault(k, []).append(point)
                    added = True
        return None if added else max(float(worst), 2.0**-90)

    def _remember(self) -> None:
        """Add the cuts of earlier questions, if they were about the same definitions."""
        program = self._program
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
        for k, atom in self._atoms.items():
            if isinstance(atom, _Curve):
                for above, line in self._known.lines.get(k, []):
                    self._add_line(atom, line, above)
            else:
                for point in self._known.planes.get(k, []):
                    self._add_planes(atom, *point)

    def _add_line(self, atom: _Curve, line: Line, above: bool) -> None:
        bound = _rational(line.slope) * atom.argument + _rational(line.intercept)
        wanted = atom.result <= bound if above else atom.result >= bound
        outside = []
        if line.lower is not None:
            outside.append(atom.argument < _rational(line.lower))
        if line.upper is not None:
            outside.append(atom.argument > _rational(line.upper))
        self._solver.add(z3.Or(*outside, wanted))

    def _add_planes(self, atom: _Times, a: Fraction, b: Fraction) -> None:
        """Add ``(x - a)(y - b) >= 0`` where both have one sign, ``<= 0`` where they differ."""
        p, q = _rational(a), _rational(b)
        plane = q * atom.left + p * atom.right - _rational(a * b)
        low_x, high_x = atom.left <= p, atom.left >= p
        low_y, high_y = atom.right <= q, atom.right >= q
        same = z3.Or(z3.And(low_x, low_y), z3.And(high_x, high_y))
        differ = z3.Or(z3.And(low_x, high_y), z3.And(high_x, low_y))
        self._solver.add(z3.Implies(same, atom.result >= plane))
        self._solver.add(z3.Implies(differ, atom.result <= plane))

    def _bound(self, term: Any, known: Range) -> None:
        if known[0] is not None:
            self._solver.add(term >= _rational(known[0]))
        if known[1] is not None:
            self._solver.add(term <= _rational(known[1]))

    def _named(self, name: str, k: int) -> Any:
        """Return a variable that equals node ``k``."""
        if self._program.nodes[k][0] == "var":
            return self._terms[k]
        variable = z3.Real(name)
        self._solver.add(variable == self._terms[k])
        self._bound(variable, self._ranges[k])
        return variable

    def _term(self, k: int, node: Node) -> Any:
        kind = node[0]
        if kind == "var":
            return self._variables[node[1]]
        if kind == "const":
            return _rational(node[1])
        if kind == "sum":
            return self._sum(k, node)
        if kind == "scale":
            return _rational(node[1]) * self._terms[node[2]]
        if kind == "max":
            a, b = self._terms[node[1]], self._terms[node[2]]
            return z3.If(a >= b, a, b)
        result = z3.Real(f"n{k}")
        if kind in ("mul", "div"):
            return self._product(k, node, result)
        if kind not in ("exp", "sigmoid", "tanh"):
            raise SoundnessError(f"a program with an operation {kind!r}")
        argument = self._named(f"a{k}", node[1])
        if kind != "tanh":
            self._bound(result, self._ranges[k])
            self._atoms[k] = _Curve("exp" if kind == "exp" else "sigmoid", argument, result)
            return result
        twice = z3.Real(f"t{k}")
        self._solver.add(twice == 2 * argument)
        low, high = self._ranges[k]
        self._bound(result, (low and (low + 1) / 2, high and (high + 1) / 2))
        self._bound(result, (Fraction(0), Fraction(1)))
        self._atoms[k] = _Curve("sigmoid", twice, result)
        return 2 * result - 1

    def _sum(self, k: int, node: Node) -> Any:
        """Return the sum, exactly or with short coefficients and a variable for what they miss.

        The simplex method's rationals grow with the length of the coefficients.
        """
        exact = z3.Sum([self._terms[i] for i in node[1]])
        if self._slip is None or not self._ranges:
            return exact
        parts = []
        missed = Fraction(0)
        share = self._slip / len(node[1])
        for i in node[1]:
            part = self._program.nodes[i]
            if part[0] not in ("scale", "const"):
                parts.append(self._terms[i])
                continue
            size = Fraction(1) if part[0] == "const" else largest(self._ranges[part[2]])
            if size is None:
                return exact
            factor = short(part[1], share / max(size, Fraction(1)))
            missed += abs(factor - part[1]) * size
            number = _rational(factor)
            parts.append(number if part[0] == "const" else number * self._terms[part[2]])
        if missed == 0:
            return exact
        slip = z3.Real(f"e{k}")
        bound = rounded_up(missed)
        self._bound(slip, (-bound, bound))
        return z3.Sum([*parts, slip])

    def _product(self, k: int, node: Node, result: Any) -> Any:
        left, right = (self._named(f"{side}{k}", i) for side, i in zip("ab", node[1:], strict=True))
        self._bound(result, self._ranges[k])
        if node[0] == "mul":
            self._atoms[k] = atom = _Times(left, right, result)
            ranges = (self._ranges[node[1]], self._ranges[node[2]])
        else:
            # A quotient is the factor that the divisor needs to become the dividend.
            self._atoms[k] = atom = _Times(result, right, left)
            ranges = (self._ranges[k], self._ranges[node[2]])
        for a in ranges[0]:
            for b in ranges[1]:
                if a is not None and b is not None:
                    self._add_planes(atom, a, b)
        return result

    def _formula(self, clause: Clause, margin: Any = 0) -> Any:
        """Return the constraint, by a margin where it is no equation."""
        if clause[0] == "and":
            return z3.And([self._formula(part, margin) for part in clause[1]])
        if clause[0] == "or":
            return z3.Or([self._formula(part, margin) for part in clause[1]])
        operator, a, b = clause[1], self._terms[clause[2]], self._terms[clause[3]]
        if operator == "<=":
            return a + margin <= b
        if operator == "<":
            return a + margin < b
        if operator == ">=":
            return a >= b + margin
        if operator == ">":
            return a > b + margin
        if operator != "=":
            raise SoundnessError(f"a program with a comparison {operator!r}")
        return a == b


def _rational(value: Fraction) -> Any:
    return z3.RealVal(f"{value.numerator}/{value.denominator}")


def _fraction(model: Any, variable: Any) -> Fraction:
    value = model.eval(variable, model_completion=True)
    return Fraction(value.numerator_as_long(), value.denominator_as_long())


def _candidate(status: str, values: dict[str, Fraction]) -> dict[str, Any]:
    return {"status": status, "model": {name: str(value) for name, value in values.items()}}


def _unknown(reason: str) -> dict[str, Any]:
    return {"status": "unknown", "reason": reason}


def _solved(program: Program, known: _Known, deadline: float) -> dict[str, Any]:
    """Decide a program; what is not linear first with short coefficients, then exactly.

    Short coefficients let more points in, so their ``unsat`` is the formula's; a candidate is
    tried on the formula itself.
    """
    linear = not any(node[0] in _NONLINEAR for node in program.nodes)
    reply: dict[str, Any] = {}
    for slip in (None,) if linear else (*_SLIPS, None):
        reply = _Refinement(program, known, slip).run(deadline)
        if reply["status"] != "delta-sat":
            return reply
    return reply


def main() -> None:
    """Answer questions ``{"program": ..., "seconds": ...}``."""
    z3.set_param("memory_max_size", _MEMORY_MB)
    known = _Known()

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + question["seconds"]
        return _solved(Program.from_json(question["program"]), known, deadline)

    serve(answer)


if __name__ == "__main__":
    main()

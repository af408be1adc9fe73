"""Z3 in a process of its own: linear real arithmetic, and cuts for what is not linear.

Every exponential, sigmoid, tanh and product becomes a variable of its own. As long as Z3 finds
values that satisfy the rest, they are tried on the real functions; where these differ, cuts that
exclude the values are added: tangents and chords of the curves (:mod:`paramrob.solvers.curves`)
and tangent planes of the products (Cimatti et al., Incremental linearization, TACAS 2017). All
cuts are consequences of the formula, so ``unsat`` is proved, and ``sat`` is said only where the
formula itself holds at the values found.

The simplex method's rationals grow with the length of the coefficients. A formula is therefore
tried with short ones first, and a variable in every sum for what they miss.
"""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import flint
import z3

from paramrob.errors import SoundnessError
from paramrob.solvers.evaluate import evaluate, holds, within_reach
from paramrob.solvers.lifeline import serve
from paramrob.solvers.program import Clause, Node, Program
from paramrob.solvers.ranges import Range, node_ranges
from paramrob.solvers.short import largest, rounded_up, short, shortened
from paramrob.solvers.z3_cuts import Curve, Cuts, Known, Times, fraction, rational

_MEMORY_MB = 4096
_PRECISION = 192
_NONLINEAR = ("exp", "sigmoid", "tanh", "mul", "div")
_SLIPS = (Fraction(1, 1000), Fraction(1, 10**6))
"""What short coefficients may add to a sum."""
_MARGINS = (16, 30, 44)
"""Binary digits of what an inner point has to spare, the largest tried first."""
_INNER_EVERY = 4


class _Refinement:
    """One program in Z3, and the cuts that it needs."""

    def __init__(self, program: Program, known: Known, slip: Fraction | None = None) -> None:
        self._program = program
        self._slip = slip
        nonlinear = _is_nonlinear(program)
        # The plain core is the faster one when constraints are added in between.
        self._solver = z3.SimpleSolver()
        self._variables = [z3.Real(f"v{i}") for i in range(len(program.variables))]
        self._cuts = Cuts(self._solver, known)
        self._ranges: list[Range] = node_ranges(program) if nonlinear or slip else []
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
        self._cuts.recall(program)

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
            if not self._cuts.atoms:
                return self._linear(values, deadline)
            true = self._true(values)
            if true is not None:
                return _candidate("sat", true)
            far = self._cuts.refine(model)
            if far is not None or rounds % _INNER_EVERY == _INNER_EVERY - 1:
                true = self._true(self._inner(deadline))
                if true is not None:
                    return _candidate("sat", true)
            if far is not None:
                return _candidate("delta-sat", values) | {"precision": far}
            rounds += 1

    def _linear(self, values: dict[str, Fraction], deadline: float) -> dict[str, Any]:
        """Return the answer where the linear program has a solution."""
        inner = self._inner(deadline)
        if self._slip is None:
            return _candidate("sat", inner or values)
        true = self._true(inner) or self._true(values)
        if true is not None:
            return _candidate("sat", true)
        return _candidate("delta-sat", values) | {"precision": float(self._slip)}

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
                    self._solver.add(self._formula(clause, rational(Fraction(1, 2**bits))))
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
            slot.name: shortened(fraction(model, variable))
            for slot, variable in zip(slots, self._variables, strict=False)
        }

    def _true(self, values: dict[str, Fraction] | None) -> dict[str, Fraction] | None:
        """Return the values, slacks within their reach, if the formula itself holds there."""
        if values is None:
            return None
        with flint.ctx.workprec(_PRECISION):
            try:
                moved = within_reach(self._program, values)
                return moved if holds(self._program, evaluate(self._program, moved)) else None
            except SoundnessError:
                return None

    def _bound(self, term: Any, known: Range) -> None:
        if known[0] is not None:
            self._solver.add(term >= rational(known[0]))
        if known[1] is not None:
            self._solver.add(term <= rational(known[1]))

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
            return rational(node[1])
        if kind == "sum":
            return self._sum(k, node)
        if kind == "scale":
            return rational(node[1]) * self._terms[node[2]]
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
            self._cuts.atoms[k] = Curve("exp" if kind == "exp" else "sigmoid", argument, result)
            return result
        twice = z3.Real(f"t{k}")
        self._solver.add(twice == 2 * argument)
        low, high = self._ranges[k]
        self._bound(result, (low and (low + 1) / 2, high and (high + 1) / 2))
        self._bound(result, (Fraction(0), Fraction(1)))
        self._cuts.atoms[k] = Curve("sigmoid", twice, result)
        return 2 * result - 1

    def _sum(self, k: int, node: Node) -> Any:
        """Return the sum, exactly or with short coefficients and a variable for what they miss."""
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
            number = rational(factor)
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
            self._cuts.atoms[k] = atom = Times(left, right, result)
            ranges = (self._ranges[node[1]], self._ranges[node[2]])
        else:
            # A quotient is the factor that the divisor needs to become the dividend.
            self._cuts.atoms[k] = atom = Times(result, right, left)
            ranges = (self._ranges[k], self._ranges[node[2]])
        for a in ranges[0]:
            for b in ranges[1]:
                if a is not None and b is not None:
                    self._cuts.add_planes(atom, a, b)
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


def _candidate(status: str, values: dict[str, Fraction]) -> dict[str, Any]:
    return {"status": status, "model": {name: str(value) for name, value in values.items()}}


def _unknown(reason: str) -> dict[str, Any]:
    return {"status": "unknown", "reason": reason}


def _solved(program: Program, known: Known, deadline: float) -> dict[str, Any]:
    """Decide a program, first with short coefficients, then exactly.

    Short coefficients let more points in, so their ``unsat`` is the formula's; a candidate is
    tried on the formula itself.
    """
    nonlinear = _is_nonlinear(program)
    reply: dict[str, Any] = {}
    slips = _SLIPS if nonlinear else _SLIPS[-1:]
    for slip in (*slips, None):
        reply = _Refinement(program, known, slip).run(deadline)
        if reply["status"] != "delta-sat":
            return reply
    return reply


def _is_nonlinear(program: Program) -> bool:
    return any(node[0] in _NONLINEAR for node in program.nodes)


def main() -> None:
    """Answer questions ``{"program": ..., "seconds": ...}``."""
    z3.set_param("memory_max_size", _MEMORY_MB)
    known = Known()

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + question["seconds"]
        return _solved(Program.from_json(question["program"]), known, deadline)

    serve(answer)


if __name__ == "__main__":
    main()

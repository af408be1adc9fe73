"""One question to dReal's Python bindings: JSON on standard input, JSON on standard output.

Every operation has a variable of its own and no expression holds two constants that could be
folded: dReal folds them in float64, to nearest, and its ``unsat`` would be about another formula.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_INF = float("inf")


class _Builder:
    def __init__(self, dreal: Any, question: dict[str, Any]) -> None:
        self._dreal = dreal
        self._facts: list[Any] = []
        self._places: list[Any] = []
        bounds = {place: ends for place, *ends in question["bounds"]}
        for place, op in enumerate(question["operations"]):
            variable = dreal.Variable(f"n{place}")
            self._places.append(variable)
            if op[0] == "in":
                self._bound(variable, question["boxes"][op[1]])
            else:
                self._facts.append(variable == self._value(place, op))
            if place in bounds:
                self._bound(variable, bounds[place])
        cases = [
            dreal.logical_and(*[self._goal(*goal) for goal in case]) for case in question["cases"]
        ]
        self.formula = dreal.logical_and(*self._facts, dreal.logical_or(*cases))

    def variable(self, place: int) -> Any:
        """Return the variable of an operation."""
        return self._places[place]

    def _goal(self, place: int, strict: bool) -> Any:
        variable = self._places[place]
        return variable > 0.0 if strict else variable >= 0.0

    def _bound(self, variable: Any, ends: list[str]) -> None:
        low, high = map(float.fromhex, ends)
        if low > -_INF:
            self._facts.append(variable >= low)
        if high < _INF:
            self._facts.append(variable <= high)

    def _number(self, low: str, high: str, name: str) -> Any:
        """Return a float64, or a variable between the two that enclose a rational."""
        if low == high:
            return float.fromhex(low)
        variable = self._dreal.Variable(name)
        self._bound(variable, [low, high])
        return variable

    def _value(self, place: int, op: list[Any]) -> Any:
        dreal, kind = self._dreal, op[0]
        if kind == "lin":
            total = dreal.Expression(0.0)
            for k, (low, high, child) in enumerate(op[3]):
                total = total + self._number(low, high, f"c{place}_{k}") * self._places[child]
            return total + self._number(op[1], op[2], f"k{place}")
        a = self._places[op[1]]
        if kind == "sigmoid":
            return 1.0 / (1.0 + dreal.exp(-a))
        if kind in ("exp", "tanh"):
            return getattr(dreal, kind)(a)
        b = self._places[op[2]]
        if kind == "max":
            return dreal.Max(a, b)
        return a * b if kind == "mul" else a / b


def main() -> None:
    """Answer the question."""
    question = json.load(sys.stdin)
    try:
        import dreal
    except ImportError as error:
        json.dump(
            {"status": "unknown", "reason": f"its bindings do not import: {error}"}, sys.stdout
        )
        return
    if question["how"] == "probe":
        json.dump({"version": dreal.__version__}, sys.stdout)
        return
    json.dump(_solved(dreal, question), sys.stdout)


def _solved(dreal: Any, question: dict[str, Any]) -> dict[str, Any]:
    if not question["cases"]:
        return {"status": "unsat"}
    builder = _Builder(dreal, question)
    box = dreal.CheckSatisfiability(builder.formula, float.fromhex(question["precision"]))
    if box is None:
        return {"status": "unsat"}
    inputs = {op[1]: place for place, op in enumerate(question["operations"]) if op[0] == "in"}
    inputs |= dict(map(tuple, question["slacks"]))
    model = {}
    for i, name in enumerate(question["names"]):
        middle = 0.0
        if i in inputs:
            middle = float(box[builder.variable(inputs[i])].mid())
        elif float.fromhex(question["boxes"][i][0]) > -_INF:
            middle = float.fromhex(question["boxes"][i][0])
        numerator, denominator = middle.as_integer_ratio()
        model[name] = f"{numerator}/{denominator}"
    return {"status": "delta-sat", "precision": question["precision"], "model": model}


if __name__ == "__main__":
    main()

"""Branch and prune on codac's interval operators, in a process of its own.

Importing codac turns the processor's rounding mode upward, for good. So nothing that proves
anything in floating point is imported here, and every number that matters comes and goes as a
hexadecimal float.

A case is a conjunction ``g_k(x) >= 0`` over a box of inputs. Each box is

1. pruned where some ``g_k`` is proved negative: by intervals, by its value at the corner that its
   monotone inputs favour, and by the mean value form around the middle;
2. contracted forward and backward through the operations (HC4: Benhamou, Goualard, Granvilliers
   and Puget, Revising hull and box consistency, ICLP 1999);
3. tried at that corner: a point that satisfies everything ends the search;
4. reduced to a face where every open ``g_k`` rises with an input, or falls with it: if a solution
   exists, one lies on that face;
5. split at the input that the open ``g_k`` depend on most, or reported as satisfiable up to the
   precision where no ``g_k`` varies by more than that.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass
from typing import Any

import codac
from codac import AddOp, DivOp, ExpOp, Interval, MaxOp, MulOp, TanhOp

from paramrob.solvers.lifeline import serve

MOST_BOXES = 400_000
_ROUNDS = 4
_WORTHWHILE = 0.7
"""Contraction goes on as long as it leaves less than this share of some width."""
_INF = float("inf")


class _Empty(Exception):
    """The box holds no solution."""


@dataclass(frozen=True)
class _Found:
    point: list[Any]
    exactly: bool


class Formula:
    """The operations of a question and what is done with a box."""

    def __init__(self, question: dict[str, Any]) -> None:
        self.operations = [_read(op) for op in question["operations"]]
        self.bounds = {place: _interval(*ends) for place, *ends in question["bounds"]}
        self.box = [_interval(*ends) for ends in question["boxes"]]
        self.places = {op[1]: place for place, op in enumerate(self.operations) if op[0] == "in"}

    def forward(self, box: list[Any]) -> list[Any]:
        """Return an enclosure of every place's value over the box."""
        values: list[Any] = []
        for place, op in enumerate(self.operations):
            value = _forward(op, values, box)
            if place in self.bounds:
                value = value & self.bounds[place]
            if value.is_empty():
                raise _Empty
            values.append(value)
        return values

    def backward(self, values: list[Any], box: list[Any]) -> list[Any]:
        """Return the box contracted by what is known of the values."""
        box = list(box)
        for place in range(len(values) - 1, -1, -1):
            op = self.operations[place]
            if values[place].is_empty():
                raise _Empty
            if op[0] == "in":
                box[op[1]] = box[op[1]] & values[place]
            else:
                _backward(op, values[place], values)
        if any(x.is_empty() for x in box):
            raise _Empty
        return box

    def slopes(self, values: list[Any], root: int) -> dict[int, Any]:
        """Enclose the derivatives of a place by the inputs over the box (Clarke's, at kinks)."""
        slopes: list[Any] = [None] * (root + 1)
        slopes[root] = Interval(1, 1)
        found: dict[int, Any] = {}
        for place in range(root, -1, -1):
            slope, op = slopes[place], self.operations[place]
            if slope is None:
                continue
            if op[0] == "in":
                found[op[1]] = slope
                continue
            for child, part in _derivatives(op, values, place):
                more = slope * part
                known = slopes[child]
                slopes[child] = more if known is None else known + more
        return found


def _interval(low: str, high: str) -> Any:
    return Interval(float.fromhex(low), float.fromhex(high))


def _read(op: list[Any]) -> list[Any]:
    if op[0] != "lin":
        return op
    terms = [(_interval(low, high), place) for low, high, place in op[3]]
    return ["lin", _interval(op[1], op[2]), terms]


def _forward(op: list[Any], values: list[Any], box: list[Any]) -> Any:
    kind = op[0]
    if kind == "lin":
        total = op[1]
        for factor, place in op[2]:
            total = total + factor * values[place]
        return total
    if kind == "in":
        return box[op[1]]
    a = values[op[1]]
    if kind == "mul":
        return a * values[op[2]]
    if kind == "div":
        return a / values[op[2]]
    if kind == "max":
        return codac.max(a, values[op[2]])
    if kind == "exp":
        return codac.exp(a)
    if kind == "tanh":
        return codac.tanh(a)
    if kind == "sigmoid":
        return 1 / (1 + codac.exp(-a))
    raise ValueError(f"an operation {kind!r}")


def _backward(op: list[Any], value: Any, values: list[Any]) -> None:
    """Contract the operands in place."""
    kind = op[0]
    if kind == "lin":
        _linear_backward(op, value, values)
        return
    a = values[op[1]]
    if kind == "mul":
        MulOp.bwd(value, a, values[op[2]])
    elif kind == "div":
        DivOp.bwd(value, a, values[op[2]])
    elif kind == "max":
        MaxOp.bwd(value, a, values[op[2]])
    elif kind == "exp":
        ExpOp.bwd(value, a)
    elif kind == "tanh":
        TanhOp.bwd(value, a)
    else:
        power = codac.exp(-a)
        total = 1 + power
        DivOp.bwd(value, Interval(1, 1), total)
        AddOp.bwd(total, Interval(1, 1), power)
        minus = -a
        ExpOp.bwd(power, minus)
        a &= -minus


def _linear_backward(op: list[Any], value: Any, values: list[Any]) -> None:
    """Contract each term to the value less all others, by sums from the front and the back."""
    terms = [factor * values[place] for factor, place in op[2]]
    after = [Interval(0, 0)]
    for term in reversed(terms):
        after.append(after[-1] + term)
    before = op[1]
    for k, (factor, place) in enumerate(op[2]):
        rest = value - (before + after[len(terms) - 1 - k])
        before = before + terms[k]
        wanted = terms[k] & rest
        MulOp.bwd(wanted, Interval(factor), values[place])


def _derivatives(op: list[Any], values: list[Any], place: int) -> list[tuple[int, Any]]:
    """Return the operation's derivative by each operand."""
    kind = op[0]
    if kind == "lin":
        return [(child, factor) for factor, child in op[2]]
    a, value = values[op[1]], values[place]
    if kind == "mul":
        return [(op[1], values[op[2]]), (op[2], a)]
    if kind == "div":
        b = values[op[2]]
        return [(op[1], 1 / b), (op[2], -value / b)]
    if kind == "max":
        b = values[op[2]]
        if a.lb() >= b.ub():
            return [(op[1], Interval(1, 1))]
        if b.lb() >= a.ub():
            return [(op[2], Interval(1, 1))]
        return [(op[1], Interval(0, 1)), (op[2], Interval(0, 1))]
    if kind == "exp":
        return [(op[1], value)]
    if kind == "tanh":
        return [(op[1], 1 - codac.sqr(value))]
    # y (1 - y) = 1/4 - (y - 1/2)^2
    return [(op[1], (Interval(0.25) - codac.sqr(value - 0.5)) & Interval(0, 0.25))]


class Search:
    """The search for a solution of one case."""

    def __init__(self, formula: Formula, case: list[Any], precision: float) -> None:
        self._formula = formula
        self._goals = [(place, bool(strict)) for place, strict in case]
        self._precision = precision
        self._order = itertools.count()
        self._boxes: list[tuple[float, int, list[Any]]] = []
        self.visited = 0

    def run(self, deadline: float) -> _Found | str | None:
        """Return a point, ``None`` where there is none, or why it is not known."""
        self._push(self._formula.box, -_INF)
        while self._boxes:
            if time.monotonic() > deadline:
                return f"the time was used up after {self.visited} boxes; raise --timeout"
            if len(self._boxes) > MOST_BOXES:
                return f"{MOST_BOXES} boxes are open; use --solver bounds"
            _, _, box = heapq.heappop(self._boxes)
            self.visited += 1
            try:
                found = self._visit(box)
            except _Empty:
                continue
            if found is not None:
                return found
        return None

    def _push(self, box: list[Any], rank: float) -> None:
        heapq.heappush(self._boxes, (rank, next(self._order), box))

    def _visit(self, box: list[Any]) -> _Found | None:
        values, box = self._contracted(box)
        open_goals = [(k, s) for k, s in self._goals if not _certain(values[k], s)]
        if not open_goals:
            return self._tried([Interval(x.mid()) for x in box], box)
        slopes = [self._formula.slopes(values, k) for k, _ in open_goals]
        box = _favoured_face(box, slopes)
        worst = _INF
        corner: list[Any] = []
        for (goal, strict), slope in zip(open_goals, slopes, strict=True):
            point, best = self._best(goal, slope, box)
            if best < 0 or (strict and best <= 0):
                raise _Empty
            if best < worst:
                worst, corner = best, point
        found = self._tried(corner, box)
        if found is not None:
            return found
        return self._split(box, slopes, worst)

    def _contracted(self, box: list[Any]) -> tuple[list[Any], list[Any]]:
        for _ in range(_ROUNDS):
            values = self._formula.forward(box)
            everything = True
            for goal, strict in self._goals:
                if values[goal].ub() < 0 or (strict and values[goal].ub() <= 0):
                    raise _Empty
                everything = everything and values[goal].lb() >= 0
                values[goal] = values[goal] & Interval(0, _INF)
            if everything:
                break
            narrower = self._formula.backward([Interval(v) for v in values], box)
            gain = min(
                (n.diam() / x.diam() for n, x in zip(narrower, box, strict=True) if x.diam() > 0),
                default=1.0,
            )
            box = narrower
            if gain > _WORTHWHILE:
                break
        return self._formula.forward(box), box

    def _best(self, goal: int, slopes: dict[int, Any], box: list[Any]) -> tuple[list[Any], float]:
        """Return the favoured corner and a proved upper bound of a goal over the box."""
        reduced, point = list(box), [Interval(x.mid()) for x in box]
        for i, slope in slopes.items():
            if slope.lb() >= 0:
                reduced[i] = point[i] = Interval(box[i].ub())
            elif slope.ub() <= 0:
                reduced[i] = point[i] = Interval(box[i].lb())
        try:
            best = self._formula.forward(reduced)[goal].ub()
            middle = self._formula.forward(point)[goal]
        except _Empty:
            # The bounds of a definition exclude the corner: it bounds nothing then.
            return point, _INF
        for i, slope in slopes.items():
            if reduced[i].diam() > 0:
                middle = middle + slope * (reduced[i] - point[i])
        return point, min(best, middle.ub())

    def _tried(self, point: list[Any], box: list[Any]) -> _Found | None:
        del box
        try:
            values = self._formula.forward(point)
        except _Empty:
            return None
        if all(_certain(values[k], strict) for k, strict in self._goals):
            return _Found(point, True)
        return None

    def _split(self, box: list[Any], slopes: list[dict[int, Any]], worst: float) -> _Found | None:
        weights = [0.0] * len(box)
        total = 0.0
        for slope in slopes:
            parts = {i: s.mag() * box[i].diam() for i, s in slope.items() if box[i].diam() > 0}
            total = max(total, sum(parts.values()))
            for i, part in parts.items():
                weights[i] = max(weights[i], part)
        chosen = max(range(len(box)), key=lambda i: weights[i])
        if total <= self._precision or not box[chosen].is_bisectable():
            return _Found([Interval(x.mid()) for x in box], False)
        for half in box[chosen].bisect(0.5):
            self._push([half if i == chosen else x for i, x in enumerate(box)], -worst)
        return None


def _certain(value: Any, strict: bool) -> bool:
    return bool(value.lb() > 0 or (not strict and value.lb() >= 0))


def _favoured_face(box: list[Any], slopes: list[dict[int, Any]]) -> list[Any]:
    """Fix the inputs that all open goals want at the same end, and those that none depends on."""
    fixed = list(box)
    for i, x in enumerate(box):
        known = [slope[i] for slope in slopes if i in slope]
        if all(s.lb() >= 0 for s in known):
            fixed[i] = Interval(x.ub())
        elif all(s.ub() <= 0 for s in known):
            fixed[i] = Interval(x.lb())
    return fixed


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question of :class:`paramrob.solvers.icp.Icp`."""
    deadline = time.monotonic() + float(question["seconds"])
    precision = float.fromhex(question["precision"])
    formula = Formula(question)
    if any(x.is_unbounded() for x in formula.box):
        return {"status": "unknown", "reason": "a variable has no bounds; leave out --no-presolve"}
    open_reason = None
    near: _Found | None = None
    for case in question["cases"]:
        found = Search(formula, case, precision).run(deadline)
        if isinstance(found, str):
            open_reason = found
        elif found is not None and found.exactly:
            return _solution("sat", question, formula, found)
        elif found is not None:
            near = found
    if near is not None:
        return _solution("delta-sat", question, formula, near) | {"precision": precision.hex()}
    if open_reason is not None:
        return {"status": "unknown", "reason": open_reason}
    return {"status": "unsat"}


def _solution(
    status: str, question: dict[str, Any], formula: Formula, found: _Found
) -> dict[str, Any]:
    values = formula.forward(found.point)
    places = dict(question["slacks"])
    model = {}
    for i, name in enumerate(question["names"]):
        x = values[places[i]] if i in places else found.point[i]
        numerator, denominator = x.mid().as_integer_ratio()
        model[name] = f"{numerator}/{denominator}"
    return {"status": status, "model": model}


if __name__ == "__main__":
    serve(answer)

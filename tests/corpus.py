"""Problems with known answers: closed forms, exact rationals and hand-made networks.

No engine took part in any answer. Where it is irrational it is a float64 of a closed form, wrong
by no more than ``ROOM``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from paramrob.domain import Point
from paramrob.models.network import Array, Dense, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.properties import Property, Quantity
from paramrob.verdict import Verdict
from tests.exact_reach import Shallow, epsilon, sigma
from tests.known_problems import box, layered, problem
from tests.replay_networks import act, dense, stack

F = Fraction
NEAR = F(1, 10**6)
"""How near to a threshold both sides of it are asked."""
ROOM = 1e-12
LABELS = Property("labels")
QUARTER = F(1, 4)
ALL = ("bounds", "z3")


@dataclass(frozen=True)
class Known:
    """One problem and its answer: a verdict, or the values of an estimate by bracket name.

    ``decided_by`` are the engines that must answer; any other may leave it open.
    """

    name: str
    problem: Problem
    verdict: Verdict | None = None
    values: Mapping[str, Fraction | float] = field(default_factory=dict)
    decided_by: tuple[str, ...] = ALL

    @property
    def quantity(self) -> Quantity:
        """What is estimated."""
        for known in ("epsilon", "delta"):
            if known in self.values:
                return "epsilon" if known == "epsilon" else "delta"
        return "sigma"


def confidence(value: Fraction | float) -> Property:
    return Property("confidence", F(value))


def margin(value: Fraction | float) -> Property:
    return Property("margin", sigma=F(value))


def squash(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _is(robust: bool) -> Verdict:
    return Verdict.ROBUST if robust else Verdict.NOT_ROBUST


def around(
    name: str, subject: Problem, kind: str, value: Fraction | float, by: tuple[str, ...] = ALL
) -> Iterator[Known]:
    """Yield the property just below its threshold, where it fails, and just above."""
    ask = confidence if kind == "confidence" else margin
    for side, word in ((-1, "below"), (1, "above")):
        asked = replace(subject, property=ask(F(value) + side * NEAR))
        yield Known(f"{name}: {kind} just {word}", asked, _is(side > 0), decided_by=by)


def deltas(
    name: str, subject: Problem, value: Fraction | float, by: tuple[str, ...] = ALL
) -> Iterator[Known]:
    """Yield the property with boxes just too small and just large enough to refute it."""
    names = subject.uncertain.perturbation
    for side, word in ((-1, "below"), (1, "above")):
        moved = replace(subject.uncertain, perturbation=names.scaled(F(value) + side * NEAR))
        asked = replace(subject, uncertain=moved)
        yield Known(f"{name}: delta just {word}", asked, _is(side < 0), decided_by=by)


def only(*names: str, by: Fraction = QUARTER) -> Perturbation:
    return Perturbation(dict.fromkeys(names, by))


def at(*x: float) -> Point:
    return Point(x)


LINE = stack(1, dense(0, [[2.0]], [-1.0]))


def _lines() -> Iterator[Known]:
    """``2 x - 1``: at x parameters move it by ``delta (|x| + 1)``."""
    wide = problem(LINE, box((-2, 3)), QUARTER, "value", F(0))
    yield Known("line, epsilon", wide, values={"epsilon": F(1)})
    yield from around("line", wide, "confidence", F(1))
    yield Known("line, epsilon reached", replace(wide, property=confidence(1)), Verdict.ROBUST,
                decided_by=())  # fmt: skip
    narrow = problem(LINE, box((0, 2)), QUARTER, "value", F(0))
    # 2 x - 1 = (x + 1) / 4 above the level, 1 - 2 x = (x + 1) / 4 below.
    yield Known("line, sigma", narrow, values={"sigma_above": F(3, 7), "sigma_below": F(1, 3)})
    yield from around("line", narrow, "margin", F(3, 7))
    yield Known("line, labels", replace(narrow, property=LABELS), Verdict.NOT_ROBUST)
    clear = replace(narrow, domain=box(("0.715", 2)), property=LABELS)
    yield Known("line, labels off the boundary", clear, Verdict.ROBUST)
    here = problem(LINE, at(1.0), QUARTER, "value", F(0), LABELS)
    yield from deltas("line at 1", here, F(1, 2))
    # Bisection meets this threshold itself, where refuting takes a tie at the ends of the box.
    yield Known("line at 1, delta", here, values={"delta": F(1, 2)})
    lifted = problem(LINE, at(1.0), QUARTER, "value", F(1, 4), LABELS)
    yield from deltas("line at 1, level 1/4", lifted, F(3, 8))
    yield Known("line at 1, level 1/4, delta", lifted, values={"delta": F(3, 8)})
    # Smallest delta that moves 2 x - 1 by 1 on [-2, 3], and that flips 3/7 above the level.
    yield Known("line, delta of confidence", replace(wide, property=confidence(1)),
                values={"delta": F(1, 4)})  # fmt: skip
    yield Known("line, delta of margin", replace(narrow, property=margin(F(3, 7))),
                values={"delta": F(1, 4)})  # fmt: skip


def _logistic() -> Iterator[Known]:
    for level in ("0.5", "0.3"):
        part = float(level)
        log = math.log(part / (1 - part))
        # z - d (x + 1) <= log with z = 2 x - 1, and the other way round.
        above = squash(2 * (log + 1.25) / 1.75 - 1) - part
        below = part - squash(2 * max((log + 0.75) / 2.25, 0.0) - 1)
        subject = problem(LINE, box((0, 2)), QUARTER, "logit", F(level))
        yield Known(f"logistic, level {level}, sigma", subject,
                    values={"sigma_above": above, "sigma_below": below})  # fmt: skip
        yield from around(f"logistic, level {level}", subject, "margin", max(above, below))
    here = problem(LINE, at(1.0), QUARTER, "logit")
    moved = squash(1.0) - squash(0.5)
    yield Known("logistic at 1, epsilon", here, values={"epsilon": moved})
    yield from around("logistic at 1", here, "confidence", moved)
    # sigmoid(z + d) - sigmoid(z) is largest at z = -d / 2: tanh(d / 4).
    shifted = problem(LINE, box((0, 2)), only("b0", by=F(1, 2)), "logit")
    widest = math.tanh(0.125)
    by = ("bounds",)
    yield Known("logistic, bias alone, epsilon", shifted, values={"epsilon": widest}, decided_by=by)
    yield from around("logistic, bias alone", shifted, "confidence", widest, by)
    # The same in the model itself, on two inputs of which only their sum counts.
    sums = stack(2, dense(0, [[1.0, 1.0]], [0.0]), act("sigmoid"))
    subject = problem(sums, box((-1, 1), (-1, 1)), only("b0", by=F(1, 2)), "probability")
    yield Known("logistic of a sum, epsilon", subject, values={"epsilon": widest}, decided_by=by)


def _parts(
    weight: list[list[float]], bias: list[float], v: list[list[float]], c: list[float]
) -> tuple[list[Array], list[Array]]:
    return [np.array(weight), np.array(v)], [np.array(bias), np.array(c)]


def shallow(
    weights: list[Array], biases: list[Array], delta: Fraction, kind: str, slope: float
) -> Shallow:
    (w, v), (b, c) = weights, biases
    rows = [[[F(t) for t in row] for row in m.tolist()] for m in (w, v)]
    ends = [[F(t) for t in m.tolist()] for m in (b, c)]
    return Shallow(rows[0], ends[0], rows[1], ends[1], delta, kind, slope)


_HIDDEN = {
    "absolute": _parts([[1.0], [-1.0]], [0.0, 0.0], [[1.0, 1.0]], [-1.0]),
    "hats": _parts([[1.0], [2.0], [-1.5]], [0.25, -1.0, 0.5], [[1.0, -1.5, 0.75]], [-0.375]),
    "dead": _parts([[1.0], [-1.0]], [-9.0, -5.0], [[2.0, -3.0]], [0.5]),
}


def _relu() -> Iterator[Known]:
    """ReLU networks of one input, whose optima are rationals."""
    for (name, (weights, biases)), delta in zip(
        _HIDDEN.items(), (F(1, 8), F(1, 16), F(1, 8)), strict=True
    ):
        network = layered(weights, biases, ["relu"])
        found = shallow(weights, biases, delta, "relu", 0.0).along(F(-2), F(2))
        moved = epsilon(found)
        subject = problem(network, box((-2, 2)), delta, "value", F(0))
        yield Known(f"{name}, epsilon", subject, values={"epsilon": moved})
        yield from around(name, subject, "confidence", moved)
        above, below = sigma(found, F(0))
        yield Known(f"{name}, sigma", subject,
                    values={"sigma_above": above, "sigma_below": below})  # fmt: skip
        if max(above, below) > 0:
            yield from around(name, subject, "margin", max(above, below))
        else:
            yield Known(f"{name}, labels", replace(subject, property=LABELS), Verdict.ROBUST)


def _units() -> Iterator[Known]:
    """One hidden layer of every kind at a point, where intervals are exact."""
    weights, biases = _parts(
        [[1.0, -0.5], [0.25, 1.5], [-1.0, 0.75]], [0.125, -0.25, 0.0], [[1.0, -0.75, 0.5]], [0.25]
    )
    x, delta = (0.5, -0.25), F(1, 32)
    for kind in ("relu", "leaky_relu", "identity", "sigmoid", "tanh"):
        slope = 0.125 if kind == "leaky_relu" else 0.0
        network = layered(weights, biases, [kind], slope)
        ((low, middle, high),) = shallow(weights, biases, delta, kind, slope).at([F(t) for t in x])
        by = ("bounds",) if kind in ("sigmoid", "tanh") else ALL
        values = problem(network, at(*x), delta, "value", middle - (middle - low) / 2)
        moved = max(high - middle, middle - low)
        yield Known(f"{kind} at a point, epsilon", values, values={"epsilon": moved}, decided_by=by)
        yield from around(f"{kind} at a point", values, "confidence", moved, by)
        for level, robust in ((low - NEAR, True), (low + NEAR, False)):
            asked = problem(network, at(*x), delta, "value", level, LABELS)
            yield Known(f"{kind} at a point, labels {'kept' if robust else 'flip'}", asked,
                        _is(robust), decided_by=by)  # fmt: skip
        if kind not in ("relu", "tanh"):
            continue
        # As a logit: how far the sigmoid moves.
        z = [float(t) for t in (low, middle, high)]
        moved_by = max(squash(z[2]) - squash(z[1]), squash(z[1]) - squash(z[0]))
        logit = problem(network, at(*x), delta)
        yield Known(f"{kind} at a point, as a logit", logit,
                    values={"epsilon": moved_by}, decided_by=by)  # fmt: skip


def _curves() -> Iterator[Known]:
    """Smooth hidden units over a box."""
    by = ("bounds",)
    for kind, widest in (("tanh", 2 * math.tanh(0.25)), ("sigmoid", math.tanh(0.125))):
        network = layered([np.ones((1, 1))] * 2, [np.zeros(1), np.zeros(1)], [kind])
        # The bias moves by 1/2: the difference is largest where it straddles 0.
        subject = problem(network, box((-1, 1)), only("b0", by=F(1, 2)), "value", None)
        yield Known(
            f"{kind} over a box, epsilon", subject, values={"epsilon": widest}, decided_by=by
        )
        yield from around(f"{kind} over a box", subject, "confidence", widest, by)
    network = layered([np.ones((1, 1))] * 2, [np.zeros(1), np.array([-0.5])], ["tanh"])
    moved = problem(network, box((1, 2)), only("b0"), "value", F(0), LABELS)
    # tanh(1 - d) = 1/2
    yield from deltas("tanh over a box", moved, 1 - math.atanh(0.5), by)


def _interior() -> Iterator[Known]:
    """``top - 2 |h - 5/4|`` with ``h`` in [1/2, 3/2]: the worst parameter is no vertex."""
    moved = only("w0", by=F(1, 2))
    ones = [np.array([[1.0]]), np.array([[1.0], [-1.0]]), np.array([[-2.0, -2.0]])]
    for top, robust in ((0.0625, False), (-0.0625, True), (float(NEAR), False)):
        network = layered(
            ones, [np.zeros(1), np.array([-1.25, 1.25]), np.array([top])], ["relu", "relu"]
        )
        asked = problem(network, at(1.0), moved, "value", F(0), LABELS)
        by = ("z3",) if top == float(NEAR) else ALL
        yield Known(f"interior, peak at {top:g}", asked, _is(robust), decided_by=by)
    network = layered(
        ones, [np.zeros(1), np.array([-1.25, 1.25]), np.array([0.0625])], ["relu", "relu"]
    )
    subject = problem(network, at(1.0), moved, "value", F(0))
    yield Known("interior, epsilon", subject, values={"epsilon": F(1)})
    yield Known("interior, sigma", subject, values={"sigma_above": F(0), "sigma_below": F(7, 16)})


def _classes() -> Iterator[Known]:
    two = stack(1, dense(0, [[1.0], [-1.0]], [0.0, 0.0]))
    # Both biases move by 1/4, the difference 2 x of the logits by 1/2.
    biases = problem(two, box((-1, 1)), only("b0"), "logits", None)
    yield Known("two classes, sigma", biases, values={"sigma": F(1, 2)})
    yield from around("two classes", biases, "margin", F(1, 2))
    # The first class' confidence is the sigmoid of the difference.
    here = replace(biases, domain=at(0.5))
    moved = squash(1.0) - squash(0.5)
    yield Known("two classes at a point, epsilon", here, values={"epsilon": moved})
    yield from around("two classes at a point", here, "confidence", moved)
    yield Known("two classes over a box, epsilon", biases, values={"epsilon": math.tanh(0.125)},
                decided_by=("bounds",))  # fmt: skip
    three = stack(2, dense(0, [[1.0, 0.5], [-0.5, 1.0], [0.25, -1.0]], [0.0, 0.25, -0.5]))
    # Logits (5/4, 1/4, -3/4) at (1, 1/2); each moves by 5/2 delta, so the lead of 1 by 5 delta.
    there = problem(three, at(1.0, 0.5), F(1, 16), "logits", None, LABELS)
    yield from deltas("three classes at a point", there, F(1, 5))
    yield Known("three classes at a point, delta", there, values={"delta": F(1, 5)})
    yield Known("three classes at a point, epsilon", there, decided_by=("bounds",),
                values={"epsilon": _softmax_move([1.25, 0.25, -0.75], 2.5 / 16)})  # fmt: skip
    # Logits (1/2, 1/2) tie: the first class wins until the second moves above it.
    tied = stack(1, dense(0, [[0.0], [0.0]], [0.5, 0.5]))
    yield Known("two classes tie", problem(tied, at(1.0), only("b0"), "logits", None, LABELS),
                Verdict.NOT_ROBUST)  # fmt: skip


def _softmax_move(z: list[float], r: float) -> float:
    """Return how far a class' share moves where every logit moves by ``r`` on its own."""

    def share(i: int, s: float) -> float:
        powers = [math.exp(v + (s if j == i else -s)) for j, v in enumerate(z)]
        return powers[i] / sum(powers)

    return max(abs(share(i, s) - share(i, 0.0)) for i in range(len(z)) for s in (-r, r))


def _corners() -> Iterator[Known]:
    """Degenerate boxes, boxes of no width, ties, two networks, relative boxes, shared weights."""
    flat = problem(LINE, box((1, 1)), QUARTER, "value", F(0), LABELS)
    yield from deltas("a box that is a point", flat, F(1, 2))
    plane = stack(2, dense(0, [[2.0, 4.0]], [-1.0]))
    fixed = problem(plane, box((1, 1), (-1, 1)), F(1, 8), "value", F(0))
    # 2 x + 4 y - 1 with x = 1 moves by (2 + |y|) / 8.
    yield Known("one input of two fixed, epsilon", fixed, values={"epsilon": F(3, 8)})
    yield from around("one input of two fixed", fixed, "confidence", F(3, 8))
    weights, biases = _HIDDEN["hats"]
    still = problem(layered(weights, biases, ["relu"]), box((-2, 2)), "0", "value", F(0))
    yield Known("nothing moves, labels", replace(still, property=LABELS), Verdict.ROBUST)
    yield Known("nothing moves, confidence", replace(still, property=confidence(NEAR)),
                Verdict.ROBUST)  # fmt: skip
    yield Known("nothing moves, margin 0", replace(still, property=margin(0)), Verdict.ROBUST,
                decided_by=("z3",))  # fmt: skip
    level = stack(1, dense(0, [[1.0]], [0.0]))
    up = problem(level, at(0.0), only("b0"), asked=LABELS)
    yield Known("on the level", up, Verdict.NOT_ROBUST)
    # -relu(-w) stays at the level, which is class 0.
    kept = layered([np.array([[-1.0]])] * 2, [np.zeros(1)] * 2, ["relu"])
    stays = problem(kept, at(1.0), only("w0", by=F(1, 2)), "value", F(0), LABELS)
    yield Known("on the level and never above", stays, Verdict.ROBUST, decided_by=("z3",))
    other = stack(1, dense(0, [[2.5]], [-1.0]))
    apart = problem(other, box((-1, 1)), F(1, 8), "value", F(0), reference=LINE)
    # |x| / 2 + (|x| + 1) / 8
    yield Known("two networks, epsilon", apart, values={"epsilon": F(3, 4)})
    yield from around("two networks", apart, "confidence", F(3, 4))
    relative = Perturbation({"b0": QUARTER}, {"w0": F(1, 10)})
    spread = problem(LINE, box((-2, 3)), relative, "value", F(0))
    yield Known("relative, epsilon", spread, values={"epsilon": F(3, 5) + QUARTER})
    yield from around("relative", spread, "confidence", F(3, 5) + QUARTER)
    shared = problem(_squared(), at(1.0), only("w0", by=F(1, 2)), "value", None)
    # w relu(w x) with w in [1/2, 3/2]
    yield Known("one weight twice, epsilon", shared, values={"epsilon": F(5, 4)},
                decided_by=("bounds",))  # fmt: skip
    yield from around("one weight twice", shared, "confidence", F(5, 4), ("bounds",))


def _squared() -> Network:
    plain = stack(1, dense(0, [[1.0]]), act("relu"), dense(1, [[1.0]]))
    nodes = [replace(n, op=Dense("w0")) if n.op == Dense("w1") else n for n in plain.nodes]
    return Network(nodes, [p for p in plain.parameters.values() if p.name != "w1"])


def given(ends: Mapping[str, tuple[object, object]], only_ends: bool = False) -> Perturbation:
    """Return a box by its ends, value by value."""
    arrays = {n: (np.array(a, dtype=float), np.array(b, dtype=float)) for n, (a, b) in ends.items()}
    return Perturbation.explicit(arrays, "given", only_ends=only_ends)


def _given() -> Iterator[Known]:
    """Boxes that need not hold the trained parameters, and grids."""
    # 2 x - 1 rounded to 3/2 x - 3/4
    rounded = given({"w0": ([[1.5]], [[1.5]]), "b0": ([-0.75], [-0.75])})
    wide = problem(LINE, box((-2, 3)), rounded, "value", F(0))
    yield Known("rounded line, epsilon", wide, values={"epsilon": F(5, 4)})
    yield from around("rounded line", wide, "confidence", F(5, 4))
    # Both change their sign at 1/2, which takes exact numbers to see.
    yield Known("rounded line, labels", replace(wide, property=LABELS), Verdict.ROBUST,
                decided_by=("z3",))  # fmt: skip
    # 3/2 x - 1/2 changes its sign at 1/3 instead of 1/2, where 1 - 2 x is 1/3.
    other = given({"w0": ([[1.5]], [[1.5]]), "b0": ([-0.5], [-0.5])})
    moved = problem(LINE, box((-2, 3)), other, "value", F(0))
    yield from around("moved line", moved, "margin", F(1, 3))
    yield Known("moved line, labels", replace(moved, property=LABELS), Verdict.NOT_ROBUST)
    # Far from the trained weight, and lopsided: at 1 the value is in [2, 4] instead of 1.
    far = problem(LINE, at(1.0), given({"w0": ([[3.0]], [[5.0]])}), "value", F(0))
    yield Known("far line, epsilon", far, values={"epsilon": F(3)})
    yield from around("far line", far, "confidence", F(3))
    ends = {"w0": ([[0.5]], [[1.5]])}
    ones = [np.array([[1.0]]), np.array([[1.0], [-1.0]]), np.array([[-2.0, -2.0]])]
    biases = [np.zeros(1), np.array([-1.25, 1.25]), np.array([0.0625])]
    peak = layered(ones, biases, ["relu", "relu"])
    # What only an interior weight attains is no counterexample on a grid; its box proves nothing.
    for grid, verdict in ((False, Verdict.NOT_ROBUST), (True, Verdict.ROBUST)):
        asked = problem(peak, at(1.0), given(ends, grid), "value", F(0), LABELS)
        name = f"peak between ends, {'grid' if grid else 'box'}"
        yield Known(name, asked, verdict, decided_by=() if grid else ALL)
    dip = layered(ones, [*biases[:2], np.array([1.0])], ["relu", "relu"])
    asked = problem(dip, at(1.0), given(ends, True), "value", F(0), LABELS)
    yield Known("dip at an end of a grid", asked, Verdict.NOT_ROBUST)


def _corpus() -> dict[str, Known]:
    groups = (_lines, _logistic, _relu, _units, _curves, _interior, _classes, _corners, _given)
    found = [known for group in groups for known in group()]
    named = {known.name: known for known in found}
    if len(named) != len(found):
        raise ValueError("two problems of one name")
    return named


CORPUS = _corpus()

"""The aggregated encoding: one slack per neuron in place of its parameters.

``{W h + b : |W - W0| <= R, |b - b0| <= r} = {W0 h + b0 + s : |s_i| <= sum_j R_ij |h_j| + r_i}``
where each parameter is used once (Prabhakar & Afzal, *Abstraction based output range analysis for
neural networks*, NeurIPS 2019); a relaxation where one is used more often. Centres and radii are
exact rationals. Behind a ReLU ``|h_j| = h_j``: a ReLU network becomes linear real arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from paramrob.bounds.decode import decode
from paramrob.encoders import common
from paramrob.encoders.build import Builder
from paramrob.encoders.evaluate import FLOAT, complete, evaluate
from paramrob.encoders.goals import GoalName
from paramrob.encoders.networks import broadcast
from paramrob.encoders.parameters import Ends, ParameterBox, decoded_input
from paramrob.encoders.presolve import Presolve
from paramrob.encoders.terms import (
    ZERO,
    Comparison,
    Constant,
    Query,
    Term,
    Variable,
    add,
    negate,
    scale,
)
from paramrob.errors import BackendError
from paramrob.models.network import Array, Dense, Elementwise, Node
from paramrob.problem import Problem


@dataclass(frozen=True)
class Slack:
    """One neuron's slack (0 where nothing moves), its largest magnitude and what it shifts."""

    term: Term
    reach: Term
    h: Term = ZERO
    divisor: Ends | None = None


class AggregatedEncoder:
    """Slacks ``s<k>_<i>`` of layer ``k``; exact unless one that moves is shared or on a grid."""

    def __init__(self, problem: Problem, builder: Builder, box: ParameterBox) -> None:
        self._problem = problem
        self._network = problem.uncertain.network
        self._builder = builder
        self._box = box
        self._slacks: dict[str, list[Slack]] = {}
        only_ends = problem.uncertain.perturbation.only_ends
        self.exact = not any(
            (only_ends or self._network.is_shared(name))
            and any(low != high for low, high in box.ends(name))
            for name in self._network.parameters
        )

    def layer(self, k: int, node: Node, h: list[Term]) -> list[Term]:
        """Return the layer's results at the centre plus the slacks."""
        if isinstance(node.op, Dense):
            return self._dense(k, node, node.op, h)
        if isinstance(node.op, Elementwise):
            return self._elementwise(k, node, node.op, h)
        raise BackendError(f"node {node.name!r} has no encoding; use --solver bounds")

    def decode(self, model: Mapping[str, Fraction]) -> tuple[Array, dict[str, Array]]:
        """Return the input and parameters inside their boxes that attain the slacks there."""
        declared = {d.variable.name: Fraction(0) for d in self._builder.declarations}
        declared |= {name: value for name, value in model.items() if name in declared}
        x = decoded_input(self._problem, model)
        declared |= {f"x{i}": Fraction(v) for i, v in enumerate(x.tolist()) if f"x{i}" in declared}
        values = complete(self._builder.definitions, declared, FLOAT)
        theta = {
            node.name: np.zeros(math.prod(node.shape))
            for node in self._network.nodes
            if isinstance(node.op, (Dense, Elementwise))
        }
        for name, slacks in self._slacks.items():
            theta[name] = np.array([_share(slack, values) for slack in slacks])
        return x, decode(self._problem, x, theta)

    def _dense(self, k: int, node: Node, op: Dense, h: list[Term]) -> list[Term]:
        out = node.shape[-1]
        width = len(h) // math.prod(node.shape[:-1])
        weight = [_centred(ends) for ends in self._box.ends(op.weight)]
        still = [(Fraction(0), Fraction(0))] * out
        bias = [_centred(e) for e in self._box.ends(op.bias)] if op.bias else still
        results: list[Term] = []
        for start in range(0, len(h), width):
            row_h = h[start : start + width]
            reaches = _Reaches(self._builder, k, start // width, row_h)
            for i in range(out):
                row = weight[i * width : (i + 1) * width]
                centre = (scale(c, t) for (c, _), t in zip(row, row_h, strict=True))
                name = f"{k}_{len(results)}"
                reach = reaches.of(name, [r for _, r in row], bias[i][1])
                slack = self._slack(name, node.name, Slack(ZERO, reach))
                results.append(add(*centre, Constant(bias[i][0]), slack))
        return results

    def _elementwise(self, k: int, node: Node, op: Elementwise, h: list[Term]) -> list[Term]:
        ends = self._box.ends(op.parameter)
        results = []
        for i, (t, at) in enumerate(zip(h, broadcast(self._network, node), strict=True)):
            name = f"{k}_{i}"
            low, high = ends[at]
            if op.kind == "div":
                self._box.check_divisor(node.name, op.parameter)
                low, high = 1 / high, 1 / low
            centre, radius = _centred((low, high))
            if op.kind in ("mul", "div"):
                reach = _Reaches(self._builder, k, i, [t]).of(name, [radius], Fraction(0))
                divisor = ends[at] if op.kind == "div" else None
                slack = self._slack(name, node.name, Slack(ZERO, reach, t, divisor))
                results.append(add(scale(centre, t), slack))
                continue
            slack = self._slack(name, node.name, Slack(ZERO, Constant(radius)))
            own = negate(t) if op.kind == "rsub" else t
            results.append(add(own, Constant(-centre if op.kind == "sub" else centre), slack))
        return results

    def _slack(self, name: str, layer: str, wanted: Slack) -> Term:
        """Declare one neuron's slack within its reach."""
        reach = wanted.reach
        slack: Term = ZERO
        words = f"slack of layer '{layer}', neuron {name.split('_')[1]}: what its parameters add"
        if isinstance(reach, Constant):
            if reach.value:
                slack = self._builder.declare(f"s{name}", -reach.value, reach.value, words)
        else:
            most = self._builder.range_of(reach)[1]
            least = None if most is None else -most
            within = reach if isinstance(reach, Variable) else None
            slack = self._builder.declare(f"s{name}", least, most, words, within)
            self._builder.constraints += [
                Comparison("<=", slack, reach),
                Comparison("<=", negate(slack), reach),
            ]
        kept = Slack(slack, reach, wanted.h, wanted.divisor)
        self._slacks.setdefault(layer, []).append(kept)
        return slack


class _Reaches:
    """``sum_j R_j |h_j| + r`` over one vector ``h``; equal radii share the sum of magnitudes."""

    def __init__(self, builder: Builder, k: int, position: int, h: Sequence[Term]) -> None:
        self._builder = builder
        self._name = f"{k}_{position}"
        self._k = k
        self._h = h
        self._same: dict[tuple[Fraction, Fraction], Term] = {}

    def of(self, name: str, radii: Sequence[Fraction], constant: Fraction) -> Term:
        """Return the reach as a constant or a defined variable."""
        first = radii[0]
        if not any(radii):
            return Constant(constant)
        if len(radii) > 1 and all(radius == first for radius in radii):
            if (first, constant) not in self._same:
                self._same[first, constant] = self._uniform(name, first, constant)
            return self._same[first, constant]
        used = [(r, t) for r, t in zip(radii, self._h, strict=True) if r]
        terms = (scale(r, self._builder.magnitude(t)) for r, t in used)
        most = self._most(used, constant)
        return self._define(f"r{name}", add(*terms, Constant(constant)), most)

    def _uniform(self, name: str, radius: Fraction, constant: Fraction) -> Term:
        total = self._define(
            f"n{self._name}",
            add(*(self._builder.magnitude(t) for t in self._h)),
            self._most([(Fraction(1), t) for t in self._h], Fraction(0)),
        )
        most = self._builder.range_of(total)[1]
        most = None if most is None else radius * most + constant
        return self._define(f"r{name}", add(scale(radius, total), Constant(constant)), most)

    def _most(self, used: Sequence[tuple[Fraction, Term]], constant: Fraction) -> Fraction | None:
        total = constant
        for radius, t in used:
            largest = self._builder.largest(t)
            if largest is None:
                return None
            total += radius * largest
        return total

    def _define(self, name: str, term: Term, most: Fraction | None) -> Term:
        words = f"layer {self._k}: " + (
            "sum of the magnitudes that it reads"
            if name.startswith("n")
            else "how far parameters can move a neuron"
        )
        return self._builder.define(name, term, (Fraction(0), most), words)


def _centred(ends: Ends) -> tuple[Fraction, Fraction]:
    """Return centre and radius of an interval, exactly."""
    low, high = ends
    return (low + high) / 2, (high - low) / 2


def _share(slack: Slack, values: Mapping[str, float]) -> float:
    """Return where in [-1, 1] of its reach a slack lies; for a divisor, where the divisor lies."""
    reach = float(evaluate(slack.reach, values, FLOAT))
    if reach <= 0 or slack.term == ZERO:
        return 0.0
    share = min(max(float(evaluate(slack.term, values, FLOAT)) / reach, -1.0), 1.0)
    if slack.divisor is None:
        return share
    low, high = (float(end) for end in slack.divisor)
    sign = -1.0 if float(evaluate(slack.h, values, FLOAT)) < 0 else 1.0
    middle, half = (1 / low + 1 / high) / 2, (1 / low - 1 / high) / 2
    wanted = 1 / (middle + share * sign * half)
    return sign * ((low + high) / 2 - wanted) / ((high - low) / 2)


def encode(
    problem: Problem,
    goal: GoalName = "property",
    presolve: Presolve | None = None,
    invert: bool = True,
) -> Query:
    """Return the aggregated encoding of a problem.

    Args:
        problem: the problem; its property is what ``goal="property"`` negates.
        goal: the property, or a quantity that :meth:`Query.with_threshold` bounds from below.
        presolve: proved ranges; ``None`` bounds and simplifies nothing.
        invert: move thresholds on a sigmoid's confidence to its logit, enclosed outward, where
            that removes the sigmoid (without it: only where that is exact).

    Raises:
        BackendError: the graph is no chain of dense layers and activations.
        InputError: labels are asked of a network that has none.
    """

    def make(builder: Builder, box: ParameterBox) -> common.Encoder:
        return AggregatedEncoder(problem, builder, box)

    return common.encode(problem, goal, presolve, invert, make, "aggregated")

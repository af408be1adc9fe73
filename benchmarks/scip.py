"""The same questions put to SCIP, a global solver for mixed-integer nonlinear programs.

Two encodings. ``aggregated`` is the one that paramrob rests on: one slack a neuron,
``|s_i| <= delta (sum_j |h_j| + 1)``, stands for all its parameters; a ReLU is a binary variable
with big-M constraints from interval bounds. ``direct`` has a variable for every parameter and
multiplies it with its input.

The confidence is ``1 / (1 + exp(-z))`` in both. The two directions (the confidence rises, it
falls) are two solves in sequence that share the time limit; the second only has to beat the
first. SCIP computes in floating point with a feasibility tolerance of 1e-6: its bounds are not
proofs, and its optimum may lie above the truth by about that much.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyscipopt import SCIP_PARAMEMPHASIS, Model, exp

from benchmarks.networks import Case
from paramrob.models.network import Array

Interval = tuple[float, float]


@dataclass(frozen=True)
class Answer:
    """SCIP's bracket of epsilon and the wall seconds of building and solving both directions."""

    lower: float
    upper: float
    seconds: float
    failed: bool = False


@dataclass(frozen=True)
class Limits:
    """When SCIP stops: the absolute gap, and the wall seconds of the whole question.

    ``numerics`` sets SCIP's emphasis on numerical stability: with it more of these problems are
    closed, and its LP solver gives up on fewer of them.
    """

    gap: float = 1e-3
    seconds: float = 20.0
    numerics: bool = True


class _Encoding:
    """One direction of one question as a SCIP model."""

    def __init__(self, case: Case, direct: bool, numerics: bool) -> None:
        self.model = Model()
        if numerics:
            self.model.setEmphasis(SCIP_PARAMEMPHASIS.NUMERICS)
        self.model.hideOutput()
        self.delta = float(case.delta)
        self.direct = direct
        self.case = case
        lower, upper = case.domain().outer()
        self.box = [(float(a), float(b)) for a, b in zip(lower, upper, strict=True)]
        inputs = [self._variable(*ends) for ends in self.box]
        self.reference = self._logit(inputs, perturbed=False)
        self.perturbed = self._logit(inputs, perturbed=True)

    def _variable(self, lower: float, upper: float, kind: str = "C") -> Any:
        variable = self.model.addVar(lb=lower, ub=upper, vtype=kind)
        return variable

    def _logit(self, inputs: Sequence[Any], perturbed: bool) -> Any:
        h, bounds = list(inputs), list(self.box)
        for number, (weight, bias) in enumerate(self.case.layers):
            sizes = [self._absolute(v, ends) for v, ends in zip(h, bounds, strict=True)]
            radius = self.delta if perturbed else 0.0
            z_bounds = [
                _affine_bounds(row, b, bounds, radius) for row, b in zip(weight, bias, strict=True)
            ]
            z = [
                self._neuron(row, b, h, ends, sizes if perturbed else None)
                for row, b, ends in zip(weight, bias, z_bounds, strict=True)
            ]
            if number == len(self.case.layers) - 1:
                return z[0]
            if not self.case.relu:
                h, bounds = z, z_bounds
                continue
            h = [self._relu(v, ends) for v, ends in zip(z, z_bounds, strict=True)]
            bounds = [(max(low, 0.0), max(high, 0.0)) for low, high in z_bounds]
        return h[0]

    def _neuron(
        self,
        row: Array,
        bias: float,
        h: Sequence[Any],
        ends: Interval,
        sizes: Sequence[Any] | None,
    ) -> Any:
        z = self._variable(*ends)
        if sizes is not None and self.direct:
            weights = [self._variable(w - self.delta, w + self.delta) for w in row]
            shift = self._variable(bias - self.delta, bias + self.delta)
            self.model.addCons(z == sum(w * v for w, v in zip(weights, h, strict=True)) + shift)
            return z
        centre = sum(float(w) * v for w, v in zip(row, h, strict=True)) + float(bias)
        if sizes is None:
            self.model.addCons(z == centre)
            return z
        reach = self.delta * (sum(sizes) + 1.0)
        self.model.addCons(z - centre <= reach)
        self.model.addCons(centre - z <= reach)
        return z

    def _absolute(self, h: Any, ends: Interval) -> Any:
        """Return ``|h|``; where the sign of ``h`` is open, with a binary variable."""
        lower, upper = ends
        if lower >= 0:
            return h
        if upper <= 0:
            return -h
        size, positive = self._variable(0.0, max(-lower, upper)), self._variable(0.0, 1.0, "B")
        self.model.addCons(size >= h)
        self.model.addCons(size >= -h)
        self.model.addCons(size <= h - 2 * lower * (1 - positive))
        self.model.addCons(size <= -h + 2 * upper * positive)
        return size

    def _relu(self, z: Any, ends: Interval) -> Any:
        lower, upper = ends
        if lower >= 0:
            return z
        h = self._variable(0.0, max(upper, 0.0))
        if upper <= 0:
            return h
        active = self._variable(0.0, 1.0, "B")
        self.model.addCons(h >= z)
        self.model.addCons(h <= z - lower * (1 - active))
        self.model.addCons(h <= upper * active)
        return h

    def maximise(self, sign: int, gap: float, floor: float) -> None:
        """Ask for ``max sign * (sigmoid(z_p) - sigmoid(z_0))`` where that is above ``floor``."""
        self.floor = floor
        change = self._variable(-1.0, 1.0)
        confidence = [1 / (1 + exp(-z)) for z in (self.perturbed, self.reference)]
        self.model.addCons(change <= sign * (confidence[0] - confidence[1]))
        self.model.setObjective(change, "maximize")
        self.model.setParam("limits/absgap", gap)
        self.model.setParam("lp/threads", 1)
        self.model.setParam("parallel/maxnthreads", 1)
        if floor > 0:
            self.model.setObjlimit(floor)

    def run(self, seconds: float) -> Interval:
        """Solve, or go on solving, for some seconds more; return the bracket so far."""
        self.model.setParam("limits/time", self.model.getSolvingTime() + max(seconds, 0.01))
        self.model.optimize()
        status = self.model.getStatus()
        found = self.model.getNSols() > 0
        best = max(self.floor, self.model.getPrimalbound() if found else self.floor)
        # With an objective limit "infeasible" says that nothing beats the other direction.
        proved = best if status == "infeasible" else self.model.getDualbound()
        return best, max(best, min(proved, 1.0))


def solve(case: Case, limits: Limits | None = None, direct: bool = False) -> Answer:
    """Bracket the global epsilon of ``case`` with SCIP on one thread.

    The first direction gets half the time, the second the rest; what that leaves, the first gets.
    """
    limits = limits or Limits()
    start = time.perf_counter()
    uppers: dict[int, float] = {}
    encodings: dict[int, _Encoding] = {}
    lower, failed = 0.0, False
    for sign, share in ((1, 0.5), (-1, 1.0), (1, 1.0)):
        if sign in uppers and uppers[sign] - lower <= limits.gap:
            break
        try:
            if sign not in encodings:
                encodings[sign] = _Encoding(case, direct, limits.numerics)
                encodings[sign].maximise(sign, limits.gap, lower)
            left = limits.seconds - (time.perf_counter() - start)
            found, uppers[sign] = encodings[sign].run(share * left)
            lower = max(lower, found)
        except Exception as error:
            # PySCIPOpt has no exception of its own; what SCIP had bounded is lost with the error.
            if "SCIP" not in str(error):
                raise
            failed, uppers[sign] = True, uppers.get(sign, 1.0)
            break
    upper = max(lower, *(uppers.get(sign, 1.0) for sign in (1, -1)))
    return Answer(lower, upper, time.perf_counter() - start, failed)


def _affine_bounds(row: Array, bias: float, bounds: Sequence[Interval], radius: float) -> Interval:
    lower = upper = float(bias)
    reach = radius
    for w, (low, high) in zip(row, bounds, strict=True):
        lower += min(w * low, w * high)
        upper += max(w * low, w * high)
        reach += radius * max(abs(low), abs(high))
    return lower - reach, upper + reach

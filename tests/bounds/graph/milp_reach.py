"""The largest value of a dense ReLU chain over a box of inputs and of parameters, as a MILP.

Inputs are not negative, so that one slack a neuron replaces its parameters exactly; a ReLU gets a
binary variable and bounds from intervals. HiGHS solves it in floating point: a truth to 1e-6.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from paramrob.models.network import Array, Network
from tests.bounds.graph.plain_crown import layers_of


class _Rows:
    """Constraints ``low <= A v <= high`` under construction."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, terms: dict[int, float], low: float, high: float) -> None:
        self.entries += [(len(self.low), v, c) for v, c in terms.items()]
        self.low.append(low)
        self.high.append(high)


def largest(network: Network, low: Array, high: Array, delta: float, sign: float = 1.0) -> float:
    """Return the largest of ``sign`` times the only result; ``low`` is not negative."""
    weights, biases = layers_of(network)
    rows = _Rows()
    ends = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    whole = [0] * len(ends)
    before = list(range(len(ends)))
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        after = []
        for row, b in zip(weight, bias, strict=True):
            z = len(ends)
            most = sum(max((w + delta) * ends[v][1], (w + delta) * ends[v][0])
                       for w, v in zip(row, before, strict=True)) + b + delta  # fmt: skip
            least = sum(min((w - delta) * ends[v][1], (w - delta) * ends[v][0])
                        for w, v in zip(row, before, strict=True)) + b - delta  # fmt: skip
            ends.append((least, most))
            whole.append(0)
            for move, bounds in ((delta, (-np.inf, b + delta)), (-delta, (b - delta, np.inf))):
                terms = {v: -(w + move) for w, v in zip(row, before, strict=True)}
                rows.add({z: 1.0, **terms}, *bounds)
            if k == len(weights) - 1:
                after.append(z)
                continue
            h, on = z + 1, z + 2
            ends += [(0.0, max(most, 0.0)), (0.0, 1.0)]
            whole += [0, 1]
            rows.add({h: 1.0, z: -1.0}, 0.0, np.inf)
            rows.add({h: 1.0, z: -1.0, on: -min(least, 0.0)}, -np.inf, -min(least, 0.0))
            rows.add({h: 1.0, on: -max(most, 0.0)}, -np.inf, 0.0)
            after.append(h)
        before = after
    at, columns, values = zip(*rows.entries, strict=True)
    matrix = coo_array((values, (at, columns)), shape=(len(rows.low), len(ends)))
    aim = np.zeros(len(ends))
    aim[before[0]] = -sign
    bounds = Bounds(*(np.array(side) for side in zip(*ends, strict=True)))
    constraint = LinearConstraint(matrix.tocsr(), np.array(rows.low), np.array(rows.high))
    found = milp(aim, constraints=constraint, bounds=bounds, integrality=np.array(whole))
    if not found.success:
        raise ValueError(found.message)
    return -float(found.fun)

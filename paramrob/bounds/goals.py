"""From a problem to the targets whose maxima answer it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.bounds.chain import Chain
from paramrob.bounds.class_change import ClassChange
from paramrob.bounds.targets import Change, Flip, Target
from paramrob.exact import float_above, float_below
from paramrob.problem import Problem
from paramrob.replay import level_logit
from paramrob.verdict import Interval


def change_targets(chain: Chain) -> list[Target]:
    """Return the targets whose largest value is epsilon: each output, up and down."""
    outputs = chain.layers[-1].weight.shape[0]
    signs = (1.0, -1.0)
    if chain.link == "softmax":
        if outputs == 2:
            # The other class moves by the same amount the other way.
            return [ClassChange(sign, 0) for sign in signs]
        return [ClassChange(sign, k) for k in range(outputs) for sign in signs]
    return [Change(sign, chain.link == "sigmoid", k) for k in range(outputs) for sign in signs]


def flip_targets(problem: Problem, chain: Chain) -> dict[str, list[Target]]:
    """Return the targets whose largest value is sigma, by the bracket's name."""
    outputs = chain.layers[-1].weight.shape[0]
    if outputs > 1:
        pairs: list[Target] = []
        for best in range(outputs):
            others = [k for k in range(outputs) if k != best]
            leads = torch.zeros(len(others), outputs, dtype=torch.float64)
            leads[:, best] = 1.0
            leads[range(len(others)), others] = -1.0
            pairs += [Flip(leads, i, Interval(0.0, 0.0)) for i in range(len(others))]
        return {"sigma": pairs}
    level = problem.output.level if problem.output.level is not None else Fraction(1, 2)
    if chain.link == "sigmoid":
        where = level_logit(level)
        above = Flip(_one(1.0), 0, where, *_measures(1.0, where, level))
        below = Flip(_one(-1.0), 0, _minus(where), *_measures(-1.0, where, level))
        above.largest, below.largest = float_above(1 - level), float_above(level)
    else:
        where = Interval(float_below(level), float_above(level))
        above, below = Flip(_one(1.0), 0, where), Flip(_one(-1.0), 0, _minus(where))
    return {"sigma_above": [above], "sigma_below": [below]}


def _one(sign: float) -> Tensor:
    return torch.tensor([[sign]], dtype=torch.float64)


def _minus(interval: Interval) -> Interval:
    return Interval(-interval.upper, -interval.lower)


class _Measure:
    """How far the confidence lies from the level at a logit that lies ``margin`` from its own."""

    def __init__(self, sign: float, where: Interval, level: Fraction) -> None:
        self.sign = sign
        self.where = where
        self.level = level

    def roughly(self, margin: Tensor) -> Tensor:
        """Return it in floating point."""
        middle = (self.where.lower + self.where.upper) / 2
        confidence = torch.sigmoid(middle + self.sign * margin)
        return self.sign * (confidence - float(self.level))

    def at_most(self, margin: Tensor) -> Tensor:
        """Return a proved upper bound from an upper bound of ``margin``."""
        if self.sign > 0:
            logit = self.where.upper + margin
            top = elementary.sigmoid_bounds(logit + 1e-15 * (1 + logit.abs()))[1]
            return (top - float_below(self.level)) + 1e-15
        logit = self.where.lower - margin
        bottom = elementary.sigmoid_bounds(logit - 1e-15 * (1 + logit.abs()))[0]
        return (float_above(self.level) - bottom) + 1e-15


Function = Callable[[Tensor], Tensor]


def _measures(sign: float, where: Interval, level: Fraction) -> tuple[Function, Function]:
    measure = _Measure(sign, where, level)
    return measure.at_most, measure.roughly

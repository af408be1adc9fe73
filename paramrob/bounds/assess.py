"""One batch of boxes: a proved bound, where to look for a witness, where to split next."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from paramrob.bounds.ascent import Candidate, climb, push, repair, run
from paramrob.bounds.linear import Analysis, BoundPass, Boxes, Chord, Forms
from paramrob.bounds.optimise import Best, optimise
from paramrob.bounds.relaxations import Choice, Line, Plane, Ranges, Relaxation
from paramrob.bounds.rounding import SMALLEST_NORMAL, UNIT
from paramrob.bounds.splitting import choose_split, loose_of
from paramrob.bounds.targets import Flip, Rows, Target

if TYPE_CHECKING:
    from paramrob.bounds.branch import Goal

INF = float("inf")
CLIMB_STEPS = 8
"""Gradient steps of one local search for a witness."""
MOST_MULTIPLES = 16
"""Multiples of a constraint tried for each row."""
LONGER = 8
"""How many times as many gradient steps a box gets that splitting will not close."""
HOPELESS = 0.1
"""The share of a box's gap that the best split must promise to close."""


@dataclass(frozen=True)
class Assessed:
    """What one pass found out, ``(batch,)`` each.

    ``split`` is an input's index, or the number of inputs plus ``kind * hidden + neuron`` with
    kind 0 for the reference's value and 1 for the uncertain network's, or -1; ``at`` is where.
    """

    bound: Tensor
    split: Tensor
    at: Tensor
    candidate: Candidate | None


_GROUPS = (Ranges, Line, Plane, Choice, Relaxation, Chord, Boxes)


def _pick(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index]
    if isinstance(value, _GROUPS):
        names = [f.name for f in fields(value)]
        return replace(value, **{name: _pick(getattr(value, name), index) for name in names})
    return value


def part(analysis: Analysis, index: Tensor) -> Analysis:
    """Return the analysis of some of the boxes."""
    return Analysis(
        _pick(analysis.boxes, index),
        tuple(_pick(r, index) for r in analysis.relaxations),
        tuple(_pick(c, index) for c in analysis.chords),
        analysis.feasible[index],
    )


class Assessor:
    """Bounds batches of boxes of one problem.

    Args:
        bound_pass: of the problem's chain.
        lower: least inputs ``(in,)`` that a witness may have.
        upper: largest ones.
        steps: gradient steps spent on boxes that the heuristic bound leaves open.
        batch: boxes split at a time.
        seed: of the local searches.
    """

    def __init__(
        self,
        bound_pass: BoundPass,
        lower: Tensor,
        upper: Tensor,
        steps: int,
        batch: int,
        seed: int,
    ) -> None:
        self.bound_pass = bound_pass
        self.lower, self.upper = lower, upper
        self.steps = steps
        self.batch = batch
        self._generator = torch.Generator().manual_seed(seed)
        self._last: tuple[Boxes, Analysis] | None = None

    def assess(
        self, target: Target, boxes: Boxes, parent: Tensor, goal: Goal, attained: float
    ) -> Assessed:
        """Bound the target on each box (never above ``parent``) and choose its split."""
        analysis = self._analyse(boxes)
        rows = target.prepare(self.bound_pass, analysis)
        weight = torch.ones_like(rows.constant)
        best = optimise(self.bound_pass, analysis, rows, torch.zeros_like(weight), 0)
        value, x = self._value(analysis, rows, best)
        bound = torch.minimum(parent, value)
        candidate = self._candidate(target, boxes, best, x)
        if candidate and candidate.value > attained:
            attained = candidate.value
        split, at = torch.full_like(bound, -1).long(), torch.zeros_like(bound)
        index = (~goal.done(bound, attained)).nonzero().squeeze(1)
        if not index.numel():
            return Assessed(bound, split, at, candidate)
        everything = index.numel() == bound.numel()
        chosen = choose_split(
            self.bound_pass,
            analysis if everything else part(analysis, index),
            loose_of(rows, index),
            best if everything else best.part(index),
        )
        split[index], at[index], _ = chosen
        # Slopes and multipliers help where neurons cost more than the inputs' widths do.
        if boxes.cuts is None:
            index = index[(split[index] >= boxes.lower.shape[1]) | (split[index] < 0)]
        steps = self.steps
        while index.numel() and steps:
            analysis = part(self._analyse(boxes), index)
            rows = target.prepare(self.bound_pass, analysis)
            best = optimise(self.bound_pass, analysis, rows, weight[index], steps)
            better = torch.minimum(bound[index], self._value(analysis, rows, best)[0])
            bound = bound.index_put((index,), better)
            split[index], at[index], hope = choose_split(
                self.bound_pass, analysis, loose_of(rows), best
            )
            if steps > self.steps or boxes.cuts is None:
                break
            # Where no split explains the gap, the multipliers of the cuts do: look longer.
            gap = better - (attained if goal.threshold == INF else goal.threshold)
            index = index[~goal.done(better, attained) & (hope < HOPELESS * gap)]
            steps = LONGER * self.steps
        return Assessed(bound, split, at, candidate)

    def climb(self, target: Target, near: Candidate | None = None) -> Candidate | None:
        """Search for a good candidate from random inputs, or close to a known one."""
        count = 64 if near is None else 8
        noise = torch.rand(count, self.lower.numel(), generator=self._generator).double()
        x = self.lower + noise * (self.upper - self.lower)
        if near is not None:
            x = near.x + 1e-3 * (x - near.x)
            x[0] = near.x
        best = climb(self.bound_pass.chain, target, x, self.lower, self.upper, CLIMB_STEPS)
        if isinstance(target, Flip):
            theta = [t.unsqueeze(0) for t in best.theta]
            best = self._crossing(target, best.x.unsqueeze(0), theta) or best
        return best if best.value > -INF else None

    def _analyse(self, boxes: Boxes) -> Analysis:
        """Analyse; several targets that start from the same boxes share the work."""
        if self._last is None or self._last[0] is not boxes:
            self._last = (boxes, self.bound_pass.analyse(boxes))
        return self._last[1]

    def _crossing(self, target: Flip, x: Tensor, theta: list[Tensor]) -> Candidate | None:
        chain = self.bound_pass.chain
        middle = (target.level.lower + target.level.upper) / 2
        x = repair(chain, target, x, theta, middle, self.lower, self.upper)
        value = torch.nan_to_num(target.attained(*run(chain, x, theta)), nan=-INF)
        return _best_of(x, theta, value)

    def _value(self, analysis: Analysis, rows: Rows, best: Best) -> tuple[Tensor, Tensor | None]:
        """Return upper bounds from the rows, the constraint used as far as it goes.

        With a constraint, also the inputs ``(batch, in)`` at which they are attained.
        """
        least, feasible, x = best.least, analysis.feasible, None
        if rows.constraint is not None:
            on_z, on_e, constant = rows.constraint
            forms = self.bound_pass.rows(analysis, on_z.unsqueeze(1), on_e.unsqueeze(1))
            shift = constant.unsqueeze(1)
            limit = Forms(forms.a, forms.c + shift - 2e-15 * (shift.abs() + forms.c.abs()))
            feasible = feasible & ~(limit.least(analysis.boxes)[:, 0] > 0)
            within, x = _least_within(best, limit, analysis.boxes)
            least = torch.maximum(least, within)
        bound = rows.finish(least)
        bound = torch.where(torch.isnan(bound), INF, bound)
        return torch.where(feasible, bound, -INF), x

    def _candidate(
        self, target: Target, boxes: Boxes, best: Best, within: Tensor | None
    ) -> Candidate | None:
        """Return the best of the points at which the linear bounds are attained."""
        x = torch.where(best.a[:, 0] > 0, boxes.lower, boxes.upper)
        if within is not None:
            x = torch.cat([within, (boxes.lower + boxes.upper) / 2])
        x = torch.minimum(torch.maximum(x, self.lower), self.upper)
        value, theta = push(self.bound_pass.chain, target, x)
        plain = _best_of(x, theta, torch.nan_to_num(value, nan=-INF))
        if not isinstance(target, Flip):
            return plain
        mended = self._crossing(target, x, theta)
        known = [c for c in (plain, mended) if c is not None]
        return max(known, key=lambda c: c.value, default=None)


def _best_of(x: Tensor, theta: list[Tensor], value: Tensor) -> Candidate | None:
    i = int(value.argmax())
    if not float(value[i]) > -INF:
        return None
    return Candidate(x[i], tuple(t[i] for t in theta), float(value[i]))


def _least_within(best: Best, limit: Forms, boxes: Boxes) -> tuple[Tensor, Tensor]:
    """Return the least value of each row where the constraint's form is not positive.

    Any multiple of the form may be added; the best one turns some coefficient to zero, so
    those multiples are tried (the dual of a linear program with one constraint over a box). The
    solution ``(batch, in)`` of the row with the largest least value comes with it: that
    coefficient's input is the one strictly between its ends.
    """
    a, g = best.a, limit.a
    steps = torch.nan_to_num(-a / g, nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
    steps = steps[:, :, :MOST_MULTIPLES]
    mixed = a.unsqueeze(2) + steps.unsqueeze(3) * g.unsqueeze(2)
    constant = best.c.unsqueeze(2) + steps * limit.c.unsqueeze(2)
    # What the sums round off: two units of the magnitudes that they add; and underflow.
    reach = torch.maximum(boxes.lower.abs(), boxes.upper.abs())[:, None, None, :]
    size = (a.abs().unsqueeze(2) + steps.unsqueeze(3) * g.abs().unsqueeze(2)) * reach
    lost = size.sum(3) + best.c.abs().unsqueeze(2) + steps * limit.c.abs().unsqueeze(2)
    lost = lost + SMALLEST_NORMAL / UNIT * (1 + reach.sum(3))
    batch, rows, tried, inputs = mixed.shape
    forms = Forms(
        mixed.reshape(batch, rows * tried, inputs),
        (constant - (8 + inputs) * 2.0**-52 * lost).reshape(batch, rows * tried),
    )
    least = forms.least(boxes)
    code = least.argmax(dim=1)
    free = code % tried
    chosen = mixed.reshape(batch, rows * tried, inputs)[torch.arange(batch), code]
    x = torch.where(chosen > 0, boxes.lower, boxes.upper)
    at_free = free[:, None]
    slope = g[:, 0].gather(1, at_free)
    others = (g[:, 0] * x).sum(1, keepdim=True) - slope * x.gather(1, at_free)
    crossing = torch.nan_to_num(-(limit.c + others) / slope, nan=0.0)
    low, high = boxes.lower.gather(1, at_free), boxes.upper.gather(1, at_free)
    x = x.scatter(1, at_free, torch.minimum(torch.maximum(crossing, low), high))
    return least.reshape(batch, rows, tried).max(dim=2).values, x

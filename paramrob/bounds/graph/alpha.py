"""Slopes of relaxations chosen by gradient ascent on the bound: alpha-CROWN.

Xu et al., *Fast and complete: enabling complete verification with rapid and massively parallel
incomplete verifiers*, ICLR 2021. Every line is valid for whatever slope, so each step of the
search is a proof; the best bound of all steps counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.graph.backward import Rows, pull
from paramrob.bounds.graph.crown import Analysis
from paramrob.bounds.graph.lines import Lines, Prepared, slopes
from paramrob.models.network import Activation

RATE = 0.1
"""Adam's first step, in units of a slope."""
DECAY = 0.97


@dataclass
class Slopes:
    """Free slopes of one activation, a copy for each row: ``(rows, batch, n)``."""

    op: Activation
    prepared: Prepared
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, op: Activation, low: Tensor, high: Tensor, rows: int) -> Slopes:
        """Start from the heuristic slopes on ``[low, high]``, ``(batch, n)``."""
        first, second = slopes(op, low, high)

        def spread(t: Tensor) -> Tensor:
            return t.repeat(rows, 1, 1).requires_grad_()

        return cls(op, Prepared(op, low, high), spread(first), spread(second))

    def lines(self) -> Lines:
        """Return the lines of the present slopes, ``(batch, rows, n)``."""
        found = self.prepared.lines(self.low, self.high)
        return Lines(
            found.low_slope.transpose(0, 1),
            found.low.transpose(0, 1),
            found.high_slope.transpose(0, 1),
            found.high.transpose(0, 1),
        )

    def clamp(self) -> None:
        """Keep slopes where a useful one lies."""
        with torch.no_grad():
            if self.op.kind in ("relu", "leaky_relu"):
                self.low.clamp_(self.op.slope if self.op.kind == "leaky_relu" else 0.0, 1.0)


def optimised(
    analysis: Analysis, rows: Tensor, steps: int, enough: Tensor | float = float("inf")
) -> Tensor:
    """Return the best least values found, ``(batch, rows)``.

    Args:
        analysis: intervals of all steps.
        rows: ``(batch, rows, out)`` over the results.
        steps: of the search.
        enough: ends the search early where every row's value is above it.
    """
    intervals = analysis.intervals
    free: dict[int, Slopes] = {}
    for k, step in enumerate(intervals.program.steps):
        if isinstance(step.kind, Activation) and k in analysis.lines:
            given = intervals.known[step.inputs[0]]
            free[k] = Slopes.of(step.kind, given.low, given.high, rows.shape[1])
    best = torch.full(rows.shape[:2], -float("inf"), dtype=rows.dtype, device=rows.device)
    if not free:
        return pull(intervals, analysis.lines, _start(analysis, rows))
    leaves = [t for s in free.values() for t in (s.low, s.high)]
    optimiser = torch.optim.Adam(leaves, lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
    for step_number in range(steps + 1):
        chosen = analysis.lines | {k: s.lines() for k, s in free.items()}
        value = pull(intervals, chosen, _start(analysis, rows))
        best = torch.maximum(best, value.detach())
        if step_number == steps or bool((best > enough).all()):
            break
        optimiser.zero_grad()
        finite = torch.where(torch.isfinite(value), value, 0.0)
        (-finite.sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        for s in free.values():
            s.clamp()
    return best


def _start(analysis: Analysis, rows: Tensor) -> Rows:
    zero = rows.new_zeros(rows.shape[:2])
    return Rows({len(analysis.intervals.program.steps) - 1: rows}, zero, zero)

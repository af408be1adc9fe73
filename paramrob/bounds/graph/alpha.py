"""Slopes of relaxations chosen by gradient ascent on the bound: alpha-CROWN.

Xu et al., *Fast and complete: enabling complete verification with rapid and massively parallel
incomplete verifiers*, ICLR 2021. Every line is valid for whatever slope, so each step of the
search is a proof; the best bound of all steps counts. Every row has slopes of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.graph.backward import Rows, pull
from paramrob.bounds.graph.crown import Analysis
from paramrob.bounds.graph.forward import Intervals
from paramrob.bounds.graph.lines import Lines, Prepared, slopes
from paramrob.bounds.graph.snap import Snap, snap_lines
from paramrob.models.network import Activation

RATE = 0.1
"""Adam's first step, in units of a slope."""
DECAY = 0.97
CONVEX = ("relu", "leaky_relu")
"""Their chord is below every other line above them: its slope is no matter of choice."""


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
        first, second = (t.repeat(rows, 1, 1) for t in slopes(op, low, high))
        return cls.at(op, low, high, first, second)

    @classmethod
    def at(cls, op: Activation, low: Tensor, high: Tensor, first: Tensor, second: Tensor) -> Slopes:
        """Start from slopes ``(rows, batch, n)`` below and above."""
        first = first.detach().clone().requires_grad_()
        second = second.detach().clone().requires_grad_(op.kind not in CONVEX)
        return cls(op, Prepared(op, low, high), first, second)

    @property
    def leaves(self) -> list[Tensor]:
        """Return what a search may move."""
        return [t for t in (self.low, self.high) if t.requires_grad]

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
            if self.op.kind in CONVEX:
                self.low.clamp_(self.op.slope if self.op.kind == "leaky_relu" else 0.0, 1.0)

    def part(self, index: Tensor) -> Slopes:
        """Return those of some instances."""
        low, high = self.prepared.lower[index], self.prepared.upper[index]
        return Slopes.at(self.op, low, high, self.low[:, index], self.high[:, index])


class Ascent:
    """Adam's steps, of which some instances may be left out as they go (Kingma & Ba, ICLR 2015)."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.mean = [torch.zeros_like(t) for t in leaves]
        self.square = [torch.zeros_like(t) for t in leaves]
        self.count = 0

    def step(self, leaves: Sequence[Tensor]) -> None:
        """Move the leaves up their gradients."""
        self.count += 1
        rate = RATE * DECAY ** (self.count - 1)
        with torch.no_grad():
            for i, leaf in enumerate(leaves):
                slope = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                self.mean[i] = 0.9 * self.mean[i] + 0.1 * slope
                self.square[i] = 0.999 * self.square[i] + 0.001 * slope * slope
                mean = self.mean[i] / (1 - 0.9**self.count)
                size = (self.square[i] / (1 - 0.999**self.count)).sqrt() + 1e-12
                leaf.add_(rate * mean / size)
                leaf.grad = None

    def part(self, index: Tensor) -> None:
        """Keep some instances."""
        self.mean = [t[:, index] for t in self.mean]
        self.square = [t[:, index] for t in self.square]


Start = Callable[[Tensor], Rows]
"""Fresh rows of the instances at an index, ``(some, rows, ...)``."""


def climbed(
    intervals: Intervals,
    choices: Sequence[dict[int, Lines]],
    start: Start,
    steps: int,
    enough: Tensor | None = None,
    deadline: float = float("inf"),
) -> Tensor:
    """Return the best least values found, ``(batch, rows)``.

    Args:
        intervals: of all steps that the rows depend on.
        choices: of lines; each row starts from the best of them.
        start: the rows.
        steps: of the search.
        enough: ``(batch, rows)``: an instance all of whose rows are above is left at that.
        deadline: of :func:`time.monotonic`, after which there is no further step.
    """
    at = torch.arange(intervals.known[0].low.shape[0], device=intervals.known[0].low.device)
    values = torch.stack([pull(intervals, choice, start(at)) for choice in choices])
    best, chosen = values.max(0)
    free = _begun(intervals, choices, chosen)
    if not any(s.leaves for s in free.values()):
        return best
    fixed = snaps(given := intervals)
    ascent = Ascent([t for s in free.values() for t in s.leaves])
    for number in range(steps + 1):
        value = pull(given, fixed | {k: s.lines() for k, s in free.items()}, start(at))
        best[at] = torch.maximum(best[at], value.detach())
        if number == steps or time.monotonic() > deadline:
            break
        torch.where(torch.isfinite(value), value, 0.0).sum().backward()  # type: ignore[no-untyped-call]
        ascent.step([t for s in free.values() for t in s.leaves])
        for s in free.values():
            s.clamp()
        if enough is not None:
            still = (~(best[at] > enough[at]).all(1)).nonzero().squeeze(1)
            if not still.numel():
                break
            if still.numel() < at.numel():
                at, given = at[still], given.part(still)
                fixed = snaps(given)
                free = {k: s.part(still) for k, s in free.items()}
                ascent.part(still)
    return best


def _begun(
    intervals: Intervals, choices: Sequence[dict[int, Lines]], chosen: Tensor
) -> dict[int, Slopes]:
    """Return free slopes that are those of each row's choice, ``chosen`` ``(batch, rows)``."""
    free: dict[int, Slopes] = {}
    for k in choices[0]:
        step = intervals.program.steps[k]
        known = intervals.known[step.inputs[0]]
        if not isinstance(step.kind, Activation):
            continue
        every = torch.arange(len(known.low), device=known.low.device).unsqueeze(1)
        first, second = (
            torch.stack(each)[chosen, every].transpose(0, 1)
            for each in (
                [c[k].low_slope for c in choices],
                [c[k].high_slope for c in choices],
            )
        )
        free[k] = Slopes.at(step.kind, known.low, known.high, first, second)
        if step.kind.kind in CONVEX:
            # The chord of the interval as it is known now.
            free[k].high = slopes(step.kind, known.low, known.high)[1].expand_as(first)
    return free


def optimised(
    analysis: Analysis,
    rows: Tensor,
    steps: int,
    enough: Tensor | None = None,
    deadline: float = float("inf"),
) -> Tensor:
    """Return the best least values found, ``(batch, rows)``, no worse than any choice of lines.

    Args:
        analysis: intervals of all steps.
        rows: ``(batch, rows, out)`` over the results.
        steps: of the search.
        enough: ``(batch, rows)``: an instance all of whose rows are above is left at that.
        deadline: of :func:`time.monotonic`, after which there is no further step.
    """
    last = len(analysis.intervals.program.steps) - 1

    def start(at: Tensor) -> Rows:
        zero = rows.new_zeros(len(at), rows.shape[1])
        return Rows({last: rows[at]}, zero, zero)

    return climbed(analysis.intervals, analysis.choices, start, steps, enough, deadline)


def snaps(intervals: Intervals) -> dict[int, Lines]:
    """Return lines of all roundings to a grid so far; no slope of theirs is worth a search."""
    found = {}
    for k, step in enumerate(intervals.program.steps):
        if isinstance(step.kind, Snap) and step.inputs[0] < len(intervals.known):
            given = intervals.known[step.inputs[0]]
            found[k] = snap_lines(step.kind, given.low, given.high)[0]
    return found

r"""Rounding to a grid, on intervals and as lines.

A number ``v`` within the grid's ends is rounded to one at most half a step away, and an execution
that deviates by ``n`` steps ends at most ``n + 1/2`` steps away, never beyond the ends. Rounding is
monotone, so an interval goes to the interval of its ends' results: ``v / scale`` is computed in
floating point, moved outward by more than it can be off, and rounded up from below and down from
above, so that a tie that floating point cannot see counts both ways.

Lines below and above are ``v -+ (n + 1/2) scale``, or the two ends of the interval's image where
these are nearer to each other: on a point, or within one cell of the grid, rounding is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.graph.intercepts import Lines
from paramrob.models.ops import Quantize

_ROOM = 2.0**-50


@dataclass(frozen=True)
class Snap:
    """A step that rounds numbers within the ends of a grid to it."""

    grid: Quantize

    @property
    def reach(self) -> float:
        """How far a result may lie from what was rounded; exact."""
        return (self.grid.deviation + 0.5) * self.grid.scale


def snapped(kind: Snap, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose the results of ``lower <= v <= upper``; all of the grid where an end is no number."""
    grid = kind.grid
    ends = []
    for end, side in ((lower, -1.0), (upper, 1.0)):
        steps = end / grid.scale
        # the quotient, and the half that is taken off, are each off by less than a unit
        steps = steps + side * (steps.abs() * _ROOM + _ROOM)
        rounded = (steps - 0.5).ceil() if side < 0 else (steps + 0.5).floor()
        rounded = rounded + grid.zero_point + side * grid.deviation
        lost = grid.low if side < 0 else grid.high
        rounded = rounded.clamp(grid.low, grid.high).nan_to_num(nan=float(lost))
        # integers of 17 bits times a float32 number
        ends.append((rounded - grid.zero_point) * grid.scale)
    return ends[0], ends[1]


def snap_lines(kind: Snap, lower: Tensor, upper: Tensor) -> tuple[Lines, Lines]:
    """Return two choices of lines for values in ``[lower, upper]``.

    The first takes the ends of the image only where the result is known, the second wherever they
    lie no farther apart than the two slanted lines.
    """
    low, high = snapped(kind, lower, upper)
    gap = high - low
    reach = torch.full_like(low, kind.reach)
    choices = []
    for most in (0.0, 2 * kind.reach):
        level = (gap <= most) | ~(torch.isfinite(lower) & torch.isfinite(upper))
        slope = torch.where(level, 0.0, torch.ones_like(low))
        choices.append(
            Lines(slope, torch.where(level, low, -reach), slope, torch.where(level, high, reach))
        )
    return choices[0], choices[1]

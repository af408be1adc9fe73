"""What a search on a piece may move: slopes of lines, and multipliers on what splits say.

Wang et al., *Beta-CROWN*, NeurIPS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import DECAY, RATE, Slopes, snaps
from paramrob.bounds.graph.backward import Cut
from paramrob.bounds.graph.forward import Intervals
from paramrob.bounds.graph.lines import Lines
from paramrob.bounds.graph.pieces import Ends
from paramrob.models.network import Activation

MULTIPLIER_RATE = 0.1


class Free:
    """Slopes and multipliers of some pieces, moved by Adam.

    Args:
        intervals: of the pieces.
        cuts: what splits say of them.

    Attributes:
        cuts: the same with multipliers, of the steps of which a split says something.
        still: whether no slope can move.
    """

    def __init__(self, intervals: Intervals, cuts: Ends) -> None:
        self._fixed = snaps(intervals)
        self._slopes = {
            k: Slopes.of(step.kind, given.low, given.high, 1)
            for k, step in enumerate(intervals.program.steps)
            if isinstance(step.kind, Activation)
            for given in (intervals.known[step.inputs[0]],)
        }
        self.cuts = {
            k: Cut(low, high, *(torch.zeros_like(low).requires_grad_() for _ in range(2)))
            for k, (low, high) in cuts.items()
            if bool(torch.isfinite(low).any() | torch.isfinite(high).any())
        }
        slopes = [t for s in self._slopes.values() for t in s.leaves]
        self.still = not slopes
        self._multipliers = [t for c in self.cuts.values() for t in (c.on_low, c.on_high)]
        groups = [{"params": slopes, "lr": RATE}]
        if self._multipliers:
            groups.append({"params": self._multipliers, "lr": MULTIPLIER_RATE})
        if not self.still:
            self._adam = torch.optim.Adam(groups)
            self._schedule = torch.optim.lr_scheduler.ExponentialLR(self._adam, DECAY)

    def lines(self) -> dict[int, Lines]:
        """Return the lines of the present slopes."""
        return self._fixed | {k: s.lines() for k, s in self._slopes.items()}

    def climb(self, value: Tensor) -> None:
        """Move all that can move up the gradients of bounds; those that are none do not count."""
        self._adam.zero_grad()
        (-torch.where(torch.isfinite(value), value, 0.0).sum()).backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self._schedule.step()
        with torch.no_grad():
            for s in self._slopes.values():
                s.clamp()
            for t in self._multipliers:
                t.clamp_(min=0)

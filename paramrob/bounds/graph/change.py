r"""By how much an activation's result changes when its input does.

Where two networks are bounded together, ``phi(z + e) - phi(z)`` gets planes in ``(z, e)`` of its
own: those of :mod:`paramrob.bounds.relaxations`, whose error is of the order of ``e`` however wide
``z`` is (Paulsen et al., *ReluDiff*, ICSE 2020). They are valid up to ``64 u q`` where ``q`` bounds
all numbers involved; ``size`` is such a ``q``, with room for their own intercepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.relaxations import SMOOTH, Plane, Ranges, relax
from paramrob.models.ops import Activation

KINDS = ("relu", "leaky_relu", "sigmoid", "tanh")
INF = float("inf")


@dataclass(frozen=True)
class Change:
    """A step ``phi(z + e) - phi(z)``; its inputs are ``z``, ``e`` and ``z + e``."""

    op: Activation


@dataclass(frozen=True)
class Planes:
    """``low <= phi(z + e) - phi(z) <= high``, up to 64 roundings of ``size``, ``(batch, n)``."""

    low: Plane
    high: Plane
    size: Tensor

    def part(self, index: Tensor) -> Planes:
        """Return those of some inputs."""
        low, high = (
            Plane(p.z[index], p.e[index], p.intercept[index]) for p in (self.low, self.high)
        )
        return Planes(low, high, self.size[index])


Ends = tuple[Tensor, Tensor]


def change_image(kind: Change, e: Ends) -> Ends:
    """Enclose the change, ``phi`` being monotone with slopes of at most 1: ``(batch, n)`` each."""
    smooth = SMOOTH.get(kind.op.kind)
    peak = 1.0 if smooth is None else smooth.peak
    # peaks are powers of two
    return e[0].clamp(max=0) * peak, e[1].clamp(min=0) * peak


def change_planes(kind: Change, z: Ends, e: Ends, p: Ends) -> Planes:
    """Return planes for all ``z``, ``e`` and ``z + e`` in their intervals; none where one is open.

    Args:
        kind: an activation of :data:`KINDS`.
        z: proved ends of ``z``, ``(batch, n)`` each.
        e: of ``e``.
        p: of ``z + e``.
    """
    ranges = Ranges(*z, *e, *p)
    found = relax(kind.op, ranges).at()
    known = torch.stack([t.isfinite() for ends in (z, e, p) for t in ends]).all(0)
    size = 8 + sum((torch.maximum(low.abs(), high.abs()) for low, high in (z, e, p)), 0 * z[0])
    straight = ~undecided(kind, z, p)
    leak = {"relu": 0.0}.get(kind.op.kind, kind.op.slope)
    slope = torch.where(z[0] >= 0, 1.0, leak)
    low, high = (
        Plane(
            torch.where(straight | ~known, 0.0, plane.z),
            torch.where(straight, slope, torch.where(known, plane.e, 0.0)),
            torch.where(straight, 0.0, torch.where(known, plane.intercept, side * INF)),
        )
        for plane, side in ((found.d_low, -1.0), (found.d_high, 1.0))
    )
    return Planes(low, high, 2 * size)


def undecided(kind: Change, z: Ends, p: Ends) -> Tensor:
    """Return where the change depends on the interval of ``e``, ``(batch, n)``."""
    if kind.op.kind in SMOOTH:
        return torch.ones_like(z[0], dtype=torch.bool)
    active = (z[0] >= 0) & (p[0] >= 0)
    passive = (z[1] <= 0) & (p[1] <= 0)
    return ~(active | passive)

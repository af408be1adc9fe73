"""Slopes to start from: those of the lines that leave the least area to the curve.

The area between a curve and a line below it is least for the line that is highest in the middle
of the interval: it supports the curve's convex envelope there. For ReLU that is CROWN's adaptive
choice (slope 1 if ``upper > -lower``, else 0); for sigmoid and tanh its chord or tangent (Zhang et
al., NeurIPS 2018), the tangent through an end included.

The search keeps two points of the curve left and right of the middle, at first the ends. Their
chord's slope is tried; the best line with that slope touches the curve on one side of the middle
and that point replaces the one on its side. On a convex curve the points close in on the middle,
elsewhere on the tangent through an end, as in Newton's method. The last try is the tangent in the
middle. The highest line seen wins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paramrob.bounds.graph.curve import Curve
from paramrob.bounds.graph.intercepts import Part, Prepared, intercept_on
from paramrob.models.ops import Activation

_ROUNDS = 4
"""Slopes tried; the area is then within a per cent of the least on average."""


def slopes(op: Activation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return slopes for a line below and a line above that nearly minimise the area.

    Args:
        op: the activation.
        lower: float64, any shape and device.
        upper: of the same shape.

    Returns:
        ``(low_slope, high_slope)`` of that shape, finite, within the curve's own slopes; 0 where
        the interval is empty, infinite or NaN.

    Raises:
        SoundnessError: a tensor is not float64.
        ModelError: the activation is not supported.
    """
    return best_slopes(Prepared(op, lower, upper))


def best_slopes(prepared: Prepared) -> tuple[Tensor, Tensor]:
    """Return :func:`slopes` of an activation and intervals that are prepared already."""
    found = [_on(prepared.curve, part) for part in prepared.parts]
    low, high = (torch.cat(runs).reshape(prepared.lower.shape) for runs in zip(*found, strict=True))
    return low, high


def _on(curve: Curve, part: Part) -> tuple[Tensor, Tensor]:
    low, high = curve.slopes(part.lower.z, part.upper.z) or (
        _search(side, curve, part) for side in (1, -1)
    )
    lost = ~part.usable
    return low.masked_fill_(lost, 0.0), high.masked_fill_(lost, 0.0)


def _search(side: int, curve: Curve, part: Part) -> Tensor:
    left, right = part.lower.z, part.upper.z
    middle = left * 0.5 + right * 0.5
    at_left, at_right = (p.m * p.z + p.r for p in (part.lower, part.upper))
    best = torch.zeros_like(middle)
    highest = torch.full_like(middle, -torch.inf)
    derivative = _derivative(side, curve, part, middle)
    rounds = _ROUNDS if curve.kinks or derivative is not None else 1
    for k in range(rounds):
        if derivative is not None and k == rounds - 1:
            slope = derivative
        else:
            slope = ((at_right - at_left) / (right - left)).nan_to_num_(nan=0.0)
        slope.clamp_(*curve.steepness)
        bound, z = intercept_on(side, curve, part, slope, track=True)
        height = (bound + slope * middle) * side
        higher = height > highest
        best = torch.where(higher, slope, best)
        highest = torch.where(higher, height, highest)
        before = z <= middle
        value = bound + slope * z
        left, at_left = torch.where(before, z, left), torch.where(before, value, at_left)
        right, at_right = torch.where(before, right, z), torch.where(before, at_right, value)
    return best


def _derivative(side: int, curve: Curve, part: Part, middle: Tensor) -> Tensor | None:
    """Return the slope in the middle, or as near to it as the piece goes; None without a piece."""
    # of two tails the one around the middle
    piece = curve.piece(side, part.lower.z, part.upper.z, (middle > 0).to(middle.dtype))
    if piece is None:
        return None
    tangent = curve.tangent(torch.minimum(torch.maximum(middle, piece.left), piece.right))
    return (tangent.slope + tangent.point.m).nan_to_num_(nan=0.0)

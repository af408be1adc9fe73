"""What an activation makes of an interval."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramrob.bounds.graph.curve import TINY, UNIT, Curve
from paramrob.bounds.graph.curves import curve_of
from paramrob.bounds.graph.intercepts import alike, runs
from paramrob.models.ops import Activation

_MAX = torch.finfo(torch.float64).max


def image(op: Activation, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose ``{phi(z) : lower <= z <= upper}``, elementwise.

    Args:
        op: the activation.
        lower: float64, any shape and device; minus infinity means all numbers below ``upper``.
        upper: of the same shape; infinity means all numbers above ``lower``.

    Returns:
        ``(low, high)`` of that shape: the values at the ends to a few units in the last place
        (exact for ReLU, clamp and the identity), and the interior minimum where there is one.
        All numbers where an end is NaN or ``lower > upper``.

    Raises:
        SoundnessError: a tensor is not float64.
        ModelError: the activation is not supported.
    """
    curve = curve_of(op)
    lower, upper = alike(lower, upper)
    ends = zip(*(runs(end.reshape(-1)) for end in (lower, upper)), strict=True)
    found = [_image(curve, low, high) for low, high in ends]
    low, high = (torch.cat(pieces).reshape(lower.shape) for pieces in zip(*found, strict=True))
    return low, high


def _image(curve: Curve, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    (low, high), (other_low, other_high) = (_value(curve, end) for end in (lower, upper))
    low, high = torch.minimum(low, other_low), torch.maximum(high, other_high)
    floor, ceiling = curve.limits
    turn = curve.turn
    if turn is None:
        low = low.masked_fill_(lower == -math.inf, floor)
    else:
        floor = turn.value
        low = low.masked_fill_((lower <= turn.right) & (upper >= turn.left), floor)
    high = high.masked_fill_(upper == math.inf, ceiling)
    empty = ~(lower <= upper)
    return (
        low.nan_to_num_(nan=floor, posinf=_MAX, neginf=floor)
        .clamp_(min=floor)
        .masked_fill_(empty, -math.inf),
        high.nan_to_num_(nan=ceiling, posinf=math.inf, neginf=-_MAX)
        .clamp_(max=ceiling)
        .masked_fill_(empty, math.inf),
    )


def _value(curve: Curve, z: Tensor) -> tuple[Tensor, Tensor]:
    """Bound the value at ``z``, infinite ends being replaced by the largest numbers."""
    point = curve.at(z.clamp(-_MAX, _MAX))
    value = point.m * point.z + point.r
    rounds = torch.zeros_like(z, dtype=torch.bool)
    if isinstance(point.m, Tensor):
        rounds |= (point.m > 0) & (point.m < 1)
    if isinstance(point.error, Tensor):
        rounds |= point.error > 0
    room = value.abs().mul_(4 * UNIT).add_(TINY).mul_(rounds.to(z.dtype)).add_(point.error)
    return value - room, value + room

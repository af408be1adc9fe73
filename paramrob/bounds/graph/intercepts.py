r"""Linear bounds of an activation on an interval, for any slopes, proved on the stored numbers.

For a given slope ``s`` the best intercept below is ``min phi(z) - s z`` over the interval (CROWN:
Zhang et al., *Efficient neural network robustness certification with general activation
functions*, NeurIPS 2018), and it may be followed as ``s`` moves (alpha-CROWN: Xu et al., *Fast and
complete*, ICLR 2021): by the envelope theorem its derivative is ``-z*``, where ``z*`` attains the
minimum. The minimum is the least of a few candidates: both ends, the kinks inside, and a tangent
on the convex piece (:mod:`paramrob.bounds.graph.curves` has the proof for each activation). Above,
everything is mirrored.

*Rounding*, ``u = 2^-53``. A candidate ``(m - s) z + r`` is computed as ``p = fl(fl(m - s) z)`` and
``q = fl(p + r)``: off by ``2 u |p| + u |q|``, the error of ``r`` and an underflow below ``2^-1074``
that happens only if ``p`` is not exactly 0. Taking off
``4 u (|p| + |q|) + error + underflow`` covers this, the subtraction itself, and one more. The
tangent's slope relative to the line is ``k = fl(fl(m - s) + slope)``, off by ``u (|m - s| + |k|)``
and the slope's error; ``2 u (|m - s| + |k|) + slope_error`` makes of it an interval, of which
each end of the piece gets the worse one; sums, products and the last subtraction are off by
``4 u`` relative to what is taken off, which is therefore enlarged by ``2^-48``; underflow is
left to the error of ``r``, positive at a tangent. NaN goes through
all minima, and where one or an infinity comes out there is no bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paramrob.bounds.elementary import checked
from paramrob.bounds.graph.curve import TINY, UNIT, Curve, Kink, Number, Point
from paramrob.bounds.graph.curves import curve_of
from paramrob.errors import SoundnessError
from paramrob.models.ops import Activation

_INFINITY = float("inf")
_RUN = 1 << 15
"""Elements at a time on the CPU: its cache holds them, which is several times faster."""
_LIFT = 2.0**60


@dataclass(frozen=True)
class Lines:
    """A line below and one above for each element.

    Valid for every real ``z`` of its interval with the numbers as stored:
    ``low_slope z + low <= phi(z) <= high_slope z + high``. Without a bound the slope is 0
    and the intercept infinite.
    """

    low_slope: Tensor
    low: Tensor
    high_slope: Tensor
    high: Tensor

    def part(self, index: Tensor) -> Lines:
        """Return those of some instances, which the first axis counts."""
        ends = (self.low_slope, self.low, self.high_slope, self.high)
        return Lines(*(end[index] for end in ends))


@dataclass(frozen=True)
class Part:
    """A run of intervals, flat, and what is known of the curve there whatever the slope.

    ``outside`` is 0 where a kink lies strictly inside, else infinite, one tensor a kink.
    """

    lower: Point
    upper: Point
    outside: tuple[Tensor, ...]
    usable: Tensor


def part_of(curve: Curve, lower: Tensor, upper: Tensor) -> Part:
    """Evaluate the ends of flat intervals."""
    usable = (lower <= upper) & lower.isfinite() & upper.isfinite()
    outside = tuple(
        torch.where((lower < kink.z) & (upper > kink.z), 0.0, _INFINITY) for kink in curve.kinks
    )
    return Part(curve.at(lower), curve.at(upper), outside, usable)


def _gap(side: int, point: Point | Kink, error: Number, diff: Tensor) -> Tensor:
    """Bound ``side (phi(z) - s z)`` at one point from below, ``diff`` being ``fl(m - s)``."""
    value = diff * point.z
    room = value.abs()
    if isinstance(point.r, Tensor) or point.r != 0.0:
        value += point.r
        room += value.abs()
        room *= 4 * UNIT
        room += error
    else:
        room *= 8 * UNIT
    # p is exactly 0 if a factor is 0; else the smaller factor is 2^-1074 at least
    small = diff.abs()
    if isinstance(point.z, Tensor):
        small = torch.minimum(small, point.z.abs())
    else:
        small.clamp_(max=abs(point.z))
    room += small.mul_(_LIFT).clamp_(max=TINY)
    return (value.neg_() if side < 0 else value).sub_(room)


def _touch(side: int, curve: Curve, part: Part, slope: Tensor) -> tuple[Tensor, Tensor] | None:
    """Bound ``side (phi(z) - s z)`` from below on the curve's piece; also where it was touched."""
    piece = curve.piece(side, part.lower.z, part.upper.z, slope)
    if piece is None:
        return None
    t = torch.minimum(torch.maximum(piece.touch, piece.left), piece.right)
    tangent = curve.tangent(t)
    diff = tangent.point.m - slope
    k = diff + tangent.slope
    room = diff.abs().add_(k.abs()).mul_(2 * UNIT).add_(tangent.slope_error)
    if side < 0:
        k.neg_()
    loss = torch.maximum(
        (k + room).clamp_(min=0.0).mul_(t - piece.left),
        (room - k).clamp_(min=0.0).mul_(piece.right - t),
    )
    value = _gap(side, tangent.point, tangent.point.error, diff)
    value -= loss.mul_(1 + 2.0**-48)
    return value.masked_fill_(piece.left > piece.right, _INFINITY), t


def intercept_on(
    side: int, curve: Curve, part: Part, slope: Tensor, track: bool
) -> tuple[Tensor, Tensor]:
    """Return the intercept below (``side`` 1) or above (-1) and the place of contact."""
    ends = (part.lower, part.upper)
    first, best = (_gap(side, end, end.error, end.m - slope) for end in ends)
    contact = torch.where(first < best, part.lower.z, part.upper.z) if track else best
    best = torch.minimum(first, best)
    found: list[tuple[Tensor, Tensor | float]] = []
    for kink, outside in zip(curve.kinks, part.outside, strict=True):
        at_zero = kink.z == 0.0 and kink.r == 0.0
        value = outside if at_zero else _gap(side, kink, 0.0, kink.m - slope).add_(outside)
        found.append((value, kink.z))
    touched = _touch(side, curve, part, slope)
    for value, place in [*found, *([] if touched is None else [touched])]:
        if track:
            contact = torch.where(value < best, place, contact)
        best = torch.minimum(best, value)
    lost = ~(best.isfinite() & part.usable)
    best = best if side > 0 else best.neg()
    return best.masked_fill(lost, -side * _INFINITY), contact.masked_fill(lost, 0.0)


class _Intercepts(torch.autograd.Function):
    """Both intercepts as functions of the slopes; the derivative is minus the contact."""

    @staticmethod
    def forward(
        ctx: Any, prepared: Prepared, low_slope: Tensor, high_slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        low, at_low = prepared.intercept(1, low_slope, ctx.needs_input_grad[1])
        high, at_high = prepared.intercept(-1, high_slope, ctx.needs_input_grad[2])
        ctx.save_for_backward(at_low, at_high)
        ctx.shapes = low_slope.shape, high_slope.shape
        return low, high

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        on_low, on_high = (
            -(contact * gradient).sum_to_size(shape) if needed else None
            for contact, gradient, shape, needed in zip(
                ctx.saved_tensors, gradients, ctx.shapes, ctx.needs_input_grad[1:], strict=True
            )
        )
        return None, on_low, on_high


def _broadcast(*tensors: Tensor) -> torch.Size:
    if all(t.shape == tensors[0].shape for t in tensors):  # the usual case, at once
        return tensors[0].shape
    shape: torch.Size = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
    return shape


def alike(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return both without gradients and in one shape.

    Raises:
        SoundnessError: one is not float64.
    """
    shape = _broadcast(lower, upper)
    return checked(lower).expand(shape), checked(upper).expand(shape)


def runs(x: Tensor) -> list[Tensor]:
    """Cut the last axis into runs that suit the device."""
    length = x.shape[-1]
    run = _RUN if x.device.type == "cpu" else max(length, 1)
    return [x.narrow(-1, at, min(run, length - at)) for at in range(0, max(length, 1), run)]


class Prepared:
    """An activation on fixed intervals: what does not depend on slopes is computed once."""

    def __init__(self, op: Activation, lower: Tensor, upper: Tensor) -> None:
        """See :func:`lines` for the arguments and what is raised."""
        self.curve = curve_of(op)
        self.straight = op.kind == "identity"
        self.lower, self.upper = alike(lower, upper)
        ends = zip(*(runs(end.reshape(-1)) for end in (self.lower, self.upper)), strict=True)
        self.parts = [part_of(self.curve, low, high) for low, high in ends]

    def intercept(self, side: int, slope: Tensor, track: bool = True) -> tuple[Tensor, Tensor]:
        """Return the best intercept below (``side`` 1) or above (-1), without a gradient.

        Args:
            side: 1 or -1.
            slope: float64, ``(*more, *lower.shape)`` or what broadcasts to that.
            track: whether the contact is wanted.

        Returns:
            The intercepts, infinite where there is no bound, and the points ``z`` where the line
            touches the curve, as near as they are known (meaningless without ``track``, 0 where
            there is no bound).

        Raises:
            SoundnessError: the slope's dtype or shape does not fit.
        """
        shape = _broadcast(slope, self.lower)
        more = shape[: len(shape) - self.lower.ndim]
        if shape[len(more) :] != self.lower.shape:
            raise SoundnessError(
                f"slopes of shape {tuple(slope.shape)} do not fit intervals of shape "
                f"{tuple(self.lower.shape)}; expand the intervals first"
            )
        flat = checked(slope).expand(shape).reshape(math.prod(more), self.lower.numel())
        found = [
            intercept_on(side, self.curve, part, run, track)
            for part, run in zip(self.parts, runs(flat), strict=True)
        ]
        bound = torch.cat([b for b, _ in found], dim=1).reshape(shape)
        return bound, torch.cat([z for _, z in found], dim=1).reshape(shape) if track else bound

    def lines(self, low_slope: Tensor, high_slope: Tensor) -> Lines:
        """Return the lines with these slopes: :func:`lines`, whose checks it makes."""
        low: Tensor
        high: Tensor
        if self.straight:
            low_slope, high_slope = torch.ones_like(low_slope), torch.ones_like(high_slope)
        low, high = _Intercepts.apply(self, low_slope, high_slope)  # type: ignore[no-untyped-call]
        return Lines(
            torch.where(low.isinf(), 0.0, low_slope),
            low,
            torch.where(high.isinf(), 0.0, high_slope),
            high,
        )


def lines(
    op: Activation, lower: Tensor, upper: Tensor, low_slope: Tensor, high_slope: Tensor
) -> Lines:
    """Return the best lines with given slopes that are valid for every real z in an interval.

    Args:
        op: the activation.
        lower: float64, any shape and device, without gradient; with ``upper`` the intervals.
        upper: of the same shape, or broadcast with it.
        low_slope: any numbers, ``(*more, *lower.shape)`` or what broadcasts to that.
        high_slope: as ``low_slope``. The identity ignores both: its lines are itself.

    Returns:
        Lines whose intercepts are differentiable by the slopes (not twice). Slope 0 and an
        infinite intercept, that is no bound, where an end is infinite or NaN, where
        ``lower > upper``, where a slope is infinite or NaN, and where numbers overflow.

    Raises:
        SoundnessError: a tensor is not float64, or shapes do not fit.
        ModelError: the activation is not supported.
    """
    return Prepared(op, lower, upper).lines(low_slope, high_slope)

"""Linear relaxations of one activation in both networks at once.

For a neuron with reference input ``z`` in ``[zl, zu]`` and deviation ``e`` in ``[el, eu]``, the
uncertain input is ``z + e`` in ``[pl, pu]``. The pass needs lines for ``h = phi(z)`` and planes
for the deviation of the result, ``d = phi(z + e) - phi(z)``, in ``(z, e)``. Two families of planes
are kept and mixed (a convex combination of valid planes is valid):

- *separate*: a line for ``phi(z + e)`` less a line for ``phi(z)``: CROWN's (Zhang et al.,
  NeurIPS 2018), good where ``e`` is the larger;
- *joint*: planes for ``d`` itself, whose error is of the order of ``e`` however wide ``z`` is,
  as in differential verification (Paulsen et al., *ReluDiff*, ICSE 2020).

Every line and plane is valid up to ``64 u q`` with ``q`` of :mod:`paramrob.bounds.rounding`, which
charges for it: slopes may be any numbers, and intercepts are computed from the slopes as rounded
by a few operations on magnitudes below ``q``. Tests check both against dense samples and
rationals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.models.network import Activation

TINY = 1e-300


@dataclass(frozen=True)
class Ranges:
    """Proved ranges of one layer's neurons, each ``(batch, neurons)``."""

    zl: Tensor
    zu: Tensor
    el: Tensor
    eu: Tensor
    pl: Tensor
    pu: Tensor


@dataclass(frozen=True)
class Line:
    """``slope * t + intercept``."""

    slope: Tensor
    intercept: Tensor


@dataclass(frozen=True)
class Plane:
    """``z * z_value + e * e_value + intercept`` with the coefficients named ``z`` and ``e``."""

    z: Tensor
    e: Tensor
    intercept: Tensor

    def value(self, z: Tensor, e: Tensor) -> Tensor:
        """Return the plane's value at ``(z, e)``, in floating point."""
        return self.z * z + self.e * e + self.intercept


@dataclass(frozen=True)
class Choice:
    """The free numbers of a relaxation, each in [0, 1], ``(batch, neurons)`` or more axes.

    ``zero``: lower slope of the reference's ReLU in ``h``; ``shift`` and ``minus``: lower slopes
    of ``phi(z+e)`` and ``phi(z)`` in the separate planes; ``low`` and ``high``: the separate
    plane's share in the lower and upper plane.
    """

    zero: Tensor
    shift: Tensor
    minus: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Relaxed:
    """The lines and planes that one backward step uses."""

    h_low: Line
    h_high: Line
    d_low: Plane
    d_high: Plane


@dataclass(frozen=True)
class Relaxation:
    """Everything known of one layer of activations; :meth:`at` fixes the free numbers.

    ``free_z`` and ``free_p`` mark ReLUs whose lower slope may be chosen.
    """

    ranges: Ranges
    low_z: Line
    high_z: Line
    low_p: Line
    high_p: Line
    joint_low: Plane
    joint_high: Plane
    free_z: Tensor
    free_p: Tensor
    leak: float
    start: Choice

    def at(self, choice: Choice | None = None) -> Relaxed:
        """Return the relaxation at ``choice`` (by default the heuristic start)."""
        c = choice or self.start
        zero = self._lower(self.low_z, self.free_z, c.zero)
        shift = self._lower(self.low_p, self.free_p, c.shift)
        minus = self._lower(self.low_z, self.free_z, c.minus)
        separate_low = _difference(shift, self.high_z)
        separate_high = _difference(self.high_p, minus)
        return Relaxed(
            zero,
            self.high_z,
            _mix(separate_low, self.joint_low, c.low),
            _mix(separate_high, self.joint_high, c.high),
        )

    def _lower(self, line: Line, free: Tensor, slope: Tensor) -> Line:
        chosen = self.leak + (1 - self.leak) * slope
        return Line(torch.where(free, chosen, line.slope), line.intercept)


def _difference(shifted: Line, still: Line) -> Plane:
    return Plane(shifted.slope - still.slope, shifted.slope, shifted.intercept - still.intercept)


def _mix(a: Plane, b: Plane, share: Tensor) -> Plane:
    rest = 1 - share
    return Plane(
        share * a.z + rest * b.z,
        share * a.e + rest * b.e,
        share * a.intercept + rest * b.intercept,
    )


def relax(activation: Activation, ranges: Ranges) -> Relaxation:
    """Return the relaxation of ``activation`` on ``ranges``."""
    if activation.kind in ("sigmoid", "tanh"):
        return _relax_smooth(SMOOTH[activation.kind], ranges)
    leak = {"identity": 1.0, "relu": 0.0}.get(activation.kind, activation.slope)
    return _relax_relu(ranges, leak)


def _relax_relu(r: Ranges, leak: float) -> Relaxation:
    low_z, high_z, free_z = _relu_lines(r.zl, r.zu)
    low_p, high_p, free_p = _relu_lines(r.pl, r.pu)
    joint_low, joint_high = _relu_joint(r)
    if leak:
        low_z, high_z, low_p, high_p = (
            Line(leak + (1 - leak) * line.slope, (1 - leak) * line.intercept)
            for line in (low_z, high_z, low_p, high_p)
        )
        joint_low, joint_high = (
            Plane((1 - leak) * p.z, leak + (1 - leak) * p.e, (1 - leak) * p.intercept)
            for p in (joint_low, joint_high)
        )
    middle = (r.zl + r.zu) / 2
    start = Choice(
        (r.zu > -r.zl).to(r.zl.dtype),
        (middle + r.el > 0).to(r.zl.dtype),
        (middle > 0).to(r.zl.dtype),
        torch.zeros_like(middle),
        torch.zeros_like(middle),
    )
    relaxation = Relaxation(
        r, low_z, high_z, low_p, high_p, joint_low, joint_high, free_z, free_p, leak, start
    )
    return _choose_family(relaxation, start)


def _choose_family(relaxation: Relaxation, start: Choice) -> Relaxation:
    """Start from the family that is tighter where the adversary probably sits."""
    r = relaxation.ranges
    middle = (r.zl + r.zu) / 2
    ones, zeros = torch.ones_like(middle), torch.zeros_like(middle)
    separate = relaxation.at(Choice(start.zero, start.shift, start.minus, ones, ones))
    joint = relaxation.at(Choice(start.zero, start.shift, start.minus, zeros, zeros))
    low = separate.d_low.value(middle, r.el) > joint.d_low.value(middle, r.el)
    high = separate.d_high.value(middle, r.eu) < joint.d_high.value(middle, r.eu)
    chosen = Choice(
        start.zero, start.shift, start.minus, low.to(middle.dtype), high.to(middle.dtype)
    )
    return replace(relaxation, start=chosen)


def _relu_lines(lower: Tensor, upper: Tensor) -> tuple[Line, Line, Tensor]:
    """Return lower and upper lines of ReLU on ``[lower, upper]`` and where the lower is free."""
    active = (lower >= 0).to(lower.dtype)
    free = (lower < 0) & (upper > 0)
    slope = torch.where(free, upper / (upper - lower).clamp(min=TINY), active).clamp(0, 1)
    intercept = torch.maximum(-slope * lower, upper - slope * upper)
    intercept = torch.where(free, intercept, 0.0)
    return Line(active, torch.zeros_like(lower)), Line(slope, intercept), free


def _relu_joint(r: Ranges) -> tuple[Plane, Plane]:
    """Return planes in ``e`` alone for ``relu(z+e) - relu(z)``.

    For fixed ``e`` the difference is monotone in ``z``: falling for ``e < 0``, rising for
    ``e > 0``. The largest value over ``z``, ``max(e, -zl+)`` left of 0 and ``relu(zu- + e)`` right
    of it, is convex in ``e``, so its chord is an upper bound. The smallest value, ``max(e, -zu+)``
    left and ``relu(zl- + e)`` right of 0, is convex unless ``z`` and ``e`` both straddle 0; there
    the chord of ``min(e, 0)`` bounds it, else a line through its kink.
    """
    width = (r.eu - r.el).clamp(min=TINY)

    def largest(e: Tensor) -> Tensor:
        left = torch.maximum(e, -r.zl.clamp(min=0))
        return torch.where(e < 0, left, (r.zu.clamp(max=0) + e).clamp(min=0))

    at_low, at_high = largest(r.el), largest(r.eu)
    slope = ((at_high - at_low) / width).clamp(0, 1)
    high = torch.maximum(at_high - slope * r.eu, at_low - slope * r.el)
    straddles = (r.zl < 0) & (r.zu > 0)
    both = straddles & (r.el < 0) & (r.eu > 0)
    falling = (r.zl >= 0) | (straddles & (r.eu <= 0))
    kink = torch.where(falling, -r.zu.clamp(min=0), -r.zl.clamp(max=0))
    value = torch.where(falling, kink, 0.0)
    tilt = (r.el >= kink).to(width.dtype)
    chord = (-r.el / width).clamp(0, 1)
    low_slope = torch.where(both, chord, tilt)
    low = torch.where(both, torch.minimum(r.el - chord * r.el, -chord * r.eu), value - tilt * kink)
    zero = torch.zeros_like(width)
    return Plane(zero, low_slope, low), Plane(zero, slope, high)


@dataclass(frozen=True)
class Smooth:
    """A sigmoidal function: odd about ``(0, centre)``, convex left of 0 and concave right of it.

    ``value`` is computed to 16 u, ``slope_of`` gives the derivative from the value; ``second`` and
    ``third`` bound the magnitudes of those derivatives; ``peak`` is the derivative at 0.
    """

    value: Callable[[Tensor], Tensor]
    slope_of: Callable[[Tensor], Tensor]
    touching: Callable[[Tensor], Tensor]
    centre: float
    peak: float
    second: float
    third: float


def _touch_sigmoid(slope: Tensor) -> Tensor:
    """Where right of 0 the sigmoid has this slope, roughly."""
    s = (1 + (1 - 4 * slope).clamp(min=0).sqrt()) / 2
    return torch.log(s / (1 - s).clamp(min=TINY))


def _touch_tanh(slope: Tensor) -> Tensor:
    """Where right of 0 tanh has this slope, roughly."""
    return torch.atanh((1 - slope).clamp(min=0).sqrt())


SMOOTH: dict[str, Smooth] = {
    "sigmoid": Smooth(
        elementary.sigmoid, lambda s: s * (1 - s), _touch_sigmoid, 0.5, 0.25, 0.09622505, 0.125
    ),
    "tanh": Smooth(elementary.tanh, lambda s: 1 - s * s, _touch_tanh, 0.0, 1.0, 0.7698004, 2.0),
}


def _relax_smooth(f: Smooth, r: Ranges) -> Relaxation:
    low_z, high_z = smooth_lines(f, r.zl, r.zu)
    low_p, high_p = smooth_lines(f, r.pl, r.pu)
    joint_low, joint_high = _smooth_joint(f, r)
    never = torch.zeros_like(r.zl, dtype=torch.bool)
    half = torch.zeros_like(r.zl)
    start = Choice(half, half, half, half, half)
    relaxation = Relaxation(
        r, low_z, high_z, low_p, high_p, joint_low, joint_high, never, never, 0.0, start
    )
    return _choose_family(relaxation, start)


def smooth_lines(f: Smooth, lower: Tensor, upper: Tensor) -> tuple[Line, Line]:
    """Return a lower and an upper line of ``f`` on ``[lower, upper]``, both with the chord's slope.

    Above: on the convex part ``phi - slope t`` is largest at an end; on the concave part it lies
    below its tangent at any point, wherever that point was meant to be. Below: by symmetry.
    """
    at_low, at_high = f.value(lower), f.value(upper)
    width = upper - lower
    middle = f.slope_of(f.value((lower + upper) / 2))
    slope = torch.where(width > 1e-6, (at_high - at_low) / width.clamp(min=TINY), middle)
    slope = slope.clamp(0, f.peak)
    high = _above(f, slope, lower, upper)
    low = 2 * f.centre - _above(f, slope, -upper, -lower)
    return Line(slope, low), Line(slope, high)


def _above(f: Smooth, slope: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    def gap(t: Tensor) -> Tensor:
        return f.value(t) - slope * t

    convex = torch.maximum(gap(lower), gap(torch.minimum(upper, torch.zeros_like(upper))))
    start = lower.clamp(min=0)
    touch = torch.nan_to_num(f.touching(slope), nan=0.0)
    touch = torch.minimum(torch.maximum(touch, start), upper.clamp(min=0))
    tilt = f.slope_of(f.value(touch)) - slope
    concave = gap(touch) + torch.maximum(tilt * (start - touch), tilt * (upper - touch))
    convex = torch.where(lower < 0, convex, gap(start))
    return torch.where(upper > 0, torch.maximum(convex, concave), convex)


def _least_slope(f: Smooth, a: Tensor, b: Tensor) -> Tensor:
    """Return the least derivative on ``[a, b]``: at the end farther from 0."""
    return f.slope_of(f.value(torch.maximum(a.abs(), b.abs())))


def _greatest_slope(f: Smooth, a: Tensor, b: Tensor) -> Tensor:
    nearest = torch.where((a <= 0) & (b >= 0), 0.0, torch.minimum(a.abs(), b.abs()))
    return f.slope_of(f.value(nearest))


def _smooth_joint(f: Smooth, r: Ranges) -> tuple[Plane, Plane]:
    """Return planes for ``d``: Taylor's at the end of ``e`` where it counts, or a chord.

    ``d(z, e) <= d(z, eu) + m (e - eu)`` with ``m`` the least slope met on the way, and
    ``d(z, eu)`` is its tangent in ``z`` up to ``third |eu| dz^2 / 2``. Where ``z`` is wide, ``d``
    lies between ``m e`` and ``M e`` (mean value theorem), whose chord is used instead.
    """
    middle = (r.zl + r.zu) / 2
    half = torch.maximum(r.zu - middle, middle - r.zl)
    least = _least_slope(f, torch.minimum(r.zl, r.pl), torch.maximum(r.zu, r.pu))
    most = _greatest_slope(f, torch.minimum(r.zl, r.pl), torch.maximum(r.zu, r.pu))
    value = f.value(middle)
    slope = f.slope_of(value)

    def tangent(end: Tensor, sign: float) -> Plane:
        moved = f.value(middle + end)
        on_z = f.slope_of(moved) - slope
        on_e = _least_slope(f, torch.minimum(r.pl, r.zl + end), torch.maximum(r.pu, r.zu + end))
        rest = sign * 0.5 * f.third * end.abs() * half * half
        return Plane(on_z, on_e, moved - value - on_z * middle - on_e * end + rest)

    def chord(sign: float) -> Plane:
        steep_right, steep_left = (most, least) if sign > 0 else (least, most)
        right = torch.where(r.eu > 0, steep_right, steep_left) * r.eu
        left = torch.where(r.el > 0, steep_right, steep_left) * r.el
        on_e = ((right - left) / (r.eu - r.el).clamp(min=TINY)).clamp(0, f.peak)
        ends = (right - on_e * r.eu, left - on_e * r.el)
        extreme = torch.maximum(*ends) if sign > 0 else torch.minimum(*ends)
        return Plane(torch.zeros_like(on_e), on_e, extreme)

    high, wide_high = tangent(r.eu, 1.0), chord(1.0)
    low, wide_low = tangent(r.el, -1.0), chord(-1.0)
    better_high = high.value(middle, r.eu) < wide_high.value(middle, r.eu)
    better_low = low.value(middle, r.el) > wide_low.value(middle, r.el)
    return _pick(better_low, low, wide_low), _pick(better_high, high, wide_high)


def _pick(first: Tensor, a: Plane, b: Plane) -> Plane:
    return Plane(
        torch.where(first, a.z, b.z),
        torch.where(first, a.e, b.e),
        torch.where(first, a.intercept, b.intercept),
    )

r"""Every activation as one curve: values, tangents and curvature, with proved errors.

A curve is handed out as ``phi(z) = m z + r``, where ``m`` is one of the exact slopes that ``phi``
has or tends to (0, 1, a leak), so that ``phi(z) - s z = (m - s) z + r`` loses nothing where ``s``
is close to ``m``. ``u = 2^-53``; subnormal numbers must be kept
(:func:`paramrob.bounds.rounding.check_arithmetic`).

A line below a curve is proved from its curvature. Let the curve be convex on one piece
``[left, right]`` of the line and, outside that piece, made of parts that are concave or straight.
On such a part ``phi(z) - s z`` is least at an end, that is at a kink, at an end of the interval or
in the convex piece. On the convex piece it is no less than ``phi(t) + phi'(t) (z - t) - s z`` for
*any* ``t`` of the piece, which is least at an end. A line above is proved in the same way from a
concave piece. Which pieces these are:

- ReLU, leaky ReLU, clamp, hardsigmoid: straight between kinks, no piece at all.
- sigmoid, tanh: convex left of 0, concave right of it (``tanh'' = -2 tanh sech^2``; the sigmoid is
  a shifted tanh).
- softplus: convex everywhere (its derivative is a sigmoid). ELU: convex left of 0 for
  ``alpha >= 0``, straight right of it, a kink at 0.
- hardswish: ``z (z + 3)/6``, convex, between kinks at -3 and 3, straight outside.
- SiLU and both GELUs: :mod:`paramrob.bounds.graph.gates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from paramrob.bounds import elementary, special
from paramrob.bounds.graph.curve import TINY, UNIT, Curve, Kink, Piece, Point, Tangent, Turn
from paramrob.bounds.graph.gates import GATES, Gated
from paramrob.errors import ModelError
from paramrob.models.ops import Activation


class _Leaky(Curve):
    """ReLU and leaky ReLU."""

    kinks = (Kink(0.0, 0.0, 0.0),)

    def __init__(self, leak: float) -> None:
        self._leak = leak
        self.limits = (-math.inf if leak > 0 else 0.0, math.inf)
        self.steepness = (min(leak, 1.0), max(leak, 1.0))

    def at(self, z: Tensor) -> Point:
        right = (z > 0).to(z.dtype)
        m = right if self._leak == 0.0 else right.clamp_(min=self._leak)
        return Point(z, m, 0.0, 0.0)

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        # of ReLU; exactly 0 or 1 where the sign is known
        left, right = lower.clamp(max=0.0), upper.clamp(min=0.0)
        high = right / (right - left).clamp_(min=TINY)
        low = (right > -left).to(lower.dtype)
        # 1 stays 1, exactly
        return low.clamp_(min=self._leak), high.add_((1.0 - high).mul_(self._leak))


class _Clamp(Curve):
    """``z`` within two constants."""

    def __init__(self, low: float, high: float) -> None:
        self.limits = (low, high)
        self.kinks = (Kink(low, 1.0, 0.0), Kink(high, 1.0, 0.0))

    def at(self, z: Tensor) -> Point:
        low, high = self.limits
        m = ((z > low) & (z < high)).to(z.dtype)
        r = (z <= low).to(z.dtype).mul_(low)
        # low == high: the constant, once
        r += ((z >= high) & (z > low)).to(z.dtype).mul_(high)
        return Point(z, m, r, 0.0)


class _Hardsigmoid(Curve):
    """``(z + 3)/6`` within [0, 1]; sum and quotient are off by ``2 u``."""

    kinks = (Kink(-3.0, 0.0, 0.0), Kink(3.0, 0.0, 1.0))
    limits = (0.0, 1.0)
    steepness = (0.0, 1.0 / 6.0)

    def at(self, z: Tensor) -> Point:
        r = (z + 3.0).div_(6.0).clamp_(0.0, 1.0)
        error = r * (z < 3.0).to(z.dtype).mul_(4 * UNIT)
        return Point(z, 0.0, r, error)


class _Hardswish(Curve):
    """``z (z + 3)/6`` between -3 and 3, off by ``3 u``.

    Its derivative ``(2 z + 3)/6`` is at most 3/2 in magnitude, off by ``2 u`` of that.
    """

    kinks = (Kink(-3.0, 0.0, 0.0), Kink(3.0, 1.0, 0.0))
    steepness = (-0.5, 1.5)
    turn = Turn(-1.5, -1.5, -0.375)

    def at(self, z: Tensor) -> Point:
        inside = (z.abs() < 3.0).to(z.dtype)
        middle = z.clamp(-3.0, 3.0)
        r = (middle + 3.0).mul_(middle).div_(6.0).mul_(inside)
        error = r.abs().mul_(4 * UNIT).add_(inside.mul_(TINY))
        return Point(z, (z >= 3.0).to(z.dtype), r, error)

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece | None:
        if side < 0:
            return None
        return Piece(lower.clamp(min=-3.0), upper.clamp(max=3.0), slope * 3.0 - 1.5)

    def tangent(self, t: Tensor) -> Tangent:
        r = (t + 3.0).mul_(t).div_(6.0)
        error = r.abs().mul_(4 * UNIT).add_(TINY)
        return Tangent(Point(t, 0.0, r, error), (t + t).add_(3.0).div_(6.0), 6 * UNIT)


def _split(side: int, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part left of 0 (``side`` 1) or right of it (-1)."""
    return (lower, upper.clamp(max=0.0)) if side > 0 else (lower.clamp(min=0.0), upper)


class _Sigmoid(Curve):
    """``n`` of :func:`paramrob.bounds.special.logistic` left of 0, else ``1 - n``.

    The difference is no smaller than ``n``, so it is off by ``6.2 u``.
    """

    limits = (0.0, 1.0)
    steepness = (0.0, 0.25)

    @staticmethod
    def _point(z: Tensor, n: Tensor) -> Point:
        r = torch.where(z < 0, n, 1.0 - n)
        return Point(z, 0.0, r, r * special.PRECISE + elementary.UNDERFLOW * 2)

    def at(self, z: Tensor) -> Point:
        return self._point(z, special.logistic(z.abs())[1])

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece:
        # n (1 - n) = slope, solved for the smaller n without cancellation
        s = slope.clamp(0.0, 0.25)
        n = (s + s) / ((1.0 - 4.0 * s).sqrt_() + 1.0)
        touch = torch.log(n / (1.0 - n))
        return Piece(*_split(side, lower, upper), touch if side > 0 else -touch)

    def tangent(self, t: Tensor) -> Tangent:
        _, n, slope = special.logistic(t.abs())
        error = slope * special.GOOD + elementary.UNDERFLOW * 2
        return Tangent(self._point(t, n), slope, error)


class _Tanh(Curve):
    """The hyperbolic tangent."""

    limits = (-1.0, 1.0)

    @staticmethod
    def _point(z: Tensor, r: Tensor) -> Point:
        error = (r * elementary.TANH_ERROR).abs_().add_(elementary.UNDERFLOW * 2)
        return Point(z, 0.0, r, error)

    def at(self, z: Tensor) -> Point:
        return self._point(z, elementary.tanh(z))

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece:
        # 1 - tanh^2 = slope; the artanh of sqrt(1 - s) is log((1 + sqrt(1 - s)) / sqrt(s))
        s = slope.clamp(0.0, 1.0)
        touch = torch.log1p((1.0 - s).sqrt_()) - 0.5 * torch.log(s)
        return Piece(*_split(side, lower, upper), -touch if side > 0 else touch)

    def tangent(self, t: Tensor) -> Tangent:
        value, slope = special.tanh_slope(t)
        error = slope * special.GOOD + elementary.UNDERFLOW * 2
        return Tangent(self._point(t, value), slope, error)


class _Softplus(Curve):
    r"""``max(z, 0) + log1p(exp(-|x|))/beta`` with ``x = beta z``.

    ``x`` itself is off by ``u |x|``. That moves ``log1p(exp(-|x|))`` and ``n = 1/(1 + exp|x|)`` by
    no more than the same, relative to them: their logarithms' derivatives are
    ``-n/log1p(exp(-|x|))`` and ``-(1 - n)``, at most 1 in magnitude. The logarithm is otherwise
    off by ``3.1 u + 6.2 u``, its quotient by ``u`` more.
    """

    def __init__(self, beta: float) -> None:
        self._beta = beta
        # a power of two multiplies exactly
        self._scaling = 0.0 if math.frexp(beta)[0] == 0.5 else 2 * UNIT
        self._tiny = elementary.UNDERFLOW * 4 / beta + TINY

    def _parts(self, z: Tensor) -> tuple[Point, Tensor, Tensor]:
        x = (z * self._beta).abs_()
        e, n, _ = special.logistic(x)
        r = special.log1p_unit(e).div_(self._beta)
        relative = x.clamp_(max=710.0).mul_(self._scaling)
        error = (relative + special.GOOD).mul_(r).add_(self._tiny)
        return Point(z, (z > 0).to(z.dtype), r, error), n, relative

    def at(self, z: Tensor) -> Point:
        return self._parts(z)[0]

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece | None:
        if side < 0:
            return None
        s = slope.clamp(0.0, 1.0)
        return Piece(lower, upper, (torch.log(s) - torch.log1p(-s)).div_(self._beta))

    def tangent(self, t: Tensor) -> Tangent:
        point, n, relative = self._parts(t)
        error = relative.add_(special.PRECISE).mul_(n).add_(elementary.UNDERFLOW * 2)
        return Tangent(point, torch.where(t > 0, -n, n), error)


class _Elu(Curve):
    """``alpha expm1(z)`` left of 0, off by ``8.7 u``; its derivative is off by ``4.1 u``."""

    kinks = (Kink(0.0, 0.0, 0.0),)

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._tiny = TINY + elementary.UNDERFLOW * alpha * 2
        self.limits = (-alpha, math.inf)
        self.steepness = (0.0, max(1.0, alpha))

    def at(self, z: Tensor) -> Point:
        r = special.exp_expm1(z.clamp(max=0.0))[1].mul_(self._alpha)
        error = (r * -special.GOOD).add_((z < 0).to(z.dtype).mul_(self._tiny))
        return Point(z, (z > 0).to(z.dtype), r, error)

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece | None:
        if side < 0:
            return None
        touch = torch.log(slope.clamp(min=0.0) / max(self._alpha, TINY))
        return Piece(lower, upper.clamp(max=0.0), touch)

    def tangent(self, t: Tensor) -> Tangent:
        # an empty piece asks for nothing
        exponential, expm1 = special.exp_expm1(t.clamp(max=0.0))
        r, slope = expm1.mul_(self._alpha), exponential.mul_(self._alpha)
        point = Point(t, 0.0, r, (r * -special.GOOD).add_(self._tiny))
        return Tangent(point, slope, slope * special.PRECISE + self._tiny)


def curve_of(op: Activation) -> Curve:
    """Return the activation's curve; the identity is a leaky ReLU that leaks everything.

    Raises:
        ModelError: the activation or one of its constants is not supported.
    """
    kind = op.kind
    if kind in GATES:
        return Gated(kind)
    if kind in ("identity", "relu"):
        return _Leaky(float(kind == "identity"))
    if kind == "leaky_relu" and 0.0 <= op.slope <= 1.0:
        return _Leaky(op.slope)
    if kind == "clamp" and -math.inf < op.low <= op.high < math.inf:
        return _Clamp(op.low, op.high)
    if kind == "softplus" and 0.0 < op.beta < math.inf:
        return _Softplus(op.beta)
    if kind == "elu" and 0.0 <= op.alpha < math.inf:
        return _Elu(op.alpha)
    plain: dict[str, Callable[[], Curve]] = {
        "sigmoid": _Sigmoid,
        "tanh": _Tanh,
        "hardsigmoid": _Hardsigmoid,
        "hardswish": _Hardswish,
    }
    if kind in plain:
        return plain[kind]()
    raise ModelError(f"{op} has no linear bounds; use an activation and constants listed in ops.py")

r"""SiLU, GELU and GELU's tanh form: ``phi(z) = z G(z)`` with ``G(z) + G(-z) = 1``.

With ``x = |z|`` and the tail ``n(x) = G(-x)``, ``phi(z) = max(z, 0) - x n(x)``, so that
``E(z) = phi(z) - z/2`` is even and ``E'(x) = 1/2 - n(x) + g(x)`` with ``g(x) = -x n'(x)``.

*Curvature.* ``E''`` is positive below one inflection point ``c`` and negative beyond:

- SiLU: ``E'' = n (1-n) (2 - x tanh(x/2))``, and ``x tanh(x/2)`` rises; ``c = 2.39935...``
- GELU: ``E'' = f(x) (2 - x^2)`` with the normal density ``f``; ``c = sqrt 2``.
- tanh form: ``n = 1/(1 + exp W)``, ``W = k (x + a x^3)``, ``k = sqrt(8/pi)``, ``a = 0.044715``;
  ``E'' = n (1-n) (2 W' + x W'' - x W'^2 tanh(W/2))``. From ``x = 2`` on, ``x W'' <= 2 W'`` and
  ``x W' tanh(W/2)``, which rises, exceeds 4: negative. On [0, 2] the tests establish the sign with
  ball arithmetic; ``c = 1.41850...``

So ``phi`` is convex on ``[-c, c]`` and concave beyond, where ``E'`` falls from its largest value to
1/2 (``x`` to infinity): there ``phi' > 1`` on the right and ``phi' < 0`` on the left. For a line
above with slope ``s >= 0`` the left tail is therefore largest at its left end, for ``s <= 1`` the
right tail at its right end, and only the other one, if any, needs a tangent.

*The sliver.* The doubles ``below < c < above`` are neighbours. A line below takes tangents on
``[-above, above]``, one above on the tails from ``below`` on. On the sliver between the two,
``|phi''| <= 2^-51 max|phi'''| < 2^-51``, and it is at most ``2^-51`` wide, so the curve strays to
the wrong side of a tangent at ``t`` by at most ``2^-102 |z - t|``: ``SLIVER`` is added to the error
of the slope.

*Errors.* ``n`` and the density or ``n (1-n)`` come from :mod:`paramrob.bounds.special`. In the tanh
form ``W`` is off by ``7 u`` and ``W'`` by ``7 u`` (constants included), and an error ``w`` in ``W``
changes ``n`` and ``n (1-n)`` by at most ``w``, relative to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from paramrob.bounds import special
from paramrob.bounds.graph.curve import Curve, Number, Piece, Point, Tangent, Turn

SLIVER = 2.0**-100
FAR = 2.0**-980
"""Beyond ``Gate.last`` all of ``x n``, ``n`` and ``g`` are smaller."""
_NODES = 2048
_WIDEST, _FLATTEST = 6.4, 1e-18
"""The far end of the tails' tables, and a steepness beyond 1 or below 0 that lies within."""
_SLOPE_SCALE = math.sqrt(8.0 / math.pi)
_CUBIC = 0.044715


@dataclass(frozen=True)
class Gate:
    """What tells the three apart.

    ``tail`` returns ``n`` and ``g`` at ``0 <= x <= last``, and ``errors`` their relative errors
    with room to spare. ``peak`` is roughly ``E'(c)``; ``least`` and ``value`` describe the minimum
    as in :class:`~paramrob.bounds.graph.curve.Turn`, ``least`` being one of the two neighbouring
    doubles of its place.
    """

    tail: Callable[[Tensor], tuple[Tensor, Tensor]]
    errors: Callable[[Tensor], tuple[Number, Number]]
    last: float
    below: float
    peak: float
    least: float
    value: float


def _silu_tail(x: Tensor) -> tuple[Tensor, Tensor]:
    _, n, density = special.logistic(x)
    return n, density.mul_(x)


def _gelu_tail(x: Tensor) -> tuple[Tensor, Tensor]:
    n, density = special.normal_tail(x)
    return n, density.mul_(x)


def _cubic(x: Tensor) -> Tensor:
    return (x * x).mul_(_CUBIC).add_(1.0).mul_(x).mul_(_SLOPE_SCALE)


def _gelu_tanh_tail(x: Tensor) -> tuple[Tensor, Tensor]:
    _, n, density = special.logistic(_cubic(x))
    steepness = (x * x).mul_(3.0 * _CUBIC).add_(1.0).mul_(_SLOPE_SCALE)
    return n, density.mul_(x).mul_(steepness)


def _gelu_tanh_errors(x: Tensor) -> tuple[Number, Number]:
    moved = _cubic(x).mul_(2.0**-50)
    return moved + special.PRECISE, moved.add_(2.0**-48)


GATES = {
    "silu": Gate(
        _silu_tail,
        lambda x: (special.PRECISE, special.GOOD),
        707.0,
        2.3993572805154675,
        0.5998393201288669,
        1.2784645427610737,
        -0.27846454276107385,
    ),
    "gelu": Gate(
        _gelu_tail,
        lambda x: (special.PRECISE, special.PRECISE),
        special.LARGEST_NORMAL,
        1.414213562373095,
        0.6289041451851548,
        0.7517915246935645,
        -0.16997120747990369,
    ),
    "gelu_tanh": Gate(
        _gelu_tanh_tail,
        _gelu_tanh_errors,
        22.0,
        1.4185040087908283,
        0.6289930686587718,
        0.7524614220710163,
        -0.1700407505712541,
    ),
}


class Gated(Curve):
    """One of the curves of :data:`GATES`."""

    def __init__(self, kind: str) -> None:
        gate = GATES[kind]
        self._gate, self._kind = gate, kind
        self._above = math.nextafter(gate.below, math.inf)
        around = [math.nextafter(-gate.least, end) for end in (-math.inf, math.inf)]
        self.turn = Turn(around[0], around[1], gate.value)
        self.steepness = (0.5 - gate.peak, 0.5 + gate.peak)

    def _point(self, z: Tensor, x: Tensor, n: Tensor, relative: Number) -> Point:
        r = (n * x).neg_()
        return Point(z, (z > 0).to(z.dtype), r, (r * relative).neg_().add_(FAR))

    def at(self, z: Tensor) -> Point:
        """Return ``max(z, 0) - x n(x)``."""
        x = z.abs().clamp_(max=self._gate.last)
        return self._point(z, x, self._gate.tail(x)[0], self._gate.errors(x)[0])

    def tangent(self, t: Tensor) -> Tangent:
        """Return the tangent; its slope is odd about 1/2 in ``t``."""
        x = t.abs().clamp_(max=self._gate.last)
        n, g = self._gate.tail(x)
        on_n, on_g = self._gate.errors(x)
        error = (g * on_g).add_(n * on_n).add_(SLIVER)
        point = self._point(t, x, n, on_n)
        slope = g.sub_(n)
        return Tangent(point, torch.where(t > 0, slope, -slope), error)

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece:
        """Return the middle (``side`` 1) or the tail that may touch inside (-1)."""
        if side > 0:
            c = self._above
            x = _look_up(self._kind, True, _middle_key(self._gate.peak, slope))
            return Piece(lower.clamp(min=-c), upper.clamp(max=c), torch.copysign(x, slope - 0.5))
        c = self._gate.below
        right = slope > 0.5
        excess = torch.where(right, slope - 1.0, -slope)
        x = _look_up(self._kind, False, _tail_key(self._gate.peak, excess))
        # no tangent has this slope, or one so far out that the end serves
        x.masked_fill_(excess < _FLATTEST, math.inf)
        left = torch.where(right, lower.clamp(min=c), lower)
        end = torch.where(right, upper, upper.clamp(max=-c))
        return Piece(left, end, torch.where(right, x, -x))


def _middle_key(peak: float, slope: Tensor) -> Tensor:
    """Near the inflection point ``E'`` is a parabola: its root makes the key nearly linear."""
    return (peak - (slope - 0.5).abs_()).clamp_(min=0.0).sqrt_()


def _tail_key(peak: float, excess: Tensor) -> Tensor:
    """The same near the inflection point, and the root of a logarithm in the far tail."""
    return (excess.clamp(min=_FLATTEST) / (peak - 0.5)).log_().neg_().clamp_(min=0.0).sqrt_()


def _look_up(kind: str, middle: bool, key: Tensor) -> Tensor:
    """Return where ``E'`` has the slope that ``key`` stands for, by cubic interpolation."""
    table, step = _touches(kind, middle, key.device)
    place = key.nan_to_num(nan=0.0).div_(step)
    index = place.floor().clamp_(1.0, _NODES - 3.0)
    p = place.sub_(index)
    at = index.to(torch.int64)
    a, b, c, d = (torch.take(table, at + k) for k in (-1, 0, 1, 2))
    q, o, w = p - 1.0, p + 1.0, p - 2.0
    outer = (d * o).sub_(a * w).mul_(p * q).mul_(1.0 / 6.0)
    inner = (b * q).sub_(c * p).mul_(o * w).mul_(0.5)
    return inner.add_(outer)


@cache
def _touches(kind: str, middle: bool, device: torch.device) -> tuple[Tensor, float]:
    """Tabulate the place against the key; only the tightness of a line depends on it."""
    gate = GATES[kind]
    widest = math.sqrt(gate.peak) if middle else _WIDEST
    keys = torch.linspace(0.0, widest, _NODES, dtype=torch.float64, device="cpu")
    square = keys * keys
    wanted = gate.peak - 0.5 - square if middle else (gate.peak - 0.5) * torch.exp(-square)
    left = torch.full_like(keys, 0.0 if middle else gate.below)
    right = torch.full_like(keys, gate.below if middle else 100.0)
    for _ in range(60):
        x = (left + right) / 2
        n, g = gate.tail(x)
        short = (g - n < wanted) == middle
        left, right = torch.where(short, x, left), torch.where(short, right, x)
    x = (left + right) / 2
    # too flat there to be found by halving
    x[0] = gate.below
    return x.to(device), widest / (_NODES - 1)

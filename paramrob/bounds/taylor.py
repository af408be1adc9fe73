"""Second-order bounds of ``sigmoid(z + e) - sigmoid(z)``, where only the largest ``e`` counts.

``f(z, e)`` rises with ``e``, so at each input the worst ``e`` is the largest, ``E``, and a value of
``E`` below a floor may be taken for the floor. Taylor's polynomial of ``f`` at the middle of a box
in ``(z, E)`` is linear in the two and leaves at most ``(T |E| dz^2 + 2 S dz dE + S dE^2) / 2``,
with ``S`` and ``T`` bounds of the sigmoid's second and third derivative. Both are bounded by its
first derivative where that is small on the whole range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.bounds.rounding import UNIT

INF = float("inf")
SECOND = 0.09622505
"""At least the largest second derivative of the sigmoid, 1/(6 sqrt 3)."""
THIRD = 0.125
"""The largest third derivative of the sigmoid."""


def slope_of_sigmoid(value: Tensor) -> Tensor:
    """Return the derivative from the value."""
    return value * (1 - value)


def largest_slope(lower: Tensor, upper: Tensor) -> Tensor:
    """Return a proved upper bound of the sigmoid's derivative on ``[lower, upper]``."""
    nearest = torch.where((lower <= 0) & (upper >= 0), 0.0, torch.minimum(lower.abs(), upper.abs()))
    value = slope_of_sigmoid(elementary.sigmoid(nearest))
    return (value * (1 + 64 * UNIT) + 64 * UNIT).clamp(max=0.25)


def largest_step(low: Tensor, high: Tensor, gain: Tensor) -> Tensor:
    """Return the largest ``sigmoid(u + gain) - sigmoid(u)`` for ``u`` in ``[low, high]``.

    It rises up to ``u = -gain / 2`` and falls behind.
    """
    u = torch.minimum(torch.maximum(-gain / 2, low), high)
    step = elementary.sigmoid(u + gain) - elementary.sigmoid(u)
    step = step + 64 * UNIT * (1 + u.abs() + gain)
    return torch.nan_to_num(step, nan=1.0).clamp(0.0, 1.0)


def known(bound: Tensor) -> Tensor:
    """Return an upper bound with NaN made no bound."""
    return torch.nan_to_num(bound, nan=INF)


@dataclass(frozen=True)
class Taylor:
    """The tangent of ``sigmoid(z + e) - sigmoid(z)`` at the middle of a box in ``(z, e)``.

    ``z`` lies within ``half`` of ``middle``, the largest ``e`` of each input below ``top``, and one
    below ``floor`` may be taken for the floor.
    """

    middle: Tensor
    half: Tensor
    floor: Tensor
    top: Tensor
    shift: Tensor
    value: Tensor
    gradient: Tensor
    on_p: Tensor
    rest: Tensor

    @classmethod
    def at(cls, middle: Tensor, half: Tensor, floor: Tensor, top: Tensor) -> Taylor:
        """Return the tangent and its largest error ``rest``."""
        shift = (floor + top) / 2
        at = middle + shift
        before, after = elementary.sigmoid(middle), elementary.sigmoid(at)
        on_p = slope_of_sigmoid(after)
        reach = torch.maximum(top - shift, shift - floor) * (1 + 4 * UNIT) + 4 * UNIT * at.abs()
        size = torch.maximum(floor.abs(), top.abs())
        low, high = middle - half, middle + half
        room = 64 * UNIT * (1 + low.abs() + high.abs() + size)
        steep = largest_slope(
            torch.minimum(low, low + floor) - room, high + top.clamp(min=0) + room
        )
        second, third = steep.clamp(max=SECOND), steep.clamp(max=THIRD)
        rest = 0.5 * third * size * half**2 + second * (half * reach + 0.5 * reach**2)
        rest = rest + 256 * UNIT * (1 + middle.abs() + size + half + reach + rest)
        gradient = on_p - slope_of_sigmoid(before)
        return cls(middle, half, floor, top, shift, after - before, gradient, on_p, rest)

    def bound(self, row_top: Tensor, gradient: Tensor, on_p: Tensor) -> Tensor:
        """Return an upper bound of the value.

        Args:
            row_top: at least ``gradient (z - middle) + on_p e`` on the box.
            gradient: of a row that need not be this tangent's.
            on_p: likewise.
        """
        ratio = self.on_p / on_p
        tilt = (self.gradient - ratio * gradient).abs() * self.half
        by_row = ratio * row_top + tilt - self.on_p * self.shift
        at_floor = self.gradient.abs() * self.half + self.on_p * (self.floor - self.shift)
        size = 1 + (ratio * row_top).abs() + self.shift.abs() + self.half + self.floor.abs()
        pad = 256 * UNIT * size * (1 + ratio)
        return self.value + torch.maximum(by_row, at_floor) + self.rest + pad

    @classmethod
    def between(cls, z0: Tensor, z1: Tensor, floor: Tensor, top: Tensor) -> Taylor:
        """Return the tangent for ``z0 <= z <= z1`` and the largest ``e`` up to ``top``."""
        middle = (z0 + z1) / 2
        half = torch.maximum(z1 - middle, middle - z0) * (1 + 4 * UNIT)
        return cls.at(middle, half, floor, top)

    def finish(self, row_top: Tensor) -> Tensor:
        """Return an upper bound of ``f`` in [0, 1].

        Args:
            row_top: at least ``gradient z + on_p E`` on the box.
        """
        centred = row_top - self.gradient * self.middle
        size = 1 + row_top.abs() + (self.gradient * self.middle).abs()
        centred = centred + 8 * UNIT * size
        once = self.bound(centred, self.gradient, self.on_p)
        # The row bounds E as well: expand again where that lies.
        top = (centred + self.gradient.abs() * self.half) / self.on_p
        top = torch.fmin(top + 1e-14 * (1 + top.abs() + size / self.on_p), self.top)
        again = Taylor.at(self.middle, self.half, top - (self.top - self.floor), top)
        twice = again.bound(centred, self.gradient, self.on_p)
        step = largest_step(self.middle - self.half, self.middle + self.half, top.clamp(min=0))
        upper = torch.fmin(torch.fmin(known(once), known(twice)), known(step))
        return upper.clamp(min=0.0, max=1.0)

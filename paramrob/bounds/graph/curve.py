"""What :mod:`paramrob.bounds.graph.lines` needs to know of a curve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

UNIT = 2.0**-53
TINY = 2.0**-1000
"""What underflow in computing a value or a bound stays below, by far."""

Number = Tensor | float


@dataclass(frozen=True)
class Point:
    """``phi(z) = m z + r``, ``r`` up to ``error``; a float stands for a tensor that is constant.

    ``error`` exceeds what is proved by a tenth at least, as room for its own rounding. It is 0
    where ``r`` is exact.
    """

    z: Tensor
    m: Number
    r: Number
    error: Number


@dataclass(frozen=True)
class Tangent:
    """A point and the derivative there, ``m + slope`` with ``slope`` up to ``slope_error``.

    On the other points ``z`` of the piece that was asked for, the curve lies on the piece's side
    of that tangent, up to ``slope_error |z - t|`` (which the derivative's own error shares). The
    point's error is a tensor and positive.
    """

    point: Point
    slope: Tensor
    slope_error: Number


@dataclass(frozen=True)
class Kink:
    """Where two parts meet: ``phi(z) = m z + r`` exactly, all three being constants."""

    z: float
    m: float
    r: float


@dataclass(frozen=True)
class Turn:
    """The one interior minimum: it lies in ``[left, right]`` and its value is at least ``value``.

    Left of it the curve falls, right of it it rises.
    """

    left: float
    right: float
    value: float


@dataclass(frozen=True)
class Piece:
    """The part of ``[lower, upper]`` on which tangents bound, and where one should touch.

    Empty where ``left > right``. ``touch`` need not lie inside.
    """

    left: Tensor
    right: Tensor
    touch: Tensor


class Curve:
    """A curve straight between its kinks, unless a subclass says more.

    Attributes:
        kinks: see :class:`Kink`.
        limits: what the curve tends to at minus and plus infinity.
        steepness: the least and the largest slope of a chord.
        turn: the interior minimum of a curve that is not monotone; without one it never falls.
    """

    kinks: tuple[Kink, ...] = ()
    limits: tuple[float, float] = (0.0, math.inf)
    steepness: tuple[float, float] = (0.0, 1.0)
    turn: Turn | None = None

    def at(self, z: Tensor) -> Point:
        """Return the value at finite ``z``, any shape."""
        raise NotImplementedError

    def piece(self, side: int, lower: Tensor, upper: Tensor, slope: Tensor) -> Piece | None:
        """Return where the curve is convex (``side`` 1) or concave (-1), None if nowhere.

        One piece is enough for ``slope``: on the parts that are left out ``phi(z) - slope z`` is
        extreme at their ends.
        """
        return None

    def tangent(self, t: Tensor) -> Tangent:
        """Return the tangent at ``t`` in a piece."""
        raise NotImplementedError

    def slopes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the slopes of least area below and above, None without a closed form."""
        return None

"""What a network with one hidden layer can reach, in rationals and without any engine.

At one input, boxes of parameters that are each used once propagate as intervals without loss.
Along one input every end of these intervals is piecewise linear, so that suprema over a box lie
at its breakpoints.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Ends = tuple[Fraction, Fraction, Fraction]
"""Least, nominal and largest value."""
Rows = Sequence[Sequence[Fraction]]


def affine(
    weight: Rows, bias: Sequence[Fraction], h: Sequence[Ends], delta: Fraction
) -> list[Ends]:
    """Return the ends of ``W h + b`` with every entry of ``W`` and ``b`` within ``delta``."""
    found = []
    for row, b in zip(weight, bias, strict=True):
        low, middle, high = b - delta, b, b + delta
        for w, (least, nominal, most) in zip(row, h, strict=True):
            corners = [v * t for v in (w - delta, w + delta) for t in (least, most)]
            low, middle, high = low + min(corners), middle + w * nominal, high + max(corners)
        found.append((low, middle, high))
    return found


def monotone(kind: str, z: Fraction, slope: float = 0.0) -> Fraction:
    """Return an activation's value; sigmoid and tanh as their nearest float64, or nearly so."""
    if kind == "relu":
        return max(z, Fraction(0))
    if kind == "leaky_relu":
        return z if z >= 0 else Fraction(slope) * z
    if kind == "identity":
        return z
    value = math.tanh(float(z)) if kind == "tanh" else 1 / (1 + math.exp(-float(z)))
    return Fraction(value)


@dataclass(frozen=True)
class Shallow:
    """``v act(W x + b) + c`` with rational parameters, all within ``delta``."""

    weight: Rows
    bias: Sequence[Fraction]
    v: Rows
    c: Sequence[Fraction]
    delta: Fraction
    kind: str = "relu"
    slope: float = 0.0

    def at(self, x: Sequence[Fraction]) -> list[Ends]:
        """Return the ends of every output at one input."""
        inner = affine(self.weight, self.bias, [(t, t, t) for t in x], self.delta)
        hidden = [tuple(monotone(self.kind, z, self.slope) for z in ends) for ends in inner]
        return affine(self.v, self.c, [(a, b, c) for a, b, c in hidden], self.delta)

    def along(self, low: Fraction, high: Fraction) -> list[tuple[Fraction, Ends]]:
        """Return breakpoints and ends of the first output of a ReLU network of one input."""
        points = {low, high, Fraction(0)}
        for (w,), b in zip(self.weight, self.bias, strict=True):
            for s, sign in itertools.product((-1, 0, 1), (-1, 1)):
                steepness = w + s * sign * self.delta
                if steepness:
                    points.add(-(b + s * self.delta) / steepness)
        return [(x, self.at([x])[0]) for x in sorted(points) if low <= x <= high]


def epsilon(found: Sequence[tuple[Fraction, Ends]]) -> Fraction:
    """Return how far the output moves at most."""
    return max(max(high - nominal, nominal - low) for _, (low, nominal, high) in found)


def sigma(found: Sequence[tuple[Fraction, Ends]], level: Fraction) -> tuple[Fraction, Fraction]:
    """Return how far above and below the level a flipping input's nominal output lies."""
    above = _farthest(found, lambda e: e[1] - level, lambda e: level - e[0], strict=False)
    below = _farthest(found, lambda e: level - e[1], lambda e: e[2] - level, strict=True)
    return above, below


def _farthest(
    found: Sequence[tuple[Fraction, Ends]],
    distance: Callable[[Ends], Fraction],
    reach: Callable[[Ends], Fraction],
    *,
    strict: bool,
) -> Fraction:
    """Return the supremum of ``distance`` where it is positive and ``reach >= 0`` (``> 0``)."""
    best = Fraction(0)
    for (_, left), (_, right) in itertools.pairwise(found):
        a, b = reach(left), reach(right)
        if max(a, b) < 0 or (strict and max(a, b) == 0):
            continue
        ends = [(distance(left), a), (distance(right), b)]
        if min(a, b) < 0:
            t = a / (a - b)
            ends.append((distance(left) + t * (distance(right) - distance(left)), Fraction(0)))
        best = max([best, *(d for d, r in ends if r >= 0)])
    return best

"""Epsilon and sigma of the cats classifier without paramrob, to 1e-12 and proved.

    python case_studies/cats/closed_form.py

A logistic model ``sigmoid(w x + b)`` whose parameters move by at most ``delta`` each has, at the
input ``x``, every logit in ``z0(x) - d(x) .. z0(x) + d(x)`` with ``d(x) = delta (|x1| + |x2| + 1)``
and no other. In this box ``x > 0``, so ``z0`` and ``d`` are both affine.

*Epsilon.* For a fixed ``z0`` the change of confidence grows with ``d``, and ``d`` is largest at an
end of the segment on which ``z0`` is constant: the maximum lies on an edge of the box. Each edge
is a problem in one variable, solved by branch and bound in ball arithmetic (python-flint).

*Sigma.* A label can change where ``|z0| <= d``. The largest ``|z0|`` there, on either side of the
level, is a linear program over a polygon: the best of its corners, found in exact rationals.

Nothing here imports paramrob: it is what the tests compare paramrob with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from flint import arb, fmpq

WEIGHTS = (Fraction(0.07577862), Fraction(1.18118408))
BIAS = Fraction(-3.51518067)
LOWER = (Fraction("6.3"), Fraction("2.0"))
UPPER = (Fraction("20.5"), Fraction("3.9"))
DELTAS = ("0.005", "0.01")
WIDTH = 1e-12

Point = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Supremum:
    """``lower <= value <= upper``, approached at the input ``at`` (Hwt in g, Bwt in kg)."""

    lower: float
    upper: float
    at: tuple[float, float]


def logit(x: Point) -> Fraction:
    """Return the reference logit at ``x``."""
    return WEIGHTS[0] * x[0] + WEIGHTS[1] * x[1] + BIAS


def reach(x: Point, delta: Fraction) -> Fraction:
    """Return how far the logit at ``x`` can move."""
    return delta * (abs(x[0]) + abs(x[1]) + 1)


def epsilon(delta: Fraction) -> Supremum:
    """Return the largest change of the confidence over the box."""
    corners = _corners()
    pieces = [(a, b) for a, b in pairwise([*corners, corners[0]])]
    best, at = max((_change(x, x, delta)[0], x) for x in corners)
    proved = best
    while pieces:
        a, b = pieces.pop()
        low, high = _change(a, b, delta)
        if low > best:
            best, at = low, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        if high <= best + WIDTH:
            proved = max(proved, high)
            continue
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        pieces += [(a, middle), (middle, b)]
    return Supremum(best, proved, (float(at[0]), float(at[1])))


def sigma(delta: Fraction, above: bool) -> Supremum:
    """Return the largest distance from 1/2 at which a label can change, on one side of it."""
    sign = 1 if above else -1
    flippable = [x for x in _vertices(delta) if 0 <= sign * logit(x) <= reach(x, delta)]
    at = max(flippable, key=lambda x: sign * logit(x))
    value = _sigmoid(_ball(sign * logit(at), sign * logit(at))) - arb(1) / 2
    return Supremum(float(value.lower()), float(value.upper()), (float(at[0]), float(at[1])))


def _corners() -> list[Point]:
    (x0, y0), (x1, y1) = LOWER, UPPER
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _vertices(delta: Fraction) -> list[Point]:
    """The corners of the box, and where its edges meet ``z0 = 0``, ``z0 = d`` and ``z0 = -d``."""
    found = corners = _corners()
    for a, b in pairwise([*corners, corners[0]]):
        for times in (-1, 0, 1):
            left = logit(a) - times * reach(a, delta)
            right = logit(b) - times * reach(b, delta)
            if left * right < 0:
                t = left / (left - right)
                found = [*found, (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]))]
    return found


def _change(a: Point, b: Point, delta: Fraction) -> tuple[float, float]:
    """Bound the maximum over the segment: its value at the middle, and an upper bound.

    With ``z`` in a ball around the middle ``m``, ``h(z, d) = sigmoid(z + d) - sigmoid(z)`` is
    enclosed by its mean-value form.
    """
    middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    lows, highs = [], []
    for sign in (1, -1):
        ends = [(sign * logit(x), reach(x, delta)) for x in (a, middle, b)]
        (z0, d0), (zm, dm), (z1, d1) = ends
        centre = _sigmoid(_ball(zm + dm, zm + dm)) - _sigmoid(_ball(zm, zm))
        lows.append(float(centre.lower()))
        # Along the segment, with t in [-1, 1]: z = zm + t dz and d = dm + t dd.
        dz, dd = (z1 - z0) / 2, (d1 - d0) / 2
        slope = _slope(z0 + d0, z1 + d1) * _rational(dz + dd) - _slope(z0, z1) * _rational(dz)
        highs.append(float((centre + slope * arb(0, 1)).upper()))
    return max(lows), max(highs)


def _rational(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))


def _ball(a: Fraction, b: Fraction) -> arb:
    return _rational(min(a, b)).union(_rational(max(a, b)))


def _sigmoid(z: arb) -> arb:
    return 1 / (1 + (-z).exp())


def _slope(a: Fraction, b: Fraction) -> arb:
    value = _sigmoid(_ball(a, b))
    return value * (1 - value)


def expected() -> dict[str, dict[str, dict[str, object]]]:
    """Return every reference value, rounded to twelve places, with its input."""
    table: dict[str, dict[str, dict[str, object]]] = {}
    for text in DELTAS:
        delta = Fraction(text)
        values = {
            "epsilon": epsilon(delta),
            "sigma_above": sigma(delta, above=True),
            "sigma_below": sigma(delta, above=False),
        }
        table[text] = {
            name: {"value": round(v.upper, 12), "at": [round(c, 9) for c in v.at]}
            for name, v in values.items()
        }
    return table


def main() -> None:
    """Print the reference values and write them to ``expected.json``."""
    text = json.dumps(expected(), indent=2)
    (Path(__file__).parent / "expected.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

"""Straight lines that bound a sigmoid or an exponential, with proved rational coefficients.

Tangents bound a convex piece from below and a concave one from above, chords the other way round
(the sigmoid is convex left of 0 and concave right of it). A slope may be any rational near the
right one; the intercept that makes the line a bound is then enclosed by ball arithmetic and
rounded outward. tanh is ``2 sigmoid(2 a) - 1`` and needs no lines of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import flint

from paramrob.replay_numbers import Number, exponential, sigmoid, to_arb, to_fmpq

CurveName = Literal["sigmoid", "exp"]
_PRECISION = 192
_FINEST = 60
"""Cells are no narrower than ``2**-_FINEST``, coefficients no longer than about this."""
_WIDEST = -3
_STEEP = 2.0**-80
_FAR = 600
"""Arguments beyond which nothing is cut: the curve is flat, or too large for short rationals."""


@dataclass(frozen=True)
class Line:
    """``slope * a + intercept``, a bound for ``lower <= a <= upper`` (``None``: no such end)."""

    slope: Fraction
    intercept: Fraction
    lower: Fraction | None = None
    upper: Fraction | None = None

    def at(self, a: Fraction) -> Fraction:
        """Return the line's value."""
        return self.slope * a + self.intercept

    def mirrored(self) -> Line:
        """Return the bound of ``1 - f(-a)`` that follows from this one of ``f(a)``."""
        low = None if self.upper is None else -self.upper
        high = None if self.lower is None else -self.lower
        return Line(self.slope, 1 - self.intercept, low, high)


def ends(curve: CurveName, a: Fraction, bits: int = 100) -> tuple[Fraction, Fraction]:
    """Enclose the curve's value at ``a`` in rationals of about ``bits`` digits."""
    with flint.ctx.workprec(max(_PRECISION, 2 * bits)):
        value = _value(curve, a)
        return _down(value, bits), _up(value, bits)


def cut(curve: CurveName, a: Fraction, t: Fraction) -> Line | None:
    """Return a line that bounds the curve and excludes the point ``(a, t)``.

    It leaves at most half of the distance between the point and the curve. The curve lies below
    the line where the point lies above it, and the other way round.

    Returns:
        The line, or ``None`` where the point is too near the curve to be told apart.
    """
    if abs(a) > _FAR:
        return None
    with flint.ctx.workprec(_PRECISION):
        low, high = ends(curve, a)
        if low <= t <= high:
            return None
        above = t > high
        if curve == "exp":
            if above:
                return _chord(curve, a, (high + t) / 2, above=True)
            return _refined(lambda bits: _exp_tangent(a, bits), a, (low + t) / 2, above=False)
        if not above:
            line = _sigmoid_above(-a, 1 - (low + t) / 2)
            return None if line is None else line.mirrored()
        return _sigmoid_above(a, (high + t) / 2)


def _sigmoid_above(a: Fraction, most: Fraction) -> Line | None:
    if a < 0:
        return _chord("sigmoid", a, most, above=True)
    return _refined(lambda bits: _sigmoid_tangent(a, bits), a, most, above=True)


def _refined(
    line_of: Callable[[int], Line | None], a: Fraction, wanted: Fraction, *, above: bool
) -> Line | None:
    """Return the first line, by growing length of its coefficients, that is near enough at a."""
    for bits in (8, 16, 28, 44, _FINEST):
        line = line_of(bits)
        if line is not None and (line.at(a) <= wanted if above else line.at(a) >= wanted):
            return line
    return None


def _chord(curve: CurveName, a: Fraction, wanted: Fraction, *, above: bool) -> Line | None:
    """Return the chord over the widest dyadic cell around ``a`` that is near enough there."""
    for k in range(_WIDEST, _FINEST):
        width = Fraction(2) ** -k
        p = (a // width) * width
        q = p + width
        if curve == "sigmoid" and q > 0:
            return None
        bits = 2 * k + 20
        left, right = (_up(_value(curve, end), max(bits, 20)) for end in (p, q))
        slope = (right - left) / width
        line = Line(slope, left - slope * p, p, q)
        if line.at(a) <= wanted:
            return line
    return None


def _sigmoid_tangent(a: Fraction, bits: int) -> Line | None:
    """Return the tangent right of 0 whose slope is nearly the sigmoid's at ``a >= 0``.

    For ``0 < m <= 1/4`` the largest ``sigmoid(a) - m a`` over ``a >= 0`` is at the value
    ``v = (1 + r)/2``, ``r = sqrt(1 - 4 m)``, where ``a = log(v/(1-v)) = log((1+r)^2/(4 m))``.
    """
    e = math.exp(-float(a))
    steepness = e / (1 + e) ** 2
    if steepness < _STEEP:
        return None
    m = min(_rounded(Fraction(steepness), bits), Fraction(1, 4))
    slope = to_fmpq(m)
    root = to_arb(1 - 4 * slope).sqrt()
    where = ((1 + root) ** 2 / to_arb(4 * slope)).log()
    intercept = _up((1 + root) / 2 - to_arb(slope) * where, bits + 16)
    line = Line(m, intercept, Fraction(0))
    further = _crossing(line)
    return Line(m, intercept, further)


def _crossing(line: Line) -> Fraction:
    """Return how far left of 0 the tangent stays above the sigmoid.

    There the line less the convex sigmoid is concave, so it is not negative between two points
    where it is not.
    """
    m, b = float(line.slope), float(line.intercept)
    low, high = max(-b / m, -float(_FAR)), 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if m * middle + b >= 1 / (1 + math.exp(min(-middle, 700.0))):
            high = middle
        else:
            low = middle
    guess = Fraction(math.ceil(high * 1024), 1024)
    if guess < 0 and _up(_value("sigmoid", guess), 80) <= line.at(guess):
        return guess
    return Fraction(0)


def _exp_tangent(a: Fraction, bits: int) -> Line | None:
    """Return the tangent of slope ``m``: ``exp(a) >= m a + m - m log m`` everywhere."""
    m = _rounded(Fraction(math.exp(float(a))), bits)
    if m <= 0:
        return None
    slope = to_arb(to_fmpq(m))
    return Line(m, _down(slope - slope * slope.log(), bits + 16))


def _value(curve: CurveName, a: Fraction) -> Number:
    """Enclose the curve; where it is next to nothing only so far that rationals stay short."""
    if a < -_FAR:
        return to_arb(flint.fmpq(0)).union(exponential(to_arb(flint.fmpq(-_FAR))))
    if curve == "sigmoid" and a > _FAR:
        return 1 - to_arb(flint.fmpq(0)).union(exponential(to_arb(flint.fmpq(-_FAR))))
    ball = to_arb(to_fmpq(a))
    return sigmoid(ball) if curve == "sigmoid" else exponential(ball)


def _rounded(value: Fraction, bits: int) -> Fraction:
    """Return the nearest number of so many significant binary digits."""
    if value == 0:
        return value
    step = _step(value, bits)
    return round(value / step) * step


def _step(value: Fraction, bits: int) -> Fraction:
    size = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return Fraction(2) ** (size - bits)


def _up(number: Number, bits: int) -> Fraction:
    """Return a rational above the ball, of about so many significant digits."""
    value = _exact(number.upper())
    if value == 0:
        return value
    step = _step(value, bits)
    return math.ceil(value / step) * step


def _down(number: Number, bits: int) -> Fraction:
    return -_up(-number, bits)


def _exact(point: Number) -> Fraction:
    mantissa, exponent = point.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)

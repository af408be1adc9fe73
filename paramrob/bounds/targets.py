"""What a search maximises: the change of a confidence, or the margin of an input that flips.

A target turns proved ranges of a batch of boxes into rows over the last layer (``prepare``), and
lower bounds of those rows into a proved upper bound of its value on each box (``finish``). Rows
bound *minus* the value, so that a lower bound of a row is an upper bound of the value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.bounds.linear import Analysis, BoundPass, Forms
from paramrob.bounds.rounding import UNIT
from paramrob.verdict import Interval

INF = float("inf")
SECOND = 0.09622505
"""At least max |sigmoid''| = 1/(6 sqrt 3)."""
THIRD = 0.125
"""max |sigmoid'''|."""


@dataclass(frozen=True)
class Rows:
    """Rows over the last layer, ``on_z . z + on_e . e + constant``, each ``(batch, rows, out)``.

    ``constraint`` is one more row ``(on_z, on_e, constant)``, ``(batch, out)`` and ``(batch,)``,
    that is not positive at any input and parameter that counts; any multiple of it may be
    added to the others. ``finish`` maps the rows' lower bounds ``(batch, rows)`` to upper bounds
    of the value ``(batch,)``.
    """

    on_z: Tensor
    on_e: Tensor
    constant: Tensor
    constraint: tuple[Tensor, Tensor, Tensor] | None
    finish: Callable[[Tensor], Tensor]
    looseness: Tensor | None = None


class Target(ABC):
    """One maximisation over a domain and a parameter box."""

    largest: float = INF
    """A value that is never exceeded."""

    @abstractmethod
    def prepare(self, bound_pass: BoundPass, analysis: Analysis) -> Rows:
        """Return the rows whose lower bounds decide the value on each box."""

    @abstractmethod
    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the value in floating point at reference results ``z``, uncertain ``p``.

        Both are ``(batch, out)``; ``-inf`` where the pair does not count.
        """

    @abstractmethod
    def ascent(self, z: Tensor, p: Tensor) -> Tensor:
        """Return a differentiable score ``(batch,)`` whose increase leads to better values."""

    def deviation(self, size: int) -> Tensor:
        """Return the row ``(out,)`` on ``p`` whose increase makes the value larger."""
        raise NotImplementedError


def _last_forms(bound_pass: BoundPass, analysis: Analysis, rows_z: Tensor, rows_e: Tensor) -> Forms:
    """Return forms below rows ``(rows, out)`` over the last layer, then below their negatives."""
    batch = analysis.boxes.lower.shape[0]
    on_z = torch.cat([rows_z, -rows_z]).expand(batch, -1, -1)
    on_e = torch.cat([rows_e, -rows_e]).expand(batch, -1, -1)
    return bound_pass.rows(analysis, on_z, on_e)


def slope_of_sigmoid(value: Tensor) -> Tensor:
    """Return the derivative from the value."""
    return value * (1 - value)


def largest_slope(lower: Tensor, upper: Tensor) -> Tensor:
    """Return a proved upper bound of the sigmoid's derivative on ``[lower, upper]``."""
    nearest = torch.where((lower <= 0) & (upper >= 0), 0.0, torch.minimum(lower.abs(), upper.abs()))
    value = slope_of_sigmoid(elementary.sigmoid(nearest))
    return (value * (1 + 64 * UNIT) + 64 * UNIT).clamp(max=0.25)


class Change(Target):
    """``g(z + e) - g(z)`` for one output and ``sign = 1``, its negative for ``sign = -1``.

    ``g`` is the sigmoid or the identity. Second-order bound for the sigmoid: with ``p = z + e``,
    Taylor's polynomial of ``f(z, e) = sigmoid(z + e) - sigmoid(z)`` at the middle of the ranges is
    linear in the two, is bounded as one row over the same inputs, and leaves at most
    ``(T |e| dz^2 + 2 S dz de + S de^2) / 2`` with ``S``, ``T`` the bounds of the second and third
    derivative; the first derivative, where it is small on the whole range, bounds both. ``f``
    rises with ``e``, so at each input only the largest ``e`` counts, and one below a floor may be
    taken for the floor: ``de`` measures how the largest ``e`` varies over the box, not how far
    the parameters move it.
    """

    def __init__(self, sign: float, sigmoid: bool, output: int = 0) -> None:
        self.sign = sign
        self.sigmoid = sigmoid
        self.output = output
        self.largest = 1.0 if sigmoid else INF

    def deviation(self, size: int) -> Tensor:
        """Return the signed unit row of the output."""
        row = torch.zeros(size, dtype=torch.float64)
        row[self.output] = self.sign
        return row

    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the signed change."""
        z, p = z[:, self.output], p[:, self.output]
        if self.sigmoid:
            return self.sign * (torch.sigmoid(p) - torch.sigmoid(z))
        return self.sign * (p - z)

    def ascent(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the value itself."""
        return self.attained(z, p)

    def prepare(self, bound_pass: BoundPass, analysis: Analysis) -> Rows:
        """Return the tangent row (sigmoid) or the deviation itself (identity)."""
        device = analysis.boxes.lower.device
        row = self.deviation(bound_pass.chain.layers[-1].weight.shape[0]).to(device)
        zero = torch.zeros_like(row)
        batch = analysis.boxes.lower.shape[0]
        if not self.sigmoid:
            on_e = (-row).expand(batch, 1, -1)
            return Rows(torch.zeros_like(on_e), on_e, on_e[:, :, 0] * 0, None, _negated)
        rows_z, rows_e = torch.stack([row, zero]), torch.stack([zero, row])
        forms = _last_forms(bound_pass, analysis, rows_z, rows_e)
        least = forms.least(analysis.boxes)
        z0, z1, e1 = least[:, 0], -least[:, 2], -least[:, 3]
        floor = torch.minimum(-forms.most(analysis.boxes)[:, 3], e1)
        middle = (z0 + z1) / 2
        half = torch.maximum(z1 - middle, middle - z0) * (1 + 4 * UNIT)
        first = _Taylor.at(middle, half, floor, e1)
        gradient, on_p = first.gradient, first.on_p

        def finish(least: Tensor) -> Tensor:
            row_top = -least[:, 0]
            once = first.bound(row_top - gradient * middle, gradient, on_p)
            # The row bounds the largest e as well: expand again where that lies.
            lowest = torch.minimum(gradient * z0, gradient * z1)
            top = (row_top - lowest) / on_p
            top = torch.fmin(top + 1e-14 * (1 + top.abs() + (lowest / on_p).abs()), e1)
            again = _Taylor.at(middle, half, top - (e1 - floor), top)
            twice = again.bound(row_top - gradient * middle, gradient, on_p)
            upper = torch.fmin(_known(once), _known(twice))
            step = _largest_step(middle - half, middle + half, top.clamp(min=0))
            upper = torch.fmin(upper, _known(step))
            return upper.clamp(min=0.0, max=1.0)

        on_z = -gradient[:, None, None] * row
        on_e = -on_p[:, None, None] * row
        return Rows(on_z, on_e, torch.zeros_like(on_e[:, :, 0]), None, finish, first.rest)


def _known(bound: Tensor) -> Tensor:
    return torch.nan_to_num(bound, nan=INF)


@dataclass(frozen=True)
class _Taylor:
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
    def at(cls, middle: Tensor, half: Tensor, floor: Tensor, top: Tensor) -> _Taylor:
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


def _negated(least: Tensor) -> Tensor:
    return -least[:, 0]


class Flip(Target):
    """The reference's margin where the uncertain network crosses the decision boundary.

    Row ``i`` of ``leads`` is a difference that is not negative where the reference decides as it
    does (``(out,)`` coefficients, less ``level``); the margin is the least of them. ``crossing``
    says which of them the uncertain network brings to 0 or below. One output: ``leads`` is the
    signed output; several: the best less every other one.
    """

    def __init__(
        self,
        leads: Tensor,
        crossing: int,
        level: Interval,
        value: Callable[[Tensor], Tensor] | None = None,
        measure: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.leads = leads
        self.crossing = crossing
        self.level = level
        self._value = value or (lambda margin: margin)
        self._measure = measure or (lambda margin: margin)

    def deviation(self, size: int) -> Tensor:
        """Return the row that the uncertain network has to bring down, negated."""
        return -self.leads[self.crossing]

    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the margin where the label flips, else ``-inf``."""
        middle = (self.level.lower + self.level.upper) / 2
        margin = (z @ self.leads.T - middle).min(dim=1).values
        crossed = p @ self.leads[self.crossing] - middle
        return torch.where((margin >= 0) & (crossed <= 0), self._measure(margin), -INF)

    def ascent(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the margin less a penalty for not crossing."""
        middle = (self.level.lower + self.level.upper) / 2
        margin = (z @ self.leads.T - middle).min(dim=1).values
        crossed = p @ self.leads[self.crossing] - middle
        return margin.clamp(max=0) * 4 + margin - 8 * crossed.clamp(min=0)

    def prepare(self, bound_pass: BoundPass, analysis: Analysis) -> Rows:
        """Return every lead, and the deviation of the one that is crossed."""
        boxes = analysis.boxes
        batch, device = boxes.lower.shape[0], boxes.lower.device
        leads = self.leads.to(device)
        row = leads[self.crossing]
        zero = torch.zeros_like(row)
        on_z = torch.cat([-leads, zero[None]]).expand(batch, -1, -1)
        on_e = torch.cat([torch.zeros_like(leads), row[None]]).expand(batch, -1, -1)
        count = leads.shape[0]
        constant = torch.full((batch, count + 1), self.level.lower, device=device).double()
        constant[:, count] = self.level.lower - self.level.upper
        limit = torch.full((batch,), -self.level.upper, device=device, dtype=torch.float64)
        constraint = (row.expand(batch, -1), row.expand(batch, -1), limit)

        def finish(least: Tensor) -> Tensor:
            return self._value((-least).min(dim=1).values)

        return Rows(on_z, on_e, constant, constraint, finish)


class ClassChange(Target):
    """``softmax(z + e)_c - softmax(z)_c`` for ``sign = 1``, its negative for ``sign = -1``.

    ``softmax_c = sigmoid(u)`` with ``u = z_c - logsumexp(others)``, and by the mean value theorem
    ``u(z + e) - u(z) = e_c - sum_k q_k e_k`` for a ``q`` in the simplex, a softmax of the others
    somewhere between. With ``q`` within ``r`` of a fixed ``q0`` that is one row at ``q0`` plus
    ``sum_k r_k |e_k - t|`` for any ``t``. Where that is loose (wide ``e``), ``u`` at the corner of
    the proved ranges bounds it too.
    """

    largest = 1.0

    def __init__(self, sign: float, output: int) -> None:
        self.sign = sign
        self.output = output

    def deviation(self, size: int) -> Tensor:
        """Return the class against the mean of the others."""
        row = torch.full((size,), -1.0 / (size - 1), dtype=torch.float64)
        row[self.output] = 1.0
        return self.sign * row

    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the signed change of the class probability."""
        change = torch.softmax(p, dim=1) - torch.softmax(z, dim=1)
        return self.sign * change[:, self.output]

    def ascent(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the value itself."""
        return self.attained(z, p)

    def prepare(self, bound_pass: BoundPass, analysis: Analysis) -> Rows:
        """Return the row at the softmax of the middle."""
        device = analysis.boxes.lower.device
        size = bound_pass.chain.layers[-1].weight.shape[0]
        eye = torch.eye(size, dtype=torch.float64, device=device)
        zero = torch.zeros_like(eye)
        rows_z, rows_e = torch.cat([eye, zero, eye]), torch.cat([zero, eye, eye])
        least = _last_forms(bound_pass, analysis, rows_z, rows_e).least(analysis.boxes)
        lower, upper = least.chunk(2, dim=1)
        upper = -upper
        z0, e0, p0 = lower.chunk(3, dim=1)
        z1, e1, p1 = upper.chunk(3, dim=1)
        weights, spread = self._weights(torch.minimum(z0, p0), torch.maximum(z1, p1))
        row = -weights
        row[:, self.output] = 1.0
        centre = ((e0 + e1) / 2 * weights).sum(1, keepdim=True)
        away = torch.maximum((e1 - centre).abs(), (e0 - centre).abs())
        away[:, self.output] = 0.0
        # The row's weights may miss a sum of 1 by rounding; what is missing multiplies e.
        sized = torch.maximum(e0.abs(), e1.abs()).sum(1)
        rest = (spread * away).sum(1) * (1 + 1e-12) + 1e-13 * sized
        first0, first1 = self._odds(z0, z1)
        last0, last1 = self._odds(p0, p1)
        corner = last1 - first0 if self.sign > 0 else first1 - last0

        def finish(least: Tensor) -> Tensor:
            gain = torch.fmin(torch.nan_to_num(rest - least[:, 0], nan=INF), corner)
            gain = torch.nan_to_num(gain, nan=INF).clamp(min=0)
            low, high = (first0, first1) if self.sign > 0 else (-first1, -first0)
            return _largest_step(low, high, gain)

        on_e = (-self.sign * row).unsqueeze(1)
        constant = torch.zeros_like(on_e[:, :, 0])
        return Rows(torch.zeros_like(on_e), on_e, constant, None, finish, rest)

    def _weights(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return a softmax of the others between ``low`` and ``high`` and how far any other is."""
        others = torch.ones_like(low)
        others[:, self.output] = 0.0
        shift = ((low + high) / 2).max(dim=1, keepdim=True).values
        least = elementary.exp_bounds((low - shift).clamp(max=300.0))[0] * others
        most = elementary.exp_bounds((high - shift).clamp(max=300.0))[1] * others
        middle = elementary.exp((((low + high) / 2) - shift).clamp(-600.0, 300.0)) * others
        weights = middle / middle.sum(1, keepdim=True)
        smallest = least / (least + (most.sum(1, keepdim=True) - most)) * (1 - 1e-12)
        greatest = most / (most + (least.sum(1, keepdim=True) - least)) * (1 + 1e-12)
        spread = torch.maximum(greatest - weights, weights - smallest).clamp(min=0) + 1e-14
        unknown = torch.isnan(spread) | (high - shift > 300.0) | (low - shift > 300.0)
        return weights, torch.where(unknown, 1.0, spread).clamp(max=1.0) * others

    def _odds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return ends of ``z_c - logsumexp(others)`` from ends of every logit."""
        others = [k for k in range(low.shape[1]) if k != self.output]
        own0, own1 = low[:, self.output : self.output + 1], high[:, self.output : self.output + 1]
        room = 8 * UNIT * (low.abs() + high.abs()).sum(1, keepdim=True)
        most = elementary.exp_bounds(high[:, others] - own0 + room)[1].sum(1)
        least = elementary.exp_bounds(low[:, others] - own1 - room)[0].sum(1)
        return -_log_above(most * (1 + 1e-12)), _log_above(1 / (least * (1 - 1e-12)))


def _log_above(x: Tensor) -> Tensor:
    """Return a number whose exponential is proved to be at least ``x``; infinite if none is."""
    guess = torch.log(x)
    guess = guess + 1e-12 * (1 + guess.abs())
    return torch.where(elementary.exp_bounds(guess)[0] >= x, guess, INF)


def _largest_step(low: Tensor, high: Tensor, gain: Tensor) -> Tensor:
    """Return the largest ``sigmoid(u + gain) - sigmoid(u)`` for ``u`` in ``[low, high]``.

    It rises up to ``u = -gain / 2`` and falls behind.
    """
    u = torch.minimum(torch.maximum(-gain / 2, low), high)
    step = elementary.sigmoid(u + gain) - elementary.sigmoid(u)
    step = step + 64 * UNIT * (1 + u.abs() + gain)
    return torch.nan_to_num(step, nan=1.0).clamp(0.0, 1.0)

"""How far the probability of one class of several can move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.bounds.ascent import activate, push, run
from paramrob.bounds.chain import Chain
from paramrob.bounds.linear import Analysis, BoundPass, Boxes
from paramrob.bounds.relaxations import SMOOTH
from paramrob.bounds.rounding import UNIT
from paramrob.bounds.targets import Rows, Target, last_forms
from paramrob.bounds.taylor import INF, Taylor, known, largest_step
from paramrob.models.network import Activation


@dataclass(frozen=True)
class _Logits:
    """Proved ends of every logit, ``(batch, out)``: reference, deviation, uncertain network."""

    z0: Tensor
    z1: Tensor
    e0: Tensor
    e1: Tensor
    p0: Tensor
    p1: Tensor


@dataclass(frozen=True)
class _Tangent:
    """``w(y) <= constant + row . y + above`` and ``w(y) >= constant + row . y - below``."""

    row: Tensor
    constant: Tensor
    above: Tensor
    below: Tensor


class ClassChange(Target):
    """``softmax(z + e)_c - softmax(z)_c`` for ``sign = 1``, its negative for ``sign = -1``.

    ``softmax_c = sigmoid(u)`` with ``u = y_c - logsumexp(others)``, concave in the logits ``y``.
    With ``w = sign u`` the value is ``sigmoid(w(p)) - sigmoid(w(z))``: the case of one output, with
    ``Z = w(z)`` and ``E = w(p) - w(z)``. A tangent of ``w`` bounds it on one side; on the other it
    misses at most ``r^2 / 8``, ``r`` being how much the others' moves differ (the second derivative
    of logsumexp is a variance). So the second-order bound's row is linear in ``z`` and ``p``. Where
    the bend counts against ``p``, the last layer's own parameters do not: their worst is known.
    ``E`` is bounded by the mean value theorem as well, being ``sign (e_c - sum_k q_k e_k)`` for a
    ``q`` in the simplex, a softmax of the others somewhere between, and by the ranges' corners.
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

    def pushed(self, z: Tensor, p: Tensor) -> Tensor:
        """Return ``w(p)``."""
        others = [k for k in range(p.shape[1]) if k != self.output]
        return self.sign * (p[:, self.output] - torch.logsumexp(p[:, others], dim=1))

    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the signed change of the class probability."""
        change = torch.softmax(p, dim=1) - torch.softmax(z, dim=1)
        return self.sign * change[:, self.output]

    def ascent(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the value itself."""
        return self.attained(z, p)

    def prepare(self, bound_pass: BoundPass, analysis: Analysis) -> Rows:
        """Return the second-order bound's row."""
        y = self._logits(bound_pass, analysis)
        middle = (y.z0 + y.z1) / 2
        first0, first1 = self.odds(y.z0, y.z1)
        last0, last1 = self.odds(y.p0, y.p1)
        corner = last1 - first0 if self.sign > 0 else first1 - last0
        still = self._tangent(middle, y.z0, y.z1)
        low, high = (y.p0, y.p1) if self.sign > 0 else self._worst_last(bound_pass, analysis, y)
        moved = self._tangent(self._towards(bound_pass.chain, analysis.boxes, low, high), low, high)
        weights, spread = self._weights(torch.minimum(y.z0, y.p0), torch.maximum(y.z1, y.p1))
        mean = self._row(weights)
        forms = last_forms(
            bound_pass,
            analysis,
            torch.stack([still.row, 0 * mean], 1),
            torch.stack([0 * still.row, mean], 1),
        )
        least = forms.least(analysis.boxes)
        plain0, plain1 = (first0, first1) if self.sign > 0 else (-first1, -first0)
        pad = 64 * UNIT * (1 + least[:, 0].abs() + least[:, 2].abs() + still.constant.abs())
        z0 = torch.fmax(known_low(least[:, 0] + still.constant - still.below - pad), plain0)
        z1 = torch.fmin(known(still.constant + still.above - least[:, 2] + pad), plain1)
        z0 = torch.minimum(z0, z1)
        rest = self._rest(y, weights, spread)
        top = torch.fmin(
            torch.fmin(known(rest - least[:, 3]), known(corner)), 2 * (1 + corner.abs())
        )
        floor = torch.minimum(rest - forms.most(analysis.boxes)[:, 3], top)
        tangent = Taylor.between(z0, z1, floor, top)
        before = (tangent.on_p - tangent.gradient).clamp(min=0)
        # gradient Z + on_p E = on_p w(p) - before w(z); gradient is taken as on_p - before.
        on_p, on_w = tangent.on_p.unsqueeze(1), before.unsqueeze(1)
        shift = tangent.on_p * (moved.constant + moved.above) - before * (
            still.constant - still.below
        )
        slack = 64 * UNIT * (1 + moved.constant.abs() + still.constant.abs() + z0.abs() + z1.abs())

        def finish(least: Tensor) -> Tensor:
            upper = tangent.finish(shift - least[:, 0] + slack)
            step = largest_step(z0, z1, top.clamp(min=0))
            return torch.fmin(known(upper), known(step)).clamp(0.0, 1.0)

        on_e = -(on_p * moved.row)
        on_z = on_e + on_w * still.row
        by_inputs = torch.minimum(moved.above, 2 * (still.above + still.below))
        looseness = tangent.rest + tangent.on_p * by_inputs + before * still.below
        return Rows(
            on_z.unsqueeze(1),
            on_e.unsqueeze(1),
            torch.zeros_like(on_e[:, :1]),
            None,
            finish,
            looseness,
            tangent.on_p * (moved.above - by_inputs),
        )

    def _worst_last(
        self, bound_pass: BoundPass, analysis: Analysis, y: _Logits
    ) -> tuple[Tensor, Tensor]:
        """Return ranges of the uncertain logits whose last layer's parameters are the worst.

        Rows are independent, so at each ``h`` the class takes its least and the others their
        largest value: both lie twice the slack from the other end, and the slack is at least
        what the least ``|h|`` gives.
        """
        layer = bound_pass.chain.layers[-1]
        if analysis.relaxations:
            r, last = analysis.relaxations[-1].ranges, bound_pass.chain.activations[-1]
            ends = torch.stack([_activated(last, r.pl), _activated(last, r.pu)])
        else:
            ends = torch.stack([analysis.boxes.lower, analysis.boxes.upper])
        least = torch.where(ends[0] * ends[1] > 0, ends.abs().amin(0), 0.0) * (1 - 1e-12)
        least = torch.nan_to_num(least, nan=0.0, posinf=0.0)
        slack = 2 * (least @ layer.weight_radius.T + layer.bias_radius) * (1 - 1e-12)
        low, high = y.p0 + slack, y.p1.clone()
        low[:, self.output] = y.p0[:, self.output]
        high[:, self.output] = (y.p1 - slack)[:, self.output]
        pad = 1e-14 * (y.p0.abs() + y.p1.abs())
        return torch.minimum(low, high) - pad, torch.maximum(low, high) + pad

    def _logits(self, bound_pass: BoundPass, analysis: Analysis) -> _Logits:
        size = bound_pass.chain.layers[-1].weight.shape[0]
        eye = torch.eye(size, dtype=torch.float64, device=analysis.boxes.lower.device)
        zero = torch.zeros_like(eye)
        rows_z, rows_e = torch.cat([eye, zero, eye]), torch.cat([zero, eye, eye])
        least = last_forms(bound_pass, analysis, rows_z, rows_e).least(analysis.boxes)
        lower, upper = least.chunk(2, dim=1)
        (z0, e0, p0), (z1, e1, p1) = lower.chunk(3, dim=1), (-upper).chunk(3, dim=1)
        return _Logits(z0, z1, e0, e1, p0, p1)

    def _towards(self, chain: Chain, boxes: Boxes, low: Tensor, high: Tensor) -> Tensor:
        """Return where the worst logits of the uncertain network probably lie."""
        if self.sign < 0:
            return (low + high) / 2
        x = (boxes.lower + boxes.upper) / 2
        _, theta = push(chain, self, x)
        worst = run(chain, x, theta)[1].detach()
        return torch.where(torch.isfinite(worst), worst, (low + high) / 2)

    def _row(self, weights: Tensor) -> Tensor:
        """Return ``sign (y_c - sum_k q_k y_k)`` as coefficients."""
        row = -weights
        row[:, self.output] = 1.0
        return self.sign * row

    def _tangent(self, at: Tensor, low: Tensor, high: Tensor) -> _Tangent:
        """Return the tangent of ``w`` at ``at``, valid for logits between ``low`` and ``high``."""
        weights, _ = self._weights(at, at)
        row = self._row(weights)
        least, most = self.odds(at, at)
        value = (least + most) / 2 * self.sign
        constant = value - (row * at).sum(1)
        others = torch.ones_like(at, dtype=torch.bool)
        others[:, self.output] = False
        up = torch.where(others, high - at, -INF).amax(1)
        down = torch.where(others, low - at, INF).amin(1)
        bend = (up - down).clamp(min=0) ** 2 / 8
        away = torch.maximum((high - at).abs(), (low - at).abs()).sum(1) + at.abs().sum(1)
        # The row is a gradient up to rounding; what is off meets how far the logits reach.
        pad = (most - least) + _rounding(at.shape[1]) * (1 + away)
        above, below = (pad, bend + pad) if self.sign > 0 else (bend + pad, pad)
        return _Tangent(row, constant, above, below)

    def _rest(self, y: _Logits, weights: Tensor, spread: Tensor) -> Tensor:
        """Return what ``E`` may exceed its row at ``weights`` by."""
        centre = ((y.e0 + y.e1) / 2 * weights).sum(1, keepdim=True)
        away = torch.maximum((y.e1 - centre).abs(), (y.e0 - centre).abs())
        # The weights may miss a sum of 1 by rounding; what is missing multiplies e.
        sized = torch.maximum(y.e0.abs(), y.e1.abs())
        return (spread * away).sum(1) * (1 + 1e-12) + _rounding(sized.shape[1]) * sized.sum(1)

    def _weights(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return a softmax of the others between ``low`` and ``high`` and how far any other is."""
        others = torch.ones_like(low)
        others[:, self.output] = 0.0
        shift = ((low + high) / 2).max(dim=1, keepdim=True).values
        least = elementary.exp_bounds((low - shift).clamp(max=300.0))[0] * others
        most = elementary.exp_bounds((high - shift).clamp(max=300.0))[1] * others
        middle = elementary.exp((((low + high) / 2) - shift).clamp(-600.0, 300.0)) * others
        weights = middle / middle.sum(1, keepdim=True)
        # Sums without one term, not differences: a large term would leave nothing of the others.
        without = 1.0 - torch.eye(low.shape[1], dtype=low.dtype, device=low.device)
        smallest = least / (least + most @ without) * (1 - 1e-12)
        greatest = most / (most + least @ without) * (1 + 1e-12)
        spread = torch.maximum(greatest - weights, weights - smallest).clamp(min=0) + 1e-14
        unknown = torch.isnan(spread) | (high - shift > 300.0) | (low - shift > 300.0)
        return weights, torch.where(unknown, 1.0, spread).clamp(max=1.0) * others

    def odds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return ends of ``z_c - logsumexp(others)`` from ends of every logit."""
        others = [k for k in range(low.shape[1]) if k != self.output]
        own0, own1 = low[:, self.output : self.output + 1], high[:, self.output : self.output + 1]
        room = 8 * UNIT * (low.abs() + high.abs()).sum(1, keepdim=True)
        most = elementary.exp_bounds(high[:, others] - own0 + room)[1].sum(1)
        least = elementary.exp_bounds(low[:, others] - own1 - room)[0].sum(1)
        return -_log_above(most * (1 + 1e-12)), _log_above(1 / (least * (1 - 1e-12)))


def _rounding(classes: int) -> float:
    """Return how far a softmax over so many classes may be off, relatively."""
    return 1e-13 + 4 * UNIT * classes


def _activated(op: Activation, t: Tensor) -> Tensor:
    """Return the activation with a relative error below 1e-13, which the caller charges."""
    return SMOOTH[op.kind].value(t) if op.kind in SMOOTH else activate(op, t)


def _log_above(x: Tensor) -> Tensor:
    """Return a number whose exponential is proved to be at least ``x``; infinite if none is."""
    guess = torch.log(x)
    guess = guess + 1e-12 * (1 + guess.abs())
    return torch.where(elementary.exp_bounds(guess)[0] >= x, guess, INF)


def known_low(bound: Tensor) -> Tensor:
    """Return a lower bound with NaN made no bound."""
    return torch.nan_to_num(bound, nan=-INF)

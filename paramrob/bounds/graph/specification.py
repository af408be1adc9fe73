"""What a property needs of the results at one point: rows, and what their bounds prove.

The reference is known at a point, so a property speaks of the uncertain network's results alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.bounds.graph.forward import Interval
from paramrob.exact import float_above, float_below
from paramrob.verdict import Interval as Ends

INF = float("inf")


def room(count: int) -> float:
    """Return relative room for the roundings of a finish over ``count`` results."""
    return (count + 32) * 2.0**-51


class Specification(ABC):
    """Rows ``(batch, rows, out)`` over the results, and what their least values say."""

    rows: Tensor

    @abstractmethod
    def slack(self, least: Tensor) -> Tensor:
        """Return how far each instance is proved: ``(batch,)``, proved where at least 0."""

    @abstractmethod
    def aims(self, least: Tensor) -> Tensor:
        """Return what a search should maximise: rows ``(batch, out)``."""

    def objective(self, result: Tensor, aim: Tensor) -> Tensor:
        """Return what a search maximises, from one result ``(out,)`` and one aim."""
        return result @ aim

    @abstractmethod
    def part(self, index: Tensor) -> Specification:
        """Return the specification of some instances."""


@dataclass(frozen=True)
class Lead(Specification):
    """A label stays: every row stays above its threshold.

    Attributes:
        rows: ``(batch, rows, out)``.
        threshold: ``(batch, rows)``.
        strict: whether a row has to be above it, ``(batch, rows)``.
    """

    rows: Tensor
    threshold: Tensor
    strict: Tensor

    def slack(self, least: Tensor) -> Tensor:
        """Return the least lead over a threshold; -inf rather than 0 where equality is no proof."""
        lead = least - self.threshold
        lead = torch.where(torch.isfinite(least), lead, -INF)
        # The subtraction is exact in sign: a difference of two floats is 0 only if they agree.
        return torch.where((lead == 0) & self.strict, -INF, lead).amin(1)

    def aims(self, least: Tensor) -> Tensor:
        """Return the row that is nearest to its threshold, turned round."""
        worst = (least - self.threshold).argmin(1)
        return -self.rows[torch.arange(len(worst), device=worst.device), worst]

    def part(self, index: Tensor) -> Lead:
        """Return the specification of some instances."""
        return Lead(self.rows[index], self.threshold[index], self.strict[index])


@dataclass(frozen=True)
class Tangents:
    """First-order rows of the shares of a softmax, and what is known of the reference.

    Along a change ``v`` of the logits whose differences are at most ``D`` in magnitude,
    ``p_i`` moves by ``sum_j p_i p_j (v_i - v_j) + h / 2`` with
    ``-p_i D^2 / 4 <= h <= p_i D^2`` at some point on the way: the second derivative along ``v`` is
    ``p_i ((v_i - m)^2 - var)`` with the mean and the variance of ``v`` under the shares.

    Attributes:
        weights: ``(batch, out, out)``, nearly ``p_i p_j``: multiples of ``GRID``, so that the
            coefficients of the rows are exact sums of them.
        low, high: the reference's differences of logits for all ordered pairs, ``(batch, pairs)``.
    """

    weights: Tensor
    low: Tensor
    high: Tensor

    def rows(self) -> Tensor:
        """Return one row a class, ``(batch, out, out)``."""
        return torch.diag_embed(self.weights.sum(2)) - self.weights

    def part(self, index: Tensor) -> Tangents:
        """Return those of some instances."""
        return Tangents(self.weights[index], self.low[index], self.high[index])


GRID = 2.0**-40
"""Sums of up to 4096 multiples below 1 are exact in float64."""


@dataclass(frozen=True)
class Stay(Specification):
    """Confidences stay within ``epsilon`` of the reference's.

    Attributes:
        rows: ``(batch, rows, out)``: ``plus`` and ``minus`` every result, or the difference of
            every ordered pair of logits, then ``plus`` and ``minus`` the tangents' rows.
        link: ``identity``, ``sigmoid`` or ``softmax``.
        low, high: the reference's confidences, enclosed, ``(batch, out)``.
        epsilon: what is asked; infinite for an estimate.
        tangents: of a softmax over three classes or more.
        error: what the confidences of given results may be off by.
    """

    rows: Tensor
    link: str
    low: Tensor
    high: Tensor
    epsilon: float
    tangents: Tangents | None = None
    error: float = 0.0

    def largest(self, least: Tensor) -> Tensor:
        """Return a proved upper bound of the change, ``(batch,)``; infinite where there is none."""
        rise, fall = self._changes(least)
        change = torch.maximum(rise, fall).amax(1)
        change = torch.where(torch.isnan(change), INF, change.clamp(min=0))
        return (change + self.error) * (1 + room(1)) + 1e-300

    def smallest(self, least: Tensor) -> Tensor:
        """Return a proved lower bound of the change, ``(batch,)``: all results change that much."""
        least = torch.where(torch.isnan(least), -INF, least)
        bottom, top = self._confidences(least)
        change = torch.maximum(bottom - self.high, self.low - top).amax(1)
        change = torch.where(torch.isnan(change), 0.0, change)
        return ((change - self.error) * (1 - room(1)) - 1e-300).clamp(min=0)

    def _confidences(self, least: Tensor) -> tuple[Tensor, Tensor]:
        """Enclose each confidence, ``(batch, out)``."""
        count = self.low.shape[1]
        if self.link == "softmax":
            return shares(least[:, : count * (count - 1)], count)
        bottom, top = least[:, :count], -least[:, count:]
        if self.link == "sigmoid":
            bottom = elementary.sigmoid_bounds(bottom)[0]
            top = elementary.sigmoid_bounds(top)[1]
        return bottom, top

    def _changes(self, least: Tensor) -> tuple[Tensor, Tensor]:
        """Bound how far each confidence rises and falls, ``(batch, out)``."""
        least = torch.where(torch.isnan(least), -INF, least)
        bottom, top = self._confidences(least)
        rise, fall = top - self.low, self.high - bottom
        if self.tangents is not None:
            split = self.tangents.low.shape[1]
            up, down = self._along(self.tangents, least[:, :split], least[:, split:], top)
            rise, fall = torch.fmin(rise, up), torch.fmin(fall, down)
        return rise, fall

    def _along(
        self, tangents: Tangents, pairs: Tensor, rows: Tensor, top: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bound rise and fall of each share to first order, and what is left to second."""
        count = self.low.shape[1]
        weights = tangents.weights
        loss = room(count)
        # Between the reference's logits and the others' no share exceeds this.
        most = torch.maximum(shares(torch.minimum(pairs, tangents.low), count)[1], top)
        span = (tangents.high - pairs).amax(1, keepdim=True).clamp(min=0) * (1 + loss)
        low, high = self.low.unsqueeze(2), self.high.unsqueeze(2)
        ends = (low * low.transpose(1, 2) - weights, high * high.transpose(1, 2) - weights)
        off = torch.maximum(ends[0].abs(), ends[1].abs()) + loss * weights.abs() + 1e-300
        off = (off.sum(2) - torch.diagonal(off, dim1=1, dim2=2)) * (1 + loss) * span
        flat = weights[:, ~torch.eye(count, dtype=torch.bool, device=weights.device)]
        size = torch.maximum(tangents.low.abs(), tangents.high.abs())

        def total(values: Tensor) -> Tensor:
            return (flat * values).reshape(-1, count, count - 1).sum(2)

        spent = loss * total(size) + 1e-300
        start, end = total(tangents.low) - spent, total(tangents.high) + spent
        rise, fall = -rows[:, count:] - start, end - rows[:, :count]
        grown = loss * (rise.abs() + fall.abs() + spent)
        bend = 0.5 * most * span * span * (1 + loss)
        return rise + grown + off + bend, fall + grown + off + 0.25 * bend

    def slack(self, least: Tensor) -> Tensor:
        """Return how far the change stays below epsilon."""
        change = self.largest(least)
        return torch.where(change <= self.epsilon, (self.epsilon - change).clamp(min=0), -INF)

    def aims(self, least: Tensor) -> Tensor:
        """Return the confidence that may move farthest, signed: ``(batch, out)``."""
        rise, fall = self._changes(least)
        both = torch.cat([rise, fall], 1).nan_to_num(nan=INF)
        count = self.low.shape[1]
        worst = both.argmax(1)
        sign = torch.where(worst < count, 1.0, -1.0).to(least.dtype)
        aims = torch.zeros_like(self.low)
        return aims.scatter(1, (worst % count).unsqueeze(1), sign.unsqueeze(1))

    def objective(self, result: Tensor, aim: Tensor) -> Tensor:
        """Return the confidence that is aimed at."""
        if self.link == "softmax":
            return torch.softmax(result, -1) @ aim
        return (torch.sigmoid(result) if self.link == "sigmoid" else result) @ aim

    def part(self, index: Tensor) -> Stay:
        """Return the specification of some instances."""
        tangents = None if self.tangents is None else self.tangents.part(index)
        low, high = self.low[index], self.high[index]
        return replace(self, rows=self.rows[index], low=low, high=high, tangents=tangents)


def shares(least: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Enclose each class's share from least values of all differences of logits.

    Args:
        least: of ``z_i - z_j`` for all ordered pairs, row-major, ``(batch, pairs)``.
        count: of classes.
    """
    batch = least.shape[0]
    lead = least.reshape(batch, count, count - 1)
    # lead[:, i] bounds z_i - z_j from below for all j; its mirror bounds z_j - z_i from below.
    loss = room(count)
    down = 1 / ((1 + elementary.exp_bounds(-lead)[1].sum(2)) * (1 + loss))
    full = least.new_zeros(batch, count, count)
    off = ~torch.eye(count, dtype=torch.bool, device=least.device)
    full[:, off] = least
    behind = full.transpose(1, 2)[:, off].reshape(batch, count, count - 1)
    up = 1 / ((1 + elementary.exp_bounds(behind)[0].sum(2)) * (1 - loss))
    return down * (1 - loss), up * (1 + loss)


def lead_of(labels: Tensor, outputs: int, lead: float = 0.0) -> Lead:
    """Return the specification that classes ``labels`` ``(batch,)`` stay the best ones.

    Ties go to the lowest index: a class has to be strictly above those before it. ``lead`` is by
    how much it has to be above any other.
    """
    batch = labels.shape[0]
    every = [[j for j in range(outputs) if j != c] for c in range(outputs)]
    others = torch.tensor(every, dtype=torch.long, device=labels.device)[labels]
    rows = torch.zeros(batch, outputs - 1, outputs, dtype=torch.float64, device=labels.device)
    rows.scatter_(2, others.unsqueeze(2), -1.0)
    rows[torch.arange(batch, device=labels.device), :, labels] = 1.0
    threshold = rows.new_full((batch, outputs - 1), lead)
    return Lead(rows, threshold, others < labels.unsqueeze(1))


def side_of(labels: Tensor, level: Ends) -> Lead:
    """Return the specification that single results stay on their side of a level.

    Args:
        labels: ``(batch,)``, 1 where the result is above.
        level: enclosed; a result at the level is class 0.
    """
    above = labels.to(torch.float64).reshape(-1, 1)
    rows = (2 * above - 1).unsqueeze(2)
    upper, lower = rows.new_tensor(level.upper), rows.new_tensor(-level.lower)
    threshold = torch.where(above > 0, upper, lower)
    return Lead(rows, threshold, above > 0)


def stay_of(reference: Interval, link: str, epsilon: Fraction | None, error: float = 0.0) -> Stay:
    """Return the specification that confidences stay.

    Args:
        reference: the reference's results, enclosed, ``(batch, out)``.
        link: what turns results into confidences.
        epsilon: what is asked, or ``None``.
        error: what a confidence may be off by for given results.
    """
    batch, count = reference.low.shape
    eye = torch.eye(count, dtype=torch.float64, device=reference.low.device)
    asked = INF if epsilon is None else float_below(epsilon)
    if link == "softmax":
        return replace(_softmax_stay(reference, asked), error=error)
    rows, low, high = torch.cat([eye, -eye]), reference.low, reference.high
    if link == "sigmoid":
        low, high = elementary.sigmoid_bounds(low)[0], elementary.sigmoid_bounds(high)[1]
    return Stay(rows.expand(batch, -1, -1), link, low, high, asked, error=error)


def _softmax_stay(reference: Interval, asked: float) -> Stay:
    batch, count = reference.low.shape
    eye = torch.eye(count, dtype=torch.float64, device=reference.low.device)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    first, second = (list(side) for side in zip(*pairs, strict=True))
    rows = (eye[first] - eye[second]).expand(batch, -1, -1)

    def lowest(low: Tensor, high: Tensor) -> Tensor:
        difference = low[:, first] - high[:, second]
        return difference - room(1) * difference.abs() - 1e-300

    least, most = lowest(reference.low, reference.high), -lowest(-reference.high, -reference.low)
    low, high = shares(least, count)
    if count == 2:  # one difference says all
        return Stay(rows, "softmax", low, high, asked)
    middle = (low + high) / 2
    weights = torch.floor(middle.unsqueeze(2) * middle.unsqueeze(1) / GRID) * GRID
    weights = weights * (1 - eye)
    tangents = Tangents(weights, least, most)
    along = tangents.rows()
    return Stay(torch.cat([rows, along, -along], 1), "softmax", low, high, asked, tangents)


def level_of(level: Fraction, link: str, error: float = 0.0) -> Ends:
    """Enclose the result at which a single output's label changes.

    Args:
        level: of the confidence.
        link: what turns the result into it.
        error: what the confidence may be off by for a given result.
    """
    from paramrob.replay import level_logit

    if link != "sigmoid":
        return Ends(float_below(level), float_above(level))
    if not error:
        return level_logit(level)
    below, above = level - Fraction(error), level + Fraction(error)
    lower = level_logit(below).lower if below > 0 else -INF
    return Ends(lower, level_logit(above).upper if above < 1 else INF)

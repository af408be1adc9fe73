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
class Stay(Specification):
    """Confidences stay within ``epsilon`` of the reference's.

    Attributes:
        rows: ``(batch, rows, out)``: ``plus`` and ``minus`` every result, or the difference of
            every ordered pair of logits.
        link: ``identity``, ``sigmoid`` or ``softmax``.
        low, high: the reference's confidences, enclosed, ``(batch, out)``.
        epsilon: what is asked; infinite for an estimate.
        error: what the confidences of given results may be off by.
    """

    rows: Tensor
    link: str
    low: Tensor
    high: Tensor
    epsilon: float
    error: float = 0.0

    def largest(self, least: Tensor) -> Tensor:
        """Return a proved upper bound of the change, ``(batch,)``; infinite where there is none."""
        bottom, top = self._confidences(least)
        change = torch.maximum(top - self.low, self.high - bottom).amax(1)
        change = torch.where(torch.isnan(change), INF, change.clamp(min=0))
        return (change + self.error) * (1 + room(1)) + 1e-300

    def smallest(self, least: Tensor) -> Tensor:
        """Return a proved lower bound of the change, ``(batch,)``: all results change that much."""
        bottom, top = self._confidences(least)
        change = torch.maximum(bottom - self.high, self.low - top).amax(1)
        change = torch.where(torch.isnan(change), 0.0, change)
        return ((change - self.error) * (1 - room(1)) - 1e-300).clamp(min=0)

    def _confidences(self, least: Tensor) -> tuple[Tensor, Tensor]:
        """Enclose each confidence, ``(batch, out)``."""
        least = torch.where(torch.isnan(least), -INF, least)
        if self.link == "softmax":
            return self._shares(least)
        count = self.low.shape[1]
        bottom, top = least[:, :count], -least[:, count:]
        if self.link == "sigmoid":
            bottom = elementary.sigmoid_bounds(bottom)[0]
            top = elementary.sigmoid_bounds(top)[1]
        return bottom, top

    def _shares(self, least: Tensor) -> tuple[Tensor, Tensor]:
        """Enclose each class's share from bounds of all differences of logits."""
        batch, count = self.low.shape
        lead = least.reshape(batch, count, count - 1)
        # lead[:, i] bounds z_i - z_j from below for all j; its mirror bounds z_j - z_i from above.
        loss = room(count)
        down = 1 / ((1 + elementary.exp_bounds(-lead)[1].sum(2)) * (1 + loss))
        full = least.new_zeros(batch, count, count)
        off = ~torch.eye(count, dtype=torch.bool, device=least.device)
        full[:, off] = least
        behind = full.transpose(1, 2)[:, off].reshape(batch, count, count - 1)
        up = 1 / ((1 + elementary.exp_bounds(behind)[0].sum(2)) * (1 - loss))
        return down * (1 - loss), up * (1 + loss)

    def slack(self, least: Tensor) -> Tensor:
        """Return how far the change stays below epsilon."""
        change = self.largest(least)
        return torch.where(change <= self.epsilon, (self.epsilon - change).clamp(min=0), -INF)

    def aims(self, least: Tensor) -> Tensor:
        """Return the row whose bound lies farthest from the reference's results."""
        middle = (self.low + self.high) / 2
        if self.link == "softmax":
            middle = middle.clamp(min=1e-300).log()
        elif self.link == "sigmoid":
            middle = torch.logit(middle.clamp(1e-300, 1 - 1e-16))
        at = (self.rows @ middle.unsqueeze(-1)).squeeze(-1)
        worst = (at - least).nan_to_num(posinf=1e300).argmax(1)
        return -self.rows[torch.arange(len(worst), device=worst.device), worst]

    def part(self, index: Tensor) -> Stay:
        """Return the specification of some instances."""
        return replace(self, rows=self.rows[index], low=self.low[index], high=self.high[index])


def lead_of(labels: Tensor, outputs: int, lead: float = 0.0) -> Lead:
    """Return the specification that classes ``labels`` ``(batch,)`` stay the best ones.

    Ties go to the lowest index: a class has to be strictly above those before it. ``lead`` is by
    how much it has to be above any other.
    """
    batch = labels.shape[0]
    others = torch.stack([torch.cat([torch.arange(c), torch.arange(c + 1, outputs)])
                          for c in range(outputs)])[labels.cpu()].to(labels.device)  # fmt: skip
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
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        rows = torch.stack([eye[i] - eye[j] for i, j in pairs])
        differences = torch.stack([reference.low[:, i] - reference.high[:, j] for i, j in pairs], 1)
        differences = differences - room(1) * differences.abs() - 1e-300
        shares = Stay(rows, link, reference.low, reference.high, asked)
        low, high = shares._shares(differences)
    else:
        rows, low, high = torch.cat([eye, -eye]), reference.low, reference.high
        if link == "sigmoid":
            low, high = elementary.sigmoid_bounds(low)[0], elementary.sigmoid_bounds(high)[1]
    return Stay(rows.expand(batch, -1, -1), link, low, high, asked, error)


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

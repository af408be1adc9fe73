r"""What bounds on two networks' results say of confidence and labels, box by box.

With ``z`` the reference's results, ``p`` the uncertain network's and ``d = p - z``:

- One output behind a sigmoid: ``sigmoid(t + d) - sigmoid(t)`` grows with ``d``, and for ``d > 0``
  it falls with the distance of ``t`` from ``-d/2``.
- Several behind a softmax: ``softmax_c = sigmoid(t)`` with ``t = -log sum_j exp(-(z_c - z_j))``. A
  log-sum-exp moves by no more than the most that one of its terms does, so that ``t`` moves
  within the least and the largest ``d_c - d_j``.
- A label flips from ``c`` to ``j`` only where ``z_c`` leads all others, or draws level, and ``p_j``
  does; with ``a = z_c - z_j`` and ``e = d_c - d_j`` then ``0 <= a <= -e``, which bounds the margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.layers import Link
from paramrob.verdict import Interval

INF = float("inf")
MOST_CLASSES = 32
_ROOM = 2.0**-46


@dataclass(frozen=True)
class Limits:
    """Proved largest values over each box of a batch; all ``(batch,)``.

    Attributes:
        epsilon: of a change of the confidence.
        sigma: of the margin at which a label can flip, by name of the bracket; ``-inf`` where
            none can.
        worst: the row that epsilon comes from.
    """

    epsilon: Tensor
    sigma: dict[str, Tensor]
    worst: Tensor


@dataclass(frozen=True)
class Question:
    """What the results mean, and the rows over ``(z, p)`` that have to be bounded.

    Attributes:
        link: of results to confidences.
        size: how many results each network has.
        level: of one result before the link, enclosed; ``None`` without labels.
        rows: ``(rows, 2 size)``.
    """

    link: Link
    size: int
    level: Interval | None
    rows: Tensor

    @classmethod
    def of(cls, link: Link, size: int, level: Interval | None, device: str = "cpu") -> Question:
        """Return the question with its rows."""
        eye = torch.eye(size, dtype=torch.float64, device=device)
        if size > 1 and link == "softmax":
            c, j = _pairs(size)
            lead = eye[c] - eye[j]
        else:
            lead = torch.cat([eye, -eye])
        none = torch.zeros_like(lead)
        parts = [(-lead, lead), (lead, none), (none, lead)]
        return cls(link, size, level, torch.cat([torch.cat(part, 1) for part in parts]))

    def limits(self, least: Tensor) -> Limits:
        """Return the limits.

        Args:
            least: proved least values of the rows, ``(batch, rows)``; NaN is no bound.
        """
        least = torch.where(torch.isnan(least), -INF, least)
        d, z, p = least.chunk(3, 1)
        if self.size > 1 and self.link == "softmax":
            return self._classes(d, z, p)
        half = self.size
        down, up = d[:, :half], -d[:, half:]
        z0, z1, p0, p1 = z[:, :half], -z[:, half:], p[:, :half], -p[:, half:]
        if self.link == "sigmoid":
            rising, falling = squashed(z0, z1, up), squashed(-z1, -z0, -down)
        else:
            rising, falling = up.clamp(min=0), (-down).clamp(min=0)
        epsilon, worst = torch.cat([falling, rising], 1).max(1)
        return Limits(epsilon, self._sides(z0, z1, p0, p1, down, up), worst)

    def _sides(
        self, z0: Tensor, z1: Tensor, p0: Tensor, p1: Tensor, down: Tensor, up: Tensor
    ) -> dict[str, Tensor]:
        if self.size > 1 or self.level is None:
            return {}
        low, high = self.level.lower, self.level.upper
        top = torch.minimum(z1, above(high - down)).squeeze(1)
        bottom = torch.maximum(z0, -above(up - low)).squeeze(1)
        can_fall = (top > low) & (p0.squeeze(1) <= high)
        can_rise = (bottom <= high) & (p1.squeeze(1) > low)
        if self.link == "sigmoid":
            level = torch.tensor([low, high], dtype=top.dtype, device=top.device)
            middle = elementary.sigmoid_bounds(level)
            over = elementary.sigmoid_bounds(top)[1] - middle[0][0]
            under = middle[1][1] - elementary.sigmoid_bounds(bottom)[0]
        else:
            over, under = top - low, high - bottom
        return {
            "sigma_above": torch.where(can_fall, above(over), -INF),
            "sigma_below": torch.where(can_rise, above(under), -INF),
        }

    def _classes(self, d: Tensor, z: Tensor, p: Tensor) -> Limits:
        """``d``, ``z`` and ``p`` hold least leads of every class over every other."""
        size, batch = self.size, d.shape[0]
        c, j = _pairs(size)

        def table(least: Tensor, other: float) -> Tensor:
            found = least.new_full((batch, size, size), other)
            found[:, c, j] = least
            return found

        moved = table(d, INF).amin(2)
        grown = (-table(d, INF).transpose(1, 2)).amax(2)
        t0, t1 = logit_ends(table(z, INF), -table(z, INF).transpose(1, 2))
        rising, falling = squashed(t0, t1, grown), squashed(-t1, -t0, -moved)
        epsilon, worst = torch.cat([falling, rising], 1).max(1)
        lead, left = table(z, 0.0), table(p, 0.0)
        first = (-lead.transpose(1, 2) >= 0).all(2)
        second = (-left.transpose(1, 2) >= 0).all(2)
        possible = first.unsqueeze(2) & second.unsqueeze(1) & ~_diagonal(lead)
        possible &= (left <= 0) & (-lead.transpose(1, 2) >= 0)
        margin = torch.minimum(-lead.transpose(1, 2), -table(d, 0.0))
        sigma = torch.where(possible, above(margin.clamp(min=0)), -INF).flatten(1).amax(1)
        return Limits(epsilon, {"sigma": sigma}, worst)


def _pairs(size: int) -> tuple[Tensor, Tensor]:
    pairs = [(c, j) for c in range(size) for j in range(size) if c != j]
    c, j = torch.tensor(pairs, device="cpu").T
    return c, j


def _diagonal(like: Tensor) -> Tensor:
    """Return the mask of the diagonal of ``(..., classes, classes)``."""
    return torch.eye(like.shape[-1], dtype=torch.bool, device=like.device)


def above(x: Tensor) -> Tensor:
    """Return the next number, for a sum that was rounded once; bounds that are none stay so."""
    return torch.nextafter(x, torch.full_like(x, INF))


def squashed(low: Tensor, high: Tensor, most: Tensor) -> Tensor:
    """Bound ``sigmoid(t + d) - sigmoid(t)`` for ``low <= t <= high`` and ``d <= most``."""
    up = most.clamp(min=0)
    at = torch.minimum(torch.maximum(-up / 2, low), high)
    moved = above(at + up)
    change = elementary.sigmoid_bounds(moved)[1] - elementary.sigmoid_bounds(at)[0]
    change = change * (1 + _ROOM) + _ROOM * _ROOM
    # where an end is not known, a confidence cannot move by more than 1
    return torch.where(torch.isfinite(at) & torch.isfinite(moved), change.clamp(0, 1), 1.0)


def logit_ends(least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Bound ``t = -log sum_j exp(-a_cj)`` for each class ``c``.

    Args:
        least: of ``a_cj``, ``(batch, classes, classes)``; the diagonal does not matter.
        most: largest values.

    A logarithm is torch's own, and counts only where the rigorous exponential confirms it; else
    ``min a - log(classes - 1) <= t <= min a`` does.
    """
    size = least.shape[-1]
    mask = _diagonal(least)
    rough = math.log(size - 1) * (1 + 1e-12) + 1e-300 if size > 2 else 0.0
    lowest = least.masked_fill(mask, INF).amin(2)
    highest = most.masked_fill(mask, INF).amin(2)
    low = -above(rough - lowest)
    total = elementary.exp_bounds(-least)[1].masked_fill(mask, 0.0).sum(2) * (1 + size * _ROOM)
    guess = -torch.log(total) - 1e-9
    confirmed = elementary.exp_bounds(-guess)[0] >= total
    return torch.where(confirmed & (guess > low), guess, low), highest

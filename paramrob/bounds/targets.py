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

from paramrob.bounds.linear import Analysis, BoundPass, Forms
from paramrob.bounds.taylor import Taylor
from paramrob.verdict import Interval

INF = float("inf")


@dataclass(frozen=True)
class Rows:
    """Rows over the last layer, ``on_z . z + on_e . e + constant``, each ``(batch, rows, out)``.

    ``constraint`` is one more row ``(on_z, on_e, constant)``, ``(batch, out)`` and ``(batch,)``,
    that is not positive at any input and parameter that counts; any multiple of it may be
    added to the others. ``finish`` maps the rows' lower bounds ``(batch, rows)`` to upper bounds
    of the value ``(batch,)``. ``looseness`` is what ``finish`` may add because the inputs range,
    ``neuron_looseness`` what it may add because the parameters do.
    """

    on_z: Tensor
    on_e: Tensor
    constant: Tensor
    constraint: tuple[Tensor, Tensor, Tensor] | None
    finish: Callable[[Tensor], Tensor]
    looseness: Tensor | None = None
    neuron_looseness: Tensor | None = None


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

    def pushed(self, z: Tensor, p: Tensor) -> Tensor:
        """Return a score ``(batch,)`` whose gradient tells where each slack should go."""
        return p @ self.deviation(p.shape[1]).to(p.device)

    @abstractmethod
    def ascent(self, z: Tensor, p: Tensor) -> Tensor:
        """Return a differentiable score ``(batch,)`` whose increase leads to better values."""

    def deviation(self, size: int) -> Tensor:
        """Return the row ``(out,)`` on ``p`` whose increase makes the value larger."""
        raise NotImplementedError


def last_forms(bound_pass: BoundPass, analysis: Analysis, rows_z: Tensor, rows_e: Tensor) -> Forms:
    """Return forms below rows over the last layer, then below their negatives.

    The rows are ``(rows, out)``, or ``(batch, rows, out)`` where each box has its own.
    """
    batch = analysis.boxes.lower.shape[0]
    on_z = torch.cat([rows_z, -rows_z], dim=-2).expand(batch, -1, -1)
    on_e = torch.cat([rows_e, -rows_e], dim=-2).expand(batch, -1, -1)
    return bound_pass.rows(analysis, on_z, on_e)


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
        forms = last_forms(bound_pass, analysis, rows_z, rows_e)
        least = forms.least(analysis.boxes)
        z0, z1, e1 = least[:, 0], -least[:, 2], -least[:, 3]
        floor = torch.minimum(-forms.most(analysis.boxes)[:, 3], e1)
        tangent = Taylor.between(z0, z1, floor, e1)
        gradient, on_p = tangent.gradient, tangent.on_p

        def finish(least: Tensor) -> Tensor:
            return tangent.finish(-least[:, 0])

        on_z = -gradient[:, None, None] * row
        on_e = -on_p[:, None, None] * row
        return Rows(on_z, on_e, torch.zeros_like(on_e[:, :, 0]), None, finish, tangent.rest)


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
        # Without a dtype, torch.full would round the level to float32.
        constant = torch.full_like(on_z[:, :, 0], self.level.lower)
        constant[:, count] = self.level.lower - self.level.upper
        limit = torch.full((batch,), -self.level.upper, device=device, dtype=torch.float64)
        constraint = (row.expand(batch, -1), row.expand(batch, -1), limit)

        def finish(least: Tensor) -> Tensor:
            return self._value((-least).min(dim=1).values)

        return Rows(on_z, on_e, constant, constraint, finish)

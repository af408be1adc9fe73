"""Better slopes and multipliers for the rows that decide, by projected gradient ascent.

Every setting of the free numbers gives a valid bound, so that nothing here has to be exact: the
best bound met on the way is kept (alpha-CROWN: Xu et al., ICLR 2021; beta-CROWN: Wang et al.,
NeurIPS 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.linear import Analysis, BoundPass, Forms
from paramrob.bounds.relaxations import Choice
from paramrob.bounds.targets import Rows
from paramrob.errors import SoundnessError


@dataclass
class Best:
    """The best forms met for each row, and the coefficients of the last try."""

    least: Tensor
    a: Tensor
    c: Tensor
    seen: list[tuple[Tensor, Tensor]]

    def part(self, index: Tensor) -> Best:
        """Return it for some of the boxes."""
        seen = [(h[index], d[index]) for h, d in self.seen]
        return Best(self.least[index], self.a[index], self.c[index], seen)


def with_constraint(rows: Rows, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows plus ``weight`` ``(batch, rows)`` times the constraint.

    Constants are rounded down. The coefficients need no such care as long as those of the
    constraint are 0 and 1 in magnitude: one rounding of the sum, which the pass charges for.
    """
    if rows.constraint is None:
        return rows.on_z, rows.on_e, rows.constant
    on_z, on_e, constant = rows.constraint
    w = weight.clamp(min=0).unsqueeze(-1)
    added = w.squeeze(-1) * constant.unsqueeze(1)
    return (
        rows.on_z + w * on_z.unsqueeze(1),
        rows.on_e + w * on_e.unsqueeze(1),
        rows.constant + added - 2e-15 * (rows.constant.abs() + added.abs()),
    )


def optimise(
    bound_pass: BoundPass, analysis: Analysis, rows: Rows, weight: Tensor, steps: int
) -> Best:
    """Raise the rows' lower bounds.

    Args:
        bound_pass: of the chain.
        analysis: of the boxes.
        rows: what to bound.
        weight: ``(batch, rows)`` start of the constraint's multiplier.
        steps: gradient steps; 0 gives the heuristic bound.

    Returns:
        The best bound met for each row and box.
    """
    choices = [[getattr(r.start, n).clone() for n in _NAMES] for r in analysis.relaxations]
    cuts = analysis.boxes.cuts
    multipliers = None
    if cuts is not None:
        multipliers = torch.zeros_like(cuts, dtype=torch.float64)
    free = [t for layer in choices for t in layer]
    if rows.constraint is not None:
        free.append(weight)
    if multipliers is not None:
        free.append(multipliers)
    scale = _scales(rows, len(choices) * len(_NAMES), len(free))
    moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in free]
    best: Best | None = None
    for step in range(steps + 1):
        leaves = [t.detach().requires_grad_(step < steps) for t in free]
        with torch.set_grad_enabled(step < steps):
            least, current = _bound(bound_pass, analysis, rows, leaves, multipliers is not None)
        best = _keep(best, current)
        if step == steps or not least.requires_grad:
            break
        total = torch.where(torch.isfinite(least), least, 0.0).sum()
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        rate = 0.4 * 0.1 ** (step / steps)
        free = [
            _step(t.detach(), g, m, rate * s, step, s)
            for t, g, m, s in zip(leaves, gradients, moments, scale, strict=True)
        ]
    if best is None:
        raise SoundnessError("no bound was computed")
    return best


_NAMES = ("zero", "shift", "minus", "low", "high")


def _scales(rows: Rows, slopes: int, count: int) -> list[float]:
    """Slopes live in [0, 1]; multipliers on the scale of the rows' own coefficients."""
    typical = float((rows.on_e.abs() + rows.on_z.abs()).amax().clamp(min=1e-12))
    return [1.0] * slopes + [typical] * (count - slopes)


def _step(
    value: Tensor,
    gradient: Tensor | None,
    moment: tuple[Tensor, Tensor],
    rate: float,
    step: int,
    scale: float,
) -> Tensor:
    """One step of Adam upward, projected to [0, 1] (slopes) or to nonnegative numbers."""
    if gradient is None:
        return value
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    first, second = moment
    first.mul_(0.9).add_(gradient, alpha=0.1)
    second.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
    up = first / (1 - 0.9 ** (step + 1))
    size = (second / (1 - 0.99 ** (step + 1))).sqrt().add_(1e-30)
    moved = value + rate * up / size
    return moved.clamp(0.0, 1.0) if scale == 1.0 else moved.clamp(min=0.0)


def _bound(
    bound_pass: BoundPass, analysis: Analysis, rows: Rows, leaves: list[Tensor], cut: bool
) -> tuple[Tensor, Best]:
    count = len(_NAMES)
    relaxed = [
        r.at(Choice(*leaves[count * k : count * (k + 1)]))
        for k, r in enumerate(analysis.relaxations)
    ]
    rest = leaves[count * len(relaxed) :]
    weight = rest[0] if rows.constraint is not None else torch.zeros(1)
    multipliers = rest[-1] if cut else None
    on_z, on_e, constant = with_constraint(rows, weight)
    seen: list[tuple[Tensor, Tensor]] = []
    forms = bound_pass.rows(analysis, on_z, on_e, relaxed, multipliers, seen)
    forms = Forms(forms.a, forms.c + constant - 2e-15 * (constant.abs() + forms.c.abs()))
    least = forms.least(analysis.boxes)
    return least, Best(least.detach(), forms.a.detach(), forms.c.detach(), seen)


def _keep(best: Best | None, current: Best) -> Best:
    if best is None:
        return current
    better = current.least > best.least
    best.least = torch.where(better, current.least, best.least)
    best.a = torch.where(better.unsqueeze(-1), current.a, best.a)
    best.c = torch.where(better, current.c, best.c)
    best.seen = current.seen
    return best

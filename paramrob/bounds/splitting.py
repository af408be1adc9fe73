"""Where to split a box: along an input, or along one neuron's value in one of the networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.ascent import activate
from paramrob.bounds.linear import Analysis, BoundPass
from paramrob.bounds.optimise import Best
from paramrob.bounds.relaxations import Relaxation
from paramrob.bounds.targets import Rows
from paramrob.models.network import Activation

FEW_INPUTS = 8
"""Up to so many inputs, what the inputs cause is split on the inputs."""


@dataclass(frozen=True)
class Loose:
    """What a target's own bound may add, ``(batch,)`` each; see :class:`Rows`."""

    looseness: Tensor | None
    neuron_looseness: Tensor | None


def loose_of(rows: Rows, index: Tensor | None = None) -> Loose:
    """Return what rows may add, for all boxes or some of them."""
    parts = (rows.looseness, rows.neuron_looseness)
    return Loose(*(p if p is None or index is None else p[index] for p in parts))


def choose_split(
    bound_pass: BoundPass, analysis: Analysis, rows: Loose, best: Best
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what to split, where, and how much of the bound that may cost now."""
    boxes = analysis.boxes
    inputs = boxes.lower.shape[1]
    width = boxes.upper - boxes.lower
    on_inputs, neurons, where = _scores(bound_pass, analysis, rows, best)
    middle = (boxes.lower + boxes.upper) / 2
    splittable = (middle > boxes.lower) & (middle < boxes.upper)
    # A little for plain width keeps boxes from becoming needles.
    on_inputs = on_inputs * (1 + 1e-3) + 1e-12 * width / width.amax(1, keepdim=True).clamp(
        min=1e-300
    )
    on_inputs = torch.where(splittable, on_inputs, -1.0)
    score, choice = on_inputs.max(dim=1)
    at = middle.gather(1, choice[:, None]).squeeze(1)
    choice = torch.where(score > 0, choice, -1)
    if neurons.shape[1]:
        gain, code = neurons.max(dim=1)
        use = (gain > score) & (gain > 0)
        choice = torch.where(use, inputs + code, choice)
        at = torch.where(use, where.gather(1, code[:, None]).squeeze(1), at)
        score = torch.maximum(score, gain)
    return choice, at, score


def _scores(
    bound_pass: BoundPass, analysis: Analysis, rows: Loose, best: Best
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each input and each neuron's cut may gain, and where to cut.

    The gap between the two planes of a neuron, times the coefficient that meets it, is what
    the relaxation may cost; it is laid to the inputs as far as the range of ``z`` is the
    wider, and shared among them along the reference's slopes.
    """
    boxes = analysis.boxes
    width = boxes.upper - boxes.lower
    few = boxes.lower.shape[1] <= FEW_INPUTS
    layers = bound_pass.chain.layers
    slopes = layers[0].weight.expand(width.shape[0], -1, -1)
    sizes = slopes.abs()
    on_inputs = torch.zeros_like(width)
    gains: list[_Gains] = []
    for k, relaxation in enumerate(analysis.relaxations):
        on_h, on_d = (a.detach() for a in best.seen[len(analysis.relaxations) - 1 - k])
        activation = bound_pass.chain.activations[k]
        first = k == 0 and bool(width.any())
        cost = _cost(relaxation, activation, first, on_h, on_d)
        wz = relaxation.ranges.zu - relaxation.ranges.zl
        we = relaxation.ranges.eu - relaxation.ranges.el
        # Behind the first layer nothing is lost at a single input.
        share = torch.ones_like(wz) if first else wz / (wz + we).clamp(min=1e-300)
        on_inputs += ((cost * share).unsqueeze(2) * _portion(slopes, sizes, width)).sum(1)
        on_z = torch.zeros_like(cost) if few else cost * share
        on_p = cost * (1 - share) if few else cost
        gains.append(_Gains.of(relaxation, activation, on_z, on_p, on_d))
        steep = relaxation.high_z.slope.unsqueeze(2)
        slopes = layers[k + 1].weight @ (steep * slopes)
        sizes = layers[k + 1].weight.abs() @ (steep * sizes)
    if rows.looseness is not None:
        portion = _portion(slopes, sizes, width).mean(1)
        on_inputs += rows.looseness.unsqueeze(1) * portion
    if not gains:
        return on_inputs, width[:, :0], width[:, :0]
    every = _Gains(
        *(torch.cat(parts, 1) for parts in zip(*(vars(g).values() for g in gains), strict=True))
    )
    return on_inputs, *every.with_rest(width, rows.neuron_looseness)


@dataclass(frozen=True)
class _Gains:
    """What cutting each neuron's ``z`` or ``z + e`` may gain and where, ``(batch, neurons)``.

    ``reach`` is how far the neuron's range reaches in the row, ``middle`` the middle of that range.
    """

    z: Tensor
    at_z: Tensor
    p: Tensor
    at_p: Tensor
    reach: Tensor
    middle: Tensor

    @classmethod
    def of(
        cls,
        relaxation: Relaxation,
        activation: Activation,
        on_z: Tensor,
        on_p: Tensor,
        on_d: Tensor,
    ) -> _Gains:
        """Return the gains of one layer: at its bend for a ReLU, in the middle for a sigmoid."""
        r = relaxation.ranges
        middle = (r.pl + r.pu) / 2
        reach = on_d.abs().amax(1) * torch.nan_to_num(r.pu - r.pl, nan=0.0, posinf=0.0)
        if activation.kind in ("sigmoid", "tanh"):
            z = torch.where(r.zu > r.zl, on_z, 0.0)
            p = torch.where(r.pu > r.pl, on_p, 0.0)
            return cls(z, (r.zl + r.zu) / 2, p, middle, reach, middle)
        z = torch.where((r.zl < 0) & (r.zu > 0), on_z, 0.0)
        p = torch.where((r.pl < 0) & (r.pu > 0), on_p, 0.0)
        bend = torch.zeros_like(middle)
        return cls(z, bend, p, bend, reach, middle)

    def with_rest(self, width: Tensor, extra: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return gains and places, ``z`` before ``z + e``.

        A neuron's range may matter where its relaxation costs nothing: to what the target itself
        adds for the parameters, and as a last resort.
        """
        nothing = (self.z.amax(1) <= 0) & (self.p.amax(1) <= 0) & (width.amax(1) <= 0)
        rest = self.reach * nothing.unsqueeze(1)
        if extra is not None:
            share = self.reach / self.reach.sum(1, keepdim=True).clamp(min=1e-300)
            rest = torch.maximum(1e-6 * rest, share * extra.unsqueeze(1))
        at_p = torch.where((self.p <= 0) & (rest > 0), self.middle, self.at_p)
        return torch.cat([self.z, self.p + rest], 1), torch.cat([self.at_z, at_p], 1)


def _portion(slopes: Tensor, sizes: Tensor, width: Tensor) -> Tensor:
    """Share a neuron's range among the inputs, ``(batch, neurons, in)``.

    Along its slopes, and along what they would be if nothing cancelled: the reference's slopes
    on a wide box can cancel by accident where it is far from linear.
    """
    portions = []
    for steep in (slopes.abs(), sizes):
        reach = steep * width.unsqueeze(1)
        portions.append(reach / reach.sum(2, keepdim=True).clamp(min=1e-300))
    return (portions[0] + portions[1]) / 2


def _cost(
    relaxation: Relaxation, activation: Activation, first: bool, on_h: Tensor, on_d: Tensor
) -> Tensor:
    """Return what each neuron's relaxation may cost, ``(batch, neurons)``.

    Behind the first layer ``e`` is a slack of its own, free to be at the end that is worst, so the
    gap there counts; deeper down, that in the middle does.
    """
    r = relaxation.ranges
    z = (r.zl + r.zu) / 2
    here = relaxation.at()
    if first:

        def true(e: Tensor) -> Tensor:
            return activate(activation, z + e) - activate(activation, z)

        below = (true(r.el) - here.d_low.value(z, r.el)).clamp(min=0)
        above = (here.d_high.value(z, r.eu) - true(r.eu)).clamp(min=0)
    else:
        e = (r.el + r.eu) / 2
        below = above = (here.d_high.value(z, e) - here.d_low.value(z, e)).clamp(min=0)
    gap_h = (here.h_high.slope - here.h_low.slope) * z
    gap_h = (gap_h + here.h_high.intercept - here.h_low.intercept).clamp(min=0)
    cost = on_d.clamp(min=0).amax(1) * below + (-on_d).clamp(min=0).amax(1) * above
    return torch.nan_to_num(cost + on_h.abs().amax(1) * gap_h, nan=0.0, posinf=0.0)

"""Proved ranges of every layer, from the bound engine, for the encoders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from paramrob.models.network import Array
from paramrob.problem import Problem

Range = tuple[Fraction | None, Fraction | None]
FREE: Range = (None, None)


@dataclass(frozen=True)
class LayerRanges:
    """Ranges of one affine layer's results, ``(lower, upper)`` of shape ``(out,)`` each.

    ``z``: of the reference, ``p``: of the uncertain network, ``e``: of their difference.
    """

    z: tuple[Array, Array]
    p: tuple[Array, Array]
    e: tuple[Array, Array]


@dataclass(frozen=True)
class Presolve:
    """Ranges that hold on the whole domain and parameter box, layer by layer."""

    layers: tuple[LayerRanges, ...]


def pick(ends: tuple[Array, Array], i: int) -> Range:
    """Return the exact ends of neuron ``i``; what is not finite is no bound."""
    low, high = float(ends[0][i]), float(ends[1][i])
    return (
        Fraction(low) if math.isfinite(low) else None,
        Fraction(high) if math.isfinite(high) else None,
    )


def presolve(problem: Problem) -> Presolve:
    """Bound every neuron of both networks on the whole domain (backward linear bounds).

    Raises:
        BackendError: the graph is no chain of dense layers and activations, or the two networks
            differ in architecture.
    """
    import torch

    from paramrob.bounds.chain import build_chain
    from paramrob.bounds.linear import BoundPass, Boxes
    from paramrob.bounds.rounding import magnitudes

    chain = build_chain(problem)
    low, high = (torch.from_numpy(end) for end in problem.domain.outer())
    bound_pass = BoundPass(chain, magnitudes(chain, low, high))
    analysis = bound_pass.analyse(Boxes(low[None], high[None]))

    def ends(lower: torch.Tensor, upper: torch.Tensor) -> tuple[Array, Array]:
        return lower[0].numpy(), upper[0].numpy()

    found = [
        LayerRanges(ends(r.zl, r.zu), ends(r.pl, r.pu), ends(r.el, r.eu))
        for r in (relaxation.ranges for relaxation in analysis.relaxations)
    ]
    size = chain.layers[-1].weight.shape[0]
    eye = torch.eye(size, dtype=torch.float64)
    both, none = torch.cat([eye, -eye]), torch.zeros(2 * size, size, dtype=torch.float64)
    on_z, on_e = torch.cat([both, none, both]), torch.cat([none, both, both])
    least = bound_pass.rows(analysis, on_z[None], on_e[None]).least(analysis.boxes)
    zl, zu, el, eu, pl, pu = least.chunk(6, dim=1)
    found.append(LayerRanges(ends(zl, -zu), ends(pl, -pu), ends(el, -eu)))
    return Presolve(tuple(found))

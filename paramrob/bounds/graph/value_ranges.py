"""Proved ranges of the values between layers, over boxes of inputs and parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.program import lower
from paramrob.domain import Domain
from paramrob.models.model import OutputInfo
from paramrob.problem import UncertainNetwork

_BATCH = 64


def value_ranges(
    uncertain: UncertainNetwork,
    domains: Sequence[Domain],
    output: OutputInfo,
    names: Collection[str],
    budget: int = 1 << 24,
) -> dict[str, tuple[float, float]]:
    """Return a least and a largest value behind nodes, for all inputs and all parameters.

    Args:
        uncertain: the networks.
        domains: of inputs, alike; the ranges hold for all of them.
        output: what the outputs mean.
        names: of nodes.
        budget: numbers that a backward pass may hold at a time.

    Raises:
        BackendError: a layer that the pass does not know.
    """
    bounds = GraphPass(lower(uncertain.network, uncertain.perturbation, output), budget)
    last = {step.source: k for k, step in enumerate(bounds.program.steps) if step.source}
    at = {name: last.get(name, 0) for name in names}
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(domains), _BATCH):
        low, high = _stacked(domains[start : start + _BATCH])
        known = bounds.analyse(low, high).intervals.known
        for name, k in at.items():
            ends = float(known[k].low.min()), float(known[k].high.max())
            before = found.get(name, ends)
            found[name] = min(before[0], ends[0]), max(before[1], ends[1])
    return found


def _stacked(domains: Sequence[Domain]) -> tuple[Tensor, Tensor]:
    ends = [domain.outer() for domain in domains]
    low, high = (torch.stack([torch.from_numpy(pair[i]) for pair in ends]) for i in (0, 1))
    return low, high

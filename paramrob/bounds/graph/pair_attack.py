"""A search for inputs and parameters on which two networks differ; for boxes of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from paramrob.bounds.graph.attack import Attack, Found
from paramrob.bounds.graph.execute import execute
from paramrob.bounds.graph.program import link_of
from paramrob.layers import Link
from paramrob.problem import Problem

STEPS = 12
"""Gradient steps of one search."""


class PairAttack(Attack):
    """Searches for a large change of the confidence, or a flip of the label.

    Args:
        problem: over a box of inputs.
        device: where the search runs.
    """

    def __init__(self, problem: Problem, device: str = "cpu") -> None:
        last = link_of(problem.uncertain.network, problem.output)[1]
        super().__init__(problem.uncertain, last, device)
        self.reference = problem.reference
        self.link, self.first = link_of(problem.reference, problem.output)
        self.turns = 0
        self.values = {
            name: torch.from_numpy(parameter.value.copy()).to(device)
            for name, parameter in problem.reference.parameters.items()
        }

    def results(self, moved: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return the reference's results, then those of the network with these parameters."""
        ours = execute(self.reference, self.values, x, self.first)
        return torch.cat([ours, super().results(moved, x)])

    def largest_change(self, low: Tensor, high: Tensor) -> Found:
        """Search each box ``(batch, in)`` for the largest change of a confidence.

        Each box aims at one output and one direction, in turn: at the start nothing has changed,
        and no gradient tells which way a magnitude grows.
        """
        size = self.reference.output_size
        turn = torch.arange(low.shape[0], device=low.device) + self.turns
        self.turns += low.shape[0]
        sign = (1 - 2 * (turn % 2)).to(low.dtype)
        aims = torch.zeros(low.shape[0], size, dtype=low.dtype, device=low.device)
        aims.scatter_(1, (turn // 2 % size).unsqueeze(1), sign.unsqueeze(1))

        def objective(results: Tensor, aim: Tensor) -> Tensor:
            first, second = (linked(half, self.link) for half in results.chunk(2))
            return ((second - first) * aim).sum()

        return self.run(low, high, aims, objective, STEPS)

    def widest_flip(self, low: Tensor, high: Tensor, level: float | None, side: str) -> Found:
        """Search each box for a label that flips, as far from the boundary as possible.

        Args:
            low: least inputs, ``(batch, in)``.
            high: largest ones.
            level: of a single result, where its label changes.
            side: name of the bracket of sigma.
        """

        def objective(results: Tensor, aim: Tensor) -> Tensor:
            first, second = results.chunk(2)
            if level is not None:
                sign = -1.0 if side == "sigma_below" else 1.0
                margin, crossed = sign * (first[0] - level), sign * (level - second[0])
            else:
                own = first == first.amax()
                margin = first.amax() - first.masked_fill(own, -torch.inf).amax()
                crossed = second.masked_fill(own, -torch.inf).amax()
                crossed = crossed - second.masked_fill(~own, -torch.inf).amax()
            worse = torch.minimum(margin, crossed)
            return torch.where((crossed > 0) & (margin > 0), 1.0 + margin, worse)

        return self.run(low, high, low[:, :1], objective, STEPS)


def linked(results: Tensor, link: Link) -> Tensor:
    """Return the confidences of results ``(out,)``."""
    if link == "sigmoid":
        return torch.sigmoid(results)
    return torch.softmax(results, -1) if link == "softmax" else results

"""A search for counterexamples: projected gradient ascent on parameters and inputs.

Madry et al., *Towards deep learning models resistant to adversarial attacks*, ICLR 2018, over the
box of parameters. The worst parameters need not be a vertex of the box, so steps shrink and end
inside it where that is better. What is found is a candidate until it is replayed exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from paramrob.bounds.graph.execute import execute
from paramrob.models.network import Array
from paramrob.problem import UncertainNetwork

Objective = Callable[[Tensor, Tensor], Tensor]
STEPS = 8
"""Gradient steps of one search."""


@dataclass(frozen=True)
class Found:
    """The best candidates, one an input.

    Attributes:
        value: of the objective, ``(batch,)``.
        x: inputs ``(batch, in)``.
        parameters: ``(batch, ...)`` by name, of those that can move.
        results: of the node that the objective reads, ``(batch, out)``.
    """

    value: Tensor
    x: Tensor
    parameters: dict[str, Tensor]
    results: Tensor

    def parameters_of(self, i: int) -> dict[str, Array]:
        """Return the parameters of one candidate."""
        return {name: value[i].cpu().numpy() for name, value in self.parameters.items()}


class Attack:
    """Searches in one box of parameters.

    Args:
        uncertain: the network and its box.
        last: the node whose result an objective reads.
        device: where the search runs.
    """

    def __init__(self, uncertain: UncertainNetwork, last: str, device: str = "cpu") -> None:
        self.network, self.last = uncertain.network, last
        self.still: dict[str, Tensor] = {}
        self.box: dict[str, tuple[Tensor, Tensor]] = {}
        self.centre: dict[str, Tensor] = {}
        for name, parameter in uncertain.network.parameters.items():
            interval = uncertain.perturbation.interval(parameter)
            value = torch.from_numpy(interval.centre.copy()).to(device)
            if not interval.radius().any():
                self.still[name] = value
                continue
            low, high = (torch.from_numpy(a.copy()).to(device) for a in interval.inner())
            self.box[name], self.centre[name] = (low, high), value

    @property
    def numbers(self) -> int:
        """How many numbers one candidate holds."""
        return sum(value.numel() for value in self.centre.values()) + self.network.input_size

    def run(
        self,
        low: Tensor,
        high: Tensor,
        aims: Tensor,
        objective: Objective,
        steps: int = STEPS,
        start: Tensor | None = None,
        deadline: float = float("inf"),
    ) -> Found:
        """Maximise ``objective(result, aim)`` for each input.

        Args:
            low: least inputs, ``(batch, in)``.
            high: largest ones.
            aims: what the objective is told, ``(batch, ...)``.
            objective: of one result ``(out,)`` and one aim; differentiable.
            steps: of the search.
            start: inputs to start from, ``(batch, in)``; the middle by default, from where the
                first step goes to a corner.
            deadline: of :func:`time.monotonic`, after which there is no further step.
        """
        batch = low.shape[0]

        def value(moved: dict[str, Tensor], x: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
            result = self.results(moved, x)
            return objective(result, aim), result

        climb = vmap(grad_and_value(value, argnums=(0, 1), has_aux=True))
        x = (low + high) / 2 if start is None else start
        moved = {name: centre.expand(batch, *centre.shape) for name, centre in self.centre.items()}
        best: Found | None = None
        for step in range(steps + 1):
            (slope, on_x), (reached, results) = climb(moved, x, aims)
            best = _better(best, Found(reached, x, moved, results))
            if time.monotonic() > deadline:
                break
            far = step == 0 and start is None
            share = 1.0 if far else 0.5 * (1 - step / (steps + 1))
            moved = {
                name: self._clamp(
                    name, at + share * (self.box[name][1] - self.box[name][0]) * slope[name].sign()
                )
                for name, at in moved.items()
            }
            x = torch.minimum(torch.maximum(x + share * (high - low) * on_x.sign(), low), high)
        if best is None:
            raise ValueError("a search needs a step")
        return best

    def results(self, moved: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return the result that an objective reads, of one input ``(in,)``."""
        return execute(self.network, {**self.still, **moved}, x, self.last)

    def _clamp(self, name: str, value: Tensor) -> Tensor:
        low, high = self.box[name]
        return torch.minimum(torch.maximum(value, low), high)


def _better(old: Found | None, new: Found) -> Found:
    if old is None:
        return new
    take = new.value > old.value

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(take.reshape(-1, *[1] * (a.dim() - 1)), a, b)

    return Found(
        choose(new.value, old.value),
        choose(new.x, old.x),
        {name: choose(new.parameters[name], old.parameters[name]) for name in new.parameters},
        choose(new.results, old.results),
    )

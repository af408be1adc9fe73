"""The reference's labels at many points, where rigorous bounds of its results tell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from paramrob.bounds.graph.batches import in_batches
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.program import lower
from paramrob.bounds.graph.specification import level_of
from paramrob.bounds.graph.spot import Spot
from paramrob.bounds.rounding import check_arithmetic
from paramrob.models.model import OutputInfo
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem

HALF = Fraction(1, 2)
_COPIES = 64
"""Numbers that one neuron of one point may take, on the safe side."""


def level_at(output: OutputInfo) -> Fraction:
    """Return the level at which a single output's label changes."""
    return HALF if output.level is None else output.level


def told(reference: Interval, link: str, output: OutputInfo) -> list[int | None]:
    """Return the labels that enclosed results tell, ``None`` where they leave it open.

    Args:
        reference: results of the node before the link, ``(batch, out)``.
        link: ``identity``, ``sigmoid`` or ``softmax``; monotone, so labels are those of results.
        output: what the outputs mean.
    """
    low, high = reference.low, reference.high
    if low.shape[1] == 1:
        level = level_of(level_at(output), link)
        one, zero = (low > level.upper).squeeze(1), (high <= level.lower).squeeze(1)
        pairs = zip(one.tolist(), zero.tolist(), strict=True)
        return [1 if above else 0 if below else None for above, below in pairs]
    best = low.argmax(1)
    rest = high.scatter(1, best.unsqueeze(1), -float("inf")).amax(1)
    clear = low.gather(1, best.unsqueeze(1)).squeeze(1) > rest
    return [int(b) if c else None for b, c in zip(best.tolist(), clear.tolist(), strict=True)]


@dataclass
class _Forward:
    """The reference alone, run forward with intervals."""

    run: GraphPass
    budget: int

    @property
    def batch(self) -> int:
        """How many points go through at a time."""
        size = sum(step.size for step in self.run.program.steps) * _COPIES
        return max(1, min(self.budget // size, 256))

    def shrink(self) -> bool:
        """One point cannot do with less."""
        return False


def reference_labels(problems: Sequence[Problem], device: str, memory: int) -> list[int | None]:
    """Return the reference's labels at points, ``None`` where bounds of its results do not tell.

    Args:
        problems: at points or around them, alike but for these; one at least.
        device: ``cpu`` or ``cuda``.
        memory: bytes that may be used, roughly.

    Raises:
        BackendError: a layer that the bound pass does not know.
    """
    check_arithmetic()
    first = problems[0]
    program = lower(first.reference, Perturbation({}), first.output, device)
    forward = _Forward(GraphPass(program), max(memory // 8, 1))

    def run(part: Sequence[Problem]) -> list[int | None]:
        x = torch.stack([torch.from_numpy(Spot.of(p).centre) for p in part]).to(device)
        known = forward.run.analyse(x, x, "ibp").intervals.known[-1]
        return told(known, program.link, first.output)

    return [label for part in in_batches(problems, forward, run, lambda: None) for label in part]

"""A problem over a plane of inputs, made ready for the bound pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from paramrob.bounds.chain import Chain, build_chain
from paramrob.bounds.goals import change_targets
from paramrob.bounds.linear import BoundPass
from paramrob.bounds.rounding import check_arithmetic, magnitudes
from paramrob.bounds.steered import Radii, SteeredPass, Vectors, inner_radii
from paramrob.bounds.targets import Target
from paramrob.errors import BackendError
from paramrob.problem import Problem
from paramrob.requests.views import View

_LARGEST_BATCH = 4096
_BATCH_MEMORY = 1_500_000
"""Numbers in a batch's largest tensor."""


@dataclass(frozen=True)
class Ground:
    """What every computation on a plane needs; tensors are float64.

    Attributes:
        problem: on the view's whole box.
        view: the plane.
        chain: of the problem.
        bound_pass: with the charges of the whole box.
        radii: how far parameters surely move.
        lower: least inputs ``(in,)``, rounded outward.
        upper: largest inputs, rounded outward.
        inner_lower: least inputs that a witness may have.
        inner_upper: largest inputs that a witness may have.
    """

    problem: Problem
    view: View
    chain: Chain
    bound_pass: BoundPass
    radii: tuple[Radii, ...]
    lower: Tensor
    upper: Tensor
    inner_lower: Tensor
    inner_upper: Tensor

    @cached_property
    def targets(self) -> list[Target]:
        """The targets whose largest value is epsilon."""
        return list(change_targets(self.chain))

    @property
    def axes(self) -> list[int]:
        """The indices of the two inputs shown."""
        return list(self.view.axes)

    @property
    def free(self) -> list[int]:
        """The indices of the inputs that range freely."""
        return [axis.index for axis in self.view.free]

    @property
    def batch(self) -> int:
        """How many boxes are bounded at a time."""
        widest = max(layer.weight.shape[0] for layer in self.chain.layers)
        return max(8, min(_LARGEST_BATCH, _BATCH_MEMORY // (4 * widest * widest)))

    def boxes(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes ``(batch, in)`` above cells of the plane, ``(batch, 2)`` each."""
        count = lower.shape[0]
        low, high = self.lower.expand(count, -1).clone(), self.upper.expand(count, -1).clone()
        low[:, self.axes], high[:, self.axes] = lower, upper
        return low, high

    def within(self, x: Tensor) -> Tensor:
        """Return inputs ``(batch, in)`` brought into the domain; the two shown stay."""
        inside = torch.minimum(torch.maximum(x, self.inner_lower), self.inner_upper)
        inside[:, self.axes] = x[:, self.axes]
        return inside

    def steered(self, chosen: Vectors) -> SteeredPass:
        """Return the bound pass for given parameter vectors."""
        return SteeredPass(self.chain, self.bound_pass.charges, self.radii, chosen)


def make_ground(problem: Problem, view: View) -> Ground:
    """Return the problem made ready.

    Raises:
        BackendError: the bound engine cannot express the network, or the box of parameters was
            given value by value, so that it need not hold the trained ones.
    """
    check_arithmetic()
    if problem.uncertain.perturbation.is_given:
        # What is stable is proved of the box alone, which speaks of the reference inside it.
        raise BackendError(
            "heatmaps show boxes around the trained parameters; ask about rounded or pruned ones "
            "with check or estimate"
        )
    chain = build_chain(problem)
    outer = [torch.from_numpy(a) for a in view.box.outer()]
    inner = [torch.from_numpy(a) for a in view.box.inner()]
    bound_pass = BoundPass(chain, magnitudes(chain, *outer))
    return Ground(problem, view, chain, bound_pass, inner_radii(problem, chain), *outer, *inner)


def pieces(count: int, size: int) -> list[Tensor]:
    """Return the indices below ``count`` in batches of at most ``size``."""
    return list(torch.split(torch.arange(count), size)) if count else []

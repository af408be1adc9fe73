"""What decides a label, as rows over the last layer that have to exceed a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from paramrob.bounds.chain import Chain
from paramrob.exact import float_above, float_below
from paramrob.problem import Problem
from paramrob.replay import level_logit
from paramrob.verdict import Interval


@dataclass(frozen=True)
class Labels:
    """When a network surely decides for each class.

    Attributes:
        leads: ``(classes, rows, out)``.
        above: ``(classes,)``: the label is class ``c`` where every row of ``leads[c]`` exceeds
            ``above[c]``. One output: class 1 above the level, class 0 below it. Several: the
            class's result less every other one, 0. Ties are left out: they prove nothing here.
    """

    leads: Tensor
    above: Tensor

    def of(self, results: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best class and the runner-up, ``(batch,)`` each, in floating point.

        Args:
            results: of the last layer, ``(batch, out)``.
        """
        order = self.margins(results).argsort(dim=1, descending=True)
        return order[:, 0], order[:, 1]

    def margins(self, results: Tensor) -> Tensor:
        """Return by how much each class leads, ``(batch, classes)``, in floating point."""
        leads = torch.einsum("cro,bo->bcr", self.leads, results)
        return leads.amin(dim=2) - self.above

    def rivals(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the row ``(batch, out)`` that rises as ``first`` gains on ``second``."""
        classes, _, outputs = self.leads.shape
        if outputs == 1:
            return self.leads[first][:, 0]
        eye = torch.eye(classes, dtype=torch.float64)
        return eye[first] - eye[second]


def labels_of(problem: Problem, chain: Chain) -> Labels:
    """Return the rows for a problem with labels; see :func:`paramrob.problem.check_labels`."""
    outputs = chain.layers[-1].weight.shape[0]
    if outputs == 1:
        where = _level(problem, chain)
        leads = torch.tensor([[[-1.0]], [[1.0]]], dtype=torch.float64)
        return Labels(leads, torch.tensor([-where.lower, where.upper], dtype=torch.float64))
    eye = torch.eye(outputs, dtype=torch.float64)
    others = [[k for k in range(outputs) if k != c] for c in range(outputs)]
    leads = torch.stack([eye[c] - eye[rest] for c, rest in enumerate(others)])
    return Labels(leads, torch.zeros(outputs, dtype=torch.float64))


def _level(problem: Problem, chain: Chain) -> Interval:
    """Enclose the last layer's result at which the label changes."""
    level = problem.output.level if problem.output.level is not None else Fraction(1, 2)
    if chain.link == "sigmoid":
        return level_logit(level)
    return Interval(float_below(level), float_above(level))

"""The direct encoding: one variable per parameter, the formulas of arXiv 1903.10672."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from paramrob.encoders import common
from paramrob.encoders.build import Builder
from paramrob.encoders.goals import GoalName
from paramrob.encoders.networks import affine
from paramrob.encoders.parameters import ParameterBox, decoded_input
from paramrob.encoders.presolve import Presolve
from paramrob.encoders.terms import Constant, Query, Term
from paramrob.models.network import Array, Elementwise, Node
from paramrob.problem import Problem


class DirectEncoder:
    """Parameters as variables ``theta<n>_<indices>``; exact unless only the ends of boxes count."""

    def __init__(self, problem: Problem, builder: Builder, box: ParameterBox) -> None:
        self._problem = problem
        self.exact = not problem.uncertain.perturbation.only_ends
        self._builder = builder
        self._box = box
        self._numbers = {name: n for n, name in enumerate(problem.uncertain.network.parameters)}
        self._terms: dict[str, list[Term]] = {}
        self._variables: dict[str, dict[int, str]] = {}

    def layer(self, k: int, node: Node, h: list[Term]) -> list[Term]:
        """Return the layer's results with its parameters as variables."""
        if isinstance(node.op, Elementwise) and node.op.kind == "div":
            self._box.check_divisor(node.name, node.op.parameter)
        return affine(self._problem.uncertain.network, node, h, self._values)

    def decode(self, model: Mapping[str, Fraction]) -> tuple[Array, dict[str, Array]]:
        """Return the input and the parameters; what the solver left open keeps its centre."""
        parameters = {}
        for name in self._problem.uncertain.network.parameters:
            variables = self._variables.get(name, {})
            given = {i: float(model[v]) for i, v in variables.items() if v in model}
            parameters[name] = self._box.place(name, given)
        return decoded_input(self._problem, model), parameters

    def _values(self, name: str) -> Sequence[Term]:
        if name not in self._terms:
            shape = self._problem.uncertain.network.parameters[name].value.shape
            terms: list[Term] = []
            variables = self._variables.setdefault(name, {})
            for i, (low, high) in enumerate(self._box.ends(name)):
                if low == high:
                    terms.append(Constant(low))
                    continue
                index = [int(j) for j in np.unravel_index(i, shape)]
                variables[i] = "_".join([f"theta{self._numbers[name]}", *map(str, index)])
                words = f"parameter {name}{index or ''}"
                terms.append(self._builder.declare(variables[i], low, high, words))
            self._terms[name] = terms
        return self._terms[name]


def encode(
    problem: Problem,
    goal: GoalName = "property",
    presolve: Presolve | None = None,
    invert: bool = False,
) -> Query:
    """Return the direct encoding of a problem.

    Args:
        problem: the problem; its property is what ``goal="property"`` negates.
        goal: the property, or a quantity that :meth:`Query.with_threshold` bounds from below.
        presolve: proved ranges; ``None`` bounds and simplifies nothing.
        invert: move thresholds on a sigmoid's confidence to its logit, enclosed outward, where
            that removes the sigmoid (without it: only where that is exact).

    Raises:
        BackendError: the graph is no chain of dense layers and activations.
        InputError: labels are asked of a network that has none.
    """

    def make(builder: Builder, box: ParameterBox) -> common.Encoder:
        return DirectEncoder(problem, builder, box)

    return common.encode(problem, goal, presolve, invert, make, "direct")

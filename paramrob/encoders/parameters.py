"""The exact box of an uncertain network's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from paramrob.errors import BackendError
from paramrob.models.network import Array
from paramrob.problem import Problem, UncertainNetwork

Ends = tuple[Fraction, Fraction]


@dataclass
class ParameterBox:
    """Exact ends of every parameter, flattened in row-major order; computed once per parameter."""

    uncertain: UncertainNetwork
    _ends: dict[str, list[Ends]] = field(default_factory=dict)

    def ends(self, name: str) -> list[Ends]:
        """Return the ends of each value of a parameter."""
        if name not in self._ends:
            interval = self.uncertain.perturbation.interval(self.uncertain.network.parameters[name])
            size = np.asarray(interval.centre).size
            self._ends[name] = [interval.exact(i) for i in range(size)]
        return self._ends[name]

    def is_still(self, name: str, value: Array) -> bool:
        """Whether a parameter cannot move and has exactly these values."""
        interval = self.uncertain.perturbation.interval(self.uncertain.network.parameters[name])
        return np.array_equal(interval.centre, value) and not interval.radius().any()

    def check_divisor(self, node: str, name: str) -> None:
        """Refuse a divisor that can become 0.

        Raises:
            BackendError: with what to do.
        """
        if any(low <= 0 <= high for low, high in self.ends(name)):
            raise BackendError(
                f"node {node!r} divides by a constant whose perturbation reaches 0; "
                "leave that layer out of the perturbation"
            )

    def place(self, name: str, flat: Mapping[int, float]) -> Array:
        """Return the parameter's centre with some values replaced, clipped into its interval."""
        interval = self.uncertain.perturbation.interval(self.uncertain.network.parameters[name])
        low, high = interval.inner()
        value = np.array(interval.centre, dtype=np.float64)
        for i, number in flat.items():
            value.flat[i] = number
        return interval.possible(np.asarray(np.minimum(np.maximum(value, low), high)))


def decoded_input(problem: Problem, model: Mapping[str, Fraction]) -> Array:
    """Return the input that a solver's values mean, inside the domain; the middle by default."""
    low, high = problem.domain.inner()
    x = (low + high) / 2
    for i in range(x.size):
        if (value := model.get(f"x{i}")) is not None:
            x[i] = float(value)
    return np.asarray(np.minimum(np.maximum(x, low), high))

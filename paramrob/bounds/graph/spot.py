"""Where a problem at a point asks."""

from __future__ import annotations

from dataclasses import dataclass

from paramrob.domain import Box
from paramrob.errors import BackendError
from paramrob.models.network import Array
from paramrob.problem import Problem


@dataclass(frozen=True)
class Spot:
    """Where one problem asks: the box of inputs, and the input that the reference sees."""

    low: Array
    high: Array
    centre: Array

    @classmethod
    def of(cls, problem: Problem) -> Spot:
        """Return the spot of a problem at a point or around one.

        Raises:
            BackendError: the domain is a box, where the reference is not known.
        """
        domain = problem.domain
        if isinstance(domain, Box):
            raise BackendError("this engine answers at points; give --at, or another --solver")
        low, high = domain.outer()
        return cls(low, high, domain.centre())

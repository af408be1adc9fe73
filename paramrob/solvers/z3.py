"""Z3: linear problems exactly, the others by refinement (:mod:`paramrob.solvers.z3_worker`)."""

from __future__ import annotations

from importlib import metadata

from paramrob.encoders.terms import LOGICS, Query
from paramrob.solvers.base import Answer, Capabilities, Solver, State
from paramrob.solvers.process import Worker
from paramrob.solvers.program import flatten

_GRACE = 0.5
"""Seconds before the deadline at which the worker itself gives up and says where it stands."""


class Z3(Solver):
    """Z3's simplex over exact rationals, in a worker process that keeps its cuts."""

    capabilities = Capabilities(
        name="z3",
        logics=frozenset(LOGICS),
        exact=frozenset({"QF_LRA"}),
        encoding="aggregated",
        decides="linear problems exactly (ReLU, leaky ReLU); sigmoid, tanh, softmax and products "
        "by proved tangents and chords",
    )

    def __init__(self) -> None:
        self._worker = Worker("paramrob.solvers.z3_worker")

    @classmethod
    def state(cls) -> State:
        """Return the version of the package, which is not imported for that."""
        try:
            return State(metadata.version("z3-solver"), "installed")
        except metadata.PackageNotFoundError:
            return State(None, "pip install z3-solver")

    def check(self, query: Query, budget: float, precision: float | None = None) -> Answer:
        """Decide the query; see :meth:`Solver.check`. ``precision`` is not used."""
        self.require(query)
        seconds = max(budget - min(_GRACE, budget / 10), 0.01)
        question = {"program": flatten(query).as_json(), "seconds": seconds}
        return self.asked(self._worker, question, budget)

    def close(self) -> None:
        """Kill the worker."""
        self._worker.close()

"""The built-in delta-complete solver: branch and prune on codac's interval operators.

codac sets the processor's rounding mode when it is imported, so it lives in a worker
(:mod:`paramrob.solvers.icp_worker`) that imports nothing of ours that proves anything. Numbers
cross as hexadecimal floats, rounded outward here.
"""

from __future__ import annotations

from importlib import metadata

from paramrob.encoders.terms import LOGICS, Query
from paramrob.solvers.base import Answer, Capabilities, Solver, State
from paramrob.solvers.process import Worker
from paramrob.solvers.program import flatten
from paramrob.solvers.tape import Tape

PRECISION = 1e-9
_GRACE = 0.5
"""Seconds before the deadline at which the worker itself gives up and says where it stands."""


class Icp(Solver):
    """Branch and prune in a worker process."""

    capabilities = Capabilities(
        name="icp",
        logics=frozenset(LOGICS),
        exact=frozenset(),
        encoding="direct",
        decides="every formula, up to a precision: interval contractors (codac), few inputs",
    )

    def __init__(self) -> None:
        self._worker = Worker("paramrob.solvers.icp_worker")

    @classmethod
    def state(cls) -> State:
        """Return the version of codac, which is never imported here."""
        try:
            return State(metadata.version("codac"), "installed")
        except metadata.PackageNotFoundError:
            return State(None, "pip install codac")

    def check(self, query: Query, budget: float, precision: float | None = None) -> Answer:
        """Decide the query up to a precision; see :meth:`Solver.check`."""
        self.require(query)
        question = Tape(flatten(query)).as_json() | {
            "seconds": max(budget - min(_GRACE, budget / 10), 0.01),
            "precision": (precision or PRECISION).hex(),
        }
        return self.asked(self._worker, question, budget)

    def close(self) -> None:
        """Kill the worker."""
        self._worker.close()

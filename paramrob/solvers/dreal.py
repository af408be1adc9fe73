"""dReal: delta-complete, through its Python bindings where they import, else as a program.

Only ``unsat`` of it is believed; its ``Minimize`` is never called. It has no time limit of its
own, so it always runs below a worker that is killed when the time is up.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from functools import lru_cache

from paramrob.encoders.smtlib import to_smtlib
from paramrob.encoders.terms import LOGICS, Query
from paramrob.errors import BackendError
from paramrob.solvers.base import Answer, Capabilities, Solver, State
from paramrob.solvers.process import Worker, WorkerError
from paramrob.solvers.program import flatten
from paramrob.solvers.tape import Tape

PRECISION = 1e-5
_PROBE_SECONDS = 10.0
_VERSION_SECONDS = 1.0
_ADVICE = (
    "dReal is optional: `pip install 'paramrob[dreal]'` (Python 3.11), whose wheel also needs the "
    "system library IBEX 2.7.4. dReal's documentation installs that on Ubuntu with `sudo "
    "add-apt-repository ppa:dreal/dreal && sudo apt-get update && sudo apt-get install "
    "libibex-dev coinor-libclp-dev libnlopt-cxx-dev`, and on macOS with `brew install dreal`; or "
    "put a `dreal` program on the PATH. Without it: --solver icp"
)
_VERSION = re.compile(r"\d+(\.\d+)+")


@lru_cache(maxsize=1)
def _bindings() -> tuple[str | None, str]:
    """Return the bindings' version, or why they do not import; tried in another process."""
    if importlib.util.find_spec("dreal") is None:
        return None, "the package dreal is not installed"
    with Worker("paramrob.solvers.dreal_worker") as worker:
        try:
            said = worker.ask({"how": "probe"}, _PROBE_SECONDS)
        except WorkerError as error:
            return None, str(error)
    version = said.get("version")
    return (version, "") if isinstance(version, str) else (None, str(said.get("reason")))


@lru_cache(maxsize=8)
def _program_version(path: str) -> str:
    with Worker("paramrob.solvers.dreal_worker") as worker:
        try:
            said = worker.ask({"how": "version", "command": path}, _VERSION_SECONDS)
        except WorkerError:
            return "unknown"
    found = _VERSION.search(str(said.get("version")))
    return found.group() if found else "unknown"


class DReal(Solver):
    """dReal below a worker process."""

    capabilities = Capabilities(
        name="dreal",
        logics=frozenset(LOGICS),
        exact=frozenset(),
        encoding="direct",
        decides="every formula, up to a precision; few parameters",
    )

    def __init__(self) -> None:
        self._worker = Worker("paramrob.solvers.dreal_worker")

    @classmethod
    def state(cls) -> State:
        """Return how dReal can be reached; the bindings come first."""
        version, why = _bindings()
        if version is not None:
            return State(version, "installed (Python bindings)")
        path = shutil.which("dreal")
        if path is not None:
            return State(_program_version(path), f"installed ({path})")
        return State(None, f"{why}. {_ADVICE}")

    def check(self, query: Query, budget: float, precision: float | None = None) -> Answer:
        """Decide the query up to a precision; see :meth:`Solver.check`."""
        self.require(query)
        precision = precision or PRECISION
        if _bindings()[0] is not None:
            question = Tape(flatten(query)).as_json()
            question |= {"how": "bindings", "precision": precision.hex()}
            return self.asked(self._worker, question, budget)
        path = shutil.which("dreal")
        if path is None:
            raise BackendError(f"--solver dreal cannot be used here: {self.state().advice}")
        text = to_smtlib(query, "dreal", precision=f"{precision:.20f}".rstrip("0"))
        names = [declaration.variable.name for declaration in query.declarations]
        question = {"how": "program", "command": path, "text": text, "names": names}
        question["precision"] = precision.hex()
        return self.asked(self._worker, question, budget)

    def close(self) -> None:
        """Kill the worker and what it started."""
        self._worker.close()

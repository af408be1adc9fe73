"""The solvers by name, in the order in which they are listed; each is imported when used."""

from __future__ import annotations

from importlib import import_module

from paramrob.errors import BackendError
from paramrob.solvers.base import Solver, State

REGISTRY: tuple[tuple[str, str, str], ...] = (
    ("z3", "paramrob.solvers.z3", "Z3"),
    ("dreal", "paramrob.solvers.dreal", "DReal"),
    ("icp", "paramrob.solvers.icp", "Icp"),
)
"""Name, module, class."""


def solver_class(name: str) -> type[Solver]:
    """Return a solver's class.

    Raises:
        BackendError: there is no such solver.
    """
    for known, module, class_name in REGISTRY:
        if known == name:
            found: type[Solver] = getattr(import_module(module), class_name)
            return found
    names = ", ".join(name for name, _, _ in REGISTRY)
    raise BackendError(f"no solver {name!r}; choose from {names}")


def make_solver(name: str) -> Solver:
    """Return a solver that can be used here.

    Raises:
        BackendError: there is no such solver, or it is not installed; the text says how to get it.
    """
    found = solver_class(name)
    state = found.state()
    if state.version is None:
        raise BackendError(f"--solver {name} cannot be used here: {state.advice}")
    return found()


def states() -> list[tuple[type[Solver], State]]:
    """Return every solver with its state here."""
    classes = [solver_class(name) for name, _, _ in REGISTRY]
    return [(found, found.state()) for found in classes]

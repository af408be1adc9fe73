"""One solver process for several questions: starting one costs more than an easy question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from paramrob.solvers.base import Solver
from paramrob.solvers.registry import make_solver

_KEPT: ContextVar[dict[str, Solver] | None] = ContextVar("kept", default=None)


@contextmanager
def kept_solvers() -> Iterator[None]:
    """Keep the solvers that are used within the block until its end, then end their processes.

    A question that reaches its limit still has its process killed; the next one starts another.
    Other threads have solvers of their own. Inside another such block it changes nothing.
    """
    if _KEPT.get() is not None:
        yield
        return
    kept: dict[str, Solver] = {}
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)
        for solver in kept.values():
            solver.close()


@contextmanager
def solver_for(name: str) -> Iterator[Solver]:
    """Yield the solver that is kept, or a new one that is closed at the end.

    Raises:
        BackendError: there is no such solver, or it is not installed; the text says how to get it.
    """
    kept = _KEPT.get()
    if kept is None:
        with make_solver(name) as solver:
            yield solver
        return
    if name not in kept:
        kept[name] = make_solver(name)
    yield kept[name]

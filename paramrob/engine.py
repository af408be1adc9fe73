"""Deciding and estimating: the one entry to every engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paramrob.errors import BackendError
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.verdict import Outcome

SOLVERS = ("auto", "bounds", "z3", "dreal", "icp")
Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Settings:
    """How to solve.

    Attributes:
        solver: one of ``SOLVERS``.
        timeout: engine wall time in seconds.
        tolerance: absolute width at which a bracket is closed.
        device: ``cpu`` or ``cuda``.
        seed: of the local searches; verdicts do not depend on it, witnesses may.
        progress: called with the quantity's name and the ends of its current bracket, now and
            then; a ``KeyboardInterrupt`` stops the engine, which then returns what it has.
    """

    solver: str = "auto"
    timeout: float = 60.0
    tolerance: float = 1e-6
    device: str = "cpu"
    seed: int = 0
    progress: Progress | None = None


def decide(problem: Problem, settings: Settings | None = None) -> Outcome:
    """Decide the problem's property; ``verdict`` of the outcome is never ``None``.

    Raises:
        BackendError: the solver asked for cannot be used.
    """
    settings = settings or Settings()
    _check_solver(settings)
    from paramrob.bounds import decision

    return decision.decide(problem, settings)


def estimate(problem: Problem, quantity: Quantity, settings: Settings | None = None) -> Outcome:
    """Bracket ``epsilon``, ``sigma`` or ``delta``; the outcome's ``verdict`` is ``None``.

    For ``delta`` the problem's property is the one that has to hold.

    Raises:
        BackendError: the solver asked for cannot be used.
    """
    settings = settings or Settings()
    _check_solver(settings)
    from paramrob.bounds import decision

    return decision.estimate(problem, quantity, settings)


def _check_solver(settings: Settings) -> None:
    if settings.solver not in SOLVERS:
        raise BackendError(f"no solver {settings.solver!r}; choose from {', '.join(SOLVERS)}")
    if settings.solver not in ("auto", "bounds"):
        raise BackendError(f"solver {settings.solver!r} is not built in yet; use --solver bounds")

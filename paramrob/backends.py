"""The engines by name: what each can decide, and how to get what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from paramrob import __version__


@dataclass(frozen=True)
class Backend:
    """One engine; ``version`` is ``None`` where it cannot be used."""

    name: str
    version: str | None
    decides: str
    advice: str


BOUNDS = Backend(
    "bounds",
    __version__,
    "labels, confidence, margin; estimates epsilon, sigma, delta; boxes and points; dense "
    "networks with ReLU, leaky ReLU, linear, sigmoid or tanh units",
    "built in",
)


def backends() -> list[Backend]:
    """Return every engine with its state here, in the order of the registry."""
    from paramrob.solvers.registry import states

    found = [BOUNDS]
    for solver, state in states():
        capabilities = solver.capabilities
        found.append(Backend(capabilities.name, state.version, capabilities.decides, state.advice))
    return found

"""The solvers by name: what each can decide, and how to get what is missing.

Nothing is imported here: the list has to be shown by a program that starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from paramrob import __version__


@dataclass(frozen=True)
class Backend:
    """One solver; ``version`` is ``None`` where it cannot be used."""

    name: str
    version: str | None
    decides: str
    advice: str


BACKENDS = (
    Backend(
        "bounds",
        __version__,
        "labels, confidence, margin; estimates epsilon, sigma, delta; boxes and points; dense "
        "networks with ReLU, leaky ReLU, linear, sigmoid or tanh units",
        "built in",
    ),
    Backend("z3", None, "-", "not connected yet: use --solver bounds"),
    Backend("dreal", None, "-", "not connected yet: use --solver bounds"),
    Backend("icp", None, "-", "not connected yet: use --solver bounds"),
)

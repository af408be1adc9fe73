"""Models: the network IR and one reader per format."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramrob.models.sklearn_model import from_sklearn as from_sklearn

__all__ = ["from_sklearn"]


def __getattr__(name: str) -> object:
    """Import the reader only when it is asked for (PEP 562): scikit-learn is optional."""
    if name == "from_sklearn":
        from paramrob.models.sklearn_model import from_sklearn

        return from_sklearn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""paramrob: prove what a neural network does under every parameter vector in a box.

Names are resolved when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramrob import models
    from paramrob.api import check, estimate, load
    from paramrob.api_bits import fewest_bits, mixed_bits
    from paramrob.api_blame import blame
    from paramrob.api_heatmap import heatmap
    from paramrob.comparison import compare
    from paramrob.domain import Box, Point
    from paramrob.errors import (
        BackendError,
        InputError,
        ModelError,
        ParamrobError,
        SoundnessError,
        UnsafeModelError,
        UnsupportedOperatorError,
    )
    from paramrob.models.model import Model
    from paramrob.perturbation import Perturbation
    from paramrob.quantize.scheme import Scheme
    from paramrob.solve import PointsOutcome
    from paramrob.verdict import Bracket, Outcome, Verdict, Witness

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Box",
    "Bracket",
    "InputError",
    "Model",
    "ModelError",
    "Outcome",
    "ParamrobError",
    "Perturbation",
    "Point",
    "PointsOutcome",
    "Scheme",
    "SoundnessError",
    "UnsafeModelError",
    "UnsupportedOperatorError",
    "Verdict",
    "Witness",
    "__version__",
    "blame",
    "check",
    "compare",
    "estimate",
    "fewest_bits",
    "heatmap",
    "load",
    "mixed_bits",
    "models",
]

_MODULES = {
    "paramrob.api": ("check", "estimate", "load"),
    "paramrob.api_bits": ("fewest_bits", "mixed_bits"),
    "paramrob.api_blame": ("blame",),
    "paramrob.api_heatmap": ("heatmap",),
    "paramrob.comparison": ("compare",),
    "paramrob.domain": ("Box", "Point"),
    "paramrob.errors": (
        "BackendError",
        "InputError",
        "ModelError",
        "ParamrobError",
        "SoundnessError",
        "UnsafeModelError",
        "UnsupportedOperatorError",
    ),
    "paramrob.models.model": ("Model",),
    "paramrob.perturbation": ("Perturbation",),
    "paramrob.quantize.scheme": ("Scheme",),
    "paramrob.solve": ("PointsOutcome",),
    "paramrob.verdict": ("Bracket", "Outcome", "Verdict", "Witness"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("paramrob.models")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'paramrob' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

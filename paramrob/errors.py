"""The exceptions that paramrob raises on purpose; every message says what to do next."""

from __future__ import annotations


class ParamrobError(Exception):
    """Base of every error that paramrob raises on purpose."""


class InputError(ParamrobError):
    """Something that the caller gave cannot be used: a file, an option, a value (exit code 2)."""


class ModelError(InputError):
    """A model file or object cannot be read as a network."""


class UnsupportedOperatorError(ModelError):
    """A model contains an operator that paramrob has no exact meaning for."""


class UnsafeModelError(ModelError):
    """Reading the model file would have run code that stands in it."""


class BackendError(InputError):
    """A solver or engine was asked for that is not installed or cannot express the problem."""


class SoundnessError(ParamrobError):
    """Two results that cannot both be true: a defect in an engine, never in the model (exit 4)."""


class ReplayError(ParamrobError):
    """A counterexample that exact re-execution refuses: it is not one of this problem."""

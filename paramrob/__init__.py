"""paramrob: prove what a neural network does under every parameter vector in a box."""

from __future__ import annotations

__version__ = "0.1.0"

"""Linear relaxations of activations: images, default slopes, and proved lines for any slopes."""

from __future__ import annotations

from paramrob.bounds.graph.image import image
from paramrob.bounds.graph.intercepts import Lines, Prepared, lines
from paramrob.bounds.graph.slopes import best_slopes, slopes

__all__ = ["Lines", "Prepared", "best_slopes", "image", "lines", "slopes"]

"""Where the inputs come from: a box, or one point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from paramrob.errors import InputError
from paramrob.exact import float_above, float_below
from paramrob.models.network import Array

_ENDS = (float_below, float_above)


@dataclass(frozen=True)
class Box:
    """All inputs between two exact vectors, ends included, flattened in row-major order."""

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper):
            raise InputError(f"{len(self.lower)} lower ends, {len(self.upper)} upper ends")
        for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not all(math.isfinite(end(v)) for v in (low, high) for end in _ENDS):
                raise InputError(f"input {i}: an end is beyond float64; give a smaller number")
            if low > high:
                raise InputError(
                    f"input {i}: the lower end {float(low)!r} is above the upper end "
                    f"{float(high)!r}; swap them"
                )
            if low != high and float_above(low) > float_below(high):
                raise InputError(f"input {i}: no float64 lies between the ends; widen the box")

    @property
    def scope(self) -> str:
        """``global``: a statement about every input in the box."""
        return "global"

    @property
    def size(self) -> int:
        """How many numbers an input holds."""
        return len(self.lower)

    def outer(self) -> tuple[Array, Array]:
        """Return the ends rounded outward, for proofs."""
        lower = np.array([float_below(v) for v in self.lower])
        return lower, np.array([float_above(v) for v in self.upper])

    def inner(self) -> tuple[Array, Array]:
        """Return the ends rounded inward, for witnesses (nearest where both ends agree)."""
        same = [a == b for a, b in zip(self.lower, self.upper, strict=True)]
        lower = [float(a) if s else float_above(a) for a, s in zip(self.lower, same, strict=True)]
        upper = [float(b) if s else float_below(b) for b, s in zip(self.upper, same, strict=True)]
        return np.array(lower), np.array(upper)

    def contains(self, x: Array) -> bool:
        """Whether the float64 vector ``x`` lies in the box, exactly.

        A coordinate whose two ends agree is met by the float64 nearest to it.
        """
        if not np.isfinite(x).all():
            return False
        for value, low, high in zip(x, self.lower, self.upper, strict=True):
            inside = low <= Fraction(float(value)) <= high
            if not inside and not (low == high and float(value) == float(low)):
                return False
        return True


@dataclass(frozen=True)
class Point:
    """One input: a float64 vector, flattened (a decimal that was typed means its nearest)."""

    x: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.x)):
            raise InputError("a point with NaN or infinity in it; give finite numbers")

    @property
    def scope(self) -> str:
        """``local``: a statement about this input alone."""
        return "local"

    @property
    def size(self) -> int:
        """How many numbers an input holds."""
        return len(self.x)

    def outer(self) -> tuple[Array, Array]:
        """Return the point twice."""
        return np.array(self.x), np.array(self.x)

    def inner(self) -> tuple[Array, Array]:
        """Return the point twice."""
        return self.outer()

    def contains(self, x: Array) -> bool:
        """Whether ``x`` is this point."""
        return bool(np.array_equal(np.asarray(x, dtype=np.float64), np.array(self.x)))

    def centre(self) -> Array:
        """Return the point."""
        return np.array(self.x)


@dataclass(frozen=True)
class Ball:
    """All inputs within ``radius`` of a point, coordinate by coordinate.

    The reference is taken at the point itself, so that labels and confidences are compared with
    those of the input that was not moved. Without a perturbation of parameters that is ordinary
    robustness to inputs.
    """

    x: tuple[float, ...]
    radius: Fraction

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.x)):
            raise InputError("a point with NaN or infinity in it; give finite numbers")
        if self.radius < 0:
            raise InputError("the input radius is negative; give 0 or more")
        self._box()

    def _box(self) -> Box:
        ends = [(Fraction(v) - self.radius, Fraction(v) + self.radius) for v in self.x]
        return Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))

    @property
    def scope(self) -> str:
        """``local``: a statement about the neighbourhood of one input."""
        return "local"

    @property
    def size(self) -> int:
        """How many numbers an input holds."""
        return len(self.x)

    def outer(self) -> tuple[Array, Array]:
        """Return the ends rounded outward, for proofs."""
        return self._box().outer()

    def inner(self) -> tuple[Array, Array]:
        """Return the ends rounded inward, for witnesses; the point lies between them."""
        low, high = self._box().inner()
        return np.minimum(low, self.x), np.maximum(high, self.x)

    def contains(self, x: Array) -> bool:
        """Whether ``x`` lies in the ball, exactly."""
        return self._box().contains(x)

    def centre(self) -> Array:
        """Return the point, where the reference is taken."""
        return np.array(self.x)


Domain = Box | Point | Ball


def box_from_floats(lower: Sequence[float], upper: Sequence[float]) -> Box:
    """Return the box whose ends are exactly these float64 numbers.

    Raises:
        InputError: an end is NaN or infinite, or a lower end is above its upper end.
    """
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise InputError("a box with NaN or infinity in it; give finite numbers")
    return Box(tuple(Fraction(float(v)) for v in lower), tuple(Fraction(float(v)) for v in upper))

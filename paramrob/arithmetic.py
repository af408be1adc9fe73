r"""The floating-point arithmetic that a network is deployed in, and what it may be off by.

A network is stored in one format and accumulates in another, at least as wide. The model of one
operation is ``fl(a op b) = (a op b)(1 + d) + e`` with ``|d| <= u`` and ``|e| <= nu``, where ``u``
is the unit roundoff and ``nu`` the smallest normal number: that covers gradual underflow as well
as subnormal operands and results taken for zero. A sum of ``n`` products is then off by at most
``gamma_n = n u / (1 - n u)`` relative to each product, in any order and with or without fused
multiply-add (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.1), plus
underflow. Overflow is not in the model: whoever uses it proves that there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paramrob.errors import BackendError, InputError
from paramrob.models.network import Array

UP = 1.0 + 2.0**-30
"""Covers the float64 rounding of whatever is computed here, sums of many terms included."""
ACTIVATION_ULPS = 4
"""How many units in the last place a library's exp, tanh, sigmoid or erf may be off by."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: as on the command line.
        precision: bits of the significand, the hidden one included.
        exponent: of the largest numbers.
    """

    name: str
    precision: int
    exponent: int

    @property
    def unit(self) -> float:
        """The unit roundoff ``u``: the relative error of rounding to nearest."""
        return 2.0**-self.precision

    @property
    def smallest(self) -> float:
        """The smallest normal number ``nu``."""
        return 2.0 ** (1 - self.exponent)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.exponent

    def holds(self, values: Array) -> npt.NDArray[np.bool_]:
        """Return where a value is 0 or a normal number of the format."""
        size = np.abs(values)
        mantissa = np.frexp(size)[0] * 2.0**self.precision
        inside = (size >= self.smallest) & (size <= self.largest)
        return np.asarray((size == 0) | (inside & (mantissa == np.rint(mantissa))))

    def nearest(self, values: Array) -> Array:
        """Round float64 values to the format, ties to even; what is too large stays as it is."""
        exponent = np.maximum(np.frexp(values)[1], 2 - self.exponent)
        scaled = np.ldexp(values, self.precision - exponent)
        with np.errstate(over="ignore"):
            found = np.ldexp(np.rint(scaled), exponent - self.precision)
        return np.asarray(np.where(np.abs(found) <= self.largest, found, values))


FLOAT64 = Format("float64", 53, 1023)
FLOAT32 = Format("float32", 24, 127)
FLOAT16 = Format("float16", 11, 15)
BFLOAT16 = Format("bfloat16", 8, 127)
STORED = {f.name: f for f in (FLOAT32, FLOAT16, BFLOAT16)}
ACCUMULATED = {f.name: f for f in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)}


def upward(bound: Array) -> Array:
    """Return a little more than each positive number, 0 where it is 0; NaN stays NaN."""
    return np.asarray(np.where(bound == 0, 0.0, np.nextafter(bound * UP, np.inf)))


@dataclass(frozen=True)
class Arithmetic:
    """Numbers are stored in ``storage``; products and sums are formed in ``accumulator``."""

    storage: Format
    accumulator: Format

    @property
    def name(self) -> str:
        """The storage format's name: what reports call the semantics."""
        return self.storage.name

    @property
    def rounds_once(self) -> bool:
        """Whether a result needs no further rounding to be stored."""
        return self.storage == self.accumulator

    def gamma(self, roundings: int, where: str) -> float:
        """Return ``gamma_n`` of the accumulator, rounded up.

        Args:
            roundings: how many may act on one product.
            where: the layer, for the error message.

        Raises:
            BackendError: ``n u >= 1``, where no bound holds.
        """
        lost = roundings * self.accumulator.unit
        if lost >= 1:
            raise BackendError(
                f"layer {where!r}: {roundings} roundings to {self.accumulator.name} leave no digit "
                "of a sum; choose a wider --accumulate"
            )
        return lost / (1 - lost) * UP

    def stored_radius(self, name: str, centre: Array, radius: Array) -> Array:
        """Return the half-width that a parameter's interval has once its values are stored.

        A value that does not move, and that is 0 or a normal number of the format, is exact.

        Args:
            name: of the parameter, for the error message.
            centre: of the interval.
            radius: its half-width, rounded up.

        Returns:
            The half-width, infinite where the box holds values too large for the format.

        Raises:
            BackendError: a value is too large for the format even if it does not move.
        """
        if not (np.abs(centre) <= self.storage.largest).all():
            raise BackendError(
                f"parameter {name!r} holds {float(np.abs(centre).max())!r}, beyond the largest "
                f"{self.name} {self.storage.largest!r}; choose a wider --arithmetic"
            )
        size = np.abs(centre) + radius
        exact = (radius == 0) & self.storage.holds(centre)
        tiny = np.where(np.abs(centre) - radius > UP * self.storage.smallest, 0.0, size)
        wide = np.where(exact, 0.0, upward(radius + self._rounding(size, tiny)))
        return np.asarray(np.where(size * UP < self.storage.largest, wide, np.inf))

    def _rounding(self, size: Array, tiny: Array) -> Array:
        """Bound the rounding of values up to ``size``, those below ``tiny`` perhaps to zero."""
        return np.maximum(self.storage.unit * size, np.minimum(tiny, self.storage.smallest))

    def stored_box(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Enclose inputs in a box once they are stored; infinite where they are too large."""
        ends = []
        for end, sign in ((low, -1.0), (high, 1.0)):
            size = np.abs(end)
            lost = upward(self._rounding(size, np.where(size <= 2 * self.storage.smallest, 1, 0)))
            moved = np.nextafter(end + sign * lost, sign * np.inf)
            found = np.where(self.storage.holds(end), end, moved)
            ends.append(np.where(np.abs(found) < self.storage.largest, found, sign * np.inf))
        return ends[0], ends[1]

    def nearest_between(self, values: Array, low: Array, high: Array) -> Array:
        """Round float64 values to the storage format where they stay between two ends."""
        found = self.storage.nearest(values)
        return np.asarray(np.where((found >= low) & (found <= high), found, values))

    def link_error(self, link: str, outputs: int) -> float:
        """Bound how far a last sigmoid's or softmax's results are off, for exact inputs.

        The softmax subtracts the largest logit first. A rounded exponent ``-d`` costs
        ``u d exp(-d) <= 0.4 u``, all of them ``log n u`` in the sum; numerator and terms are off
        by their ulps, sum and quotient are rounded.

        Args:
            link: ``sigmoid``, ``softmax`` or ``identity``.
            outputs: how many.

        Returns:
            An absolute error; infinite where there is no bound.

        Raises:
            BackendError: the sum of a softmax has no bound in the accumulator.
        """
        unit, smallest = self.storage.unit, self.storage.smallest
        if link == "identity":
            return 0.0
        one = 2 * ACTIVATION_ULPS * unit
        if link == "sigmoid":
            return one + 2 * smallest
        summed = self.gamma(outputs + 4, "softmax")
        lost = 2 * one + (8 + outputs.bit_length()) * unit + summed + 8 * outputs * smallest
        return 1.25 * lost if lost <= 0.2 else math.inf

    def link_lead(self, link: str, outputs: int) -> float:
        """Return by how much a logit has to lead so that its share of a softmax does too.

        All shares are divided by one and the same sum, so that only the exponentials' own errors
        count, and underflow, which is relative to a share of at least ``1 / outputs``.
        """
        if link != "softmax":
            return 0.0
        lost = (2 * ACTIVATION_ULPS + 4) * self.storage.unit
        lost += 4 * outputs * self.storage.smallest
        if lost >= 0.5:
            return math.inf
        return (math.log1p(lost) - math.log1p(-lost)) / (1 - self.storage.unit) * UP

    def as_json(self) -> dict[str, str]:
        """Return the report's entries."""
        return {"semantics": self.name, "accumulate": self.accumulator.name}

    def assumptions(self) -> tuple[str, ...]:
        """Return in sentences what a statement about this arithmetic takes for granted."""
        name, sums = self.name, self.accumulator.name
        return (
            f"the network runs in {name}: parameters and inputs are rounded to it, each layer "
            f"forms products and sums in {sums} or wider, in any order, with or without fused "
            f"multiply-add, and rounds its results to {name}, always to nearest; subnormal numbers "
            "are kept or taken for zero",
            f"exp, tanh, sigmoid and erf are off by at most {ACTIVATION_ULPS} units in the last "
            f"place of {name} (sigmoid, tanh and erf: of 1)",
            "TF32, Winograd and FFT convolutions, partial sums kept in less than "
            f"{sums}, and layers fused so that their weights change are not covered",
        )


def arithmetic_from(name: str = "real", accumulate: str | None = None) -> Arithmetic | None:
    """Return the arithmetic that two options name; ``None`` for real numbers.

    Args:
        name: ``real``, ``float32``, ``float16`` or ``bfloat16``.
        accumulate: ``float32`` by default; the format's own, ``float32`` or ``float64``.

    Raises:
        InputError: no such format, or an accumulator that does not hold the format's numbers.
    """
    if name == "real":
        if accumulate is not None:
            raise InputError(
                "--accumulate goes with --arithmetic float32, float16 or bfloat16; real numbers "
                "are not rounded"
            )
        return None
    storage, accumulator = STORED.get(name), ACCUMULATED.get(accumulate or "float32")
    if storage is None:
        raise InputError(f"no arithmetic {name!r}; choose real, {', '.join(STORED)}")
    if accumulator is None:
        raise InputError(f"no format {accumulate!r} to accumulate in; choose from {_names()}")
    narrow = accumulator.precision < storage.precision or accumulator.exponent < storage.exponent
    if narrow:
        raise InputError(
            f"--accumulate {accumulator.name} does not hold the numbers of {name}; choose {name}, "
            "float32 or float64"
        )
    return Arithmetic(storage, accumulator)


def _names() -> str:
    return ", ".join(ACCUMULATED)

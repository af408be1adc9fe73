"""Which parameter vectors are possible: a box, each parameter in an interval of its own.

The ends are exact rationals ``w - r .. w + r`` with ``r = absolute + relative * |w|``, or float64
numbers given one by one. Proofs use them rounded outward to float64, witnesses rounded inward,
replay the exact ends themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from paramrob.errors import InputError
from paramrob.exact import decimal_text, float_above, float_below
from paramrob.models.network import Array, Network, Parameter

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ParameterInterval:
    """The interval of every value of one parameter: ``|p - w| <= absolute + relative * |w|``."""

    centre: Array
    absolute: Fraction = Fraction(0)
    relative: Fraction = Fraction(0)

    def radius(self) -> Array:
        """Return the radius rounded up, of the parameter's shape."""
        if self.absolute == 0 and self.relative == 0:
            return np.zeros_like(np.asarray(self.centre))
        product = float_above(self.relative) * np.abs(self.centre)
        if self.relative:
            product = np.nextafter(product, np.inf)
        if self.absolute == 0:
            return np.asarray(product)
        total = product + float_above(self.absolute)
        return np.asarray(np.nextafter(total, np.inf) if self.relative else total)

    def inner(self) -> tuple[Array, Array]:
        """Return ends rounded into the interval; the centre always lies between them.

        Without a relative part they are the float64 numbers next to the ends, and the ends
        themselves where these are such numbers.
        """
        down: Array | float = float_below(self.absolute)
        if self.relative:
            product = float_below(self.relative) * np.abs(self.centre)
            product = np.maximum(np.nextafter(product, -np.inf), 0.0)
            down = np.maximum(np.nextafter(product + down, -np.inf), 0.0)
        lower = np.minimum(_sum_above(self.centre, -down), self.centre)
        upper = np.maximum(-_sum_above(-self.centre, -down), self.centre)
        return np.asarray(lower), np.asarray(upper)

    def exact(self, index: int) -> tuple[Fraction, Fraction]:
        """Return the exact ends of the value at flat ``index``."""
        w = Fraction(float(self.centre.flat[index]))
        r = self.absolute + self.relative * abs(w)
        return w - r, w + r

    def start(self) -> Array:
        """Return values that are possible: the centre."""
        return self.centre

    def possible(self, values: Array) -> Array:
        """Return possible values near float64 ``values`` that lie between :meth:`inner`."""
        return values


@dataclass(frozen=True)
class GivenInterval(ParameterInterval):
    """The interval of every value of one parameter between two given arrays, ends included.

    ``centre`` is the middle, rounded; it need not be the stored value. ``only_ends``: no value
    strictly between the ends is possible. ``stored`` is the value in the network.
    """

    lower: Array = field(kw_only=True)
    upper: Array = field(kw_only=True)
    stored: Array = field(kw_only=True)
    only_ends: bool = False

    @classmethod
    def between(
        cls, lower: Array, upper: Array, stored: Array, only_ends: bool = False
    ) -> GivenInterval:
        """Return the interval between finite arrays of one shape, ``lower <= upper``."""
        middle = np.where(lower == upper, lower, lower + (upper - lower) / 2)
        middle = np.minimum(np.maximum(middle, lower), upper)
        return cls(middle, lower=lower, upper=upper, stored=stored, only_ends=only_ends)

    def radius(self) -> Array:
        """Return the distance of the farther end from the centre, rounded up."""
        radius = np.maximum(self.upper - self.centre, self.centre - self.lower)
        return np.where(self.lower == self.upper, 0.0, np.nextafter(radius, np.inf))

    def inner(self) -> tuple[Array, Array]:
        """Return the ends, which are float64 numbers."""
        return self.lower, self.upper

    def exact(self, index: int) -> tuple[Fraction, Fraction]:
        """Return the ends of the value at flat ``index``."""
        ends = (self.lower.flat[index], self.upper.flat[index])
        low, high = (Fraction(float(end)) for end in ends)
        return low, high

    def start(self) -> Array:
        """Return possible values near the stored ones."""
        return self.possible(np.minimum(np.maximum(self.stored, self.lower), self.upper))

    def possible(self, values: Array) -> Array:
        """Return the nearer end where nothing between the ends is possible."""
        if not self.only_ends:
            return values
        return np.where(self.upper - values < values - self.lower, self.upper, self.lower)

    def first_outside(self, values: Array) -> int | None:
        """Return the flat index of the first value that is not possible."""
        inside = (values >= self.lower) & (values <= self.upper)
        if self.only_ends:
            inside = (values == self.lower) | (values == self.upper)
        outside = np.flatnonzero(~np.asarray(inside).ravel())
        return int(outside[0]) if outside.size else None


@dataclass(frozen=True)
class PartialInterval(ParameterInterval):
    """The interval of a parameter of which only some values move.

    ``moves`` says which, of the parameter's shape.
    """

    moves: Mask = field(kw_only=True)

    def radius(self) -> Array:
        """Return the radius rounded up, 0 where nothing moves."""
        return np.where(self.moves, super().radius(), 0.0)

    def inner(self) -> tuple[Array, Array]:
        """Return ends rounded into the interval; both are the centre where nothing moves."""
        lower, upper = super().inner()
        return (
            np.where(self.moves, lower, self.centre),
            np.where(self.moves, upper, self.centre),
        )

    def exact(self, index: int) -> tuple[Fraction, Fraction]:
        """Return the exact ends of the value at flat ``index``."""
        if self.moves.flat[index]:
            return super().exact(index)
        w = Fraction(float(self.centre.flat[index]))
        return w, w

    def first_moved(self, values: Array) -> int | None:
        """Return the flat index of the first value that differs though it cannot move."""
        moved = np.flatnonzero((~self.moves & (values != self.centre)).ravel())
        return int(moved[0]) if moved.size else None


class Perturbation:
    """A box of parameter vectors around those of a network.

    Args:
        absolute: half-width of each parameter named, by parameter name.
        relative: additional half-width as a fraction of the magnitude.
        kind: ``uniform``, ``layers`` or ``none``; for reports.
        description: what was asked for, for reports.

    Raises:
        InputError: a half-width is negative or beyond float64.
    """

    def __init__(
        self,
        absolute: Mapping[str, Fraction],
        relative: Mapping[str, Fraction] | None = None,
        kind: str = "layers",
        description: Mapping[str, object] | None = None,
    ) -> None:
        self._absolute = MappingProxyType(dict(absolute))
        self._relative = MappingProxyType(dict(relative or {}))
        self._given: Mapping[str, tuple[Array, Array]] = MappingProxyType({})
        self._moves: Mapping[str, Mask] = MappingProxyType({})
        self.kind = kind
        self.description = dict(description or {})
        self.only_ends = False
        self.words: str | None = None
        for name, value in (*self._absolute.items(), *self._relative.items()):
            if value < 0:
                raise InputError(f"the perturbation of {name!r} is negative; give 0 or more")
            if math.isinf(float_above(value)):
                raise InputError(f"the perturbation of {name!r} is beyond float64; give less")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that have an interval, some perhaps of width zero, in a fixed order."""
        return tuple(dict.fromkeys((*self._absolute, *self._relative, *self._given)))

    @property
    def is_given(self) -> bool:
        """Whether the ends were given one by one, by :meth:`explicit`."""
        return bool(self._given)

    @property
    def is_part(self) -> bool:
        """Whether only some values of a parameter move, by :meth:`only`."""
        return bool(self._moves)

    @classmethod
    def uniform(
        cls, network: Network, delta: Fraction, leave_out: Iterable[str] = ()
    ) -> Perturbation:
        """Return ``|p - p0| <= delta`` for every parameter but those of ``leave_out`` layers.

        Fixed parameters (running statistics) keep their values.

        Raises:
            InputError: no such layer, a layer to leave out that shares a parameter with one
                that stays in, or a negative delta.
        """
        layers = network.layer_parameters()
        leave_out = list(leave_out)
        for name in leave_out:
            if name not in layers:
                raise InputError(f"no layer {name!r}; layers with parameters: {sorted(layers)}")
        fixed = {p for name in leave_out for p in layers[name]}
        for name, used in layers.items():
            shared = sorted(fixed & set(used))
            if shared and name not in leave_out:
                raise InputError(
                    f"layer {name!r} shares {shared} with a layer to leave out; "
                    "leave out both or neither"
                )
        if delta < 0:
            raise InputError("delta is negative; give 0 or more")
        fixed |= {name for name, parameter in network.parameters.items() if parameter.fixed}
        absolute = {name: delta for name in network.parameters if name not in fixed}
        said: dict[str, object] = {"delta": decimal_text(delta)}
        if leave_out:
            said["leave_out"] = leave_out
        return cls(absolute, kind="uniform", description=said)

    @classmethod
    def explicit(
        cls,
        ends: Mapping[str, tuple[Array, Array]],
        kind: str,
        description: Mapping[str, object] | None = None,
        only_ends: bool = False,
        words: str | None = None,
    ) -> Perturbation:
        """Return a box whose ends are given value by value; it need not hold the trained values.

        Args:
            ends: lower and upper ends by parameter name, float64 arrays of the parameter's
                shape. Equal ends fix a parameter at a value, such as a rounded one.
            kind: for reports.
            description: what was asked for, for reports.
            only_ends: whether each value is one of its two ends, as a rounded parameter lies on
                one of its neighbours. Proofs cover all that lies between; a counterexample
                counts only where every parameter is an end.
            words: the box in words, for reports.

        Raises:
            InputError: ends of different shapes, that cross or that are not finite.
        """
        made = cls({}, kind=kind, description=description)
        given = {}
        for name, (low, high) in ends.items():
            lower, upper = (np.array(end, dtype=np.float64) for end in (low, high))
            if lower.shape != upper.shape:
                raise InputError(f"parameter {name!r}: ends of shapes {lower.shape}, {upper.shape}")
            with np.errstate(over="ignore", invalid="ignore"):
                is_interval = (lower <= upper) & np.isfinite(upper - lower)
            if not is_interval.all():
                raise InputError(
                    f"parameter {name!r}: the ends of an interval cross or are not finite"
                )
            for end in (lower, upper):
                end.flags.writeable = False
            given[name] = (lower, upper)
        made._given = MappingProxyType(given)
        made.only_ends, made.words = only_ends, words
        return made

    def only(self, parts: Mapping[str, Mask | None]) -> Perturbation:
        """Return the part of this box in which all other parameters keep their trained values.

        Args:
            parts: parameters that move, by name; where only some of their values do, an array of
                the parameter's shape that says which. Names without an interval are ignored.
        """
        made = Perturbation(
            {name: size for name, size in self._absolute.items() if name in parts},
            {name: size for name, size in self._relative.items() if name in parts},
            "part",
            {"of": self.as_json(), "parameters": [n for n in self.parameters if n in parts]},
        )
        made._given = MappingProxyType({n: e for n, e in self._given.items() if n in parts})
        made._moves = MappingProxyType({n: m for n, m in parts.items() if m is not None})
        made.only_ends = self.only_ends
        names = (f"{n} (in part)" if n in made._moves else n for n in made.parameters)
        made.words = f"part of a box: only {', '.join(names)} may differ from the trained values"
        return made

    def scaled(self, delta: Fraction) -> Perturbation:
        """Return the uniform box of half-width ``delta`` on the parameters of this one.

        Raises:
            InputError: the ends were given one by one.
        """
        if self.is_given or self.is_part:
            raise InputError("a box given value by value has no delta; give --delta")
        said = dict(self.description) | {"delta": decimal_text(delta)}
        return Perturbation(dict.fromkeys(self.parameters, delta), kind="uniform", description=said)

    def interval(self, parameter: Parameter) -> ParameterInterval:
        """Return the interval of one parameter (a point where it is not perturbed).

        Raises:
            InputError: ends were given of another shape than the parameter's.
        """
        if parameter.name in self._given:
            lower, upper = self._given[parameter.name]
            if lower.shape != parameter.value.shape:
                raise InputError(
                    f"parameter {parameter.name!r} has shape {parameter.value.shape}, its ends "
                    f"{lower.shape}"
                )
            if (moves := self._moves.get(parameter.name)) is not None:
                lower, upper = (np.where(moves, end, parameter.value) for end in (lower, upper))
            return GivenInterval.between(lower, upper, parameter.value, self.only_ends)
        sizes = (
            self._absolute.get(parameter.name, Fraction(0)),
            self._relative.get(parameter.name, Fraction(0)),
        )
        if (moves := self._moves.get(parameter.name)) is not None:
            return PartialInterval(parameter.value, *sizes, moves=moves)
        return ParameterInterval(parameter.value, *sizes)

    def as_json(self) -> dict[str, object]:
        """Return the report's ``perturbation`` object."""
        return {"kind": self.kind, **self.description}


def _sum_above(a: Array, b: Array | float) -> Array:
    """Return ``a + b``, the next float64 where rounding went below it.

    The rounding error is computed exactly (Knuth, The Art of Computer Programming, vol. 2, 4.2.2).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = a + b
        rest = total - a
        error = (a - (total - rest)) + (b - rest)
    # Where the sum overflows the error is no number, and the largest float64 lies inside.
    return np.where(error <= 0, total, np.nextafter(total, np.inf))

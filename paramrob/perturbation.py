"""Which parameter vectors are possible: a box, each parameter in an interval of its own.

The ends are exact rationals ``w - r .. w + r`` with ``r = absolute + relative * |w|``. Proofs use
them rounded outward to float64, witnesses rounded inward, replay the rationals themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import numpy as np

from paramrob.errors import InputError
from paramrob.exact import decimal_text, float_above, float_below
from paramrob.models.network import Array, Network, Parameter


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
        self.kind = kind
        self.description = dict(description or {})
        for name, value in (*self._absolute.items(), *self._relative.items()):
            if value < 0:
                raise InputError(f"the perturbation of {name!r} is negative; give 0 or more")
            if math.isinf(float_above(value)):
                raise InputError(f"the perturbation of {name!r} is beyond float64; give less")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that have an interval, some perhaps of width zero, in a fixed order."""
        return tuple(dict.fromkeys((*self._absolute, *self._relative)))

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

    def scaled(self, delta: Fraction) -> Perturbation:
        """Return the uniform box of half-width ``delta`` on the parameters of this one."""
        said = dict(self.description) | {"delta": decimal_text(delta)}
        return Perturbation(dict.fromkeys(self.parameters, delta), kind="uniform", description=said)

    def interval(self, parameter: Parameter) -> ParameterInterval:
        """Return the interval of one parameter (a point where it is not perturbed)."""
        return ParameterInterval(
            parameter.value,
            self._absolute.get(parameter.name, Fraction(0)),
            self._relative.get(parameter.name, Fraction(0)),
        )

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

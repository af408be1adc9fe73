"""Which two inputs a picture shows, and what the others do meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from paramrob.domain import Box
from paramrob.errors import InputError
from paramrob.exact import parse_decimal
from paramrob.models.model import Model
from paramrob.requests.domains import Number, inputs_said
from paramrob.requests.suggest import nearest

Fixes = Mapping[str, Number] | Sequence[str]


@dataclass(frozen=True)
class Axis:
    """One input: its index, its name (``x0``, ``x1``, ... where the model has none), its unit."""

    index: int
    name: str
    unit: str | None = None

    @property
    def title(self) -> str:
        """Name and unit, as an axis shows them."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class View:
    """A plane through the inputs.

    Attributes:
        x: the input along the horizontal axis.
        y: the input along the vertical one.
        fixed: inputs that keep one value, by an option or because their range is one.
        free: inputs that range over the whole box wherever the point on the plane lies.
        box: of all inputs; both ends of a fixed one are its value.
    """

    x: Axis
    y: Axis
    fixed: tuple[tuple[Axis, Fraction], ...]
    free: tuple[Axis, ...]
    box: Box

    @property
    def axes(self) -> tuple[int, int]:
        """The indices of the two inputs shown."""
        return self.x.index, self.y.index


def choose_view(
    model: Model, box: Box, x: str | None = None, y: str | None = None, fix: Fixes = ()
) -> View:
    """Return the plane that the options name.

    The two axes may be left out where only two inputs are not fixed.

    Args:
        model: whose inputs are meant.
        box: their ranges.
        x: name of the input along the horizontal axis.
        y: name of the input along the vertical axis.
        fix: values by name, or texts ``NAME=VALUE``.

    Raises:
        InputError: an unknown name, an input named twice, no two inputs to show, or one of
            them without width.
    """
    axes = _axes(model)
    values = _fixed(axes, fix)
    shown = _shown(model, axes, values, x, y)
    lower, upper = list(box.lower), list(box.upper)
    for index, value in values.items():
        lower[index] = upper[index] = value
    for axis in shown:
        if lower[axis.index] == upper[axis.index]:
            raise InputError(
                f"input {axis.name!r} has no width in this domain; give it one with --domain, or "
                "choose another one"
            )
    others = [a for a in axes if a not in shown]
    return View(
        *shown,
        fixed=tuple((a, lower[a.index]) for a in others if lower[a.index] == upper[a.index]),
        free=tuple(a for a in others if lower[a.index] != upper[a.index]),
        box=Box(tuple(lower), tuple(upper)),
    )


def _axes(model: Model) -> list[Axis]:
    size = model.network.input_size
    names = model.inputs.names or [f"x{i}" for i in range(size)]
    units = model.inputs.units or [None] * size
    return [
        Axis(i, name, unit or None) for i, (name, unit) in enumerate(zip(names, units, strict=True))
    ]


def _named(axes: list[Axis], name: str, option: str) -> Axis:
    for axis in axes:
        if axis.name == name:
            return axis
    raise InputError(f"{option}: no input {name!r}; {nearest(name, [a.name for a in axes])}")


def _fixed(axes: list[Axis], fix: Fixes) -> dict[int, Fraction]:
    pairs: list[tuple[str, Number]] = []
    if isinstance(fix, Mapping):
        pairs = list(fix.items())
    else:
        for text in fix:
            given, sign, number = text.rpartition("=")
            if not sign:
                raise InputError(f"--fix {text!r}: give NAME=VALUE, such as --fix age=30")
            pairs.append((given.strip(), number))
    values: dict[int, Fraction] = {}
    for name, value in pairs:
        index = _named(axes, name, "--fix").index
        if index in values:
            raise InputError(f"--fix: {name!r} is fixed twice; give one value")
        values[index] = parse_decimal(value, f"--fix {name}")
    return values


def _shown(
    model: Model, axes: list[Axis], values: Mapping[int, Fraction], x: str | None, y: str | None
) -> tuple[Axis, Axis]:
    if len(axes) < 2:
        raise InputError(
            "a heatmap shows two inputs and the model takes one; use paramrob estimate"
        )
    named = [None if n is None else _named(axes, n, f"--{o}") for o, n in (("x", x), ("y", y))]
    for axis in named:
        if axis is not None and axis.index in values:
            raise InputError(
                f"{axis.name!r} is an axis and fixed at once; leave out one of the two"
            )
    if named[0] is not None and named[0] == named[1]:
        raise InputError(f"--x and --y are both {named[0].name!r}; choose two inputs")
    left = [a for a in axes if a.index not in values and a not in named]
    if len(left) > sum(axis is None for axis in named) and None in named:
        raise InputError(
            f"the model takes {inputs_said(model)}, a heatmap shows two: choose them with --x NAME "
            "--y NAME; --fix NAME=VALUE fixes another one, the rest is free"
        )
    if len(left) < sum(axis is None for axis in named):
        raise InputError("fewer than two inputs are left to show; fix fewer of them with --fix")
    first, second = (axis or left.pop(0) for axis in named)
    return first, second

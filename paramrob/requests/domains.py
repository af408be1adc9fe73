"""Domains and points from options, files and Python values."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from paramrob.domain import Box, Point
from paramrob.errors import InputError
from paramrob.exact import parse_decimal
from paramrob.models.model import Model
from paramrob.models.network import Array
from paramrob.requests.suggest import nearest
from paramrob.requests.tables import (
    Table,
    input_columns,
    is_number,
    number_cells,
    read_table,
    read_toml,
)

Number = str | int | float | Fraction
Pair = tuple[Number, Number]
DomainLike = Box | str | Path | Pair | Sequence[Pair]
PointsLike = str | Path | Sequence[float] | Sequence[Sequence[float]] | Array

_EXAMPLE = 'pairs such as "6.3:20.5,2.0:3.9"'


def parse_domain(value: DomainLike, model: Model) -> Box:
    """Return the box that ``--domain`` or the API's ``domain`` means.

    One pair is used for every input. Text that is no list of pairs is a CSV or TOML file with
    ``lower`` and ``upper``.

    Raises:
        InputError: unreadable, a wrong number of inputs, or a lower end above its upper end.
    """
    if isinstance(value, Box):
        return _sized([*zip(value.lower, value.upper, strict=True)], model)
    if isinstance(value, (str, Path)):
        return _sized(_pairs_from_text(value, model), model)
    values: Any = value
    if not isinstance(values, np.ndarray) and not isinstance(values, Sequence):
        raise InputError(f"domain: expected {_EXAMPLE}, got {type(value).__name__}")
    items = list(values)
    if len(items) == 2 and all(_is_scalar(item) for item in items):
        items = [items]
    pairs = []
    for item in items:
        if _is_scalar(item) or len(item) != 2:
            raise InputError("domain: give one (lower, upper) pair, or one such pair an input")
        pairs.append((_exact(item[0]), _exact(item[1])))
    return _sized(pairs, model)


def assumed_box(model: Model) -> tuple[Box, str | None]:
    """Return the sidecar's box, else [0,1]^n with the sentence that says so."""
    size = model.network.input_size
    if model.inputs.lower is not None and model.inputs.upper is not None:
        pairs = [*zip(model.inputs.lower, model.inputs.upper, strict=True)]
        return _sized(pairs, model, broadcast=False), None
    box = Box((Fraction(0),) * size, (Fraction(1),) * size)
    return box, f"every input lies in [0, 1] ({size} input(s); give --domain or a sidecar)"


def bounding_box(path: str | Path, model: Model) -> Box:
    """Return the exact bounding box of a CSV file's rows.

    Raises:
        InputError: unreadable, missing columns, or cells that are no numbers.
    """
    what = "--domain-from"
    table = read_table(path, what)
    cells = number_cells(table, input_columns(table, model, what), what)
    columns = [[Decimal(cell) for cell in column] for column in zip(*cells, strict=True)]
    lower = tuple(Fraction(min(column)) for column in columns)
    return Box(lower, tuple(Fraction(max(column)) for column in columns))


def parse_points(value: PointsLike, model: Model) -> tuple[list[Point], list[int] | None]:
    """Return the points that ``--at`` or the API's ``at`` means, and their true classes.

    Text is a list of numbers, else the path of a CSV file (header optional) or of an ``.npz``
    with ``x`` of shape ``(points, *input shape)`` and optionally integer ``y``.

    Raises:
        InputError: unreadable, empty, or a wrong number of inputs.
    """
    if isinstance(value, (str, Path)):
        return _points_from_text(value, model)
    try:
        x = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("at: expected one point or a list of points of equal length") from None
    shape = model.network.input_shape
    if x.shape in (shape, (model.network.input_size,)):
        x = x.reshape(1, -1)
    return _points_from_array(x, model, "at"), None


def _is_scalar(item: object) -> bool:
    return isinstance(item, (str, int, float, Fraction, np.number))


def _exact(item: object) -> Fraction:
    if isinstance(item, np.number):
        item = item.item()
    if not isinstance(item, (str, int, float, Fraction)):
        raise InputError(f"domain: expected a number, got {item!r}")
    return parse_decimal(item, "domain")


def inputs_said(model: Model) -> str:
    """Return e.g. ``2 input(s) (Hwt, Bwt)``."""
    names = model.inputs.names
    listed = f" ({', '.join(names)})" if names and len(names) <= 12 else ""
    return f"{model.network.input_size} input(s){listed}"


def _sized(pairs: list[tuple[Fraction, Fraction]], model: Model, broadcast: bool = True) -> Box:
    size = model.network.input_size
    if len(pairs) == 1 and broadcast:
        pairs = pairs * size
    if len(pairs) != size:
        raise InputError(
            f"the model takes {inputs_said(model)}, the domain has {len(pairs)}; give one "
            "lower:upper pair for each input, or a single pair for all"
        )
    lower, upper = zip(*pairs, strict=True)
    return Box(tuple(lower), tuple(upper))


def _pairs_from_text(value: str | Path, model: Model) -> list[tuple[Fraction, Fraction]]:
    text = str(value).strip()
    pieces = [piece.split(":") for piece in text.split(",")]
    if ":" in text and not Path(text).is_file():
        if any(len(piece) != 2 for piece in pieces):
            raise InputError(f"--domain: {text!r} is neither a file nor {_EXAMPLE}")
        ends = [[parse_decimal(end, "--domain") for end in piece] for piece in pieces]
        return [(low, high) for low, high in ends]
    if not text or not Path(text).exists():
        raise InputError(f"--domain: {text!r} is neither a file nor {_EXAMPLE}")
    if Path(text).suffix.lower() == ".toml":
        return _pairs_from_toml(text)
    return _pairs_from_csv(read_table(text, "--domain"), model)


def _pairs_from_toml(path: str) -> list[tuple[Fraction, Fraction]]:
    read = read_toml(path, "--domain")
    for key in read:
        if key not in ("lower", "upper"):
            raise InputError(f"--domain: {path}: no key {key!r}; {nearest(key, _ENDS)}")
    ends = []
    for key in _ENDS:
        if not isinstance(read.get(key), list):
            raise InputError(f"--domain: {path} needs {key} = [...], one number an input")
        ends.append([parse_decimal(item, f"--domain: {path}: {key}") for item in read[key]])
    if len(ends[0]) != len(ends[1]):
        raise InputError(f"--domain: {path}: {len(ends[0])} lower ends, {len(ends[1])} upper ends")
    return list(zip(*ends, strict=True))


_ENDS = ("lower", "upper")


def _pairs_from_csv(table: Table, model: Model) -> list[tuple[Fraction, Fraction]]:
    """Read one row an input: ``lower,upper``, optionally with a ``name`` column."""
    header = table.header or _ENDS
    for key in header:
        if key not in (*_ENDS, "name"):
            clause = nearest(key, (*_ENDS, "name"))
            raise InputError(f"--domain: {table.path}: no column {key!r}; {clause}")
    if not set(_ENDS) <= set(header) or len(header) != len(table.rows[0][1]):
        raise InputError(
            f"--domain: {table.path} needs the columns lower and upper, one row an input (for the "
            "bounding box of data use --domain-from)"
        )
    cells = number_cells(table, [header.index(end) for end in _ENDS], "--domain")
    pairs = [(Fraction(Decimal(low)), Fraction(Decimal(high))) for low, high in cells]
    names = model.inputs.names
    if "name" not in header or names is None:
        return pairs
    given = [row[header.index("name")] for _, row in table.rows]
    for name in given:
        if name not in names:
            raise InputError(f"--domain: {table.path}: no input {name!r}; {nearest(name, names)}")
    if sorted(given) != sorted(names):
        raise InputError(f"--domain: {table.path} must name each of {', '.join(names)} once")
    return [pairs[given.index(name)] for name in names]


def _points_from_text(value: str | Path, model: Model) -> tuple[list[Point], list[int] | None]:
    text = str(value).strip()
    if not text:
        raise InputError('--at is empty; give a point such as "6.3,2.0", or a CSV or .npz file')
    cells = [cell.strip() for cell in text.split(",")]
    if all(is_number(cell) for cell in cells) and not Path(text).is_file():
        x = np.array([[float(cell) for cell in cells]])
        return _points_from_array(x, model, "--at"), None
    if not Path(text).exists():
        raise InputError(
            f'--at: {text!r} is neither a file nor a point such as "6.3,2.0" (finite numbers)'
        )
    if Path(text).suffix.lower() == ".npz":
        return _points_from_npz(text, model)
    table = read_table(text, "--at")
    rows = number_cells(table, input_columns(table, model, "--at"), "--at")
    x = np.array([[float(cell) for cell in row] for row in rows])
    return _points_from_array(x, model, "--at"), None


def _points_from_npz(path: str, model: Model) -> tuple[list[Point], list[int] | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            x = archive["x"] if "x" in archive.files else None
            y = archive["y"] if "y" in archive.files else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
        raise InputError(f"--at: {path} is not a readable .npz file without pickles") from None
    if x is None:
        raise InputError(
            f"--at: {path} holds no array x; save it with np.savez(path, x=..., y=...)"
        )
    if x.dtype.kind not in "fiub" or x.dtype.itemsize > 8:
        raise InputError(f"--at: x in {path} has dtype {x.dtype}; save it as float64")
    points = _points_from_array(np.asarray(x, dtype=np.float64), model, f"--at: {path}")
    return points, None if y is None else _classes(y, len(points), model, path)


def _classes(y: Any, count: int, model: Model, path: str) -> list[int]:
    if y.dtype.kind not in "iu" or y.shape != (count,):
        raise InputError(
            f"--at: y in {path} has dtype {y.dtype} and shape {y.shape}; it must hold one integer "
            f"class for each of the {count} point(s)"
        )
    classes = max(model.network.output_size, 2)
    if y.size and not (int(y.min()) >= 0 and int(y.max()) < classes):
        raise InputError(f"--at: y in {path} must lie in 0..{classes - 1}, the model's classes")
    return [int(v) for v in y]


def _points_from_array(x: Array, model: Model, what: str) -> list[Point]:
    size, shape = model.network.input_size, model.network.input_shape
    if x.ndim < 2 or (x.shape[1:] != shape and x.shape[1:] != (size,)):
        got = f"{x.shape[1]} numbers a point" if x.ndim == 2 else f"shape {x.shape}"
        expected = " x ".join(map(str, shape)) if len(shape) > 1 else ""
        raise InputError(
            f"{what}: the model takes {inputs_said(model)}{expected and ', ' + expected}; got {got}"
        )
    if len(x) == 0:
        raise InputError(f"{what}: no points; give at least one")
    return [Point(tuple(float(v) for v in row)) for row in x.reshape(len(x), -1)]

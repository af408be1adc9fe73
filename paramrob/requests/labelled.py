"""Data points for a picture: two inputs of every row of a CSV file, and its class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paramrob.models.model import Model
from paramrob.models.network import Array
from paramrob.requests.tables import Table, input_columns, number_cells, read_table
from paramrob.requests.views import View

_WHAT = "--data"
_NUMBERED = ("class", "label", "target", "y")
"""Headers of a column that may give classes as numbers."""


@dataclass(frozen=True)
class Labelled:
    """Points ``(n, 2)`` in a view, each with a class where the file has them.

    ``left_out`` is how many rows had an empty cell where one of the two inputs belongs.
    """

    points: Array
    classes: tuple[int, ...] | None
    path: str
    left_out: int = 0


def read_data(path: str | Path, model: Model, view: View) -> Labelled:
    """Read the points of a CSV file; they are projected onto the view.

    The class stands in a column whose every cell is one of the model's labels, or begins with
    one (``male`` for ``M``); else in one named ``class``, ``label``, ``target`` or ``y`` that
    holds class numbers. A row with an empty cell where one of the two inputs belongs is left out.

    Raises:
        InputError: unreadable, missing columns, or cells that are no numbers.
    """
    table = read_table(path, _WHAT)
    found = _classes(table, model)
    columns = _columns(table, model, None if found is None else found[0])
    shown = [columns[index] for index in view.axes]
    full = [i for i, (_, row) in enumerate(table.rows) if all(row[c] for c in shown)]
    whole = replace(table, rows=tuple(table.rows[i] for i in full))
    cells = number_cells(whole, shown, _WHAT)
    points = np.array([[float(cell) for cell in row] for row in cells]).reshape(-1, 2)
    classes = None if found is None else tuple(found[1][i] for i in full)
    return Labelled(points, classes, str(path), len(table.rows) - len(full))


def _columns(table: Table, model: Model, classes: int | None) -> list[int]:
    """Return which column holds which input; the classes' column counts for none."""
    width = len(table.rows[0][1])
    if model.inputs.names is None and classes is not None:
        rest = [c for c in range(width) if c != classes]
        if len(rest) == model.network.input_size:
            return rest
    return input_columns(table, model, _WHAT)


def _classes(table: Table, model: Model) -> tuple[int, tuple[int, ...]] | None:
    """Return the column of the classes, and each row's class."""
    taken = model.inputs.names or ()
    names = table.header or ("",) * len(table.rows[0][1])
    known = list(model.output.labels or ())
    for column, name in enumerate(names):
        cells = [row[column] for _, row in table.rows]
        if name not in taken and known:
            classes = [_class_of(cell, known) for cell in cells]
            if None not in classes:
                return column, tuple(k for k in classes if k is not None)
    for column, name in enumerate(names):
        if name.lower() in _NUMBERED and name not in taken:
            cells = [row[column] for _, row in table.rows]
            if set(cells) <= {str(k) for k in range(max(2, model.network.output_size))}:
                return column, tuple(int(cell) for cell in cells)
    return None


def _class_of(cell: str, labels: list[str]) -> int | None:
    """Return the label that the cell is, else the only one that it begins with."""
    if cell in labels:
        return labels.index(cell)
    begun = [k for k, label in enumerate(labels) if cell.lower().startswith(label.lower())]
    return begun[0] if len(begun) == 1 else None

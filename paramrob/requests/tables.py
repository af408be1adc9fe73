"""CSV and TOML files read as text, so that every decimal in them keeps its exact value."""

from __future__ import annotations

import csv
import io
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramrob.errors import InputError
from paramrob.models.model import Model
from paramrob.requests.suggest import nearest


@dataclass(frozen=True)
class Table:
    """A CSV file: ``rows`` hold the line number and the stripped cells, header left out."""

    path: str
    header: tuple[str, ...] | None
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def is_number(cell: str) -> bool:
    """Whether ``cell`` spells a finite decimal."""
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False


def read_text(path: str | Path, what: str) -> str:
    """Return a UTF-8 file's text.

    Raises:
        InputError: the file is missing, a folder, unreadable or not text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{what}: {path} is not a text file in UTF-8") from None
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise InputError(f"{what}: {path}: {reason}; check the path") from None


def read_table(path: str | Path, what: str) -> Table:
    """Read a CSV file whose first line may be a header.

    Raises:
        InputError: no rows, rows of different length, or a first line that mixes names and
            numbers (it could be either).
    """
    text = read_text(path, what)
    lines = csv.reader(io.StringIO(text, newline=""))
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        for cells in lines:
            if any(cell.strip() for cell in cells):
                rows.append((lines.line_num, tuple(cell.strip() for cell in cells)))
    except csv.Error as error:
        raise InputError(f"{what}: {path} is not a CSV file ({error})") from None
    if not rows:
        raise InputError(f"{what}: {path} is empty; put one row of numbers a line into it")
    first = rows[0][1]
    numbers = sum(is_number(cell) for cell in first)
    if 0 < numbers < len(first):
        raise InputError(
            f"{what}: line 1 of {path} mixes numbers with something else; give a header line of "
            "names, or numbers alone"
        )
    header: tuple[str, ...] | None = None if numbers else first
    rows = rows[1:] if header else rows
    for line, row in rows:
        if len(row) != len(first):
            raise InputError(
                f"{what}: line {line} of {path} has {len(row)} cell(s), line 1 has {len(first)}; "
                "give every line the same number"
            )
    if not rows:
        raise InputError(f"{what}: {path} holds a header and no rows; add at least one row")
    return Table(str(path), header, tuple(rows))


def input_columns(table: Table, model: Model, what: str) -> list[int]:
    """Return which column holds which input of the model.

    The names of the sidecar decide if the file has a header; otherwise all columns count, in
    order.

    Raises:
        InputError: a named input has no column, or the number of columns is not that of inputs.
    """
    names, size = model.inputs.names, model.network.input_size
    if table.header is not None and names is not None:
        for name in names:
            if name not in table.header:
                clause = nearest(name, filter(None, table.header))
                raise InputError(f"{what}: {table.path} has no column {name!r}; {clause}")
        return [table.header.index(name) for name in names]
    width = len(table.rows[0][1])
    if width != size:
        raise InputError(
            f"{what}: {table.path} has {width} column(s), the model takes {size} input(s); leave "
            "the other columns out, or give a header and the inputs' names in the sidecar"
        )
    return list(range(size))


def number_cells(table: Table, columns: list[int], what: str) -> list[tuple[str, ...]]:
    """Return the cells of ``columns``, each of which spells a finite decimal.

    Raises:
        InputError: with the line of the first that does not.
    """
    picked = []
    for line, cells in table.rows:
        row = tuple(cells[c] for c in columns)
        for cell in row:
            if not is_number(cell):
                raise InputError(
                    f"{what}: line {line} of {table.path} holds {cell!r} where a finite number "
                    "belongs; correct it or leave the line out"
                )
        picked.append(row)
    return picked


def read_toml(path: str | Path, what: str) -> dict[str, Any]:
    """Read a TOML file; floats stay text, so that ``0.01`` means one hundredth.

    Raises:
        InputError: not readable or not TOML.
    """
    text = read_text(path, what)
    try:
        return tomllib.loads(text, parse_float=lambda spelled: spelled.replace("_", ""))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{what}: {path} is not valid TOML: {error}") from None

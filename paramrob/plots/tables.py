"""The numbers behind a heatmap: as CSV, as JSON, and in a few lines of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from paramrob.decimals import bracket_texts, rounded_down, rounded_up
from paramrob.exact import decimal_text
from paramrob.models.network import Array
from paramrob.plots.epsilon_map import EpsilonMap
from paramrob.plots.flip_map import FlipMap, State
from paramrob.plots.maps import Heatmap
from paramrob.report import versions
from paramrob.report_text import print_rows
from paramrob.requests.views import Axis
from paramrob.verdict import Bracket
from paramrob.wording import bracket_meaning, measured, output_words, perturbation_words


def csv_text(heatmap: Heatmap) -> str:
    """Return the table behind the picture.

    One row a point (``kind`` is ``epsilon``; both ends of an input agree) and one row a cell
    (``kind`` is ``flips``). Floats are shortest round-trip decimals.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    x, y = heatmap.view.x.name, heatmap.view.y.name
    ends = [f"{x}_lower", f"{x}_upper", f"{y}_lower", f"{y}_upper"]
    writer.writerow(["kind", *ends, "epsilon_lower", "epsilon_upper", "state", "label"])
    writer.writerows(_point_rows(heatmap.epsilon))
    writer.writerows(_cell_rows(heatmap))
    return stream.getvalue()


def _point_rows(found: EpsilonMap | None) -> Iterator[list[str]]:
    if found is None:
        return
    columns = (found.points.tolist(), found.lower.tolist(), found.upper.tolist())
    for (x, y), lower, upper in zip(*columns, strict=True):
        yield ["epsilon", *map(repr, (x, x, y, y, lower, upper)), "", ""]


def _cell_rows(heatmap: Heatmap) -> Iterator[list[str]]:
    found = heatmap.flips
    if found is None:
        return
    columns = (found.lower.tolist(), found.upper.tolist(), found.state, found.label)
    for (x0, y0), (x1, y1), state, label in zip(*columns, strict=True):
        ends = map(repr, (x0, x1, y0, y1))
        name = "" if label < 0 else _label(heatmap, int(label))
        yield ["flips", *ends, "", "", State(state).name.lower(), name]


def _label(heatmap: Heatmap, label: int) -> str:
    names = heatmap.request.model.output.labels
    return names[label] if names and label < len(names) else str(label)


def as_json(heatmap: Heatmap) -> dict[str, Any]:
    """Return the report's JSON object; an unbounded end is ``None``."""
    request, asked, view = heatmap.request, heatmap.asked, heatmap.view
    model = request.model
    level = model.output.level
    return {
        "schema": 1,
        "command": "heatmap",
        "kind": asked.kind,
        "model": {
            "path": model.path,
            "sha256": model.sha256,
            "architecture": model.network.architecture,
            "parameters": model.network.parameter_count,
        },
        "reference": None,
        "perturbation": request.perturbation.as_json(),
        "domain": {
            "kind": "box",
            "lower": [float(v) for v in view.box.lower],
            "upper": [float(v) for v in view.box.upper],
        },
        "level": None if level is None else float(level),
        "x": _axis_json(view.x),
        "y": _axis_json(view.y),
        "fixed": {axis.name: float(value) for axis, value in view.fixed},
        "free": [axis.name for axis in view.free],
        "epsilon": _epsilon_json(heatmap.epsilon),
        "flips": _flips_json(heatmap.flips),
        "sigma": {name: _bracket_json(b) for name, b in heatmap.sigma.items()} or None,
        "closed": heatmap.is_closed,
        "semantics": "real",
        "exact_encoding": heatmap.exact_encoding,
        "solver": "bounds",
        "engine_seconds": heatmap.seconds,
        "notes": notes(heatmap),
        "assumptions": list(request.assumptions),
        "versions": versions(),
    }


def _axis_json(axis: Axis) -> dict[str, Any]:
    return {"name": axis.name, "unit": axis.unit, "index": axis.index}


def _bracket_json(bracket: Bracket) -> dict[str, float | None]:
    return {"lower": bracket.lower, "upper": bracket.upper if np.isfinite(bracket.upper) else None}


def _epsilon_json(found: EpsilonMap | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "points": len(found.points),
        "grid": found.grid,
        "tolerance": found.tolerance,
        "open": int(found.open.sum()),
        "x": found.points[:, 0].tolist(),
        "y": found.points[:, 1].tolist(),
        "lower": found.lower.tolist(),
        "upper": _finite(found.upper),
    }


def _finite(values: Array) -> list[float | None]:
    return [v if np.isfinite(v) else None for v in values.tolist()]


def _flips_json(found: FlipMap | None) -> dict[str, Any] | None:
    if found is None:
        return None
    shares = {state.name.lower(): found.share(state) for state in State}
    return {
        "area": shares,
        "goal": found.goal,
        "cells": len(found.state),
        "x_lower": found.lower[:, 0].tolist(),
        "x_upper": found.upper[:, 0].tolist(),
        "y_lower": found.lower[:, 1].tolist(),
        "y_upper": found.upper[:, 1].tolist(),
        "state": [State(s).name.lower() for s in found.state.tolist()],
        "label": [None if k < 0 else k for k in found.label.tolist()],
    }


def notes(heatmap: Heatmap) -> list[str]:
    """Return what a reader of the picture should know besides."""
    said = []
    if heatmap.view.free:
        free = ", ".join(axis.name for axis in heatmap.view.free)
        said.append(
            f"{free} free: epsilon is the largest over them, flippable means for some of their "
            "values, and no single boundary is drawn"
        )
    if not heatmap.exact_encoding:
        said.append("shared parameters were relaxed: proofs hold, but more may stay open")
    data = heatmap.data
    if data is not None and data.left_out:
        said.append(f"{data.left_out} rows of {data.path} lack one of the two inputs: left out")
    if data is not None and heatmap.request.model.network.input_size > 2:
        said.append("data are drawn wherever their other inputs lie")
    return said


def headline(heatmap: Heatmap) -> str:
    """Return the answer in one line."""
    parts = []
    if heatmap.epsilon is not None:
        parts.append(_epsilon_words(heatmap.epsilon))
    if heatmap.flips is not None:
        parts.append(_flip_words(heatmap.flips))
    return "; ".join(parts)


def print_heatmap(console: Console, heatmap: Heatmap, files: list[str], quiet: bool) -> None:
    """Print the answer for a person; one line if ``quiet``."""
    if quiet:
        console.print(Text(headline(heatmap)), soft_wrap=True)
        return
    model = heatmap.request.model
    name = f"{model.path or 'given as an object'}: {model.network.architecture}"
    rows = [
        ("model", f"{name}, {model.network.parameter_count} parameters"),
        ("parameters", perturbation_words(heatmap.request)),
        ("inputs", _inputs(heatmap)),
        ("output", output_words(model)),
    ]
    if heatmap.epsilon is not None:
        what = measured(model.output)
        said = f"{_epsilon_words(heatmap.epsilon)}  largest change of the {what}"
        rows.append(("epsilon", said))
    if heatmap.flips is not None:
        rows.append(("flips", f"{_flip_words(heatmap.flips)}  shares of the area"))
    for side, bracket in heatmap.sigma.items():
        ends = " .. ".join(bracket_texts(bracket.lower, bracket.upper))
        rows.append((side.replace("_", " "), f"{ends}  {bracket_meaning(side, model.output)}"))
    rows += [("open", text) for text in _advice(heatmap)]
    rows += [("assumed", text) for text in heatmap.request.assumptions]
    rows += [("note", text) for text in notes(heatmap)]
    rows.append(("engine", f"bounds, real-number semantics, {heatmap.seconds:.3g} s"))
    rows += [("written", text) for text in files]
    print_rows(console, [(title, Text(text)) for title, text in rows])


def _inputs(heatmap: Heatmap) -> str:
    box, view = heatmap.view.box, heatmap.view
    fixed = {axis.index: value for axis, value in view.fixed}
    parts = []
    for axis in sorted((view.x, view.y, *view.free, *(a for a, _ in view.fixed)), key=_index):
        unit = f" {axis.unit}" if axis.unit else ""
        low, high = (f"{float(end[axis.index]):.10g}" for end in (box.lower, box.upper))
        said = f"from {low} to {high}{unit}{' (free)' if axis in view.free else ''}"
        if axis.index in fixed:
            said = f"= {decimal_text(fixed[axis.index])}{unit}"
        parts.append(f"{axis.name} {said}")
    return ", ".join(parts)


def _index(axis: Axis) -> int:
    return axis.index


def _epsilon_words(found: EpsilonMap) -> str:
    low, high = bracket_texts(float(found.lower.max()), float(found.upper.max()))
    return f"{low} .. {high} at {len(found.points)} points, {int(found.open.sum())} of them open"


def _flip_words(found: FlipMap) -> str:
    shares = {state: 100 * found.share(state) for state in State}
    stable, flips = (rounded_down(shares[s], 4) for s in (State.STABLE, State.FLIPPABLE))
    return f"stable {stable} %, flippable {flips} %, open {rounded_up(shares[State.OPEN], 2)} %"


def _advice(heatmap: Heatmap) -> list[str]:
    said = []
    if heatmap.epsilon is not None and bool(heatmap.epsilon.open.any()):
        width = heatmap.asked.tolerance
        said.append(
            f"brackets wider than {width:g} at some points; raise --timeout or widen --tolerance"
        )
    if heatmap.flips is not None and not heatmap.flips.is_closed:
        said.append("more than --open-area is undecided; raise --timeout or --open-area")
    return said

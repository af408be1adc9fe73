"""The panel of regions: where labels are stable, where they can flip, what is open."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch

from paramrob.decimals import rounded_down, rounded_up
from paramrob.plots.flip_map import FlipMap, State
from paramrob.plots.maps import Heatmap
from paramrob.plots.overlay import boundary, data, frame, legend, sigma_curves

_STABLE, _FLIPPABLE, _OPEN = "#eef1f4", "#f0b04a", "#30343b"
_HATCH, _HATCH_COLOUR = "/////", "#9c5f00"
_TAG: dict[str, Any] = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": "0.4", "lw": 0.4}
_PIXELS = 1024
_COARSE = 64
_LEAST_LABEL = 0.03
"""Share of the area that a label's stable part must have to be named in the picture."""


def draw_flips(part: SubFigure, heatmap: Heatmap, letter: str) -> None:
    """Draw the partition; ``letter`` goes before the panel's title."""
    found = heatmap.flips
    if found is None:
        return
    axes = part.subplots()
    where = "flips for some free inputs" if heatmap.view.free else "where the label can flip"
    axes.set_title(f"{letter}{where} (% of the area)", loc="left")
    raster = _raster(found)
    (x0, y0), (x1, y1) = found.lower.min(axis=0), found.upper.max(axis=0)
    axes.imshow(
        raster,
        extent=(x0, x1, y0, y1),
        origin="lower",
        aspect="auto",
        cmap=ListedColormap([_STABLE, _FLIPPABLE, _OPEN]),
        vmin=0,
        vmax=2,
        interpolation="none",
    )
    _hatch(axes, raster, (x0, x1, y0, y1))
    handles = [*_region_patches(found), *boundary(axes, heatmap), *sigma_curves(axes, heatmap)]
    handles += data(axes, heatmap)
    _region_labels(axes, heatmap, found)
    frame(axes, heatmap)
    legend(part, handles)


def _raster(found: FlipMap) -> npt.NDArray[np.uint8]:
    """Return the partition on a fine grid, rows from the bottom; open cells cover whole pixels."""
    low, high = found.lower.min(axis=0), found.upper.max(axis=0)
    scale = _PIXELS / (high - low)
    start, end = (found.lower - low) * scale, (found.upper - low) * scale
    is_open = (found.state == State.OPEN)[:, None]
    first = np.where(is_open, np.floor(start), np.round(start)).astype(int)
    last = np.where(is_open, np.ceil(end), np.round(end)).astype(int)
    raster = np.full((_PIXELS, _PIXELS), State.OPEN, dtype=np.uint8)
    for i in np.argsort(found.state, kind="stable"):
        (a, b), (c, d) = first[i], last[i]
        raster[b:d, a:c] = found.state[i]
    return raster


def _hatch(
    axes: Axes, raster: npt.NDArray[np.uint8], extent: tuple[float, float, float, float]
) -> None:
    coarse = (raster[::4, ::4] == State.FLIPPABLE).astype(float)
    if not coarse.any():
        return
    with mpl.rc_context({"hatch.color": _HATCH_COLOUR}):
        drawn = axes.contourf(
            coarse, levels=[0.5, 1.5], colors="none", hatches=[_HATCH], extent=extent
        )
    drawn.set_linewidth(0.0)


def _region_patches(found: FlipMap) -> list[Any]:
    shares = {state: 100 * found.share(state) for state in State}
    stable = f"stable (proved): {rounded_down(shares[State.STABLE], 3)} %"
    flips = f"flippable (proved): {rounded_down(shares[State.FLIPPABLE], 3)} %"
    left = f"open: {rounded_up(shares[State.OPEN], 2)} %"
    with mpl.rc_context({"hatch.color": _HATCH_COLOUR}):
        return [
            Patch(facecolor=_STABLE, edgecolor="0.5", lw=0.4, label=stable),
            Patch(facecolor=_FLIPPABLE, edgecolor=_HATCH_COLOUR, lw=0.0, hatch=_HATCH, label=flips),
            Patch(facecolor=_OPEN, label=left),
        ]


def _region_labels(axes: Axes, heatmap: Heatmap, found: FlipMap) -> None:
    """Write each label where it is stable, as deep inside as possible."""
    names = heatmap.request.model.output.labels
    low, high = found.lower.min(axis=0), found.upper.max(axis=0)
    for label in sorted(set(found.label[found.label >= 0].tolist())):
        inside = _label_raster(found, label)
        if inside.mean() < _LEAST_LABEL:
            continue
        row, column = _deepest(inside)
        x, y = low + (np.array([column, row]) + 0.5) / len(inside) * (high - low)
        name = names[label] if names and label < len(names) else f"class {label}"
        axes.text(
            x, y, name, ha="center", va="center", fontsize=7.5, fontweight="bold", zorder=6,
            bbox=_TAG,
        )  # fmt: skip


def _label_raster(found: FlipMap, label: int) -> npt.NDArray[np.bool_]:
    """Return where the label is stable, on a coarse grid, rows from the bottom."""
    low, high = found.lower.min(axis=0), found.upper.max(axis=0)
    own = found.label == label
    start = np.ceil((found.lower[own] - low) / (high - low) * _COARSE - 0.5).astype(int)
    end = np.ceil((found.upper[own] - low) / (high - low) * _COARSE - 0.5).astype(int)
    raster = np.zeros((_COARSE, _COARSE), dtype=bool)
    for (a, b), (c, d) in zip(start, end, strict=True):
        raster[b:d, a:c] = True
    return raster


def _deepest(inside: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the row and column that are farthest from any cell outside."""
    rest = inside
    while rest.any():
        left = np.pad(rest, 1)
        last, rest = (
            rest,
            rest & left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:],
        )
    rows, columns = last.nonzero()
    middle = len(rows) // 2
    return int(rows[middle]), int(columns[middle])

"""Drawing a computed heatmap, for a column 3.4 inches wide.

Colours tell apart in greyscale and for the colour-blind: cividis for values; light, hatched
medium and dark for regions (Nuñez, Anderton and Renslow, *Optimizing colormaps with consideration
for color vision deficiency*, PLoS ONE 2018; Okabe and Ito, *Color Universal Design*, 2008).
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from paramrob.errors import InputError
from paramrob.exact import decimal_text
from paramrob.plots.epsilon_map import EpsilonMap
from paramrob.plots.maps import Heatmap, Kind
from paramrob.plots.overlay import HALO, boundary, data, frame, legend
from paramrob.plots.regions import draw_flips
from paramrob.wording import measured, perturbation_words

FORMATS = (".png", ".svg", ".pdf")
WIDTH = 3.4
"""Inches: one column of a two-column page."""
_PANEL = {"epsilon": 3.0, "flips": 3.45}
"""Height of a panel with its legend, in inches."""
STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "hatch.linewidth": 0.4,
    "svg.hashsalt": "paramrob",
    "axes.unicode_minus": True,
}
_HEADING = 66
"""Characters in a line of the heading."""


def figure(heatmap: Heatmap, kind: Kind | None = None) -> Figure:
    """Return the picture: one panel, or two above each other.

    Args:
        heatmap: computed.
        kind: draw this panel alone; by default what was asked for.

    Raises:
        InputError: a panel that was not computed.
    """
    panels = _panels(heatmap, kind)
    heading = _heading(heatmap)
    lines = 1 + heading.count("\n")
    height = sum(_PANEL[p] for p in panels) + 0.13 * lines
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, height), layout="constrained", dpi=300)
        drawn.suptitle(heading, x=0.02, ha="left", fontsize=7)
        parts = drawn.subfigures(len(panels), 1, height_ratios=[_PANEL[p] for p in panels])
        for part, panel in zip(np.ravel(np.array(parts)), panels, strict=True):
            letter = "" if len(panels) == 1 else f"({'ab'[panels.index(panel)]}) "
            (_draw_epsilon if panel == "epsilon" else draw_flips)(part, heatmap, letter)
    return drawn


def save(heatmap: Heatmap, path: str | Path) -> None:
    """Write the picture as PNG, SVG or PDF, by the file's ending.

    Raises:
        InputError: another ending, or a file that cannot be written.
    """
    ending = check_ending(path)
    write_figure(figure(heatmap), str(path), ending)


def svg_text(heatmap: Heatmap, kind: Kind | None = None) -> str:
    """Return the picture as SVG, from ``<svg`` on, to be put into a page.

    Args:
        heatmap: computed.
        kind: draw this panel alone; by default what was asked for.
    """
    stream = io.BytesIO()
    write_figure(figure(heatmap, kind), stream, ".svg")
    text = stream.getvalue().decode("utf-8")
    return text[text.index("<svg") :]


def check_ending(path: str | Path) -> str:
    """Return the file's ending.

    Raises:
        InputError: it is none that can be drawn.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(f"-o {path}: the ending decides the format; use one of {known}")
    return ending


def write_figure(drawn: Figure, target: Any, ending: str) -> None:
    """Write a figure to a path or a stream; equal pictures make equal files.

    Raises:
        InputError: the file cannot be written.
    """
    # Nothing that changes from run to run: equal numbers make equal files.
    metadata = {
        ".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
        ".pdf": {"CreationDate": None},
    }.get(ending)
    try:
        with mpl.rc_context(STYLE):
            drawn.savefig(target, format=ending[1:], metadata=metadata, dpi=300)
    except OSError as error:
        raise InputError(f"-o {target}: {error.strerror}; choose another file") from None


def _panels(heatmap: Heatmap, kind: Kind | None) -> list[str]:
    wanted = heatmap.asked.kind if kind is None else kind
    panels: list[str] = ["epsilon", "flips"] if wanted == "both" else [wanted]
    for panel in panels:
        if (heatmap.epsilon if panel == "epsilon" else heatmap.flips) is None:
            raise InputError(f"{panel} was not computed; ask for --kind both")
    return panels


def _heading(heatmap: Heatmap) -> str:
    """Return which network it is, what moves, and what the inputs that are not shown do."""
    model = heatmap.request.model
    name = Path(model.path).name if model.path else model.network.architecture
    texts = [f"{name}; parameters: {perturbation_words(heatmap.request)}"]
    others = [
        f"{axis.name} = {decimal_text(value)} {axis.unit or ''}".rstrip()
        for axis, value in heatmap.view.fixed
    ]
    others += [f"{axis.name} free" for axis in heatmap.view.free]
    if others:
        texts.append(", ".join(others))
    wrapped = [
        line
        for text in texts
        for line in textwrap.wrap(text, _HEADING, max_lines=3, placeholder=" ...")
    ]
    return "\n".join(wrapped)


def _draw_epsilon(part: SubFigure, heatmap: Heatmap, letter: str) -> None:
    found = heatmap.epsilon
    if found is None:
        return
    axes = part.subplots()
    what = measured(heatmap.request.model.output)
    axes.set_title(f"{letter}largest change ε of the {what}", loc="left")
    low, high = _scale(found)
    shown = _values(axes, found, Normalize(low, high))
    handles = boundary(axes, heatmap)
    if not letter:
        # Points of two sorts in one panel are hard to read: with two panels data go to the other.
        handles += data(axes, heatmap)
    if bool(found.open.any()):
        handles.append(_open_points(axes, found))
    frame(axes, heatmap)
    bar = part.colorbar(shown, ax=axes, pad=0.02, fraction=0.05, aspect=28)
    bar.set_label("ε (proved upper end)")
    bar.outline.set_linewidth(0.4)
    legend(part, handles)


def _scale(found: EpsilonMap) -> tuple[float, float]:
    finite = found.upper[np.isfinite(found.upper)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 1e-9, high + 1e-9)


def _values(axes: Axes, found: EpsilonMap, norm: Normalize) -> Any:
    x, y = found.points.T
    colours = mpl.colormaps["cividis"]
    if found.grid is None:
        size = float(np.clip(9000 / len(x), 0.5, 30))
        dense = len(x) > 5000
        return axes.scatter(
            x, y, c=found.upper, s=size, cmap=colours, norm=norm, linewidths=0, rasterized=dense
        )
    side = found.grid
    low, high = _axis_ends(x[:side]), _axis_ends(y[::side])
    return axes.imshow(
        found.upper.reshape(side, side),
        extent=(*low, *high),
        origin="lower",
        aspect="auto",
        cmap=colours,
        norm=norm,
        interpolation="none",
    )


def _axis_ends(centres: npt.NDArray[np.float64]) -> tuple[float, float]:
    half = (centres[-1] - centres[0]) / (len(centres) - 1) / 2
    return float(centres[0] - half), float(centres[-1] + half)


def _open_points(axes: Axes, found: EpsilonMap) -> Line2D:
    marked = axes.plot(
        *found.points[found.open].T, "x", color="black", ms=4, mew=1.0, path_effects=HALO, ls="",
    )[0]  # fmt: skip
    count = int(found.open.sum())
    marked.set_label(f"bracket wider than {found.tolerance:g} ({count} of {len(found.points)})")
    return marked

"""What is drawn over a heatmap: level sets of the trained network, data, axes and legend."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from paramrob.decimals import nearest_text, rounded_up
from paramrob.plots.maps import Heatmap

HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground="white")]
_SIGMA = "#005a9c"
_LEGEND = 50
"""Characters that two columns of a legend have room for."""


def boundary(axes: Axes, heatmap: Heatmap) -> list[Any]:
    """Draw where the trained network's label changes."""
    levels = heatmap.levels
    if levels is None:
        return []
    drawn = [_contour(axes, heatmap, lead, 0.0, "black", "solid", 1.3) for lead in levels.lead]
    if not any(drawn):
        return []
    return [Line2D([], [], color="black", lw=1.3, label="boundary as trained")]


def sigma_curves(axes: Axes, heatmap: Heatmap) -> list[Any]:
    """Draw the level sets at the proved distances beyond which no label flips."""
    if heatmap.levels is None:
        return []
    handles = []
    sides = {
        "sigma_above": (1.0, "dashed"),
        "sigma_below": (-1.0, "dotted"),
        "sigma": (1.0, "dashed"),
    }
    for name, bracket in heatmap.sigma.items():
        sign, style = sides[name]
        if not 0 < bracket.upper < np.inf:
            continue
        drawn = [
            _contour(axes, heatmap, lead, sign * bracket.upper, _SIGMA, style, 1.1)
            for lead in heatmap.levels.lead
        ]
        if any(drawn):
            label = _sigma_text(heatmap, name, bracket.upper)
            handles.append(Line2D([], [], color=_SIGMA, lw=1.1, ls=style, label=label))
    return handles


def _sigma_text(heatmap: Heatmap, name: str, upper: float) -> str:
    size = rounded_up(upper, 3)
    if name == "sigma":
        return f"logit lead σ = {size}"
    level = nearest_text(float(heatmap.request.model.output.level or 0), 3)
    return f"f = {level} {'+' if name == 'sigma_above' else '−'} σ, σ = {size}"


def _contour(
    axes: Axes, heatmap: Heatmap, lead: Any, level: float, colour: str, style: Any, width: float
) -> bool:
    """Draw one level set; return whether there is any."""
    levels = heatmap.levels
    if levels is None or not float(lead.min()) < level < float(lead.max()):
        return False
    drawn = axes.contour(
        levels.x, levels.y, lead, levels=[level], colors=[colour], linestyles=[style],
        linewidths=[width], zorder=4,
    )  # fmt: skip
    drawn.set_path_effects(HALO)
    return True


def data(axes: Axes, heatmap: Heatmap) -> list[Any]:
    """Draw the data, each class with its own marker."""
    given = heatmap.data
    if given is None:
        return []
    many = len(given.points) > 1000
    size = 4.0 if not many else 1.2
    if given.classes is None:
        return [_marked(axes, given.points, "o", "white", size, "data", many)]
    handles = []
    names = heatmap.request.model.output.labels
    markers = (("o", "white"), ("^", "black"), ("s", "#56b4e9"), ("D", "#cc79a7"), ("v", "#009e73"))
    classes = np.array(given.classes)
    for k in sorted(set(given.classes)):
        name = names[k] if names and k < len(names) else str(k)
        marker, colour = markers[k % len(markers)]
        label = f"data, class {name}"
        handles.append(_marked(axes, given.points[classes == k], marker, colour, size, label, many))
    return handles


def _marked(
    axes: Axes, points: Any, marker: str, colour: str, size: float, label: str, many: bool
) -> Line2D:
    axes.plot(
        *points.T, marker, ls="", ms=size, mfc=colour, mec="black", mew=0.15 if many else 0.4,
        alpha=0.5 if many else 1.0, rasterized=many, zorder=3,
    )  # fmt: skip
    return Line2D([], [], marker=marker, ls="", ms=4, mfc=colour, mec="black", mew=0.4, label=label)


def frame(axes: Axes, heatmap: Heatmap) -> None:
    """Set the axes' ends and titles."""
    view = heatmap.view
    ends = [[float(end[axis]) for end in (view.box.lower, view.box.upper)] for axis in view.axes]
    axes.set_xlim(*ends[0])
    axes.set_ylim(*ends[1])
    axes.set_xlabel(view.x.title)
    axes.set_ylabel(view.y.title)


def legend(part: SubFigure, handles: list[Any]) -> None:
    """Explain what is drawn below the panel, in two columns where they fit."""
    if not handles:
        return
    half = (len(handles) + 1) // 2
    lengths = [len(str(handle.get_label())) for handle in handles]
    two = len(handles) > 3 and max(lengths[:half]) + max(lengths[half:]) <= _LEGEND
    part.legend(
        handles=handles, loc="outside lower center", ncols=2 if two else 1, frameon=False,
        handlelength=2.2, columnspacing=1.2, labelspacing=0.35, borderaxespad=0.2,
    )  # fmt: skip

"""Bars of what each layer does: solid as far as a witness reaches, light up to what is proved."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paramrob.layer_shares import Share, Shares
from paramrob.plots.draw import STYLE, WIDTH, check_ending, write_figure
from paramrob.verdict import Bracket
from paramrob.wording import measured, perturbation_words

MOST = 30
"""Parts that are drawn; of more, those that rank first."""
_ALONE, _WITHOUT = "#0072b2", "#e69f00"
_HEIGHT = 0.38
_NAME = 24
"""Characters of a part's name that are shown."""
_HEADING = 62


def figure(found: Shares) -> Figure:
    """Return the picture: two bars a part, ranked from the top."""
    shown = found.shares[:MOST]
    heading = _heading(found, len(shown))
    lines = 1 + heading.count("\n")
    with mpl.rc_context(STYLE):
        height = 0.95 + 0.3 * len(shown) + 0.13 * lines
        drawn = Figure(figsize=(WIDTH, height), layout="constrained", dpi=300)
        drawn.suptitle(heading, x=0.02, ha="left", fontsize=7)
        axes = drawn.subplots()
        end = _end(found, shown)
        for row, share in enumerate(shown):
            _bar(axes, row - _HEIGHT / 2, share.alone, _ALONE, end)
            _bar(axes, row + _HEIGHT / 2, share.without, _WITHOUT, end)
        axes.axvline(_shown_end(found.whole.upper, end), color="black", lw=0.8, ls=":")
        axes.set_yticks(range(len(shown)), [_name(share) for share in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, end)
        axes.set_xlabel(f"largest change ε of the {measured(found.request.model.output)}")
        axes.set_ylabel("layer" if found.layer is None else f"output channel of {found.layer}")
        axes.spines[["top", "right"]].set_visible(False)
        _legend(drawn)
    return drawn


def save(found: Shares, path: str | Path) -> None:
    """Write the picture as PNG, SVG or PDF, by the file's ending.

    Raises:
        InputError: another ending, or a file that cannot be written.
    """
    ending = check_ending(path)
    write_figure(figure(found), str(path), ending)


def _bar(axes: Axes, place: float, bracket: Bracket, colour: str, end: float) -> None:
    """Draw a bracket: solid to its lower end, hatched from there to its upper end."""
    upper = _shown_end(bracket.upper, end)
    axes.barh(place, bracket.lower, _HEIGHT, color=colour, linewidth=0)
    if upper > bracket.lower:
        axes.barh(
            place,
            upper - bracket.lower,
            _HEIGHT,
            left=bracket.lower,
            facecolor="white",
            edgecolor=colour,
            hatch="//////",
            linewidth=0.5,
        )
    ends = [bracket.lower, *([upper] if math.isfinite(bracket.upper) else [])]
    axes.plot([bracket.lower, upper], [place, place], color="black", lw=0.6)
    axes.plot(ends, [place] * len(ends), "|", color="black", ms=3.5, mew=0.6)


def _legend(drawn: Figure) -> None:
    handles = [
        mpl.patches.Patch(facecolor=_ALONE, label="this alone"),
        mpl.patches.Patch(facecolor=_WITHOUT, label="all but this"),
        mpl.patches.Patch(
            facecolor="white", edgecolor="#555555", hatch="//////", label="attained .. proved"
        ),
        mpl.lines.Line2D([], [], color="black", lw=0.8, ls=":", label="the whole box"),
    ]
    drawn.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)


def _end(found: Shares, shown: tuple[Share, ...]) -> float:
    """Return where the axis ends: unbounded brackets run over it."""
    brackets = [found.whole, *(b for share in shown for b in (share.alone, share.without))]
    ends = [b.upper for b in brackets if math.isfinite(b.upper)]
    ends += [2 * b.lower for b in brackets if math.isinf(b.upper)]
    largest = max(ends, default=0.0)
    return 1.04 * largest if largest > 0 else 1.0


def _shown_end(upper: float, end: float) -> float:
    return upper if math.isfinite(upper) else end


def _name(share: Share) -> str:
    return share.name if len(share.name) <= _NAME else f"{share.name[: _NAME - 3]}..."


def _heading(found: Shares, shown: int) -> str:
    model = found.request.model
    name = Path(model.path).name if model.path else model.network.architecture
    texts = [f"{name}; parameters: {perturbation_words(found.request)}"]
    if shown < len(found.shares):
        texts.append(f"the first {shown} of {len(found.shares)}")
    return "\n".join(
        line
        for text in texts
        for line in textwrap.wrap(text, _HEADING, max_lines=3, placeholder=" ...")
    )

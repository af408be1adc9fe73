"""Small inline drawings: where a bracket, an output or an input lies.

Places are percentages of the drawing's width, so that text keeps its size on a narrow screen.
Colours come from page.css.
"""

from __future__ import annotations

from paramrob.decimals import nearest_text
from paramrob.page.content import BracketView, WitnessView
from paramrob.page.markup import Html, element

_LEFT, _RIGHT = 2.0, 98.0
_NEAR = 14.0
"""Percent of the width within which two labels would touch on a narrow screen."""


def track(share: float, title: str) -> Html:
    """Return a rail with a mark at ``share`` (0 to 1) of its length."""
    x = 6 + 88 * min(max(share, 0.0), 1.0)
    return element(
        "svg",
        element("title", title),
        element("line", x1="6%", y1=9, x2="94%", y2=9, class_="rail", stroke_width=4),
        element("circle", cx=f"{x:.2f}%", cy=9, r=5, class_="mark"),
        role="img",
        class_="track",
    )


def bracket_bar(view: BracketView) -> Html:
    """Return the bracket on the scale of what is possible."""
    upper = view.top if view.upper.value is None else min(view.upper.value, view.top)
    lower = min(view.lower.value or 0.0, upper)
    low, high = (_place(v, 0.0, view.top) for v in (lower, upper))
    said = f"{view.name}: from {view.short[0]} to {view.short[1]}, on a scale up to {view.top:g}"
    parts = [
        element("title", said),
        _bar(_LEFT, _RIGHT, "free"),
        _bar(_LEFT, low, "reached"),
        _bar(low, high, "gap"),
        _line(high, 4, 30, "end", 2),
        *_end(_LEFT, "0", 45),
        *_end(_RIGHT, nearest_text(view.top, 3), 45),
    ]
    if view.threshold is not None and view.threshold <= view.top:
        x = _place(view.threshold, 0.0, view.top)
        parts += [_line(x, 0, 34, "asked", 2), _text(x, 45, "asked")]
    return _drawing(parts, 50)


def output_axis(view: WitnessView) -> Html | None:
    """Return the single output before and after, beside the level; ``None`` for several."""
    if view.output_count != 1:
        return None
    out = view.outputs[0]
    before, after = out.trained.value, out.perturbed.value
    if before is None or after is None:
        return None
    ends = _axis_ends(before, after, view.level, out.name == "output")
    a, b = (_place(v, *ends) for v in (before, after))
    first, second = view.sides
    said = f"{out.name}: {before:.6g} {_as(first)}, {after:.6g} {second}"
    parts = [element("title", said), _line(_LEFT, 38, 38, "rail", 4, _RIGHT)]
    level = None if view.level is None else _place(view.level, *ends)
    if view.level is not None and level is not None:
        parts.append(_line(level, 25, 51, "level", 1))
        parts.append(_text(level, 90, f"level {nearest_text(view.level, 4)}", "soft"))
    for place, value in zip((_LEFT, _RIGHT), ends, strict=True):
        if level is None or abs(place - level) > _NEAR:
            parts.append(_text(place, 90, nearest_text(value, 3), "soft"))
    parts += [
        _line(a, 38, 38, "arrow", 4, b),
        element("circle", cx=f"{a:.2f}%", cy=38, r=7, class_="before"),
        element("circle", cx=f"{b:.2f}%", cy=38, r=7, class_="after"),
        _text(a, 19, _called(first, view.labels[0], before, view.level)),
        _text(b, 66, _called(second, view.labels[1], after, view.level)),
    ]
    return _drawing(parts, 96)


def _as(side: str) -> str:
    return f"as {side}" if side == "trained" else side


def _called(side: str, label: str | None, value: float, level: float | None) -> str:
    named = "" if label is None else f", {label}"
    text = nearest_text(value, 5)
    if level is not None and value != level and text == nearest_text(level, 5):
        # Rounded, it would stand on the boundary that it lies beside.
        text = repr(value)
    return f"{side}{named}: {text}"


def _axis_ends(
    before: float, after: float, level: float | None, is_value: bool
) -> tuple[float, float]:
    if not is_value:
        return 0.0, 1.0
    marks = [before, after, *([] if level is None else [level])]
    pad = 0.25 * (max(marks) - min(marks)) or 1.0
    return min(marks) - pad, max(marks) + pad


def _place(value: float, low: float, high: float) -> float:
    """Return a percentage of the width; both ends finite, ``low < high``."""
    share = (value - low) / (high - low)
    return _LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0)


def _bar(start: float, end: float, class_: str) -> Html:
    return element(
        "rect", x=f"{start:.2f}%", y=8, width=f"{end - start:.2f}%", height=18, class_=class_
    )


def _line(
    x: float, top: float, bottom: float, class_: str, width: int, to: float | None = None
) -> Html:
    return element(
        "line",
        x1=f"{x:.2f}%",
        y1=top,
        x2=f"{x if to is None else to:.2f}%",
        y2=bottom,
        class_=class_,
        stroke_width=width,
    )


def _end(x: float, text: str, baseline: float) -> list[Html]:
    return [_line(x, 26, 31, "tick", 1), _text(x, baseline, text, "soft")]


def _text(x: float, y: float, text: str, class_: str | None = None) -> Html:
    """Return text beside ``x`` that stays inside the drawing."""
    anchor = "start" if x < 30 else "end" if x > 70 else "middle"
    return element("text", text, x=f"{x:.2f}%", y=y, text_anchor=anchor, class_=class_)


def _drawing(parts: list[Html], height: int) -> Html:
    return element("svg", *parts, height=height, role="img", class_="wide")

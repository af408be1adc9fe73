"""From what a page says to one HTML file without scripts that asks no network for anything."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from importlib import resources

from paramrob.decimals import nearest_text
from paramrob.page.content import (
    BracketView,
    Facts,
    MovedParameter,
    Number,
    OutputView,
    Page,
    Picture,
    PointsView,
    WitnessView,
)
from paramrob.page.drawings import bracket_bar, output_axis, track
from paramrob.page.markup import Html, element, joined
from paramrob.wording import percent

# Nothing is fetched and nothing runs, whatever the names in a model file may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_SYMBOLS = {"good": "\u2713", "bad": "\u2717", "open": "?", "plain": "\u2194"}


def render(page: Page) -> str:
    """Return the HTML file of a page."""
    style = resources.files("paramrob.page").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content="paramrob"),
        element("title", page.title),
        element("style", Html(style)),
    )
    body = element("body", _header(page), _main(page), _footer(page))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _header(page: Page) -> Html:
    return element(
        "header",
        element("p", f"paramrob {page.kind}", class_="kind"),
        element("h1", page.question),
        _facts(page.asked),
    )


def _main(page: Page) -> Html:
    parts = [_answer(page)]
    if page.witness is not None:
        parts.append(_witness(page.witness))
    parts += [_picture(picture) for picture in page.pictures]
    if page.points is not None:
        parts.append(_points(page.points))
    if page.brackets:
        parts.append(_brackets(page.brackets))
    if page.figures:
        parts.append(_section("In numbers", _facts(page.figures)))
    parts += [_basis(page), _checked(page), _repeat(page)]
    return element("main", *parts)


def _footer(page: Page) -> Html:
    said = "Made by paramrob. This page is one file: it loads nothing and runs no script."
    return element("footer", element("p", said))


def _section(heading: str, *children: object) -> Html:
    return element("section", element("h2", heading), *children)


def _facts(facts: Facts) -> Html:
    rows = [joined(element("dt", name), element("dd", _shown(value))) for name, value in facts]
    return element("dl", *rows, class_="facts")


def _shown(value: str | Number) -> object:
    return _number(value) if isinstance(value, Number) else value


def _number(number: Number) -> Html:
    """Return a number with its place in the JSON object."""
    return element("data", number.text, value=number.text, data_path=number.path)


def _answer(page: Page) -> Html:
    answer = page.answer
    symbol = element("span", _SYMBOLS[answer.tone], aria_hidden="true")
    word = element("p", symbol, f" {answer.word}", class_="word")
    return element(
        "section",
        word,
        element("p", answer.basis, class_="basis"),
        element("p", answer.statement, class_="statement"),
        *(element("p", remark) for remark in page.remarks),
        class_=f"answer {answer.tone}",
        aria_label="Answer",
    )


def _table(
    caption: object, headings: Sequence[str], rows: Iterable[Sequence[object]], numeric: set[int]
) -> Html:
    """Return a table whose first cell of a row is its heading."""

    def cell(i: int, content: object) -> Html:
        kind = "number" if i in numeric else None
        if i == 0:
            return element("th", content, scope="row", class_=kind)
        return element("td", content, class_=kind)

    head = element(
        "tr",
        *(
            element("th", h, scope="col", class_="number" if i in numeric else None)
            for i, h in enumerate(headings)
        ),
    )
    body = [element("tr", *(cell(i, c) for i, c in enumerate(row))) for row in rows]
    table = element(
        "table",
        element("caption", caption) if caption else "",
        element("thead", head),
        element("tbody", *body),
    )
    # A table wider than the screen is scrolled, with the keyboard too.
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _witness(view: WitnessView) -> Html:
    at = "" if view.point is None else f"Point {view.point} (the first is 0). "
    checked = "Re-executed in exact arithmetic. " if view.replayed else ""
    parts: list[object] = [element("p", f"{at}{checked}{view.about}")]
    if view.runtime is not None:
        parts.append(element("p", view.runtime))
    axis = output_axis(view)
    if axis is not None:
        parts.append(element("figure", axis))
    parts += [_inputs(view), _outputs(view), _moved(view)]
    return _section("The witness" if view.about else "The counterexample", *parts)


def _inputs(view: WitnessView) -> Html:
    boxed = any(each.ends is not None for each in view.inputs)
    headings = ["input", "value", "unit"] + (["in the box", "from", "to"] if boxed else [])
    rows = []
    for each in view.inputs:
        row: list[object] = [each.name, _number(each.value), each.unit]
        if each.ends is not None:
            share = each.share
            drawn = "" if share is None else track(share, f"{percent(share)} of the way up the box")
            row += [drawn, _number(each.ends[0]), _number(each.ends[1])]
        rows.append(row)
    more = view.input_count - len(rows)
    left_out = f", {more} more are in the JSON" if more else ""
    return _table(f"The input{left_out}", headings, rows, {1, 4, 5})


def _outputs(view: WitnessView) -> Html:
    return _output(view) if view.output_count == 1 else _classes(view)


def _output(view: WitnessView) -> Html:
    """Return the single output before and after, one a row: two long numbers fit no phone."""
    out = view.outputs[0]
    sides = zip(_headings(view), (out.trained, out.perturbed), strict=True)
    rows = [
        [side, _number(value), "" if label is None else element("span", label, class_="label")]
        for (side, value), label in zip(sides, view.labels, strict=True)
    ]
    return _table("What the network says", ("", out.name, "label"), rows, {1})


def _headings(view: WitnessView) -> tuple[str, str]:
    """Return what the columns of the two outputs are called."""
    first, second = view.sides
    return (f"as {first}" if first == "trained" else first), second


def _classes(view: WitnessView) -> Html:
    def row(out: OutputView) -> list[object]:
        values = (out.trained.value, out.perturbed.value)
        change = ""
        if None not in values:
            change = f"{(values[1] or 0.0) - (values[0] or 0.0):+.4g}"
        return [out.name, _number(out.trained), _number(out.perturbed), change]

    rows = [row(out) for out in view.outputs]
    if None not in view.labels:
        first, second = (element("span", label, class_="label") for label in view.labels)
        changed = "differ" if view.labels[0] != view.labels[1] else "agree"
        rows.append(["label", first, second, changed])
    more = view.output_count - len(view.outputs)
    left_out = f", {more} more are in the JSON" if more else ""
    headings = ("", *_headings(view), "change")
    return _table(f"What the network says{left_out}", headings, rows, {1, 2, 3})


def _moved(view: WitnessView) -> Html:
    moved, at_edge, total = view.counts
    said = f"{moved} of {total} parameters moved, {at_edge} of them to the edge of their interval. "
    said += "Effect alone: what moving one parameter and no other does to the output at this input."

    def row(each: MovedParameter) -> list[object]:
        effect = "" if each.effect is None else f"{each.effect:+.3g}"
        share = percent(each.share)
        drawn = track(0.5 + each.share * (0.5 if each.change > 0 else -0.5), f"{share} of it")
        return [
            each.name,
            nearest_text(each.trained, 8),
            nearest_text(each.perturbed, 8),
            f"{each.change:+.4g}",
            share,
            drawn,
            effect,
        ]

    headings = (
        "parameter",
        "trained",
        "perturbed",
        "change",
        "share of its box",
        "",
        "effect alone",
    )
    rows = [row(each) for each in view.moved]
    table = _table("Parameters that moved most", headings, rows, {1, 2, 3, 4, 6})
    return joined(table, element("p", said, class_="small")) if rows else Html("")


def _brackets(brackets: Sequence[BracketView]) -> Html:
    parts = []
    for view in brackets:
        ends = f"{view.short[0]} to {view.short[1]}"
        exact = joined(
            _number(view.lower),
            f" ({view.lower_is}) to ",
            _number(view.upper),
            f" ({view.upper_is})",
        )
        parts.append(
            element(
                "div",
                element("h3", f"{view.name}: {view.meaning}"),
                element("p", ends, class_="ends number"),
                bracket_bar(view),
                element("p", exact, class_="small"),
                class_="bracket",
            )
        )
    note = (
        "Short numbers are rounded outward. The true value lies between the two ends; the bar "
        "shows them on the scale of what is possible, a gap between them in another colour."
    )
    return _section("How far", *parts, element("p", note, class_="small"))


def _picture(picture: Picture) -> Html:
    source = f"data:{picture.media};base64,{base64.b64encode(picture.data).decode('ascii')}"
    figure = element(
        "figure",
        element("img", src=source, alt=picture.alt),
        element("figcaption", picture.caption) if picture.caption else "",
    )
    return _section(picture.title, figure)


def _points(view: PointsView) -> Html:
    parts: list[object] = [element("p", view.summary)]
    if view.accuracy is not None:
        parts.append(element("p", view.accuracy))
    rows = [
        [str(each.index), each.at, element("span", each.answer, class_=f"label {each.tone}")]
        for each in view.shown
    ]
    if rows:
        left_out = f", {view.left_out} more are in the JSON" if view.left_out else ""
        headings = ("point", "input", "answer")
        parts.append(_table(f"Points worth a look{left_out}", headings, rows, set()))
    return _section("The points", *parts)


def _list(sentences: Iterable[str]) -> Html:
    return element("ul", *(element("li", sentence) for sentence in sentences))


def _basis(page: Page) -> Html:
    parts: list[object] = [element("h3", "What the answer means"), _list(page.proved)]
    parts.append(element("h3", "Assumed because nobody said"))
    parts.append(_list(page.assumed or ("Nothing: file, sidecar and options said everything.",)))
    if page.notes:
        parts += [element("h3", "Notes"), _list(page.notes)]
    return _section("What this rests on", *parts)


def _checked(page: Page) -> Html:
    parts: list[object] = [_facts(page.model)]
    if page.domain:
        rows = [[r.name, _number(r.lower), _number(r.upper), r.unit] for r in page.domain]
        parts.append(_table("Inputs", ("input", "from", "to", "unit"), rows, {1, 2}))
    if page.domain_note:
        parts.append(element("p", page.domain_note))
    return _section("What was checked", *parts)


def _repeat(page: Page) -> Html:
    parts: list[object] = []
    for said, command in page.commands:
        parts += [element("h3", said), element("pre", element("code", command), class_="command")]
    parts.append(element("h3", "Engine and versions"))
    parts.append(_facts(page.engine))
    if page.report is not None:
        summary = element("summary", "Every number, as JSON")
        full = element("pre", element("code", page.report), id="json")
        parts.append(element("details", summary, full, class_="json"))
    return _section("How to repeat it", *parts)

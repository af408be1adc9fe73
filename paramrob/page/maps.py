"""The page of a heatmap: its panels, the areas, the brackets behind them."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from paramrob.decimals import nearest_text, rounded_down, rounded_up
from paramrob.page.build import (
    REAL,
    bracket_view,
    domain_rows,
    engine_facts,
    model_facts,
    within_limit,
)
from paramrob.page.content import Answer, BracketView, Facts, Number, Page, Picture
from paramrob.plots.draw import svg_text
from paramrob.plots.maps import Heatmap
from paramrob.plots.tables import as_json, notes
from paramrob.report import json_text
from paramrob.wording import domain_words, measured, output_words, perturbation_words

_MEANINGS = (
    "Stable: proved that no parameter vector in the box changes a label anywhere in that part. "
    "Flippable: at every input of that part some parameter vector in the box changes the label "
    "(where inputs are free, for some of their values). "
    "Open: neither was proved."
)


def heatmap_page(heatmap: Heatmap, command: str | None = None) -> Page:
    """Return the page of a heatmap.

    Args:
        heatmap: computed.
        command: the command line that repeats it.
    """
    report = as_json(heatmap)
    request, model = heatmap.request, heatmap.request.model
    answer = _answer(heatmap)
    return Page(
        title=f"{answer.word}: {PurePath(model.path or 'model').name}",
        kind="heatmap",
        question=_question(heatmap),
        asked=(
            ("Model", f"{model.path or 'given as an object'} ({model.network.architecture})"),
            ("Parameters", perturbation_words(request)),
            ("Inputs", domain_words(model, heatmap.view.box)),
            ("Output", output_words(model)),
        ),
        answer=answer,
        brackets=_brackets(heatmap, report),
        figures=_figures(heatmap, report),
        pictures=_pictures(heatmap),
        proved=(*([_MEANINGS] if heatmap.flips is not None else []), REAL),
        assumed=tuple(f"{said[:1].upper()}{said[1:]}" for said in request.assumptions),
        notes=tuple(f"{note[:1].upper()}{note[1:]}." for note in notes(heatmap)),
        model=model_facts(report),
        domain=domain_rows(model, heatmap.view.box),
        engine=engine_facts(report),
        commands=() if command is None else (("The question again", command),),
        report=within_limit(json_text(report)),
    )


def _question(heatmap: Heatmap) -> str:
    view, what = heatmap.view, measured(heatmap.request.model.output)
    plane = f"over {view.x.name} and {view.y.name}"
    parts = []
    if heatmap.epsilon is not None:
        parts.append(f"how far can the {what} move")
    if heatmap.flips is not None:
        parts.append("where can the label flip")
    said = f"{', and '.join(parts)}, {plane} and every parameter vector in the box?"
    return said[:1].upper() + said[1:]


def _answer(heatmap: Heatmap) -> Answer:
    sentences, word, rest = [], "", ""
    if heatmap.flips is not None:
        shares = _shares(heatmap)
        word = f"labels can flip on {shares['flippable']} % of the area"
        rest = f"; {shares['open']} % is open" if shares["open"] != "0" else ""
        sentences.append(_flips_said(heatmap, shares) + rest + ".")
    if heatmap.epsilon is not None:
        what, found = measured(heatmap.request.model.output), heatmap.epsilon
        low, high = float(found.lower.max()), float(found.upper.max())
        word = word or f"at most {rounded_up(high, 4)} at {len(found.points)} points"
        sentences.append(
            f"At the {len(found.points)} points drawn the {what} moves by at most "
            f"{rounded_up(high, 6)}, and at one of them by {rounded_down(low, 6)} or more."
        )
    closed = heatmap.is_closed
    basis = "proved, not sampled" if closed else "proved as far as it goes; some of it is open"
    return Answer("plain" if closed else "open", word, basis, " ".join(sentences))


def _flips_said(heatmap: Heatmap, shares: dict[str, str]) -> str:
    stable, flippable = shares["stable"], shares["flippable"]
    said = f"On {stable} % of the area no parameter vector in the box changes a label"
    if heatmap.view.free:
        return (
            f"{said}, whatever the free inputs are; at every point of {flippable} % some "
            "parameter vector does, for some value of the free inputs"
        )
    return f"{said}; at every input of {flippable} % some parameter vector does"


def _shares(heatmap: Heatmap) -> dict[str, str]:
    """Return the shares of the area in percent: what is proved rounded down, what is open up."""
    if heatmap.flips is None:
        return {}
    area = as_json(heatmap)["flips"]["area"]
    rounded = {"stable": rounded_down, "flippable": rounded_down, "open": rounded_up}
    return {name: rounded[name](100 * share, 4) for name, share in area.items()}


def _brackets(heatmap: Heatmap, report: dict[str, Any]) -> tuple[BracketView, ...]:
    output = heatmap.request.model.output
    return tuple(
        bracket_view(output, name, bracket, (report, f"sigma.{name}"))
        for name, bracket in heatmap.sigma.items()
    )


def _figures(heatmap: Heatmap, report: dict[str, Any]) -> Facts:
    rows: list[tuple[str, str | Number]] = []
    if heatmap.flips is not None:
        for name in ("stable", "flippable", "open"):
            share = report["flips"]["area"][name]
            rows.append((f"Share of the area, {name}", Number(share, f"flips.area.{name}")))
        rows.append(("Cells", Number(report["flips"]["cells"], "flips.cells")))
    if heatmap.epsilon is not None:
        said = report["epsilon"]
        least, most = int(heatmap.epsilon.lower.argmax()), int(heatmap.epsilon.upper.argmax())
        rows += [
            ("Points", Number(said["points"], "epsilon.points")),
            ("Points left open", Number(said["open"], "epsilon.open")),
            ("Largest epsilon, attained", Number(said["lower"][least], f"epsilon.lower.{least}")),
            ("Largest epsilon, proved", Number(said["upper"][most], f"epsilon.upper.{most}")),
        ]
    return tuple(rows)


def _pictures(heatmap: Heatmap) -> tuple[Picture, ...]:
    view, what = heatmap.view, measured(heatmap.request.model.output)
    plane = f"{view.x.title} across, {view.y.title} up"
    pictures = []
    if heatmap.epsilon is not None:
        high = nearest_text(float(heatmap.epsilon.upper.max()), 4)
        alt = f"Points over {plane}, coloured by the largest change of the {what}, up to {high}."
        title = f"How far the {what} moves"
        pictures.append(_picture(heatmap, "epsilon", title, alt))
    if heatmap.flips is not None:
        shares = _shares(heatmap)
        alt = (
            f"The plane of {plane}: {shares['stable']} % stable, {shares['flippable']} % "
            f"flippable, {shares['open']} % open."
        )
        pictures.append(_picture(heatmap, "flips", "Where the label can flip", alt))
    return tuple(pictures)


def _picture(heatmap: Heatmap, kind: Any, title: str, alt: str) -> Picture:
    data = svg_text(heatmap, kind).encode("utf-8")
    return Picture(title, alt, data, "image/svg+xml")

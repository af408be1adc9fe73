"""From an outcome to what its page says; the numbers are those of the JSON object."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from paramrob.decimals import bracket_texts
from paramrob.domain import Ball, Box, Domain
from paramrob.models.model import Model, OutputInfo
from paramrob.page.answers import answer_of, holds_words, verdict_answer
from paramrob.page.content import (
    BracketView,
    DomainRow,
    Facts,
    Number,
    Page,
    Picture,
    PointsView,
    PointView,
)
from paramrob.page.counterexample import input_names, witness_view
from paramrob.report import as_json, boundary_sentence, json_text
from paramrob.requests.build import Request
from paramrob.solve import PointsOutcome
from paramrob.verdict import Bracket, Outcome, Verdict
from paramrob.wording import (
    accuracy_under,
    bracket_meaning,
    domain_words,
    held_against,
    inputs_text,
    is_rigid,
    output_words,
    percent,
    perturbation_words,
    question,
    vectors,
)

SHOWN_POINTS = 50
SHOWN_ROWS = 30
LARGEST_JSON = 200_000
"""Characters of the JSON object that a page still holds in full."""
_PATHS = {"sigma_above": "sigma.above", "sigma_below": "sigma.below"}
REAL = (
    "The statement is about the network in real-number arithmetic with these parameters; "
    "rounding during inference is not part of it."
)
"""What a page says its statement is about, where it is real numbers."""
_REAL_FILES = (
    "The statement is about the networks of real numbers that the two files define, roundings to "
    "grids included; other rounding during inference is not part of it."
)
_RELAXED = "Shared parameters were relaxed: what is proved holds, but an open answer may stay open."
_ROUNDINGS = "Roundings were relaxed: what is proved holds, but an open answer may stay open."
_GRID = (
    "Each parameter is one of two values. What is proved holds for all values between them as "
    "well, so an open answer may stay open; a counterexample has one of the two everywhere."
)


def page_of(
    request: Request,
    outcome: Outcome,
    *,
    tolerance: float,
    command: str | None = None,
    witness_file: str | None = None,
    pictures: Sequence[Picture] = (),
) -> Page:
    """Return the page of a check or an estimation.

    Args:
        request: what was asked.
        outcome: the answer to it.
        tolerance: width at which a bracket counts as closed.
        command: the command line that repeats it.
        witness_file: where the counterexample was saved, if anywhere.
        pictures: drawn elsewhere.
    """
    report = as_json(request, outcome, witness_file)
    answer = answer_of(request, outcome, tolerance)
    boundary = boundary_sentence(request, outcome)
    asked = request.asked
    kind = asked.command if asked.quantity is None else f"{asked.command} {asked.quantity}"
    return Page(
        title=f"{answer.word}: {PurePath(request.model.path or 'model').name}",
        kind=kind,
        question=_capital(question(request)),
        asked=_asked(request),
        answer=answer,
        remarks=_remarks(boundary, outcome),
        witness=witness_view(request, outcome, report),
        brackets=_brackets(request, outcome, report),
        pictures=tuple(pictures),
        points=_points(request, outcome),
        proved=_proved(request, outcome),
        assumed=tuple(_capital(said) for said in request.assumptions),
        notes=tuple(_capital(note) for note in outcome.notes),
        model=_model(request, report),
        domain=_domain(request),
        domain_note=_domain_note(request),
        engine=engine_facts(report),
        commands=_commands(command, witness_file, report),
        report=within_limit(json_text(report)),
    )


def _capital(said: str) -> str:
    return said[:1].upper() + said[1:]


def _asked(request: Request) -> Facts:
    model = request.model
    name = f"{model.path or 'given as an object'} ({model.network.architecture})"
    if request.several:
        source = request.asked.at
        inputs = f"{len(request.problems)} points"
        inputs += f" from {source}" if isinstance(source, str) else ""
    else:
        inputs = domain_words(model, request.problems[0].domain)
    first: Facts = ()
    if request.reference is not None:
        other = request.reference
        said = f"{other.path or 'given as an object'} ({other.network.architecture})"
        first = (("Reference", said),)
    return (
        *first,
        ("Model", name),
        ("Parameters", perturbation_words(request)),
        ("Inputs", inputs),
        ("Output", output_words(model)),
    )


def _remarks(boundary: str | None, outcome: Outcome) -> tuple[str, ...]:
    remarks = [f"{_capital(boundary)}."] if boundary else []
    if outcome.reason:
        remarks.append(f"{_capital(outcome.reason).rstrip('.')}.")
    return tuple(remarks)


def _proved(request: Request, outcome: Outcome) -> tuple[str, ...]:
    said = []
    if outcome.verdict is not Verdict.NOT_ROBUST and "bounds" in outcome.solver:
        said.append("Every proof accounts for the floating-point rounding of the engine itself.")
    if outcome.verdict is Verdict.NOT_ROBUST:
        said.append(f"This is refuted: {_any(request)}, {holds_words(request)}.")
    said.append(_semantics(request))
    if not outcome.exact_encoding and request.problems[0].arithmetic is None:
        relaxed = _ROUNDINGS if is_rigid(request) else _RELAXED
        said.append(_GRID if request.perturbation.only_ends else relaxed)
    return tuple(said)


def _semantics(request: Request) -> str:
    problem = request.problems[0]
    if problem.arithmetic is None:
        return REAL if request.reference is None else _REAL_FILES
    return (
        f"The statement is about the network executed in {problem.semantics}, with sums in "
        f"{problem.arithmetic.accumulator.name}; {held_against(request)} that it is compared with "
        "is in real-number arithmetic."
    )


def _any(request: Request) -> str:
    is_box = isinstance(request.problems[0].domain, Box)
    inputs = "for every input of the box" if is_box else "at every point asked about"
    if isinstance(request.problems[0].domain, Ball):
        inputs = "for every input within the radius of a point asked about"
    return f"{inputs} and {vectors(request)}"


def _brackets(
    request: Request, outcome: Outcome, report: dict[str, Any]
) -> tuple[BracketView, ...]:
    return tuple(
        _bracket(request, name, bracket, report) for name, bracket in outcome.brackets.items()
    )


def _bracket(request: Request, name: str, bracket: Bracket, report: dict[str, Any]) -> BracketView:
    path = f"brackets.{_PATHS.get(name, name)}"
    asked = request.asked.property()
    threshold = asked.epsilon if name == "epsilon" else asked.sigma
    if request.asked.quantity is not None:
        threshold = None
    end = None if threshold is None else float(threshold)
    return bracket_view(request.model.output, name, bracket, (report, path), end)


def bracket_view(
    output: OutputInfo,
    name: str,
    bracket: Bracket,
    place: tuple[dict[str, Any], str],
    threshold: float | None = None,
) -> BracketView:
    """Return how a bracket is shown.

    Args:
        output: what the outputs mean.
        name: the bracket's.
        bracket: itself.
        place: the JSON object, and the path of the bracket in it.
        threshold: what was asked, in the bracket's unit.
    """
    ends, path = place
    for key in path.split("."):
        ends = ends[key]
    is_delta = name == "delta"
    lower_is = "proved"
    if not is_delta and bracket.lower == 0:
        lower_is = "trivial"
    elif not is_delta and bracket.witness is not None:
        lower_is = "attained by a witness"
    upper_is = "proved"
    if ends["upper"] is None:
        upper_is = "not known"
    elif is_delta:
        upper_is = "refuted by a witness"
    return BracketView(
        name=name.replace("_", " "),
        meaning=bracket_meaning(name, output),
        short=bracket_texts(bracket.lower, bracket.upper),
        lower=Number(ends["lower"], f"{path}.lower"),
        upper=Number(ends["upper"], f"{path}.upper"),
        lower_is=lower_is,
        upper_is=upper_is,
        top=_top(name, output, bracket),
        threshold=None if is_delta else threshold,
    )


def _top(name: str, output: OutputInfo, bracket: Bracket) -> float:
    """Return the right end of the scale: what is possible at all, where that is known."""
    if name == "epsilon" and output.kind != "value":
        return 1.0
    if name in ("sigma_above", "sigma_below") and output.kind in ("probability", "logit"):
        level = float(output.level or 0)
        return 1.0 - level if name == "sigma_above" else level
    finite = [v for v in (bracket.lower, bracket.upper) if v not in (0.0, float("inf"))]
    return 1.25 * max(finite, default=1.0)


def _points(request: Request, outcome: Outcome) -> PointsView | None:
    if not isinstance(outcome, PointsOutcome):
        return None
    parts = list(enumerate(outcome.points))
    if outcome.verdict is None:
        summary = f"{len(parts)} points, those with the largest values first."
        odd = sorted(
            parts, key=lambda p: -max((b.upper for b in p[1].brackets.values()), default=0.0)
        )
        if request.asked.quantity == "delta":
            summary = f"{len(parts)} points, those with the smallest delta first."
            odd = odd[::-1]
    else:
        counts = {v: sum(o.verdict is v for _, o in parts) for v in Verdict}
        words = {
            Verdict.ROBUST: "robust",
            Verdict.NOT_ROBUST: "not robust",
            Verdict.UNKNOWN: "open",
        }
        said = ", ".join(f"{n} {words[v]}" for v, n in counts.items())
        summary = f"{len(parts)} points: {said}."
        odd = [p for p in parts if p[1].verdict is not Verdict.ROBUST]
    shown = tuple(_point(request, i, part) for i, part in odd[:SHOWN_POINTS])
    return PointsView(summary, _accuracy(request, outcome), shown, len(odd) - len(shown))


def _point(request: Request, index: int, part: Outcome) -> PointView:
    at = inputs_text(request.model, request.problems[index].domain.inner()[0])
    return PointView(index, at, *verdict_answer(part))


def _accuracy(request: Request, outcome: PointsOutcome) -> str | None:
    accuracy = outcome.accuracy
    if accuracy is None:
        return None
    whose = "as trained" if request.reference is None else "of the reference"
    text = f"Accuracy: {percent(accuracy.reference)} {whose}"
    if accuracy.certified is not None and accuracy.at_most is not None:
        ends = f"{percent(accuracy.certified)} and {percent(accuracy.at_most)}"
        text += f"; between {ends} {accuracy_under(request)}"
    return f"{text}."


def _model(request: Request, report: dict[str, Any]) -> Facts:
    kind = report["perturbation"]["kind"]
    level = report["property"]["level"]
    return (
        *model_facts(report),
        ("Perturbation", f"{kind}: {perturbation_words(request)}"),
        ("Property", f"{report['property']['name']}, {report['property']['scope']}"),
        ("Level", "none" if level is None else Number(level, "property.level")),
    )


def model_facts(report: dict[str, Any]) -> Facts:
    """Return path, hash and size of the model, and of the reference if it is another file."""
    rows: list[tuple[str, str | Number]] = []
    for key, heading in (("model", ""), ("reference", "Reference: ")):
        said = report[key]
        if said is None:
            continue
        rows += [
            (f"{heading}File", said["path"] or "given as an object"),
            (f"{heading}SHA-256", said["sha256"] or "none: not read from a file"),
            (f"{heading}Architecture", said["architecture"]),
            (f"{heading}Parameters", Number(said["parameters"], f"{key}.parameters")),
        ]
    return tuple(rows)


def _domain(request: Request) -> tuple[DomainRow, ...]:
    return () if request.several else domain_rows(request.model, request.problems[0].domain)


def domain_rows(model: Model, domain: Domain) -> tuple[DomainRow, ...]:
    """Return the ends of the first inputs of a domain."""
    is_box = isinstance(domain, Box)
    lower = [float(v) for v in (domain.lower if isinstance(domain, Box) else domain.x)]
    upper = [float(v) for v in (domain.upper if isinstance(domain, Box) else domain.x)]
    named = input_names(model, domain.size)
    keys = ("domain.lower", "domain.upper") if is_box else ("domain.x", "domain.x")
    return tuple(
        DomainRow(name, unit, Number(low, f"{keys[0]}.{i}"), Number(high, f"{keys[1]}.{i}"))
        for i, ((name, unit), low, high) in enumerate(zip(named, lower, upper, strict=True))
    )[:SHOWN_ROWS]


def _domain_note(request: Request) -> str:
    if request.several:
        return f"{len(request.problems)} points."
    more = request.problems[0].domain.size - SHOWN_ROWS
    return f"And {more} more inputs, which the JSON lists." if more > 0 else ""


def engine_facts(report: dict[str, Any]) -> Facts:
    """Return engine, semantics, seconds and versions of a JSON object."""
    rows: list[tuple[str, str | Number]] = [
        ("Engine", report["solver"]),
        ("Semantics", f"{report['semantics']}-number arithmetic"),
        ("Engine seconds", Number(report["engine_seconds"], "engine_seconds")),
    ]
    rows += [(name, version) for name, version in report["versions"].items()]
    return tuple(rows)


def _commands(
    command: str | None, witness_file: str | None, report: dict[str, Any]
) -> tuple[tuple[str, str], ...]:
    rows = [] if command is None else [("The question again", command)]
    if witness_file is not None:
        rows.append(
            (
                "The counterexample, in exact arithmetic",
                shlex.join(["paramrob", "replay", witness_file]),
            )
        )
    elif command is not None and "--witness" not in command and report["witness"] is not None:
        saved = f"{command} --witness witness.npz"
        rows.append(("The counterexample saved, for paramrob replay", saved))
    return tuple(rows)


def within_limit(text: str) -> str | None:
    """Return the text unless a page would grow too large with it."""
    return text if len(text) <= LARGEST_JSON else None

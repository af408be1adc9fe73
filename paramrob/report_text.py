"""What an outcome looks like to a person: short text that reads well without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from paramrob.decimals import bracket_texts
from paramrob.models.model import Model
from paramrob.report import (
    agreement,
    boundary_sentence,
    is_closed,
    label_name,
    reported_witness,
    versions,
)
from paramrob.requests.build import Request
from paramrob.runtime import runtime_words
from paramrob.solve import PointsOutcome
from paramrob.verdict import Outcome, Verdict, Witness
from paramrob.witnesses import Replayed
from paramrob.wording import (
    accuracy_under,
    agreement_words,
    bracket_meaning,
    domain_words,
    ends_said,
    held_against,
    inputs_text,
    output_words,
    outputs_text,
    percent,
    perturbation_words,
    property_words,
    question,
    relaxed_words,
    sides,
)

_SHOWN_POINTS = 10
_STYLES = {Verdict.ROBUST: "bold green", Verdict.NOT_ROBUST: "bold red"}
_VERDICTS = {
    Verdict.ROBUST: "ROBUST (proved)",
    Verdict.NOT_ROBUST: "NOT ROBUST (refuted by a replayed witness)",
    Verdict.UNKNOWN: "UNKNOWN (neither proved nor refuted)",
}


def print_report(
    console: Console,
    request: Request,
    outcome: Outcome,
    *,
    tolerance: float,
    witness_file: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Print the answer for a person; one line if ``quiet``."""
    if quiet:
        console.print(Text(headline(outcome)), soft_wrap=True)
        return
    rows: list[tuple[str, RenderableType]] = [("question", Text(question(request)))]
    rows += [(name, Text(text)) for name, text in _subject(request, verbose)]
    rows += [("answer", _answer(outcome, tolerance)), *_brackets(request, outcome)]
    boundary = boundary_sentence(request, outcome)
    if boundary:
        rows.append(("", Text(f"{boundary}.")))
    if isinstance(outcome, PointsOutcome):
        rows += _points(request, outcome, verbose)
    rows += _witness(request, outcome, witness_file)
    if outcome.reason:
        rows.append(("open", Text(outcome.reason)))
    rows += [("assumed", Text(sentence)) for sentence in request.assumptions]
    rows += [("note", Text(note)) for note in outcome.notes]
    if not outcome.exact_encoding:
        text = relaxed_words(request)
        if request.problems[0].arithmetic is not None:
            text = "rounding errors were bounded: proofs hold, but an open answer may stay open"
        rows.append(("note", Text(text)))
    rows.append(("engine", Text(_engine(request, outcome, verbose))))
    _print(console, _grid(rows))


def print_replay(console: Console, replayed: Replayed, quiet: bool = False) -> None:
    """Print what came of re-executing a saved counterexample."""
    answer = "reproduced" if replayed.reproduced else "not reproduced"
    if quiet:
        console.print(Text(answer))
        return
    problem, model = replayed.problem, replayed.model
    claim = ""
    if problem.property is not None and replayed.reference is not None:
        claim = agreement_words(problem.property, model.output)
    elif problem.property is not None:
        claim = property_words(problem.property, problem)
    rows: list[tuple[str, RenderableType]] = [
        ("question", Text(f"{claim}?")),
        *_reference_row(replayed),
        ("model", Text(str(model.path))),
        *[
            ("parameters", Text(words))
            for words in (problem.uncertain.perturbation.words,)
            if words
        ],
        ("inputs", Text(domain_words(model, problem.domain))),
        ("answer", Text(answer.upper(), style="bold")),
    ]
    if replayed.reason:
        rows.append(("because", Text(replayed.reason)))
    if replayed.witness is not None:
        called = ("trained", "perturbed") if replayed.reference is None else ("reference", "model")
        rows += _witness_rows(model, replayed.witness, called)
    _print(console, _grid(rows))


def _reference_row(replayed: Replayed) -> list[tuple[str, RenderableType]]:
    if replayed.reference is None:
        return []
    return [("reference", Text(str(replayed.reference.path)))]


def print_rows(console: Console, rows: Iterable[tuple[str, RenderableType]]) -> None:
    """Print names and texts in two columns."""
    _print(console, _grid(rows))


def _print(console: Console, table: Table) -> None:
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    # Cells are padded with spaces, which only get in the way of a file or a diff.
    lines = (line.rstrip() for line in captured.get().splitlines())
    console.out("\n".join(lines), highlight=False)


def _grid(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, content in rows:
        table.add_row(name, content)
    return table


def headline(outcome: Outcome) -> str:
    """Return the answer in one line."""
    if outcome.verdict is not None:
        return outcome.verdict.value
    return "; ".join(
        f"{name} {' .. '.join(bracket_texts(b.lower, b.upper))}"
        for name, b in outcome.brackets.items()
    )


def _subject(request: Request, verbose: bool) -> list[tuple[str, str]]:
    model = request.model
    rows = [] if request.reference is None else [("reference", _model_words(request.reference))]
    rows.append(("model", _model_words(model)))
    if verbose and model.sha256:
        rows.append(("sha256", model.sha256))
    rows.append(("parameters", perturbation_words(request)))
    if not request.several:
        rows.append(("inputs", domain_words(model, request.problems[0].domain)))
    rows.append(("output", output_words(model)))
    return rows


def _model_words(model: Model) -> str:
    name = f"{model.path or 'given as an object'}: {model.network.architecture}"
    return f"{name}, {model.network.parameter_count} parameters"


def _answer(outcome: Outcome, tolerance: float) -> RenderableType:
    if outcome.verdict is not None:
        style = _STYLES.get(outcome.verdict, "bold yellow")
        return Text(_VERDICTS[outcome.verdict], style=style)
    if is_closed(outcome, tolerance):
        return Text(f"bracket closed to {tolerance:g}", style="bold green")
    return Text(f"bracket wider than {tolerance:g}; both ends still hold", style="bold yellow")


def _brackets(request: Request, outcome: Outcome) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    for name, bracket in outcome.brackets.items():
        lower, upper = bracket_texts(bracket.lower, bracket.upper)
        meaning = bracket_meaning(name, request.model.output)
        text = Text(f"{lower} .. {upper}", style="bold")
        rows.append((name.replace("_", " "), text.append(f"  {meaning}", style="not bold")))
    if rows:
        rows.append(("", Text(ends_said(outcome.brackets.values(), "delta" in outcome.brackets))))
    return rows


def _witness(
    request: Request, outcome: Outcome, witness_file: str | None
) -> list[tuple[str, RenderableType]]:
    witness = reported_witness(outcome)
    if witness is None:
        return []
    rows = _witness_rows(request.model, witness, sides(request))
    if outcome.runtime is not None:
        names = [label_name(request.model.output, label) for label in outcome.runtime.labels]
        rows.append(("runtime", Text(runtime_words(outcome.runtime, names))))
    if witness_file:
        rows.append(("", Text(f"saved; repeat it with: paramrob replay {witness_file}")))
    return rows


def _witness_rows(
    model: Model, witness: Witness, called: tuple[str, str]
) -> list[tuple[str, RenderableType]]:
    return [
        ("witness", Text(inputs_text(model, witness.input.ravel()))),
        ("", _outputs(model, witness, called)),
    ]


def _outputs(model: Model, witness: Witness, called: tuple[str, str]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    outputs = (witness.reference_output, witness.perturbed_output)
    for side, values, label in zip(called, outputs, witness.labels, strict=True):
        name = label_name(model.output, label)
        said = "" if name is None else f"label {name}"
        grid.add_row(Text(side), Text(outputs_text(values, model.output)), Text(said))
    return grid


def _points(
    request: Request, outcome: PointsOutcome, verbose: bool
) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    if outcome.verdict is not None:
        counts = {v: sum(o.verdict is v for o in outcome.points) for v in Verdict}
        said = ", ".join(f"{n} {v.value.replace('_', ' ')}" for v, n in counts.items())
        rows.append(("points", Text(f"{said} of {len(outcome.points)}")))
    if request.reference is not None and outcome.shares:
        rows.append(("agreement", Text(_agreement(request, outcome))))
    accuracy = outcome.accuracy
    if accuracy is not None:
        whose = "as trained" if request.reference is None else "of the reference"
        text = f"{percent(accuracy.reference)} {whose}"
        if accuracy.certified is not None and accuracy.at_most is not None:
            ends = f"{percent(accuracy.certified)} and {percent(accuracy.at_most)}"
            text += f"; between {ends} {accuracy_under(request)}"
        rows.append(("accuracy", Text(text)))
    shares = outcome.shares
    if shares and accuracy is not None and accuracy.certified is not None:
        text = f"{percent(accuracy.certified)} correctly labelled and proved"
        text += f"; {percent(shares['not_robust'])} of all refuted with a witness"
        rows.append(("certified", Text(f"{text}, {percent(shares['unknown'])} open")))
    odd = [(i, o) for i, o in enumerate(outcome.points) if o.verdict is not Verdict.ROBUST]
    shown = odd if verbose else odd[:_SHOWN_POINTS]
    for i, part in shown:
        at = inputs_text(request.model, request.problems[i].domain.inner()[0])
        rows.append((f"point {i}", Text(f"{headline(part)} at {at}")))
    if len(odd) > len(shown):
        rows.append(("", Text(f"and {len(odd) - len(shown)} more points; -v lists them all")))
    return rows


def _agreement(request: Request, outcome: PointsOutcome) -> str:
    """Return on which share of the points two files agree, and what a runtime shows of the rest."""
    ends = agreement(outcome)
    said = f"{percent(ends['certified'])} of the points proved"
    if ends["at_most"] != ends["certified"]:
        said += f", at most {percent(ends['at_most'])}"
    runs = [part.runtime for part in outcome.points if part.runtime is not None]
    if runs:
        shown = sum(run.reproduced for run in runs)
        said += f"; {runs[0].name} shows {shown} of {len(runs)} refutations"
    return said


def _engine(request: Request, outcome: Outcome, verbose: bool) -> str:
    arithmetic = request.problems[0].arithmetic
    semantics = "real-number semantics"
    if arithmetic is not None:
        semantics = (
            f"{arithmetic.name} semantics with sums in {arithmetic.accumulator.name} "
            f"({held_against(request).removeprefix('the ')}: real numbers)"
        )
    text = f"{outcome.solver}, {semantics}, {outcome.engine_seconds:.3g} s"
    if verbose:
        text += "; " + ", ".join(f"{name} {version}" for name, version in versions().items())
    return text

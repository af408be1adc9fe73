"""What the shares of layers look like: text, the JSON object and the exit code."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from paramrob.decimals import rounded_down, rounded_up
from paramrob.layer_shares import Share, Shares
from paramrob.report import OPEN, PROVED, as_json, bracket_json
from paramrob.report_text import print_rows
from paramrob.verdict import Bracket, Outcome
from paramrob.wording import domain_words, measured, output_words, perturbation_words, where

_DIGITS = 5
_SHOWN = 20
_MEANING = (
    "lower end attained by a replayed witness, upper end proved; shares do not add up to the whole"
)


def exit_code_of_shares(found: Shares, tolerance: float) -> int:
    """Return 0 where the first place is proved or every bracket is closed, else 3."""
    if found.interrupted:
        return OPEN
    done = found.proved_first is not None or found.is_closed(tolerance)
    return PROVED if done else OPEN


def ranking_sentence(found: Shares) -> str:
    """Return which part does most, and whether that is proved."""
    first = found.shares[0]
    name = _named(found, first)
    if len(found.shares) == 1:
        return f"{name} is the only one that moves"
    runner_up = max(found.shares[1:], key=lambda s: s.alone.upper)
    if found.proved_first is not None:
        low, high = _apart(first.alone.lower, runner_up.alone.upper)
        return (
            f"{name} ranks first, proved: alone it moves the {_measured(found)} by {low} or more, "
            f"every other by {high} at most"
        )
    return (
        f"{name} ranks first by its upper end, not proved: its lower end does not exceed the upper "
        f"end of {_named(found, runner_up)}"
    )


def shares_json(found: Shares) -> dict[str, Any]:
    """Return the report's JSON object; an unbounded end is null.

    ``parts`` are ranked; ``alone`` and ``without`` are brackets of epsilon, ``first`` names the
    part that is proved to do most alone, null where none is. ``brackets.epsilon`` is that of the
    whole box.
    """
    request = found.request
    whole = Outcome(brackets={"epsilon": found.whole}, engine_seconds=found.seconds)
    said = as_json(request, whole) | {
        "command": "blame",
        "per": "layer" if found.layer is None else "channel",
        "layer": found.layer,
        "first": None if found.proved_first is None else found.proved_first.name,
        "parts": [
            {
                "name": share.name,
                "values": share.values,
                "alone": bracket_json(request.model, share.alone),
                "without": bracket_json(request.model, share.without),
            }
            for share in found.shares
        ],
        "notes": [ranking_sentence(found)],
    }
    for name in ("verdict", "witness", "method", "exact_encoding", "solver"):
        said.pop(name)
    return said


def print_shares(
    console: Console, found: Shares, tolerance: float, quiet: bool = False, verbose: bool = False
) -> None:
    """Print the answer for a person; one line if ``quiet``, every part if ``verbose``."""
    sentence = ranking_sentence(found)
    if quiet:
        console.print(Text(sentence), soft_wrap=True)
        return
    request, model = found.request, found.request.model
    each = "layer" if found.layer is None else f"output channel of {found.layer}"
    asked = f"how far does each {each} move the {_measured(found)}, {where(request)}?"
    name = f"{model.path or 'given as an object'}: {model.network.architecture}"
    rows: list[tuple[str, RenderableType]] = [
        ("question", Text(asked)),
        ("model", Text(f"{name}, {model.network.parameter_count} parameters")),
        ("parameters", Text(perturbation_words(request))),
    ]
    if not request.several:
        rows.append(("inputs", Text(domain_words(model, request.problems[0].domain))))
    rows.append(("output", Text(output_words(model))))
    style = "bold green" if exit_code_of_shares(found, tolerance) == PROVED else "bold yellow"
    rows.append(("answer", Text(sentence, style=style)))
    rows.append(("whole box", Text(_ends(found.whole))))
    rows.append(("shares", _table(found, len(found.shares) if verbose else _SHOWN)))
    if len(found.shares) > _SHOWN and not verbose:
        rows.append(("", Text(f"and {len(found.shares) - _SHOWN} more; -v lists them all")))
    rows.append(("", Text(_MEANING)))
    if not found.is_closed(tolerance):
        said = f"brackets wider than {tolerance:g}; raise --timeout or widen --tolerance"
        rows.append(("open", Text("stopped early" if found.interrupted else said)))
    rows += [("assumed", Text(said)) for said in request.assumptions]
    rows.append(("engine", Text(f"real-number semantics, {found.seconds:.3g} s")))
    print_rows(console, rows)


def _table(found: Shares, most: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    what = "layer" if found.layer is None else "channel"
    for heading in (what, "values", "alone", "all but it"):
        table.add_column(heading, justify="right" if heading == "values" else "left")
    for share in found.shares[:most]:
        cells = (share.name, str(share.values), _ends(share.alone), _ends(share.without))
        table.add_row(*map(escape, cells))
    return table


def _ends(bracket: Bracket) -> str:
    """Return a bracket in few digits, which is still one: the ends are rounded outward."""
    return f"{rounded_down(bracket.lower, _DIGITS)} .. {rounded_up(bracket.upper, _DIGITS)}"


def _apart(low: float, high: float) -> tuple[str, str]:
    """Return a number rounded down and a smaller one rounded up, in digits that keep them apart."""
    texts = ("", "")
    for digits in range(_DIGITS, 18):
        texts = rounded_down(low, digits), rounded_up(high, digits)
        if float(texts[0]) > float(texts[1]):
            break
    return texts


def _named(found: Shares, share: Share) -> str:
    return f"{'layer' if found.layer is None else 'channel'} {share.name}"


def _measured(found: Shares) -> str:
    return measured(found.request.model.output)

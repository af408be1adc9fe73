"""What the fewest bits look like: text, the JSON object and the exit code."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from paramrob.bit_widths import FewestBits, Width
from paramrob.report import OPEN, PROVED, REFUTED, as_json
from paramrob.report_text import print_rows
from paramrob.verdict import Verdict
from paramrob.wording import domain_words, output_words, property_words, where

_WORDS = {
    Verdict.ROBUST: ("proved", "green"),
    Verdict.NOT_ROBUST: ("refuted", "red"),
    Verdict.UNKNOWN: ("open", "yellow"),
}
_OF_WIDTHS = ("perturbation", "verdict", "reason", "witness", "exact_encoding", "engine_seconds")
_NOT_OF_ALL = (*_OF_WIDTHS, "brackets", "solver", "method", "points", "shares", "accuracy", "notes")


def exit_code_of_bits(found: FewestBits) -> int:
    """Return 0 where a width was found, 1 where the widest is refuted, 3 where it is open."""
    if found.bits is not None:
        return PROVED
    return REFUTED if found.widths[0].outcome.verdict is Verdict.NOT_ROBUST else OPEN


def bits_json(found: FewestBits, witness_file: str | None = None) -> dict[str, Any]:
    """Return the report's JSON object; ``bits`` is null where no width was found.

    Args:
        found: the answers.
        witness_file: where the counterexample of the widest refuted width was saved, if anywhere.
    """
    reports = [as_json(w.request, w.outcome) for w in found.widths]
    whole = {k: v for k, v in reports[0].items() if k not in _NOT_OF_ALL}
    widths = [
        {"bits": w.bits} | {k: said[k] for k in (*_OF_WIDTHS, "solver")}
        for w, said in zip(found.widths, reports, strict=True)
    ]
    for width, said in zip(found.widths, widths, strict=True):
        if width is found.witnessed and said["witness"] is not None:
            said["witness"]["file"] = witness_file
    seconds = sum(w.outcome.engine_seconds for w in found.widths)
    rest = {"quantity": "bits", "bits": found.bits, "widths": widths, "engine_seconds": seconds}
    return whole | rest


def print_bits(
    console: Console, found: FewestBits, witness_file: str | None = None, quiet: bool = False
) -> None:
    """Print the answer for a person; one line if ``quiet``."""
    bits = "none" if found.bits is None else str(found.bits)
    if quiet:
        console.print(Text(f"bits {bits}"))
        return
    request = found.widths[0].request
    problem, model = request.problems[0], request.model
    holds = property_words(request.asked.property(), problem)
    rows: list[tuple[str, RenderableType]] = [
        ("question", Text(f"down to how many bits {holds}, {where(request)}?")),
        ("model", Text(f"{model.path or 'given as an object'}: {model.network.architecture}")),
        ("parameters", Text(f"at 8 bits, or the nearest width asked about: {_example(found)}")),
    ]
    if not request.several:
        rows.append(("inputs", Text(domain_words(model, problem.domain))))
    rows.append(("output", Text(output_words(model))))
    style = "bold yellow" if found.bits is None else "bold green"
    rows.append(("answer", Text(_answer(found), style=style)))
    rows += [(f"{w.bits} bits", _of_width(w)) for w in found.widths]
    if witness_file and found.witnessed is not None:
        said = f"counterexample at {found.witnessed.bits} bits saved; repeat it with: "
        rows.append(("", Text(f"{said}paramrob replay {witness_file}")))
    rows += [("assumed", Text(sentence)) for sentence in request.assumptions]
    seconds = sum(w.outcome.engine_seconds for w in found.widths)
    semantics = "real-number" if problem.arithmetic is None else problem.semantics
    solvers = ", ".join(dict.fromkeys(w.outcome.solver for w in found.widths if w.outcome.solver))
    rows.append(("engine", Text(f"{solvers}, {semantics} semantics, {seconds:.3g} s")))
    print_rows(console, rows)


def _example(found: FewestBits) -> str:
    width = min(found.widths, key=lambda w: abs(w.bits - 8))
    return width.request.perturbation.words or ""


def _answer(found: FewestBits) -> str:
    widest, stopper = found.widths[0].bits, found.stopper
    if found.bits is None:
        return f"NONE: {widest} bits are not proved"
    if found.bits == widest:
        said = f"{widest} BITS are proved"
    else:
        said = f"{found.bits} BITS: every width from {found.bits} to {widest} is proved"
    if stopper is None:
        return said
    return f"{said}, {stopper.bits} bits are {_WORDS[_verdict(stopper)][0]}"


def _of_width(width: Width) -> Text:
    word, style = _WORDS[_verdict(width)]
    reason = width.outcome.reason
    return Text(word, style=style).append(f": {reason}" if reason else "", style="not bold")


def _verdict(width: Width) -> Verdict:
    return width.outcome.verdict or Verdict.UNKNOWN

"""What widths layer by layer look like: text, the JSON object and the exit code."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from paramrob.mixed_widths import LayerWidth, MixedWidths
from paramrob.report import OPEN, PROVED, as_json
from paramrob.report_bits import bits_json, exit_code_of_bits
from paramrob.report_text import print_rows
from paramrob.wording import domain_words, output_words, percent, property_words, where

_SMALLEST = "a descent found it: another assignment may be smaller"
_COUNTED = "sizes are those of the rounded weights, without scales, biases and kept layers"


def exit_code_of_mixed(found: MixedWidths) -> int:
    """Return 0 where widths were proved, 1 where the widest for all layers is refuted, else 3."""
    if found.start is None:
        # Interrupted, a width may be proved that nothing was made of.
        return exit_code_of_bits(found.uniform) or OPEN
    return PROVED if found.proved else OPEN


def mixed_json(found: MixedWidths, command: str | None = None) -> dict[str, Any]:
    """Return the report's JSON object.

    It is that of a check with the widths found, with ``layers`` (their names, weights, bits and
    bytes), ``size_bits``, ``size_bytes``, ``uniform`` (the fewest bits that are proved for all
    layers alike, and the size with them), ``asked`` (how many assignments were) and ``repeat``.
    Where no width is proved for all layers alike it is that of the fewest bits, ``layers`` null.

    Args:
        found: the answer.
        command: that repeats the proof.
    """
    if found.request is None or found.outcome is None:
        return bits_json(found.uniform) | {"per_layer": True, "layers": None}
    uniform = {"bits": found.start, "size_bits": found.uniform_size}
    return as_json(found.request, found.outcome) | {
        "command": "estimate",
        "quantity": "bits",
        "per_layer": True,
        "layers": [
            {
                "names": list(layer.layers),
                "weights": layer.weights,
                "bits": layer.bits,
                "bytes": _bytes(layer.size),
            }
            for layer in found.widths
        ],
        "size_bits": found.size,
        "size_bytes": sum(_bytes(layer.size) for layer in found.widths),
        "uniform": uniform | {"size_bytes": _uniform_bytes(found)},
        "asked": found.asked,
        "repeat": command,
    }


def print_mixed(
    console: Console, found: MixedWidths, command: str | None = None, quiet: bool = False
) -> None:
    """Print the answer for a person; one line if ``quiet``."""
    if quiet:
        console.print(Text(_answer(found)), soft_wrap=True)
        return
    request = found.request or found.uniform.widths[0].request
    problem, model = request.problems[0], request.model
    holds = property_words(request.asked.property(), problem)
    rows: list[tuple[str, RenderableType]] = [
        ("question", Text(f"with how few bits, layer by layer, {holds}, {where(request)}?")),
        ("model", Text(f"{model.path or 'given as an object'}: {model.network.architecture}")),
    ]
    if not request.several:
        rows.append(("inputs", Text(domain_words(model, problem.domain))))
    rows.append(("output", Text(output_words(model))))
    style = "bold green" if found.proved else "bold yellow"
    rows.append(("answer", Text(_answer(found), style=style)))
    if found.widths:
        words = request.perturbation.words or ""
        rows += [("parameters", Text(words)), ("widths", _table(found))]
        rows += [("note", Text(_COUNTED)), ("note", Text(_SMALLEST))]
    if command is not None:
        rows.append(("repeat", Text(command)))
    rows += [("assumed", Text(sentence)) for sentence in request.assumptions]
    said = f"{found.asked} assignments asked about, {found.seconds:.3g} s"
    rows.append(("engine", Text(f"real-number semantics, {said}")))
    print_rows(console, rows)


def _answer(found: MixedWidths) -> str:
    if found.start is None:
        return "NONE: no width was proved for all layers alike, so there is nothing to start from"
    saved = 1 - found.size / found.uniform_size
    said = (
        f"{found.size} bits of weights, {percent(saved)} less than the {found.uniform_size} of "
        f"{found.start} bits for every layer"
    )
    if found.proved:
        return f"PROVED: {said}"
    return f"OPEN: {said}; the last proof was not finished: raise --timeout"


def _table(found: MixedWidths) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer")
    for heading in ("weights", "bits", "bytes", f"bytes at {found.start} bits"):
        table.add_column(heading, justify="right")
    for layer in found.widths:
        before = _bytes(_at(layer, found.start or 0))
        cells = (", ".join(layer.layers), *map(str, (layer.weights, layer.bits)))
        table.add_row(*map(escape, (*cells, str(_bytes(layer.size)), str(before))))
    weights = sum(layer.weights for layer in found.widths)
    sizes = sum(_bytes(layer.size) for layer in found.widths), _uniform_bytes(found)
    table.add_row("all", str(weights), "", *map(str, sizes))
    return table


def _uniform_bytes(found: MixedWidths) -> int:
    return sum(_bytes(_at(layer, found.start or 0)) for layer in found.widths)


def _at(layer: LayerWidth, bits: int) -> int:
    return layer.weights * bits


def _bytes(bits: int) -> int:
    return -(-bits // 8)

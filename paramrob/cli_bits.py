"""``paramrob estimate MODEL bits``: from its options to the fewest bits, or widths by layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from paramrob.cli_files import check_apart, check_writable, console, write_text
from paramrob.cli_line import command_line
from paramrob.cli_request import asked_of, loaded, settings_of
from paramrob.errors import InputError

if TYPE_CHECKING:
    from paramrob.mixed_widths import MixedWidths

_NOT_OF_CHECK = ("quantity", "per_layer", "json_file", "witness_file", "timeout")


def bits(model: str, options: dict[str, Any], per_layer: bool) -> int:
    """Answer, write what the options name, and return the exit code.

    Raises:
        InputError: options that do not go with bits, or whatever does not fit.
    """
    _check(model, options, per_layer)
    return _mixed(model, options) if per_layer else _uniform(model, options)


def _check(model: str, options: dict[str, Any], per_layer: bool) -> None:
    for name in ("quantize", "quantize_layer"):
        if options[name]:
            written = name.replace("_", "-")
            raise InputError(f"estimate bits tries every width: leave --{written} out")
    written_too = ("csv_file", "html_file", *(("witness_file",) if per_layer else ()))
    for name in written_too:
        if options[name] is not None:
            written = name.removesuffix("_file")
            raise InputError(f"estimate bits writes no --{written}; give --json FILE")
    for name in ("json_file", "witness_file"):
        check_writable(options[name], f"--{name.removesuffix('_file')}")
    check_apart(model, options)


def _uniform(model: str, options: dict[str, Any]) -> int:
    from paramrob.bit_widths import decide_widths
    from paramrob.progress import ProgressLine
    from paramrob.report import json_text
    from paramrob.report_bits import bits_json, exit_code_of_bits, print_bits
    from paramrob.witnesses import save_reported

    asked = asked_of("estimate", None, options | {"quantize": "int8"})
    settings = settings_of(options)
    with ProgressLine(console(stderr=True)) as line:
        found = decide_widths(asked, loaded(model, options), replace(settings, progress=line))
    saved, held = None, found.witnessed
    if held is not None:
        saved = save_reported(held.request, held.outcome, options["witness_file"])
    if options["json_file"] is not None:
        text = json_text(bits_json(found, saved))
        if options["json_file"] == "-":
            click.echo(text)
            return exit_code_of_bits(found)
        write_text(options["json_file"], text + "\n", "--json")
    print_bits(console(), found, saved, options["quiet"])
    return exit_code_of_bits(found)


def _mixed(model: str, options: dict[str, Any]) -> int:
    from paramrob.mixed_widths import mixed_widths
    from paramrob.progress import ProgressLine
    from paramrob.report import json_text
    from paramrob.report_mixed import exit_code_of_mixed, mixed_json, print_mixed

    asked = asked_of("estimate", None, options | {"quantize": "int8"})
    settings = settings_of(options)
    with ProgressLine(console(stderr=True)) as line:
        found = mixed_widths(asked, loaded(model, options), replace(settings, progress=line))
    command = _check_line(found)
    if options["json_file"] is not None:
        text = json_text(mixed_json(found, command))
        if options["json_file"] == "-":
            click.echo(text)
            return exit_code_of_mixed(found)
        write_text(options["json_file"], text + "\n", "--json")
    print_mixed(console(), found, command, options["quiet"])
    return exit_code_of_mixed(found)


def _check_line(found: MixedWidths) -> str | None:
    """Return the command that proves the result again."""
    if found.scheme is None:
        return None
    more = ["--quantize", found.scheme.format]
    for name, form in found.scheme.formats.items():
        more += ["--quantize-layer", f"{name}={form}"]
    return command_line(click.get_current_context(), "check", _NOT_OF_CHECK, more)

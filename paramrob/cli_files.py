"""What the command line writes, and where it may: files, standard output, standard error.

Nothing heavy is imported until there is something to write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramrob.cli_line import command_line
from paramrob.errors import InputError

if TYPE_CHECKING:
    from paramrob.requests.build import Request
    from paramrob.verdict import Outcome

_READ = ("sidecar", "perturbation", "domain", "domain_from", "at", "calibration")
WRITTEN = (
    *("json_file", "html_file", "csv_file", "witness_file", "junit_file", "certificate_file"),
    "output_file",
)
"""The options that name files to write."""


def option_of(name: str) -> str:
    """Return the option that a parameter of a command is written as."""
    return "-o" if name == "output_file" else f"--{name.removesuffix('_file')}"


def say(sentence: str) -> None:
    """Say a sentence on standard error."""
    click.echo(f"paramrob: {' '.join(sentence.split())}", err=True)


def write_answer(request: Request, outcome: Outcome, options: dict[str, Any]) -> str | None:
    """Write what the options name and print the rest; return where the witness was saved."""
    from paramrob.report import as_json, json_text
    from paramrob.report_text import print_report
    from paramrob.witnesses import save_reported

    saved = save_reported(request, outcome, options["witness_file"])
    if options["witness_file"] and saved is None and not options["quiet"]:
        say(f"no counterexample, so {options['witness_file']} was not written")
    _write_page(request, outcome, options, saved)
    json_file = options["json_file"]
    if json_file is not None:
        text = json_text(as_json(request, outcome, saved))
        if json_file == "-":
            click.echo(text)
            return saved
        write_text(json_file, text + "\n", "--json")
    print_report(
        console(),
        request,
        outcome,
        tolerance=options["tolerance"],
        witness_file=saved,
        verbose=options["verbose"],
        quiet=options["quiet"],
    )
    return saved


def _write_page(
    request: Request, outcome: Outcome, options: dict[str, Any], saved: str | None
) -> None:
    if options["html_file"] is None:
        return
    from paramrob.page import save_report

    save_report(
        options["html_file"],
        request,
        outcome,
        tolerance=options["tolerance"],
        command=command_line(click.get_current_context()),
        witness_file=saved,
    )


def check_writable(path: str | None, option: str) -> None:
    """Refuse a file that cannot be written.

    Raises:
        InputError: naming the option.
    """
    if path is None or (path == "-" and option == "--json"):
        return
    if path == "-":
        raise InputError(f"{option} -: standard output is for --json alone; name a file")
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{option}: {path} cannot be written; give a file in an existing folder")


def check_apart(model: str, options: dict[str, Any], reference: str | None = None) -> None:
    """Refuse two outputs, or an output and an input, that are one file.

    Raises:
        InputError: naming both.
    """
    taken = {os.path.realpath(model): "MODEL"}
    if reference is not None:
        taken[os.path.realpath(reference)] = "REFERENCE"
    for name in _READ:
        if options.get(name) is not None:
            taken[os.path.realpath(options[name])] = f"--{name.replace('_', '-')}"
    for name in WRITTEN:
        path, option = options.get(name), option_of(name)
        if path is None or (path == "-" and name == "json_file"):
            continue
        file = os.path.realpath(path)
        if file in taken and (Path(file).is_file() or not Path(file).exists()):
            raise InputError(f"{option} and {taken[file]} are both {path}; name another file")
        taken[file] = option


def write_text(path: str, text: str, option: str) -> None:
    """Write a text file.

    Raises:
        InputError: it cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option}: {path}: {error.strerror}; choose another file") from None


def console(stderr: bool = False) -> Any:
    """Return a console that adds no colour of its own to numbers."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)

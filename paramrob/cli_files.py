"""The files and the terminal that commands write to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from paramrob.errors import InputError

READ = ("sidecar", "perturbation", "domain", "domain_from", "at")
WRITTEN = (
    *("json_file", "html_file", "csv_file", "witness_file", "junit_file", "certificate_file"),
    "output_file",
)


def option_of(name: str) -> str:
    """Return the option that a parameter of a command is written as."""
    return "-o" if name == "output_file" else f"--{name.removesuffix('_file')}"


def check_writable(path: str | None, option: str) -> None:
    """Refuse a path at which no file can be written; ``-`` is standard output for JSON.

    Raises:
        InputError: with what to do instead.
    """
    if path is None or (path == "-" and option == "--json"):
        return
    folder = Path(path).absolute().parent
    if Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{option}: {path} cannot be written; give a file in an existing folder")


def check_apart(model: str, options: dict[str, Any]) -> None:
    """Refuse two outputs, or an output and an input, that are one file.

    Raises:
        InputError: with the two options.
    """
    taken = {os.path.realpath(model): "MODEL"}
    for name in READ:
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
    """Write a file.

    Raises:
        InputError: it cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option}: {path}: {error.strerror}; choose another file") from None


def console(stderr: bool = False) -> Any:
    """Return a console for reports, or for progress on standard error."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)

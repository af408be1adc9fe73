"""``paramrob blame``: from its options to the shares of layers and the files they ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from paramrob.cli_files import check_apart, check_writable, console, write_text
from paramrob.cli_request import asked_of, loaded, settings_of


def blamed(model: str, options: dict[str, Any]) -> int:
    """Answer, write what the options name, and return the exit code.

    Raises:
        InputError: whatever does not fit.
    """
    from paramrob.layer_shares import shares_of
    from paramrob.progress import ProgressLine
    from paramrob.report import json_text
    from paramrob.report_shares import exit_code_of_shares, print_shares, shares_json

    picture, json_file = options["output_file"], options["json_file"]
    check_writable(picture, "-o")
    check_writable(json_file, "--json")
    check_apart(model, options)
    if picture is not None:
        from paramrob.plots.draw import check_ending

        check_ending(picture)
    asked, settings = asked_of("estimate", "epsilon", options), settings_of(options)
    with ProgressLine(console(stderr=True)) as line:
        found = shares_of(
            asked,
            loaded(model, options),
            replace(settings, progress=line),
            options["per_channel"],
        )
    if picture is not None:
        from paramrob.plots.share_bars import save

        save(found, picture)
    code = exit_code_of_shares(found, settings.tolerance)
    if json_file is not None:
        text = json_text(shares_json(found))
        if json_file == "-":
            click.echo(text)
            return code
        write_text(json_file, text + "\n", "--json")
    print_shares(console(), found, settings.tolerance, options["quiet"], options["verbose"])
    return code

"""The command ``heatmap``: from its options to a computed heatmap and the files it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paramrob.errors import InputError
from paramrob.models.model import Model
from paramrob.plots import tables
from paramrob.plots.maps import Heatmap, MapAsked, compute
from paramrob.report import json_text
from paramrob.requests.build import Asked, build


def answer(model: Callable[[], Model], options: Mapping[str, Any]) -> tuple[Heatmap, list[str]]:
    """Compute a heatmap and write its files.

    Args:
        model: reads the model; called once the options are known to fit together.
        options: of the command, by name. ``-`` as ``json_file`` is standard output.

    Returns:
        The heatmap, and the files that were written.

    Raises:
        InputError: options or a model that do not fit, or a file that cannot be written.
    """
    same = ("kind", "fix", "points", "grid", "data", "timeout", "tolerance", "open_area")
    wanted = MapAsked(
        x=options["x_name"], y=options["y_name"], **{name: options[name] for name in same}
    )
    names = ("delta", "perturbation", "noise", "leave_out", "domain", "domain_from")
    asked = Asked("heatmap", wanted.quantity, **{name: options[name] for name in names})
    picture = options["output_file"]
    if picture is not None:
        from paramrob.plots.draw import check_ending

        check_ending(picture)
    made = compute(build(asked, model()), wanted)
    return made, write(made, picture, options["csv_file"], options["json_file"])


def write(
    made: Heatmap, picture: str | None, csv_file: str | None, json_file: str | None
) -> list[str]:
    """Write what is asked for and return the names of the files.

    Raises:
        InputError: a file that cannot be written.
    """
    files = []
    if picture is not None:
        from paramrob.plots.draw import save

        save(made, picture)
        files.append(picture)
    if csv_file is not None:
        _write_text(csv_file, tables.csv_text(made), "--csv")
        files.append(csv_file)
    if json_file == "-":
        print(json_text(tables.as_json(made)))  # noqa: T201
    elif json_file is not None:
        _write_text(json_file, json_text(tables.as_json(made)) + "\n", "--json")
        files.append(json_file)
    return files


def _write_text(path: str, text: str, option: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option}: {path}: {error.strerror}; choose another file") from None

"""Results as one self-contained HTML page: what it says (build), then how it looks (render)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paramrob.errors import InputError
from paramrob.page.build import page_of
from paramrob.page.content import Page, Picture
from paramrob.page.render import render
from paramrob.requests.build import Request
from paramrob.verdict import Outcome

__all__ = ["Page", "Picture", "page_of", "render", "save_page", "save_report"]


def save_report(
    path: str,
    request: Request,
    outcome: Outcome,
    *,
    tolerance: float,
    command: str | None = None,
    witness_file: str | None = None,
    pictures: Sequence[Picture] = (),
) -> None:
    """Write the page of a check or an estimation.

    Args:
        path: the file to write.
        request: what was asked.
        outcome: the answer to it.
        tolerance: width at which a bracket counts as closed.
        command: the command line that repeats it.
        witness_file: where the counterexample was saved, if anywhere.
        pictures: drawn elsewhere; they stand after answer and witness.

    Raises:
        InputError: the file cannot be written.
    """
    page = page_of(
        request,
        outcome,
        tolerance=tolerance,
        command=command,
        witness_file=witness_file,
        pictures=pictures,
    )
    save_page(path, page)


def save_page(path: str, page: Page) -> None:
    """Write a page.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        Path(path).write_text(render(page), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--html: {path}: {error.strerror}; choose another file") from None

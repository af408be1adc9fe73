"""Requests with answers, and the pages made of them."""

from __future__ import annotations

from typing import Any

from paramrob.engine import Settings
from paramrob.models.model import Model
from paramrob.page import page_of, render
from paramrob.report import as_json
from paramrob.requests.build import Asked, Request, build
from paramrob.solve import solve
from paramrob.verdict import Outcome
from tests.page.reading import Read, check_numbers, read
from tests.small_models import named_model


def asked(model: Model | None = None, **options: Any) -> Request:
    if options.get("quantity") != "delta" and "perturbation" not in options:
        options.setdefault("delta", "0.01")
    return build(Asked(**options), model or named_model())


def answered(request: Request) -> Outcome:
    return solve(request, Settings(solver="bounds"))


def page_text(request: Request, outcome: Outcome, **options: Any) -> str:
    return render(page_of(request, outcome, tolerance=1e-6, **options))


def checked(request: Request, outcome: Outcome, **options: Any) -> tuple[Read, set[str]]:
    """Return the page read back, and the places of its numbers, all held against the JSON."""
    found = read(page_text(request, outcome, **options))
    report = as_json(request, outcome, options.get("witness_file"))
    return found, check_numbers(found, report)

from __future__ import annotations

import io

import pytest
from rich.console import Console

from paramrob import progress
from paramrob.progress import ProgressLine, progress_text


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool, patience: float) -> str:
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    with ProgressLine(console) as line:
        line("epsilon", 0.125, 0.25)
        line("epsilon", 0.125, 0.2)
    return out.getvalue()


def test_the_bracket_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "epsilon 0.125 .. 0.25" in shown(monkeypatch, True, 0.0)


def test_nothing_is_shown_for_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, True, 1000.0) == ""


def test_nothing_is_shown_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, False, 0.0) == ""


def test_the_line_says_how_to_stop() -> None:
    text = progress_text("sigma_above", 0.0, float("inf"), 3.2)
    assert text == "sigma above 0 .. infinity  3 s  (Ctrl-C keeps this bracket)"

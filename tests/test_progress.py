from __future__ import annotations

import io

import pytest
from rich.console import Console

from paramrob import progress
from paramrob.progress import ProgressLine, points_text, progress_text
from paramrob.several import Tally


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


def test_the_line_says_how_many_points_are_done() -> None:
    said = points_text(Tally(360, proved=100, refuted=15, open=5), 12.4)
    assert said == "120 of 360 points: 100 proved, 15 refuted, 5 open  12 s  (Ctrl-C keeps these)"
    assert points_text(Tally(9, estimated=3), 1) == "3 of 9 points  1 s  (Ctrl-C keeps these)"


def test_points_are_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    out = io.StringIO()
    with ProgressLine(Console(file=out, force_terminal=True, width=80)) as line:
        line.points(Tally(3, proved=2))
    assert "2 of 3 points: 2 proved" in out.getvalue()

"""Engines on random problems: no two contradict each other (more: ``tests.fuzz_engines``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paramrob import engine
from paramrob.engine import Settings
from paramrob.problem import Problem
from paramrob.verdict import Outcome, Verdict
from tests import fuzz_engines

COUNT = 12


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contradiction saves both answers in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("index", range(COUNT))
def test_no_two_engines_contradict_each_other(index: int) -> None:
    tally = fuzz_engines.run([index], 0, fuzz_engines.engines(0.5))
    assert tally.contradictions == []
    assert tally.decided["bounds"] == 1 or sum(tally.answers.values()) > 1


@pytest.mark.usefixtures("_elsewhere")
def test_a_contradiction_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def contrary(subject: Problem, settings: Settings) -> Outcome:
        verdict = Verdict.ROBUST if settings.solver == "bounds" else Verdict.NOT_ROBUST
        return Outcome(verdict, solver=settings.solver)

    monkeypatch.setattr(engine, "decide", contrary)
    decisions = [i for i in range(20) if fuzz_engines.make(0, i)[1] is None][:1]
    chosen = {"bounds": Settings("bounds"), "z3": replace(Settings("z3"), timeout=1.0)}
    tally = fuzz_engines.run(decisions, 0, chosen)
    assert len(tally.contradictions) == 1
    assert "contradict each other" in tally.contradictions[0]
    assert "1 contradictions" in str(tally)

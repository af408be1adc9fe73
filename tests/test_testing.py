from __future__ import annotations

import doctest
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paramrob import InputError, Outcome, PointsOutcome, Verdict, engine, testing
from paramrob.engine import Settings
from paramrob.problem import Problem
from paramrob.testing import assert_robust
from paramrob.witnesses import replay_file
from tests.gate_cases import OPEN
from tests.small_models import named_model

CATS = Path(__file__).parent.parent / "case_studies" / "cats" / "model.pt"


def half() -> Any:
    """Return a module in memory whose label flips near 1/2."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(-1.0)
    return torch.nn.Sequential(layer)


def answer(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> list[Settings]:
    """Let the engine give one answer; return the settings that it gets."""
    seen: list[Settings] = []

    def decide(problem: Problem, settings: Settings) -> Outcome:
        seen.append(settings)
        return outcome

    monkeypatch.setattr(engine, "decide", decide)
    monkeypatch.setattr(engine, "estimate", lambda *_: Outcome())
    return seen


def test_what_is_proved_is_returned_with_its_certificate(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    outcome = assert_robust(half(), delta="0.01", domain=(0.75, 1), certificate=path)
    assert outcome.verdict is Verdict.ROBUST
    assert "the network that was given" in json.loads(path.read_text())["statement"]
    outcome = assert_robust(str(CATS), delta="0.01", sigma="0.06")
    assert outcome.brackets["sigma_above"].upper < 0.06


def test_a_refutation_fails_with_everything_that_one_needs(tmp_path: Path) -> None:
    saved, old = tmp_path / "w.npz", tmp_path / "c.json"
    old.write_text("of an earlier run")
    with pytest.raises(AssertionError) as caught:
        assert_robust(CATS, delta="0.01", witness=saved, certificate=old)
    said = str(caught.value)
    assert said.startswith("not robust: does the label stay the same, for every input of the box")
    for words in ("sigma above", "0.0522", "Hwt = ", "trained: 0.55", "perturbed: 0.49", "label F"):
        assert words in said
    assert f"paramrob replay {saved}" in said
    assert replay_file(str(saved)).reproduced
    assert not old.exists()


def test_a_module_in_memory_is_refuted_by_its_own_output(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network, saved = half(), tmp_path / "w.npz"
    with pytest.raises(AssertionError, match="given as an object"):
        assert_robust(network, delta="0.01", domain=(0, 1), witness=saved)
    with np.load(saved) as archive:
        found = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "meta"}
    x = found.pop("x")
    moved = {name.removeprefix("param/"): value for name, value in found.items()}
    before = network(x).item()
    after = torch.func.functional_call(network, moved, x).item()
    assert (before > 0) != (after > 0)


def test_points_are_counted_and_the_refuted_ones_listed() -> None:
    points = [[7.0, 2.0], [9.85, 2.344], [20.0, 3.5]]
    with pytest.raises(AssertionError) as caught:
        assert_robust(str(CATS), delta="0.01", at=points)
    said = str(caught.value)
    assert "2 of 3 points were proved, 1 refuted, 0 left open" in said
    assert "point 1     the label changes from F to M at Hwt = 9.85 g, Bwt = 2.344 kg" in said
    outcome = assert_robust(str(CATS), delta="0.01", at=np.array(points[::2]))
    assert isinstance(outcome, PointsOutcome)


def test_what_stays_open_fails_or_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, OPEN)
    with pytest.raises(
        AssertionError, match="neither proved nor refuted: does the label"
    ) as caught:
        assert_robust(named_model(), delta="0.01")
    assert "raise --timeout" in str(caught.value)
    path = tmp_path / "c.json"
    with pytest.warns(UserWarning, match="lets this pass") as said:
        outcome = assert_robust(named_model(), delta="0.01", fail_on="refuted", certificate=path)
    assert outcome.verdict is Verdict.UNKNOWN
    assert said[0].filename == __file__
    assert not path.exists()


def test_a_refutation_fails_whatever_it_may_fail_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AssertionError, match="not robust"):
            assert_robust(half(), delta="0.01", domain=(0, 1), fail_on="refuted")


def test_an_interrupt_stops_the_tests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for verdict in (Verdict.UNKNOWN, Verdict.ROBUST):
        outcome = Outcome(verdict, interrupted=True)
        monkeypatch.setattr("paramrob.api.solve", lambda *_, found=outcome: found)
        with pytest.raises(KeyboardInterrupt):
            assert_robust(named_model(), delta="0.01", fail_on="refuted")


def test_other_keywords_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = answer(monkeypatch, Outcome(Verdict.ROBUST))
    assert_robust(named_model(), delta="0.01", solver="z3", encoding="direct", timeout=7)
    assert (seen[0].solver, seen[0].encoding) == ("z3", "direct")
    assert 0 < seen[0].timeout <= 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--delta"),
        ({"delta": "0.01", "domain": (1, 0)}, "above"),
        ({"delta": "0.01", "fail_on": "odd"}, "choose refuted or unknown"),
        ({"detla": "0.01"}, "'detla'.* keywords of paramrob.check"),
        ({"delta": "0.01", "certificate": "."}, "no regular file"),
    ],
)
def test_a_mistyped_question_is_refused_in_short(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        assert_robust(named_model(), **options)
    assert [entry.name for entry in caught.traceback[1:]] == ["assert_robust"]


def test_an_answer_from_a_table_has_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, replace(OPEN, verdict=Verdict.ROBUST, reason=None))
    path = tmp_path / "c.json"
    for written in (True, False):
        assert_robust(
            named_model(),
            delta="0.01",
            at=[[7, 2], [8, 3]],
            solver="z3",
            csv=tmp_path / "rows.csv",
            certificate=path,
        )
        assert path.exists() is written


def test_pytest_shows_the_test_and_the_message_alone(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from paramrob.testing import assert_robust\n"
        f"def test_it():\n    assert_robust({str(CATS)!r}, delta='0.01')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "AssertionError: not robust" in done.stdout
    assert "testing.py" not in done.stdout


def test_the_example_in_the_docstring() -> None:
    result = doctest.testmod(testing)
    assert result.attempted > 3
    assert result.failed == 0

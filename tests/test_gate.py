"""The command line as a release gate: exit codes, and the files that it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from paramrob import cli_options, engine
from paramrob.cli import main
from paramrob.engine import Settings
from paramrob.errors import SoundnessError
from paramrob.problem import Problem
from paramrob.report import FailOn, exit_code, lets_pass
from paramrob.verdict import INTERRUPTED, Outcome, Verdict
from tests.gate_cases import OPEN, REFUTED, ROBUST

CATS = Path(__file__).parent.parent / "case_studies" / "cats" / "model.pt"
FILES = ("--junit", "gate.xml", "--certificate", "gate.json")


def gate(*arguments: object, model: Path | str = CATS) -> Result:
    """Run ``check`` with a delta and both files of a gate."""
    words = ["check", model, "--delta", "0.01", *FILES, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Outcome]) -> None:
    """Let the engine answer so."""
    monkeypatch.setattr(engine, "takes_points", lambda *_: False)
    monkeypatch.setattr(engine, "decide", lambda *_: answer())
    monkeypatch.setattr(engine, "estimate", lambda *_: Outcome())


def suite() -> ElementTree.Element:
    found = ElementTree.parse("gate.xml").find("testsuite")
    assert found is not None
    return found


def test_spelled_out_choices_are_the_real_ones() -> None:
    assert get_args(FailOn) == cli_options.FAIL_ON


@pytest.mark.parametrize("fail_on", ["refuted", "unknown", None])
@pytest.mark.parametrize("outcome", [ROBUST, REFUTED, OPEN])
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_policy_in_full(fail_on: FailOn | None, outcome: Outcome, interrupted: bool) -> None:
    outcome = replace(outcome, interrupted=interrupted)
    code = exit_code(outcome, 1e-6) if fail_on is None else exit_code(outcome, 1e-6, fail_on)
    wanted = {Verdict.ROBUST: 0, Verdict.NOT_ROBUST: 1, Verdict.UNKNOWN: 3}
    assert outcome.verdict is not None
    passed = outcome.verdict is Verdict.UNKNOWN and fail_on == "refuted" and not interrupted
    assert code == (0 if passed else wanted[outcome.verdict])


def test_an_estimate_is_never_let_pass() -> None:
    assert not lets_pass(Outcome(None, "the time ran out"), "refuted")
    assert exit_code(Outcome(None, "the time ran out"), 1e-6, "refuted") == 3


def test_a_proof_opens_the_gate_and_is_certified() -> None:
    result = gate("--sigma", "0.06")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert suite().attrib["tests"] == "1"
    found = json.loads(Path("gate.json").read_text())
    assert "at least 0.06 from the level 0.5" in found["statement"]
    assert found["command"].endswith("--certificate gate.json")
    assert found["domain"] == {"kind": "box", "lower": ["6.3", "2"], "upper": ["20.5", "3.9"]}


@pytest.mark.parametrize("fail_on", ["refuted", "unknown"])
def test_a_refutation_shuts_the_gate(fail_on: str) -> None:
    Path("gate.json").write_text("a certificate of an earlier model")
    result = gate("--fail-on", fail_on, "--witness", "w.npz")
    assert result.exit_code == 1
    assert "no certificate was written to gate.json: the property was refuted" in result.stderr
    assert not Path("gate.json").exists()
    failure = suite().find("testcase/failure")
    assert failure is not None
    assert "paramrob replay w.npz" in (failure.text or "")


def test_what_is_open_passes_only_where_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, lambda: OPEN)
    result = gate()
    assert result.exit_code == 3
    assert "lets this pass" not in result.stderr
    assert suite().attrib["errors"] == "1"
    for quiet in ((), ("-q",)):
        result = gate("--fail-on", "refuted", *quiet)
        assert result.exit_code == 0
        assert "the gate lets this pass" in result.stderr
        assert "unknown" in result.stdout.lower()
        assert (suite().attrib["errors"], suite().attrib["skipped"]) == ("0", "1")
        assert not Path("gate.json").exists()


def test_json_on_standard_output_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, lambda: OPEN)
    result = gate("--fail-on", "refuted", "--json", "-")
    assert json.loads(result.stdout)["verdict"] == "unknown"
    assert result.exit_code == 0
    assert "lets this pass" in result.stderr


def interrupted_in_the_engine() -> Outcome:
    """Be interrupted as engines are: they swallow the interrupt and say what they have."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    return Outcome(Verdict.UNKNOWN, "the search went no further")


def interrupted_past_the_engine() -> Outcome:
    raise KeyboardInterrupt


def interrupted_by_its_own_words() -> Outcome:
    return Outcome(Verdict.UNKNOWN, INTERRUPTED)


@pytest.mark.parametrize(
    "answer",
    [interrupted_in_the_engine, interrupted_past_the_engine, interrupted_by_its_own_words],
)
@pytest.mark.parametrize("points", [(), ("--at", "points.csv")])
def test_a_run_that_was_stopped_never_passes(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Outcome], points: tuple[str, ...]
) -> None:
    Path("points.csv").write_text("7,2.5\n8,2.5\n9,2.5\n")
    use(monkeypatch, answer)
    result = gate("--fail-on", "refuted", *points)
    assert result.exit_code == 3
    assert "lets this pass" not in result.stderr
    assert int(suite().attrib["errors"]) == int(suite().attrib["tests"])


def test_an_interrupt_before_the_engine_never_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paramrob.requests.build.build", interrupted)
    assert gate("--fail-on", "refuted").exit_code == 3


@pytest.mark.parametrize("error", [SoundnessError("two results"), ZeroDivisionError("oops")])
def test_a_defect_never_passes_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def defective() -> Outcome:
        raise error

    for name in FILES[1::2]:
        Path(name).write_text("of an earlier run")
    use(monkeypatch, defective)
    assert gate("--fail-on", "refuted").exit_code == 4
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fail-on", "never"), "never"),
        (("--junit", "gone/gate.xml"), "--junit"),
        (("--certificate", "gone/gate.json"), "--certificate"),
        (("--junit", "gate.json"), "--certificate and --junit are both gate.json"),
        (("--json", "gate.xml"), "--junit and --json are both gate.xml"),
        (("--certificate", CATS), "--certificate and MODEL"),
        (("--domain", "1:0"), "above"),
        (("--solver", "bounds", "--timeout", "0"), "--timeout"),
    ],
)
def test_misuse_never_passes(options: tuple[object, ...], words: str) -> None:
    before = CATS.read_bytes()
    result = gate("--fail-on", "refuted", *options)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert list(Path.cwd().iterdir()) == []
    assert CATS.read_bytes() == before


def test_no_input_is_ever_overwritten() -> None:
    Path("points.csv").write_text("7,2.5\n8,2.5\n")
    before = Path("points.csv").read_text()
    for option in (*FILES[::2], "--json", "--csv"):
        result = gate("--at", "points.csv", option, "./points.csv")
        assert result.exit_code == 2
        assert f"{option} and --at are both ./points.csv" in result.stderr
    assert Path("points.csv").read_text() == before


def test_a_pipe_is_refused_before_the_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(problem: Problem, settings: Settings) -> Outcome:
        raise AssertionError("the engine was started")

    monkeypatch.setattr(engine, "decide", decide)
    os.mkfifo("pipe")
    for option in FILES[::2]:
        result = gate(option, "pipe")
        assert result.exit_code == 2
        assert "no regular file" in result.stderr


def test_estimates_and_pictures_have_no_gate() -> None:
    for command in (("estimate", CATS, "epsilon"), ("heatmap", CATS), ("export", CATS)):
        for option in (*FILES[::2], "--fail-on"):
            words = [*map(str, command), "--delta", "0.01", option, "refuted"]
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 2
            assert "No such option" in result.stderr


def test_points_are_certified_together_or_not_at_all() -> None:
    Path("points.csv").write_text("7,2.0\n20,3.5\n9.85,2.344\n")
    result = gate("--at", "points.csv")
    assert result.exit_code == 1
    assert "2 of 3 points were proved, 1 refuted, 0 left open" in result.stderr
    assert suite().attrib["failures"] == "1"
    result = gate("--at", "points.csv", "--limit", "2", "--csv", "rows.csv")
    assert result.exit_code == 0
    assert json.loads(Path("gate.json").read_text())["domain"]["count"] == 2
    result = gate("--at", "points.csv", "--limit", "2", "--csv", "rows.csv")
    assert result.exit_code == 0
    assert "2 point(s) were read from a table" in result.stderr
    assert not Path("gate.json").exists()

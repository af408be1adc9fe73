"""``paramrob compare`` as a release gate: both files are named, and what was asked is said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from paramrob import engine
from paramrob.cli import main
from paramrob.verdict import Outcome, Verdict
from tests.test_cli_compare import EYE, save_int8, save_pt

FILES = ("--junit", "gate.xml", "--certificate", "gate.json", "--witness", "w.npz")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be where ``a.pt`` passes its input on, and ``b.onnx`` rounds it to tenths first."""
    save_pt(tmp_path / "a.pt", EYE, [0.0, 0.0])
    save_int8(tmp_path / "b.onnx", 0.05)
    np.savez(tmp_path / "good.npz", x=np.array([[0.5, 0.9], [0.9, 0.2]]))
    np.savez(tmp_path / "bad.npz", x=np.array([[0.5, 0.9], [0.5, 0.51]]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gate(*arguments: object, model: str = "b.onnx") -> Result:
    words = ["compare", "a.pt", model, *FILES, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def certified(*arguments: object, model: str = "b.onnx") -> dict[str, Any]:
    result = gate(*arguments, model=model)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(Path("gate.json").read_text())
    return found


def suite() -> ElementTree.Element:
    found = ElementTree.parse("gate.xml").find("testsuite")
    assert found is not None
    return found


def test_files_that_decide_alike_are_certified() -> None:
    found = certified("--at", "good.npz")
    a, b = sha256("a.pt"), sha256("b.onnx")
    assert found["statement"] == (
        "It is proved that, at each of the 2 points stated here, both files decide alike: the "
        f"network in b.onnx (SHA-256 {b}) gives the same label as the reference network in a.pt "
        f"(SHA-256 {a}); this holds in real-number arithmetic with the roundings to grids that "
        "the files define: the rounding of inference in floating point is not included."
    )
    assert (found["reference"]["path"], found["reference"]["sha256"]) == ("a.pt", a)
    assert (found["model"]["path"], found["model"]["sha256"]) == ("b.onnx", b)
    assert found["reference"]["network_sha256"] != found["model"]["network_sha256"]
    assert found["perturbation"]["kind"] == "none"
    assert found["perturbation"]["runtime_steps"] == 0
    assert found["domain"]["count"] == 2
    assert found["command"].startswith("paramrob compare a.pt b.onnx")
    assert not Path("w.npz").exists()


def test_both_files_stand_in_the_junit_report() -> None:
    assert gate("--at", "good.npz").exit_code == 0
    assert suite().attrib["name"] == "paramrob compare a.pt b.onnx"
    assert (suite().attrib["tests"], suite().attrib["failures"]) == ("2", "0")
    said = {p.attrib["name"]: p.attrib["value"] for p in suite().findall("properties/property")}
    assert (said["reference"], said["reference.sha256"]) == ("a.pt", sha256("a.pt"))
    assert (said["model"], said["model.sha256"]) == ("b.onnx", sha256("b.onnx"))
    assert said["question"] == "does the model give the label that the reference gives?"
    assert said["perturbation"] == "as they stand in the file"


def test_a_difference_shuts_the_gate_and_is_replayed() -> None:
    for name in ("gate.json", "gate.xml"):
        Path(name).write_text("of an earlier model")
    result = gate("--at", "bad.npz")
    assert result.exit_code == 1
    assert "no certificate was written to gate.json: 1 of 2 points were proved" in " ".join(
        result.stderr.split()
    )
    assert not Path("gate.json").exists()
    cases = suite().findall("testcase")
    assert [len(case) for case in cases] == [0, 1]
    failure = cases[1][0]
    assert failure.attrib["message"] == (
        "the model gives 0 where the reference gives 1 at x0 = 0.5, x1 = 0.51"
    )
    text = failure.text or ""
    for words in ("reference: 0.4975 0.5025, label 1", "model: 0.5125 0.4875, label 0"):
        assert words in text
    assert "runtime: onnxruntime" in text
    assert text.endswith("repeat it with: paramrob replay w.npz")
    assert "trained" not in text
    replayed = CliRunner().invoke(main, ["replay", "w.npz"])
    assert replayed.exit_code == 0


def test_confidences_that_differ_are_called_so() -> None:
    result = gate("--at", "0.5,0.51", "--epsilon", "0.001")
    assert result.exit_code == 1
    failure = suite().find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"].startswith(
        "the confidences of the two differ by more than 0.001 at"
    )
    said = certified("--at", "0.5,0.51", "--epsilon", "0.5")["statement"]
    assert "decide alike" not in said
    assert "(the softmax of the outputs) differs by at most 0.5; this" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--at", "0.4,0.9", "--runtime-steps", "1"),
            "define, each of the model's off by up to 1 step(s) of its grid: the rounding",
        ),
        (
            ("--at", "0.5,0.9", "--input-radius", "0.001"),
            "same label as the reference network in a.pt",
        ),
        (("--at", "0.5,0.9", "--sigma", "0.1"), "leads the second by at least 0.1"),
    ],
)
def test_the_statement_claims_no_more_than_was_asked(
    arguments: tuple[str, ...], words: str
) -> None:
    said = certified(*arguments)["statement"]
    assert words in said
    assert ("both files decide alike" in said) == ("--runtime-steps" in arguments)
    assert ("at the point itself" in said) == ("--input-radius" in arguments)
    assert "trained" not in said


def test_the_statement_when_the_model_moves() -> None:
    save_pt(Path("c.pt"), EYE, [0.0, 0.1])
    said = certified("--at", "0.2,0.5", "--delta", "0.01", model="c.pt")["statement"]
    assert "every choice of parameters that is allowed (all, each within 0.01" in said
    assert "both files decide alike: the network in c.pt" in said
    assert "roundings" not in said
    assert "in real-number arithmetic: the rounding of inference is not included." in said


@pytest.mark.parametrize(("fail_on", "code"), [("unknown", 3), ("refuted", 0)])
def test_an_open_question_passes_only_where_it_was_said(
    monkeypatch: pytest.MonkeyPatch, fail_on: str, code: int
) -> None:
    monkeypatch.setattr(engine, "takes_points", lambda *_: False)
    monkeypatch.setattr(engine, "decide", lambda *_: Outcome(Verdict.UNKNOWN, "the time ran out"))
    result = gate("--at", "good.npz", "--fail-on", fail_on)
    assert result.exit_code == code
    assert ("lets this pass" in result.stderr) == (code == 0)
    assert "no certificate was written to gate.json" in result.stderr
    assert suite().attrib["skipped" if code == 0 else "errors"] == "2"


@pytest.mark.parametrize("option", ["--certificate", "--junit", "--witness", "--csv", "--html"])
def test_standard_output_is_no_file(option: str) -> None:
    result = gate("--at", "good.npz", option, "-")
    assert result.exit_code == 2
    assert "name a file" in result.stderr
    assert not Path("-").exists()


def test_no_file_of_the_gate_replaces_one_that_is_compared() -> None:
    before = sha256("a.pt")
    result = gate("--at", "good.npz", "--certificate", "a.pt")
    assert result.exit_code == 2
    assert "--certificate and REFERENCE are both a.pt" in result.stderr
    assert sha256("a.pt") == before

"""``paramrob export``: what a person gets, and that z3 reads it as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import z3
from click.testing import CliRunner, Result

from paramrob.cli import main
from paramrob.export import export_text
from paramrob.requests.build import Asked, build
from tests.small_models import classifier_model

ROOT = Path(__file__).parent.parent
CATS = str(ROOT / "case_studies" / "cats" / "model.pt")
RELU = str(ROOT / "case_studies" / "athletes" / "relu.pt")


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def answer(text: str) -> str:
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(z3.parse_smt2_string(text))
    return str(solver.check())


@pytest.mark.parametrize("more", [(), ("--no-presolve",), ("--encoding", "aggregated")])
@pytest.mark.parametrize(("sigma", "expected"), [("0.0522", "sat"), ("0.0523", "unsat")])
def test_z3_decides_the_exported_cats_as_published(
    more: tuple[str, ...], sigma: str, expected: str
) -> None:
    result = export(CATS, "--delta", "0.01", "--sigma", sigma, *more)
    assert result.exit_code == 0, result.output
    assert answer(result.stdout) == expected


def test_the_head_says_what_the_formula_is_about(tmp_path: Path) -> None:
    path = tmp_path / "q.smt2"
    result = export(CATS, "--delta", "0.01", "--format", "dreal", "-o", str(path))
    assert result.exit_code == 0
    assert result.output == ""
    text = path.read_text()
    for said in (
        "labels, global",
        "model model.pt, 2-1, sha256 ",
        "delta 0.01",
        "x0 is Hwt in g",
        "sat: a counterexample (exact encoding)",
        "(set-logic QF_NRA)",
        "; parameter ",
    ):
        assert said in text
    assert str(ROOT) not in text


SCORE, CONFIDENCE = "compared: the score before", "compared: confidences, behind the final sigmoid"


@pytest.mark.parametrize(
    ("arguments", "said", "squashed"),
    [
        (("--sigma", "0.05"), SCORE, False),
        (("--sigma", "0.05", "--encoding", "aggregated", "--format", "dreal"), SCORE, False),
        (("--epsilon", "0.05", "--at", "7.5,2.5"), SCORE, False),
        (("--format", "dreal"), SCORE, False),
        (("--sigma", "0.05", "--format", "dreal"), CONFIDENCE, True),
        (("--epsilon", "0.05", "--at", "7.5,2.5", "--format", "latex"), CONFIDENCE, True),
        (("--epsilon", "0.05"), CONFIDENCE, True),
        (("--epsilon", "0.05", "--encoding", "aggregated"), CONFIDENCE, True),
    ],
)
def test_the_head_says_whether_scores_or_confidences_are_compared(
    arguments: tuple[str, ...], said: str, squashed: bool
) -> None:
    result = export(CATS, "--delta", "0.01", *arguments)
    assert result.exit_code == 0, result.output
    assert said in result.stdout
    formula = "".join(line for line in result.stdout.splitlines() if line[:1] not in (";", "%"))
    assert any(word in formula for word in ("(exp ", "\\exp", "\\sigma", "e^{")) == squashed


def test_classes_and_values_are_compared_as_they_are() -> None:
    text = export_text(build(Asked(delta="0.01"), classifier_model()))
    assert "compared: the classes' scores before the final softmax" in text
    plain = export(RELU, "--delta", "0.01", "--output", "value", "--level", "0")
    assert plain.exit_code == 0, plain.output
    assert "compared:" not in plain.stdout


def test_every_format_and_encoding_is_written() -> None:
    for encoding in ("direct", "aggregated"):
        for form in ("smtlib", "dreal", "latex"):
            options = ("--encoding", encoding, "--format", form)
            result = export(RELU, "--delta", "0.001", "--epsilon", "0.1", *options)
            assert result.exit_code == 0, result.output
            assert ("\\begin{document}" if form == "latex" else "(check-sat)") in result.stdout


def test_a_local_question_is_one_point(tmp_path: Path) -> None:
    result = export(CATS, "--delta", "0.01", "--at", "7.5,2.5")
    assert result.exit_code == 0
    assert "labels, local" in result.stdout
    points = tmp_path / "points.npz"
    np.savez(points, x=np.array([[7.5, 2.5], [8.0, 2.5]]))
    result = export(CATS, "--delta", "0.01", "--at", str(points))
    assert result.exit_code == 2
    assert "one point" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "how far can the parameters move"),
        (("--delta", "0.01", "--epsilon", "1", "--sigma", "1"), "two questions"),
        (("--delta", "0.01", "-o", "/no/such/folder/q.smt2"), "cannot be written"),
    ],
)
def test_misuse_exits_2(arguments: tuple[str, ...], said: str) -> None:
    result = export(CATS, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import paramrob
from paramrob import InputError, Outcome, PointsOutcome, Verdict, api, comparison, engine
from paramrob.engine import Encoding, Settings
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.verdict import Bracket
from tests.small_models import bare_model, classifier_model, named_model


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Problem, Settings]]:
    """What an engine that proves everything was asked."""
    problems: list[tuple[Problem, Settings]] = []

    def decide(problem: Problem, settings: Settings) -> Outcome:
        problems.append((problem, settings))
        return Outcome(Verdict.ROBUST, notes=("from the engine",))

    def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
        problems.append((problem, settings))
        return Outcome(None, brackets={quantity: Bracket(0.25, 0.5)})

    monkeypatch.setattr(engine, "decide", decide)
    monkeypatch.setattr(engine, "estimate", estimate)
    return problems


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, paramrob; dir(paramrob); paramrob.__version__\n"
        "heavy = {'torch', 'numpy', 'onnx', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "paramrob.check, paramrob.Box, paramrob.models\n"
        "heavy = {'torch', 'onnx', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves() -> None:
    for name in paramrob.__all__:
        assert getattr(paramrob, name) is not None
    assert set(paramrob.__all__) == set(dir(paramrob))
    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        _ = paramrob.chekc


@pytest.mark.parametrize("delta", ["0.1", 0.1, Fraction(1, 10), "1e-1"])
def test_delta_means_its_decimal(seen: list[tuple[Problem, Settings]], delta: Any) -> None:
    paramrob.check(bare_model(), delta=delta)
    problem = seen[0][0]
    bias = problem.reference.parameters["0.bias"]
    assert problem.uncertain.perturbation.interval(bias).absolute == Fraction(1, 10)


def test_assumptions_come_with_the_outcome(seen: list[tuple[Problem, Settings]]) -> None:
    outcome = paramrob.check(bare_model(), delta=0.1)
    assert type(outcome) is Outcome
    assert outcome.notes[-1] == "from the engine"
    assert any("[0, 1]" in note for note in outcome.notes)
    assert paramrob.check(named_model(), delta=0.1).notes == ("from the engine",)


def test_points_return_one_outcome_each(seen: list[tuple[Problem, Settings]]) -> None:
    outcome = paramrob.check(bare_model(), delta=0.1, at=np.zeros((3, 2)))
    assert isinstance(outcome, PointsOutcome)
    assert len(outcome.points) == 3
    assert outcome.verdict is Verdict.ROBUST
    assert type(paramrob.check(bare_model(), delta=0.1, at=[0, 0])) is Outcome


def test_estimates_have_no_verdict(seen: list[tuple[Problem, Settings]]) -> None:
    outcome = paramrob.estimate(bare_model(), "epsilon", delta=0.1, domain=(0, 1))
    assert outcome.verdict is None
    assert outcome.brackets["epsilon"] == Bracket(0.25, 0.5)
    outcome = paramrob.estimate(bare_model(), "delta", epsilon=0.1)
    assert outcome.brackets["delta"] == Bracket(0.25, 0.5)
    assert seen[-1][0].property is not None


def test_the_engine_gets_its_settings(seen: list[tuple[Problem, Settings]]) -> None:
    def progress(name: str, lower: float, upper: float) -> None:
        return None

    paramrob.estimate(
        bare_model(), "epsilon", delta=1, timeout=5, tolerance=0.25, progress=progress
    )
    settings = seen[0][1]
    assert 0 < settings.timeout <= 5
    assert settings.tolerance == 0.25
    assert settings.progress is progress


def test_every_engine_keyword_reaches_the_engine(seen: list[tuple[Problem, Settings]]) -> None:
    wanted = {"solver": "icp", "encoding": "aggregated", "presolve": False, "cross_check": "z3"}
    paramrob.estimate(bare_model(), "sigma", delta=1, **wanted)  # type: ignore[arg-type]
    paramrob.check(bare_model(), delta=1, **wanted)  # type: ignore[arg-type]
    for _, settings in seen[:2]:
        assert {name: getattr(settings, name) for name in wanted} == wanted
    paramrob.check(bare_model(), delta=1)
    assert (seen[-1][1].encoding, seen[-1][1].presolve, seen[-1][1].cross_check) == (
        None,
        True,
        None,
    )


def test_both_functions_take_the_same_keywords() -> None:
    first, second = (inspect.signature(f).parameters for f in (paramrob.check, paramrob.estimate))
    assert list(second) == ["model", "quantity", *list(first)[1:]]
    assert all(first[name] == second[name] for name in first)
    assert len(first) > 10


@pytest.mark.parametrize("encoding", ["direct", "aggregated"])
@pytest.mark.parametrize("presolve", [True, False])
def test_a_solver_answers_through_the_api(encoding: Encoding, presolve: bool) -> None:
    outcome = paramrob.check(
        named_model(),
        delta="0.005",
        sigma="0.0244",
        solver="z3",
        encoding=encoding,
        presolve=presolve,
        cross_check="bounds",
    )
    assert outcome.verdict is Verdict.ROBUST
    assert outcome.solver == "z3"
    assert "cross-checked: bounds says robust" in outcome.notes


def test_level_and_output_override_what_the_model_says(
    seen: list[tuple[Problem, Settings]],
) -> None:
    paramrob.check(bare_model(), delta=1, level="0.25")
    assert seen[0][0].output.level == Fraction(1, 4)
    paramrob.check(bare_model(), delta=1, output="value", level=2)
    output = seen[-1][0].output
    assert output.kind == "value"
    assert output.level == 2


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (bare_model(), {"delta": float("nan")}, "not a finite decimal"),
        (bare_model(), {"delta": -1}, "negative"),
        (bare_model(), {}, "--delta"),
        (bare_model(), {"delta": 1, "domain": (1, 0)}, "above"),
        (bare_model(), {"delta": 1, "domain": (0, 1), "at": [0, 0]}, "points"),
        (bare_model(), {"delta": 1, "level": 1}, r"outside \(0, 1\)"),
        (bare_model(), {"delta": 1, "output": "value"}, "--level"),
        (classifier_model(), {"delta": 1, "output": "probability"}, "output kind"),
        (bare_model(), {"delta": 1, "timeout": 0}, "timeout"),
        (bare_model(), {"delta": 1, "encoding": "odd"}, "choose direct or aggregated"),
        (bare_model(), {"delta": 1, "solver": "cvc5"}, "no solver 'cvc5'"),
        (bare_model(), {"delta": 1, "cross_check": "cvc5"}, "no solver 'cvc5'"),
        ("nowhere.pt", {"delta": 1}, "nowhere.pt"),
    ],
)
def test_bad_questions_are_refused(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        paramrob.check(model, **options)


def test_a_bad_quantity_is_refused() -> None:
    with pytest.raises(InputError, match="choose epsilon, sigma or delta"):
        paramrob.estimate(bare_model(), "gamma", delta=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [api, comparison])
def test_the_examples_in_the_docstrings(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module)
    assert result.attempted >= 5
    assert result.failed == 0

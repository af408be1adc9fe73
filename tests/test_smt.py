"""Problems through formulas and solvers, against closed forms, and engines that contradict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from paramrob import engine, smt
from paramrob.crosscheck import check_agreement
from paramrob.domain import Box, Point
from paramrob.engine import Settings
from paramrob.errors import BackendError, SoundnessError
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Dense, Input, Network, Node, Parameter
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.solvers.keep import kept_solvers
from paramrob.solvers.registry import solver_class
from paramrob.verdict import Bracket, Outcome, Verdict
from tests.small_models import logistic, named_model

F = Fraction
SOLVERS = ["z3", "icp", "dreal"]
# DESIGN's closed forms: epsilon at (20.5, 2.0) and the two sides of sigma, delta = 0.005.
EPSILON, ABOVE, BELOW = 0.0285255, 0.0243551, 0.0213440


def installed(name: str) -> str:
    if solver_class(name).state().version is None:
        pytest.skip(f"{name} is not installed")
    return name


def cats(epsilon: str | None = None) -> Problem:
    model = named_model()
    box = Box(model.inputs.lower or (), model.inputs.upper or ())
    uncertain = UncertainNetwork(model.network, Perturbation.uniform(model.network, F("0.005")))
    asked = None if epsilon is None else Property("confidence", epsilon=F(epsilon))
    return Problem(model.network, uncertain, box, model.output, asked)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("encoding", ["direct", "aggregated"])
def test_cats_on_both_sides_of_epsilon(name: str, encoding: engine.Encoding) -> None:
    settings = Settings(solver=installed(name), encoding=encoding, timeout=300)
    outcome = engine.decide(cats("0.028"), settings)
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.witness is not None
    assert outcome.witness.replayed
    assert outcome.witness.change is not None
    assert outcome.witness.change.lower > 0.028
    assert outcome.solver == name
    # Products of parameters and inputs near the threshold take Z3 a while.
    above = "0.035" if (name, encoding) == ("z3", "direct") else "0.029"
    assert engine.decide(cats(above), settings).verdict is Verdict.ROBUST


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("presolve", [True, False])
def test_cats_estimates(name: str, presolve: bool) -> None:
    settings = Settings(solver=installed(name), presolve=presolve, timeout=300, tolerance=1e-4)
    epsilon = engine.estimate(cats(), "epsilon", settings).brackets["epsilon"]
    assert epsilon.lower <= EPSILON + 1e-7
    assert epsilon.upper >= EPSILON - 1e-7
    assert epsilon.width <= 1e-4
    sides = engine.estimate(cats(), "sigma", settings).brackets
    for key, value in (("sigma_above", ABOVE), ("sigma_below", BELOW)):
        assert sides[key].lower <= value + 1e-7
        assert sides[key].upper >= value - 1e-7
        assert sides[key].width <= 1e-4


def test_largest_delta() -> None:
    # At x = 1 the logit is 2 - 0.875, so more than 0.5625 in both parameters flips the label.
    network = logistic([2.0], -0.875)
    uncertain = UncertainNetwork(network, Perturbation.uniform(network, F(0)))
    problem = Problem(
        network, uncertain, Point((1.0,)), OutputInfo("probability"), Property("labels")
    )
    bracket = engine.estimate(problem, "delta", Settings("z3", tolerance=1e-3)).brackets["delta"]
    assert bracket.lower <= 0.5625 <= bracket.upper
    assert bracket.width <= 1e-3
    assert bracket.witness is not None


def relu_network(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    nodes, parameters = [Node("x", Input(), (), (2,))], []
    for i, (width, out) in enumerate(((2, 16), (16, 16), (16, 1))):
        weight = rng.normal(size=(out, width)) * math.sqrt(2 / width)
        parameters.append(Parameter(f"w{i}", weight.astype(np.float32)))
        parameters.append(Parameter(f"b{i}", rng.normal(size=out).astype(np.float32) / 10))
        nodes.append(Node(f"l{i}", Dense(f"w{i}", f"b{i}"), (nodes[-1].name,), (out,)))
        if i < 2:
            nodes.append(Node(f"r{i}", Activation("relu"), (nodes[-1].name,), (out,)))
    return Network(nodes, parameters)


def test_twenty_points_of_a_network_of_two_layers() -> None:
    network = relu_network(1)
    rng = np.random.default_rng(2)
    delta = F("0.01")
    uncertain = UncertainNetwork(network, Perturbation.uniform(network, delta))
    verdicts = []
    with kept_solvers():
        for x in rng.uniform(-1, 1, (20, 2)):
            problem = Problem(
                network, uncertain, Point(tuple(x)), OutputInfo("logit"), Property("labels")
            )
            ours = engine.decide(problem, Settings("z3", timeout=300))
            theirs = engine.decide(problem, Settings("bounds", timeout=300))
            assert ours.verdict is theirs.verdict
            verdicts.append(ours.verdict)
    assert set(verdicts) == {Verdict.ROBUST, Verdict.NOT_ROBUST}


def test_cross_check_says_that_both_agree() -> None:
    settings = Settings("z3", cross_check="bounds", timeout=300)
    outcome = engine.decide(cats("0.029"), settings)
    assert outcome.verdict is Verdict.ROBUST
    assert "cross-checked: bounds says robust" in outcome.notes


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_contradictions_are_saved(in_folder: Path) -> None:
    robust = Outcome(Verdict.ROBUST, solver="z3")
    refuted = Outcome(Verdict.NOT_ROBUST, solver="bounds")
    with pytest.raises(SoundnessError, match="robust against not_robust") as caught:
        check_agreement(cats("0.1"), robust, refuted)
    (path,) = in_folder.glob("paramrob-contradiction-*.json")
    assert str(path) in str(caught.value)
    said = json.loads(path.read_text())
    assert [a["verdict"] for a in said["answers"]] == ["robust", "not_robust"]
    assert said["problem"]["property"] == {"name": "confidence", "epsilon": "1/10", "sigma": None}


def test_brackets_that_do_not_meet_are_a_contradiction(in_folder: Path) -> None:
    first = Outcome(brackets={"epsilon": Bracket(0.1, 0.2)}, solver="z3")
    second = Outcome(brackets={"epsilon": Bracket(0.21, 0.3)}, solver="bounds")
    with pytest.raises(SoundnessError, match="epsilon in"):
        check_agreement(cats(), first, second)
    check_agreement(cats(), first, replace(second, brackets={"epsilon": Bracket(0.2, 0.3)}))


def lying(answer: Verdict) -> Callable[[Problem, Settings], Outcome]:
    return lambda problem, settings: Outcome(answer, solver=settings.solver)


def test_an_engine_that_lies_is_found_out(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smt, "decide", lying(Verdict.ROBUST))
    settings = Settings("bounds", cross_check="icp", timeout=20)
    with pytest.raises(SoundnessError, match="bounds and icp contradict each other"):
        engine.decide(cats("0.028"), settings)


def test_names_that_do_not_exist() -> None:
    for settings in (Settings("cvc5"), Settings(cross_check="cvc5"), Settings(encoding="odd")):  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=r"no (solver|encoding)"):
            engine.decide(cats("0.1"), settings)


def test_auto_turns_to_a_formula_for_what_the_bounds_leave_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from paramrob.bounds import decision

    def gives_up(problem: Problem, settings: Settings) -> Outcome:
        assert settings.timeout < 300
        return Outcome(Verdict.UNKNOWN, "left open")

    monkeypatch.setattr(decision, "decide", gives_up)
    outcome = engine.decide(cats("0.028"), Settings("auto", timeout=300))
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.solver == "icp"

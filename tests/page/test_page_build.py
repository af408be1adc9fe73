"""What pages say: the numbers of the JSON, and sentences that are true."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Dense, Input, Network, Node, Parameter
from paramrob.page import page_of
from paramrob.page.counterexample import moved_parameters
from paramrob.perturbation import Perturbation
from paramrob.replay import replay
from paramrob.report import as_json, reported_witness
from paramrob.verdict import Bracket, Interval, Outcome, Verdict, Witness
from tests.page.pages import answered, asked, checked
from tests.small_models import classifier_model, scaled_model


def test_a_refuted_check_shows_question_answer_and_counterexample() -> None:
    request = asked()
    outcome = answered(request)
    found, places = checked(request, outcome, command="paramrob check model.pt --delta 0.01")
    for said in (
        "Does the label stay the same, for every input of the box and every parameter vector",
        "cats/model.pt (2-1)",
        "all, each within 0.01 of the trained value",
        "Hwt from 6.3 to 20.5 g, Bwt from 2 to 3.9 kg",
        "NOT ROBUST",
        "change the label from M to F",
        "Labels can flip only within 0.0523 of the boundary.",
        "Re-executed in exact arithmetic.",
        "3 of 3 parameters moved, 3 of them to the edge of their interval.",
        "0.weight[0, 1]",
        "attained by a witness",
        "ab" * 32,
        "real-number arithmetic",
        "paramrob check model.pt --delta 0.01 --witness witness.npz",
        "Nothing: file, sidecar and options said everything.",
    ):
        assert said in found.text, said
    ends = {
        f"brackets.{name}.{end}"
        for name in ("epsilon", "sigma.above", "sigma.below")
        for end in ("lower", "upper")
    }
    inputs = {"witness.input.0", "witness.input.1", "domain.lower.0", "domain.upper.1"}
    outputs = {"witness.reference_output", "witness.perturbed_output"}
    rest = {"model.parameters", "property.level", "engine_seconds"}
    assert places >= ends | inputs | outputs | rest
    words = ("Does the label", "refuted by a counterexample", "The counterexample", "How far")
    order = [found.text.index(w) for w in words]
    assert order == sorted(order)


def test_the_json_on_the_page_is_the_json() -> None:
    request = asked()
    outcome = answered(request)
    page = page_of(request, outcome, tolerance=1e-6, witness_file="w.npz")
    assert page.report is not None
    report = as_json(request, outcome, "w.npz")
    assert json.loads(page.report) == json.loads(json.dumps(report))
    assert ("The counterexample, in exact arithmetic", "paramrob replay w.npz") in page.commands


@pytest.mark.parametrize(
    ("options", "tone", "statement"),
    [
        (
            {"delta": "0.005", "epsilon": "0.03"},
            "good",
            "For every input of the box and every parameter vector in the box, the confidence "
            "moves by at most 0.03.",
        ),
        (
            {"delta": "0.01", "sigma": "0.06"},
            "good",
            "the label is the one that the trained network gives, wherever the trained network is "
            "at least 0.06 from the level 0.5.",
        ),
        (
            {"delta": "0.01", "sigma": "0.02"},
            "bad",
            "although the trained network is at least 0.02 from its decision boundary.",
        ),
        ({"delta": "0.01", "epsilon": "0.05"}, "bad", "move the confidence by more than 0.05."),
        (
            {"delta": "0.01", "at": "6.3,2.0"},
            "good",
            "At this input, for every parameter vector in the box, the label is the one that the "
            "trained network gives.",
        ),
        (
            {"delta": "0.01", "at": [[6.3, 2.0], [15.0, 2.0], [16.0, 2.1]]},
            "bad",
            "At 2 of 3 points (the first is below), parameters within their box change the label.",
        ),
    ],
)
def test_the_statement_of_a_check(options: dict[str, Any], tone: str, statement: str) -> None:
    request = asked(**options)
    outcome = answered(request)
    checked(request, outcome)
    page = page_of(request, outcome, tolerance=1e-6)
    assert page.answer.tone == tone
    assert statement in page.answer.statement
    assert (page.witness is not None) == (tone == "bad")


def test_an_open_check_says_what_to_do() -> None:
    request = asked(sigma="0.05")
    outcome = Outcome(Verdict.UNKNOWN, "the time ran out; raise --timeout", notes=("a note",))
    found, _ = checked(request, replace(outcome, exact_encoding=False))
    for said in (
        "OPEN",
        "neither proved nor refuted",
        "The time ran out; raise --timeout.",
        "A note",
        "Shared parameters were relaxed",
    ):
        assert said in found.text, said
    assert "ROBUST" not in found.text.replace("not_robust", "")


@pytest.mark.parametrize(
    ("quantity", "word", "statement"),
    [
        (
            "epsilon",
            "at most 0.05753",
            "by more than 0.0575258; one moves it by at least 0.0575257",
        ),
        ("sigma", "flips within 0.05227 only", "farther than 0.0522628 above the level"),
    ],
)
def test_the_statement_of_an_estimation(quantity: Any, word: str, statement: str) -> None:
    request = asked(command="estimate", quantity=quantity)
    outcome = answered(request)
    checked(request, outcome)
    page = page_of(request, outcome, tolerance=1e-6)
    assert page.answer.tone == "plain"
    assert page.answer.word == word
    assert statement in page.answer.statement
    assert page.witness is not None
    assert page.witness.about


def test_the_statement_of_the_largest_delta() -> None:
    request = asked(command="estimate", quantity="delta", epsilon="0.05")
    outcome = answered(request)
    found, _ = checked(request, outcome)
    bracket = outcome.brackets["delta"]
    answer = page_of(request, outcome, tolerance=1e-6).answer
    assert answer.word.startswith("up to 0.008")
    assert Fraction(answer.word.split()[-1]) <= Fraction(bracket.lower)
    assert "the confidence moves by at most 0.05; within 0.008" in answer.statement
    assert "refuted by a witness" in found.text
    # The witness's box is that of the upper end: its parameters cannot have moved further.
    assert max(m.share for m in moved_shown(request, outcome)) <= 1


def moved_shown(request: Any, outcome: Outcome) -> Any:
    view = page_of(request, outcome, tolerance=1e-6).witness
    assert view is not None
    return view.moved


@pytest.mark.parametrize(
    ("quantity", "brackets", "words"),
    [
        ("epsilon", {"epsilon": Bracket(0.1, math.inf)}, "No upper end was proved"),
        (
            "sigma",
            {"sigma_above": Bracket(0, math.inf), "sigma_below": Bracket(0, 0)},
            "No upper end was proved for how far above the level a label can flip.",
        ),
        ("delta", {"delta": Bracket(0.0, math.inf)}, "No positive delta was proved."),
    ],
)
def test_unbounded_ends_are_said(quantity: Any, brackets: dict[str, Bracket], words: str) -> None:
    request = asked(command="estimate", quantity=quantity)
    found, _ = checked(request, Outcome(None, "time is up", brackets))
    assert words in found.text
    assert "unbounded (not known)" in found.text
    assert (
        "infinity" not in page_of(request, Outcome(None, None, brackets), tolerance=1).answer.word
    )


def test_a_lower_end_alone_is_said_as_such() -> None:
    request = asked(command="estimate", quantity="epsilon")
    page = page_of(
        request, Outcome(None, brackets={"epsilon": Bracket(0.1, math.inf)}), tolerance=1
    )
    assert page.answer.word.startswith("at least 0.")
    assert Fraction(page.answer.word.split()[-1]) <= Fraction(0.1)
    assert page.brackets[0].lower_is == "proved"
    nothing = page_of(
        request, Outcome(None, brackets={"epsilon": Bracket(0, math.inf)}), tolerance=1
    )
    assert nothing.answer.word == "OPEN"
    assert nothing.brackets[0].lower_is == "trivial"
    request = asked(command="estimate", quantity="sigma")
    sides = {"sigma_above": Bracket(0.2, math.inf), "sigma_below": Bracket(0, 0.1)}
    answer = page_of(request, Outcome(None, brackets=sides), tolerance=1).answer
    assert answer.word == "flips as far as 0.2 at least"
    assert "farther than 0.100001 below the level" in answer.statement


def test_sentences_round_outward() -> None:
    bracket = Bracket(0.123456789, 0.123456781 + 1e-7)
    request = asked(command="estimate", quantity="epsilon")
    answer = page_of(request, Outcome(None, brackets={"epsilon": bracket}), tolerance=1e-6).answer
    assert answer.word == "at most 0.1235"
    assert "by more than 0.123457." in answer.statement


def test_several_outputs_are_a_table() -> None:
    request = asked(classifier_model(), at="0.5,0.4", delta="0.2")
    outcome = answered(request)
    found, places = checked(request, outcome)
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert {"witness.reference_output.0", "witness.perturbed_output.2", "domain.x.1"} <= places
    assert "confidence in class 2" in found.text


def test_points_are_listed_worst_first() -> None:
    request = asked(command="estimate", quantity="epsilon", at=[[6.3, 2.0], [20.0, 2.0]])
    outcome = answered(request)
    page = page_of(request, outcome, tolerance=1e-6)
    assert page.points is not None
    assert [p.index for p in page.points.shown] == [1, 0]
    assert page.witness is not None
    assert page.witness.point == 1
    checked(request, outcome)


def test_many_points_are_counted_and_not_all_listed() -> None:
    points = [[15.0 + i / 1000, 2.0] for i in range(60)]
    request = replace(asked(at=points), classes=(0,) * 60)
    page = page_of(request, answered(request), tolerance=1e-6)
    assert page.points is not None
    assert page.points.summary == "60 points: 0 robust, 60 not robust, 0 open."
    assert (len(page.points.shown), page.points.left_out) == (50, 10)
    assert page.points.accuracy is not None


def refuted(model: Model, parameters: dict[str, Any], **options: Any) -> tuple[Any, Outcome]:
    request = asked(model, **options)
    x = np.array([0.5] * model.network.input_size)
    witness = Witness(
        x, parameters, (Interval(0.4, 0.4),), (Interval(0.6, 0.6),), (0, 1), replayed=True
    )
    return request, Outcome(Verdict.NOT_ROBUST, witness=witness)


def test_the_parameters_that_moved_most_come_first() -> None:
    table = {"default": {"delta": 0.1}, "layer": {"scale": {"delta": 0}, "2": {"delta": 0.5}}}
    weight = np.arange(6.0).reshape(3, 2) - 2
    weight[1, 0] += 0.05
    last = np.array([[1.0, -1.0, 2.25]])
    request, outcome = refuted(
        scaled_model(), {"0.weight": weight, "2.weight": last}, delta=None, perturbation=table
    )
    moved, counts = moved_parameters(request.problems[0], reported(outcome))
    assert [m.name for m in moved] == ["2.weight[0, 2]", "0.weight[1, 0]"]
    assert [m.share for m in moved] == pytest.approx([0.5, 0.5])
    assert [m.change for m in moved] == pytest.approx([0.25, 0.05])
    assert counts == (2, 0, 15)


def reported(outcome: Outcome) -> Witness:
    witness = reported_witness(outcome)
    assert witness is not None
    return witness


def test_the_effect_of_one_parameter_is_what_exact_replay_says() -> None:
    request = asked()
    outcome = answered(request)
    witness = reported(outcome)
    moved, _ = moved_parameters(request.problems[0], witness)
    centre = {n: np.array(p.value) for n, p in request.model.network.parameters.items()}
    bias = next(m for m in moved if m.name == "0.bias[0]")
    alone = centre | {"0.bias": witness.parameters["0.bias"]}
    replayed = replay(request.problems[0], witness.input, alone)
    known = replayed.perturbed_output[0].lower - replayed.reference_output[0].lower
    assert bias.effect == pytest.approx(known, rel=1e-6)
    assert [abs(m.effect or 0) for m in moved] == sorted([abs(m.effect or 0) for m in moved])[::-1]


def wide_model(inputs: int, outputs: int) -> Model:
    nodes = [
        Node("input", Input(), (), (inputs,)),
        Node("0", Dense("w", None), ("input",), (outputs,)),
    ]
    weight = np.random.default_rng(0).normal(size=(outputs, inputs))
    return Model(Network(nodes, [Parameter("w", weight)]), InputInfo(), OutputInfo("logits", None))


def test_large_networks_show_their_foremost_parts() -> None:
    model = wide_model(100, 30)
    request = asked(model, at=[[0.5] * 100], delta="0.1")
    weight = np.array(model.network.parameters["w"].value)
    weight += 0.1 * np.sign(weight) * (1 - 1e-12)
    witness = replay(request.problems[0], np.full(100, 0.5), {"w": weight})
    outcome = Outcome(Verdict.NOT_ROBUST, witness=witness)
    found, _ = checked(request, outcome)
    view = page_of(request, outcome, tolerance=1e-6).witness
    assert view is not None
    assert (len(view.inputs), view.input_count) == (30, 100)
    assert (len(view.outputs), view.output_count) == (12, 30)
    names = {out.name for out in view.outputs}
    assert {f"confidence in class {label}" for label in witness.labels} <= names
    assert (len(view.moved), view.counts) == (10, (3000, 3000, 3000))
    for said in ("70 more are in the JSON", "18 more are in the JSON", "And 70 more inputs"):
        assert said in found.text


def test_a_fixed_parameter_is_no_division_by_zero() -> None:
    request = asked(delta="0")
    outcome = answered(request)
    page = page_of(request, outcome, tolerance=1e-6)
    assert page.answer.tone == "good"
    box = Perturbation({"0.weight": Fraction(0)})
    same = {n: p.value for n, p in request.model.network.parameters.items()}
    problem = replace(
        request.problems[0], uncertain=replace(request.problems[0].uncertain, perturbation=box)
    )
    moved, counts = moved_parameters(problem, replay(problem, np.array([7.0, 2.0]), same))
    assert (moved, counts) == ((), (0, 0, 3))

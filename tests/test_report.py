from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from paramrob.models.model import Model
from paramrob.report import (
    as_json,
    boundary_sentence,
    exit_code,
    json_text,
    reported_witness,
    witness_problem,
)
from paramrob.report_text import print_report
from paramrob.requests.build import Asked, Request, build
from paramrob.solve import Accuracy, PointsOutcome
from paramrob.verdict import Bracket, Interval, Outcome, Verdict, Witness
from paramrob.wording import question
from tests.small_models import bare_model, classifier_model, named_model, scaled_model

SECTION_8 = [
    "schema",
    "command",
    "model",
    "reference",
    "perturbation",
    "domain",
    "property",
    "verdict",
    "reason",
    "brackets",
    "witness",
    "semantics",
    "exact_encoding",
    "solver",
    "engine_seconds",
    "versions",
]


def witness(x: tuple[float, ...] = (20.5, 2.0), change: float = 0.05) -> Witness:
    return Witness(
        np.array(x),
        {"0.bias": np.array([-3.5])},
        (Interval(0.25, 0.25),),
        (Interval(0.3, 0.3),),
        (0, 1),
        Interval(change, change),
        Interval(0.25, 0.25),
        replayed=True,
    )


def refuted() -> Outcome:
    brackets = {
        "sigma_above": Bracket(0.0522627, 0.0522628, witness()),
        "sigma_below": Bracket(0.0401376, 0.0401377),
        "epsilon": Bracket(0.0575257144, 0.0575258116, witness()),
    }
    return Outcome(Verdict.NOT_ROBUST, None, brackets, witness(), "bounds", 0.03125)


def text_of(request: Request, outcome: Outcome, **options: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False)
    print_report(console, request, outcome, tolerance=1e-6, **options)
    return out.getvalue()


def squeezed(text: str) -> str:
    return " ".join(text.split())


def request_for(model: Model | None = None, **options: Any) -> Request:
    return build(Asked(**({"delta": "0.010"} | options)), model or named_model())


def test_the_object_of_a_check() -> None:
    report = json.loads(json_text(as_json(request_for(), refuted(), "w.npz")))
    assert set(SECTION_8) <= set(report)
    assert report["schema"] == 1
    assert report["command"] == "check"
    assert report["model"] == {
        "path": "cats/model.pt",
        "sha256": "ab" * 32,
        "architecture": "2-1",
        "parameters": 3,
    }
    assert report["reference"] is None
    assert report["perturbation"] == {"kind": "uniform", "delta": "0.01"}
    assert report["domain"] == {"kind": "box", "lower": [6.3, 2.0], "upper": [20.5, 3.9]}
    assert report["property"] == {
        "name": "labels",
        "scope": "global",
        "epsilon": None,
        "sigma": None,
        "level": 0.5,
    }
    assert report["verdict"] == "not_robust"
    assert report["reason"] is None
    assert report["witness"] == {
        "input": [20.5, 2.0],
        "file": "w.npz",
        "reference_output": 0.25,
        "perturbed_output": 0.3,
        "labels": ["F", "M"],
        "replayed": True,
    }
    brackets = report["brackets"]
    assert set(brackets) == {"epsilon", "sigma", "delta"}
    assert brackets["epsilon"]["lower"] == 0.0575257144
    assert brackets["epsilon"]["witness"]["file"] is None
    assert brackets["sigma"]["above"]["upper"] == 0.0522628
    assert brackets["sigma"]["below"]["witness"] is None
    assert brackets["delta"] is None
    assert report["semantics"] == "real"
    assert report["exact_encoding"] is True
    assert report["solver"] == "bounds"
    assert report["engine_seconds"] == 0.03125
    assert {"paramrob", "python", "numpy"} <= set(report["versions"])
    assert "points" not in report


def test_numbers_are_shortest_decimals_and_an_open_end_is_null() -> None:
    outcome = Outcome(None, brackets={"delta": Bracket(0.1, math.inf)})
    text = json_text(as_json(request_for(quantity="delta", delta=None), outcome))
    delta = json.loads(text)["brackets"]["delta"]
    assert delta == {"lower": 0.1, "upper": None, "witness": None}
    assert '"lower": 0.1,' in text
    assert "Infinity" not in text


def test_the_object_of_an_estimation_names_what_is_measured() -> None:
    for quantity, name in (("epsilon", "confidence"), ("sigma", "margin")):
        request = request_for(command="estimate", quantity=quantity)
        report = as_json(request, Outcome(None, brackets={}))
        assert report["command"] == "estimate"
        assert report["quantity"] == quantity
        assert report["property"]["name"] == name
        assert report["verdict"] is None
    asked = request_for(command="estimate", quantity="delta", delta=None, epsilon="0.1")
    report = as_json(asked, Outcome(None))
    assert report["property"]["name"] == "confidence"
    assert report["property"]["epsilon"] == 0.1


def test_several_outputs_give_lists_and_one_sigma() -> None:
    request = request_for(classifier_model())
    outputs = (Interval(0.5, 0.5), Interval(0.25, 0.25), Interval(0.25, 0.25))
    three = replace(witness((0.5, 0.25)), reference_output=outputs, perturbed_output=outputs)
    outcome = Outcome(
        Verdict.NOT_ROBUST, brackets={"sigma": Bracket(0.1, 0.2, three)}, witness=three
    )
    report = as_json(request, outcome)
    assert report["witness"]["reference_output"] == [0.5, 0.25, 0.25]
    assert report["witness"]["labels"] == [0, 1]
    assert report["brackets"]["sigma"]["upper"] == 0.2
    assert report["property"]["level"] is None


def points_outcome() -> tuple[Request, PointsOutcome]:
    request = request_for(at=[[6.5, 2.0], [20.5, 2.0], [7, 3]])
    request = replace(request, classes=(0, 1, 0))
    parts = (
        Outcome(Verdict.ROBUST),
        Outcome(Verdict.NOT_ROBUST, witness=witness()),
        Outcome(Verdict.UNKNOWN, "time is up; raise --timeout"),
    )
    whole = PointsOutcome(
        Verdict.NOT_ROBUST,
        "1 of 3 points are open: time is up; raise --timeout",
        witness=parts[1].witness,
        points=parts,
        accuracy=Accuracy(1.0, 1 / 3, 2 / 3),
    )
    return request, whole


def test_the_object_of_several_points() -> None:
    report = as_json(*points_outcome(), "w.npz")
    assert report["domain"]["kind"] == "points"
    assert report["property"]["scope"] == "local"
    assert [p["verdict"] for p in report["points"]] == ["robust", "not_robust", "unknown"]
    assert [p["y"] for p in report["points"]] == [0, 1, 0]
    assert report["points"][2]["domain"] == {"kind": "point", "x": [7.0, 3.0]}
    assert report["points"][1]["witness"]["replayed"] is True
    assert report["witness"]["file"] == "w.npz"
    assert report["accuracy"] == {"reference": 1.0, "certified": 1 / 3, "at_most": 2 / 3}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(Verdict.ROBUST), 0),
        (Outcome(Verdict.NOT_ROBUST), 1),
        (Outcome(Verdict.UNKNOWN), 3),
        (Outcome(None, brackets={"epsilon": Bracket(0.1, 0.1000005)}), 0),
        (Outcome(None, brackets={"epsilon": Bracket(0.1, 0.11)}), 3),
        (Outcome(None, brackets={"epsilon": Bracket(0.0, math.inf)}), 3),
        (Outcome(None, brackets={}), 3),
        (Outcome(None, brackets={"sigma_above": Bracket(0, 0), "sigma_below": Bracket(0, 1)}), 3),
    ],
)
def test_exit_codes(outcome: Outcome, code: int) -> None:
    assert exit_code(outcome, 1e-6) == code


def test_points_are_closed_only_if_each_is() -> None:
    closed = Outcome(None, brackets={"epsilon": Bracket(0.5, 0.5)})
    wide = Outcome(None, brackets={"epsilon": Bracket(0.1, 0.2)})
    whole = {"epsilon": Bracket(0.5, 0.5)}
    assert exit_code(PointsOutcome(None, brackets=whole, points=(closed, wide)), 1e-6) == 3
    assert exit_code(PointsOutcome(None, brackets=whole, points=(closed, closed)), 1e-6) == 0


def test_how_near_the_boundary_labels_flip() -> None:
    sentence = "labels can flip only within 0.0523 of the boundary"
    assert boundary_sentence(request_for(), refuted()) == sentence
    assert sentence in squeezed(text_of(request_for(), refuted()))
    assert sentence in as_json(request_for(), refuted())["notes"]
    assert boundary_sentence(request_for(sigma="0.01"), refuted()) is None
    assert boundary_sentence(request_for(at="6.3,2.0"), refuted()) is None
    assert boundary_sentence(request_for(), replace(refuted(), brackets={})) is None


def test_the_text_of_a_check() -> None:
    text = text_of(request_for(), refuted(), witness_file="w.npz")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert text == "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    flat = squeezed(text)
    for said in (
        "does the label stay the same, for every input of the box and every parameter vector",
        "cats/model.pt: 2-1, 3 parameters",
        "all, each within 0.01 of the trained value",
        "Hwt from 6.3 to 20.5 g, Bwt from 2 to 3.9 kg",
        "probability; label M above 0.5, else F",
        "NOT ROBUST",
        "epsilon 0.057525714 .. 0.057525812",
        "attained by a replayed witness, upper end proved",
        "Hwt = 20.5 g, Bwt = 2 kg",
        "label F",
        "label M",
        "paramrob replay w.npz",
        "real-number semantics",
        "0.0312 s",
    ):
        assert said in flat, said


def test_assumptions_and_advice_are_said() -> None:
    outcome = Outcome(Verdict.UNKNOWN, "out of time; raise --timeout", notes=("a note",))
    flat = squeezed(text_of(request_for(bare_model()), outcome))
    assert "every input lies in [0, 1]" in flat
    assert "the output is a probability" in flat
    assert "raise --timeout" in flat
    assert "a note" in flat
    relaxed = replace(outcome, exact_encoding=False)
    assert "shared parameters were relaxed" in squeezed(text_of(request_for(), relaxed))


def test_names_are_never_taken_for_markup() -> None:
    model = replace(named_model(), path="[red]x[/red].pt")
    assert "[red]x[/red].pt" in text_of(request_for(model), refuted())


def test_the_text_of_points() -> None:
    flat = squeezed(text_of(*points_outcome()))
    assert "1 robust, 1 not robust, 1 unknown of 3" in flat
    assert "100 % as trained; between 33.33 % and 66.67 %" in flat
    assert "point 1 not_robust at Hwt = 20.5 g" in flat


def test_one_line_if_quiet() -> None:
    assert text_of(request_for(), refuted(), quiet=True) == "not_robust\n"
    outcome = Outcome(None, brackets={"epsilon": Bracket(0.0575257144, 0.0575258116)})
    request = request_for(command="estimate", quantity="epsilon")
    assert text_of(request, outcome, quiet=True) == "epsilon 0.057525714 .. 0.057525812\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": "0.1"}, "does the confidence move by at most 0.1, for every input"),
        ({"sigma": "1e-2"}, "at least 0.01 from the level 0.5"),
        ({"command": "estimate", "quantity": "epsilon"}, "how far can the confidence move"),
        ({"command": "estimate", "quantity": "sigma"}, "how far from the decision boundary"),
        (
            {"command": "estimate", "quantity": "delta", "delta": None, "epsilon": 0.1},
            "up to which delta does the confidence move by at most 0.1",
        ),
        ({"at": "6.3,2.0"}, "does the label stay the same, at this input"),
    ],
)
def test_the_question_in_plain_words(options: dict[str, Any], words: str) -> None:
    assert words in question(request_for(**options))


def test_a_box_by_layers_in_plain_words() -> None:
    table = {"default": {"delta": 0.1}, "layer": {"scale": {"delta": 0}, "2": {"relative": 0.05}}}
    request = request_for(scaled_model(), delta=None, perturbation=table)
    flat = squeezed(text_of(request, Outcome(Verdict.ROBUST)))
    assert "0.weight within 0.1 of the trained value" in flat
    assert "2.bias within 0.1 plus 5 % of its magnitude of the trained value" in flat
    assert "scale.c" not in flat
    assert as_json(request, Outcome(Verdict.ROBUST))["perturbation"]["kind"] == "layers"


def test_an_output_beside_the_level_is_not_rounded_onto_it() -> None:
    beside = replace(
        witness(), perturbed_output=(Interval(0.5000000000000001, 0.5000000000000001),)
    )
    text = text_of(request_for(), replace(refuted(), witness=beside))
    assert "0.5000000000000001" in text


def test_many_inputs_are_not_all_listed() -> None:
    request = request_for(at="6.3,2.0")
    wide = Witness(np.arange(64.0), {}, (Interval(0, 0),), (Interval(1, 1),), replayed=True)
    model = replace(request.model, inputs=bare_model().inputs)
    request = replace(request, model=model)
    flat = squeezed(text_of(request, Outcome(Verdict.NOT_ROBUST, witness=wide)))
    assert "x7 = 7, and 56 more" in flat


def test_the_witness_of_an_estimation_refutes_a_smaller_threshold() -> None:
    w = witness()
    problem = witness_problem(
        request_for(command="estimate", quantity="epsilon"),
        Outcome(None, brackets={"epsilon": Bracket(0.05, 0.06, w)}),
    )
    assert problem is not None
    assert problem.property is not None
    assert problem.property.epsilon is not None
    assert problem.property.epsilon < Fraction(0.05)
    outcome = Outcome(
        None,
        brackets={"sigma_above": Bracket(0.1, 0.2), "sigma_below": Bracket(0.05, 0.2, w)},
    )
    problem = witness_problem(request_for(command="estimate", quantity="sigma"), outcome)
    assert problem is not None
    assert problem.property is not None
    assert problem.property.name == "margin"
    outcome = Outcome(None, brackets={"delta": Bracket(0, 0.125, w)})
    request = request_for(command="estimate", quantity="delta", delta=None)
    problem = witness_problem(request, outcome)
    assert problem is not None
    box = problem.uncertain.perturbation
    assert box.interval(problem.reference.parameters["0.bias"]).absolute == Fraction(1, 8)


def test_a_change_of_nothing_is_no_witness() -> None:
    outcome = Outcome(None, brackets={"epsilon": Bracket(0.0, 0.5, witness(change=0.0))})
    assert reported_witness(outcome) is None

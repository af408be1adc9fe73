from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paramrob import Perturbation, __version__
from paramrob.certificate import (
    certificate,
    certificate_text,
    no_certificate,
    save_certificate,
    statement,
)
from paramrob.digests import network_digest
from paramrob.errors import InputError, SoundnessError
from paramrob.models.network import Network, Parameter
from paramrob.several import PointsOutcome
from paramrob.verdict import Bracket, Outcome, Verdict
from tests.gate_cases import OPEN, REFUTED, ROBUST, asked, at_points
from tests.small_models import bare_model, classifier_model, named_model, scaled_model

REAL = "in real-number arithmetic: the rounding of inference is not included."
NAME = f"the network in cats/model.pt (SHA-256 {'ab' * 32}) with these parameters"


def test_the_statement_about_a_box_in_full() -> None:
    assert statement(asked()) == (
        "It is proved that, for every input of the box stated here (2 coordinates) and for every "
        "choice of parameters that is allowed (all, each within 0.01 of the trained value), "
        f"{NAME} gives the same label as the trained network; this holds {REAL}"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"at": [[7, 2.5]] * 12}, "at each of the 12 points stated here and for every choice"),
        ({"at": [7, 2.5]}, "at the one point Hwt = 7 g, Bwt = 2.5 kg and for every choice"),
        (
            {"at": [[7, 2.5]] * 3, "input_radius": "0.125"},
            "for every input within 0.125, coordinate by coordinate, of each of the 3 points "
            "stated here and",
        ),
        (
            {"at": [7, 2.5], "input_radius": "0.1"},
            "gives the same label as the trained network at the point itself;",
        ),
        (
            {"epsilon": "0.050"},
            f"between {NAME} and the trained network, the output probability differs by at most "
            "0.05;",
        ),
        (
            {"sigma": "0.06"},
            "the same label as the trained network wherever the output probability of the trained "
            "network is at least 0.06 from the level 0.5;",
        ),
        ({"delta": "0.01", "leave_out": ("0",)}, "(none moves; parameters left out,"),
        (
            {"at": [7, 2.5], "arithmetic": "float32", "accumulate": "float64"},
            "this holds for the network executed in float32 with sums in float64, under the "
            "assumptions listed here, the trained network being taken in real-number arithmetic.",
        ),
    ],
)
def test_the_statement_says_what_was_asked(options: dict[str, Any], words: str) -> None:
    said = statement(asked(**options))
    assert words in said
    assert said.count(".pt (SHA-256") == 1
    assert ("real-number arithmetic: the rounding" in said) == ("arithmetic" not in options)


def test_the_statement_about_several_classes() -> None:
    said = statement(asked(classifier_model(), domain=(0, 1), sigma="0.25"))
    assert (
        "wherever the best logit of the trained network leads the second by at least 0.25" in said
    )
    said = statement(asked(classifier_model(), domain=(0, 1), epsilon="0.25"))
    assert "each class probability (the softmax of the outputs) differs by at most 0.25" in said
    assert "the network that was given with these parameters" in said


def test_the_statement_about_parameters_that_stay() -> None:
    said = statement(asked(scaled_model(), delta="0.5", leave_out=("scale",)))
    kept = "0.weight, 0.bias, 2.weight, 2.bias: each within 0.5 of the trained value; parameters"
    assert f"({kept} left out, and running statistics, keep their values)" in said


def test_the_statement_about_sizes_of_their_own() -> None:
    box = Perturbation({"0.weight": Fraction(1, 8)}, {"0.bias": Fraction(1, 100)})
    said = statement(asked(delta=None, perturbation=box))
    assert "0.weight within 0.125 of the trained value" in said
    assert "0.bias within 1 % of its magnitude of the trained value" in said
    assert "keep their values" not in said


def test_a_box_given_value_by_value_is_told_by_its_words_and_its_ends() -> None:
    def found(top: float) -> dict[str, Any]:
        ends = {"0.bias": (np.array([-4.0]), np.array([top]))}
        box = Perturbation.explicit(ends, "int8", {"scheme": "int8"}, words="biases on a grid")
        return certificate(asked(delta=None, perturbation=box), ROBUST)

    first = found(-3.0)
    assert "allowed (biases on a grid; parameters left out," in first["statement"]
    assert first["perturbation"]["scheme"] == "int8"
    assert first["perturbation"] == found(-3.0)["perturbation"]
    others = found(np.nextafter(-3.0, 0.0))["perturbation"]
    assert others["ends_sha256"] != first["perturbation"]["ends_sha256"]
    assert "ends_sha256" not in certificate(asked(), ROBUST)["perturbation"]


def test_the_statement_names_another_reference() -> None:
    said = statement(asked(), {"path": "float.pt", "sha256": "cd" * 32})
    assert f"as the reference network in float.pt (SHA-256 {'cd' * 32});" in said


def test_a_certificate_holds_everything_exactly() -> None:
    outcome = replace(
        ROBUST, brackets={"sigma_above": Bracket(0.1, 0.2), "epsilon": Bracket(0.0, math.inf)}
    )
    request = asked(sigma="0.06", domain=[("1e-30", "0.1"), (2, "3.9")])
    found = json.loads(certificate_text(certificate(request, outcome, "paramrob check ...")))
    assert (found["schema"], found["kind"], found["verdict"]) == (1, "certificate", "robust")
    assert found["model"]["sha256"] == "ab" * 32
    assert found["model"]["network_sha256"] == network_digest(named_model().network)
    assert found["perturbation"]["delta"] == "0.01"
    lower, upper = ([Fraction(v) for v in found["domain"][end]] for end in ("lower", "upper"))
    assert lower == [Fraction(1, 10**30), 2]
    assert upper == [Fraction(1, 10), Fraction(39, 10)]
    assert found["property"] == {
        "name": "margin",
        "scope": "global",
        "epsilon": None,
        "sigma": "0.06",
    }
    assert found["brackets"]["sigma"] == {"above": {"lower": 0.1, "upper": 0.2}}
    assert found["brackets"]["epsilon"]["upper"] is None
    assert found["output"]["label"] == "probability; label M above 0.5, else F"
    assert found["semantics"] == found["reference_semantics"] == "real"
    assert found["versions"]["paramrob"] == __version__
    assert found["solver"] == "bounds"
    assert found["command"] == "paramrob check ..."


def test_points_are_told_by_number_and_digest() -> None:
    request, outcome = at_points(ROBUST, ROBUST, ROBUST)
    found = certificate(request, outcome)["domain"]
    x = np.array([[7.0, 2.5], [8.0, 2.5], [9.0, 2.5]])
    assert found["count"] == 3
    assert found["float64_sha256"] == hashlib.sha256(x.tobytes()).hexdigest()
    one = certificate(asked(at=[7, 2.5]), ROBUST)["domain"]
    assert one == {"kind": "point", "x": [7.0, 2.5]}
    ball = certificate(asked(at=[7, 2.5], input_radius="0.1"), ROBUST)["domain"]
    assert ball == {"kind": "ball", "x": [7.0, 2.5], "radius": "0.1"}


def test_points_beyond_a_limit_are_not_certified() -> None:
    x = np.array([[7.0, 2.5], [8.0, 2.5], [9.0, 2.5]])
    request = asked(at=x, limit=2)
    outcome = at_points(ROBUST, ROBUST)[1]
    found = certificate(request, outcome)
    assert "each of the 2 points" in found["statement"]
    assert found["domain"]["float64_sha256"] == hashlib.sha256(x[:2].tobytes()).hexdigest()


def test_assumptions_and_the_solvers_version_are_listed() -> None:
    found = certificate(asked(bare_model()), replace(ROBUST, solver="bounds, z3"))
    assert any("[0, 1]" in said for said in found["assumptions"])
    assert "z3-solver" in found["versions"]
    deployed = certificate(asked(at=[7, 2.5], arithmetic="float16"), ROBUST)
    assert deployed["semantics"] == "float16"
    assert any("TF32" in said for said in deployed["assumptions"])


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (REFUTED, "refuted"),
        (OPEN, "neither proved nor refuted"),
        (Outcome(None), "neither proved nor refuted"),
        (at_points(ROBUST, OPEN, REFUTED, ROBUST)[1], "2 of 4 points were proved, 1 refuted, 1 "),
        (replace(ROBUST, taken=2), "2 point(s) were read from a table"),
    ],
)
def test_what_is_not_proved_has_no_certificate(
    tmp_path: Path, outcome: Outcome, words: str
) -> None:
    request = asked()
    if isinstance(outcome, PointsOutcome):
        request = at_points(*outcome.points)[0]
    assert words in (no_certificate(outcome) or "")
    with pytest.raises(InputError, match="what is not proved"):
        save_certificate(tmp_path / "c.json", request, outcome)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_that_its_parts_contradict_is_refused() -> None:
    request, outcome = at_points(ROBUST, OPEN)
    with pytest.raises(SoundnessError, match="1 of 2"):
        certificate(request, replace(outcome, verdict=Verdict.ROBUST))
    with pytest.raises(SoundnessError, match="1 of 2"):
        certificate(request, ROBUST)


def test_the_digest_knows_every_bit_of_every_parameter() -> None:
    network = named_model().network
    first = network_digest(network)
    assert network_digest(named_model().network) == first
    for name, parameter in network.parameters.items():
        moved = np.nextafter(parameter.value, np.inf)
        others = [p for n, p in network.parameters.items() if n != name]
        changed = Network(list(network.nodes), [*others, Parameter(name, moved)])
        assert network_digest(changed) != first


def test_a_certificate_is_short_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("old")
    save_certificate(path, asked(), ROBUST)
    assert len(path.read_text().splitlines()) < 80
    assert json.loads(path.read_text())["verdict"] == "robust"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": {}}, {"a": ["b c", "d"], "e": [1.5, None]}, {"a": ["1", "2"]}, ["ü \n", "\x00"]],
)
def test_the_text_is_the_object(value: Any) -> None:
    assert json.loads(certificate_text(value)) == value

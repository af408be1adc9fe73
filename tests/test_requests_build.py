from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from paramrob.domain import Box, Point
from paramrob.errors import InputError
from paramrob.requests.build import Asked, build
from tests.small_models import bare_model, classifier_model, named_model, scaled_model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "how far can the parameters move"),
        ({"delta": 1, "perturbation": "p.toml"}, "two perturbations"),
        ({"delta": "-0.1"}, "negative"),
        ({"delta": "nan"}, "not a finite decimal"),
        ({"delta": "1e"}, "not a finite decimal"),
        ({"delta": True}, "expected a number"),
        ({"delta": 1, "at": "1,2", "domain": "0:1"}, "points"),
        ({"delta": 1, "at": "1,2", "domain_from": "d.csv"}, "points"),
        ({"delta": 1, "domain": "0:1", "domain_from": "d.csv"}, "both name the box"),
        ({"delta": 1, "epsilon": 1, "sigma": 1}, "two questions"),
        ({"delta": 1, "property_name": "margin"}, "--sigma S"),
        ({"delta": 1, "property_name": "labels", "epsilon": 1}, "no threshold"),
        ({"delta": 1, "property_name": "label"}, "choose labels"),
        ({"delta": 1, "epsilon": "x"}, "not a finite decimal"),
        ({"delta": 1, "epsilon": -1}, "0 or more"),
        ({"perturbation": "p.toml", "leave_out": ("0",)}, "--leave-out goes with --delta"),
        ({"quantity": "delta", "delta": 1}, "leave --delta out"),
        ({"quantity": "epsilon", "delta": 1, "epsilon": 1}, "takes no --epsilon"),
        ({"quantity": "sigma", "delta": 1, "property_name": "margin"}, "takes no --epsilon"),
    ],
)
def test_contradictions_are_refused_before_anything_is_read(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Asked(**options)


def test_nothing_but_delta_asks_for_labels_in_the_unit_box() -> None:
    request = build(Asked(delta="0.01"), bare_model())
    (problem,) = request.problems
    assert problem.domain == Box((Fraction(0),) * 2, (Fraction(1),) * 2)
    assert problem.property is not None
    assert problem.property.name == "labels"
    assert request.perturbation.as_json() == {"kind": "uniform", "delta": "0.01"}
    assert len(request.assumptions) == 2
    assert not request.several


def test_points_become_one_problem_each() -> None:
    request = build(Asked(delta=0.1, at=[[1, 2], [3, 4]], sigma="0.1"), named_model())
    assert [p.domain for p in request.problems] == [Point((1.0, 2.0)), Point((3.0, 4.0))]
    assert request.several
    assert request.assumptions == ()


def test_sigma_of_a_value_needs_a_level() -> None:
    from dataclasses import replace

    model = scaled_model()
    model = replace(model, output=replace(model.output, kind="value", level=None))
    with pytest.raises(InputError, match="--level"):
        build(Asked("estimate", "sigma", delta=1), model)
    with pytest.raises(InputError, match="--level"):
        build(Asked(delta=1), model)
    assert build(Asked("estimate", "epsilon", delta=1), model).problems[0].property is None


def test_a_level_outside_the_probabilities_is_refused() -> None:
    from dataclasses import replace

    model = named_model()
    model = replace(model, output=replace(model.output, level=Fraction(3, 2)))
    with pytest.raises(InputError, match=r"outside \(0, 1\)"):
        build(Asked(delta=1), model)


def test_the_delta_that_is_looked_for_moves_what_the_file_names() -> None:
    model = scaled_model()
    table = {"default": {"delta": 1}, "layer": {"scale": {"delta": 0}}}
    request = build(Asked("estimate", "delta", perturbation=table), model)
    assert set(request.perturbation.scaled(Fraction(3)).parameters) == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }
    everything = build(Asked("estimate", "delta"), model).perturbation
    assert set(everything.parameters) == set(model.network.parameters)
    with pytest.raises(InputError, match="relative"):
        build(Asked("estimate", "delta", perturbation={"default": {"relative": 1}}), model)


def test_several_outputs_have_one_sigma() -> None:
    assert not build(Asked(delta=1), classifier_model()).two_sided
    assert build(Asked(delta=1), named_model()).two_sided

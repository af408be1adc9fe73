"""Deployments: the boxes they are, in words and in JSON."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from paramrob.errors import InputError
from paramrob.models.network import Network
from paramrob.quantize.apply import pruned, quantized, rounded
from paramrob.quantize.deployment import Deployment, same_box
from paramrob.quantize.scheme import Scheme
from tests.quantize.networks import dense_network, image_network
from tests.small_models import named_model, scaled_model

HALF = Fraction(1, 2)
EVERY = [
    Deployment(Scheme("int8", "channel")),
    Deployment(Scheme("uint4", symmetric=True), any_rounding=True),
    Deployment(Scheme("float16", keep=("fc",)), any_rounding=True),
    Deployment(Scheme("bfloat16", bias="float")),
    Deployment(Scheme("int4", convention="torchao", bias="int32"), prune=HALF),
    Deployment(Scheme("int4"), any_rounding=True, prune=Fraction(1, 3), leave_out=("conv",)),
    Deployment(prune=HALF),
    Deployment(any_pruning=True, leave_out=("fc",)),
]


@pytest.mark.parametrize("deployment", EVERY)
def test_a_deployment_survives_json(deployment: Deployment) -> None:
    said = json.loads(json.dumps(deployment.as_json()))
    again = Deployment.from_json(said)
    assert again.as_json() == deployment.as_json()
    network = image_network()
    assert same_box(again.perturbation(network), deployment.perturbation(network), network)


@pytest.mark.parametrize("deployment", EVERY)
def test_fixed_parameters_and_kept_layers_never_move(deployment: Deployment) -> None:
    network = image_network()
    box = deployment.perturbation(network)
    assert not {"norm.mean", "norm.variance", "norm.weight"} & set(box.parameters)
    assert box.kind == deployment.kind
    assert box.only_ends == deployment.is_grid


def test_this_rounding_is_a_point_and_any_rounding_its_neighbours() -> None:
    network, scheme = image_network(), Scheme("int4")
    values = rounded(network, scheme)
    point = Deployment(scheme).perturbation(network)
    grid = Deployment(scheme, any_rounding=True).perturbation(network)
    for name, found in values.items():
        low, high = point.interval(network.parameters[name]).inner()
        assert np.array_equal(low, found.values)
        assert np.array_equal(high, found.values)
        low, high = grid.interval(network.parameters[name]).inner()
        assert np.array_equal(low, found.below)
        assert np.array_equal(high, found.above)
    assert set(grid.parameters) == set(values) == {"conv.weight", "fc.weight"}
    deployed = Deployment(scheme).network(network)
    assert np.array_equal(deployed.parameters["fc.weight"].value, values["fc.weight"].values)
    with pytest.raises(InputError, match="many networks"):
        Deployment(scheme, any_rounding=True).network(network)


def test_pruning_comes_before_rounding() -> None:
    network, scheme = image_network(), Scheme("int8", "channel", False)
    both = Deployment(scheme, prune=HALF).network(network)
    one_by_one = quantized(pruned(network, HALF), scheme)
    for name, parameter in one_by_one.parameters.items():
        assert np.array_equal(both.parameters[name].value, parameter.value)
    zeros = pruned(network, HALF).parameters["fc.weight"].value == 0
    assert not both.parameters["fc.weight"].value[zeros].any()
    grid = Deployment(scheme, any_rounding=True, prune=HALF).perturbation(network)
    for end in grid.interval(network.parameters["fc.weight"]).inner():
        assert not end[zeros].any()


def test_a_layer_that_is_only_pruned_stays_pruned() -> None:
    network = image_network()
    deployment = Deployment(Scheme("int8", keep=("fc",)), prune=HALF)
    found = deployment.network(network).parameters["fc.weight"].value
    assert np.array_equal(found, pruned(network, HALF).parameters["fc.weight"].value)


def test_any_pruning_is_every_subset() -> None:
    network = image_network()
    box = Deployment(any_pruning=True).perturbation(network)
    weight = network.parameters["fc.weight"]
    low, high = box.interval(weight).inner()
    assert np.array_equal(low + high, weight.value)
    assert not (low * high).any()
    assert box.only_ends


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "nothing is done"),
        ({"any_rounding": True}, "--quantize FORMAT"),
        ({"any_pruning": True, "prune": HALF}, "leave --prune out"),
        ({"any_pruning": True, "scheme": Scheme()}, "--prune FRACTION instead"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Deployment(**given)


@pytest.mark.parametrize(
    "said",
    [
        {"format": "int8", "rounding": "some"},
        {"pruned": 0.5},
        {"pruned": "1e999999999"},
        {"pruned": "1/0"},
        {"pruned": "any", "leave_out": "fc"},
        {"rounding": "any"},
        {"format": "int8", "rounding": "any", "convention": "tflite"},
        {},
    ],
)
def test_descriptions_of_others_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Deployment.from_json(said)


def test_words_tell_the_questions_apart() -> None:
    this = Deployment(Scheme("int8")).words()
    assert this.startswith("this rounding: each weight is exactly its nearest value in int8")
    every = Deployment(Scheme("int8"), any_rounding=True).words()
    assert every.startswith("any rounding: each weight on either neighbour in int8")
    assert "AdaRound" in every
    assert "GPTQ, AWQ" in every
    assert "weight and bias" in Deployment(Scheme("float16")).words()
    assert "smallest 50 % of the weights were set to 0" in Deployment(Scheme(), prune=HALF).words()
    assert Deployment(any_pruning=True).words().startswith("any pruning: each weight is 0 or as")
    kept = Deployment(Scheme(keep=("a", "b")), prune=HALF, leave_out=("c",)).words()
    assert "each weight (but for a, b) is exactly" in kept
    assert "50 % of the weights (but for c) were set to 0" in kept


def test_what_stays_as_it_is_is_said() -> None:
    said = " ".join(Deployment(Scheme("int8")).assumptions(image_network()))
    assert "biases keep their stored values" in said
    assert "the parameters of norm keep" in said
    assert "--fold-batch-norm" in said
    said = " ".join(Deployment(Scheme("int8", bias="int32")).assumptions(named_model().network))
    assert "int32 biases need the scales of activations" in said
    assert Deployment(Scheme("float16")).assumptions(named_model().network) == ()
    said = " ".join(Deployment(prune=HALF).assumptions(scaled_model().network))
    assert "the parameters of scale keep" in said
    assert "same magnitude" in said
    assert "--fold-batch-norm" not in said


def test_half_precision_files_get_scales_of_float32() -> None:
    network = dense_network([torch.nn.Linear(2, 2)])
    stored = [type(p)(p.name, p.value, "float16") for p in network.parameters.values()]
    said = Deployment(Scheme("int8")).assumptions(Network(network.nodes, stored))
    assert said == ("scales are float32, also of weights stored as float16",)

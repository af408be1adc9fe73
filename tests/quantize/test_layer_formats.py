"""Formats of single layers: each layer rounded as it would be alone, in reports and files too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import paramrob
from paramrob.cli import main
from paramrob.errors import InputError
from paramrob.models.network import Dense, Input, Network, Node, Parameter
from paramrob.quantize.apply import quantized, rounded
from paramrob.quantize.deployment import Deployment, same_box
from paramrob.quantize.scheme import Scheme
from tests.quantize.networks import image_network
from tests.small_models import scaled_model


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("scheme", "alone"),
    [
        (Scheme("int8", layers={"fc": "int4"}), {"conv": "int8", "fc": "int4"}),
        (Scheme("int4", "channel", layers=(("fc", "uint5"),)), {"conv": "int4", "fc": "uint5"}),
        (Scheme("float16", layers={"conv": "bfloat16"}), {"conv": "bfloat16", "fc": "float16"}),
    ],
)
def test_each_layer_is_rounded_as_it_would_be_alone(scheme: Scheme, alone: dict[str, str]) -> None:
    network = image_network()
    found = rounded(network, scheme)
    for layer, form in alone.items():
        own = rounded(network, Scheme(form, scheme.granularity))
        for name in [n for n in own if n.startswith(layer)]:
            for part in ("values", "below", "above"):
                assert np.array_equal(getattr(found[name], part), getattr(own[name], part))
    assert not np.array_equal(found["fc.weight"].values, found["fc.weight"].below)


@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(Scheme("int8", layers={"fc": "int4"})),
        Deployment(Scheme("int4", layers={"fc": "int8"}), any_rounding=True),
        Deployment(Scheme("int8", "channel", layers={"fc": "uint4"})),
        Deployment(Scheme("int8", range="narrow", symmetric=True, layers={"fc": "int4"})),
        Deployment(Scheme("float16", layers={"fc": "bfloat16"}, keep=("conv",))),
    ],
)
def test_formats_survive_json(deployment: Deployment) -> None:
    said = json.loads(json.dumps(deployment.as_json()))
    again = Deployment.from_json(said)
    assert again.as_json() == deployment.as_json()
    network = image_network()
    assert same_box(again.perturbation(network), deployment.perturbation(network), network)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layers": {"fc": "float16"}}, "give integers"),
        ({"format": "float16", "layers": {"fc": "int8"}}, "give floats"),
        ({"layers": {"fc": "int99"}}, "no format"),
        ({"layers": (("fc", "int4"), ("fc", "int5"))}, "two formats"),
        ({"layers": {"fc": "int4"}, "keep": ("fc",)}, "kept and has a format"),
        ({"range": "narrow", "layers": {"fc": "uint4"}}, "narrow range"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scheme(**given)


def test_layers_without_weights_or_that_share_them_are_refused() -> None:
    network = image_network()
    with pytest.raises(InputError, match="no weights to round"):
        quantized(network, Scheme(layers={"norm": "int4"}))
    with pytest.raises(InputError, match="no layer 'cf'"):
        quantized(network, Scheme(layers={"cf": "int4"}))
    nodes = [Node("input", Input(), (), (2,)), Node("a", Dense("w"), ("input",), (2,))]
    shared = Network([*nodes, Node("b", Dense("w"), ("a",), (2,))], [Parameter("w", np.eye(2) / 3)])
    with pytest.raises(InputError, match="another format"):
        quantized(shared, Scheme(layers={"a": "int4"}))
    both = quantized(shared, Scheme(layers={"a": "int4", "b": "int4"}))
    alone = quantized(shared, Scheme("int4"))
    assert np.array_equal(both.parameters["w"].value, alone.parameters["w"].value)


@pytest.mark.parametrize(
    "said",
    [{"format": "int8", "layers": ["fc"]}, {"format": "int8", "layers": {"fc": 4}}],
)
def test_descriptions_of_others_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no description"):
        Scheme.from_json(said)


def test_words_name_the_formats() -> None:
    assert Scheme(layers={"fc": "int4"}).words().endswith("with fc in int4")
    assert Scheme(layers={"fc": "int4"}).name == "int8 (fc int4)"
    many = Scheme(layers={str(i): "int4" for i in range(9)})
    assert many.name == "int8 (mixed widths)"


def test_the_command_line_takes_formats_and_its_witness_replays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    model, witness = tmp_path / "m.pt", tmp_path / "w.npz"
    torch.save(torch.nn.Sequential(*layers), model)
    given = ("check", model, "--at", "0.9,0.4", "--epsilon", "1e-9", "--quantize", "int8")
    result = invoke(*given, "--quantize-layer", "0=int4", "--witness", witness)
    assert result.exit_code == 1, result.output
    assert "with 0 in int4" in " ".join(result.stdout.split())
    with np.load(witness) as saved:
        network = paramrob.load(model).network
        mixed = quantized(network, Scheme(layers={"0": "int4"}))
        for name in ("0.weight", "2.weight"):
            assert np.array_equal(saved[f"param/{name}"], mixed.parameters[name].value)
    assert invoke("replay", witness).exit_code == 0
    for option, said in (
        ("0", "write NAME=FORMAT"),
        ("=int4", "write NAME=FORMAT"),
        ("1=int4", "no layer '1'"),
        ("0=float16", "give integers"),
    ):
        result = invoke(*given, "--quantize-layer", option)
        assert result.exit_code == 2
        assert said in result.stderr
    result = invoke("check", model, "--delta", "0.1", "--quantize-layer", "0=int4")
    assert result.exit_code == 2
    assert "--quantize FORMAT" in result.stderr


def test_a_scaler_has_no_format() -> None:
    with pytest.raises(InputError, match="no weights to round"):
        Deployment(Scheme(layers={"scale": "int4"})).perturbation(scaled_model().network)

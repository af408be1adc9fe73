from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paramrob.errors import InputError
from paramrob.models.network import Dense, Input, Network, Node, Parameter
from paramrob.requests.perturbations import from_table, uniform
from tests.small_models import scaled_model

NETWORK = scaled_model().network


def sizes(table: Any) -> dict[str, tuple[Fraction, Fraction]]:
    box = from_table(table, NETWORK)
    found = {name: box.interval(p) for name, p in NETWORK.parameters.items()}
    return {name: (i.absolute, i.relative) for name, i in found.items()}


def test_a_layers_table_overrides_the_default_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(
        '[default]\ndelta = "0.01"\n'
        "[layer.scale]\ndelta = 0\n"
        '[layer."0"]\nbiases = false\nrelative = 0.05\n'
        '[layer."2"]\ndelta = 1e-3\nweights = false\n'
    )
    hundredth, thousandth, zero = Fraction(1, 100), Fraction(1, 1000), Fraction(0)
    assert sizes(path) == {
        "scale.c": (zero, zero),
        "0.weight": (hundredth, Fraction(1, 20)),
        "0.bias": (zero, zero),
        "2.weight": (zero, zero),
        "2.bias": (thousandth, zero),
    }
    said = from_table(path, NETWORK).as_json()
    assert said["default"] == {"delta": "0.01"}
    assert said["layers"] == {
        "scale": {"delta": "0"},
        "0": {"biases": False, "relative": "0.05"},
        "2": {"delta": "0.001", "weights": False},
    }


def test_a_mapping_means_the_same_as_its_file() -> None:
    found = sizes({"default": {"delta": 0.1, "biases": False}})
    tenth, zero = (Fraction(1, 10), Fraction(0)), (Fraction(0), Fraction(0))
    assert found == {
        "scale.c": tenth,
        "0.weight": tenth,
        "0.bias": zero,
        "2.weight": tenth,
        "2.bias": zero,
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"defaults": {}}, "did you mean 'default'"),
        ({"default": {"detla": 1}}, "did you mean 'delta'"),
        ({"layer": {"scal": {"delta": 1}}}, "did you mean 'scale'"),
        ({"layer": {"1": {"delta": 1}}}, "no layer '1' with parameters"),
        ({"layer": {"0": {"bias": False}}}, "did you mean 'biases'"),
        ({"layer": {"0": 3}}, "must be a table"),
        ({"default": {"delta": -1}}, "negative"),
        ({"default": {"relative": "-0.1"}}, "negative"),
        ({"default": {"delta": "nan"}}, "not a finite decimal"),
        ({"default": {"delta": float("inf")}}, "not a finite decimal"),
        ({"default": {"delta": [1]}}, "is a decimal"),
        ({"default": {"delta": True}}, "expected a number"),
        ({"default": {"delta": 1, "weights": 0}}, "true or false"),
        ({}, "moves no parameter"),
        ({"default": {"delta": 0}}, "moves no parameter"),
    ],
)
def test_a_bad_table_is_refused(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_table(table, NETWORK)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        from_table(tmp_path / "none.toml", NETWORK)


def test_layers_left_out_do_not_move() -> None:
    box = uniform(NETWORK, Fraction(1, 10), ["scale"])
    assert set(box.parameters) == set(NETWORK.parameters) - {"scale.c"}
    with pytest.raises(InputError, match="did you mean 'scale'"):
        uniform(NETWORK, Fraction(1, 10), ["scales"])


def test_layers_that_share_a_parameter_must_agree() -> None:
    network = Network(
        [
            Node("input", Input(), (), (2,)),
            Node("a", Dense("w"), ("input",), (2,)),
            Node("b", Dense("w"), ("a",), (2,)),
        ],
        [Parameter("w", np.eye(2))],
    )
    with pytest.raises(InputError, match="shared by several layers"):
        from_table({"layer": {"a": {"delta": 1}}}, network)
    agreed = from_table({"layer": {"a": {"delta": 1}, "b": {"delta": "1.0"}}}, network)
    assert agreed.interval(network.parameters["w"]).absolute == 1

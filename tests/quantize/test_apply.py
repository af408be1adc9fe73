"""Schemes on networks: what is rounded, what is pruned, what is left alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as torch_prune

from paramrob.errors import InputError
from paramrob.models.network import Activation, Array, Dense, Input, Network, Node, Parameter
from paramrob.quantize.apply import pruned, pruned_values, quantized, rounded
from paramrob.quantize.integers import round_array
from paramrob.quantize.scheme import Scheme
from paramrob.quantize.targets import Targets
from tests.quantize.networks import dense_network, image_network
from tests.small_models import scaled_model

QUIET = settings(derandomize=True, database=None, deadline=None, max_examples=40)


def changed(before: Network, after: Network) -> set[str]:
    return {
        name
        for name, p in before.parameters.items()
        if not np.array_equal(p.value, after.parameters[name].value)
    }


def test_weights_are_rounded_and_everything_else_keeps_its_values() -> None:
    network = image_network()
    after = quantized(network, Scheme("int4", "channel"))
    assert changed(network, after) == {"conv.weight", "fc.weight"}
    for name in ("conv.weight", "fc.weight"):
        found = round_array(network.parameters[name].value, Scheme("int4", "channel"))
        assert np.array_equal(after.parameters[name].value, found.values)
    assert len(np.unique(found.scale)) == 3
    assert after.nodes == network.nodes


def test_a_float_format_takes_the_biases_along_unless_told_not_to() -> None:
    network = image_network()
    moved = {"conv.weight", "fc.weight", "conv.bias"}
    assert changed(network, quantized(network, Scheme("float16"))) == moved
    still = quantized(network, Scheme("float16", bias="float"))
    assert changed(network, still) == moved - {"conv.bias"}
    half = torch.from_numpy(network.parameters["conv.bias"].value.copy()).half().double().numpy()
    found = quantized(network, Scheme("float16")).parameters["conv.bias"].value
    assert np.array_equal(found, half)


def test_layers_to_keep_keep_their_values() -> None:
    network = image_network()
    assert changed(network, quantized(network, Scheme("int4", keep=("conv",)))) == {"fc.weight"}
    found = Targets.of(network, ["fc"])
    assert (found.weights, found.biases, found.others) == (
        ("conv.weight",),
        ("conv.bias",),
        ("norm",),
    )
    with pytest.raises(InputError, match="did you mean 'conv'"):
        quantized(network, Scheme("int4", keep=("con",)))
    with pytest.raises(InputError, match="no dense or convolutional layer"):
        quantized(network, Scheme("int4", keep=("conv", "fc")))


def shared_network() -> Network:
    weight = Parameter("w", np.array([[1.0, 0.3], [-0.2, 0.7]]))
    return Network(
        [
            Node("input", Input(), (), (2,)),
            Node("a", Dense("w"), ("input",), (2,)),
            Node("r", Activation("relu"), ("a",), (2,)),
            Node("b", Dense("w"), ("r",), (2,)),
        ],
        [weight],
    )


def test_a_shared_parameter_is_rounded_once_and_cannot_be_kept_for_one_layer() -> None:
    network = shared_network()
    assert list(rounded(network, Scheme("int4"))) == ["w"]
    with pytest.raises(InputError, match="shares 'w'"):
        rounded(network, Scheme("int4", keep=("a",)))


def test_what_the_format_cannot_hold_names_the_parameter() -> None:
    network = scaled_model().network
    large = [
        replace(p, value=p.value + 1e6) if p.name == "2.weight" else p
        for p in network.parameters.values()
    ]
    with pytest.raises(InputError, match=r"'2\.weight'.*float16"):
        quantized(Network(network.nodes, large), Scheme("float16"))
    with pytest.raises(InputError, match=r"'conv\.weight'.*matrices"):
        quantized(image_network(), Scheme("int4", "group:4"))


@QUIET
@given(
    amount=st.one_of(st.integers(0, 100).map(lambda k: k / 100), st.floats(0, 1)),
    seed=st.integers(0, 20),
)
def test_pruning_is_as_in_pytorch(amount: float, seed: int) -> None:
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)]
    network = dense_network(layers)
    found = pruned_values(network, Fraction(amount))
    parts = [(layer, "weight") for layer in layers]
    torch_prune.global_unstructured(parts, pruning_method=torch_prune.L1Unstructured, amount=amount)
    for layer, name in zip(layers, ("w0", "w1"), strict=True):
        assert np.array_equal(found[name], layer.weight.detach().double().numpy())


def test_pruning_leaves_layers_and_biases_out() -> None:
    network = image_network()
    assert changed(network, pruned(network, Fraction(1))) == {"conv.weight", "fc.weight"}
    found = pruned(network, Fraction(1, 2), ["conv"])
    assert changed(network, found) == {"fc.weight"}
    assert int(np.count_nonzero(found.parameters["fc.weight"].value)) == 12
    assert pruned_values(network, Fraction(0))["fc.weight"].all()
    with pytest.raises(InputError, match="0 to 1"):
        pruned(network, Fraction(3, 2))


def test_among_equal_magnitudes_the_first_is_pruned() -> None:
    network = dense_network([torch.nn.Linear(4, 1)])
    values: Array = np.array([[1.0, -1.0, 1.0, 2.0]])
    network = Network(network.nodes, [replace(network.parameters["w0"], value=values)])
    assert pruned_values(network, Fraction(1, 2))["w0"].tolist() == [[0.0, 0.0, 1.0, 2.0]]

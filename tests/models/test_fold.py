"""Folded batch norms against exact arithmetic, the network before folding, and torch's fusion."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import paramrob
from paramrob.errors import ModelError
from paramrob.models.fold import batch_norms, fold_batch_norm
from paramrob.models.load import load
from paramrob.models.network import (
    Activation,
    Add,
    BatchNorm,
    Conv,
    Dense,
    Input,
    Network,
    Node,
    Op,
    Parameter,
)
from paramrob.models.torch_module import from_torch
from tests.models.image_modules import CASES, IMAGE, scrambled
from tests.models.test_torch_file import check_outputs
from tests.models.torch_crafted import saved


def small(weight: Any, bias: Any, norm: dict[str, Any], epsilon: float = 0.0) -> Network:
    """Return a dense layer and a batch norm with given numbers."""
    weight = np.array(weight, dtype=np.float64)
    size = weight.shape[0]
    parameters = [Parameter("w", weight)]
    parameters += [] if bias is None else [Parameter("b", np.array(bias))]
    parameters += [
        Parameter(name, np.array(value), fixed=name in ("m", "v")) for name, value in norm.items()
    ]
    op = BatchNorm("m", "v", epsilon, "g" if "g" in norm else None, "h" if "h" in norm else None)
    nodes = [
        Node("x", Input(), (), weight.shape[1:]),
        Node("layer", Dense("w", None if bias is None else "b"), ("x",), (size,)),
        Node("norm", op, ("layer",), (size,)),
    ]
    return Network(nodes, parameters)


numbers = st.floats(-1e6, 1e6, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 0.25, -3.0])
positive = st.floats(1e-6, 1e6) | st.sampled_from([1.0, 4.0, 9.0, 0.0625])


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(numbers, numbers, numbers, positive, numbers, numbers, st.sampled_from([0.0, 1e-5, 3.0]))
def test_each_number_is_correctly_rounded(
    w: float, b: float, m: float, v: float, g: float, h: float, epsilon: float
) -> None:
    norm = {"m": [m], "v": [v], "g": [g], "h": [h]}
    folded = fold_batch_norm(small([[w]], [b], norm, epsilon))
    flint.ctx.prec = 4000
    try:
        scale = exact(g) / (exact(v) + exact(epsilon)).sqrt()
        wanted = (scale * exact(w), scale * (exact(b) - exact(m)) + exact(h))
        for name, value in zip(("w", "b"), wanted, strict=True):
            check_nearest(folded.parameters[name].value.item(), value)
    finally:
        flint.ctx.prec = 53


def exact(value: float) -> Any:
    return flint.arb(flint.fmpq(*Fraction(value).as_integer_ratio()))


def check_nearest(found: float, value: Any) -> None:
    """Check that no neighbour of a float is nearer to the exact value."""
    distance = abs(exact(found) - value)
    for to in (-math.inf, math.inf):
        assert not distance > abs(exact(math.nextafter(found, to)) - value)


def test_numbers_that_are_exact_stay_exact() -> None:
    norm = {"m": [2.0, 0.0], "v": [9.0, 0.25], "g": [1.0, -3.0], "h": [0.0, 1.0]}
    folded = fold_batch_norm(small([[3.0, 1.0], [0.5, 0.0]], [5.0, 1.0], norm))
    assert folded.parameters["w"].value.tolist() == [[1.0, 1 / 3], [-3.0, 0.0]]
    assert folded.parameters["b"].value.tolist() == [1.0, -5.0]
    assert [node.name for node in folded.nodes] == ["x", "layer"]
    plain = fold_batch_norm(small([[3.0]], None, {"m": [2.0], "v": [4.0]}))
    assert plain.parameters["w"].value.tolist() == [[1.5]]
    assert plain.parameters["layer.bias"].value.tolist() == [-1.0]


def test_numbers_beyond_float64_are_refused() -> None:
    for v in (1e-300, 2.0**-1000):
        with pytest.raises(ModelError, match="'layer' gives numbers beyond float64"):
            fold_batch_norm(small([[1e200]], [0.0], {"m": [0.0], "v": [v], "g": [1e10]}))
    tiny = fold_batch_norm(small([[5e-324]], [0.0], {"m": [0.0], "v": [3.0]}))
    assert tiny.parameters["w"].value.item() == 5e-324  # 0.577 of it, which rounds up


@pytest.mark.parametrize(("case", "left"), [("residual", 0), ("dense", 2), ("separable", 0)])
def test_networks_compute_the_same(case: str, left: int) -> None:
    torch.manual_seed(0)
    model = scrambled(CASES[case]())
    network = from_torch(model, IMAGE)
    folded = fold_batch_norm(network)
    assert len(batch_norms(folded)) == left
    assert folded is network if case == "dense" else folded is not network
    check_outputs(folded, model, tolerance=1e-10)
    layers = {node.name for node in network.nodes} - set(batch_norms(network))
    assert layers <= {node.name for node in folded.nodes}


def test_folding_agrees_with_torch() -> None:
    torch.manual_seed(0)
    model = scrambled(nn.Sequential(nn.Conv2d(2, 3, 3, groups=1), nn.BatchNorm2d(3)))
    fuse = torch.nn.utils.fusion.fuse_conv_bn_eval
    fused: Any = fuse(model[0], model[1])  # type: ignore[index]
    folded = fold_batch_norm(from_torch(model, IMAGE))
    for name, value in (("0.weight", fused.weight), ("0.bias", fused.bias)):
        found = folded.parameters[name].value
        np.testing.assert_allclose(found, value.detach().numpy(), rtol=1e-13, atol=1e-14)


def graph(nodes: list[tuple[str, Op, tuple[str, ...], tuple[int, ...]]]) -> Network:
    ones = {"w": (2, 2), "u": (2, 2), "k": (2, 2, 1), "m": (2,), "v": (2,)}
    given = [
        Parameter(name, np.ones(shape), fixed=name in ("m", "v"))
        for name, shape in ones.items()
        if any(name in vars(op).values() for _, op, _, _ in nodes)
    ]
    return Network([Node(*node) for node in nodes], given)


NORM = BatchNorm("m", "v", 0.0)
UNFOLDABLE: dict[str, Network] = {
    "two consumers": graph(
        [
            ("x", Input(), (), (2,)),
            ("d", Dense("w"), ("x",), (2,)),
            ("n", NORM, ("d",), (2,)),
            ("s", Add(), ("d", "n"), (2,)),
        ]
    ),
    "a layer used twice": graph(
        [
            ("x", Input(), (), (2,)),
            ("d", Dense("w"), ("x",), (2,)),
            ("n", NORM, ("d",), (2,)),
            ("e", Dense("w"), ("n",), (2,)),
        ]
    ),
    "an activation between": graph(
        [
            ("x", Input(), (), (2,)),
            ("d", Dense("w"), ("x",), (2,)),
            ("r", Activation("relu"), ("d",), (2,)),
            ("n", NORM, ("r",), (2,)),
        ]
    ),
    "rows": graph(
        [
            ("x", Input(), (), (2, 2)),
            ("d", Dense("w"), ("x",), (2, 2)),
            ("n", NORM, ("d",), (2, 2)),
        ]
    ),
    "the input": graph([("x", Input(), (), (2,)), ("n", NORM, ("x",), (2,))]),
}


@pytest.mark.parametrize("case", UNFOLDABLE)
def test_what_cannot_be_folded_stays(case: str) -> None:
    network = UNFOLDABLE[case]
    assert fold_batch_norm(network) is network


def test_a_convolution_along_a_line() -> None:
    convolution = Conv("k", None, (1,), ((0, 0),), (1,))
    network = graph(
        [
            ("x", Input(), (), (2, 3)),
            ("c", convolution, ("x",), (2, 3)),
            ("n", BatchNorm("m", "v", 3.0), ("c",), (2, 3)),
            ("r", Activation("relu"), ("n",), (2, 3)),
        ]
    )
    folded = fold_batch_norm(network)
    assert folded.parameters["k"].value.tolist() == [[[0.5], [0.5]]] * 2
    assert folded.nodes[-1].inputs == ("c",)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    np.testing.assert_allclose(folded.evaluate(x), network.evaluate(x), rtol=1e-14, atol=1e-14)


def perceptron() -> nn.Module:
    torch.manual_seed(3)
    return scrambled(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1)))


def test_what_was_done_is_said() -> None:
    model = perceptron()
    plain, folded = load(model), load(model, fold_batch_norm=True)
    assert not plain.folded
    assert folded.folded
    assert any("batch norms (1) are perturbed as they stand" in text for text in plain.assumptions)
    assert any("batch norms were folded" in text for text in folded.assumptions)
    assert folded.network.parameter_count == plain.network.parameter_count - 6
    again = load(plain, fold_batch_norm=True)
    assert again.assumptions == folded.assumptions
    assert load(again, fold_batch_norm=True) == again
    without = load(nn.Sequential(nn.Linear(2, 1)), fold_batch_norm=True)
    assert not without.folded
    assert not any("batch norm" in text for text in without.assumptions)
    dense = load(scrambled(CASES["dense"]()), input_shape=IMAGE, fold_batch_norm=True)
    assert any("norms.0, norms.1) are perturbed" in text for text in dense.assumptions)


def test_questions_about_a_folded_network() -> None:
    model = perceptron()
    outcome = paramrob.estimate(
        model, "epsilon", delta="0.01", domain=(0, 1), output="value", fold_batch_norm=True,
        tolerance=1e-3,
    )  # fmt: skip
    again = paramrob.estimate(
        load(model), "epsilon", delta="0.01", domain=(0, 1), output="value", fold_batch_norm=True,
        tolerance=1e-3,
    )  # fmt: skip
    network = load(model, fold_batch_norm=True).network
    bracket, other = outcome.brackets["epsilon"], again.brackets["epsilon"]
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 1, size=(64, 2))
    for _ in range(50):
        moved = {
            name: p.value + draw.uniform(-0.01, 0.01, size=p.value.shape)
            for name, p in network.parameters.items()
        }
        assert abs(network.evaluate(x, moved) - network.evaluate(x)).max() <= bracket.upper
    assert other.lower <= bracket.upper
    assert bracket.lower <= other.upper
    assert any("batch norms were folded" in note for note in outcome.notes)
    checked = paramrob.check(
        model, delta=0, domain=(0, 1), output="value", epsilon=1, fold_batch_norm=True
    )
    assert checked.verdict is paramrob.Verdict.ROBUST


def test_a_witness_of_a_folded_network_is_replayed(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from paramrob.cli import main

    model, witness = tmp_path / "model.pt", tmp_path / "w.npz"
    model.write_bytes(saved(perceptron()))
    runner = CliRunner()
    options = ["--delta", "0.05", "--output", "value", "--epsilon", "0.001", "--fold-batch-norm"]
    result = runner.invoke(main, ["check", str(model), *options, "--witness", str(witness)])
    assert result.exit_code == 1, result.output
    assert "batch norms were folded" in " ".join(result.output.split())
    assert "all, each within 0.05" in result.output
    replayed = runner.invoke(main, ["replay", str(witness)])
    assert (replayed.exit_code, "REPRODUCED" in replayed.output) == (0, True)
    formula = runner.invoke(main, ["export", str(model), *options, "--no-presolve"])
    assert formula.exit_code == 0
    assert "batch norms were folded" in formula.output

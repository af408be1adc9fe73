"""Grids between layers: where they stand, their scales, and what bounds make of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from paramrob.bounds.graph.value_ranges import value_ranges
from paramrob.domain import Point, box_from_floats
from paramrob.engine import Settings, decide, estimate
from paramrob.errors import InputError
from paramrob.models.model import OutputInfo
from paramrob.models.network import Array, Network, Quantize
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.quantize.activations import Grids, calibrated, grids_for, sites
from paramrob.verdict import Verdict
from tests.graphs import Graph
from tests.known_problems import random_network


def residual() -> Network:
    graph = Graph((2, 4, 4), np.random.default_rng(0))
    graph.conv(3, (3, 3), padding=1)
    graph.norm()
    first = graph.act("relu")
    graph.conv(3, (3, 3), padding=1)
    graph.sum(first, graph.nodes[-1].name)
    graph.act("relu")
    graph.flat()
    graph.dense(4)
    return graph.network()


def test_grids_stand_where_a_quantized_graph_stores_numbers() -> None:
    network = residual()
    kinds = {n.name: type(n.op).__name__ for n in network.nodes}
    assert [kinds[name] for name in sites(network)] == [
        "Input",
        "Activation",  # behind convolution, batch norm and ReLU
        "Conv",  # one branch of the sum
        "Activation",  # behind the sum
        "Dense",
    ]


@pytest.mark.parametrize("form", ["int8", "uint8", "int4", "uint16"])
def test_scales_are_onnxruntimes(form: str) -> None:
    runtime = pytest.importorskip("onnxruntime.quantization.quant_utils")
    rng = np.random.default_rng(3)
    ranges = {f"n{i}": tuple(sorted(rng.normal(size=2) * 10.0**i)) for i in range(-3, 4)}
    grids = grids_for(ranges, form, "given")
    for name, (least, most) in ranges.items():
        op = grids.behind[name]
        zero, scale = runtime.compute_scale_zp(
            np.array(min(least, 0), dtype=np.float32),
            np.array(max(most, 0), dtype=np.float32),
            np.array(op.low, dtype=np.int32),
            np.array(op.high, dtype=np.int32),
            False,
        )
        assert op.scale == float(np.float32(scale))
        assert op.zero_point == int(zero)
        assert op.least <= 0 <= op.most


def test_calibration_is_the_range_of_the_values() -> None:
    network = residual()
    x = np.random.default_rng(1).normal(size=(300, 2, 4, 4))
    ranges = calibrated(network, x)
    assert set(ranges) == set(sites(network))
    assert ranges[network.nodes[0].name] == (x.min(), x.max())
    last = network.evaluate(x)
    assert ranges[network.nodes[-1].name] == pytest.approx((last.min(), last.max()))


def test_the_network_with_grids_is_the_network_with_rounding() -> None:
    """Against rounding by hand, layer by layer."""
    network = random_network(np.random.default_rng(0), [3, 5, 2], "relu")
    grids = grids_for(
        calibrated(network, np.random.default_rng(1).normal(size=(50, 3))), "int8", ""
    )
    quantized = grids.network(network)
    assert sum(isinstance(n.op, Quantize) for n in quantized.nodes) == 3
    x = np.random.default_rng(2).normal(size=(20, 3))
    values = {n: p.value for n, p in network.parameters.items()}

    def rounded(h: Array, op: Quantize) -> Array:
        integers = np.clip(np.rint(h / op.scale) + op.zero_point, op.low, op.high)
        return np.asarray((integers - op.zero_point) * op.scale)

    first, second, third = grids.behind.values()
    h = rounded(x, first)
    h = rounded(np.maximum(h @ values["w0"].T + values["b0"], 0), second)
    h = rounded(h @ values["w1"].T + values["b1"], third)
    assert np.allclose(quantized.evaluate(x), h, atol=1e-12)


def test_json_keeps_the_grids() -> None:
    grids = grids_for({"a": (-0.3, 1.7), "b": (0.0, 5.0)}, "uint8", "from calibration data")
    assert Grids.from_json(grids.as_json()) == grids
    for broken in ({}, {**grids.as_json(), "behind": {"a": {"scale": "x"}}}):
        with pytest.raises(InputError, match="no description of grids"):
            Grids.from_json(broken)


@pytest.mark.parametrize("form", ["float16", "int1", "int17", "fp8", "uint"])
def test_refuses_other_formats(form: str) -> None:
    with pytest.raises(InputError, match="no integer format"):
        grids_for({"a": (0.0, 1.0)}, form, "")


def test_refuses_nodes_that_are_not_there_and_endless_ranges() -> None:
    network = random_network(np.random.default_rng(0), [3, 5, 2], "relu")
    with pytest.raises(InputError, match="no node"):
        grids_for({"a": (0.0, 1.0)}, "int8", "").network(network)
    with pytest.raises(InputError, match="no finite range"):
        grids_for({"a": (0.0, np.inf)}, "int8", "")
    with pytest.raises(InputError, match="no point"):
        calibrated(network, np.zeros((0, 3)))


def test_proved_ranges_hold_all_values() -> None:
    network = residual()
    middle = np.random.default_rng(4).uniform(-1, 1, network.input_size)
    box = box_from_floats((middle - 0.1).tolist(), (middle + 0.1).tolist())
    around = Perturbation.uniform(network, Fraction("0.001"))
    output = OutputInfo("logits")
    ranges = value_ranges(UncertainNetwork(network, around), [box], output, sites(network))
    rng = np.random.default_rng(5)
    for _ in range(5):
        values = {
            n: p.value + rng.uniform(-0.001, 0.001, p.value.shape) * (not p.fixed)
            for n, p in network.parameters.items()
        }
        moved = Network(
            network.nodes,
            [type(p)(n, values[n], fixed=p.fixed) for n, p in network.parameters.items()],
        )
        x = rng.uniform(middle - 0.1, middle + 0.1, (50, network.input_size))
        for name, (low, high) in calibrated(moved, x.reshape(50, 2, 4, 4)).items():
            assert ranges[name][0] <= low
            assert high <= ranges[name][1]


@pytest.mark.parametrize("saturates", [False, True])
def test_no_rounded_execution_leaves_the_bracket(saturates: bool) -> None:
    """Also where the ranges are far too narrow: saturation is part of the network."""
    network = random_network(np.random.default_rng(6), [3, 6, 2], "relu")
    rng = np.random.default_rng(7)
    ranges = calibrated(network, rng.uniform(-1, 1, (200, 3)) * (0.3 if saturates else 1.0))
    quantized = grids_for(ranges, "int8", "").network(network)
    box = box_from_floats([-0.5] * 3, [0.5] * 3)
    output = OutputInfo("value", None)
    subject = Problem(network, UncertainNetwork(quantized, Perturbation({})), box, output)
    found = estimate(subject, "epsilon", Settings(solver="bounds", timeout=0.5))
    x = rng.uniform(-0.5, 0.5, (5000, 3))
    seen = np.abs(quantized.evaluate(x) - network.evaluate(x)).max()
    assert seen <= found.brackets["epsilon"].upper
    assert (seen > 0.05) == saturates
    here = Problem(
        network,
        UncertainNetwork(quantized, Perturbation({})),
        Point((0.1, 0.2, -0.3)),
        output,
        Property("confidence", Fraction(1)),
    )
    assert decide(here, Settings(solver="bounds")).verdict is Verdict.ROBUST

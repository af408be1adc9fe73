"""Slacks of image layers and branches decoded to parameters inside the box."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from paramrob.bounds.decode import decode
from paramrob.domain import Point
from paramrob.models.model import OutputInfo
from paramrob.models.network import Array, Elementwise, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from tests.graphs import Graph, resnet

DELTA = 0.125


def problem(network: Network, x: Array) -> Problem:
    moved = Perturbation.uniform(network, Fraction(DELTA))
    domain = Point(tuple(x.tolist()))
    return Problem(network, UncertainNetwork(network, moved), domain, OutputInfo("value", None))


def test_decoded_parameters_of_a_graph_lie_in_the_box() -> None:
    rng = np.random.default_rng(0)
    network = resnet(Graph((1, 5, 5), rng), (2, 3), 1)
    x = rng.normal(size=25)
    theta = {
        node.name: rng.choice([-1.0, 1.0, 0.3], size=int(np.prod(node.shape)))
        for node in network.nodes
        if node.name in network.layer_parameters()
    }
    chosen = decode(problem(network, x), x, theta)
    assert set(chosen) == set(network.parameters)
    for name, value in chosen.items():
        parameter = network.parameters[name]
        if parameter.fixed:
            np.testing.assert_array_equal(value, parameter.value)
        assert (np.abs(value - parameter.value) <= DELTA).all()
        assert parameter.fixed or (value != parameter.value).any()
    assert decode(problem(network, x), x, {}).keys() == network.parameters.keys()


@pytest.mark.parametrize("groups", [1, 2])
def test_a_kernel_over_everything_acts_as_its_slack(groups: int) -> None:
    rng = np.random.default_rng(1)
    graph = Graph((4, 3), rng)
    name = graph.conv(6, (3,), groups=groups)
    network, x = graph.network(), rng.normal(size=12)
    share = rng.uniform(-1, 1, size=6)
    chosen = decode(problem(network, x), x, {name: share})
    image = x.reshape(1, 4, 3)
    before, after = network.evaluate(image)[0], network.evaluate(image, chosen)[0]
    seen = np.abs(x).reshape(groups, -1).sum(axis=1).repeat(6 // groups)
    np.testing.assert_allclose((after - before).ravel(), share * DELTA * (seen + 1), rtol=1e-9)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_positions_that_agree_get_what_they_ask_for(sign: float) -> None:
    rng = np.random.default_rng(2)
    graph = Graph((2, 4, 4), rng)
    name = graph.conv(3, (2, 2), padding=1)
    network, x = graph.network(), rng.uniform(0.1, 1, size=32)
    chosen = decode(problem(network, x), x, {name: np.full(75, sign)})
    for parameter in network.parameters.values():
        moved = chosen[parameter.name] - parameter.value
        np.testing.assert_allclose(moved, sign * DELTA, rtol=1e-12)


def test_batch_norm_moves_away_from_its_mean() -> None:
    rng = np.random.default_rng(3)
    graph = Graph((3, 5), rng)
    name = graph.norm()
    network = graph.network()
    # above the mean in channel 0, below it in channel 1, at it in channel 2
    x = np.repeat(network.parameters["m1"].value + np.array([1.0, -1.0, 0.0]), 5)
    chosen = decode(problem(network, x), x, {name: np.ones(15)})
    moved = (chosen["g1"] - network.parameters["g1"].value) / DELTA
    np.testing.assert_allclose(moved, [1.0, -1.0, 0.0], atol=1e-12)


def test_an_overflow_decodes_to_finite_parameters() -> None:
    rng = np.random.default_rng(4)
    graph = Graph((2,), rng)
    graph.parameter("huge", [1e300, 1e300])
    graph.add(Elementwise("mul", "huge"))
    again = graph.add(Elementwise("mul", "huge"))
    last = graph.dense(2)
    network, x = graph.network(), np.array([1.0, -1.0])
    chosen = decode(problem(network, x), x, {again: np.ones(2), last: np.ones(2)})
    assert all(np.isfinite(value).all() for value in chosen.values())

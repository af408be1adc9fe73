"""The bound pass over graphs against plain CROWN and plain intervals, written on their own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import paramrob
from paramrob.models.network import Add, Elementwise, Network
from tests.bounds.graph.nets import (
    NETWORKS,
    RELU,
    ROOM,
    Build,
    both_signs,
    bounds,
    dense_network,
    graph_pass,
    inputs,
)
from tests.bounds.graph.plain_crown import plain_crown, plain_intervals
from tests.bounds.graph.plain_graph import plain_graph

DIGITS = Path(__file__).parents[3] / "case_studies" / "digits"


@pytest.mark.parametrize("delta", [0.0005, 0.005, 0.05])
@pytest.mark.parametrize("widths", [(4, 10, 3), (6, 12, 12, 4), (6, 9, 9, 9, 3)])
def test_no_wider_than_a_plain_crown(widths: tuple[int, ...], delta: float) -> None:
    """Narrower hidden intervals may turn a lower slope; the plain choice is tried as well."""
    network = dense_network(widths, 5)
    x = inputs(network, 8)
    low, high = bounds(graph_pass(network, Fraction(delta)), x, widths[-1], "crown")
    assert_no_wider(network, x, delta, high - low)


def assert_no_wider(network: Network, x: Tensor, delta: float, found: Tensor) -> None:
    plain = np.array([np.subtract(*plain_crown(network, p.numpy(), delta)[::-1]) for p in x])
    assert (found.numpy() <= plain * (1 + 1e-6)).all()


@pytest.mark.parametrize("delta", [0.0005, 0.05, 0.7])
@pytest.mark.parametrize("radius", [0.0, 0.02])
def test_intervals_are_products_of_intervals(delta: float, radius: float) -> None:
    """From the first ReLU on no input is negative: both ends are attained weight by weight."""
    network = dense_network((6, 9, 8, 3), 5)
    x = inputs(network, 8)
    x = x.abs() + radius if radius else x
    bound_pass = graph_pass(network, Fraction(delta))
    analysis = bound_pass.analyse(x - radius, x + radius, "ibp")
    known = analysis.intervals.known[-1]
    plain = [plain_intervals(network, p.numpy(), delta, radius) for p in x]
    for found, expected in zip((known.low, known.high), zip(*plain, strict=True), strict=True):
        np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["dense", "conv", "diagonal"])
def test_one_layer_on_inputs_of_every_sign(kind: str) -> None:
    """Exact over inputs that are not negative; never narrower than the product of intervals."""
    build = Build((2, 4, 3), 6)
    if kind == "dense":
        build.flatten()
        build.dense(4)
    elif kind == "conv":
        build.conv(3, (2, 2), padding=1)
    else:
        build.add(Elementwise("mul", build.normal(2, 4, 3)))
    network = build.network()
    low = inputs(network, 6)
    low[:2] = low[:2].abs()
    high = low + torch.from_numpy(np.random.default_rng(1).uniform(0, 0.8, size=low.shape))
    bound_pass = graph_pass(network, "0.3")
    known = bound_pass.analyse(low, high, "ibp").intervals.known[-1]
    unit = np.eye(network.input_size).reshape(-1, *network.input_shape)
    zero = network.evaluate(np.zeros((1, *network.input_shape))).reshape(-1)
    weight = network.evaluate(unit).reshape(len(unit), -1) - zero
    radius = 0.3 * (np.abs(weight) > 0)
    bias = 0.0 if kind == "diagonal" else 0.3
    for i in range(len(low)):
        ends = [h.numpy()[i][:, None] for h in (low, high)]
        corners = [w * h for w in (weight - radius, weight + radius) for h in ends]
        least = np.min(corners, axis=0).sum(0) + zero - bias
        most = np.max(corners, axis=0).sum(0) + zero + bias
        assert (known.low[i].numpy() <= least + ROOM).all()
        assert (known.high[i].numpy() >= most - ROOM).all()
        if i < 2:
            np.testing.assert_allclose(known.low[i].numpy(), least, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(known.high[i].numpy(), most, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("delta", ["0.0005", "0.001", "0.005"])
@pytest.mark.parametrize("name", ["dense", "wide"])
def test_no_wider_than_a_plain_crown_on_digits(name: str, delta: str) -> None:
    network = paramrob.load(DIGITS / f"{name}.pt2").network
    x = torch.from_numpy(np.load(DIGITS / "test.npz")["x"][50:62].reshape(12, -1)).double()
    low, high = bounds(graph_pass(network, delta), x, 10, "crown")
    assert_no_wider(network, x, float(delta), high - low)


@pytest.mark.parametrize("delta", [0.0005, 0.005, 0.05])
@pytest.mark.parametrize("name", ["conv", "residual"])
def test_no_wider_than_a_plain_crown_on_graphs(name: str, delta: float) -> None:
    network = NETWORKS[name] if name == "conv" else residual_block()
    x = inputs(network, 4)
    low, high = bounds(graph_pass(network, Fraction(delta)), x, 3, "crown")
    plain = [np.subtract(*plain_graph(network, p.numpy(), delta)[::-1]) for p in x]
    assert ((high - low).numpy() <= np.array(plain) * (1 + 1e-6)).all()


def test_no_wider_than_a_plain_crown_on_the_convolutional_network() -> None:
    network = paramrob.load(DIGITS / "conv.pt2").network
    x = torch.from_numpy(np.load(DIGITS / "test.npz")["x"][50:51].reshape(1, -1)).double()
    for delta in (0.001, 0.005):
        low, high = bounds(graph_pass(network, Fraction(str(delta))), x, 10, "crown")
        plain = np.subtract(*plain_graph(network, x[0].numpy(), delta)[::-1])
        assert ((high - low)[0].numpy() <= plain * (1 + 1e-6)).all()


def residual_block() -> Network:
    """Convolutions with batch norms, added to their input."""
    build = Build((1, 5, 4), 2)
    build.conv(3, (3, 3), padding=1, bias=False)
    build.batch_norm()
    start = build.add(RELU)
    build.conv(3, (3, 3), padding=1)
    build.batch_norm()
    build.add(Add(), build.last, start)
    build.add(RELU)
    build.flatten()
    build.dense(3)
    return build.network()


@pytest.mark.parametrize(("delta", "radius"), [(0.01, 0.0), (0.0, 0.05)])
def test_both_plain_crowns_agree(delta: float, radius: float) -> None:
    network = dense_network((4, 9, 8, 3), 3)
    for x in inputs(network, 3).numpy():
        found, expected = (plain(network, x, delta, radius) for plain in (plain_graph, plain_crown))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("delta", [0.0, 0.002])
@pytest.mark.parametrize("radius", [0.01, 0.1])
def test_a_radius_around_inputs_agrees_with_a_plain_crown(radius: float, delta: float) -> None:
    network = dense_network((6, 12, 12, 4), 5)
    x = inputs(network, 8)
    bound_pass = graph_pass(network, Fraction(delta))
    analysis = bound_pass.analyse(x - radius, x + radius, "crown")
    least = bound_pass.bound(analysis, both_signs(4, 8))
    found = (-least[:, 4:] - least[:, :4]).numpy()
    plain = np.array(
        [np.subtract(*plain_crown(network, p.numpy(), delta, radius)[::-1]) for p in x]
    )
    assert found.mean() <= plain.mean() * 1.005
    if delta == 0:
        # Slacks on inputs of either sign are cheaper here than there, so that slopes may differ.
        assert (found <= plain * (1 + 1e-6)).all()
    if radius == 0.01 and delta == 0:
        # Where few ReLUs bend other slopes tried here do no better than those tried there.
        assert np.isclose(found, plain, rtol=1e-8).mean() > 0.5


@pytest.mark.parametrize("radius", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("name", ["conv", "residual"])
def test_a_radius_around_images_is_no_wider_than_a_plain_crown(name: str, radius: float) -> None:
    network = NETWORKS[name] if name == "conv" else residual_block()
    x = inputs(network, 6)
    bound_pass = graph_pass(network, "0")
    analysis = bound_pass.analyse(x - radius, x + radius)
    least = bound_pass.bound(analysis, both_signs(3, 6))
    found = (-least[:, 3:] - least[:, :3]).numpy()
    plain = [np.subtract(*plain_graph(network, p.numpy(), 0.0, radius)[::-1]) for p in x]
    assert (found <= np.array(plain) * (1 + 1e-6)).all()

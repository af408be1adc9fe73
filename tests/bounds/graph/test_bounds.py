"""The bound pass over graphs: samples, closed forms, and a plain CROWN written on its own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import paramrob
from paramrob.bounds.graph import crown
from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.backward import Rows, pull
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.forward import Intervals
from paramrob.bounds.graph.lines import Lines
from paramrob.bounds.graph.program import lower
from paramrob.bounds.graph.sharpen import sharpened
from paramrob.engine import METHODS, Method
from paramrob.errors import SoundnessError
from paramrob.models.model import OutputInfo
from paramrob.models.network import Add, Elementwise, Network
from paramrob.perturbation import Perturbation
from tests.bounds.graph.nets import (
    NETWORKS,
    RELU,
    Build,
    both_signs,
    dense_network,
    graph_pass,
    inputs,
    members,
)
from tests.bounds.graph.plain_crown import plain_crown, plain_intervals
from tests.bounds.graph.plain_graph import plain_graph

DIGITS = Path(__file__).parents[3] / "case_studies" / "digits"
ROOM = 1e-9
"""What float64 may be off by in a sampled value of these small networks."""


def bounds(bound_pass: GraphPass, x: Tensor, outputs: int, method: Method) -> tuple[Tensor, Tensor]:
    analysis = bound_pass.analyse(x, x, method)
    rows = both_signs(outputs, x.shape[0])
    least = bound_pass.bound(analysis, rows, method)
    if method == "alpha":
        analysis = sharpened(bound_pass, analysis)
        least = torch.maximum(least, optimised(analysis, rows, 10))
    return least[:, :outputs], -least[:, outputs:]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("delta", ["0", "0.001", "0.03", "0.3"])
@pytest.mark.parametrize("name", NETWORKS)
def test_samples_stay_inside(name: str, delta: str, method: Method) -> None:
    network = NETWORKS[name]
    x = inputs(network, 4)
    low, high = bounds(graph_pass(network, delta), x, network.output_size, method)
    shaped = x.numpy().reshape(-1, *network.input_shape)
    for chosen in members(network, float(delta), 60):
        seen = torch.from_numpy(network.evaluate(shaped, chosen)).reshape(4, -1)
        assert bool((seen >= low - ROOM).all())
        assert bool((seen <= high + ROOM).all())
    if delta == "0":
        assert float((high - low).max()) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_each_method_is_the_finer(name: str) -> None:
    network = NETWORKS[name]
    x = inputs(network, 6)
    bound_pass = graph_pass(network, "0.01")
    widths = {}
    for method in METHODS:
        low, high = bounds(bound_pass, x, network.output_size, method)
        widths[method] = high - low
    assert bool((widths["crown-ibp"] <= widths["ibp"] * (1 + 1e-6)).all())
    assert float(widths["crown"].mean()) <= float(widths["crown-ibp"].mean()) * (1 + 1e-9)
    assert bool((widths["alpha"] <= widths["crown"]).all())


@pytest.mark.parametrize("budget", [1, 500, 20_000])
@pytest.mark.parametrize("name", NETWORKS)
def test_little_memory_changes_nothing(name: str, budget: int) -> None:
    network = NETWORKS[name]
    x = inputs(network, 3)
    found = bounds(graph_pass(network, "0.01", budget), x, network.output_size, "crown")
    expected = bounds(graph_pass(network, "0.01"), x, network.output_size, "crown")
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_of_inputs(name: str) -> None:
    network = NETWORKS[name]
    x = inputs(network, 3)
    bound_pass = graph_pass(network, "0.01")
    analysis = bound_pass.analyse(x - 0.05, x + 0.05, "crown")
    least = bound_pass.bound(analysis, both_signs(network.output_size, 3))
    rng = np.random.default_rng(0)
    for chosen in members(network, 0.01, 60):
        moved = x.numpy() + 0.05 * rng.choice([-1.0, 1.0, 0.3], size=x.shape)
        seen = network.evaluate(moved.reshape(-1, *network.input_shape), chosen).reshape(3, -1)
        both = torch.from_numpy(np.concatenate([seen, -seen], axis=1))
        assert bool((both >= least - ROOM).all())


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


@pytest.mark.parametrize(("name", "gain"), [("dense", 0.99), ("wide", 0.96)])
def test_optimised_slopes_gain_on_chosen_ones(name: str, gain: float) -> None:
    network = paramrob.load(DIGITS / f"{name}.pt2").network
    x = torch.from_numpy(np.load(DIGITS / "test.npz")["x"][3:5].reshape(2, -1)).double()
    widths = {}
    methods: tuple[Method, ...] = ("crown", "alpha")
    for method in methods:
        low, high = bounds(graph_pass(network, "0.005"), x, 10, method)
        widths[method] = high - low
    assert bool((widths["alpha"] <= widths["crown"]).all())
    assert float((widths["alpha"] / widths["crown"]).mean()) < gain


@pytest.mark.parametrize("name", [*NETWORKS, "deep"])
def test_sharpened_intervals_lie_within_the_others_and_hold_samples(name: str) -> None:
    network = dense_network((5, 8, 8, 7, 3)) if name == "deep" else NETWORKS[name]
    x = inputs(network, 3)
    bound_pass = graph_pass(network, "0.05")
    analysis = bound_pass.analyse(x, x)
    fine = sharpened(bound_pass, analysis)
    narrower = 0
    for k, (a, b) in enumerate(zip(fine.intervals.known, analysis.intervals.known, strict=True)):
        assert bool(((a.low >= b.low) & (a.high <= b.high)).all())
        narrower += k in bound_pass.read and bool((a.low > b.low).any())
    assert narrower or name != "deep"
    rows = both_signs(network.output_size, 3)
    enough = bound_pass.bound(analysis, rows) + 1e-3
    best, early = (optimised(fine, rows, 10, aim) for aim in (None, enough))
    done = (best > enough).all(1)
    assert bool((early[done] > enough[done]).all())
    shaped = x.numpy().reshape(-1, *network.input_shape)
    for chosen in members(network, 0.05, 60):
        seen = torch.from_numpy(network.evaluate(shaped, chosen)).reshape(3, -1)
        assert bool((torch.cat([seen, -seen], 1) >= best - ROOM).all())


def test_one_hidden_layer_is_exact_at_a_point() -> None:
    """Rows are independent and h is not negative: each logit's worst case is a vertex."""
    network = dense_network((3, 6, 2), 8)
    x, delta = inputs(network, 5), 0.02
    low, _ = bounds(graph_pass(network, "0.02"), x, 2, "crown")
    w0, b0, w1, b1 = (network.parameters[f"p{i}"].value for i in range(4))
    z, moved = x.numpy() @ w0.T + b0, delta * (np.abs(x.numpy()).sum(1, keepdims=True) + 1)
    least, most = np.maximum(z - moved, 0), np.maximum(z + moved, 0)
    down = w1 - delta
    worst = least @ np.maximum(down, 0).T + most @ np.minimum(down, 0).T + b1 - delta
    np.testing.assert_allclose(low.numpy(), worst, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("where", ["conv", "positions", "batch norm"])
def test_a_shared_parameter_moves_once(where: str) -> None:
    """The network is linear in the one layer's parameters: the worst case is in closed form."""
    build = Build((2, 4, 3), 6)
    if where == "conv":
        build.conv(3, (2, 2), padding=1)
    elif where == "positions":
        build.dense(4)
    else:
        build.batch_norm()
    moving = build.nodes[-1].name
    build.flatten()
    build.dense(2)
    network = build.network()
    box = Perturbation.uniform(network, Fraction("0.1"), leave_out=[build.nodes[-1].name])
    assert network.layer_parameters().keys() == {moving, build.nodes[-1].name}
    bound_pass = GraphPass(lower(network, box, OutputInfo("value", None)))
    x = inputs(network, 3)
    low, high = bounds(bound_pass, x, 2, "crown")
    shaped = x.numpy().reshape(-1, *network.input_shape)
    centre = network.evaluate(shaped)
    reach = np.zeros_like(centre)
    for name in network.layer_parameters()[moving]:
        value = network.parameters[name].value
        for index in np.ndindex(value.shape):
            moved = value.copy()
            moved[index] += 0.1
            reach += np.abs(network.evaluate(shaped, {name: moved}) - centre)
    np.testing.assert_allclose(low.numpy(), centre - reach, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(high.numpy(), centre + reach, rtol=1e-9, atol=1e-9)


def test_boxes_that_differ_from_parameter_to_parameter() -> None:
    network = NETWORKS["conv"]
    names = list(network.parameters)
    sizes = {name: Fraction(i + 1, 500) for i, name in enumerate(names)}
    relative = {name: Fraction(1, 50) for name in names[::2]}
    box = Perturbation(sizes, relative)
    bound_pass = GraphPass(lower(network, box, OutputInfo("value", None)))
    x = inputs(network, 3)
    low, high = bounds(bound_pass, x, network.output_size, "crown")
    rng = np.random.default_rng(3)
    shaped = x.numpy().reshape(-1, *network.input_shape)
    for _ in range(60):
        chosen = {}
        for name, parameter in network.parameters.items():
            ends = box.interval(parameter).inner()
            share = rng.choice([0.0, 1.0, rng.uniform()], size=parameter.value.shape)
            chosen[name] = ends[0] + share * (ends[1] - ends[0])
        seen = torch.from_numpy(network.evaluate(shaped, chosen)).reshape(3, -1)
        assert bool(((seen >= low - ROOM) & (seen <= high + ROOM)).all())


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


@pytest.mark.parametrize(("end", "raises"), [(1e3, True), (float("nan"), False)])
def test_ends_that_cross_are_an_error(
    end: float, raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hidden bound that says more than the interval contradicts it; NaN says nothing."""
    network = NETWORKS["dense"]
    x = inputs(network, 3)

    def absurd(intervals: Intervals, chosen: dict[int, Lines], rows: Rows) -> Tensor:
        return torch.full_like(pull(intervals, chosen, rows), end)

    monkeypatch.setattr(crown, "pull", absurd)
    bound_pass = graph_pass(network, "0.03")
    if raises:
        with pytest.raises(SoundnessError, match="cross"):
            bound_pass.analyse(x, x)
    else:
        bound_pass.analyse(x, x)

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
from paramrob.perturbation import Perturbation
from tests.bounds.graph.nets import (
    NETWORKS,
    ROOM,
    Build,
    both_signs,
    bounds,
    dense_network,
    graph_pass,
    inputs,
    members,
)

DIGITS = Path(__file__).parents[3] / "case_studies" / "digits"


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


def test_a_search_that_is_out_of_time_changes_nothing() -> None:
    network = dense_network((5, 8, 8, 7, 3))
    x = inputs(network, 3)
    bound_pass = graph_pass(network, "0.05")
    analysis = bound_pass.analyse(x, x)
    late = sharpened(bound_pass, analysis, deadline=0.0)
    for a, b in zip(late.intervals.known, analysis.intervals.known, strict=True):
        assert torch.equal(a.low, b.low)
        assert torch.equal(a.high, b.high)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_part_of_an_analysis_says_the_same(name: str) -> None:
    network = NETWORKS[name]
    x = inputs(network, 5)
    bound_pass = graph_pass(network, "0.03")
    analysis = bound_pass.analyse(x, x)
    rows = both_signs(network.output_size, 5)
    some = torch.tensor([3, 0])
    part = analysis.part(some)
    assert len(part.choices) == len(analysis.choices)
    found = bound_pass.bound(part, rows[some])
    torch.testing.assert_close(found, bound_pass.bound(analysis, rows)[some], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_out_of_time_intervals_have_to_do(name: str) -> None:
    network = NETWORKS[name]
    x = inputs(network, 3)
    bound_pass = graph_pass(network, "0.01")
    rows = both_signs(network.output_size, 3)
    late = bound_pass.analyse(x, x, deadline=0.0)
    plain = bound_pass.analyse(x, x, "ibp")
    for a, b in zip(late.intervals.known, plain.intervals.known, strict=True):
        assert torch.equal(a.low, b.low)
        assert torch.equal(a.high, b.high)
    expected = bound_pass.bound(plain, rows, "ibp")
    assert torch.equal(bound_pass.bound(late, rows, deadline=0.0), expected)
    assert bool((bound_pass.bound(late, rows) >= expected).all())

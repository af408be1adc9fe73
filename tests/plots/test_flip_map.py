"""Regions against closed forms, exact ranges at sampled inputs, and sampled parameters."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from paramrob.models.network import Array
from paramrob.perturbation import Perturbation
from paramrob.plots.flip_map import FlipMap, State, flip_map
from paramrob.plots.ground import Ground
from tests.known_problems import box, layered, problem, random_network, sample_parameters, unit_box
from tests.plots.pictures import case_ground, ground_of, later

SAMPLES = 100_000


def states_at(found: FlipMap, points: Array) -> tuple[Array, Array]:
    """Return the state and label of the cell that holds each point."""
    state, label = np.full(len(points), -1.0), np.full(len(points), -1.0)
    order = np.argsort(points[:, 0])
    x = points[order, 0]
    for low, high, s, k in zip(found.lower, found.upper, found.state, found.label, strict=True):
        a, b = np.searchsorted(x, [low[0], high[0]], side="left")
        rows = order[a:b]
        inside = rows[(points[rows, 1] >= low[1]) & (points[rows, 1] < high[1])]
        assert (state[inside] == -1).all(), "two cells overlap"
        state[inside], label[inside] = s, k
    return state, label


def sampled(ground: Ground, seed: int = 0) -> Array:
    low, high = ground.lower[ground.axes].numpy(), ground.upper[ground.axes].numpy()
    points = np.random.default_rng(seed).uniform(low, high, (SAMPLES, 2))
    return np.asarray(points)


def reach(ground: Ground, points: Array) -> tuple[Array, Array, Array]:
    """Return least, nominal and largest logit behind at most one hidden layer, in float64."""
    delta = 0.005
    low = middle = high = points
    layers = ground.chain.layers
    for k, layer in enumerate(layers):
        w, b = layer.weight.numpy(), layer.bias.numpy()
        middle = middle @ w.T + b
        ends = np.stack([low[:, None] * v for v in (w - delta, w + delta)])
        tops = np.stack([high[:, None] * v for v in (w - delta, w + delta)])
        both = np.concatenate([ends, tops])
        low, high = both.min(axis=0).sum(-1) + b - delta, both.max(axis=0).sum(-1) + b + delta
        if k < len(ground.chain.activations) and ground.chain.activations[k].kind == "relu":
            low, middle, high = (np.maximum(t, 0) for t in (low, middle, high))
    return low[:, 0], middle[:, 0], high[:, 0]


@pytest.mark.parametrize("name", ["cats/model.pt", "athletes/relu.pt", "athletes/linear.pt"])
def test_no_sample_contradicts_the_case_studies_regions(name: str) -> None:
    ground = case_ground(name, "0.005")
    found = flip_map(ground, 0.01, later())
    assert found.share(State.OPEN) <= 0.01
    assert sum(found.share(state) for state in State) == pytest.approx(1)
    points = sampled(ground)
    state, label = states_at(found, points)
    assert (state >= 0).all(), "a point lies in no cell"
    low, middle, high = reach(ground, points)
    sure = np.minimum(np.abs(low), np.abs(high)) > 1e-9
    flips = ((middle <= 0) & (high > 0)) | ((middle > 0) & (low <= 0))
    assert flips[sure & (state == State.FLIPPABLE)].all()
    assert not flips[sure & (state == State.STABLE)].any()
    stable = sure & (state == State.STABLE)
    assert ((middle > 0) == (label == 1))[stable].all()
    assert flips.mean() == pytest.approx(found.share(State.FLIPPABLE), abs=0.015)


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_sampled_parameters_never_flip_what_is_stable(kind: str) -> None:
    rng = np.random.default_rng(1)
    network = random_network(rng, [2, 6, 6, 1], kind)
    subject = problem(network, unit_box(2), "0.05", level=Fraction("0.6"))
    ground = ground_of(subject)
    found = flip_map(ground, 0.1, later())
    assert found.share(State.STABLE) > 0.1
    points = sampled(ground)
    state, _ = states_at(found, points)
    level = np.log(0.6 / 0.4)
    before = network.evaluate(points)[:, 0] > level
    stable, flipped = state == State.STABLE, np.zeros(SAMPLES, dtype=bool)
    for _ in range(40):
        values = sample_parameters(rng, subject)
        changed = (network.evaluate(points, values)[:, 0] > level) != before
        assert not changed[stable].any()
        flipped |= changed
    # What samples flip is not all that flips, but most of it.
    assert flipped.mean() <= 1 - found.share(State.STABLE)
    assert found.share(State.FLIPPABLE) >= flipped.mean() - found.share(State.OPEN) - 0.005


def test_three_classes_have_a_closed_form() -> None:
    weight = np.array([[1.0, 0.2], [-0.6, 0.9], [-0.3, -1.1]])
    bias = np.array([0.1, 0.0, -0.05])
    network = layered([weight], [bias], [])
    ground = ground_of(problem(network, unit_box(2), "0.04", "logits", None))
    found = flip_map(ground, 0.02, later())
    assert found.share(State.OPEN) <= 0.02
    points = sampled(ground)
    state, label = states_at(found, points)
    logits = points @ weight.T + bias
    order = np.sort(logits, axis=1)
    # Two rows move apart by delta (1 + |x| + |y|) each.
    room = order[:, 2] - order[:, 1] - 2 * 0.04 * (1 + np.abs(points).sum(axis=1))
    assert (room[state == State.FLIPPABLE] < 1e-9).all()
    assert (room[state == State.STABLE] > -1e-9).all()
    stable = state == State.STABLE
    assert (logits.argmax(axis=1) == label)[stable].all()
    assert found.share(State.FLIPPABLE) == pytest.approx((room < 0).mean(), abs=0.025)


def test_flips_that_go_one_way_only_end_at_the_trained_boundary() -> None:
    # The second neuron is off as trained and adds up to 5 * 0.1 where its bias alone moves.
    network = layered(
        [np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 5.0]])],
        [np.array([0.0, -0.1]), np.array([-1.0])],
        ["relu"],
    )
    moved = Perturbation({}, {"b0": Fraction(2)})
    ground = ground_of(problem(network, box((0, "2.1"), (0, 1)), moved))
    found = flip_map(ground, 0.02, later())
    points = sampled(ground)
    state, _ = states_at(found, points)
    flips = (points[:, 0] > 0.5) & (points[:, 0] <= 1)
    assert flips[state == State.FLIPPABLE].all()
    assert not flips[state == State.STABLE].any()
    assert found.share(State.FLIPPABLE) == pytest.approx(0.5 / 2.1, abs=0.02)


def test_free_inputs_flip_for_some_and_are_stable_for_all() -> None:
    weight = np.array([[1.0, -0.7, 0.5]])
    network = layered([weight], [np.array([0.1])], [])
    ground = ground_of(problem(network, unit_box(3), "0.02"), x="x0", y="x1")
    found = flip_map(ground, 0.05, later())
    assert found.share(State.OPEN) <= 0.05
    points = sampled(ground)[:5000]
    state, _ = states_at(found, points)
    free = np.linspace(-1, 1, 401)
    value = (points @ weight[0, :2])[:, None] + 0.5 * free + 0.1
    slack = np.abs(points).sum(axis=1)[:, None] + np.abs(free) + 1
    room = (np.abs(value) - 0.02 * slack).min(axis=1)
    assert (room[state == State.STABLE] > -1e-9).all()
    # The grid over the free input misses at most half a step's worth.
    assert (room[state == State.FLIPPABLE] < 0.5 * 0.0025 + 1e-9).all()


def test_a_fixed_input_is_a_slice() -> None:
    network = layered([np.array([[1.0, 1.0, 1.0]])], [np.zeros(1)], [])
    ground = ground_of(problem(network, unit_box(3), "0.01"), fix={"x2": "0.1"})
    found = flip_map(ground, 0.02, later())
    points = sampled(ground)
    state, _ = states_at(found, points)
    room = np.abs(points.sum(axis=1) + 0.1) - 0.01 * (1.1 + np.abs(points).sum(axis=1))
    assert (room[state == State.STABLE] > -1e-9).all()
    assert (room[state == State.FLIPPABLE] < 1e-9).all()


@pytest.mark.parametrize(("bias", "delta"), [(5.0, "0.1"), (0.0, "0")])
def test_where_nothing_flips_everything_is_stable(bias: float, delta: str) -> None:
    network = layered([np.array([[1.0, 1.0]])], [np.array([bias])], [])
    found = flip_map(ground_of(problem(network, box((0, 1), (0, 1)), delta)), 0.01, later())
    assert found.share(State.STABLE) == 1
    assert found.is_closed


def test_without_time_all_is_open_and_nothing_wrong() -> None:
    found = flip_map(case_ground("cats/model.pt", "0.005"), 0.01, time.monotonic() - 1)
    assert found.share(State.OPEN) == 1
    assert not found.is_closed


def test_a_larger_box_of_parameters_flips_no_less() -> None:
    small, large = (
        flip_map(case_ground("cats/model.pt", d), 0.01, later()) for d in ("0.002", "0.01")
    )
    points = sampled(case_ground("cats/model.pt", "0.01"))
    first, second = states_at(small, points)[0], states_at(large, points)[0]
    assert not ((first == State.FLIPPABLE) & (second == State.STABLE)).any()
    assert small.share(State.FLIPPABLE) < large.share(State.FLIPPABLE)

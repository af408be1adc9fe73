"""Networks on which float64 loses everything: a bound may be useless, never wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paramrob.domain import Point
from paramrob.engine import Settings, decide, estimate
from paramrob.models.model import OutputKind
from paramrob.models.network import Array, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.replay import refutes, replay
from paramrob.verdict import Verdict
from tests.known_problems import (
    HALF,
    box,
    layered,
    problem,
    random_network,
    sample_inputs,
    sample_parameters,
    unit_box,
)

QUICK = Settings(timeout=0.01, tolerance=1e-6)
MAGNITUDES = [0.0, 5e-324, 1e-310, 1e-160, 1e-30, 1e-8, 1.0, 1e8, 1e30, 1e150, 1e160, 1e307]


def assert_nothing_contradicts(subject: Problem, samples: int = 8) -> None:
    """Hold both estimates, and decisions just beside what was replayed, to exact samples."""
    rng = np.random.default_rng(0)
    epsilon = estimate(subject, "epsilon", QUICK).brackets["epsilon"]
    sigma = estimate(subject, "sigma", QUICK).brackets
    assert not math.isnan(epsilon.upper)
    largest, flipped = epsilon.lower, None
    for x in sample_inputs(rng, subject, samples):
        seen = replay(subject, x, sample_parameters(rng, subject))
        assert seen.change is not None
        assert seen.change.lower <= epsilon.upper
        largest = max(largest, seen.change.lower)
        first, second = seen.labels
        if None not in (first, second) and first != second and first is not None:
            assert seen.margin is not None
            side = sigma[("sigma_below", "sigma_above")[first]]
            assert seen.margin.lower <= side.upper
            flipped = seen
    if 0 < largest < math.inf:
        below = math.nextafter(largest, 0.0)
        asked = with_property(subject, Property("confidence", epsilon=Fraction(below)))
        assert decide(asked, QUICK).verdict is not Verdict.ROBUST
    if flipped is not None and flipped.margin is not None:
        margin = Property("margin", sigma=Fraction(flipped.margin.lower))
        for asked in (with_property(subject, Property("labels")), with_property(subject, margin)):
            assert refutes(asked, flipped)
            assert decide(asked, QUICK).verdict is not Verdict.ROBUST


def with_property(subject: Problem, asked: Property) -> Problem:
    moved, output = subject.uncertain, subject.output
    return Problem(subject.reference, moved, subject.domain, output, asked)


def chain(weights: Sequence[Array], kind: str = "relu", bias: float = 0.0) -> Network:
    return layered(weights, [np.full(len(w), bias) for w in weights], [kind] * (len(weights) - 1))


@pytest.mark.parametrize("kind", ["identity", "relu", "tanh"])
@pytest.mark.parametrize("size", [1e6, 1e12, 1e16, 1e20])
def test_large_weights_that_cancel(kind: str, size: float) -> None:
    weights = [np.array([[1.0], [1.0], [1.0]]), np.array([[size, -size, 1e-3]])]
    outputs: tuple[OutputKind, ...] = ("logit", "value")
    for delta in ("1e-20", "1e-6"):
        for output in outputs:
            subject = problem(chain(weights, kind), unit_box(1), delta, output)
            assert_nothing_contradicts(subject)


def test_a_sum_that_is_zero_only_in_exact_arithmetic() -> None:
    # 1e16 + 1 - 1e16 is 0 or 1 in float64, by the order of the sum.
    network = chain([np.ones((3, 1)), np.array([[1e16, 1.0, -1e16]])])
    moved = Perturbation({"b1": Fraction(1, 10)})
    subject = problem(network, Point((1.0,)), moved, "value", Fraction("1.05"))
    assert_nothing_contradicts(subject)
    asked = with_property(subject, Property("labels"))
    assert decide(asked, QUICK).verdict is not Verdict.ROBUST


@pytest.mark.parametrize("size", [5e-324, 1e-160, 1e150, 1e300])
@pytest.mark.parametrize("kind", ["identity", "relu", "sigmoid", "tanh"])
def test_weights_inputs_and_boxes_of_extreme_size(kind: str, size: float) -> None:
    one = np.ones((1, 1))
    for scales in ((size, 1.0), (1.0, size), (size, min(1 / size, 1e308))):
        network = chain([one * scales[0], one * scales[1]], kind, 0.1)
        for moved in (Perturbation.uniform(network, Fraction(size)), Perturbation({"b1": HALF})):
            assert_nothing_contradicts(problem(network, box((-size, size)), moved, "value"), 3)


def test_underflow_in_one_layer_that_the_next_undoes() -> None:
    weights = [np.array([[1e-200]]), np.array([[1e-200]]), np.array([[1e200]]), np.array([[1e200]])]
    network = chain(weights, "identity")
    moved = Perturbation({"b3": Fraction("0.01")})
    assert_nothing_contradicts(problem(network, box((-1, 1)), moved, "value", Fraction(1, 4)))


def test_overflow_gives_no_bound_and_no_proof() -> None:
    network = chain([np.array([[1e200]]), np.array([[1e200]])])
    subject = problem(network, box((0, 1)), "0.1", "value", asked=Property("labels"))
    assert decide(subject, QUICK).verdict is not Verdict.ROBUST
    assert estimate(subject, "epsilon", QUICK).brackets["epsilon"].upper == math.inf
    logit = problem(
        network, box((0, 1)), "0.1", asked=Property("confidence", epsilon=Fraction(1, 10))
    )
    assert decide(logit, QUICK).verdict is not Verdict.ROBUST
    assert estimate(logit, "epsilon", QUICK).brackets["epsilon"].upper == 1.0


def test_weights_that_span_sixty_decades() -> None:
    rng = np.random.default_rng(3)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weights = [
            10.0 ** rng.uniform(-30, 30, s) * rng.choice([-1, 1], s) for s in [(4, 2), (1, 4)]
        ]
        for delta in ("1e-25", "0.001", "1e10"):
            assert_nothing_contradicts(problem(chain(weights), unit_box(2), delta, "value"))


def test_sums_of_ten_thousand_terms() -> None:
    rng = np.random.default_rng(4)
    weights = [rng.normal(size=(10_000, 1)) * 1e3, rng.normal(size=(1, 10_000)) * 1e3]
    weights[1] -= weights[1].mean()
    network = chain(weights, "identity")
    products = zip(weights[0][:, 0].tolist(), weights[1][0].tolist(), strict=True)
    exact = sum((Fraction(a) * Fraction(b) for a, b in products), Fraction(0))
    subject = problem(
        network, Point((1.0,)), Perturbation({"b1": Fraction("1e-9")}), "value", exact
    )
    asked = with_property(subject, Property("labels"))
    # f0 equals the level: class 0, and class 1 for any larger bias
    assert decide(asked, QUICK).verdict is not Verdict.ROBUST


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.integers(0, 10**6), st.sampled_from(["identity", "relu", "leaky_relu", "sigmoid", "tanh"])
)
def test_random_networks_of_wild_magnitudes(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    widths = [1, int(rng.integers(1, 4)), 1]
    size = [rng.choice(MAGNITUDES), rng.choice(MAGNITUDES)]
    network = random_network(rng, widths, kind)
    values = {
        n: np.clip(p.value * size[n.endswith("1")], -1e308, 1e308)
        for n, p in network.parameters.items()
    }
    network = layered([values["w0"], values["w1"]], [values["b0"], values["b1"]], [kind])
    half = float(rng.choice(MAGNITUDES[1:-1]))
    delta = Fraction(float(rng.choice(MAGNITUDES[1:-1])))
    output: OutputKind = "logit" if rng.uniform() < 0.5 else "value"
    assert_nothing_contradicts(problem(network, unit_box(1, half), delta, output), 4)


def test_a_flip_counts_on_the_side_where_exact_replay_finds_it() -> None:
    # float64 takes the reference for far above the level; it is exactly 0, far below.
    weights = [
        np.array([[3.0], [-2.0], [0.1]]),
        np.array([[1.6e-9, -1.5e-8, -5e-9], [-4e-9, -5.5e-9, -3e-9], [-1e-8, -7e-9, -8e-10]]),
        np.array([[-3e15, 8e15, 2e15]]),
    ]
    biases = [np.array([7e157, 2e159, -1.5e159]), np.full(3, 1e-31), np.array([-3e-31])]
    network = layered(weights, biases, ["relu", "relu"])
    subject = problem(network, unit_box(1, 1e-300), "1e8", "logit", Fraction("0.999"))
    sigma = estimate(subject, "sigma", QUICK).brackets
    for name, labels in (("sigma_above", (1, 0)), ("sigma_below", (0, 1))):
        witness = sigma[name].witness
        assert witness is None or witness.labels == labels

"""Graphs executed exactly: images, branches and curves against fractions and long decimals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.domain import Point
from paramrob.errors import ReplayError
from paramrob.models.model import OutputInfo
from paramrob.models.network import (
    Activation,
    ActivationKind,
    AdaptivePool,
    Array,
    Concat,
    Conv,
    Elementwise,
    Network,
    Pool,
    Softmax,
    Transpose,
)
from paramrob.models.ops import PoolKind
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import evaluate_exact, refutes, replay
from paramrob.replay_network import ExactRun
from tests.graphs import Graph, resnet
from tests.naive_graphs import closely, exactly, naive, smooth

RATIONAL: list[ActivationKind] = ["relu", "leaky_relu", "clamp", "hardsigmoid", "hardswish"]
SMOOTH: list[ActivationKind] = [
    "sigmoid", "tanh", "softplus", "elu", "silu", "gelu", "gelu_tanh"
]  # fmt: skip
DIGITS = 120


def activation(kind: ActivationKind) -> Activation:
    return Activation(kind, slope=0.3, low=-0.7, high=1.3, alpha=0.8, beta=1.7)


def as_fraction(number: Any) -> Fraction:
    assert isinstance(number, flint.fmpq)
    return Fraction(int(number.p), int(number.q))


def long_decimal(point: Any) -> Any:
    """Return an exact arb as an mpmath number."""
    mantissa, exponent = point.man_exp()
    return mpmath.ldexp(mpmath.mpf(int(mantissa)), int(exponent))


def assert_encloses(ball: Any, truth: Any) -> None:
    """Check that a ball holds a number known to 120 digits, and is narrow."""
    assert isinstance(ball, flint.arb)
    centre, radius = long_decimal(ball.mid()), long_decimal(ball.rad())
    slack = (1 + abs(truth)) * mpmath.mpf(10) ** (5 - DIGITS)
    assert abs(centre - truth) <= radius + slack
    assert radius <= (abs(truth) + mpmath.mpf(10) ** -30) * 2.0**-60


def assert_same(network: Network, x: Array) -> None:
    """Compare exact execution with the naive one, and with float64."""
    found = evaluate_exact(network, x)
    floats = network.evaluate(x.reshape(1, *network.input_shape)).ravel()
    if all(isinstance(y, flint.fmpq) for y in found):
        assert [as_fraction(y) for y in found] == naive(network, x, exactly)
        rounded = [float(as_fraction(y)) for y in found]
    else:
        with mpmath.workdps(DIGITS):
            for ball, truth in zip(found, naive(network, x, closely), strict=True):
                assert_encloses(ball, truth)
        rounded = [float(y.mid()) for y in found]
    np.testing.assert_allclose(floats, rounded, rtol=1e-9, atol=1e-9)


def is_exact(network: Network, x: Array) -> bool:
    return all(isinstance(y, flint.fmpq) for y in evaluate_exact(network, x))


@st.composite
def windows(draw: st.DrawFn, axes: int) -> tuple[Any, ...]:
    """A kernel, stride, padding and dilation that fit an axis of 5 or more."""
    each = [draw(st.tuples(*(st.integers(1, 2) for _ in range(3)))) for _ in range(axes)]
    pads = [(draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k, _, _ in each]
    kernel, stride, dilation = (tuple(e[i] for e in each) for i in range(3))
    return kernel, stride, tuple(pads), dilation


@st.composite
def images(draw: st.DrawFn, kinds: list[ActivationKind]) -> tuple[Network, Array]:
    """A small image network: convolution, branches, pool, dense layer."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    size = tuple(draw(st.integers(5, 6)) for _ in range(axes))
    graph = Graph((2, *size), rng, draw(st.sampled_from([np.float64, np.float32])))
    kernel, stride, padding, dilation = draw(windows(axes))
    weight = graph.normal("k", 4, 2 // groups, *kernel)
    bias = graph.normal("kb", 4) if draw(st.booleans()) else None
    graph.add(Conv(weight, bias, stride, padding, dilation, groups))
    first = graph.add(activation(draw(st.sampled_from(kinds))))
    second = graph.conv(4, (1,) * axes, first, groups=draw(st.sampled_from([1, 2, 4])))
    if draw(st.booleans()):
        # 2.25 and 0.25 are squares of rationals, so that the root stays rational
        graph.norm(second, variance=[2.25, 0.25, 2.25, 6.25], eps=0.0)
    second = graph.add(activation(draw(st.sampled_from(kinds))))
    joined = draw(st.sampled_from(["sum", "concat", "turned"]))
    if joined == "sum":
        graph.sum(first, second, first)
    elif joined == "concat":
        graph.add(Concat(draw(st.integers(0, axes))), second, first)
    else:
        graph.add(Transpose((0, *range(axes, 0, -1))), second)
    before = graph.nodes[-1].shape
    pool: PoolKind = draw(st.sampled_from(["average", "max"]))
    if draw(st.booleans()):
        target = tuple(draw(st.integers(1, n)) for n in before[1:])
        graph.add(AdaptivePool(pool), shape=(before[0], *target))
    else:
        kernel = tuple(min(n, 2) for n in before[1:])
        pads = tuple((k - 1, 0) for k in kernel)
        op = Pool(pool, kernel, (1,) * axes, pads, (1,) * axes, draw(st.booleans()))
        graph.add(op)
    graph.parameter("third", [3.0])
    graph.add(Elementwise("div", "third"))
    graph.flat()
    graph.dense(3)
    return graph.network(), rng.normal(size=graph.nodes[0].shape)


@given(case=images(RATIONAL))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_rational_image_networks_are_exact(case: tuple[Network, Array]) -> None:
    assert is_exact(*case)
    assert_same(*case)


@given(case=images([*SMOOTH, "relu", "hardswish"]))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_smooth_image_networks_are_enclosed(case: tuple[Network, Array]) -> None:
    assert_same(*case)


@pytest.mark.parametrize("kind", ["relu", "silu", "hardswish"])
def test_residual_networks_with_batch_norm(kind: ActivationKind) -> None:
    rng = np.random.default_rng(4)
    network = resnet(Graph((1, 5, 5), rng), (2, 3), 1, kind)
    x = rng.normal(size=25)
    assert not is_exact(network, x)
    assert_same(network, x)


def test_batch_norm_of_a_square_stays_rational() -> None:
    rng = np.random.default_rng(0)
    graph = Graph((3, 2), rng)
    graph.norm(variance=[0.0, 2.0, 1.5], eps=0.25)  # 7/4 has no rational root
    with_root = graph.network()
    assert not is_exact(with_root, np.ones(6))
    graph = Graph((3, 2), rng)
    graph.norm(variance=[0.0, 2.0, 12.0], eps=0.25)
    squares = graph.network()
    assert is_exact(squares, np.ones(6))
    assert_same(squares, rng.normal(size=6))


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("z", [0.0, -1e-300, 1e-9, -0.5, 0.7, -3.0, 9.5, -37.5, 41.0, -700.0, 2e3])
def test_curves_against_long_decimals(kind: ActivationKind, z: float) -> None:
    graph = Graph((1,), np.random.default_rng(0))
    graph.add(activation(kind))
    (ball,) = evaluate_exact(graph.network(), np.array([z]))
    with mpmath.workdps(DIGITS):
        truth = z if kind == "elu" and z > 0 else smooth(activation(kind), mpmath.mpf(z))
        assert abs(long_decimal(ball.mid()) - truth) <= long_decimal(ball.rad())
        assert long_decimal(ball.rad()) <= abs(truth) * mpmath.mpf(2) ** -70


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("size", [1e5, 1e18, 1e155, 1e308])
def test_curves_far_out(kind: ActivationKind, size: float) -> None:
    graph = Graph((1,), np.random.default_rng(0))
    graph.add(activation(kind))
    for z in (size, -size):
        (ball,) = evaluate_exact(graph.network(), np.array([z]))
        right = {"sigmoid": 1.0, "tanh": 1.0}.get(kind, z)
        left = {"tanh": -1.0, "elu": -0.8}.get(kind, 0.0)
        limit = flint.arb(right if z > 0 else left)
        assert ball.overlaps(limit + flint.arb(0, 1e-300))
        assert abs(ball - limit) < abs(limit) * 2**-60 + 1e-60


@pytest.mark.parametrize("kind", [*RATIONAL, *SMOOTH])
def test_wide_balls_enclose_what_lies_in_them(kind: ActivationKind) -> None:
    from paramrob.replay_curves import activate_ball

    rng = np.random.default_rng(1)
    for _ in range(40):
        low, high = sorted(rng.normal(scale=rng.choice([0.1, 3.0, 1e3]), size=2).tolist())
        ball = flint.arb(low).union(flint.arb(high))
        image = activate_ball(activation(kind), ball)
        for z in (low, high, *rng.uniform(low, high, size=10), 0.0):
            if low <= z <= high:
                assert image.overlaps(activate_ball(activation(kind), flint.arb(float(z))))


@pytest.mark.parametrize("kind", [*RATIONAL, *SMOOTH])
def test_balls_without_bounds_are_no_trouble(kind: ActivationKind) -> None:
    from paramrob.replay_curves import activate_ball

    op = activation(kind)
    for ball in (flint.arb(0, np.inf), flint.arb("nan"), flint.arb(1, 1e300), flint.arb(1e300, 1)):
        image = activate_ball(op, ball)
        for z in (-2.0, 0.5, 1e300):
            if ball.contains(flint.arb(z)):
                assert image.overlaps(activate_ball(op, flint.arb(z))) or not image.is_finite()


def test_exact_and_ball_branches_meet() -> None:
    rng = np.random.default_rng(2)
    graph = Graph((3,), rng)
    exact = graph.dense(4)
    ball = graph.act("sigmoid", exact)
    graph.sum(exact, ball)
    graph.add(Concat(0), "n3", exact, ball)
    graph.add(Softmax())
    assert_same(graph.network(), rng.normal(size=3))
    assert ExactRun(graph.network(), np.ones(3)).squashed == "softmax"


def test_scores_before_the_squash_stay_exact() -> None:
    rng = np.random.default_rng(3)
    graph = Graph((3,), rng)
    top = graph.dense(4)
    graph.sum(top, top)
    graph.add(Softmax())
    run = ExactRun(graph.network(), rng.normal(size=3))
    scores, outputs = run.run()
    assert all(isinstance(s, flint.fmpq) for s in scores)
    assert all(isinstance(y, flint.arb) for y in outputs)


def test_numbers_that_grow_too_long_become_balls() -> None:
    graph = Graph((1,), np.random.default_rng(0))
    for _ in range(14):
        graph.act("hardswish")
    x = np.array([1 / 3])
    assert not is_exact(graph.network(), x)
    assert_same(graph.network(), x)


def test_a_statistic_must_stay_positive() -> None:
    graph = Graph((2, 2), np.random.default_rng(0))
    graph.norm()
    with pytest.raises(ReplayError, match="divides by the root"):
        evaluate_exact(graph.network(), np.ones(4), {"v1": np.array([-1.0, 1.0])})


def test_replaying_a_witness_on_a_residual_network() -> None:
    rng = np.random.default_rng(5)
    network = resnet(Graph((1, 5, 5), rng), (2, 3), 1)
    x = rng.normal(size=25)
    moved = Perturbation.uniform(network, Fraction("0.25"))
    problem = Problem(
        network,
        UncertainNetwork(network, moved),
        Point(tuple(x.tolist())),
        OutputInfo("logits", None),
        Property("labels"),
    )
    chosen = {
        p.name: p.value + rng.uniform(-0.25, 0.25, size=p.value.shape)
        for p in network.parameters.values()
        if not p.fixed
    }
    witness = replay(problem, x, chosen)
    before = network.evaluate(x.reshape(1, 1, 5, 5))[0]
    after = network.evaluate(x.reshape(1, 1, 5, 5), chosen)[0]
    assert witness.labels == (int(before.argmax()), int(after.argmax()))
    assert refutes(problem, witness) == (before.argmax() != after.argmax())
    statistic = {"m2": network.parameters["m2"].value + 1e-9}
    with pytest.raises(ReplayError, match="'m2', value 0"):
        replay(problem, x, statistic)

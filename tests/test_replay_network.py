"""Exact execution of one network against naive fractions and decimal arithmetic."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.errors import ReplayError
from paramrob.models.network import (
    Activation,
    Array,
    Dense,
    Elementwise,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Reshape,
    Softmax,
    node_parameters,
)
from paramrob.replay import evaluate_exact, level_logit
from tests.replay_networks import VALUES, act, constant, dense, stack


def naive(network: Network, x: Sequence[float]) -> list[Fraction]:
    """Execute a network without transcendental nodes, number by number, in fractions."""
    h = [Fraction(v) for v in x]
    for node in network.nodes[1:]:
        op = node.op
        arrays = [network.parameters[n].value for n in node_parameters(op)]
        if isinstance(op, Dense):
            rows = [[Fraction(w) for w in row] for row in arrays[0].tolist()]
            h = [sum((w * v for w, v in zip(row, h, strict=True)), Fraction(0)) for row in rows]
            if op.bias is not None:
                h = [v + Fraction(b) for v, b in zip(h, arrays[1].tolist(), strict=True)]
        elif isinstance(op, Elementwise):
            cs = [Fraction(c) for c in np.broadcast_to(arrays[0], node.shape).ravel().tolist()]
            pairs = list(zip(h, cs, strict=True))
            h = {
                "add": lambda p=pairs: [v + c for v, c in p],
                "sub": lambda p=pairs: [v - c for v, c in p],
                "mul": lambda p=pairs: [v * c for v, c in p],
                "div": lambda p=pairs: [v / c for v, c in p],
                "rsub": lambda p=pairs: [c - v for v, c in p],
            }[op.kind]()
        elif isinstance(op, Activation) and op.kind == "relu":
            h = [max(v, Fraction(0)) for v in h]
        elif isinstance(op, Activation) and op.kind == "leaky_relu":
            h = [v if v > 0 else Fraction(op.slope) * v for v in h]
    return h


def as_fraction(number: object) -> Fraction:
    assert isinstance(number, flint.fmpq)
    return Fraction(int(number.p), int(number.q))


@st.composite
def rational_networks(draw: st.DrawFn) -> tuple[Network, list[float]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    layers: list[tuple[Op, dict[str, Array]]] = []

    def numbers(n: int, nonzero: bool = False) -> list[float]:
        values = VALUES.filter(bool) if nonzero else VALUES
        return draw(st.lists(values, min_size=n, max_size=n))

    kinds = draw(st.permutations(["add", "sub", "mul", "div", "rsub"]))
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        if draw(st.booleans()):
            count = draw(st.sampled_from([1, a]))
            layers.append(constant(kinds[i], numbers(count, nonzero=kinds[i] == "div")))
        weight = np.array(numbers(a * b)).reshape(b, a).tolist()
        layers.append(dense(i, weight, numbers(b) if draw(st.booleans()) else None))
        layers.append(
            draw(
                st.sampled_from(
                    [act("relu"), act("leaky_relu", 0.1), act("leaky_relu", 1.0), act("identity")]
                )
            )
        )
    return stack(sizes[0], *layers), numbers(sizes[0])


@given(case=rational_networks())
@settings(max_examples=150, deadline=None)
def test_rational_networks_are_exact(case: tuple[Network, list[float]]) -> None:
    network, x = case
    outputs = evaluate_exact(network, np.array(x))
    assert [as_fraction(y) for y in outputs] == naive(network, x)


def test_layers_on_the_last_axis_of_a_matrix() -> None:
    weight, bias = np.array([[1.0, 2.0, 3.0]]), np.array([0.5])
    nodes = [Node("x", Input(), (), (2, 3)), Node("d", Dense("w", "b"), ("x",), (2, 1))]
    nodes.append(Node("s", Elementwise("mul", "c"), ("d",), (2, 1)))
    nodes.append(Node("r", Reshape(), ("s",), (2,)))
    scale = Parameter("c", np.array([[3.0], [5.0]]))
    network = Network(nodes, [Parameter("w", weight), Parameter("b", bias), scale])
    outputs = evaluate_exact(network, np.arange(6.0).reshape(2, 3))
    assert [as_fraction(y) for y in outputs] == [Fraction(17, 2) * 3, Fraction(53, 2) * 5]


def test_given_parameters_replace_the_stored_ones() -> None:
    network = stack(1, dense(0, [[2.0]], [1.0]))
    (output,) = evaluate_exact(network, np.array([3.0]), {"w0": np.array([[5.0]])})
    assert as_fraction(output) == 16


def decimal_sigmoid(z: Decimal) -> Decimal:
    return 1 / (1 + (-z).exp())


def decimal_tanh(z: Decimal) -> Decimal:
    e = (-2 * abs(z)).exp()
    return ((1 - e) / (1 + e)).copy_sign(z)


def contains(ball: flint.arb, value: Decimal) -> bool:
    """Whether the ball holds a decimal that is itself known to about 400 digits."""
    with flint.ctx.workprec(1500):
        exact = flint.arb(str(value)) + flint.arb(0, 1e-300) * flint.arb(str(value))
        return bool(ball.overlaps(exact))


@given(
    w=st.lists(st.floats(-50, 50), min_size=4, max_size=4),
    v=st.lists(st.floats(-9, 9), min_size=2, max_size=2),
    x=st.floats(-3, 3),
    kind=st.sampled_from(["sigmoid", "tanh"]),
)
@settings(max_examples=60, deadline=None)
def test_smooth_networks_agree_with_decimal_arithmetic(
    w: list[float], v: list[float], x: float, kind: str
) -> None:
    network = stack(
        1,
        dense(0, [[w[0]], [w[1]]], w[2:]),
        act(kind),
        dense(1, [v], [0.25]),
        act("leaky_relu", 0.5),
        act("sigmoid"),
    )
    (ball,) = evaluate_exact(network, np.array([x]))
    with decimal.localcontext(prec=400, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX):
        function = decimal_sigmoid if kind == "sigmoid" else decimal_tanh
        hidden = [function(Decimal(w[i]) * Decimal(x) + Decimal(w[2 + i])) for i in (0, 1)]
        z = Decimal(v[0]) * hidden[0] + Decimal(v[1]) * hidden[1] + Decimal("0.25")
        expected = decimal_sigmoid(z if z > 0 else z / 2)
        assert contains(ball, expected)
    assert ball.rel_accuracy_bits() >= 70


@given(z=st.lists(st.floats(-700, 700), min_size=2, max_size=5), hidden=st.booleans())
@settings(max_examples=60, deadline=None)
def test_softmax_agrees_with_decimal_arithmetic(z: list[float], hidden: bool) -> None:
    n = len(z)
    before = [act("tanh"), dense(1, (np.eye(n) * 400).tolist())] if hidden else []
    network = stack(n, *before, (Softmax(), {}))
    balls = evaluate_exact(network, np.array(z))
    with decimal.localcontext(prec=400, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX):
        logits = [400 * decimal_tanh(Decimal(v)) if hidden else Decimal(v) for v in z]
        powers = [v.exp() for v in logits]
        for ball, power in zip(balls, powers, strict=True):
            assert contains(ball, power / sum(powers))
            assert ball.rel_accuracy_bits() >= 70 or float(ball.rad()) < 2**-200


@pytest.mark.parametrize("size", [1e5, 1e18, 1e155, 1e308])
@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_astronomic_arguments_saturate(size: float, kind: str) -> None:
    network = stack(1, dense(0, [[size], [-size]]), act(kind))
    high, low = evaluate_exact(network, np.array([size]))
    for ball, limit in ((high, 1.0), (low, 0.0 if kind == "sigmoid" else -1.0)):
        assert ball.overlaps(flint.arb(limit, 1e-300))
        assert float(ball.rad()) < 2**-60
    first, second = evaluate_exact(
        stack(1, dense(0, [[size], [-size]]), (Softmax(), {})), np.array([size])
    )
    assert first.overlaps(flint.arb(1, 1e-300))
    assert second.overlaps(flint.arb(0, 1e-300))


def test_a_ball_across_the_kink_stays_sound() -> None:
    # tanh(x) - tanh(x) is 0, which balls can only approach
    for kink, most in ((act("relu"), 1e-60), (act("leaky_relu", 0.5), 1e-60)):
        network = stack(1, dense(0, [[1.0], [1.0]]), act("tanh"), dense(1, [[1e10, -1e10]]), kink)
        (ball,) = evaluate_exact(network, np.array([0.3]))
        assert ball.contains(flint.arb(0))
        assert float(ball.upper()) < most


def test_the_working_precision_is_restored() -> None:
    before = flint.ctx.prec
    evaluate_exact(stack(1, dense(0, [[1.0]]), act("tanh")), np.array([0.3]))
    level_logit(Fraction(1, 7))
    with pytest.raises(ReplayError):
        evaluate_exact(stack(1, constant("div", [1.0])), np.array([1.0]), {"cdiv": np.array([0.0])})
    assert flint.ctx.prec == before

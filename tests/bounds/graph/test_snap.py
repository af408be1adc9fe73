"""Rounding to a grid: exact execution, intervals, lines, and whole networks."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import flint
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.execute import execute
from paramrob.bounds.graph.program import lower
from paramrob.bounds.graph.snap import Snap, snap_lines, snapped
from paramrob.domain import Ball, Point
from paramrob.engine import METHODS, Settings, decide
from paramrob.errors import BackendError, ModelError
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Array, Network, Quantize
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import evaluate_exact
from paramrob.replay_balls import quantized_ball
from paramrob.verdict import Verdict
from tests.graphs import Graph

GRIDS = st.builds(
    lambda scale, zero, bits, steps: Quantize(
        float(np.float32(scale)), min(zero, 2**bits - 1), 0, 2**bits - 1, steps
    ),
    st.one_of(st.floats(1e-6, 1e3), st.sampled_from([0.25, 1.0, 2.0**-40])),
    st.integers(0, 255),
    st.integers(1, 16),
    st.integers(0, 2),
)
NUMBERS = st.one_of(st.floats(-1e5, 1e5), st.integers(-2000, 2000).map(lambda n: n / 8))
HYPOTHESIS = settings(derandomize=True, database=None, deadline=None)


def exact(grid: Quantize, value: Fraction, off: int = 0) -> Fraction:
    """Round by the definition; Python rounds a fraction half to even."""
    steps = round(value / Fraction(grid.scale)) + grid.zero_point + off
    return (min(max(steps, grid.low), grid.high) - grid.zero_point) * Fraction(grid.scale)


def single(grid: Quantize, size: int = 1) -> Network:
    graph = Graph((size,), np.random.default_rng(0))
    graph.add(grid)
    return graph.network()


@HYPOTHESIS
@given(grid=GRIDS, values=st.lists(NUMBERS, min_size=1, max_size=5))
@example(Quantize(1.0, 0, -128, 127), [0.5, 1.5, -0.5, 126.5, 127.5, -128.5])
@example(Quantize(0.25, 3, 0, 255), [0.125, 0.375, 1e5, -1e5])
def test_replay_rounds_half_to_even(grid: Quantize, values: list[float]) -> None:
    network = single(grid, len(values))
    outputs = [Fraction(int(y.p), int(y.q)) for y in evaluate_exact(network, np.array(values))]
    assert outputs == [exact(grid, Fraction(value)) for value in values]
    rough = network.evaluate(np.array([values]))[0]
    assert np.allclose(rough, [float(y) for y in outputs], atol=grid.scale * 1.01)


@HYPOTHESIS
@given(grid=GRIDS, value=NUMBERS, radius=st.sampled_from([0.0, 1e-12, 0.01, 1.0]))
def test_a_ball_holds_all_that_its_numbers_round_to(
    grid: Quantize, value: float, radius: float
) -> None:
    ball = quantized_ball(grid, flint.arb(value, radius))
    for share in (-1, 0, 1):
        z = Fraction(value) + share * Fraction(radius)
        result = exact(grid, z)
        assert ball.contains(flint.arb(flint.fmpq(result.numerator, result.denominator)))
    if radius == 0.0 and (Fraction(value) / Fraction(grid.scale) * 2) % 2 != 1:
        assert ball.rad() <= abs(ball.mid()) * 2.0**-40 + flint.arb(grid.scale) * 2.0**-40


@HYPOTHESIS
@given(grid=GRIDS, ends=st.lists(NUMBERS, min_size=2, max_size=2).map(sorted), data=st.data())
def test_intervals_and_lines_hold_every_result(
    grid: Quantize, ends: list[float], data: st.DataObject
) -> None:
    low, high = (min(max(end, grid.least), grid.most) for end in ends)
    lower_, upper = (torch.tensor([[end]], dtype=torch.float64) for end in (low, high))
    kind = Snap(grid)
    first, last = (Fraction(float(end)) for end in snapped(kind, lower_, upper))
    share = data.draw(st.sampled_from([0.0, 1.0, 0.5, 0.25, 0.9]))
    inside = Fraction(low) + Fraction(share) * (Fraction(high) - Fraction(low))
    ties = math.floor(inside / Fraction(grid.scale)) + Fraction(1, 2)
    for v in (inside, min(max(ties * Fraction(grid.scale), Fraction(low)), Fraction(high))):
        for off in range(-grid.deviation, grid.deviation + 1):
            result = exact(grid, v, off)
            assert first <= result <= last
            for line in snap_lines(kind, lower_, upper):
                slopes = [Fraction(float(t)) for t in (line.low_slope, line.high_slope)]
                assert slopes[0] * v + Fraction(float(line.low)) <= result
                assert result <= slopes[1] * v + Fraction(float(line.high))


def test_what_is_no_number_may_be_any_of_the_grid() -> None:
    kind = Snap(Quantize(0.5, 1, 0, 255))
    for end in (math.nan, -math.inf, math.inf):
        wide = torch.tensor([[end]], dtype=torch.float64)
        low, high = snapped(kind, wide, torch.full_like(wide, math.inf))
        assert float(high) == 127.0
        assert float(low) in (-0.5, 127.0)
    low, high = snapped(
        kind, torch.tensor([[math.nan]]).double(), torch.tensor([[math.nan]]).double()
    )
    assert (float(low), float(high)) == (-0.5, 127.0)


def test_onnxruntime_rounds_alike() -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper = onnx.helper
    grid = Quantize(0.125, 100, 0, 255)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [
        onnx.numpy_helper.from_array(np.float32(0.125), "s"),
        onnx.numpy_helper.from_array(np.uint8(100), "z"),
    ]
    of = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", of, [1, 513])],
        [helper.make_tensor_value_info("y", of, [1, 513])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    x = np.linspace(-32, 32, 513, dtype=np.float32)[None]  # every second one is a tie
    (theirs,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert np.array_equal(single(grid, 513).evaluate(x.astype(np.float64)), theirs)


def quantized_net(seed: int, deviation: int = 0) -> Network:
    """Return a small convolutional network whose values are rounded to grids on the way."""
    graph = Graph((2, 4, 4), np.random.default_rng(seed))
    graph.add(Quantize(float(np.float32(1 / 127)), 0, -128, 127, deviation))
    graph.conv(3, (3, 3))
    graph.act("relu")
    graph.add(Quantize(float(np.float32(0.02)), 0, 0, 255, deviation))
    graph.flat()
    graph.dense(4)
    graph.add(Quantize(float(np.float32(0.05)), 7, -128, 127, deviation))
    graph.act("relu")
    graph.dense(3)
    return graph.network()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("radius", [0.0, 0.02])
def test_no_execution_leaves_the_bounds(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    network = quantized_net(seed)
    box = Perturbation.uniform(network, Fraction("0.002"))
    output = OutputInfo("value", None)
    bounds = GraphPass(lower(network, box, output))
    assert not bounds.program.exact
    x = rng.uniform(-1, 1, network.input_size)
    low, high = (torch.from_numpy(x + side * radius).reshape(1, -1) for side in (-1, 1))
    rows = torch.cat([torch.eye(3), -torch.eye(3)]).double()[None]
    least = {}
    for method in ("ibp", "crown-ibp", "crown"):
        least[method] = bounds.bound(bounds.analyse(low, high, method), rows, method)[0].numpy()
    for _ in range(60):
        moved = {
            n: p.value
            + rng.choice([-1, 1, rng.uniform(-1, 1)]) * 0.002 * rng.choice([-1, 1], p.value.shape)
            for n, p in network.parameters.items()
        }
        seen = x + radius * rng.choice([-1.0, 1.0, 0.3], x.shape)
        y = network.evaluate(seen.reshape(1, 2, 4, 4), moved)[0]
        for bound in least.values():
            assert (bound <= np.concatenate([y, -y]) + 1e-12).all()
    assert (least["crown"] >= least["ibp"] - 1e-12).all()


def shifted(network: Network, x: Array, rng: np.random.Generator, steps: int) -> Array:
    """Execute with every rounding off by up to ``steps``."""
    from paramrob.models.evaluate import apply_node

    values = {n: p.value for n, p in network.parameters.items()}
    seen = {network.nodes[0].name: x}
    for node in network.nodes[1:]:
        y = apply_node(node.op, [seen[n] for n in node.inputs], node.shape, values)
        if isinstance(node.op, Quantize):
            off = rng.integers(-steps, steps + 1, y.shape) * node.op.scale
            y = np.clip(y + off, node.op.least, node.op.most)
        seen[node.name] = y
    return seen[network.nodes[-1].name]


def test_deviating_executions_stay_inside() -> None:
    rng = np.random.default_rng(5)
    network = quantized_net(5, deviation=1)
    bounds = GraphPass(lower(network, Perturbation({}), OutputInfo("value", None)))
    x = torch.from_numpy(rng.uniform(-1, 1, (1, network.input_size)))
    rows = torch.cat([torch.eye(3), -torch.eye(3)]).double()[None]
    least = bounds.bound(bounds.analyse(x, x), rows)[0].numpy()
    widest = np.zeros(3)
    for _ in range(200):
        y = shifted(network, x.numpy().reshape(1, 2, 4, 4), rng, 1)[0]
        assert (least <= np.concatenate([y, -y]) + 1e-12).all()
        widest = np.maximum(widest, np.abs(y - network.evaluate(x.numpy())[0]))
    assert (widest > 0).all()


def test_a_known_rounding_costs_nothing() -> None:
    """At a point without a perturbation the pass knows every cell of the grid."""
    network = quantized_net(1)
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (1, network.input_size)))
    bounds = GraphPass(lower(network, Perturbation({}), OutputInfo("value", None)))
    rows = torch.cat([torch.eye(3), -torch.eye(3)]).double()[None]
    least = bounds.bound(bounds.analyse(x, x, "ibp"), rows, "ibp")[0].numpy()
    assert (-least[3:] - least[:3] < 1e-10).all()


@pytest.mark.parametrize("method", [None, *METHODS])
def test_decides_labels_of_a_rounded_network(method: str | None) -> None:
    """A robust point stays robust for every method, a moved label comes with a counterexample."""
    network = quantized_net(2)
    identity = Activation("identity")
    nodes = [replace(n, op=identity) if isinstance(n.op, Quantize) else n for n in network.nodes]
    plain = Network(nodes, network.parameters.values())
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(12):
        x = rng.uniform(-1, 1, network.input_size)
        domain = Ball(tuple(x), Fraction(1, 50))
        asked = Problem(
            plain, UncertainNetwork(network, Perturbation({})), domain, OutputInfo("logits"),
            Property("labels"),
        )  # fmt: skip
        found = decide(asked, Settings(solver="bounds", method=method, timeout=10))  # type: ignore[arg-type]
        verdicts.add(found.verdict)
        label = plain.evaluate(x.reshape(1, 2, 4, 4))[0].argmax()
        moved = x + rng.uniform(-0.02, 0.02, (400, x.size))
        stays = network.evaluate(moved.reshape(-1, 2, 4, 4)).argmax(1) == label
        if found.verdict is Verdict.ROBUST:
            assert stays.all()
    assert Verdict.ROBUST in verdicts or method == "ibp"


def test_gradients_pass_straight_through() -> None:
    network = quantized_net(3)
    x = torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, network.input_size))
    values = {n: torch.from_numpy(p.value.copy()) for n, p in network.parameters.items()}
    x.requires_grad_()
    result = execute(network, values, x, network.nodes[-1].name)
    expected = network.evaluate(x.detach().numpy().reshape(1, 2, 4, 4))[0]
    assert np.allclose(result.detach().numpy(), expected, atol=1e-12)
    result.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert bool(x.grad.any())


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (Quantize(0.1, 0, -128, 127), "float32"),
        (Quantize(0.0, 0, -128, 127), "positive"),
        (Quantize(math.nan, 0, -128, 127), "positive"),
        (Quantize(math.inf, 0, -128, 127), "positive"),
        (Quantize(1.0, 200, -128, 127), "zero point"),
        (Quantize(1.0, 0, 0, 2**20), "16 bits"),
        (Quantize(1.0, 0, -128, 127, -1), "deviation"),
    ],
)
def test_refuses_what_is_no_grid(grid: Quantize, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        single(grid)


def test_formulas_and_float_arithmetic_refuse_grids() -> None:
    from paramrob.arithmetic import arithmetic_from

    network = single(Quantize(1.0, 0, -128, 127))
    output = OutputInfo("value", None)
    with pytest.raises(BackendError, match="rounds to a grid"):
        lower(network, Perturbation({}), output, arithmetic=arithmetic_from("float32", None))
    subject = Problem(
        network, UncertainNetwork(network, Perturbation({})), Point((0.3,)), output,
        Property("confidence", Fraction(1)),
    )  # fmt: skip
    with pytest.raises(BackendError, match="Quantize is not supported in a formula"):
        decide(subject, Settings(solver="z3"))


def test_an_activation_of_an_activation() -> None:
    """Both are read by something that bends, and each is bounded with the lines of the first."""
    graph = Graph((3,), np.random.default_rng(0))
    graph.dense(4)
    graph.act("sigmoid")
    graph.act("gelu")
    graph.dense(2)
    network = graph.network()
    bounds = GraphPass(
        lower(network, Perturbation.uniform(network, Fraction("0.01")), OutputInfo("value", None))
    )
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3))
    low, high = torch.from_numpy(x - 0.1), torch.from_numpy(x + 0.1)
    least = bounds.bound(bounds.analyse(low, high), torch.eye(2).double()[None])[0].numpy()
    sampled = network.evaluate(x + np.random.default_rng(2).uniform(-0.1, 0.1, (500, 3)))
    assert (least <= sampled.min(0)).all()
    assert (least >= sampled.min(0) - 0.3).all()

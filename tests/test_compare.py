"""Two networks against each other: verdicts are those of executing both."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import paramrob
from paramrob.domain import Ball, Point
from paramrob.errors import InputError
from paramrob.models.evaluate import apply_node
from paramrob.models.model import Model, OutputInfo
from paramrob.models.network import (
    Activation,
    Array,
    Dense,
    Input,
    Network,
    Node,
    Parameter,
    Quantize,
)
from paramrob.models.onnx_file import read_onnx
from paramrob.models.rounding import count_roundings, with_steps
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.several import PointsOutcome
from paramrob.single_run import executed, is_single
from paramrob.verdict import Outcome, Verdict
from tests.quantized_models import (
    VARIANTS,
    dense,
    digits,
    moons,
    quantized,
    save_onnx,
    trained,
)

POINTS = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with moons and digits, float and quantized, and a student of digits."""
    folder = tmp_path_factory.mktemp("files")
    for name, model, data in (
        ("moons", dense((2, 16, 16, 2)), moons()),
        ("digits", dense((64, 32, 10)), digits()),
        ("student", dense((64, 8, 10)), digits()),
    ):
        made = trained(model, data, 0, 100)
        file = save_onnx(made, data.x.shape[1:], folder / f"{name}.onnx")
        quantized(file, data, VARIANTS[0], folder / f"{name}-int8.onnx")
    return folder


def labels_of(file: Path, x: npt.NDArray[np.float32]) -> list[int]:
    return [int(v) for v in read_onnx(file).evaluate(x.astype(np.float64)).argmax(axis=1)]


@pytest.mark.parametrize(
    ("reference", "model"),
    [("moons", "moons-int8"), ("digits", "digits-int8"), ("digits", "student-int8")],
)
def test_labels_agree_where_both_networks_say_so(files: Path, reference: str, model: str) -> None:
    data = moons() if reference == "moons" else digits()
    x = data.x[1::3][-POINTS:]
    first, second = files / f"{reference}.onnx", files / f"{model}.onnx"
    outcome = paramrob.compare(first, second, at=x.astype(np.float64))
    assert isinstance(outcome, PointsOutcome)
    truth = [a == b for a, b in zip(labels_of(first, x), labels_of(second, x), strict=True)]
    assert [o.verdict for o in outcome.points] == [
        Verdict.ROBUST if same else Verdict.NOT_ROBUST for same in truth
    ]
    for part in outcome.points:
        if part.witness is not None:
            assert part.runtime is not None
            assert part.runtime.reproduced


def test_epsilon_is_what_the_two_outputs_differ_by(files: Path) -> None:
    x = digits().x[5]
    pair = (files / "digits.onnx", files / "digits-int8.onnx")
    logits = [read_onnx(file).evaluate(x[None].astype(np.float64))[0] for file in pair]
    shares = [np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in logits]
    change = float(np.abs(shares[0] - shares[1]).max())
    at = x.astype(np.float64)
    for factor, verdict in ((1.01, Verdict.ROBUST), (0.99, Verdict.NOT_ROBUST)):
        assert paramrob.compare(*pair, at=at, epsilon=repr(change * factor)).verdict is verdict


def test_around_points_no_sample_contradicts(files: Path) -> None:
    pair = (files / "moons.onnx", files / "moons-int8.onnx")
    x = moons().x[1::30][:20]
    given = x.astype(np.float64)
    outcome = paramrob.compare(*pair, at=given, input_radius="0.01", method="alpha")
    assert isinstance(outcome, PointsOutcome)
    rng = np.random.default_rng(0)
    ours = labels_of(pair[0], x)
    robust = 0
    for i, part in enumerate(outcome.points):
        near = x[i] + rng.uniform(-0.01, 0.01, size=(200, 2))
        if part.verdict is Verdict.ROBUST:
            robust += 1
            assert set(labels_of(pair[1], near.astype(np.float32))) == {ours[i]}
    assert robust > 10


def test_over_a_box_no_sample_contradicts(files: Path) -> None:
    pair = (files / "moons.onnx", files / "moons-int8.onnx")
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 0.25, size=(3000, 2))
    changes = []
    for file in pair:
        z = read_onnx(file).evaluate(x)
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        changes.append(powers / powers.sum(axis=1, keepdims=True))
    most = float(np.abs(changes[0] - changes[1]).max())
    for epsilon, verdict in ((0.7 * most, Verdict.NOT_ROBUST), (4 * most, Verdict.ROBUST)):
        outcome = paramrob.compare(*pair, domain=(0, "0.25"), epsilon=f"{epsilon:.4f}")
        assert outcome.verdict in (verdict, Verdict.UNKNOWN)
        if outcome.verdict is Verdict.NOT_ROBUST:
            assert outcome.runtime is not None


def test_executions_off_by_a_step_are_allowed_for(files: Path) -> None:
    pair = (files / "moons.onnx", files / "moons-int8.onnx")
    x = moons().x[1::30][:20]
    given = x.astype(np.float64)
    outcome = paramrob.compare(*pair, at=given, runtime_steps=1, method="alpha")
    plain = paramrob.compare(*pair, at=given)
    assert isinstance(outcome, PointsOutcome)
    assert isinstance(plain, PointsOutcome)
    ours, network = labels_of(pair[0], x), read_onnx(pair[1])
    rng = np.random.default_rng(1)
    proved = [part.verdict is Verdict.ROBUST for part in outcome.points]
    assert 10 < sum(proved) <= sum(p.verdict is Verdict.ROBUST for p in plain.points)
    for i in np.flatnonzero(proved).tolist():
        batch = np.repeat(x[i : i + 1].astype(np.float64), 100, axis=0)
        assert set(_off_by_a_step(network, batch, rng).argmax(axis=1).tolist()) == {ours[i]}


def _off_by_a_step(network: Network, x: Array, rng: np.random.Generator) -> Array:
    """Execute with every rounded number moved by -1, 0 or 1 step within the grid."""
    values = {name: p.value for name, p in network.parameters.items()}
    held = {network.nodes[0].name: x}
    for node in network.nodes[1:]:
        result = apply_node(node.op, [held[n] for n in node.inputs], node.shape, values)
        if isinstance(node.op, Quantize):
            moved = result + node.op.scale * rng.integers(-1, 2, size=result.shape)
            result = np.clip(moved, node.op.least, node.op.most)
        held[node.name] = result
    return held[network.nodes[-1].name]


def test_a_teacher_and_a_student_of_other_widths_at_a_point() -> None:
    torch.manual_seed(0)
    teacher, student = dense((2, 6, 2)).double(), dense((2, 3, 2)).double()
    x = np.random.default_rng(2).uniform(-1, 1, size=(30, 2))
    for point in x[:5]:
        given = torch.from_numpy(point)
        same = bool(teacher(given).argmax() == student(given).argmax())
        outcome = paramrob.compare(teacher, student, at=point)
        assert outcome.verdict is (Verdict.ROBUST if same else Verdict.NOT_ROBUST)
    moved = paramrob.compare(teacher, student, at=x, delta="0.001")
    assert isinstance(moved, PointsOutcome)
    still = [
        teacher(torch.from_numpy(p)).argmax() == student(torch.from_numpy(p)).argmax() for p in x
    ]
    for same, part in zip(still, moved.points, strict=True):
        assert part.verdict is not (Verdict.ROBUST if not same else None)


def _single(op: Quantize | None, weight: list[list[float]], bias: list[float]) -> Network:
    nodes = [Node("x", Input(), (), (1,))]
    if op is not None:
        nodes.append(Node("q", op, ("x",), (1,)))
    nodes.append(Node("fc", Dense("w", "b"), (nodes[-1].name,), (len(bias),)))
    return Network(nodes, [Parameter("w", np.array(weight)), Parameter("b", np.array(bias))])


TIED = Quantize(0.5, 0, 0, 10)


def _problem(
    x: float, property_: Property, model: Network, box: Perturbation | None = None
) -> Problem:
    reference = _single(None, [[1.0], [0.0]], [0.0, 0.8])
    uncertain = UncertainNetwork(model, box or Perturbation({}))
    return Problem(reference, uncertain, Point((x,)), OutputInfo("logits", None), property_)


def test_execution_decides_what_bounds_cannot_tell() -> None:
    open_ = Outcome(Verdict.UNKNOWN, "left open")
    model = _single(TIED, [[1.0], [0.0]], [0.0, 0.8])
    # 0.75 is a tie and goes to the even step 1.0, which changes the label; 0.25 goes to 0
    flips, stays = (_problem(x, Property("labels"), model) for x in (0.75, 0.25))
    assert is_single(flips)
    assert executed(flips, open_).verdict is Verdict.NOT_ROBUST
    assert executed(stays, open_).verdict is Verdict.ROBUST
    assert executed(stays, open_).reason is None
    margin = _problem(0.75, Property("margin", sigma=Fraction("0.06")), model)
    assert executed(margin, open_).verdict is Verdict.ROBUST
    near = _problem(0.75, Property("margin", sigma=Fraction("0.04")), model)
    assert executed(near, open_).verdict is Verdict.NOT_ROBUST


def test_execution_is_for_one_run_alone() -> None:
    model = _single(TIED, [[1.0], [0.0]], [0.0, 0.8])
    labels = Property("labels")
    assert not is_single(_problem(0.75, labels, with_steps(model, 1)))
    assert not is_single(_problem(0.75, labels, model, Perturbation({"w": Fraction(1, 10)})))
    point = _problem(0.75, labels, model)
    ball = Problem(
        point.reference, point.uncertain, Ball((0.75,), Fraction(1, 9)), point.output, labels
    )
    assert not is_single(ball)


def test_steps_are_set_on_every_rounding() -> None:
    model = _single(TIED, [[1.0]], [0.0])
    assert count_roundings(model) == 1
    assert with_steps(model, 0) is model
    assert [n.op.deviation for n in with_steps(model, 3).nodes if isinstance(n.op, Quantize)] == [3]
    with pytest.raises(InputError, match="0 or more"):
        with_steps(model, -1)
    with pytest.raises(InputError, match="the model has none"):
        with_steps(_single(None, [[1.0]], [0.0]), 1)


def _sigmoid(rounded: bool) -> Model:
    nodes = [
        Node("x", Input(), (), (1,)),
        Node("fc", Dense("w", "b"), ("x",), (1,)),
        Node("s", Activation("sigmoid"), ("fc",), (1,)),
    ]
    if rounded:
        nodes.append(Node("q", Quantize(2.0**-4, 0, 0, 15), ("s",), (1,)))
    network = Network(nodes, [Parameter("w", np.array([[2.0]])), Parameter("b", np.array([0.0]))])
    return paramrob.load(network)


def test_a_probability_that_is_rounded_is_compared_as_it_is() -> None:
    for x in (-1.0, -0.02, 0.05, 0.4):
        share = 1 / (1 + np.exp(-2 * x))
        rounded = min(round(share * 16), 15) / 16
        same = (share > 0.5) == (rounded > 0.5)
        outcome = paramrob.compare(_sigmoid(False), _sigmoid(True), at=[x])
        assert outcome.verdict is (Verdict.ROBUST if same else Verdict.NOT_ROBUST)


def test_a_sigmoid_that_ends_one_network_alone_is_refused() -> None:
    first, second = _sigmoid(False), _sigmoid(True)
    with pytest.raises(InputError, match="one network ends in a sigmoid"):
        Problem(
            first.network,
            UncertainNetwork(second.network, Perturbation({})),
            Point((0.5,)),
            first.output,
            Property("labels"),
        )

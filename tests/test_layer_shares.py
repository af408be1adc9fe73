"""Shares of layers: held against the same networks evaluated with one layer moved."""

from __future__ import annotations

import doctest
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import paramrob
from paramrob import api_blame
from paramrob.cli import main
from paramrob.digests import ends_digest
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.largest_epsilon import OPEN, largest, narrow
from paramrob.layer_shares import Share, Shares, shares_of
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Array, Dense, Input, Network, Node, Parameter
from paramrob.quantize.apply import rounded, with_values
from paramrob.quantize.scheme import Scheme
from paramrob.report_shares import exit_code_of_shares, ranking_sentence
from paramrob.requests.build import Asked, build
from paramrob.verdict import Bracket

CATS = Path(__file__).parent.parent / "case_studies" / "cats" / "model.pt"
SETTINGS = Settings(timeout=600)
POINTS = np.array([[0.3, 0.9], [1.0, 0.1], [0.6, 0.7], [0.0, 0.4]])


def outlier_module() -> torch.nn.Sequential:
    """Return a network whose middle layer has one weight that makes its int8 scale coarse.

    The outlier reads a neuron that no input switches on, so that only the scale is coarse.
    """
    torch.manual_seed(1)
    sizes = (2, 6, 6, 1)
    layers: list[torch.nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [*([torch.nn.ReLU()] if i else []), torch.nn.Linear(a, b)]
    module = torch.nn.Sequential(*layers).double()
    with torch.no_grad():
        module.get_parameter("0.bias")[0] = -9.0
        module.get_parameter("2.weight")[3, 0] = 60.0
    return module


def change(model: Model, values: dict[str, Array], points: Array) -> float:
    """Return the largest change of the probability, by plain evaluation."""
    pair = [model.network, with_values(model.network, values)]
    before, after = (1 / (1 + np.exp(-n.evaluate(points))) for n in pair)
    return float(np.abs(after - before).max())


def holds(bracket: Bracket, truth: float) -> bool:
    return bracket.lower - 1e-12 <= truth <= bracket.upper + 1e-12 and bracket.width < 1e-6


def test_the_layer_that_was_scaled_badly_ranks_first_with_a_proof() -> None:
    module = outlier_module()
    found = paramrob.blame(module, quantize="int8", at=POINTS, timeout=600)
    assert found.proved_first is not None
    assert found.proved_first.name == "2"
    assert found.proved_first is found.shares[0]
    model = found.request.model
    values = {n: r.values for n, r in rounded(model.network, Scheme("int8")).items()}
    assert holds(found.whole, change(model, values, POINTS))
    for share in found.shares:
        ours = {n: v for n, v in values.items() if n.startswith(f"{share.name}.")}
        others = {n: v for n, v in values.items() if n not in ours}
        assert holds(share.alone, change(model, ours, POINTS))
        assert holds(share.without, change(model, others, POINTS))
        assert share.values == ours[f"{share.name}.weight"].size
    assert "layer 2 ranks first, proved" in ranking_sentence(found)


def test_over_a_box_of_inputs_too() -> None:
    found = paramrob.blame(
        outlier_module(), quantize="int8", domain=(0, 1), tolerance=1e-4, timeout=600
    )
    assert found.proved_first is not None
    assert found.proved_first.name == "2"
    rng = np.random.default_rng(0)
    model, x = found.request.model, rng.uniform(size=(500, 2))
    values = {n: r.values for n, r in rounded(model.network, Scheme("int8")).items()}
    for share in found.shares:
        ours = {n: v for n, v in values.items() if n.startswith(f"{share.name}.")}
        assert change(model, ours, x) <= share.alone.upper


def linear_model(weights: tuple[float, float] = (1.0, 9.0)) -> Model:
    """Return two layers of one neuron each."""
    nodes = [Node("input", Input(), (), (1,))]
    parameters = []
    for i, weight in enumerate(weights):
        nodes.append(Node(f"l{i}", Dense(f"w{i}", f"b{i}"), (nodes[-1].name,), (1,)))
        parameters += [Parameter(f"w{i}", np.array([[weight]])), Parameter(f"b{i}", np.zeros(1))]
    return Model(Network(nodes, parameters), InputInfo(), OutputInfo("value"))


def test_closed_forms_of_two_linear_layers() -> None:
    found = paramrob.blame(linear_model(), delta="0.125", domain=(0, 1), timeout=600)
    first, second = found.shares
    assert (first.name, second.name) == ("l0", "l1")
    assert holds(first.alone, 9 * 0.25)
    assert holds(second.alone, 0.25)
    assert holds(first.without, 0.25)
    assert holds(second.without, 9 * 0.25)
    assert holds(found.whole, 9.125 * 1.25 + 0.125 - 9)


def test_the_examples_are_true() -> None:
    result = doctest.testmod(api_blame)
    assert result.attempted
    assert not result.failed


def test_layers_that_share_a_parameter_are_one_part() -> None:
    nodes = [
        Node("input", Input(), (), (2,)),
        Node("a", Dense("w"), ("input",), (2,)),
        Node("b", Dense("v"), ("a",), (2,)),
        Node("c", Dense("w"), ("b",), (2,)),
    ]
    parameters = [Parameter("w", np.eye(2)), Parameter("v", np.eye(2))]
    model = Model(Network(nodes, parameters), InputInfo(), OutputInfo("value"))
    found = paramrob.blame(model, delta="0.01", at=np.ones(2), timeout=600)
    assert sorted((s.name, s.values) for s in found.shares) == [("a, c", 4), ("b", 4)]


def test_channels_move_nothing_but_their_rows() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    found = paramrob.blame(
        module.double(), noise="0.1", at=POINTS, per_channel="0", output="logits", timeout=600
    )
    network = found.request.model.network
    assert sorted(s.name for s in found.shares) == ["0", "1", "2"]
    rng = np.random.default_rng(5)
    for share in found.shares:
        row = int(share.name)
        assert share.values == 3
        witness = share.alone.witness
        assert witness is not None
        assert witness.replayed
        moved = np.argwhere(witness.parameters["0.weight"] != network.parameters["0.weight"].value)
        assert moved.size
        assert set(moved[:, 0]) == {row}
        for name in ("2.weight", "2.bias"):
            assert np.array_equal(witness.parameters[name], network.parameters[name].value)
        for _ in range(50):
            values = {}
            for name in ("0.weight", "0.bias"):
                values[name] = np.array(network.parameters[name].value)
                noise = rng.uniform(-0.1, 0.1, values[name][row].shape)
                values[name][row] *= 1 + noise
            before = torch.from_numpy(network.evaluate(POINTS)).softmax(1)
            after = torch.from_numpy(with_values(network, values).evaluate(POINTS)).softmax(1)
            assert float((after - before).abs().max()) <= share.alone.upper
        assert share.without.lower <= found.whole.upper


def test_a_part_of_a_box_is_no_more_than_that() -> None:
    model = linear_model()
    box = build(Asked(delta="0.1"), model).perturbation
    parameter = Parameter("w", np.array([[1.0, 2.0]]))
    part = paramrob.Perturbation({"w": Fraction(1, 10)}).only({"w": np.array([[False, True]])})
    interval = part.interval(parameter)
    assert interval.exact(0) == (Fraction(1), Fraction(1))
    assert interval.exact(1) == (Fraction(19, 10), Fraction(21, 10))
    assert interval.radius().tolist()[0][0] == 0
    assert [end.flat[0] for end in interval.inner()] == [1.0, 1.0]
    assert box.only({"w0": None}).parameters == ("w0",)
    assert part.words is not None
    assert "w (in part)" in part.words
    network = Network(
        [Node("input", Input(), (), (2,)), Node("l", Dense("w"), ("input",), (1,))], [parameter]
    )
    other = paramrob.Perturbation({"w": Fraction(1, 10)}).only({"w": np.array([[True, False]])})
    assert ends_digest(network, part) != ends_digest(network, other)
    with pytest.raises(InputError, match="no delta"):
        part.scaled(Fraction(1))


def test_a_counterexample_of_a_part_may_not_move_the_rest() -> None:
    from paramrob.errors import ReplayError
    from paramrob.problem import Problem, UncertainNetwork
    from paramrob.replay import replay
    from paramrob.witness_meta import problem_meta

    network = Network(
        [Node("input", Input(), (), (2,)), Node("l", Dense("w"), ("input",), (1,))],
        [Parameter("w", np.array([[1.0, 2.0]]))],
    )
    box = paramrob.Perturbation({"w": Fraction(1, 2)}).only({"w": np.array([[False, True]])})
    problem = Problem(
        network, UncertainNetwork(network, box), paramrob.Point((1.0, 1.0)), OutputInfo("value")
    )
    x = np.ones(2)
    assert replay(problem, x, {"w": np.array([[1.0, 2.5]])}).replayed
    for bad in ([[1.25, 2.0]], [[1.0, 2.75]]):
        with pytest.raises(ReplayError, match="outside"):
            replay(problem, x, {"w": np.array(bad)})
    with pytest.raises(InputError, match="cannot be saved"):
        problem_meta(Model(network, InputInfo(), OutputInfo("value")), problem)


def test_the_largest_of_many_points_is_that_of_the_worst() -> None:
    model = paramrob.load(outlier_module())
    points = np.random.default_rng(2).uniform(size=(40, 2))
    problems = build(Asked("estimate", "epsilon", delta="0.01", at=points), model).problems
    found = [OPEN] * len(problems)
    narrow(problems, found, SETTINGS)
    whole = largest(found)
    assert whole.width <= 1e-6
    assert whole.witness is not None
    worst = int(np.argmax([b.upper for b in found]))
    alone = paramrob.estimate(model, "epsilon", delta="0.01", at=points[worst], timeout=600)
    assert alone.brackets["epsilon"].lower <= whole.upper
    assert alone.brackets["epsilon"].upper >= whole.lower


def shares(*ends: tuple[float, float]) -> Shares:
    request = build(Asked("estimate", "epsilon", delta="0.1"), linear_model())
    made = [Share(str(i), 1, Bracket(*e), Bracket(0, 1)) for i, e in enumerate(ends)]
    return Shares(request, tuple(made), Bracket(0, 1))


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        (((0.5, 0.6), (0.3, 0.4)), "0"),
        (((0.5, 0.6), (0.3, 0.5)), None),
        (((0.5, float("inf")), (0.3, 0.4), (0.1, 0.2)), "0"),
        (((0.5, float("inf")), (0.1, 0.2), (0.3, 0.55)), None),
        (((0.5, 0.6),), None),
    ],
)
def test_a_first_place_is_proved_by_brackets_that_are_apart(
    ends: tuple[tuple[float, float], ...], first: str | None
) -> None:
    found = shares(*ends)
    assert (found.proved_first and found.proved_first.name) == first
    assert exit_code_of_shares(found, 1e-6) == (3 if first is None else 0)
    assert exit_code_of_shares(found, float("inf")) == 0
    assert ("first, proved:" in ranking_sentence(found)) is (first is not None)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blame") / "outlier.pt"
    torch.save(outlier_module(), path)
    return path


def test_the_command_prints_a_table_and_writes_json_and_a_picture(
    model_file: Path, tmp_path: Path
) -> None:
    picture, written = tmp_path / "b.svg", tmp_path / "b.json"
    given = (model_file, "--quantize", "int8", "--at", "0.3,0.9")
    result = invoke("blame", *given, "-o", picture, "--json", written)
    assert result.exit_code == 0, result.output
    assert "layer 2 ranks first, proved" in result.stdout
    assert "all but it" in result.stdout
    found: Any = json.loads(written.read_text())
    assert (found["command"], found["quantity"], found["per"]) == ("blame", "epsilon", "layer")
    assert found["first"] == "2"
    assert found["parts"][0]["name"] == "2"
    for part in found["parts"]:
        assert part["alone"]["lower"] <= part["alone"]["upper"]
    assert found["brackets"]["epsilon"]["upper"] is not None
    assert found["perturbation"]["format"] == "int8"
    assert "<svg" in picture.read_text()
    result = invoke("blame", *given, "--per-channel", "2", "--json", "-")
    found = json.loads(result.stdout)
    assert (found["per"], found["layer"], len(found["parts"])) == ("channel", "2", 6)
    said = invoke("blame", *given, "-q").stdout
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "how far can the parameters move"),
        (("--delta", "0.1", "--per-channel", "fc"), "no layer 'fc'"),
        (("--delta", "0.1", "--leave-out", "0", "--per-channel", "0"), "does not move"),
        (("--delta", "0.1", "-o", "picture.gif"), "the ending decides"),
        (("--delta", "0.1", "--limit", "3"), "give them with --at"),
        (("--delta", "0.1", "--epsilon", "3"), "No such option"),
        (("--quantize", "int8", "--per-channel", "1"), "no layer '1'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    model_file: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = invoke("blame", model_file, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_only_epsilon_has_shares() -> None:
    with pytest.raises(InputError, match="epsilon"):
        shares_of(Asked(delta="0.1"), linear_model(), SETTINGS)
    rounded_too = Asked("estimate", "epsilon", delta="0.1", at=np.ones(1), arithmetic="float32")
    with pytest.raises(InputError, match="real numbers"):
        shares_of(rounded_too, linear_model(), SETTINGS)
    constant = Asked("estimate", "epsilon", delta="0.1", leave_out=("l0", "l1"))
    with pytest.raises(InputError, match="no layer moves"):
        shares_of(constant, linear_model(), SETTINGS)

"""The command line and the API on real model files with the real engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import paramrob
from paramrob import smt
from paramrob.cli import main
from paramrob.progress import ProgressLine

CATS_SIDECAR = """
[input]
names = ["Hwt", "Bwt"]
units = ["g", "kg"]
lower = [6.3, 2.0]
upper = [20.5, 3.9]
[output]
labels = ["F", "M"]
"""


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code in (0, 1, 3), result.output
    return result


def report_of(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json", "-")
    report: dict[str, Any] = json.loads(result.stdout)
    report["exit"] = result.exit_code
    return report


def logistic_module() -> torch.nn.Sequential:
    layer = torch.nn.Linear(2, 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.07577862, 1.18118408]], dtype=torch.float64))
        layer.bias.fill_(-3.51518067)
    return torch.nn.Sequential(layer, torch.nn.Sigmoid())


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the published logistic model and its box; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(logistic_module(), "model.pt")
    Path("model.toml").write_text(CATS_SIDECAR)
    return tmp_path


@pytest.fixture
def hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network that no engine closes at once."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    layers: list[torch.nn.Module] = []
    for before, after in ((6, 24), (24, 24), (24, 1)):
        layer = torch.nn.Linear(before, after).double()
        weight = generator.normal(0, np.sqrt(2 / before), (after, before))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(generator.normal(0, 0.1, after)))
        layers += [layer, torch.nn.ReLU()]
    layers[-1] = torch.nn.Sigmoid()
    torch.save(torch.nn.Sequential(*layers), "hard.pt")
    return tmp_path


def test_a_bare_sequential_alone_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layers = (torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1), torch.nn.Sigmoid())
    torch.save(torch.nn.Sequential(*layers), "model.pt")
    result = invoke("check", "model.pt", "--delta", "0.01")
    flat = " ".join(result.stdout.split())
    assert "every input lies in [0, 1]" in flat
    assert "2-4-1, 17 parameters" in flat
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("delta", "epsilon", "above", "below"),
    [
        ("0.005", 0.0285255, 0.0243551, 0.0213440),
        ("0.01", 0.0575258, 0.0522627, 0.0401376),
    ],
)
def test_cats_closed_form(
    cats: Path, delta: str, epsilon: float, above: float, below: float
) -> None:
    found = report_of("estimate", "model.pt", "epsilon", "--delta", delta)
    assert found["exit"] == 0
    bracket = found["brackets"]["epsilon"]
    assert bracket["upper"] - bracket["lower"] <= 1e-6
    assert bracket["lower"] - 5e-8 <= epsilon <= bracket["upper"] + 5e-8
    assert bracket["witness"]["input"] == pytest.approx([20.5, 2.0], abs=1e-3)
    found = report_of("estimate", "model.pt", "sigma", "--delta", delta)
    assert found["exit"] == 0
    for side, truth in (("above", above), ("below", below)):
        bracket = found["brackets"]["sigma"][side]
        assert bracket["upper"] - bracket["lower"] <= 1e-6
        assert bracket["lower"] - 5e-8 <= truth <= bracket["upper"] + 5e-8


def test_the_boundary_in_the_box_refutes_labels_and_is_explained(cats: Path) -> None:
    result = invoke("check", "model.pt", "--delta", "0.01")
    assert result.exit_code == 1
    flat = " ".join(result.stdout.split())
    assert "labels can flip only within 0.0523 of the boundary" in flat
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("threshold", "code"),
    [
        (("--epsilon", "0.0575268"), 0),
        (("--epsilon", "0.0575248"), 1),
        (("--sigma", "0.0522637"), 0),
        (("--sigma", "0.0522617"), 1),
    ],
)
def test_thresholds_on_either_side_of_the_truth(
    cats: Path, threshold: tuple[str, str], code: int
) -> None:
    assert invoke("check", "model.pt", "--delta", "0.01", *threshold).exit_code == code


def test_the_largest_delta_that_keeps_epsilon(cats: Path) -> None:
    found = report_of("estimate", "model.pt", "delta", "--epsilon", "0.0575258", "-q")
    bracket = found["brackets"]["delta"]
    assert bracket["lower"] - 1e-6 <= 0.01 <= bracket["upper"] + 1e-6
    assert bracket["upper"] - bracket["lower"] <= 1e-6


def test_points_agree_with_the_closed_form(cats: Path) -> None:
    generator = np.random.default_rng(1)
    x = generator.uniform([6.3, 2.0], [20.5, 3.9], (40, 2))
    logit = x @ [0.07577862, 1.18118408] - 3.51518067
    reach = 0.01 * (np.abs(x).sum(axis=1) + 1)
    clear = np.abs(np.abs(logit) - reach) > 1e-9
    y = (logit > 0).astype(int)
    y[0] = 1 - y[0]
    np.savez("p.npz", x=x[clear], y=y[clear])
    found = report_of("check", "model.pt", "--delta", "0.01", "--at", "p.npz")
    robust = (np.abs(logit) > reach)[clear]
    assert [p["verdict"] == "robust" for p in found["points"]] == robust.tolist()
    assert not any(p["verdict"] == "unknown" for p in found["points"])
    correct = (y == (logit > 0))[clear]
    assert found["accuracy"]["reference"] == correct.mean()
    assert found["accuracy"]["certified"] == (correct & robust).mean()
    assert found["exit"] == 1


def test_local_epsilon_is_the_sigmoids_difference(cats: Path) -> None:
    found = report_of("estimate", "model.pt", "epsilon", "--delta", "0.01", "--at", "10,3")
    logit = 0.7577862 + 3 * 1.18118408 - 3.51518067
    ends = 1 / (1 + np.exp(-(logit + np.array([-0.14, 0.0, 0.14]))))
    truth = max(ends[1] - ends[0], ends[2] - ends[1])
    bracket = found["brackets"]["epsilon"]
    assert bracket["lower"] - 1e-12 <= truth <= bracket["upper"] + 1e-12
    assert found["property"]["scope"] == "local"


@pytest.mark.parametrize("quantity", ["epsilon", "sigma"])
def test_a_witness_stands_up_in_plain_torch(cats: Path, quantity: str) -> None:
    arguments = ("estimate", "model.pt", quantity, "--delta", "0.01", "--witness", "w.npz")
    found = report_of(*arguments)
    assert found["witness"]["file"] == "w.npz"
    assert invoke("replay", "w.npz").exit_code == 0
    saved = np.load("w.npz")
    model = torch.load("model.pt", weights_only=False).double()
    x = torch.from_numpy(saved["x"])
    before = model(x).item()
    state = {n.removeprefix("param/"): torch.from_numpy(saved[n]) for n in saved if "param/" in n}
    model.load_state_dict(state)
    after = model(x).item()
    assert before == pytest.approx(found["witness"]["reference_output"], abs=1e-12)
    assert after == pytest.approx(found["witness"]["perturbed_output"], abs=1e-12)
    if quantity == "epsilon":
        assert abs(after - before) >= found["brackets"]["epsilon"]["lower"] - 1e-12
    else:
        assert (before > 0.5) != (after > 0.5)


def test_the_api_gives_the_same_brackets(cats: Path) -> None:
    found = report_of("estimate", "model.pt", "epsilon", "--delta", "0.01")
    for model in ("model.pt", paramrob.load("model.pt")):
        bracket = paramrob.estimate(model, "epsilon", delta="0.01").brackets["epsilon"]
        assert bracket.lower == found["brackets"]["epsilon"]["lower"]
        assert bracket.upper == found["brackets"]["epsilon"]["upper"]
    box = [("6.3", "20.5"), ("2.0", "3.9")]
    outcome = paramrob.estimate(logistic_module(), "epsilon", delta=0.01, domain=box)
    found_again = outcome.brackets["epsilon"]
    assert found_again.lower <= bracket.upper
    assert bracket.lower <= found_again.upper
    assert found_again.width <= 1e-6


def logistic_onnx() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    weight = np.array([[0.07577862, 1.18118408]])
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["z"], "dense", transB=1),
            helper.make_node("Sigmoid", ["z"], ["y"], "squash"),
        ],
        "logistic",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["batch", 1])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array([-3.51518067]), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def logistic_sklearn() -> Any:
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).uniform([6.3, 2.0], [20.5, 3.9], (50, 2))
    fitted = LogisticRegression().fit(x, x[:, 0] > 12)
    fitted.coef_ = np.array([[0.07577862, 1.18118408]])
    fitted.intercept_ = np.array([-3.51518067])
    return fitted


@pytest.mark.parametrize("make", [logistic_module, logistic_onnx, logistic_sklearn])
def test_every_kind_of_object_gives_the_closed_form(make: Any) -> None:
    box = [("6.3", "20.5"), ("2.0", "3.9")]
    bracket = paramrob.estimate(make(), "epsilon", delta="0.01", domain=box).brackets["epsilon"]
    assert bracket.lower - 5e-8 <= 0.0575258 <= bracket.upper + 5e-8
    assert bracket.width <= 1e-6


def test_an_onnx_file_with_sizes_by_layer(cats: Path) -> None:
    import onnx

    onnx.save(logistic_onnx(), "net.onnx")
    Path("p.toml").write_text('[layer.dense]\ndelta = "0.01"\nweights = false\n')
    found = report_of("estimate", "net.onnx", "epsilon", "--perturbation", "p.toml", "--at", "10,3")
    logit = 0.7577862 + 3 * 1.18118408 - 3.51518067
    ends = 1 / (1 + np.exp(-(logit + np.array([-0.01, 0.0, 0.01]))))
    bracket = found["brackets"]["epsilon"]
    truth = max(ends[1] - ends[0], ends[2] - ends[1])
    assert bracket["lower"] - 1e-12 <= truth <= bracket["upper"] + 1e-12
    assert found["perturbation"]["kind"] == "layers"
    assert found["exit"] == 0


def test_a_timeout_leaves_a_bracket_that_holds(hard: Path) -> None:
    found = report_of("estimate", "hard.pt", "epsilon", "--delta", "0.01", "--timeout", "0.3")
    assert found["exit"] == 3
    assert "--timeout" in found["reason"]
    bracket = found["brackets"]["epsilon"]
    assert bracket["lower"] is not None
    assert bracket["upper"] is None or bracket["lower"] < bracket["upper"]


@pytest.mark.parametrize("extra", [(), ("--cross-check", "z3")])
@pytest.mark.parametrize("command", [("check",), ("estimate", "epsilon")])
def test_an_interrupt_prints_the_bracket_so_far(
    hard: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], extra: tuple[str, ...]
) -> None:
    """No other engine is asked any more."""
    seen: list[float] = []

    def press_ctrl_c(self: ProgressLine, name: str, lower: float, upper: float) -> None:
        seen.append(upper)
        if upper < 1:
            os.kill(os.getpid(), signal.SIGINT)

    def no_more(*given: object, **named: object) -> None:
        pytest.fail("a second engine was asked")

    monkeypatch.setattr(ProgressLine, "__call__", press_ctrl_c)
    monkeypatch.setattr(smt, "decide", no_more)
    monkeypatch.setattr(smt, "estimate", no_more)
    first, *rest = command
    threshold = ["--epsilon", "0.35"] if first == "check" else []
    options = ["--delta", "0.01", *threshold, "--timeout", "60", *extra]
    result = invoke(first, "hard.pt", *rest, *options)
    assert result.exit_code == 3
    assert "stopped by the user" in result.stdout
    assert len(seen) > 1 or seen[0] < 1
    if first == "estimate":
        assert "epsilon" in result.stdout
        assert ".." in result.stdout
        assert "infinity" not in result.stdout


@pytest.mark.parametrize("command", [("check",), ("estimate", "epsilon")])
def test_an_interrupt_of_the_second_engine_keeps_what_the_first_found(
    hard: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def stopped(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(smt, "decide", stopped)
    monkeypatch.setattr(smt, "estimate", stopped)
    first, *rest = command
    threshold = ["--epsilon", "0.266"] if first == "check" else []
    result = invoke(first, "hard.pt", *rest, "--delta", "0.01", *threshold, "--timeout", "2")
    assert result.exit_code == 3
    assert "stopped by the user" in result.stdout
    assert "infinity" not in result.stdout

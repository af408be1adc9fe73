"""``paramrob compare`` as a user types it: reports, files, exit codes, and wrong use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from paramrob.cli import main
from tests.models.onnx_graphs import node
from tests.quantized_graphs import boxed, model_of, scalar

EYE = np.eye(2)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def save_pt(path: Path, weight: Any, bias: Any, *more: nn.Module) -> Path:
    array = torch.tensor(np.asarray(weight), dtype=torch.float64)
    layer = nn.Linear(array.shape[1], array.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(array)
        layer.bias.copy_(torch.tensor(bias))
    torch.save(nn.Sequential(layer, *more), path)
    return path


def save_int8(path: Path, bias: float = 0.0) -> Path:
    """Write a network that rounds its input to tenths, and adds ``bias`` to its first output."""
    constants = {
        "s": scalar(0.1),
        "z": boxed(128),
        "w": np.array([[10, 0], [0, 10]], dtype=np.int8),
        "b": np.array([bias, 0.0], dtype=np.float32),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["h"]),
        node("DequantizeLinear", ["w", "s"], ["v"]),
        node("Gemm", ["h", "v", "b"], ["y"], name="fc"),
    ]
    onnx.save(model_of(nodes, constants, ("N", 2)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_pt(tmp_path / "a.pt", EYE, [0.0, 0.0])
    save_int8(tmp_path / "b.onnx", 0.05)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_refuted_point_in_every_form(folder: Path) -> None:
    np.savez("p.npz", x=np.array([[0.5, 0.9], [0.5, 0.51], [0.9, 0.2]]), y=np.array([1, 1, 0]))
    files = ("--json", "o.json", "--csv", "r.csv", "--html", "o.html", "--witness", "w.npz")
    shown = invoke("compare", "a.pt", "b.onnx", "--at", "p.npz", *files)
    assert shown.exit_code == 1, shown.output
    said = " ".join(shown.output.split())
    for words in (
        "does the model give the label that the reference gives, at each of 3 points?",
        "reference a.pt: 2-2, 6 parameters",
        "as they stand in the file",
        "agreement 66.67 % of the points proved; onnxruntime shows 1 of 1 refutations",
        "reference 0.4975 0.5025 label 1",
        "shows the same, with labels 1 and 0",
        "the reference is no ONNX file",
    ):
        assert words in said
    found = json.loads(Path("o.json").read_text())
    assert found["command"] == "compare"
    assert found["reference"]["path"] == "a.pt"
    assert re.fullmatch("[0-9a-f]{64}", found["reference"]["sha256"])
    assert found["model"]["sha256"] != found["reference"]["sha256"]
    assert found["perturbation"] == {"kind": "none"}
    assert found["agreement"] == {"certified": 2 / 3, "at_most": 2 / 3}
    assert found["accuracy"]["certified"] == 2 / 3
    assert found["witness"]["labels"] == [1, 0]
    assert found["runtime"]["name"] == "onnxruntime"
    assert found["runtime"]["labels"] == [1, 0]
    assert found["runtime"]["reproduced"] is True
    assert found["runtime"]["reference_output"] is None
    assert [p["runtime"] is None for p in found["points"]] == [True, False, True]
    rows = [line.split(",")[4] for line in Path("r.csv").read_text().splitlines()[2:]]
    assert sorted(rows) == ["not_robust", "robust", "robust"]
    page = Path("o.html").read_text()
    assert "the model gives another label than the reference" in page
    assert "In a runtime: onnxruntime" in page
    assert "trained" not in page


def test_a_witness_is_about_both_files(folder: Path) -> None:
    made = invoke("compare", "a.pt", "b.onnx", "--at", "0.5,0.51", "--witness", "w.npz")
    assert made.exit_code == 1
    again = invoke("replay", "w.npz")
    assert again.exit_code == 0
    said = " ".join(again.output.split())
    assert "reference a.pt model b.onnx" in said
    assert "question does the model give the label that the reference gives?" in said
    assert "answer REPRODUCED" in said
    Path("a.pt").rename("c.pt")
    gone = invoke("replay", "w.npz")
    assert gone.exit_code == 2
    assert "--reference PATH" in gone.output
    assert invoke("replay", "w.npz", "--reference", "c.pt", "-q").output == "reproduced\n"
    save_pt(folder / "a.pt", EYE, [0.0, 0.01])
    other = invoke("replay", "w.npz")
    assert other.exit_code == 2
    assert "a.pt is not the reference that the witness was found on" in other.output


def test_a_witness_about_one_model_takes_no_reference(folder: Path) -> None:
    invoke("check", "a.pt", "--at", "0.5,0.51", "--delta", "0.5", "--witness", "w.npz")
    shown = invoke("replay", "w.npz", "--reference", "b.onnx")
    assert shown.exit_code == 2
    assert "leave --reference out" in shown.output


def test_proved_and_open_points(folder: Path) -> None:
    assert invoke("compare", "a.pt", "b.onnx", "--at", "0.5,0.9", "-q").output == "robust\n"
    # the first number may be rounded to 0.4, 0.5 or 0.6 once a step is allowed for
    steps = ("--at", "0.5,0.58", "--runtime-steps", 1, "--timeout", 2)
    shown = invoke("compare", "a.pt", "b.onnx", *steps)
    assert shown.exit_code == 3
    assert "each rounding may be off by 1 step(s) of its grid" in " ".join(shown.output.split())


def test_epsilon_and_its_question(folder: Path) -> None:
    pair = ("compare", "a.pt", "b.onnx", "--at", "0.5,0.51")
    shown = invoke(*pair, "--epsilon", "0.5")
    assert shown.exit_code == 0
    said = " ".join(shown.output.split())
    assert "do the confidences of the two differ by at most 0.5, at this input?" in said
    assert invoke(*pair, "--epsilon", "0.001").exit_code == 1
    clear = invoke(*pair, "--sigma", "0.1")
    assert clear.exit_code == 0
    assert "where the reference is at least 0.1 from" in " ".join(clear.output.split())


def test_parameters_of_the_model_may_move(folder: Path) -> None:
    save_pt(folder / "b.pt", EYE, [0.0, 0.1])
    pair = ("compare", "a.pt", "b.pt", "--at", "0.2,0.5")
    assert invoke(*pair, "--delta", "0.01").exit_code == 0
    shown = invoke(*pair, "--delta", "0.5", "--json", "-")
    assert shown.exit_code == 1
    found = json.loads(shown.stdout)
    assert found["perturbation"] == {"kind": "uniform", "delta": "0.5"}
    assert found["runtime"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.pt",), "Missing argument 'MODEL'"),
        (("a.pt", "missing.onnx"), "missing.onnx: no such file"),
        (("a.pt", "wide.pt"), "a.pt takes 2 input(s) and gives 2 output(s), wide.pt takes 3"),
        (("a.pt", "one.pt"), "gives 1; compare two files with the same inputs and outputs"),
        (("a.pt", "soft.pt"), "'logits', that of soft.pt 'probabilities'"),
        (("a.pt", "a.pt", "--runtime-steps", "1"), "the model has none"),
        (("a.pt", "b.onnx", "--runtime-steps", "-1"), "0 or more"),
        (("a.pt", "b.onnx", "--leave-out", "fc"), "nothing moves without it"),
        (("a.pt", "b.onnx", "--delta", "0.1", "--perturbation", "p.toml"), "two perturbations"),
        (("a.pt", "b.onnx", "--at", "1,1", "--domain", "0:1"), "give one of them"),
        (("a.pt", "named.pt"), "name different inputs"),
        (("a.pt", "broken.onnx"), "the scale 's' is 0.0"),
    ],
)
def test_wrong_use_is_one_sentence(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    save_pt(folder / "wide.pt", np.ones((2, 3)), [0.0, 0.0])
    save_pt(folder / "one.pt", np.ones((1, 2)), [0.0])
    save_pt(folder / "soft.pt", EYE, [0.0, 0.0], nn.Softmax(dim=-1))
    save_pt(folder / "named.pt", EYE, [0.0, 0.0])
    (folder / "a.toml").write_text('[input]\nnames = ["u", "v"]\n')
    (folder / "named.toml").write_text('[input]\nnames = ["v", "u"]\n')
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    broken = model_of(nodes, {"s": scalar(0.0), "z": boxed(0)}, ("N", 2))
    onnx.save(broken, folder / "broken.onnx")
    at = () if "--at" in arguments else ("--at", "0.5,0.6")
    shown = invoke("compare", *arguments, *at)
    assert shown.exit_code == 2
    assert words in " ".join(shown.output.split())
    assert "Traceback" not in shown.output


def test_images_of_other_orders_are_refused(folder: Path) -> None:
    for name, shape in (("chw", (3, 4, 4)), ("hwc", (4, 4, 3))):
        nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
        model = model_of(nodes, {"w": np.ones((48, 2), dtype=np.float32)}, ("N", *shape))
        onnx.save(model, folder / f"{name}.onnx")
    shown = invoke("compare", "chw.onnx", "hwc.onnx", "--at", ",".join(["0"] * 48))
    assert shown.exit_code == 2
    assert "axes in one order" in " ".join(shown.output.split())


def test_levels_that_differ_are_refused(folder: Path) -> None:
    for name, level in (("one", 0.5), ("two", 0.4)):
        save_pt(folder / f"{name}.pt", [[1.0, 0.0]], [0.0])
        (folder / f"{name}.toml").write_text(f'[output]\nkind = "value"\nlevel = {level}\n')
    pair = ("compare", "one.pt", "two.pt", "--at", "0.45,0")
    shown = invoke(*pair)
    assert shown.exit_code == 2
    assert "at 0.5 and at 0.4" in shown.output
    assert invoke(*pair, "--level", "0.5").exit_code == 0


def test_what_the_reference_says_holds_for_both(folder: Path) -> None:
    (folder / "a.toml").write_text(
        '[input]\nnames = ["u", "v"]\n[output]\nlabels = ["no", "yes"]\n'
    )
    shown = invoke("compare", "a.pt", "b.onnx", "--at", "0.5,0.51")
    said = " ".join(shown.output.split())
    assert "u = 0.5, v = 0.51" in said
    assert "label yes" in said
    assert "label no" in said

"""Loading: which reader, what is merged, what is assumed, and what is refused."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from torch import nn

from paramrob.errors import InputError, ModelError
from paramrob.models.load import load
from paramrob.models.model import Model, OutputInfo
from paramrob.models.torch_module import from_torch
from tests.models.test_torch_file import check_outputs
from tests.models.torch_crafted import saved, small


def write(folder: Path, data: bytes, name: str = "model.pt", sidecar: str = "") -> Path:
    file = folder / name
    file.write_bytes(data)
    if sidecar:
        file.with_suffix(".toml").write_text(sidecar)
    return file


def logits(outputs: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, outputs))


def an_onnx_model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((1, 2), np.float32), "w")
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", transB=1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def exported(model: nn.Module) -> bytes:
    target = io.BytesIO()
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 2),)), target)
    return target.getvalue()


def test_each_kind_of_file(tmp_path: Path) -> None:
    model = logits()
    files = [
        write(tmp_path, saved(model), "a.pt"),
        write(tmp_path, saved(model, zip_format=False), "b.pth"),
        write(tmp_path, saved(model), "c.model"),
        write(tmp_path, exported(model), "d.pt2"),
        write(tmp_path, exported(model), "e.pt"),
        write(
            tmp_path,
            saved(model.state_dict()),
            "f.pt",
            '[model]\nlayers = ["linear:0", "relu", "linear:2"]',
        ),
    ]
    for file in files:
        read = load(file)
        assert read.path == str(file)
        assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert read.network.architecture == "2-3-1"
        if file.name not in {"d.pt2", "e.pt"}:
            check_outputs(read.network, model)
    onnx_file = write(tmp_path, an_onnx_model().SerializeToString(), "g.onnx")
    assert load(str(onnx_file)).network.architecture == "2-1"


def test_each_kind_of_object() -> None:
    model = logits()
    network = from_torch(model)
    for source in (model, network):
        read = load(source)
        assert isinstance(read, Model)
        assert (read.path, read.sha256) == (None, None)
        assert read.network.nodes == network.nodes
    assert load(an_onnx_model()).network.architecture == "2-1"
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    estimator = LogisticRegression().fit(x, [0, 0, 1, 1])
    read = load(estimator)
    assert read.output.kind == "logit"
    assert not any("logit" in sentence for sentence in read.assumptions)
    with pytest.raises(ModelError, match=r"type Tensor.*torch\.nn\.Module"):
        load(torch.zeros(3))
    with pytest.raises(ModelError, match="type dict"):
        load(model.state_dict() and {"a": 1})


def test_sidecar_then_options_then_assumptions(tmp_path: Path) -> None:
    assumed = load(write(tmp_path, saved(logits())))
    assert assumed.output == OutputInfo("logit", Fraction(1, 2))
    assert assumed.assumptions == ("the one output is a logit (class 1 above 0)",)
    sidecar = "[input]\nlower = [0.1, 0]\nupper = [0.3, 1]\n[output]\nkind = 'logit'\nlevel = 0.3\n"
    file = write(tmp_path, saved(logits()), sidecar=sidecar + "labels = ['no', 'yes']")
    said = load(file)
    assert said.output == OutputInfo("logit", Fraction(3, 10), ("no", "yes"))
    assert said.inputs.lower == (Fraction(1, 10), Fraction(0))
    assert said.assumptions == ()
    assert load(file, level="0.7").output.level == Fraction(7, 10)
    assert load(file, level=0.7).output.level == Fraction(7, 10)
    value = load(file, output_kind="value")  # a level of another unit is not taken over
    assert value.output == OutputInfo("value", None, ("no", "yes"))
    assert load(file, output_kind="value", level=3).output.level == 3
    other = write(tmp_path, b"x", "other.pt", "[output]\nkind = 'value'").with_suffix(".toml")
    assert load(file, sidecar=other).output == OutputInfo("value", None)
    again = load(load(logits()), output_kind="value")
    assert again.output == OutputInfo("value", None)
    assert again.assumptions == ()


def test_what_is_assumed_is_said() -> None:
    assert load(small()).output == OutputInfo("probability")
    assert "probability" in load(small()).assumptions[0]
    classes = load(nn.Sequential(nn.Linear(2, 3), nn.Softmax(1), nn.Dropout(), nn.Flatten()))
    assert classes.output == OutputInfo("probabilities", None)
    assert load(logits(3)).output == OutputInfo("logits", None)
    layer = nn.Linear(2, 2)
    shared = load(nn.Sequential(layer, nn.ReLU(), layer))
    assert any("used at several places (0.weight, 0.bias)" in s for s in shared.assumptions)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(x * torch.tensor([1.0, 2.0]))
            return out

    sentences = load(Scaled()).assumptions
    assert any("constants of layers mul" in sentence for sentence in sentences)
    assert load(load(Scaled())).assumptions == sentences


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (1, {"output_kind": "logits"}, "use logit, probability or value"),
        (3, {"output_kind": "logit"}, "use logits, probabilities or value"),
        (3, {"output_kind": "probabilities"}, "only behind a softmax"),
        (1, {"output_kind": "chance"}, "no output kind 'chance'"),
        (1, {"level": "1"}, r"outside \(0, 1\)"),
        (1, {"level": "x"}, "level: 'x' is not a finite decimal"),
        (1, {"level": float("nan")}, "not a finite decimal"),
        (3, {"level": 0.5}, "several outputs have no level"),
        (1, {"input_shape": (3,)}, "input of shape"),
        (1, {"input_shape": (0,)}, "positive whole numbers"),
        (1, {"input_shape": ()}, "positive whole numbers"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, outputs: int, options: dict[str, object], message: str
) -> None:
    model = logits(outputs)
    for source in (model, write(tmp_path, saved(model))):
        with pytest.raises(InputError, match=message):
            load(source, **options)  # type: ignore[arg-type]


def test_sidecars_that_do_not_fit(tmp_path: Path) -> None:
    file = write(tmp_path, saved(logits()), sidecar="[input]\nnames = ['a']")
    with pytest.raises(InputError, match="the model takes 2"):
        load(file)
    write(tmp_path, b"", sidecar="[output]\nlabel = ['a']")
    with pytest.raises(InputError, match=r"output\.labels"):
        load(file)
    for name, data in (
        ("a.pt2", exported(logits())),
        ("a.onnx", an_onnx_model().SerializeToString()),
    ):
        file = write(tmp_path, data, name, "[model]\nlayers = ['relu']")
        with pytest.raises(InputError, match="only for a bare state_dict"):
            load(file)
    with pytest.raises(InputError, match="only for a bare state_dict"):
        load(logits(), sidecar=file.with_suffix(".toml"))


def test_an_image_shape_comes_from_the_sidecar_or_the_option(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    file = write(tmp_path, saved(model), sidecar="[input]\nshape = [2, 3]")
    assert load(file).network.input_shape == (2, 3)
    assert load(file, input_shape=[2, 3]).network.input_shape == (2, 3)
    with pytest.raises(InputError, match=r"holds 6 numbers|does not fit"):
        load(file, input_shape=(3, 3))
    assert load(model, input_shape=(6,)).network.input_shape == (6,)


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "an empty file": ("model.pt", b"", "is empty"),
    "text": ("model.pt", b"hello, this is no model at all", "no model|damaged"),
    "a binary": ("model.pt", bytes(range(256)) * 10, "no model|damaged"),
    "a truncated zip": ("model.pt", b"PK\x03\x04" + bytes(50), "truncated or damaged"),
    "a zip of something else": ("model.pt2", b"PK\x05\x06" + bytes(18), "no model|damaged"),
    "an unknown suffix": ("model.h5", b"\x89HDF", r"unknown kind of file '\.h5'.*\.onnx"),
    "no suffix": ("model", b"abc", "unknown kind of file ''"),
    "an empty onnx": ("model.onnx", b"", "is empty"),
    "a damaged onnx": ("model.onnx", b"hello, this is no model", "onnx|ONNX"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_files(case: str, tmp_path: Path) -> None:
    name, data, message = UNREADABLE[case]
    file = write(tmp_path, data, name)
    with pytest.raises(ModelError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "none.pt")
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)
    for name in ("a\0b.pt", "a" * 5000, "a" * 5000 + ".pt"):
        with pytest.raises(ModelError, match="cannot be read"):
            load(name)
    with pytest.raises(ModelError, match="is a folder"):
        load("")
    if os.geteuid() != 0:
        file = write(tmp_path, saved(logits()))
        file.chmod(0)
        with pytest.raises(ModelError, match="cannot be read"):
            load(file)


def test_files_are_read_without_torch(tmp_path: Path) -> None:
    files = [
        write(tmp_path, saved(logits()), "a.pt"),
        write(tmp_path, exported(logits()), "b.pt2"),
    ]
    program = (
        "import sys; from paramrob.models.load import load\n"
        f"for path in {[str(file) for file in files]}: load(path)\n"
        "assert not {'torch', 'onnx', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])

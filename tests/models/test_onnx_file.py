"""What an ONNX file may and may not hold, and that nothing outside its folder is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Dense
from paramrob.models.onnx_file import read_onnx
from tests.models.onnx_graphs import Dims, build, node

RNG = np.random.default_rng(1)
W = RNG.normal(size=(4, 3))


def small() -> onnx.ModelProto:
    nodes = [node("Gemm", ["x", "w", "b"], ["h"], name="fc"), node("Relu", ["h"], ["y"])]
    return build(nodes, {"w": W, "b": W[0]})


def test_path_string_and_proto_agree(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small(), path)
    x = RNG.normal(size=(3, 4))
    for source in (path, str(path), small()):
        np.testing.assert_array_equal(read_onnx(source).evaluate(x), np.maximum(x @ W + W[0], 0.0))


@pytest.mark.parametrize(
    ("elem", "dtype", "bits"),
    [
        (TensorProto.FLOAT16, np.float16, np.uint16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16, np.uint16),
        (TensorProto.FLOAT, np.float32, np.uint32),
        (TensorProto.DOUBLE, np.float64, np.uint64),
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_every_float_type_keeps_its_exact_values(
    elem: int, dtype: type, bits: type, raw: bool
) -> None:
    mantissa, bias = {2: (10, 15), 4: (23, 127), 8: (52, 1023)}[np.dtype(bits).itemsize]
    if elem == TensorProto.BFLOAT16:
        mantissa, bias = 7, 127
    width = np.dtype(bits).itemsize * 8
    codes = [0, 1, 2**mantissa - 1, *map(int, RNG.integers(0, 2 ** (width - 2), size=10))]
    codes += [code | 1 << (width - 1) for code in codes[1:]]

    def exact(code: int) -> Fraction:
        sign = -1 if code >> (width - 1) else 1
        exponent = (code >> mantissa) & (2 ** (width - 1 - mantissa) - 1)
        fraction = code & (2**mantissa - 1)
        if exponent:
            fraction += 2**mantissa
        power = max(exponent, 1) - bias - mantissa
        return Fraction(sign * fraction * 2 ** max(power, 0), 2 ** max(-power, 0))

    stored: npt.NDArray[Any] = np.array(codes, dtype=bits).view(dtype)
    if raw:
        tensor = onnx.helper.make_tensor("w", elem, stored.shape, stored.tobytes(), raw=True)
    else:
        field = {TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data"}
        tensor = TensorProto(name="w", data_type=elem, dims=stored.shape)
        values = stored if elem in field else stored.view(np.uint16)
        getattr(tensor, field.get(elem, "int32_data")).extend(values.tolist())
    model = build(
        [node("Add", ["x", "w"], ["y"])],
        {"w": tensor},
        shape=("N", len(codes)),
        elem=elem,
        opset=14,
    )
    parameter = read_onnx(model).parameters["w"]
    assert [Fraction(float(v)) for v in parameter.value] == [exact(c) for c in codes]
    assert parameter.dtype == np.dtype(dtype).name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        read_onnx(build([node("Add", ["x", "w"], ["y"])], {"w": np.array([bad, 1, 1, 1])}))


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    data = small().SerializeToString()
    path = tmp_path / "m.onnx"
    intact = read_onnx(small())
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_onnx(path)
    path.write_bytes(data)
    assert read_onnx(path).nodes == intact.nodes


def test_flipped_bits_never_crash(tmp_path: Path) -> None:
    data = small().SerializeToString()
    path = tmp_path / "m.onnx"
    for position in range(0, len(data), 5):
        broken = bytearray(data)
        broken[position] ^= 1 << int(RNG.integers(8))
        path.write_bytes(bytes(broken))
        try:
            read_onnx(path)
        except ModelError:
            continue


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n", b"PK\x03\x04" + bytes(60)])
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no ONNX model"):
        read_onnx(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(ModelError, match="cannot read"):
            read_onnx(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("N", "M"), "without a fixed size"),
        (("N",), "without a fixed size"),
        (("N", None), "without a fixed size"),
        (("N", 0), "without a fixed size"),
        ((8, 4), "fixed batch"),
        ((), "no shape"),
    ],
)
def test_input_shapes_that_are_refused(shape: Dims, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_onnx(build([node("Relu", ["x"], ["y"])], shape=shape, rank=len(shape)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(("N", 4), (4,)), ((None, 4), (4,)), ((1, 4), (4,)), ((4,), (4,)), ((1, 1, 2, 2), (1, 2, 2))],
)
def test_input_shapes_that_are_read(shape: Dims, expected: tuple[int, ...]) -> None:
    network = read_onnx(build([node("Relu", ["x"], ["y"])], shape=shape, rank=len(shape)))
    assert network.input_shape == network.output_shape == expected


def test_one_input_and_one_output() -> None:
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, [1]))
    with pytest.raises(ModelError, match=r"2 inputs \['x', 'z'\]"):
        read_onnx(model)
    model = small()
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.DOUBLE, [None, 3]))
    with pytest.raises(ModelError, match="2 outputs"):
        read_onnx(model)


def test_initialisers_listed_as_inputs_are_constants() -> None:
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.DOUBLE, [4, 3]))
    assert set(read_onnx(model).parameters) == {"w", "b"}


def test_outputs_that_ignore_the_input() -> None:
    model = build([node("Identity", ["w"], ["y"])], {"w": W})
    with pytest.raises(ModelError, match="does not depend on the input"):
        read_onnx(model)
    with pytest.raises(ModelError, match="unchanged"):
        read_onnx(build([node("Identity", ["x"], ["y"])]))


def test_inputs_of_integers() -> None:
    model = build([node("Relu", ["x"], ["y"])], elem=TensorProto.INT32, opset=14)
    with pytest.raises(ModelError, match="floats"):
        read_onnx(model)


def _custom_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _function(model: onnx.ModelProto) -> None:
    body = [node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("", "Relu", ["a"], ["b"], body, opsets))


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.name = "b"


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 6


def _unsorted(model: onnx.ModelProto) -> None:
    nodes = [model.graph.node[1], model.graph.node[0]]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _unknown_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("alpha", 2.0))


def _wrong_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(W.astype(np.float32), "w"))


def _twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(2 * W, "w"))


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"1234"


def _future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10**6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_custom_domain, r"Relu.*com\.microsoft"),
        (_function, "local functions"),
        (_training, "training information"),
        (_sparse, "sparse initialisers"),
        (_old, "opset 6"),
        (_unsorted, "not a valid ONNX model"),
        (_unknown_attribute, "not a valid ONNX model"),
        (_wrong_type, "not a valid ONNX model"),
        (_twice, "w initializer name"),
        (_short, "not a valid ONNX model"),
        (_future, "opset 1000000"),
    ],
)
def test_models_that_are_refused(change: Callable[[onnx.ModelProto], None], words: str) -> None:
    model = small()
    change(model)
    with pytest.raises(ModelError, match=words):
        read_onnx(model)


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [node("Relu", ["x"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.DOUBLE, [None, 4])],
    )
    flow = node("If", ["c"], ["y"], name="fork", then_branch=branch, else_branch=branch)
    with pytest.raises(UnsupportedOperatorError, match=r"fork.*If.*subgraph"):
        read_onnx(build([flow], {"c": np.array(True)}))


def external(folder: Path, **changes: str) -> Path:
    """Save the small model with ``w`` in a file of its own, as ``changes`` say."""
    model = small()
    tensor = model.graph.initializer[0]
    (folder / "w.bin").write_bytes(b"\0" * 8 + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin", "offset": "8", "length": "96"} | changes).items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(read_onnx(external(tmp_path)).parameters["w"].value, W.T)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_onnx("m.onnx").parameters["w"].value, W.T)
    model = onnx.load("m.onnx", load_external_data=False)
    with pytest.raises(ModelError, match="give the path"):
        read_onnx(model)


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "", "link.bin"])
def test_external_data_elsewhere_is_not_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(200))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_onnx(external(folder, location=location))
    absolute = external(folder, location=str(tmp_path / "secret.bin"))
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_onnx(absolute)


@pytest.mark.parametrize(
    "changes",
    [
        {"location": "none.bin"},
        {"location": "sub"},
        {"offset": "9"},
        {"offset": "-8"},
        {"length": "97"},
        {"length": "88"},
        {"offset": "x"},
        {"length": "99999999999999"},
    ],
)
def test_external_data_that_does_not_fit(tmp_path: Path, changes: dict[str, str]) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(ModelError):
        read_onnx(external(tmp_path, **changes))


def test_external_data_in_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="no file"):
        read_onnx(external(tmp_path, location="pipe"))


@pytest.mark.parametrize(("offset", "shared"), [(0, True), (128, False), (8, None)])
def test_two_tensors_with_one_storage_are_one_parameter(
    tmp_path: Path, offset: int, shared: bool | None
) -> None:
    nodes = [
        node("Gemm", ["x", "v", ""], ["h"], name="one"),
        node("Gemm", ["h", "w", ""], ["y"], name="two"),
    ]
    square = RNG.normal(size=(4, 4))
    model = build(nodes, {"v": square, "w": square})
    (tmp_path / "all.bin").write_bytes(model.graph.initializer[0].raw_data * 3)
    for tensor, start in zip(model.graph.initializer, (0, offset), strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "all.bin"), ("offset", start), ("length", 128)):
            tensor.external_data.add(key=key, value=str(value))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    if shared is None:
        with pytest.raises(ModelError, match="share a part"):
            read_onnx(path)
        return
    network = read_onnx(path)
    assert network.is_shared("v") == shared
    assert network.nodes[2].op == Dense("v" if shared else "w")

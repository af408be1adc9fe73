"""Quantized operators of ONNX: exactly what their integers stand for, as onnxruntime has it.

Scales that are powers of two leave onnxruntime nothing to round, so that its results have to be
met exactly; other scales are checked against rationals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from paramrob.models.network import Dense, Network, Quantize
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from tests.models.onnx_graphs import build, node, run

RNG = np.random.default_rng(5)
Array = npt.NDArray[Any]
FLOAT = TensorProto.FLOAT


def scalar(value: float | np.float32) -> Array:
    return np.array(value, dtype=np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array | onnx.TensorProto],
    shape: Sequence[int | str] = ("N", 4),
    *,
    opset: int = 13,
    rank: int = 2,
) -> onnx.ModelProto:
    model = build(nodes, constants, shape, opset=opset, elem=FLOAT, rank=rank)
    model.ir_version = 10
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def own(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **more: Any) -> onnx.NodeProto:
    return node(op_type, inputs, outputs, domain="com.microsoft", **more)


def exactly(model: onnx.ModelProto, *shape: int, scale: float = 2.0) -> Network:
    """Read the model; its results have to be onnxruntime's, number by number."""
    network = read_onnx(model)
    x = (scale * RNG.normal(size=shape or (200, 4))).astype(np.float32)
    x[: len(x) // 2] = np.round(x[: len(x) // 2] * 8) / 8  # many ties
    ours = network.evaluate(x.reshape(-1, *network.input_shape).astype(np.float64))
    np.testing.assert_array_equal(ours.ravel(), run(model, x).ravel())
    for i in (0, len(x) - 1):
        exact = evaluate_exact(network, x[i].astype(np.float64))
        assert [Fraction(int(v.p), int(v.q)) for v in exact] == [
            Fraction(v) for v in ours.reshape(len(x), -1)[i].tolist()
        ]
    return network


def quantizes(network: Network) -> list[Quantize]:
    return [n.op for n in network.nodes if isinstance(n.op, Quantize)]


def boxed(zero: int | Array, dtype: type[Any] = np.uint8) -> Array:
    return np.array(zero, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "zero", "opset"),
    [
        (np.uint8, 3, 10),
        (np.int8, -5, 13),
        (np.uint8, 255, 19),
        (np.int16, -300, 21),
        (np.uint16, 1000, 21),
        (np.int8, 0, 23),
    ],
)
def test_activations_on_a_grid(dtype: type[Any], zero: int, opset: int) -> None:
    constants = {"s": scalar(2**-7), "z": boxed(zero, dtype)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="onto"),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    network = exactly(model_of(nodes, constants, opset=opset))
    ends = np.iinfo(dtype)
    assert quantizes(network) == [Quantize(2**-7, zero, int(ends.min), int(ends.max))]
    assert network.nodes[-1].name == "onto"


def test_a_missing_zero_point_is_zero_of_uint8() -> None:
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["y"])]
    network = exactly(model_of(nodes, {"s": scalar(0.25)}))
    assert quantizes(network) == [Quantize(0.25, 0, 0, 255)]


def test_onnxruntimes_own_form_for_sixteen_bits() -> None:
    constants = {"s": scalar(2**-10), "z": boxed(7, np.int16)}
    nodes = [
        own("QuantizeLinear", ["x", "s", "z"], ["q"]),
        own("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    assert quantizes(exactly(model_of(nodes, constants)))[0].low == -(2**15)


def weights_of(kind: int, shape: tuple[int, ...]) -> tuple[onnx.TensorProto, npt.NDArray[np.int64]]:
    low, high = {
        TensorProto.INT4: (-8, 7),
        TensorProto.UINT4: (0, 15),
        TensorProto.INT8: (-128, 127),
        TensorProto.UINT8: (0, 255),
        TensorProto.INT16: (-(2**15), 2**15 - 1),
        TensorProto.UINT16: (0, 2**16 - 1),
        TensorProto.INT32: (-(2**31), 2**31 - 1),
    }[kind]
    values = RNG.integers(low, high + 1, size=shape)
    values.flat[0], values.flat[1] = low, high
    return helper.make_tensor("w", kind, shape, values.ravel().tolist()), values


@pytest.mark.parametrize(
    "kind",
    [
        TensorProto.INT4,
        TensorProto.UINT4,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT16,
        TensorProto.UINT16,
    ],
)
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_weights_are_the_exact_products(kind: int, axis: int | None) -> None:
    tensor, values = weights_of(kind, (4, 3))
    count = 1 if axis is None else (4, 3)[axis]
    # scales of 24 bits, whose products with 16 a float32 cannot hold
    scales = RNG.uniform(0.001, 0.1, size=count).astype(np.float32)
    zeros = RNG.integers(0, 8, size=count)
    shape = () if axis is None else (count,)
    constants = {
        "w": tensor,
        "s": scales.reshape(shape),
        "z": helper.make_tensor("z", kind, shape, zeros.tolist()),
    }
    more = {} if axis is None else {"axis": axis}
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["v"], **more),
        node("MatMul", ["x", "v"], ["y"], name="fc"),
    ]
    network = read_onnx(model_of(nodes, constants, opset=21))
    assert network.layer_parameters() == {"fc": ("w",)}
    stored = network.parameters["w"]
    assert stored.dtype == TensorProto.DataType.Name(kind).lower()
    for i in range(4):
        for j in range(3):
            place = 0 if axis is None else (i, j)[axis]
            exact = (int(values[i, j]) - int(zeros[place])) * Fraction(float(scales[place]))
            assert Fraction(float(stored.value[j, i])) == exact


def test_weights_in_blocks() -> None:
    tensor, values = weights_of(TensorProto.INT8, (4, 5))
    scales = (2.0 ** RNG.integers(-8, -2, size=(2, 5))).astype(np.float32)
    zeros = RNG.integers(-9, 9, size=(2, 5)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0, block_size=3),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    model = model_of(nodes, {"w": tensor, "s": scales, "z": zeros}, opset=21)
    stored = read_onnx(model).parameters["w"].value
    for i in range(4):
        expected = (values[i] - zeros[i // 3]) * scales[i // 3].astype(np.float64)
        np.testing.assert_array_equal(stored[:, i], expected)


def test_a_weight_that_the_graph_quantizes_is_rounded_to_even() -> None:
    weight = (RNG.normal(size=(4, 3)) * 20).astype(np.float32)
    weight[:, 0] = [0.125, 0.375, -0.625, 90.0]  # ties, and one beyond the end
    constants = {"w": weight, "s": scalar(0.25), "z": boxed(1, np.int8)}
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["v"]),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    network = read_onnx(model_of(nodes, constants))
    stored = network.parameters["w"].value.T
    np.testing.assert_array_equal(stored[:, 0], [0.0, 0.5, -0.5, 31.5])
    for given, found in zip(weight.ravel().tolist(), stored.ravel().tolist(), strict=True):
        steps = min(max(round(Fraction(given) * 4) + 1, -128), 127) - 1
        assert found == steps / 4
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(
        network.evaluate(x.astype(np.float64)), run(model_of(nodes, constants), x)
    )


def _odd_biases() -> npt.NDArray[np.int32]:
    return np.array([2**31 - 1, -(2**31) + 3, 987654321], dtype=np.int32)


def test_a_bias_of_32_bits_loses_nothing() -> None:
    tensor, values = weights_of(TensorProto.INT8, (3, 4))
    scale, first, second = (np.float32(v) for v in (0.0123, 0.037, 1.1e-9))
    constants = {
        "w": tensor,
        "ws": scalar(scale),
        "b": _odd_biases(),
        "bs": scalar(second),
        "s": scalar(first),
        "z": boxed(7),
    }
    nodes = [
        node("DequantizeLinear", ["w", "ws"], ["v"]),
        node("DequantizeLinear", ["b", "bs"], ["c"]),
        node("Gemm", ["x", "v", "c"], ["y"], name="fc", transB=1),
    ]
    used = {k: v for k, v in constants.items() if k not in ("s", "z")}
    network = read_onnx(model_of(nodes, used))
    x = np.array([0.5, -3.0, 2.0, 1.0])
    found = evaluate_exact(network, x)
    for i in range(3):
        total = int(_odd_biases()[i]) * Fraction(float(second))
        total += sum(int(values[i, j]) * Fraction(float(scale)) * Fraction(x[j]) for j in range(4))
        assert found[i] == flint.fmpq(total.numerator, total.denominator)
    assert network.parameters["fc.rest.constant"].fixed


def test_a_bias_on_integers_loses_nothing() -> None:
    tensor, values = weights_of(TensorProto.INT8, (3, 4))
    xs, ws = np.float32(0.037), RNG.uniform(0.001, 0.1, size=3).astype(np.float32)
    constants = {
        "xs": scalar(xs),
        "xz": boxed(7),
        "w": tensor,
        "ws": ws,
        "wz": np.zeros(3, dtype=np.int8),
        "b": _odd_biases(),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        own("QGemm", ["q", "xs", "xz", "w", "ws", "wz", "b"], ["y"], name="fc", transB=1),
    ]
    network = read_onnx(model_of(nodes, constants))
    q = np.array([250, 7, 0, 9])
    found = evaluate_exact(network, (q - 7) * float(xs))
    for i in range(3):
        sums = int(_odd_biases()[i]) + sum(int(values[i, j]) * int(q[j] - 7) for j in range(4))
        total = sums * Fraction(float(xs)) * Fraction(float(ws[i]))
        assert found[i] == flint.fmpq(total.numerator, total.denominator)


def _image_constants(groups: int, per_channel: bool, dtype: type[Any]) -> dict[str, Array]:
    ends = np.iinfo(dtype)
    count = 6 if per_channel else 1
    shape = (6,) if per_channel else ()
    return {
        "xs": scalar(2**-4),
        "xz": boxed(100),
        "w": RNG.integers(ends.min, ends.max + 1, size=(6, 2 // groups, 3, 3)).astype(dtype),
        "ws": (2.0 ** RNG.integers(-9, -5, size=count)).astype(np.float32).reshape(shape),
        "wz": np.zeros(shape, dtype=dtype) if per_channel else boxed(dtype(3), dtype),
        "ys": scalar(2**-2),
        "yz": boxed(130),
        "b": RNG.integers(-3000, 3000, size=6).astype(np.int32),
    }


@pytest.mark.parametrize(("groups", "per_channel"), [(1, False), (1, True), (2, True)])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_convolution_on_integers(groups: int, per_channel: bool, dtype: type[Any]) -> None:
    constants = _image_constants(groups, per_channel, dtype)
    inputs = ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        node(
            "QLinearConv",
            inputs,
            ["r"],
            name="conv",
            pads=[1, 1, 1, 1],
            strides=[2, 1],
            group=groups,
        ),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2]),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 1, 3]),
        node("Flatten", ["t"], ["f"]),
        node("DequantizeLinear", ["f", "ys", "yz"], ["y"]),
    ]
    network = exactly(model_of(nodes, constants, ("N", 2, 5, 5)), 60, 2, 5, 5)
    assert network.layer_parameters() == {"conv": ("w", "b")}
    assert len(quantizes(network)) == 2


@pytest.mark.parametrize("per_channel", [False, True])
def test_matrix_product_on_integers(per_channel: bool) -> None:
    scales = np.array([2**-6, 2**-7, 2**-5], dtype=np.float32) if per_channel else scalar(2**-6)
    constants = {
        "xs": scalar(2**-5),
        "xz": boxed(3, np.int8),
        "w": RNG.integers(-128, 128, size=(4, 3)).astype(np.int8),
        "ws": scales,
        "wz": np.zeros(scales.shape, dtype=np.int8),
        "ys": scalar(0.25),
        "yz": boxed(-7, np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        node("QLinearMatMul", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["r"], name="fc"),
        node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]
    exactly(model_of(nodes, constants))


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_on_integers(rounds: bool, transposed: int) -> None:
    shape = (3, 4) if transposed else (4, 3)
    constants = {
        "xs": scalar(2**-5),
        "xz": boxed(100),
        "w": RNG.integers(-128, 128, size=shape).astype(np.int8),
        "ws": np.array([2**-6, 2**-7, 2**-5], dtype=np.float32),
        "wz": np.zeros(3, dtype=np.int8),
        "b": RNG.integers(-3000, 3000, size=3).astype(np.int32),
        "ys": scalar(0.125),
        "yz": boxed(128),
    }
    inputs = ["q", "xs", "xz", "w", "ws", "wz", "b"] + (["ys", "yz"] if rounds else [])
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        own("QGemm", inputs, ["r" if rounds else "y"], name="fc", transB=transposed),
    ]
    if rounds:
        nodes.append(node("DequantizeLinear", ["r", "ys", "yz"], ["y"]))
    network = exactly(model_of(nodes, constants if rounds else dict(list(constants.items())[:6])))
    assert len(quantizes(network)) == 1 + rounds


_GRIDS = {
    "xs": scalar(2**-5),
    "xz": boxed(100),
    "us": scalar(2**-4),
    "uz": boxed(128),
    "ys": scalar(2**-3),
    "yz": boxed(90),
}
_TWO = [
    node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
    node("QuantizeLinear", ["x", "us", "uz"], ["r"]),
]
_BACK = node("DequantizeLinear", ["o", "ys", "yz"], ["y"])


def _used(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array]) -> dict[str, Array]:
    named = {tensor for n in nodes for tensor in n.input}
    return {name: value for name, value in constants.items() if name in named}


def test_sums_and_joins_on_integers() -> None:
    parts = ["q", "xs", "xz", "r", "us", "uz"]
    for middle in (
        own("QLinearAdd", [*parts, "ys", "yz"], ["o"], name="plus"),
        own("QLinearConcat", ["ys", "yz", *parts], ["o"], name="join", axis=1),
    ):
        network = exactly(model_of([*_TWO, middle, _BACK], _GRIDS))
        assert len(quantizes(network)) == 3


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
def test_a_constant_of_integers(op_type: str) -> None:
    constants = {**_GRIDS, "c": RNG.integers(0, 256, size=4).astype(np.uint8)}
    nodes = [
        _TWO[0],
        own(op_type, ["q", "xs", "xz", "c", "us", "uz", "ys", "yz"], ["o"], name="by"),
        _BACK,
    ]
    network = exactly(model_of(nodes, constants))
    assert network.layer_parameters() == {"by": ("c",)}


def test_averages_on_integers() -> None:
    for middle in (
        own("QLinearGlobalAveragePool", ["q", "xs", "xz", "ys", "yz"], ["o"]),
        own("QLinearAveragePool", ["q", "xs", "xz", "ys", "yz"], ["o"], kernel_shape=[2, 2]),
    ):
        nodes = [_TWO[0], middle, _BACK]
        model = model_of(nodes, _used(nodes, _GRIDS), ("N", 2, 4, 4), rank=4)
        assert len(quantizes(exactly(model, 50, 2, 4, 4))) == 2


def test_activations_on_integers_are_within_a_rounding_of_onnxruntimes_tables() -> None:
    for middle in (
        own("QLinearSigmoid", ["q", "xs", "xz", "ss", "sz"], ["o"]),
        own("QLinearLeakyRelu", ["q", "xs", "xz", "ss", "sz"], ["o"], alpha=0.125),
    ):
        constants = {**_GRIDS, "ss": scalar(0.0041), "sz": boxed(3)}
        nodes = [_TWO[0], middle, node("DequantizeLinear", ["o", "ss", "sz"], ["y"])]
        model = model_of(nodes, _used(nodes, constants))
        x = np.linspace(-4, 4, 400, dtype=np.float32).reshape(-1, 4)
        ours = read_onnx(model).evaluate(x.astype(np.float64))
        # no number of these tables lies near a tie, which is where float32 would differ
        np.testing.assert_allclose(ours, run(model, x), rtol=1e-6)


@pytest.mark.parametrize("kind", ["MatMulInteger", "ConvInteger"])
def test_whole_sums_go_on_as_floats(kind: str) -> None:
    image = kind == "ConvInteger"
    shape = (3, 2, 2, 2) if image else (4, 3)
    constants = {
        "xs": scalar(2**-5),
        "xz": boxed(100),
        "w": RNG.integers(0, 256, size=shape).astype(np.uint8),
        "wz": boxed(128),
        "m": np.full((3, 1, 1) if image else (3,), 2**-9, dtype=np.float32),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        node(kind, ["q", "w", "xz", "wz"], ["i"], name="layer"),
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Mul", ["f", "m"], ["y"], name="scale"),
    ]
    if image:
        model = model_of(nodes, constants, ("N", 2, 3, 3), rank=4)
        network = exactly(model, 40, 2, 3, 3)
    else:
        network = exactly(model_of(nodes, constants))
    assert network.layer_parameters() == {"layer": ("w",), "scale": ("m",)}


def test_what_lies_on_a_grid_is_not_rounded_again() -> None:
    onto, back = ("QuantizeLinear", "DequantizeLinear")
    grid = ["xs", "xz"]
    nodes = [
        node(onto, ["x", *grid], ["q1"]),
        node(back, ["q1", *grid], ["f1"]),
        node("Relu", ["f1"], ["f2"]),
        node("MaxPool", ["f2"], ["f3"], kernel_shape=[2, 2]),
        node(onto, ["f3", *grid], ["q2"]),
        node(back, ["q2", *grid], ["f4"]),
        node("Flatten", ["f4"], ["f5"]),
        node(onto, ["f5", *grid], ["q3"]),
        node(back, ["q3", *grid], ["y"]),
    ]
    model = model_of(nodes, _used(nodes, _GRIDS), ("N", 2, 4, 4))
    assert len(quantizes(exactly(model, 50, 2, 4, 4))) == 1


def test_padding_with_the_zero_point() -> None:
    constants = {**_image_constants(1, False, np.uint8), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        node("Pad", ["q", "p", "xz"], ["padded"]),
        node("QLinearConv", ["padded", *list(constants)[:7], "b"], ["r"]),
        node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]
    exactly(model_of(nodes, constants, ("N", 2, 5, 5), rank=4), 30, 2, 5, 5)


def test_one_tensor_of_integers_in_two_layers_is_one_parameter() -> None:
    weight = RNG.integers(-128, 128, size=(4, 4)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["w", "xs"], ["v"]),
        node("MatMul", ["x", "v"], ["h"], name="one"),
        node("DequantizeLinear", ["w", "xs"], ["v2"]),
        node("MatMul", ["h", "v2"], ["y"], name="two"),
    ]
    network = read_onnx(model_of(nodes, {"w": weight, "xs": scalar(0.01)}))
    assert network.layer_parameters() == {"one": ("w",), "two": ("w",)}
    assert network.is_shared("w")


def test_a_bias_that_follows_its_product() -> None:
    tensor, _ = weights_of(TensorProto.INT8, (4, 3))
    constants = {"w": tensor, "xs": scalar(2**-6), "b": _odd_biases(), "bs": scalar(1.1e-9)}
    nodes = [
        node("DequantizeLinear", ["w", "xs"], ["v"]),
        node("DequantizeLinear", ["b", "bs"], ["c"]),
        node("MatMul", ["x", "v"], ["h"], name="fc"),
        node("Add", ["h", "c"], ["y"], name="plus"),
    ]
    network = read_onnx(model_of(nodes, constants))
    found = evaluate_exact(network, np.zeros(4))
    for i, steps in enumerate(_odd_biases().tolist()):
        exact = steps * Fraction(float(np.float32(1.1e-9)))
        assert found[i] == flint.fmpq(exact.numerator, exact.denominator)
    assert isinstance(network.nodes[1].op, Dense)
    assert network.nodes[1].op.bias == "b"

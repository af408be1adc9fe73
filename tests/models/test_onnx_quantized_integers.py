"""Operators on integers: read as the layers that they are, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from paramrob.models.network import Dense
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from tests.models.onnx_graphs import node, run
from tests.quantized_graphs import (
    FLOAT,
    RNG,
    Array,
    boxed,
    exactly,
    model_of,
    odd_biases,
    own,
    quantizes,
    scalar,
    weights_of,
)


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
    constants = {"w": tensor, "xs": scalar(2**-6), "b": odd_biases(), "bs": scalar(1.1e-9)}
    nodes = [
        node("DequantizeLinear", ["w", "xs"], ["v"]),
        node("DequantizeLinear", ["b", "bs"], ["c"]),
        node("MatMul", ["x", "v"], ["h"], name="fc"),
        node("Add", ["h", "c"], ["y"], name="plus"),
    ]
    network = read_onnx(model_of(nodes, constants))
    found = evaluate_exact(network, np.zeros(4))
    for i, steps in enumerate(odd_biases().tolist()):
        exact = steps * Fraction(float(np.float32(1.1e-9)))
        assert found[i] == flint.fmpq(exact.numerator, exact.denominator)
    assert isinstance(network.nodes[1].op, Dense)
    assert network.nodes[1].op.bias == "b"

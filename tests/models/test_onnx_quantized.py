"""Quantized operators of ONNX: exactly what their integers stand for, as onnxruntime has it.

Scales that are powers of two leave onnxruntime nothing to round, so that its results have to be
met exactly; other scales are checked against rationals.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest
from onnx import TensorProto, helper

from paramrob.models.network import Quantize
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from tests.models.onnx_graphs import node, run
from tests.quantized_graphs import (
    RNG,
    boxed,
    exactly,
    model_of,
    odd_biases,
    own,
    quantizes,
    scalar,
    weights_of,
)


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


def test_a_bias_of_32_bits_loses_nothing() -> None:
    tensor, values = weights_of(TensorProto.INT8, (3, 4))
    scale, first, second = (np.float32(v) for v in (0.0123, 0.037, 1.1e-9))
    constants = {
        "w": tensor,
        "ws": scalar(scale),
        "b": odd_biases(),
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
        total = int(odd_biases()[i]) * Fraction(float(second))
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
        "b": odd_biases(),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        own("QGemm", ["q", "xs", "xz", "w", "ws", "wz", "b"], ["y"], name="fc", transB=1),
    ]
    network = read_onnx(model_of(nodes, constants))
    q = np.array([250, 7, 0, 9])
    found = evaluate_exact(network, (q - 7) * float(xs))
    for i in range(3):
        sums = int(odd_biases()[i]) + sum(int(values[i, j]) * int(q[j] - 7) for j in range(4))
        total = sums * Fraction(float(xs)) * Fraction(float(ws[i]))
        assert found[i] == flint.fmpq(total.numerator, total.denominator)

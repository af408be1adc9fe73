"""ONNX graphs on integers for the tests, and what holds of each that is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from paramrob.models.network import Network, Quantize
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


def odd_biases() -> npt.NDArray[np.int32]:
    return np.array([2**31 - 1, -(2**31) + 3, 987654321], dtype=np.int32)

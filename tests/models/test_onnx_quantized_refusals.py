"""Quantized files that are damaged or have no exact meaning here: refused by tensor or node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.onnx_file import read_onnx
from tests.models.onnx_graphs import node
from tests.quantized_graphs import boxed, model_of, own, scalar

Array = npt.NDArray[Any]
WEIGHT = np.arange(12, dtype=np.int8).reshape(4, 3)
CONSTANTS: dict[str, Array] = {
    "s": scalar(0.25),
    "z": boxed(3),
    "other": scalar(0.5),
    "w": WEIGHT,
    "ws": scalar(0.125),
    "wz": boxed(0, np.int8),
    "f": WEIGHT.astype(np.float32),
}
ONTO = node("QuantizeLinear", ["x", "s", "z"], ["q"], name="onto")
BACK = node("DequantizeLinear", ["q", "s", "z"], ["y"], name="back")


def refused(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array | onnx.TensorProto],
    words: str,
    kind: type[ModelError] = ModelError,
    opset: int = 13,
) -> None:
    used = {tensor for n in nodes for tensor in n.input}
    given = {name: value for name, value in constants.items() if name in used}
    with pytest.raises(kind, match=words) as caught:
        read_onnx(model_of(nodes, given, opset=opset))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [0.0, -0.25, np.nan, np.inf])
def test_scales_that_are_no_positive_numbers(value: float) -> None:
    words = "the scale 's' is .*positive number; quantize the model again"
    refused([ONTO, BACK], {**CONSTANTS, "s": scalar(value)}, words)
    weights = [
        node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=1),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    scales = np.array([0.5, value, 1.0], dtype=np.float32)
    odd = {**CONSTANTS, "ws": scales, "wz": np.zeros(3, dtype=np.int8)}
    refused(weights, odd, "the scale 'ws' is")


def test_a_zero_point_outside_its_type() -> None:
    tensor = TensorProto(name="z", data_type=TensorProto.UINT8, int32_data=[300])
    refused([ONTO, BACK], {**CONSTANTS, "z": tensor}, "'z' holds 300, .*outside UINT8, 0 .. 255")


def test_a_zero_point_of_another_type() -> None:
    back = node("DequantizeLinear", ["q", "s", "wz"], ["y"])
    refused([ONTO, back], CONSTANTS, "the zero point 'wz' is INT8, but the integers are UINT8")
    weights = [
        node("DequantizeLinear", ["w", "ws", "z"], ["v"]),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    refused(weights, CONSTANTS, "the zero point 'z' is UINT8, but the integers are INT8")
    said = node("QuantizeLinear", ["x", "s", "z"], ["q"], output_dtype=TensorProto.INT8)
    refused([said, BACK], CONSTANTS, "'z'|output_dtype", opset=21)


@pytest.mark.parametrize(
    ("more", "scales", "zeros"),
    [({"axis": 1}, 4, 4), ({"axis": 1}, 3, 4), ({"axis": 0}, 3, 3), ({"axis": 5}, 3, 3)],
)
def test_scales_that_do_not_fit(more: dict[str, int], scales: int, zeros: int) -> None:
    given = {
        **CONSTANTS,
        "ws": np.full(scales, 0.5, dtype=np.float32),
        "wz": np.zeros(zeros, dtype=np.int8),
    }
    nodes = [
        node("DequantizeLinear", ["w", "ws", "wz"], ["v"], **more),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    refused(nodes, given, "'ws'|'wz'|axis")


def test_blocks_that_do_not_fit() -> None:
    given = {**CONSTANTS, "ws": np.full((3, 3), 0.5, dtype=np.float32)}
    nodes = [
        node("DequantizeLinear", ["w", "ws"], ["v"], axis=0, block_size=2),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    refused(nodes, given, "'ws' of shape .*does not fit", opset=21)


def test_weights_that_are_no_numbers() -> None:
    broken = WEIGHT.astype(np.float32)
    broken[1, 1] = np.nan
    nodes = [
        node("QuantizeLinear", ["f", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["v"]),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    refused(nodes, {**CONSTANTS, "f": broken}, "'f' holds NaN")


def test_a_bias_that_is_not_of_32_bits() -> None:
    given = {**CONSTANTS, "b": np.zeros(3, dtype=np.float32)}
    gemm = own("QGemm", ["q", "s", "z", "w", "ws", "wz", "b"], ["y"], name="fc")
    refused([ONTO, gemm], given, "the bias 'b' is FLOAT, which has to be INT32")


_NARROW = TensorProto.FLOAT8E4M3FN
_WITH_NODE = [
    (
        [ONTO, node("DequantizeLinear", ["q", "other", "z"], ["y"], name="back")],
        r"'back' .DequantizeLinear.: reads its input 'q' with another scale",
    ),
    (
        [ONTO, own("QGemm", ["q", "other", "z", "w", "ws", "wz"], ["y"], name="fc")],
        r"'fc' .QGemm.: reads its input 'q' with another scale",
    ),
    (
        [node("DynamicQuantizeLinear", ["x"], ["q", "a", "b"], name="dyn"), BACK],
        r"'dyn' .DynamicQuantizeLinear.: computes its scale from each input",
    ),
    (
        [node("QuantizeLinear", ["x", "four", "fours"], ["q"], axis=1, name="onto"), BACK],
        r"'onto' .QuantizeLinear.: quantizes computed numbers with 4 scales",
    ),
    (
        [ONTO, node("MatMulInteger", ["q", "w", "two"], ["i"]), node("Cast", ["i"], ["y"], to=1)],
        "another zero point",
    ),
    (
        [own("MatMulNBits", ["x", "w", "ws"], ["y"], name="n", K=4, N=3, bits=4, block_size=16)],
        r"'n' .MatMulNBits.: the operator is of the domain 'com.microsoft'.*QGemm",
    ),
    (
        [
            ONTO,
            own("QLinearGlobalAveragePool", ["q", "s", "z", "s", "z"], ["o"], channels_last=1),
            node("DequantizeLinear", ["o", "s", "z"], ["y"]),
        ],
        "channels_last",
    ),
]


@pytest.mark.parametrize(("nodes", "words"), _WITH_NODE)
def test_refusals_name_node_and_operator(nodes: list[onnx.NodeProto], words: str) -> None:
    given = {
        **CONSTANTS,
        "four": np.full(4, 0.5, dtype=np.float32),
        "fours": np.zeros(4, dtype=np.uint8),
        "two": boxed(2),
    }
    refused(nodes, given, words, UnsupportedOperatorError)


def test_computing_on_integers_as_they_are_stored() -> None:
    constants = {**CONSTANTS, "z": boxed(3, np.int8)}
    nodes = [ONTO, node("Relu", ["q"], ["r"], name="act"), _after("r")]
    refused(nodes, constants, r"'act' .Relu.: computes on integers", opset=14)


def _after(tensor: str) -> onnx.NodeProto:
    return node("DequantizeLinear", [tensor, "s", "z"], ["y"])


def test_narrow_floats_are_refused() -> None:
    zero = helper.make_tensor("z", _NARROW, [], [0.0])
    refused([ONTO, BACK], {**CONSTANTS, "z": zero}, "FLOAT8E4M3FN.*only INT4", opset=19)


def test_joining_integers_of_two_grids_is_refused() -> None:
    nodes = [
        ONTO,
        node("QuantizeLinear", ["x", "other", "z"], ["r"]),
        node("Concat", ["q", "r"], ["j"], name="join", axis=1),
        _after("j"),
    ]
    refused(nodes, CONSTANTS, r"'join' .Concat.: joins integers of different scales")


def test_an_output_of_integers_is_refused() -> None:
    grid = {name: CONSTANTS[name] for name in ("s", "z")}
    model = model_of([node("QuantizeLinear", ["x", "s", "z"], ["y"])], grid)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(ModelError, match="the output 'y' holds integers"):
        read_onnx(model)


def test_what_the_checker_refuses_is_refused() -> None:
    model = model_of([ONTO, BACK], {name: CONSTANTS[name] for name in ("s", "z")})
    del model.graph.node[1].input[1]
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        read_onnx(model)


def test_an_opset_that_lacks_what_an_operator_stands_for() -> None:
    nodes = [
        own("QuantizeLinear", ["x", "s", "z"], ["q"], name="onto"),
        own("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    refused(nodes, CONSTANTS, "'onto' .QuantizeLinear. cannot be read", opset=9)

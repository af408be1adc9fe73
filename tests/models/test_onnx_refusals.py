"""Uses of operators that have no exact meaning here: refused, by node and operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.onnx_file import read_onnx
from tests.models.onnx_graphs import build, node

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3))
SQUARE = RNG.normal(size=(4, 4))
B = RNG.normal(size=3)
ROW = RNG.normal(size=(1, 4))


@pytest.mark.parametrize(("opset", "axis"), [(11, 0), (13, 0), (13, 1), (13, -2), (21, 1)])
def test_softmax_over_another_axis_is_refused(opset: int, axis: int) -> None:
    model = build(
        [node("Softmax", ["x"], ["y"], axis=axis)], shape=("N", 3, 4), rank=3, opset=opset
    )
    with pytest.raises(UnsupportedOperatorError, match="Softmax"):
        read_onnx(model)


def test_constant_of_higher_rank_is_refused() -> None:
    # It would add an axis: a softmax over axis 1 would then see a single value.
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "b"], ["i"], name="plus"),
        node("Softmax", ["i"], ["y"], axis=1),
    ]
    with pytest.raises(UnsupportedOperatorError, match=r"plus.*Add"):
        read_onnx(build(nodes, {"w": W, "b": B.reshape(1, 1, 3)}, rank=3))


def test_reshape_that_cannot_hold_one_input() -> None:
    model = build([node("Reshape", ["x", "t"], ["y"], name="r")], {"t": np.array([8, 4])})
    with pytest.raises(UnsupportedOperatorError, match=r"r.*Reshape.*batch of one"):
        read_onnx(model)


def test_dropout_in_training_is_refused() -> None:
    constants = {"r": np.array(0.5), "t": np.array(True)}
    model = build([node("Dropout", ["x", "r", "t"], ["y"], name="drop")], constants)
    with pytest.raises(UnsupportedOperatorError, match=r"drop.*Dropout.*training"):
        read_onnx(model)


@pytest.mark.parametrize(
    ("source", "target", "fine"),
    [
        (TensorProto.FLOAT, TensorProto.DOUBLE, True),
        (TensorProto.FLOAT16, TensorProto.FLOAT, True),
        (TensorProto.BFLOAT16, TensorProto.FLOAT, True),
        (TensorProto.FLOAT, TensorProto.FLOAT, True),
        (TensorProto.DOUBLE, TensorProto.FLOAT, False),
        (TensorProto.FLOAT, TensorProto.FLOAT16, False),
        (TensorProto.FLOAT16, TensorProto.BFLOAT16, False),
        (TensorProto.FLOAT, TensorProto.INT64, False),
    ],
)
def test_casts_of_activations(source: int, target: int, fine: bool) -> None:
    nodes = [node("Relu", ["x"], ["h"]), node("Cast", ["h"], ["y"], name="c", to=target)]
    model = build(nodes, elem=source, out_elem=target, opset=14)
    if fine:
        assert len(read_onnx(model).nodes) == 2
    else:
        with pytest.raises(UnsupportedOperatorError, match=r"'c' \(Cast\).*rounds"):
            read_onnx(model)


def test_one_initialiser_in_two_layouts_is_refused() -> None:
    nodes = [
        node("Gemm", ["x", "w"], ["h"], name="one"),
        node("Gemm", ["h", "w"], ["y"], name="two", transB=1),
    ]
    with pytest.raises(UnsupportedOperatorError, match=r"two.*Gemm.*'w' transposed"):
        read_onnx(build(nodes, {"w": SQUARE}))


def test_two_nodes_of_one_name_are_refused() -> None:
    nodes = [node("Relu", ["x"], ["h"], name="a"), node("Tanh", ["h"], ["y"], name="a")]
    with pytest.raises(ModelError, match="two nodes are called 'a'"):
        read_onnx(build(nodes))


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "words"),
    [
        ("Gemm", ["x", "w"], {"alpha": 0.5}, "alpha = 0.5"),
        ("Gemm", ["x", "w", "b"], {"beta": 2.0}, "beta = 2.0"),
        ("Gemm", ["x", "x2"], {"transA": 1}, "transA"),
        ("Gemm", ["w2", "x"], {}, "constant"),
        ("MatMul", ["w2", "x"], {}, "constant"),
        ("MatMul", ["x", "w3"], {}, "shape"),
        ("Div", ["c", "x"], {}, "divides a constant"),
        ("Mul", ["x", "x"], {}, "both operands are computed"),
        ("Sub", ["x", "x"], {}, "both operands are computed"),
        ("Mul", ["x", "wide"], {}, "does not broadcast"),
        ("LeakyRelu", ["x"], {"alpha": -0.5}, "outside"),
        ("LeakyRelu", ["x"], {"alpha": 1.5}, "outside"),
        ("Gather", ["x", "i"], {}, "constants only"),
        ("Pow", ["x", "c"], {}, "outside a GELU"),
        ("Erf", ["x"], {}, "not supported"),
    ],
)
def test_refusals_name_node_and_operator(
    operator: str, inputs: list[str], attributes: dict[str, Any], words: str
) -> None:
    constants = {
        "w": SQUARE,
        "b": ROW[0],
        "c": np.array(2.0),
        "i": np.array([0]),
        "w2": np.ones((2, 1)),
        "w3": np.ones((2, 4, 4)),
        "x2": np.ones((1, 4)),
        "wide": np.ones((3, 4)),
    }
    model = build(
        [node(operator, inputs, ["y"], name="odd", **attributes)],
        {k: v for k, v in constants.items() if k in inputs},
        shape=(1, 4),
        rank=3 if "w3" in inputs else 2,
    )
    with pytest.raises(UnsupportedOperatorError, match=f"'odd' .{operator}.*{words}"):
        read_onnx(model)


def test_computing_on_constants_is_refused() -> None:
    nodes = [node("Add", ["w", "w"], ["v"], name="twice"), node("MatMul", ["x", "v"], ["y"])]
    with pytest.raises(UnsupportedOperatorError, match=r"twice.*Add.*constant folding"):
        read_onnx(build(nodes, {"w": W}))


def test_attributes_that_fit_nothing_are_refused() -> None:
    # The checker lets a permutation of one axis of a matrix pass.
    nodes = [
        node("Transpose", ["w"], ["t"], name="bad", perm=[1]),
        node("MatMul", ["x", "t"], ["h"]),
        node("Flatten", ["h"], ["y"]),
    ]
    model = build(nodes, {"w": SQUARE})
    with pytest.raises(ModelError, match=r"'bad' \(Transpose\) cannot be read"):
        read_onnx(model)


def test_dividing_by_zero_is_refused() -> None:
    with pytest.raises(ModelError, match="divides by zero"):
        read_onnx(build([node("Div", ["x", "c"], ["y"])], {"c": np.array([1.0, 0.0, 1.0, 1.0])}))


def test_newer_operator_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from paramrob.models import onnx_operators

    monkeypatch.setitem(onnx_operators.NEWEST_VERSION, "Relu", 13)
    with pytest.raises(UnsupportedOperatorError, match="version 14"):
        read_onnx(build([node("Relu", ["x"], ["y"])], opset=14))


def test_helper_makes_what_it_says() -> None:
    # The builder's models are valid, or the refusals above would prove nothing.
    onnx.checker.check_model(build([helper.make_node("Relu", ["x"], ["y"])]), full_check=True)

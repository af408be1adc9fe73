"""Activations against onnxruntime: as one operator, and as the nodes exporters make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Activation, Elementwise, Network
from paramrob.models.onnx_file import read_onnx
from tests.models.onnx_graphs import agrees_float, build, node

FLOAT = TensorProto.FLOAT
Nodes = list[onnx.NodeProto]
Constants = dict[str, npt.NDArray[Any]]
WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def ops(
    nodes: Nodes, constants: Constants | None = None, opset: int = 17, elem: int = FLOAT
) -> Network:
    model = build(nodes, constants or {}, opset=opset, elem=elem)
    return agrees_float(model, 40, 4)


@pytest.mark.parametrize(
    ("operator", "attributes", "opset", "expected"),
    [
        ("Softplus", {}, 13, Activation("softplus")),
        ("Softplus", {}, 22, Activation("softplus")),
        ("Elu", {}, 13, Activation("elu", alpha=1.0)),
        ("Elu", {"alpha": 0.3}, 22, Activation("elu", alpha=float(np.float32(0.3)))),
        ("HardSwish", {}, 14, Activation("hardswish")),
        ("HardSwish", {}, 22, Activation("hardswish")),
        ("HardSigmoid", {"alpha": 1 / 6}, 13, Activation("hardsigmoid")),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, 22, Activation("hardsigmoid")),
        ("Gelu", {}, 20, Activation("gelu")),
        ("Gelu", {"approximate": "none"}, 20, Activation("gelu")),
        ("Gelu", {"approximate": "tanh"}, 20, Activation("gelu_tanh")),
    ],
)
def test_one_operator(
    operator: str, attributes: dict[str, Any], opset: int, expected: Activation
) -> None:
    network = ops([node(operator, ["x"], ["y"], name="act", **attributes)], opset=opset)
    assert [(n.name, n.op) for n in network.nodes[1:]] == [("act", expected)]


def test_a_hard_sigmoid_of_another_slope_is_a_clamp_of_constants_that_stay() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="fc"),
        node("HardSigmoid", ["h"], ["y"], name="hs", beta=0.25),
    ]
    network = ops(nodes, {"w": WEIGHT})
    assert [n.name for n in network.nodes] == ["x", "fc", "hs.alpha", "hs.beta", "hs"]
    assert network.nodes[-1].op == Activation("clamp", low=0.0, high=1.0)
    assert network.layer_parameters() == {"fc": ("w",)}
    assert network.parameters["hs.alpha.constant"].value == np.float32(0.2)
    assert network.parameter_count == 12


@pytest.mark.parametrize("opset", [6 + 1, 10, 11, 13])
@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 6.0, Activation("clamp", low=0.0, high=6.0)),
        (-1.0, 1.0, Activation("clamp", low=-1.0, high=1.0)),
        (0.0, None, Activation("relu")),
        (0.0, float(np.finfo(np.float32).max), Activation("relu")),
        (0.0, math.inf, Activation("relu")),
    ],
)
def test_clip(opset: int, low: float | None, high: float | None, expected: Activation) -> None:
    said = {"min": low, "max": high}
    if opset < 11:
        clip = node("Clip", ["x"], ["y"], **{k: v for k, v in said.items() if v is not None})
        network = ops([clip], opset=opset)
    else:
        constants = {k: np.array(v, np.float32) for k, v in said.items() if v is not None}
        names = [k if k in constants else "" for k in said]
        network = ops([node("Clip", ["x", *names], ["y"])], constants, opset)
    assert [n.op for n in network.nodes[1:]] == [expected]


def test_a_clip_of_nothing_is_nothing() -> None:
    network = ops([node("Clip", ["x"], ["h"]), node("Relu", ["h"], ["y"])])
    assert len(network.nodes) == 2


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (None, 6.0, "one side"),
        (0.5, None, "one side"),
        (1.0, 0.0, "no interval"),
        (math.nan, 1.0, "NaN"),
        (math.inf, None, "one side"),
    ],
)
def test_clips_that_are_refused(low: float | None, high: float | None, words: str) -> None:
    said = {"min": low, "max": high}
    constants = {k: np.array(v, np.float32) for k, v in said.items() if v is not None}
    clip = node("Clip", ["x", *(k if k in constants else "" for k in said)], ["y"], name="odd")
    with pytest.raises(UnsupportedOperatorError, match=f"'odd' .Clip.*{words}"):
        read_onnx(build([clip], constants, elem=FLOAT))


def numbers(dtype: Any, **values: float) -> Constants:
    return {name: np.array(value, dtype) for name, value in values.items()}


def silu(_: Any) -> tuple[Nodes, Constants]:
    return [node("Sigmoid", ["z"], ["s"]), node("Mul", ["z", "s"], ["y"], name="act")], {}


def silu_other_way(_: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Identity", ["z"], ["i"]),
        node("Sigmoid", ["i"], ["s"]),
        node("Dropout", ["s"], ["d"]),
        node("Mul", ["d", "z"], ["y"], name="act"),
    ]
    return nodes, {}


def gelu_by_division(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Div", ["z", "r"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "o"], ["c"]),
        node("Mul", ["z", "c"], ["d"]),
        node("Mul", ["d", "h"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, r=math.sqrt(2), o=1, h=0.5)


def gelu_by_multiplication(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Mul", ["q", "z"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["o", "b"], ["c"]),
        node("Mul", ["h", "z"], ["d"]),
        node("Mul", ["d", "c"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, q=math.sqrt(0.5), o=1, h=0.5)


def gelu_by_halves(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Div", ["z", "r"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["b", "o"], ["c"]),
        node("Mul", ["c", "h"], ["d"]),
        node("Mul", ["d", "z"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, r=math.sqrt(2), o=1, h=0.5)


def tanh_gelu(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Mul", ["z", "z"], ["zz"]),
        node("Mul", ["z", "zz"], ["zzz"]),
        node("Mul", ["k", "zzz"], ["a"]),
        node("Add", ["z", "a"], ["b"]),
        node("Mul", ["q", "b"], ["c"]),
        node("Tanh", ["c"], ["t"]),
        node("Add", ["o", "t"], ["u"]),
        node("Mul", ["z", "u"], ["v"]),
        node("Mul", ["h", "v"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, k=0.044715, q=math.sqrt(2 / math.pi), o=1, h=0.5)


def tanh_gelu_by_power(dtype: Any) -> tuple[Nodes, Constants]:
    nodes, constants = tanh_gelu(dtype)
    power = node("Pow", ["z", "three"], ["zzz"])
    return [power, *nodes[2:]], constants | numbers(dtype, three=3)


def hard_swish_by_gate(_: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("HardSigmoid", ["z"], ["g"], alpha=1 / 6, beta=0.5),
        node("Mul", ["z", "g"], ["y"], name="act"),
    ]
    return nodes, {}


def hard_swish_by_clip(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Add", ["z", "three"], ["a"]),
        node("Clip", ["a", "null", "six"], ["b"]),
        node("Mul", ["z", "b"], ["c"]),
        node("Div", ["c", "six"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, three=3, null=0, six=6)


def hard_swish_by_sixth(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Add", ["z", "three"], ["a"]),
        node("Clip", ["a", "null", "six"], ["b"]),
        node("Mul", ["b", "sixth"], ["c"]),
        node("Mul", ["c", "z"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, three=3, null=0, six=6, sixth=1 / 6)


def hard_sigmoid_by_clip(dtype: Any) -> tuple[Nodes, Constants]:
    nodes = [
        node("Add", ["z", "three"], ["a"]),
        node("Clip", ["a", "null", "six"], ["b"]),
        node("Div", ["b", "six"], ["y"], name="act"),
    ]
    return nodes, numbers(dtype, three=3, null=0, six=6)


FORMS: list[tuple[Callable[[Any], tuple[Nodes, Constants]], str]] = [
    (silu, "silu"),
    (silu_other_way, "silu"),
    (gelu_by_division, "gelu"),
    (gelu_by_multiplication, "gelu"),
    (gelu_by_halves, "gelu"),
    (tanh_gelu, "gelu_tanh"),
    (tanh_gelu_by_power, "gelu_tanh"),
    (hard_swish_by_gate, "hardswish"),
    (hard_swish_by_clip, "hardswish"),
    (hard_swish_by_sixth, "hardswish"),
    (hard_sigmoid_by_clip, "hardsigmoid"),
]


@pytest.mark.parametrize(("form", "kind"), FORMS, ids=[f.__name__ for f, _ in FORMS])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_forms_of_several_nodes(form: Any, kind: str, behind: bool, double: bool) -> None:
    nodes, constants = form(np.float64 if double else np.float32)
    if behind:
        constants["w"] = WEIGHT.astype(np.float64 if double else np.float32)
        nodes.insert(0, node("MatMul", ["x", "w"], ["z"], name="fc"))
    else:
        nodes.insert(0, node("Relu", ["x"], ["z"], name="fc"))
    model = build(nodes, constants, elem=TensorProto.DOUBLE if double else FLOAT, opset=17)
    network = read_onnx(model) if double else agrees_float(model, 40, 4)
    assert [n.name for n in network.nodes] == ["x", "fc", "act"]
    assert network.nodes[-1].op == Activation(kind)  # type: ignore[arg-type]
    assert set(network.parameters) == ({"w"} if behind else set())


def test_two_forms_share_their_constants() -> None:
    first, constants = gelu_by_division(np.float32)
    second = [onnx.NodeProto.FromString(n.SerializeToString()) for n in first]
    for i, n in enumerate(second):
        n.name = f"again{i}"
        for place, tensor in enumerate(n.input):
            n.input[place] = {"z": "y", **{t: f"{t}2" for t in "abcd"}}.get(tensor, tensor)
        n.output[0] = {"y": "out"}.get(n.output[0], f"{n.output[0]}2")
    scale = node("Mul", ["out", "h"], ["last"], name="half")
    start = node("Relu", ["x"], ["z"])
    model = build([start, *first, *second, scale], constants, elem=FLOAT, output="last")
    network = agrees_float(model, 40, 4)
    kinds = [n.op for n in network.nodes[2:]]
    assert kinds == [Activation("gelu"), Activation("gelu"), Elementwise("mul", "h")]
    assert set(network.parameters) == {"h"}


def test_a_part_of_a_form_may_serve_elsewhere_too() -> None:
    nodes = [
        node("Sigmoid", ["x"], ["s"], name="gate"),
        node("Mul", ["x", "s"], ["a"], name="act"),
        node("Add", ["a", "s"], ["y"], name="sum"),
    ]
    network = ops(nodes)
    assert {n.name: n.op for n in network.nodes[1:3]} == {
        "gate": Activation("sigmoid"),
        "act": Activation("silu"),
    }


@pytest.mark.parametrize("factor", [1.702, 0.999999, 1.0000001])
def test_what_is_only_near_a_form_is_refused(factor: float) -> None:
    nodes = [
        node("Mul", ["x", "k"], ["a"], name="scale"),
        node("Sigmoid", ["a"], ["s"], name="gate"),
        node("Mul", ["x", "s"], ["y"], name="odd"),
    ]
    with pytest.raises(UnsupportedOperatorError, match=r"'odd' .Mul.*both operands"):
        read_onnx(build(nodes, numbers(np.float32, k=factor), elem=FLOAT))


@pytest.mark.parametrize(
    ("root", "half"), [(1.4143, 0.5), (1.4142137, 0.5), (math.sqrt(2), 0.50000006), (1.0, 0.5)]
)
def test_a_gelu_with_other_constants_is_refused(root: float, half: float) -> None:
    nodes, constants = gelu_by_division(np.float32)
    nodes[0].input[0] = nodes[3].input[0] = "x"
    constants |= numbers(np.float32, r=root, h=half)
    with pytest.raises(UnsupportedOperatorError, match=r"Erf.*outside a GELU"):
        read_onnx(build(nodes, constants, elem=FLOAT))


def test_a_part_of_a_form_that_goes_elsewhere_is_refused() -> None:
    nodes, constants = gelu_by_division(np.float32)
    nodes[0].input[0] = nodes[3].input[0] = "x"
    nodes.append(node("MatMul", ["b", "w"], ["f"]))
    nodes.append(node("MatMul", ["y", "w"], ["g"]))
    nodes.append(node("Add", ["f", "g"], ["out"]))
    model = build(nodes, constants | {"w": WEIGHT}, elem=FLOAT, output="out")
    with pytest.raises(UnsupportedOperatorError, match=r"Erf_1.*Erf.*outside a GELU"):
        read_onnx(model)


def test_vectors_of_constants_make_no_form() -> None:
    nodes, constants = hard_sigmoid_by_clip(np.float32)
    nodes[0].input[0] = "x"
    constants["three"] = np.full(4, 3, np.float32)
    network = ops(nodes, constants)
    assert [type(n.op) for n in network.nodes[1:]] == [Elementwise, Activation, Elementwise]


def test_long_chains_of_numbers_are_read_quickly_and_as_they_are() -> None:
    nodes = [
        node("Add", [f"t{i}" if i else "x", f"t{i}" if i and i < 20 else "one"], [f"t{i + 1}"])
        for i in range(600)
    ]
    nodes.append(node("Relu", ["t600"], ["y"]))
    model = build(nodes, numbers(np.float32, one=1), elem=FLOAT, opset=17)
    assert len(read_onnx(model).nodes) == 602


def test_elu_of_a_negative_alpha_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Elu.*negative"):
        read_onnx(build([node("Elu", ["x"], ["y"], alpha=-1.0)], elem=FLOAT))

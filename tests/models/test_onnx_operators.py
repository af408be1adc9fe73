"""Every operator against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from paramrob.errors import UnsupportedOperatorError
from paramrob.models.network import Activation, Dense, Elementwise, Reshape, Softmax
from paramrob.models.onnx_file import read_onnx
from tests.models.onnx_graphs import agrees, build, node

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3))
SQUARE = RNG.normal(size=(4, 4))
B = RNG.normal(size=3)
ROW = RNG.normal(size=(1, 4))


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", [None, B, B.reshape(1, 3), B[:1], np.array(0.5)])
def test_gemm(trans: int, bias: npt.NDArray[np.float64] | None) -> None:
    weight = np.ascontiguousarray(W.T) if trans else W
    constants = {"w": weight} | ({} if bias is None else {"b": np.asarray(bias)})
    gemm = node("Gemm", ["x", *constants], ["y"], name="fc", transB=trans)
    network = agrees(build([gemm], constants))
    dense = network.nodes[1]
    fused = bias is not None and bias.size == 3
    assert dense.op == Dense("w", "b" if fused else None)
    assert dense.name == "fc"
    np.testing.assert_array_equal(network.parameters["w"].value, W.T)
    if bias is not None and not fused:
        assert network.nodes[2].op == Elementwise("add", "b")
        assert network.is_shared("b")


def test_gemm_of_one_output_takes_a_scalar_bias() -> None:
    gemm = node("Gemm", ["x", "w", "b"], ["y"])
    network = agrees(build([gemm], {"w": W[:, :1], "b": np.array(0.5)}))
    assert network.nodes[1].op == Dense("w", "b")
    assert not network.is_shared("b")


def test_gemm_that_ignores_its_bias() -> None:
    network = agrees(build([node("Gemm", ["x", "w", "b"], ["y"], beta=0.0)], {"w": W, "b": B}))
    assert set(network.parameters) == {"w"}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("bias", [B, B.reshape(1, 3)])
def test_matmul_and_add_are_one_layer(left: bool, bias: npt.NDArray[np.float64]) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="fc"),
        node("Identity", ["h"], ["i"]),
        node("Add", ["b", "i"] if left else ["i", "b"], ["y"], name="plus"),
    ]
    network = agrees(build(nodes, {"w": W, "b": bias}))
    assert [n.name for n in network.nodes] == ["x", "fc"]
    assert network.layer_parameters() == {"fc": ("w", "b")}
    assert network.parameters["b"].value.shape == (3,)


def test_matmul_by_a_vector() -> None:
    network = agrees(build([node("MatMul", ["x", "w"], ["y"])], {"w": W[:, 0]}, rank=1))
    assert network.output_shape == (1,)
    three = build([node("MatMul", ["x", "w"], ["y"])], {"w": W[:, 0]}, shape=("N", 5, 4))
    assert agrees(three, 2, 5, 4).output_shape == (5,)


def test_matmul_on_the_last_axis_shares_its_weight() -> None:
    network = agrees(
        build([node("MatMul", ["x", "w"], ["y"])], {"w": W}, shape=("N", 5, 4), rank=3), 2, 5, 4
    )
    assert network.output_shape == (5, 3)
    assert network.is_shared("w")


@pytest.mark.parametrize(
    ("operator", "swap", "kind"),
    [
        ("Add", False, "add"),
        ("Add", True, "add"),
        ("Sub", False, "sub"),
        ("Sub", True, "rsub"),
        ("Mul", False, "mul"),
        ("Mul", True, "mul"),
        ("Div", False, "div"),
    ],
)
@pytest.mark.parametrize("constant", [ROW, ROW[0], np.array(1.5), ROW[:, :1]])
def test_elementwise(
    operator: str, swap: bool, kind: str, constant: npt.NDArray[np.float64]
) -> None:
    operands = ["c", "x"] if swap else ["x", "c"]
    network = agrees(build([node(operator, operands, ["y"])], {"c": np.asarray(constant)}))
    op = network.nodes[1].op
    assert isinstance(op, Elementwise)
    assert (op.kind, op.parameter) == (kind, "c")
    assert network.is_shared("c") == (constant.size == 1)


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "Tanh", "Softmax", "Identity", "Flatten"])
def test_unary(operator: str) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node(operator, ["h"], ["y"])]
    agrees(build(nodes, {"w": W}))


@pytest.mark.parametrize("alpha", [None, 0.0, 0.3, 1.0])
def test_leaky_relu_keeps_the_float32_slope(alpha: float | None) -> None:
    extra = {} if alpha is None else {"alpha": alpha}
    model = build([node("LeakyRelu", ["x"], ["y"], **extra)], elem=TensorProto.FLOAT)
    network = agrees(model, dtype=np.float32, rtol=1e-6)
    slope = float(np.float32(0.01 if alpha is None else alpha))
    assert network.nodes[1].op == Activation("leaky_relu", slope)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 21])
def test_softmax_default_axis(opset: int) -> None:
    softmax = [node("Softmax", ["x"], ["y"])]
    agrees(build(softmax, opset=opset))
    images = build(softmax, shape=("N", 3, 4), rank=3, opset=opset)
    if opset >= 13:
        network = agrees(images, 2, 3, 4)
        assert network.nodes[1].op == Softmax()
    else:  # the default axis is 1, and the axes from there on are one
        with pytest.raises(UnsupportedOperatorError, match="axis 1"):
            read_onnx(images)
        agrees(build(softmax, shape=("N", 1, 4), rank=3, opset=opset), 2, 1, 4)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_flatten(axis: int) -> None:
    nodes = [node("Flatten", ["x"], ["h"], axis=axis), node("Softmax", ["h"], ["y"])]
    agrees(build(nodes, shape=(1, 3, 4)), 1, 3, 4)


@pytest.mark.parametrize(
    ("target", "shape"),
    [([0, -1], (12,)), ([-1, 12], (12,)), ([0, 2, 6], (2, 6)), ([-1, 4, 3], (4, 3))],
)
def test_reshape(target: list[int], shape: tuple[int, ...]) -> None:
    model = build(
        [node("Reshape", ["x", "t"], ["y"])],
        {"t": np.array(target)},
        shape=("N", 3, 4),
        rank=len(target),
    )
    assert agrees(model, 2, 3, 4).output_shape == shape


def test_input_without_a_batch() -> None:
    nodes = [
        node("MatMul", ["m", "x"], ["h"], name="left"),
        node("Add", ["h", "b"], ["i"]),
        node("Relu", ["i"], ["j"]),
        node("MatMul", ["j", "v"], ["y"], name="right"),
    ]
    constants = {"m": np.ascontiguousarray(W.T), "b": B, "v": RNG.normal(size=(3, 2))}
    network = agrees(build(nodes, constants, shape=(4,), rank=1), 4)
    assert (network.input_shape, network.output_shape) == ((4,), (2,))
    assert network.nodes[1].op == Dense("m", "b")


@pytest.mark.parametrize("opset", [7, 10, 12, 13, 22])
def test_dropout_is_nothing_at_inference(opset: int) -> None:
    nodes = [node("Dropout", ["x"], ["d", "mask"]), node("Relu", ["d"], ["y"])]
    network = agrees(build(nodes, opset=opset))
    assert [n.op for n in network.nodes[1:]] == [Activation("relu")]


def test_constants_are_parameters_and_folded_exactly() -> None:
    nodes = [
        node("Constant", [], ["w"], value=numpy_helper.from_array(np.float32(W.T))),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("Cast", ["wt"], ["wd"], to=TensorProto.DOUBLE),
        node("Identity", ["wd"], ["wi"]),
        node("MatMul", ["x", "wi"], ["h"], name="fc"),
        node("Constant", [], ["t"], value_ints=[-1]),
        node("Reshape", ["b", "t"], ["flat"]),
        node("Add", ["h", "flat"], ["y"]),
    ]
    network = agrees(build(nodes, {"b": B.reshape(1, 3)}))
    assert network.layer_parameters() == {"fc": ("w", "b")}
    assert network.parameters["w"].dtype == "float32"
    np.testing.assert_array_equal(network.parameters["w"].value, np.float32(W.T).astype(float))


def test_a_scalar_constant_node() -> None:
    nodes = [node("Constant", [], ["c"], value_float=0.1), node("Mul", ["x", "c"], ["y"])]
    network = agrees(build(nodes, elem=TensorProto.FLOAT), dtype=np.float32, rtol=1e-6)
    assert network.parameters["c"].value == np.float32(0.1)


def test_a_constant_that_a_cast_rounds_is_rounded_to_nearest() -> None:
    nodes = [
        node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
        node("MatMul", ["x", "w32"], ["y"]),
    ]
    model = build(nodes, {"w": W}, elem=TensorProto.FLOAT)
    network = agrees(model, dtype=np.float32, rtol=1e-5)
    np.testing.assert_array_equal(network.parameters["w"].value, W.T.astype(np.float32))
    assert network.parameters["w"].dtype == "float32"


def test_one_initialiser_in_two_layers_is_one_parameter() -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"], name="one"),
        node("Relu", ["h"], ["r"]),
        node("Transpose", ["w"], ["wt"]),
        node("Gemm", ["r", "wt", "b"], ["y"], name="two", transB=1),
    ]
    network = agrees(build(nodes, {"w": SQUARE, "b": ROW[0]}))
    assert set(network.parameters) == {"w", "b"}
    assert network.is_shared("w")
    assert network.is_shared("b")


def test_unnamed_nodes_are_called_by_operator_and_position() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["i"]),
        node("Mul", ["i", "c"], ["y"], name="Relu_1"),
    ]
    network = agrees(build(nodes, {"w": W, "c": np.array(2.0)}))
    assert [n.name for n in network.nodes] == ["x", "MatMul_0", "Relu_1_", "Relu_1"]


def test_dead_nodes_do_not_matter() -> None:
    nodes = [node("Erf", ["x"], ["dead"]), node("Relu", ["x"], ["y"])]
    assert len(read_onnx(build(nodes)).nodes) == 2


@st.composite
def chains(draw: st.DrawFn) -> tuple[onnx.ModelProto, int, tuple[str, ...]]:
    """A random chain of supported operators on a dynamic batch."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    opset = draw(st.sampled_from([9, 11, 13, 17, 21]))
    inputs = width = draw(st.integers(1, 5))
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, npt.NDArray[Any]] = {}
    last = "x"
    kinds: tuple[str, ...] = (
        "Gemm",
        "GemmT",
        "MatMul",
        "Add",
        "Sub",
        "RSub",
        "Mul",
        "Div",
        "Relu",
        "Sigmoid",
    )
    kinds += ("Tanh", "Softmax", "Flatten", "Identity", "Reshape", "Dropout")
    chosen = tuple(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=8)))
    for i, kind in enumerate(chosen):
        out = f"t{i}"
        c = f"c{i}"
        if kind in ("Gemm", "GemmT", "MatMul"):
            wide = draw(st.integers(1, 5))
            trans = kind == "GemmT"
            constants[c] = rng.normal(size=(wide, width) if trans else (width, wide))
            if kind == "MatMul":
                nodes.append(node("MatMul", [last, c], [out]))
            else:
                constants[f"b{i}"] = rng.normal(size=wide)
                nodes.append(node("Gemm", [last, c, f"b{i}"], [out], transB=int(trans)))
            width = wide
        elif kind in ("Add", "Sub", "RSub", "Mul", "Div"):
            shape = draw(st.sampled_from([(width,), (1, width), (1,), ()]))
            constants[c] = np.asarray(rng.uniform(0.5, 2.0, size=shape))
            operands = [c, last] if kind == "RSub" else [last, c]
            nodes.append(node(kind.removeprefix("R"), operands, [out]))
        elif kind == "Reshape":
            constants[c] = np.array(draw(st.sampled_from([[0, -1], [-1, width], [0, 0]])))
            nodes.append(node("Reshape", [last, c], [out]))
        else:
            nodes.append(node(kind, [last], [out]))
        last = out
    nodes.append(node("Relu", [last], ["y"]))
    return build(nodes, constants, shape=("N", inputs), opset=opset), inputs, chosen


@settings(max_examples=80, deadline=None)
@given(chains())
def test_random_chains(case: tuple[onnx.ModelProto, int, tuple[str, ...]]) -> None:
    model, inputs, chosen = case
    network = agrees(model, 5, inputs, rtol=1e-9)
    dense = sum(isinstance(n.op, Dense) for n in network.nodes)
    assert dense == sum(kind in ("Gemm", "GemmT", "MatMul") for kind in chosen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exported_from_torch(tmp_path: Any) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.5),
        nn.Linear(5, 4, bias=False),
        nn.Tanh(),
        nn.Linear(4, 3),
        nn.Softmax(dim=1),
    ).eval()
    path = tmp_path / "m.onnx"
    try:
        torch.onnx.export(
            module,
            (torch.zeros(1, 2, 3),),
            str(path),
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )
    except (ImportError, TypeError) as error:
        pytest.skip(f"this torch has no exporter without further packages: {error}")
    network = read_onnx(path)
    x = RNG.normal(size=(7, 2, 3))
    with torch.no_grad():
        truth = module.double()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.evaluate(x), truth, rtol=1e-8)
    stored = [p.value for p in network.parameters.values()]
    for tensor in module.float().state_dict().values():
        assert any(np.array_equal(value, tensor.numpy()) for value in stored)
    assert isinstance(network.nodes[1].op, Reshape)
    assert network.architecture == "6-5-4-3"

"""Convolutions, normalisation, pools and padding against onnxruntime."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Network,
    Pool,
    Transpose,
)
from paramrob.models.onnx_file import read_onnx
from tests.models.onnx_graphs import Dims, agrees_float, build, node

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def normal(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, npt.NDArray[Any]] | None = None,
    shape: Dims = ("N", 4, 7, 6),
    opset: int = 17,
    rank: int | None = None,
) -> onnx.ModelProto:
    wide = len(shape) if rank is None else rank
    return build(nodes, constants or {}, shape=shape, opset=opset, elem=FLOAT, rank=wide)


def image(*args: Any, **kwargs: Any) -> Network:
    """Read a model of images and compare it on a batch of two."""
    return agrees_float(model(*args, **kwargs), 2, 4, 7, 6)


def signal(nodes: list[onnx.NodeProto], constants: Any = None, **kwargs: Any) -> Network:
    built = model(nodes, constants, ("N", 4, 9), **kwargs)
    return agrees_float(built, 2, 4, 9)


@pytest.mark.parametrize(
    ("groups", "stride", "pads", "dilation", "bias"),
    list(product([1, 2, 4], [1, 2], [[0, 0, 0, 0], [1, 0, 2, 1]], [1, 2], [True, False])),
)
def test_convolutions(groups: int, stride: int, pads: list[int], dilation: int, bias: bool) -> None:
    constants = {"w": normal(8, 4 // groups, 3, 2)} | ({"b": normal(8)} if bias else {})
    conv = node(
        "Conv", ["x", *constants], ["y"], name="c",
        group=groups, strides=[stride, stride], pads=pads, dilations=[dilation, dilation],
    )  # fmt: skip
    network = image([conv], constants)
    op = network.nodes[1].op
    padding = ((pads[0], pads[2]), (pads[1], pads[3]))
    expected = ((stride, stride), padding, (dilation, dilation), groups)
    assert op == Conv("w", "b" if bias else None, *expected)
    assert network.nodes[1].name == "c"


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (3, 2), (2, 4)])
def test_automatic_padding(auto: str, stride: int, kernel: int) -> None:
    attributes = {"auto_pad": auto, "strides": [stride, stride]}
    conv = node("Conv", ["x", "w"], ["y"], **attributes)
    image([conv], {"w": normal(3, 4, kernel, kernel)})
    if stride <= kernel:  # else onnxruntime computes a negative padding
        pool = node("MaxPool", ["x"], ["y"], kernel_shape=[kernel, kernel], **attributes)
        image([pool])


def test_convolutions_of_signals() -> None:
    conv = node("Conv", ["x", "w", "b"], ["y"], strides=[2], pads=[2, 1], dilations=[2], group=2)
    signal([conv], {"w": normal(6, 2, 3), "b": normal(6)})


@pytest.mark.parametrize("opset", [7, 9, 14, 15, 22])
@pytest.mark.parametrize("shape", [("N", 4), ("N", 4, 9), ("N", 4, 7, 6)])
def test_batch_normalisation(opset: int, shape: tuple[int | str, ...]) -> None:
    constants = {k: normal(4) for k in ("scale", "bias", "mean")}
    constants["var"] = np.abs(normal(4)) + np.float32(0.1)
    norm = node("BatchNormalization", ["x", *constants], ["y"], name="bn", epsilon=1e-3)
    built = model([norm], constants, shape, opset)
    network = agrees_float(built, 2, *(int(d) for d in shape[1:]))
    op = network.nodes[1].op
    assert op == BatchNorm("mean", "var", float(np.float32(1e-3)), "scale", "bias")
    fixed = {name: p.fixed for name, p in network.parameters.items()}
    assert fixed == {"mean": True, "var": True, "scale": False, "bias": False}
    assert network.layer_parameters() == {"bn": ("scale", "bias")}


def test_statistics_that_share_a_tensor_with_something_trained() -> None:
    constants = {"zero": np.zeros(4, np.float32), "one": np.ones(4, np.float32), "w": normal(4)}
    nodes = [
        node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["h"], name="one"),
        node("BatchNormalization", ["h", "w", "zero", "zero", "one"], ["y"], name="two"),
    ]
    network = image(nodes, constants)
    assert network.layer_parameters() == {
        "one": ("one:trained", "zero:trained"),
        "two": ("w", "zero:trained"),
    }
    assert {n for n, p in network.parameters.items() if p.fixed} == {"zero", "one"}


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(
    ("stride", "pads", "ceil", "include"),
    list(product([1, 2, 3], [[0, 0, 0, 0], [1, 0, 1, 1]], [0, 1], [0, 1])),
)
def test_pools(kind: str, stride: int, pads: list[int], ceil: int, include: int) -> None:
    extra = {"count_include_pad": include} if kind == "AveragePool" else {}
    pool = node(
        kind, ["x"], ["y"], kernel_shape=[3, 2], strides=[stride, stride], pads=pads,
        ceil_mode=ceil, **extra,
    )  # fmt: skip
    # whether the part of a window beyond the padding counts differs between runtimes
    beyond = stride == 3 and not any(pads)
    if kind == "AveragePool" and include and ceil and beyond:
        with pytest.raises(UnsupportedOperatorError, match="ceil_mode"):
            read_onnx(model([pool]))
        return
    image([pool])


@pytest.mark.parametrize("opset", [7, 8, 10, 11, 12, 19, 22])
@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_pools_of_every_version(kind: str, opset: int) -> None:
    network = signal([node(kind, ["x"], ["y"], kernel_shape=[3])], opset=opset)
    pool = network.nodes[1].op
    assert isinstance(pool, Pool)
    assert (pool.kernel, pool.stride, pool.dilation) == ((3,), (1,), (1,))


def test_dilated_pools() -> None:
    attributes = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 0, 1, 0]}
    image([node("MaxPool", ["x"], ["y"], **attributes)])
    image([node("AveragePool", ["x"], ["y"], **attributes)], opset=19)


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(kind: str) -> None:
    network = image([node(kind, ["x"], ["y"])])
    assert network.output_shape == (4, 1, 1)
    assert isinstance(network.nodes[1].op, AdaptivePool)
    signal([node(kind, ["x"], ["y"])])


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax"])
@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3], [2]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(kind: str, opset: int, axes: list[int], keepdims: int) -> None:
    rank = 4 if keepdims else 4 - len(axes)
    if opset < 18:
        reduce = node(kind, ["x"], ["y"], axes=axes, keepdims=keepdims)
        network = image([reduce], opset=opset, rank=rank)
    else:
        reduce = node(kind, ["x", "axes"], ["y"], keepdims=keepdims)
        network = image([reduce], {"axes": np.array(axes)}, opset=opset, rank=rank)
    assert len(network.output_shape) == rank - 1


@pytest.mark.parametrize("opset", [10, 11, 13, 18, 21])
@pytest.mark.parametrize("target", ["Conv", "AveragePool"])
def test_pads_of_zeros_are_taken_over(opset: int, target: str) -> None:
    pads = [0, 0, 1, 2, 0, 0, 0, 1]
    constants: dict[str, Any] = {}
    if opset < 11:
        pad = node("Pad", ["x"], ["p"], pads=pads)
    elif opset < 18:
        constants = {"pads": np.array(pads), "zero": np.array(0, np.float32)}
        pad = node("Pad", ["x", *constants], ["p"])
    else:
        constants = {"pads": np.array([2, 1, 1, 0]), "axes": np.array([-1, 2])}
        pad = node("Pad", ["x", "pads", "", "axes"], ["p"])
    if target == "Conv":
        constants["w"] = normal(3, 4, 3, 3)
        last = node("Conv", ["i", "w"], ["y"], pads=[1, 1, 0, 0], strides=[2, 2])
    else:
        last = node(
            "AveragePool", ["i"], ["y"], kernel_shape=[4, 4], pads=[1, 1, 0, 0],
            count_include_pad=1,
        )  # fmt: skip
    network = image([pad, node("Identity", ["p"], ["i"]), last], constants, opset=opset)
    op = network.nodes[1].op
    assert len(network.nodes) == 2
    assert isinstance(op, (Conv, Pool))
    assert op.padding == (((2, 0), (3, 1)))


def test_pads_in_a_row_and_a_pad_of_nothing() -> None:
    first = {"a": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "b": np.array([0, 0, 0, 1, 0, 0, 1, 0])}
    nodes = [
        node("Pad", ["x", "a"], ["p"]),
        node("Pad", ["p", "b"], ["q"]),
        node("Conv", ["q", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2]),
    ]
    image(nodes, first | {"w": normal(2, 4, 3, 3)})
    none = [node("Pad", ["x", "n"], ["p"]), node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2])]
    image(none, {"n": np.zeros(8, np.int64)})


@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 2, 1], [0, 1, 3, 2], [0, 1, 2, 3]])
def test_transposes(perm: list[int]) -> None:
    network = image([node("Transpose", ["x"], ["t"], perm=perm), node("Relu", ["t"], ["y"])])
    turned = perm != [0, 1, 2, 3]
    assert isinstance(network.nodes[1].op, Transpose) == turned


@pytest.mark.parametrize("perm", [None, [1, 0, 2, 3], [2, 3, 0, 1], [3, 1, 0, 2]])
def test_transposes_of_a_batch_of_one(perm: list[int] | None) -> None:
    extra = {} if perm is None else {"perm": perm}
    nodes = [node("Transpose", ["x"], ["t"], **extra), node("Softmax", ["t"], ["y"], axis=-1)]
    agrees_float(model(nodes, shape=(1, 4, 7, 6)), 1, 4, 7, 6)


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    def shaped(kind: str, before: str, after: str, axes: list[int]) -> onnx.NodeProto:
        if opset < 13:
            return node(kind, [before], [after], axes=axes)
        constants[f"a{after}"] = np.array(axes)
        return node(kind, [before, f"a{after}"], [after])

    constants: dict[str, Any] = {"w": normal(5, 4, 1), "d": normal(5, 3)}
    nodes = [
        shaped("Unsqueeze", "x", "a", [-1]),
        node("Conv", ["a", "w"], ["b"]),
        shaped("Squeeze", "b", "c", [2]),
        node("MatMul", ["c", "d"], ["y"]),
    ]
    network = agrees_float(model(nodes, constants, ("N", 4), opset, rank=2), 3, 4)
    assert network.output_shape == (3,)


def test_shapes_that_exporters_compute() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"], axis=0),
        node("Unsqueeze", ["n", "zero"], ["u"]),
        node("Concat", ["u", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["h"]),
        node("MatMul", ["h", "w"], ["y"]),
    ]
    constants = {
        "first": np.array(0), "zero": np.array([0]), "rest": np.array([-1]), "w": normal(168, 3)
    }  # fmt: skip
    network = image(nodes, constants, rank=2)
    assert network.output_shape == (3,)


def test_sums_and_concatenations() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="a"),
        node("Relu", ["a"], ["b"], name="b"),
        node("Add", ["a", "b"], ["c"], name="c"),
        node("Sum", ["c", "x", "k", "a"], ["d"], name="d"),
        node("Sum", ["d"], ["d1"], name="d1"),
        node("Concat", ["d1", "x", "d1"], ["e"], name="e", axis=1),
        node("Concat", ["e", "e"], ["f"], name="f", axis=-1),
        node("Add", ["f", "f"], ["y"], name="y"),
    ]
    network = image(nodes, {"w": normal(4, 4, 1, 1), "k": normal(4, 1, 1)})
    ops = {n.name: (n.op, n.inputs) for n in network.nodes}
    assert ops["c"] == (Add(), ("a", "b"))
    assert ops["d"] == (Add(), ("c", "x", "a"))
    assert ops["e"] == (Concat(0), ("d.constant2", "x", "d.constant2"))
    assert ops["f"] == (Concat(2), ("e", "e"))


def test_a_bias_is_not_given_to_a_layer_that_others_read() -> None:
    constants = {"w": normal(4, 4), "b": normal(4)}
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="fc"),
        node("Add", ["a", "b"], ["c"], name="plus"),
        node("Add", ["a", "c"], ["y"], name="both"),
    ]
    network = agrees_float(model(nodes, constants, ("N", 4)), 3, 4)
    assert network.layer_parameters() == {"fc": ("w",), "plus": ("b",)}
    nodes[2] = node("Add", ["x", "c"], ["y"], name="both")
    network = agrees_float(model(nodes, constants, ("N", 4)), 3, 4)
    assert network.layer_parameters() == {"fc": ("w", "b")}


def test_biases_find_their_layers_whatever_the_order() -> None:
    constants = {"v": normal(4, 4), "w": normal(4, 4), "b": normal(4), "c": normal(4)}
    nodes = [
        node("MatMul", ["x", "v"], ["p"], name="one"),
        node("MatMul", ["x", "w"], ["q"], name="two"),
        node("Add", ["p", "b"], ["r"]),
        node("Add", ["c", "q"], ["s"]),
        node("Add", ["r", "s"], ["y"]),
    ]
    network = agrees_float(model(nodes, constants, ("N", 4)), 3, 4)
    assert network.layer_parameters() == {"one": ("v", "b"), "two": ("w", "c")}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Conv", ["x", "w3"], ["y"], name="odd")], "not a valid"),
        ([node("Conv", ["x", "x"], ["y"], name="odd")], "constants"),
        ([node("ReduceMean", ["x"], ["y"], name="odd", axes=[1])], "behind the channels"),
        ([node("ReduceMean", ["x"], ["y"], name="odd")], "behind the channels"),
        ([node("MaxPool", ["x"], ["m", "i"], kernel_shape=[1, 1]),
          node("Cast", ["i"], ["c"], to=FLOAT), node("Add", ["m", "c"], ["y"])], "indices"),
        ([node("Concat", ["x", "x"], ["y"], name="odd", axis=0)], "batch axis"),
        ([node("Concat", ["x", "k"], ["y"], name="odd", axis=1)], "joins a constant"),
        ([node("MaxPool", ["x"], ["h"], kernel_shape=[2, 2]),
          node("Add", ["x", "h"], ["y"], name="odd")], "not a valid|different shapes"),
        ([node("GlobalAveragePool", ["x"], ["h"]), node("Mul", ["x", "h"], ["y"], name="odd")],
         "both operands"),
        ([node("GlobalAveragePool", ["x"], ["h"]), node("Add", ["x", "h"], ["y"], name="odd")],
         "different shapes"),
        ([node("Pad", ["x", "p"], ["h"]),
          node("MaxPool", ["h"], ["y"], name="odd", kernel_shape=[2, 2])], "follows a Pad"),
        ([node("Pad", ["x", "p"], ["h"]), node("Relu", ["h"], ["y"], name="odd")], "follows a Pad"),
        ([node("Pad", ["x", "p", "one"], ["h"]),
          node("Conv", ["h", "w"], ["y"])], "something else than zeros"),
        ([node("Pad", ["x", "p"], ["h"], mode="edge"),
          node("Conv", ["h", "w"], ["y"])], "something else than zeros"),
        ([node("Pad", ["x", "minus"], ["h"]), node("Conv", ["h", "w"], ["y"])], "something else"),
        ([node("Pad", ["x", "outer"], ["h"]), node("Relu", ["h"], ["y"])], "behind the channels"),
        ([node("Pad", ["x", "p"], ["h"]),
          node("AveragePool", ["h"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
         "a Pad before it in"),
        ([node("Pad", ["x", "p"], ["y"], name="odd")], "is padded"),
        ([node("ConvTranspose", ["x", "w"], ["y"], name="odd")], "not supported"),
        ([node("Squeeze", ["x", "two"], ["y"], name="odd")], "not a valid|size 1"),
        ([node("BatchNormalization", ["x", "k4", "k4", "k4", "k4"], ["y"], training_mode=1)],
         "training|not a valid"),
    ],
)  # fmt: skip
def test_what_is_refused(nodes: list[onnx.NodeProto], words: str) -> None:
    known: dict[str, npt.NDArray[Any]] = {
        "w": normal(4, 4, 1, 1), "w3": normal(4, 4, 1), "k": normal(1, 4, 7, 6),
        "one": np.array(1, np.float32), "k4": np.ones(4, np.float32), "two": np.array([2]),
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "minus": np.array([0, 0, -1, 0, 0, 0, 1, 0]),
        "outer": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
    }  # fmt: skip
    named = {tensor for n in nodes for tensor in n.input}
    built = model(nodes, {k: v for k, v in known.items() if k in named})
    with pytest.raises(ModelError, match=words):
        read_onnx(built)


def test_a_window_of_nothing_but_padding_is_refused() -> None:
    pool = node("AveragePool", ["x"], ["y"], kernel_shape=[1, 1], pads=[1, 0, 0, 0], strides=[2, 2])
    with pytest.raises(UnsupportedOperatorError, match="nothing but padding"):
        read_onnx(model([pool]))


@pytest.mark.parametrize("operator", ["Conv", "MaxPool"])
def test_padding_without_measure_is_refused(operator: str) -> None:
    attributes: dict[str, Any] = {"pads": [10**5] * 4}
    if operator == "MaxPool":
        attributes["kernel_shape"] = [10**5, 10**5]
    weight = {"w": normal(2, 4, 1, 1)} if operator == "Conv" else {}
    with pytest.raises(UnsupportedOperatorError, match="smaller"):
        read_onnx(model([node(operator, ["x", *weight], ["y"], **attributes)], weight))


def test_negative_variances_are_refused() -> None:
    constants = {k: np.full(4, -1, np.float32) for k in ("s", "b", "m", "v")}
    norm = node("BatchNormalization", ["x", *constants], ["y"])
    with pytest.raises(ModelError, match="variance below 0"):
        read_onnx(model([norm], constants))


def test_activations_follow_images() -> None:
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])]
    network = image(nodes, {"w": normal(3, 4, 3, 3)})
    assert network.nodes[2].op == Activation("relu")
    assert network.architecture == "4x7x6-conv3"

"""The network IR: shapes, sharing, refusals, evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.errors import ModelError
from paramrob.models.network import (
    Activation,
    Dense,
    Elementwise,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Reshape,
    Shape,
    Softmax,
    activate,
    node_parameters,
)

RNG = np.random.default_rng(2)


def chain(shape: Shape, *layers: tuple[Op, Shape], **values: Any) -> Network:
    """A chain of nodes n1, n2, ... after the input ``x``."""
    nodes = [Node("x", Input(), (), shape)]
    for i, (op, after) in enumerate(layers, 1):
        nodes.append(Node(f"n{i}", op, (nodes[-1].name,), after))
    return Network(nodes, [Parameter(k, np.asarray(v)) for k, v in values.items()])


def test_what_a_network_says_of_itself() -> None:
    network = chain(
        (2,),
        (Dense("w", "b"), (3,)),
        (Activation("relu"), (3,)),
        (Dense("v"), (1,)),
        (Activation("sigmoid"), (1,)),
        w=np.ones((3, 2)),
        b=np.ones(3),
        v=np.ones((1, 3)),
    )
    assert network.architecture == "2-3-1"
    assert network.parameter_count == 12
    assert (network.input_size, network.output_size) == (2, 1)
    assert (network.input_shape, network.output_shape) == ((2,), (1,))
    assert network.layer_parameters() == {"n1": ("w", "b"), "n3": ("v",)}
    assert node_parameters(Activation("relu")) == ()
    assert network.final_node.name == "n4"
    assert not any(network.is_shared(p) for p in network.parameters)


def test_trailing_reshapes_are_not_final() -> None:
    network = chain(
        (2,),
        (Activation("sigmoid"), (2,)),
        (Activation("identity"), (2,)),
        (Reshape(), (1, 2)),
    )
    assert network.final_node.name == "n1"
    assert chain((2,), (Reshape(), (1, 2))).final_node.op == Input()


ACTIVATIONS = st.sampled_from(["relu", "leaky_relu", "sigmoid", "tanh", "softmax", "none"])


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    kinds=st.lists(ACTIVATIONS, min_size=4, max_size=4),
    rows=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_evaluate_agrees_with_torch(
    widths: list[int], kinds: list[str], rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    modules: list[torch.nn.Module] = []
    layers: list[tuple[Op, Shape]] = []
    values: dict[str, Any] = {}
    made: dict[str, tuple[torch.nn.Module, Op]] = {
        "relu": (torch.nn.ReLU(), Activation("relu")),
        "leaky_relu": (torch.nn.LeakyReLU(0.25), Activation("leaky_relu", 0.25)),
        "sigmoid": (torch.nn.Sigmoid(), Activation("sigmoid")),
        "tanh": (torch.nn.Tanh(), Activation("tanh")),
        "softmax": (torch.nn.Softmax(dim=-1), Softmax()),
        "none": (torch.nn.Identity(), Activation("identity")),
    }
    for i, (before, after) in enumerate(pairwise(widths)):
        linear = torch.nn.Linear(before, after).double()
        values[f"w{i}"] = linear.weight.detach().numpy()
        values[f"b{i}"] = linear.bias.detach().numpy()
        module, op = made[kinds[i]]
        modules += [linear, module]
        layers += [(Dense(f"w{i}", f"b{i}"), (rows, after)), (op, (rows, after))]
    layers.append((Reshape(), (rows * widths[-1],)))
    network = chain((rows, widths[0]), *layers, **values)
    x = torch.randn(5, rows, widths[0], dtype=torch.float64) * 3
    with torch.no_grad():
        truth = torch.nn.Sequential(*modules)(x).flatten(1).numpy()
    np.testing.assert_allclose(network.evaluate(x.numpy()), truth, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(network.evaluate(x.flatten(1).numpy()), truth, rtol=1e-10)
    assert network.is_shared("w0") == (rows > 1)


@pytest.mark.parametrize(
    ("kind", "value"), [("add", 5.0), ("sub", 1.0), ("mul", 6.0), ("div", 1.5), ("rsub", -1.0)]
)
def test_elementwise(kind: Any, value: float) -> None:
    network = chain((1,), (Elementwise(kind, "c"), (1,)), c=[2.0])
    assert network.evaluate(np.array([[3.0]])) == [[value]]


def test_other_parameter_values() -> None:
    network = chain((1,), (Dense("w", "b"), (1,)), w=[[2.0]], b=[1.0])
    x = np.array([[3.0]])
    assert network.evaluate(x, {"w": np.array([[10.0]])}) == [[31.0]]
    assert network.evaluate(x) == [[7.0]]
    with pytest.raises(ModelError, match=r"no parameters \['W'\]"):
        network.evaluate(x, {"W": np.array([[10.0]])})


@pytest.mark.parametrize("z", [-800.0, -1e-300, 0.0, 1e-300, 800.0])
def test_activations_far_out(z: float) -> None:
    at = np.array([z])
    truth = torch.tensor([z], dtype=torch.float64)
    np.testing.assert_allclose(
        activate(Activation("sigmoid"), at), torch.sigmoid(truth), atol=1e-16
    )
    np.testing.assert_allclose(activate(Activation("tanh"), at), torch.tanh(truth))
    np.testing.assert_array_equal(activate(Activation("relu"), at), torch.relu(truth))
    soft = chain((2,), (Softmax(), (2,))).evaluate(np.array([[z, -z]]))
    np.testing.assert_allclose(
        soft, torch.softmax(torch.tensor([[z, -z]]).double(), 1), atol=1e-300
    )


@pytest.mark.parametrize(
    ("layers", "values", "shared"),
    [
        ([(Dense("p"), (2,)), (Dense("p"), (2,))], np.eye(2), True),
        ([(Elementwise("add", "p"), (2,))], [1.0, 2.0], False),
        ([(Elementwise("add", "p"), (2,))], [1.0], True),
        ([(Elementwise("add", "p"), (2,))], 1.0, True),
        ([(Elementwise("add", "p"), (2,)), (Elementwise("mul", "p"), (2,))], [1.0, 2.0], True),
    ],
)
def test_sharing(layers: list[tuple[Op, Shape]], values: Any, shared: bool) -> None:
    assert chain((2,), *layers, p=values).is_shared("p") == shared


X = Node("x", Input(), (), (2,))
W23 = Parameter("w", np.ones((3, 2)))


@pytest.mark.parametrize(
    ("nodes", "parameters", "words"),
    [
        ([], [], "starts with its input"),
        ([Node("a", Softmax(), (), (2,))], [], "starts with its input"),
        ([X, Node("y", Input(), ("x",), (2,))], [], "one earlier node"),
        ([X, Node("y", Softmax(), ("z",), (2,))], [], "one earlier node"),
        ([X, Node("y", Softmax(), ("x", "x"), (2,))], [], "needs one input"),
        ([X, Node("y", Softmax(), (), (2,))], [], "one earlier node"),
        ([X, Node("x", Softmax(), ("x",), (2,))], [], "two nodes"),
        ([X, Node("y", Softmax(), ("x",), (3,))], [], "computed"),
        ([X, Node("y", Reshape(), ("x",), (3,))], [], "reshapes"),
        ([Node("x", Input(), (), (0,))], [], "empty shape"),
        ([Node("x", Input(), (), ()), Node("y", Softmax(), ("x",), ())], [], "needs an axis"),
        ([X, Node("y", Dense("w"), ("x",), (3,))], [], "unknown parameter"),
        ([X, Node("y", Dense("w"), ("x",), (2,))], [W23], "computed"),
        ([X, Node("y", Dense("w", "w"), ("x",), (3,))], [W23], "bias of shape"),
        ([X, Node("y", Dense("w"), ("x",), (3,))], [Parameter("w", np.ones((2, 3)))], "weight of"),
        ([X, Node("y", Dense("w"), ("x",), (3,))], [W23, W23], "the same name"),
        ([X, Node("y", Dense("w"), ("x",), (3,))], [W23, Parameter("v", np.ones(1))], "not used"),
        ([X, Node("y", Softmax(), ("x",), (2,)), Node("z", Softmax(), ("x",), (2,))], [], "uses"),
        ([X, Node("y", Elementwise("add", "w"), ("x",), (2,))], [W23], "broadcast"),
        (
            [X, Node("y", Elementwise("div", "c"), ("x",), (2,))],
            [Parameter("c", np.array([1.0, -0.0]))],
            "divides by zero",
        ),
        ([X, Node("y", Elementwise("pow", "c"), ("x",), (2,))], [], "no elementwise"),  # type: ignore[arg-type]
        ([X, Node("y", Activation("mish"), ("x",), (2,))], [], "no activation"),  # type: ignore[arg-type]
        ([X, Node("y", Activation("leaky_relu", -0.1), ("x",), (2,))], [], "negative slope"),
        ([X, Node("y", Activation("leaky_relu", 1.1), ("x",), (2,))], [], "negative slope"),
        ([X, Node("y", Activation("leaky_relu", np.nan), ("x",), (2,))], [], "negative slope"),
    ],
)
def test_networks_that_are_refused(
    nodes: Sequence[Node], parameters: Sequence[Parameter], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        Network(nodes, parameters)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_parameters_are_finite(bad: float) -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        Parameter("w", np.array([1.0, bad]))


@pytest.mark.parametrize(
    "value",
    [
        np.array([2**53 + 1]),
        np.array([2**63 - 1]),
        np.array([2**64 - 1], dtype=np.uint64),
        np.array([1], dtype=np.longdouble) + np.finfo(np.longdouble).eps,
    ],
)
def test_parameters_that_float64_cannot_hold(value: Any) -> None:
    if value.dtype.kind == "f" and np.finfo(np.longdouble).eps == np.finfo(float).eps:
        pytest.skip("long double is double here")
    with pytest.raises(ModelError, match="no float64 has"):
        Parameter("w", value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_parameters_keep_their_values_and_cannot_change(dtype: Any) -> None:
    source = np.array([1, -2, 3], dtype=dtype)
    parameter = Parameter("w", source)
    source[0] = 7
    assert parameter.value.tolist() == [1.0, -2.0, 3.0]
    assert parameter.value.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        parameter.value[0] = 9.0
    network = chain((3,), (Elementwise("add", "w"), (3,)), w=source)
    with pytest.raises(TypeError):
        network.parameters["w"] = parameter  # type: ignore[index]

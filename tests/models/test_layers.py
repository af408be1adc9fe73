"""What the image layers and activations of the IR compute, against PyTorch's own functions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as f
from torch import Tensor

from paramrob.errors import ModelError
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Pool,
    Shape,
    Transpose,
)

RNG = np.random.default_rng(0)


def apply(op: Op, before: Shape, after: Shape, x: np.ndarray[Any, Any], **values: Any) -> Any:
    parameters = [
        Parameter(name, np.asarray(v), fixed=name in ("mean", "var")) for name, v in values.items()
    ]
    nodes = [Node("x", Input(), (), before), Node("y", op, ("x",), after)]
    return Network(nodes, parameters).evaluate(x)


def assert_close(found: Any, expected: Tensor) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), list(product([1, 2], [1, 2], [0, 2], [1, 2]))
)
def test_convolutions(axes: int, groups: int, stride: int, padding: int, dilation: int) -> None:
    size, kernel = (9, 8)[:axes], (3, 2)[:axes]
    weight, bias = RNG.normal(size=(6, 4 // groups, *kernel)), RNG.normal(size=6)
    x = RNG.normal(size=(3, 4, *size))
    function: Any = f.conv1d if axes == 1 else f.conv2d
    given: list[Any] = [torch.from_numpy(a) for a in (x, weight, bias)]
    expected = function(*given, stride, padding, dilation, groups)
    op = Conv(
        "w",
        "b",
        (stride,) * axes,
        ((padding, padding),) * axes,
        (dilation,) * axes,
        groups,
    )
    found = apply(op, x.shape[1:], tuple(expected.shape[1:]), x, w=weight, b=bias)
    assert_close(found, expected)


def test_padding_may_differ_before_and_after() -> None:
    weight, x = RNG.normal(size=(2, 1, 3)), RNG.normal(size=(2, 1, 5))
    padded = f.pad(torch.from_numpy(x), (2, 1))
    expected = f.conv1d(padded, torch.from_numpy(weight))
    op = Conv("w", None, (1,), ((2, 1),), (1,))
    assert_close(apply(op, (1, 5), (2, 6), x, w=weight), expected)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 2)])
def test_batch_normalisation(shape: Shape) -> None:
    x = RNG.normal(size=(4, *shape))
    mean, variance = RNG.normal(size=3), RNG.uniform(0.1, 2, size=3)
    weight, bias = RNG.normal(size=3), RNG.normal(size=3)
    tensors: list[Any] = [torch.from_numpy(a) for a in (x, mean, variance, weight, bias)]
    function: Any = f.batch_norm
    expected = function(*tensors, False, 0.1, 1e-5)
    op = BatchNorm("mean", "var", 1e-5, "w", "b")
    found = apply(op, shape, shape, x, mean=mean, var=variance, w=weight, b=bias)
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("stride", "padding", "include"), list(product([1, 2], [0, 1], [True, False]))
)
def test_average_pools(stride: int, padding: int, include: bool) -> None:
    x = RNG.normal(size=(2, 3, 7, 6))
    expected = f.avg_pool2d(torch.from_numpy(x), (3, 2), stride, padding, False, include)
    pads = ((padding, padding), (padding, padding))
    op = Pool("average", (3, 2), (stride, stride), pads, (1, 1), include)
    assert_close(apply(op, (3, 7, 6), tuple(expected.shape[1:]), x), expected)


@pytest.mark.parametrize(("stride", "padding", "dilation"), list(product([1, 2], [0, 1], [1, 2])))
def test_maximum_pools(stride: int, padding: int, dilation: int) -> None:
    x = RNG.normal(size=(2, 3, 9))
    expected = f.max_pool1d(torch.from_numpy(x), 3, stride, padding, dilation)
    op = Pool("max", (3,), (stride,), ((padding, padding),), (dilation,))
    assert_close(apply(op, (3, 9), tuple(expected.shape[1:]), x), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (7, 6)])
def test_adaptive_pools(size: tuple[int, int]) -> None:
    x = RNG.normal(size=(2, 3, 7, 6))
    average = f.adaptive_avg_pool2d(torch.from_numpy(x), size)
    assert_close(apply(AdaptivePool("average"), (3, 7, 6), (3, *size), x), average)
    largest = f.adaptive_max_pool2d(torch.from_numpy(x), size)
    assert_close(apply(AdaptivePool("max"), (3, 7, 6), (3, *size), x), largest)


ACTIVATIONS: list[tuple[Activation, Callable[[Tensor], Tensor]]] = [
    (Activation("clamp", low=0.0, high=6.0), f.relu6),
    (Activation("clamp", low=-1.0, high=1.0), f.hardtanh),
    (Activation("softplus", beta=2.0), lambda z: f.softplus(z, 2.0, 1e9)),
    (Activation("elu", alpha=0.75), lambda z: f.elu(z, 0.75)),
    (Activation("silu"), f.silu),
    (Activation("gelu"), f.gelu),
    (Activation("gelu_tanh"), lambda z: f.gelu(z, approximate="tanh")),
    (Activation("hardswish"), f.hardswish),
    (Activation("hardsigmoid"), f.hardsigmoid),
]


@pytest.mark.parametrize(("op", "function"), ACTIVATIONS, ids=[a.kind for a, _ in ACTIVATIONS])
def test_activations(op: Activation, function: Callable[[Tensor], Tensor]) -> None:
    z = np.concatenate([np.linspace(-8, 8, 321), [0.0, -3.0, 3.0]])[:, None]
    assert_close(apply(op, (1,), (1,), z), function(torch.from_numpy(z)))


def test_branches_meet_again() -> None:
    nodes = [
        Node("x", Input(), (), (2, 3)),
        Node("t", Transpose((1, 0)), ("x",), (3, 2)),
        Node("r", Activation("relu"), ("t",), (3, 2)),
        Node("sum", Add(), ("t", "r", "t"), (3, 2)),
        Node("both", Concat(1), ("sum", "r"), (3, 4)),
    ]
    x = RNG.normal(size=(5, 2, 3))
    turned = x.transpose(0, 2, 1)
    expected = np.concatenate([2 * turned + np.maximum(turned, 0), np.maximum(turned, 0)], axis=2)
    np.testing.assert_array_equal(Network(nodes, []).evaluate(x), expected)


def test_running_statistics_are_not_perturbed() -> None:
    ones = np.ones(3)
    parameters = [
        Parameter("m", ones, fixed=True), Parameter("v", ones, fixed=True), Parameter("w", ones)
    ]  # fmt: skip
    op = BatchNorm("m", "v", 0.0, "w")
    nodes = [Node("x", Input(), (), (3, 2)), Node("y", op, ("x",), (3, 2))]
    network = Network(nodes, parameters)
    assert network.layer_parameters() == {"y": ("w",)}
    assert network.parameter_count == 3
    assert network.is_shared("w")
    loose = [Parameter(name, ones) for name in ("m", "v", "w")]
    with pytest.raises(ModelError, match="statistic"):
        Network(nodes, loose)


@pytest.mark.parametrize(
    ("op", "before", "after", "words"),
    [
        (Transpose((0, 0)), (2, 2), (2, 2), "no order"),
        (Pool("max", (3,), (1,), ((0, 0),), (1,)), (1, 2), (1, 1), "larger than"),
        (Pool("max", (1,), (0,), ((0, 0),), (1,)), (1, 2), (1, 1), "start at 1"),
        (AdaptivePool("max"), (2, 4), (3, 2), "pools"),
        (Activation("clamp", low=1.0, high=0.0), (2,), (2,), "no interval"),
        (Activation("elu", alpha=-1.0), (2,), (2,), "negative"),
        (Activation("softplus", beta=0.0), (2,), (2,), "not positive"),
        (Conv("w", None, (1,), ((0, 0),), (1,)), (3, 4), (2, 2), "kernel of shape"),
        (Add(), (2,), (2,), "two or more"),
    ],
)
def test_what_does_not_fit_is_refused(op: Op, before: Shape, after: Shape, words: str) -> None:
    values = {"w": np.ones((2, 2, 3))} if isinstance(op, Conv) else {}
    with pytest.raises(ModelError, match=words):
        apply(op, before, after, np.zeros((1, *before)), **values)

"""Whole networks against onnxruntime, and what torch's exporter makes of modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flint
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Network,
    Pool,
    Reshape,
)
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from tests.models.onnx_graphs import build, node, run

FLOAT = TensorProto.FLOAT


class Maker:
    """Writes ONNX nodes with random float32 parameters."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(node(operator, inputs, [out], name=f"{operator}{out}", **attributes))
        return out

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.constants)}"
        fan = float(np.prod(shape[1:])) if len(shape) > 1 else 1.0
        self.constants[name] = (self.rng.normal(size=shape) / fan**0.5).astype(np.float32)
        return name

    def conv(self, x: str, before: int, after: int, kernel: int, **attributes: Any) -> str:
        weight = self.weight(after, before // attributes.get("group", 1), kernel, kernel)
        pads = [kernel // 2] * 4
        return self.add("Conv", x, weight, pads=pads, **attributes)

    def norm(self, x: str, channels: int) -> str:
        names = [self.weight(channels) for _ in range(3)]
        spread = f"v{len(self.constants)}"
        self.constants[spread] = self.rng.uniform(0.5, 2, channels).astype(np.float32)
        return self.add("BatchNormalization", x, *names, spread)

    def head(self, x: str, channels: int, classes: int = 10) -> onnx.ModelProto:
        pooled = self.add("Flatten", self.add("GlobalAveragePool", x))
        weight, bias = self.weight(classes, channels), self.weight(classes)
        self.nodes.append(node("Gemm", [pooled, weight, bias], ["y"], name="head", transB=1))
        return build(self.nodes, self.constants, ("N", 3, 12, 12), opset=17, elem=FLOAT)


def resnet() -> onnx.ModelProto:
    m = Maker()
    h = m.add("Relu", m.norm(m.conv("x", 3, 8, 3), 8))
    for before, after, stride in ((8, 8, 1), (8, 16, 2)):
        main = m.conv(h, before, after, 3, strides=[stride, stride])
        main = m.add("Relu", m.norm(main, after))
        main = m.norm(m.conv(main, after, after, 3), after)
        if stride > 1:
            h = m.norm(m.conv(h, before, after, 1, strides=[stride, stride]), after)
        h = m.add("Relu", m.add("Add", main, h))
    return m.head(h, 16)


def densenet() -> onnx.ModelProto:
    m = Maker()
    h, width = m.conv("x", 3, 8, 3), 8
    for _ in range(3):
        new = m.add("Relu", m.norm(h, width))
        h = m.add("Concat", h, m.conv(new, width, 4, 3), axis=1)
        width += 4
    h = m.conv(m.add("Relu", m.norm(h, width)), width, width // 2, 1)
    return m.head(m.add("AveragePool", h, kernel_shape=[2, 2], strides=[2, 2]), width // 2)


def mobilenet() -> onnx.ModelProto:
    m = Maker()
    m.constants |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    h = m.add("HardSwish", m.norm(m.conv("x", 3, 8, 3, strides=[2, 2]), 8))
    for _ in range(2):
        wide = m.add("Clip", m.norm(m.conv(h, 8, 24, 1), 24), "low", "high")
        deep = m.norm(m.conv(wide, 24, 24, 3, group=24), 24)
        deep = m.add("Mul", deep, m.add("HardSigmoid", deep, alpha=1 / 6))
        h = m.add("Add", h, m.norm(m.conv(deep, 24, 8, 1), 8))
    return m.head(m.add("Mul", h, m.add("Sigmoid", h)), 8)


def counts(network: Network) -> dict[type, int]:
    kinds = [type(n.op) for n in network.nodes]
    return {kind: kinds.count(kind) for kind in set(kinds)}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (resnet, {Conv: 6, BatchNorm: 6, Add: 2, AdaptivePool: 1, Dense: 1}),
        (densenet, {Conv: 5, BatchNorm: 4, Concat: 3, Pool: 1, AdaptivePool: 1}),
        (mobilenet, {Conv: 7, BatchNorm: 7, Add: 2, AdaptivePool: 1}),
    ],
)
def test_networks_of_the_usual_kinds(made: Any, expected: dict[type, int]) -> None:
    model = made()
    network = read_onnx(model)
    x = np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype(np.float32)
    truth = run(model, x)
    np.testing.assert_allclose(network.evaluate(x.astype(np.float64)), truth, rtol=1e-4, atol=1e-5)
    found = counts(network)
    assert {kind: found[kind] for kind in expected} == expected
    balls = evaluate_exact(network, x[0].astype(np.float64))
    assert all(isinstance(y, flint.arb) for y in balls)
    floats = network.evaluate(x[:1].astype(np.float64))[0]
    np.testing.assert_allclose([float(y.mid()) for y in balls], floats, rtol=1e-11, atol=1e-12)


class Residual(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.act = activation
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.first(x)))
        h = torch.cat([h, self.act(self.second(h)) + h], dim=1)
        h = h.mean(dim=[2, 3])
        result: Tensor = self.head(h.view(h.size(0), -1))
        return result


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 0, 2, 1))
        self.conv = nn.Conv2d(2, 3, 2, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=1, padding=1)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.conv(self.pad(x)))
        h = nn.functional.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False)
        h = h.flatten(2).transpose(1, 2)
        result: Tensor = self.head(h).reshape(h.shape[0], -1)
        return result


def exported(module: nn.Module, path: Path, dynamic: bool, opset: int = 17) -> Network:
    """Export a module with a freshly drawn state and read what comes of it."""
    generator = torch.Generator().manual_seed(3)
    for tensor in module.state_dict().values():
        if tensor.dtype == torch.float32:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    axes = {"x": {0: "batch"}} if dynamic else None
    try:
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 2, 6, 6),),
            str(path),
            dynamo=False,
            input_names=["x"],
            dynamic_axes=axes,
            opset_version=opset,
            # keeps batch normalisation apart from the convolutions
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    except (ImportError, TypeError, AttributeError) as error:
        pytest.skip(f"this torch has no exporter without further packages: {error}")
    return read_onnx(path)


def check(module: nn.Module, network: Network) -> None:
    x = np.random.default_rng(2).normal(size=(5, 2, 6, 6))
    with torch.no_grad():
        truth = module.double()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.evaluate(x), truth, rtol=1e-6, atol=1e-8)


ACTIVATIONS = [
    (nn.ReLU6(), "clamp"),
    (nn.SiLU(), "silu"),
    (nn.GELU(), "gelu"),
    (nn.GELU("tanh"), "gelu_tanh"),
    (nn.Hardswish(), "hardswish"),
    (nn.Hardsigmoid(), "hardsigmoid"),
    (nn.Hardtanh(), "clamp"),
    (nn.ELU(0.5), "elu"),
    (nn.Softplus(), "softplus"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("act", "kind"), ACTIVATIONS, ids=[str(a) for a, _ in ACTIVATIONS])
@pytest.mark.parametrize("opset", [12, 17, 20])
def test_exported_residual_blocks(act: nn.Module, kind: str, opset: int, tmp_path: Path) -> None:
    module = Residual(act)
    network = exported(module, tmp_path / "m.onnx", opset != 17, opset)
    check(module, network)
    kinds = [n.op.kind for n in network.nodes if isinstance(n.op, Activation)]
    assert kinds == [kind, kind]
    assert counts(network)[BatchNorm] == 1
    fixed = {n for n, p in network.parameters.items() if p.fixed}
    assert fixed == {"norm.running_mean", "norm.running_var"}
    assert set(network.parameters) >= {"first.weight", "norm.weight", "head.bias"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_views_and_pads(dynamic: bool, tmp_path: Path) -> None:
    module = Views()
    network = exported(module, tmp_path / "m.onnx", dynamic)
    check(module, network)
    assert counts(network)[Reshape] >= 1
    conv = next(n.op for n in network.nodes if isinstance(n.op, Conv))
    assert conv.padding == ((3, 2), (2, 1))

"""Small networks trained on scikit-learn's data, quantized by onnxruntime, and what it computes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from sklearn.datasets import load_digits, make_moons
from torch import nn

from paramrob.models.evaluate import apply_node
from paramrob.models.network import Array, Network, Quantize

Floats = npt.NDArray[np.float32]
CALIBRATION = 256


@dataclass(frozen=True)
class Variant:
    """How to quantize: on integers (QOperator), or with Q and DQ nodes."""

    on_integers: bool = False
    per_channel: bool = False
    activations: str = "QUInt8"
    weights: str = "QInt8"
    symmetric: bool = False
    reduce_range: bool = False

    @property
    def name(self) -> str:
        """Return a short name."""
        said = [
            "QOperator" if self.on_integers else "QDQ",
            f"{self.activations[1:].lower()}/{self.weights[1:].lower()}",
            "per channel" if self.per_channel else "per tensor",
        ]
        said += ["symmetric"] if self.symmetric else []
        said += ["reduced range"] if self.reduce_range else []
        return ", ".join(said)


VARIANTS = (
    Variant(),
    Variant(per_channel=True),
    Variant(per_channel=True, activations="QInt8", symmetric=True),
    Variant(weights="QUInt8", reduce_range=True),
    Variant(on_integers=True),
    Variant(on_integers=True, per_channel=True),
    Variant(on_integers=True, per_channel=True, activations="QInt8", symmetric=True),
    Variant(on_integers=True, reduce_range=True),
)


@dataclass(frozen=True)
class Data:
    """Inputs within [0, 1], ``(count, *shape)``, and their classes."""

    x: Floats
    y: npt.NDArray[np.int64]


def moons() -> Data:
    x, y = make_moons(n_samples=1000, noise=0.1, random_state=0)
    x = (x - x.min(axis=0)) / np.ptp(x, axis=0)
    return Data(x.astype(np.float32), y.astype(np.int64))


def digits(image: bool = False) -> Data:
    found = load_digits()
    x = (found.data / 16).astype(np.float32)
    return Data(x.reshape(-1, 1, 8, 8) if image else x, found.target.astype(np.int64))


def dense(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in itertools.pairwise(widths):
        layers += [nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional(channels: int, pooled: bool) -> nn.Sequential:
    """Return a network on images of 8 by 8, with pools or with strides."""
    stride = 1 if pooled else 2
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1, stride=stride), nn.ReLU()]
    layers += [nn.MaxPool2d(2)] if pooled else []
    layers += [nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU()]
    size = 2 * channels if pooled else 2 * channels * 16
    layers += [nn.AdaptiveAvgPool2d(1)] if pooled else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(size, 10))


def trained(model: nn.Sequential, data: Data, seed: int, steps: int = 150) -> nn.Sequential:
    """Train with Adam on a third of the data from a fixed seed."""
    torch.manual_seed(seed)
    for layer in model:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.reset_parameters()
    x, y = torch.from_numpy(data.x[::3].copy()), torch.from_numpy(data.y[::3].copy())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.requires_grad_(False).eval()


def save_onnx(model: nn.Sequential, shape: Sequence[int], path: Path) -> Path:
    """Write the network as exporters do; its input is ``x``, its output ``y``."""
    nodes, constants = [], []
    at = "x"
    for i, layer in enumerate(model):
        out = "y" if i == len(model) - 1 else f"h{i}"
        inputs = [at]
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            for key, value in layer.named_parameters():
                name = f"{i}.{key}"
                constants.append(numpy_helper.from_array(value.detach().numpy(), name))
                inputs.append(name)
        op_type, more = _operator(layer)
        nodes.append(helper.make_node(op_type, inputs, [out], name=f"layer{i}", **more))
        at = out
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", None])
    graph = helper.make_graph(nodes, "network", [given], [made], constants)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _operator(layer: nn.Module) -> tuple[str, dict[str, Any]]:
    if isinstance(layer, nn.Linear):
        return "Gemm", {"transB": 1}
    if isinstance(layer, nn.Conv2d):
        pad, stride = int(layer.padding[0]), int(layer.stride[0])
        return "Conv", {"pads": [pad] * 4, "strides": [stride] * 2, "kernel_shape": [3, 3]}
    if isinstance(layer, nn.MaxPool2d):
        return "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
    names = {nn.ReLU: "Relu", nn.AdaptiveAvgPool2d: "GlobalAveragePool", nn.Flatten: "Flatten"}
    return names[type(layer)], {}


def save_branched(path: Path, seed: int, pool: str, opset: int = 13) -> Path:
    """Write a random network with a sum, a join, a pool, groups and a moved axis."""
    rng = np.random.default_rng(seed)
    constants = []

    def stored(name: str, *shape: int) -> str:
        value = rng.normal(size=shape) / np.sqrt(max(int(np.prod(shape[1:])), 4))
        constants.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(op_type: str, inputs: list[str], output: str, **more: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], name=f"{op_type}-{output}", **more)

    first = ["x", stored("w0", 4, 2, 3, 3), stored("b0", 4)]
    second = ["a0", stored("w1", 4, 2, 3, 3), stored("b1", 4)]
    nodes = [
        node("Conv", first, "c0", pads=[1] * 4),
        node("LeakyRelu", ["c0"], "a0", alpha=0.125),
        node("Conv", second, "c1", pads=[1] * 4, group=2),
        node("Add", ["c1", "a0"], "s"),
        node("Relu", ["s"], "a1"),
        node("Concat", ["a1", "a0"], "k", axis=1),
        node(pool, ["k"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["p"], "t", perm=[0, 2, 3, 1]),
        node("Flatten", ["t"], "f"),
        node("MatMul", ["f", stored("w2", 72, 5)], "m"),
        node("Add", ["m", stored("b2", 5)], "m2"),
        node("Gemm", ["m2", stored("w3", 5, 3), stored("b3", 3)], "y"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 6, 6])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "branched", [given], [made], constants)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Floats) -> None:
        self._batches = iter([{"x": x[i : i + 32]} for i in range(0, len(x), 32)])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def quantized(path: Path, data: Data, variant: Variant, out: Path) -> Path:
    """Write what onnxruntime's static quantizer makes of a file."""
    with _quiet():
        quantize_static(
            path,
            out,
            _Calibration(data.x[:CALIBRATION]),
            quant_format=QuantFormat.QOperator if variant.on_integers else QuantFormat.QDQ,
            per_channel=variant.per_channel,
            reduce_range=variant.reduce_range,
            activation_type=QuantType[variant.activations],
            weight_type=QuantType[variant.weights],
            extra_options={"ActivationSymmetric": variant.symmetric},
        )
    return out


def random_inputs(data: Data, count: int, seed: int) -> Floats:
    """Return uniform inputs, every other one a point of the data moved by up to 0.1."""
    rng = np.random.default_rng(seed)
    uniform = rng.uniform(0, 1, size=(count, *data.x.shape[1:]))
    moved = data.x[rng.integers(0, len(data.x), size=count)]
    moved = np.clip(moved + rng.uniform(-0.1, 0.1, size=moved.shape), 0, 1)
    uniform[::2] = moved[::2]
    return uniform.astype(np.float32)


def in_onnxruntime(path: Path, x: Floats, optimized: bool = False) -> npt.NDArray[np.float64]:
    """Return what onnxruntime computes, node by node or with its default fusions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], dtype=np.float64)


def last_step(network: Network) -> float:
    """Return the step of the grid that the outputs lie on."""
    return [n.op.scale for n in network.nodes if isinstance(n.op, Quantize)][-1]


@dataclass(frozen=True)
class Tie:
    """The number nearest to a tie that is rounded: its node and how far it is, in steps."""

    node: str
    distance: float


def explained(network: Network, x: Floats, seen: Array, most: float = 1e-3) -> Tie | None:
    """Return the tie that makes all of the difference to a result, if one does.

    Args:
        network: whose result at ``x`` is another one.
        x: one input.
        seen: what the runtime computes.
        most: how far from a tie, in steps, a runtime may round the other way.

    Returns:
        The number nearest to a tie such that the network, with that one number rounded the other
        way, returns ``seen``; ``None`` where there is no such number among the nearest.
    """
    _, ties = _executed(network, x, None)
    nearest = sorted((d, name, place) for (name, place), d in ties.items() if d <= most)
    for distance, name, place in nearest[:16]:
        turned, _ = _executed(network, x, (name, place))
        if np.allclose(turned, seen, rtol=1e-5, atol=1e-9):
            return Tie(name, distance)
    return None


def _executed(
    network: Network, x: Floats, turn: tuple[str, int] | None
) -> tuple[Array, dict[tuple[str, int], float]]:
    """Return the result, with one number rounded the other way, and distances to ties."""
    values = {name: p.value for name, p in network.parameters.items()}
    held = {network.nodes[0].name: x.astype(np.float64).reshape(1, *network.input_shape)}
    ties: dict[tuple[str, int], float] = {}
    for node in network.nodes[1:]:
        given = [held[name] for name in node.inputs]
        result = apply_node(node.op, given, node.shape, values)
        if isinstance(node.op, Quantize):
            steps = (given[0] / node.op.scale).ravel()
            away = np.abs(steps - np.floor(steps) - 0.5)
            ties.update({(node.name, i): float(d) for i, d in enumerate(away) if d < 0.01})
            if turn is not None and turn[0] == node.name:
                flat = result.ravel().copy()
                up = steps[turn[1]] > flat[turn[1]] / node.op.scale
                flat[turn[1]] += node.op.scale if up else -node.op.scale
                result = flat.reshape(result.shape)
        held[node.name] = result
    return held[network.nodes[-1].name][0], ties


@dataclass(frozen=True)
class Rounded:
    """How a runtime rounds, node by node, each given the runtime's own numbers before it.

    ``count`` numbers were rounded, ``odd`` of them to another neighbour than the exact one; the
    farthest of these lies ``distance`` steps from a tie. ``farthest`` is the largest difference
    of any rounded number, in steps.
    """

    count: int
    odd: int
    distance: float
    farthest: float


def node_by_node(file: Path, network: Network, x: Floats) -> Rounded:
    """Compare every rounding of a file with onnxruntime's, given what onnxruntime rounds.

    A rounding that differs is then told apart from one that only follows from an earlier one.
    """
    seen = _integers(file, x)
    values = {name: p.value for name, p in network.parameters.items()}
    held = {network.nodes[0].name: x.astype(np.float64).reshape(-1, *network.input_shape)}
    count = odd = 0
    distance = farthest = 0.0
    for node in network.nodes[1:]:
        given = [held[name] for name in node.inputs]
        result = apply_node(node.op, given, node.shape, values)
        if isinstance(node.op, Quantize):
            op = node.op
            theirs = seen[node.name.removesuffix(".quantize")].reshape(result.shape)
            ours = np.rint(result / op.scale) + op.zero_point
            away = np.abs(ours - theirs)
            steps = given[0] / op.scale
            ties = np.abs(steps - np.floor(steps) - 0.5)[away > 0]
            count, odd = count + away.size, odd + ties.size
            distance = max(distance, float(ties.max(initial=0.0)))
            farthest = max(farthest, float(away.max()))
            result = (theirs - op.zero_point) * op.scale
        held[node.name] = result
    return Rounded(count, odd, distance, farthest)


def _integers(file: Path, x: Floats) -> dict[str, Array]:
    """Return the integers that each node of a file rounds to, by the node's name."""
    model = onnx.load(file)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    names = {}
    for i, each in enumerate(model.graph.node):
        zero = _zero_point(each)
        if zero is not None and zero in kinds:
            names[each.output[0]] = each.name or f"{each.op_type}_{i}"
            info = helper.make_tensor_value_info(each.output[0], kinds[zero], None)
            model.graph.output.append(info)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(list(names), {"x": x})
    return {
        name: np.asarray(v, dtype=np.float64) for name, v in zip(names.values(), found, strict=True)
    }


def _zero_point(each: onnx.NodeProto) -> str | None:
    """Return the name of the zero point that a node rounds with, if it rounds."""
    places = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QGemm": 8}
    places |= dict.fromkeys(("QLinearAdd", "QLinearMul"), 7)
    places |= {"QLinearConcat": 1}
    place = places.get(each.op_type, 4 if each.op_type.startswith("QLinear") else None)
    return each.input[place] if place is not None and len(each.input) > place else None

"""A network lowered to the few kinds of steps that the bound pass knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paramrob.arithmetic import Arithmetic
from paramrob.bounds.chain import reciprocal, slack_is_exact
from paramrob.bounds.graph.affine import Affine, AverageMap, DenseMap, DiagonalMap
from paramrob.bounds.graph.change import Change
from paramrob.bounds.graph.convolution import ConvMap
from paramrob.bounds.graph.snap import Snap
from paramrob.errors import BackendError
from paramrob.layers import Link
from paramrob.models.model import OutputInfo
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    Array,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Network,
    Node,
    Pool,
    Quantize,
    Reshape,
    Shape,
    Softmax,
    Transpose,
)
from paramrob.models.shapes import Indices, pool_windows
from paramrob.perturbation import ParameterInterval, Perturbation
from paramrob.problem import UncertainNetwork


@dataclass(frozen=True)
class Start:
    """The network's input."""


@dataclass(frozen=True)
class Sum:
    """A sum of its inputs, each with sign 1 or -1.

    ``larger`` names two steps whose elementwise maximum this is, ``image`` an activation and the
    step that it is applied to, of which this is the result: bounds that intervals of the sum
    would lose.
    """

    signs: tuple[int, ...]
    larger: tuple[int, int] | None = None
    image: tuple[Activation, int] | None = None


@dataclass(frozen=True)
class Pick:
    """The input's numbers at ``index``, ``(out,)``."""

    index: Tensor


@dataclass(frozen=True)
class Join:
    """Its inputs one after the other, flat."""


Kind = Start | Affine | Activation | Change | Snap | Sum | Pick | Join


@dataclass(frozen=True)
class Step:
    """One step: what it does, the steps it reads, how many numbers it gives.

    Of an affine step ``limit`` is what its values, ``partial`` what its partial sums have to stay
    below in magnitude, in a floating-point format that has a largest number.
    """

    kind: Kind
    inputs: tuple[int, ...]
    size: int
    source: str | None = None
    limit: float = math.inf
    partial: float = math.inf


@dataclass(frozen=True)
class Program:
    """Steps in topological order; the last gives the logits or values.

    ``link`` turns them into the confidence. ``exact`` is false where a parameter that can move is
    used at several positions, which the slack form treats as several parameters, and where
    rounding, of arithmetic or to a grid, is bounded. ``arithmetic`` is what the steps are rounded
    in, ``None`` for real numbers.
    """

    steps: tuple[Step, ...]
    link: Link
    exact: bool
    arithmetic: Arithmetic | None = None


def lower(
    network: Network,
    perturbation: Perturbation,
    output: OutputInfo,
    device: str = "cpu",
    arithmetic: Arithmetic | None = None,
) -> Program:
    """Return the program of all networks in the box.

    Args:
        network: the architecture, and the centre of the box.
        perturbation: the box.
        output: what the outputs mean.
        device: ``cpu`` or ``cuda``.
        arithmetic: what the network is executed in; real numbers by default.

    Raises:
        BackendError: a softmax stands elsewhere than at the end of a classifier, a divisor's
            box reaches 0, or there is no bound in this arithmetic.
    """
    from paramrob.bounds.graph.deployed import DeployedBuilder

    builder = Builder(network, perturbation, device)
    if arithmetic is not None:
        builder = DeployedBuilder(network, perturbation, device, arithmetic)
    link, last = link_of(network, output)
    for node in network.nodes[1:]:
        if last in builder.at:
            break
        builder.add(node)
    at = builder.at[last]
    steps = tuple(builder.steps[: at + 1])
    exact = arithmetic is None and slack_is_exact(UncertainNetwork(network, perturbation))
    exact = exact and not any(isinstance(step.kind, Snap) for step in steps)
    return Program(steps, link, exact, arithmetic)


def link_of(network: Network, output: OutputInfo) -> tuple[Link, str]:
    """Return what turns results into the confidence, and the node that gives the results."""
    final = network.final_node
    if output.kind == "logit":
        return "sigmoid", network.nodes[-1].name
    if output.kind == "logits":
        return "softmax", network.nodes[-1].name
    if output.kind == "probabilities" and isinstance(final.op, Softmax):
        return "softmax", final.inputs[0]
    if output.kind == "probability" and final.op == Activation("sigmoid"):
        return "sigmoid", final.inputs[0]
    return "identity", network.nodes[-1].name


class Builder:
    """Lowers nodes one by one.

    Args:
        network, perturbation: the box of networks.
        device: where tensors live.

    Attributes:
        steps: so far.
        at: the step that gives a node's result, by name.
    """

    def __init__(self, network: Network, perturbation: Perturbation, device: str) -> None:
        self.network, self.perturbation, self.device = network, perturbation, device
        start = network.nodes[0]
        self.steps = [Step(Start(), (), network.input_size)]
        self.at = {start.name: 0}
        self.shapes: dict[str, Shape] = {n.name: n.shape for n in network.nodes}

    def add(self, node: Node) -> None:
        """Lower one node."""
        op = node.op
        before = [self.at[name] for name in node.inputs]
        shapes = [self.shapes[name] for name in node.inputs]
        if isinstance(op, Softmax):
            raise BackendError(
                f"node {node.name!r}: a softmax is supported only as the last layer of a "
                "classifier; set the output kind to probabilities"
            )
        if isinstance(op, Reshape) or op == Activation("identity"):
            self.at[node.name] = before[0]
        elif isinstance(op, Activation):
            self.at[node.name] = self._step(op, before, node)
        elif isinstance(op, Quantize):
            self.at[node.name] = self._quantized(node, op, before[0])
        elif isinstance(op, Add):
            self.at[node.name] = self._added(node, before)
        elif isinstance(op, (Concat, Transpose)):
            self.at[node.name] = self._moved(node, op, before, shapes)
        elif isinstance(op, (Pool, AdaptivePool)):
            self.at[node.name] = self._pooled(node, op, before[0], shapes[0])
        else:
            at = before[0]
            for layer in self._layers(node, shapes[0]):
                at = self._step(layer, [at], node, layer.bias.numel())
            self.at[node.name] = at

    def _step(self, kind: Kind, inputs: Sequence[int], node: Node, size: int | None = None) -> int:
        size = math.prod(node.shape) if size is None else size
        self.steps.append(Step(kind, tuple(inputs), size, node.name))
        return len(self.steps) - 1

    def _quantized(self, node: Node, op: Quantize, before: int) -> int:
        """Return the rounding of what is clamped to the ends of the grid."""
        clamp = Activation("clamp", low=op.least, high=op.most)
        return self._step(Snap(op), [self._step(clamp, [before], node)], node)

    def _added(self, node: Node, before: list[int]) -> int:
        return self._step(Sum((1,) * len(before)), before, node)

    def _moved(
        self, node: Node, op: Concat | Transpose, before: list[int], shapes: list[Shape]
    ) -> int:
        """Join the inputs flat, then put the numbers in order."""
        at, start = before[0], 0
        numbered = []
        for shape in shapes:
            count = math.prod(shape)
            numbered.append(np.arange(start, start + count).reshape(shape))
            start += count
        if isinstance(op, Concat):
            at = self._step(Join(), before, node)
            order = np.concatenate(numbered, axis=op.axis)
        else:
            order = numbered[0].transpose(op.order)
        flat = order.reshape(-1)
        if np.array_equal(flat, np.arange(flat.size)):
            return at
        return self._step(Pick(self._indices(flat)), [at], node)

    def _pooled(self, node: Node, op: Pool | AdaptivePool, before: int, shape: Shape) -> int:
        windows, divisors = pool_windows(op, shape[1:], node.shape[1:])
        channels, size = shape[0], math.prod(shape[1:])
        if op.kind == "average":
            average = self._average(node, windows, divisors.astype(np.float64), channels, size)
            return self._step(average, [before], node)
        # A window's own member stands in for padding: it changes no maximum.
        own = windows.max(axis=1, keepdims=True)
        windows = np.where(windows < 0, own, windows)
        offsets = np.arange(channels)[:, None] * size
        members = [
            self._step(
                Pick(self._indices((offsets + windows[:, m][None]).reshape(-1))), [before], node
            )
            for m in range(windows.shape[1])
        ]
        while len(members) > 1:
            rest = members[2 * (len(members) // 2) :]
            pairs = zip(members[0::2], members[1::2], strict=False)
            members = [self._larger(node, a, b) for a, b in pairs] + rest
        return members[0]

    def _average(
        self, node: Node, windows: Indices, divisors: Array, channels: int, size: int
    ) -> Affine:
        return AverageMap(self._indices(windows), self._tensor(divisors), channels, size)

    def _larger(self, node: Node, a: int, b: int) -> int:
        """Return ``max(a, b) = a + relu(b - a)``."""
        difference = self._step(Sum((1, -1)), [b, a], node)
        excess = self._step(Activation("relu"), [difference], node)
        return self._step(Sum((1, 1), larger=(a, b)), [a, excess], node)

    def _layers(self, node: Node, before: Shape) -> list[Affine]:
        op = node.op
        if isinstance(op, Dense):
            weight, bias = self._interval(op.weight), self._optional(op.bias, node.shape[-1])
            return [self._dense(node, weight, bias)]
        if isinstance(op, Conv):
            weight, bias = self._interval(op.weight), self._optional(op.bias, node.shape[0])
            return [self._convolution(node, op, before, weight, bias)]
        if isinstance(op, BatchNorm):
            return self._normalisation(op, before)
        if isinstance(op, Elementwise):
            return [self._elementwise(node, op)]
        raise BackendError(f"node {node.name!r}: not supported by the bound engine")

    def _dense(self, node: Node, weight: ParameterInterval, bias: ParameterInterval) -> Affine:
        return DenseMap(*self._pair(weight), *self._pair(bias), math.prod(node.shape[:-1]))

    def _convolution(
        self,
        node: Node,
        op: Conv,
        before: Shape,
        weights: ParameterInterval,
        biases: ParameterInterval,
    ) -> Affine:
        weight, radius = self._pair(weights)
        bias = self._pair(biases)
        stride, padding, dilation, size = op.stride, op.padding, op.dilation, before[1:]
        if len(size) == 1:  # a signal is an image of height 1
            weight, radius = weight.unsqueeze(2), radius.unsqueeze(2)
            stride, padding, dilation = (1, *stride), ((0, 0), *padding), (1, *dilation)
            size = (1, *size)
        return ConvMap(
            weight,
            radius,
            *bias,
            (before[0], size[0], size[1]),
            (stride[0], stride[1]),
            (*padding[0], *padding[1]),
            (dilation[0], dilation[1]),
            op.groups,
        )

    def _normalisation(self, op: BatchNorm, before: Shape) -> list[Affine]:
        """Return the shift by the mean, then the scale: the mean is known, ``h - mean`` too."""
        values = self.network.parameters
        channels, places = before[0], math.prod(before[1:])
        root = 1.0 / np.sqrt(values[op.variance].value + op.epsilon)
        weight = self._optional(op.weight, channels, 1.0)
        bias = self._optional(op.bias, channels)
        # Quotient, root and sum are each off by less than one unit; so is the product.
        radius = weight.radius() * root * (1 + 2.0**-50)
        radius = np.where(radius > 0, np.nextafter(radius, np.inf), 0.0)

        def spread(a: Array) -> Tensor:
            return self._tensor(np.repeat(a, places))

        zero = spread(np.zeros(channels))
        shift = DiagonalMap(zero + 1, zero, spread(-values[op.mean].value), zero)
        scale = spread(weight.centre * root)
        moved = spread(bias.centre), spread(bias.radius())
        return [shift, DiagonalMap(scale, spread(radius), *moved, places)]

    def _elementwise(self, node: Node, op: Elementwise) -> Affine:
        constant = self._interval(op.parameter)
        size = math.prod(node.shape)
        value = np.broadcast_to(constant.centre, node.shape).reshape(size)
        radius = np.broadcast_to(constant.radius(), node.shape).reshape(size)
        zero, one = np.zeros(size), np.ones(size)
        given: Mapping[str, tuple[Array, Array, Array, Array]] = {
            "add": (one, zero, value, radius),
            "sub": (one, zero, -value, radius),
            "rsub": (-one, zero, value, radius),
            "mul": (value, radius, zero, zero),
        }
        found = given.get(op.kind)
        if found is None:
            found = (*reciprocal(node, value, radius), zero, zero)
        scale, reach, bias, moved = (self._tensor(a) for a in found)
        return DiagonalMap(scale, reach, bias, moved)

    def _interval(self, name: str) -> ParameterInterval:
        return self.perturbation.interval(self.network.parameters[name])

    def _optional(self, name: str | None, size: int, value: float = 0.0) -> ParameterInterval:
        return ParameterInterval(np.full(size, value)) if name is None else self._interval(name)

    def _pair(self, interval: ParameterInterval) -> tuple[Tensor, Tensor]:
        return self._tensor(interval.centre), self._tensor(interval.radius())

    def _tensor(self, a: Array) -> Tensor:
        return torch.from_numpy(np.array(a, dtype=np.float64)).to(self.device)

    def _indices(self, a: Indices) -> Tensor:
        return torch.from_numpy(np.array(a, dtype=np.int64)).to(self.device)

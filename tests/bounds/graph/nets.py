"""Networks of every kind of layer, with parameters at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.program import lower
from paramrob.bounds.graph.sharpen import sharpened
from paramrob.engine import Method
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
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Pool,
    Reshape,
    Shape,
    Transpose,
)
from paramrob.models.shapes import result_shape
from paramrob.perturbation import Perturbation

RELU = Activation("relu")
ROOM = 1e-9
"""What float64 may be off by in a sampled value of these small networks."""


class Build:
    """A network under construction; every method returns the new node's name."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes = [Node("x", Input(), (), shape)]
        self.parameters: list[Parameter] = []
        self.last = "x"

    def shape(self, name: str) -> Shape:
        return next(n.shape for n in self.nodes if n.name == name)

    def add(self, op: Op, *inputs: str, shape: Shape | None = None) -> str:
        given = inputs or (self.last,)
        before = tuple(self.shape(name) for name in given)
        known = {p.name: p.value.shape for p in self.parameters}
        name = f"n{len(self.nodes)}"
        after = result_shape(name, op, before, shape or before[0], known)
        self.nodes.append(Node(name, op, given, after))
        self.last = name
        return name

    def parameter(self, value: Array, fixed: bool = False) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters.append(Parameter(name, value, fixed=fixed))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.parameter(self.rng.normal(size=shape) * scale)

    def dense(self, out: int, scale: float = 1.0) -> str:
        size = self.shape(self.last)[-1]
        weight = self.normal(out, size, scale=scale * math.sqrt(2 / size))
        return self.add(Dense(weight, self.normal(out, scale=0.1 * scale)))

    def conv(
        self,
        out: int,
        kernel: tuple[int, ...],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        channels, axes = self.shape(self.last)[0], len(kernel)
        size = channels // groups * math.prod(kernel)
        weight = self.normal(out, channels // groups, *kernel, scale=math.sqrt(2 / size))
        op = Conv(
            weight,
            self.normal(out, scale=0.1) if bias else None,
            (stride,) * axes,
            ((padding, padding),) * axes,
            (dilation,) * axes,
            groups,
        )
        return self.add(op)

    def batch_norm(self) -> str:
        channels = self.shape(self.last)[0]
        mean = self.parameter(self.rng.normal(size=channels), fixed=True)
        variance = self.parameter(self.rng.uniform(0.2, 2, size=channels), fixed=True)
        op = BatchNorm(mean, variance, 1e-5, self.normal(channels), self.normal(channels))
        return self.add(op)

    def flatten(self) -> str:
        return self.add(Reshape(), shape=(math.prod(self.shape(self.last)),))

    def network(self) -> Network:
        return Network(self.nodes, self.parameters)


def dense_network(widths: Sequence[int], seed: int = 0, op: Activation = RELU) -> Network:
    build = Build((widths[0],), seed)
    for i, width in enumerate(widths[1:]):
        if i:
            build.add(op)
        build.dense(width)
    return build.network()


def plain_conv() -> Network:
    build = Build((2, 6, 5), 1)
    build.conv(4, (3, 2), padding=1)
    build.add(RELU)
    build.conv(6, (3, 3), stride=2, groups=2)
    build.add(RELU)
    build.flatten()
    build.dense(3)
    return build.network()


def residual() -> Network:
    """Batch norm, a residual block and an average pool."""
    build = Build((1, 6, 6), 2)
    build.conv(4, (3, 3), padding=1, bias=False)
    build.batch_norm()
    start = build.add(RELU)
    build.conv(4, (3, 3), padding=1)
    build.batch_norm()
    build.add(Add(), build.last, start)
    build.add(RELU)
    build.add(Pool("average", (2, 2), (2, 2), ((0, 0), (1, 1)), (1, 1), False))
    build.flatten()
    build.dense(3)
    return build.network()


def pooled() -> Network:
    """Max pools with padding, branches that are joined, an adaptive pool, another order."""
    build = Build((2, 7, 6), 3)
    stem = build.conv(4, (3, 3))
    left = build.add(Pool("max", (2, 3), (2, 1), ((1, 0), (1, 1)), (1, 1)), stem)
    build.add(RELU, left)
    branch = build.conv(3, (1, 1))
    build.add(Concat(0), left, branch)
    build.add(AdaptivePool("average"), shape=(7, 2, 2))
    build.add(Transpose((1, 2, 0)))
    build.dense(3)  # on the last of three axes: positions share the weights
    build.add(RELU)
    build.flatten()
    build.dense(3)
    return build.network()


def signal() -> Network:
    """One axis, dilation, an elementwise scale and shift, sign-indefinite inputs of layers."""
    build = Build((2, 9), 4)
    build.conv(3, (3,), dilation=2, padding=2)
    build.add(Elementwise("mul", build.normal(3, 1)))
    build.add(Elementwise("rsub", build.normal(3, 9)))
    build.conv(2, (2,), stride=2)
    build.add(Activation("leaky_relu", slope=0.1))
    build.add(AdaptivePool("max"), shape=(2, 3))
    build.flatten()
    build.dense(3)
    return build.network()


NETWORKS = {
    "dense": dense_network((5, 8, 7, 3)),
    "conv": plain_conv(),
    "residual": residual(),
    "pooled": pooled(),
    "signal": signal(),
}


def graph_pass(network: Network, delta: str | Fraction, budget: int = 1 << 24) -> GraphPass:
    box = Perturbation.uniform(network, Fraction(delta))
    return GraphPass(lower(network, box, OutputInfo("value", None)), budget)


def inputs(network: Network, count: int, seed: int = 7) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-1, 1, size=(count, network.input_size)))


def both_signs(outputs: int, batch: int) -> Tensor:
    eye = torch.eye(outputs, dtype=torch.float64)
    return torch.cat([eye, -eye]).expand(batch, -1, -1)


def members(network: Network, delta: float, count: int, seed: int = 11) -> list[dict[str, Array]]:
    """Return parameter vectors of the uniform box: vertices, interior ones, and mixtures."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        chosen = {}
        for name, parameter in network.parameters.items():
            if parameter.fixed:
                continue
            share = rng.uniform(-1, 1, size=parameter.value.shape)
            if i % 3 == 0 or (i % 3 == 1 and rng.uniform() < 0.5):
                share = np.sign(share)
            chosen[name] = parameter.value + delta * share
        found.append(chosen)
    return found


def bounds(bound_pass: GraphPass, x: Tensor, outputs: int, method: Method) -> tuple[Tensor, Tensor]:
    """Return the ends of all results at points, ``(batch, outputs)`` each."""
    analysis = bound_pass.analyse(x, x, method)
    rows = both_signs(outputs, x.shape[0])
    least = bound_pass.bound(analysis, rows, method)
    if method == "alpha":
        analysis = sharpened(bound_pass, analysis)
        least = torch.maximum(least, optimised(analysis, rows, 10))
    return least[:, :outputs], -least[:, outputs:]

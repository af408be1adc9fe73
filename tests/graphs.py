"""Networks of any shape for the tests, built node by node."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paramrob.models.network import (
    Activation,
    ActivationKind,
    Add,
    Array,
    BatchNorm,
    Conv,
    Dense,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Reshape,
    Shape,
)
from paramrob.models.shapes import result_shape


class Graph:
    """Collects nodes; every method returns the name of the node that it added."""

    def __init__(self, shape: Shape, rng: np.random.Generator, dtype: type = np.float64) -> None:
        self.nodes = [Node("x", Input(), (), shape)]
        self.parameters: dict[str, Parameter] = {}
        self.rng = rng
        self.dtype = dtype

    def shape(self, name: str) -> Shape:
        return next(node.shape for node in self.nodes if node.name == name)

    def add(self, op: Op, *inputs: str, shape: Shape = ()) -> str:
        given = inputs or (self.nodes[-1].name,)
        shapes = {name: p.value.shape for name, p in self.parameters.items()}
        name = f"n{len(self.nodes)}"
        after = result_shape(name, op, tuple(map(self.shape, given)), shape, shapes)
        self.nodes.append(Node(name, op, given, after))
        return name

    def parameter(self, name: str, value: npt.ArrayLike, fixed: bool = False) -> str:
        array: Array = np.asarray(value, dtype=self.dtype).astype(np.float64)
        self.parameters[name] = Parameter(name, array, fixed=fixed)
        return name

    def normal(self, name: str, *shape: int) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        return self.parameter(name, self.rng.normal(size=shape) / fan**0.5)

    def act(self, kind: ActivationKind, *inputs: str) -> str:
        return self.add(Activation(kind), *inputs)

    def dense(self, out: int, *inputs: str) -> str:
        i = len(self.nodes)
        width = self.shape((inputs or (self.nodes[-1].name,))[0])[-1]
        return self.add(Dense(self.normal(f"w{i}", out, width), self.normal(f"b{i}", out)), *inputs)

    def flat(self, *inputs: str) -> str:
        before = self.shape((inputs or (self.nodes[-1].name,))[0])
        return self.add(Reshape(), *inputs, shape=(int(np.prod(before)),))

    def conv(
        self,
        out: int,
        kernel: tuple[int, ...],
        *inputs: str,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        i, axes = len(self.nodes), len(kernel)
        channels = self.shape((inputs or (self.nodes[-1].name,))[0])[0]
        op = Conv(
            self.normal(f"w{i}", out, channels // groups, *kernel),
            self.normal(f"b{i}", out) if bias else None,
            (stride,) * axes,
            ((padding, padding),) * axes,
            (1,) * axes,
            groups,
        )
        return self.add(op, *inputs)

    def norm(self, *inputs: str, variance: npt.ArrayLike | None = None, eps: float = 1e-5) -> str:
        i = len(self.nodes)
        channels = self.shape((inputs or (self.nodes[-1].name,))[0])[0]
        spread = self.rng.uniform(0.5, 2, size=channels) if variance is None else variance
        op = BatchNorm(
            self.parameter(f"m{i}", self.rng.normal(size=channels), fixed=True),
            self.parameter(f"v{i}", spread, fixed=True),
            eps,
            self.normal(f"g{i}", channels),
            self.normal(f"b{i}", channels),
        )
        return self.add(op, *inputs)

    def sum(self, *inputs: str) -> str:
        return self.add(Add(), *inputs)

    def network(self) -> Network:
        used = {name for node in self.nodes for name in self._named(node)}
        return Network(self.nodes, [p for p in self.parameters.values() if p.name in used])

    @staticmethod
    def _named(node: Node) -> tuple[str, ...]:
        from paramrob.models.network import node_parameters

        return node_parameters(node.op)


def resnet(
    graph: Graph, widths: tuple[int, ...], blocks: int, kind: ActivationKind = "relu"
) -> Network:
    """Return a small residual network with batch norm on an image, 10 outputs."""
    from paramrob.models.network import AdaptivePool

    graph.conv(widths[0], (3, 3), padding=1, bias=False)
    graph.norm()
    h = graph.act(kind)
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            graph.conv(width, (3, 3), h, stride=stride, padding=1, bias=False)
            graph.norm()
            graph.act(kind)
            graph.conv(width, (3, 3), padding=1, bias=False)
            main = graph.norm()
            if stride > 1:
                graph.conv(width, (1, 1), h, stride=stride, bias=False)
                h = graph.norm()
            h = graph.act(kind, graph.sum(main, h))
    graph.add(AdaptivePool("average"), h, shape=(widths[-1], 1, 1))
    graph.flat()
    graph.dense(10)
    return graph.network()

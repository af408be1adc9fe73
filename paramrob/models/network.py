"""The network IR: an immutable graph of named nodes with known shapes.

A :class:`Network` holds its parameters as float64 arrays that keep the exact stored values
(every float32, float16, bfloat16 or integer up to 2**53 is a float64). Nodes refer to
parameters by name, so a parameter that two nodes use, or that one node uses at several places
by broadcasting, is one entry with several uses: :meth:`Network.is_shared` says so.

Shapes never include the batch axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from paramrob.errors import ModelError
from paramrob.models.evaluate import Array, activate, apply_node
from paramrob.models.ops import (
    Activation,
    ActivationKind,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    ElementwiseKind,
    Input,
    Op,
    Pool,
    Quantize,
    Reshape,
    Softmax,
    Transpose,
    node_parameters,
)
from paramrob.models.shapes import Shape, check_op, result_shape

__all__ = [
    "Activation",
    "ActivationKind",
    "AdaptivePool",
    "Add",
    "Array",
    "BatchNorm",
    "Concat",
    "Conv",
    "Dense",
    "Elementwise",
    "ElementwiseKind",
    "Input",
    "Network",
    "Node",
    "Op",
    "Parameter",
    "Pool",
    "Quantize",
    "Reshape",
    "Shape",
    "Softmax",
    "Transpose",
    "activate",
    "apply_node",
    "node_parameters",
]


@dataclass(frozen=True)
class Node:
    """One node: a name unique in its network, what it computes, from what, to which shape.

    ``name`` is what users call the layer: a ``named_modules`` path or an ONNX node name.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class Parameter:
    """A named parameter: ``value`` is read-only float64, ``dtype`` how the file stored it.

    ``fixed`` marks what was counted rather than trained, such as running statistics: no
    perturbation moves it.
    """

    name: str
    value: Array
    dtype: str = "float64"
    fixed: bool = False

    def __post_init__(self) -> None:
        given = np.asarray(self.value)
        value = np.array(given, dtype=np.float64)
        if not _is_exact(given, value):
            raise ModelError(
                f"parameter {self.name!r} ({given.dtype}) holds values that no float64 has; "
                "store it as float64"
            )
        if not np.isfinite(value).all():
            bad = int(np.size(value) - np.isfinite(value).sum())
            raise ModelError(
                f"parameter {self.name!r} holds {bad} NaN or infinite value(s); nothing can be "
                "proved about such a network: train or export it again"
            )
        value.flags.writeable = False
        object.__setattr__(self, "value", value)


def _is_exact(given: npt.NDArray[Any], value: Array) -> bool:
    if given.dtype.kind in "iu":  # numpy would round both sides before comparing them
        return bool(((given <= 2**53) & (given >= -(2**53))).all())
    return bool((np.isnan(value) | np.equal(value, given)).all())


class Network:
    """An immutable feed-forward network.

    Args:
        nodes: in topological order; the first is the :class:`Input`, the last the output.
        parameters: every parameter that a node names, and no other.

    Raises:
        ModelError: shapes do not fit, a name is unknown or used twice, a value is not finite.
    """

    def __init__(self, nodes: Iterable[Node], parameters: Iterable[Parameter]) -> None:
        self._nodes = tuple(nodes)
        given = tuple(parameters)
        self._parameters = MappingProxyType({p.name: p for p in given})
        if len(self._parameters) != len(given):
            raise ModelError("two parameters have the same name; give each its own")
        self._check()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in topological order."""
        return self._nodes

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters by name."""
        return self._parameters

    @property
    def input_shape(self) -> Shape:
        """Shape of one input, without a batch axis."""
        return self._nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one output, without a batch axis."""
        return self._nodes[-1].shape

    @property
    def final_node(self) -> Node:
        """The last node that changes a value: trailing reshapes and identities are skipped."""
        by_name = {n.name: n for n in self._nodes}
        node = self._nodes[-1]
        while isinstance(node.op, Reshape) or node.op == Activation("identity"):
            node = by_name[node.inputs[0]]
        return node

    @property
    def input_size(self) -> int:
        """How many numbers one input holds."""
        return math.prod(self.input_shape)

    @property
    def output_size(self) -> int:
        """How many numbers one output holds."""
        return math.prod(self.output_shape)

    @property
    def parameter_count(self) -> int:
        """How many numbers the parameters hold; fixed ones are not counted."""
        return sum(p.value.size for p in self._parameters.values() if not p.fixed)

    @property
    def architecture(self) -> str:
        """Widths of the layers, e.g. ``2-16-1`` or ``1x8x8-conv16-conv32-10``."""
        convolves = any(isinstance(n.op, Conv) for n in self._nodes)
        widths = ["x".join(map(str, self.input_shape)) if convolves else str(self.input_size)]
        for node in self._nodes:
            if isinstance(node.op, Dense):
                widths.append(str(math.prod(node.shape)))
            elif isinstance(node.op, Conv):
                widths.append(f"conv{node.shape[0]}")
        return "-".join(widths)

    def layer_parameters(self) -> dict[str, tuple[str, ...]]:
        """Return the parameters of each node that has any, by node name; no fixed ones."""
        found = {}
        for node in self._nodes:
            used = node_parameters(node.op)
            movable = tuple(name for name in used if not self._parameters[name].fixed)
            if movable:
                found[node.name] = movable
        return found

    def is_shared(self, parameter: str) -> bool:
        """Whether a value of ``parameter`` enters the network at more than one place."""
        shapes = {n.name: n.shape for n in self._nodes}
        places = 0
        for node in self._nodes:
            if parameter not in node_parameters(node.op):
                continue
            size = self._parameters[parameter].value.size
            if isinstance(node.op, Dense):
                places += math.prod(shapes[node.inputs[0]][:-1])
            elif isinstance(node.op, (Conv, BatchNorm)):
                places += math.prod(node.shape[1:])
            else:
                places += math.ceil(math.prod(node.shape) / max(size, 1))
        return places > 1

    def evaluate(self, x: Array, parameters: Mapping[str, Array] | None = None) -> Array:
        """Return the outputs in float64 (a sample for tests and searches, never a proof).

        Args:
            x: ``(batch, *input_shape)``.
            parameters: values to use instead of the stored ones, by name.

        Returns:
            ``(batch, *output_shape)``.

        Raises:
            ModelError: a parameter is named that the network does not have.
        """
        given = dict(parameters or {})
        if unknown := sorted(set(given) - set(self._parameters)):
            raise ModelError(f"no parameters {unknown}; there are {sorted(self._parameters)}")
        values = {name: p.value for name, p in self._parameters.items()} | given
        x = np.asarray(x, dtype=np.float64)
        seen = {self._nodes[0].name: x.reshape(x.shape[0], *self.input_shape)}
        for node in self._nodes[1:]:
            given_to = [seen[name] for name in node.inputs]
            seen[node.name] = apply_node(node.op, given_to, node.shape, values)
        return seen[self._nodes[-1].name]

    def _check(self) -> None:
        if not self._nodes or not isinstance(self._nodes[0].op, Input):
            raise ModelError("a network starts with its input node")
        shapes: dict[str, Shape] = {}
        used: set[str] = set()
        for position, node in enumerate(self._nodes):
            if node.name in shapes:
                raise ModelError(f"two nodes are called {node.name!r}")
            check_op(node.name, node.op)
            expected = node.shape if position == 0 else self._shape_of(node, shapes)
            if expected != node.shape:
                raise ModelError(f"node {node.name!r}: shape {node.shape}, computed {expected}")
            if any(size < 1 for size in node.shape):
                raise ModelError(f"node {node.name!r} has an empty shape {node.shape}")
            shapes[node.name] = node.shape
            used.update(node_parameters(node.op))
        consumed = {name for node in self._nodes for name in node.inputs}
        if dead := [n.name for n in self._nodes[:-1] if n.name not in consumed]:
            raise ModelError(f"nothing uses the nodes {dead}; leave them out")
        if used != set(self._parameters):
            odd = sorted(used ^ set(self._parameters))
            raise ModelError(f"parameters named but missing, or given but not used: {odd}")

    def _shape_of(self, node: Node, shapes: Mapping[str, Shape]) -> Shape:
        if isinstance(node.op, Input) or not node.inputs or not shapes.keys() >= {*node.inputs}:
            raise ModelError(f"node {node.name!r} needs one earlier node as its input")
        before = tuple(shapes[name] for name in node.inputs)
        parameters = {name: p.value.shape for name, p in self._parameters.items()}
        shape = result_shape(node.name, node.op, before, node.shape, parameters)
        self._check_values(node)
        return shape

    def _check_values(self, node: Node) -> None:
        op = node.op
        if isinstance(op, Elementwise) and op.kind == "div":
            if not self._parameters[op.parameter].value.all():
                raise ModelError(f"node {node.name!r} divides by zero; mend its divisor")
        elif isinstance(op, BatchNorm):
            for name in (op.mean, op.variance):
                if not self._parameters[name].fixed:
                    raise ModelError(f"node {node.name!r}: {name!r} is a statistic: mark it fixed")
            if not (self._parameters[op.variance].value + op.epsilon > 0).all():
                raise ModelError(f"node {node.name!r} divides by the root of a variance below 0")

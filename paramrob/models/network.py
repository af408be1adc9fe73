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
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from paramrob.errors import ModelError

Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]
ActivationKind = Literal["identity", "relu", "leaky_relu", "sigmoid", "tanh"]
ElementwiseKind = Literal["add", "sub", "mul", "div", "rsub"]


@dataclass(frozen=True)
class Input:
    """The network's single input."""


@dataclass(frozen=True)
class Dense:
    """``y = W h + b`` on the last axis; ``weight`` names a ``(out, in)`` parameter."""

    weight: str
    bias: str | None = None


@dataclass(frozen=True)
class Elementwise:
    """An operation with a constant that broadcasts to the input's shape.

    ``add``: ``h + c``, ``sub``: ``h - c``, ``mul``: ``h * c``, ``div``: ``h / c``,
    ``rsub``: ``c - h``.
    """

    kind: ElementwiseKind
    parameter: str


@dataclass(frozen=True)
class Activation:
    """An elementwise activation; ``slope`` is the negative slope of ``leaky_relu``."""

    kind: ActivationKind
    slope: float = 0.0


@dataclass(frozen=True)
class Softmax:
    """Softmax over the last axis."""


@dataclass(frozen=True)
class Reshape:
    """The same numbers in row-major order under the node's shape."""


Op = Input | Dense | Elementwise | Activation | Softmax | Reshape


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
    """A named parameter: ``value`` is read-only float64, ``dtype`` how the file stored it."""

    name: str
    value: Array
    dtype: str = "float64"

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


def node_parameters(op: Op) -> tuple[str, ...]:
    """Return the names of the parameters that ``op`` uses."""
    if isinstance(op, Dense):
        return (op.weight,) if op.bias is None else (op.weight, op.bias)
    if isinstance(op, Elementwise):
        return (op.parameter,)
    return ()


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
        """How many numbers the parameters hold."""
        return sum(p.value.size for p in self._parameters.values())

    @property
    def architecture(self) -> str:
        """Widths of the dense layers, e.g. ``2-16-1``."""
        widths = [self.input_size]
        widths += [math.prod(n.shape) for n in self._nodes if isinstance(n.op, Dense)]
        return "-".join(map(str, widths))

    def layer_parameters(self) -> dict[str, tuple[str, ...]]:
        """Return the parameters of each node that has any, by node name."""
        used = {n.name: node_parameters(n.op) for n in self._nodes}
        return {name: parameters for name, parameters in used.items() if parameters}

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
            seen[node.name] = apply_node(node, seen[node.inputs[0]], values)
        return seen[self._nodes[-1].name]

    def _check(self) -> None:
        if not self._nodes or not isinstance(self._nodes[0].op, Input):
            raise ModelError("a network starts with its input node")
        shapes: dict[str, Shape] = {}
        used: set[str] = set()
        for position, node in enumerate(self._nodes):
            if node.name in shapes:
                raise ModelError(f"two nodes are called {node.name!r}")
            _check_op(node)
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
        if isinstance(node.op, Input) or len(node.inputs) != 1 or node.inputs[0] not in shapes:
            raise ModelError(f"node {node.name!r} needs one earlier node as its input")
        before = shapes[node.inputs[0]]
        for name in node_parameters(node.op):
            if name not in self._parameters:
                raise ModelError(f"node {node.name!r} uses an unknown parameter {name!r}")
        if isinstance(node.op, Dense):
            return self._dense_shape(node.name, node.op, before)
        if isinstance(node.op, Elementwise):
            constant = self._parameters[node.op.parameter].value.shape
            if not _broadcasts(constant, before):
                raise ModelError(f"node {node.name!r}: {constant} does not broadcast to {before}")
            if node.op.kind == "div" and not self._parameters[node.op.parameter].value.all():
                raise ModelError(f"node {node.name!r} divides by zero; mend its divisor")
        if isinstance(node.op, Softmax) and not before:
            raise ModelError(f"node {node.name!r}: a softmax needs an axis, its input has none")
        if isinstance(node.op, Reshape):
            if math.prod(node.shape) != math.prod(before):
                raise ModelError(f"node {node.name!r} reshapes {before} to {node.shape}")
            return node.shape
        return before

    def _dense_shape(self, name: str, op: Dense, before: Shape) -> Shape:
        weight = self._parameters[op.weight].value
        if weight.ndim != 2 or not before or weight.shape[1] != before[-1]:
            raise ModelError(
                f"layer {name!r}: weight of shape {weight.shape} on an input of shape {before}"
            )
        if op.bias is not None and self._parameters[op.bias].value.shape != weight.shape[:1]:
            bias = self._parameters[op.bias].value.shape
            raise ModelError(f"layer {name!r}: bias of shape {bias}, weight {weight.shape}")
        return (*before[:-1], weight.shape[0])


def _check_op(node: Node) -> None:
    """Refuse what :meth:`Network.evaluate` and the engines have no meaning for."""
    op = node.op
    if isinstance(op, Activation):
        if op.kind not in get_args(ActivationKind):
            raise ModelError(f"node {node.name!r}: no activation {op.kind!r}")
        # Every relaxation rests on a leaky ReLU being monotone and convex.
        if op.kind == "leaky_relu" and not 0.0 <= op.slope <= 1.0:
            raise ModelError(
                f"node {node.name!r}: the negative slope {op.slope!r} of a leaky ReLU lies "
                "outside [0, 1]; train the model with a slope inside"
            )
    elif isinstance(op, Elementwise) and op.kind not in get_args(ElementwiseKind):
        raise ModelError(f"node {node.name!r}: no elementwise operation {op.kind!r}")


def _broadcasts(constant: Shape, to: Shape) -> bool:
    try:
        return np.broadcast_shapes(constant, to) == to
    except ValueError:
        return False


def apply_node(node: Node, h: Array, values: Mapping[str, Array]) -> Array:
    """Return one node's result in float64 from its input ``h`` ``(batch, ...)``."""
    op = node.op
    if isinstance(op, Dense):
        y: Array = h @ values[op.weight].T
        return y if op.bias is None else y + values[op.bias]
    if isinstance(op, Elementwise):
        c = values[op.parameter]
        if op.kind == "rsub":
            return c - h
        function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
        result: Array = function[op.kind](h, c)
        return result
    if isinstance(op, Activation):
        return activate(op, h)
    if isinstance(op, Softmax):
        e = np.exp(h - h.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    return h.reshape(h.shape[0], *node.shape)


def activate(op: Activation, z: Array) -> Array:
    """Return the activation of ``z`` in float64."""
    if op.kind == "relu":
        return np.maximum(z, 0.0)
    if op.kind == "leaky_relu":
        return np.where(z > 0, z, op.slope * z)
    if op.kind == "sigmoid":
        return 0.5 * (1.0 + np.tanh(0.5 * z))
    if op.kind == "tanh":
        return np.tanh(z)
    if op.kind == "identity":
        return z
    raise ModelError(f"no activation {op.kind!r}")

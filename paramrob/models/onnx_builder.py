"""What every translated ONNX operator needs: operands, attributes, parameters, new nodes.

The graph is read as it acts on one input (a batch of one), which gives every tensor a known
shape. IR shapes leave out the leading axis of size one that is the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Array,
    Concat,
    Dense,
    Elementwise,
    ElementwiseKind,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Pool,
    Quantize,
    Reshape,
    Shape,
    Transpose,
    node_parameters,
)
from paramrob.models.onnx_constants import FLOATS, Constant, RefusedError

LARGEST_TENSOR = 2**26
Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Value:
    """A computed tensor: its IR node, its ONNX shape for one input, its element type.

    ``padding`` counts zeros that a Pad put around the node's result and that the next layer has
    yet to take over; ``dims`` includes them. ``grid`` is one that every number of the result is
    known to lie on. The node's result is always what the tensor stands for: for a tensor of
    integers the real numbers ``(q - zero_point) * scale`` of its grid.
    """

    node: str
    dims: Shape
    elem_type: int
    padding: Padding = ()
    grid: Quantize | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether the tensor holds the integers of its grid rather than the real numbers."""
        return self.elem_type not in FLOATS

    @property
    def shape(self) -> Shape:
        """The shape in the IR."""
        return ir_shape(self.dims)


class Builder:
    """The network so far.

    Args:
        opset: version of the default operator set.
        uses: how many live nodes and graph outputs read each tensor.
        constants: the initialisers by name.
    """

    def __init__(
        self, opset: int, uses: Mapping[str, int], constants: Mapping[str, Constant]
    ) -> None:
        self.opset = opset
        self.uses = uses
        self.constants = dict(constants)
        self.values: dict[str, Value] = {}
        self.waiting: dict[str, str] = {}
        """Tensors that only have a meaning as a part of a known form, with the refusal."""
        self._nodes: list[Node] = []
        self._names: set[str] = set()
        self._parameters: dict[str, Parameter] = {}
        self._layouts: dict[tuple[str, bool], Constant] = {}
        self._taken: dict[tuple[str, bool], str] = {}

    def add_input(self, tensor: str, name: str, dims: Shape, elem_type: int) -> None:
        """Start the network with the graph's input, called ``name``."""
        self._names.add(name)
        self._nodes.append(Node(name, Input(), (), ir_shape(dims)))
        self.values[tensor] = Value(name, dims, elem_type)

    def is_computed(self, tensor: str) -> bool:
        """Whether the tensor depends on the input."""
        return tensor in self.values or tensor in self.waiting

    def value(
        self, node: onnx.NodeProto, index: int = 0, padded: bool = False, quantized: bool = False
    ) -> Value:
        """Return a computed operand.

        Args:
            node: whose operand it is.
            index: its place.
            padded: whether zeros may stand around it that have yet to be taken over.
            quantized: whether the node does the same to integers as to what they stand for.

        Raises:
            RefusedError: it is a constant, quantized where it must not be, or a Pad before the
                node has to be executed.
            UnsupportedOperatorError: it has no meaning of its own; the message names its node.
        """
        tensor = node.input[index]
        if tensor in self.waiting:
            raise UnsupportedOperatorError(self.waiting[tensor])
        if tensor not in self.values:
            raise RefusedError("its first operand is a constant; exchange the operands")
        value = self.values[tensor]
        if value.padding and not padded:
            raise RefusedError(
                "follows a Pad, which is supported only before a Conv or AveragePool; export "
                "with the padding in the layer itself"
            )
        if value.is_quantized and not quantized:
            raise RefusedError(
                "computes on integers as they are stored; put a DequantizeLinear before it"
            )
        return value

    def has(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether an optional operand is given."""
        return len(node.input) > index and bool(node.input[index])

    def constant(self, node: onnx.NodeProto, index: int) -> Constant:
        """Return a constant operand.

        Raises:
            RefusedError: it is computed.
        """
        if node.input[index] not in self.constants:
            raise RefusedError(f"operand {index + 1} is computed; only constants are supported")
        return self.constants[node.input[index]]

    def integers(self, node: onnx.NodeProto, name: str, index: int) -> list[int] | None:
        """Return whole numbers that are an attribute in old opsets, an operand in new ones."""
        attributes = onnx.defs.get_schema(node.op_type, self.opset, "").attributes
        if name in attributes:
            found = self.attribute(node, name)
            return None if found is None else [int(v) for v in found]
        if not self.has(node, index):
            return None
        return [int(v) for v in self.constant(node, index).value.ravel()]

    def attribute(self, node: onnx.NodeProto, name: str) -> Any:
        """Return an attribute, or the default that the operator's schema gives it."""
        for attribute in node.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        if name not in schema.attributes or not schema.attributes[name].default_value.name:
            return None
        return onnx.helper.get_attribute_value(schema.attributes[name].default_value)

    def emit(self, name: str, op: Op, before: Value | Sequence[Value], dims: Shape) -> Value:
        """Add a node and return its result.

        Raises:
            ModelError: there is a node of that name.
            RefusedError: the result is larger than any memory should have to hold.
        """
        if math.prod(dims) > LARGEST_TENSOR:
            raise RefusedError(f"computes a tensor of shape {dims}; export with smaller inputs")
        if name in self._names:
            raise ModelError(f"two nodes are called {name!r}; give every node its own name")
        self._names.add(name)
        given = [before] if isinstance(before, Value) else before
        self._nodes.append(Node(name, op, tuple(v.node for v in given), ir_shape(dims)))
        grid = _grid_after(op, [value.grid for value in given])
        return Value(name, dims, given[0].elem_type, grid=grid)

    def activation(self, name: str, op: Activation, before: Value) -> Value:
        """Add an activation."""
        return self.emit(name, op, before, before.dims)

    def shaped(self, name: str, value: Value, dims: Shape) -> Value:
        """Return the value under another shape, behind a reshape where the IR sees one."""
        if ir_shape(dims) == value.shape:
            return replace(value, dims=dims)
        return self.emit(name, Reshape(), value, dims)

    def elementwise(
        self, name: str, kind: ElementwiseKind, value: Value, constant: Constant
    ) -> Value:
        """Add an operation with a constant that broadcasts to the value."""
        shape = constant.shape
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
        op = Elementwise(kind, self.parameter(constant.reshaped(shape)))
        return self.emit(name, op, value, value.dims)

    def number(
        self, name: str, kind: ElementwiseKind, value: Value, number: float | Array
    ) -> Value:
        """Add an operation with numbers that the file stores in no tensor and that stay."""
        parameter = f"{name}.constant"
        if parameter in self._parameters:
            raise ModelError(f"two parameters are called {parameter!r}; rename the tensor")
        self._parameters[parameter] = Parameter(parameter, np.array(number), fixed=True)
        return self.emit(name, Elementwise(kind, parameter), value, value.dims)

    def with_rest(self, name: str, value: Value, bias: Constant | None) -> Value:
        """Add what the float64 numbers of a layer's bias lack of its exact ones.

        Args:
            name: of the layer.
            value: its result.
            bias: under a shape that broadcasts to the result's in the IR.
        """
        if bias is None or bias.rest is None:
            return value
        return self.number(f"{name}.rest", "add", value, bias.rest)

    def with_bias(self, value: Value, bias: Constant) -> Value | None:
        """Give the value's dense layer a bias, if it has none and nothing else reads it."""
        position = next(i for i, n in enumerate(self._nodes) if n.name == value.node)
        layer = self._nodes[position]
        if not isinstance(layer.op, Dense) or layer.op.bias:
            return None
        names = [tensor for tensor, v in self.values.items() if v.node == value.node]
        if any(self.uses[tensor] != 1 for tensor in names):
            return None
        op = replace(layer.op, bias=self.parameter(bias.nearest()))
        self._nodes[position] = replace(layer, op=op)
        for tensor in names:
            del self.values[tensor]
        return self.with_rest(layer.name, value, bias)

    def parameter(self, constant: Constant, fixed: bool = False) -> str:
        """Return the IR parameter that holds ``constant``.

        A tensor that serves both as a statistic, which nothing moves, and as something trained
        is two parameters.

        Raises:
            RefusedError: the tensor is in use under another layout; two parameters would let
                one stored number take two values.
        """
        if constant.rest is not None:
            raise RefusedError(
                f"{constant.root!r} times its scale has more digits than a float64, which only a "
                "bias may; quantize it to fewer bits"
            )
        key = (constant.root, fixed)
        seen = self._layouts.get(key)
        if seen is None:
            name = constant.root
            while name in self._parameters:
                name += ":statistic" if fixed else ":trained"
            value = constant.value.astype(np.float64)
            self._parameters[name] = Parameter(name, value, constant.stored, fixed)
            self._layouts[key], self._taken[key] = constant, name
        elif not seen.same_as(constant):
            raise RefusedError(
                f"uses {constant.root!r} transposed, reshaped or cast in another way than an "
                "earlier node does; use it in one way, or store a second tensor where the two "
                "may differ"
            )
        return self._taken[key]

    def network(self, output: str) -> Network:
        """Return the network whose output is the tensor ``output``.

        Raises:
            ModelError: the output depends on no input, or the shapes do not fit.
            UnsupportedOperatorError: the output has no meaning of its own.
        """
        if output in self.waiting:
            raise UnsupportedOperatorError(self.waiting[output])
        value = self.values.get(output)
        if value is None:
            raise ModelError(f"the output {output!r} does not depend on the input; export it again")
        if value.padding:
            raise ModelError(f"the output {output!r} is padded; export without the last Pad")
        if value.is_quantized:
            raise ModelError(
                f"the output {output!r} holds integers; put a DequantizeLinear behind it"
            )
        if value.node == self._nodes[0].name:
            raise ModelError("the model returns its input unchanged; there is nothing to prove")
        nodes = self._needed(value.node)
        used = {name for node in nodes for name in node_parameters(node.op)}
        return Network(nodes, [p for name, p in self._parameters.items() if name in used])

    def _needed(self, last: str) -> list[Node]:
        """Return the nodes that the last one needs: parts of a known form are left out."""
        needed, kept = {last}, []
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.inputs)
                kept.append(node)
        return kept[::-1]


Handler = Callable[[Builder, onnx.NodeProto, str], Value]
"""Translates one node, called by the name given, or raises a :class:`RefusedError`."""


def ir_shape(dims: Shape) -> Shape:
    """Return an ONNX shape without the leading axis that is a batch of one."""
    return dims[1:] if len(dims) > 1 and dims[0] == 1 else dims


def _grid_after(op: Op, grids: list[Quantize | None]) -> Quantize | None:
    """Return the grid that a node's results lie on, if it takes each from its inputs, or zero."""
    moves = isinstance(op, (Reshape, Transpose, Concat)) or op == Activation("relu")
    largest = isinstance(op, (Pool, AdaptivePool)) and op.kind == "max"
    return grids[0] if (moves or largest) and len(set(grids)) == 1 else None


def axis_of(axis: int, rank: int) -> int:
    """Return an axis that may count from the end as one that counts from the start.

    Raises:
        RefusedError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise RefusedError(f"there is no axis {axis} in a tensor of {rank} axes; export again")
    return axis % rank

"""Building a network node by node with torch's meaning of axes.

torch counts axes with the batch axis first; the IR leaves it out. ``batch_axes`` is 1 where the
model's inputs have one, 0 where a model was exported for single inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    BatchNorm,
    Conv,
    Dense,
    Input,
    Network,
    Node,
    Op,
    Pool,
    Reshape,
    Shape,
    Softmax,
    Transpose,
    node_parameters,
)
from paramrob.models.ops import PoolKind
from paramrob.models.shapes import result_shape
from paramrob.models.torch_tensor import ParameterTable, StoredTensor


@dataclass(frozen=True)
class Value:
    """What one node of a builder gives: the node's number, and the shape without batch axis."""

    node: int
    shape: Shape


@dataclass(frozen=True)
class _Made:
    name: str
    op: Op
    inputs: tuple[int, ...]
    shape: Shape


class Builder:
    """A network under construction; ``table`` holds its parameters, ``input`` its first value.

    Raises:
        ModelError: the input's shape is impossible.
    """

    def __init__(self, input_shape: Shape, batch_axes: int = 1) -> None:
        if not input_shape or any(type(n) is not int or n < 1 for n in input_shape):
            raise ModelError(f"an input of shape {input_shape} is impossible; give positive sizes")
        self.table = ParameterTable()
        self.batch_axes = batch_axes
        self.input = Value(0, tuple(input_shape))
        self._made = [_Made("input", Input(), (), self.input.shape)]
        self._names: set[str] = set()

    def add(self, name: str, op: Op, *inputs: Value, shape: Shape = ()) -> Value:
        """Add a node; ``shape`` is that of a reshape's or an adaptive pool's result.

        Raises:
            ModelError: the shapes do not fit.
        """
        before = tuple(value.shape for value in inputs)
        found = result_shape(name, op, before, tuple(shape), self.table.shapes)
        base, count = name, 1
        while name in self._names:
            count += 1
            name = f"{base}#{count}"
        self._names.add(name)
        self._made.append(_Made(name, op, tuple(value.node for value in inputs), found))
        return Value(len(self._made) - 1, found)

    def op(self, value: Value) -> tuple[Op, tuple[int, ...]]:
        """Return what computes a value, and the numbers of the nodes that it computes it from."""
        made = self._made[value.node]
        return made.op, made.inputs

    def dense(
        self, value: Value, name: str, weight: StoredTensor, weight_name: str, bias: str | None
    ) -> Value:
        """Add ``W h + b``, whose parameters stand in the table already."""
        shape = value.shape
        if len(weight.sizes) != 2 or not shape or weight.sizes[1] != shape[-1]:
            raise ModelError(
                f"layer {name!r}: a weight of shape {weight.sizes} does not fit an input of shape "
                f"{shape}; check the layers before it, or the input's shape in the sidecar"
            )
        return self.add(name, Dense(weight_name, bias), value)

    def convolution(self, value: Value, name: str, op: Conv, weight: Shape) -> Value:
        """Add a convolution whose parameters stand in the table already."""
        axes = len(weight) - 2
        if len(value.shape) != axes + 1 or value.shape[0] != weight[1] * op.groups:
            raise ModelError(
                f"layer {name!r}: a kernel of shape {weight} in {op.groups} group(s) needs inputs "
                f"of {weight[1] * op.groups} channels and {axes} more axes, not of shape "
                f"{value.shape}; check the input's shape ([input] shape in the sidecar, or "
                "input_shape)"
            )
        return self.add(name, op, value)

    def batch_norm(self, value: Value, name: str, op: BatchNorm) -> Value:
        """Add a batch norm over torch's axis 1, whose parameters stand in the table already."""
        if self.batch_axes != 1 or len(value.shape) not in (1, 2, 3):
            raise UnsupportedOperatorError(
                f"layer {name!r}: a batch norm on an input of shape {value.shape} is not "
                "supported; give it a batch axis and then channels"
            )
        return self.add(name, op, value)

    def pool(self, value: Value, name: str, op: Pool) -> Value:
        """Add a pool over the axes behind the channels."""
        return self.add(name, op, self.spatial(value, name, len(op.kernel)))

    def adaptive_pool(self, value: Value, name: str, kind: PoolKind, shape: Shape) -> Value:
        """Add a pool whose windows share the axes out among those of ``shape``, channels first."""
        return self.add(name, AdaptivePool(kind), value, shape=shape)

    def spatial(self, value: Value, name: str, axes: int) -> Value:
        """Return the value, which must have channels and ``axes`` more axes.

        Raises:
            ModelError: it has not.
        """
        if len(value.shape) != axes + 1:
            raise ModelError(
                f"layer {name!r} pools {axes} axes behind the channels, its input has shape "
                f"{value.shape}; check the input's shape ([input] shape in the sidecar, or "
                "input_shape)"
            )
        return value

    def softmax(self, value: Value, name: str, axis: int | None) -> Value:
        """Add a softmax over torch's ``axis`` (``None``: torch's old choice by rank).

        Raises:
            UnsupportedOperatorError: the axis is not the last.
        """
        rank = len(value.shape) + self.batch_axes
        if axis is None:
            axis = 0 if rank in (0, 1, 3) else 1
        if not value.shape or self.axis(name, axis, rank) != rank - 1:
            raise UnsupportedOperatorError(
                f"layer {name!r}: softmax over axis {axis} of {rank} (the batch is axis 0) is not "
                "supported; use dim=-1 if the classes are the last axis"
            )
        return self.add(name, Softmax(), value)

    def flatten(self, value: Value, name: str, start: int, end: int) -> Value:
        """Merge torch's axes ``start`` to ``end``."""
        shape = value.shape
        rank = len(shape) + self.batch_axes
        first, last = self.axis(name, start, rank), self.axis(name, end, rank)
        first, last = first - self.batch_axes, last - self.batch_axes
        if first < 0 or last < first:
            raise UnsupportedOperatorError(
                f"layer {name!r}: flatten from axis {start} to {end} of {rank} would merge the "
                "batch axis; use start_dim=1"
            )
        merged = math.prod(shape[first : last + 1])
        return self.reshape(value, name, (*shape[:first], merged, *shape[last + 1 :]))

    def reshape(self, value: Value, name: str, shape: Sequence[int]) -> Value:
        """Give the numbers another shape (without the batch axis); the same adds nothing."""
        shape = tuple(shape)
        if math.prod(shape) != math.prod(value.shape):
            raise UnsupportedOperatorError(
                f"layer {name!r}: reshaping {value.shape} to {shape} mixes the batch axis with the "
                "others; keep the first axis"
            )
        return value if shape == value.shape else self.add(name, Reshape(), value, shape=shape)

    def transpose(self, value: Value, name: str, order: Sequence[int]) -> Value:
        """Put the axes into another order (without the batch axis); the same adds nothing."""
        order = tuple(order)
        if order == tuple(range(len(value.shape))):
            return value
        return self.add(name, Transpose(order), value)

    def activation(self, value: Value, name: str, op: Activation) -> Value:
        """Add an activation; the identity adds nothing."""
        return value if op.kind == "identity" else self.add(name, op, value)

    def axis(self, name: str, axis: int, rank: int) -> int:
        """Return one of torch's axes, counted from 0.

        Raises:
            ModelError: there is none.
        """
        if not -rank <= axis < rank:
            raise ModelError(f"layer {name!r}: there is no axis {axis} among {rank}; check its dim")
        return axis % rank

    def build(self, output: Value) -> Network:
        """Return the network whose output is ``output``; what it does not use is left out.

        Raises:
            ModelError: shapes do not fit or a value is not finite.
        """
        needed = {0, output.node}
        for index in range(output.node, 0, -1):
            if index in needed:
                needed.update(self._made[index].inputs)
        names = {index: made.name for index, made in enumerate(self._made)}
        while names[0] in self._names:
            names[0] += "_"
        nodes = [
            Node(names[index], made.op, tuple(names[i] for i in made.inputs), made.shape)
            for index, made in enumerate(self._made)
            if index in needed
        ]
        used = {parameter for node in nodes for parameter in node_parameters(node.op)}
        return Network(nodes, [p for p in self.table.parameters if p.name in used])

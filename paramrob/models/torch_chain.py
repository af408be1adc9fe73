"""Building a network layer by layer with torch's meaning of axes.

torch counts axes with the batch axis first; the IR leaves it out. ``batch_axes`` is 1 where the
model's inputs have one, 0 where a model was exported for single inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import (
    Activation,
    ActivationKind,
    Dense,
    Elementwise,
    ElementwiseKind,
    Input,
    Network,
    Node,
    Op,
    Reshape,
    Shape,
    Softmax,
)
from paramrob.models.torch_tensor import ParameterTable, StoredTensor


class Chain:
    """A network under construction: each layer takes what the one before it gives."""

    def __init__(self, input_shape: Shape, batch_axes: int = 1) -> None:
        if not input_shape or any(type(n) is not int or n < 1 for n in input_shape):
            raise ModelError(f"an input of shape {input_shape} is impossible; give positive sizes")
        self.table = ParameterTable()
        self.shape = tuple(input_shape)
        self._input_shape = self.shape
        self._batch_axes = batch_axes
        self._layers: list[tuple[str, Op, Shape]] = []
        self._names: set[str] = set()

    def dense(self, name: str, weight: StoredTensor, bias: StoredTensor | None, names: str) -> None:
        """Add ``W h + b``; ``names`` is the prefix of the parameters' names."""
        weight_name = self.table.add(f"{names}.weight", weight)
        bias_name = None if bias is None else self.table.add(f"{names}.bias", bias)
        self.dense_named(name, weight, weight_name, bias_name)

    def dense_named(
        self, name: str, weight: StoredTensor, weight_name: str, bias_name: str | None
    ) -> None:
        """Add ``W h + b`` whose parameters stand in the table already."""
        if len(weight.sizes) != 2 or not self.shape or weight.sizes[1] != self.shape[-1]:
            raise ModelError(
                f"layer {name!r}: a weight of shape {weight.sizes} does not fit an input of shape "
                f"{self.shape}; check the layers before it, or the input's shape in the sidecar"
            )
        self._add(name, Dense(weight_name, bias_name), (*self.shape[:-1], weight.sizes[0]))

    def elementwise(self, name: str, kind: ElementwiseKind, parameter: str) -> None:
        """Add an operation with a constant of the table."""
        self._add(name, Elementwise(kind, parameter), self.shape)

    def activation(self, name: str, kind: ActivationKind, slope: float = 0.0) -> None:
        """Add an activation; the identity adds nothing."""
        if kind != "identity":
            self._add(name, Activation(kind, slope), self.shape)

    def softmax(self, name: str, axis: int | None) -> None:
        """Add a softmax over torch's ``axis`` (``None``: torch's old choice by rank).

        Raises:
            UnsupportedOperatorError: the axis is not the last.
        """
        rank = len(self.shape) + self._batch_axes
        if axis is None:
            axis = 0 if rank in (0, 1, 3) else 1
        if not self.shape or self._axis(name, axis, rank) != rank - 1:
            raise UnsupportedOperatorError(
                f"layer {name!r}: softmax over axis {axis} of {rank} (the batch is axis 0) is not "
                "supported; use dim=-1 if the classes are the last axis"
            )
        self._add(name, Softmax(), self.shape)

    def flatten(self, name: str, start: int, end: int) -> None:
        """Merge torch's axes ``start`` to ``end``."""
        rank = len(self.shape) + self._batch_axes
        first, last = self._axis(name, start, rank), self._axis(name, end, rank)
        first, last = first - self._batch_axes, last - self._batch_axes
        if first < 0 or last < first:
            raise UnsupportedOperatorError(
                f"layer {name!r}: flatten from axis {start} to {end} of {rank} would merge the "
                "batch axis; use start_dim=1"
            )
        merged = math.prod(self.shape[first : last + 1])
        self.reshape(name, (*self.shape[:first], merged, *self.shape[last + 1 :]))

    def reshape(self, name: str, shape: Sequence[int]) -> None:
        """Give the numbers another shape (without the batch axis); the same adds nothing."""
        shape = tuple(shape)
        if math.prod(shape) != math.prod(self.shape):
            raise UnsupportedOperatorError(
                f"layer {name!r}: reshaping {self.shape} to {shape} mixes the batch axis with the "
                "others; keep the first axis"
            )
        if shape != self.shape:
            self._add(name, Reshape(), shape)

    def build(self) -> Network:
        """Return the network.

        Raises:
            ModelError: shapes do not fit or a value is not finite.
        """
        start = "input"
        while start in self._names:
            start += "_"
        nodes = [Node(start, Input(), (), self._input_shape)]
        for name, op, shape in self._layers:
            nodes.append(Node(name, op, (nodes[-1].name,), shape))
        return Network(nodes, self.table.parameters)

    def _axis(self, name: str, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise ModelError(f"layer {name!r}: there is no axis {axis} among {rank}; check its dim")
        return axis % rank

    def _add(self, name: str, op: Op, shape: Shape) -> None:
        base, count = name, 1
        while name in self._names:
            count += 1
            name = f"{base}#{count}"
        self._names.add(name)
        self._layers.append((name, op, shape))
        self.shape = shape

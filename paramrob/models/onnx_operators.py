"""The operators of an ONNX graph, translated to the network IR one node at a time.

The graph is read as it acts on one input (a batch of one), which gives every tensor a known
shape. IR shapes leave out the leading axis of size one that is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

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
    Parameter,
    Reshape,
    Shape,
    Softmax,
)
from paramrob.models.onnx_constants import (
    Constant,
    RefusedError,
    cast_constant,
    cast_is_exact,
    node_constant,
    resolve_shape,
)

# The newest version of each operator whose meaning is the one implemented here.
NEWEST_VERSION = {
    "Add": 14,
    "Cast": 28,
    "Constant": 25,
    "Div": 14,
    "Dropout": 22,
    "Flatten": 25,
    "Gemm": 13,
    "Identity": 25,
    "LeakyRelu": 16,
    "MatMul": 13,
    "Mul": 14,
    "Relu": 14,
    "Reshape": 25,
    "Sigmoid": 13,
    "Softmax": 13,
    "Sub": 14,
    "Tanh": 13,
    "Transpose": 25,
}
OLDEST_OPSET = 7
_FOLDABLE = ("Constant", "Identity", "Cast", "Transpose", "Reshape")
_ACTIVATIONS: dict[str, ActivationKind] = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}
_ELEMENTWISE: dict[str, tuple[ElementwiseKind, ElementwiseKind | None]] = {
    "Add": ("add", "add"),
    "Sub": ("sub", "rsub"),
    "Mul": ("mul", "mul"),
    "Div": ("div", None),
}


@dataclass(frozen=True)
class Value:
    """A computed tensor: its IR node, its ONNX shape for one input, its element type."""

    node: str
    dims: Shape
    elem_type: int


class Translator:
    """Builds a :class:`Network` from the nodes that the output depends on, in graph order.

    Args:
        opset: version of the default operator set.
        used: names of the tensors that a live node or the graph's output reads.
        constants: the initialisers by name.
    """

    def __init__(
        self, opset: int, used: Collection[str], constants: Mapping[str, Constant]
    ) -> None:
        self._opset = opset
        self._used = used
        self._constants = dict(constants)
        self._values: dict[str, Value] = {}
        self._nodes: list[Node] = []
        self._names: set[str] = set()
        self._parameters: dict[str, Parameter] = {}
        self._layouts: dict[str, Constant] = {}

    def add_input(self, tensor: str, name: str, dims: Shape, elem_type: int) -> None:
        """Start the network with the graph's input, called ``name``."""
        self._names.add(name)
        self._nodes.append(Node(name, Input(), (), _ir_shape(dims)))
        self._values[tensor] = Value(name, dims, elem_type)

    def add_node(self, node: onnx.NodeProto, name: str) -> None:
        """Translate one node.

        Raises:
            UnsupportedOperatorError: naming node and operator.
            ModelError: the node's attributes do not fit its operands.
        """
        try:
            self._check_version(node)
            if any(tensor in self._values for tensor in node.input):
                self._values[node.output[0]] = self._translate(node, name)
            else:
                self._constants[node.output[0]] = self._fold(node)
        except RefusedError as reason:
            raise UnsupportedOperatorError(f"node {name!r} ({node.op_type}): {reason}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # The checker passes some attributes that fit no tensor, e.g. a bad permutation.
            raise ModelError(
                f"node {name!r} ({node.op_type}) cannot be read ({error}); export the model again"
            ) from error

    def network(self, output: str) -> Network:
        """Return the network whose output is the tensor ``output``.

        Raises:
            ModelError: the output depends on no input, or the shapes do not fit.
        """
        value = self._values.get(output)
        if value is None or value.node != self._nodes[-1].name:
            raise ModelError(f"the output {output!r} does not depend on the input; export it again")
        if len(self._nodes) == 1:
            raise ModelError("the model returns its input unchanged; there is nothing to prove")
        return Network(self._nodes, self._parameters.values())

    def _check_version(self, node: onnx.NodeProto) -> None:
        newest = NEWEST_VERSION.get(node.op_type)
        if newest is None:
            raise RefusedError(
                "this operator is not supported; export the model for inference with "
                + ", ".join(sorted(NEWEST_VERSION))
            )
        version = onnx.defs.get_schema(node.op_type, self._opset, "").since_version
        if version > newest:
            raise RefusedError(f"has version {version}; export with an opset that has {newest}")

    def _translate(self, node: onnx.NodeProto, name: str) -> Value:
        if node.op_type in _ELEMENTWISE:
            return self._elementwise(node, name)
        handlers: dict[str, Callable[[onnx.NodeProto, str, Value], Value]] = {
            "Cast": self._cast,
            "Dropout": self._dropout,
            "Flatten": self._flatten,
            "Gemm": self._gemm,
            "Identity": lambda _node, _name, value: value,
            "LeakyRelu": self._activation,
            "MatMul": self._matmul,
            "Relu": self._activation,
            "Reshape": self._reshape,
            "Sigmoid": self._activation,
            "Softmax": self._softmax,
            "Tanh": self._activation,
        }
        if node.op_type not in handlers:
            raise RefusedError("is supported on constants only; export without it")
        if node.op_type == "MatMul" and node.input[0] in self._constants:
            return self._matmul_left(node, name)
        if node.input[0] not in self._values:
            raise RefusedError("its first operand is a constant; exchange the operands")
        return handlers[node.op_type](node, name, self._values[node.input[0]])

    def _fold(self, node: onnx.NodeProto) -> Constant:
        if node.op_type not in _FOLDABLE:
            raise RefusedError("computes on constants alone; export with constant folding")
        if node.op_type == "Constant":
            return node_constant(node)
        constant = self._constant(node, 0)
        if node.op_type == "Cast":
            return cast_constant(constant, int(self._attribute(node, "to")))
        if node.op_type == "Transpose":
            return constant.transposed(self._attribute(node, "perm"))
        if node.op_type == "Reshape":
            target, allow_zero = self._reshape_target(node)
            return constant.reshaped(resolve_shape(constant.shape, target, allow_zero))
        return constant

    def _attribute(self, node: onnx.NodeProto, name: str) -> Any:
        """Return an attribute, or the default that the operator's schema gives it."""
        for attribute in node.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        schema = onnx.defs.get_schema(node.op_type, self._opset, "")
        if name not in schema.attributes or not schema.attributes[name].default_value.name:
            return None
        return onnx.helper.get_attribute_value(schema.attributes[name].default_value)

    def _constant(self, node: onnx.NodeProto, index: int) -> Constant:
        if node.input[index] not in self._constants:
            raise RefusedError(f"operand {index + 1} is computed; only constants are supported")
        return self._constants[node.input[index]]

    def _emit(self, name: str, op: Op, before: Value, dims: Shape) -> Value:
        if name in self._names:
            raise ModelError(f"two nodes are called {name!r}; give every node its own name")
        self._names.add(name)
        self._nodes.append(Node(name, op, (before.node,), _ir_shape(dims)))
        return replace(before, node=name, dims=dims)

    def _parameter(self, constant: Constant) -> str:
        """Return the IR parameter that holds ``constant``.

        Raises:
            RefusedError: the tensor is in use under another layout; two parameters would let
                one stored number take two values.
        """
        seen = self._layouts.get(constant.root)
        if seen is None:
            value = constant.value.astype(np.float64)
            self._parameters[constant.root] = Parameter(constant.root, value, constant.stored)
            self._layouts[constant.root] = constant
        elif not seen.same_as(constant):
            raise RefusedError(
                f"uses {constant.root!r} transposed, reshaped or cast in another way than an "
                "earlier node does; use it in one way, or store a second tensor where the two "
                "may differ"
            )
        return constant.root

    def _gemm(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        if self._attribute(node, "transA"):
            raise RefusedError("transA = 1 mixes the inputs of a batch; export without it")
        alpha, beta = (float(self._attribute(node, key)) for key in ("alpha", "beta"))
        has_bias = len(node.input) > 2 and bool(node.input[2]) and beta != 0
        if alpha != 1 or (has_bias and beta != 1):
            raise RefusedError(
                f"alpha = {alpha!r}, beta = {beta!r}; multiply them into the weight and the bias "
                "and export with 1"
            )
        weight = self._constant(node, 1)
        bias = self._constant(node, 2) if has_bias else None
        weight = weight if self._attribute(node, "transB") else weight.transposed()
        dims = (value.dims[0], weight.shape[0])
        fused = None
        if bias is not None:
            _check_broadcast(bias, dims)
            fused = _as_bias(bias, dims)
        value = self._dense(name, value, weight, fused, dims)
        if bias is not None and fused is None:
            return self._constant_op(f"{name}.C", "add", value, bias)
        return value

    def _matmul(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        weight = self._constant(node, 1)
        if len(weight.shape) == 2:
            return self._dense(name, value, weight.transposed(), None, _dims(value, weight))
        if len(weight.shape) != 1:
            raise RefusedError(f"multiplies by a tensor of shape {weight.shape}; use a matrix")
        dims = (*value.dims[:-1], 1)
        value = self._dense(name, value, weight.reshaped((1, -1)), None, dims)
        return self._shaped(f"{name}.reshape", value, dims[:-1])

    def _matmul_left(self, node: onnx.NodeProto, name: str) -> Value:
        weight, value = self._constant(node, 0), self._values[node.input[1]]
        if len(value.dims) != 1 or len(weight.shape) != 2:
            raise RefusedError("its first operand is a constant; exchange the operands")
        return self._dense(name, value, weight, None, weight.shape[:1])

    def _dense(
        self, name: str, value: Value, weight: Constant, bias: Constant | None, dims: Shape
    ) -> Value:
        op = Dense(self._parameter(weight), None if bias is None else self._parameter(bias))
        return self._emit(name, op, value, dims)

    def _elementwise(self, node: onnx.NodeProto, name: str) -> Value:
        computed = [tensor in self._values for tensor in node.input]
        if all(computed):
            raise RefusedError("both operands are computed; one must be a constant")
        left = computed.index(True) == 0
        kind = _ELEMENTWISE[node.op_type][0 if left else 1]
        if kind is None:
            raise RefusedError("divides a constant by a computed value; that is not supported")
        value = self._values[node.input[0 if left else 1]]
        constant = self._constant(node, 1 if left else 0)
        _check_broadcast(constant, value.dims)
        last = self._nodes[-1]
        bias = _as_bias(constant, value.dims)
        if kind == "add" and bias and isinstance(last.op, Dense) and last.op.bias is None:
            op = replace(last.op, bias=self._parameter(bias))
            self._nodes[-1] = replace(last, op=op)
            return value
        return self._constant_op(name, kind, value, constant)

    def _constant_op(
        self, name: str, kind: ElementwiseKind, value: Value, constant: Constant
    ) -> Value:
        shape = constant.shape
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
        constant = constant.reshaped(shape)
        return self._emit(name, Elementwise(kind, self._parameter(constant)), value, value.dims)

    def _activation(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        if node.op_type in _ACTIVATIONS:
            return self._emit(name, Activation(_ACTIVATIONS[node.op_type]), value, value.dims)
        slope = float(self._attribute(node, "alpha"))
        if not 0 <= slope <= 1:
            raise RefusedError(f"alpha = {slope!r} lies outside [0, 1]; train with one inside")
        return self._emit(name, Activation("leaky_relu", slope), value, value.dims)

    def _softmax(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        rank = len(value.dims)
        axis = int(self._attribute(node, "axis"))
        axis += rank if axis < 0 else 0
        # Before opset 13 the axes from `axis` on are one flat axis.
        flat = self._opset < 13 and axis > 0 and all(d == 1 for d in value.dims[axis:-1])
        if axis != rank - 1 and not (flat and axis < rank):
            raise RefusedError(
                f"normalises over axis {axis} of {value.dims}; only the last axis is supported"
            )
        return self._emit(name, Softmax(), value, value.dims)

    def _cast(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        target = int(self._attribute(node, "to"))
        if not cast_is_exact(value.elem_type, target):
            names = tuple(map(onnx.TensorProto.DataType.Name, (value.elem_type, target)))
            raise RefusedError(
                "rounds a computed value from {} to {}, which a network of real numbers does "
                "not; export without this cast".format(*names)
            )
        return replace(value, elem_type=target)

    def _dropout(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        if any(mask in self._used for mask in node.output[1:] if mask):
            raise RefusedError("its mask is used; export the model for inference")
        if len(node.input) > 2 and node.input[2] and self._constant(node, 2).value.any():
            raise RefusedError("is in training mode; export the model for inference")
        return value

    def _flatten(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        axis = int(self._attribute(node, "axis"))
        axis += len(value.dims) if axis < 0 else 0
        first = int(np.prod(value.dims[:axis], dtype=np.int64))
        return self._shaped(name, value, (first, int(np.prod(value.dims, dtype=np.int64)) // first))

    def _reshape(self, node: onnx.NodeProto, name: str, value: Value) -> Value:
        target, allow_zero = self._reshape_target(node)
        return self._shaped(name, value, resolve_shape(value.dims, target, allow_zero))

    def _reshape_target(self, node: onnx.NodeProto) -> tuple[Sequence[int], bool]:
        target = self._constant(node, 1).value
        return [int(t) for t in target.ravel()], bool(self._attribute(node, "allowzero"))

    def _shaped(self, name: str, value: Value, dims: Shape) -> Value:
        if _ir_shape(dims) == _ir_shape(value.dims):
            return replace(value, dims=dims)
        return self._emit(name, Reshape(), value, dims)


def _ir_shape(dims: Shape) -> Shape:
    return dims[1:] if len(dims) > 1 and dims[0] == 1 else dims


def _dims(value: Value, weight: Constant) -> Shape:
    return (*value.dims[:-1], weight.shape[1])


def _check_broadcast(constant: Constant, dims: Shape) -> None:
    """Refuse a constant that would enlarge its operand, or give it more axes."""
    try:
        fits = np.broadcast_shapes(constant.shape, dims) == dims
    except ValueError:
        fits = False
    if not fits:
        raise RefusedError(
            f"its constant of shape {constant.shape} does not broadcast to the operand's {dims}; "
            "give it that shape"
        )


def _as_bias(constant: Constant, dims: Shape) -> Constant | None:
    """Return the constant as a ``(width,)`` bias where it is one, else ``None``."""
    width = dims[-1] if dims else 0
    if constant.value.size != width or (constant.shape and constant.shape[-1] != width):
        return None
    return constant.reshaped((width,))

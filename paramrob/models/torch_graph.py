"""Networks from graphs of ATen operators: what torch.export, tracing and TorchScript produce.

The graph comes in as calls with named arguments, in order. A value is :class:`Data` (it depends
on the input), a :class:`Constant` tensor of the model, :data:`BATCH` (the unknown batch size), or
a plain number, list or string. Each operator either becomes a layer of a :class:`Chain` with the
very same meaning in real arithmetic, or is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import ActivationKind, ElementwiseKind, Network, Shape
from paramrob.models.torch_chain import Chain
from paramrob.models.torch_tensor import StoredTensor


@dataclass(frozen=True)
class Data:
    """A value that depends on the input: what the chain gave after ``serial`` steps."""

    serial: int
    shape: Shape


@dataclass(frozen=True)
class Constant:
    """A parameter, buffer or constant tensor of the model, or its transpose."""

    tensor: StoredTensor
    name: str


@dataclass(frozen=True)
class Dtype:
    """A dtype by its name in torch."""

    name: str


class _Batch:
    """The unknown size of the batch axis."""

    def __repr__(self) -> str:
        return "batch"


BATCH: Final = _Batch()
Arguments = Mapping[str, object]


@dataclass(frozen=True)
class Call:
    """One node: its name, operator (``aten`` name without overload), arguments, module path.

    ``module`` is the path of the innermost module around it where that is a Linear.
    """

    name: str
    operator: str
    arguments: Arguments
    module: str | None = None


class GraphReader:
    """Turns calls into a network.

    Args:
        sizes: the input's sizes in the graph; the first is the batch, unless it is the only one.
    """

    def __init__(self, sizes: Sequence[int | _Batch]) -> None:
        batched = len(sizes) > 1
        self._batch = sizes[0] if batched else None
        inner = tuple(sizes[1:] if batched else sizes)
        shape = tuple(n for n in inner if isinstance(n, int))
        if len(shape) != len(inner):
            raise ModelError(
                "the model was exported for inputs of any size; export it with fixed sizes (only "
                "the first axis, the batch, may be dynamic)"
            )
        self._offset = 1 if batched else 0
        self._serial = 0
        self.chain = Chain(shape, self._offset)
        self.input = Data(0, self.chain.shape)

    def apply(self, call: Call) -> object:
        """Add one call and return its value.

        Raises:
            UnsupportedOperatorError: it has no exact meaning here.
        """
        operator = OPERATORS.get(call.operator)
        if operator is None:
            raise UnsupportedOperatorError(
                f"node {call.name!r}: operator {call.operator!r} is not supported; paramrob reads "
                "linear layers, ReLU, LeakyReLU, Sigmoid, Tanh, Softmax, reshapes and arithmetic "
                "with constants"
            )
        return operator(self, call)

    def finish(self, output: object) -> Network:
        """Return the network whose output is ``output``."""
        if not isinstance(output, Data) or output.serial != self._serial:
            raise UnsupportedOperatorError(
                "the model's output is not its last layer's value, or there are several; export "
                "a model with one output"
            )
        return self.chain.build()

    def unsupported(self, call: Call, why: str) -> UnsupportedOperatorError:
        """Return the error for a call of a known operator in an unsupported way."""
        return UnsupportedOperatorError(f"node {call.name!r} ({call.operator}): {why}")

    def data(self, call: Call, name: str) -> Data:
        """Return an argument that must be what the layer before gave."""
        value = call.arguments.get(name)
        if not isinstance(value, Data) or value.serial != self._serial:
            why = "it branches off an earlier value" if isinstance(value, Data) else "it is none"
            raise self.unsupported(
                call,
                f"its {name!r} must be the value of the layer before, but {why}; only plain "
                "sequences of layers are supported",
            )
        return value

    def constant(self, call: Call, name: str) -> Constant:
        """Return an argument that must be a tensor of the model."""
        value = call.arguments.get(name)
        if not isinstance(value, Constant):
            raise self.unsupported(call, f"its {name!r} must be a parameter of the model")
        return value

    def step(self) -> Data:
        """Return the value after the layer just added."""
        self._serial += 1
        return Data(self._serial, self.chain.shape)

    def dense(self, call: Call, weight: Constant, bias: Constant | None) -> Data:
        """Add ``W h + b``."""
        prefix = weight.name.rpartition(".")[0]
        name = call.module or prefix or call.name
        weight_name = self.chain.table.add(weight.name, weight.tensor)
        bias_name = None
        if bias is not None:
            tensor = bias.tensor
            if len(tensor.sizes) == 2 and tensor.sizes[0] == 1:
                tensor = tensor.without_axis(0)
            if tensor.sizes != weight.tensor.sizes[:1]:
                raise self.unsupported(call, f"a bias of shape {tensor.sizes} is not supported")
            bias_name = self.chain.table.add(bias.name, tensor)
        self.chain.dense_named(name, weight.tensor, weight_name, bias_name)
        return self.step()

    def reshape(self, call: Call, sizes: Sequence[object]) -> Data:
        """Reshape to torch's ``sizes``, which include the batch axis and at most one -1."""
        given = list(sizes)
        if self._offset:
            first = given.pop(0) if given else None
            if first != self._batch and not (first == -1 and -1 not in given):
                raise self.unsupported(
                    call, f"sizes {list(sizes)} do not keep the batch axis; keep the first axis"
                )
        shape = [n for n in given if isinstance(n, int)]
        if len(shape) != len(given) or shape.count(-1) > 1:
            raise self.unsupported(call, f"sizes {list(sizes)} are not fixed numbers")
        if -1 in shape:
            rest = -math.prod(shape)
            shape[shape.index(-1)] = math.prod(self.chain.shape) // rest if rest > 0 else 0
        self.chain.reshape(call.name, shape)
        return self.step()

    def arithmetic(self, call: Call, kind: ElementwiseKind, value: object) -> Data:
        """Add an operation with a constant that broadcasts."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            parameter = self.chain.table.add_constant(f"{call.name}.constant", _exact(value))
        elif isinstance(value, Constant):
            tensor = value.tensor
            rank = len(self.chain.shape) + self._offset
            if self._offset and len(tensor.sizes) == rank:
                if tensor.sizes[0] != 1:
                    raise self.unsupported(call, "its constant differs along the batch axis")
                tensor = tensor.without_axis(0)
            parameter = self.chain.table.add(value.name, tensor, integers=True)
        else:
            raise self.unsupported(
                call, "both sides depend on the input; only arithmetic with constants is supported"
            )
        self.chain.elementwise(call.name, kind, parameter)
        return self.step()

    def size(self, value: Data, axis: int) -> object:
        """Return one of torch's sizes of a value."""
        sizes = (*((self._batch,) if self._offset else ()), *value.shape)
        if not -len(sizes) <= axis < len(sizes):
            raise ModelError(f"the graph asks for axis {axis} of {len(sizes)}; export it again")
        return sizes[axis]

    def axes(self, call: Call, axes: Sequence[object]) -> list[int]:
        """Return axes of the last value, counted from 0 without the batch axis."""
        rank = len(self.chain.shape) + self._offset
        inner = [axis % rank - self._offset for axis in axes if isinstance(axis, int) and rank]
        if len(inner) != len(axes) or any(axis < 0 for axis in inner):
            raise self.unsupported(call, "it touches the batch axis; keep the first axis")
        return inner

    def squeeze(self, call: Call) -> Data:
        """Drop axes of length one."""
        self.data(call, "self")
        dim = call.arguments.get("dim")
        if dim is None:
            if self._batch == 1:
                raise self.unsupported(call, "it would drop the batch axis; name the axis")
            drop = list(range(len(self.chain.shape)))
        else:
            dims = list(dim) if isinstance(dim, (list, tuple)) else [dim]
            if self._offset and self._batch != 1:  # squeezing an axis that is not 1 does nothing
                rank = len(self.chain.shape) + 1
                dims = [d for d in dims if not isinstance(d, int) or d % rank]
            drop = self.axes(call, dims)
        kept = [n for i, n in enumerate(self.chain.shape) if i not in drop or n != 1]
        self.chain.reshape(call.name, kept)
        return self.step()

    def unsqueeze(self, call: Call) -> Data:
        """Insert an axis of length one."""
        self.data(call, "self")
        dim = call.arguments.get("dim")
        rank = len(self.chain.shape) + self._offset + 1
        place = dim % rank - self._offset if isinstance(dim, int) else -1
        if place < 0:
            raise self.unsupported(call, "it inserts an axis before the batch axis")
        shape = self.chain.shape
        self.chain.reshape(call.name, (*shape[:place], 1, *shape[place:]))
        return self.step()


def _exact(value: float) -> float:
    if isinstance(value, int) and abs(value) > 2**53:
        raise ModelError("a constant of the model is beyond 2**53; write it as a float")
    return float(value)


def _activation(kind: ActivationKind) -> Callable[[GraphReader, Call], Data]:
    def add(reader: GraphReader, call: Call) -> Data:
        reader.data(call, "self")
        slope = call.arguments.get("negative_slope", 0.01) if kind == "leaky_relu" else 0.0
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise reader.unsupported(call, f"its slope {slope!r} is no number")
        reader.chain.activation(call.name, kind, _exact(slope))
        return reader.step()

    return add


def _linear(reader: GraphReader, call: Call) -> Data:
    reader.data(call, "input")
    has_bias = call.arguments.get("bias") is not None
    bias = reader.constant(call, "bias") if has_bias else None
    return reader.dense(call, reader.constant(call, "weight"), bias)


def _addmm(reader: GraphReader, call: Call) -> Data:
    reader.data(call, "mat1")
    if call.arguments.get("alpha", 1) != 1 or call.arguments.get("beta", 1) != 1:
        raise reader.unsupported(call, "alpha and beta other than 1 are not supported")
    matrix = _transposed(reader, call, reader.constant(call, "mat2"))
    return reader.dense(call, matrix, reader.constant(call, "self"))


def _matmul(reader: GraphReader, call: Call) -> Data:
    reader.data(call, "self")
    other = "mat2" if "mat2" in call.arguments else "other"
    return reader.dense(call, _transposed(reader, call, reader.constant(call, other)), None)


def _transposed(reader: GraphReader, call: Call, value: Constant) -> Constant:
    if len(value.tensor.sizes) != 2:
        raise reader.unsupported(call, f"a constant of shape {value.tensor.sizes} is no matrix")
    return Constant(value.tensor.transposed(), value.name)


def _transpose(reader: GraphReader, call: Call) -> Constant:
    value = reader.constant(call, "self")
    dims = call.arguments.get("dims", [call.arguments.get("dim0"), call.arguments.get("dim1")])
    flips = ([1, 0], [-1, 0], [-1, -2], [1, -2])
    swaps = ([0, 1], [0, -1], [-2, -1], [-2, 1], *flips)
    fits = {"t": True, "permute": dims in flips}.get(call.operator, dims in swaps)
    if not fits:
        raise reader.unsupported(call, f"axes {dims} are no transpose of a matrix")
    return _transposed(reader, call, value)


def _same(reader: GraphReader, call: Call) -> object:
    name = "self" if "self" in call.arguments else "input"
    value = call.arguments.get(name)
    dtype = call.arguments.get("dtype")
    if dtype not in (None, Dtype("float32"), Dtype("float64")) or "other" in call.arguments:
        raise reader.unsupported(call, "only conversions to float32 and float64 are supported")
    if call.operator.startswith("dropout") and call.arguments.get("train") is not False:
        raise reader.unsupported(call, "dropout is active; export after model.eval()")
    return value if isinstance(value, Constant) else reader.data(call, name)


def _softmax(reader: GraphReader, call: Call) -> Data:
    reader.data(call, "self")
    if call.arguments.get("dtype") not in (None, Dtype("float32"), Dtype("float64")):
        raise reader.unsupported(call, "only float32 and float64 are supported")
    axis = call.arguments.get("dim")
    if not isinstance(axis, int):
        raise reader.unsupported(call, f"its axis {axis!r} is no number")
    reader.chain.softmax(call.name, axis)
    return reader.step()


def _flatten(reader: GraphReader, call: Call) -> Data:
    reader.data(call, "self")
    start, end = call.arguments.get("start_dim", 0), call.arguments.get("end_dim", -1)
    if not isinstance(start, int) or not isinstance(end, int):
        raise reader.unsupported(call, "its axes are no numbers")
    reader.chain.flatten(call.name, start, end)
    return reader.step()


def _view(reader: GraphReader, call: Call) -> Data:
    reader.data(call, "self")
    sizes = call.arguments.get("size", call.arguments.get("shape"))
    if not isinstance(sizes, (list, tuple)):
        raise reader.unsupported(call, "its sizes are not fixed numbers")
    return reader.reshape(call, sizes)


def _size(reader: GraphReader, call: Call) -> object:
    value, axis = call.arguments.get("self"), call.arguments.get("dim")
    if not isinstance(value, Data) or not isinstance(axis, int):
        raise reader.unsupported(call, "only the size of a layer's value is supported")
    return reader.size(value, axis)


def _arithmetic(kind: ElementwiseKind) -> Callable[[GraphReader, Call], Data]:
    def add(reader: GraphReader, call: Call) -> Data:
        if call.arguments.get("alpha", 1) != 1:
            raise reader.unsupported(call, "alpha other than 1 is not supported")
        if call.arguments.get("rounding_mode") is not None:
            raise reader.unsupported(call, "rounding is not supported")
        left, right = call.arguments.get("self"), call.arguments.get("other")
        if isinstance(left, Data):
            reader.data(call, "self")
            return reader.arithmetic(call, kind, right)
        if not isinstance(right, Data):
            raise reader.unsupported(
                call,
                "it computes a parameter from others, which is not supported; store the result",
            )
        reader.data(call, "other")
        swapped: dict[ElementwiseKind, ElementwiseKind] = {
            "add": "add",
            "mul": "mul",
            "sub": "rsub",
        }
        if kind not in swapped:
            raise reader.unsupported(call, "a constant divided by a layer is not supported")
        return reader.arithmetic(call, swapped[kind], left)

    return add


OPERATORS: Mapping[str, Callable[[GraphReader, Call], object]] = {
    "linear": _linear,
    "addmm": _addmm,
    "mm": _matmul,
    "matmul": _matmul,
    **dict.fromkeys(("relu", "relu_"), _activation("relu")),
    **dict.fromkeys(("leaky_relu", "leaky_relu_"), _activation("leaky_relu")),
    **dict.fromkeys(("sigmoid", "sigmoid_"), _activation("sigmoid")),
    **dict.fromkeys(("tanh", "tanh_"), _activation("tanh")),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", "detach_"), _same),
    **dict.fromkeys(("dropout", "dropout_", "lift_fresh_copy", "to", "_to_copy"), _same),
    "flatten": _flatten,
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    "squeeze": GraphReader.squeeze,
    "unsqueeze": GraphReader.unsqueeze,
    **dict.fromkeys(("t", "permute", "transpose"), _transpose),
    **dict.fromkeys(("sym_size", "size"), _size),
    "add": _arithmetic("add"),
    "sub": _arithmetic("sub"),
    "mul": _arithmetic("mul"),
    "div": _arithmetic("div"),
    "rsub": _arithmetic("rsub"),
    "_assert_tensor_metadata": lambda _reader, _call: "nothing",
}

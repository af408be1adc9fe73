"""The ATen operators of dense layers, activations, arithmetic and shapes; the table of them all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from paramrob.errors import UnsupportedOperatorError
from paramrob.models.network import Activation, Add, Elementwise, ElementwiseKind
from paramrob.models.torch_graph import Call, Constant, Data, Dtype, GraphReader
from paramrob.models.torch_image_operators import IMAGE_OPERATORS
from paramrob.models.torch_settings import ACTIVATIONS, activation_op, number, unflattened

Operator = Callable[[GraphReader, Call], object]


def apply(reader: GraphReader, call: Call) -> object:
    """Add one call to the network and return its value.

    Raises:
        UnsupportedOperatorError: it has no exact meaning here; names node and operator.
        ModelError: its arguments do not fit.
    """
    operator = OPERATORS.get(call.operator)
    if operator is None:
        raise UnsupportedOperatorError(
            f"node {call.name!r}: operator {call.operator!r} is not supported; paramrob reads "
            "linear layers, convolutions, batch norms, pools, sums, concatenations, reshapes, "
            "arithmetic with constants and common activations (export without "
            "run_decompositions)"
        )
    if any(re.fullmatch(r"out\d*", name) for name, v in call.arguments.items() if v is not None):
        raise reader.unsupported(call, "it writes into another value; leave out its out=")
    # What detach_ overwrites keeps its numbers.
    in_place = call.operator.endswith("_") and call.operator != "detach_"
    target = call.arguments.get("self", call.arguments.get("input"))
    if in_place and not isinstance(target, Data):
        raise reader.unsupported(call, "it overwrites a parameter; use the form without '_'")
    result = operator(reader, call)
    return reader.overwrite(call, target, result) if in_place else result


def _activation(name: str) -> Operator:
    def add(reader: GraphReader, call: Call) -> Data:
        given = reader.data(call, "self")
        op = activation_op(call.where, name, call.arguments)
        return reader.new(reader.builder.activation(given.value, call.label, op))

    return add


def _clamp(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "self")
    low, high = call.arguments.get("min"), call.arguments.get("max")
    if high is None and low is not None and number(call.where, "min", low) == 0:
        op = Activation("relu")
    elif low is None or high is None:
        raise reader.unsupported(call, "only clamp(min=..., max=...) and clamp(min=0) are known")
    else:
        bounds = number(call.where, "min", low), number(call.where, "max", high)
        op = Activation("clamp", low=bounds[0], high=bounds[1])
    return reader.new(reader.builder.activation(given.value, call.label, op))


def _dense(
    reader: GraphReader, call: Call, given: Data, weight: Constant, bias: Constant | None
) -> Data:
    """Add ``W h + b``."""
    table = reader.builder.table
    prefix = weight.name.rpartition(".")[0]
    name = call.module or prefix or call.name
    weight_name = table.add(weight.name, weight.tensor)
    bias_name = None
    if bias is not None:
        tensor = bias.tensor
        if len(tensor.sizes) == 2 and tensor.sizes[0] == 1:
            tensor = tensor.without_axis(0)
        if tensor.sizes != weight.tensor.sizes[:1]:
            raise reader.unsupported(call, f"a bias of shape {tensor.sizes} is not supported")
        bias_name = table.add(bias.name, tensor)
    dense = reader.builder.dense(given.value, name, weight.tensor, weight_name, bias_name)
    return reader.new(dense)


def _linear(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "input")
    has_bias = call.arguments.get("bias") is not None
    bias = reader.constant(call, "bias") if has_bias else None
    return _dense(reader, call, given, reader.constant(call, "weight"), bias)


def _addmm(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "mat1")
    if call.arguments.get("alpha", 1) != 1 or call.arguments.get("beta", 1) != 1:
        raise reader.unsupported(call, "alpha and beta other than 1 are not supported")
    matrix = _transposed(reader, call, reader.constant(call, "mat2"))
    return _dense(reader, call, given, matrix, reader.constant(call, "self"))


def _matmul(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "self")
    other = "mat2" if "mat2" in call.arguments else "other"
    matrix = _transposed(reader, call, reader.constant(call, other))
    return _dense(reader, call, given, matrix, None)


def _transposed(reader: GraphReader, call: Call, value: Constant) -> Constant:
    if len(value.tensor.sizes) != 2:
        raise reader.unsupported(call, f"a constant of shape {value.tensor.sizes} is no matrix")
    return Constant(value.tensor.transposed(), value.name)


def _transpose(reader: GraphReader, call: Call) -> Constant | Data:
    dims = call.arguments.get("dims", [call.arguments.get("dim0"), call.arguments.get("dim1")])
    if isinstance(call.arguments.get("self"), Data):
        return _permute(reader, call, dims if isinstance(dims, (list, tuple)) else [])
    value = reader.constant(call, "self")
    flips = ([1, 0], [-1, 0], [-1, -2], [1, -2])
    swaps = ([0, 1], [0, -1], [-2, -1], [-2, 1], *flips)
    fits = {"t": True, "permute": dims in flips}.get(call.operator, dims in swaps)
    if not fits:
        raise reader.unsupported(call, f"axes {dims} are no transpose of a matrix")
    return _transposed(reader, call, value)


def _permute(reader: GraphReader, call: Call, dims: Sequence[object]) -> Data:
    given = reader.data(call, "self")
    rank = len(given.shape)
    if call.operator == "t":
        dims = [0, 1]
    if call.operator == "permute":
        if reader.offset and (not dims or dims[0] not in (0, -rank - 1)):
            raise reader.unsupported(call, "it moves the batch axis; keep the first axis")
        order = reader.axes(call, given, dims[reader.offset :])
    else:
        first, second = reader.axes(call, given, dims)
        order = list(range(rank))
        order[first], order[second] = second, first
    return reader.view(reader.builder.transpose(given.value, call.label, order), given)


def _same(reader: GraphReader, call: Call) -> object:
    name = "self" if "self" in call.arguments else "input"
    value = call.arguments.get(name)
    dtype = call.arguments.get("dtype")
    if dtype not in (None, Dtype("float32"), Dtype("float64")) or "other" in call.arguments:
        raise reader.unsupported(call, "only conversions to float32 and float64 are supported")
    if "dropout" in call.operator and call.arguments.get("train") is not False:
        raise reader.unsupported(call, "dropout is active; export after model.eval()")
    if isinstance(value, Constant):
        return value
    data = reader.data(call, name)
    return reader.new(data.value) if call.operator in ("clone", "_to_copy") else data


def _softmax(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "self")
    if call.arguments.get("dtype") not in (None, Dtype("float32"), Dtype("float64")):
        raise reader.unsupported(call, "only float32 and float64 are supported")
    axis = call.arguments.get("dim")
    if type(axis) is not int:
        raise reader.unsupported(call, f"its axis {axis!r} is no number")
    return reader.new(reader.builder.softmax(given.value, call.label, axis))


def _flatten(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "self")
    start, end = call.arguments.get("start_dim", 0), call.arguments.get("end_dim", -1)
    if type(start) is not int or type(end) is not int:
        raise reader.unsupported(call, "its axes are no numbers")
    return reader.view(reader.builder.flatten(given.value, call.label, start, end), given)


def _unflatten(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "self")
    (axis,) = reader.axes(call, given, [call.arguments.get("dim")])
    sizes = call.arguments.get("sizes")
    if not isinstance(sizes, (list, tuple)):
        raise reader.unsupported(call, "its sizes are not fixed numbers")
    shape = unflattened(call.where, given.shape, axis, sizes)
    return reader.view(reader.builder.reshape(given.value, call.label, shape), given)


def _view(reader: GraphReader, call: Call) -> Data:
    """Reshape to torch's sizes, which include the batch axis and at most one -1."""
    value = reader.data(call, "self")
    sizes = call.arguments.get("size", call.arguments.get("shape"))
    if not isinstance(sizes, (list, tuple)):
        raise reader.unsupported(call, "its sizes are not fixed numbers")
    given = list(sizes)
    if reader.offset:
        first = given.pop(0) if given else None
        if first != reader.batch and not (first == -1 and -1 not in given):
            raise reader.unsupported(
                call, f"sizes {list(sizes)} do not keep the batch axis; keep the first axis"
            )
    shape = [n for n in given if isinstance(n, int)]
    if len(shape) != len(given) or shape.count(-1) > 1:
        raise reader.unsupported(call, f"sizes {list(sizes)} are not fixed numbers")
    if -1 in shape:
        rest = -math.prod(shape)
        shape[shape.index(-1)] = math.prod(value.shape) // rest if rest > 0 else 0
    return reader.view(reader.builder.reshape(value.value, call.label, shape), value)


def _squeeze(reader: GraphReader, call: Call) -> Data:
    """Drop axes of length one."""
    given = reader.data(call, "self")
    shape = given.shape
    dim = call.arguments.get("dim")
    if dim is None:
        if reader.batch == 1:
            raise reader.unsupported(call, "it would drop the batch axis; name the axis")
        drop = list(range(len(shape)))
    else:
        dims = list(dim) if isinstance(dim, (list, tuple)) else [dim]
        if reader.offset and reader.batch != 1:  # squeezing an axis that is not 1 does nothing
            dims = [d for d in dims if not isinstance(d, int) or d % (len(shape) + 1)]
        drop = reader.axes(call, given, dims)
    kept = [n for i, n in enumerate(shape) if i not in drop or n != 1]
    return reader.view(reader.builder.reshape(given.value, call.label, kept), given)


def _unsqueeze(reader: GraphReader, call: Call) -> Data:
    """Insert an axis of length one."""
    given = reader.data(call, "self")
    dim, shape = call.arguments.get("dim"), given.shape
    rank = len(shape) + reader.offset + 1
    place = dim % rank - reader.offset if isinstance(dim, int) else -1
    if place < 0:
        raise reader.unsupported(call, "it inserts an axis before the batch axis")
    longer = (*shape[:place], 1, *shape[place:])
    return reader.view(reader.builder.reshape(given.value, call.label, longer), given)


def _size(reader: GraphReader, call: Call) -> object:
    value, axis = call.arguments.get("self"), call.arguments.get("dim")
    if isinstance(value, Data) and axis is None:
        return reader.sizes(value)
    if not isinstance(value, Data) or not isinstance(axis, int):
        raise reader.unsupported(call, "only the size of a layer's value is supported")
    return reader.size(value, axis)


def _arithmetic(kind: ElementwiseKind) -> Operator:
    def add(reader: GraphReader, call: Call) -> Data:
        if call.arguments.get("alpha", 1) != 1:
            raise reader.unsupported(call, "alpha other than 1 is not supported")
        if call.arguments.get("rounding_mode") is not None:
            raise reader.unsupported(call, "rounding is not supported")
        left, right = call.arguments.get("self"), call.arguments.get("other")
        if isinstance(left, Data) and isinstance(right, Data):
            return _both(reader, call, kind)
        if isinstance(left, Data):
            return _with_constant(reader, call, kind, reader.data(call, "self"), right)
        if not isinstance(right, Data):
            raise reader.unsupported(
                call,
                "it computes a parameter from others, which is not supported; store the result",
            )
        swapped: dict[ElementwiseKind, ElementwiseKind] = {
            "add": "add",
            "mul": "mul",
            "sub": "rsub",
        }
        if kind not in swapped:
            raise reader.unsupported(call, "a constant divided by a layer is not supported")
        return _with_constant(reader, call, swapped[kind], reader.data(call, "other"), left)

    return add


def _both(reader: GraphReader, call: Call, kind: ElementwiseKind) -> Data:
    """Add two values, or multiply one by its own sigmoid (SiLU, decomposed)."""
    left, right = reader.data(call, "self"), reader.data(call, "other")
    builder = reader.builder
    if kind == "add":
        if left.shape != right.shape:
            raise reader.unsupported(
                call,
                f"it adds values of different shapes {left.shape} and {right.shape}; only the "
                "same shape is supported",
            )
        return reader.new(builder.add(call.label, Add(), left.value, right.value))
    for gate, other in ((left, right), (right, left)):
        is_gate = builder.op(gate.value) == (Activation("sigmoid"), (other.value.node,))
        if kind == "mul" and is_gate and gate.shape == other.shape:
            return reader.new(builder.activation(other.value, call.label, Activation("silu")))
    raise reader.unsupported(
        call,
        "both sides depend on the input; only their sum is supported, and arithmetic with "
        "constants",
    )


def _with_constant(
    reader: GraphReader, call: Call, kind: ElementwiseKind, given: Data, value: object
) -> Data:
    """Add an operation with a constant that broadcasts."""
    table = reader.builder.table
    if isinstance(value, Constant):
        tensor = value.tensor
        rank = len(given.shape) + reader.offset
        if reader.offset and len(tensor.sizes) == rank:
            if tensor.sizes[0] != 1:
                raise reader.unsupported(call, "its constant differs along the batch axis")
            tensor = tensor.without_axis(0)
        parameter = table.add(value.name, tensor, integers=True)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        exact = number(call.where, "its constant", value)
        parameter = table.add_constant(f"{call.name}.constant", exact)
    else:
        raise reader.unsupported(call, "one side is neither a number nor a parameter of the model")
    return reader.new(reader.builder.add(call.name, Elementwise(kind, parameter), given.value))


def _in_place_too(operators: Mapping[str, Operator]) -> dict[str, Operator]:
    return {**operators, **{f"{name}_": operator for name, operator in operators.items()}}


_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_KINDS: tuple[ElementwiseKind, ...] = ("add", "sub", "mul", "div")

OPERATORS: Mapping[str, Operator] = {
    "linear": _linear,
    "addmm": _addmm,
    "mm": _matmul,
    "matmul": _matmul,
    **_in_place_too({name: _activation(name) for name in ACTIVATIONS}),
    **_in_place_too({kind: _arithmetic(kind) for kind in _KINDS}),
    **_in_place_too(dict.fromkeys(_DROPOUTS, _same)),
    **_in_place_too({"clamp": _clamp, "detach": _same}),
    "rsub": _arithmetic("rsub"),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    **dict.fromkeys(("alias", "clone", "contiguous", "lift_fresh_copy", "to", "_to_copy"), _same),
    "flatten": _flatten,
    "unflatten": _unflatten,
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    **dict.fromkeys(("t", "permute", "transpose"), _transpose),
    **dict.fromkeys(("sym_size", "size"), _size),
    "_assert_tensor_metadata": lambda _reader, _call: "nothing",
    **IMAGE_OPERATORS,
}

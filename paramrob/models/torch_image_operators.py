"""The ATen operators of convolutions, batch norms, pools, concatenations and means."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paramrob.models.network import BatchNorm, Concat
from paramrob.models.ops import PoolKind
from paramrob.models.torch_graph import Call, Data, Dtype, GraphReader, Several
from paramrob.models.torch_settings import adaptive_size, batch_norm_epsilon, conv_op, pool_op

Operator = Callable[[GraphReader, Call], object]


def _convolution(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "input")
    if call.arguments.get("transposed", False) is not False:
        raise reader.unsupported(call, "a transposed convolution is not supported")
    weight = reader.constant(call, "weight")
    sizes = weight.tensor.sizes
    if len(sizes) not in (3, 4):
        raise reader.unsupported(call, f"a kernel of shape {sizes} is not supported; 1d or 2d is")
    bias = reader.constant(call, "bias") if call.arguments.get("bias") is not None else None
    if bias is not None and bias.tensor.sizes != sizes[:1]:
        raise reader.unsupported(call, f"a bias of shape {bias.tensor.sizes} is not supported")
    table = reader.builder.table
    weight_name = table.add(weight.name, weight.tensor)
    bias_name = None if bias is None else table.add(bias.name, bias.tensor)
    op = conv_op(call.where, weight_name, bias_name, sizes[2:], call.arguments)
    name = call.module or weight.name.rpartition(".")[0] or call.name
    return reader.new(reader.builder.convolution(given.value, name, op, sizes))


def _batch_norm(reader: GraphReader, call: Call) -> Data:
    given = reader.data(call, "input")
    statistics = ("running_mean", "running_var")
    tracked = all(call.arguments.get(name) is not None for name in statistics)
    epsilon = batch_norm_epsilon(call.where, call.arguments.get("eps"), tracked)
    if call.arguments.get("training", False) is not False:
        raise reader.unsupported(call, "it is in training mode; export after model.eval()")
    weight, bias = reader.parameter(call, "weight"), reader.parameter(call, "bias")
    found = [reader.constant(call, name) for name in statistics]
    mean, variance = (reader.builder.table.add(c.name, c.tensor, fixed=True) for c in found)
    name = call.module or found[0].name.rpartition(".")[0] or call.name
    op = BatchNorm(mean, variance, epsilon, weight, bias)
    return reader.new(reader.builder.batch_norm(given.value, name, op))


def _pool(kind: PoolKind, axes: int) -> Operator:
    def add(reader: GraphReader, call: Call) -> Data:
        given = reader.builder.spatial(reader.data(call, "self").value, call.label, axes)
        op = pool_op(call.where, kind, given.shape[1:], call.arguments)
        return reader.new(reader.builder.pool(given, call.label, op))

    return add


def _adaptive_pool(kind: PoolKind, axes: int) -> Operator:
    def add(reader: GraphReader, call: Call) -> Data:
        given = reader.builder.spatial(reader.data(call, "self").value, call.label, axes)
        sizes = adaptive_size(call.where, call.arguments.get("output_size"), given.shape[1:])
        shape = (given.shape[0], *sizes)
        return reader.new(reader.builder.adaptive_pool(given, call.label, kind, shape))

    return add


def _reduced(kind: PoolKind) -> Operator:
    """Return the operator of a mean or maximum over axes behind the channels."""

    def add(reader: GraphReader, call: Call) -> Data:
        given = reader.data(call, "self")
        shape = given.shape
        if call.arguments.get("dtype") not in (None, Dtype("float32"), Dtype("float64")):
            raise reader.unsupported(call, "only float32 and float64 are supported")
        dims = call.arguments.get("dim")
        dims = dims if isinstance(dims, (list, tuple)) else [dims]
        axes = reader.axes(call, given, dims)
        if len(shape) not in (2, 3) or not axes or 0 in axes or len(set(axes)) != len(axes):
            raise reader.unsupported(
                call, f"only axes behind the channels are supported, not {dims} of {shape}"
            )
        short = tuple(1 if i in axes else n for i, n in enumerate(shape))
        value = reader.builder.adaptive_pool(given.value, call.label, kind, short)
        if call.arguments.get("keepdim", False) is False:
            kept = [n for i, n in enumerate(shape) if i not in axes]
            value = reader.builder.reshape(value, call.label, kept)
        return reader.new(value)

    return add


def _concatenation(reader: GraphReader, call: Call) -> Data:
    tensors = call.arguments.get("tensors")
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise reader.unsupported(call, "it joins no list of values")
    given = [reader.checked(call, "tensors", tensor) for tensor in tensors]
    (axis,) = reader.axes(call, given[0], [call.arguments.get("dim", 0)])
    if len(given) == 1:
        return reader.new(given[0].value)
    values = [data.value for data in given]
    return reader.new(reader.builder.add(call.label, Concat(axis), *values))


def _first_of_several(operator: Operator) -> Operator:
    def add(reader: GraphReader, call: Call) -> Several:
        first = operator(reader, call)
        if not isinstance(first, Data):
            raise reader.unsupported(call, "its first output is no value")
        return Several(first)

    return add


IMAGE_OPERATORS: Mapping[str, Operator] = {
    **dict.fromkeys(("conv1d", "conv2d", "convolution", "_convolution"), _convolution),
    "_convolution_mode": _convolution,
    "batch_norm": _batch_norm,
    **dict.fromkeys(
        ("_native_batch_norm_legit_no_training", "native_batch_norm"),
        _first_of_several(_batch_norm),
    ),
    "avg_pool1d": _pool("average", 1),
    "avg_pool2d": _pool("average", 2),
    "max_pool1d": _pool("max", 1),
    "max_pool2d": _pool("max", 2),
    "max_pool1d_with_indices": _first_of_several(_pool("max", 1)),
    "max_pool2d_with_indices": _first_of_several(_pool("max", 2)),
    "adaptive_avg_pool1d": _adaptive_pool("average", 1),
    **dict.fromkeys(("adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _adaptive_pool("average", 2)),
    "adaptive_max_pool1d": _first_of_several(_adaptive_pool("max", 1)),
    "adaptive_max_pool2d": _first_of_several(_adaptive_pool("max", 2)),
    "mean": _reduced("average"),
    "amax": _reduced("max"),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenation),
}

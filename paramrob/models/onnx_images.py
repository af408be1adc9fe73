"""ONNX operators on images and signals: convolution, normalisation, pools, padding."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx

from paramrob.errors import ModelError
from paramrob.models.network import AdaptivePool, BatchNorm, Conv, Pool, Shape
from paramrob.models.onnx_builder import LARGEST_TENSOR, Builder, Handler, Padding, Value, axis_of
from paramrob.models.onnx_constants import RefusedError
from paramrob.models.ops import PoolKind
from paramrob.models.shapes import pool_windows, slid

Sizes = tuple[int, ...]


def conv(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate Conv over one or two axes, with what a Pad of zeros before it adds."""
    value, weight = _image(graph, node, padded=True), graph.constant(node, 1)
    axes = len(value.dims) - 2
    if len(weight.shape) != axes + 2:
        raise RefusedError(f"its kernel has shape {weight.shape}, its input {value.dims}")
    kernel = weight.shape[2:]
    said = graph.attribute(node, "kernel_shape")
    if said is not None and tuple(said) != kernel:
        raise RefusedError(f"kernel_shape = {list(said)} is not that of its weight {weight.shape}")
    stride, dilation = _sizes(graph, node, "strides", axes), _sizes(graph, node, "dilations", axes)
    pads = _pads(graph, node, value.dims[2:], kernel, stride, dilation)
    pads = tuple(
        (a + c, b + d)
        for (a, b), (c, d) in zip(pads, value.padding or ((0, 0),) * axes, strict=True)
    )
    bias = graph.constant(node, 2) if graph.has(node, 2) else None
    op = Conv(
        graph.parameter(weight),
        None if bias is None else graph.parameter(bias.nearest()),
        stride,
        pads,
        dilation,
        int(graph.attribute(node, "group")),
    )
    sizes = slid(name, _bare(value), kernel, stride, pads, dilation)
    value = graph.emit(name, op, value, (1, weight.shape[0], *sizes))
    column = None if bias is None else bias.reshaped((bias.value.size, *(1 for _ in kernel)))
    return graph.with_rest(name, value, column)


def batch_norm(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate BatchNormalization at inference; its statistics are fixed parameters."""
    value = graph.value(node)
    if len(value.dims) < 2 or value.dims[0] != 1:
        raise RefusedError(f"its input has shape {value.dims}; it needs a batch, then channels")
    if graph.attribute(node, "training_mode") or any(
        graph.uses.get(tensor, 0) for tensor in node.output[1:] if tensor
    ):
        raise RefusedError("is in training mode; export the model for inference")
    if graph.attribute(node, "spatial") == 0:
        raise RefusedError("spatial = 0 is not supported; export with a newer opset")
    scale, bias, mean, variance = (graph.constant(node, i) for i in range(1, 5))
    op = BatchNorm(
        graph.parameter(mean, fixed=True),
        graph.parameter(variance, fixed=True),
        float(graph.attribute(node, "epsilon")),
        graph.parameter(scale),
        graph.parameter(bias),
    )
    return graph.emit(name, op, value, value.dims)


def pool(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate AveragePool and MaxPool."""
    kind: PoolKind = "max" if node.op_type == "MaxPool" else "average"
    value = _image(graph, node, padded=kind == "average", quantized=kind == "max")
    axes = len(value.dims) - 2
    if any(graph.uses.get(tensor, 0) for tensor in node.output[1:] if tensor):
        raise RefusedError("its indices are used; export with the maxima alone")
    kernel = tuple(int(k) for k in graph.attribute(node, "kernel_shape"))
    if len(kernel) != axes:
        raise RefusedError(f"its kernel {kernel} does not fit its input of shape {value.dims}")
    stride, dilation = _sizes(graph, node, "strides", axes), _sizes(graph, node, "dilations", axes)
    own = _pads(graph, node, value.dims[2:], kernel, stride, dilation)
    inside = bool(graph.attribute(node, "count_include_pad"))
    if value.padding:
        if any(map(any, own)) and not inside:
            raise RefusedError("leaves its padding out of the average but a Pad before it in")
        inside = True
    extra = _overhang(graph, node, value.dims[2:], kernel, stride, own, dilation)
    if kind == "average" and inside and any(extra):
        raise RefusedError("ceil_mode = 1 with padding in the average; export with floor mode")
    pads = tuple(
        (a + c, b + d + e)
        for (a, b), (c, d), e in zip(own, value.padding or ((0, 0),) * axes, extra, strict=True)
    )
    op = Pool(kind, kernel, stride, pads, dilation, inside or kind == "max")
    sizes = slid(name, _bare(value), kernel, stride, pads, dilation)
    if math.prod(kernel) * math.prod(sizes) > LARGEST_TENSOR:
        raise RefusedError(f"its kernel {kernel} is too large; export with a smaller one")
    try:
        pool_windows(op, _bare(value), sizes)
    except ModelError as error:
        raise RefusedError(str(error)) from None
    return graph.emit(name, op, value, (*value.dims[:2], *sizes))


def global_pool(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate GlobalAveragePool and GlobalMaxPool."""
    kind: PoolKind = "max" if node.op_type == "GlobalMaxPool" else "average"
    value = _image(graph, node, quantized=kind == "max")
    dims = (*value.dims[:2], *(1 for _ in value.dims[2:]))
    return graph.emit(name, AdaptivePool(kind), value, dims)


def reduce(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate ReduceMean and ReduceMax over axes of an image, not its channels."""
    kind: PoolKind = "max" if node.op_type == "ReduceMax" else "average"
    value = _image(graph, node, quantized=kind == "max")
    rank = len(value.dims)
    given = graph.integers(node, "axes", 1)
    if not given and graph.attribute(node, "noop_with_empty_axes"):
        return value
    axes = {axis_of(a, rank) for a in given or range(rank)}
    if min(axes) < 2:
        raise RefusedError(
            f"reduces the axes {sorted(axes)} of {value.dims}; only those behind the channels "
            "are supported"
        )
    dims = tuple(1 if a in axes else d for a, d in enumerate(value.dims))
    found = graph.emit(name, AdaptivePool(kind), value, dims)
    if graph.attribute(node, "keepdims"):
        return found
    kept = tuple(d for a, d in enumerate(dims) if a not in axes)
    return graph.shaped(f"{name}.reshape", found, kept)


def pad(graph: Builder, node: onnx.NodeProto, name: str) -> Value:
    """Translate a Pad of zeros: the Conv or AveragePool behind it takes it over."""
    value = graph.value(node, padded=True, quantized=True)
    rank = len(value.dims)
    numbers = graph.integers(node, "pads", 1)
    mode = bytes(graph.attribute(node, "mode"))
    axes = [axis_of(a, rank) for a in graph.integers(node, "axes", 3) or range(rank)]
    if numbers is None or len(numbers) != 2 * len(axes):
        raise RefusedError(f"its pads {numbers} do not fit its input of shape {value.dims}")
    if not any(numbers):
        return value
    ends = {a: (numbers[i], numbers[i + len(axes)]) for i, a in enumerate(axes)}
    around = tuple(ends.get(a, (0, 0)) for a in range(rank))
    filled = graph.attribute(node, "value")
    if graph.has(node, 2):
        filled = graph.constant(node, 2).value.item()
    if value.is_quantized and value.grid is not None:
        filled = (filled or 0) - value.grid.zero_point
    if mode != b"constant" or filled or min(map(min, around)) < 0:
        raise RefusedError("pads with something else than zeros; only zeros are supported")
    if rank not in (3, 4) or value.dims[0] != 1 or any(map(any, around[:2])):
        raise RefusedError(f"pads {value.dims} by {numbers}; only axes behind the channels may be")
    before: Padding = value.padding or ((0, 0),) * (rank - 2)
    sums = tuple((a + c, b + d) for (a, b), (c, d) in zip(before, around[2:], strict=True))
    dims = tuple(d + a + b for d, (a, b) in zip(value.dims, around, strict=True))
    return replace(value, dims=dims, padding=sums)


def _image(
    graph: Builder, node: onnx.NodeProto, padded: bool = False, quantized: bool = False
) -> Value:
    value = graph.value(node, padded=padded, quantized=quantized)
    if len(value.dims) not in (3, 4) or value.dims[0] != 1:
        raise RefusedError(
            f"its input has shape {value.dims} (one input at a time); it needs a batch, channels, "
            "and one or two axes"
        )
    return value


def _bare(value: Value) -> Shape:
    """Return the image's size without the zeros that a Pad put around it."""
    return (
        value.shape[1:]
        if not value.padding
        else tuple(d - a - b for d, (a, b) in zip(value.dims[2:], value.padding, strict=True))
    )


def _sizes(graph: Builder, node: onnx.NodeProto, key: str, axes: int) -> Sizes:
    found = graph.attribute(node, key)
    sizes = (1,) * axes if found is None else tuple(int(v) for v in found)
    if len(sizes) != axes or min(sizes) < 1:
        raise RefusedError(f"{key} = {list(sizes)} does not fit {axes} axes; export again")
    return sizes


def _pads(
    graph: Builder, node: onnx.NodeProto, size: Shape, kernel: Shape, stride: Sizes, dilation: Sizes
) -> Padding:
    """Return the padding before and after each axis, as ``pads`` or ``auto_pad`` says."""
    auto = bytes(graph.attribute(node, "auto_pad") or b"NOTSET")
    axes = len(size)
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        found = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            less, more = total // 2, total - total // 2
            found.append((less, more) if auto == b"SAME_UPPER" else (more, less))
        return tuple(found)
    pads = graph.attribute(node, "pads") if auto == b"NOTSET" else None
    numbers = [0] * (2 * axes) if pads is None else [int(p) for p in pads]
    if auto not in (b"NOTSET", b"VALID") or len(numbers) != 2 * axes or min(numbers) < 0:
        raise RefusedError(f"auto_pad = {auto!r}, pads = {numbers} make no padding; export again")
    return tuple(zip(numbers[:axes], numbers[axes:], strict=True))


def _overhang(
    graph: Builder,
    node: onnx.NodeProto,
    size: Shape,
    kernel: Shape,
    stride: Sizes,
    pads: Padding,
    dilation: Sizes,
) -> Sizes:
    """Return how far the last window of each axis reaches beyond the padding in ceil mode.

    A window that would start behind the input is left out.
    """
    auto = bytes(graph.attribute(node, "auto_pad") or b"NOTSET")
    if not graph.attribute(node, "ceil_mode") or auto != b"NOTSET":
        return (0,) * len(size)
    found = []
    for n, k, s, (a, b), d in zip(size, kernel, stride, pads, dilation, strict=True):
        span = d * (k - 1) + 1
        count = math.ceil((n + a + b - span) / s) + 1
        if (count - 1) * s >= n + a:
            count -= 1
        found.append(max((count - 1) * s + span - (n + a + b), 0))
    return tuple(found)


HANDLERS: dict[str, Handler] = {
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "MaxPool": pool,
    "Pad": pad,
    "ReduceMax": reduce,
    "ReduceMean": reduce,
}

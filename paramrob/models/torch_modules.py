"""One known module of torch, read as data, becomes one node of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paramrob.errors import ModelError
from paramrob.models.network import BatchNorm
from paramrob.models.ops import PoolKind
from paramrob.models.torch_builder import Builder, Value
from paramrob.models.torch_known import KNOWN
from paramrob.models.torch_settings import (
    activation_op,
    adaptive_size,
    batch_norm_epsilon,
    conv_op,
    flag,
    per_axis,
    pool_op,
    shown,
    unflattened,
)
from paramrob.models.torch_tensor import StoredTensor

Attributes = Mapping[Any, object]
ReadTensor = Callable[[object, str], StoredTensor]
_ACTIVATIONS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ReLU6": "hardtanh",  # torch's ReLU6 reads its bounds from its attributes, as Hardtanh does
    "Hardtanh": "hardtanh",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "ELU": "elu",
    "SiLU": "silu",
    "GELU": "gelu",
    "Hardswish": "hardswish",
    "Hardsigmoid": "hardsigmoid",
}


def add_module(
    builder: Builder, value: Value, name: str, kind: str, attributes: Attributes, read: ReadTensor
) -> Value:
    """Add what a module computes in evaluation mode, and return its result.

    Args:
        builder: the network so far.
        value: the module's input.
        name: the module's path.
        kind: its class, a key of ``KNOWN`` but no Sequential.
        attributes: its ``__dict__``, checked by ``check_attributes``.
        read: returns a parameter as data.

    Raises:
        ModelError: a setting or a parameter does not fit the module or its input.
    """
    where = f"module {name!r}"
    if kind in _ACTIVATIONS:
        settings = _settings(kind, attributes)
        return builder.activation(value, name, activation_op(where, _ACTIVATIONS[kind], settings))
    if kind == "Linear":
        return _linear(builder, value, name, attributes, read)
    if kind.startswith("Conv"):
        return _conv(builder, value, name, kind, attributes, read)
    if kind.startswith("BatchNorm"):
        return _batch_norm(builder, value, name, kind, attributes, read)
    if "Pool" in kind:
        return _pool(builder, value, name, kind, attributes)
    if kind == "Softmax":
        return builder.softmax(value, name, _softmax_axis(where, attributes.get("dim")))
    if kind in ("Flatten", "Unflatten"):
        return _reshaped(builder, value, name, kind, attributes)
    return value  # an Identity, or a Dropout outside training


def _settings(kind: str, attributes: Attributes) -> dict[str, object]:
    """Return all of a module's settings; one that is missing is ``None``, which no setting is."""
    return {key: attributes.get(key) for key in KNOWN[kind].settings}


def _softmax_axis(where: str, axis: object) -> int | None:
    if axis is not None and type(axis) is not int:
        raise ModelError(f"{where}: dim {shown(axis)} is no axis; use dim=-1")
    return axis


def _tensors(
    name: str, attributes: Attributes, read: ReadTensor, holder: str = "_parameters"
) -> dict[str, StoredTensor]:
    """Return the parameters (or buffers) that are not ``None``."""
    stored = attributes[holder]
    if not isinstance(stored, dict):  # checked before; narrows the type
        raise ModelError(f"module {name!r} lacks its {holder}; save the model again")
    wanted = [key for key in stored if key != "num_batches_tracked"]
    return {key: read(stored[key], f"{name}.{key}") for key in wanted if stored[key] is not None}


def _declared(name: str, said: tuple[object, ...], tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse parameters of other shapes than a module declares; ``said`` is the weight's."""
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or weight.sizes != said or (bias is not None and bias.sizes != said[:1]):
        shapes = [None if t is None else t.sizes for t in (weight, bias)]
        raise ModelError(
            f"module {name!r} declares {shown(said[0])} outputs and {shown(said[1])} inputs, its "
            f"weight has shape {shapes[0]} and its bias {shapes[1]}; save it consistently"
        )


def _add_to_table(
    builder: Builder, name: str, tensors: Mapping[str, StoredTensor], fixed: bool = False
) -> dict[str, str]:
    return {k: builder.table.add(f"{name}.{k}", t, fixed=fixed) for k, t in tensors.items()}


def _linear(
    builder: Builder, value: Value, name: str, attributes: Attributes, read: ReadTensor
) -> Value:
    tensors = _tensors(name, attributes, read)
    _declared(name, (attributes.get("out_features"), attributes.get("in_features")), tensors)
    names = _add_to_table(builder, name, tensors)
    return builder.dense(value, name, tensors["weight"], names["weight"], names.get("bias"))


def _conv(
    builder: Builder, value: Value, name: str, kind: str, attributes: Attributes, read: ReadTensor
) -> Value:
    where, axes = f"module {name!r}", int(kind[4])
    flag(where, "transposed", attributes.get("transposed"), False)
    if attributes.get("padding_mode") != "zeros":
        mode = shown(attributes.get("padding_mode"))
        raise ModelError(f"{where}: padding_mode {mode} is not supported; use 'zeros'")
    kernel = per_axis(where, "kernel_size", attributes.get("kernel_size"), axes)
    per_axis(where, "groups", attributes.get("groups"), 1)
    groups, channels = attributes.get("groups"), attributes.get("in_channels")
    if type(groups) is not int or groups < 1 or type(channels) is not int:
        raise ModelError(f"{where}: in_channels or groups is no number of 1 or more; save it again")
    tensors = _tensors(name, attributes, read)
    inside = channels // groups if channels % groups == 0 else None
    _declared(name, (attributes.get("out_channels"), inside, *kernel), tensors)
    names = _add_to_table(builder, name, tensors)
    settings = _settings(kind, attributes)
    op = conv_op(where, names["weight"], names.get("bias"), kernel, settings)
    return builder.convolution(value, name, op, tensors["weight"].sizes)


def _batch_norm(
    builder: Builder, value: Value, name: str, kind: str, attributes: Attributes, read: ReadTensor
) -> Value:
    where, ranks = f"module {name!r}", (1, 2) if kind == "BatchNorm1d" else (3,)
    if len(value.shape) not in ranks:
        raise ModelError(
            f"{where} ({kind}) does not fit an input of shape {value.shape}; check the input's "
            "shape ([input] shape in the sidecar, or input_shape)"
        )
    statistics = _tensors(name, attributes, read, "_buffers")
    tracked = len(statistics) == 2 and attributes.get("track_running_stats") is True
    epsilon = batch_norm_epsilon(where, attributes.get("eps"), tracked)
    tensors = _tensors(name, attributes, read)
    size, affine = attributes.get("num_features"), attributes.get("affine")
    odd = any(t.sizes != (size,) for t in (*tensors.values(), *statistics.values()))
    if odd or affine is not (len(tensors) == 2) or len(tensors) == 1:
        raise ModelError(
            f"{where} declares {shown(size)} features and affine={shown(affine)}, which its "
            "parameters and buffers are not; save it consistently"
        )
    names = _add_to_table(builder, name, tensors)
    fixed = _add_to_table(builder, name, statistics, fixed=True)
    mean, variance = fixed["running_mean"], fixed["running_var"]
    op = BatchNorm(mean, variance, epsilon, names.get("weight"), names.get("bias"))
    return builder.batch_norm(value, name, op)


def _pool(builder: Builder, value: Value, name: str, kind: str, attributes: Attributes) -> Value:
    where = f"module {name!r}"
    pool: PoolKind = "max" if "Max" in kind else "average"
    if pool == "max":
        flag(where, "return_indices", attributes.get("return_indices"), False)
    channels, *size = builder.spatial(value, name, int(kind[-2])).shape
    if kind.startswith("Adaptive"):
        sizes = adaptive_size(where, attributes.get("output_size"), tuple(size))
        return builder.adaptive_pool(value, name, pool, (channels, *sizes))
    op = pool_op(where, pool, tuple(size), _settings(kind, attributes))
    return builder.pool(value, name, op)


def _reshaped(
    builder: Builder, value: Value, name: str, kind: str, attributes: Attributes
) -> Value:
    if kind == "Flatten":
        start, end = attributes.get("start_dim"), attributes.get("end_dim")
        if type(start) is not int or type(end) is not int:
            raise ModelError(
                f"module {name!r}: start_dim {shown(start)} or end_dim {shown(end)} is no axis; "
                "use the defaults"
            )
        return builder.flatten(value, name, start, end)
    dim, sizes = attributes.get("dim"), attributes.get("unflattened_size")
    if type(dim) is not int or not isinstance(sizes, (list, tuple)):
        raise ModelError(f"module {name!r}: an Unflatten without whole numbers; save it again")
    rank = len(value.shape) + builder.batch_axes
    axis = builder.axis(name, dim, rank) - builder.batch_axes
    if axis < 0:
        raise ModelError(f"module {name!r} splits the batch axis; use dim=1 or later")
    shape = unflattened(f"module {name!r}", value.shape, axis, sizes)
    return builder.reshape(value, name, shape)

"""Networks from a state_dict and the sidecar's list of layers.

One entry is ``KIND`` or ``KIND:ARGUMENT,option=value,...``; options have torch's names and
defaults, and a size per axis is written ``2x3``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from paramrob.errors import InputError, ModelError
from paramrob.models.network import BatchNorm, Network, Shape
from paramrob.models.ops import PoolKind
from paramrob.models.torch_builder import Builder, Value
from paramrob.models.torch_settings import (
    activation_op,
    adaptive_size,
    batch_norm_epsilon,
    conv_op,
    pool_op,
)
from paramrob.models.torch_tensor import StoredTensor

Tensors = Mapping[str, Callable[[], StoredTensor]]


@dataclass(frozen=True)
class _Kind:
    """What may follow a kind: ``argument`` is its name in messages, ``None`` for none."""

    argument: str | None = None
    options: tuple[str, ...] = ()
    required: bool = False

    def text(self, kind: str) -> str:
        """Return how an entry of the kind is written."""
        shown = [self.argument] if self.argument and (self.required or not self.options) else []
        shown += [f"{option}=..." for option in self.options]
        return f"{kind}:{','.join(shown)}" if shown else kind


_CONV = _Kind("NAME", ("stride", "padding", "dilation", "groups"), required=True)
_MAX = _Kind("SIZE", ("stride", "padding", "dilation"), required=True)
_AVERAGE = _Kind("SIZE", ("stride", "padding"), required=True)
_SIZE = _Kind("SIZE", required=True)
_KINDS: Mapping[str, _Kind] = {
    "linear": _Kind("NAME", required=True),
    "conv1d": _CONV,
    "conv2d": _CONV,
    "batchnorm": _Kind("NAME", ("eps",), required=True),
    "maxpool1d": _MAX,
    "maxpool2d": _MAX,
    "avgpool1d": _AVERAGE,
    "avgpool2d": _AVERAGE,
    **dict.fromkeys(("adaptive_avgpool1d", "adaptive_avgpool2d"), _SIZE),
    **dict.fromkeys(("adaptive_maxpool1d", "adaptive_maxpool2d"), _SIZE),
    "relu": _Kind(),
    "leaky_relu": _Kind("SLOPE"),
    "relu6": _Kind(),
    "hardtanh": _Kind(options=("min_val", "max_val")),
    "sigmoid": _Kind(),
    "tanh": _Kind(),
    "softplus": _Kind(options=("beta",)),
    "elu": _Kind(options=("alpha",)),
    "silu": _Kind(),
    "gelu": _Kind(options=("approximate",)),
    "hardswish": _Kind(),
    "hardsigmoid": _Kind(),
    "identity": _Kind(),
    "flatten": _Kind(),
    "dropout": _Kind(),
    "softmax": _Kind(),
}
_TENSORS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d"), ("weight", "bias")),
    "batchnorm": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
}


@dataclass(frozen=True)
class _Entry:
    """One parsed entry."""

    kind: str
    argument: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


def network_from_layers(
    tensors: Tensors, layers: Sequence[str], input_shape: Shape | None
) -> Network:
    """Return the network of a state_dict and the sidecar's list of layers.

    Args:
        tensors: the state_dict, each tensor read when it is needed.
        layers: e.g. ``["conv2d:0,padding=1", "relu", "flatten", "linear:3", "sigmoid"]``.
        input_shape: without batch axis; ``None`` means that of the first linear layer.

    Raises:
        InputError: a layer is unknown.
        ModelError: a tensor is missing, left over, or of the wrong shape.
    """
    entries = [_parse(text) for text in layers]
    named = [entry for entry in entries if entry.kind in _TENSORS]
    for entry in named:
        _take(tensors, entry.argument, "running_mean" if entry.kind == "batchnorm" else "weight")
    used = {_key(entry.argument, part) for entry in named for part in _TENSORS[entry.kind]}
    if left := sorted(set(tensors) - used):
        raise ModelError(
            f"the state_dict holds tensors that no layer of the sidecar uses: {left}; a layer is "
            "missing in [model] layers, or paramrob does not support it"
        )
    builder = Builder(_first_shape(tensors, entries) if input_shape is None else input_shape)
    value = builder.input
    for index, entry in enumerate(entries):
        value = _add(builder, value, tensors, entry, f"{entry.kind}@{index}")
    return builder.build(value)


def _first_shape(tensors: Tensors, entries: Sequence[_Entry]) -> Shape:
    for entry in entries:
        if entry.kind == "linear":
            weight = _take(tensors, entry.argument, "weight")
            if len(weight.sizes) == 2:
                return weight.sizes[1:]
        if "1d" in entry.kind or "2d" in entry.kind:
            break
    raise ModelError(
        "no linear layer tells the input's size; give [input] shape = [...] in the sidecar "
        "(channels first, without the batch axis)"
    )


def _add(builder: Builder, value: Value, tensors: Tensors, entry: _Entry, plain_name: str) -> Value:
    kind = entry.kind
    if kind in _TENSORS:
        return _add_named(builder, value, tensors, entry)
    if "pool" in kind:
        return _add_pool(builder, value, entry, plain_name)
    if kind == "softmax":
        return builder.softmax(value, plain_name, -1)
    if kind == "flatten":
        return builder.flatten(value, plain_name, 1, -1)
    if kind in ("identity", "dropout"):
        return value
    settings = dict(entry.options)
    if entry.argument:
        settings["negative_slope"] = float(entry.argument)
    return builder.activation(value, plain_name, activation_op(plain_name, kind, settings))


def _add_named(builder: Builder, value: Value, tensors: Tensors, entry: _Entry) -> Value:
    kind, prefix = entry.kind, entry.argument
    name = prefix or kind
    parts = _TENSORS[kind][:-1] if kind == "batchnorm" else _TENSORS[kind]
    found = {part: tensors[_key(prefix, part)]() for part in parts if _key(prefix, part) in tensors}
    if kind == "batchnorm":
        return _add_batch_norm(builder, value, name, entry, found)
    weight, bias = found["weight"], found.get("bias")
    if bias is not None and bias.sizes != weight.sizes[:1]:
        raise ModelError(
            f"layer {name!r}: weight of shape {weight.sizes}, bias of shape {bias.sizes}; save the "
            "state_dict again"
        )
    names = {part: builder.table.add(f"{name}.{part}", tensor) for part, tensor in found.items()}
    if kind == "linear":
        return builder.dense(value, name, weight, names["weight"], names.get("bias"))
    if len(weight.sizes) != int(kind[4]) + 2:
        raise ModelError(f"layer {name!r}: no {kind} has a weight of shape {weight.sizes}")
    kernel = weight.sizes[2:]
    op = conv_op(f"layer {name!r}", names["weight"], names.get("bias"), kernel, entry.options)
    return builder.convolution(value, name, op, weight.sizes)


def _add_batch_norm(
    builder: Builder, value: Value, name: str, entry: _Entry, found: Mapping[str, StoredTensor]
) -> Value:
    has_statistics = {"running_mean", "running_var"} <= set(found)
    epsilon = entry.options.get("eps", 1e-5)
    epsilon = batch_norm_epsilon(f"layer {name!r}", epsilon, has_statistics)
    names = {
        part: builder.table.add(f"{name}.{part}", tensor, fixed=part.startswith("running"))
        for part, tensor in found.items()
    }
    mean, variance = names["running_mean"], names["running_var"]
    op = BatchNorm(mean, variance, epsilon, names.get("weight"), names.get("bias"))
    return builder.batch_norm(value, name, op)


def _add_pool(builder: Builder, value: Value, entry: _Entry, name: str) -> Value:
    kind: PoolKind = "max" if "max" in entry.kind else "average"
    channels, *size = builder.spatial(value, name, int(entry.kind[-2])).shape
    given = _sizes(entry.argument)
    if entry.kind.startswith("adaptive"):
        sizes = adaptive_size(f"layer {name!r}", given, tuple(size))
        return builder.adaptive_pool(value, name, kind, (channels, *sizes))
    settings = {**entry.options, "kernel_size": given}
    return builder.pool(value, name, pool_op(f"layer {name!r}", kind, tuple(size), settings))


def _parse(text: str) -> _Entry:
    kind, colon, rest = text.partition(":")
    known = _KINDS.get(kind)
    if known is None:
        near = difflib.get_close_matches(kind, _KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise InputError(
            f"[model] layers: no layer {text!r}{hint} Write one of "
            f"{', '.join(each.text(name) for name, each in _KINDS.items())}"
        )
    if colon and known.argument is None and not known.options:
        raise InputError(f"[model] layers: {kind!r} takes nothing after a colon; write {kind!r}")
    if known.required and not colon:
        raise InputError(f"[model] layers: write {known.text(kind)}{_about(known)}")
    items = rest.split(",") if colon else []
    argument = items.pop(0) if items and "=" not in items[0] else ""
    if argument and known.argument is None:
        raise InputError(f"[model] layers: {text!r}: write {known.text(kind)}")
    if known.argument in ("SLOPE", "SIZE"):
        _check_argument(text, known, argument)
    return _Entry(kind, argument, dict(_option(text, known, item) for item in items))


def _about(known: _Kind) -> str:
    if known.argument != "NAME":
        return ", e.g. with 2 or 2x3 for SIZE"
    return (
        ", where NAME.weight stands in the state_dict (nothing for NAME where it is just 'weight')"
    )


def _check_argument(text: str, known: _Kind, argument: str) -> None:
    try:
        if known.argument == "SIZE":
            _sizes(argument)
        elif argument:
            float(argument)
    except ValueError:
        what = "the slope is no number; write e.g. leaky_relu:0.2"
        if known.argument == "SIZE":
            kind = text.partition(":")[0]
            what = f"its size is no whole number; write e.g. {kind}:2 or {kind}:2x3"
        raise InputError(f"[model] layers: {text!r}: {what}") from None


def _option(text: str, known: _Kind, item: str) -> tuple[str, object]:
    name, equals, spelled = item.partition("=")
    if name not in known.options or not equals:
        allowed = ", ".join(f"{option}=..." for option in known.options) or "none"
        raise InputError(f"[model] layers: {text!r}: no option {item!r}; there are {allowed}")
    if name == "approximate" or (name == "padding" and spelled in ("same", "valid")):
        return name, spelled
    try:
        is_real = name in ("eps", "min_val", "max_val", "beta", "alpha")
        return name, float(spelled) if is_real else _sizes(spelled)
    except ValueError:
        raise InputError(
            f"[model] layers: {text!r}: {item!r} is no number; write e.g. {name}=1"
        ) from None


def _sizes(spelled: str) -> list[int]:
    return [int(part) for part in spelled.split("x")]


def _key(prefix: str, part: str) -> str:
    return f"{prefix}.{part}" if prefix else part


def _take(tensors: Tensors, prefix: str, part: str) -> StoredTensor:
    key = _key(prefix, part)
    if key not in tensors:
        near = difflib.get_close_matches(key, list(tensors), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ModelError(
            f"the state_dict has no {key!r}{hint} It holds {', '.join(map(repr, tensors))}"
        )
    return tensors[key]()


def suggest_layers(tensors: Tensors) -> str:
    """Return a first try at ``[model] layers`` for a state_dict; all but names is a guess."""
    prefixes = [k.removesuffix("weight").rstrip(".") for k in tensors if k.endswith("weight")]
    kinds = {2: "linear", 3: "conv1d", 4: "conv2d"}
    lines: list[str] = []
    for prefix in prefixes:
        if _key(prefix, "running_mean") in tensors:
            lines.insert(len(lines) - 1 if lines else 0, f'"batchnorm:{prefix}"')
            continue
        rank = len(tensors[_key(prefix, "weight")]().sizes)
        if rank == 2 and any("conv" in line for line in lines) and '"flatten"' not in lines:
            lines.append('"flatten"')
        lines += [f'"{kinds.get(rank, "linear")}:{prefix}"', '"relu"']
    if lines and lines[-1] == '"relu"':
        lines.pop()
    return f"[{', '.join(lines)}]"

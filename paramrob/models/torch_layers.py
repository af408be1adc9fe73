"""Networks from layer descriptions: torch modules as data, or a list of layers and a state_dict."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from paramrob.errors import InputError, ModelError
from paramrob.models.network import ActivationKind, Network, Shape
from paramrob.models.torch_chain import Chain
from paramrob.models.torch_tensor import StoredTensor

MAX_LAYERS = 10_000
MAX_DEPTH = 50

_HOOKS = frozenset(
    {
        "_backward_pre_hooks",
        "_backward_hooks",
        "_forward_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
    }
)
_CONTENTS = ("_parameters", "_buffers", "_modules")
# The hyper-parameters of each layer, which are read, checked, and nothing else allowed.
_OWN: Mapping[str, frozenset[str]] = {
    "Sequential": frozenset(),
    "Linear": frozenset({"in_features", "out_features"}),
    "Identity": frozenset(),
    "ReLU": frozenset({"inplace"}),
    "LeakyReLU": frozenset({"inplace", "negative_slope"}),
    "Sigmoid": frozenset(),
    "Tanh": frozenset(),
    "Softmax": frozenset({"dim"}),
    "Flatten": frozenset({"start_dim", "end_dim"}),
    "Dropout": frozenset({"p", "inplace"}),
}
_ACTIVATIONS: Mapping[str, ActivationKind] = {"ReLU": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}
_SPECIFICATIONS = (
    "linear:NAME",
    "relu",
    "leaky_relu:SLOPE",
    "sigmoid",
    "tanh",
    "identity",
    "flatten",
    "dropout",
    "softmax",
)


class Source(Protocol):
    """Where modules come from: a file read as data, or live objects."""

    def describe(self, module: object) -> tuple[str, Mapping[Any, object]] | None:
        """Return a module's type (a key of ``_OWN``) and attributes, else ``None``."""
        ...

    def tensor(self, value: object, name: str) -> StoredTensor:
        """Return a parameter as data."""
        ...


@dataclass(frozen=True)
class _Layer:
    """One leaf of a nest of Sequentials."""

    path: str
    kind: str
    attributes: Mapping[Any, object]


def network_from_module(source: Source, module: object, input_shape: Shape | None) -> Network:
    """Return the network of nested Sequentials of known layers.

    Args:
        source: what tells types, attributes and tensors.
        module: the outermost module.
        input_shape: without batch axis; ``None`` means that of the first Linear.

    Raises:
        ModelError: a module is of another type, or carries anything that may change what it
            computes (hooks, attributes that shadow those of its class, parametrizations).
    """
    layers = list(_leaves(source, module, "", 0, count()))
    linear = next((layer for layer in layers if layer.kind == "Linear"), None)
    if input_shape is None:
        size = linear.attributes.get("in_features") if linear else None
        if type(size) is not int:
            raise ModelError(
                "the model has no Linear layer that tells its input's size; give it in the sidecar "
                "([input] shape = [...]) or as input_shape"
            )
        input_shape = (size,)
    chain = Chain(input_shape)
    for layer in layers:
        _add_layer(chain, source, layer)
    return chain.build()


def _leaves(
    source: Source, module: object, path: str, depth: int, visits: Iterator[int]
) -> Iterator[_Layer]:
    # A file can name one module at many places: a few bytes may stand for a huge tree.
    if next(visits) >= MAX_LAYERS or depth > MAX_DEPTH:
        raise ModelError(
            f"the model has more than {MAX_LAYERS} modules or nests them more than {MAX_DEPTH} "
            "deep; export it to ONNX"
        )
    described = source.describe(module)
    where = f"module {path!r}" if path else "the model"
    if described is None:
        raise ModelError(
            f"{where} is none of the layers {', '.join(_OWN)}; give the module itself to "
            "paramrob.load in Python, or export it to ONNX"
        )
    kind, attributes = described
    check_attributes(where, kind, attributes)
    if kind != "Sequential":
        yield _Layer(path, kind, attributes)
        return
    children = attributes["_modules"]
    for name, child in children.items() if isinstance(children, dict) else ():
        if not isinstance(name, str) or not name or "." in name:
            raise ModelError(f"{where} has a child with the impossible name {name!r}; rename it")
        below = f"{path}.{name}" if path else name
        yield from _leaves(source, child, below, depth + 1, visits)


def check_attributes(where: str, kind: str, attributes: Mapping[Any, object]) -> None:
    """Refuse a module that carries more than its class gives it.

    Args:
        where: how an error calls the module.
        kind: its class, a key of ``_OWN``.
        attributes: its ``__dict__``.

    Raises:
        ModelError: hooks, attributes, parameters, buffers or modules that the class lacks.
    """
    known = _HOOKS | _OWN[kind] | set(_CONTENTS)
    known |= {"training", "_non_persistent_buffers_set", "_is_full_backward_hook"}
    for name, value in attributes.items():
        if name not in known:
            raise ModelError(
                f"{where} ({kind}) carries an attribute {name!r} that its class does not have and "
                "that may change what it computes; remove it before saving, or give the module "
                "itself to paramrob.load in Python"
            )
        if name in _HOOKS and (not isinstance(value, dict) or value):
            raise ModelError(
                f"{where} ({kind}) carries hooks ({name}), which may change what it computes; "
                "remove them before saving (torch.nn.utils.remove_... for weight norm, pruning "
                "and the like)"
            )
    for name in _CONTENTS:
        if not isinstance(attributes.get(name), dict):
            raise ModelError(f"{where} ({kind}) lacks its {name}; save the model again")
    expected = {"weight", "bias"} if kind == "Linear" else set()
    modules = attributes["_modules"] if kind != "Sequential" else {}
    odd = {*_keys(attributes["_parameters"])} ^ expected
    odd |= {*_keys(attributes["_buffers"])} | {*_keys(modules)}
    odd |= {*_keys(attributes.get("_non_persistent_buffers_set"))}
    if odd:
        raise ModelError(
            f"{where} ({kind}) holds unexpected (or lacks) parameters, buffers or modules "
            f"{sorted(map(str, odd))}; was it pruned or parametrized? Make that permanent first"
        )


def _shown(value: object) -> str:
    # Anything else may be nested so deeply, or shared so often, that its text has no end.
    plain = value is None or isinstance(value, (bool, int, float, str))
    return repr(value)[:80] if plain else f"of type {type(value).__name__}"


def _keys(value: object) -> Sequence[object]:
    return list(value) if isinstance(value, (dict, set)) else []


def _add_layer(chain: Chain, source: Source, layer: _Layer) -> None:
    name, kind = layer.path or layer.kind.lower(), layer.kind
    if kind == "Linear":
        _add_linear(chain, source, layer, name)
    elif kind in _ACTIVATIONS:
        chain.activation(name, _ACTIVATIONS[kind])
    elif kind == "LeakyReLU":
        slope = layer.attributes.get("negative_slope")
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ModelError(f"module {name!r}: negative_slope {_shown(slope)} is no number")
        # Bounded first: an integer from a file may be beyond any float.
        chain.activation(name, "leaky_relu", float(max(-1, min(slope, 2))))
    elif kind == "Softmax":
        axis = layer.attributes.get("dim")
        if axis is not None and type(axis) is not int:
            raise ModelError(f"module {name!r}: dim {_shown(axis)} is no axis; use dim=-1")
        chain.softmax(name, axis)
    elif kind == "Flatten":
        start, end = layer.attributes.get("start_dim"), layer.attributes.get("end_dim")
        if type(start) is not int or type(end) is not int:
            raise ModelError(
                f"module {name!r}: start_dim {_shown(start)} or end_dim {_shown(end)} is no axis; "
                "use the defaults"
            )
        chain.flatten(name, start, end)
    # Identity and, outside training, Dropout compute nothing.


def _add_linear(chain: Chain, source: Source, layer: _Layer, name: str) -> None:
    parameters = layer.attributes["_parameters"]
    if not isinstance(parameters, dict):  # checked before; narrows the type
        raise ModelError(f"module {name!r} lacks its parameters; save the model again")
    weight = source.tensor(parameters["weight"], f"{name}.weight")
    bias = parameters["bias"]
    stored = None if bias is None else source.tensor(bias, f"{name}.bias")
    said = (layer.attributes.get("out_features"), layer.attributes.get("in_features"))
    if weight.sizes != said or (stored is not None and stored.sizes != said[:1]):
        raise ModelError(
            f"module {name!r} declares {_shown(said[0])} outputs and {_shown(said[1])} inputs, its "
            f"weight has shape {weight.sizes} and its bias {stored.sizes if stored else None}; "
            "save it consistently"
        )
    chain.dense(name, weight, stored, name)


def network_from_layers(
    tensors: Mapping[str, Callable[[], StoredTensor]],
    layers: Sequence[str],
    input_shape: Shape | None,
) -> Network:
    """Return the network of a state_dict and the sidecar's list of layers.

    Args:
        tensors: the state_dict, each tensor read when it is needed.
        layers: e.g. ``["linear:0", "relu", "linear:2", "sigmoid"]``.
        input_shape: without batch axis; ``None`` means that of the first linear layer.

    Raises:
        InputError: a layer is unknown.
        ModelError: a tensor is missing, left over, or of the wrong shape.
    """
    parsed = [_parse_layer(text) for text in layers]
    prefixes = [argument for kind, argument in parsed if kind == "linear"]
    weights = [_take(tensors, prefix, "weight") for prefix in prefixes]
    if input_shape is None:
        if not weights or len(weights[0].sizes) != 2:
            raise ModelError(
                "no linear layer tells the input's size; give [input] shape = [...] in the sidecar"
            )
        input_shape = weights[0].sizes[1:]
    used = {_key(prefix, part) for prefix in prefixes for part in ("weight", "bias")}
    if left := sorted(set(tensors) - used):
        raise ModelError(
            f"the state_dict holds tensors that no layer of the sidecar uses: {left}; a layer is "
            "missing in [model] layers, or paramrob does not support it"
        )
    chain = Chain(input_shape)
    remaining = iter(weights)
    for index, (kind, argument) in enumerate(parsed):
        if kind == "linear":
            name = argument or "linear"
            bias = _take(tensors, argument, "bias") if _key(argument, "bias") in tensors else None
            weight = next(remaining)
            if bias is not None and bias.sizes != weight.sizes[:1]:
                raise ModelError(
                    f"layer {name!r}: weight of shape {weight.sizes}, bias of shape {bias.sizes}; "
                    "save the state_dict again"
                )
            chain.dense(name, weight, bias, name)
        else:
            _add_plain(chain, f"{kind}@{index}", kind, argument)
    return chain.build()


def _add_plain(chain: Chain, name: str, kind: str, argument: str) -> None:
    if kind == "relu":
        chain.activation(name, "relu")
    elif kind == "leaky_relu":
        chain.activation(name, "leaky_relu", float(argument or 0.01))
    elif kind == "sigmoid":
        chain.activation(name, "sigmoid")
    elif kind == "tanh":
        chain.activation(name, "tanh")
    elif kind == "softmax":
        chain.softmax(name, -1)
    elif kind == "flatten":
        chain.flatten(name, 1, -1)


def _parse_layer(text: str) -> tuple[str, str]:
    kind, colon, argument = text.partition(":")
    known = {spec.partition(":")[0]: ":" in spec for spec in _SPECIFICATIONS}
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise InputError(
            f"[model] layers: no layer {text!r}{hint} Write one of {', '.join(_SPECIFICATIONS)}"
        )
    if bool(colon) and not known[kind]:
        raise InputError(f"[model] layers: {kind!r} takes nothing after a colon; write {kind!r}")
    if kind == "linear" and not colon:
        raise InputError(
            "[model] layers: write linear:NAME, where NAME.weight stands in the state_dict "
            "('linear:' where it is just 'weight')"
        )
    if kind == "leaky_relu" and colon:
        try:
            float(argument)
        except ValueError:
            raise InputError(
                f"[model] layers: {text!r}: the slope is no number; write e.g. leaky_relu:0.2"
            ) from None
    return kind, argument


def _key(prefix: str, part: str) -> str:
    return f"{prefix}.{part}" if prefix else part


def _take(
    tensors: Mapping[str, Callable[[], StoredTensor]], prefix: str, part: str
) -> StoredTensor:
    key = _key(prefix, part)
    if key not in tensors:
        near = difflib.get_close_matches(key, list(tensors), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ModelError(
            f"the state_dict has no {key!r}{hint} It holds {', '.join(map(repr, tensors))}"
        )
    return tensors[key]()

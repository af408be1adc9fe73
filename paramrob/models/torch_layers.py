"""Networks from nested Sequentials of known modules, each read as data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from paramrob.errors import ModelError
from paramrob.models.network import Network, Shape
from paramrob.models.torch_builder import Builder
from paramrob.models.torch_known import KNOWN
from paramrob.models.torch_modules import add_module
from paramrob.models.torch_settings import unflattened
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
# Layers that need axes behind the channels, whose sizes no module says.
_SPATIAL = ("Conv", "AvgPool", "MaxPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "BatchNorm2d")
HOW_TO_SHAPE = (
    "say the shape of one input without the batch axis, channels first: [input] shape = [...] in "
    "a sidecar .toml, or input_shape=(...) in paramrob.load"
)


class Source(Protocol):
    """Where modules come from: a file read as data, or live objects."""

    def describe(self, module: object) -> tuple[str, Mapping[Any, object]] | None:
        """Return a module's type (a key of ``KNOWN``) and attributes, else ``None``."""
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
    """Return the network of nested Sequentials of known layers, in evaluation mode.

    Args:
        source: what tells types, attributes and tensors.
        module: the outermost module.
        input_shape: without batch axis; ``None`` means that of the first Linear.

    Raises:
        ModelError: a module is of another type, carries anything that may change what it
            computes (hooks, attributes that shadow those of its class, parametrizations), or
            the input's shape is not known.
    """
    layers = list(_leaves(source, module, "", 0, count()))
    builder = Builder(_first_shape(layers) if input_shape is None else input_shape)
    value = builder.input
    for layer in layers:
        name = layer.path or layer.kind.lower()
        value = add_module(builder, value, name, layer.kind, layer.attributes, source.tensor)
    return builder.build(value)


def _first_shape(layers: Sequence[_Layer]) -> Shape:
    for layer in layers:
        size: object = None
        if layer.kind == "Linear":
            size = layer.attributes.get("in_features")
        elif layer.kind == "Unflatten" and layer.attributes.get("dim") == 1:
            sizes = layer.attributes.get("unflattened_size")
            if isinstance(sizes, (list, tuple)) and all(type(n) is int and n > 0 for n in sizes):
                size = math.prod(unflattened(layer.path, (math.prod(sizes),), 0, sizes))
        elif not layer.kind.startswith(_SPATIAL):
            continue
        if type(size) is int:
            return (size,)
        break
    raise ModelError(
        f"the model does not start with a Linear layer that tells its input's size; {HOW_TO_SHAPE}"
    )


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
            f"{where} is none of the layers {', '.join(KNOWN)}; give the module itself to "
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
        kind: its class, a key of ``KNOWN``.
        attributes: its ``__dict__``.

    Raises:
        ModelError: hooks, attributes, parameters, buffers or modules that the class lacks.
    """
    known = _HOOKS | KNOWN[kind].settings | set(_CONTENTS)
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
    modules = attributes["_modules"] if kind != "Sequential" else {}
    odd = {*_keys(attributes["_parameters"])} ^ KNOWN[kind].parameters
    odd |= {*_keys(attributes["_buffers"])} ^ KNOWN[kind].buffers
    odd |= {*_keys(modules)} | {*_keys(attributes.get("_non_persistent_buffers_set"))}
    if odd:
        raise ModelError(
            f"{where} ({kind}) holds unexpected (or lacks) parameters, buffers or modules "
            f"{sorted(map(str, odd))}; was it pruned or parametrized? Make that permanent first"
        )


def _keys(value: object) -> Sequence[object]:
    return list(value) if isinstance(value, (dict, set)) else []

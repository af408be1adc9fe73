"""TorchScript archives of a trusted origin: loaded by torch, frozen, and read as a graph."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Network, Shape
from paramrob.models.torch_graph import (
    BATCH,
    UNUSED,
    Call,
    Constant,
    Data,
    Dtype,
    GraphReader,
    Several,
)
from paramrob.models.torch_layers import HOW_TO_SHAPE
from paramrob.models.torch_module import stored
from paramrob.models.torch_operators import OPERATORS, apply

# c10::ScalarType
_DTYPES = {5: "float16", 6: "float32", 7: "float64", 15: "bfloat16"}

# Freezing folds what does not depend on the input. None of these turns a parameter into a number
# or a decision, so a folded number is a literal of the program and hides no parameter.
_FOLDABLE = frozenset(
    {
        *(f"aten::{name}" for name in OPERATORS),
        *(f"aten::{name}" for name in ("__getitem__", "__is__", "__isnot__", "__not__", "__or__")),
        *(f"aten::{name}" for name in ("dim", "eq", "format", "gt", "len", "lt", "ne", "warn")),
        *(f"aten::{name}" for name in ("__contains__",)),
        *(f"prim::{name}" for name in ("Constant", "GetAttr", "If", "ListConstruct", "Loop")),
        *(f"prim::{name}" for name in ("RaiseException", "TupleConstruct", "TupleIndex")),
        *(f"prim::{name}" for name in ("Uninitialized", "unchecked_cast")),
    }
)


def read_torchscript(data: bytes, input_shape: Shape | None) -> Network:
    """Return the network of a TorchScript archive; loading it can run code from the file.

    Args:
        data: the whole file.
        input_shape: without batch axis; ``None`` means that of the first linear layer.

    Raises:
        UnsupportedOperatorError: an operation has no exact meaning here.
        ModelError: the archive is damaged, or two parameters cannot be told apart.
    """
    try:
        module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ModelError(
            f"torch cannot load the TorchScript file ({str(error).splitlines()[0]}); export the "
            "model to ONNX"
        ) from error
    return network_from_script(module.eval(), input_shape)


def network_from_script(module: Any, input_shape: Shape | None) -> Network:
    """Return the network of a loaded ScriptModule in evaluation mode.

    Raises:
        UnsupportedOperatorError: an operation has no exact meaning here.
        ModelError: two parameters cannot be told apart, or the input's size is not known.
    """
    _check_operators(module.inlined_graph)
    try:
        frozen = torch.jit.freeze(module, optimize_numerics=False)
    except RuntimeError as error:
        raise ModelError(
            f"torch cannot freeze the TorchScript module ({str(error).splitlines()[0]}); call "
            "eval() on it, or export the model to ONNX"
        ) from error
    names, merged = _parameters(module)
    values: dict[str, object] = {}
    for node in frozen.graph.nodes():
        if node.kind() == "prim::Constant":
            constant = node.output().toIValue()
            values[node.output().debugName()] = _constant(constant, names, merged)
    reader = GraphReader([BATCH, *(input_shape or _first_shape(frozen.graph, values))])
    *_, start = frozen.graph.inputs()
    values[start.debugName()] = reader.input
    _read_block(reader, frozen.graph, values)
    outputs = [values.get(value.debugName()) for value in frozen.graph.outputs()]
    return reader.finish(outputs[0] if len(outputs) == 1 else None)


def _read_block(reader: GraphReader, block: Any, values: dict[str, object]) -> None:
    """Read the nodes of a graph or of a branch in order; ``values`` holds what each gives."""
    for node in block.nodes():
        kind = node.kind()
        given = [values.get(value.debugName(), UNUSED) for value in node.inputs()]
        if kind == "prim::Constant":
            results: list[object] = [values.get(node.output().debugName(), _literal(node))]
        elif kind == "prim::If":
            results = _branch(reader, node, given[0], values)
        elif kind == "prim::RaiseException":
            raise ModelError(
                "the model raises an error for inputs of its shape; check [input] shape in the "
                "sidecar, or input_shape"
            )
        elif kind in ("prim::ListConstruct", "prim::TupleConstruct"):
            results = [given]
        elif kind in _RANKS:
            results = [_RANKS[kind](reader, given)]
        else:
            result = apply(reader, _call(node, given))
            results = [result.first if isinstance(result, Several) else result]
        names = [value.debugName() for value in node.outputs()]
        values.update(dict.fromkeys(names, UNUSED) | dict(zip(names, results, strict=False)))


def _literal(node: Any) -> object:
    """Return a number or a text of a branch; a tensor there is no parameter of the model."""
    value = node.output().toIValue()
    return UNUSED if isinstance(value, torch.Tensor) else value


def _branch(
    reader: GraphReader, node: Any, condition: object, values: dict[str, object]
) -> list[object]:
    """Read the branch that is taken; conditions on ranks and literals are known."""
    if not isinstance(condition, bool):
        raise UnsupportedOperatorError(
            f"node {node.scopeName() or 'prim::If'!r} decides on values; keep forward free of it"
        )
    taken = list(node.blocks())[0 if condition else 1]
    _read_block(reader, taken, values)
    return [values.get(value.debugName(), UNUSED) for value in taken.outputs()]


def _rank(reader: GraphReader, given: Sequence[object]) -> object:
    (value,) = given
    return len(value.shape) + reader.offset if isinstance(value, Data) else UNUSED


def _compared(compare: Callable[[int, int], bool]) -> Callable[..., object]:
    def result(_reader: GraphReader, given: Sequence[object]) -> object:
        left, right = given
        if type(left) is not int or type(right) is not int:
            return UNUSED
        return compare(left, right)

    return result


def _contains(_reader: GraphReader, given: Sequence[object]) -> object:
    inside, wanted = given
    known = isinstance(inside, list) and all(type(n) is int for n in inside)
    return wanted in inside if known and type(wanted) is int else UNUSED  # type: ignore[operator]


def _item(_reader: GraphReader, given: Sequence[object]) -> object:
    values, index = given
    inside = isinstance(values, list) and type(index) is int and -len(values) <= index < len(values)
    return values[index] if inside else UNUSED  # type: ignore[index]


def _length(_reader: GraphReader, given: Sequence[object]) -> object:
    return len(given[0]) if isinstance(given[0], list) else UNUSED


def _negated(_reader: GraphReader, given: Sequence[object]) -> object:
    return not given[0] if isinstance(given[0], bool) else UNUSED


# Scripted modules check the rank of their input; what they ask is known beforehand.
_RANKS: Mapping[str, Callable[[GraphReader, Sequence[object]], object]] = {
    "aten::dim": _rank,
    "aten::len": _length,
    "aten::eq": _compared(operator.eq),
    "aten::ne": _compared(operator.ne),
    "aten::gt": _compared(operator.gt),
    "aten::lt": _compared(operator.lt),
    "aten::__contains__": _contains,
    "aten::__getitem__": _item,
    "aten::__not__": _negated,
    "aten::format": lambda _reader, _given: UNUSED,
    "aten::warn": lambda _reader, _given: UNUSED,
}


def _check_operators(block: Any) -> None:
    for node in block.nodes():
        if node.kind() not in _FOLDABLE:
            raise UnsupportedOperatorError(
                f"node {node.scopeName() or node.kind()!r}: operator {node.kind()!r} is not "
                "supported; export the model to ONNX"
            )
        for inner in node.blocks():
            _check_operators(inner)


def _parameters(module: Any) -> tuple[Mapping[int, str], set[int]]:
    """Return names by address, and the addresses whose numbers equal those of another."""
    names: dict[int, str] = {}
    by_value: dict[object, int] = {}
    merged: set[int] = set()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        address = tensor.data_ptr()
        names.setdefault(address, name if "." in name else f"linear.{name}")
        content = (tensor.dtype, tuple(tensor.shape), tensor.detach().numpy().tobytes())
        other = by_value.setdefault(content, address)
        if other != address:
            merged |= {other, address}
    return names, merged


def _constant(value: object, names: Mapping[int, str], merged: set[int]) -> object:
    if not isinstance(value, torch.Tensor) or value.data_ptr() not in names:
        return value
    name = names[value.data_ptr()]
    if value.data_ptr() in merged:
        raise ModelError(
            f"parameter {name!r} has the same numbers as another, and TorchScript merges the two; "
            "export the model to ONNX"
        )
    return Constant(stored(value, name), name)


def _first_shape(graph: Any, values: Mapping[str, object]) -> Shape:
    for node in graph.nodes():
        if "conv" in node.kind():
            break
        if node.kind() == "aten::linear":
            weight = values.get(list(node.inputs())[1].debugName())
            if isinstance(weight, Constant) and len(weight.tensor.sizes) == 2:
                return weight.tensor.sizes[1:]
    raise ModelError(
        f"the TorchScript model has no linear layer that tells its input's size; {HOW_TO_SHAPE}"
    )


def _call(node: Any, given: list[object]) -> Call:
    name, kind = str(node.scopeName() or node.kind()), str(node.kind())
    if not kind.startswith("aten::"):
        raise UnsupportedOperatorError(
            f"node {name!r}: operator {kind!r} is not supported; export the model to ONNX"
        )
    parameters = torch._C.parse_schema(node.schema()).arguments
    arguments = dict(zip((p.name for p in parameters), given, strict=True))
    if isinstance(code := arguments.get("dtype"), int):
        arguments["dtype"] = Dtype(_DTYPES.get(code, f"number {code}"))
    name = kind.removeprefix("aten::")
    return Call(name, name, arguments)

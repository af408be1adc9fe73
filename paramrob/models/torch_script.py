"""TorchScript archives of a trusted origin: loaded by torch, frozen, and read as a graph."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import torch

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Network, Shape
from paramrob.models.torch_graph import BATCH, OPERATORS, Call, Constant, Dtype, GraphReader
from paramrob.models.torch_module import stored

_UNKNOWN: Final = object()  # not None, which is a value: no bias
# c10::ScalarType
_DTYPES = {5: "float16", 6: "float32", 7: "float64", 15: "bfloat16"}

# Freezing folds what does not depend on the input. None of these turns a parameter into a number
# or a decision, so a folded number is a literal of the program and hides no parameter.
_FOLDABLE = frozenset(
    {
        *(f"aten::{name}" for name in OPERATORS),
        *(f"aten::{name}" for name in ("__getitem__", "__is__", "__isnot__", "__not__", "__or__")),
        *(f"aten::{name}" for name in ("dim", "eq", "format", "gt", "len", "lt", "ne", "warn")),
        *(f"prim::{name}" for name in ("Constant", "GetAttr", "If", "ListConstruct")),
        *(f"prim::{name}" for name in ("RaiseException", "Uninitialized", "unchecked_cast")),
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
    for node in frozen.graph.nodes():
        if node.kind() == "prim::Constant":
            continue
        given = [values.get(value.debugName(), _UNKNOWN) for value in node.inputs()]
        result = given if node.kind() == "prim::ListConstruct" else reader.apply(_call(node, given))
        values[node.output().debugName()] = result
    outputs = [values.get(value.debugName()) for value in frozen.graph.outputs()]
    return reader.finish(outputs[0] if len(outputs) == 1 else None)


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
        if node.kind() == "aten::linear":
            weight = values.get(list(node.inputs())[1].debugName())
            if isinstance(weight, Constant) and len(weight.tensor.sizes) == 2:
                return weight.tensor.sizes[1:]
    raise ModelError(
        "the TorchScript model has no linear layer that tells its input's size; give the sidecar's "
        "[input] shape"
    )


def _call(node: Any, given: list[object]) -> Call:
    name, kind = str(node.scopeName() or node.kind()), str(node.kind())
    if not kind.startswith("aten::") or node.outputsSize() != 1:
        raise UnsupportedOperatorError(
            f"node {name!r}: operator {kind!r} is not supported; export the model to ONNX"
        )
    parameters = torch._C.parse_schema(node.schema()).arguments
    arguments = dict(zip((p.name for p in parameters), given, strict=True))
    if isinstance(code := arguments.get("dtype"), int):
        arguments["dtype"] = Dtype(_DTYPES.get(code, f"number {code}"))
    operator = kind.removeprefix("aten::")
    return Call(operator, operator, arguments)

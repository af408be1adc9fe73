"""Live ``torch.nn.Module`` objects: read structurally, else traced by torch.export.

The object comes from the caller's own program, so running its ``forward`` is no risk here.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Network, Shape
from paramrob.models.torch_graph import UNUSED, Call, Constant, Dtype, GraphReader, Several
from paramrob.models.torch_known import KNOWN, layer_label
from paramrob.models.torch_layers import HOW_TO_SHAPE, check_attributes, network_from_module
from paramrob.models.torch_operators import apply
from paramrob.models.torch_tensor import StoredTensor, decode

_TYPES: Mapping[type[nn.Module], str] = {getattr(nn, kind): kind for kind in KNOWN}
# Any size that no model singles out, so that a reshape which keeps it keeps the batch.
_BATCH = 7


def from_torch(module: nn.Module, input_shape: tuple[int, ...] | None = None) -> Network:
    """Return the network that a module computes in evaluation mode.

    Nested Sequentials of known layers are read as they stand; any other module is traced by
    ``torch.export`` with its own ``forward`` (in evaluation mode, which is restored), hooks and
    parametrizations included.

    Args:
        module: on any device; its parameters are copied.
        input_shape: of one input, without batch axis; ``None`` means that of the first Linear,
            where no convolution stands before it.

    Returns:
        The network; nodes are named by their paths in ``named_modules``, parameters
        ``<path>.weight`` and ``<path>.bias`` (``linear`` for a module that is itself a Linear).

    Raises:
        UnsupportedOperatorError: an operation has no exact meaning here.
        ModelError: the module cannot be traced, or its parameters are not real and finite.
    """
    if isinstance(module, torch.jit.ScriptModule):
        from paramrob.models.torch_script import network_from_script

        return network_from_script(module, input_shape)
    if _is_plain(module):
        return network_from_module(_LiveSource(), module, input_shape)
    return _traced(module, input_shape)


class _LiveSource:
    """Live modules, for :func:`network_from_module`."""

    def describe(self, module: object) -> tuple[str, Mapping[Any, object]] | None:
        """Return type and attributes of a live module."""
        kind = _TYPES.get(type(module)) if isinstance(module, nn.Module) else None
        return None if kind is None else (kind, vars(module))

    def tensor(self, value: object, name: str) -> StoredTensor:
        """Return a live parameter as data."""
        return stored(value, name)


def _is_plain(module: nn.Module) -> bool:
    """Whether the module is nested Sequentials of known layers with nothing added."""
    for child in module.modules():
        if type(child) not in _TYPES:
            return False
        try:
            check_attributes("module", _TYPES[type(child)], vars(child))
        except ModelError:
            return False
    return True


def stored(value: object, name: str) -> StoredTensor:
    """Return a live tensor as data.

    Raises:
        ModelError: it is no plain dense tensor with numbers in it.
    """
    if not isinstance(value, torch.Tensor):
        raise ModelError(f"{name!r} is no tensor; set it to one")
    plain = type(value) in (torch.Tensor, nn.Parameter)
    if not plain or value.layout != torch.strided or value.is_quantized or value.is_neg():
        raise ModelError(
            f"{name!r} is no plain dense tensor ({type(value).__name__}); convert it to one, e.g. "
            "with .dequantize(), .to_dense() or .resolve_neg()"
        )
    if value.device.type == "meta":
        raise ModelError(f"{name!r} has no numbers (device meta); load the weights first")
    dtype = str(value.dtype).removeprefix("torch.")

    def flat() -> npt.NDArray[Any]:
        content = torch.empty(0, dtype=torch.uint8, device=value.device)
        content.set_(value.detach().untyped_storage())
        return decode(content.cpu().numpy().tobytes(), dtype)

    return StoredTensor(
        (value.device, value.untyped_storage().data_ptr()),
        flat,
        dtype,
        int(value.storage_offset()),
        tuple(value.shape),
        tuple(value.stride()),
    )


def _traced(module: nn.Module, input_shape: Shape | None) -> Network:
    if input_shape is None:
        told = (nn.Linear, nn.modules.conv._ConvNd, nn.BatchNorm2d)
        first_layer = next((m for m in module.modules() if isinstance(m, told)), None)
        if not isinstance(first_layer, nn.Linear):
            raise ModelError(
                "the module does not start with a Linear that tells its input's size; "
                + HOW_TO_SHAPE
            )
        input_shape = (first_layer.in_features,)
    first = next(module.parameters(), torch.zeros(()))
    example = torch.zeros(
        (_BATCH, *input_shape),
        dtype=first.dtype if first.is_floating_point() else None,
        device=first.device,
    )
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        program = torch.export.export(module, (example,))
    except Exception as error:  # tracing runs the caller's code: anything can come out of it
        raise ModelError(
            f"the module cannot be traced for inputs of shape {tuple(input_shape)}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}. Give "
            "input_shape, keep forward free of decisions on values, or export to ONNX"
        ) from error
    finally:
        for child, training in modes:
            child.training = training
    return _read_program(program)


def _read_program(program: torch.export.ExportedProgram) -> Network:
    values: dict[str, object] = {}
    canonical: dict[object, str] = {}
    tensors = {**program.state_dict, **program.constants}
    inputs: list[str] = []
    for spec in program.graph_signature.input_specs:
        argument = getattr(spec.arg, "name", "")
        if spec.kind.name == "USER_INPUT":
            inputs.append(argument)
        elif spec.kind.name in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR") and spec.target:
            name = spec.target if spec.target not in ("weight", "bias") else f"linear.{spec.target}"
            tensor = stored(tensors[spec.target], name)
            # A tensor with several names goes by the first, as in named_parameters().
            values[argument] = Constant(tensor, canonical.setdefault(tensor.view, name))
    outputs = program.graph_signature.output_specs
    if len(inputs) != 1 or len(outputs) != 1 or outputs[0].kind.name != "USER_OUTPUT":
        raise UnsupportedOperatorError(
            f"the module has {len(inputs)} input(s) and {len(outputs)} output(s) or changes its "
            "buffers; give one with one input and one output"
        )
    nodes = {node.name: node for node in program.graph.nodes}
    reader = GraphReader([int(size) for size in nodes[inputs[0]].meta["val"].shape])
    values[inputs[0]] = reader.input
    for node in program.graph.nodes:
        if node.op == "call_function":
            values[node.name] = _value(reader, node, values)
    output = outputs[0].arg
    return reader.finish(values.get(getattr(output, "name", "")))


def _value(reader: GraphReader, node: torch.fx.Node, values: Mapping[str, object]) -> object:
    if node.target is not operator.getitem:
        return apply(reader, _call(node, values))
    source, index = node.args
    several = values.get(getattr(source, "name", ""))
    return several.first if isinstance(several, Several) and index == 0 else UNUSED


def _call(node: torch.fx.Node, values: Mapping[str, object]) -> Call:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        raise UnsupportedOperatorError(
            f"node {node.name!r}: operator {target!s} is not supported; only torch.ops.aten "
            "operators of known layers are"
        )
    names = [argument.name for argument in target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    arguments = {name: _argument(value, values) for name, value in given.items()}
    name = target._schema.name.removeprefix("aten::")
    return Call(node.name, name, arguments, _module(node))


def _argument(value: Any, values: Mapping[str, object]) -> object:
    if isinstance(value, torch.fx.Node):
        if value.name not in values:  # never None, which would mean e.g. no bias
            raise UnsupportedOperatorError(
                f"node {value.name!r} ({value.op} {value.target!s}) is not supported; keep to "
                "parameters, buffers and one input"
            )
        return values[value.name]
    if isinstance(value, (list, tuple)):
        return [_argument(item, values) for item in value]
    if isinstance(value, torch.dtype):
        return Dtype(str(value).removeprefix("torch."))
    return value


def _module(node: torch.fx.Node) -> str | None:
    """Return the path of the innermost module around a node where its class is known."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "")
    name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)
    return layer_label(path, name)

"""Reading ONNX: an ``.onnx`` file or a ``ModelProto`` becomes a network.

The file is data: nothing in it is executed, and tensors that it keeps in other files are read
only from its own folder. Every constant operand, initialiser or Constant node alike, becomes a
parameter under the name of the tensor that stores it.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import checker, external_data_helper, shape_inference

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Network, Shape
from paramrob.models.onnx_constants import FLOATS, Constant, tensor_constant
from paramrob.models.onnx_grids import check_types
from paramrob.models.onnx_operators import OLDEST_OPSET, Translator
from paramrob.models.onnx_quantized import MICROSOFT, MICROSOFT_HANDLERS

_AGAIN = "export the model again"
_Storage = tuple[str, int, int]


def read_onnx(source: str | os.PathLike[str] | onnx.ModelProto) -> Network:
    """Read an ONNX model as a network of real numbers.

    The model has one input and one output. The first axis of an input of rank two or more is
    the batch: dynamic or of size one; an input of rank one is a single input without a batch.
    The network is what the model computes for a batch of one, without any rounding.

    Layers are called by their ONNX node names, or ``Gemm_3`` (operator and position) where the
    node has none; a MatMul or Gemm and the bias added to it are one layer. Parameters are called
    by the tensors that store them and keep their exact values; running statistics are fixed.
    Activations that exporters write as several nodes (SiLU, GELU, hard swish) are read as one,
    and a Pad of zeros as a part of the layer behind it.

    Args:
        source: path of the file, or a model in memory without external data.

    Raises:
        UnsupportedOperatorError: an operator, or a use of it, that has no exact meaning here;
            the message names node and operator.
        ModelError: anything else that stands in the way, with what to do about it.
    """
    if isinstance(source, onnx.ModelProto):
        return _read(source, None)
    path = Path(source)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        why = error.strerror or str(error)
        raise ModelError(f"cannot read {path}: {why}; give the path of an .onnx file") from error
    except DecodeError as error:
        raise ModelError(f"no ONNX model, or cut off; {_AGAIN}") from error
    if not model.graph.node:
        raise ModelError(f"no ONNX model, or an empty one; {_AGAIN}")
    return _read(model, path.parent)


def _read(model: onnx.ModelProto, folder: Path | None) -> Network:
    graph = model.graph
    live = _live_nodes(graph)
    labels = _labels(graph)
    _refuse_extensions(model, labels)
    storage = _load_external(graph, folder)
    check_types(graph)
    _check(model)
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    opset = max(versions, default=1)
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"the model uses opset {opset}, whose operators broadcast in another way; convert it "
            "with onnx.version_converter.convert_version(model, 13)"
        )
    if opset > (known := onnx.defs.onnx_opset_version()):
        raise ModelError(
            f"the model uses opset {opset}, the installed onnx knows up to {known}; update onnx, "
            f"or export with opset {known}"
        )
    uses = Counter(tensor for i in live for tensor in graph.node[i].input)
    uses[graph.output[0].name] += 1
    translator = Translator(opset, uses, _initialisers(graph, uses, storage))
    name, dims, elem_type = _input(graph)
    taken = {labels[i] for i in live}
    label = name if name not in taken else f"input:{name}"
    translator.add_input(name, label, dims, elem_type)
    for i in live:
        translator.add_node(graph.node[i], labels[i])
    return translator.network(graph.output[0].name)


def _live_nodes(graph: onnx.GraphProto) -> list[int]:
    """Return the positions of the nodes that the output depends on, in order."""
    if len(graph.output) != 1:
        raise ModelError(
            f"the model has {len(graph.output)} outputs, one is needed; export only the one to "
            "prove something about, e.g. with onnx.utils.extract_model"
        )
    needed = {graph.output[0].name}
    live = []
    for i in range(len(graph.node) - 1, -1, -1):
        if needed.intersection(graph.node[i].output):
            needed.update(tensor for tensor in graph.node[i].input if tensor)
            live.append(i)
    return live[::-1]


def _labels(graph: onnx.GraphProto) -> list[str]:
    """Return what each node is called: its name, or its operator and position."""
    taken = {node.name for node in graph.node}
    labels = []
    for i, node in enumerate(graph.node):
        label = node.name or f"{node.op_type}_{i}"
        while not node.name and label in taken:
            label += "_"
        labels.append(label)
    return labels


def _refuse_extensions(model: onnx.ModelProto, labels: list[str]) -> None:
    graph = model.graph
    for label, node in zip(labels, graph.node, strict=True):
        where = f"node {label!r} ({node.op_type})"
        known = node.domain == MICROSOFT and node.op_type in MICROSOFT_HANDLERS
        if node.domain not in ("", "ai.onnx") and not known:
            raise UnsupportedOperatorError(
                f"{where}: the operator is of the domain {node.domain!r}; export with standard "
                f"operators only (of {MICROSOFT} there are {', '.join(MICROSOFT_HANDLERS)})"
            )
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UnsupportedOperatorError(
                f"{where}: holds a subgraph; export without control flow"
            )
    extras = {
        "local functions": model.functions,
        "training information": model.training_info,
        "sparse initialisers": graph.sparse_initializer,
    }
    for what, present in extras.items():
        if present:
            raise ModelError(f"the model holds {what}; export it for inference with dense tensors")


def _check(model: onnx.ModelProto) -> None:
    try:
        checker.check_model(model, full_check=True)
    except (
        checker.ValidationError,
        shape_inference.InferenceError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        sentence = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"not a valid ONNX model ({sentence}); {_AGAIN}") from error


def _input(graph: onnx.GraphProto) -> tuple[str, Shape, int]:
    """Return name, shape for one input and element type of the graph's input."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [i for i in graph.input if i.name not in stored]
    if len(inputs) != 1:
        names = [i.name for i in inputs]
        raise ModelError(
            f"the model has {len(names)} inputs {names}, one is needed; export with one"
        )
    name, kind = inputs[0].name, inputs[0].type.tensor_type
    if not inputs[0].type.HasField("tensor_type") or kind.elem_type not in FLOATS:
        raise ModelError(f"the input {name!r} is no tensor of floats; export with a float input")
    if not kind.HasField("shape") or not kind.shape.dim:
        raise ModelError(f"the input {name!r} has no shape; export with (batch, inputs)")
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if len(dims) > 1:
        if dims[0] not in (None, 1):
            raise ModelError(
                f"the first axis of the input {name!r} has size {dims[0]}: a fixed batch, or a "
                "part of one input; export with a dynamic batch axis or a batch of one"
            )
        dims[0] = 1
    sizes = tuple(d for d in dims if d is not None and d > 0)
    if len(sizes) != len(dims):
        raise ModelError(
            f"the input {name!r} has an axis without a fixed size beside the batch; export with "
            "a fixed one"
        )
    return name, sizes, kind.elem_type


def _initialisers(
    graph: onnx.GraphProto, used: Iterable[str], storage: dict[str, _Storage]
) -> dict[str, Constant]:
    """Return the initialisers in use; those with one storage have one root."""
    used = set(used)
    roots: dict[_Storage, str] = {}
    constants: dict[str, Constant] = {}
    for tensor in graph.initializer:
        if tensor.name in constants:
            raise ModelError(f"two initialisers are called {tensor.name!r}; {_AGAIN}")
        if tensor.name not in used:
            continue
        root = tensor.name
        if tensor.name in storage:
            root = roots.setdefault(storage[tensor.name], tensor.name)
        constants[tensor.name] = tensor_constant(tensor, root)
    return constants


def _load_external(graph: onnx.GraphProto, folder: Path | None) -> dict[str, _Storage]:
    """Load tensors that live in other files; return which bytes each came from.

    Raises:
        ModelError: a file is outside the model's folder, missing or too short, or two tensors
            share a part of their bytes.
    """
    for node in graph.node:
        for attribute in node.attribute:
            if any(map(external_data_helper.uses_external_data, (attribute.t, *attribute.tensors))):
                raise ModelError(
                    "a Constant node keeps its value in another file; use initialisers"
                )
    storage: dict[str, _Storage] = {}
    for tensor in graph.initializer:
        if not external_data_helper.uses_external_data(tensor):
            continue
        if folder is None:
            raise ModelError(
                f"the tensor {tensor.name!r} lives in another file; give the path of the .onnx "
                "file instead of the loaded model"
            )
        entries = {e.key: e.value for e in tensor.external_data}
        file = _external_file(tensor.name, entries.get("location", ""), folder)
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            offset = int(entries.get("offset") or 0)
        except (OSError, ValueError, RuntimeError, checker.ValidationError) as error:
            raise ModelError(
                f"the tensor {tensor.name!r} cannot be read from {file}: {error}; copy the whole "
                "model again"
            ) from error
        storage[tensor.name] = (str(file.resolve()), offset, offset + len(tensor.raw_data))
    _refuse_overlaps(storage)
    return storage


def _external_file(tensor: str, location: str, folder: Path) -> Path:
    parts = (PurePosixPath(location), PureWindowsPath(location))
    file = folder / location
    inside = file.resolve().is_relative_to(folder.resolve())
    if not location or not inside or any(p.is_absolute() or ".." in p.parts for p in parts):
        raise ModelError(
            f"the tensor {tensor!r} lives in {location!r}, outside the model's folder; that file "
            "is not read: save the model with its data beside it"
        )
    if not file.is_file():
        raise ModelError(f"the tensor {tensor!r} lives in {file}, which is no file; copy it there")
    return file


def _refuse_overlaps(storage: dict[str, _Storage]) -> None:
    """Refuse tensors that share some of their bytes but not all."""
    pieces = sorted(piece for piece in set(storage.values()) if piece[1] < piece[2])
    for (file, _, end), (other, begin, _) in itertools.pairwise(pieces):
        if file == other and begin < end:
            raise ModelError(f"two tensors share a part of their bytes in {file}; {_AGAIN}")

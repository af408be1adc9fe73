"""``.pt2`` archives that torch.export wrote: the graph's JSON and the raw weights, read as data.

``torch.export.load`` evaluates expressions that stand in the file; nothing of it is used here.
Symbolic sizes are strings that are never looked at: a symbolic first axis is the batch.

Layout (torch 2.8 and later): ``<root>/archive_format``, ``<root>/models/<name>.json`` (graph and
signature), ``<root>/data/weights/`` and ``<root>/data/constants/`` with a JSON index each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

import numpy.typing as npt

from paramrob.errors import ModelError, UnsafeModelError, UnsupportedOperatorError
from paramrob.models.network import Network
from paramrob.models.torch_archive import ZIP_MAGIC, Archive, TorchFile
from paramrob.models.torch_graph import (
    BATCH,
    UNUSED,
    Call,
    Constant,
    Dtype,
    GraphReader,
    Several,
)
from paramrob.models.torch_known import layer_label
from paramrob.models.torch_operators import apply
from paramrob.models.torch_tensor import FLOATS, StoredTensor, decode

_AGAIN = "export the model again with torch.export.save (torch 2.8 or later), or to ONNX"
_STRIDED: Final = 7
# torch._export.serde.schema.ScalarType
_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
}
_ATEN = "torch.ops.aten."
Json = Mapping[str, Any]
_MISREAD = (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError)


def is_pt2(data: bytes) -> bool:
    """Whether the bytes are an archive of torch.export (of any version)."""
    if data[:4] != ZIP_MAGIC:
        return False
    archive = Archive(data)
    old = [n for n in archive.names if n.rpartition("/")[2] == "serialized_exported_program.json"]
    return bool(archive.find("archive_format") or old)


def read_pt2(data: bytes) -> Network:
    """Return the network in a ``.pt2`` archive.

    The first axis of an input of rank two or more is the batch; an input of rank one is a single
    input without a batch.

    Args:
        data: the whole file.

    Raises:
        UnsafeModelError: a weight is a pickle with names outside the allow-list.
        UnsupportedOperatorError: a node has no exact meaning here; names node and operator.
        ModelError: the archive is damaged or of an older layout.
    """
    archive = Archive(data)
    models = [
        name
        for name in archive.names
        if name.partition("/")[2].startswith("models/") and name.endswith(".json")
    ]
    if len(models) != 1:
        raise ModelError(
            f"the archive holds {len(models)} exported models instead of one; {_AGAIN}"
        )
    program = _json(archive, models[0])
    label = models[0].rpartition("/")[2].removesuffix(".json")
    try:
        tensors = _Tensors(archive, models[0].partition("/")[0], label)
        module = program["graph_module"]
        return _read_graph(module["graph"], module["signature"], tensors)
    except _MISREAD as error:
        raise ModelError(f"the archive's graph is not understood ({error!r}); {_AGAIN}") from error


def _json(archive: Archive, name: str) -> Json:
    try:
        content = json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name!r} in the archive is damaged ({error}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{name!r} in the archive is no JSON object; {_AGAIN}")
    return content


class _Tensors:
    """The weights and constants of an archive, by their names."""

    def __init__(self, archive: Archive, root: str, label: str) -> None:
        self._archive, self._root = archive, root
        self._index: dict[str, dict[str, Json]] = {}
        for folder in ("weights", "constants"):
            name = f"{root}/data/{folder}/{label}_{folder}_config.json"
            config = _json(archive, name).get("config", {}) if name in archive.names else {}
            self._index[folder] = dict(config)
        self._big_endian = (
            f"{root}/byteorder" in archive.names and archive.read(f"{root}/byteorder") == b"big"
        )
        self._flat = cache(self._decode)

    def get(self, folder: str, name: str) -> StoredTensor:
        """Return one tensor.

        Raises:
            ModelError: it is missing or of a layout or dtype that paramrob does not read.
        """
        entry = self._index[folder].get(name)
        if entry is None:
            raise ModelError(f"the archive lacks the numbers of {name!r}; {_AGAIN}")
        path = f"{self._root}/data/{folder}/{entry['path_name']}"
        if entry.get("use_pickle"):
            return self._pickled(path, name)
        meta = entry["tensor_meta"]
        if meta.get("layout") != _STRIDED:
            raise ModelError(f"tensor {name!r} is not dense; convert it with .to_dense() first")
        dtype = _DTYPES.get(meta["dtype"], f"number {meta['dtype']}")
        return StoredTensor(
            path,
            partial(self._flat, path, dtype),
            dtype,
            meta["storage_offset"]["as_int"],
            tuple(size["as_int"] for size in meta["sizes"]),
            tuple(stride["as_int"] for stride in meta["strides"]),
        )

    def _pickled(self, path: str, name: str) -> StoredTensor:
        file = TorchFile(self._archive.read(path))
        tensor = file.tensor(file.content, name)
        return StoredTensor(
            (path, tensor.storage),
            tensor.flat,
            tensor.dtype,
            tensor.offset,
            tensor.sizes,
            tensor.strides,
        )

    def _decode(self, path: str, dtype: str) -> npt.NDArray[Any]:
        return decode(self._archive.read(path), dtype, self._big_endian)


def _read_graph(graph: Json, signature: Json, tensors: _Tensors) -> Network:
    values: dict[str, object] = {}
    canonical: dict[object, str] = {}
    inputs: list[str] = []
    for spec in signature["input_specs"]:
        _read_input(spec, tensors, values, canonical, inputs)
    outputs = signature["output_specs"]
    if len(inputs) != 1 or len(outputs) != 1 or "user_output" not in outputs[0]:
        raise UnsupportedOperatorError(
            f"the exported model has {len(inputs)} input(s) and {len(outputs)} output(s) or "
            "changes its buffers; export a model with one input and one output"
        )
    meta = graph["tensor_values"][inputs[0]]
    if _DTYPES.get(meta["dtype"]) not in FLOATS:
        raise ModelError("the exported model takes integers; export it for floating-point inputs")
    sizes = [_size(size) for size in meta["sizes"]]
    reader = GraphReader(sizes)
    values[inputs[0]] = reader.input
    for node in graph["nodes"]:
        call = _call(node, values)
        result = apply(reader, call)
        if isinstance(result, Several) != (len(node["outputs"]) > 1):
            raise UnsupportedOperatorError(
                f"{call.where}: it has {len(node['outputs'])} outputs, which is not supported"
            )
        first = result.first if isinstance(result, Several) else result
        for index, output in enumerate(node["outputs"]):
            values[_name(output)] = UNUSED if index else first
    return reader.finish(values[outputs[0]["user_output"]["arg"]["as_tensor"]["name"]])


def _read_input(
    spec: Json,
    tensors: _Tensors,
    values: dict[str, object],
    canonical: dict[object, str],
    inputs: list[str],
) -> None:
    ((kind, content),) = spec.items()
    if kind == "user_input":
        inputs.append(content["arg"]["as_tensor"]["name"])
        return
    name = content.get(f"{kind}_name")
    if kind == "parameter" or (kind == "buffer" and content.get("persistent", True)):
        tensor = tensors.get("weights", name)
    elif kind in ("buffer", "tensor_constant"):
        tensor = tensors.get("constants", name)
    else:
        raise UnsafeModelError(
            f"the exported model takes a {kind} ({name!r}), which may hold code; export a model "
            "whose only constants are tensors"
        )
    # A tensor with several names goes by the first, as in named_parameters().
    called = name if "." in name or name not in ("weight", "bias") else f"linear.{name}"
    values[content["arg"]["name"]] = Constant(tensor, canonical.setdefault(tensor.view, called))


def _size(size: Json) -> Any:
    return size.get("as_int", BATCH)


def _name(value: Json) -> str:
    ((kind, content),) = value.items()
    if kind == "as_tensor":
        return str(content["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return str(content["as_name"])
    raise UnsupportedOperatorError(f"a node of the graph gives a {kind}; {_AGAIN}")


def _call(node: Json, values: Mapping[str, object]) -> Call:
    target = str(node["target"])
    name = str(node.get("name") or (node["outputs"] and _name(node["outputs"][0])) or target)
    if not target.startswith(_ATEN):
        raise UnsupportedOperatorError(
            f"node {name!r}: operator {target!r} is not supported; only torch.ops.aten operators "
            "of known layers are"
        )
    operator = target.removeprefix(_ATEN).partition(".")[0]
    arguments = {i["name"]: _argument(i["arg"], values, name, operator) for i in node["inputs"]}
    return Call(name, operator, arguments, _module(node.get("metadata") or {}))


def _argument(value: Json, values: Mapping[str, object], node: str, operator: str) -> object:
    ((kind, content),) = value.items()
    match kind:
        case "as_none":
            return None
        case "as_int" | "as_float" | "as_bool" | "as_string" | "as_ints" | "as_bools":
            return content
        case "as_tensor":
            return values[content["name"]]
        case "as_tensors":
            return [values[tensor["name"]] for tensor in content]
        case "as_sym_int":
            return values[content["as_name"]] if "as_name" in content else content["as_int"]
        case "as_sym_ints":
            return [values[v["as_name"]] if "as_name" in v else v["as_int"] for v in content]
        case "as_scalar_type":
            return Dtype(_DTYPES.get(content, f"number {content}"))
        case "as_device" | "as_layout" | "as_memory_format":
            return kind
    raise UnsupportedOperatorError(
        f"node {node!r}: operator {operator!r} has an argument of kind {kind}, which is not "
        "supported"
    )


def _module(metadata: Json) -> str | None:
    """Return the path of the innermost module around a node where its class is known."""
    entries = str(metadata.get("nn_module_stack", "")).split(";")
    _, _, rest = entries[-1].partition(",")
    path, _, kind = rest.rpartition(",")
    return layer_label(path, kind)

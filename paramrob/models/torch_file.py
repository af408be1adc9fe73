"""``.pt`` and ``.pth`` files: modules and state_dicts that ``torch.save`` wrote, read as data.

Nothing from the file is executed, and torch itself is not needed: see
:mod:`paramrob.models.unpickle`. TorchScript archives hold programs instead; those are refused,
unless the caller trusts the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from paramrob.errors import InputError, ModelError, UnsafeModelError
from paramrob.models.network import Network, Shape
from paramrob.models.torch_archive import ZIP_MAGIC, Archive, TorchFile
from paramrob.models.torch_known import QUALIFIED
from paramrob.models.torch_layer_list import network_from_layers, suggest_layers
from paramrob.models.torch_layers import network_from_module
from paramrob.models.torch_tensor import StoredTensor
from paramrob.models.unpickle import HOW_TO_SAVE, Instance


class _FileSource:
    """Modules of a file, for :func:`network_from_module`."""

    def __init__(self, file: TorchFile) -> None:
        self._file = file

    def describe(self, module: object) -> tuple[str, Mapping[Any, object]] | None:
        """Return type and attributes of a module of the file."""
        if not isinstance(module, Instance) or module.kind.qualified not in QUALIFIED:
            return None
        if not isinstance(module.state, dict):
            raise ModelError(f"{module.kind.qualified} in the file has no state; save it again")
        return QUALIFIED[module.kind.qualified], module.state

    def tensor(self, value: object, name: str) -> StoredTensor:
        """Return a parameter of the file."""
        return self._file.tensor(value, name)


def is_torchscript(data: bytes) -> bool:
    """Whether the bytes are a TorchScript archive (a zip with ``code/`` or ``constants.pkl``)."""
    if data[:4] != ZIP_MAGIC:
        return False
    parts = [name.partition("/")[2] for name in Archive(data).names]
    return any(p in ("constants.pkl", "model.json") or p.startswith("code/") for p in parts)


def read_torch(
    data: bytes,
    *,
    layers: Sequence[str] | None = None,
    input_shape: Shape | None = None,
    trust: bool = False,
) -> Network:
    """Return the network in a ``.pt`` file.

    Args:
        data: the whole file.
        layers: the sidecar's list of layers; for a state_dict, and then required.
        input_shape: without batch axis; ``None`` means that of the first Linear.
        trust: load TorchScript, which can run code that stands in the file.

    Raises:
        UnsafeModelError: reading it would need code from the file.
        UnsupportedOperatorError: a layer that paramrob has no meaning for.
        ModelError: it is damaged, no model, or carries what may change its meaning.
        InputError: ``layers`` is given for a whole module, or names an unknown layer.
    """
    if is_torchscript(data):
        if not trust:
            raise UnsafeModelError(
                "the file is a TorchScript program, and loading one can run code that stands in "
                "it; export the model to ONNX instead, or, if you trust whoever made the file, "
                "pass --trust (trust=True in Python)"
            )
        from paramrob.models.torch_script import read_torchscript

        return read_torchscript(data, input_shape)
    file = TorchFile(data)
    content = file.content
    if isinstance(content, Instance):
        if layers is not None:
            raise InputError(
                "the file holds a whole module; [model] layers is only for a state_dict: remove it"
            )
        return network_from_module(_FileSource(file), content, input_shape)
    tensors = _state_dict(file, content)
    readers = {name: partial(file.tensor, value, name) for name, value in tensors.items()}
    if layers is None:
        raise ModelError(
            "the file holds a state_dict: names and numbers, but no architecture. Write beside it "
            "a file of the same name that ends in .toml, with the activations, pools, strides and "
            "paddings it really has:\n"
            f"[model]\nlayers = {suggest_layers(readers)}"
        )
    return network_from_layers(readers, layers, input_shape)


def _state_dict(file: TorchFile, content: object) -> Mapping[str, object]:
    if not isinstance(content, dict) or not content:
        what = "a tensor" if file.is_tensor(content) else type(content).__name__
        raise ModelError(f"the file holds {what}, no model; {HOW_TO_SAVE}")
    state: Any = getattr(content, "state", None)
    if state is not None and (not isinstance(state, dict) or set(state) != {"_metadata"}):
        raise ModelError(f"the dict in the file carries attributes; {HOW_TO_SAVE}")
    odd = [key for key, value in content.items() if not file.is_tensor(value)]
    if odd or not all(isinstance(key, str) for key in content):
        raise ModelError(
            f"the file holds a dict with other things than tensors in it ({odd[:5]}), perhaps a "
            "training checkpoint; save model.state_dict() alone, or the whole module"
        )
    return content

"""Builders of files that try to run a command when they are read, and of odd ones."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Command:
    """Pickles into a call of ``os.system`` that creates a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def zipped(entries: Mapping[str, bytes | str], root: str = "archive") -> bytes:
    """Return a zip file as torch writes it: stored, under one root."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{root}/{name}", content)
    return target.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    """Return the entries of a zip file, without their root."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def with_pickle(content: bytes) -> bytes:
    """Return a ``.pt`` file whose pickle is ``content``."""
    return zipped({"data.pkl": content, "byteorder": "little", "version": "3\n"})


def saved(value: object, zip_format: bool = True) -> bytes:
    """Return what ``torch.save`` writes."""
    target = io.BytesIO()
    torch.save(value, target, _use_new_zipfile_serialization=zip_format)
    return target.getvalue()


def small() -> nn.Sequential:
    """Return a 2-3-1 network."""
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1), nn.Sigmoid())


def runs(data: bytes, marker: Path) -> bool:
    """Whether torch's own unrestricted loading runs the command (so that the test can fail)."""
    with suppress(Exception):  # the payload comes first, what follows may fail
        torch.load(io.BytesIO(data), weights_only=False)
    happened = marker.exists()
    marker.unlink(missing_ok=True)
    return happened


def state_attack(marker: Path) -> bytes:
    """A module one of whose state entries is a command."""
    model = small()
    vars(model[0])["in_features"] = Command(marker)
    return saved(model)


def forward_attack(marker: Path) -> bytes:
    """A module with an instance attribute ``forward`` that is a command."""
    model = small()
    vars(model[1])["forward"] = Command(marker)
    return saved(model)


def hook_attack(marker: Path) -> bytes:
    """A module with a hook that is a command."""
    model = small()
    model[0]._forward_hooks[0] = Command(marker)  # type: ignore[assignment]
    return saved(model)


def metadata_attack(marker: Path) -> bytes:
    """A state_dict with a command among its attributes."""
    state = small().state_dict()
    state._metadata = Command(marker)  # type: ignore[attr-defined]
    return saved(state)


def tensor_attack(marker: Path) -> bytes:
    """A state_dict with a command instead of a tensor."""
    return saved({"0.weight": Command(marker)})


def setstate_attack(marker: Path) -> bytes:
    """An object whose ``__setstate__`` runs code: a ``functools.partial`` called by a reduce."""
    partial = b"\x80\x02cfunctools\npartial\ncos\nsystem\n\x85R"
    state = b"(cos\nsystem\nX" + _text(f"touch {marker}") + b"\x85}Ntb"
    return with_pickle(partial + state + b")R.")


def _text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(4, "little") + raw


def setstate_class_attack(marker: Path) -> bytes:
    """An object with a ``__setstate__`` of its own."""

    return saved(Stateful(marker))


class Stateful:
    """Runs a command when its state is restored."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __getstate__(self) -> dict[str, str]:
        return {"marker": self.marker}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["marker"]).touch()


def command_attack(marker: Path) -> bytes:
    """A file that is nothing but a command."""
    return saved(Command(marker))


def legacy_attack(marker: Path) -> bytes:
    """The older format with a command in the module's state."""
    model = small()
    vars(model[0])["in_features"] = Command(marker)
    return saved(model, zip_format=False)


def plain_pickle_attack(marker: Path) -> bytes:
    """A pickle without torch's header."""
    return pickle.dumps(Command(marker), protocol=4)


def text_pickle_attack(marker: Path) -> bytes:
    """A pickle of protocol 0."""
    return pickle.dumps(Command(marker), protocol=0)


def instance_attack(marker: Path) -> bytes:
    """The INST opcode, which looks a name up and calls it."""
    return with_pickle(b"(X" + _text(f"touch {marker}") + b"ios\nsystem\n.")


def object_attack(marker: Path) -> bytes:
    """The OBJ opcode, which calls what lies on the stack."""
    return with_pickle(b"(cos\nsystem\nX" + _text(f"touch {marker}") + b"o.")


def stack_global_attack(marker: Path) -> bytes:
    """STACK_GLOBAL with names from the stack."""
    command = _text(f"touch {marker}")
    return with_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93X" + command + b"\x85R.")


ATTACKS: tuple[Callable[[Path], bytes], ...] = (
    state_attack,
    forward_attack,
    hook_attack,
    metadata_attack,
    tensor_attack,
    setstate_attack,
    setstate_class_attack,
    command_attack,
    legacy_attack,
    plain_pickle_attack,
    text_pickle_attack,
    instance_attack,
    object_attack,
    stack_global_attack,
)

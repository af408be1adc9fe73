"""The sidecar ``model.toml``: what a model file does not say about its inputs and outputs.

Numbers in it are exact decimals: ``upper = 0.1`` means one tenth, not the nearest double.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from paramrob.errors import InputError
from paramrob.exact import parse_decimal
from paramrob.models.model import OUTPUT_KINDS, InputInfo, OutputKind
from paramrob.models.network import Network

_KEYS = {
    "model": ("layers",),
    "input": ("names", "units", "shape", "lower", "upper"),
    "output": ("kind", "level", "labels"),
}


@dataclass(frozen=True)
class Sidecar:
    """The contents of a sidecar; ``None`` is what it does not say."""

    path: str = ""
    layers: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None
    lower: tuple[Fraction, ...] | None = None
    upper: tuple[Fraction, ...] | None = None
    kind: OutputKind | None = None
    level: Fraction | None = None
    labels: tuple[str, ...] | None = None

    def input_info(self, network: Network) -> InputInfo:
        """Return what it says of the inputs of ``network``.

        Raises:
            InputError: a list of another length than the number of inputs.
        """
        size = network.input_size
        if self.shape is not None and math.prod(self.shape) != size:
            raise InputError(
                f"{self.path}: [input] shape {list(self.shape)} holds {math.prod(self.shape)} "
                f"numbers, the model takes {size}; correct the shape"
            )
        for key in ("names", "units", "lower", "upper"):
            values = getattr(self, key)
            if values is not None and len(values) != size:
                raise InputError(
                    f"{self.path}: [input] {key} has {len(values)} entries, the model takes {size} "
                    "inputs; give one for each, in row-major order"
                )
        return InputInfo(self.names, self.units, self.lower, self.upper)

    def checked_labels(self, network: Network) -> tuple[str, ...] | None:
        """Return the labels of the outputs of ``network``.

        Raises:
            InputError: not one for each class.
        """
        classes = max(network.output_size, 2)
        if self.labels is not None and len(self.labels) != classes:
            raise InputError(
                f"{self.path}: [output] labels has {len(self.labels)} entries, the model tells "
                f"{classes} classes apart; give one for each (class 0 first)"
            )
        return self.labels


def find_sidecar(model: str | os.PathLike[str]) -> Path | None:
    """Return the path of the sidecar beside a model file, if there is one."""
    try:
        path = Path(model).with_suffix(".toml")
        return path if path.is_file() else None
    except (OSError, ValueError):  # no name a file can have: reading the model says so
        return None


def read_sidecar(path: str | os.PathLike[str]) -> Sidecar:
    """Read a sidecar.

    Raises:
        InputError: it is missing, no TOML, has an unknown key, or a value of the wrong kind.
    """
    where = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8")
        content = tomllib.loads(text, parse_float=lambda spelled: _number(spelled, where))
    except OSError as error:
        raise InputError(f"{where}: cannot read the sidecar ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no TOML ({error}); correct it") from error
    for table, values in content.items():
        if table not in _KEYS or not isinstance(values, dict):
            raise InputError(_unknown(where, table, _KEYS, "[{}]"))
        for key in values:
            if key not in _KEYS[table]:
                raise InputError(_unknown(where, f"{table}.{key}", _all_keys(table), "{}"))
    reader = _Values(where, content)
    sidecar = Sidecar(
        path=where,
        layers=reader.texts("model", "layers"),
        names=reader.texts("input", "names"),
        units=reader.texts("input", "units"),
        shape=reader.shape(),
        lower=reader.numbers("lower"),
        upper=reader.numbers("upper"),
        kind=reader.kind(),
        level=reader.level(),
        labels=reader.texts("output", "labels"),
    )
    _check_box(sidecar)
    return sidecar


def _all_keys(first: str) -> list[str]:
    tables = [first, *(table for table in _KEYS if table != first)]
    return [f"{table}.{key}" for table in tables for key in _KEYS[table]]


def _unknown(where: str, given: str, known: Iterable[str], form: str) -> str:
    candidates = list(known)
    near = difflib.get_close_matches(given, candidates, n=1, cutoff=0.5)
    if not near:  # the key alone may be right, in the wrong table
        key = given.rpartition(".")[2]
        near = [name for name in _all_keys("model") if name.rpartition(".")[2] == key][:1]
        form = "{}" if near else form
    hint = f"did you mean {form.format(near[0])}?" if near else "remove it."
    shown = ", ".join(form.format(name) for name in candidates)
    return f"{where}: unknown key {form.format(given)}; {hint} Known are {shown}"


def _number(spelled: Any, where: str) -> Fraction:
    if isinstance(spelled, str):
        spelled = spelled.replace("_", "")
    if not isinstance(spelled, (str, int, Fraction)):
        raise InputError(f"{where}: expected a number, got {spelled!r}")
    return parse_decimal(spelled, where)


@dataclass(frozen=True)
class _Values:
    """Typed access to the parsed TOML."""

    where: str
    content: Mapping[str, Mapping[str, Any]]

    def get(self, table: str, key: str) -> Any:
        return self.content.get(table, {}).get(key)

    def sequence(self, table: str, key: str) -> list[Any] | None:
        value = self.get(table, key)
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            raise InputError(f"{self.where}: [{table}] {key} must be a list, e.g. {key} = [...]")
        return value

    def texts(self, table: str, key: str) -> tuple[str, ...] | None:
        values = self.sequence(table, key)
        if values is None:
            return None
        if not all(isinstance(value, str) for value in values):
            raise InputError(f"{self.where}: [{table}] {key} must hold strings in quotes")
        return tuple(values)

    def numbers(self, key: str) -> tuple[Fraction, ...] | None:
        values = self.sequence("input", key)
        if values is None:
            return None
        return tuple(_number(value, f"{self.where}: [input] {key}") for value in values)

    def shape(self) -> tuple[int, ...] | None:
        values = self.sequence("input", "shape")
        if values is None:
            return None
        if not all(type(value) is int and value > 0 for value in values):
            raise InputError(
                f"{self.where}: [input] shape must hold positive whole numbers, without the batch "
                "axis, e.g. shape = [28, 28]"
            )
        return tuple(values)

    def kind(self) -> OutputKind | None:
        value = self.get("output", "kind")
        if value is None:
            return None
        for kind in OUTPUT_KINDS:
            if value == kind:
                return kind
        raise InputError(_unknown(f"{self.where}: [output] kind", str(value), OUTPUT_KINDS, "{}"))

    def level(self) -> Fraction | None:
        value = self.get("output", "level")
        return None if value is None else _number(value, f"{self.where}: [output] level")


def _check_box(sidecar: Sidecar) -> None:
    lower, upper = sidecar.lower, sidecar.upper
    if (lower is None) != (upper is None):
        raise InputError(f"{sidecar.path}: [input] lower and upper belong together; give both")
    if lower is None or upper is None:
        return
    if len(lower) != len(upper):
        raise InputError(
            f"{sidecar.path}: [input] lower has {len(lower)} entries, upper {len(upper)}; give "
            "one of each for each input"
        )
    for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if low > high:
            raise InputError(
                f"{sidecar.path}: [input] entry {index}: lower {float(low)!r} is above upper "
                f"{float(high)!r}; swap them"
            )

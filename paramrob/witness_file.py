"""Counterexamples on disk: an ``.npz`` with ``x``, ``param/<name>`` and ``meta`` as JSON.

Nothing in such a file is ever unpickled. What ``meta`` holds: :mod:`paramrob.witness_meta`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from paramrob.errors import InputError
from paramrob.files import replacing
from paramrob.models.network import Array
from paramrob.verdict import Witness

_PREFIX = "param/"
_LARGEST = 2**31
Json = dict[str, object]


def save_witness(
    path: str | os.PathLike[str], witness: Witness, meta: Mapping[str, object]
) -> None:
    """Write a counterexample, whole or not at all.

    Args:
        path: the file to write, under exactly this name; an existing file is replaced.
        witness: its input and parameters are written, bit for bit.
        meta: what :func:`problem_meta` returns, or any JSON object.

    Raises:
        InputError: the file cannot be written there, or a parameter's name fits in no archive.
    """
    arrays: dict[str, Any] = {"x": np.asarray(witness.input, dtype=np.float64)}
    for name, value in witness.parameters.items():
        arrays[_PREFIX + name] = np.asarray(value, dtype=np.float64)
    arrays["meta"] = np.array(json.dumps(dict(meta)))
    with replacing(Path(path), "the witness") as (file, temporary):
        try:
            np.savez(file, **arrays)
        except (ValueError, UnicodeError) as error:
            raise InputError(f"{path}: a parameter's name fits in no archive: {error}") from None
        file.flush()
        os.fsync(file.fileno())
        _check_written(temporary, path, arrays)


def load_witness(path: str | os.PathLike[str]) -> tuple[Array, dict[str, Array], Json]:
    """Read a counterexample; its numbers are not checked here, replay does that.

    Returns:
        ``(x, parameters by name, meta)``, float64.

    Raises:
        InputError: there is no such file, it is no witness, damaged, or holds Python objects.
    """
    arrays = _read_arrays(Path(path))
    meta = _read_meta(path, arrays.pop("meta", None))
    for name, array in arrays.items():
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise InputError(f"{path}: {name!r} is {array.dtype}, a witness holds float64")
    if "x" not in arrays:
        raise InputError(f"{path} holds no input 'x'; it is not a witness of paramrob")
    x = arrays.pop("x").astype(np.float64)
    foreign = [name for name in arrays if not name.startswith(_PREFIX)]
    if foreign:
        raise InputError(f"{path} holds {foreign[0]!r}, which no witness of paramrob does")
    return x, {n.removeprefix(_PREFIX): a.astype(np.float64) for n, a in arrays.items()}, meta


def _check_written(temporary: Path, path: str | os.PathLike[str], arrays: Json) -> None:
    """Read the file back: zip cuts some names short without an error."""
    found = _read_arrays(temporary)
    same = list(found) == list(arrays) and all(
        found[n].dtype == a.dtype
        and found[n].shape == a.shape
        and found[n].tobytes() == a.tobytes()
        for n, a in cast("dict[str, Array]", arrays).items()
    )
    if not same:
        raise InputError(f"{path}: a parameter's name fits in no archive; rename the layers")


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise InputError(f"{path} is not a witness of paramrob (no .npz archive)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                if sum(member.file_size for member in archive.zip.infolist()) > _LARGEST:
                    raise InputError(f"{path} unpacks to more than 2 GiB; it is no witness")
                return {name: _array(archive[name], name) for name in archive.files}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zip and npy readers raise a dozen kinds on damaged bytes
        detail = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        raise InputError(f"{path} is damaged or no witness of paramrob: {detail}") from None


def _array(member: object, name: str) -> Array:
    if not isinstance(member, np.ndarray):
        raise ValueError(f"{name!r} is no array")
    return member


def _read_meta(path: str | os.PathLike[str], text: Array | None) -> Json:
    if text is None or text.dtype.kind != "U" or text.shape != ():
        raise InputError(f"{path} holds no 'meta'; it is not a witness of paramrob")
    try:
        meta = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: 'meta' is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise InputError(f"{path}: 'meta' is not a JSON object")
    return meta

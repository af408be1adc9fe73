"""Counterexamples on disk: an ``.npz`` with ``x``, ``param/<name>`` and ``meta`` as JSON.

Nothing in such a file is ever unpickled. ``meta`` records the problem exactly (rationals as
text, floats of a point in hexadecimal), so that the claim can be replayed without the options
that it was made with.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from paramrob import __version__
from paramrob.arithmetic import Arithmetic, arithmetic_from
from paramrob.domain import Ball, Box, Domain, Point
from paramrob.errors import InputError
from paramrob.exact import decimal_text
from paramrob.files import replacing
from paramrob.models.model import OUTPUT_KINDS, Model, OutputInfo
from paramrob.models.network import Array, Network
from paramrob.perturbation import GivenInterval, PartialInterval, Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.quantize.deployment import KINDS, Deployment, same_box
from paramrob.verdict import Witness

SCHEMA = 1
_PREFIX = "param/"
_LARGEST = 2**31
# no exponents: a file must not be able to ask for a number of a billion digits
_RATIONAL = re.compile(r"-?\d+(\.\d+|/\d+)?\Z", re.ASCII)
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


def problem_meta(model: Model, problem: Problem) -> Json:
    """Return a JSON object with everything that rebuilds the problem from the model, exactly.

    Raises:
        InputError: the problem is about other networks than the model's.
    """
    for network in (problem.reference, problem.uncertain.network):
        if not _same_network(network, model.network):
            raise InputError("the problem is about another network than the model's; give both")
    claim = problem.property
    return {
        "schema": SCHEMA,
        "paramrob": __version__,
        "model": {
            "path": model.path,
            "sha256": model.sha256,
            "folded_batch_norm": model.folded,
        },
        "output": {
            "kind": problem.output.kind,
            "level": _optional_text(problem.output.level),
            "labels": None if problem.output.labels is None else list(problem.output.labels),
        },
        "domain": _domain_meta(problem.domain),
        "perturbation": _perturbation_meta(model.network, problem.uncertain.perturbation),
        "arithmetic": None if problem.arithmetic is None else problem.arithmetic.as_json(),
        "property": claim
        and {
            "name": claim.name,
            "epsilon": _optional_text(claim.epsilon),
            "sigma": _optional_text(claim.sigma),
        },
    }


def problem_from_meta(meta: Mapping[str, object], model: Model) -> Problem:
    """Return the problem that ``meta`` records, on this model.

    Raises:
        InputError: ``meta`` is not what :func:`problem_meta` wrote, or the model is another one
            (its sha256 differs) or does not fit.
    """
    if meta.get("schema") != SCHEMA:
        raise InputError(
            f"a witness of schema {meta.get('schema')!r}; this paramrob ({__version__}) reads "
            f"schema {SCHEMA}: install the version that wrote it ({meta.get('paramrob')!r})"
        )
    recorded = _table(meta, "model").get("sha256")
    if recorded is not None and model.sha256 is not None and recorded != model.sha256:
        raise InputError(
            f"{model.path} is not the model that the witness was found on: its sha256 is "
            f"{model.sha256}, the witness says {recorded}; give that file"
        )
    output = _table(meta, "output")
    kind = output.get("kind")
    if kind not in OUTPUT_KINDS:
        raise InputError(f"the witness's meta: no output kind {kind!r}")
    labels = None if output.get("labels") is None else _texts(output, "labels")
    uncertain = UncertainNetwork(
        model.network, _perturbation_from(_table(meta, "perturbation"), model.network)
    )
    return Problem(
        model.network,
        uncertain,
        _domain_from(_table(meta, "domain")),
        OutputInfo(cast(Any, kind), _optional_rational(output, "level"), labels),
        None if meta.get("property") is None else _property_from(_table(meta, "property")),
        None if meta.get("arithmetic") is None else _arithmetic_from(_table(meta, "arithmetic")),
    )


def _domain_meta(domain: Domain) -> Json:
    if isinstance(domain, Point):
        return {"kind": "point", "x": [float(v).hex() for v in domain.x]}
    if isinstance(domain, Ball):
        x = [float(v).hex() for v in domain.x]
        return {"kind": "ball", "x": x, "radius": decimal_text(domain.radius)}
    lower, upper = ([decimal_text(v) for v in end] for end in (domain.lower, domain.upper))
    return {"kind": "box", "lower": lower, "upper": upper}


def _domain_from(said: Mapping[str, object]) -> Domain:
    if said.get("kind") == "point":
        return Point(tuple(_hex_float(v) for v in _texts(said, "x")))
    if said.get("kind") == "ball":
        centre = tuple(_hex_float(v) for v in _texts(said, "x"))
        return Ball(centre, _rational(said.get("radius"), "radius"))
    if said.get("kind") == "box":
        lower, upper = (
            tuple(_rational(v, end) for v in _texts(said, end)) for end in ("lower", "upper")
        )
        return Box(lower, upper)
    raise InputError(f"the witness's meta: no domain kind {said.get('kind')!r}")


def _perturbation_meta(network: Network, perturbation: Perturbation) -> Json:
    intervals = {name: perturbation.interval(p) for name, p in network.parameters.items()}
    if any(isinstance(i, PartialInterval) for i in intervals.values()):
        raise InputError("a box of part of a parameter cannot be saved; give it end by end")
    return {
        "kind": perturbation.kind,
        "description": perturbation.description,
        "absolute": {n: decimal_text(i.absolute) for n, i in intervals.items() if i.absolute},
        "relative": {n: decimal_text(i.relative) for n, i in intervals.items() if i.relative},
        "given": {
            n: [_packed(i.lower), _packed(i.upper)]
            for n, i in intervals.items()
            if isinstance(i, GivenInterval)
        },
        "only_ends": perturbation.only_ends,
        "words": perturbation.words,
    }


def _perturbation_from(said: Mapping[str, object], network: Network) -> Perturbation:
    given = _table(said, "given") if "given" in said else {}
    tables = [_table(said, "absolute"), _table(said, "relative")]
    for table in (*tables, given):
        unknown = sorted(set(table) - set(network.parameters))
        if unknown:
            raise InputError(f"the witness perturbs {unknown[0]!r}, which the model does not have")
        if fixed := sorted(name for name in table if network.parameters[name].fixed):
            raise InputError(
                f"the witness perturbs {fixed[0]!r}, which the model keeps fixed; save it again"
            )
    kind = said.get("kind")
    if not isinstance(kind, str):
        raise InputError("the witness's meta: the perturbation has no kind")
    if given:
        if any(tables):
            raise InputError("the witness's meta: a box by ends and by radii; save it again")
        ends = {name: _ends(name, pair, network) for name, pair in given.items()}
        words, description = said.get("words"), _table(said, "description")
        box = Perturbation.explicit(
            ends,
            kind,
            description,
            only_ends=said.get("only_ends") is True,
            words=words if isinstance(words, str) else None,
        )
        return _deployed(box, description, network) if kind in KINDS else box
    absolute, relative = ({n: _rational(v, n) for n, v in table.items()} for table in tables)
    return Perturbation(absolute, relative, kind, _table(said, "description"))


def _deployed(box: Perturbation, said: Json, network: Network) -> Perturbation:
    """Return the box of the scheme that the file names, which has to be the box that it holds."""
    again = Deployment.from_json(said).perturbation(network)
    if not same_box(again, box, network):
        raise InputError(
            "the witness's parameters are not on the grid that its scheme gives this model; ask "
            "the question again to get a new witness"
        )
    return again


def _packed(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode("ascii")


def _ends(name: str, pair: object, network: Network) -> tuple[Array, Array]:
    shape = network.parameters[name].value.shape
    if isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, str) for end in pair):
        try:
            low, high = (np.frombuffer(base64.b64decode(end, validate=True), "<f8") for end in pair)
            return low.reshape(shape), high.reshape(shape)
        except ValueError:
            pass
    raise InputError(f"the witness's meta: {name!r} has no ends of its shape; save it again")


def _property_from(said: Mapping[str, object]) -> Property:
    name = said.get("name")
    if not isinstance(name, str):
        raise InputError("the witness's meta: the property has no name")
    return Property(
        cast(Any, name), _optional_rational(said, "epsilon"), _optional_rational(said, "sigma")
    )


def _arithmetic_from(said: Mapping[str, object]) -> Arithmetic | None:
    name, accumulate = said.get("semantics"), said.get("accumulate")
    if not isinstance(name, str) or not isinstance(accumulate, str):
        raise InputError("the witness's meta: the arithmetic has no name; save the witness again")
    return arithmetic_from(name, accumulate)


def _optional_text(value: Fraction | None) -> str | None:
    return None if value is None else decimal_text(value)


def _optional_rational(said: Mapping[str, object], key: str) -> Fraction | None:
    return None if said.get(key) is None else _rational(said[key], key)


def _rational(text: object, what: str) -> Fraction:
    if isinstance(text, str) and _RATIONAL.match(text):
        try:
            return Fraction(text)
        except (ValueError, ZeroDivisionError):
            pass
    raise InputError(f"the witness's meta: {what!r} is no exact number: {str(text)[:60]!r}")


def _hex_float(text: str) -> float:
    try:
        return float.fromhex(text)
    except (ValueError, OverflowError):
        raise InputError(f"the witness's meta: no hexadecimal float: {text[:60]!r}") from None


def _table(said: Mapping[str, object], key: str) -> Json:
    value = said.get(key)
    if not isinstance(value, dict):
        raise InputError(f"the witness's meta has no table {key!r}; save the witness again")
    return value


def _texts(said: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = said.get(key)
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InputError(f"the witness's meta: {key!r} is no list of texts")
    return tuple(value)


def _same_network(a: Network, b: Network) -> bool:
    if a is b:
        return True
    return a.nodes == b.nodes and all(
        np.array_equal(p.value, b.parameters[name].value) for name, p in a.parameters.items()
    )


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

"""What a saved counterexample says of its problem: enough to rebuild it without the options.

The problem is recorded exactly: rationals as text, floats of a point in hexadecimal, the ends of
boxes bit for bit.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, cast

import numpy as np

from paramrob import __version__
from paramrob.arithmetic import Arithmetic, arithmetic_from
from paramrob.domain import Ball, Box, Domain, Point
from paramrob.errors import InputError
from paramrob.exact import decimal_text
from paramrob.models.model import OUTPUT_KINDS, Model, OutputInfo
from paramrob.models.network import Array, Network
from paramrob.models.rounding import with_steps
from paramrob.perturbation import GivenInterval, PartialInterval, Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.quantize.activations import Grids
from paramrob.quantize.deployment import KINDS, Deployment, same_box

SCHEMA = 1
_PREFIX = "param/"
_LARGEST = 2**31
# no exponents: a file must not be able to ask for a number of a billion digits
_RATIONAL = re.compile(r"-?\d+(\.\d+|/\d+)?\Z", re.ASCII)
Json = dict[str, object]


def problem_meta(
    model: Model,
    problem: Problem,
    reference: Model | None = None,
    runtime_steps: int = 0,
    grids: Grids | None = None,
) -> Json:
    """Return a JSON object with everything that rebuilds the problem from its models, exactly.

    Args:
        model: whose network is the uncertain one.
        problem: to record.
        reference: the first of two files that are compared.
        runtime_steps: how far each rounding of the model may be off.
        grids: what values between the model's layers are rounded to.

    Raises:
        InputError: the problem is about other networks than those of the models.
    """
    held = model if reference is None else reference
    deployed = model.network if grids is None else grids.network(model.network)
    pairs = ((problem.reference, held.network), (problem.uncertain.network, deployed))
    for network, owner in pairs:
        if not _same_network(network, owner):
            raise InputError("the problem is about another network than the model's; give both")
    claim = problem.property
    return {
        "schema": SCHEMA,
        "paramrob": __version__,
        "model": _file_meta(model),
        "reference": None if reference is None else _file_meta(reference),
        "runtime_steps": runtime_steps,
        "activations": None if grids is None else grids.as_json(),
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


def _file_meta(model: Model) -> Json:
    return {"path": model.path, "sha256": model.sha256, "folded_batch_norm": model.folded}


def problem_from_meta(
    meta: Mapping[str, object], model: Model, reference: Model | None = None
) -> Problem:
    """Return the problem that ``meta`` records, on this model, or on these two.

    Raises:
        InputError: ``meta`` is not what :func:`problem_meta` wrote, or a model is another one
            (its sha256 differs) or does not fit.
    """
    if meta.get("schema") != SCHEMA:
        raise InputError(
            f"a witness of schema {meta.get('schema')!r}; this paramrob ({__version__}) reads "
            f"schema {SCHEMA}: install the version that wrote it ({meta.get('paramrob')!r})"
        )
    for key, owner in (("model", model), ("reference", reference)):
        if owner is not None:
            _check_file(_table(meta, key), key, owner)
    steps = meta.get("runtime_steps", 0)
    if type(steps) is not int:
        raise InputError("the witness's meta: runtime_steps is no whole number; save it again")
    network = with_steps(model.network, steps)
    trained = network
    if meta.get("activations") is not None:
        network = Grids.from_json(_table(meta, "activations")).network(network)
    output = _table(meta, "output")
    kind = output.get("kind")
    if kind not in OUTPUT_KINDS:
        raise InputError(f"the witness's meta: no output kind {kind!r}")
    labels = None if output.get("labels") is None else _texts(output, "labels")
    perturbation = _perturbation_from(_table(meta, "perturbation"), network)
    uncertain = UncertainNetwork(network, perturbation)
    return Problem(
        trained if reference is None else reference.network,
        uncertain,
        _domain_from(_table(meta, "domain")),
        OutputInfo(cast(Any, kind), _optional_rational(output, "level"), labels),
        None if meta.get("property") is None else _property_from(_table(meta, "property")),
        None if meta.get("arithmetic") is None else _arithmetic_from(_table(meta, "arithmetic")),
    )


def _check_file(said: Mapping[str, object], key: str, model: Model) -> None:
    recorded = said.get("sha256")
    if recorded is not None and model.sha256 is not None and recorded != model.sha256:
        raise InputError(
            f"{model.path} is not the {key} that the witness was found on: its sha256 is "
            f"{model.sha256}, the witness says {recorded}; give that file"
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

"""What a check or comparison proved, on one page: the statement, and everything it rests on.

A certificate exists only where the verdict is ``robust``. Numbers that were asked about are exact
decimals (texts), so that the page says neither more nor less than what was proved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from importlib import metadata
from typing import Any

from paramrob.digests import ends_digest, network_digest, points_digest
from paramrob.domain import Ball, Box, Domain
from paramrob.errors import InputError, SoundnessError
from paramrob.exact import decimal_text
from paramrob.models.rounding import count_roundings
from paramrob.report import as_json
from paramrob.requests.build import Request
from paramrob.several import PointsOutcome
from paramrob.verdict import Outcome, Verdict
from paramrob.wording import (
    counts_words,
    held_against,
    inputs_text,
    is_rigid,
    output_words,
    perturbation_words,
)

SCHEMA = 1
_LIBRARIES = {"z3": "z3-solver", "icp": "codac", "dreal": "dreal"}
_REFUSALS = {
    Verdict.NOT_ROBUST: "the property was refuted",
    Verdict.UNKNOWN: "the property was neither proved nor refuted",
}
_MEASURED = {
    "probability": "the output probability",
    "logit": "the probability (the sigmoid of the output)",
    "probabilities": "each class probability",
    "logits": "each class probability (the softmax of the outputs)",
    "value": "each output",
}
_SHORT = 4
"""How many inputs of a point the statement itself may list."""


def no_certificate(outcome: Outcome) -> str | None:
    """Return why there can be no certificate of a check, ``None`` where there can.

    Rows of a table prove nothing: anybody can edit them.
    """
    if outcome.verdict is not Verdict.ROBUST:
        if isinstance(outcome, PointsOutcome):
            return counts_words(outcome)
        return _REFUSALS.get(outcome.verdict or Verdict.UNKNOWN)
    if outcome.taken:
        return (
            f"{outcome.taken} point(s) were read from a table and not proved in this run; name a "
            "new file with --csv, or leave it out"
        )
    return None


def certificate(request: Request, outcome: Outcome, command: str | None = None) -> dict[str, Any]:
    """Return the certificate's JSON object.

    Args:
        request: what was asked.
        outcome: the answer to it, for which :func:`no_certificate` returned ``None``.
        command: the command line that repeats it.

    Raises:
        InputError: the verdict is not ``robust``.
        SoundnessError: the verdict does not follow from the answers about the single points.
    """
    refusal = no_certificate(outcome)
    if refusal is not None:
        raise InputError(f"there is no certificate of what is not proved: {refusal}")
    parts = outcome.points if isinstance(outcome, PointsOutcome) else (outcome,)
    proved = sum(part.verdict is Verdict.ROBUST for part in parts)
    if proved != len(request.problems):
        raise SoundnessError(
            f"{proved} of {len(request.problems)} answers are proofs, and the whole is called "
            "robust; this is a defect of paramrob: please report it"
        )
    report, first = as_json(request, outcome), request.problems[0]
    model = report["model"] | {"network_sha256": network_digest(request.model.network)}
    reference = report["reference"]
    if reference is not None:
        reference = reference | {"network_sha256": network_digest(first.reference)}
    kept = ("semantics", "accumulate", "reference_semantics", "solver", "method")
    return {
        "schema": SCHEMA,
        "kind": "certificate",
        "statement": statement(request, report["reference"]),
        "verdict": report["verdict"],
        "model": model | {"folded_batch_norm": request.model.folded},
        "reference": reference,
        "perturbation": _perturbation(request, report["perturbation"]),
        "domain": _domain(request),
        "output": _output(request),
        "property": _property(request, report["property"]),
        "brackets": {name: _ends(found) for name, found in report["brackets"].items() if found},
        **{name: report[name] for name in kept},
        "engine_seconds": outcome.engine_seconds,
        "assumptions": list(request.assumptions),
        "notes": list(outcome.notes),
        "versions": report["versions"] | _solver_versions(outcome.solver),
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def certificate_text(found: Mapping[str, Any]) -> str:
    """Return the object as text; a list of numbers takes one line."""
    return f"{_spelled(found, 0)}\n"


def save_certificate(
    path: str | os.PathLike[str], request: Request, outcome: Outcome, command: str | None = None
) -> None:
    """Write a certificate, whole or not at all; see :func:`certificate`.

    Raises:
        InputError: the file cannot be written, or the verdict is not ``robust``.
    """
    from paramrob.files import write_whole

    text = certificate_text(certificate(request, outcome, command))
    write_whole(path, text.encode(), "the certificate")


def statement(request: Request, reference: Mapping[str, Any] | None = None) -> str:
    """Return what a check asks as one sentence, true where the verdict is ``robust``.

    Args:
        request: what was asked.
        reference: the report's object about another file that is the reference.
    """
    name = _named("network", vars(request.model))
    trained = "the trained network" if reference is None else _named("reference network", reference)
    near = isinstance(request.problems[0].domain, Ball)
    if near:
        trained += " at the point itself"
    moved = ""
    if not is_rigid(request):
        name += " with these parameters"
        moved = f" and for every choice of parameters that is allowed ({_parameters(request)})"
    asked = request.asked.property()
    alike = reference is not None and not near and asked.epsilon is None and asked.sigma is None
    return (
        f"It is proved that, {_inputs(request)}{moved}, "
        f"{'both files decide alike: ' if alike else ''}{_holds(request, name, trained)}; this "
        f"holds {_arithmetic(request)}."
    )


def _named(what: str, said: Mapping[str, Any]) -> str:
    """Return which network is meant."""
    if not said["path"]:
        return f"the {what} that was given"
    digest = f" (SHA-256 {said['sha256']})" if said["sha256"] else ""
    return f"the {what} in {said['path']}{digest}"


def _inputs(request: Request) -> str:
    """Return the quantifier over inputs."""
    count, domain = len(request.problems), request.problems[0].domain
    each = f"each of the {count} points" if count > 1 else "the one point"
    if isinstance(domain, Ball):
        radius = decimal_text(domain.radius)
        return f"for every input within {radius}, coordinate by coordinate, of {each} stated here"
    if isinstance(domain, Box):
        return f"for every input of the box stated here ({domain.size} coordinates)"
    if count == 1 and domain.size <= _SHORT:
        return f"at {each} {inputs_text(request.model, domain.x)}"
    return f"at {each} stated here"


def _parameters(request: Request) -> str:
    """Return which parameters move how far, and that nothing else does."""
    said, moved = perturbation_words(request), request.perturbation.parameters
    if set(moved) >= set(request.problems[0].uncertain.network.parameters):
        return said
    return f"{said or 'none moves'}; parameters left out, and running statistics, keep their values"


def _holds(request: Request, name: str, trained: str) -> str:
    """Return what holds for every such input and choice."""
    asked, output = request.asked.property(), request.model.output
    if asked.epsilon is not None:
        epsilon = decimal_text(asked.epsilon)
        what = _MEASURED[output.kind]
        return f"between {name} and {trained}, {what} differs by at most {epsilon}"
    said = f"{name} gives the same label as {trained}"
    if asked.sigma is None:
        return said
    sigma = decimal_text(asked.sigma)
    if request.two_sided:
        level = decimal_text(output.level or Fraction(0))
        at = f"{_MEASURED[output.kind]} of {trained}"
        return f"{said} wherever {at} is at least {sigma} from the level {level}"
    return f"{said} wherever the best logit of {trained} leads the second by at least {sigma}"


def _arithmetic(request: Request) -> str:
    """Return what both networks are executed in, with the roundings that the files define."""
    problem, trained = request.problems[0], held_against(request)
    grids = _grids(request)
    if problem.arithmetic is None:
        left_out = "the rounding of inference"
        if grids:
            left_out = "the rounding of inference in floating point"
        return f"in real-number arithmetic{grids}: {left_out} is not included"
    sums = problem.arithmetic.accumulator.name
    return (
        f"for the network executed in {problem.semantics} with sums in {sums}{grids}, under the "
        f"assumptions listed here, {trained} being taken in real-number arithmetic"
    )


def _grids(request: Request) -> str:
    """Return how two files round to grids between layers; nothing where neither does."""
    if request.reference is None:
        return ""
    networks = (request.reference.network, request.model.network)
    if not any(count_roundings(network) for network in networks):
        return ""
    steps = request.asked.runtime_steps
    off = f", each of the model's off by up to {steps} step(s) of its grid" if steps else ""
    return f" with the roundings to grids that the files define{off}"


def _perturbation(request: Request, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return which parameters are possible; of ends given one by one their digest."""
    ends = ends_digest(request.problems[0].uncertain.network, request.perturbation)
    found = {**said, "words": perturbation_words(request)}
    if request.reference is not None:
        found["runtime_steps"] = request.asked.runtime_steps
    return found if ends is None else found | {"ends_sha256": ends}


def _domain(request: Request) -> dict[str, Any]:
    """Return the inputs in full; of a set of points their number and digest."""
    if not request.several:
        return _one_domain(request.problems[0].domain)
    points = [p.domain for p in request.problems if not isinstance(p.domain, Box)]
    radius = request.asked.radius()
    return {
        "kind": "points",
        "count": len(points),
        "inputs": points[0].size,
        "float64_sha256": points_digest(points),
        "radius": None if radius is None else decimal_text(radius),
    }


def _one_domain(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Box):
        ends = (domain.lower, domain.upper)
        lower, upper = ([decimal_text(value) for value in end] for end in ends)
        return {"kind": "box", "lower": lower, "upper": upper}
    if isinstance(domain, Ball):
        radius = decimal_text(domain.radius)
        return {"kind": "ball", "x": list(domain.x), "radius": radius}
    return {"kind": "point", "x": list(domain.x)}


def _output(request: Request) -> dict[str, Any]:
    """Return what the outputs mean, and which label they give (``None`` where there is none)."""
    output, count = request.model.output, request.model.network.output_size
    level = None if output.level is None else decimal_text(output.level)
    rule = "the class whose output is largest, of equal ones the first"
    if count == 1:
        rule = output_words(request.model)
    has_rule = output.kind != "value" or (count == 1 and level is not None)
    return {
        "kind": output.kind,
        "level": level,
        "labels": output.labels,
        "label": rule if has_rule else None,
    }


def _property(request: Request, said: Mapping[str, Any]) -> dict[str, Any]:
    asked = request.asked.property()
    named = {"epsilon": asked.epsilon, "sigma": asked.sigma}
    exact = {key: None if value is None else decimal_text(value) for key, value in named.items()}
    return {"name": said["name"], "scope": said["scope"], **exact}


def _ends(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ends of a bracket, or of both sides of sigma."""
    if "lower" in found:
        return {"lower": found["lower"], "upper": found["upper"]}
    return {side: _ends(bracket) for side, bracket in found.items() if bracket}


def _solver_versions(solver: str) -> dict[str, str]:
    found = {}
    for name, library in _LIBRARIES.items():
        if name in solver:
            try:
                found[library] = metadata.version(library)
            except metadata.PackageNotFoundError:
                continue
    return found


def _spelled(value: Any, depth: int) -> str:
    """Return JSON with one entry of an object, and one sentence of a list, a line."""
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, Mapping) and value:
        lines = [f"{inner}{json.dumps(k)}: {_spelled(v, depth + 1)}" for k, v in value.items()]
        joined = ",\n".join(lines)
        return f"{{\n{joined}\n{outer}}}"
    if isinstance(value, list) and any(isinstance(item, str) and " " in item for item in value):
        joined = ",\n".join(f"{inner}{json.dumps(item)}" for item in value)
        return f"[\n{joined}\n{outer}]"
    return json.dumps(value, allow_nan=False)

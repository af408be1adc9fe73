"""What an outcome looks like from outside: the JSON object and the exit code."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from typing import Any, Literal

from paramrob import __version__
from paramrob.decimals import middle, rounded_up
from paramrob.domain import Ball, Box, Domain
from paramrob.models.model import Model, OutputInfo
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property, PropertyName
from paramrob.requests.build import Request
from paramrob.solve import PointsOutcome
from paramrob.verdict import Bracket, Interval, Outcome, Verdict, Witness

PROVED, REFUTED, OPEN = 0, 1, 3
"""Exit codes; 2 (bad input) and 4 (internal error) belong to exceptions."""

FailOn = Literal["refuted", "unknown"]
"""What a gate fails on: a refutation alone, or also what stays open."""

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "python-flint", "torch")


def exit_code(outcome: Outcome, tolerance: float, fail_on: FailOn = "unknown") -> int:
    """Return 0 for proved or closed, 1 for refuted, 3 for open.

    Args:
        outcome: of a check (it has a verdict) or of an estimation (it has brackets).
        tolerance: width at which a bracket counts as closed.
        fail_on: with ``refuted`` a verdict that stays open passes as 0; see :func:`lets_pass`.
    """
    if lets_pass(outcome, fail_on):
        return PROVED
    if outcome.verdict is not None:
        codes = {Verdict.ROBUST: PROVED, Verdict.NOT_ROBUST: REFUTED, Verdict.UNKNOWN: OPEN}
        return codes[outcome.verdict]
    parts = outcome.points if isinstance(outcome, PointsOutcome) else (outcome,)
    return PROVED if all(is_closed(part, tolerance) for part in parts) else OPEN


def lets_pass(outcome: Outcome, fail_on: FailOn) -> bool:
    """Whether a gate lets an answer pass that proves nothing.

    Only an open verdict can pass so, and not one that the user stopped on its way: what was not
    asked to the end is no answer.
    """
    is_open = outcome.verdict is Verdict.UNKNOWN
    return fail_on == "refuted" and is_open and not outcome.interrupted


def is_closed(outcome: Outcome, tolerance: float) -> bool:
    """Whether every bracket is within the tolerance."""
    brackets = outcome.brackets.values()
    return bool(brackets) and all(b.width <= tolerance for b in brackets)


def reported_witness(outcome: Outcome) -> Witness | None:
    """Return the verdict's witness, else that of the bracket that reaches furthest."""
    if outcome.witness is not None or outcome.verdict is not None:
        return outcome.witness
    # A witness for "at least 0" refutes nothing; that of delta belongs to the upper end.
    attained = [
        bracket
        for name, bracket in outcome.brackets.items()
        if bracket.witness is not None and (name == "delta" or bracket.lower > 0)
    ]
    return max(attained, key=lambda b: b.lower).witness if attained else None


def witness_problem(request: Request, outcome: Outcome) -> Problem | None:
    """Return the claim that the reported witness refutes, for the file that it is saved in.

    The witness of an estimation refutes the property at a threshold just below the bracket's
    lower end (for delta: the property in the box of the upper end).
    """
    parts = outcome.points if isinstance(outcome, PointsOutcome) else (outcome,)
    witness = reported_witness(outcome)
    for problem, part in zip(request.problems, parts, strict=True):
        if part.witness is not None and part.witness is witness:
            if request.asked.quantity is None:
                return problem
            break
    for problem, part in zip(request.problems, parts, strict=True):
        for name, bracket in part.brackets.items():
            if bracket.witness is not None and bracket.witness is witness:
                return _refuted_claim(problem, name, bracket)
    return None


def _refuted_claim(problem: Problem, name: str, bracket: Bracket) -> Problem:
    below = Fraction(max(math.nextafter(bracket.lower, -math.inf), 0.0))
    if name == "epsilon":
        return replace(problem, property=Property("confidence", epsilon=below))
    if name.startswith("sigma"):
        return replace(problem, property=Property("margin", sigma=below))
    box = problem.uncertain.perturbation.scaled(Fraction(bracket.upper))
    return replace(problem, uncertain=UncertainNetwork(problem.uncertain.network, box))


def boundary_sentence(request: Request, outcome: Outcome) -> str | None:
    """Return how near the boundary labels flip, where a box holds the boundary.

    Global ``labels`` is refuted for every such box, so the distance says more than the verdict.
    """
    sigma = [b for name, b in outcome.brackets.items() if name.startswith("sigma")]
    refuted = outcome.verdict is Verdict.NOT_ROBUST and request.asked.property().name == "labels"
    if not refuted or not sigma or not isinstance(request.problems[0].domain, Box):
        return None
    upper = max(b.upper for b in sigma)
    if math.isinf(upper):
        return None
    unit = "" if request.two_sided else " (the lead of the best logit over the second)"
    return f"labels can flip only within {rounded_up(upper, 3)} of the boundary{unit}"


def label_name(output: OutputInfo, label: int | None) -> str | int | None:
    """Return the class's name, else its number; ``None`` where there is none."""
    if label is None or output.labels is None or label >= len(output.labels):
        return label
    return output.labels[label]


def as_json(request: Request, outcome: Outcome, witness_file: str | None = None) -> dict[str, Any]:
    """Return the report's JSON object.

    Args:
        request: what was asked.
        outcome: the answer to it.
        witness_file: where the reported witness was saved, if anywhere.
    """
    asked, model = request.asked, request.model
    report: dict[str, Any] = {
        "schema": 1,
        "command": asked.command,
        "quantity": asked.quantity,
        "model": _model_json(model),
        "reference": None if request.reference is None else _model_json(request.reference),
        "perturbation": _perturbation(request),
        "domain": _domains_json(request),
        "property": _property_json(request),
    }
    report |= _answer_json(request, outcome, witness_file)
    if request.reference is not None:
        report["runtime_steps"] = asked.runtime_steps
    if isinstance(outcome, PointsOutcome):
        report["points"] = _points_json(request, outcome)
        if outcome.shares:
            report["shares"] = outcome.shares
        if request.reference is not None and outcome.shares:
            report["agreement"] = agreement(outcome)
        if outcome.accuracy is not None:
            report["accuracy"] = dict(vars(outcome.accuracy))
    boundary = boundary_sentence(request, outcome)
    report["notes"] = [*outcome.notes, *([boundary] if boundary else [])]
    report["assumptions"] = list(request.assumptions)
    report["versions"] = versions()
    return report


def agreement(outcome: PointsOutcome) -> dict[str, float]:
    """Return between which shares of the points two files agree: proved, and not refuted."""
    standing = sum(part.verdict is not Verdict.NOT_ROBUST for part in outcome.points)
    certified = outcome.shares[Verdict.ROBUST.value]
    return {"certified": certified, "at_most": standing / len(outcome.points)}


def json_text(report: dict[str, Any]) -> str:
    """Return the object as text; floats are shortest round-trip decimals."""
    return json.dumps(report, indent=2, allow_nan=False)


def versions() -> dict[str, str]:
    """Return the versions of what took part, without importing it."""
    found = {"paramrob": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _model_json(model: Model) -> dict[str, Any]:
    return {
        "path": model.path,
        "sha256": model.sha256,
        "architecture": model.network.architecture,
        "parameters": model.network.parameter_count,
    }


def _domain_json(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Box):
        lower, upper = [float(v) for v in domain.lower], [float(v) for v in domain.upper]
        return {"kind": "box", "lower": lower, "upper": upper}
    if isinstance(domain, Ball):
        return {"kind": "ball", "x": list(domain.x), "radius": float(domain.radius)}
    return {"kind": "point", "x": list(domain.x)}


def _domains_json(request: Request) -> dict[str, Any]:
    if not request.several:
        return _domain_json(request.problems[0].domain)
    at = request.asked.at
    source = str(at) if isinstance(at, str) or hasattr(at, "__fspath__") else None
    found = {"kind": "points", "count": len(request.problems), "source": source}
    radius = request.asked.radius()
    return found if radius is None else found | {"radius": float(radius)}


def _property_json(request: Request) -> dict[str, Any]:
    named: dict[str, PropertyName] = {"epsilon": "confidence", "sigma": "margin"}
    asked = request.asked.property()
    level = request.model.output.level
    return {
        "name": named.get(request.asked.quantity or "", asked.name),
        "scope": request.problems[0].domain.scope,
        "epsilon": None if asked.epsilon is None else float(asked.epsilon),
        "sigma": None if asked.sigma is None else float(asked.sigma),
        "level": None if level is None else float(level),
    }


def _answer_json(request: Request, outcome: Outcome, witness_file: str | None) -> dict[str, Any]:
    model = request.model
    runtime = {} if request.reference is None else {"runtime": _runtime_json(model, outcome)}
    return {
        "verdict": None if outcome.verdict is None else outcome.verdict.value,
        "reason": outcome.reason,
        "brackets": _brackets_json(model, outcome),
        "witness": _witness_json(model, reported_witness(outcome), witness_file),
        **semantics_json(request.problems[0]),
        "exact_encoding": outcome.exact_encoding,
        "solver": outcome.solver,
        "method": outcome.method,
        "engine_seconds": outcome.engine_seconds,
        **runtime,
    }


def _runtime_json(model: Model, outcome: Outcome) -> dict[str, Any] | None:
    """Return what a runtime makes of the witness."""
    run = outcome.runtime
    if run is None:
        return None
    outputs = (run.reference_output, run.model_output)
    said = [None if side is None else [_end(v) for v in side] for side in outputs]
    away = [None if d is None else _end(d) for d in run.deviation]
    return {
        "name": run.name,
        "version": run.version,
        "reference_output": said[0],
        "model_output": said[1],
        "labels": [label_name(model.output, label) for label in run.labels],
        "deviation": {"reference": away[0], "model": away[1]},
        "reproduced": run.reproduced,
        "input_rounded": run.input_rounded,
    }


def semantics_json(problem: Problem) -> dict[str, Any]:
    """Return what the network and the reference that it is held against are executed in."""
    deployed: dict[str, Any] = {"semantics": "real", "accumulate": None}
    if problem.arithmetic is not None:
        deployed = dict(problem.arithmetic.as_json())
    return {**deployed, "reference_semantics": "real"}


def _points_json(request: Request, outcome: PointsOutcome) -> list[dict[str, Any]]:
    entries = []
    for i, (problem, part) in enumerate(zip(request.problems, outcome.points, strict=True)):
        entry: dict[str, Any] = {"index": i, "domain": _domain_json(problem.domain)}
        if request.classes is not None:
            entry["y"] = request.classes[i]
        if outcome.labels:
            entry["label"] = outcome.labels[i]
        if request.classes is not None and outcome.labels:
            entry["correct"] = outcome.labels[i] == request.classes[i]
        entry["property"] = _property_json(request)
        entries.append(entry | _answer_json(request, part, None))
    return entries


def _brackets_json(model: Model, outcome: Outcome) -> dict[str, Any]:
    def side(name: str) -> dict[str, Any] | None:
        bracket = outcome.brackets.get(name)
        return None if bracket is None else bracket_json(model, bracket)

    sigma = side("sigma")
    if "sigma_above" in outcome.brackets or "sigma_below" in outcome.brackets:
        sigma = {"above": side("sigma_above"), "below": side("sigma_below")}
    return {"epsilon": side("epsilon"), "sigma": sigma, "delta": side("delta")}


def bracket_json(model: Model, bracket: Bracket) -> dict[str, Any]:
    """Return a bracket's JSON object; an unbounded end is ``None``."""
    return {
        "lower": _end(bracket.lower),
        "upper": _end(bracket.upper),
        "witness": _witness_json(model, bracket.witness, None),
    }


def _witness_json(model: Model, witness: Witness | None, file: str | None) -> dict[str, Any] | None:
    if witness is None:
        return None
    return {
        "input": [float(v) for v in witness.input.ravel()],
        "file": file,
        "reference_output": _outputs_json(witness.reference_output),
        "perturbed_output": _outputs_json(witness.perturbed_output),
        "labels": [label_name(model.output, label) for label in witness.labels],
        "replayed": witness.replayed,
    }


def _outputs_json(outputs: Sequence[Interval]) -> float | list[float | None] | None:
    values = [_end(middle(interval)) for interval in outputs]
    return values[0] if len(values) == 1 else values


def _end(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _perturbation(request: Request) -> dict[str, Any]:
    """Return what moves, and what values between layers are rounded to."""
    said = request.perturbation.as_json()
    return said if request.grids is None else said | {"activations": request.grids.as_json()}

"""Counterexamples to two files, executed by onnxruntime as well.

Exact replay is what decides. A runtime computes in float32 and may round a number near a tie
the other way; where it does not show what replay shows, that is said and not hidden.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from paramrob.decimals import middle, rounded_up
from paramrob.domain import Ball
from paramrob.models.model import Model, OutputInfo
from paramrob.models.network import Array
from paramrob.problem import Problem
from paramrob.requests.build import Request
from paramrob.several import PointsOutcome
from paramrob.verdict import Interval, Outcome, RuntimeRun, Witness

_HELD = 2
"""Sessions that are kept: those of one comparison's two files."""
_SHOWN = 300
"""Characters of a runtime's own error."""
_STORED = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class NoRunError(Exception):
    """Why a runtime cannot execute a file."""


def with_runtime(request: Request, outcome: Outcome) -> Outcome:
    """Return the outcome of a comparison with what onnxruntime makes of its counterexamples.

    Files that are no ONNX, and models whose parameters a counterexample moves, are not run; where
    neither file is, or onnxruntime is not installed, the outcome is returned as it is.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return outcome
    parts = outcome.points if isinstance(outcome, PointsOutcome) else (outcome,)
    pairs = zip(request.problems, parts, strict=True)
    try:
        runs = [None if p.witness is None else run_of(request, q, p.witness) for q, p in pairs]
    except NoRunError as error:
        return replace(outcome, notes=(*outcome.notes, str(error)))
    if not isinstance(outcome, PointsOutcome):
        return replace(outcome, runtime=runs[0])
    points = tuple(replace(part, runtime=run) for part, run in zip(parts, runs, strict=True))
    shown = next((p.runtime for p in points if p.witness is outcome.witness), None)
    return replace(outcome, points=points, runtime=shown if outcome.witness else None)


def run_of(request: Request, problem: Problem, witness: Witness) -> RuntimeRun | None:
    """Execute one counterexample's two files in onnxruntime.

    Args:
        request: of a comparison.
        problem: that the witness refutes.
        witness: replayed.

    Returns:
        ``None`` where neither file is an ONNX file whose parameters are the witness's.

    Raises:
        NoRunError: onnxruntime cannot execute a file, or refuses its input.
    """
    reference = request.reference
    if reference is None or request.perturbation.parameters:
        return None
    x = witness.input.ravel()
    # Around a point the reference is taken at the point itself.
    centre = problem.domain.centre() if isinstance(problem.domain, Ball) else x
    sides = [_outputs(reference, centre), _outputs(request.model, x)]
    if all(side is None for side in sides):
        return None
    import onnxruntime

    exact = (witness.reference_output, witness.perturbed_output)
    found = [None if side is None else _meaning(problem.output, side.values) for side in sides]
    labels = tuple(
        label if side is None else _label(problem.output, side.values)
        for side, label in zip(sides, witness.labels, strict=True)
    )
    away = [
        None if values is None else _distance(values, known)
        for values, known in zip(found, exact, strict=True)
    ]
    return RuntimeRun(
        name="onnxruntime",
        version=onnxruntime.__version__,
        reference_output=found[0],
        model_output=found[1],
        labels=(labels[0], labels[1]),
        deviation=(away[0], away[1]),
        reproduced=_shown(problem, found, exact, (labels[0], labels[1])),
        input_rounded=any(side is not None and side.rounded for side in sides),
    )


@dataclass(frozen=True)
class _Side:
    """What one file gives in the runtime, and whether the input had to be rounded for it."""

    values: tuple[float, ...]
    rounded: bool


def _outputs(model: Model, x: Array) -> _Side | None:
    """Return a file's outputs at one input; ``None`` where it is no ONNX file."""
    if model.path is None or Path(model.path).suffix.lower() != ".onnx":
        return None
    shape = model.network.input_shape
    try:
        session = _session(model.path, model.sha256)
        given = session.get_inputs()[0]
        stored = x.astype(_STORED.get(given.type, np.float64))
        batch = (1,) * (len(given.shape) - len(shape))
        values = session.run(None, {given.name: stored.reshape(*batch, *shape)})[0]
    except Exception as error:  # onnxruntime's exceptions have no common base
        reason = " ".join(str(error).split())[:_SHOWN]
        raise NoRunError(
            f"onnxruntime cannot execute {model.path}, so the counterexample was replayed exactly "
            f"alone: {reason}"
        ) from error
    numbers = np.asarray(values, dtype=np.float64).ravel().tolist()
    return _Side(tuple(numbers), not np.array_equal(stored.astype(np.float64), x))


@lru_cache(maxsize=_HELD)
def _session(path: str, sha256: str | None) -> Any:
    """Return a session on a file with the runtime's default optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _meaning(info: OutputInfo, values: Sequence[float]) -> tuple[float, ...]:
    """Return outputs in the meaning of the property: after sigmoid or softmax for logits."""
    numbers = np.array(values)
    if info.kind == "logit":
        numbers = 0.5 * (1.0 + np.tanh(0.5 * numbers))
    elif info.kind == "logits":
        powers = np.exp(numbers - numbers.max())
        numbers = powers / powers.sum()
    return tuple(numbers.tolist())


def _label(info: OutputInfo, values: Sequence[float]) -> int | None:
    if not all(map(math.isfinite, values)):
        return None
    if len(values) > 1:
        return None if info.kind == "value" else int(np.argmax(values))
    if info.level is None:
        return None
    level = float(info.level)
    if info.kind == "logit":
        level = math.log(level / (1 - level))
    return int(values[0] > level)


def _distance(values: Sequence[float], exact: Sequence[Interval]) -> float:
    return max(abs(v - middle(known)) for v, known in zip(values, exact, strict=True))


def _shown(
    problem: Problem,
    found: Sequence[tuple[float, ...] | None],
    exact: tuple[tuple[Interval, ...], ...],
    labels: tuple[int | None, int | None],
) -> bool:
    """Whether the runtime's outputs refute the claim too (the exact ones where it has none)."""
    claim = problem.property
    if claim is None or claim.name != "confidence":
        return None not in labels and labels[0] != labels[1]
    sides = [
        values if values is not None else tuple(map(middle, known))
        for values, known in zip(found, exact, strict=True)
    ]
    change = max(abs(a - b) for a, b in zip(*sides, strict=True))
    return math.isfinite(change) and change > (claim.epsilon or Fraction(0))


def runtime_words(run: RuntimeRun, names: Sequence[object]) -> str:
    """Return what a runtime shows, in one sentence.

    Args:
        run: of the counterexample.
        names: of the labels that it shows, ``None`` where there are none.
    """
    said = f"{run.name} {run.version} shows the same"
    if not run.reproduced:
        said = f"runtime deviation: {run.name} {run.version} does not show it"
    if None not in names:
        said += f", with labels {names[0]} and {names[1]}"
    sides = zip(("reference", "model"), run.deviation, strict=True)
    away = [f"{rounded_up(d, 2)} ({side})" for side, d in sides if d is not None]
    said += f"; its outputs lie within {' and '.join(away)} of the exact ones"
    said += "; the input was rounded for it" if run.input_rounded else ""
    left = [
        side for side, d in zip(("reference", "model"), run.deviation, strict=True) if d is None
    ]
    return said + (f"; the {left[0]} is no ONNX file and was executed exactly" if left else "")

"""Two networks held against each other, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paramrob.engine import Method, Progress
from paramrob.models.load import load
from paramrob.models.model import Model, OutputKind
from paramrob.point_table import PointTable
from paramrob.requests import compare as requests_compare
from paramrob.requests.build import Asked, PerturbationLike
from paramrob.requests.domains import DomainLike, Number, PointsLike
from paramrob.runtime import with_runtime
from paramrob.solve import make_settings, solve
from paramrob.verdict import Outcome


def compare(
    reference: Any,
    model: Any,
    *,
    delta: Number | None = None,
    perturbation: PerturbationLike | None = None,
    leave_out: Sequence[str] = (),
    runtime_steps: int = 0,
    domain: DomainLike | None = None,
    at: PointsLike | None = None,
    epsilon: Number | None = None,
    sigma: Number | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    solver: str = "auto",
    timeout: float = 60.0,
    tolerance: float = 1e-6,
    device: str = "cpu",
    progress: Progress | None = None,
    input_radius: Number | None = None,
    limit: int | None = None,
    method: Method | None = None,
    memory: str | int = "1GiB",
    csv: str | Path | None = None,
) -> Outcome:
    """Prove or refute that a model does what a reference does.

    The two may have any architectures: a float file and its quantized one, teacher and student, a
    network before and after pruning. Without a threshold the question is whether their labels
    agree.

    Args:
        reference: a :class:`~paramrob.models.model.Model`, or anything that
            :func:`paramrob.load` takes; its sidecar names inputs and outputs.
        model: with the same inputs and outputs.
        delta: every parameter of the model within this distance; none moves by default.
        perturbation: instead of ``delta`` sizes by layer, of the model.
        leave_out: layers of the model that do not move.
        runtime_steps: how many steps of its grid each rounding of a quantized model may be off.
        domain: as in :func:`paramrob.check`, like everything below.
        at: points.
        epsilon: ask whether confidences differ by at most this much.
        sigma: ask whether labels agree where the reference is this far from its boundary.
        level: where the label changes, for both.
        output: what the outputs mean, for both.
        solver: which engine.
        timeout: seconds.
        tolerance: absolute width at which a bracket is closed.
        device: ``cpu`` or ``cuda``.
        progress: a callback.
        input_radius: around each point; the reference is taken at the point itself.
        limit: only the first so many points.
        method: of the bounds at points.
        memory: bytes, or text such as ``512MiB``.
        csv: a table of points.

    Returns:
        The outcome, as of :func:`paramrob.check`. Where a file is ONNX and onnxruntime is
        installed, ``runtime`` says what it makes of the counterexample.

    Raises:
        InputError: two models that cannot be compared, or a question that cannot be asked.
        SoundnessError: two results contradict each other.

    >>> import paramrob, torch
    >>> teacher, student = (torch.nn.Linear(2, 2).double() for _ in range(2))
    >>> with torch.no_grad():
    ...     for layer, shift in ((teacher, 0.0), (student, 0.25)):
    ...         _ = layer.weight.copy_(torch.eye(2)), layer.bias.copy_(torch.tensor([shift, 0.0]))
    >>> paramrob.compare(teacher, student, at=[[0.0, 1.0], [0.5, 0.0]]).verdict
    <Verdict.ROBUST: 'robust'>
    >>> paramrob.compare(teacher, student, at=[0.0, 0.125]).witness.labels
    (1, 0)
    """
    asked = Asked(
        "compare",
        delta=delta,
        perturbation=perturbation,
        leave_out=tuple(leave_out),
        domain=domain,
        at=at,
        epsilon=epsilon,
        sigma=sigma,
        input_radius=input_radius,
        limit=limit,
        runtime_steps=runtime_steps,
    )
    settings = make_settings(solver, timeout, tolerance, device, method=method, memory=memory)
    models = [_meant(source, output, level) for source in (reference, model)]
    request = requests_compare.compare(asked, *models)
    table = None if csv is None else PointTable(csv, request)
    outcome = solve(request, replace(settings, progress=progress), table)
    outcome = with_runtime(request, outcome)
    return replace(outcome, notes=(*request.assumptions, *outcome.notes))


def _meant(source: Any, output: OutputKind | None, level: Number | None) -> Model:
    return load(source, output_kind=output, level=level)

"""The Python API: which layer is to blame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paramrob.api import meant
from paramrob.layer_shares import Shares, shares_of
from paramrob.models.model import OutputKind
from paramrob.quantize.scheme import Scheme
from paramrob.requests.build import Asked, PerturbationLike
from paramrob.requests.domains import DomainLike, Number, PointsLike
from paramrob.solve import make_settings


def blame(
    model: Any,
    *,
    delta: Number | None = None,
    perturbation: PerturbationLike | None = None,
    leave_out: Sequence[str] = (),
    quantize: Scheme | str | None = None,
    any_rounding: bool = False,
    prune: Number | None = None,
    any_pruning: bool = False,
    noise: Number | None = None,
    domain: DomainLike | None = None,
    at: PointsLike | None = None,
    input_radius: Number | None = None,
    limit: int | None = None,
    per_channel: str | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    fold_batch_norm: bool = False,
    solver: str = "auto",
    timeout: float = 60.0,
    tolerance: float = 1e-6,
    memory: str | int = "1GiB",
) -> Shares:
    """Bracket how far each layer alone, and everything but it, moves the confidence.

    Args:
        model: as in :func:`check`, like everything that is not explained here.
        delta: every parameter within this distance of its trained value.
        perturbation: sizes by layer.
        leave_out: layers that do not move.
        quantize: weights rounded.
        any_rounding: to either neighbour.
        prune: the smallest weights set to 0.
        any_pruning: any weights set to 0.
        noise: a share of each magnitude.
        domain: a box; epsilon is the largest over it.
        at: points; epsilon is the largest over them.
        input_radius: around each point.
        limit: only the first so many points.
        per_channel: a layer, whose output channels take the place of layers.
        level: where the label changes.
        output: what the outputs mean.
        fold_batch_norm: see :func:`load`.
        solver: which engine.
        timeout: seconds, shared by all questions.
        tolerance: absolute width at which a bracket is closed.
        memory: bytes, or text such as ``512MiB``.

    Returns:
        The parts, ranked by the proved upper end of what each does alone; ``proved_first`` is
        the first where its lower end exceeds the upper ends of all others.

    Raises:
        InputError: a question that cannot be asked, with what to do instead.
        SoundnessError: two results contradict each other.

    >>> import paramrob, torch
    >>> layers = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)).double()
    >>> with torch.no_grad():
    ...     _ = [p.fill_(v) for p, v in zip(layers.parameters(), (1.0, 0.0, 9.0, 0.0))]
    >>> found = paramrob.blame(layers, delta="0.125", domain=(0, 1), output="value")
    >>> found.proved_first.name  # 9 * 0.125 * (1 + 1) alone, against 0.125 * (1 + 1)
    '0'
    """
    asked = Asked(
        "estimate",
        "epsilon",
        delta=delta,
        perturbation=perturbation,
        leave_out=tuple(leave_out),
        quantize=quantize,
        any_rounding=any_rounding,
        prune=prune,
        any_pruning=any_pruning,
        noise=noise,
        domain=domain,
        at=at,
        input_radius=input_radius,
        limit=limit,
    )
    settings = make_settings(solver=solver, timeout=timeout, tolerance=tolerance, memory=memory)
    return shares_of(asked, meant(model, output, level, fold_batch_norm), settings, per_channel)

"""The Python API: pictures of two inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramrob.api import meant
from paramrob.models.model import OutputKind
from paramrob.requests.build import Asked, PerturbationLike, build
from paramrob.requests.domains import DomainLike, Number
from paramrob.requests.views import Fixes

if TYPE_CHECKING:
    from paramrob.plots.maps import Heatmap, Kind


def heatmap(
    model: Any,
    *,
    delta: Number | None = None,
    perturbation: PerturbationLike | None = None,
    leave_out: Sequence[str] = (),
    noise: Number | None = None,
    domain: DomainLike | None = None,
    kind: Kind = "both",
    x: str | None = None,
    y: str | None = None,
    fix: Fixes = (),
    points: int | None = None,
    grid: int | None = None,
    data: str | Path | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    timeout: float = 60.0,
    tolerance: float = 1e-3,
    open_area: float = 0.005,
) -> Heatmap:
    """Compute what :func:`paramrob.plots.draw.save` draws over two inputs.

    Args:
        model: as in :func:`paramrob.check`, like ``delta``, ``perturbation``, ``leave_out``,
            ``domain``, ``level`` and ``output``.
        delta: every parameter within this distance of its trained value.
        perturbation: instead of ``delta`` sizes by layer.
        leave_out: layers that do not move.
        noise: instead, every parameter within this share of its magnitude.
        domain: a box of all inputs.
        kind: ``epsilon``, how far the confidence moves at each point; ``flips``, where labels
            can change; or ``both``.
        x: name of the input along the horizontal axis (``x0``, ``x1``, ... without names).
        y: name of the input along the vertical axis.
        fix: values of other inputs by name; what is neither shown nor fixed is free.
        points: how many random points; 1000 by default.
        grid: instead, points to a side of a grid.
        data: a CSV file whose rows are to be drawn.
        level: where the label changes.
        output: what the outputs mean.
        timeout: seconds.
        tolerance: width at which the bracket of a point is closed.
        open_area: share of the area that may stay undecided.

    Returns:
        Brackets at points and regions of inputs, all proved.

    Raises:
        InputError: a picture that cannot be drawn, with what to do instead.

    >>> import paramrob, torch
    >>> layer = torch.nn.Linear(2, 1).double()
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(1.0), layer.bias.fill_(-1.0)
    >>> found = paramrob.heatmap(layer, delta="0.125", points=2, output="value", level=0)
    >>> x = found.epsilon.points  # epsilon is 0.125 (1 + x0 + x1)
    >>> bool(abs(found.epsilon.upper - 0.125 * (1 + x.sum(axis=1))).max() < 1e-12)
    True
    """
    from paramrob.plots.maps import MapAsked, compute

    wanted = MapAsked(
        kind,
        x,
        y,
        fix,
        points,
        grid,
        None if data is None else str(data),
        timeout,
        tolerance,
        open_area,
    )
    asked = Asked(
        "heatmap",
        wanted.quantity,
        delta=delta,
        perturbation=perturbation,
        leave_out=tuple(leave_out),
        domain=domain,
        noise=noise,
    )
    return compute(build(asked, meant(model, output, level, False)), wanted)

"""Everything that a heatmap shows, computed: brackets, regions, sigma and level sets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from paramrob import engine
from paramrob.bounds.ascent import run
from paramrob.bounds.decision import threads
from paramrob.domain import Box
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.models.network import Array
from paramrob.plots.epsilon_map import EpsilonMap, epsilon_map, grid_points, random_points
from paramrob.plots.flip_map import FlipMap, flip_map
from paramrob.plots.ground import Ground, make_ground
from paramrob.plots.labels import labels_of
from paramrob.problem import check_labels
from paramrob.properties import Quantity
from paramrob.requests.build import Request
from paramrob.requests.labelled import Labelled, read_data
from paramrob.requests.views import Fixes, View, choose_view
from paramrob.verdict import Bracket

Kind = Literal["epsilon", "flips", "both"]
KINDS: tuple[Kind, ...] = ("epsilon", "flips", "both")
POINTS = 1000
"""Random points, if neither their number nor a grid is given."""
_SURFACE = 201
"""Points to a side at which the trained network is evaluated for its level sets."""
_SIGMA_WIDTH = 1e-5
"""Width of sigma's brackets: no curve could show less."""
_SIGMA_SHARE, _FLIPS_SHARE = 0.2, 0.5
"""Of the time: what sigma may take, and what flips may take of the rest."""


@dataclass(frozen=True)
class MapAsked:
    """What a heatmap is to show.

    Attributes:
        kind: ``epsilon``, ``flips`` or ``both``.
        x: name of the input along the horizontal axis.
        y: name of the input along the vertical axis.
        fix: values of other inputs, by name or as ``NAME=VALUE``.
        points: how many random points.
        grid: instead, points to a side of a grid.
        data: a CSV file whose points are drawn.
        timeout: engine wall time in seconds.
        tolerance: width at which the bracket of a point is closed.
        open_area: share of the area that may stay neither stable nor flippable.

    Raises:
        InputError: values out of range, or both ``points`` and ``grid``.
    """

    kind: Kind = "both"
    x: str | None = None
    y: str | None = None
    fix: Fixes = ()
    points: int | None = None
    grid: int | None = None
    data: str | None = None
    timeout: float = 60.0
    tolerance: float = 1e-3
    open_area: float = 0.005

    @property
    def quantity(self) -> Quantity:
        """What the request has to be about: flips need labels."""
        return "epsilon" if self.kind == "epsilon" else "sigma"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no kind {self.kind!r}; choose from {', '.join(KINDS)}")
        if self.points is not None and self.grid is not None:
            raise InputError("--points draws at random, --grid regularly; give one of them")
        if self.kind == "flips" and (self.points or self.grid) is not None:
            raise InputError(
                "--points and --grid are for the kinds epsilon and both; leave them out"
            )
        if not 0 < self.open_area < 1:
            raise InputError(f"--open-area {self.open_area!r}: give a share between 0 and 1")
        for option, value in (("--timeout", self.timeout), ("--tolerance", self.tolerance)):
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{option} {value!r}: give a finite number above 0")


@dataclass(frozen=True)
class LevelSets:
    """The trained network on a grid, for drawing its boundary and curves beside it.

    Attributes:
        x: ``(nx,)``, along the horizontal axis.
        y: ``(ny,)``, along the vertical axis.
        lead: ``(sets, ny, nx)``: one output: the confidence less the level; several: each
            class's logit less the best other one. The boundary is where a set is 0.
    """

    x: Array
    y: Array
    lead: Array


@dataclass(frozen=True)
class Heatmap:
    """A computed heatmap.

    Attributes:
        request: model, perturbation, assumptions; its one problem is on the view's box.
        asked: what was to be shown.
        view: the plane.
        epsilon: brackets at points, where asked for.
        flips: a partition into stable, flippable and open cells, where asked for.
        sigma: brackets of sigma, above and below the level for one output (``sigma_above``,
            ``sigma_below``), else ``sigma``; empty where flips were not asked for.
        levels: the trained network's level sets; ``None`` where it has no labels or inputs
            are free (there is no one boundary then).
        data: points to draw.
        exact_encoding: false where shared parameters were relaxed.
        seconds: spent on computing.
    """

    request: Request
    asked: MapAsked
    view: View
    epsilon: EpsilonMap | None
    flips: FlipMap | None
    sigma: Mapping[str, Bracket]
    levels: LevelSets | None
    data: Labelled | None
    exact_encoding: bool
    seconds: float

    @property
    def is_closed(self) -> bool:
        """Whether every point's bracket is closed and little enough of the area is open."""
        points = self.epsilon is None or not bool(self.epsilon.open.any())
        return points and (self.flips is None or self.flips.is_closed)


def compute(request: Request, asked: MapAsked) -> Heatmap:
    """Compute a heatmap.

    Args:
        request: from :func:`paramrob.requests.build.build`, about one box of inputs.
        asked: what to show.

    Raises:
        InputError: inputs that cannot be shown, a network without labels where flips are asked
            for, or data that cannot be read.
        BackendError: the bound engine cannot express the network.
        SoundnessError: two proved ends contradict each other.
    """
    started = time.monotonic()
    problem = request.problems[0]
    view = choose_view(request.model, _box(request), asked.x, asked.y, asked.fix)
    problem = replace(problem, domain=view.box, property=None)
    request = replace(request, problems=(problem,))
    if asked.kind != "epsilon":
        check_labels(problem.reference, problem.output)
    data = None if asked.data is None else read_data(asked.data, request.model, view)
    ground = make_ground(problem, view)
    with threads(ground.chain):
        points = None if asked.kind == "flips" else _points(ground, asked)
        sigma, flips, epsilon = _maps(ground, asked, points, started)
        levels = _levels(ground)
    return Heatmap(
        request,
        asked,
        view,
        epsilon,
        flips,
        sigma,
        levels,
        data,
        ground.chain.exact,
        time.monotonic() - started,
    )


def _box(request: Request) -> Box:
    domain = request.problems[0].domain
    if not isinstance(domain, Box):
        raise InputError("a heatmap shows a box of inputs; give --domain instead of points")
    return domain


def _points(ground: Ground, asked: MapAsked) -> Array:
    if asked.grid is not None:
        return grid_points(ground, asked.grid)
    return random_points(ground, POINTS if asked.points is None else asked.points)


def _maps(
    ground: Ground, asked: MapAsked, points: Array | None, started: float
) -> tuple[Mapping[str, Bracket], FlipMap | None, EpsilonMap | None]:
    """Compute what is asked for within the time; what one part saves, the others get."""
    end = started + asked.timeout
    sigma: Mapping[str, Bracket] = {}
    flips, epsilon = None, None
    if asked.kind != "epsilon":
        limit = _SIGMA_SHARE * asked.timeout
        width = min(asked.tolerance, _SIGMA_WIDTH)
        settings = Settings(solver="bounds", timeout=limit, tolerance=width)
        sigma = engine.estimate(ground.problem, "sigma", settings).brackets
        now = time.monotonic()
        share = 1.0 if asked.kind == "flips" else _FLIPS_SHARE
        flips = flip_map(ground, asked.open_area, now + share * (end - now))
    if points is not None:
        epsilon = epsilon_map(ground, points, asked.tolerance, end, asked.grid)
    return sigma, flips, epsilon


def _levels(ground: Ground) -> LevelSets | None:
    """Evaluate the trained network on a grid, where labels and one boundary exist."""
    problem, chain = ground.problem, ground.chain
    several = problem.reference.output_size > 1
    has_labels = problem.output.kind != "value" if several else problem.output.level is not None
    if ground.free or not has_labels:
        return None
    low, high = ((end[ground.axes]).numpy() for end in (ground.inner_lower, ground.inner_upper))
    x, y = (np.linspace(low[k], high[k], _SURFACE) for k in (0, 1))
    inputs = ground.inner_lower.expand(_SURFACE**2, -1).clone()
    inputs[:, ground.axes[0]] = torch.from_numpy(np.tile(x, _SURFACE))
    inputs[:, ground.axes[1]] = torch.from_numpy(np.repeat(y, _SURFACE))
    still = [torch.zeros(1, layer.weight.shape[0]).double() for layer in chain.layers]
    result = run(chain, inputs, still)[0]
    if several:
        lead = labels_of(problem, chain).margins(result)
    else:
        confidence = torch.sigmoid(result) if chain.link == "sigmoid" else result
        lead = confidence - float(problem.output.level or 0)
    return LevelSets(x, y, lead.T.reshape(-1, _SURFACE, _SURFACE).numpy())

"""How far the confidence can move at each point of a plane: a bracket for every point.

All points are bounded in batches, as boxes of width zero along the two inputs shown. With one
hidden layer that is exact but for rounding; inputs that are free are split, and points that stay
wide are handed to the branch-and-bound engine one by one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from paramrob import engine
from paramrob.bounds.linear import Boxes
from paramrob.bounds.optimise import optimise
from paramrob.bounds.steered import Vectors, change_at_least, steer
from paramrob.domain import Box
from paramrob.engine import Settings
from paramrob.errors import InputError, SoundnessError
from paramrob.models.network import Array
from paramrob.plots.ground import Ground, pieces
from paramrob.problem import Problem

INF = float("inf")
MOST_POINTS = 1_000_000
_STEPS = 20
"""Gradient steps on the bounds of points that stay wide."""
_MOST_BOXES = 200_000
"""Boxes of free inputs that may be open at a time."""
_HALVINGS = 16
"""Halvings of each free input, after which splitting neurons is worth more."""
_ONE_POINT = 0.5
"""Seconds that the engine may spend on one point."""


@dataclass(frozen=True)
class EpsilonMap:
    """Brackets of local epsilon.

    Attributes:
        points: ``(n, 2)``, the inputs shown; row by row from the bottom for a grid.
        lower: ``(n,)``, attained by some parameter vector (and free inputs): proved.
        upper: ``(n,)``, never exceeded: proved.
        tolerance: width at which a bracket counts as closed.
        grid: points along each side of a grid; ``None`` for random points.
    """

    points: Array
    lower: Array
    upper: Array
    tolerance: float
    grid: int | None = None

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """Which brackets are wider than the tolerance, ``(n,)``."""
        # Written so that two infinite ends count as open.
        return ~(self.upper - self.lower <= self.tolerance)


def random_points(ground: Ground, count: int, seed: int = 0) -> Array:
    """Return ``count`` points ``(n, 2)`` drawn evenly from the plane, the same for every run.

    Raises:
        InputError: fewer than one, or more than a million.
    """
    _check_count(count, "--points")
    low, high = _ends(ground)
    x = low + np.random.default_rng(seed).random((count, 2)) * (high - low)
    return np.asarray(np.clip(x, low, high))


def grid_points(ground: Ground, side: int) -> Array:
    """Return the centres of ``side`` times ``side`` equal cells, ``(n, 2)``, row by row.

    Raises:
        InputError: fewer than two to a side, or more than a million in all.
    """
    if side < 2:
        raise InputError("--grid: give at least 2 points to a side")
    _check_count(side * side, "--grid")
    low, high = _ends(ground)
    share = (np.arange(side) + 0.5) / side
    x, y = (low[k] + share * (high[k] - low[k]) for k in (0, 1))
    points = np.stack([np.tile(x, side), np.repeat(y, side)], axis=1)
    return np.asarray(np.clip(points, low, high))


def _check_count(count: int, option: str) -> None:
    if not 1 <= count <= MOST_POINTS:
        raise InputError(f"{option} makes {count} points; give between 1 and {MOST_POINTS}")


def _ends(ground: Ground) -> tuple[Array, Array]:
    low, high = (end[ground.axes].numpy() for end in (ground.inner_lower, ground.inner_upper))
    return low, high


def epsilon_map(
    ground: Ground, points: Array, tolerance: float, deadline: float, grid: int | None = None
) -> EpsilonMap:
    """Bracket epsilon at each point.

    Args:
        ground: the problem.
        points: ``(n, 2)`` float64 inside the plane.
        tolerance: width at which a bracket is closed.
        deadline: on :func:`time.monotonic`'s clock; every bracket holds whenever it ends.
        grid: noted in the result.

    Raises:
        SoundnessError: a proved upper end below an attained lower one.
    """
    x = torch.from_numpy(np.ascontiguousarray(points))
    if ground.chain.is_rigid():
        still = np.zeros(len(points))
        return EpsilonMap(points, still, still, tolerance, grid)
    search = _Search(ground, x, tolerance, deadline)
    search.run()
    _check_ends(search.lower, search.upper)
    found = EpsilonMap(points, search.lower.numpy(), search.upper.numpy(), tolerance, grid)
    return _by_engine(ground, found, deadline)


def _check_ends(lower: Tensor, upper: Tensor) -> None:
    if bool((lower > upper).any()):
        worst = int((lower - upper).argmax())
        raise SoundnessError(
            f"point {worst}: {float(lower[worst])!r} is attained above the proved "
            f"{float(upper[worst])!r}"
        )


@dataclass(frozen=True)
class _Bounded:
    """A batch's upper bounds, how they depend on each input, and the best candidates met."""

    upper: Tensor
    slopes: Tensor
    value: Tensor
    x: Tensor
    chosen: Vectors


class _Search:
    """Branch and bound over the free inputs of all points at a time."""

    def __init__(self, ground: Ground, points: Tensor, tolerance: float, deadline: float) -> None:
        self.ground = ground
        self.goal = 0.9 * tolerance
        self.deadline = deadline
        self.lower = torch.zeros(len(points), dtype=torch.float64)
        self.upper = torch.zeros(len(points), dtype=torch.float64)
        self.owner = torch.arange(len(points))
        self.low, self.high = ground.boxes(points, points)
        largest = max(target.largest for target in ground.targets)
        self.bound = torch.full((len(points),), largest, dtype=torch.float64)

    def run(self) -> None:
        """Bound and split until every point is closed or nothing can be done any more."""
        steps, left = 0, _HALVINGS * len(self.ground.free)
        while len(self.owner):
            slopes = self._round(steps)
            done = self.bound <= self.lower[self.owner] + self.goal
            self._close(done)
            slopes = slopes[~done]
            if not len(self.owner) or time.monotonic() > self.deadline:
                break
            if left and 2 * len(self.owner) <= _MOST_BOXES:
                self._split(slopes)
                left -= 1
            elif steps or not self.ground.chain.activations:
                break
            else:
                steps = _STEPS
        self._close(torch.ones(len(self.owner), dtype=torch.bool))

    def _round(self, steps: int) -> Tensor:
        """Tighten the bound of every open box; return its slopes ``(boxes, in)``."""
        slopes = torch.zeros_like(self.low)
        size = self.ground.batch
        for index in pieces(len(self.owner), size if not steps else max(8, size // 8)):
            found = _bounded(self.ground, self.low[index], self.high[index], steps)
            self.bound[index] = torch.minimum(self.bound[index], found.upper)
            slopes[index] = found.slopes
            self._attain(index, found)
            if time.monotonic() > self.deadline:
                break
        return slopes

    def _attain(self, index: Tensor, found: _Bounded) -> None:
        """Prove what the best candidate of each point attains."""
        owner = self.owner[index]
        top = torch.full_like(self.lower, -INF).scatter_reduce(0, owner, found.value, "amax")
        worth = (found.value >= top[owner]) & (found.value > self.lower[owner])
        best = worth.nonzero().squeeze(1)
        if best.numel():
            x = found.x[best]
            results = self.ground.steered(found.chosen.at(best)).results(Boxes(x, x))
            proved = change_at_least(self.ground.chain, results)
            self.lower.scatter_reduce_(0, owner[best], proved, "amax")

    def _close(self, done: Tensor) -> None:
        self.upper.scatter_reduce_(0, self.owner[done], self.bound[done], "amax")
        self._keep(~done)

    def _keep(self, mask: Tensor) -> None:
        self.owner, self.bound = self.owner[mask], self.bound[mask]
        self.low, self.high = self.low[mask], self.high[mask]

    def _split(self, slopes: Tensor) -> None:
        """Halve every box along the free input that seems to matter most."""
        width = (self.high - self.low)[:, self.ground.free]
        share = width / (self.ground.upper - self.ground.lower)[self.ground.free]
        gain = slopes[:, self.ground.free].abs() * width
        gain = gain / gain.sum(1, keepdim=True).clamp(min=1e-300) + 0.1 * share
        axis = torch.tensor(self.ground.free)[gain.argmax(1)].unsqueeze(1)
        middle = ((self.low + self.high) / 2).gather(1, axis)
        left, right = self.high.scatter(1, axis, middle), self.low.scatter(1, axis, middle)
        self.owner, self.bound = self.owner.repeat(2), self.bound.repeat(2)
        self.low, self.high = torch.cat([self.low, right]), torch.cat([left, self.high])


def _bounded(ground: Ground, low: Tensor, high: Tensor, steps: int) -> _Bounded:
    """Bound epsilon on each box from above and look for where it is attained."""
    boxes = Boxes(low, high)
    analysis = ground.bound_pass.analyse(boxes)
    best: _Bounded | None = None
    for target in ground.targets:
        rows = target.prepare(ground.bound_pass, analysis)
        found = optimise(ground.bound_pass, analysis, rows, torch.ones_like(rows.constant), steps)
        value = torch.nan_to_num(rows.finish(found.least), nan=INF).clamp(0.0, target.largest)
        slopes = found.a.abs().amax(dim=1)
        x = torch.where(found.a[:, 0] > 0, low, high) if ground.free else (low + high) / 2
        x = ground.within(x)
        attained, chosen = steer(ground.chain, ground.radii, target, x)
        new = _Bounded(value, slopes, torch.nan_to_num(attained, nan=-INF), x, chosen)
        best = new if best is None else _better(best, new)
    if best is None:
        raise SoundnessError("a network without outputs was bounded")
    return best


def _better(a: _Bounded, b: _Bounded) -> _Bounded:
    """Return the larger upper bound and the larger candidate of each box."""
    second = (b.value > a.value).unsqueeze(1)
    steeper = (b.upper > a.upper).unsqueeze(1)
    pairs = [
        tuple(torch.where(second, q, p) for p, q in zip(old, new, strict=True))
        for old, new in ((a.chosen.theta, b.chosen.theta), (a.chosen.signs, b.chosen.signs))
    ]
    return _Bounded(
        torch.maximum(a.upper, b.upper),
        torch.where(steeper, b.slopes, a.slopes),
        torch.maximum(a.value, b.value),
        torch.where(second, b.x, a.x),
        Vectors(*pairs),
    )


def _by_engine(ground: Ground, found: EpsilonMap, deadline: float) -> EpsilonMap:
    """Let the branch-and-bound engine narrow what is still open, the widest first."""
    lower, upper = found.lower.copy(), found.upper.copy()
    open_points = found.open.nonzero()[0]
    for i in open_points[np.argsort(-(upper - lower)[open_points], kind="stable")]:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        settings = Settings(
            solver="bounds", timeout=min(left, _ONE_POINT), tolerance=found.tolerance
        )
        outcome = engine.estimate(_at(ground, found.points[i]), "epsilon", settings)
        bracket = outcome.brackets["epsilon"]
        lower[i], upper[i] = max(lower[i], bracket.lower), min(upper[i], bracket.upper)
    _check_ends(torch.from_numpy(lower), torch.from_numpy(upper))
    return replace(found, lower=lower, upper=upper)


def _at(ground: Ground, point: Array) -> Problem:
    box = ground.view.box
    low, high = list(box.lower), list(box.upper)
    for axis, value in zip(ground.view.axes, point, strict=True):
        low[axis] = high[axis] = Fraction(float(value))
    return replace(ground.problem, domain=Box(tuple(low), tuple(high)), property=None)

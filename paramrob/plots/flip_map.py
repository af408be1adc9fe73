"""Which inputs can flip: a partition of the plane into boxes, proved one way or the other.

A cell is *stable* if no parameter vector changes the label at any of its inputs: one class leads
on the whole cell for all parameters, and the trained network is among them. It is *flippable* if
at every input some vector changes the label: two vectors are found that decide for two different
classes on the whole cell, so that one of them contradicts the trained network whatever that says.
With inputs that are free, flippable means for some value of them and stable for all. What is
neither stays *open* and is halved.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from paramrob.bounds.ascent import run
from paramrob.bounds.linear import Boxes
from paramrob.bounds.steered import Vectors, steer
from paramrob.models.network import Array
from paramrob.plots.ground import Ground, pieces
from paramrob.plots.labels import Labels, labels_of

MOST_CELLS = 100_000
"""Open cells at a time."""
_FINEST = 48
"""Halvings after which a cell stays open."""
_FREE_ROUNDS = 12
"""Halvings of a cell's free inputs in one attempt to prove it stable."""
_FREE_BOXES = 40_000
"""Boxes of free inputs looked at in one attempt."""
_TRIES = 8
"""Values of the free inputs tried for a flip, beside the best known one."""


class State(enum.IntEnum):
    """What is proved of a cell."""

    STABLE = 0
    FLIPPABLE = 1
    OPEN = 2


@dataclass(frozen=True)
class FlipMap:
    """A partition of the plane.

    Attributes:
        lower: ``(n, 2)``, the least inputs of each cell.
        upper: ``(n, 2)``, the largest ones; cells share their edges.
        state: ``(n,)``, values of :class:`State`.
        label: ``(n,)``, the label all over a stable cell; -1 elsewhere.
        goal: the share of the area that may stay open.
    """

    lower: Array
    upper: Array
    state: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    goal: float

    def share(self, state: State) -> float:
        """Return the share of the area in a state."""
        area = np.prod(self.upper - self.lower, axis=1)
        return float(area[self.state == state].sum() / area.sum())

    @property
    def is_closed(self) -> bool:
        """Whether no more is open than the goal allows."""
        return self.share(State.OPEN) <= self.goal


def flip_map(ground: Ground, goal: float, deadline: float) -> FlipMap:
    """Partition the plane until at most ``goal`` of its area is open.

    Args:
        ground: the problem, with labels.
        goal: a share between 0 and 1.
        deadline: on :func:`time.monotonic`'s clock; every proof holds whenever it ends.
    """
    return _Partition(ground, goal, deadline).run()


@dataclass
class _Cells:
    """Cells ``(n, 2)`` with the value of all inputs ``(n, in)`` at which a flip was last sought."""

    lower: Tensor
    upper: Tensor
    near: Tensor

    def at(self, index: Tensor) -> _Cells:
        """Return some of them."""
        return _Cells(self.lower[index], self.upper[index], self.near[index])


@dataclass(frozen=True)
class _Tried:
    """What was found about a batch of cells, and how steep the margins are in the two inputs."""

    state: Tensor
    label: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class _Duel:
    """A score for :func:`steer`: how far ``rows`` ``(batch, out)`` rise at ``p``."""

    rows: Tensor

    def pushed(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the rows' values."""
        return (p * self.rows).sum(dim=1)

    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the rows' values."""
        return (p * self.rows).sum(dim=1)


class _Partition:
    """The cells that are settled and those that are not."""

    def __init__(self, ground: Ground, goal: float, deadline: float) -> None:
        self.ground = ground
        self.labels = labels_of(ground.problem, ground.chain)
        self.goal = goal
        self.deadline = deadline
        self.noise = torch.Generator().manual_seed(0)
        low, high = ground.lower[ground.axes], ground.upper[ground.axes]
        self.span = high - low
        middle = (ground.inner_lower + ground.inner_upper) / 2
        self.open = _Cells(low[None], high[None], middle[None])
        self.settled: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def run(self) -> FlipMap:
        """Halve open cells, round by round."""
        if self.ground.chain.is_rigid():
            count = torch.zeros(1, dtype=torch.int64)
            self.settled.append((self.open.lower, self.open.upper, count, count - 1))
            return self._map(_Cells(*(t[:0] for t in vars(self.open).values())))
        for _ in range(_FINEST):
            slopes = self._round()
            share = torch.prod((self.open.upper - self.open.lower) / self.span, dim=1).sum()
            if float(share) <= self.goal or 2 * len(self.open.lower) > MOST_CELLS:
                break
            if time.monotonic() > self.deadline:
                break
            self._halve(slopes)
        return self._map(self.open)

    def _round(self) -> Tensor:
        """Try every open cell; keep what stays open and return its slopes."""
        left: list[Tensor] = []
        count = len(self.open.lower)
        state = torch.full((count,), int(State.OPEN))
        label = torch.full((count,), -1)
        slopes = torch.ones(count, 2, dtype=torch.float64)
        for index in pieces(count, max(8, self.ground.batch // 2)):
            if time.monotonic() > self.deadline:
                break
            cells = self.open.at(index)
            tried = _Attempt(self.ground, self.labels, cells, self.noise).run()
            state[index], label[index], slopes[index] = tried.state, tried.label, tried.slopes
            self.open.near[index] = cells.near
        done = state != State.OPEN
        left = [self.open.lower[done], self.open.upper[done], state[done], label[done]]
        self.settled.append((left[0], left[1], left[2], left[3]))
        self.open = self.open.at(~done)
        return slopes[~done]

    def _halve(self, slopes: Tensor) -> None:
        """Halve every open cell along the input that changes the margins more."""
        cells = self.open
        share = (cells.upper - cells.lower) / self.span
        gain = slopes.abs() * (cells.upper - cells.lower)
        gain = gain / gain.sum(1, keepdim=True).clamp(min=1e-300)
        weight = gain + 0.1 * share / share.sum(1, keepdim=True)
        axis = weight.argmax(1, keepdim=True)
        middle = ((cells.lower + cells.upper) / 2).gather(1, axis)
        left, right = cells.upper.scatter(1, axis, middle), cells.lower.scatter(1, axis, middle)
        self.open = _Cells(
            torch.cat([cells.lower, right]), torch.cat([left, cells.upper]), cells.near.repeat(2, 1)
        )

    def _map(self, rest: _Cells) -> FlipMap:
        count = len(rest.lower)
        parts = [
            *self.settled,
            (
                rest.lower,
                rest.upper,
                torch.full((count,), int(State.OPEN)),
                torch.full((count,), -1),
            ),
        ]
        lower, upper, state, label = (
            torch.cat(column).numpy() for column in zip(*parts, strict=True)
        )
        return FlipMap(lower, upper, state, label, self.goal)


class _Attempt:
    """One attempt to settle a batch of cells."""

    def __init__(
        self, ground: Ground, labels: Labels, cells: _Cells, noise: torch.Generator
    ) -> None:
        self.ground = ground
        self.labels = labels
        self.cells = cells
        self.noise = noise

    def run(self) -> _Tried:
        """Try to prove each cell flippable where it seems to flip, else stable."""
        cells = self.cells
        centre = (cells.lower + cells.upper) / 2
        count = len(centre)
        first, second, score = self._seek(centre)
        state = torch.full((count,), int(State.OPEN))
        label = torch.full((count,), -1)
        flips = (score > 0).nonzero().squeeze(1)
        if flips.numel():
            proved = self._flippable(flips, first[flips], second[flips])
            state[flips[proved]] = int(State.FLIPPABLE)
        still = (score <= 0).nonzero().squeeze(1)
        if still.numel():
            proved = self._stable(still, first[still])
            state[still[proved]] = int(State.STABLE)
            label[still[proved]] = first[still[proved]]
        return _Tried(state, label, self._slopes(first, second))

    def _seek(self, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the label at each centre, the best rival, and by how much both can win there.

        With free inputs several values of them are tried; the best stays in ``cells.near``.
        """
        near = self.cells.near
        near[:, self.ground.axes] = centre
        best = self._duel(near)
        for _ in range(_TRIES if self.ground.free else 0):
            x = self._elsewhere(near)
            other = self._duel(x)
            better = other[2] > best[2]
            near[better] = x[better]
            best = (
                torch.where(better, other[0], best[0]),
                torch.where(better, other[1], best[1]),
                torch.where(better, other[2], best[2]),
            )
        return best

    def _elsewhere(self, near: Tensor) -> Tensor:
        """Return the same points of the plane with other values of the free inputs."""
        ground = self.ground
        x = near.clone()
        share = torch.rand(len(x), len(ground.free), generator=self.noise, dtype=torch.float64)
        # Flips that are farthest from the boundary often lie at an end.
        share = (2 * share - 0.5).clamp(0.0, 1.0)
        low, high = ground.inner_lower[ground.free], ground.inner_upper[ground.free]
        x[:, ground.free] = low + share * (high - low)
        return ground.within(x)

    def _duel(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return label, best rival, and the smaller of the leads that each can gain."""
        first, second = self.labels.of(self._reference(x))
        gains = [self._raised(x, a, b)[0] for a, b in ((first, second), (second, first))]
        return first, second, torch.minimum(*gains)

    def _reference(self, x: Tensor) -> Tensor:
        still = [
            torch.zeros(len(x), layer.weight.shape[0]).double()
            for layer in self.ground.chain.layers
        ]
        return run(self.ground.chain, x, still)[0]

    def _raised(self, x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Vectors]:
        """Return the lead of ``first`` at the vector that raises it over ``second``."""
        rows = self.labels.rivals(first, second)
        above = self.labels.above[first]
        value, chosen = steer(self.ground.chain, self.ground.radii, _Duel(rows), x, above)
        return value - above, chosen

    def _flippable(self, index: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return which cells are proved flippable, by a vector for each of two classes."""
        x = self.cells.near[index]
        low, high = x.clone(), x.clone()
        fixed = [axis.index for axis, _ in self.ground.view.fixed]
        low[:, fixed], high[:, fixed] = self.ground.lower[fixed], self.ground.upper[fixed]
        low[:, self.ground.axes] = self.cells.lower[index]
        high[:, self.ground.axes] = self.cells.upper[index]
        proved = torch.ones(len(index), dtype=torch.bool)
        for winner, loser in ((first, second), (second, first)):
            _, chosen = self._raised(x, winner, loser)
            boxes = Boxes(low, high)
            forms = self.ground.steered(chosen).moved(boxes, self.labels.leads[winner])
            proved &= (forms.least(boxes) > self.labels.above[winner].unsqueeze(1)).all(dim=1)
        return proved

    def _stable(self, index: Tensor, label: Tensor) -> Tensor:
        """Return which cells are proved stable; free inputs are split as far as it takes."""
        ground = self.ground
        owner = torch.arange(len(index))
        low, high = ground.boxes(self.cells.lower[index], self.cells.upper[index])
        failed = torch.zeros(len(index), dtype=torch.bool)
        for turn in range(_FREE_ROUNDS if ground.free else 1):
            good, slopes = self._leads(low, high, label[owner])
            owner, low, high, slopes = (t[~good] for t in (owner, low, high, slopes))
            if not len(owner) or not ground.free or turn + 1 == _FREE_ROUNDS:
                break
            failed[owner[self._flips_inside(low, high, label[owner])]] = True
            keep = ~failed[owner]
            if int(keep.sum()) > _FREE_BOXES // 2:
                break
            low, high = self._split_free(low[keep], high[keep], slopes[keep])
            owner = owner[keep].repeat(2)
        failed[owner] = True
        return ~failed

    def _leads(self, low: Tensor, high: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the label leads for all parameters, and the leads' slopes."""
        good = torch.zeros(len(low), dtype=torch.bool)
        slopes = torch.zeros_like(low)
        for part in pieces(len(low), self.ground.batch):
            boxes = Boxes(low[part], high[part])
            rows = self.labels.leads[label[part]]
            bound_pass = self.ground.bound_pass
            forms = bound_pass.rows(bound_pass.analyse(boxes), rows, rows)
            above = self.labels.above[label[part]].unsqueeze(1)
            good[part] = (forms.least(boxes) > above).all(dim=1)
            slopes[part] = forms.a.abs().amax(dim=1)
        return good, slopes

    def _flips_inside(self, low: Tensor, high: Tensor, label: Tensor) -> Tensor:
        """Return where another class can win in the middle: such a cell is not stable."""
        x = (low + high) / 2
        rivals = self.labels.margins(self._reference(x)).scatter(1, label.unsqueeze(1), -torch.inf)
        return self._raised(x, rivals.argmax(dim=1), label)[0] > 0

    def _split_free(self, low: Tensor, high: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        free = self.ground.free
        width = (high - low)[:, free]
        gain = slopes[:, free] * width
        share = width / (self.ground.upper - self.ground.lower)[free]
        gain = gain / gain.sum(1, keepdim=True).clamp(min=1e-300) + 0.1 * share
        axis = torch.tensor(free)[gain.argmax(1)].unsqueeze(1)
        middle = ((low + high) / 2).gather(1, axis)
        left, right = high.scatter(1, axis, middle), low.scatter(1, axis, middle)
        return torch.cat([low, right]), torch.cat([left, high])

    def _slopes(self, first: Tensor, second: Tensor) -> Tensor:
        """Return how steep the lead is in the two inputs, ``(batch, 2)``."""
        leaf = self.cells.near.detach().requires_grad_(True)
        with torch.enable_grad():
            lead = (self._reference(leaf) * self.labels.rivals(first, second)).sum()
            (gradient,) = torch.autograd.grad(lead, leaf)
        return gradient[:, self.ground.axes]

"""Branch and bound over inputs and hidden neurons, never over parameters.

One tree for each target; the tree with the largest open bound is worked on next, a batch of its
worst boxes at a time. A box is split along an input, or along one neuron's value in the uncertain
or the reference network, whichever part of the relaxation seems to cost most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paramrob.bounds.ascent import Candidate
from paramrob.bounds.assess import Assessed, Assessor
from paramrob.bounds.linear import Boxes
from paramrob.bounds.targets import Target
from paramrob.verdict import INTERRUPTED, TIME_UP

INF = float("inf")
MEMORY = 2 << 30
"""Bytes that the open boxes may take."""
FEW_INPUTS = 3
"""Up to so many inputs, small batches are split several times in a round."""
CLIMB_EVERY = 8
"""Rounds between local searches from the best candidate."""


@dataclass(frozen=True)
class Goal:
    """When a box need not be looked at any more.

    Attributes:
        tolerance: a box is done when its bound is within this of the best value attained.
        threshold: or when its bound is at most this (``strict``: below this).
        strict: see ``threshold``.
        floor: the value that is attained whatever happens.
    """

    tolerance: float = 0.0
    threshold: float = INF
    strict: bool = False
    floor: float = -INF

    def done(self, bound: Tensor, attained: float) -> Tensor:
        """Return which of the bounds ``(batch,)`` are good enough."""
        if self.threshold < INF:
            return bound < self.threshold if self.strict else bound <= self.threshold
        return bound <= max(attained, self.floor) + self.tolerance


@dataclass
class Tree:
    """The open boxes of one target, their bounds and how each is to be split."""

    target: Target
    boxes: Boxes
    bound: Tensor
    split: Tensor
    at: Tensor
    closed: float = -INF
    in_flight: float = -INF

    def top(self) -> float:
        """Return the largest bound of an open box."""
        return float(self.bound.max()) if self.bound.numel() else -INF

    def upper(self) -> float:
        """Return the proved upper end of the target."""
        return max(self.top(), self.closed, self.in_flight)

    def take(self, count: int) -> tuple[Boxes, Tensor, Tensor, Tensor]:
        """Remove the ``count`` boxes with the largest bounds and return them.

        They count in :meth:`upper` until :meth:`settle` is called, whatever happens in between.
        """
        if count >= self.bound.numel():
            index = torch.arange(self.bound.numel())
        else:
            index = torch.topk(self.bound, count).indices
        self.in_flight = float(self.bound[index].max())
        rest = torch.ones(self.bound.numel(), dtype=torch.bool)
        rest[index] = False
        taken = (select(self.boxes, index), self.bound[index], self.split[index], self.at[index])
        self._keep(rest)
        return taken

    def settle(self) -> None:
        """Say that everything taken was put back or closed."""
        self.in_flight = -INF

    def prune(self, goal: Goal, attained: float) -> None:
        """Close the boxes that are done."""
        if not self.bound.numel():
            return
        done = goal.done(self.bound, attained)
        if bool(done.any()):
            self.closed = max(self.closed, float(self.bound[done].max()))
            self._keep(~done)

    def add(self, boxes: Boxes, bound: Tensor, split: Tensor, at: Tensor) -> None:
        """Put boxes back."""
        cuts = None
        if boxes.cuts is not None and self.boxes.cuts is not None:
            cuts = torch.cat([self.boxes.cuts, boxes.cuts])
        self.boxes = Boxes(
            torch.cat([self.boxes.lower, boxes.lower]),
            torch.cat([self.boxes.upper, boxes.upper]),
            cuts,
        )
        self.bound = torch.cat([self.bound, bound])
        self.split = torch.cat([self.split, split])
        self.at = torch.cat([self.at, at])

    def _keep(self, mask: Tensor) -> None:
        self.boxes = select(self.boxes, mask)
        self.bound, self.split, self.at = self.bound[mask], self.split[mask], self.at[mask]


@dataclass
class Search:
    """The outcome of a search: a proved upper end and the best candidate for the lower one."""

    upper: float
    best: Candidate | None
    best_target: Target | None
    reason: str | None = None
    boxes: int = 0


def select(boxes: Boxes, index: Tensor) -> Boxes:
    """Return some of the boxes."""
    cuts = None if boxes.cuts is None else boxes.cuts[index]
    return Boxes(boxes.lower[index], boxes.upper[index], cuts)


class Explorer:
    """Runs the search."""

    def __init__(
        self,
        assessor: Assessor,
        goal: Goal,
        deadline: float,
        found: Callable[[Target, Candidate], bool] | None = None,
        report: Callable[[float, float], None] | None = None,
    ) -> None:
        self.assessor = assessor
        self.goal = goal
        self.deadline = deadline
        self.found = found
        self.report = report
        self.attained = -INF
        self.best: Candidate | None = None
        self.best_target: Target | None = None
        self.tried: dict[Target, float] = {}
        self.boxes = 0
        self.rounds = 0
        self.stopped = False

    def run(self, targets: Sequence[Target], start: Boxes) -> Search:
        """Search until every target is done, a candidate is accepted, or time is up."""
        trees: list[Tree] = []
        pending = list(targets)
        reason: str | None = None
        try:
            while pending and not self.stopped and time.monotonic() < self.deadline:
                trees.append(self._root(pending[0], start))
                pending.pop(0)
            for tree in trees:
                tree.prune(self.goal, self.attained)
                if tree.bound.numel() and not self.stopped and time.monotonic() < self.deadline:
                    self.offer(tree.target, self.assessor.climb(tree.target))
            while reason is None and not pending and not self.stopped:
                reason = self._next(trees)
        except KeyboardInterrupt:
            reason = INTERRUPTED
        if pending and reason is None:
            reason = TIME_UP
        upper = max((t.upper() for t in trees), default=-INF)
        upper = max([upper, *(target.largest for target in pending)])
        return Search(upper, self.best, self.best_target, reason or None, self.boxes)

    def _next(self, trees: list[Tree]) -> str | None:
        """Do one round; return why to stop (an empty text: everything is done)."""
        for tree in trees:
            tree.prune(self.goal, self.attained)
        tree = max(trees, key=Tree.top)
        if not tree.bound.numel():
            return ""
        if time.monotonic() > self.deadline:
            return TIME_UP
        if sum(self._bytes(t) for t in trees) > MEMORY:
            return "the open boxes filled the memory; widen --tolerance or shrink the box"
        if not self._round(tree):
            return "the bound cannot be improved in float64; widen --tolerance"
        self.rounds += 1
        if self.rounds % CLIMB_EVERY == 0 and self.best is not None and self.best_target:
            self.offer(self.best_target, self.assessor.climb(self.best_target, self.best))
        if self.report:
            self.report(self.attained, max(t.upper() for t in trees))
        return None

    def offer(self, target: Target, candidate: Candidate | None) -> None:
        """Take note of a candidate."""
        if candidate is None:
            return
        if self.found and not self.stopped and candidate.value > self.tried.get(target, -INF):
            self.tried[target] = candidate.value
            self.stopped = self.found(target, candidate)
        if candidate.value > self.attained:
            self.attained, self.best, self.best_target = candidate.value, candidate, target

    def _bytes(self, tree: Tree) -> int:
        total = tree.boxes.lower.numel() * 2 + tree.bound.numel() * 3
        if tree.boxes.cuts is not None:
            total += tree.boxes.cuts.numel()
        return total * 8

    def _root(self, target: Target, start: Boxes) -> Tree:
        largest = torch.full_like(start.lower[:, 0], target.largest)
        assessed = self._assess(target, start, largest)
        self.offer(target, assessed.candidate)
        return Tree(target, start, assessed.bound, assessed.split, assessed.at)

    def _assess(self, target: Target, boxes: Boxes, parent: Tensor) -> Assessed:
        self.boxes += boxes.lower.shape[0]
        return self.assessor.assess(target, boxes, parent, self.goal, self.attained)

    def _round(self, tree: Tree) -> bool:
        """Split a batch of boxes; return whether anything could be split."""
        boxes, bound, split, at = tree.take(self.assessor.batch)
        stuck = split < 0
        if bool(stuck.all()):
            tree.add(boxes, bound, split, at)
            tree.settle()
            return False
        if bool(stuck.any()):
            # What cannot be split any further stays open at its bound.
            tree.closed = max(tree.closed, float(bound[stuck].max()))
            boxes, bound = select(boxes, ~stuck), bound[~stuck]
            split, at = split[~stuck], at[~stuck]
        children = self._children(tree, boxes, split, at)
        parent = torch.cat([bound, bound])
        while self._is_small(children) and bool((split < boxes.lower.shape[1]).all()):
            children = halve(children)
            parent = torch.cat([parent, parent])
        assessed = self._assess(tree.target, children, parent)
        self.offer(tree.target, assessed.candidate)
        done = self.goal.done(assessed.bound, self.attained)
        if bool(done.any()):
            tree.closed = max(tree.closed, float(assessed.bound[done].max()))
        live = ~done
        tree.add(
            select(children, live), assessed.bound[live], assessed.split[live], assessed.at[live]
        )
        tree.settle()
        return True

    def _is_small(self, boxes: Boxes) -> bool:
        """Whether twice as many boxes would cost about the same, and inputs are few."""
        count, inputs = boxes.lower.shape
        shallow = len(self.assessor.bound_pass.chain.layers) <= 2
        return inputs <= FEW_INPUTS and 2 * count <= self.assessor.batch // (4 if shallow else 16)

    def _children(self, tree: Tree, boxes: Boxes, split: Tensor, at: Tensor) -> Boxes:
        inputs = boxes.lower.shape[1]
        if boxes.cuts is None and bool((split >= inputs).any()):
            hidden = self.assessor.bound_pass.hidden
            tree.boxes = replace(tree.boxes, cuts=no_cuts(tree.bound.numel(), hidden))
            boxes = replace(boxes, cuts=no_cuts(split.numel(), hidden))
        index = torch.arange(split.numel())
        low = Boxes(boxes.lower, boxes.upper.clone(), _clone(boxes.cuts))
        high = Boxes(boxes.lower.clone(), boxes.upper, _clone(boxes.cuts))
        on_input = split < inputs
        i, j = index[on_input], split[on_input]
        low.upper[i, j] = at[on_input]
        high.lower[i, j] = at[on_input]
        if low.cuts is not None and high.cuts is not None:
            i, code = index[~on_input], split[~on_input] - inputs
            hidden = low.cuts.shape[2]
            kind, neuron = code // hidden, code % hidden
            low.cuts[i, 2 * kind + 1, neuron] = at[~on_input]
            high.cuts[i, 2 * kind, neuron] = at[~on_input]
            cuts: Tensor | None = torch.cat([low.cuts, high.cuts])
        else:
            cuts = None
        return Boxes(torch.cat([low.lower, high.lower]), torch.cat([low.upper, high.upper]), cuts)


def halve(boxes: Boxes) -> Boxes:
    """Halve every box along its input that is the widest compared with the whole batch's."""
    width = boxes.upper - boxes.lower
    index, axis = torch.arange(width.shape[0]), (width / width.mean(0)).nan_to_num().argmax(1)
    middle = ((boxes.lower + boxes.upper) / 2)[index, axis]
    low, high = boxes.upper.clone(), boxes.lower.clone()
    low[index, axis] = high[index, axis] = middle
    cuts = None if boxes.cuts is None else torch.cat([boxes.cuts, boxes.cuts])
    return Boxes(torch.cat([boxes.lower, high]), torch.cat([low, boxes.upper]), cuts)


def no_cuts(count: int, hidden: int) -> Tensor:
    """Return cuts ``(count, 4, hidden)`` that cut nothing."""
    cuts = torch.empty(count, 4, hidden, dtype=torch.float64)
    cuts[:, 0::2], cuts[:, 1::2] = -INF, INF
    return cuts


def _clone(cuts: Tensor | None) -> Tensor | None:
    return None if cuts is None else cuts.clone()

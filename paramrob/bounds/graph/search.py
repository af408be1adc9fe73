"""Branch and bound: what optimised slopes leave open is split neuron by neuron, or by inputs.

Wang et al., *Beta-CROWN: efficient bound propagation with per-neuron split constraints for neural
network robustness verification*, NeurIPS 2021. A ReLU is split at 0, a smooth activation in the
middle of its interval. Intervals of the root are kept; a cut narrows its own step's interval, and
multipliers carry it to all other steps. Open pieces of many points share a batch.

Where the inputs are a box, the activation whose relaxation costs most competes with the inputs
that weigh most: the children of each are bounded, and the split whose worse child is best is made
(filtered smart branching: De Palma et al., *Improved branch and bound for neural network
verification via Lagrangian decomposition*, 2021). A smaller box of inputs narrows all intervals
anew; an input of either sign is split at 0, where its slack has its kink.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import snaps
from paramrob.bounds.graph.backward import Rows, pull
from paramrob.bounds.graph.crown import Analysis, GraphPass, bends
from paramrob.bounds.graph.forward import Interval, Intervals
from paramrob.bounds.graph.lines import Lines, lines, slopes
from paramrob.bounds.graph.multipliers import Free
from paramrob.bounds.graph.pieces import Ends, Pieces
from paramrob.models.network import Activation

INF = float("inf")
STEPS = 12
"""Gradient steps on the slopes and multipliers of one piece."""
LAST_STEPS = 300
"""The same, of a piece that no activation splits further."""
AXES = 3
"""Inputs that are tried as splits of a piece."""
FAINT = 1e-9
"""What an input weighs at least, so that wide ones are preferred among those without a weight."""
ADVANTAGE = 4.0
"""How many times more an input's split has to gain than an activation's.

The estimate leaves out what multipliers add to the latter.
"""
NARROWEST = 2.0**-12
"""Of the width of a box of inputs, what is not split any more."""
LARGEST = 1e300
KINKS = {"relu": 0.0, "leaky_relu": 0.0}


class Splitter:
    """Branch and bound on rows of some instances.

    Args:
        analysis: of the instances, with lines.
        rows: ``(batch, rows, out)``.
        threshold: ``(batch, rows)``: a row is proved where it is certainly above.
        budget: numbers that one bound may hold at a time.
        bound_pass: that made the analysis; without it inputs are not split.
    """

    def __init__(
        self,
        analysis: Analysis,
        rows: Tensor,
        threshold: Tensor,
        budget: int,
        bound_pass: GraphPass | None = None,
    ) -> None:
        self.analysis, self.rows, self.threshold = analysis, rows, threshold
        box = analysis.intervals.known[0]
        self.bound_pass = bound_pass if bool((box.low < box.high).any()) else None
        steps = analysis.intervals.program.steps
        self.read = sorted({s.inputs[0] for s in steps if isinstance(s.kind, Activation)})
        held = sum(steps[k].size for k in self.read)
        self.batch = max(1, min(512, budget // (64 * max(sum(s.size for s in steps), 1))))
        held = held if self.bound_pass is None else 2 * held + steps[0].size
        self.most = max(64, budget // max(2 * held, 1))
        self.deadline = INF

    def run(self, bound: Tensor, deadline: float) -> Tensor:
        """Return which instances are proved, ``(batch,)``.

        Args:
            bound: of each row so far, ``(batch, rows)``.
            deadline: of :func:`time.monotonic`.
        """
        self.deadline = deadline
        open_rows = (bound <= self.threshold).nonzero()
        pieces = self._root(open_rows[:, 0], open_rows[:, 1], bound)
        lost = torch.zeros(bound.shape[0], dtype=torch.bool, device=bound.device)
        while len(pieces) and time.monotonic() < deadline:
            if len(pieces) > self.most:
                break
            order = torch.argsort(pieces.bound - self._aim(pieces))
            now, later = pieces.part(order[: self.batch]), pieces.part(order[self.batch :])
            now = self._finished(now)
            if not len(now):
                pieces = later
                continue
            children, whole = self._children(now)
            lost[now.instance[whole]] = True
            if len(children):
                self._assess(children)
                children = children.part((children.bound <= self._aim(children)).nonzero()[:, 0])
            pieces = Pieces.joined([children, later])
            # An instance with a piece that nothing splits further stays open as a whole.
            pieces = pieces.part((~lost[pieces.instance]).nonzero()[:, 0])
        proved = torch.ones_like(lost)
        proved[pieces.instance] = False
        return proved & ~lost

    def _aim(self, pieces: Pieces) -> Tensor:
        return self.threshold[pieces.instance, pieces.row]

    def _root(self, instance: Tensor, row: Tensor, bound: Tensor) -> Pieces:
        known = self.analysis.intervals.known
        cuts: Ends = {}
        for k in self.read:
            none = torch.full_like(known[k].low[instance], INF)
            cuts[k] = (-none, none)
        boxes: Ends = {}
        if self.bound_pass is not None:
            for k in {0, *self.read}:
                boxes[k] = (known[k].low[instance], known[k].high[instance])
        return Pieces(instance, row, cuts, boxes, bound[instance, row])

    def _intervals(self, pieces: Pieces) -> Intervals:
        """Return the intervals of the pieces, narrowed by their cuts."""
        part = self.analysis.intervals.part(pieces.instance)
        for ends in (pieces.known, pieces.cuts):
            for k, (low, high) in ends.items():
                part.known[k] = part.known[k].met(Interval(low, high))
        return part

    def _finished(self, pieces: Pieces) -> Pieces:
        """Leave out what multipliers prove of pieces that no activation splits further."""
        intervals = self._intervals(pieces)
        weights, _ = self._weights(intervals, pieces)
        whole = (self._costliest(intervals, weights, pieces)[0] < 0).nonzero()[:, 0]
        if not len(whole):
            return pieces
        last = pieces.part(whole)
        self._assess(last, LAST_STEPS)
        pieces.bound[whole] = last.bound
        return pieces.part((pieces.bound <= self._aim(pieces)).nonzero()[:, 0])

    def _children(self, pieces: Pieces) -> tuple[Pieces, Tensor]:
        """Split every piece in two; also say which cannot be split."""
        intervals = self._intervals(pieces)
        weights, inputs = self._weights(intervals, pieces)
        step, neuron = self._costliest(intervals, weights, pieces)
        whole = step < 0
        if self.bound_pass is None:
            return self._cut(intervals, pieces, (~whole).nonzero()[:, 0], step, neuron), whole
        tried: list[Pieces] = []
        merits = []
        own = self._merit(Pieces.joined([pieces, pieces]))
        for split in self._candidates(intervals, inputs, pieces):
            children = self._halved(pieces, *split)
            tried.append(children)
            gain = self._merit(children) - own
            gain = torch.where(gain > 0, gain / ADVANTAGE, gain)
            merits.append((own + gain).masked_fill(split[2], -INF))
        can = (~whole).nonzero()[:, 0]
        children = self._cut(intervals, pieces, can, step, neuron)
        merit = torch.full_like(pieces.bound, -INF)
        merit[can] = self._merit(children)
        place = torch.zeros_like(whole, dtype=torch.long)
        place[can] = torch.arange(len(can), device=place.device)
        return self._chosen(children, place, tried, torch.stack([merit, *merits]), whole)

    def _chosen(
        self, cut: Pieces, place: Tensor, tried: list[Pieces], merits: Tensor, whole: Tensor
    ) -> tuple[Pieces, Tensor]:
        """Return the children of each piece's best split, and which pieces have none.

        Args:
            cut: by activations, of the pieces that have such a split: first halves, then second.
            place: of a piece among them.
            tried: by inputs, of all pieces.
            merits: ``(splits, pieces)``, that of the activation first; -inf where there is none.
            whole: which pieces have no split by an activation.
        """
        best, which = merits.max(0)
        none = whole & (best == -INF)
        count = len(place)
        parts = []
        for number, children in enumerate([cut, *tried]):
            taken = ((which == number) & ~none).nonzero()[:, 0]
            if number == 0:
                at, half = place[taken], len(cut) // 2
            else:
                at, half = taken, count
            parts.append(children.part(torch.cat([at, at + half])))
        return Pieces.joined(parts), none

    def _merit(self, children: Pieces) -> Tensor:
        """Return how far the worse of two children is bounded, ``(pieces,)``."""
        if not len(children):
            return children.bound
        intervals = self._intervals(children)
        found = self._all_lines(intervals)
        value = pull(intervals, found, self._rows(children)).squeeze(1) - self._aim(children)
        value = torch.where(self._empty(intervals), INF, value)
        # A child that is proved is done with, however far it is proved.
        value = value.clamp(min=-LARGEST, max=0.0)
        left, right = value.chunk(2)
        return torch.minimum(left, right)

    @staticmethod
    def _empty(intervals: Intervals) -> Tensor:
        """Return in which pieces nothing is left: two proved ends cross, ``(pieces,)``."""
        found = torch.zeros_like(intervals.known[0].low[:, 0], dtype=torch.bool)
        for known in intervals.known:
            found |= (known.low > known.high).any(1)
        return found

    def _candidates(
        self, intervals: Intervals, inputs: Tensor, pieces: Pieces
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield an axis of each piece, where to split it, and of which pieces it is no split."""
        box = intervals.known[0]
        cross = (box.low < 0) & (box.high > 0)
        middle = torch.where(cross, 0.0, box.low + (box.high - box.low) / 2)
        root = self.analysis.intervals.known[0]
        wide = (root.high - root.low).amax(1)[pieces.instance] * NARROWEST
        can = (box.low < middle) & (middle < box.high) & (box.high - box.low > wide.unsqueeze(1))
        weight = torch.where(can, (box.high - box.low) * (inputs.abs() + FAINT), -1.0)
        order = weight.argsort(1, descending=True)
        for axis in order.T[:AXES]:
            at = axis.unsqueeze(1)
            lost = ~can.gather(1, at).squeeze(1)
            if not bool(lost.all()):
                yield axis, middle.gather(1, at).squeeze(1), lost

    def _halved(self, pieces: Pieces, axis: Tensor, where: Tensor, lost: Tensor) -> Pieces:
        """Return first halves, then second, with intervals of their own."""
        if self.bound_pass is None:
            return pieces
        every = torch.arange(len(pieces), device=axis.device)
        left, right = pieces.part(every), pieces.part(every)
        left.known[0][1][every, axis] = where
        right.known[0][0][every, axis] = where
        both = Pieces.joined([left, right])
        low, high = both.known[0]
        fresh = self.bound_pass.analyse(low, high).intervals.known
        for k in self.read:
            met = fresh[k].met(Interval(*both.known[k]))
            both.known[k] = (met.low, met.high)
        return both

    def _costliest(
        self, intervals: Intervals, weights: dict[int, Tensor], pieces: Pieces
    ) -> tuple[Tensor, Tensor]:
        """Return the step and neuron whose relaxation costs most; step -1 where none costs."""
        best = torch.zeros_like(pieces.bound)
        step = torch.full_like(pieces.instance, -1)
        neuron = torch.zeros_like(pieces.instance)
        for k, score in self._scores(intervals, weights).items():
            value, at = score.max(1)
            better = value > best
            best = torch.where(better, value, best)
            step, neuron = torch.where(better, k, step), torch.where(better, at, neuron)
        return step, neuron

    def _cut(
        self, intervals: Intervals, pieces: Pieces, splits: Tensor, step: Tensor, neuron: Tensor
    ) -> Pieces:
        """Return the pieces ``splits`` in two by an activation: first halves, then second."""
        left, right = pieces.part(splits), pieces.part(splits)
        for piece, (k, n) in enumerate(
            zip(step[splits].tolist(), neuron[splits].tolist(), strict=True)
        ):
            known = intervals.known[k]
            source = splits[piece]
            where = self._where(k, known.low[source, n], known.high[source, n])
            left.cuts[k][1][piece, n] = where
            right.cuts[k][0][piece, n] = where
        return Pieces.joined([left, right])

    def _where(self, k: int, low: Tensor, high: Tensor) -> Tensor:
        """Return where to split: at a kink inside, else in the middle."""
        steps = self.analysis.intervals.program.steps
        for step in steps:
            if isinstance(step.kind, Activation) and step.inputs[0] == k:
                kink = KINKS.get(step.kind.kind)
                if kink is not None and low < kink < high:
                    return torch.full_like(low, kink)
        return low + (high - low) / 2

    def _scores(self, intervals: Intervals, weights: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return what each neuron's relaxation costs the row at most, by the step that is read."""
        found: dict[int, Tensor] = {}
        for k, step in enumerate(intervals.program.steps):
            if not isinstance(step.kind, Activation) or k not in weights:
                continue
            given = intervals.known[step.inputs[0]]
            line = self._lines(step.kind, given)
            tilt, gap = line.high_slope - line.low_slope, line.high - line.low
            most = torch.maximum(tilt * given.low + gap, tilt * given.high + gap)
            score = weights[k].abs() * torch.where(bends(step.kind, given), most, 0.0)
            score = torch.where(torch.isfinite(score), score, 0.0)
            at = step.inputs[0]
            found[at] = score if at not in found else found[at] + score
        return found

    def _weights(self, intervals: Intervals, pieces: Pieces) -> tuple[dict[int, Tensor], Tensor]:
        """Return coefficients on the activations' results, and those on the inputs."""
        rows = self._rows(pieces)
        pull(intervals, self._all_lines(intervals), rows, keep=True)
        found = {k: a.squeeze(1) for k, a in rows.seen.items()}
        return found, found.pop(0, torch.zeros_like(intervals.known[0].low))

    def _all_lines(self, intervals: Intervals) -> dict[int, Lines]:
        return snaps(intervals) | {
            k: self._lines(step.kind, intervals.known[step.inputs[0]])
            for k, step in enumerate(intervals.program.steps)
            if isinstance(step.kind, Activation)
        }

    def _lines(self, op: Activation, given: Interval) -> Lines:
        return lines(op, given.low, given.high, *slopes(op, given.low, given.high))

    def _rows(self, pieces: Pieces) -> Rows:
        rows = self.rows[pieces.instance, pieces.row].unsqueeze(1)
        zero = rows.new_zeros(rows.shape[:2])
        return Rows({len(self.analysis.intervals.program.steps) - 1: rows}, zero, zero)

    def _assess(self, pieces: Pieces, steps: int = STEPS) -> None:
        """Raise the pieces' bounds by gradient steps on slopes and multipliers."""
        for start in range(0, len(pieces), self.batch):
            if time.monotonic() > self.deadline:
                return
            end = min(start + self.batch, len(pieces))
            at = torch.arange(start, end, device=pieces.bound.device)
            part = pieces.part(at)
            pieces.bound[at] = torch.maximum(part.bound, self._optimised(part, steps))

    def _optimised(self, pieces: Pieces, steps: int) -> Tensor:
        intervals = self._intervals(pieces)
        empty = self._empty(intervals)
        free = Free(intervals, pieces.cuts)
        best = torch.full_like(pieces.bound, -INF)
        aim = self._aim(pieces)
        for number in range(steps + 1):
            rows = self._rows(pieces)
            rows.cuts = free.cuts
            value = pull(intervals, free.lines(), rows).squeeze(1)
            best = torch.maximum(best, value.detach())
            late = time.monotonic() > self.deadline
            done = late or number == steps or free.still
            if done or bool(((best > aim) | empty).all()):
                break
            free.climb(value)
        return torch.where(empty, INF, best)

"""Branch and bound on activations: what optimised slopes leave open is split neuron by neuron.

Wang et al., *Beta-CROWN: efficient bound propagation with per-neuron split constraints for neural
network robustness verification*, NeurIPS 2021. A ReLU is split at 0, a smooth activation in the
middle of its interval. Intervals of the root are kept; a cut narrows its own step's interval, and
multipliers carry it to all other steps. Open pieces of many points share a batch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import DECAY, RATE, Slopes
from paramrob.bounds.graph.backward import Cut, Rows, pull
from paramrob.bounds.graph.crown import Analysis, bends
from paramrob.bounds.graph.forward import Interval, Intervals
from paramrob.bounds.graph.lines import Lines, lines, slopes
from paramrob.models.network import Activation

INF = float("inf")
MULTIPLIER_RATE = 0.1
STEPS = 12
"""Gradient steps on the slopes and multipliers of one piece."""
LAST_STEPS = 300
"""The same, of a piece that nothing splits further."""
KINKS = {"relu": 0.0, "leaky_relu": 0.0}


@dataclass
class Pieces:
    """Open pieces: of which instance and row, their cuts, and their bounds so far.

    ``cuts`` holds ``(low, high)`` by the step that an activation reads, ``(pieces, n)`` each.
    """

    instance: Tensor
    row: Tensor
    cuts: dict[int, tuple[Tensor, Tensor]]
    bound: Tensor

    def part(self, index: Tensor) -> Pieces:
        """Return some of them."""
        cuts = {k: (a[index], b[index]) for k, (a, b) in self.cuts.items()}
        return Pieces(self.instance[index], self.row[index], cuts, self.bound[index])

    @classmethod
    def joined(cls, parts: list[Pieces]) -> Pieces:
        """Return all of them together."""
        cuts = {
            k: (torch.cat([p.cuts[k][0] for p in parts]), torch.cat([p.cuts[k][1] for p in parts]))
            for k in parts[0].cuts
        }
        return cls(
            torch.cat([p.instance for p in parts]),
            torch.cat([p.row for p in parts]),
            cuts,
            torch.cat([p.bound for p in parts]),
        )

    def __len__(self) -> int:
        return self.instance.numel()


class Splitter:
    """Branch and bound on rows of some instances.

    Args:
        analysis: of the instances, with lines.
        rows: ``(batch, rows, out)``.
        threshold: ``(batch, rows)``: a row is proved where it is certainly above.
        budget: numbers that one bound may hold at a time.
    """

    def __init__(self, analysis: Analysis, rows: Tensor, threshold: Tensor, budget: int) -> None:
        self.analysis, self.rows, self.threshold = analysis, rows, threshold
        steps = analysis.intervals.program.steps
        self.read = sorted({s.inputs[0] for s in steps if isinstance(s.kind, Activation)})
        held = sum(steps[k].size for k in self.read)
        self.batch = max(1, min(512, budget // (64 * max(sum(s.size for s in steps), 1))))
        self.most = max(64, budget // max(2 * held, 1))

    def run(self, bound: Tensor, deadline: float) -> Tensor:
        """Return which instances are proved, ``(batch,)``.

        Args:
            bound: of each row so far, ``(batch, rows)``.
            deadline: of :func:`time.monotonic`.
        """
        open_rows = (bound <= self.threshold).nonzero()
        pieces = self._root(open_rows[:, 0], open_rows[:, 1], bound)
        lost = torch.zeros(bound.shape[0], dtype=torch.bool, device=bound.device)
        while len(pieces) and time.monotonic() < deadline:
            if len(pieces) > self.most:
                break
            order = torch.argsort(pieces.bound - self._aim(pieces))
            now, later = pieces.part(order[: self.batch]), pieces.part(order[self.batch :])
            children, whole = self._children(now)
            if bool(whole.any()):
                last = now.part(whole.nonzero()[:, 0])
                # Nothing is left to split: what remains is up to the multipliers.
                self._assess(last, LAST_STEPS)
                lost[last.instance[last.bound <= self._aim(last)]] = True
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
        cuts = {}
        for k in self.read:
            none = torch.full_like(known[k].low[instance], INF)
            cuts[k] = (-none, none)
        return Pieces(instance, row, cuts, bound[instance, row])

    def _intervals(self, pieces: Pieces) -> Intervals:
        """Return the root's intervals of the pieces' instances, narrowed by their cuts."""
        part = self.analysis.intervals.part(pieces.instance)
        for k, (low, high) in pieces.cuts.items():
            part.known[k] = part.known[k].met(Interval(low, high))
        return part

    def _children(self, pieces: Pieces) -> tuple[Pieces, Tensor]:
        """Split every piece in two; also say which cannot be split."""
        intervals = self._intervals(pieces)
        best = torch.zeros_like(pieces.bound)
        step = torch.full_like(pieces.instance, -1)
        neuron = torch.zeros_like(pieces.instance)
        weights = self._weights(intervals, pieces)
        for k, score in self._scores(intervals, weights).items():
            value, at = score.max(1)
            better = value > best
            best = torch.where(better, value, best)
            step, neuron = torch.where(better, k, step), torch.where(better, at, neuron)
        splits = (step >= 0).nonzero()[:, 0]
        left, right = pieces.part(splits), pieces.part(splits)
        for piece, (k, n) in enumerate(
            zip(step[splits].tolist(), neuron[splits].tolist(), strict=True)
        ):
            known = intervals.known[k]
            source = splits[piece]
            where = self._where(k, known.low[source, n], known.high[source, n])
            left.cuts[k][1][piece, n] = where
            right.cuts[k][0][piece, n] = where
        return Pieces.joined([left, right]), (step < 0)

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

    def _weights(self, intervals: Intervals, pieces: Pieces) -> dict[int, Tensor]:
        found = {
            k: self._lines(step.kind, intervals.known[step.inputs[0]])
            for k, step in enumerate(intervals.program.steps)
            if isinstance(step.kind, Activation)
        }
        rows = self._rows(pieces)
        pull(intervals, found, rows, keep=True)
        return {k: a.squeeze(1) for k, a in rows.seen.items()}

    def _lines(self, op: Activation, given: Interval) -> Lines:
        return lines(op, given.low, given.high, *slopes(op, given.low, given.high))

    def _rows(self, pieces: Pieces) -> Rows:
        rows = self.rows[pieces.instance, pieces.row].unsqueeze(1)
        zero = rows.new_zeros(rows.shape[:2])
        return Rows({len(self.analysis.intervals.program.steps) - 1: rows}, zero, zero)

    def _assess(self, pieces: Pieces, steps: int = STEPS) -> None:
        """Raise the pieces' bounds by gradient steps on slopes and multipliers."""
        for start in range(0, len(pieces), self.batch):
            at = torch.arange(start, min(start + self.batch, len(pieces)))
            at = at.to(pieces.bound.device)
            part = pieces.part(at)
            pieces.bound[at] = torch.maximum(part.bound, self._optimised(part, steps))

    def _optimised(self, pieces: Pieces, steps: int) -> Tensor:
        intervals = self._intervals(pieces)
        free = {
            k: Slopes.of(step.kind, given.low, given.high, 1)
            for k, step in enumerate(intervals.program.steps)
            if isinstance(step.kind, Activation)
            for given in (intervals.known[step.inputs[0]],)
        }
        cuts = {
            k: Cut(
                low,
                high,
                torch.zeros_like(low).requires_grad_(),
                torch.zeros_like(high).requires_grad_(),
            )
            for k, (low, high) in pieces.cuts.items()
            if bool(torch.isfinite(low).any() | torch.isfinite(high).any())
        }
        slopes = [t for s in free.values() for t in s.leaves]
        multipliers = [t for c in cuts.values() for t in (c.on_low, c.on_high)]
        if not slopes:  # a network without activations: its rows have one bound only
            return pull(intervals, {}, self._rows(pieces)).squeeze(1)
        groups = [{"params": slopes, "lr": RATE}]
        if multipliers:
            groups.append({"params": multipliers, "lr": MULTIPLIER_RATE})
        optimiser = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
        best = torch.full_like(pieces.bound, -INF)
        aim = self._aim(pieces)
        for number in range(steps + 1):
            rows = self._rows(pieces)
            rows.cuts = cuts
            value = pull(intervals, {k: s.lines() for k, s in free.items()}, rows).squeeze(1)
            best = torch.maximum(best, value.detach())
            if number == steps or bool((best > aim).all()):
                break
            optimiser.zero_grad()
            finite = torch.where(torch.isfinite(value), value, 0.0)
            (-finite.sum()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for s in free.values():
                    s.clamp()
                for t in multipliers:
                    t.clamp_(min=0)
        return best

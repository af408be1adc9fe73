"""Interval, CROWN-IBP and CROWN bounds of one program on batches of inputs.

Interval bounds: Gowal et al., *Scalable verified training for provably robust image
classification*, ICCV 2019. CROWN-IBP (intervals inside, one backward pass at the end): Zhang et
al., *Towards stable and efficient training of verifiably robust neural networks*, ICLR 2020.
CROWN (a backward pass for every activation's input): :mod:`paramrob.bounds.graph.backward`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paramrob.arithmetic import Arithmetic
from paramrob.bounds.graph.affine import Affine
from paramrob.bounds.graph.backward import Rows, pull, slackened
from paramrob.bounds.graph.change import Change, change_planes, undecided
from paramrob.bounds.graph.forward import Interval, Intervals, factor, tiny
from paramrob.bounds.graph.lines import Lines, Prepared, best_slopes
from paramrob.bounds.graph.program import Program
from paramrob.bounds.graph.snap import Snap, snap_lines
from paramrob.engine import Method
from paramrob.errors import SoundnessError
from paramrob.models.network import Activation

INF = float("inf")
BUDGET = 1 << 24
"""Numbers that a backward pass may hold at a time, by default."""
CACHED = 1 << 21
"""The same on a CPU, whose caches hold no more: larger passes are slower there."""


@dataclass(frozen=True)
class Analysis:
    """Intervals of all steps on a batch of inputs, and choices of lines of all activations.

    No rule gets a ReLU's slope below right for every row; a row is pulled with each choice, and
    its best value counts. Every line is valid on its step's interval.

    Attributes:
        intervals: of all steps.
        lines: of the least area on the narrowest intervals known.
        flat: the same but for the slope 0 below wherever a ReLU bends.
        plain: what CROWN alone would choose, on intervals that only itself has narrowed: narrower
            intervals turn slopes, and with these no bound of a dense chain is worse for them.
        more: further choices.
    """

    intervals: Intervals
    lines: dict[int, Lines]
    flat: dict[int, Lines]
    plain: dict[int, Lines]
    more: tuple[dict[int, Lines], ...] = ()

    @property
    def choices(self) -> list[dict[int, Lines]]:
        """Return the choices that differ."""
        return different([self.lines, self.flat, self.plain, *self.more])

    @property
    def batch(self) -> int:
        """How many inputs."""
        return self.intervals.known[0].low.shape[0]

    def part(self, index: Tensor) -> Analysis:
        """Return that of some inputs."""
        # One object for one line, so that choices that agree are known to.
        seen: dict[int, Lines] = {}

        def some(choice: dict[int, Lines]) -> dict[int, Lines]:
            for line in choice.values():
                if id(line) not in seen:
                    seen[id(line)] = line.part(index)
            return {k: seen[id(line)] for k, line in choice.items()}

        lines, flat, plain = some(self.lines), some(self.flat), some(self.plain)
        more = tuple(some(choice) for choice in self.more)
        return Analysis(self.intervals.part(index), lines, flat, plain, more)


class GraphPass:
    """The bound pass of one program.

    Args:
        program: of the uncertain network.
        budget: numbers that a backward pass may hold at a time; more rows than that go through
            in several passes.
        single: whether one choice of lines is enough: half of the time, and where a search
            bounds many boxes hardly a looser bound.
    """

    def __init__(self, program: Program, budget: int = BUDGET, single: bool = False) -> None:
        self.program = program
        self.budget, self.single = budget, single
        self.widest = max(
            step.kind.working if isinstance(step.kind, Affine) else step.size
            for step in program.steps
        )
        bent = (Activation, Snap)
        self.read = {step.inputs[0] for step in program.steps if isinstance(step.kind, bent)}
        for step in program.steps:
            if isinstance(step.kind, Change):
                self.read.update(step.inputs[1:])

    def analyse(
        self, low: Tensor, high: Tensor, method: Method = "crown", deadline: float = INF
    ) -> Analysis:
        """Bound every step on every input box.

        Args:
            low: least inputs, ``(batch, in)``.
            high: largest ones.
            method: ``ibp`` and ``crown-ibp`` leave the intervals as they are; the others pull
                rows back for every neuron whose activation's relaxation depends on it.
            deadline: of :func:`time.monotonic`, after which no further row is pulled back:
                intervals stay as wide as they are.
        """
        backward = method in ("crown", "alpha")
        found: list[dict[int, Lines]] = [{}, {}, {}]
        alone: dict[int, Interval] = {}

        def refine(intervals: Intervals, k: int) -> None:
            step = self.program.steps[k]
            if method != "ibp" and isinstance(step.kind, Activation):
                given = intervals.known[step.inputs[0]]
                wide = alone.get(step.inputs[0], given)
                if self.single:
                    found[0][k] = found[1][k] = found[2][k] = heuristic(step.kind, given)
                else:
                    line, found[1][k] = steep_and_flat(step.kind, given)
                    found[0][k] = line
                    found[2][k] = line if wide is given else heuristic(step.kind, wide)
            if method != "ibp" and isinstance(step.kind, Snap):
                given = intervals.known[step.inputs[0]]
                slanted, level = snap_lines(step.kind, given.low, given.high)
                found[0][k] = found[2][k] = slanted
                found[1][k] = slanted if self.single else level
            if method != "ibp" and isinstance(step.kind, Change):
                z, e, p = (intervals.known[i] for i in step.inputs)
                ends = ((i.low, i.high) for i in (z, e, p))
                intervals.planes[k] = change_planes(step.kind, *ends)
            # last: a step that is read may be an activation itself
            if backward and k in self.read and not intervals.tight[k]:
                alone[k] = self._narrow(intervals, found, k, deadline)

        if self.program.arithmetic is not None:
            low, high = stored(self.program.arithmetic, low, high)
        intervals = Intervals.start(self.program, low, high).run(refine)
        return Analysis(intervals, found[0], found[1], found[2])

    def bound(
        self, analysis: Analysis, rows: Tensor, method: Method = "crown", deadline: float = INF
    ) -> Tensor:
        """Return least values ``(batch, rows)`` of ``(batch, rows, out)`` rows over the results.

        After ``deadline`` of :func:`time.monotonic` intervals alone have to do.
        """
        last = len(self.program.steps) - 1
        if method == "ibp":
            return self._concretised(analysis, rows)
        at_once = self.rows_at_once(rows)
        best = self._concretised(analysis, rows)
        for chosen in analysis.choices:
            for i in range(0, rows.shape[1], at_once):
                if time.monotonic() > deadline:
                    return best
                part = slice(i, i + at_once)
                value = pull(analysis.intervals, chosen, self._start(last, rows[:, part]))
                best[:, part] = torch.maximum(best[:, part], value)
        return best

    def slopes(self, analysis: Analysis, rows: Tensor) -> Tensor:
        """Return the coefficients of rows on the inputs, ``(batch, rows, in)``, for heuristics."""
        last = len(self.program.steps) - 1
        start = self._start(last, rows)
        pull(analysis.intervals, analysis.lines, start, keep=True)
        return start.seen.get(0, rows.new_zeros(*rows.shape[:2], self.program.steps[0].size))

    def _concretised(self, analysis: Analysis, rows: Tensor) -> Tensor:
        """Merge the rows with a last affine layer, then take the interval of what it reads."""
        last = len(self.program.steps) - 1
        intervals = analysis.intervals
        given = self.program.steps[last].inputs
        sources = list(intervals.sources)
        for i in given or (last,):
            sources[i] = True
        stopped = replace(intervals, sources=sources)
        if not isinstance(self.program.steps[last].kind, Affine):
            sources[last] = True
        return pull(stopped, {}, self._start(last, rows))

    def _start(self, step: int, rows: Tensor) -> Rows:
        zero = rows.new_zeros(rows.shape[:2])
        return Rows({step: rows}, zero, zero)

    def _narrow(
        self, intervals: Intervals, found: list[dict[int, Lines]], k: int, deadline: float
    ) -> Interval:
        """Pull rows back for the neurons of step ``k`` whose interval matters.

        Returns:
            What the plain choice of lines says alone.
        """
        known = intervals.known[k]
        if self.listed(k) and not self.single:
            # CROWN alone may leave the sign of a neuron open that intervals tell.
            every = torch.arange(known.low.shape[1], device=known.low.device).unsqueeze(0)
            plain = self._pulled(intervals, found[2], k, every, deadline)
        else:
            plain = self._narrowed(intervals, known, found[2], k, deadline)
        known = known.met(plain)
        for chosen in different([found[2], *found])[1:]:
            known = self._narrowed(intervals, known, chosen, k, deadline)
        # NaN contradicts nothing: it is no bound. There are no cuts here, so that no set is empty.
        if bool((known.low > known.high).any()):
            raise SoundnessError(
                f"two proved ends of step {k} cross; this is a defect of paramrob: please report it"
            )
        intervals.known[k] = known
        return known if self.single else plain

    def _narrowed(
        self,
        intervals: Intervals,
        known: Interval,
        chosen: dict[int, Lines],
        k: int,
        deadline: float,
    ) -> Interval:
        """Return what is known of step ``k``, narrowed where it matters by one choice of lines."""
        index, count = needed(self.matters(k, known, intervals))
        if not count:
            return known
        ends = self._pulled(intervals, chosen, k, index, deadline)
        return Interval(
            known.low.scatter_reduce(1, index, ends.low, "amax"),
            known.high.scatter_reduce(1, index, ends.high, "amin"),
        )

    def rows_at_once(self, given: Tensor) -> int:
        """Return how many rows a pass may pull back of each instance of ``(batch, ...)``."""
        numbers = min(self.budget, CACHED) if given.device.type == "cpu" else self.budget
        return max(1, numbers // (given.shape[0] * self.widest))

    def listed(self, k: int) -> bool:
        """Whether rows for all neurons of the step are at hand."""
        kind = self.program.steps[k].kind
        none = torch.empty(1, 0, dtype=torch.long, device="cpu")
        return isinstance(kind, Affine) and kind.rows(none) is not None

    def _pulled(
        self,
        intervals: Intervals,
        chosen: dict[int, Lines],
        k: int,
        index: Tensor,
        deadline: float,
    ) -> Interval:
        """Bound the neurons ``index`` ``(batch or 1, rows)`` of a step with one choice of lines."""
        known = intervals.known[k].low
        batch, size = known.shape
        per_pass = max(1, self.rows_at_once(known) // 2)
        low = known.new_full((batch, index.shape[1]), -INF)
        high = -low
        for start in range(0, index.shape[1], per_pass):
            if time.monotonic() > deadline:
                break
            at = index[:, start : start + per_pass]
            values = pull(intervals, chosen, self.neurons(intervals, k, at, size))
            low[:, start : start + per_pass] = values[:, : at.shape[1]]
            high[:, start : start + per_pass] = -values[:, at.shape[1] :]
        return Interval(low, high)

    def matters(self, k: int, known: Interval, intervals: Intervals) -> Tensor:
        """Return which neurons of step ``k`` an activation bends, ``(batch, n)``."""
        mask = torch.zeros_like(known.low, dtype=torch.bool)
        for step in self.program.steps:
            if isinstance(step.kind, Activation) and step.inputs[0] == k:
                mask |= bends(step.kind, known)
            if isinstance(step.kind, Snap) and step.inputs[0] == k:
                mask |= known.low < known.high
            if isinstance(step.kind, Change) and k in step.inputs[1:]:
                z, p = intervals.known[step.inputs[0]], intervals.known[step.inputs[2]]
                mask |= undecided(step.kind, (z.low, z.high), (p.low, p.high))
        return mask

    def neurons(self, intervals: Intervals, k: int, at: Tensor, size: int) -> Rows:
        """Return rows for the neurons ``at`` ``(batch or 1, rows)``: first plus, then minus."""
        step = self.program.steps[k]
        given = step.kind.rows(at) if isinstance(step.kind, Affine) else None
        if given is None or not isinstance(step.kind, Affine):
            one = torch.zeros(*at.shape, size, dtype=intervals.known[k].low.dtype, device=at.device)
            one.scatter_(2, at.unsqueeze(2), 1.0)
            return self._start(k, torch.cat([one, -one], 1))
        layer = step.kind
        known = intervals.known[step.inputs[0]]
        weight, radius = given
        both = torch.cat([weight, -weight], 1)
        constant = layer.bias[at]
        constant = torch.cat([constant, -constant], 1)
        cost = layer.bias_radius[at].repeat(1, 2)
        if layer.perturbed:
            both, extra = slackened(radius.repeat(1, 2, 1), both, known)
            cost = cost + extra
        works = intervals.works[k]
        spent = works.gather(1, at.expand(len(works), -1)).repeat(1, 2)
        terms = layer.terms_forward
        rows = self._start(step.inputs[0], both)
        lost = factor(terms) * spent + tiny(terms, known.size).unsqueeze(1)
        rows.add(constant - cost, lost)
        return rows


def stored(arithmetic: Arithmetic, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the box of inputs once they are rounded to the format."""
    ends = arithmetic.stored_box(low.cpu().numpy(), high.cpu().numpy())
    return torch.from_numpy(ends[0]).to(low.device), torch.from_numpy(ends[1]).to(low.device)


def heuristic(op: Activation, given: Interval) -> Lines:
    """Return the lines that leave the least area."""
    prepared = Prepared(op, given.low, given.high)
    return prepared.lines(*best_slopes(prepared))


def steep_and_flat(op: Activation, given: Interval) -> tuple[Lines, Lines]:
    """Return :func:`heuristic`, and that with slope 0 below where a ReLU bends; itself if it is."""
    prepared = Prepared(op, given.low, given.high)
    line = prepared.lines(*best_slopes(prepared))
    if op.kind != "relu":
        return line, line
    steep = bends(op, given) & (line.low_slope != 0)
    if not bool(steep.any()):
        return line, line
    return line, prepared.lines(torch.where(steep, 0.0, line.low_slope), line.high_slope)


def different(choices: list[dict[int, Lines]]) -> list[dict[int, Lines]]:
    """Return the choices of lines without those that repeat an earlier one."""
    kept: list[dict[int, Lines]] = []
    for choice in choices:
        if not any(all(known[k] is line for k, line in choice.items()) for known in kept):
            kept.append(choice)
    return kept


def bends(op: Activation, known: Interval) -> Tensor:
    """Return which neurons an activation treats differently within their intervals."""
    low, high = known.low, known.high
    corners = {
        "relu": (0.0,),
        "leaky_relu": (0.0,),
        "clamp": (op.low, op.high),
        "hardsigmoid": (-3.0, 3.0),
    }.get(op.kind)
    if corners is None:
        return low < high
    mask = torch.zeros_like(low, dtype=torch.bool)
    for corner in corners:
        mask |= (low < corner) & (high > corner)
    return mask


def needed(mask: Tensor) -> tuple[Tensor, int]:
    """Return the marked positions of each row, padded by others, and how many columns there are."""
    counts = int(mask.sum(1).max()) if mask.numel() else 0
    order = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)
    return order[:, :counts], counts

"""Interval, CROWN-IBP and CROWN bounds of one program on batches of inputs.

Interval bounds: Gowal et al., *Scalable verified training for provably robust image
classification*, ICCV 2019. CROWN-IBP (intervals inside, one backward pass at the end): Zhang et
al., *Towards stable and efficient training of verifiably robust neural networks*, ICLR 2020.
CROWN (a backward pass for every activation's input): :mod:`paramrob.bounds.graph.backward`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paramrob.arithmetic import Arithmetic
from paramrob.bounds.graph.affine import Affine
from paramrob.bounds.graph.backward import Rows, pull, slackened
from paramrob.bounds.graph.forward import Interval, Intervals, factor, tiny
from paramrob.bounds.graph.lines import Lines, lines, slopes
from paramrob.bounds.graph.program import Program
from paramrob.engine import Method
from paramrob.errors import SoundnessError
from paramrob.models.network import Activation

BUDGET = 1 << 24
"""Numbers that a backward pass may hold at a time, by default."""


@dataclass(frozen=True)
class Analysis:
    """Intervals of all steps on a batch of inputs, and lines of all activations.

    ``flat`` has the same lines but for the slope 0 below wherever a ReLU bends: the other guess
    at a slope that no rule gets right for every row.
    """

    intervals: Intervals
    lines: dict[int, Lines]
    flat: dict[int, Lines]

    @property
    def batch(self) -> int:
        """How many inputs."""
        return self.intervals.known[0].low.shape[0]


class GraphPass:
    """The bound pass of one program.

    Args:
        program: of the uncertain network.
        budget: numbers that a backward pass may hold at a time; more rows than that go through
            in several passes.
    """

    def __init__(self, program: Program, budget: int = BUDGET) -> None:
        self.program = program
        self.budget = budget
        self.widest = max(
            step.kind.working if isinstance(step.kind, Affine) else step.size
            for step in program.steps
        )
        self._read = {step.inputs[0] for step in program.steps if isinstance(step.kind, Activation)}

    def analyse(self, low: Tensor, high: Tensor, method: Method = "crown") -> Analysis:
        """Bound every step on every input box.

        Args:
            low: least inputs, ``(batch, in)``.
            high: largest ones.
            method: ``ibp`` and ``crown-ibp`` leave the intervals as they are; the others pull
                rows back for every neuron whose activation's relaxation depends on it.
        """
        found: dict[int, Lines] = {}
        flat: dict[int, Lines] = {}
        backward = method in ("crown", "alpha")

        def refine(intervals: Intervals, k: int) -> None:
            if backward and k in self._read and not intervals.tight[k]:
                self._narrow(intervals, [found, flat], k)
            kind = self.program.steps[k].kind
            if method != "ibp" and isinstance(kind, Activation):
                given = intervals.known[self.program.steps[k].inputs[0]]
                found[k] = lines(kind, given.low, given.high, *slopes(kind, given.low, given.high))
                flat[k] = flattened(kind, given, found[k])

        if self.program.arithmetic is not None:
            low, high = stored(self.program.arithmetic, low, high)
        return Analysis(Intervals.start(self.program, low, high).run(refine), found, flat)

    def bound(self, analysis: Analysis, rows: Tensor, method: Method = "crown") -> Tensor:
        """Return least values ``(batch, rows)`` of ``(batch, rows, out)`` rows over the results."""
        last = len(self.program.steps) - 1
        if method == "ibp":
            return self._concretised(analysis, rows)
        at_once = max(1, self.budget // (analysis.batch * self.widest))
        best = self._concretised(analysis, rows)
        for chosen in different(analysis.lines, analysis.flat):
            parts = [
                pull(analysis.intervals, chosen, self._start(last, rows[:, i : i + at_once]))
                for i in range(0, rows.shape[1], at_once)
            ]
            best = torch.maximum(best, torch.cat(parts, 1))
        return best

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

    def _narrow(self, intervals: Intervals, found: list[dict[int, Lines]], k: int) -> None:
        """Pull rows back for the neurons of step ``k`` whose interval matters."""
        known = intervals.known[k]
        index, counts = needed(self._matters(k, known))
        if not counts:
            return
        batch, size = known.low.shape
        per_pass = max(1, self.budget // (2 * batch * self.widest))
        low, high = known.low.clone(), known.high.clone()
        for start in range(0, counts, per_pass):
            at = index[:, start : start + per_pass]
            count = at.shape[1]
            for chosen in different(*found):
                values = pull(intervals, chosen, self._neurons(intervals, k, at, size))
                low.scatter_reduce_(1, at, values[:, :count], "amax")
                high.scatter_reduce_(1, at, -values[:, count:], "amin")
        # NaN contradicts nothing: it is no bound. There are no cuts here, so that no set is empty.
        if bool((low > high).any()):
            raise SoundnessError(
                f"two proved ends of step {k} cross; this is a defect of paramrob: please report it"
            )
        intervals.known[k] = Interval(low, high)

    def _matters(self, k: int, known: Interval) -> Tensor:
        mask = torch.zeros_like(known.low, dtype=torch.bool)
        for step in self.program.steps:
            if isinstance(step.kind, Activation) and step.inputs[0] == k:
                mask |= bends(step.kind, known)
        return mask

    def _neurons(self, intervals: Intervals, k: int, at: Tensor, size: int) -> Rows:
        """Return rows for the neurons ``at`` ``(batch, rows)``: first plus, then minus."""
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
        spent = intervals.works[k].gather(1, at).repeat(1, 2)
        terms = layer.terms_forward
        rows = self._start(step.inputs[0], both)
        lost = factor(terms) * spent + tiny(terms, known.size).unsqueeze(1)
        rows.add(constant - cost, lost)
        return rows


def stored(arithmetic: Arithmetic, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the box of inputs once they are rounded to the format."""
    ends = arithmetic.stored_box(low.cpu().numpy(), high.cpu().numpy())
    return torch.from_numpy(ends[0]).to(low.device), torch.from_numpy(ends[1]).to(low.device)


def flattened(op: Activation, given: Interval, line: Lines) -> Lines:
    """Return the lines with slope 0 below where a ReLU bends; ``line`` itself where that is it."""
    steep = bends(op, given) & (line.low_slope != 0)
    if op.kind != "relu" or not bool(steep.any()):
        return line
    low_slope = torch.where(steep, 0.0, line.low_slope)
    return lines(op, given.low, given.high, low_slope, line.high_slope)


def different(first: dict[int, Lines], second: dict[int, Lines]) -> list[dict[int, Lines]]:
    """Return both choices of lines, or one where they are the same."""
    same = all(second[k] is line for k, line in first.items())
    return [first] if same else [first, second]


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

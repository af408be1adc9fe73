"""Rows over a step pulled back to the inputs: CROWN over boxed parameters.

Zhang et al., *Efficient neural network robustness certification with general activation
functions*, NeurIPS 2018. A row ``A`` bounds ``A y`` from below. Through an affine layer with
``|D| <= R`` it becomes ``A W - |A| R s`` on ``h`` with constant ``A b - |A| r - |A| R t``, where
``|h| <= s h + t`` is the chord of ``|h|`` on the interval of ``h`` (``s = 1, t = 0`` where ``h`` is
not negative: nothing is lost there).

The claim ``A y >= sum of pulled rows + c - lost`` is kept with floating-point numbers that are
exact from then on; ``lost`` collects what every operation can have cost
(:mod:`paramrob.bounds.graph.forward`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from paramrob.bounds.graph.affine import Affine
from paramrob.bounds.graph.change import Change
from paramrob.bounds.graph.forward import Interval, Intervals, factor, tiny
from paramrob.bounds.graph.lines import Lines
from paramrob.bounds.graph.program import Join, Pick, Sum
from paramrob.bounds.graph.snap import Snap
from paramrob.bounds.rounding import INFLATE, UNIT
from paramrob.models.network import Activation

INF = float("inf")


@dataclass(frozen=True)
class Cut:
    """What a split says of one step's values, and nonnegative multipliers on it.

    Values lie in ``[low, high]``, infinite where nothing is said; all ``(batch, n)``. A row is
    not less than itself with ``on_high (z - high) - on_low (z - low)`` added: neither summand is
    positive where the cut holds (beta-CROWN: Wang et al., NeurIPS 2021).
    """

    low: Tensor
    high: Tensor
    on_low: Tensor
    on_high: Tensor


@dataclass
class Rows:
    """Rows on their way back.

    Attributes:
        on: coefficients ``(batch or 1, rows, n)`` by step.
        constant, lost: ``(batch, rows)``.
        seen: coefficients on the results of activations and on the inputs, where they are kept.
        cuts: by step.
    """

    on: dict[int, Tensor]
    constant: Tensor
    lost: Tensor
    seen: dict[int, Tensor] = field(default_factory=dict)
    cuts: dict[int, Cut] = field(default_factory=dict)

    def add(self, value: Tensor, lost: Tensor) -> None:
        """Add to the constant."""
        self.constant = self.constant + value
        self.lost = self.lost + lost * INFLATE + 2 * UNIT * self.constant.abs()

    def put(self, step: int, a: Tensor, size: Tensor) -> None:
        """Add coefficients on a step whose values are at most ``size``."""
        if step in self.on:
            a = a + self.on[step]
            self.lost = self.lost + 4 * UNIT * dot(a.abs(), size)
        self.on[step] = a


def dot(rows: Tensor, vector: Tensor) -> Tensor:
    """Return ``(batch, rows, n)`` times ``(batch, n)``: ``(batch, rows)``."""
    if rows.shape[0] == 1 and vector.shape[0] > 1:
        return vector @ rows[0].T
    return (rows @ vector.unsqueeze(-1)).squeeze(-1)


def dots(rows: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """Return :func:`dot` with each vector, ``(batch, n)`` each, reading the rows once."""
    if rows.shape[0] == 1 and vectors[0].shape[0] > 1:
        return tuple(dot(rows, vector) for vector in vectors)
    return (rows @ torch.stack(vectors, -1)).unbind(-1)


def chord(given: Interval) -> tuple[Tensor, Tensor]:
    """Return slope and intercept of the chord of ``|h|``."""
    low, high = given.low, given.high
    gap = (high - low).clamp(min=1e-300)
    slope = ((high.abs() - low.abs()) / gap).clamp(-1, 1)
    slope = torch.where(low >= 0, 1.0, slope)
    intercept = torch.maximum(low.abs() - slope * low, high.abs() - slope * high)
    return slope, torch.where(low >= 0, 0.0, intercept)


def pull(
    intervals: Intervals,
    lines: dict[int, Lines],
    rows: Rows,
    keep: bool = False,
) -> Tensor:
    """Pull rows back to the sources and return their least values, ``(batch, rows)``.

    Args:
        intervals: proved, of every step that the rows depend on.
        lines: of every activation that they depend on.
        rows: with coefficients on some steps.
        keep: whether the coefficients on activations' results and inputs stay in ``rows.seen``.
    """
    steps = intervals.program.steps
    for k in range(max(rows.on), -1, -1):
        a = rows.on.pop(k, None)
        if a is None:
            continue
        step = steps[k]
        if k in rows.cuts:
            a = _multiplied(rows, a, rows.cuts[k], intervals.known[k])
        if keep and (k == 0 or isinstance(step.kind, (Activation, Snap))):
            rows.seen[k] = a
        if intervals.sources[k]:
            _concretise(rows, a, intervals.known[k])
        elif isinstance(step.kind, Affine):
            _affine(rows, a, intervals, k, step.kind)
        elif isinstance(step.kind, (Activation, Snap)):
            _activation(rows, a, intervals, k, lines[k])
        elif isinstance(step.kind, Change):
            _change(rows, a, intervals, k)
        else:
            _wired(rows, a, intervals, k)
    return least(rows)


def _wired(rows: Rows, a: Tensor, intervals: Intervals, k: int) -> None:
    """Hand coefficients on a sum, a selection or a join to its inputs."""
    step, steps = intervals.program.steps[k], intervals.program.steps
    if isinstance(step.kind, Sum):
        for sign, i in zip(step.kind.signs, step.inputs, strict=True):
            rows.put(i, a if sign > 0 else -a, intervals.known[i].size)
    elif isinstance(step.kind, Pick):
        zero = a.new_zeros(*a.shape[:-1], steps[step.inputs[0]].size)
        i = step.inputs[0]
        pulled = zero.index_add(-1, step.kind.index, a)
        size = intervals.known[i].size
        rows.lost = rows.lost + factor(4) * dot(pulled.abs(), size)
        rows.lost = rows.lost + factor(step.size) * dot(a.abs(), size[:, step.kind.index])
        rows.put(i, pulled, size)
    elif isinstance(step.kind, Join):
        start = 0
        for i in step.inputs:
            count = steps[i].size
            rows.put(i, a[..., start : start + count], intervals.known[i].size)
            start += count
    else:
        raise TypeError(f"no way back through a step {type(step.kind).__name__}")


def least(rows: Rows) -> Tensor:
    """Return the constant less what rounding can have cost; no bound where it is not finite."""
    value = rows.constant - rows.lost * INFLATE - 4 * UNIT * rows.constant.abs()
    return torch.where(torch.isfinite(value), value, -INF)


def _multiplied(rows: Rows, a: Tensor, cut: Cut, known: Interval) -> Tensor:
    """Add the multiples of a cut."""
    below, above = torch.isfinite(cut.low), torch.isfinite(cut.high)
    on_low = torch.where(below, cut.on_low.clamp(min=0), 0.0)
    on_high = torch.where(above, cut.on_high.clamp(min=0), 0.0)
    value = (on_low * torch.where(below, cut.low, 0.0)).sum(-1)
    value = value - (on_high * torch.where(above, cut.high, 0.0)).sum(-1)
    terms = a.shape[-1]
    # A cut lies within the values' range, so that their size covers its own.
    lost = factor(terms) * ((on_low + on_high) * known.size).sum(-1) + tiny(terms, known.size)
    rows.add(value.unsqueeze(1), lost.unsqueeze(1))
    changed = a + (on_high - on_low).unsqueeze(1)
    rows.lost = rows.lost + factor(4) * dot(changed.abs(), known.size)
    return changed


def _concretise(rows: Rows, a: Tensor, known: Interval) -> None:
    middle, half = (known.low + known.high) / 2, (known.high - known.low) / 2
    reached, size = dots(a.abs(), half, known.size)
    lost = factor(a.shape[-1]) * size
    rows.add(dot(a, middle) - reached, lost + tiny(a.shape[-1], known.size).unsqueeze(1))


def _affine(rows: Rows, a: Tensor, intervals: Intervals, k: int, layer: Affine) -> None:
    i = intervals.program.steps[k].inputs[0]
    known, spent = intervals.known[i], intervals.works[k]
    size = a.abs()
    terms = layer.terms_backward + layer.terms_forward + a.shape[-1] + known.low.shape[-1]
    constant = a @ layer.bias
    if layer.bias_moves:
        constant = constant - layer.bias_cost(a, size)
    lost = factor(terms) * dot(size, spent) + tiny(terms, spent, known.size).unsqueeze(1)
    pulled = layer.pull(a)
    if layer.perturbed:
        slack = layer.pull_radius(size)
        if layer.shared:
            pulled, extra = _shared(layer, a, slack, pulled, known)
        else:
            pulled, extra = slackened(slack, pulled, known)
        constant = constant - extra
    rows.add(constant, lost)
    rows.put(i, pulled, known.size)


def _shared(
    layer: Affine, a: Tensor, slack: Tensor, pulled: Tensor, known: Interval
) -> tuple[Tensor, Tensor]:
    """Charge each row for shared parameters, or for a slack at each position if that is less."""
    middle = (known.low + known.high) / 2
    half = torch.maximum(known.high - middle, middle - known.low)
    once = layer.shared_cost(a, middle) + _total(slack, half)
    slope, intercept = chord(known)
    better = once < _total(slack, intercept + slope * middle)
    if bool(better.all()):
        return pulled, once
    apart, extra = slackened(slack, pulled, known)
    return torch.where(better.unsqueeze(-1), pulled, apart), torch.where(better, once, extra)


def _total(slack: Tensor, vector: Tensor) -> Tensor:
    """Return ``slack`` ``(batch, rows, n or 1)`` times ``(batch, n)``."""
    if slack.shape[-1] == 1:
        return slack.squeeze(-1) * vector.sum(-1, keepdim=True)
    return dot(slack, vector)


def slackened(slack: Tensor, pulled: Tensor, known: Interval) -> tuple[Tensor, Tensor]:
    """Return the coefficients less the slack's, and the constant that the slack costs."""
    if bool((known.low >= 0).all()):
        return pulled - slack, slack.new_zeros(())
    slope, intercept = chord(known)
    return pulled - slack * slope.unsqueeze(1), _total(slack, intercept)


def _activation(rows: Rows, a: Tensor, intervals: Intervals, k: int, line: Lines) -> None:
    i = intervals.program.steps[k].inputs[0]
    size = intervals.known[i].size
    up = a.clamp(min=0)
    most = torch.maximum(line.low.abs(), line.high.abs())
    steepest = torch.maximum(line.low_slope.abs(), line.high_slope.abs())
    if line.low_slope.dim() == 3:
        down = a.clamp(max=0)
        pulled = up * line.low_slope + down * line.high_slope
        constant = (up * line.low + down * line.high).sum(-1)
        most = most + steepest * size.unsqueeze(1)
        total = (a.abs() * most.detach()).sum(-1)
    else:
        # A row takes the line above everywhere, and where it is positive the rest of that below.
        tilt, gap = line.low_slope - line.high_slope, line.low - line.high
        pulled = torch.addcmul(a * line.high_slope.unsqueeze(1), up, tilt.unsqueeze(1))
        most = most + steepest * size
        # |a| is 2 up - a: the difference is off relative to the sum of magnitudes, as all sums.
        first, twice = dots(up, gap, 2 * most)
        second, once = dots(a, line.high, most)
        constant, total = first + second, twice - once
    # A product with the gap may be twice, one with the line above once as large as is counted.
    lost = 2 * factor(a.shape[-1]) * total
    rows.add(constant, lost + tiny(a.shape[-1], size).unsqueeze(1))
    rows.put(i, pulled, size)


def _change(rows: Rows, a: Tensor, intervals: Intervals, k: int) -> None:
    """Replace a change by its planes in ``z`` and ``e``."""
    z, e, _ = intervals.program.steps[k].inputs
    planes = intervals.planes[k]
    up, down = a.clamp(min=0), a.clamp(max=0)
    low, high = planes.low, planes.high
    constant = dot(up, low.intercept) + dot(down, high.intercept)
    size = torch.maximum(planes.size, low.intercept.abs() + high.intercept.abs())
    # the planes' own error is below 64 roundings of their size, of which a factor has 128
    lost = 2 * factor(a.shape[-1]) * dot(a.abs(), size) + tiny(a.shape[-1], size).unsqueeze(1)
    rows.add(constant, lost)
    for step, one, other in ((z, low.z, high.z), (e, low.e, high.e)):
        pulled = up * one.unsqueeze(1) + down * other.unsqueeze(1)
        rows.put(step, pulled, intervals.known[step].size)

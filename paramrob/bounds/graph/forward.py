r"""Intervals of every step, and what floating point can cost there.

A step computed in floating point is off by at most ``gamma_n`` times the sum of the magnitudes of
its products (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.1), plus
underflow. ``size`` bounds the magnitude of a step's values, ``work`` that of all sums of
magnitudes behind them: ``|W| H + R H + |b| + r`` with ``H`` the size of the input. A backward pass
over the same step is off by the same products, each times the magnitude of its row's coefficient,
so that ``factor * |A| @ work`` covers it. ``factor`` is twice the unit roundoff times the number
of roundings, with room for the charge's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from paramrob.bounds.graph.affine import Affine
from paramrob.bounds.graph.change import Change, Planes, change_image
from paramrob.bounds.graph.lines import image
from paramrob.bounds.graph.program import Join, Pick, Program, Step, Sum
from paramrob.bounds.graph.snap import Snap, snapped
from paramrob.bounds.rounding import FLOOR, INFLATE, SMALLEST_NORMAL, UNIT
from paramrob.models.network import Activation

INF = float("inf")
ROOM = 64
"""Roundings of a step besides its products."""


@dataclass(frozen=True)
class Interval:
    """Proved ends of one step's values, ``(batch, n)`` each."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """The largest magnitude of each value, with room for rounding."""
        return torch.maximum(self.low.abs(), self.high.abs()) * INFLATE + FLOOR

    def met(self, other: Interval) -> Interval:
        """Return the intersection."""
        return Interval(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))


def factor(terms: int) -> float:
    """Return what ``terms`` roundings can cost relative to the magnitudes involved."""
    return 2 * (terms + ROOM) * UNIT


def tiny(terms: int, *sizes: Tensor) -> Tensor:
    """Return what underflow can cost: ``(batch,)``."""
    total = sum((s.sum(-1) for s in sizes), torch.ones_like(sizes[0][:, 0]))
    return (terms + ROOM) * SMALLEST_NORMAL * 4 * total


def work(layer: Affine, size: Tensor) -> Tensor:
    """Return the sums of magnitudes behind an affine layer's results, ``(batch, out)``."""
    total = layer.magnitude(size) + layer.bias.abs() + layer.bias_radius
    if layer.perturbed:
        total = total + layer.reach(size)
    return total * INFLATE + FLOOR


@dataclass
class Intervals:
    """What is known of each step on a batch of inputs, filled in order.

    Attributes:
        program: whose steps these are.
        known: one interval a step so far.
        works: of the affine steps.
        sources: whether a step's interval is attained coordinate by coordinate: a backward pass
            stops there and loses nothing. These are the input and, where it is one point, affine
            layers of a value that does not depend on parameters, if each parameter is used once.
        tight: whether a step's interval cannot be narrowed.
        planes: of changes of activations, where a backward pass meets them.
    """

    program: Program
    known: list[Interval]
    works: dict[int, Tensor]
    sources: list[bool]
    tight: list[bool]
    planes: dict[int, Planes] = field(default_factory=dict)

    @classmethod
    def start(cls, program: Program, low: Tensor, high: Tensor) -> Intervals:
        """Begin with the inputs ``(batch, in)``."""
        found = cls(program, [Interval(low, high)], {}, [True], [True])
        settled = [bool((low == high).all())]
        for step in program.steps[1:]:
            still = all(settled[i] for i in step.inputs)
            moves = isinstance(step.kind, Affine) and (step.kind.perturbed or step.kind.bias_moves)
            settled.append(still and not moves)
            shared = isinstance(step.kind, Affine) and step.kind.shared
            fixed = isinstance(step.kind, Affine) and not moves
            found.tight.append(still or (fixed and found.sources[step.inputs[0]]))
            found.sources.append(still and moves and not shared)
        return found

    def part(self, index: Tensor) -> Intervals:
        """Return those of some inputs."""
        known = [Interval(i.low[index], i.high[index]) for i in self.known]
        works = {k: w[index] for k, w in self.works.items()}
        planes = {k: p.part(index) for k, p in self.planes.items()}
        return replace(self, known=known, works=works, planes=planes)

    def run(self, refine: Callable[[Intervals, int], None] | None = None) -> Intervals:
        """Compute the intervals of all steps; ``refine`` may narrow each before it is read.

        Where an input is no number, or a step may overflow its format, nothing is known of any
        later step: a bounded activation makes no number of it either.
        """
        first = self.known[0]
        fits = (torch.isfinite(first.low) & torch.isfinite(first.high)).all(1)
        for k in range(len(self.known), len(self.program.steps)):
            self.known.append(self._forward(k, self.program.steps[k]))
            if refine is not None:
                refine(self, k)
            fits = self._fitting(k, fits)
        return self

    def _fitting(self, k: int, fits: Tensor) -> Tensor:
        """Return where no step up to ``k`` leaves its format; forget what is known elsewhere."""
        step, known = self.program.steps[k], self.known[k]
        if step.limit < INF:
            fits = fits & (known.size < step.limit).all(1)
        if step.partial < INF:
            fits = fits & (self.works[k] < step.partial).all(1)
        if not bool(fits.all()):
            rows = fits.unsqueeze(1)
            self.known[k] = Interval(
                torch.where(rows, known.low, -INF), torch.where(rows, known.high, INF)
            )
            if k in self.works:
                self.works[k] = torch.where(rows, self.works[k], INF)
        return fits

    def overflows(self) -> Tensor:
        """Return on which inputs overflow of a step's format is not excluded, ``(batch,)``."""
        found = torch.zeros_like(self.known[0].low[:, 0], dtype=torch.bool)
        for step, known in zip(self.program.steps, self.known, strict=True):
            if step.limit < INF or step.partial < INF:
                found |= torch.isinf(known.low).any(1)
        return found

    def _forward(self, k: int, step: Step) -> Interval:
        given = [self.known[i] for i in step.inputs]
        kind = step.kind
        if isinstance(kind, Affine):
            return self._affine(k, kind, given[0])
        if isinstance(kind, Activation):
            return Interval(*image(kind, given[0].low, given[0].high))
        if isinstance(kind, Change):
            return Interval(*change_image(kind, (given[1].low, given[1].high)))
        if isinstance(kind, Snap):
            return Interval(*snapped(kind, given[0].low, given[0].high))
        if isinstance(kind, Pick):
            return Interval(given[0].low[:, kind.index], given[0].high[:, kind.index])
        if isinstance(kind, Join):
            return Interval(
                torch.cat([i.low for i in given], 1), torch.cat([i.high for i in given], 1)
            )
        if isinstance(kind, Sum):
            return self._sum(kind, given)
        raise TypeError(f"no step {type(kind).__name__}")

    def _affine(self, k: int, layer: Affine, given: Interval) -> Interval:
        size = given.size
        spent = work(layer, size)
        self.works[k] = spent
        lost = factor(layer.terms_forward) * spent + tiny(layer.terms_forward, size).unsqueeze(1)
        lost = lost + layer.bias_radius
        middle = (given.low + given.high) / 2
        half = torch.maximum(given.high - middle, middle - given.low)
        up, down = _reaches(layer, given, middle, half)
        centre = layer.value(middle) + layer.bias
        return bounded(centre - (down + lost), centre + (up + lost))

    def _sum(self, kind: Sum, given: list[Interval]) -> Interval:
        low = high = torch.zeros_like(given[0].low)
        size = torch.zeros_like(low)
        for sign, interval in zip(kind.signs, given, strict=True):
            low = low + (interval.low if sign > 0 else -interval.high)
            high = high + (interval.high if sign > 0 else -interval.low)
            size = size + interval.size
        lost = factor(len(given)) * size
        found = bounded(low - lost, high + lost)
        if kind.image is not None:
            op, source = kind.image
            before = self.known[source]
            found = found.met(Interval(*image(op, before.low, before.high)))
        if kind.larger is None:
            return found
        a, b = (self.known[i] for i in kind.larger)
        return found.met(Interval(torch.maximum(a.low, b.low), torch.maximum(a.high, b.high)))


def _reaches(layer: Affine, given: Interval, middle: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far weights and inputs take a layer's results up and down from the middle.

    Where no input is negative, no ``w h`` exceeds ``(W + R) h``, so that the product of both
    intervals ends at ``W m + R m + |W + R| d`` above and at ``W m - R m - |W - R| d`` below. An
    input of either sign, and those not positive, get ``|W| d + R |h|``.
    """
    still = not bool(half.any())
    if not layer.perturbed:
        reach = torch.zeros_like(layer.bias) if still else layer.magnitude(half)
        return reach, reach
    if still:
        reach = layer.reach(middle.abs())
        return reach, reach
    positive = given.low >= 0
    if not bool(positive.any()):
        reach = layer.magnitude(half) + layer.reach(given.size)
        return reach, reach
    up, down = layer.ends(torch.where(positive, half, 0.0))
    rest = layer.reach(torch.where(positive, middle, given.size))
    if not bool(positive.all()):
        rest = rest + layer.magnitude(torch.where(positive, 0.0, half))
    return up + rest, down + rest


def bounded(low: Tensor, high: Tensor) -> Interval:
    """Return the interval; ends that are NaN are no ends."""
    return Interval(
        torch.where(torch.isnan(low), -INF, low), torch.where(torch.isnan(high), INF, high)
    )

"""Backward linear bounds (CROWN) on reference and uncertain network together.

A pass starts from a row ``a_z z + a_e e`` on some affine layer's result, where ``z`` is the
reference's value and ``z + e`` the uncertain network's, and walks back to the input, keeping
``row >= A_h h + A_d d + c`` with ``h`` the reference's activations and ``h + d`` the uncertain
ones. Parameters are eliminated in closed form: a coefficient row ``a_e`` meets the slack
``|s| <= R |h + d| + r``, which costs ``|a_e| R |h + d| + |a_e| r``; where ``h + d >= 0`` that is
linear and nothing is lost, elsewhere ``|t|`` is replaced by its chord.

CROWN: Zhang et al., *Efficient neural network robustness certification*, NeurIPS 2018.
Multipliers on splits: Wang et al., *Beta-CROWN*, NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.chain import Chain
from paramrob.bounds.elementary import SIGMOID_ERROR
from paramrob.bounds.relaxations import (
    SMOOTH,
    TINY,
    Line,
    Plane,
    Ranges,
    Relaxation,
    Relaxed,
    relax,
)
from paramrob.bounds.rounding import Magnitudes
from paramrob.errors import SoundnessError

INF = float("inf")


@dataclass(frozen=True)
class Boxes:
    """A batch of input boxes, ``(batch, in)`` each, with what has been split below them.

    ``cuts`` is ``(batch, 4, neurons)`` over all hidden neurons in order: ``z >=``, ``z <=``,
    ``z + e >=``, ``z + e <=``; infinite where nothing is cut. ``None``: no cut anywhere.
    """

    lower: Tensor
    upper: Tensor
    cuts: Tensor | None = None


@dataclass(frozen=True)
class Forms:
    """``row >= a . x + c`` for every input of the box; ``a`` is ``(batch, rows, in)``."""

    a: Tensor
    c: Tensor

    def least(self, boxes: Boxes) -> Tensor:
        """Return the least value over each box, ``(batch, rows)``; NaN counts as no bound."""
        a = self.a
        total = self.c + (a.clamp(min=0) @ boxes.lower.unsqueeze(-1)).squeeze(-1)
        total = total + (a.clamp(max=0) @ boxes.upper.unsqueeze(-1)).squeeze(-1)
        return trusted(total)

    def or_at_least(self, floor: Tensor, boxes: Boxes) -> Forms:
        """Return the constant ``floor`` ``(batch, rows)`` wherever it is the larger bound."""
        better = floor > self.least(boxes)
        return Forms(
            torch.where(better.unsqueeze(-1), 0.0, self.a), torch.where(better, floor, self.c)
        )

    def most(self, boxes: Boxes) -> Tensor:
        """Return the form's largest value over each box, ``(batch, rows)``, roughly."""
        total = self.c + (self.a.clamp(min=0) @ boxes.upper.unsqueeze(-1)).squeeze(-1)
        return total + (self.a.clamp(max=0) @ boxes.lower.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Chord:
    """``|t| <= slope t + intercept`` for a layer's uncertain input ``t``; ``(batch, in)``."""

    slope: Tensor
    intercept: Tensor


@dataclass(frozen=True)
class Steps:
    """A layer's lines as their mean and half their difference, as a backward step uses them."""

    h_mean: Line
    h_half: Line
    d_mean: Plane
    d_half: Plane

    @classmethod
    def of(cls, r: Relaxed) -> Steps:
        """Return the steps of a relaxation."""
        lines = (r.h_low, r.h_high)
        planes = (r.d_low, r.d_high)
        return cls(
            Line(*_mean(*((x.slope, x.intercept) for x in lines))),
            Line(*_half(*((x.slope, x.intercept) for x in lines))),
            Plane(*_mean(*((x.z, x.e, x.intercept) for x in planes))),
            Plane(*_half(*((x.z, x.e, x.intercept) for x in planes))),
        )


def _mean(low: tuple[Tensor, ...], high: tuple[Tensor, ...]) -> list[Tensor]:
    return [0.5 * (a + b) for a, b in zip(low, high, strict=True)]


def _half(low: tuple[Tensor, ...], high: tuple[Tensor, ...]) -> list[Tensor]:
    return [0.5 * (b - a) for a, b in zip(low, high, strict=True)]


def _dot(rows: Tensor, vector: Tensor) -> Tensor:
    """Return ``(batch, rows, n)`` times ``(batch, n)``."""
    return (rows @ vector.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Known:
    """What a backward pass meets on its way: steps, ranges and chords of the layers so far."""

    boxes: Boxes
    steps: list[Steps]
    ranges: list[Ranges]
    chords: list[Chord | None]


@dataclass(frozen=True)
class Analysis:
    """What is known of a batch of boxes: relaxations of all hidden layers, chords, feasibility."""

    boxes: Boxes
    relaxations: tuple[Relaxation, ...]
    chords: tuple[Chord | None, ...]
    feasible: Tensor


def trusted(lower: Tensor) -> Tensor:
    """Return a lower bound with everything that is not finite (overflow, NaN) made no bound."""
    return torch.where(torch.isfinite(lower), lower, -INF)


def chord_of_absolute(lower: Tensor, upper: Tensor) -> Chord:
    """Return the chord of ``|t|`` on ``[lower, upper]``."""
    slope = (upper.abs() - lower.abs()) / (upper - lower).clamp(min=TINY)
    slope = slope.clamp(-1, 1)
    return Chord(slope, torch.maximum(lower.abs() - slope * lower, upper.abs() - slope * upper))


class BoundPass:
    """The bound pass of one chain on one domain."""

    def __init__(self, chain: Chain, magnitudes: Magnitudes) -> None:
        self.chain = chain
        self.charges = magnitudes
        self._offsets = [layer.has_offset() for layer in chain.layers]
        widths = [layer.weight.shape[0] for layer in chain.layers[:-1]]
        self.starts = [sum(widths[:k]) for k in range(len(widths) + 1)]

    @property
    def hidden(self) -> int:
        """How many hidden neurons there are."""
        return self.starts[-1]

    def analyse(self, boxes: Boxes) -> Analysis:
        """Bound every hidden neuron on every box.

        Raises:
            SoundnessError: two proved bounds of an uncut box contradict each other.
        """
        known = Known(boxes, [], [], [self._input_chord(boxes)])
        relaxations: list[Relaxation] = []
        feasible = torch.ones(boxes.lower.shape[0], dtype=torch.bool, device=boxes.lower.device)
        for k, activation in enumerate(self.chain.activations):
            zl, zu, el, eu = self._neurons(k, known)
            ranges, good = self._cut(k, zl, zu, el, eu, boxes.cuts)
            if boxes.cuts is None and not bool(good.all()):
                raise SoundnessError(f"hidden layer {k}: proved bounds contradict each other")
            feasible &= good
            relaxation = relax(activation, ranges)
            relaxations.append(relaxation)
            known.steps.append(Steps.of(relaxation.at()))
            known.ranges.append(ranges)
            known.chords.append(self._hidden_chord(activation.kind, activation.slope, ranges))
        return Analysis(boxes, tuple(relaxations), tuple(known.chords), feasible)

    def rows(
        self,
        analysis: Analysis,
        on_z: Tensor,
        on_e: Tensor,
        relaxed: Sequence[Relaxed] | None = None,
        multipliers: Tensor | None = None,
        seen: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Forms:
        """Bound rows over the last layer from below.

        Args:
            analysis: of the boxes.
            on_z: ``(batch, rows, out)`` coefficients on the reference's result.
            on_e: the same on the deviation.
            relaxed: relaxations to use instead of the heuristic ones.
            multipliers: ``(batch, 4, hidden)`` nonnegative multipliers on the cuts.
            seen: if given, receives ``(on_h, on_d)`` of each hidden layer, last layer first.
        """
        relaxed = relaxed or [r.at() for r in analysis.relaxations]
        ranges = [r.ranges for r in analysis.relaxations]
        steps = [Steps.of(r) for r in relaxed]
        known = Known(analysis.boxes, steps, ranges, list(analysis.chords))
        last = len(self.chain.layers) - 1
        return self._backward(last, on_z, on_e, known, multipliers, seen)

    def _neurons(self, k: int, known: Known) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        boxes = known.boxes
        if k == 0:
            return self._first(boxes, known.chords[0])
        size = self.chain.layers[k].weight.shape[0]
        eye = torch.eye(size, dtype=boxes.lower.dtype, device=boxes.lower.device)
        both = torch.cat([eye, -eye]).expand(boxes.lower.shape[0], -1, -1)
        on_z = self._backward(k, both, None, known).least(boxes)
        on_e = self._backward(k, torch.zeros_like(both), both, known).least(boxes)
        return on_z[:, :size], -on_z[:, size:], on_e[:, :size], -on_e[:, size:]

    def _first(self, boxes: Boxes, chord: Chord | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bound the first layer directly: centre and radius, coordinate by coordinate."""
        layer, charge = self.chain.layers[0], self.charges.layers[0]
        middle = (boxes.lower + boxes.upper) / 2
        half = torch.maximum(boxes.upper - middle, middle - boxes.lower)
        pad = charge.factor * (charge.z + charge.e) + charge.tiny
        centre = middle @ layer.weight.T + layer.bias
        reach = half @ layer.weight.abs().T + pad
        largest = torch.maximum(boxes.lower.abs(), boxes.upper.abs())
        moved = layer.bias_offset.expand_as(centre)
        slack = largest @ layer.weight_radius.T + layer.bias_radius + pad
        if self._offsets[0]:
            moved = moved + middle @ layer.weight_offset.T
            slack = slack + half @ layer.weight_offset.abs().T
        lower, low = trusted(centre - reach), trusted(moved - slack)
        return lower, -trusted(-centre - reach), low, -trusted(-moved - slack)

    def _cut(
        self, k: int, zl: Tensor, zu: Tensor, el: Tensor, eu: Tensor, cuts: Tensor | None
    ) -> tuple[Ranges, Tensor]:
        """Intersect with the cuts and carry what they say from one range to the others.

        No range leaves the magnitudes that the charges assume, however loose the pass was.
        """
        charge = self.charges.layers[k]
        pad = charge.factor * charge.q
        zl, zu = torch.maximum(zl, -charge.z), torch.minimum(zu, charge.z)
        el, eu = torch.maximum(el, -charge.e), torch.minimum(eu, charge.e)
        pl = torch.maximum(zl + el - pad, -charge.q)
        pu = torch.minimum(zu + eu + pad, charge.q)
        if cuts is not None:
            a, b, c, d = cuts[:, :, self.starts[k] : self.starts[k + 1]].unbind(1)
            zl, zu = torch.maximum(zl, a), torch.minimum(zu, b)
            pl, pu = torch.maximum(pl, c), torch.minimum(pu, d)
            for _ in range(2):
                el, eu = torch.maximum(el, pl - zu - pad), torch.minimum(eu, pu - zl + pad)
                zl, zu = torch.maximum(zl, pl - eu - pad), torch.minimum(zu, pu - el + pad)
                pl, pu = torch.maximum(pl, zl + el - pad), torch.minimum(pu, zu + eu + pad)
        # Written so that NaN contradicts nothing.
        empty = ((zl > zu) | (el > eu) | (pl > pu)).any(dim=1)
        unbounded = torch.isinf(zl) | torch.isinf(zu) | torch.isinf(el) | torch.isinf(eu)
        return Ranges(zl, zu, el, eu, pl, pu), ~empty | unbounded.any(dim=1)

    def _input_chord(self, boxes: Boxes) -> Chord | None:
        if bool((boxes.lower >= 0).all()):
            return None
        return chord_of_absolute(boxes.lower, boxes.upper)

    def _hidden_chord(self, kind: str, slope: float, ranges: Ranges) -> Chord | None:
        if kind in ("relu", "sigmoid"):
            return None
        if kind == "tanh":
            value = SMOOTH["tanh"].value
            room = 4 * SIGMOID_ERROR
            return chord_of_absolute(value(ranges.pl) - room, value(ranges.pu) + room)
        if kind == "leaky_relu":
            return chord_of_absolute(
                torch.where(ranges.pl > 0, ranges.pl, slope * ranges.pl),
                torch.where(ranges.pu > 0, ranges.pu, slope * ranges.pu),
            )
        return chord_of_absolute(ranges.pl, ranges.pu)

    def _backward(
        self,
        k: int,
        on_z: Tensor,
        on_e: Tensor | None,
        known: Known,
        multipliers: Tensor | None = None,
        seen: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Forms:
        c = torch.zeros(on_z.shape[:-1], dtype=on_z.dtype, device=on_z.device)
        floor = torch.full_like(c, -INF)
        while True:
            on_h, on_d, c = self._affine(k, on_z, on_e, c, known.chords[k])
            if k == 0:
                charge = self.charges.layers[0]
                c = c - charge.factor * (on_h.abs() @ self.charges.inputs)
                forms = Forms(on_h, c - charge.tiny)
                return forms if known.boxes.cuts is None else forms.or_at_least(floor, known.boxes)
            k -= 1
            if seen is not None and on_d is not None:
                seen.append((on_h, on_d))
            on_z, on_e, c = self._activation(k, on_h, on_d, c, known.steps[k])
            cuts = known.boxes.cuts
            if multipliers is not None and cuts is not None and on_e is not None:
                on_z, on_e, c = self._lagrange(k, on_z, on_e, c, cuts, multipliers)
            if cuts is not None and on_e is not None:
                floor = torch.maximum(floor, self._within(k, on_z, on_e, c, known.ranges[k]))

    def _within(self, k: int, on_z: Tensor, on_e: Tensor, c: Tensor, r: Ranges) -> Tensor:
        """Return the least value over the layer's own ranges: what a cut says there is in them."""
        charge = self.charges.layers[k]
        total = c + _dot(on_z.clamp(min=0), r.zl) + _dot(on_z.clamp(max=0), r.zu)
        total = total + _dot(on_e.clamp(min=0), r.el) + _dot(on_e.clamp(max=0), r.eu)
        lost = charge.factor * (on_z.abs() @ charge.z + on_e.abs() @ charge.e)
        return trusted(total - lost - charge.tiny)

    def _affine(
        self, k: int, on_z: Tensor, on_e: Tensor | None, c: Tensor, chord: Chord | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Step from ``(z, e)`` of layer ``k`` to the ``(h, d)`` that it reads."""
        layer, charge = self.chain.layers[k], self.charges.layers[k]
        c = c - charge.tiny + on_z @ layer.bias - on_z.abs() @ (charge.factor * charge.z)
        on_h = on_z @ layer.weight
        if on_e is None:
            return on_h, None, c
        size = on_e.abs()
        c = c - size @ (layer.bias_radius + charge.factor * charge.e)
        slack = size @ layer.weight_radius
        if chord is not None:
            c = c - _dot(slack, chord.intercept)
            slack = slack * chord.slope.unsqueeze(1)
        if self._offsets[k]:
            slack = slack - on_e @ layer.weight_offset
            c = c + on_e @ layer.bias_offset
        on_h = on_h - slack
        # At the input both networks see the same x: there is no deviation to bound.
        return on_h, None if k == 0 else on_e @ layer.weight - slack, c

    def _activation(
        self, k: int, on_h: Tensor, on_d: Tensor | None, c: Tensor, r: Steps
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Step from ``(h, d)`` behind activation ``k`` to its ``(z, e)``.

        A positive coefficient ``a`` takes the lower line ``L``, a negative one the upper line
        ``U``: that is ``a (L + U) / 2 - |a| (U - L) / 2`` in each of the line's coefficients.
        """
        charge = self.charges.layers[k]
        extra = charge.factor * charge.q
        size = on_h.abs()
        c = c - charge.tiny + _dot(on_h, r.h_mean.intercept)
        c = c - _dot(size, r.h_half.intercept + extra)
        on_z = on_h * r.h_mean.slope.unsqueeze(1) - size * r.h_half.slope.unsqueeze(1)
        if on_d is None:
            return on_z, None, c
        size = on_d.abs()
        c = c + _dot(on_d, r.d_mean.intercept) - _dot(size, r.d_half.intercept + extra)
        on_e = on_d * r.d_mean.e.unsqueeze(1) - size * r.d_half.e.unsqueeze(1)
        on_z = on_z + on_d * r.d_mean.z.unsqueeze(1) - size * r.d_half.z.unsqueeze(1)
        return on_z, on_e, c

    def _lagrange(
        self, k: int, on_z: Tensor, on_e: Tensor, c: Tensor, cuts: Tensor, multipliers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add ``-b (z - low) - b (high - z)`` for every cut: not positive where the cuts hold."""
        here = slice(self.starts[k], self.starts[k + 1])
        values = cuts[:, :, here]
        cut = torch.isfinite(values)
        b = torch.where(cut, multipliers[:, :, here].clamp(min=0), 0.0)
        constant = b * torch.where(cut, values, 0.0)
        sign = constant[:, 0] - constant[:, 1] + constant[:, 2] - constant[:, 3]
        on_p = b[:, 3] - b[:, 2]
        charge = self.charges.layers[k]
        cost = charge.factor * (b.sum(1) @ (charge.z + charge.e + charge.q)) + charge.tiny
        on_z = on_z + (b[:, 1] - b[:, 0] + on_p).unsqueeze(1)
        on_e = on_e + on_p.unsqueeze(1)
        return on_z, on_e, c + (sign.sum(-1) - cost).unsqueeze(1)

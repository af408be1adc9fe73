"""Bounds with one parameter vector for each box: what flips, and by how much it does.

A neuron's slack ``t_i (sum_j R_ij |h_j| + r_i)`` with a fixed ``t_i`` in [-1, 1] and fixed signs
``g_j`` in place of ``|.|`` is what one parameter vector does: ``w_ij + t_i g_j R_ij`` and
``b_i + t_i r_i``. It is linear in ``h``, so the bound pass of :mod:`paramrob.bounds.linear`
carries it backward without loss, with another vector for each box of a batch. ``R`` and ``r`` are
rounded *into* the parameters' intervals here, so every vector lies in the box of parameters, and
what is proved of it is proved of a member of that box.

The charges of :mod:`paramrob.bounds.rounding` cover these steps: they are made for the slack,
whose coefficients are the larger ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paramrob.bounds import elementary
from paramrob.bounds.ascent import Score, activate, push
from paramrob.bounds.chain import Affine, Chain
from paramrob.bounds.class_change import ClassChange
from paramrob.bounds.linear import BoundPass, Boxes, Chord, Forms, trusted
from paramrob.bounds.rounding import UNIT, Magnitudes
from paramrob.errors import BackendError, SoundnessError
from paramrob.models.network import Array, Dense, Elementwise, Node
from paramrob.perturbation import ParameterInterval
from paramrob.problem import Problem

_LEAK = 0.1
"""Slope of a ReLU that is off, for gradients."""
_SINK = 2.0**-40
"""What a reciprocal's radius is shrunk by, relatively: far more than its rounding."""


@dataclass(frozen=True)
class Radii:
    """How far one layer's parameters may surely move either way: ``(out, in)`` and ``(out,)``."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Vectors:
    """One parameter vector for each box of a batch.

    Attributes:
        theta: a layer's shares of its slack, ``(batch, out)``, each in [-1, 1].
        signs: of what the layer reads, ``(batch, in)``, 1 or -1.
    """

    theta: tuple[Tensor, ...]
    signs: tuple[Tensor, ...]

    def at(self, index: Tensor) -> Vectors:
        """Return some of them."""
        return Vectors(tuple(t[index] for t in self.theta), tuple(g[index] for g in self.signs))


@dataclass(frozen=True)
class Results:
    """Proved ends of the last layer's results, ``(batch, out)`` each.

    ``z`` is the reference's result, ``p`` that of the chosen vector, ``e`` their difference.
    """

    z0: Tensor
    z1: Tensor
    e0: Tensor
    e1: Tensor
    p0: Tensor
    p1: Tensor


def inner_radii(problem: Problem, chain: Chain) -> tuple[Radii, ...]:
    """Return each layer's radii, rounded into the box of parameters.

    They are 0 where a parameter is used at several places: a slack moves each use on its own.

    Raises:
        BackendError: only the ends of the parameters' intervals are possible.
    """
    if problem.uncertain.perturbation.only_ends:
        raise BackendError(
            "flips are proved for boxes of parameters, not for grids; ask about --delta instead"
        )
    nodes = {node.name: node for node in problem.uncertain.network.nodes}
    found = []
    for layer, source in zip(chain.layers, chain.sources, strict=True):
        if source is None:
            found.append(Radii(torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)))
        else:
            found.append(_of_node(problem, nodes[source], layer))
    return tuple(found)


def _of_node(problem: Problem, node: Node, layer: Affine) -> Radii:
    op = node.op
    device, size = layer.weight.device, layer.bias.numel()
    weight: Array = np.zeros(tuple(layer.weight.shape))
    bias: Array = np.zeros(size)
    if isinstance(op, Dense):
        positions = int(np.prod(node.shape[:-1], dtype=int))
        weight = np.asarray(np.kron(np.eye(positions), _inner(problem, op.weight)))
        if op.bias is not None:
            bias = np.tile(_inner(problem, op.bias), positions)
    elif isinstance(op, Elementwise):
        radius = np.broadcast_to(_inner(problem, op.parameter), node.shape).reshape(size)
        if op.kind == "div":
            value = _interval(problem, op.parameter).centre
            radius = _inner_reciprocal(np.broadcast_to(value, node.shape).reshape(size), radius)
        if op.kind in ("mul", "div"):
            weight = np.diag(radius)
        else:
            bias = np.array(radius)
    return Radii(torch.from_numpy(weight).to(device), torch.from_numpy(bias).to(device))


def _inner(problem: Problem, name: str) -> Array:
    """Return by how much every value of a parameter may move down as well as up."""
    network = problem.uncertain.network
    interval = _interval(problem, name)
    if network.is_shared(name):
        return np.zeros_like(np.asarray(interval.centre))
    low, high = interval.inner()
    radius = np.minimum(high - interval.centre, interval.centre - low)
    return np.asarray(np.maximum(np.nextafter(radius, -np.inf), 0.0))


def _interval(problem: Problem, name: str) -> ParameterInterval:
    parameter = problem.uncertain.network.parameters[name]
    return problem.uncertain.perturbation.interval(parameter)


def _inner_reciprocal(value: Array, radius: Array) -> Array:
    """Return by how much ``1/c`` surely moves either way for ``|c - value| <= radius``."""
    size = np.abs(value)
    reach = radius / size / (size + radius)
    # The chain's weight is 1/value as rounded.
    return np.asarray(np.maximum(reach * (1 - _SINK) - 4 * UNIT / size, 0.0))


def steer(
    chain: Chain, radii: Sequence[Radii], score: Score, x: Tensor, enough: Tensor | None = None
) -> tuple[Tensor, Vectors]:
    """Return the score's value and the parameter vector that gradients lead to, at each input.

    Plain gradients are blind to ReLUs that are off and could be turned on, so leaky ones are
    followed as well where the value is not ``enough``.

    Args:
        chain: of the problem.
        radii: of its layers.
        score: what to raise.
        x: ``(batch, in)`` inputs.
        enough: ``(batch,)`` values that need not be beaten.
    """
    value, theta = push(chain, score, x)
    wanted = enough is None or bool((value <= enough).any())
    if wanted and any(activation.kind == "relu" for activation in chain.activations):
        other, shares = push(chain, score, x, leak=_LEAK)
        better = (other > value).unsqueeze(1)
        theta = [torch.where(better, b, a) for a, b in zip(theta, shares, strict=True)]
        value = torch.maximum(value, other)
    return value, vectors(chain, radii, x, theta)


def vectors(chain: Chain, radii: Sequence[Radii], x: Tensor, theta: Sequence[Tensor]) -> Vectors:
    """Return the parameter vectors that act as the slacks ``theta`` at the inputs ``x``."""
    signs = []
    t = x
    for k, (layer, radius) in enumerate(zip(chain.layers, radii, strict=True)):
        signs.append(torch.where(t < 0, -1.0, 1.0).to(x.dtype))
        centre = t @ (layer.weight + layer.weight_offset).T + layer.bias + layer.bias_offset
        t = centre + theta[k] * (t.abs() @ radius.weight.T + radius.bias)
        if k < len(chain.activations):
            t = activate(chain.activations[k], t)
    return Vectors(tuple(theta), tuple(signs))


class SteeredPass(BoundPass):
    """The bound pass of a chain whose uncertain network is one given vector in each box.

    Args:
        chain: of the problem.
        magnitudes: charges of its layers.
        radii: from :func:`inner_radii`.
        chosen: the vectors; every batch of boxes must have as many.

    Raises:
        SoundnessError: a vector outside the box of parameters.
    """

    def __init__(
        self, chain: Chain, magnitudes: Magnitudes, radii: Sequence[Radii], chosen: Vectors
    ) -> None:
        super().__init__(chain, magnitudes)
        inside = all(bool((t.abs() <= 1).all()) for t in (*chosen.theta, *chosen.signs))
        if not inside:
            raise SoundnessError("a parameter vector outside its box; shares lie in [-1, 1]")
        self._radii = radii
        self._chosen = chosen

    def results(self, boxes: Boxes) -> Results:
        """Return proved ends of both networks' results on each box."""
        analysis = self.analyse(boxes)
        batch, size = boxes.lower.shape[0], self.chain.layers[-1].weight.shape[0]
        eye = torch.eye(size, dtype=torch.float64, device=boxes.lower.device)
        zero = torch.zeros_like(eye)
        on_z = torch.cat([eye, zero, eye, -eye, zero, -eye]).expand(batch, -1, -1)
        on_e = torch.cat([zero, eye, eye, zero, -eye, -eye]).expand(batch, -1, -1)
        least = self.rows(analysis, on_z, on_e).least(boxes)
        z0, e0, p0, z1, e1, p1 = least.chunk(6, dim=1)
        return Results(z0, -z1, e0, -e1, p0, -p1)

    def moved(self, boxes: Boxes, rows: Tensor) -> Forms:
        """Bound ``rows`` ``(batch, rows, out)`` over the vectors' results from below."""
        return self.rows(self.analyse(boxes), rows, rows)

    def _first(self, boxes: Boxes, chord: Chord | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bound the first layer: the reference as ever, the deviation from its own signs."""
        lower, upper, _, _ = super()._first(boxes, chord)
        layer, charge, radius = self.chain.layers[0], self.charges.layers[0], self._radii[0]
        theta, signs = self._chosen.theta[0], self._chosen.signs[0]
        middle = (boxes.lower + boxes.upper) / 2
        half = torch.maximum(boxes.upper - middle, middle - boxes.lower)
        pad = charge.factor * (charge.z + charge.e) + charge.tiny
        centre = theta * ((signs * middle) @ radius.weight.T + radius.bias) + layer.bias_offset
        reach = theta.abs() * (half @ radius.weight.T) + pad
        if self._offsets[0]:
            centre = centre + middle @ layer.weight_offset.T
            reach = reach + half @ layer.weight_offset.abs().T
        return lower, upper, trusted(centre - reach), -trusted(-centre - reach)

    def _affine(
        self, k: int, on_z: Tensor, on_e: Tensor | None, c: Tensor, chord: Chord | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Step through layer ``k``, whose deviation is that of the chosen vectors."""
        on_h, _, c = super()._affine(k, on_z, None, c, None)
        if on_e is None:
            return on_h, None, c
        layer, charge, radius = self.chain.layers[k], self.charges.layers[k], self._radii[k]
        shares = on_e * self._chosen.theta[k].unsqueeze(1)
        c = c + shares @ radius.bias - on_e.abs() @ (charge.factor * charge.e)
        moved = (shares @ radius.weight) * self._chosen.signs[k].unsqueeze(1)
        if self._offsets[k]:
            moved = moved + on_e @ layer.weight_offset
            c = c + on_e @ layer.bias_offset
        on_h = on_h + moved
        return on_h, None if k == 0 else on_e @ layer.weight + moved, c


def change_at_least(chain: Chain, results: Results) -> Tensor:
    """Return a proved lower bound of the largest change of an output's confidence, ``(batch,)``.

    NaN and infinity prove nothing and give 0.
    """
    r = results
    if chain.link == "identity":
        change = torch.maximum(r.e0, -r.e1)
    elif chain.link == "sigmoid":
        change = _rise(r.z0, r.z1, r.p0, r.p1)
    else:
        rises = []
        for k in range(r.z0.shape[1]):
            odds = ClassChange(1.0, k).odds
            rises.append(_rise(*odds(r.z0, r.z1), *odds(r.p0, r.p1)))
        change = torch.stack(rises, dim=1)
    change = torch.where(torch.isfinite(change), change, 0.0)
    return change.clamp(min=0.0).amax(dim=1)


def _rise(z0: Tensor, z1: Tensor, p0: Tensor, p1: Tensor) -> Tensor:
    """Return a lower bound of ``|sigmoid(p) - sigmoid(z)|``; what it subtracts is exact or less."""
    before, after = (
        (elementary.sigmoid_bounds(low)[0], elementary.sigmoid_bounds(high)[1])
        for low, high in ((z0, z1), (p0, p1))
    )
    return torch.maximum(after[0] - before[1], before[0] - after[1]) - 2 * UNIT

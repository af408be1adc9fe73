r"""The steps of a network that is executed in a floating-point format.

Every parameter's interval is widened by its rounding to the storage format, and every result gets
errors of its own (:class:`~paramrob.bounds.graph.noisy.Noisy`): a sum of ``n`` products and a bias
``gamma_{n+1} (|W| + R)`` on its weights, ``gamma_{n+1} (|b| + r)`` and underflow on its bias (model
and source: :mod:`paramrob.arithmetic`). Rounding a result to the storage format is a further step,
``y -> (1 + d) y + e``. Fewer roundings, or wider formats in between, are covered, for every error
may be zero. What may overflow is given a limit that proved intervals have to respect.

A subnormal number may be taken for zero by one reader and not by the next, so that every operand
is charged one smallest normal; ReLU, clamp, maximum and whatever only moves numbers are exact, and
what they take for zero is within the next reader's charge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paramrob.arithmetic import ACTIVATION_ULPS, UP, Arithmetic, upward
from paramrob.bounds.graph.affine import Affine, DiagonalMap
from paramrob.bounds.graph.noisy import Noisy
from paramrob.bounds.graph.program import Builder, Sum
from paramrob.errors import BackendError
from paramrob.models.network import (
    Activation,
    Add,
    Array,
    BatchNorm,
    Conv,
    Dense,
    Elementwise,
    Network,
    Node,
    Pool,
    Quantize,
    Shape,
)
from paramrob.models.ops import AdaptivePool
from paramrob.models.shapes import Indices
from paramrob.perturbation import ParameterInterval, Perturbation

GATES = ("silu", "gelu", "gelu_tanh", "hardswish")
BATCH_NORM = 16
"""Roundings of a batch norm, its square root and reciprocal within four units each."""


@dataclass(frozen=True)
class StoredInterval(ParameterInterval):
    """A parameter's interval with room for the rounding of its values."""

    wide: Array | None = None

    def radius(self) -> Array:
        """Return the radius, rounding included."""
        return super().radius() if self.wide is None else self.wide


@dataclass(frozen=True)
class Error:
    """``relative |y| + absolute`` for a result ``y``, and ``of_input |z|`` for what it was made of.

    ``absolute`` is one number, or one a result.
    """

    relative: float = 0.0
    absolute: Array | float = 0.0
    of_input: float = 0.0


@dataclass(frozen=True)
class _Statistics:
    """What a batch norm multiplies and adds, one number a channel.

    Attributes:
        mean, moved: the mean's magnitude and its rounding.
        root: ``1 / sqrt(variance + epsilon)``.
        relative: error of ``root`` from rounding variance and epsilon.
        weight, bias: magnitudes of what the box allows.
    """

    mean: Array
    moved: Array
    root: Array
    relative: Array
    weight: Array
    bias: Array

    @property
    def scale(self) -> Array:
        """Magnitude of what ``h - mean`` is multiplied by."""
        return self.weight * self.root


class DeployedBuilder(Builder):
    """Lowers nodes with the rounding of their parameters and results.

    Args:
        network, perturbation: the box of networks.
        device: where tensors live.
        arithmetic: what they are executed in.
    """

    def __init__(
        self, network: Network, perturbation: Perturbation, device: str, arithmetic: Arithmetic
    ) -> None:
        super().__init__(network, perturbation, device)
        self.arithmetic = arithmetic
        self.unit, self.smallest = arithmetic.storage.unit, arithmetic.storage.smallest
        self.most = arithmetic.accumulator.largest / UP

    def add(self, node: Node) -> None:
        """Lower one node, then round its results."""
        first = len(self.steps)
        super().add(node)
        if len(self.steps) == first:
            return
        at = self.at[node.name]
        self._limit_sums(node, at)
        error = self._error(node, at)
        if error is not None:
            at = self._erring(node, at, error)
        if isinstance(self.steps[at].kind, Affine):
            self._limited(at, limit=self.arithmetic.storage.largest)
        self.at[node.name] = at

    def _limited(self, at: int, limit: float = math.inf, partial: float = math.inf) -> None:
        step = self.steps[at]
        self.steps[at] = replace(
            step, limit=min(step.limit, limit), partial=min(step.partial, partial)
        )

    def _limit_sums(self, node: Node, at: int) -> None:
        """Keep partial sums within the accumulator's range."""
        op = node.op
        if isinstance(op, (Dense, Conv)):
            self._limited(at, partial=self.most)
        elif isinstance(op, (Pool, AdaptivePool)) and op.kind == "average":
            self._limited(at, partial=self.most / (2 * self._members(at)))
        elif isinstance(op, BatchNorm):
            known = self._statistics(op)
            self._limited(at - 1, limit=self.most / (2 * max(1.0, float(known.root.max()))))
            apart = 3 * float((known.mean * known.scale).max())
            self._limited(at, partial=self.most - apart)

    def _members(self, at: int) -> int:
        layer = self.steps[at].kind
        return layer.terms_forward if isinstance(layer, Affine) else 1

    def _erring(self, node: Node, at: int, error: Error) -> int:
        """Add a step in which results are off by ``error``."""
        size = self.steps[at].size
        absolute = self._full(size, error.absolute)
        one = torch.ones_like(absolute)
        if not error.of_input:
            off = DiagonalMap(one, one * error.relative, one * 0, absolute)
            return self._step(off, [at], node)
        # The input's limit leaves room for what a gate multiplies it by on the way.
        partial = error.of_input * self.arithmetic.storage.largest / 8
        off = DiagonalMap(one * 0, one * error.of_input, one * 0, absolute)
        beside = self._step(off, [self.at[node.inputs[0]]], node)
        self._limited(beside, partial=partial)
        return self._step(Sum((1, 1)), [at, beside], node)

    def _full(self, size: int, value: Array | float) -> Tensor:
        return self._tensor(np.broadcast_to(np.asarray(value, dtype=np.float64), (size,)))

    def _error(self, node: Node, at: int) -> Error | None:
        """Return what a result is off by besides the noise of its own layer."""
        op, u, nu = node.op, self.unit, self.smallest
        layer = self.steps[at].kind
        if isinstance(op, Activation):
            return self._activation_error(node.name, op)
        if isinstance(op, Quantize):
            raise BackendError(
                f"node {node.name!r} rounds to a grid: a rounding error before it can cost a step; "
                "ask in real numbers (--arithmetic real) and allow for --runtime-steps"
            )
        if isinstance(op, Add):
            return Error(u, 4 * nu) if len(node.inputs) == 2 else None
        if isinstance(op, Elementwise) and isinstance(layer, DiagonalMap):
            size = (layer.scale.abs() + layer.radius).cpu().numpy()
            return Error(4 * u if op.kind == "div" else u, upward(2 * nu * (1 + size)))
        if self.arithmetic.rounds_once:
            return None
        if isinstance(op, (Dense, Conv)) and isinstance(layer, Affine):
            # A bias may be added before or after the sum is rounded.
            bias = (layer.bias.abs() + layer.bias_radius).cpu().numpy()
            return Error((2 + u) * u, upward((1 + u) * u * bias + 3 * nu))
        averages = isinstance(op, (Pool, AdaptivePool)) and op.kind == "average"
        return Error(u, 2 * nu) if averages or isinstance(op, BatchNorm) else None

    def _activation_error(self, name: str, op: Activation) -> Error | None:
        """Bound what a library makes of an activation.

        Sigmoids, tanh and erf are off by ``ACTIVATION_ULPS`` units of 1, also where they are
        small: libraries use rational approximations there. A gate multiplies the input by one of
        them. Operands that are taken for zero cost their slope, at most 1.5.
        """
        u, nu = self.unit, self.smallest
        library = 2 * ACTIVATION_ULPS * u
        kind = op.kind
        if kind in ("relu", "identity"):
            return None
        if kind == "clamp":
            ends = np.array([op.low, op.high])
            largest = float(np.abs(ends).max())
            if not largest * UP < self.arithmetic.storage.largest:
                raise BackendError(
                    f"node {name!r} clamps at {largest!r}, beyond the largest "
                    f"{self.arithmetic.name}; choose a wider --arithmetic"
                )
            exact = bool(self.arithmetic.storage.holds(ends).all())
            return None if exact else Error(0.0, u * largest + 4 * nu)
        if kind in GATES:
            return Error(0.0, 4 * nu, 2 * library)
        if kind == "leaky_relu":
            slope = abs(op.slope)
            vanishing = 0.0 if slope == 0 or slope >= 2 * nu else 1.0
            return Error(3 * u + vanishing, 2 * nu * (1 + slope))
        if kind == "softplus":
            return Error(2 * library, library / op.beta + 4 * nu * (1 + 1 / op.beta))
        if kind == "elu":
            return Error(library, (2 * library + 4 * nu) * max(1.0, abs(op.alpha)))
        return Error(0.0, library + 2 * nu)

    def _interval(self, name: str) -> ParameterInterval:
        given = super()._interval(name)
        wide = self.arithmetic.stored_radius(name, given.centre, given.radius())
        return StoredInterval(given.centre, given.absolute, given.relative, wide)

    def _sum_noise(
        self, node: Node, weight: ParameterInterval, bias: ParameterInterval
    ) -> tuple[ParameterInterval, ParameterInterval]:
        """Return what the rounding of a sum adds to each weight and to the bias."""
        size = np.abs(weight.centre) + weight.radius()
        terms = size[0].size
        gamma = self.arithmetic.gamma(terms + 1, node.name)
        read = self.smallest * size.reshape(size.shape[0], -1).sum(1)
        underflow = 2 * (terms + 1) * self.arithmetic.accumulator.smallest
        moved = gamma * (np.abs(bias.centre) + bias.radius()) + (1 + gamma) * (read + underflow)
        return ParameterInterval(upward(gamma * size)), ParameterInterval(upward(moved))

    def _dense(self, node: Node, weight: ParameterInterval, bias: ParameterInterval) -> Affine:
        noise = self._sum_noise(node, weight, bias)
        return Noisy(super()._dense(node, weight, bias), super()._dense(node, *noise))

    def _convolution(
        self,
        node: Node,
        op: Conv,
        before: Shape,
        weights: ParameterInterval,
        biases: ParameterInterval,
    ) -> Affine:
        noise = self._sum_noise(node, weights, biases)
        base = super()._convolution(node, op, before, weights, biases)
        return Noisy(base, super()._convolution(node, op, before, *noise))

    def _average(
        self, node: Node, windows: Indices, divisors: Array, channels: int, size: int
    ) -> Affine:
        members = windows.shape[1]
        gamma = self.arithmetic.gamma(members + 2, node.name)
        base = super()._average(node, windows, divisors, channels, size)
        noise = super()._average(node, windows, divisors / gamma, channels, size)
        underflow = 2 * (members + 2) * self.arithmetic.accumulator.smallest
        lost = UP * (1 + gamma) * (underflow + self.smallest)
        noise.bias = torch.full_like(base.bias, lost)
        return Noisy(base, noise)

    def _added(self, node: Node, before: list[int]) -> int:
        """Add more than two values in any order: each gets the roundings of all sums."""
        count = len(before)
        if count > 2:
            lost = (count - 1) * self.unit
            if lost >= 0.5:
                raise BackendError(
                    f"node {node.name!r} adds {count} values, too many for {self.arithmetic.name}; "
                    "choose a wider --arithmetic"
                )
            error = Error(UP * lost / (1 - lost), 4 * self.smallest)
            before = [self._erring(node, at, error) for at in before]
            for at in before:
                self._limited(at, limit=self.arithmetic.storage.largest / count)
        return super()._added(node, before)

    def _normalisation(self, op: BatchNorm, before: Shape) -> list[Affine]:
        """Return shift and scale with the noise of any of three ways to compute them.

        ``(h - mean) root weight + bias``, or ``h scale + (bias - mean scale)`` with ``scale =
        weight root``, each product and sum rounded, or fused.
        """
        shift, scale = super()._normalisation(op, before)
        known, places = self._statistics(op), math.prod(before[1:])
        gamma = self.arithmetic.gamma(BATCH_NORM, "batch norm")
        lost = 2 * (known.relative + gamma)
        tiny = self.arithmetic.accumulator.smallest
        relative = lost * known.scale + 4 * tiny * (1 + known.weight)
        absolute = lost * (known.bias + 2 * (known.mean + known.moved) * known.scale)
        absolute += (known.moved * (1 + lost) + 2 * self.smallest) * known.scale
        absolute += 16 * tiny * (1 + known.scale + known.weight) * (1 + known.mean)

        def spread(a: Array) -> Tensor:
            return self._tensor(np.repeat(upward(a), places))

        zero = self._full(places * len(relative), 0.0)
        return [shift, Noisy(scale, DiagonalMap(spread(relative), zero, spread(absolute), zero))]

    def _statistics(self, op: BatchNorm) -> _Statistics:
        values, inner = self.network.parameters, self.arithmetic.accumulator
        mean, variance = values[op.mean].value, values[op.variance].value
        zero = np.zeros_like(mean)
        moved = self.arithmetic.stored_radius(op.mean, mean, zero)
        lost = self.arithmetic.stored_radius(op.variance, variance, zero)
        lost = lost + (op.epsilon if op.epsilon < inner.smallest else inner.unit * op.epsilon)
        total = variance + op.epsilon
        # 1 / sqrt(1 - t) - 1 <= t for t up to 1/2
        if not (lost <= total / 4).all() or not (total > 0).all():
            raise BackendError(
                f"the variance {op.variance!r} does not survive rounding to "
                f"{self.arithmetic.name}; choose a wider --arithmetic"
            )
        weight = self._optional(op.weight, len(mean), 1.0)
        bias = self._optional(op.bias, len(mean))
        return _Statistics(
            np.abs(mean),
            moved,
            UP / np.sqrt(total),
            lost / total,
            np.abs(weight.centre) + weight.radius(),
            np.abs(bias.centre) + bias.radius(),
        )

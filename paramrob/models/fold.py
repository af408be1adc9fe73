"""Batch norms folded into the convolutions and dense layers before them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from paramrob.errors import ModelError
from paramrob.models.network import (
    Array,
    BatchNorm,
    Conv,
    Dense,
    Network,
    Node,
    Parameter,
    node_parameters,
)

_BITS = 128


def fold_batch_norm(network: Network) -> Network:
    """Return a network in which batch norms are folded into the layers before them.

    A batch norm behind a convolution or dense layer ``W h + b`` becomes part of it: ``W' = s W``
    and ``b' = s (b - mean) + beta`` with ``s = gamma / sqrt(variance + epsilon)``, channel by
    channel. It is folded where it is the layer's only consumer and no other layer uses that
    layer's parameters; any other batch norm stays as it is.

    Each folded number is the correctly rounded float64 of the exact one (or the exact one, where
    a float64 holds it): the result is a new reference network, whose parameters differ from the
    exact fold by at most one rounding each.

    Args:
        network: any network.

    Returns:
        The network itself where there is nothing to fold. Folded layers keep their names and
        their weights' names; a layer without a bias gets the parameter ``<layer>.bias``.

    Raises:
        ModelError: a folded number is beyond float64.
    """
    return _Folding(network).result()


def batch_norms(network: Network) -> tuple[str, ...]:
    """Return the names of the batch norms."""
    return tuple(node.name for node in network.nodes if isinstance(node.op, BatchNorm))


class _Folding:
    """One pass over a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._by_name = {node.name: node for node in network.nodes}
        self._consumers = Counter(name for node in network.nodes for name in node.inputs)
        self._users = Counter(p for node in network.nodes for p in node_parameters(node.op))
        self._parameters = dict(network.parameters)

    def result(self) -> Network:
        """Return the folded network."""
        folded: dict[str, Node] = {}
        renamed: dict[str, str] = {}
        for node in self._network.nodes:
            if isinstance(node.op, BatchNorm) and self._is_foldable(node, node.op):
                layer = self._by_name[node.inputs[0]]
                folded[layer.name] = self._folded(layer, node.op)
                renamed[node.name] = layer.name
        if not folded:
            return self._network
        nodes = [
            replace(
                folded.get(node.name, node), inputs=tuple(renamed.get(n, n) for n in node.inputs)
            )
            for node in self._network.nodes
            if node.name not in renamed
        ]
        used = {name for node in nodes for name in node_parameters(node.op)}
        return Network(nodes, [p for name, p in self._parameters.items() if name in used])

    def _is_foldable(self, node: Node, op: BatchNorm) -> bool:
        layer = self._by_name[node.inputs[0]]
        if not isinstance(layer.op, (Dense, Conv)) or self._consumers[layer.name] != 1:
            return False
        # A dense layer's outputs are its last axis, a batch norm's channels the first.
        if isinstance(layer.op, Dense) and len(layer.shape) != 1:
            return False
        own = node_parameters(layer.op)
        return len(set(own)) == len(own) and all(self._users[name] == 1 for name in own)

    def _folded(self, layer: Node, norm: BatchNorm) -> Node:
        op = layer.op
        if not isinstance(op, (Dense, Conv)):
            raise ModelError(f"layer {layer.name!r} cannot take a batch norm; report this")
        weight = self._parameters[op.weight].value
        channels = weight.shape[0]
        scales = [_scale(self._column(norm, channels), norm.epsilon, i) for i in range(channels)]
        rows = [_scaled(weight[i], scales[i], layer.name) for i in range(channels)]
        self._parameters[op.weight] = Parameter(op.weight, np.stack(rows))
        bias = op.bias or self._free_name(f"{layer.name}.bias")
        given = self._parameters[op.bias].value if op.bias else np.zeros(channels)
        mean, beta = self._value(norm.mean, channels), self._value(norm.bias, channels)
        shifted = [
            scales[i].rounded(_exact(given[i]) - _exact(mean[i]), _exact(beta[i]), layer.name)
            for i in range(channels)
        ]
        self._parameters[bias] = Parameter(bias, np.array(shifted))
        return replace(layer, op=replace(op, bias=bias))

    def _column(self, norm: BatchNorm, channels: int) -> tuple[Array, Array]:
        gamma = self._value(norm.weight, channels, 1.0)
        return gamma, self._value(norm.variance, channels)

    def _value(self, name: str | None, channels: int, default: float = 0.0) -> Array:
        return np.full(channels, default) if name is None else self._parameters[name].value

    def _free_name(self, name: str) -> str:
        while name in self._parameters:
            name += "_"
        return name


@dataclass(frozen=True)
class _Scale:
    """``factor * root`` where ``root = 1 / sqrt(radicand)``, perhaps irrational.

    ``exact`` is the root where it is rational.
    """

    factor: Fraction
    radicand: Fraction
    exact: Fraction | None

    def rounded(self, times: Fraction, plus: Fraction, layer: str) -> float:
        """Return ``factor * root * times + plus``, correctly rounded to float64."""
        product = self.factor * times
        if not product:
            return _nearest(plus, layer)
        if self.exact is not None:
            return _nearest(product * self.exact + plus, layer)
        bits = _BITS
        while True:  # ends: an irrational number lies on no boundary of rounding
            low = _root(self.radicand, bits)
            ends = [low, low + Fraction(1, 1 << _shift(self.radicand, bits))]
            first, last = (_nearest(product * end + plus, layer) for end in ends)
            if first == last:
                return first
            bits *= 2


def _scale(column: tuple[Array, Array], epsilon: float, index: int) -> _Scale:
    gamma, variance = column
    radicand = _exact(variance[index]) + _exact(epsilon)
    over, under = math.isqrt(radicand.numerator), math.isqrt(radicand.denominator)
    square = (over**2, under**2) == (radicand.numerator, radicand.denominator)
    return _Scale(_exact(gamma[index]), radicand, Fraction(under, over) if square else None)


def _shift(radicand: Fraction, bits: int) -> int:
    """Return the places behind the point at which the root has at least ``bits`` bits."""
    size = radicand.numerator.bit_length() - radicand.denominator.bit_length()
    return max(0, bits + size // 2 + 2)


def _root(radicand: Fraction, bits: int) -> Fraction:
    """Return ``1 / sqrt(radicand)`` rounded down to ``_shift`` places."""
    shift = _shift(radicand, bits)
    floor = math.isqrt((radicand.denominator << (2 * shift)) // radicand.numerator)
    return Fraction(floor, 1 << shift)


def _scaled(row: Array, scale: _Scale, layer: str) -> Array:
    """Return ``scale * row``, each number correctly rounded."""
    numbers = row.ravel().tolist()
    rounder = _row_rounder(scale, layer)
    return np.array([rounder(number) for number in numbers]).reshape(row.shape)


def _row_rounder(scale: _Scale, layer: str) -> Callable[[float], float]:
    """Return what multiplies one number by a scale: quick, and the same as ``rounded``."""
    if scale.exact is not None or not scale.factor:
        return lambda number: scale.rounded(_exact(number), Fraction(0), layer)
    low = scale.factor * _root(scale.radicand, _BITS)
    high = scale.factor * (
        _root(scale.radicand, _BITS) + Fraction(1, 1 << _shift(scale.radicand, _BITS))
    )

    def times(number: float) -> float:
        over, under = number.as_integer_ratio()
        try:
            first = (over * low.numerator) / (under * low.denominator)
            last = (over * high.numerator) / (under * high.denominator)
        except OverflowError:
            raise ModelError(_TOO_LARGE.format(layer)) from None
        return first if first == last else scale.rounded(_exact(number), Fraction(0), layer)

    return times


_TOO_LARGE = "folding the batch norm into layer {!r} gives numbers beyond float64; do not fold it"


def _nearest(value: Fraction, layer: str) -> float:
    try:
        return value.numerator / value.denominator  # correctly rounded by Python
    except OverflowError:
        raise ModelError(_TOO_LARGE.format(layer)) from None


def _exact(value: float) -> Fraction:
    return Fraction(float(value))

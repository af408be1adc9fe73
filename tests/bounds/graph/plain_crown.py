"""CROWN over boxed parameters as the paper prints it: dense ReLU chains, one input at a time.

Written on its own, in plain numpy, without any care for rounding: what the bound pass is held
against.
"""

from __future__ import annotations

import numpy as np

from paramrob.models.network import Array, Dense, Network


def layers_of(network: Network) -> tuple[list[Array], list[Array]]:
    """Return weights and biases of a dense chain."""
    ops = [node.op for node in network.nodes if isinstance(node.op, Dense)]
    weights = [network.parameters[op.weight].value for op in ops]
    return weights, [network.parameters[op.bias or ""].value for op in ops]


def plain_crown(
    network: Network, x: Array, delta: float, radius: float = 0.0
) -> tuple[Array, Array]:
    """Bound all results for parameters within ``delta`` and inputs within ``radius``."""
    weights, biases = layers_of(network)
    ranges: list[tuple[Array, Array]] = []
    reach = np.abs(x) + radius
    for k in range(len(weights)):
        ends = []
        for sign in (1.0, -1.0):
            row = sign * weights[k]
            constant = sign * biases[k] - delta
            slack = np.full(row.shape, delta)
            for j in range(k - 1, -1, -1):
                low, high = ranges[j]
                row = row - slack
                free = (low < 0) & (high > 0)
                chord = np.where(free, high / np.where(free, high - low, 1.0), low >= 0)
                foot = np.where(free, (high > -low).astype(float), low >= 0)
                up, down = np.maximum(row, 0), np.minimum(row, 0)
                constant = constant + down @ np.where(free, -chord * low, 0.0)
                on_z = up * foot + down * chord
                size = np.abs(on_z)
                constant = constant + on_z @ biases[j] - delta * size.sum(1)
                row = on_z @ weights[j]
                slack = delta * size.sum(1, keepdims=True) * np.ones(weights[j].shape[1])
            ends.append(constant + row @ x - np.abs(row) @ np.full(len(x), radius) - slack @ reach)
        ranges.append((ends[0], -ends[1]))
    return ranges[-1]


def plain_intervals(
    network: Network, x: Array, delta: float, radius: float = 0.0
) -> tuple[Array, Array]:
    """Bound all results layer by layer by products of intervals, number by number."""
    weights, biases = layers_of(network)
    low, high = x - radius, x + radius
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if k:
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        corners = [w * h for w in (weight - delta, weight + delta) for h in (low, high)]
        low = np.min(corners, axis=0).sum(1) + bias - delta
        high = np.max(corners, axis=0).sum(1) + bias + delta
    return low, high

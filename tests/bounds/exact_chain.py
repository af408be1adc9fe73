"""Pre-activations of plain chains in exact rationals (balls from the first exponential on)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import flint

from paramrob.models.network import Activation, Array, Dense, Network

Exact = Any  # flint has no stubs: fmpq or arb


def rational(value: float) -> Exact:
    f = Fraction(float(value))
    return flint.fmpq(f.numerator, f.denominator)


def activated(op: Activation, t: Exact) -> Exact:
    if op.kind in ("sigmoid", "tanh"):
        t = flint.arb(t)
        return t.tanh() if op.kind == "tanh" else 1 / (1 + (-t).exp())
    if op.kind == "identity" or t > 0:
        return t
    if t <= 0:
        return rational(op.slope) * t if op.kind == "leaky_relu" else 0 * t
    return t.max(0 * t) + (rational(op.slope) * t.min(0 * t) if op.kind == "leaky_relu" else 0)


def results(network: Network, x: Array, values: Mapping[str, Array]) -> list[list[Exact]]:
    """Return the result of every dense layer of a chain of dense layers and activations."""
    h: list[Exact] = [rational(v) for v in x]
    found = []
    for node in network.nodes[1:]:
        if isinstance(node.op, Activation):
            h = [activated(node.op, t) for t in h]
        elif isinstance(node.op, Dense):
            weight, bias = values[node.op.weight], values[node.op.bias or ""]
            h = [
                sum((rational(w) * t for w, t in zip(row, h, strict=True)), rational(b))
                for row, b in zip(weight, bias, strict=True)
            ]
            found.append(h)
    return found


def stored(network: Network) -> dict[str, Array]:
    return {name: p.value for name, p in network.parameters.items()}

"""Activations in ball arithmetic, and intervals and slopes that try to break their lines."""

from __future__ import annotations

import math

import flint
import torch
from torch import Tensor

from paramrob.models.ops import Activation

OPS = [
    Activation("identity"),
    Activation("relu"),
    Activation("leaky_relu", slope=0.1),
    Activation("leaky_relu", slope=0.7),
    Activation("clamp", low=0.0, high=6.0),
    Activation("clamp", low=-0.3, high=0.1),
    Activation("clamp", low=0.4, high=0.4),
    Activation("hardsigmoid"),
    Activation("hardswish"),
    Activation("sigmoid"),
    Activation("tanh"),
    Activation("softplus"),
    Activation("softplus", beta=3.7),
    Activation("elu"),
    Activation("elu", alpha=2.3),
    Activation("elu", alpha=0.0),
    Activation("silu"),
    Activation("gelu"),
    Activation("gelu_tanh"),
]


def name_of(op: Activation) -> str:
    """Return a short name for a test's id."""
    return f"{op.kind}-{op.slope}-{op.low}-{op.high}-{op.alpha}-{op.beta}"


def _sigmoid(x: flint.arb) -> flint.arb:
    if x > 5000 or x < -5000:  # arb would need an exponent of as many digits
        return flint.arb(int(x > 0)) + flint.arb(0, 2.0**-1060)
    return 1 / (1 + (-x).exp())


def phi(op: Activation, z: flint.arb) -> flint.arb:
    """Return a ball around the activation of ``z``, a ball that does not contain a kink."""
    kind = op.kind
    if kind == "identity":
        return z
    if kind in ("relu", "leaky_relu"):
        return z if z > 0 else z * flint.arb(op.slope)
    if kind == "clamp":
        return flint.arb(op.low) if z <= op.low else flint.arb(op.high) if z >= op.high else z
    if kind in ("hardsigmoid", "hardswish"):
        gate = flint.arb(0) if z <= -3 else flint.arb(1) if z >= 3 else (z + 3) / 6
        return gate if kind == "hardsigmoid" else gate * z
    if kind == "sigmoid":
        return _sigmoid(z)
    if kind == "tanh":
        return 2 * _sigmoid(2 * z) - 1 if abs(z) > 100 else z.tanh()
    return _curved(op, z)


def _curved(op: Activation, z: flint.arb) -> flint.arb:
    arb, kind = flint.arb, op.kind
    if kind == "softplus":
        x = z * arb(op.beta)
        tail = arb(0, 2.0**-1060) if abs(x) > 5000 else (-abs(x)).exp().log1p()
        return ((x if x > 0 else arb(0)) + tail) / arb(op.beta)
    if kind == "elu":
        if z > 0:
            return z
        return arb(op.alpha) * (arb(-1) + arb(0, 2.0**-1060) if z < -5000 else z.expm1())
    if kind == "silu":
        return z * _sigmoid(z)
    if kind == "gelu":
        if abs(z) > 5000:
            return (z if z > 0 else arb(0)) + arb(0, 2.0**-1060)
        return z * (-z / arb(2).sqrt()).erfc() / 2
    if abs(z) > 1000:
        return (z if z > 0 else arb(0)) + arb(0, 2.0**-1060)
    cubic = (arb(2) / arb.pi()).sqrt() * (z + arb("0.044715") * z**3)
    return z * _sigmoid(2 * cubic)


def slope_at(op: Activation, z: float) -> float:
    """Return about the derivative, from a difference of balls."""
    step = flint.arb(2.0**-60)
    high, low = (phi(op, flint.arb(z) + sign * step) for sign in (1, -1))
    return float((high - low) / (2 * step))


MARKS = [0.0, 3.0, -3.0, 6.0, -0.3, 0.1, 0.4, 1.0, -1.5, -1.2784645427610737]
MARKS += [2.3993572805154675, -2.3993572805154675, 1.414213562373095, -1.414213562373095]
MARKS += [1.4185040087908283, -1.4185040087908283, -0.7517915246935645, 37.0, -37.0, 707.0, -707.0]
MARKS += [22.0, -22.0, 5e-324, -5e-324, 2.0**-1022, 1e-300, -1e-160, 1e-8, -1e-8, 1e300, -1e300]


def intervals(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``count`` intervals of every width, place and kind, ``(count,)`` each."""
    generator = torch.Generator().manual_seed(seed)

    def pick(choices: list[float]) -> Tensor:
        at = torch.randint(len(choices), (count,), generator=generator)
        return torch.tensor(choices, dtype=torch.float64)[at]

    def normal() -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    sizes = [1.0] * 6 + [0.1, 3.0, 10.0, 30.0, 300.0, 1e-3, 1e-9, 1e-15, 1e-200, 1e-320, 1e6, 1e200]
    centre = normal() * pick([0.0, 1.0, 1.0, 1.0, 5.0, 30.0, 1e-12, 1e4])
    marked = torch.rand(count, generator=generator) < 0.3
    centre = torch.where(marked, pick(MARKS), centre)
    lower = centre - normal().abs() * pick(sizes)
    upper = centre + normal().abs() * pick(sizes)
    kind = torch.rand(count, generator=generator)
    lower = torch.where(kind < 0.15, centre, lower)
    upper = torch.where((kind > 0.1) & (kind < 0.25), centre, upper)
    neighbour = torch.nextafter(lower, torch.full_like(lower, math.inf))
    return lower, torch.where(kind > 0.95, neighbour, upper)


def some_slopes(op: Activation, lower: Tensor, upper: Tensor, seed: int) -> Tensor:
    """Return slopes ``(9, count)``: exact ones, nearly exact ones, derivatives, absurd ones."""
    generator = torch.Generator().manual_seed(seed)
    count = len(lower)

    def pick(choices: list[float]) -> Tensor:
        at = torch.randint(len(choices), (count,), generator=generator)
        return torch.tensor(choices, dtype=torch.float64)[at]

    share = torch.rand(count, generator=generator, dtype=torch.float64)
    inside = (lower + share * (upper - lower)).tolist()
    derivative = torch.tensor([slope_at(op, z) for z in inside], dtype=torch.float64)
    exact = pick([0.0, 1.0, 0.1, 0.7, 0.25, 0.5, 1.5, -0.5, 2.3])
    absurd = pick([1e300, -1e300, 5e-324, -1e-310, 1e-160, 1e16, -7.0, 1e-17])
    return torch.stack(
        [
            exact,
            torch.nextafter(exact, pick([-9.0, 9.0])),
            derivative,
            derivative * (1 + pick([1e-15, -1e-15, 1e-8, -1e-8])),
            torch.rand(count, generator=generator, dtype=torch.float64),
            torch.randn(count, generator=generator, dtype=torch.float64) * 0.3,
            10.0 ** (-20 * share),
            1.0 + pick([-1.0, 1.0]) * 10.0 ** (-17 * share),
            absurd,
        ]
    )

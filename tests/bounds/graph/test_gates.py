"""The facts about SiLU and the GELUs on which their pieces rest, in ball arithmetic."""

from __future__ import annotations

import math
from typing import Any

import flint
import pytest
import torch

from paramrob.bounds.graph.gates import GATES, SLIVER, Gated

Arb = Any
KINDS = list(GATES)


def curvature(kind: str, x: Arb) -> Arb:
    """Return something of the sign of ``E''`` at ``x >= 0``."""
    if kind == "silu":
        return 2 - x * (x / 2).tanh()
    if kind == "gelu":
        return 2 - x * x
    scale, cubic = (flint.arb(8) / flint.arb.pi()).sqrt(), flint.arb("0.044715")
    w = scale * (x + cubic * x**3)
    first, second = scale * (1 + 3 * cubic * x * x), 6 * scale * cubic * x
    return 2 * first + x * second - x * first**2 * (w / 2).tanh()


def slope(kind: str, x: Arb) -> tuple[Arb, Arb]:
    """Return ``n`` and ``g`` at ``x``."""
    if kind == "gelu":
        density = (-x * x / 2).exp() / (2 * flint.arb.pi()).sqrt()
        return (x / flint.arb(2).sqrt()).erfc() / 2, x * density
    scale, cubic = (flint.arb(8) / flint.arb.pi()).sqrt(), flint.arb("0.044715")
    w, first = (x, flint.arb(1))
    if kind == "gelu_tanh":
        w, first = scale * (x + cubic * x**3), scale * (1 + 3 * cubic * x * x)
    n = 1 / (1 + w.exp())
    return n, x * first * n * (1 - n)


def has_sign(kind: str, left: Arb, right: Arb, sign: int) -> None:
    """Fail unless the curvature has one sign on a whole interval, by bisection."""
    todo = [(left, right)]
    for _ in range(20000):
        if not todo:
            return
        a, b = todo.pop()
        if curvature(kind, a.union(b)) * sign > 0:
            continue
        middle = ((a + b) / 2).mid()
        todo += [(a, middle), (middle, b)]
    pytest.fail(f"no sign on [{left}, {right}]")


@pytest.mark.parametrize("kind", KINDS)
def test_the_curvature_changes_sign_once_between_two_neighbours(kind: str) -> None:
    below = GATES[kind].below
    above = math.nextafter(below, math.inf)
    with flint.ctx.workprec(120):
        assert curvature(kind, flint.arb(below)) > 0
        assert curvature(kind, flint.arb(above)) < 0
        # away from the change itself; there the sign's own derivative keeps it falling
        near = 2.0**-6
        has_sign(kind, flint.arb(0), flint.arb(below - near), 1)
        has_sign(kind, flint.arb(above + near), flint.arb(6.0), -1)
        step = 2.0**-40
        for k in range(65):
            x = flint.arb(below - near) + flint.arb(2 * near) * k / 64
            assert curvature(kind, x + step) < curvature(kind, x)


def test_beyond_two_the_tanh_form_is_concave() -> None:
    """The inequality of the docstring, at its first point."""
    scale, cubic = (flint.arb(8) / flint.arb.pi()).sqrt(), flint.arb("0.044715")
    x = flint.arb(2)
    first = scale * (1 + 3 * cubic * x * x)
    assert 6 * scale * cubic * x * x <= 2 * first
    assert x * first * (scale * (x + cubic * x**3) / 2).tanh() > 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_sliver_is_as_thin_and_flat_as_stated(kind: str) -> None:
    below = GATES[kind].below
    assert math.nextafter(below, math.inf) - below <= 2.0**-51
    with flint.ctx.workprec(200):
        # the third derivative from the slopes around: below 1 by far
        h = flint.arb(2.0**-20)
        values = [g - n for n, g in (slope(kind, flint.arb(below) + k * h) for k in (-1, 0, 1))]
        assert abs(values[0] - 2 * values[1] + values[2]) / h**2 < 0.9
    assert SLIVER >= 2 * 2.0**-102


@pytest.mark.parametrize("kind", KINDS)
def test_the_turn_encloses_the_only_minimum(kind: str) -> None:
    turn = Gated(kind).turn
    assert turn is not None
    with flint.ctx.workprec(200):
        for z, sign in ((turn.left, 1), (turn.right, -1)):
            n, g = slope(kind, flint.arb(-z))
            assert (g - n) * sign > 0  # minus the derivative
        n, g = slope(kind, flint.arb(-turn.left))
        # the slope is below 2^-50 there, so the value moves by less than 2^-100 to the minimum
        assert abs(g - n) < 2.0**-50
        value = flint.arb(turn.left) * n
        assert turn.value <= value - 2.0**-100
        assert value - turn.value < 2.0**-52
    assert turn.right - turn.left <= 2.0**-51


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, -1])
def test_touches_have_the_slope_that_was_asked_for(kind: str, side: int) -> None:
    curve = Gated(kind)
    low, high = (0.5 - GATES[kind].peak, 0.5 + GATES[kind].peak)
    wanted = torch.linspace(low, high, 4001, dtype=torch.float64)
    if side < 0:
        wanted = wanted[(wanted < -1e-9) | (wanted > 1 + 1e-9)]
    wide = torch.full_like(wanted, 300.0)
    piece = curve.piece(side, -wide, wide, wanted)
    t = torch.minimum(torch.maximum(piece.touch, piece.left), piece.right)
    tangent = curve.tangent(t)
    got = tangent.point.m + tangent.slope
    assert (got - wanted).abs().max() < 1e-11

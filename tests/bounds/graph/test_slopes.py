"""Default slopes: CROWN's where it has a closed form, and nearly the least area everywhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paramrob.bounds.graph.lines import Prepared, slopes
from paramrob.models.ops import Activation
from tests.bounds.graph.activation_truth import OPS, intervals, name_of

every_op = pytest.mark.parametrize("op", OPS, ids=name_of)


def height(prepared: Prepared, side: int, slope: Tensor) -> Tensor:
    """Return how high (or low) the line is in the middle: twice the area differs by it."""
    middle = prepared.lower / 2 + prepared.upper / 2
    return (prepared.intercept(side, slope)[0] + slope * middle) * side


def highest(prepared: Prepared, side: int) -> Tensor:
    """Return the best height by ternary search: it is concave in the slope."""
    low, high = (torch.full_like(prepared.lower, v) for v in prepared.curve.steepness)
    for _ in range(80):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        better = height(prepared, side, first) < height(prepared, side, second)
        low, high = torch.where(better, first, low), torch.where(better, high, second)
    return height(prepared, side, (low + high) / 2)


def test_rectifiers_get_the_adaptive_slope_and_the_chord() -> None:
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(500, generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(500, generator=generator, dtype=torch.float64) * 2
    low, high = slopes(Activation("relu"), lower, upper)
    chord = (upper.clamp(min=0) - lower.clamp(min=0)) / (upper - lower)
    assert torch.equal(low, (upper > -lower).double())
    torch.testing.assert_close(high, chord, rtol=1e-12, atol=1e-12)
    low, high = slopes(Activation("leaky_relu", slope=0.25), lower, upper)
    assert torch.equal(low, 0.25 + 0.75 * (upper > -lower).double())
    torch.testing.assert_close(high, 0.25 + 0.75 * chord, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_sigmoidal_lines_are_no_worse_than_tangents_and_chords(kind: str) -> None:
    """CROWN's lines below: the tangent in the middle where convex, the chord where concave."""
    op = Activation(kind)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(400, generator=generator, dtype=torch.float64) * 3
    upper = lower + torch.rand(400, generator=generator, dtype=torch.float64) * 3
    value = torch.sigmoid if kind == "sigmoid" else torch.tanh
    middle = ((lower + upper) / 2).requires_grad_()
    (tangent,) = torch.autograd.grad(value(middle).sum(), middle)
    chord = (value(upper) - value(lower)) / (upper - lower)
    prepared = Prepared(op, lower, upper)
    crown = torch.where(upper <= 0, tangent, chord)
    got, least = (height(prepared, 1, s) for s in (slopes(op, lower, upper)[0], crown))
    one_sided = (upper <= 0) | (lower >= 0)
    assert (got >= least - 1e-14)[one_sided].all()
    # where the curve is both, the chord is seldom the best
    room = 0.01 * (value(middle.detach()) - least)
    assert (got >= least - room - 1e-14).all()


@every_op
def test_the_area_is_nearly_the_least(op: Activation) -> None:
    generator = torch.Generator().manual_seed(4)
    centre = torch.randn(300, generator=generator, dtype=torch.float64) * 3
    size = 10 ** (torch.rand(300, generator=generator, dtype=torch.float64) * 3 - 2)
    prepared = Prepared(op, centre - size, centre + size)
    gap, least = torch.zeros_like(size), torch.zeros_like(size)
    for side, slope in zip((1, -1), slopes(op, centre - size, centre + size), strict=True):
        gap -= height(prepared, side, slope)
        least -= highest(prepared, side)
    assert (gap <= 1.05 * least + 1e-9 * size).all()
    assert gap.sum() <= 1.01 * least.sum() + 1e-9


@every_op
def test_slopes_are_finite_whatever_the_ends(op: Activation) -> None:
    lower, upper = intervals(400, seed=8)
    inf, nan = math.inf, math.nan
    odd = torch.tensor([-inf, -1.0, nan, 2.0, -1.7e308], dtype=torch.float64)
    other = torch.tensor([1.0, inf, 1.0, 1.0, 1.7e308], dtype=torch.float64)
    lower, upper = torch.cat([lower, odd]), torch.cat([upper, other])
    for slope in slopes(op, lower, upper):
        assert slope.isfinite().all()
        assert (slope[400:404] == 0).all()
        assert (slope.abs() <= 3).all()
    assert slopes(op, lower[:0], upper[:0])[0].shape == (0,)

"""Every enclosure against arb, which computes the same functions with proved error bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import flint
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.bounds import elementary
from paramrob.errors import SoundnessError

Bounds = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
FUNCTIONS = ["exp", "sigmoid", "tanh"]


def bounds(name: str) -> Bounds:
    function: Bounds = getattr(elementary, f"{name}_bounds")
    return function


def value(name: str, x: torch.Tensor) -> torch.Tensor:
    function: Callable[[torch.Tensor], torch.Tensor] = getattr(elementary, name)
    return function(x)


def truth(name: str, x: float) -> flint.arb:
    """Return an enclosure of relative radius far below one ulp; the caller sets ctx.prec."""
    a = flint.arb(x)
    if name == "exp":
        return a.exp()
    if name == "tanh":
        return a.tanh()
    return a.exp() / (1 + a.exp()) if x < 0 else 1 / (1 + (-a).exp())


def dense_points() -> torch.Tensor:
    """Points of every magnitude and sign, ends of the ranges in the code, ties in the reduction."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, n: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)

    step = math.log(2) / 128
    magnitudes = 10.0 ** uniform(-320, 308, 1500)
    halves = (torch.arange(0, 600, dtype=torch.float64) + 0.5) * step
    ends = [0.0, -0.0, 5e-324, 2.0**-1022, 1.0, 0.5, 353.5, 354.0, 707.0, 708.0, 709.79, 745.2]
    ends += [709.782712893384, 709.7827128933841, 1e308, 1.7976931348623157e308]
    near = torch.tensor(ends, dtype=torch.float64)
    around = torch.cat([torch.nextafter(near, near + s * 1e300) for s in (-1, 1)])
    finite = torch.cat([near, around[around.isfinite()]])
    pieces = [uniform(0, 750, 2500), uniform(0, 3, 2500), uniform(0, 0.02, 1500), magnitudes]
    positive = torch.cat([*pieces, halves, step * torch.arange(700).double(), finite])
    return torch.cat([positive, -positive])


def assert_encloses(name: str, x: list[float], lower: list[float], upper: list[float]) -> None:
    """Fail where arb proves a bound wrong (its ball at 200 bits is no wider than 2**-190)."""
    with flint.ctx.workprec(200):
        for at, low, high in zip(x, lower, upper, strict=True):
            exact = truth(name, at)
            assert not exact < flint.arb(low), (name, at)
            assert not exact > flint.arb(high), (name, at)


def enclose(name: str, x: list[float]) -> None:
    lower, upper = bounds(name)(torch.tensor(x, dtype=torch.float64))
    assert_encloses(name, x, lower.tolist(), upper.tolist())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_encloses_the_truth_at_dense_points(name: str) -> None:
    # arb's exp of 1e300 is a ball around a number of 10^300 digits: left to the limits below
    points = dense_points()
    enclose(name, points[points.abs() < 1e6].tolist())


@pytest.mark.parametrize("name", FUNCTIONS)
@given(x=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_encloses_the_truth_anywhere(name: str, x: list[float]) -> None:
    enclose(name, x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_constants_hold(name: str) -> None:
    x = dense_points()
    x = x[(x >= -707) & (x <= 709.7)]
    if name == "tanh":
        x = x[x.abs() >= 1e-300]
    stated: float = getattr(elementary, f"{name.upper()}_ERROR")
    with flint.ctx.workprec(200):
        for at, got in zip(x.tolist(), value(name, x).tolist(), strict=True):
            exact = truth(name, at)
            assert abs(flint.arb(got) / exact - 1) < flint.arb(stated), (name, at)


@pytest.mark.parametrize(("name", "ulps"), [("exp", 10), ("sigmoid", 10), ("tanh", 18)])
def test_is_a_few_ulp_wide_relative_to_the_value(name: str, ulps: int) -> None:
    x = dense_points()
    x = x[(x >= -707) & (x <= 709.7)]
    if name == "tanh":
        x = x[x.abs() >= 1e-290]
    lower, upper = bounds(name)(x)
    assert ((upper - lower) <= ulps * 2.0**-52 * upper.abs()).all()


def test_ranges_and_order() -> None:
    x = dense_points()
    for name, low, high in (("exp", 0.0, math.inf), ("sigmoid", 0.0, 1.0), ("tanh", -1.0, 1.0)):
        lower, upper = bounds(name)(x)
        assert (lower >= low).all()
        assert (upper <= high).all()
        assert (lower <= upper).all()
        assert lower.isfinite().all()


def test_huge_arguments_reach_the_limits() -> None:
    x = torch.tensor([1e308, math.inf], dtype=torch.float64)
    lower, upper = elementary.exp_bounds(x)
    assert (lower == torch.finfo(torch.float64).max).all()
    assert upper.isinf().all()
    lower, upper = elementary.exp_bounds(-x)
    assert (lower == 0).all()
    assert (upper < 1e-306).all()
    for bound in (elementary.sigmoid_bounds, elementary.tanh_bounds):
        lower, upper = bound(x)
        assert ((lower >= 1 - 2.0**-49) & (lower < 1) & (upper == 1)).all()
    lower, upper = elementary.sigmoid_bounds(-x)
    assert ((lower == 0) & (upper < 1e-306) & (upper > 0)).all()
    lower, upper = elementary.tanh_bounds(-x)
    assert ((upper <= -1 + 2.0**-49) & (upper > -1) & (lower == -1)).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_stays_nan(name: str) -> None:
    x = torch.tensor([math.nan, 0.5], dtype=torch.float64)
    for result in (*bounds(name)(x), value(name, x)):
        assert result.isnan().tolist() == [True, False]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keeps_shape_and_leaves_its_argument_alone(name: str) -> None:
    x = torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(2, 3, 4)
    strided = x.permute(2, 0, 1)
    before = x.clone()
    flat = bounds(name)(x.reshape(-1))
    for got, expected in zip(bounds(name)(strided), flat, strict=True):
        assert torch.equal(got.permute(1, 2, 0).reshape(-1), expected)
    assert torch.equal(x, before)
    assert bounds(name)(torch.tensor(0.3, dtype=torch.float64))[0].shape == ()
    assert bounds(name)(torch.empty(0, 3, dtype=torch.float64))[0].shape == (0, 3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_holds_when_subnormals_are_flushed(name: str) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        x = dense_points()
        x = x[x.abs() < 1000]
        lower, upper = bounds(name)(x)
    finally:
        torch.set_flush_denormal(False)
    assert_encloses(name, x.tolist(), lower.tolist(), upper.tolist())


def test_refuses_other_dtypes() -> None:
    with pytest.raises(SoundnessError, match="float64"):
        elementary.sigmoid_bounds(torch.zeros(3, dtype=torch.float32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gpu_computes_the_same_bits(name: str) -> None:
    x = dense_points()
    for here, there in zip(bounds(name)(x), bounds(name)(x.cuda()), strict=True):
        assert torch.equal(here, there.cpu())

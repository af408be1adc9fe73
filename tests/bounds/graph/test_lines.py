"""Lines against ball arithmetic: valid to the last bit, tight, and with the right derivative."""

from __future__ import annotations

import math

import flint
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paramrob.bounds.graph.lines import Lines, Prepared, lines, slopes
from paramrob.errors import ModelError, SoundnessError
from paramrob.models.ops import Activation
from tests.bounds.graph.activation_truth import (
    MARKS,
    OPS,
    intervals,
    name_of,
    phi,
    some_slopes,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
every_op = pytest.mark.parametrize("op", OPS, ids=name_of)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def places(lower: float, upper: float, touched: list[float], seed: int) -> list[flint.arb]:
    """Return exact points of an interval: where a line is nearest, and others, not all doubles."""
    arb = flint.arb
    near = [*touched, *(m for m in MARKS if lower <= m <= upper)]
    doubles = [lower, upper, *near]
    for z in near:
        doubles += [math.nextafter(z, -math.inf), math.nextafter(z, math.inf)]
    found = [arb(z) for z in doubles if lower <= z <= upper]
    width = arb(upper) - arb(lower)
    found += [arb(lower) + width * ((7 * k + seed) % 31) / 32 for k in range(6)]
    for z in touched:
        found += [arb(z) + width * s for s in (2.0**-30, -(2.0**-30), 2.0**-9, -(2.0**-9))]
    return [z for z in found if lower <= z <= upper]


def assert_valid(op: Activation, lower: Tensor, upper: Tensor, wanted: Tensor) -> None:
    """Check lines with ``(k, n)`` slopes on ``(n,)`` intervals at many points."""
    prepared = Prepared(op, lower, upper)
    found = prepared.lines(wanted, wanted)
    touched = torch.stack([prepared.intercept(side, wanted)[1] for side in (1, -1)]).cpu()
    low_slope, low, high_slope, high = (t.cpu() for t in astuple_of(found))
    for i, (a, b) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        for k in range(len(wanted)):
            for z in places(a, b, touched[:, k, i].tolist(), i + k):
                value = phi(op, z)
                for slope, intercept, side in (
                    (low_slope[k, i], low[k, i], 1),
                    (high_slope[k, i], high[k, i], -1),
                ):
                    if intercept.isinf():
                        assert float(intercept) == -side * math.inf
                        continue
                    line = flint.arb(float(slope)) * z + flint.arb(float(intercept))
                    assert not (value - line) * side < 0, (op, a, b, k, z, side)


def astuple_of(found: Lines) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return found.low_slope, found.low, found.high_slope, found.high


@pytest.mark.parametrize("device", DEVICES)
@every_op
def test_no_line_crosses_its_curve(op: Activation, device: str) -> None:
    lower, upper = intervals(70, seed=1)
    wanted = some_slopes(op, lower, upper, seed=2)
    with flint.ctx.workprec(200):
        assert_valid(op, lower.to(device), upper.to(device), wanted.to(device))


NUMBERS = st.one_of(st.floats(-40, 40), st.floats(allow_nan=False, allow_infinity=False))
STEEP = st.one_of(st.floats(-2, 3), st.floats(allow_nan=False, allow_infinity=False))


@every_op
@given(ends=st.tuples(NUMBERS, NUMBERS), slope=STEEP)
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_no_line_crosses_its_curve_whatever_the_numbers(
    op: Activation, ends: tuple[float, float], slope: float
) -> None:
    with flint.ctx.workprec(200):
        assert_valid(op, double(min(ends)), double(max(ends)), double(slope).unsqueeze(0))


@every_op
def test_the_curve_comes_as_near_as_makes_no_difference(op: Activation) -> None:
    """The value at the contact, computed exactly, is no less than the true optimum."""
    lower, upper = intervals(150, seed=5)
    lower, upper = (end.clamp(-300.0, 300.0) for end in (lower, upper))
    wanted = some_slopes(op, lower, upper, seed=6)[:-1]
    wanted = torch.cat([wanted, torch.stack(slopes(op, lower, upper))])
    prepared = Prepared(op, lower, upper)
    reach = torch.maximum(lower.abs(), upper.abs())
    for side in (1, -1):
        found, touched = prepared.intercept(side, wanted)
        assert ((lower <= touched) & (touched <= upper)).all()
        for i in range(150):
            for k in range(len(wanted)):
                z, s = flint.arb(float(touched[k, i])), flint.arb(float(wanted[k, i]))
                with flint.ctx.workprec(200):
                    value = phi(op, z)
                    gap = (value - s * z - flint.arb(float(found[k, i]))) * side
                size = float(abs(s)) * float(reach[i]) + float(abs(value))
                size = 4e-15 * size + 1e-12 * min(1.0, float(reach[i])) + 1e-290
                assert not gap < 0, (lower[i], upper[i], s, z)
                assert gap <= size, (lower[i], upper[i], s, z)


@every_op
def test_a_point_interval_leaves_a_few_units_in_the_last_place(op: Activation) -> None:
    z = torch.cat([torch.linspace(-9, 9, 181, dtype=torch.float64), double(*MARKS)])
    z = z[z.abs() < 1e6]
    for slope in (0.0, 0.3, 1.0):
        wanted = torch.full_like(z, slope)
        found = lines(op, z, z, wanted, wanted)
        gap = (found.high_slope * z + found.high) - (found.low_slope * z + found.low)
        value = double(*(float(phi(op, flint.arb(t))) for t in z.tolist()))
        # in far tails the rounding of the exponent counts
        units = 2000 if op.kind == "gelu_tanh" or op.beta != 1.0 else 50
        assert (gap <= 2.0**-53 * units * (value.abs() + slope * z.abs()) + 1e-290).all()


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_a_rectifier_whose_sign_is_known_is_exact(slope: float) -> None:
    op = Activation("leaky_relu", slope=slope) if slope else Activation("relu")
    lower, upper = double(0.0, 0.1, -2.0, -2.0, -1.0), double(3.0, 0.3, 0.0, -1e-9, 3.0)
    low_slope, high_slope = slopes(op, lower, upper)
    assert low_slope.tolist() == [1.0, 1.0, slope, slope, 1.0]
    assert high_slope.tolist() == [1.0, 1.0, slope, slope, slope + (1 - slope) * 0.75]
    found = lines(op, lower, upper, low_slope, high_slope)
    assert (found.low == 0).all()
    assert (found.high[:4] == 0).all()
    assert 0.75 * (1 - slope) <= float(found.high[4]) < 0.75 * (1 - slope) + 1e-15


def test_the_identity_is_its_own_line() -> None:
    lower, upper, given_slopes = double(-1.0, 2.0), double(3.0, 2.0), double(7.0, math.nan)
    found = lines(Activation("identity"), lower, upper, given_slopes, given_slopes)
    for tensor, value in zip(astuple_of(found), (1.0, 0.0, 1.0, 0.0), strict=True):
        assert tensor.tolist() == [value, value]


@every_op
def test_without_finite_ends_or_slopes_there_is_no_bound(op: Activation) -> None:
    inf, nan = math.inf, math.nan
    lower = double(-inf, -1.0, -inf, nan, -1.0, nan, 2.0, inf, -1.0, -1.0, -1.0, -1.0)
    upper = double(1.0, inf, inf, 1.0, nan, nan, 1.0, inf, 1.0, 1.0, 1.0, 1.0)
    wanted = torch.full_like(lower, 0.5)
    wanted[8:11] = double(inf, -inf, nan)
    given_slopes = wanted.clone().requires_grad_()
    found = lines(op, lower, upper, given_slopes, given_slopes)
    ends = 8 if op.kind == "identity" else 11
    for tensor, value in zip(astuple_of(found), (0.0, -inf, 0.0, inf), strict=True):
        assert tensor[:ends].tolist() == [value] * ends
        assert tensor[11].isfinite()
    if op.kind != "identity":
        total = found.low[11] + found.high[11] + found.low_slope.sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert given_slopes.grad is not None
        assert given_slopes.grad.isfinite().all()


@every_op
def test_intercepts_follow_the_slopes(op: Activation) -> None:
    """The intercept below is concave in the slope: difference quotients enclose its gradient."""
    lower, upper = intervals(400, seed=7)
    sane = (upper - lower > 1e-3) & (lower.abs() < 50) & (upper.abs() < 50)
    lower, upper = lower[sane], upper[sane]
    generator = torch.Generator().manual_seed(3)
    middle = torch.rand(len(lower), generator=generator, dtype=torch.float64) * 1.6 - 0.3
    low_slope, high_slope = (middle.clone().requires_grad_() for _ in range(2))
    prepared = Prepared(op, lower, upper)
    found = prepared.lines(low_slope, high_slope)
    if op.kind == "identity":
        assert not found.low.requires_grad
        return
    found.low.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert high_slope.grad is None or (high_slope.grad == 0).all()
    found.high.sum().backward()  # type: ignore[no-untyped-call]
    step = 1e-4
    for side, slope in ((1, low_slope), (-1, high_slope)):
        before, here, after = (
            prepared.intercept(side, middle + d)[0] * side for d in (-step, 0.0, step)
        )
        assert slope.grad is not None
        gradient = slope.grad * side
        noise = 1e-12 * (1 + lower.abs() + upper.abs()) / step
        assert (gradient >= (after - here) / step - noise).all()
        assert (gradient <= (here - before) / step + noise).all()


@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "softplus", "silu", "gelu", "gelu_tanh"])
def test_gradients_agree_with_finite_differences_where_they_are_smooth(kind: str) -> None:
    op = Activation(kind)  # type: ignore[arg-type]
    lower, upper = double(-2.0, -1.0, -1.4), double(1.9, 1.1, -0.2)
    prepared = Prepared(op, lower, upper)
    # not at a tie of two contacts, where there is a kink
    start = (slopes(op, lower, upper)[0] + 0.02).requires_grad_()

    def below(slope: Tensor) -> Tensor:
        return prepared.lines(slope, start.detach()).low

    assert torch.autograd.gradcheck(below, (start,), eps=1e-6, atol=1e-5)


def test_many_slopes_for_one_interval_and_long_tensors() -> None:
    op = Activation("gelu")
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(300, 251, generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(300, 251, generator=generator, dtype=torch.float64)
    wanted = torch.rand(2, 300, 251, generator=generator, dtype=torch.float64, requires_grad=True)
    found = lines(op, lower, upper, wanted, wanted[0])
    assert found.low.shape == (2, 300, 251)
    assert found.high.shape == (300, 251)
    for at in ((0, 0), (150, 77), (299, 250)):
        one = lines(op, lower[at], upper[at], wanted[(1, *at)], wanted[(0, *at)])
        assert one.low == found.low[(1, *at)]
        assert one.high == found.high[at]
    broadcast = torch.full((251,), 0.3, dtype=torch.float64, requires_grad=True)
    lines(op, lower, upper, broadcast, broadcast).low.sum().backward()  # type: ignore[no-untyped-call]
    assert broadcast.grad is not None
    assert broadcast.grad.shape == (251,)
    empty = torch.empty(0, 3, dtype=torch.float64)
    assert lines(op, empty, empty, empty, empty).low.shape == (0, 3)


def test_a_strided_interval_is_read_in_order() -> None:
    lower = torch.linspace(-4, 1, 24, dtype=torch.float64).reshape(4, 6).T
    wanted = torch.linspace(0, 1, 24, dtype=torch.float64).reshape(6, 4)
    op = Activation("silu")
    found = lines(op, lower, lower + 1, wanted, wanted)
    straight = lines(op, lower.contiguous(), lower.contiguous() + 1, wanted, wanted)
    assert torch.equal(found.low, straight.low)
    assert torch.equal(found.high, straight.high)


def test_what_cannot_be_proved_is_refused() -> None:
    z = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(SoundnessError, match="float64"):
        lines(Activation("relu"), z.float(), z, z, z)
    with pytest.raises(SoundnessError, match="float64"):
        lines(Activation("relu"), z, z, z.float(), z)
    with pytest.raises(SoundnessError, match="expand the intervals"):
        lines(Activation("relu"), z[:1], z[:1], z, z)
    for op in (
        Activation("elu", alpha=-1.0),
        Activation("leaky_relu", slope=1.5),
        Activation("softplus", beta=0.0),
        Activation("clamp", low=1.0, high=0.0),
    ):
        with pytest.raises(ModelError, match="no linear bounds"):
            lines(op, z, z, z, z)

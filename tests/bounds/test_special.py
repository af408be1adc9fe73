"""Every function against arb, up to the errors that are proved for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flint
import pytest
import torch
from torch import Tensor

from paramrob.bounds import special
from paramrob.bounds.elementary import UNDERFLOW
from paramrob.errors import SoundnessError

UNIT = 2.0**-53
Arb = Any


def points(last: float, step: float) -> Tensor:
    """Points in [0, last] of every magnitude, and the ends of the tables' cells."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, n: int) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)

    cells = (torch.arange(1200, dtype=torch.float64) + 0.5) * step
    special_ones = torch.tensor([0.0, 5e-324, 2.0**-1022, last], dtype=torch.float64)
    pieces = [uniform(0, last, 2000), uniform(0, min(last, 3), 1500), 10 ** uniform(-320, 0, 400)]
    everything = torch.cat([*pieces, cells, torch.nextafter(cells, cells * 0), special_ones])
    return everything[everything <= last]


CASES: list[tuple[str, int, float, float, float, Callable[[Arb], Arb]]] = [
    # function, which result, proved error in u, largest argument, step, truth
    ("logistic", 0, 3.1, 700.0, math.log(2) / 128, lambda x: (-x).exp()),
    ("logistic", 1, 5.2, 700.0, math.log(2) / 128, lambda x: 1 / (1 + x.exp())),
    ("logistic", 2, 9.0, 700.0, math.log(2) / 128, lambda x: 1 / (1 + x.exp()) / (1 + (-x).exp())),
    ("exp_expm1", 0, 3.1, 700.0, math.log(2) / 128, lambda x: (-x).exp()),
    ("exp_expm1", 1, 7.7, 700.0, math.log(2) / 128, lambda x: (-x).expm1()),
    ("tanh_slope", 0, 9.8, 350.0, math.log(2) / 256, lambda x: x.tanh()),
    ("tanh_slope", 1, 12.0, 350.0, math.log(2) / 256, lambda x: 1 / x.cosh() ** 2),
    ("log1p_unit", 0, 6.2, 1.0, 1 / 64, lambda y: y.log1p()),
    ("normal_tail", 0, 2.6, 37.0, 1 / 256, lambda x: (x / flint.arb(2).sqrt()).erfc() / 2),
    (
        "normal_tail",
        1,
        3.6,
        37.0,
        1 / 256,
        lambda x: (-x * x / 2).exp() / (2 * flint.arb.pi()).sqrt(),
    ),
]


def call(name: str, x: Tensor, which: int) -> Tensor:
    function: Callable[[Tensor], Tensor | tuple[Tensor, ...]] = getattr(special, name)
    result = function(-x if name == "exp_expm1" else x)
    return result[which] if isinstance(result, tuple) else result


@pytest.mark.parametrize(
    ("name", "which", "error", "last", "step", "truth"),
    CASES,
    ids=[f"{name}{which}" for name, which, *_ in CASES],
)
def test_relative_errors_stay_below_what_is_proved(
    name: str, which: int, error: float, last: float, step: float, truth: Callable[[Arb], Arb]
) -> None:
    x = points(last, step)
    if name == "tanh_slope":
        x = x[x > 1e-300]
    got = call(name, x, which).tolist()
    with flint.ctx.workprec(300):
        for at, value in zip(x.tolist(), got, strict=True):
            exact = truth(flint.arb(at))
            off = abs(flint.arb(value) - exact)
            assert off <= abs(exact) * (error * UNIT) + 2.0**-1073, (at, value)


def test_beyond_the_tables_the_last_value_stays() -> None:
    far = torch.tensor([38.0, 1e5, 1e308, math.inf], dtype=torch.float64)
    tail, density = special.normal_tail(far)
    assert ((tail > 0) & (tail < 2.0**-985) & (density < 2.0**-985)).all()
    e, n, p = special.logistic(far * 20)
    assert ((e < UNDERFLOW) & (n < UNDERFLOW) & (p < UNDERFLOW) & (p >= 0)).all()
    assert torch.equal(special.exp_expm1(-far)[1][1:], -torch.ones(3, dtype=torch.float64))
    value, slope = special.tanh_slope(-far * 20)
    assert (value == -1).all()
    assert (slope < UNDERFLOW * 4).all()


def test_nan_stays_nan_and_other_dtypes_are_refused() -> None:
    x = torch.tensor([math.nan, 0.5], dtype=torch.float64)
    for name, which, *_ in CASES:
        assert call(name, x, which).isnan().tolist() == [True, False]
    with pytest.raises(SoundnessError, match="float64"):
        special.log1p_unit(torch.zeros(2))

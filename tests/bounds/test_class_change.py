"""The pieces of the bound on a class probability, against balls."""

from __future__ import annotations

import flint
import numpy as np
import pytest
import torch
from torch import Tensor

from paramrob.bounds.class_change import ClassChange
from tests.bounds.exact_chain import Exact, rational


def tensor(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def shares(logits: list[float], own: int) -> list[Exact]:
    """Return the softmax of the others (0 for the class itself)."""
    powers = [flint.arb(rational(v)).exp() if k != own else 0 for k, v in enumerate(logits)]
    total = sum(powers, flint.arb(0))
    return [p / total for p in powers]


def check_weights(own: int, low: list[float], high: list[float], inside: list[float]) -> None:
    weights, spread = ClassChange(1.0, own)._weights(tensor(low), tensor(high))
    with flint.ctx.workprec(300):
        for k, share in enumerate(shares(inside, own)):
            if k == own:
                continue
            gap = abs(share - rational(float(weights[0, k])))
            assert not gap > rational(float(spread[0, k])), (k, low, high)


def test_a_share_that_may_vanish_beside_one_that_dwarfs_it() -> None:
    # e^-46 may be far below e^-41, though e^0, its other end, leaves nothing of it.
    check_weights(0, [0.0, -46.0, -41.0], [0.0, 0.0, -41.0], [0.0, -46.0, -41.0])


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0, 200.0])
def test_shares_stay_within_their_spread(size: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(2, 6))
        own = int(rng.integers(count))
        ends = np.sort(rng.normal(size=(2, count)) * size * rng.choice([1e-3, 1.0], count), axis=0)
        corner = np.where(rng.uniform(size=count) < 0.5, ends[0], ends[1])
        check_weights(own, ends[0].tolist(), ends[1].tolist(), corner.tolist())


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0, 400.0])
def test_odds_enclose_the_class_against_the_others(size: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        count = int(rng.integers(2, 6))
        own = int(rng.integers(count))
        ends = np.sort(rng.normal(size=(2, count)) * size, axis=0)
        low, high = ClassChange(1.0, own).odds(*(tensor(e.tolist()) for e in ends))
        corner = np.where(rng.uniform(size=count) < 0.5, ends[0], ends[1])
        with flint.ctx.workprec(2000):
            others = [flint.arb(rational(v)).exp() for k, v in enumerate(corner) if k != own]
            odds = rational(corner[own]) - sum(others, flint.arb(0)).log()
            assert not (bool(low.isfinite()) and odds < rational(float(low[0])))
            assert not (bool(high.isfinite()) and odds > rational(float(high[0])))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_tangents_enclose_the_odds(sign: float, size: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        count = int(rng.integers(2, 6))
        own = int(rng.integers(count))
        ends = np.sort(rng.normal(size=(2, count)) * size, axis=0)
        middle = ends.mean(axis=0)
        tangent = ClassChange(sign, own)._tangent(*(tensor(e.tolist()) for e in (middle, *ends)))
        for _ in range(4):
            y = ends[0] + rng.choice([0.0, 1.0, rng.uniform()], count) * (ends[1] - ends[0])
            y = np.clip(y, ends[0], ends[1])
            with flint.ctx.workprec(400):
                others = [flint.arb(rational(v)).exp() for k, v in enumerate(y) if k != own]
                value = sign * (rational(y[own]) - sum(others, flint.arb(0)).log())
                row = rational(float(tangent.constant[0]))
                for a, v in zip(tangent.row[0].tolist(), y, strict=True):
                    row = row + rational(a) * rational(v)
                assert not value > row + rational(float(tangent.above[0]))
                assert not value < row - rational(float(tangent.below[0]))

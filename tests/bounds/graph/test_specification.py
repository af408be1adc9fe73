"""What bounds of rows say about a property: labels with their ties, confidences and shares."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.specification import lead_of, level_of, shares, side_of, stay_of
from paramrob.verdict import Interval as Ends

INF = float("inf")


def exact_rows(rows: Tensor, results: Tensor) -> Tensor:
    """Return the least of each row over some results, ``(batch, members, out)``."""
    return (rows.unsqueeze(1) @ results.unsqueeze(-1)).squeeze(-1).amin(1)


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("spread", [1e-6, 1e-3, 0.1, 2.0, 50.0])
@pytest.mark.parametrize("link", ["identity", "sigmoid", "softmax"])
def test_changes_of_confidence(link: str, spread: float, count: int) -> None:
    """Results within a small cloud: no member moves farther than what the rows' ends allow."""
    generator = torch.Generator().manual_seed(count)
    start = 3 * torch.randn(40, count, dtype=torch.float64, generator=generator)
    noise = torch.rand(40, 200, count, dtype=torch.float64, generator=generator)
    cloud = start.unsqueeze(1) + spread * (2 * noise - 1)
    spec = stay_of(Interval(start - 1e-12, start + 1e-12), link, None)
    largest = spec.largest(exact_rows(spec.rows, cloud) - 1e-9 * spread)

    def confidence(z: Tensor) -> Tensor:
        if link == "softmax":
            return torch.softmax(z, -1)
        return torch.sigmoid(z) if link == "sigmoid" else z

    moved = (confidence(cloud) - confidence(start).unsqueeze(1)).abs().amax((1, 2))
    assert bool((moved <= largest).all())
    # Small changes are known to first order.
    if spread <= 1e-3:
        assert bool((largest <= 1.25 * moved + 1e-9).all())


def test_shares_enclose_softmax() -> None:
    z = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    least = torch.stack([z[:, i] - z[:, j] for i, j in pairs], 1)
    low, high = shares(least, 4)
    truth = torch.softmax(z, 1)
    assert bool(((low <= truth + 1e-15) & (truth <= high + 1e-15)).all())
    assert float((high - low).max()) < 1e-12
    low, high = shares(torch.full_like(least, -INF), 4)
    assert float(low.max()) == 0
    assert float(high.min()) >= 1


def test_ties_go_to_the_lowest_class() -> None:
    spec = lead_of(torch.tensor([0, 1, 2]), 3)
    # Class 0 may tie with all others, class 2 with none, class 1 with class 2 alone.
    assert spec.slack(torch.zeros(3, 2, dtype=torch.float64)).tolist() == [0.0, -INF, -INF]
    least = torch.tensor([[0.0, 0.0], [1e-300, 0.0], [1e-300, 1e-300]], dtype=torch.float64)
    assert bool((spec.slack(least) >= 0).all())
    broken = torch.tensor([[-INF, 1.0], [float("nan"), 1.0], [1.0, INF]], dtype=torch.float64)
    assert bool((spec.slack(broken) < 0).all())


def test_a_result_at_the_level_is_class_0() -> None:
    spec = side_of(torch.tensor([1, 0]), Ends(0.25, 0.5))
    at = torch.tensor([[0.5], [-0.25]], dtype=torch.float64)
    assert spec.slack(at).tolist() == [-INF, 0.0]
    assert spec.threshold.dtype == torch.float64
    above = torch.tensor([[np.nextafter(0.5, 1)], [-np.nextafter(0.25, 1)]])
    assert (spec.slack(above) >= 0).tolist() == [True, False]


def test_levels_are_enclosed() -> None:
    level = Fraction(1, 3)
    assert Fraction(level_of(level, "identity").lower) <= level
    assert level <= Fraction(level_of(level, "identity").upper)
    logit = level_of(level, "sigmoid")
    assert logit.lower <= np.log(0.5) <= logit.upper


def test_no_bound_proves_no_confidence() -> None:
    start = torch.zeros(1, 3, dtype=torch.float64)
    for link in ("identity", "softmax"):
        spec = stay_of(Interval(start, start), link, Fraction(10**6))
        nothing = torch.full(spec.rows.shape[:2], -INF, dtype=torch.float64)
        if link == "identity":
            assert float(spec.largest(nothing)) == INF
            assert float(spec.slack(nothing)) < 0
        else:
            assert float(spec.largest(nothing)) <= 1 + 1e-9
        assert not torch.isnan(spec.largest(nothing * float("nan"))).any()

"""Random graphs at points: no sample leaves what is proved (more: ``tests.fuzz_points``)."""

from __future__ import annotations

import pytest
from torch import Tensor

from paramrob.bounds.graph.crown import GraphPass
from tests import fuzz_points


@pytest.mark.parametrize("seed", range(20))
def test_no_sample_is_outside(seed: int) -> None:
    assert fuzz_points.outside(seed) == 0


def test_a_bound_that_is_too_high_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    proved = fuzz_points.best_bounds

    def raised(bound_pass: GraphPass, low: Tensor, high: Tensor) -> Tensor:
        least = proved(bound_pass, low, high)
        most = -least.roll(fuzz_points.RESULTS, 1)
        return least + 0.9 * (most - least) + 1e-6

    monkeypatch.setattr(fuzz_points, "best_bounds", raised)
    assert any(fuzz_points.outside(seed) for seed in range(5))

"""Magnitudes bound every value of both networks; arithmetic that breaks the proofs is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from paramrob.bounds.chain import build_chain
from paramrob.bounds.linear import BoundPass, Boxes
from paramrob.bounds.rounding import check_arithmetic, magnitudes
from paramrob.engine import Settings, decide
from paramrob.errors import BackendError
from paramrob.perturbation import Perturbation
from paramrob.properties import Property
from paramrob.replay import evaluate_exact
from tests.known_problems import (
    box,
    layered,
    problem,
    random_network,
    sample_inputs,
    sample_parameters,
    unit_box,
)


@pytest.mark.parametrize("scale", [1e-170, 1e-3, 1.0, 1e60])
def test_magnitudes_bound_the_results_of_both_networks(scale: float) -> None:
    rng = np.random.default_rng(1)
    network = random_network(rng, [3, 5, 4], scale=scale)
    subject = problem(network, unit_box(3), Fraction(scale) / 10, "logits", None)
    chain = build_chain(subject)
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    charges = magnitudes(chain, low, high).layers
    for x in sample_inputs(rng, subject, 10):
        p = sample_parameters(rng, subject)
        before, after = evaluate_exact(network, x), evaluate_exact(network, x, p)
        for i, (z, moved) in enumerate(zip(before, after, strict=True)):
            exact = Fraction(int(z.p), int(z.q)), Fraction(int(moved.p), int(moved.q))
            charge = [Fraction(float(v[i])) for v in (charges[-1].z, charges[-1].e, charges[-1].q)]
            assert abs(exact[0]) <= charge[0]
            assert abs(exact[1] - exact[0]) <= charge[1]
            assert abs(exact[1]) <= charge[2]


def test_magnitudes_do_not_vanish_by_underflow() -> None:
    network = layered(
        [np.array([[1e-200]]), np.array([[1e300]])], [np.zeros(1), np.zeros(1)], ["relu"]
    )
    subject = problem(network, box((0, 1e-200)), Perturbation({}), "value", None)
    chain = build_chain(subject)
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    last = magnitudes(chain, low, high).layers[-1]
    assert Fraction(float(last.z[0])) >= Fraction(1e300) * Fraction(1e-200) ** 2


def test_proved_ranges_stay_within_the_magnitudes_that_charges_assume() -> None:
    rng = np.random.default_rng(2)
    subject = problem(random_network(rng, [3, *[6] * 12, 1]), unit_box(3), "0.3")
    chain = build_chain(subject)
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    charges = magnitudes(chain, low, high)
    analysis = BoundPass(chain, charges).analyse(Boxes(low[None], high[None]))
    for relaxation, charge in zip(analysis.relaxations, charges.layers, strict=False):
        r = relaxation.ranges
        assert bool((torch.maximum(r.zl.abs(), r.zu.abs()) <= charge.z).all())
        assert bool((torch.maximum(r.el.abs(), r.eu.abs()) <= charge.e).all())
        assert bool((torch.maximum(r.pl.abs(), r.pu.abs()) <= charge.q).all())


def test_flushed_subnormals_are_refused() -> None:
    check_arithmetic()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    try:
        with pytest.raises(BackendError, match="set_flush_denormal"):
            check_arithmetic()
        network = random_network(np.random.default_rng(0), [1, 1])
        with pytest.raises(BackendError, match="set_flush_denormal"):
            decide(problem(network, unit_box(1), asked=Property("labels")), Settings())
    finally:
        torch.set_flush_denormal(False)

"""What the searches report is proved at every step: no rounding to float32, no lost boxes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from paramrob.bounds.assess import Assessor
from paramrob.engine import Settings, decide, estimate
from paramrob.perturbation import Perturbation
from paramrob.properties import Property
from paramrob.verdict import Verdict
from tests.known_problems import box, problem
from tests.replay_networks import dense, stack

HALF = Fraction(1, 2)
QUICK = Settings(timeout=5.0)


def test_a_level_that_no_float32_holds() -> None:
    level = Fraction(33554435)
    network = stack(1, dense(0, [[1.0]], [0.0]))
    moved = Perturbation({"b0": Fraction(2)})
    subject = problem(network, box((level, level + HALF)), moved, "value", level)
    found = estimate(subject, "sigma", QUICK).brackets["sigma_above"]
    assert found.lower <= 0.5 <= found.upper


def test_a_bound_just_above_the_threshold_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # No time to search: only that a margin stays below 0.7 is known, and sigma is below that.
    monkeypatch.setattr(Assessor, "climb", lambda *_: None)
    network = stack(1, dense(0, [[1000.0]], [0.0]))
    asked = Property("margin", sigma=Fraction("0.699999989"))
    subject = problem(network, box((-1, 1)), "1000", "logit", Fraction("0.3"), asked)
    assert decide(subject, Settings(timeout=1e-9)).verdict is Verdict.UNKNOWN


def test_the_largest_margin_is_not_rounded_down() -> None:
    network = stack(1, dense(0, [[1000.0]], [0.0]))
    subject = problem(network, box((-1, 1)), "1000", "logit", Fraction("0.3"))
    found = estimate(subject, "sigma", QUICK).brackets["sigma_above"]
    assert found.upper >= 0.7

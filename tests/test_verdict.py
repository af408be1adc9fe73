"""The one table that makes a verdict, and ends that cannot be."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from paramrob.errors import SoundnessError
from paramrob.verdict import (
    Approximation,
    Bracket,
    Interval,
    Status,
    Verdict,
    Witness,
    verdict_from,
)

SEEN = Witness(np.zeros(1), {}, replayed=True)
CLAIMED = Witness(np.zeros(1), {})


def test_the_whole_table() -> None:
    proved = {
        (Status.UNSAT, Approximation.EXACT),
        (Status.UNSAT, Approximation.OVER),
    }
    for status, approximation, witness in itertools.product(
        Status, Approximation, (None, CLAIMED, SEEN)
    ):
        expected = Verdict.UNKNOWN
        if (status, approximation) in proved:
            expected = Verdict.ROBUST
        elif status in (Status.SAT, Status.DELTA_SAT) and witness is SEEN:
            expected = Verdict.NOT_ROBUST
        assert verdict_from(status, approximation, witness) is expected


@pytest.mark.parametrize(
    ("status", "approximation"),
    [("unsat", Approximation.EXACT), (Status.UNSAT, "under"), (None, None)],
)
def test_native_answers_are_never_verdicts(status: Any, approximation: Any) -> None:
    with pytest.raises(SoundnessError):
        verdict_from(status, approximation, None)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(1.0, math.nextafter(1.0, 0.0)), (math.nan, 1.0), (0.0, math.nan), (math.inf, -math.inf)],
)
def test_ends_that_cross_or_are_not_numbers(lower: float, upper: float) -> None:
    with pytest.raises(SoundnessError):
        Bracket(lower, upper)
    with pytest.raises(SoundnessError):
        Interval(lower, upper)


def test_brackets_that_are_fine() -> None:
    assert Bracket(0.25, 0.75).width == 0.5
    assert Bracket(1.0, 1.0).width == 0.0
    assert Bracket(0.0, math.inf).width == math.inf
    assert Interval(-1.0, -1.0).upper == -1.0

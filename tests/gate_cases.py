"""Requests and answers that the tests of release gates share."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramrob.models.model import Model
from paramrob.requests.build import Asked, Request, build
from paramrob.several import PointsOutcome, whole
from paramrob.verdict import Bracket, Interval, Outcome, Verdict, Witness
from tests.small_models import named_model

ROBUST = Outcome(Verdict.ROBUST, engine_seconds=0.5)
OPEN = Outcome(Verdict.UNKNOWN, "the time ran out; raise --timeout", engine_seconds=1.25)
WITNESS = Witness(
    np.array([7.0, 2.5]),
    {"0.bias": np.array([-3.5])},
    (Interval(0.25, 0.25),),
    (Interval(0.75, 0.75),),
    (0, 1),
    Interval(0.5, 0.5),
    Interval(0.25, 0.25),
    True,
)
REFUTED = Outcome(
    Verdict.NOT_ROBUST,
    brackets={"epsilon": Bracket(0.5, 0.5, WITNESS)},
    witness=WITNESS,
    engine_seconds=0.25,
)


def asked(model: Model | None = None, **options: Any) -> Request:
    """Return a question about a small model, with delta 0.01 unless something else is said."""
    given = {"delta": "0.01"} | options
    return build(Asked(**given), model or named_model())


def at_points(*parts: Outcome, **options: Any) -> tuple[Request, PointsOutcome]:
    """Return a question about several points, and these answers."""
    points = np.array([[7.0 + i, 2.5] for i in range(len(parts))])
    request = asked(at=points, **options)
    return request, whole(request, list(parts), None)

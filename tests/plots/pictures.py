"""Grounds and heatmaps for the tests of pictures."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import paramrob
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Network
from paramrob.plots.ground import Ground, make_ground
from paramrob.plots.maps import Heatmap, Kind
from paramrob.problem import Problem
from paramrob.requests.build import Asked, build
from paramrob.requests.views import choose_view

CASES = Path(__file__).parents[2] / "case_studies"
CATS = CASES / "cats" / "model.pt"
LATER = 600.0
"""Seconds that no test's computation takes: none may end for lack of time."""


def later() -> float:
    return time.monotonic() + LATER


def case_ground(name: str, delta: str) -> Ground:
    """Return a case study, ready."""
    model = paramrob.load(CASES / name)
    request = build(Asked("heatmap", "epsilon", delta=delta), model)
    problem = request.problems[0]
    return make_ground(problem, choose_view(model, problem.domain))  # type: ignore[arg-type]


def ground_of(problem: Problem, **view: Any) -> Ground:
    """Return a problem, ready; ``view`` names axes and fixed inputs."""
    model = Model(problem.reference, InputInfo(), problem.output)
    return make_ground(problem, choose_view(model, problem.domain, **view))  # type: ignore[arg-type]


def model_of(network: Network, output: OutputInfo) -> Model:
    return Model(network, InputInfo(), output)


@functools.cache
def cats_map(kind: Kind = "both", data: bool = False) -> Heatmap:
    """Return a heatmap of the cats, with few points."""
    file = CASES / "cats" / "cats.csv" if data else None
    return paramrob.heatmap(
        CATS,
        delta="0.005",
        kind=kind,
        points=40 if kind != "flips" else None,
        data=file,
        timeout=LATER,
    )

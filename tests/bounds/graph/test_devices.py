"""Every tensor of the pass is made on a device that is named, so that it runs on any.

Where another default device holds no data at all, whatever is made there without being asked for
fails as soon as it is used.
"""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from paramrob.bounds.graph import box_answers
from paramrob.bounds.graph.labels import reference_labels
from paramrob.bounds.graph.points import PointsPass, decide_points, estimate_points
from paramrob.domain import Ball, Box, Point
from paramrob.engine import Settings
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from tests.bounds.graph.nets import NETWORKS, dense_network, inputs

ASKED = {
    "labels": Property("labels"),
    "confidence": Property("confidence", epsilon=Fraction(1, 100)),
    "margin": Property("margin", sigma=Fraction(1, 100)),
}
LOGITS = OutputInfo("logits")
SMALL = {
    "classes": (dense_network((2, 4, 3)), LOGITS),
    "logit": (dense_network((2, 4, 1)), OutputInfo("logit")),
    "gelu": (dense_network((2, 3, 1), op=Activation("gelu")), OutputInfo("logit")),
}


def problems(network: Network, asked: str, radius: str, count: int = 3) -> list[Problem]:
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.02")))
    domains = [
        Ball(tuple(x.tolist()), Fraction(radius)) if radius != "0" else Point(tuple(x.tolist()))
        for x in inputs(network, count)
    ]
    return [Problem(network, box, d, LOGITS, ASKED[asked]) for d in domains]


@pytest.mark.parametrize("radius", ["0", "0.02"])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", NETWORKS)
def test_points_need_no_default_device(name: str, asked: str, radius: str) -> None:
    many = problems(NETWORKS[name], asked, radius)
    with torch.device("meta"):
        pass_ = PointsPass(many[0])
        found = decide_points(many, pass_, time.monotonic() + 2)
        brackets = [o.brackets["epsilon"] for o in estimate_points(many, pass_, time.monotonic())]
        labels = reference_labels(many, "cpu", 1 << 26)
    assert all(outcome.verdict is not None for outcome in found)
    assert all(0 <= b.lower <= b.upper for b in brackets)
    assert None not in labels


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", SMALL)
def test_boxes_need_no_default_device(name: str, asked: str) -> None:
    network, output = SMALL[name]
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.001")))
    problem = Problem(
        network, box, Box((Fraction(0),) * 2, (Fraction("0.1"),) * 2), output, ASKED[asked]
    )
    settings = Settings(timeout=2, tolerance=1e-3)
    with torch.device("meta"):
        outcome = box_answers.decide(problem, settings)
        brackets = box_answers.estimate(problem, "sigma", settings).brackets.values()
    assert outcome.verdict is not None
    assert all(0 <= b.lower <= b.upper for b in brackets)

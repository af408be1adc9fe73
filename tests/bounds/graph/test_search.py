"""Branch and bound on activations, against the engine that searches chains, and samples."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from paramrob.bounds import decision
from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.points import PointsPass, decide_points
from paramrob.bounds.graph.search import Splitter
from paramrob.bounds.graph.specification import lead_of
from paramrob.domain import Point
from paramrob.engine import Settings
from paramrob.models.model import OutputInfo
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import refutes
from paramrob.verdict import Verdict
from tests.bounds.graph.nets import NETWORKS, dense_network, graph_pass, inputs, members


def forever() -> float:
    return time.monotonic() + 600


@pytest.mark.parametrize(("width", "seed"), [(6, 5), (8, 1), (8, 5)])
def test_splits_close_what_slopes_leave_open(width: int, seed: int) -> None:
    """Just beyond the largest change everything is proved, just within it nothing can be."""
    network = dense_network((width // 2, width, width, 1), seed)
    x = inputs(network, 1)
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.05")))
    info = OutputInfo("value", None)
    problem = Problem(network, box, Point(tuple(x[0].tolist())), info)
    largest = decision.estimate(problem, "epsilon", Settings(timeout=60, tolerance=1e-3))
    bracket = largest.brackets["epsilon"]
    assert bracket.width <= 1e-3
    analysis = graph_pass(network, "0.05").analyse(x, x, "alpha")
    centre = float(network.evaluate(x.numpy())[0, 0])
    rows = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    root = optimised(analysis, rows, 20)

    def proves(change: float) -> bool:
        aim = torch.tensor([[centre - change, -centre - change]], dtype=torch.float64)
        return bool(Splitter(analysis, rows, aim, 1 << 22).run(root, forever())[0])

    beyond = 1.02 * bracket.upper
    aims = torch.tensor([[centre - beyond, -centre - beyond]], dtype=torch.float64)
    assert not bool((root > aims).all())
    assert proves(beyond)
    within = torch.tensor([[centre - bracket.lower + 1e-6, -centre - bracket.lower + 1e-6]])
    splitter = Splitter(analysis, rows, within.double(), 1 << 22)
    assert not bool(splitter.run(root, time.monotonic() + 1)[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_proved_survives_samples(name: str) -> None:
    network = NETWORKS[name]
    x = inputs(network, 12, seed=1)
    bound_pass = graph_pass(network, "0.03")
    outputs = network.output_size
    shaped = x.numpy().reshape(-1, *network.input_shape)
    labels = torch.from_numpy(network.evaluate(shaped).reshape(12, -1).argmax(1))
    spec = lead_of(labels, outputs)
    analysis = bound_pass.analyse(x, x, "alpha")
    least = bound_pass.bound(analysis, spec.rows)
    proved = Splitter(analysis, spec.rows, spec.threshold, 1 << 22).run(least, forever_short())
    held = spec.slack(least) >= 0
    assert bool((proved | ~held).all())
    for chosen in members(network, 0.03, 150):
        seen = network.evaluate(shaped, chosen).reshape(12, -1).argmax(1)
        assert not bool(((seen != labels.numpy()) & proved.numpy()).any())


def forever_short() -> float:
    """A limit whose reach changes how much is proved, never what holds."""
    return time.monotonic() + 2


def test_verdicts_are_those_of_the_search_on_chains() -> None:
    network = dense_network((4, 8, 8, 3), 12)
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.02")))
    problems = [
        Problem(
            network, box, Point(tuple(p.tolist())), OutputInfo("logits", None), Property("labels")
        )
        for p in inputs(network, 30, seed=2)
    ]
    found = decide_points(problems, PointsPass(problems[0]), forever())
    seen = set()
    for problem, outcome in zip(problems, found, strict=True):
        if outcome.verdict is Verdict.UNKNOWN:
            continue
        seen.add(outcome.verdict)
        other = decision.decide(problem, Settings(timeout=60)).verdict
        assert other in (outcome.verdict, Verdict.UNKNOWN)
        if outcome.verdict is Verdict.NOT_ROBUST:
            assert outcome.witness is not None
            assert refutes(problem, outcome.witness)
    assert seen == {Verdict.ROBUST, Verdict.NOT_ROBUST}


def test_an_infinite_bound_proves_nothing() -> None:
    network = NETWORKS["dense"]
    huge = [replace(p, value=p.value * 1e200) for p in network.parameters.values()]
    subject = type(network)(network.nodes, huge)
    box = UncertainNetwork(subject, Perturbation.uniform(subject, Fraction(1)))
    point = Point(tuple(np.ones(5)))
    problem = Problem(subject, box, point, OutputInfo("logits", None), Property("labels"))
    outcome = decide_points([problem], PointsPass(problem), forever_short())[0]
    assert outcome.verdict is not Verdict.ROBUST
    assert math.isfinite(outcome.engine_seconds)

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
from paramrob.bounds.graph.sharpen import sharpened
from paramrob.bounds.graph.specification import lead_of
from paramrob.domain import Ball, Point
from paramrob.engine import Settings
from paramrob.models.model import OutputInfo
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import refutes
from paramrob.verdict import Verdict
from tests.bounds.graph.adversarial import dense
from tests.bounds.graph.milp_reach import largest
from tests.bounds.graph.nets import (
    NETWORKS,
    RELU,
    Build,
    dense_network,
    graph_pass,
    inputs,
    members,
)


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


BOXES = [
    ((2, 8, 8, 1), 1, "0", 0.5),
    ((2, 8, 8, 1), 2, "0.005", 0.4),
    ((3, 6, 6, 1), 3, "0.02", 0.3),
]


@pytest.mark.parametrize(("widths", "seed", "delta", "radius"), BOXES)
def test_boxes_of_inputs_are_closed_up_to_the_truth(
    widths: tuple[int, ...], seed: int, delta: str, radius: float
) -> None:
    """Just beyond what a MILP attains everything is proved, just within it nothing can be."""
    network = dense_network(widths, seed)
    low, high = (np.full(widths[0], 0.5 + sign * radius) for sign in (-1, 1))
    top, bottom = (sign * largest(network, low, high, float(delta), sign) for sign in (1.0, -1.0))
    bound_pass = graph_pass(network, delta)
    first, last = (torch.from_numpy(end).reshape(1, -1) for end in (low, high))
    analysis = sharpened(bound_pass, bound_pass.analyse(first, last))
    rows = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    root = bound_pass.bound(analysis, rows)

    def proves(room: float, deadline: float) -> bool:
        aim = torch.tensor([[bottom - room, -top - room]], dtype=torch.float64)
        return bool(Splitter(analysis, rows, aim, 1 << 22, bound_pass).run(root, deadline)[0])

    room = 0.01 * (top - bottom)
    assert not bool((root > torch.tensor([[bottom - room, -top - room]])).all())
    assert proves(room, forever())
    assert not proves(-1e-5, time.monotonic() + 1)


@pytest.mark.parametrize("name", ["dense", "signal"])
def test_what_is_proved_of_boxes_survives_samples(name: str) -> None:
    """Inputs of either sign, whose slacks have a kink at 0."""
    network = NETWORKS[name]
    x = 0.3 * inputs(network, 6, seed=4)
    bound_pass = graph_pass(network, "0.02")
    shaped = x.numpy().reshape(-1, *network.input_shape)
    labels = network.evaluate(shaped).reshape(6, -1).argmax(1)
    spec = lead_of(torch.from_numpy(labels), network.output_size)
    analysis = bound_pass.analyse(x - 0.05, x + 0.05)
    least = bound_pass.bound(analysis, spec.rows)
    splitter = Splitter(analysis, spec.rows, spec.threshold, 1 << 22, bound_pass)
    proved = splitter.run(least, forever_short()).numpy()
    rng = np.random.default_rng(3)
    for chosen in members(network, 0.02, 200):
        moved = x.numpy() + 0.05 * rng.choice([-1.0, 1.0, 0.0, 0.4], size=x.shape)
        seen = network.evaluate(moved.reshape(shaped.shape), chosen).reshape(6, -1).argmax(1)
        assert not ((seen != labels) & proved).any()


def test_pieces_of_which_nothing_is_left_are_proved() -> None:
    """A cut and a narrower box of inputs that exclude each other leave no value."""
    network = dense_network((2, 6, 6, 1), 4)
    bound_pass = graph_pass(network, "0.001")
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    analysis = bound_pass.analyse(x - 0.4, x + 0.4)
    rows = torch.tensor([[[1.0]]], dtype=torch.float64)
    aim = torch.tensor([[1e6]], dtype=torch.float64)
    splitter = Splitter(analysis, rows, aim, 1 << 22, bound_pass)
    zero = torch.zeros(1, dtype=torch.long)
    piece = splitter._root(zero, zero, bound_pass.bound(analysis, rows))
    splitter._assess(piece)
    assert float(piece.bound[0]) < 1e6
    k = splitter.read[0]
    piece.known[k][1][0, 0] = float(analysis.intervals.known[k].low[0, 0]) + 0.01
    piece.cuts[k][0][0, 0] = float(analysis.intervals.known[k].low[0, 0]) + 0.02
    splitter._assess(piece)
    assert float(piece.bound[0]) == math.inf


def test_a_box_of_inputs_is_searched_from_elsewhere_too() -> None:
    """From the middle every slope leads away from where the label changes."""
    build = Build((1,))
    dense(build, [[1.0], [-1.0], [-1.0]], [0.0, 0.0, -0.5])
    build.add(RELU)
    dense(build, [[-0.1, 0.1, -10.0]], [1.0])
    network = build.network()
    problem = Problem(
        network,
        UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.001"))),
        Ball((0.0,), Fraction(1)),
        OutputInfo("logit"),
        Property("labels"),
    )
    outcome = decide_points([problem], PointsPass(problem), forever())[0]
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.witness is not None
    assert refutes(problem, outcome.witness)


def forever_short() -> float:
    """A limit whose reach changes how much is proved, never what holds."""
    return time.monotonic() + 1


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

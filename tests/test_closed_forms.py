"""Problems whose answers follow from a formula, against the brackets."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from paramrob.domain import Box, Point
from paramrob.engine import Settings, decide, estimate
from paramrob.models.network import Array
from paramrob.perturbation import Perturbation
from paramrob.properties import Property
from paramrob.verdict import Bracket, Verdict
from tests.known_problems import box, layered, problem, random_network
from tests.replay_networks import dense, stack

SLOW = Settings(timeout=20.0, tolerance=1e-7)


@pytest.fixture(autouse=True)
def _bounds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramrob.engine._second_solver", lambda *_: None)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def assert_is(bracket: Bracket, value: float, width: float = 1e-7, room: float = 1e-12) -> None:
    assert bracket.lower - room <= value <= bracket.upper + room
    assert bracket.width <= width


@pytest.mark.parametrize("level", ["0.5", "0.3", "0.9"])
@pytest.mark.parametrize("delta", ["0.001", "0.05"])
def test_logistic_regression_of_one_input(level: str, delta: str) -> None:
    w, b, d = 1.5, -2.5, float(delta)
    network = stack(1, dense(0, [[w]], [b]))
    subject = problem(network, box((0, 4)), delta, "logit", Fraction(level))
    boundary = math.log(float(level) / (1 - float(level)))
    # z - d (x + 1) <= boundary with z = w x + b, and the other way round
    above = w * (boundary - b + d) / (w - d) + b
    below = w * (boundary - b - d) / (w + d) + b
    sigma = estimate(subject, "sigma", SLOW).brackets
    assert_is(sigma["sigma_above"], sigmoid(above) - float(level))
    assert_is(sigma["sigma_below"], float(level) - sigmoid(below))
    x = np.linspace(0, 4, 400_001)
    z, reach = w * x + b, d * (x + 1)
    moves = [np.abs(1 / (1 + np.exp(-(z + s * reach))) - 1 / (1 + np.exp(-z))) for s in (1, -1)]
    epsilon = estimate(subject, "epsilon", SLOW).brackets["epsilon"]
    assert_is(epsilon, float(np.maximum(*moves).max()), room=1e-10)


def exact_range(
    weights: list[Array], biases: list[Array], x: list[float], delta: Fraction
) -> tuple[Fraction, Fraction, Fraction]:
    """Return least, nominal and largest output of a ReLU network with one hidden layer."""
    ends = [(Fraction(v), Fraction(v)) for v in x]
    nominal = [Fraction(v) for v in x]
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        after, centre = [], []
        for row, bias in zip(w.tolist(), b.tolist(), strict=True):
            low = high = Fraction(bias)
            low, high = low - delta, high + delta
            for entry, (a, c) in zip(row, ends, strict=True):
                corners = [(Fraction(entry) + s * delta) * t for s in (-1, 1) for t in (a, c)]
                low, high = low + min(corners), high + max(corners)
            exact = Fraction(bias) + sum(
                Fraction(entry) * h for entry, h in zip(row, nominal, strict=True)
            )
            if k + 1 < len(weights):
                low, high, exact = (
                    max(low, Fraction(0)),
                    max(high, Fraction(0)),
                    max(exact, Fraction(0)),
                )
            after.append((low, high))
            centre.append(exact)
        ends, nominal = after, centre
    return ends[0][0], nominal[0], ends[0][1]


@pytest.mark.parametrize("seed", range(4))
def test_one_hidden_layer_at_a_point_is_interval_arithmetic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, [2, 5, 1])
    x = rng.normal(size=2).tolist()
    values = {n: p.value for n, p in network.parameters.items()}
    arguments = [values["w0"], values["w1"]], [values["b0"], values["b1"]]
    low, nominal, high = exact_range(*arguments, x, Fraction(1, 64))
    subject = problem(network, Point(tuple(x)), Fraction(1, 64), "value", None)
    found = estimate(subject, "epsilon", replace(SLOW, tolerance=1e-9)).brackets["epsilon"]
    assert_is(found, float(max(high - nominal, nominal - low)), 1e-9)
    before, ends = sigmoid(float(nominal)), [sigmoid(float(v)) for v in (low, high)]
    logit = problem(network, Point(tuple(x)), Fraction(1, 64))
    found = estimate(logit, "epsilon", replace(SLOW, tolerance=1e-9)).brackets["epsilon"]
    assert_is(found, max(abs(v - before) for v in ends), 1e-9)


def test_parameters_inside_the_box_may_be_worse_than_every_vertex() -> None:
    # f = 0.05 - 2 |h - 1.2| with h = w x: 1-1-2-1, its only perturbed weight w in [0.5, 1.5].
    network = layered(
        [np.array([[1.0]]), np.array([[1.0], [-1.0]]), np.array([[-2.0, -2.0]])],
        [np.zeros(1), np.array([-1.2, 1.2]), np.array([0.05])],
        ["relu", "relu"],
    )
    moved = Perturbation({"w0": Fraction(1, 2)})
    subject = problem(network, Point((1.0,)), moved, asked=Property("labels"))
    for w in (0.5, 1.5):
        assert network.evaluate(np.ones((1, 1)), {"w0": np.array([[w]])})[0, 0] < 0
    outcome = decide(subject, SLOW)
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.witness is not None
    assert 0.5 < float(outcome.witness.parameters["w0"][0, 0]) < 1.5
    sigma = estimate(replace(subject, property=None), "sigma", SLOW).brackets
    assert_is(sigma["sigma_below"], 0.5 - sigmoid(-0.35))
    assert sigma["sigma_above"].upper == 0.0
    # A ridge just below the level: no parameter vector reaches it.
    biases = {"b2": np.array([-0.001])}
    values = {n: p.value for n, p in network.parameters.items()} | biases
    lower = layered(
        [values[f"w{i}"] for i in range(3)], [values[f"b{i}"] for i in range(3)], ["relu", "relu"]
    )
    again = problem(lower, Point((1.0,)), moved, asked=Property("labels"))
    assert decide(again, SLOW).verdict is Verdict.ROBUST


def test_three_classes_along_one_uncertain_weight() -> None:
    # Every logit follows the same h in [0.5, 1.5]: intervals of the logits say far too much.
    slopes = np.array([[2.0], [1.5], [-1.0]])
    network = layered(
        [np.array([[1.0]]), slopes], [np.zeros(1), np.array([0.0, 0.3, 0.6])], ["relu"]
    )
    moved = Perturbation({"w0": Fraction(1, 2)})
    subject = problem(network, Point((1.0,)), moved, "logits", None)
    h = np.linspace(0.5, 1.5, 200_001)
    powers = np.exp(slopes * h + np.array([[0.0], [0.3], [0.6]]))
    shares = powers / powers.sum(axis=0)
    truth = float(np.abs(shares - shares[:, [100_000]]).max())
    found = estimate(subject, "epsilon", Settings(timeout=60.0, tolerance=1e-4)).brackets["epsilon"]
    corner = np.exp([2.0 * 0.5, 1.5 * 1.5 + 0.3, 0.6 - 0.5])
    by_intervals = shares[0, 100_000] - corner[0] / corner.sum()
    assert_is(found, truth, by_intervals - truth, room=1e-9)


def test_several_values_move_as_far_as_the_worst() -> None:
    network = stack(1, dense(0, [[1.0], [-3.0]], [0.0, 0.0]))
    subject = problem(network, box((-2, 1)), "0.25", "value", None)
    # The largest |dw x + db| is 0.25 * 2 + 0.25.
    assert_is(estimate(subject, "epsilon", SLOW).brackets["epsilon"], 0.75)


def test_a_result_at_the_level_is_class_0() -> None:
    network = stack(1, dense(0, [[1.0]], [0.0]))
    # f0 = 0 is class 0; any larger bias makes it class 1.
    up = problem(
        network, Point((0.0,)), Perturbation({"b0": Fraction(1)}), asked=Property("labels")
    )
    assert decide(up, SLOW).verdict is Verdict.NOT_ROBUST
    # f = -relu(w) stays 0 for w <= 0: class 0 throughout.
    kept = layered([np.array([[-1.0]]), np.array([[-1.0]])], [np.zeros(1), np.zeros(1)], ["relu"])
    still = problem(
        kept, Point((1.0,)), Perturbation({"w0": Fraction(1, 2)}), asked=Property("labels")
    )
    assert decide(still, Settings(timeout=0.2)).verdict is not Verdict.NOT_ROBUST
    # f0 = 1 is class 1 and falls to exactly 0, class 0.
    down = problem(
        network, Point((1.0,)), Perturbation({"b0": Fraction(1)}), asked=Property("labels")
    )
    assert decide(down, SLOW).verdict is not Verdict.ROBUST


def test_equal_logits_are_the_lower_class() -> None:
    network = stack(1, dense(0, [[0.0], [0.0]], [1.0, 1.0]))
    asked = Property("labels")
    first = Perturbation({"b0": Fraction(1, 4)})
    subject = problem(network, Point((1.0,)), first, "logits", None, asked)
    assert decide(subject, SLOW).verdict is Verdict.NOT_ROBUST
    # Class 1 leads by 1/2; when both move by 1/4 they meet, and class 0 wins.
    apart = stack(1, dense(0, [[0.0], [0.0]], [1.0, 1.5]))
    subject = problem(apart, Point((1.0,)), first, "logits", None, asked)
    assert decide(subject, SLOW).verdict is not Verdict.ROBUST
    nearly = Perturbation({"b0": Fraction("0.2499999")})
    subject = problem(apart, Point((1.0,)), nearly, "logits", None, asked)
    assert decide(subject, SLOW).verdict is Verdict.ROBUST


def test_margins_of_several_classes_are_differences_of_logits() -> None:
    network = stack(1, dense(0, [[1.0], [-1.0]], [0.0, 0.0]))
    moved = Perturbation({"b0": Fraction(1, 4)})
    subject = problem(network, Box((Fraction(-1),), (Fraction(1),)), moved, "logits", None)
    # 2 |x| <= 1/2 where a label changes.
    assert_is(estimate(subject, "sigma", SLOW).brackets["sigma"], 0.5)


def test_the_largest_delta_where_bisection_meets_it() -> None:
    # |change| <= 2 delta at x = 1, and 5/4 is the middle of a bracket that bisection reaches;
    # that value itself lies within rounding of the threshold and stays open.
    network = stack(1, dense(0, [[1.0]], [0.0]))
    subject = problem(network, Point((1.0,)), "0.01", "value", Fraction(0))
    asked = replace(subject, property=Property("confidence", epsilon=Fraction(5, 2)))
    bracket = estimate(asked, "delta", Settings(timeout=20.0, tolerance=1e-6)).brackets["delta"]
    assert bracket.lower <= 1.25 <= bracket.upper
    assert bracket.width <= 1e-6

"""Brackets of local epsilon against closed forms, exact ranges, the engine and samples."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import flint
import numpy as np
import pytest

from paramrob import engine
from paramrob.domain import Box
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.models.model import OutputKind
from paramrob.models.network import Array
from paramrob.plots.epsilon_map import epsilon_map, grid_points, random_points
from paramrob.plots.ground import Ground
from paramrob.problem import Problem
from tests.bounds.exact_chain import rational
from tests.exact_reach import Shallow
from tests.known_problems import box, problem, random_network, sample_parameters, unit_box
from tests.plots.pictures import case_ground, ground_of, later


def sigmoid(t: Fraction) -> flint.arb:
    return 1 / (1 + (-flint.arb(flint.fmpq(t.numerator, t.denominator))).exp())


def largest_change(least: Fraction, nominal: Fraction, most: Fraction) -> flint.arb:
    middle = sigmoid(nominal)
    return (sigmoid(most) - middle).max(middle - sigmoid(least))


def at_points(ground: Ground, count: int, tolerance: float = 1e-3) -> tuple[Array, Array, Array]:
    found = epsilon_map(ground, random_points(ground, count), tolerance, later())
    return found.points, found.lower, found.upper


def test_cats_have_a_closed_form() -> None:
    delta = Fraction("0.005")
    weights = [Fraction(float(v)) for v in (0.07577862, 1.18118408)]
    points, lower, upper = at_points(case_ground("cats/model.pt", "0.005"), 1000)
    for (x, y), low, high in zip(points.tolist(), lower.tolist(), upper.tolist(), strict=True):
        nominal = Fraction(-3.51518067) + weights[0] * Fraction(x) + weights[1] * Fraction(y)
        reach = delta * (1 + Fraction(x) + Fraction(y))
        truth = largest_change(nominal - reach, nominal, nominal + reach)
        assert not (truth < rational(low))
        assert not (truth > rational(high))
        assert high - low < 1e-11


@pytest.mark.parametrize("name", ["relu", "linear"])
def test_athletes_have_exact_ranges(name: str) -> None:
    ground = case_ground(f"athletes/{name}.pt", "0.005")
    values = [p.value.tolist() for p in ground.problem.reference.parameters.values()]
    w, b, v, c = values
    shallow = Shallow(
        [[Fraction(t) for t in row] for row in w],
        [Fraction(t) for t in b],
        [[Fraction(t) for t in row] for row in v],
        [Fraction(t) for t in c],
        Fraction("0.005"),
        "relu" if name == "relu" else "identity",
    )
    points, lower, upper = at_points(ground, 150)
    for point, low, high in zip(points.tolist(), lower.tolist(), upper.tolist(), strict=True):
        truth = largest_change(*shallow.at([Fraction(t) for t in point])[0])
        assert not (truth < rational(low))
        assert not (truth > rational(high))
        assert high - low < 1e-9


@pytest.mark.parametrize(
    ("kind", "widths", "output"),
    [
        ("relu", [2, 6, 5, 1], "logit"),
        ("tanh", [2, 5, 4, 1], "logit"),
        ("relu", [2, 6, 3], "logits"),
        ("sigmoid", [2, 5, 2], "value"),
    ],
)
def test_brackets_meet_the_engines_and_hold_for_samples(
    kind: str, widths: list[int], output: OutputKind
) -> None:
    rng = np.random.default_rng(6)
    network = random_network(rng, widths, kind)
    level = None if widths[-1] > 1 else Fraction(1, 2)
    subject = problem(network, unit_box(2), "0.02", output, level)
    points, lower, upper = at_points(ground_of(subject), 6, tolerance=2e-3)
    assert (upper - lower <= 2e-3).all()
    for point, low, high in zip(points, lower, upper, strict=True):
        domain = box(*((v, v) for v in point.tolist()))
        there = replace(subject, domain=domain)
        bracket = engine.estimate(there, "epsilon", Settings("bounds", 60, 1e-3)).brackets[
            "epsilon"
        ]
        assert max(low, bracket.lower) <= min(high, bracket.upper)
        for _ in range(40):
            values = sample_parameters(rng, subject)
            assert change(subject, point, values) <= high + 1e-12


def change(subject: Problem, point: Array, values: dict[str, Array]) -> float:
    network, kind = subject.reference, subject.output.kind
    before, after = (network.evaluate(point[None], v)[0] for v in ({}, values))
    if kind == "logit":
        before, after = (1 / (1 + np.exp(-t)) for t in (before, after))
    elif kind == "logits":
        before, after = (np.exp(t) / np.exp(t).sum() for t in (before, after))
    return float(np.abs(after - before).max())


def test_free_inputs_are_maximised_over() -> None:
    rng = np.random.default_rng(7)
    subject = problem(random_network(rng, [4, 6, 1]), unit_box(4), "0.02")
    ground = ground_of(subject, x="x0", y="x2", fix={"x3": "0.25"})
    points, lower, upper = at_points(ground, 5)
    assert (upper - lower <= 1e-3).all()
    for (x, y), low, high in zip(points.tolist(), lower.tolist(), upper.tolist(), strict=True):
        domain = box((x, x), (-1, 1), (y, y), ("0.25", "0.25"))
        there = replace(subject, domain=domain)
        bracket = engine.estimate(there, "epsilon", Settings("bounds", 60, 1e-3)).brackets[
            "epsilon"
        ]
        assert max(low, bracket.lower) <= min(high, bracket.upper)
        assert bracket.lower > low - 2e-3


def test_what_is_left_open_still_holds() -> None:
    rng = np.random.default_rng(8)
    subject = problem(random_network(rng, [3, 6, 5, 1]), unit_box(3), "0.02")
    ground = ground_of(subject, x="x0", y="x1")
    points = random_points(ground, 6)
    hasty = epsilon_map(ground, points, 1e-9, time.monotonic() - 1)
    assert hasty.open.all()
    better = epsilon_map(ground, points, 1e-2, later())
    assert (hasty.lower <= better.upper).all()
    assert (better.lower <= hasty.upper).all()
    assert not better.open.any()


def test_nothing_moves_without_a_perturbation() -> None:
    subject = problem(random_network(np.random.default_rng(9), [2, 3, 1]), unit_box(2), "0")
    _, lower, upper = at_points(ground_of(subject), 3)
    assert not lower.any()
    assert not upper.any()


def test_points_are_the_same_every_time_and_inside() -> None:
    ground = case_ground("cats/model.pt", "0.005")
    points = random_points(ground, 500)
    assert np.array_equal(points, random_points(ground, 500))
    domain = ground.view.box
    assert isinstance(domain, Box)
    assert all(domain.contains(point) for point in points)
    assert points.min(axis=0) == pytest.approx([6.3, 2.0], rel=0.02)
    assert points.max(axis=0) == pytest.approx([20.5, 3.9], rel=0.02)


def test_grid_points_are_the_middles_of_equal_cells() -> None:
    subject = problem(random_network(np.random.default_rng(9), [2, 1]), box((0, 4), (0, 8)))
    points = grid_points(ground_of(subject), 2)
    assert points.tolist() == [[1.0, 2.0], [3.0, 2.0], [1.0, 6.0], [3.0, 6.0]]


@pytest.mark.parametrize("count", [0, -1, 10**7])
def test_too_few_or_many_points_are_refused(count: int) -> None:
    with pytest.raises(InputError, match="points; give between 1 and"):
        random_points(case_ground("cats/model.pt", "0.005"), count)

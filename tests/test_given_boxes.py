"""Boxes given value by value: fixed at other values than trained, lopsided, and grids."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.domain import Point
from paramrob.engine import Settings, decide, estimate
from paramrob.errors import InputError, ReplayError
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Array
from paramrob.perturbation import GivenInterval, Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import refutes, replay
from paramrob.verdict import Verdict
from paramrob.witness_file import load_witness, save_witness
from paramrob.witness_meta import problem_from_meta, problem_meta
from tests.known_problems import problem, random_network, sample_inputs, sample_parameters, unit_box

ENDS = st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=2).map(sorted)


@settings(derandomize=True, database=None, deadline=None)
@given(ends=ENDS, stored=st.floats(-1e300, 1e300), grid=st.booleans())
def test_centre_and_radius_enclose_the_ends(ends: list[float], stored: float, grid: bool) -> None:
    low, high = (np.array([end]) for end in ends)
    interval = GivenInterval.between(low, high, np.array([stored]), grid)
    assert interval.exact(0) == (Fraction(ends[0]), Fraction(ends[1]))
    centre, radius = Fraction(float(interval.centre[0])), Fraction(float(interval.radius()[0]))
    assert centre - radius <= Fraction(ends[0]) <= centre <= Fraction(ends[1]) <= centre + radius
    assert radius == 0 or ends[0] < ends[1]
    assert interval.first_outside(interval.start()) is None
    assert interval.first_outside(interval.possible(interval.centre)) is None
    outside = np.nextafter(high, np.inf)
    assert interval.first_outside(outside) == 0


def test_a_grid_has_no_interior() -> None:
    interval = GivenInterval.between(np.zeros(3), np.ones(3), np.full(3, 0.2), only_ends=True)
    assert interval.possible(np.array([0.2, 0.9, 0.5])).tolist() == [0.0, 1.0, 0.0]
    assert interval.first_outside(np.array([0.0, 1.0, 0.5])) == 2
    assert interval.start().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((np.ones((1, 2)), np.zeros((1, 2))), "cross"),
        ((np.zeros((1, 2)), np.full((1, 2), np.inf)), "not finite"),
        ((np.full((1, 2), np.nan), np.zeros((1, 2))), "cross or are not finite"),
        ((np.full((1, 2), -1.7e308), np.full((1, 2), 1.7e308)), "not finite"),
        ((np.zeros((1, 2)), np.zeros((2, 1))), "shapes"),
    ],
)
def test_refuses_what_is_no_box(ends: tuple[Array, Array], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Perturbation.explicit({"w0": ends}, "given")


def test_refuses_ends_of_another_shape_than_the_parameter() -> None:
    network = random_network(np.random.default_rng(0), [2, 1])
    box = Perturbation.explicit({"w0": (np.zeros((2, 1)), np.ones((2, 1)))}, "given")
    with pytest.raises(InputError, match="has shape"):
        box.interval(network.parameters["w0"])
    with pytest.raises(InputError, match="no delta"):
        box.scaled(Fraction(1))


def lopsided(rng: np.random.Generator, subject: Problem, grid: bool = False) -> Problem:
    """Return the problem with boxes that miss the trained values as often as not."""
    ends = {}
    for name, parameter in subject.uncertain.network.parameters.items():
        first = parameter.value + rng.normal(size=parameter.value.shape) * 0.02
        width = np.abs(rng.normal(size=parameter.value.shape)) * 0.02
        width[rng.uniform(size=width.shape) < 0.3] = 0.0
        ends[name] = (first, first + width)
    box = Perturbation.explicit(ends, "given", only_ends=grid)
    return Problem(
        subject.reference,
        UncertainNetwork(subject.uncertain.network, box),
        subject.domain,
        subject.output,
    )


def change(subject: Problem, x: Array, parameters: dict[str, Array]) -> float:
    still = subject.reference.evaluate(x[None])
    moved = subject.uncertain.network.evaluate(x[None], parameters)
    return float(np.abs(moved - still).max())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("at_a_point", [True, False])
def test_no_sample_leaves_the_bracket(seed: int, at_a_point: bool) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, [2, 4, 1] if seed % 2 else [2, 3, 3, 1])
    domain = Point((0.3, -0.7)) if at_a_point else unit_box(2)
    subject = lopsided(rng, problem(network, domain, kind="value", level=None))
    outcome = estimate(subject, "epsilon", Settings(solver="bounds", timeout=20, tolerance=1e-3))
    bracket = outcome.brackets["epsilon"]
    seen = 0.0
    for _ in range(200):
        parameters = sample_parameters(rng, subject)
        for x in sample_inputs(rng, subject, 3):
            seen = max(seen, change(subject, x, parameters))
    assert seen <= bracket.upper * (1 + 1e-12)
    assert bracket.witness is not None
    again = replay(subject, np.array(bracket.witness.input), dict(bracket.witness.parameters))
    assert again.change is not None
    assert again.change.lower >= bracket.lower


@pytest.mark.parametrize("seed", range(3))
def test_a_fixed_box_is_another_network(seed: int) -> None:
    """Rounded parameters on the trained network are the rounded network."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, [2, 3, 1])
    rounded = {n: np.round(p.value * 16) / 16 for n, p in network.parameters.items()}
    box = Perturbation.explicit({n: (v, v) for n, v in rounded.items()}, "given")
    on_trained = problem(network, unit_box(2), box, "value", None)
    other = random_network(np.random.default_rng(seed), [2, 3, 1])
    renamed = type(other)(
        other.nodes, [type(p)(n, rounded[n], p.dtype) for n, p in other.parameters.items()]
    )
    by_network = problem(renamed, unit_box(2), Perturbation({}), "value", None, reference=network)
    ours, theirs = (
        estimate(p, "epsilon", Settings(solver="bounds", tolerance=1e-5)).brackets["epsilon"]
        for p in (on_trained, by_network)
    )
    assert ours.lower <= theirs.upper
    assert theirs.lower <= ours.upper
    assert ours.upper - ours.lower <= 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_a_counterexample_on_a_grid_lies_on_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, [2, 4, 1])
    subject = lopsided(rng, problem(network, Point((0.4, 0.1)), kind="value", level=None), True)
    asked = Problem(
        subject.reference,
        subject.uncertain,
        subject.domain,
        subject.output,
        Property("confidence", Fraction(1, 1000)),
    )
    for solver in ("bounds", "z3"):
        outcome = decide(asked, Settings(solver=solver, timeout=20))
        assert outcome.verdict is not Verdict.ROBUST
        assert not outcome.exact_encoding
        if outcome.witness is None:
            continue
        for name, value in outcome.witness.parameters.items():
            low, high = subject.uncertain.interval(name).inner()
            assert ((value == low) | (value == high)).all()
        assert refutes(asked, outcome.witness)


def test_replay_refuses_what_lies_between() -> None:
    network = random_network(np.random.default_rng(1), [1, 1])
    ends = (np.array([[0.0]]), np.array([[1.0]]))
    for grid in (True, False):
        box = Perturbation.explicit({"w0": ends}, "given", only_ends=grid)
        subject = problem(network, Point((1.0,)), box, "value", None)
        assert replay(subject, np.ones(1), {}).parameters["w0"] in (0.0, 1.0) or not grid
        if not grid:
            replay(subject, np.ones(1), {"w0": np.array([[0.5]])})
            continue
        with pytest.raises(ReplayError, match="neither end"):
            replay(subject, np.ones(1), {"w0": np.array([[0.5]])})


def test_a_witness_file_keeps_the_box(tmp_path: Path) -> None:
    network = random_network(np.random.default_rng(2), [2, 2, 1])
    model = Model(network, InputInfo(), OutputInfo("value"), "m.pt", "ab" * 32)
    rng = np.random.default_rng(3)
    subject = lopsided(rng, problem(network, Point((0.1, 0.2)), kind="value", level=None), True)
    found = replay(subject, np.array([0.1, 0.2]), {})
    save_witness(tmp_path / "w.npz", found, problem_meta(model, subject))
    x, parameters, meta = load_witness(tmp_path / "w.npz")
    again = problem_from_meta(meta, model)
    for name in network.parameters:
        for ours, theirs in zip(
            subject.uncertain.interval(name).inner(),
            again.uncertain.interval(name).inner(),
            strict=True,
        ):
            assert np.array_equal(ours, theirs)
    assert again.uncertain.perturbation.only_ends
    assert replay(again, x, parameters).change == found.change
    given_ends = json.loads(json.dumps(meta))
    given_ends["perturbation"]["given"]["w0"][0] = "AAAA"
    with pytest.raises(InputError, match="no ends of its shape"):
        problem_from_meta(given_ends, model)

"""Replay of counterexamples: membership, labels, margins and claims, all exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.domain import Box, Domain, Point, box_from_floats
from paramrob.errors import ReplayError
from paramrob.exact import float_above, float_below
from paramrob.models.model import OutputInfo, OutputKind
from paramrob.models.network import (
    Array,
    Network,
    Softmax,
)
from paramrob.perturbation import ParameterInterval, Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import level_logit, refutes, replay
from paramrob.verdict import Interval, Witness
from tests.replay_networks import VALUES, act, constant, dense, stack


def logit_problem(
    network: Network,
    delta: str = "0.5",
    kind: OutputKind = "logit",
    level: Fraction | None = Fraction(1, 2),
    domain: Domain | None = None,
    claim: Property | None = None,
) -> Problem:
    uncertain = UncertainNetwork(network, Perturbation.uniform(network, Fraction(delta)))
    domain = domain or box_from_floats([-10.0] * network.input_size, [10.0] * network.input_size)
    return Problem(network, uncertain, domain, OutputInfo(kind, level), claim)


LINE = stack(1, dense(0, [[1.0]], [0.0]))
UP = {"w0": np.array([[1.0]]), "b0": np.array([0.5])}


def test_a_flip_at_the_boundary_is_told_exactly() -> None:
    tiny = 5e-324
    problem = logit_problem(LINE)
    witness = replay(problem, np.array([0.0]), {"b0": np.array([tiny])})
    assert witness.labels == (0, 1)  # f = level is class 0, one subnormal above it is class 1
    assert witness.replayed
    assert witness.reference_output == (Interval(0.5, 0.5),)
    assert witness.margin == Interval(0.0, 0.0)
    assert witness.change is not None
    assert witness.change.lower <= tiny / 4 <= witness.change.upper
    assert replay(problem, np.array([0.0]), {"b0": np.array([-tiny])}).labels == (0, 0)


def test_outputs_change_and_margin_enclose_the_closed_form() -> None:
    witness = replay(logit_problem(LINE), np.array([-0.25]), UP)
    with flint.ctx.workprec(300):
        f0, fp = (1 / (1 + flint.arb(z).exp()) for z in (0.25, -0.25))
        half = flint.arb(0.5)
        expected = [
            (witness.reference_output[0], f0),
            (witness.perturbed_output[0], fp),
            (witness.change, fp - f0),
            (witness.margin, half - f0),
        ]
        for interval, exact in expected:
            assert interval is not None
            assert flint.arb(interval.lower) < exact < flint.arb(interval.upper)
            assert interval.upper == math.nextafter(interval.lower, 1)
    assert witness.labels == (0, 1)


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_labels_at_other_levels(kind: OutputKind) -> None:
    layers = [dense(0, [[1.0]], [0.0])] + ([act("sigmoid")] if kind == "probability" else [])
    network = stack(1, *layers)
    level = Fraction("0.9")
    threshold = level_logit(level)
    with flint.ctx.workprec(200):
        assert flint.arb(threshold.lower) < flint.arb(9).log() < flint.arb(threshold.upper)
    problem = logit_problem(network, kind=kind, level=level)
    for value, label in ((threshold.lower, 0), (threshold.upper, 1)):
        witness = replay(problem, np.array([value]), {})
        assert witness.labels == (label, label)
        assert witness.change is not None
        assert witness.change.upper < 1e-60


def test_level_logit() -> None:
    assert level_logit(Fraction(1, 2)) == Interval(0.0, 0.0)
    low, high = level_logit(Fraction(1, 10)), level_logit(Fraction(9, 10))
    assert (low.lower, low.upper) == (-high.upper, -high.lower)
    assert high.upper == math.nextafter(high.lower, 9)


def test_a_probability_without_a_sigmoid_is_compared_as_it_is() -> None:
    network = stack(1, dense(0, [[1.0]], [0.0]))
    problem = logit_problem(network, kind="probability", level=Fraction("0.1"))
    # the float64 0.1 is a little above one tenth
    assert replay(problem, np.array([0.1]), {}).labels == (1, 1)
    below = math.nextafter(0.1, 0.0)
    assert replay(problem, np.array([below]), {}).labels == (0, 0)


def test_values_are_exact_and_may_have_no_level() -> None:
    network = stack(1, dense(0, [[1.0]], [0.0]))
    witness = replay(logit_problem(network, kind="value", level=None), np.array([3.0]), UP)
    assert witness.labels == (None, None)
    assert witness.margin is None
    assert witness.reference_output == (Interval(3.0, 3.0),)
    assert witness.change == Interval(0.5, 0.5)
    witness = replay(logit_problem(network, kind="value", level=Fraction(4)), np.array([3.9]), UP)
    assert witness.labels == (0, 1)
    assert witness.margin is not None
    gap = Fraction(4) - Fraction(3.9)
    assert Fraction(witness.margin.lower) <= gap <= Fraction(witness.margin.upper)


@pytest.mark.parametrize(("kind", "last"), [("logits", False), ("probabilities", True)])
def test_argmax_ties_go_to_the_lowest_index(kind: OutputKind, last: bool) -> None:
    layers = [dense(0, [[1.0], [1.0], [-1.0]], [0.0, 0.0, 0.0])]
    network = stack(1, *layers, *([(Softmax(), {})] if last else []))
    problem = logit_problem(network, kind=kind, level=None)
    witness = replay(problem, np.array([1.0]), {"b0": np.array([0.0, 5e-324, 0.0])})
    assert witness.labels == (0, 1)  # in float64 1 + 5e-324 would still tie
    assert witness.margin == Interval(0.0, 0.0)
    witness = replay(problem, np.array([-1.0]), {"b0": np.array([0.5, 0.0, 0.0])})
    assert witness.labels == (2, 2)
    assert witness.margin == Interval(2.0, 2.0)


def test_what_balls_cannot_tell_is_none() -> None:
    network = stack(1, dense(0, [[1.0], [1.0]]), act("tanh"), dense(1, [[1.0, -1.0]], [0.0]))
    problem = logit_problem(network, claim=Property("labels"))
    witness = replay(problem, np.array([0.3]), {"b1": np.array([0.25])})
    assert witness.labels == (None, 1)
    assert not refutes(problem, witness)
    assert witness.reference_output[0].lower <= 0.5 <= witness.reference_output[0].upper


def test_several_values_have_a_change_only() -> None:
    network = stack(1, dense(0, [[1.0], [2.0]], [0.0, 0.0]))
    problem = logit_problem(network, kind="value", level=None)
    witness = replay(problem, np.array([2.0]), {"w0": np.array([[1.0], [1.75]])})
    assert witness.change == Interval(0.5, 0.5)
    assert (witness.labels, witness.margin) == ((None, None), None)


def test_refutes_each_property_exactly() -> None:
    network = stack(1, dense(0, [[1.0]], [0.0]))

    def answer(claim: Property, b: float) -> bool:
        problem = logit_problem(network, kind="value", level=Fraction(0), claim=claim)
        return refutes(problem, replay(problem, np.array([-0.25]), {"b0": np.array([b])}))

    assert answer(Property("labels"), 0.5)
    assert not answer(Property("labels"), 0.25)
    assert answer(Property("confidence", epsilon=Fraction("0.4999999999999999999999")), 0.5)
    assert not answer(Property("confidence", epsilon=Fraction(1, 2)), 0.5)
    assert answer(Property("margin", sigma=Fraction(1, 4)), 0.5)
    assert not answer(Property("margin", sigma=Fraction("0.25000000000000000000001")), 0.5)
    assert not answer(Property("margin", sigma=Fraction(0)), 0.25)


def test_only_a_replayed_witness_refutes() -> None:
    problem = logit_problem(LINE, claim=Property("labels"))
    assert not refutes(problem, Witness(np.array([0.0]), {}, labels=(0, 1)))
    assert not refutes(logit_problem(LINE), replay(logit_problem(LINE), np.array([0.0]), UP))


@given(
    centre=st.lists(VALUES, min_size=1, max_size=4),
    absolute=st.sampled_from(["0", "0.001", "0.1", "1e-300", "7/3"]),
    relative=st.sampled_from(["0", "0.01", "1/3"]),
    steps=st.integers(-3, 3),
    upper=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_membership_of_parameters_is_exact(
    centre: list[float], absolute: str, relative: str, steps: int, upper: bool
) -> None:
    network = stack(1, dense(0, [[c] for c in centre]))
    radii = {"w0": Fraction(absolute)}, {"w0": Fraction(relative)}
    problem = Problem(
        network,
        UncertainNetwork(network, Perturbation(*radii)),
        box_from_floats([0.0], [1.0]),
        OutputInfo("value", None),
    )
    interval = ParameterInterval(np.array(centre), Fraction(absolute), Fraction(relative))
    value = np.array(centre)
    low, high = interval.exact(len(centre) - 1)
    value[-1] = float_below(high) if upper else float_above(low)
    for _ in range(abs(steps)):
        value[-1] = math.nextafter(value[-1], math.copysign(math.inf, steps))
    if not math.isfinite(value[-1]):
        return
    chosen = {"w0": value.reshape(-1, 1)}
    if low <= Fraction(value[-1]) <= high:
        assert replay(problem, np.array([0.5]), chosen).parameters["w0"][-1] == value[-1]
    else:
        with pytest.raises(ReplayError, match=f"'w0', value {len(centre) - 1} "):
            replay(problem, np.array([0.5]), chosen)


def test_the_box_of_inputs_is_exact() -> None:
    tenth = Fraction(1, 10)
    problem = logit_problem(LINE, domain=Box((tenth,), (3 * tenth,)))
    replay(problem, np.array([0.1]), {})  # the float64 0.1 lies above one tenth
    replay(problem, np.array([0.3]), {})  # the float64 0.3 below three tenths
    for outside in (math.nextafter(0.1, 0), math.nextafter(0.3, 1)):
        with pytest.raises(ReplayError, match="input 0"):
            replay(problem, np.array([outside]), {})
    point = logit_problem(LINE, domain=Point((0.25,)))
    replay(point, np.array([0.25]), {})
    with pytest.raises(ReplayError, match="point"):
        replay(point, np.array([0.26]), {})


@pytest.mark.parametrize(
    ("x", "parameters", "message"),
    [
        ([0.0, 1.0], {}, "2 number"),
        ([math.nan], {}, "NaN"),
        ([math.inf], {}, "NaN or infinity"),
        ([0.0], {"w9": np.zeros((1, 1))}, "no parameter 'w9'"),
        ([0.0], {"w0": np.ones(1)}, "shape"),
        ([0.0], {"b0": np.array([math.nan])}, "NaN"),
        ([0.0], {"b0": np.array([math.inf])}, "NaN or infinity"),
        ([0.0], {"b0": np.array([math.nextafter(0.5, 1)])}, "'b0', value 0"),
    ],
)
def test_refuses_what_is_no_counterexample(
    x: list[float], parameters: Mapping[str, Array], message: str
) -> None:
    with pytest.raises(ReplayError, match=message):
        replay(logit_problem(LINE), np.array(x), parameters)


def test_unperturbed_parameters_must_keep_their_value() -> None:
    network = stack(1, constant("div", [2.0]), dense(0, [[1.0]], [0.0]))
    uncertain = UncertainNetwork(network, Perturbation({"w0": Fraction(1)}))
    problem = Problem(network, uncertain, Point((1.0,)), OutputInfo("logit"))
    with pytest.raises(ReplayError, match="'cdiv'"):
        replay(problem, np.array([1.0]), {"cdiv": np.array([math.nextafter(2.0, 3)])})
    witness = replay(problem, np.array([1.0]), {"w0": np.array([[2.0]])})
    assert set(witness.parameters) == {"cdiv", "w0", "b0"}


def test_agrees_with_float_evaluation_on_a_wide_network() -> None:
    rng = np.random.default_rng(0)
    sizes, layers = [8, 30, 30, 5], []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        weight = (rng.standard_normal((b, a)) / math.sqrt(a)).astype(np.float32)
        layers += [dense(i, weight.tolist(), rng.standard_normal(b).tolist())]
        layers += [act("relu")] if i == 0 else [act("tanh")] if i == 1 else []
    network = stack(8, *layers)
    problem = logit_problem(network, kind="logits", level=None, delta="0.01")
    x = rng.standard_normal(8)
    chosen = {
        name: p.value + rng.uniform(-0.0099, 0.0099, p.value.shape)
        for name, p in network.parameters.items()
    }
    witness = replay(problem, x, chosen)
    for side, values in ((witness.reference_output, None), (witness.perturbed_output, chosen)):
        logits = network.evaluate(x[None], values)[0]
        expected = np.exp(logits) / np.exp(logits).sum()
        got = [(i.lower + i.upper) / 2 for i in side]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert witness.labels[0] == int(network.evaluate(x[None])[0].argmax())

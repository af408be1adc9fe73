"""What the engine promises, on random small networks: samples never leave a bracket."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paramrob.domain import Box, Point
from paramrob.engine import Settings, decide, estimate
from paramrob.models.model import OutputKind
from paramrob.models.network import Activation, Dense, Network, Node, Softmax
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import refutes, replay
from paramrob.verdict import Bracket, Outcome, Verdict
from tests.known_problems import (
    box,
    layered,
    problem,
    random_network,
    sample_inputs,
    sample_parameters,
    unit_box,
)
from tests.replay_networks import act, constant, dense, stack

QUICK = Settings(timeout=0.12, tolerance=1e-4)
EXAMPLES = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
KINDS = ["identity", "relu", "leaky_relu", "sigmoid", "tanh"]


@pytest.fixture(autouse=True)
def _bounds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramrob.engine._second_solver", lambda *_: None)


def assert_samples_inside(subject: Problem, outcome: Outcome, count: int = 12) -> None:
    """Replay random members of the problem exactly: none may lie above an upper end."""
    rng = np.random.default_rng(5)
    for x in sample_inputs(rng, subject, count):
        seen = replay(subject, x, sample_parameters(rng, subject))
        if (bracket := outcome.brackets.get("epsilon")) and seen.change:
            assert seen.change.lower <= bracket.upper
        first, second = seen.labels
        if first is None or second is None or first == second or seen.margin is None:
            continue
        sides = outcome.brackets.keys() & {"sigma", ("sigma_above" if first else "sigma_below")}
        for name in sides:
            assert seen.margin.lower <= outcome.brackets[name].upper


def assert_witnesses(subject: Problem, outcome: Outcome) -> None:
    """Every lower end is attained by a member of the problem."""
    for name, bracket in outcome.brackets.items():
        if bracket.lower <= 0 or bracket.witness is None:
            assert bracket.lower == 0
            continue
        again = replay(subject, bracket.witness.input, bracket.witness.parameters)
        found = again.change if name == "epsilon" else again.margin
        assert found is not None
        assert found.lower >= bracket.lower
        if name != "epsilon":
            assert again.labels[0] != again.labels[1]


@st.composite
def problems(draw: st.DrawFn, outputs: tuple[int, ...] = (1, 2, 3)) -> Problem:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    inputs, hidden = draw(st.integers(1, 3)), draw(st.lists(st.integers(1, 4), max_size=2))
    out = draw(st.sampled_from(outputs))
    network = random_network(rng, [inputs, *hidden, out], draw(st.sampled_from(KINDS)))
    level = draw(st.sampled_from([Fraction(1, 2), Fraction("0.3"), Fraction("0.85")]))
    if out > 1:
        kind: OutputKind = "logits"
        if draw(st.booleans()):
            kind, network = "probabilities", _behind(network, Softmax())
    else:
        kind = draw(st.sampled_from(["logit", "probability", "value"]))
        if kind == "probability":
            network = _behind(network, Activation("sigmoid"))
    delta = Fraction(draw(st.sampled_from(["0.001", "0.01", "0.1"])))
    half = rng.uniform(0.1, 1.0, size=inputs)
    middle = rng.normal(size=inputs) * 0.5
    domain: Box | Point = box(*zip((middle - half).tolist(), (middle + half).tolist(), strict=True))
    if draw(st.integers(0, 3)) == 0:
        domain = Point(tuple(middle.tolist()))
    return problem(network, domain, delta, kind, level if out == 1 else None)


def _behind(network: Network, op: Softmax | Activation) -> Network:
    last = network.nodes[-1]
    nodes = [*network.nodes, Node("last", op, (last.name,), last.shape)]
    return Network(nodes, network.parameters.values())


@EXAMPLES
@given(problems())
def test_samples_never_leave_the_bracket_of_epsilon(subject: Problem) -> None:
    outcome = estimate(subject, "epsilon", QUICK)
    assert_samples_inside(subject, outcome)
    assert_witnesses(subject, outcome)


@EXAMPLES
@given(problems())
def test_samples_never_leave_the_bracket_of_sigma(subject: Problem) -> None:
    outcome = estimate(subject, "sigma", QUICK)
    assert_samples_inside(subject, outcome)
    assert_witnesses(subject, outcome)


def scaled(subject: Problem, factor: Fraction) -> Problem:
    uncertain = subject.uncertain
    delta = next(iter(uncertain.perturbation._absolute.values())) * factor
    moved = Perturbation.uniform(uncertain.network, delta)
    return replace(subject, uncertain=UncertainNetwork(uncertain.network, moved))


@EXAMPLES
@given(problems())
def test_epsilon_grows_with_delta_and_with_the_box(subject: Problem) -> None:
    here = estimate(subject, "epsilon", QUICK).brackets["epsilon"]
    more = estimate(scaled(subject, Fraction(2)), "epsilon", QUICK).brackets["epsilon"]
    assert here.lower <= more.upper
    if isinstance(subject.domain, Box):
        inner = subject.domain
        outer = Box(tuple(v - 1 for v in inner.lower), tuple(v + 1 for v in inner.upper))
        wide = estimate(replace(subject, domain=outer), "epsilon", QUICK).brackets["epsilon"]
        assert here.lower <= wide.upper
        low, high = inner.inner()
        middle = np.minimum(np.maximum((low + high) / 2, low), high)
        local = replace(subject, domain=Point(tuple(middle.tolist())))
        assert estimate(local, "epsilon", QUICK).brackets["epsilon"].lower <= here.upper


def assert_verdict(subject: Problem, wanted: Verdict) -> None:
    """The verdict is the one wanted or unknown; a refutation carries its witness."""
    outcome = decide(subject, QUICK)
    assert outcome.verdict in (wanted, Verdict.UNKNOWN)
    if outcome.verdict is Verdict.NOT_ROBUST:
        assert outcome.witness is not None
        assert refutes(subject, replay(subject, outcome.witness.input, outcome.witness.parameters))


@EXAMPLES
@given(problems())
def test_decisions_agree_with_estimates(subject: Problem) -> None:
    epsilon = estimate(subject, "epsilon", QUICK).brackets["epsilon"]
    # On a busy machine the time can be up before anything is proved.
    if np.isfinite(epsilon.upper):
        asked = replace(subject, property=Property("confidence", epsilon=Fraction(epsilon.upper)))
        assert_verdict(asked, Verdict.ROBUST)
    if epsilon.lower > 1e-9:
        under = Fraction(epsilon.lower) * Fraction("0.999")
        assert_verdict(
            replace(subject, property=Property("confidence", epsilon=under)), Verdict.NOT_ROBUST
        )


@EXAMPLES
@given(problems())
def test_margins_agree_with_estimates(subject: Problem) -> None:
    brackets = estimate(subject, "sigma", QUICK).brackets.values()
    top, attained = max(b.upper for b in brackets), max(b.lower for b in brackets)
    if np.isfinite(top):
        above = Fraction(top) + Fraction(1, 10**9)
        assert_verdict(replace(subject, property=Property("margin", sigma=above)), Verdict.ROBUST)
    if attained > 0:
        asked = Property("margin", sigma=Fraction(attained) * Fraction("0.99"))
        assert_verdict(replace(subject, property=asked), Verdict.NOT_ROBUST)
        assert_verdict(replace(subject, property=Property("labels")), Verdict.NOT_ROBUST)


@EXAMPLES
@given(problems())
def test_nothing_moves_where_nothing_is_perturbed(subject: Problem) -> None:
    still = scaled(subject, Fraction(0))
    assert decide(replace(still, property=Property("labels")), QUICK).verdict is Verdict.ROBUST
    assert estimate(still, "epsilon", QUICK).brackets["epsilon"] == Bracket(0.0, 0.0)


def test_relative_per_layer_and_left_out_perturbations() -> None:
    rng = np.random.default_rng(6)
    for kind in KINDS:
        network = random_network(rng, [2, 4, 1], kind)
        half = Fraction("0.05")
        boxes = [
            Perturbation({"w0": half}),
            Perturbation({"b0": half, "b1": half / 2}),
            Perturbation({}, dict.fromkeys(network.parameters, Fraction("0.1"))),
            Perturbation({"w1": half}, {"w0": Fraction("0.02")}),
            Perturbation.uniform(network, half, leave_out=["n0"]),
        ]
        for moved in boxes:
            subject = problem(network, unit_box(2), moved)
            for quantity in ("epsilon", "sigma"):
                outcome = estimate(subject, quantity, QUICK)
                assert_samples_inside(subject, outcome)
                assert_witnesses(subject, outcome)


def test_shared_parameters_are_relaxed_and_say_so() -> None:
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(2, 2)).tolist()
    apart = stack(
        2,
        dense(0, weight, [0.1, -0.2]),
        act("tanh"),
        dense(1, weight, [0.1, -0.2]),
        act("relu"),
        dense(2, [[1.0, -2.0]]),
    )
    nodes = [replace(n, op=Dense("w0", "b0")) if n.name == "n2" else n for n in apart.nodes]
    kept = [p for name, p in apart.parameters.items() if name not in ("w1", "b1")]
    network = Network(nodes, kept)
    subject = problem(network, unit_box(2), "0.1")
    for quantity in ("epsilon", "sigma"):
        outcome = estimate(subject, quantity, QUICK)
        assert not outcome.exact_encoding
        assert_samples_inside(subject, outcome, 30)
        assert_witnesses(subject, outcome)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "rsub"])
def test_scalers_with_negative_constants_and_inputs_of_both_signs(kind: str) -> None:
    rng = np.random.default_rng(8)
    layers = [constant(kind, [-0.7, 1.5]), dense(1, rng.normal(size=(3, 2)).tolist(), [0.1] * 3)]
    network = stack(2, *layers, act("relu"), dense(3, rng.normal(size=(1, 3)).tolist(), [0.1]))
    for domain in (unit_box(2), box((-2, -1), ("-0.1", 3))):
        for moved in (
            Perturbation.uniform(network, Fraction("0.05")),
            Perturbation.uniform(network, Fraction("0.05"), leave_out=["n0"]),
            Perturbation({f"c{kind}": Fraction("0.3")}),
        ):
            subject = problem(network, domain, moved)
            for quantity in ("epsilon", "sigma"):
                outcome = estimate(subject, quantity, QUICK)
                assert_samples_inside(subject, outcome)
                assert_witnesses(subject, outcome)


def test_two_different_networks_are_bounded_together() -> None:
    rng = np.random.default_rng(9)
    for kind in KINDS:
        network = random_network(rng, [2, 3, 1], kind)
        values = {n: np.round(p.value * 16) / 16 for n, p in network.parameters.items()}
        rounded = layered([values["w0"], values["w1"]], [values["b0"], values["b1"]], [kind])
        for moved in (Perturbation({}), Perturbation.uniform(rounded, Fraction("0.01"))):
            subject = problem(rounded, unit_box(2), moved, reference=network)
            for quantity in ("epsilon", "sigma"):
                outcome = estimate(subject, quantity, QUICK)
                assert_samples_inside(subject, outcome)
                assert_witnesses(subject, outcome)


def test_the_largest_delta_lies_between_a_proof_and_a_refutation() -> None:
    network = stack(1, dense(0, [[2.0]], [0.6]))
    # at x = 1 the logit 2.6 falls to 0 at delta (|x| + 1) = 2.6
    asked = Property("labels")
    subject = problem(network, Point((1.0,)), "0.01", "logit", asked=asked)
    found = estimate(subject, "delta", Settings(timeout=5.0)).brackets["delta"]
    assert found.lower <= 1.3 <= found.upper
    assert found.width <= 1e-5

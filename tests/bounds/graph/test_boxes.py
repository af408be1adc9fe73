"""Boxes of inputs for any two networks: known answers, samples, and the search on chains."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob import engine
from paramrob.bounds import decision
from paramrob.bounds.graph import box_answers
from paramrob.bounds.graph.boxes import BoxPass
from paramrob.bounds.graph.change import Change, change_image, change_planes, undecided
from paramrob.bounds.graph.joint import joined
from paramrob.bounds.graph.limits import Question, logit_ends, squashed
from paramrob.bounds.graph.program import lower
from paramrob.domain import Box, box_from_floats
from paramrob.engine import Settings
from paramrob.errors import BackendError
from paramrob.models.evaluate import activate
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Array, Network, Node, Quantize
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.replay import refutes
from paramrob.verdict import Interval, Verdict
from tests.corpus import CORPUS, ROOM, Known
from tests.fuzz_boxes import contradictions, moved, residual, with_grids
from tests.known_problems import problem, random_network, sample_parameters, unit_box

HYPOTHESIS = settings(derandomize=True, database=None, deadline=None)
KINDS = [
    Activation("relu"),
    Activation("leaky_relu", slope=0.125),
    Activation("sigmoid"),
    Activation("tanh"),
]
BOXED = [
    known
    for known in CORPUS.values()
    if isinstance(known.problem.domain, Box) and known.quantity != "delta"
]


def squash(t: Array | float) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.asarray(t, dtype=np.float64))))


@pytest.mark.parametrize("known", BOXED, ids=[known.name for known in BOXED])
def test_never_contradicts_a_known_answer(known: Known) -> None:
    given_ = Settings(solver="bounds", timeout=0.2, tolerance=1e-3)
    if known.verdict is not None:
        outcome = box_answers.decide(known.problem, given_)
        assert outcome.verdict in (known.verdict, Verdict.UNKNOWN)
        if outcome.verdict is Verdict.NOT_ROBUST:
            assert outcome.witness is not None
            assert refutes(known.problem, outcome.witness)
        return
    outcome = box_answers.estimate(known.problem, known.quantity, given_)
    for name, value in known.values.items():
        found = outcome.brackets[name]
        assert found.lower <= float(value) + ROOM
        assert float(value) <= found.upper + ROOM


@HYPOTHESIS
@given(
    kind=st.sampled_from(KINDS),
    z=st.lists(st.floats(-6, 6), min_size=2, max_size=2).map(sorted),
    e=st.lists(st.floats(-2, 2), min_size=2, max_size=2).map(sorted),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_planes_hold_every_change(
    kind: Activation, z: list[float], e: list[float], shares: tuple[float, float]
) -> None:
    def ends(low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
        low_, high_ = torch.tensor([[[low]], [[high]]], dtype=torch.float64)
        return low_, high_

    p = ends(z[0] + e[0] - 1e-12, z[1] + e[1] + 1e-12)
    change = Change(kind)
    planes = change_planes(change, ends(*z), ends(*e), p)
    at = z[0] + shares[0] * (z[1] - z[0])
    by = e[0] + shares[1] * (e[1] - e[0])
    moved = float(activate(kind, np.array(at + by)) - activate(kind, np.array(at)))
    room = 64 * 2.0**-53 * float(planes.size) + 1e-14
    for plane, side in ((planes.low, 1), (planes.high, -1)):
        value = float(plane.z) * at + float(plane.e) * by + float(plane.intercept)
        assert side * (moved - value) >= -room
    low, high = change_image(change, ends(*e))
    assert float(low) - 1e-14 <= moved <= float(high) + 1e-14
    if kind.kind == "relu" and not bool(undecided(change, ends(*z), p)):
        expected = by if z[0] >= 0 else 0.0
        assert abs(moved - expected) <= 1e-12


def test_no_planes_where_an_end_is_open() -> None:
    inf = torch.tensor([[math.inf]], dtype=torch.float64)
    one = torch.ones_like(inf)
    planes = change_planes(Change(KINDS[2]), (-one, one), (-inf, one), (-one, one))
    assert float(planes.low.intercept) == -math.inf
    assert float(planes.high.intercept) == math.inf


@HYPOTHESIS
@given(
    t=st.lists(st.floats(-40, 40), min_size=2, max_size=2).map(sorted),
    most=st.floats(-3, 30),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_sigmoid_changes_by_no_more(
    t: list[float], most: float, shares: tuple[float, float]
) -> None:
    low, high, up = (torch.tensor([[v]], dtype=torch.float64) for v in (*t, most))
    bound = float(squashed(low, high, up))
    at = t[0] + shares[0] * (t[1] - t[0])
    by = min(most, shares[1] * most)
    assert float(squash(at + by) - squash(at)) <= bound + 1e-15
    reached = max(float(squash(x + max(most, 0)) - squash(x)) for x in np.linspace(t[0], t[1], 201))
    reached = max(reached, 0.0)
    assert bound <= reached + 0.3 * (t[1] - t[0]) / 200 + 1e-12


@HYPOTHESIS
@given(
    leads=st.lists(st.floats(-30, 30), min_size=3, max_size=3),
    width=st.sampled_from([0.0, 0.1, 5.0]),
)
def test_logits_of_a_class_against_the_rest(leads: list[float], width: float) -> None:
    """Row 0 of a table of leads; the probability of class 0 lies between the ends' sigmoids."""
    table = torch.zeros(1, 4, 4, dtype=torch.float64)
    table[0, 0, 1:] = torch.tensor(leads, dtype=torch.float64)
    low, high = logit_ends(table - width, table + width)
    for shift in (-width, 0.0, width / 3, width):
        share = 1 / (1 + np.exp(-(np.array(leads) + shift)).sum())
        assert squash(float(low[0, 0])) - 1e-9 <= share <= squash(float(high[0, 0])) + 1e-9
    if width == 0.0:
        exact = -math.log(np.exp(-np.array(leads)).sum())
        assert abs(float(low[0, 0]) - exact) < 1e-6


def pairs() -> list[tuple[str, Network, Network]]:
    one, two = residual(0), random_network(np.random.default_rng(1), [3, 5, 4, 2], "relu")
    return [
        ("same", one, one),
        ("moved", one, moved(one, 0.01, 3)),
        ("grids", one, with_grids(moved(one, 0.01, 3), 0.02)),
        ("other architecture", residual(0), residual(0, slim=True)),
        ("other widths", two, random_network(np.random.default_rng(1), [3, 7, 2], "tanh")),
        ("chain with grids", two, with_grids(two, 0.05)),
    ]


@pytest.mark.parametrize(("name", "first", "second"), pairs(), ids=[p[0] for p in pairs()])
@pytest.mark.parametrize("kind", ["value", "logits"])
def test_no_sample_leaves_the_brackets(
    name: str, first: Network, second: Network, kind: str
) -> None:
    rng = np.random.default_rng(7)
    size = first.input_size
    middle = rng.uniform(-0.5, 0.5, size)
    box = box_from_floats((middle - 0.05).tolist(), (middle + 0.05).tolist())
    output = OutputInfo(kind)  # type: ignore[arg-type]
    around = Perturbation.uniform(second, Fraction("0.001"))
    subject = Problem(first, UncertainNetwork(second, around), box, output)
    outcome = engine.estimate(subject, "epsilon", Settings(solver="bounds", timeout=0.3))
    found = outcome.brackets["epsilon"]
    assert math.isfinite(found.upper)
    x = rng.uniform(middle - 0.05, middle + 0.05, (300, size)).reshape(300, *first.input_shape)
    widest = flipped = 0.0
    for _ in range(10):
        results = [first.evaluate(x), second.evaluate(x, sample_parameters(rng, subject))]
        if kind == "logits":
            shares = [np.exp(y - y.max(1, keepdims=True)) for y in results]
            shares = [s / s.sum(1, keepdims=True) for s in shares]
            other = results[0].argmax(1) != results[1].argmax(1)
            ranked = np.sort(results[0], 1)
            flipped = max(flipped, float(((ranked[:, -1] - ranked[:, -2]) * other).max()))
        else:
            shares = results
        widest = max(widest, float(np.abs(shares[1] - shares[0]).max()))
    assert widest <= found.upper + 1e-12
    if found.witness is not None:
        assert found.witness.replayed
        assert found.lower > 0
    if kind == "logits":
        sigma = engine.estimate(subject, "sigma", Settings(solver="bounds", timeout=0.3))
        assert flipped <= sigma.brackets["sigma"].upper + 1e-12
        labels = engine.decide(
            replace(subject, property=Property("labels")), Settings(solver="bounds", timeout=0.5)
        )
        assert labels.verdict is not Verdict.ROBUST or flipped == 0.0


@pytest.mark.parametrize("seed", range(40))
def test_no_sample_of_random_problems_is_outside(seed: int) -> None:
    assert contradictions(seed) == []


@pytest.mark.parametrize("kind", ["relu", "tanh"])
@pytest.mark.parametrize("out", ["value", "logit", "logits"])
def test_meets_the_search_on_chains(kind: str, out: str) -> None:
    widths = [2, 4, 3] if out == "logits" else [2, 4, 1]
    network = random_network(np.random.default_rng(3), widths, kind)
    level = {"value": Fraction(0), "logit": Fraction(1, 2), "logits": None}[out]
    subject = problem(network, unit_box(2), "0.01", out, level)  # type: ignore[arg-type]
    given_ = Settings(solver="bounds", timeout=1.0, tolerance=1e-2)
    for quantity in ("epsilon", "sigma"):
        ours = box_answers.estimate(subject, quantity, given_)
        theirs = decision.estimate(subject, quantity, given_)
        assert ours.brackets.keys() == theirs.brackets.keys()
        for name, bracket in ours.brackets.items():
            other = theirs.brackets[name]
            assert bracket.lower <= other.upper
            assert other.lower <= bracket.upper


def test_one_pass_is_no_looser_than_that_of_chains() -> None:
    from paramrob.bounds.chain import build_chain
    from paramrob.bounds.linear import BoundPass, Boxes
    from paramrob.bounds.rounding import magnitudes

    ratios = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = random_network(rng, [3, 8, 8, 1], ("relu", "tanh")[seed % 2])
        middle = rng.uniform(-1, 1, 3)
        low, high = (torch.from_numpy(middle + side * 0.1)[None] for side in (-1, 1))
        box = box_from_floats(low[0].tolist(), high[0].tolist())
        subject = problem(network, box, "0.005", "value", None)
        pass_ = BoxPass(subject, Settings())
        ours = float(pass_.limits(low, high)[0].epsilon)
        chain = build_chain(subject)
        other = BoundPass(chain, magnitudes(chain, low[0], high[0]))
        boxes = Boxes(low, high)
        both = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
        forms = other.rows(other.analyse(boxes), torch.zeros_like(both), both)
        ratios.append(ours / -float(forms.least(boxes).min()))
    assert np.mean(ratios) <= 1.02


def test_a_fused_relu_finds_its_partner() -> None:
    """A grid that begins at 0 does a ReLU's work; the file has none before it."""
    rng = np.random.default_rng(0)
    network = random_network(rng, [3, 6, 6, 2], "relu")
    fused: list[Node] = []
    new: dict[str, str] = {}
    for node in network.nodes:
        inputs = tuple(new.get(name, name) for name in node.inputs)
        if isinstance(node.op, Activation):
            grid = Quantize(float(np.float32(0.01)), 0, 0, 2**16)
            fused.append(replace(node, op=grid, inputs=inputs))
        else:
            fused.append(replace(node, inputs=inputs))
    other = Network(fused, network.parameters.values())
    output = OutputInfo("value")
    programs = [lower(n, Perturbation({}), output) for n in (network, other)]
    kinds = [type(step.kind).__name__ for step in joined(*programs).steps]
    assert kinds.count("Change") == 2
    box = box_from_floats([0.1] * 3, [0.3] * 3)
    subject = Problem(network, UncertainNetwork(other, Perturbation({})), box, output)
    low, high = (torch.from_numpy(a)[None] for a in box.outer())
    ours = float(BoxPass(subject, Settings()).limits(low, high)[0].epsilon)
    x = rng.uniform(0.1, 0.3, (2000, 3))
    sampled = np.abs(other.evaluate(x) - network.evaluate(x)).max()
    assert sampled <= ours <= 6 * sampled


def test_too_many_classes_are_refused() -> None:
    network = random_network(np.random.default_rng(0), [2, 40], "relu")
    other = with_grids(random_network(np.random.default_rng(0), [2, 3, 40], "relu"), 0.1)
    subject = Problem(
        network, UncertainNetwork(other, Perturbation({})), unit_box(2), OutputInfo("logits")
    )
    with pytest.raises(BackendError, match="at most 32 classes"):
        engine.estimate(subject, "epsilon", Settings(solver="bounds"))


def test_rows_of_a_question() -> None:
    """The bounds of a network that is known exactly give its own margins and changes."""
    question = Question.of("softmax", 3, None)
    z, p = np.array([1.0, 0.5, -1.0]), np.array([0.4, 0.6, -1.0])
    least = question.rows.numpy() @ np.concatenate([z, p])
    limits = question.limits(torch.from_numpy(least)[None])
    shares = [np.exp(y) / np.exp(y).sum() for y in (z, p)]
    assert float(limits.epsilon) == pytest.approx(np.abs(shares[1] - shares[0]).max(), abs=0.02)
    assert float(limits.epsilon) >= np.abs(shares[1] - shares[0]).max()
    assert float(limits.sigma["sigma"]) == pytest.approx(0.5)
    still = question.limits(torch.from_numpy(question.rows.numpy() @ np.concatenate([z, z]))[None])
    assert float(still.sigma["sigma"]) == -math.inf
    single = Question.of("sigmoid", 1, Interval(0.0, 0.0))
    least = single.rows.numpy() @ np.array([0.3, -0.1])
    limits = single.limits(torch.from_numpy(least)[None])
    assert float(limits.sigma["sigma_above"]) == pytest.approx(float(squash(0.3)) - 0.5)
    assert float(limits.sigma["sigma_below"]) == -math.inf
    assert float(limits.epsilon) == pytest.approx(float(squash(0.3) - squash(-0.1)))


@pytest.mark.parametrize(("link", "size"), [("identity", 1), ("sigmoid", 1), ("softmax", 3)])
def test_what_is_no_number_bounds_nothing(link: str, size: int) -> None:
    level = Interval(0.0, 0.0) if size == 1 else None
    question = Question.of(link, size, level)  # type: ignore[arg-type]
    limits = question.limits(torch.full((1, len(question.rows)), math.nan, dtype=torch.float64))
    assert float(limits.epsilon) == (math.inf if link == "identity" else 1.0)
    assert all(float(bound) > 0.49 for bound in limits.sigma.values())

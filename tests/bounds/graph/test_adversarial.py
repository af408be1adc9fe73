"""Bounds of networks made to break them, against exact rationals at the worst of samples."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.attack import Attack
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.program import lower
from paramrob.bounds.graph.specification import lead_of, level_of, side_of, stay_of
from paramrob.domain import Ball, Point
from paramrob.engine import METHODS, Settings, decide
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Array, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from paramrob.verdict import Verdict
from tests.bounds.graph.adversarial import ADVERSARIAL, dense, wide
from tests.bounds.graph.exact_graph import evaluate
from tests.bounds.graph.nets import Build

VALUE = OutputInfo("value", None)
DELTAS = ("0", "1e-12", "0.01", "1e8")


def rows_for(outputs: int, seed: int = 3) -> Array:
    """Return rows with small whole coefficients: single results, differences, sums."""
    rng = np.random.default_rng(seed)
    eye = np.eye(outputs)
    mixed = rng.integers(-3, 4, size=(4, outputs)).astype(float)
    return np.concatenate([eye, -eye, mixed])


def least(network: Network, box: Perturbation, low: Array, high: Array) -> dict[str, Array]:
    """Return least values of the rows by every method, ``(batch, rows)``."""
    bound_pass = GraphPass(lower(network, box, VALUE))
    rows = torch.from_numpy(rows_for(network.output_size)).expand(len(low), -1, -1)
    found: dict[str, Array] = {}
    for method in METHODS:
        analysis = bound_pass.analyse(torch.from_numpy(low), torch.from_numpy(high), method)
        value = bound_pass.bound(analysis, rows, method)
        if method == "alpha":
            value = optimised(analysis, rows, 4)
        found[method] = value.numpy()
    return found


def vectors(network: Network, box: Perturbation, seed: int = 0) -> list[dict[str, Any]]:
    """Return parameters: the centre, vertices as exact rationals, and interior points."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = [{}]
    for kind in (0, 1, 3, 2):
        chosen = {}
        for name, parameter in network.parameters.items():
            interval = box.interval(parameter)
            if not interval.radius().any():
                continue
            value = np.empty(parameter.value.shape, dtype=object)
            for i in range(parameter.value.size):
                ends = interval.exact(i)
                if kind < 3:
                    at = ends[int(rng.integers(2))] if kind else ends[0]
                else:
                    at = ends[0] + (ends[1] - ends[0]) * Fraction(float(rng.uniform()))
                value.flat[i] = at
            chosen[name] = value
        found.append(chosen)
    return found


def attacked(network: Network, box: Perturbation, low: Array, high: Array) -> list[dict[str, Any]]:
    """Return what the gradient search finds against each row, as inputs and parameters."""
    attack = Attack(UncertainNetwork(network, box), network.nodes[-1].name)
    aims = -torch.from_numpy(rows_for(network.output_size))
    first, last = (torch.from_numpy(end[:1]).expand(len(aims), -1) for end in (low, high))
    found = attack.run(first, last, aims, lambda y, aim: y @ aim, 3)
    clipped = np.nan_to_num(found.x.numpy()).clip(low[0], high[0])
    return [{"x": clipped[i], **found.parameters_of(i)} for i in range(len(aims))]


def assert_contained(
    network: Network, found: dict[str, Array], at: int, x: Array, parameters: dict[str, Any]
) -> None:
    if not all(np.isfinite(np.asarray(v, dtype=float)).all() for v in parameters.values()):
        return  # a search may run away; it refutes nothing then
    exact = evaluate(network, x, parameters)
    for row, coefficients in enumerate(rows_for(network.output_size)):
        value = sum(
            (Fraction(c) * y for c, y in zip(coefficients, exact, strict=True)), Fraction(0)
        )
        for method, bound in found.items():
            low = bound[at, row]
            assert not np.isnan(low)
            assert low == -np.inf or Fraction(float(low)) <= value, (method, row)


@functools.cache
def inputs_of(name: str) -> Array:
    network, scale = ADVERSARIAL[name]
    rng = np.random.default_rng(17)
    x = scale * rng.uniform(-1, 1, size=(2, network.input_size))
    if name == "cancelling":
        x = np.array([[0.7, 0.7, 0.3], [1 / 3, 1 / 3, -0.1]])
    if name == "maxima":
        x[1] = np.round(x[1])
    return x


CASES = [
    (name, delta, radius)
    for name in ADVERSARIAL
    for delta in DELTAS
    for radius in (0.0, 1e-9, 0.25)
    if radius != 1e-9 or delta == "0"
    # Rationals take their time on the wide networks.
    if not name.startswith("wide") or (delta, radius) in (("0", 0.25), ("0.01", 0.0))
]


@pytest.mark.parametrize(("name", "delta", "radius"), CASES)
def test_exact_values_lie_within_the_bounds(name: str, delta: str, radius: float) -> None:
    network, scale = ADVERSARIAL[name]
    slow = name.startswith("wide")
    box = Perturbation.uniform(network, Fraction(delta))
    if name == "branches" and Fraction(delta) >= Fraction(1, 1000):
        # the divisors' box may not reach 0
        absolute = {n: Fraction(delta) for n, p in network.parameters.items() if p.value.size != 6}
        box = Perturbation(absolute)
    x = inputs_of(name)
    low, high = x - radius * scale, x + radius * scale
    found = least(network, box, low, high)
    rng = np.random.default_rng(5)
    drawn = vectors(network, box)[: 2 if slow else 4]
    for at in range(len(x)):
        for chosen in drawn:
            share = rng.choice([0.0, 1.0, rng.uniform()], size=x.shape[1])
            inside = (low[at] + share * (high[at] - low[at])).clip(low[at], high[at])
            assert_contained(network, found, at, inside, chosen)
    for attempt in attacked(network, box, low, high)[: 1 if slow else 3]:
        inside = attempt.pop("x")
        assert_contained(network, found, 0, inside, attempt)


def test_sums_of_a_hundred_thousand_terms() -> None:
    network = wide(100_000)
    box = Perturbation.uniform(network, Fraction(1, 1000))
    x = np.random.default_rng(2).uniform(-1, 1, size=(1, 100_000))
    found = least(network, box, x, x)
    assert all(np.isfinite(bound).all() for bound in found.values())
    assert_contained(network, found, 0, x[0], {})


SPECIAL = [
    0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 1e-160, -1e160, 1e154, 1e308, -1.7e308, 0.1, -1.0, 3.0,
]  # fmt: skip
NUMBERS = st.one_of(st.sampled_from(SPECIAL), st.floats(-4, 4))
KINDS = st.sampled_from(
    [
        Activation("relu"),
        Activation("leaky_relu", slope=0.1),
        Activation("clamp", low=-0.5, high=1.0),
        Activation("hardsigmoid"),
        Activation("hardswish"),
    ]
)


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(
    numbers=st.lists(NUMBERS, min_size=24, max_size=24),
    point=st.lists(NUMBERS, min_size=2, max_size=2),
    op=KINDS,
    delta=st.sampled_from([*DELTAS, "5e-324", "1e300"]),
    radius=st.sampled_from([0.0, 5e-324, 0.5]),
    seed=st.integers(0, 99),
)
def test_any_numbers_at_all(
    numbers: list[float],
    point: list[float],
    op: Activation,
    delta: str,
    radius: float,
    seed: int,
) -> None:
    values = np.array(numbers)
    build = Build((2,), 0)
    dense(build, values[:6].reshape(3, 2), values[6:9])
    build.add(op)
    dense(build, values[9:15].reshape(2, 3), values[15:17])
    build.add(op)
    dense(build, values[17:21].reshape(2, 2), values[21:23])
    network = build.network()
    box = Perturbation.uniform(network, Fraction(delta))
    x = np.array([point])
    with np.errstate(over="ignore"):
        low, high = np.nextafter(x - radius, x), np.nextafter(x + radius, x)
    low, high = np.maximum(low, -1.7e308), np.minimum(high, 1.7e308)
    low, high = np.minimum(low, x), np.maximum(high, x)
    found = least(network, box, low, high)
    for chosen in vectors(network, box, seed):
        assert_contained(network, found, 0, x[0], chosen)
        assert_contained(network, found, 0, low[0], chosen)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [n for n in ADVERSARIAL if not n.startswith("wide")])
def test_nan_and_infinity_prove_nothing(name: str, bad: float) -> None:
    network, _ = ADVERSARIAL[name]
    box = Perturbation.uniform(network, Fraction(1, 10**6))
    x = inputs_of(name).copy()
    x[1] = bad
    low, high = x.copy(), x.copy()
    if np.isinf(bad):
        low[1], high[1] = -np.inf, np.inf
    ordinary = least(network, box, inputs_of(name), inputs_of(name))
    for method, bound in least(network, box, low, high).items():
        zero = ~rows_for(network.output_size).any(axis=1)
        assert (bound[1] == -np.inf)[~zero].all(), method
        np.testing.assert_array_equal(bound[0] == -np.inf, ordinary[method][0] == -np.inf)


def test_bounds_without_numbers_satisfy_no_specification() -> None:
    for bad in (np.nan, -np.inf, np.inf):
        rows = torch.full((1, 2), bad, dtype=torch.float64)
        lead = lead_of(torch.tensor([1]), 3)
        assert float(lead.slack(rows)) == -np.inf
        side = side_of(torch.tensor([1]), level_of(Fraction(1, 2), "identity"))
        assert float(side.slack(rows[:, :1])) == -np.inf
    known = torch.tensor([[0.2, 0.3]], dtype=torch.float64)
    for link, count in (("identity", 4), ("sigmoid", 4), ("softmax", 2)):
        spec = stay_of(Interval(known, known), link, Fraction(1, 10))
        for bad in (np.nan, -np.inf):
            rows = torch.full((1, count), bad, dtype=torch.float64)
            assert float(spec.slack(rows)) == -np.inf
            assert float(spec.smallest(rows)) == 0


def test_a_level_of_zero_is_a_level() -> None:
    build = Build((1,))
    dense(build, [[1.0]], [0.175])
    network = build.network()
    box = Perturbation.uniform(network, Fraction("0.275"))
    for level, verdict in ((0, Verdict.NOT_ROBUST), (Fraction(1, 2), Verdict.ROBUST)):
        # The value lies between -0.1 and 0.45.
        asked = Problem(
            network,
            UncertainNetwork(network, box),
            Point((0.0,)),
            OutputInfo("value", Fraction(level)),
            Property("labels"),
        )
        assert decide(asked, Settings(method="crown", timeout=10)).verdict is verdict


def test_networks_without_activations_have_nothing_to_split() -> None:
    build = Build((2,))
    dense(build, [[1.0, -1.0], [0.5, 2.0]], [0.25, 0.0])
    network = build.network()
    asked = Problem(
        network,
        UncertainNetwork(network, Perturbation.uniform(network, Fraction("0.4"))),
        Ball((0.1, 0.05), Fraction("0.3")),
        OutputInfo("logits", None),
        Property("labels"),
    )
    assert decide(asked, Settings(timeout=10)).verdict is not Verdict.ROBUST

"""Bounds for one parameter vector a box, against exact rationals and exact reachable ranges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from paramrob.bounds.chain import Chain, build_chain
from paramrob.bounds.goals import change_targets
from paramrob.bounds.linear import Boxes
from paramrob.bounds.rounding import magnitudes
from paramrob.bounds.steered import (
    Radii,
    Results,
    SteeredPass,
    Vectors,
    change_at_least,
    inner_radii,
    steer,
    vectors,
)
from paramrob.models.network import Dense, Input, Network, Node, Parameter
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.replay import replay
from tests.bounds.exact_chain import Exact, activated, rational
from tests.exact_reach import Shallow
from tests.known_problems import problem, random_network, unit_box
from tests.replay_networks import act, constant, dense, stack

KINDS = ["identity", "relu", "leaky_relu", "sigmoid", "tanh"]


def steered(subject: Problem, chain: Chain, chosen: Vectors) -> SteeredPass:
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    return SteeredPass(chain, magnitudes(chain, low, high), inner_radii(subject, chain), chosen)


def exact_results(
    chain: Chain, radii: tuple[Radii, ...], chosen: Vectors, i: int, x: list[float]
) -> list[Exact]:
    """Return the last layer at the vector number ``i``, parameter by parameter."""
    h = [rational(v) for v in x]
    for k, (layer, radius) in enumerate(zip(chain.layers, radii, strict=True)):
        theta = [rational(v) for v in chosen.theta[k][i].tolist()]
        signs = [int(v) for v in chosen.signs[k][i].tolist()]
        h = [
            sum(
                (
                    (rational(w) + t * g * rational(r)) * v
                    for w, r, g, v in zip(row, reach, signs, h, strict=True)
                ),
                rational(b) + t * rational(s),
            )
            for row, reach, b, s, t in zip(
                layer.weight.tolist(),
                radius.weight.tolist(),
                layer.bias.tolist(),
                radius.bias.tolist(),
                theta,
                strict=True,
            )
        ]
        if k < len(chain.activations):
            h = [activated(chain.activations[k], t) for t in h]
    return h


def encloses(low: float, high: float, value: Exact) -> bool:
    return not (value < rational(low)) and not (value > rational(high))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "scale"), [(0.0, 1.0), (1e-3, 1.0), (0.3, 1.0), (0.0, 1e6)])
def test_results_enclose_exact_execution(kind: str, width: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    network = random_network(rng, [2, 4, 3, 2], kind, scale)
    subject = problem(network, unit_box(2), "0.05", "logits", None)
    chain = build_chain(subject)
    radii = inner_radii(subject, chain)
    count = 6
    middle = torch.from_numpy(rng.uniform(-0.7, 0.7, (count, 2)))
    theta = [
        torch.from_numpy(rng.choice([-1.0, 1.0, 0.0, rng.uniform(-1, 1)], (count, size)))
        for size in (4, 3, 2)
    ]
    chosen = vectors(chain, radii, middle, theta)
    boxes = Boxes(middle - width, middle + width)
    r = steered(subject, chain, chosen).results(boxes)
    still = Vectors(tuple(0 * t for t in chosen.theta), chosen.signs)
    for i in range(count):
        for _ in range(4):
            low, high = boxes.lower[i].numpy(), boxes.upper[i].numpy()
            x = np.clip(rng.choice([low, high, rng.uniform(low, high)]), low, high).tolist()
            before = exact_results(chain, radii, still, i, x)
            after = exact_results(chain, radii, chosen, i, x)
            for k, (z, p) in enumerate(zip(before, after, strict=True)):
                assert encloses(float(r.z0[i, k]), float(r.z1[i, k]), z)
                assert encloses(float(r.p0[i, k]), float(r.p1[i, k]), p)
                assert encloses(float(r.e0[i, k]), float(r.e1[i, k]), p - z)
    if width == 0.0 and scale == 1.0:
        assert float((r.p1 - r.p0).max()) < 1e-9


def test_radii_lie_in_the_intervals() -> None:
    rng = np.random.default_rng(2)
    network = random_network(rng, [3, 4, 1])
    box = Perturbation({"w0": Fraction("0.1"), "b1": Fraction(1, 3)}, {"w1": Fraction("0.01")})
    subject = problem(network, unit_box(3), box)
    chain = build_chain(subject)
    for (w, b), radius in zip(
        (("w0", "b0"), ("w1", "b1")), inner_radii(subject, chain), strict=True
    ):
        for name, found in ((w, radius.weight), (b, radius.bias)):
            parameter = network.parameters[name]
            for i, r in enumerate(found.ravel().tolist()):
                low, high = box.interval(parameter).exact(i)
                value = Fraction(float(parameter.value.flat[i]))
                assert low <= value - Fraction(r)
                assert value + Fraction(r) <= high
                assert float(high - value) - r <= 1e-15 * (1 + abs(value))


def test_radii_of_a_divisor_lie_in_its_interval() -> None:
    network = stack(2, constant("div", [0.3, -7.0]), dense(1, [[1.0, 2.0]], [0.1]))
    box = Perturbation({"cdiv": Fraction("0.01")})
    subject = problem(network, unit_box(2), box)
    chain = build_chain(subject)
    reach = inner_radii(subject, chain)[0].weight
    for i, value in enumerate((Fraction(0.3), Fraction(-7.0))):
        low, high = box.interval(network.parameters["cdiv"]).exact(i)
        for sign in (-1, 1):
            moved = Fraction(float(chain.layers[0].weight[i, i])) + sign * Fraction(
                float(reach[i, i])
            )
            assert low <= 1 / moved <= high
        assert float(reach[i, i]) > 0.9 * float(abs(1 / value - 1 / (value + Fraction("0.01"))))


def test_parameters_used_twice_do_not_move() -> None:
    nodes = [
        Node("input", Input(), (), (2,)),
        Node("a", Dense("w", "b"), ("input",), (2,)),
        Node("b", Dense("w", "b"), ("a",), (2,)),
        Node("c", Dense("v", "u"), ("b",), (1,)),
    ]
    values = {"w": np.eye(2), "b": np.zeros(2), "v": np.ones((1, 2)), "u": np.zeros(1)}
    network = Network(nodes, [Parameter(name, value) for name, value in values.items()])
    subject = problem(network, unit_box(2))
    radii = inner_radii(subject, build_chain(subject))
    moved = [float(r.weight.max() + r.bias.max()) > 0 for r in radii if r.weight.numel() == 4]
    assert moved[0] is False
    assert float(radii[-1].weight.max()) > 0


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "tanh"])
def test_the_vector_found_is_the_worst_one_behind_one_hidden_layer(kind: str) -> None:
    rng = np.random.default_rng(3)
    delta = Fraction("0.05")
    network = random_network(rng, [2, 8, 1], kind)
    subject = problem(network, unit_box(2), delta, "value")
    chain = build_chain(subject)
    values = {n: p.value.tolist() for n, p in network.parameters.items()}
    shallow = Shallow(
        *(
            [[Fraction(v) for v in row] for row in values["w0"]],
            [Fraction(v) for v in values["b0"]],
        ),
        *(
            [[Fraction(v) for v in row] for row in values["w1"]],
            [Fraction(v) for v in values["b1"]],
        ),
        delta,
        kind,
        0.1,
    )
    x = torch.from_numpy(rng.uniform(-1, 1, (60, 2)))
    radii = inner_radii(subject, chain)
    best = torch.zeros(len(x), dtype=torch.float64)
    for target in change_targets(chain):
        _, chosen = steer(chain, radii, target, x)
        best = torch.maximum(
            best, change_at_least(chain, steered(subject, chain, chosen).results(Boxes(x, x)))
        )
    for point, lower in zip(x.tolist(), best.tolist(), strict=True):
        least, nominal, most = shallow.at([Fraction(v) for v in point])[0]
        truth = max(most - nominal, nominal - least)
        assert lower <= truth + (Fraction("1e-12") if kind == "tanh" else 0)
        # Behind a tanh near 0 both ends can be local optima.
        assert float(truth) - lower < (5e-3 if kind == "tanh" else 1e-9)


def test_a_neuron_that_is_off_is_turned_on() -> None:
    network = stack(
        1, dense(0, [[1.0], [-1.0]], [0.0, -0.02]), act("relu"), dense(2, [[1.0, -3.0]], [0.0])
    )
    subject = problem(network, unit_box(1), "0.05", "value")
    chain = build_chain(subject)
    x = torch.tensor([[0.01]], dtype=torch.float64)
    down = change_targets(chain)[1]
    value, _ = steer(chain, inner_radii(subject, chain), down, x)
    # The second neuron reaches 0.0205, worth 3.05 times that; the first can be turned off.
    assert float(value[0]) == pytest.approx(0.01 + 0.05 + 3.05 * 0.0205)


def test_the_change_of_classes_is_attained() -> None:
    rng = np.random.default_rng(4)
    network = random_network(rng, [2, 5, 3])
    subject = problem(network, unit_box(2), "0.05", "logits", None)
    chain = build_chain(subject)
    radii = inner_radii(subject, chain)
    x = torch.from_numpy(rng.uniform(-1, 1, (10, 2)))
    _, chosen = steer(chain, radii, change_targets(chain)[0], x)
    lower = change_at_least(chain, steered(subject, chain, chosen).results(Boxes(x, x)))
    for i in range(len(x)):
        # The same vector, up to rounding, replayed exactly.
        moved = {}
        for k, name in ((0, "0"), (1, "1")):
            theta, signs = chosen.theta[k][i].numpy(), chosen.signs[k][i].numpy()
            layer, radius = chain.layers[k], radii[k]
            share = theta[:, None] * signs[None, :]
            moved[f"w{name}"] = layer.weight.numpy() + share * radius.weight.numpy() * (1 - 1e-9)
            moved[f"b{name}"] = layer.bias.numpy() + theta * radius.bias.numpy() * (1 - 1e-9)
        witness = replay(subject, x[i].numpy(), moved)
        assert witness.change is not None
        assert float(lower[i]) <= witness.change.upper + 1e-8
        assert float(lower[i]) >= witness.change.lower - 1e-8


def test_nan_proves_nothing() -> None:
    subject = problem(random_network(np.random.default_rng(5), [2, 1]), unit_box(2))
    chain = build_chain(subject)
    nan, inf = (torch.full((1, 1), v, dtype=torch.float64) for v in (float("nan"), float("inf")))
    assert float(change_at_least(chain, Results(nan, nan, nan, nan, nan, nan))) == 0.0
    assert float(change_at_least(chain, Results(-inf, inf, -inf, inf, -inf, inf))) == 0.0

"""The lowering to affine layers: what each layer encloses, in exact rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from paramrob.bounds.chain import build_chain
from paramrob.engine import Settings, estimate
from paramrob.errors import BackendError
from paramrob.models.network import Array, Network
from paramrob.perturbation import Perturbation
from tests.known_problems import layered, problem, unit_box
from tests.replay_networks import act, constant, dense, stack


def scaler(kind: str, values: list[float]) -> Network:
    return stack(len(values), constant(kind, values), dense(1, [[1.0] * len(values)], [0.0]))


@pytest.mark.parametrize(
    ("value", "radius"),
    [
        (3.0, "0.1"),
        (-7.0, "6.9"),
        (1e-160, "1e-200"),
        (1.3e-161, "1e-200"),
        (3e-162, "1e-180"),
        (-1e-154, "1e-300"),
        (5e-1, "1e-320"),
    ],
)
def test_reciprocals_enclose_every_divisor_of_the_interval(value: float, radius: str) -> None:
    half = Fraction(radius)
    network = scaler("div", [value])
    moved = Perturbation({"cdiv": half})
    layer = build_chain(problem(network, unit_box(1), moved)).layers[0]
    centre, reach = (float(t[0, 0]) for t in (layer.weight, layer.weight_radius))
    if not np.isfinite(reach):
        return
    for end in (-half, half):
        exact = 1 / (Fraction(value) + end)
        # The centre's own rounding is charged to every weight.
        assert abs(exact - Fraction(centre)) <= Fraction(reach) + abs(Fraction(centre)) / 2**52


def test_divisors_that_round_to_one_reciprocal_still_differ() -> None:
    first = next(
        v for v in np.linspace(1.5, 1.6, 999) if 1.0 / v == 1.0 / float(np.nextafter(v, 2.0))
    )
    second = float(np.nextafter(first, 2.0))
    network, reference = scaler("div", [second]), scaler("div", [float(first)])
    still = Perturbation({})
    subject = problem(network, unit_box(1), still, "value", None, reference=reference)
    assert not build_chain(subject).is_rigid()
    assert estimate(subject, "epsilon", Settings(timeout=5.0)).brackets["epsilon"].upper > 0


def test_networks_of_different_widths_are_refused() -> None:
    ones: list[Array] = [np.ones((4, 2)), np.ones((1, 4))]
    wide = layered(ones, [np.ones(4), np.ones(1)], ["relu"])
    narrow = layered([np.ones((1, 2)), np.ones((1, 1))], [np.ones(1), np.ones(1)], ["relu"])
    subject = problem(wide, unit_box(2), reference=narrow)
    with pytest.raises(BackendError, match="architecture"):
        build_chain(subject)


def applied(kind: str, h: Fraction, c: Fraction) -> Fraction:
    return {"add": h + c, "sub": h - c, "mul": h * c, "div": h / c, "rsub": c - h}[kind]


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "rsub"])
def test_every_elementwise_layer_encloses_its_node(kind: str) -> None:
    values = [2.5, -0.75, 1e-3]
    network = stack(3, constant(kind, values), dense(1, [[1.0, 1.0, 1.0]], [0.0]))
    half = Fraction("0.0005")
    subject = problem(network, unit_box(3), Perturbation({f"c{kind}": half}))
    layer = build_chain(subject).layers[0]
    for i, value in enumerate(values):
        exactly = [[Fraction(float(v)) for v in t[i]] for t in (layer.weight, layer.weight_radius)]
        bias, room = Fraction(float(layer.bias[i])), Fraction(float(layer.bias_radius[i]))
        for h in (Fraction(-1), Fraction("0.3"), Fraction(1)):
            for end in (-half, Fraction(0), half):
                truth = applied(kind, h, Fraction(value) + end)
                slack = abs(truth - exactly[0][i] * h - bias)
                assert slack <= exactly[1][i] * abs(h) + room + abs(exactly[0][i]) / 2**52


def test_a_layer_with_several_positions_is_one_block_each() -> None:
    network = stack(2, dense(0, [[1.0, 2.0]], [0.5]), act("relu"))
    chain = build_chain(problem(network, unit_box(2)))
    assert len(chain.layers) == 2
    assert torch.equal(chain.layers[1].weight, torch.eye(1, dtype=torch.float64))

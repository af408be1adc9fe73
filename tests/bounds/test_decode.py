"""Slacks decoded to parameters: exactly inside the box, and acting as the slacks do."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from paramrob.bounds.ascent import run
from paramrob.bounds.chain import build_chain
from paramrob.bounds.decode import decode
from paramrob.models.network import Array
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from tests.known_problems import problem, random_network, sample_inputs, unit_box
from tests.replay_networks import act, constant, dense, stack


def check(subject: Problem, rng: np.random.Generator) -> None:
    chain = build_chain(subject)
    network, moved = subject.uncertain.network, subject.uncertain.perturbation
    for x in sample_inputs(rng, subject, 5):
        theta: list[Array] = [
            rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], size=layer.weight.shape[0])
            for layer in chain.layers
        ]
        named = {n: t for n, t in zip(chain.sources, theta, strict=True) if n is not None}
        chosen = decode(subject, x, named)
        assert set(chosen) == set(network.parameters)
        for name, value in chosen.items():
            interval = moved.interval(network.parameters[name])
            for i, entry in enumerate(value.ravel().tolist()):
                low, high = interval.exact(i)
                assert low <= Fraction(entry) <= high
        _, slack = run(chain, torch.from_numpy(x)[None], [torch.from_numpy(t)[None] for t in theta])
        acted = network.evaluate(x.reshape(1, *network.input_shape), chosen)
        np.testing.assert_allclose(acted.ravel(), slack[0].numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["identity", "relu", "leaky_relu", "sigmoid", "tanh"])
def test_decoded_parameters_lie_in_the_box_and_act_as_the_slacks(kind: str) -> None:
    rng = np.random.default_rng(0)
    network = random_network(rng, [3, 4, 3, 2], kind)
    boxes = [
        Perturbation.uniform(network, Fraction("0.1")),
        Perturbation.uniform(network, Fraction(1, 3), leave_out=["n2"]),
        Perturbation({"w0": Fraction("1e-9")}, {"b1": Fraction("0.3"), "w2": Fraction("0.01")}),
    ]
    for moved in boxes:
        check(problem(network, unit_box(3), moved, "logits", None), rng)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "rsub"])
def test_elementwise_constants_are_decoded_too(kind: str) -> None:
    rng = np.random.default_rng(1)
    network = stack(
        2,
        constant(kind, [-0.7, 1.5]),
        dense(1, [[1.0, -2.0], [0.5, 0.25]], [0.1, 0.2]),
        act("relu"),
    )
    # The slack of a divisor is what the worse of its ends does, so only signs are compared there.
    delta = Fraction(0) if kind == "div" else Fraction("0.05")
    moved = {"w1": Fraction("0.05"), f"c{kind}": delta}
    check(problem(network, unit_box(2), Perturbation(moved), "logits", None), rng)

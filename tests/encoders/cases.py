"""Problems of every kind that the encoders know."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from paramrob.domain import Box, Point
from paramrob.models.network import Dense, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.properties import Property
from tests.known_problems import box, layered, problem, random_network, unit_box
from tests.replay_networks import act, constant, dense, stack

LABELS = Property("labels")


def epsilon(value: str) -> Property:
    return Property("confidence", Fraction(value))


def sigma(value: str) -> Property:
    return Property("margin", sigma=Fraction(value))


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def scaled(seed: int = 5) -> Network:
    rng = _rng(seed)
    return stack(
        2,
        constant("sub", [0.25, -0.5]),
        constant("div", [0.5, -2.0]),
        dense(0, rng.normal(size=(3, 2)).tolist(), [0.1, -0.2, 0.3]),
        constant("mul", [1.5, -0.5, 2.0]),
        act("relu"),
        constant("rsub", [1.0, 0.25, 0.5]),
        constant("add", [0.5]),
        dense(1, rng.normal(size=(1, 3)).tolist(), [0.0]),
    )


def tied() -> Network:
    """Return a network that uses one weight matrix twice."""
    weight = [[0.75, -0.5], [0.25, 1.0]]
    plain = stack(
        2,
        dense(0, weight, [0.1, -0.1]),
        act("relu"),
        dense(1, weight, [0.2, 0.1]),
        act("relu"),
        dense(2, [[1.0, -1.5]], [0.1]),
    )
    again = Dense("w0", "b1")
    nodes = [replace(n, op=again) if n.op == Dense("w1", "b1") else n for n in plain.nodes]
    return Network(nodes, [p for p in plain.parameters.values() if p.name != "w1"])


def _at(case: Problem, *x: float) -> Problem:
    return replace(case, domain=Point(x))


def _all() -> dict[str, Problem]:
    relu = random_network(_rng(1), (2, 3, 2, 1))
    leaky = random_network(_rng(2), (2, 3, 1), "leaky_relu")
    tanh = random_network(_rng(3), (2, 3, 1), "tanh")
    sigmoid = random_network(_rng(4), (2, 2, 3), "sigmoid")
    three = random_network(_rng(6), (2, 4, 3))
    two = random_network(_rng(7), (2, 3, 2))
    logistic = layered([np.array([[0.5, -1.0]])], [np.array([0.125])], ["sigmoid"])
    moved = random_network(_rng(8), (2, 3, 2, 1))
    relative = Perturbation(
        {"w0": Fraction("0.05")}, {"w0": Fraction("0.1"), "b1": Fraction(1, 3), "w1": Fraction(0)}
    )
    dead = layered(
        [np.array([[1.0, 1.0], [-1.0, -0.5]]), np.array([[1.0, 2.0]])],
        [np.array([-9.0, -5.0]), np.array([0.05])],
        ["relu"],
    )
    positive = box((0, 1), ("0.1", 2))
    cases = {
        "relu labels": problem(relu, unit_box(2), "0.2", asked=LABELS),
        "relu labels, inputs of one sign": problem(relu, positive, "0.2", asked=LABELS),
        "relu labels, level 0.3": problem(
            relu, unit_box(2), "0.2", level=Fraction("0.3"), asked=LABELS
        ),
        "relu margin": problem(relu, unit_box(2), "0.3", asked=sigma("0.02")),
        "relu confidence": problem(relu, unit_box(2), "0.1", asked=epsilon("0.05")),
        "leaky labels": problem(leaky, unit_box(2), "0.2", asked=LABELS),
        "leaky confidence": problem(leaky, unit_box(2), "0.1", asked=epsilon("0.04")),
        "tanh labels": problem(tanh, unit_box(2), "0.2", asked=LABELS),
        "tanh confidence": problem(tanh, unit_box(2), "0.1", asked=epsilon("0.04")),
        "sigmoid, three classes": problem(sigmoid, unit_box(2), "0.2", "logits", asked=LABELS),
        "three classes": problem(three, unit_box(2), "0.3", "logits", asked=LABELS),
        "three classes margin": problem(three, unit_box(2), "0.4", "logits", asked=sigma("0.1")),
        "three classes confidence": problem(
            three, unit_box(2), "0.1", "logits", asked=epsilon("0.05")
        ),
        "two classes confidence": problem(
            two, unit_box(2), "0.1", "logits", asked=epsilon("0.05")
        ),
        "logistic margin": problem(
            logistic, unit_box(2), "0.2", "probability", asked=sigma("0.05")
        ),
        "logistic confidence": problem(
            logistic, unit_box(2), "0.1", "probability", asked=epsilon("0.04")
        ),
        "values": problem(three, unit_box(2), "0.1", "value", None, epsilon("0.3")),
        "value labels": problem(relu, unit_box(2), "0.2", "value", Fraction("0.2"), LABELS),
        "value margin": problem(relu, unit_box(2), "0.3", "value", Fraction("0.2"), sigma("0.1")),
        "scaled": problem(scaled(), unit_box(2), "0.1", asked=LABELS),
        "relative": problem(relu, unit_box(2), relative, asked=LABELS),
        "one layer moves": problem(
            relu, unit_box(2), Perturbation({"w2": Fraction("0.5")}), asked=LABELS
        ),
        "nothing moves": problem(relu, unit_box(2), "0", asked=LABELS),
        "dead": problem(dead, unit_box(2), "0.1", asked=LABELS),
        "two networks": problem(relu, unit_box(2), "0.05", asked=LABELS, reference=moved),
        "tied": problem(tied(), unit_box(2), "0.2", asked=LABELS),
        "one input is fixed": problem(
            relu, Box((Fraction(1, 2), Fraction(-1)), (Fraction(1, 2), Fraction(1))), "0.2",
            asked=LABELS,
        ),
    }  # fmt: skip
    points = {
        "relu labels": (0.25, 0.5), "relu margin": (0.3, -0.7), "relu confidence": (0.3, -0.7),
        "leaky confidence": (-0.5, 0.3), "tanh labels": (0.1, 0.2), "tanh confidence": (0.3, 0.9),
        "sigmoid, three classes": (0.1, 0.9), "three classes": (0.1, 0.2),
        "three classes margin": (-0.2, 0.2), "three classes confidence": (0.4, 0.5),
        "two classes confidence": (0.4, 0.5), "logistic confidence": (0.4, -0.5),
        "values": (0.5, 0.5), "scaled": (0.5, 0.1),
    }  # fmt: skip
    local = {f"{name}, local": _at(cases[name], *x) for name, x in points.items()}
    return cases | local


CASES = _all()

"""Models small enough that a test can know every answer."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Activation, Dense, Elementwise, Input, Network, Node, Parameter


def logistic(weights: list[float], bias: float) -> Network:
    """Return ``sigmoid(w x + b)``."""
    size = len(weights)
    return Network(
        [
            Node("input", Input(), (), (size,)),
            Node("0", Dense("0.weight", "0.bias"), ("input",), (1,)),
            Node("1", Activation("sigmoid"), ("0",), (1,)),
        ],
        [
            Parameter("0.weight", np.array([weights])),
            Parameter("0.bias", np.array([bias])),
        ],
    )


def named_model() -> Model:
    """Return a logistic model of two named inputs, boxed, with named labels."""
    box = InputInfo(
        ("Hwt", "Bwt"),
        ("g", "kg"),
        (Fraction("6.3"), Fraction(2)),
        (Fraction("20.5"), Fraction("3.9")),
    )
    output = OutputInfo("probability", Fraction(1, 2), ("F", "M"))
    network = logistic([0.07577862, 1.18118408], -3.51518067)
    return Model(network, box, output, "cats/model.pt", "ab" * 32)


def bare_model() -> Model:
    """Return the same network with nothing said about it."""
    network = named_model().network
    said = ("the output is a probability (its last layer is one)",)
    return Model(network, InputInfo(), OutputInfo("probability"), assumptions=said)


def scaled_model() -> Model:
    """Return ``sigmoid(W2 relu(W1 (x * c) + b1) + b2)`` with layers scale, 0 and 2."""
    network = Network(
        [
            Node("input", Input(), (), (2,)),
            Node("scale", Elementwise("mul", "scale.c"), ("input",), (2,)),
            Node("0", Dense("0.weight", "0.bias"), ("scale",), (3,)),
            Node("1", Activation("relu"), ("0",), (3,)),
            Node("2", Dense("2.weight", "2.bias"), ("1",), (1,)),
        ],
        [
            Parameter("scale.c", np.array([0.5, 2.0])),
            Parameter("0.weight", np.arange(6.0).reshape(3, 2) - 2),
            Parameter("0.bias", np.array([0.5, -0.5, 0.0])),
            Parameter("2.weight", np.array([[1.0, -1.0, 2.0]])),
            Parameter("2.bias", np.array([0.25])),
        ],
    )
    return Model(network, InputInfo(), OutputInfo("logit"))


def classifier_model() -> Model:
    """Return three logits of two inputs."""
    network = Network(
        [
            Node("input", Input(), (), (2,)),
            Node("0", Dense("0.weight", "0.bias"), ("input",), (3,)),
        ],
        [
            Parameter("0.weight", np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])),
            Parameter("0.bias", np.zeros(3)),
        ],
    )
    return Model(network, InputInfo(), OutputInfo("logits", None))

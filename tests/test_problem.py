"""Problems that make sense, and those that are refused with what would."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from paramrob.domain import Box, Point
from paramrob.errors import InputError
from paramrob.models.model import OutputInfo, assumed_output
from paramrob.models.network import (
    Activation,
    Dense,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Reshape,
    Softmax,
)
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork, check_output
from paramrob.properties import Property

SIGMOID, SOFTMAX = Activation("sigmoid"), Softmax()


def dense(outputs: int, after: Sequence[Op] = (), inputs: int = 2) -> Network:
    nodes = [
        Node("x", Input(), (), (inputs,)),
        Node("fc", Dense("w"), ("x",), (outputs,)),
    ]
    for i, op in enumerate(after):
        nodes.append(Node(f"n{i}", op, (nodes[-1].name,), (outputs,)))
    return Network(nodes, [Parameter("w", np.ones((outputs, inputs)))])


def problem(network: Network, output: OutputInfo, question: Property | None = None) -> Problem:
    box = Perturbation.uniform(network, Fraction(1, 100))
    point = Point((0.0,) * network.input_size)
    return Problem(network, UncertainNetwork(network, box), point, output, question)


@pytest.mark.parametrize(
    ("outputs", "after", "kind", "words"),
    [
        (1, [], "logits", "use logit, probability or value"),
        (1, [], "probabilities", "use logit, probability or value"),
        (2, [], "logit", "use logits, probabilities or value"),
        (2, [], "probability", "use logits, probabilities or value"),
        (2, [SOFTMAX], "logits", "not logits"),
        (1, [SIGMOID], "logit", "not a logit"),
        (1, [SIGMOID, Activation("identity")], "logit", "not a logit"),
        (1, [SIGMOID, Reshape()], "logit", "not a logit"),
        (2, [SOFTMAX, Reshape()], "logits", "not logits"),
        (2, [], "probabilities", "behind a softmax"),
        (1, [SOFTMAX], "logit", "always 1"),
        (1, [], "logti", "choose from"),
    ],
)
def test_outputs_that_do_not_fit(outputs: int, after: list[Op], kind: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_output(dense(outputs, after), OutputInfo(kind))


@pytest.mark.parametrize(
    ("outputs", "after", "kind"),
    [
        (1, [], "logit"),
        (1, [SIGMOID], "probability"),
        (1, [], "value"),
        (2, [], "logits"),
        (2, [SOFTMAX], "probabilities"),
        (2, [SOFTMAX, Reshape()], "probabilities"),
        (2, [], "value"),
    ],
)
def test_outputs_that_fit(outputs: int, after: list[Op], kind: Any) -> None:
    check_output(dense(outputs, after), OutputInfo(kind))


@pytest.mark.parametrize(
    ("outputs", "after", "kind"),
    [
        (1, [], "logit"),
        (1, [SIGMOID], "probability"),
        (1, [SIGMOID, Reshape()], "probability"),
        (2, [], "logits"),
        (2, [SIGMOID], "logits"),
        (2, [SOFTMAX], "probabilities"),
        (2, [SOFTMAX, Activation("identity")], "probabilities"),
    ],
)
def test_what_is_assumed_is_accepted(outputs: int, after: list[Op], kind: str) -> None:
    network = dense(outputs, after)
    output, sentence = assumed_output(network)
    assert output.kind == kind
    assert sentence
    check_output(network, output)


def test_several_softmaxes_are_no_distribution() -> None:
    nodes = [
        Node("x", Input(), (), (6,)),
        Node("rows", Reshape(), ("x",), (2, 3)),
        Node("softmax", SOFTMAX, ("rows",), (2, 3)),
        Node("flat", Reshape(), ("softmax",), (6,)),
    ]
    with pytest.raises(InputError, match="several distributions"):
        check_output(Network(nodes, []), OutputInfo("probabilities"))


@pytest.mark.parametrize("level", ["0", "1", "-0.5", "2"])
@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_levels_of_probabilities_lie_inside(level: str, kind: Any) -> None:
    with pytest.raises(InputError, match=r"outside \(0, 1\)"):
        check_output(dense(1), OutputInfo(kind, Fraction(level)))


def test_values_have_labels_only_with_a_level() -> None:
    labels = Property("labels")
    with pytest.raises(InputError, match="--level"):
        problem(dense(1), OutputInfo("value", None), labels)
    problem(dense(1), OutputInfo("value", Fraction(7)), labels)
    with pytest.raises(InputError, match="several values"):
        problem(dense(2), OutputInfo("value", Fraction(7)), labels)
    problem(dense(2), OutputInfo("value", None), Property("confidence", epsilon=Fraction(1)))


def test_networks_and_domains_must_fit() -> None:
    network, logit = dense(1), OutputInfo("logit")
    still = Perturbation({}, kind="none")
    wide = Box((Fraction(0),) * 3, (Fraction(1),) * 3)
    with pytest.raises(InputError, match=r"takes 2 input\(s\), the domain has 3"):
        Problem(network, UncertainNetwork(network, still), wide, logit)
    for other in (dense(2), dense(1, inputs=3)):
        with pytest.raises(InputError, match="different inputs or outputs"):
            Problem(network, UncertainNetwork(other, still), Point((0.0, 0.0)), logit)


def test_a_perturbation_of_nothing_is_refused() -> None:
    # Passed over in silence, it would prove a claim about an unperturbed network.
    network = dense(1)
    wrong = UncertainNetwork(network, Perturbation({"weight": Fraction(1)}))
    with pytest.raises(InputError, match=r"\['weight'\]; it has \['w'\]"):
        Problem(network, wrong, Point((0.0, 0.0)), OutputInfo("logit"))

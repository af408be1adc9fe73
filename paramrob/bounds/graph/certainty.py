"""What rounding cannot undo: a counterexample in floating-point arithmetic, in whatever order.

A counterexample of the real network is executed with its own parameters and bounds on all
rounding errors, as in a proof. Where every such execution has another label than the reference, or
a confidence farther from it than allowed, the counterexample refutes whatever the order of sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.program import link_of, lower
from paramrob.bounds.graph.specification import (
    Lead,
    Specification,
    lead_of,
    level_of,
    side_of,
    stay_of,
)
from paramrob.errors import BackendError
from paramrob.models.network import Array, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.replay import refutes
from paramrob.verdict import Witness

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class LinkError:
    """What the network's own last sigmoid or softmax is off by for given results.

    Attributes:
        confidence: of each confidence, absolute.
        lead: by how much a logit has to lead for its share of a softmax to do so.
    """

    confidence: float = 0.0
    lead: float = 0.0

    @classmethod
    def of(cls, problem: Problem) -> LinkError:
        """Return a problem's; nothing where sigmoid or softmax are the question's own."""
        arithmetic, output = problem.arithmetic, problem.output
        if arithmetic is None or output.kind not in ("probability", "probabilities"):
            return cls()
        link, _ = link_of(problem.uncertain.network, output)
        size = problem.uncertain.network.output_size
        return cls(arithmetic.link_error(link, size), arithmetic.link_lead(link, size))


def label_specification(problem: Problem, labels: Tensor) -> Lead:
    """Return the specification that the uncertain network's labels are these.

    Args:
        problem: says what the outputs mean.
        labels: ``(batch,)``.
    """
    output, error = problem.output, LinkError.of(problem)
    link, _ = link_of(problem.uncertain.network, output)
    size = problem.uncertain.network.output_size
    if size > 1:
        return lead_of(labels, size, error.lead)
    level = HALF if output.level is None else output.level
    return side_of(labels, level_of(level, link, error.confidence))


def surely_refutes(problem: Problem, witness: Witness) -> bool:
    """Whether a witness refutes ``problem.property`` in every execution of its arithmetic.

    Args:
        problem: with a property.
        witness: replayed. It has to refute the property in real numbers as well.
    """
    claim = problem.property
    if claim is None or not refutes(problem, witness):
        return False
    if problem.arithmetic is None:
        return True
    if claim.name == "confidence":
        return claim.epsilon is not None and Fraction(sure_change(problem, witness)) > claim.epsilon
    spec = label_specification(problem, torch.tensor([witness.labels[1]], device="cpu"))
    least = _least(problem, witness, spec)
    return least is not None and bool((spec.slack(least) >= 0).all())


def sure_change(problem: Problem, witness: Witness) -> float:
    """Return a lower bound of a confidence's change in every execution of a witness."""
    if problem.arithmetic is None:
        return 0.0 if witness.change is None else witness.change.lower
    low, high = (
        torch.tensor(
            [[getattr(i, end) for i in witness.reference_output]],
            dtype=torch.float64,
            device="cpu",
        )
        for end in ("lower", "upper")
    )
    link, _ = link_of(problem.uncertain.network, problem.output)
    spec = stay_of(Interval(low * 0, low * 0), link, None, LinkError.of(problem).confidence)
    spec = replace(spec, low=low, high=high, tangents=None)
    least = _least(problem, witness, spec)
    return 0.0 if least is None else float(spec.smallest(least))


def _least(problem: Problem, witness: Witness, spec: Specification) -> Tensor | None:
    """Return least values of the rows in every execution, ``None`` where there is no bound."""
    network = with_parameters(problem.uncertain.network, witness)
    try:
        program = lower(network, Perturbation({}), problem.output, "cpu", problem.arithmetic)
    except BackendError:  # the witness's own parameters do not fit the format
        return None
    x = torch.from_numpy(np.array(witness.input, dtype=np.float64)).reshape(1, -1)
    bounds = GraphPass(program)
    return bounds.bound(bounds.analyse(x, x), spec.rows)


def with_parameters(network: Network, witness: Witness) -> Network:
    """Return the network with a witness's parameters."""
    values: dict[str, Array] = dict(witness.parameters)
    return Network(
        network.nodes,
        [replace(p, value=values.get(name, p.value)) for name, p in network.parameters.items()],
    )

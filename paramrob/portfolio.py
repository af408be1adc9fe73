"""Which solver ``auto`` turns to for what the bound engine leaves open."""

from __future__ import annotations

from paramrob.models.network import Activation, Network, Softmax
from paramrob.problem import Problem

_SMOOTH = ("sigmoid", "tanh")


def preferred(problem: Problem) -> str:
    """Return ``z3`` where the aggregated formula is linear, else the built-in ``icp``."""
    claim = problem.property
    squashed = problem.output.kind != "value"
    if _has_hidden_curves(problem.reference) or _has_hidden_curves(problem.uncertain.network):
        return "icp"
    changes = claim is None or claim.name == "confidence"
    several = problem.reference.output_size > 2
    local = problem.domain.scope == "local"
    if changes and squashed and (several or not local):
        return "icp"
    return "z3"


def _has_hidden_curves(network: Network) -> bool:
    last = network.final_node
    return any(
        (isinstance(n.op, Activation) and n.op.kind in _SMOOTH) or isinstance(n.op, Softmax)
        for n in network.nodes
        if n is not last
    )

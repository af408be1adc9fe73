"""The roundings to grids that a network holds, and how far a runtime may be off at each."""

from __future__ import annotations

from dataclasses import replace

from paramrob.errors import InputError
from paramrob.models.network import Network, Quantize


def count_roundings(network: Network) -> int:
    """Return how many nodes round numbers to a grid."""
    return sum(isinstance(node.op, Quantize) for node in network.nodes)


def with_steps(network: Network, steps: int) -> Network:
    """Return the network whose roundings may each be off by whole steps of their grids.

    A statement about it holds for every execution that rounds each number to its nearest grid
    point or to one at most ``steps`` farther, never beyond the grid's ends: a runtime that
    multiplies by float32 scales rounds a number near a tie the other way, which is one step.

    Args:
        network: any network.
        steps: 0 or more; with 0 the network is returned as it is.

    Raises:
        InputError: ``steps`` is negative, or the network rounds nothing.
    """
    if steps < 0:
        raise InputError(f"--runtime-steps {steps}: give a whole number of steps, 0 or more")
    if steps == 0:
        return network
    if count_roundings(network) == 0:
        raise InputError(
            "--runtime-steps widens roundings to a grid, and the model has none; leave it out"
        )
    nodes = [
        replace(node, op=replace(node.op, deviation=steps))
        if isinstance(node.op, Quantize)
        else node
        for node in network.nodes
    ]
    return Network(nodes, network.parameters.values())

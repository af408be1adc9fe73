"""From slacks back to parameters: a float64 parameter vector inside the box."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paramrob.models.network import Array, Dense, Elementwise, Node, apply_node
from paramrob.problem import Problem


def decode(problem: Problem, x: Array, theta: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters inside the box that act as the slacks ``theta`` at ``x``.

    A neuron's slack ``t (R |h| + r)`` with ``t`` in [-1, 1] is attained by moving each weight by
    ``t R sign(h)`` and the bias by ``t r``. A parameter that is used at several places takes the
    mean of what they ask for at the first node that uses it.

    Args:
        problem: whose uncertain network is meant.
        x: one input, flattened.
        theta: a slack for each neuron, by the name of the node, flattened.

    Returns:
        Every parameter of the uncertain network, by name.
    """
    network = problem.uncertain.network
    chosen: dict[str, Array] = {}
    h = np.asarray(x, dtype=np.float64).reshape(1, *network.input_shape)
    values = {name: parameter.value for name, parameter in network.parameters.items()}
    for node in network.nodes[1:]:
        for name, share in _shares(node, h[0], theta, values).items():
            if name not in chosen:
                chosen[name] = values[name] = _place(problem, name, share)
        with np.errstate(all="ignore"):  # an overflow here only leads to another vector
            h = apply_node(node.op, [h], node.shape, values)
    return chosen


def _shares(
    node: Node, h: Array, theta: Mapping[str, Array], values: Mapping[str, Array]
) -> dict[str, Array]:
    """Return where in [-1, 1] of its interval each parameter of the node should lie."""
    if isinstance(node.op, Dense):
        share = theta[node.name].reshape(-1, node.shape[-1]).mean(axis=0)
        sign = np.where(h.reshape(-1, h.shape[-1]).sum(axis=0) < 0, -1.0, 1.0)
        shares = {node.op.weight: share[:, None] * sign[None, :]}
        if node.op.bias is not None:
            shares[node.op.bias] = share
        return shares
    if not isinstance(node.op, Elementwise):
        return {}
    share = theta[node.name].reshape(node.shape)
    sign = np.where(h < 0, -1.0, 1.0)
    name = node.op.parameter
    if node.op.kind == "mul":
        share = share * sign
    elif node.op.kind == "div":
        share = -share * sign
    elif node.op.kind == "sub":
        share = -share
    return {name: _summed_to(share, values[name].shape)}


def _summed_to(share: Array, shape: tuple[int, ...]) -> Array:
    """Return the mean of ``share`` over the axes along which ``shape`` was broadcast."""
    share = share.mean(axis=tuple(range(share.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if size == 1 and share.shape[i] != 1)
    return np.asarray(share.mean(axis=axes, keepdims=True)).reshape(shape)


def _place(problem: Problem, name: str, share: Array) -> Array:
    parameter = problem.uncertain.network.parameters[name]
    interval = problem.uncertain.perturbation.interval(parameter)
    low, high = interval.inner()
    value = interval.centre + np.clip(share, -1.0, 1.0) * interval.radius()
    return np.asarray(np.minimum(np.maximum(value, low), high))

"""From slacks back to parameters: a float64 parameter vector inside the box."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paramrob.models.evaluate import gather
from paramrob.models.network import Array, BatchNorm, Conv, Dense, Elementwise, Node, apply_node
from paramrob.models.shapes import conv_windows
from paramrob.problem import Problem


def decode(problem: Problem, x: Array, theta: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters inside the box that act as the slacks ``theta`` at ``x``.

    A neuron's slack ``t (R |h| + r)`` with ``t`` in [-1, 1] is attained by moving each weight by
    ``t R sign(h)`` and the bias by ``t r``. Where a node uses a parameter for several neurons, as
    a convolution does, it takes the mean of what they ask for, weighted by ``|h|``; one that
    several nodes use, what the first of them asks for.

    Args:
        problem: whose uncertain network is meant.
        x: one input, flattened.
        theta: a slack for each neuron, by the name of the node, flattened; parameters of a node
            that is not named take a possible value.

    Returns:
        Every parameter of the uncertain network, by name.
    """
    network = problem.uncertain.network
    first = network.nodes[0]
    seen = {first.name: np.asarray(x, dtype=np.float64).reshape(1, *network.input_shape)}
    box = problem.uncertain.perturbation
    values = {name: box.interval(p).start() for name, p in network.parameters.items()}
    chosen: set[str] = set()
    for node in network.nodes[1:]:
        given = [seen[name] for name in node.inputs]
        with np.errstate(all="ignore"):  # an overflow here only leads to another vector
            if node.name in theta:
                shares = _shares(node, given[0][0], theta[node.name], values)
                for name in shares.keys() - chosen:
                    values[name] = _place(problem, name, shares[name])
                chosen |= shares.keys()
            seen[node.name] = apply_node(node.op, given, node.shape, values)
    return values


def _shares(node: Node, h: Array, theta: Array, values: Mapping[str, Array]) -> dict[str, Array]:
    """Return where in [-1, 1] of its interval each parameter of the node should lie."""
    op = node.op
    if isinstance(op, Dense):
        asked = theta.reshape(-1, node.shape[-1])
        rows = h.reshape(-1, h.shape[-1])
        shares = {op.weight: _weighted(asked.T @ rows, np.abs(rows).sum(axis=0)[None])}
        return _with_bias(shares, op.bias, asked.mean(axis=0))
    if isinstance(op, Conv):
        asked = theta.reshape(node.shape[0], -1)
        shares = {op.weight: _conv_shares(op, h, asked, node, values[op.weight].shape)}
        return _with_bias(shares, op.bias, asked.mean(axis=1))
    if isinstance(op, BatchNorm):
        asked = theta.reshape(node.shape[0], -1)
        apart = h.reshape(asked.shape) - values[op.mean][:, None]
        mean = _weighted((asked * apart).sum(axis=1), np.abs(apart).sum(axis=1))
        return _with_bias(
            {} if op.weight is None else {op.weight: mean}, op.bias, asked.mean(axis=1)
        )
    if isinstance(op, Elementwise):
        return {op.parameter: _elementwise_share(op, h, theta.reshape(node.shape), values)}
    return {}


def _with_bias(shares: dict[str, Array], bias: str | None, share: Array) -> dict[str, Array]:
    return shares if bias is None else shares | {bias: share}


def _weighted(total: Array, weight: Array) -> Array:
    """Return ``total / weight``, 0 where nothing has any weight."""
    return np.asarray(np.divide(total, weight, out=np.zeros_like(total), where=weight > 0))


def _conv_shares(op: Conv, h: Array, asked: Array, node: Node, kernel: tuple[int, ...]) -> Array:
    windows = conv_windows(op, kernel[2:], h.shape[1:], node.shape[1:])
    channels, (positions, members) = h.shape[0], windows.shape
    seen = gather(h[None], windows, 0.0)[0]
    grouped = seen.reshape(op.groups, channels // op.groups, positions, members)
    outputs = asked.reshape(op.groups, -1, positions)
    total = np.einsum("gop,gcpm->gocm", outputs, grouped, optimize=True)
    weight = np.abs(grouped).sum(axis=2)[:, None]
    return _weighted(total, np.broadcast_to(weight, total.shape)).reshape(kernel)


def _elementwise_share(
    op: Elementwise, h: Array, share: Array, values: Mapping[str, Array]
) -> Array:
    sign = np.where(h < 0, -1.0, 1.0)
    if op.kind == "mul":
        share = share * sign
    elif op.kind == "div":
        share = -share * sign
    elif op.kind == "sub":
        share = -share
    return _summed_to(share, values[op.parameter].shape)


def _summed_to(share: Array, shape: tuple[int, ...]) -> Array:
    """Return the mean of ``share`` over the axes along which ``shape`` was broadcast."""
    share = share.mean(axis=tuple(range(share.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if size == 1 and share.shape[i] != 1)
    return np.asarray(share.mean(axis=axes, keepdims=True)).reshape(shape)


def _place(problem: Problem, name: str, share: Array) -> Array:
    parameter = problem.uncertain.network.parameters[name]
    interval = problem.uncertain.perturbation.interval(parameter)
    low, high = interval.inner()
    share = np.nan_to_num(np.clip(share, -1.0, 1.0))  # an overflow asks for nothing
    value = interval.centre + share * interval.radius()
    return interval.possible(np.asarray(np.minimum(np.maximum(value, low), high)))

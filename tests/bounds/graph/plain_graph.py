"""CROWN over boxed parameters as the paper prints it, for graphs: one input at a time.

Every layer is a matrix, written out by executing it on unit vectors, and every entry that is not
always 0 moves on its own: one slack a neuron. Plain numpy on its own, without any care for
rounding: what the bound pass is held against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from paramrob.models.network import (
    Activation,
    Add,
    Array,
    BatchNorm,
    Conv,
    Dense,
    Network,
    Node,
    Reshape,
)


@dataclass(frozen=True)
class Matrix:
    """``(W + D) h + b + d`` with ``|D| <= radius`` and ``|d| <= bias_radius``."""

    weight: Array
    radius: Array
    bias: Array
    bias_radius: Array


@dataclass(frozen=True)
class Plain:
    """A step: a matrix, a sum (``kind`` 1) or a ReLU (``kind`` 0), and the steps that it reads."""

    kind: Matrix | int
    inputs: tuple[int, ...]


def plain_graph(
    network: Network, x: Array, delta: float, radius: float = 0.0
) -> tuple[Array, Array]:
    """Bound all results for parameters within ``delta`` and inputs within ``radius``."""
    steps = _steps(network, delta)
    known: dict[int, tuple[Array, Array]] = {0: (x - radius, x + radius)}
    for k, step in enumerate(steps):
        source = step.inputs[0]
        bent = step.kind == 0 or (isinstance(step.kind, Matrix) and step.kind.radius.any())
        if bent and source not in known:
            known[source] = _bounds(steps, known, source)
        if step.kind == 0:
            low, high = known[source]
            known[k + 1] = np.maximum(low, 0), np.maximum(high, 0)
    return _bounds(steps, known, len(steps))


def _bounds(
    steps: list[Plain], known: dict[int, tuple[Array, Array]], at: int
) -> tuple[Array, Array]:
    """Return the ends of step ``at``; step 0 is the input, step ``k`` is ``steps[k - 1]``."""
    ends = []
    for sign in (1.0, -1.0):
        rows = {at: sign * np.eye(_size(steps, known, at))}
        constant = np.zeros(len(rows[at]))
        for k in range(at, 0, -1):
            if k not in rows:
                continue
            a, step = rows.pop(k), steps[k - 1]
            kind, source = step.kind, step.inputs[0]
            if isinstance(kind, Matrix):
                size = np.abs(a)
                constant = constant + a @ kind.bias - size @ kind.bias_radius
                pulled = a @ kind.weight
                if kind.radius.any():
                    slope, foot = _chord(*known[source])
                    slack = size @ kind.radius
                    pulled = pulled - slack * slope
                    constant = constant - slack @ foot
                shares = [pulled]
            elif kind == 0:
                low, high = known[source]
                free = (low < 0) & (high > 0)
                over = np.where(free, high / np.where(free, high - low, 1.0), low >= 0)
                under = np.where(free, (high > -low).astype(float), low >= 0)
                up, down = np.maximum(a, 0), np.minimum(a, 0)
                constant = constant + down @ np.where(free, -over * low, 0.0)
                shares = [up * under + down * over]
            else:
                shares = [a] * len(step.inputs)
            for i, share in zip(step.inputs, shares, strict=True):
                rows[i] = rows.get(i, 0.0) + share
        low, high = known[0]
        middle, half = (low + high) / 2, (high - low) / 2
        ends.append(constant + rows[0] @ middle - np.abs(rows[0]) @ half)
    return ends[0], -ends[1]


def _size(steps: list[Plain], known: dict[int, tuple[Array, Array]], at: int) -> int:
    if at in known:
        return len(known[at][0])
    step = steps[at - 1]
    return (
        len(step.kind.bias)
        if isinstance(step.kind, Matrix)
        else _size(steps, known, step.inputs[0])
    )


def _chord(low: Array, high: Array) -> tuple[Array, Array]:
    """Return slope and intercept of the chord of ``|h|``."""
    gap = np.where(high > low, high - low, 1.0)
    slope = np.where(high > low, (np.abs(high) - np.abs(low)) / gap, np.sign(low))
    return slope, np.abs(low) - slope * low


def _steps(network: Network, delta: float) -> list[Plain]:
    """Return the steps; the last gives the results."""
    at = {network.nodes[0].name: 0}
    found: list[Plain] = []
    shapes = {node.name: node.shape for node in network.nodes}
    for node in network.nodes[1:]:
        before = tuple(at[name] for name in node.inputs)
        if isinstance(node.op, Reshape):
            at[node.name] = before[0]
            continue
        if node.op == Activation("relu"):
            found.append(Plain(0, before))
        elif isinstance(node.op, Add):
            found.append(Plain(1, before))
        else:
            for matrix in _matrices(network, node, shapes[node.inputs[0]], delta):
                found.append(Plain(matrix, before))
                before = (len(found),)
        at[node.name] = len(found)
    return found


def _matrices(network: Network, node: Node, shape: tuple[int, ...], delta: float) -> list[Matrix]:
    values = {name: torch.tensor(p.value) for name, p in network.parameters.items()}
    op, count = node.op, int(np.prod(shape))
    unit = torch.eye(count, dtype=torch.float64)
    zero = torch.zeros(count, dtype=torch.float64)
    images = torch.cat([unit, zero.unsqueeze(0)]).reshape(-1, *shape)
    if isinstance(op, Dense):
        weight = values[op.weight]
        bias = zero.new_zeros(len(weight)) if op.bias is None else values[op.bias]
        reach = delta if op.bias is not None else 0.0
        return [_matrix(weight.numpy(), np.full(weight.shape, delta), bias.numpy(), reach)]
    if isinstance(op, Conv):
        pads = [p for sides in reversed(op.padding) for p in sides]
        padded = functional.pad(images, pads)
        run = functional.conv1d if len(shape) == 2 else functional.conv2d

        def through(kernel: torch.Tensor, bias: torch.Tensor | None) -> Array:
            out = run(padded, kernel, bias, op.stride, 0, op.dilation, op.groups)
            return out.reshape(len(out), -1).numpy()

        kernel = values[op.weight]
        moved = through(torch.full_like(kernel, delta), None)[:-1].T
        out = through(kernel, None if op.bias is None else values[op.bias])
        return [_matrix((out[:-1] - out[-1]).T, moved, out[-1], 0.0 if op.bias is None else delta)]
    if isinstance(op, BatchNorm) and op.weight is not None and op.bias is not None:
        places = int(np.prod(shape[1:]))
        mean, variance, gain, shift = (
            np.repeat(values[name].numpy(), places)
            for name in (op.mean, op.variance, op.weight, op.bias)
        )
        root = np.sqrt(variance + op.epsilon)
        centred = _matrix(np.eye(count), np.zeros((count, count)), -mean, 0.0)
        return [centred, _matrix(np.diag(gain / root), np.diag(delta / root), shift, delta)]
    raise NotImplementedError(type(op).__name__)


def _matrix(weight: Array, radius: Array, bias: Array, bias_radius: float) -> Matrix:
    return Matrix(weight, radius, bias, np.full(len(bias), bias_radius))

"""A network run forward in torch, differentiable in input and parameters: for searches only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as f
from torch import Tensor

from paramrob.errors import BackendError
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Network,
    Node,
    Pool,
    Quantize,
    Softmax,
    Transpose,
)


def execute(network: Network, parameters: Mapping[str, Tensor], x: Tensor, last: str) -> Tensor:
    """Return the flat result of the node ``last`` for one input.

    Args:
        network: what is run.
        parameters: all of them, by name.
        x: flat, ``(in,)``; vectorise with :func:`torch.func.vmap`.
        last: the node whose result is meant.
    """
    seen = {network.nodes[0].name: x.reshape(network.input_shape)}
    for node in network.nodes[1:]:
        if last in seen:
            break
        seen[node.name] = _apply(node, [seen[name] for name in node.inputs], parameters)
    return seen[last].reshape(-1)


def _apply(node: Node, given: list[Tensor], values: Mapping[str, Tensor]) -> Tensor:
    op = node.op
    if isinstance(op, Add):
        total = given[0]
        for other in given[1:]:
            total = total + other
        return total
    if isinstance(op, Concat):
        return torch.cat(given, op.axis)
    h = given[0]
    if isinstance(op, Activation):
        return activate(op, h)
    if isinstance(op, Quantize):
        return quantize(op, h)
    if isinstance(op, Softmax):
        return torch.softmax(h, -1)
    if isinstance(op, Transpose):
        return h.permute(op.order)
    if isinstance(op, (Pool, AdaptivePool)):
        return _pool(op, h, node.shape)
    if isinstance(op, (Dense, Conv, BatchNorm, Elementwise)):
        return _affine(op, h, values)
    return h.reshape(node.shape)


def _affine(
    op: Dense | Conv | BatchNorm | Elementwise, h: Tensor, values: Mapping[str, Tensor]
) -> Tensor:
    if isinstance(op, Dense):
        y = h @ values[op.weight].T
        return y if op.bias is None else y + values[op.bias]
    if isinstance(op, Elementwise):
        c = values[op.parameter]
        return {"add": h + c, "sub": h - c, "mul": h * c, "rsub": c - h}.get(op.kind, h / c)
    if isinstance(op, Conv):
        flat = [p for pair in reversed(op.padding) for p in pair]
        convolve: Any = f.conv1d if h.dim() == 2 else f.conv2d
        bias = None if op.bias is None else values[op.bias]
        y = convolve(
            f.pad(h, flat).unsqueeze(0),
            values[op.weight],
            bias,
            op.stride,
            0,
            op.dilation,
            op.groups,
        )
        return torch.squeeze(y, 0)
    column = (-1,) + (1,) * (h.dim() - 1)
    scale = torch.rsqrt(values[op.variance] + op.epsilon).reshape(column)
    y = (h - values[op.mean].reshape(column)) * scale
    if op.weight is not None:
        y = y * values[op.weight].reshape(column)
    return y if op.bias is None else y + values[op.bias].reshape(column)


def _pool(op: Pool | AdaptivePool, h: Tensor, shape: tuple[int, ...]) -> Tensor:
    from paramrob.models.shapes import pool_windows

    windows, divisors = pool_windows(op, tuple(h.shape[1:]), shape[1:])
    at = torch.from_numpy(windows).to(h.device)
    flat = h.reshape(h.shape[0], -1)
    seen = flat[:, at.clamp(min=0)]
    if op.kind == "max":
        y = torch.where(at < 0, -float("inf"), seen).amax(-1)
    else:
        total = torch.where(at < 0, 0.0, seen).sum(-1)
        y = total / torch.from_numpy(divisors).to(h.device, h.dtype)
    return y.reshape(shape)


def quantize(op: Quantize, h: Tensor) -> Tensor:
    """Return the nearest numbers of a grid, with the gradient of the clamp.

    Straight through: Bengio, Leonard and Courville, arXiv 1308.3432, 2013.
    """
    inside = h.clamp(op.least, op.most)
    steps = (torch.round(h.detach() / op.scale) + op.zero_point).clamp(op.low, op.high)
    return inside + ((steps - op.zero_point) * op.scale - inside.detach())


def activate(op: Activation, z: Tensor) -> Tensor:
    """Return the activation in torch's arithmetic."""
    kind = op.kind
    if kind == "relu":
        return torch.relu(z)
    if kind == "leaky_relu":
        return f.leaky_relu(z, op.slope)
    if kind == "clamp":
        return z.clamp(op.low, op.high)
    if kind == "softplus":
        return f.softplus(z, op.beta)
    if kind == "elu":
        return f.elu(z, op.alpha)
    if kind == "gelu":
        return f.gelu(z)
    if kind == "gelu_tanh":
        return f.gelu(z, approximate="tanh")
    plain: dict[str, Callable[[Tensor], Tensor]] = {
        "identity": lambda t: t,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": f.silu,
        "hardswish": f.hardswish,
        "hardsigmoid": f.hardsigmoid,
    }
    if kind not in plain:
        raise BackendError(f"no activation {kind!r}")
    return plain[kind](z)

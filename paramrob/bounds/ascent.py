"""Lower ends: good inputs and parameters, found by gradients on slacks instead of parameters.

A parameter vector acts on a layer through ``s = theta (R |h| + r)`` with one ``theta`` in [-1, 1]
a neuron; ``theta`` is decoded to parameters only for the vector that is reported. Interior values
matter: the worst parameters need not be a vertex of the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paramrob.bounds.chain import Chain
from paramrob.bounds.targets import Target
from paramrob.models.network import Activation


class Score(Protocol):
    """What :func:`push` raises: the part of a target that needs no bounds."""

    def pushed(self, z: Tensor, p: Tensor) -> Tensor:
        """Return a score ``(batch,)`` whose gradient tells where each slack should go."""

    def attained(self, z: Tensor, p: Tensor) -> Tensor:
        """Return the value ``(batch,)``; ``-inf`` where the pair does not count."""


@dataclass(frozen=True)
class Candidate:
    """An input ``(in,)`` with a slack ``(out,)`` a layer, and the value it seems to attain."""

    x: Tensor
    theta: tuple[Tensor, ...]
    value: float


def activate(op: Activation, z: Tensor) -> Tensor:
    """Return the activation of ``z``."""
    if op.kind == "relu":
        return z.clamp(min=0)
    if op.kind == "leaky_relu":
        return torch.where(z > 0, z, op.slope * z)
    if op.kind == "sigmoid":
        return torch.sigmoid(z)
    if op.kind == "tanh":
        return torch.tanh(z)
    return z


def run(
    chain: Chain, x: Tensor, theta: Sequence[Tensor], leak: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the results of reference and uncertain network, ``(batch, out)`` each.

    A ``leak`` gives the uncertain network's ReLUs a slope left of 0: then gradients tell what a
    neuron would do that is off.
    """
    h = t = x
    for k, layer in enumerate(chain.layers):
        h = h @ layer.weight.T + layer.bias
        centre = t @ (layer.weight + layer.weight_offset).T + layer.bias + layer.bias_offset
        t = centre + theta[k] * (t.abs() @ layer.weight_radius.T + layer.bias_radius)
        if k < len(chain.activations):
            op = chain.activations[k]
            h = activate(op, h)
            t = torch.where(t > 0, t, leak * t) if leak and op.kind == "relu" else activate(op, t)
    return h, t


def push(
    chain: Chain, target: Score, x: Tensor, rounds: int = 2, leak: float = 0.0
) -> tuple[Tensor, list[Tensor]]:
    """Return the value at each input for slacks that follow the gradient's sign.

    With a ``leak`` the gradient is that of :func:`run` with it; the value never is.
    """
    theta = [
        torch.zeros(x.shape[0], layer.weight.shape[0], dtype=x.dtype, device=x.device)
        for layer in chain.layers
    ]
    best = torch.full((x.shape[0],), -torch.inf, dtype=x.dtype, device=x.device)
    kept = theta
    for turn in range(rounds):
        leaves = [t.detach().requires_grad_(True) for t in theta]
        with torch.enable_grad():
            score = target.pushed(*run(chain, x, leaves, leak)).sum()
            gradients = torch.autograd.grad(score, leaves)
        theta = [torch.where(g >= 0, 1.0, -1.0).to(x.dtype) for g in gradients]
        with torch.no_grad():
            value = target.attained(*run(chain, x, theta))
        better = (value > best) | (turn == 0)
        best = torch.where(better, value, best)
        kept = [torch.where(better[:, None], t, k) for t, k in zip(theta, kept, strict=True)]
    return best, kept


def climb(
    chain: Chain, target: Target, x: Tensor, lower: Tensor, upper: Tensor, steps: int
) -> Candidate:
    """Improve inputs and slacks together by projected gradient steps; return the best met.

    Args:
        chain: of the problem.
        target: what to maximise.
        x: ``(batch, in)`` starts.
        lower: least inputs ``(in,)``, rounded into the domain.
        upper: largest inputs.
        steps: how many steps.
    """
    value, theta = push(chain, target, x)
    index = int(value.argmax())
    best = Candidate(x[index], tuple(t[index] for t in theta), float(value[index]))
    span = upper - lower
    for step in range(steps):
        rate = 0.25 * 0.8**step
        leaves = [t.detach().requires_grad_(True) for t in (x, *theta)]
        with torch.enable_grad():
            score = target.ascent(*run(chain, leaves[0], leaves[1:])).sum()
            gradients = torch.autograd.grad(score, leaves)
        x = torch.minimum(torch.maximum(x + rate * span * gradients[0].sign(), lower), upper)
        theta = [
            (t + 8 * rate * g.sign()).clamp(-1, 1)
            for t, g in zip(theta, gradients[1:], strict=True)
        ]
        with torch.no_grad():
            value = target.attained(*run(chain, x, theta))
        index = int(value.argmax())
        if float(value[index]) > best.value:
            best = Candidate(x[index], tuple(t[index] for t in theta), float(value[index]))
    return best


def repair(
    chain: Chain,
    target: Target,
    x: Tensor,
    theta: list[Tensor],
    level: float,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Move inputs along the gradient until the uncertain network just crosses the boundary."""
    row = -target.deviation(chain.layers[-1].weight.shape[0]).to(x.device)
    for _ in range(4):
        leaf = x.detach().requires_grad_(True)
        with torch.enable_grad():
            _, p = run(chain, leaf, theta)
            crossed = p @ row - level
            (gradient,) = torch.autograd.grad(crossed.sum(), leaf)
        crossed = crossed.detach() + 1e-10 * (1 + crossed.detach().abs())
        # Where an input stands at its end and would leave, the others have to do it.
        down = crossed[:, None] * gradient > 0
        gradient = torch.where(torch.where(down, x <= lower, x >= upper), 0.0, gradient)
        size = (gradient * gradient).sum(1).clamp(min=1e-30)
        x = x.detach() - (crossed / size)[:, None] * gradient
        x = torch.minimum(torch.maximum(x, lower), upper)
    return x

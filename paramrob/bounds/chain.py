"""A problem's two networks as one chain of affine layers and activations, for the bound pass.

Affine layer ``k`` maps ``h`` to ``z = W h + b`` in the reference network and to
``z + e = (W + C) h + (b + c) + s`` with ``|s_i| <= sum_j R_ij |h_j| + r_i`` in the uncertain one:
the parameters are eliminated (Prabhakar & Afzal, *Abstraction based output range analysis for
neural networks*, NeurIPS 2019). That is exact for a layer whose parameters are each used once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paramrob.domain import Ball
from paramrob.errors import BackendError
from paramrob.layers import Link, stages
from paramrob.models.network import Activation, Array, Dense, Elementwise, Network, Node
from paramrob.perturbation import ParameterInterval, Perturbation
from paramrob.problem import Problem, UncertainNetwork, check_real


@dataclass(frozen=True)
class Affine:
    """One affine layer of both networks, float64 tensors on one device.

    Attributes:
        weight, bias: of the reference, ``(out, in)`` and ``(out,)``.
        weight_offset, bias_offset: centre of the uncertain parameters less the reference's.
        weight_radius, bias_radius: half-widths around that centre, rounded up.
    """

    weight: Tensor
    bias: Tensor
    weight_offset: Tensor
    bias_offset: Tensor
    weight_radius: Tensor
    bias_radius: Tensor

    def has_offset(self) -> bool:
        """Whether the two networks' centres differ."""
        return bool(self.weight_offset.any() or self.bias_offset.any())


@dataclass(frozen=True)
class Chain:
    """``layers[0], activations[0], layers[1], ..., layers[-1]``, then the link.

    ``sources`` names the uncertain network's node behind each layer (``None`` where an identity
    was put in). ``link`` turns the last layer's result into the confidence. ``exact`` is false
    where shared parameters make the slack a relaxation.
    """

    layers: tuple[Affine, ...]
    activations: tuple[Activation, ...]
    sources: tuple[str | None, ...]
    link: Link
    exact: bool

    def is_rigid(self) -> bool:
        """Whether the uncertain network is the reference itself: nothing is perturbed."""
        return not any(
            layer.has_offset() or layer.weight_radius.any() or layer.bias_radius.any()
            for layer in self.layers
        )


@dataclass(frozen=True)
class _Centre:
    """Weight, bias and their radii as float64 arrays."""

    weight: Array
    bias: Array
    weight_radius: Array
    bias_radius: Array


def build_chain(problem: Problem, device: str = "cpu") -> Chain:
    """Return the problem's chain.

    Raises:
        BackendError: the graph is no chain of dense layers and activations, or the two networks
            differ in architecture.
    """
    check_real(problem, "the search over boxes")
    if isinstance(problem.domain, Ball):
        raise BackendError("the search takes no input radius; use --solver bounds with a method")
    link, ours = stages(problem.reference, problem.output)
    other_link, theirs = stages(problem.uncertain.network, problem.output)
    if link != other_link or [s.kind for s in ours] != [s.kind for s in theirs]:
        raise BackendError("the two networks differ in architecture; they must match here")
    layers: list[Affine] = []
    for stage, twin in zip(ours, theirs, strict=True):
        if stage.node is None or twin.node is None:
            layers.append(_identity_layer(problem.reference.input_size, layers, device))
        else:
            layers.append(_affine(problem, stage.node, twin.node, device))
    activations = tuple(s.activation for s in ours if s.activation is not None)
    sources = tuple(None if s.node is None else s.node.name for s in theirs)
    exact = slack_is_exact(problem.uncertain)
    return Chain(tuple(layers), activations, sources, link, exact)


def slack_is_exact(uncertain: UncertainNetwork) -> bool:
    """Whether slacks stand for the parameters without loss.

    They do not where a parameter is used twice, nor where a divisor moves: its reciprocal's
    interval lies lopsided around the trained value. Nor does a box stand for its ends alone.
    """
    network, box = uncertain.network, uncertain.perturbation
    divisors = {
        node.op.parameter
        for node in network.nodes
        if isinstance(node.op, Elementwise) and node.op.kind == "div"
    }
    return not any(
        (box.only_ends or network.is_shared(name) or name in divisors)
        and bool(box.interval(parameter).radius().any())
        for name, parameter in network.parameters.items()
    )


def _identity_layer(input_size: int, layers: list[Affine], device: str) -> Affine:
    size = layers[-1].weight.shape[0] if layers else input_size
    zero = torch.zeros(size, dtype=torch.float64, device=device)
    zeros = torch.zeros(size, size, dtype=torch.float64, device=device)
    return Affine(
        torch.eye(size, dtype=torch.float64, device=device), zero, zeros, zero, zeros, zero
    )


def _affine(problem: Problem, node: Node, twin: Node, device: str) -> Affine:
    still = Perturbation({})
    reference = _centre(problem.reference, still, node)
    uncertain = _centre(problem.uncertain.network, problem.uncertain.perturbation, twin)
    pairs = (
        (reference.weight, uncertain.weight, uncertain.weight_radius),
        (reference.bias, uncertain.bias, uncertain.bias_radius),
    )
    tensors: list[Tensor] = []
    for ours, theirs, radius in pairs:
        offset = theirs - ours
        if ours.shape != theirs.shape:
            raise BackendError("the two networks differ in architecture; they must match here")
        # The subtraction may round: the interval is widened by what it can lose.
        lost = np.where(offset == 0, 0.0, np.abs(offset) * 2.0**-52)
        wide = np.where(lost > 0, np.nextafter(radius + lost, np.inf), radius)
        if _differ_by_less_than_a_rounding(problem, node, twin):
            wide = wide + np.abs(ours) * 2.0**-51
        tensors += [torch.from_numpy(np.array(a)).to(device) for a in (ours, offset, wide)]
    weight, weight_offset, weight_radius, bias, bias_offset, bias_radius = tensors
    return Affine(weight, bias, weight_offset, bias_offset, weight_radius, bias_radius)


def _differ_by_less_than_a_rounding(problem: Problem, node: Node, twin: Node) -> bool:
    """Whether two divisors differ, though their reciprocals may have been rounded to one number."""
    if not (isinstance(node.op, Elementwise) and isinstance(twin.op, Elementwise)):
        return False
    ours = problem.reference.parameters[node.op.parameter].value
    uncertain = problem.uncertain
    theirs = uncertain.perturbation.interval(uncertain.network.parameters[twin.op.parameter]).centre
    return "div" in (node.op.kind, twin.op.kind) and not np.array_equal(ours, theirs)


def _centre(network: Network, perturbation: Perturbation, node: Node) -> _Centre:
    def interval(name: str) -> ParameterInterval:
        return perturbation.interval(network.parameters[name])

    if isinstance(node.op, Dense):
        weight = interval(node.op.weight)
        out = weight.centre.shape[0]
        bias = interval(node.op.bias) if node.op.bias else ParameterInterval(np.zeros(out))
        positions = int(np.prod(node.shape[:-1], dtype=int))
        eye = np.eye(positions)
        return _Centre(
            np.asarray(np.kron(eye, weight.centre), dtype=np.float64),
            np.tile(bias.centre, positions),
            np.asarray(np.kron(eye, weight.radius()), dtype=np.float64),
            np.tile(bias.radius(), positions),
        )
    if not isinstance(node.op, Elementwise):
        raise BackendError(f"node {node.name!r}: not supported by the bound engine")
    constant = interval(node.op.parameter)
    size = int(np.prod(node.shape, dtype=int))
    value = np.broadcast_to(constant.centre, node.shape).reshape(size)
    radius = np.broadcast_to(constant.radius(), node.shape).reshape(size)
    zeros = np.zeros(size)
    if node.op.kind == "mul":
        return _Centre(np.diag(value), zeros, np.diag(radius), zeros)
    if node.op.kind == "div":
        value, radius = reciprocal(node, value, radius)
        return _Centre(np.diag(value), zeros, np.diag(radius), zeros)
    sign = -1.0 if node.op.kind == "rsub" else 1.0
    shift = -1.0 if node.op.kind == "sub" else 1.0
    return _Centre(sign * np.eye(size), shift * value, np.zeros((size, size)), radius)


def reciprocal(node: Node, value: Array, radius: Array) -> tuple[Array, Array]:
    """Enclose ``1/c`` for ``|c - value| <= radius``; the centre keeps a relative error of 2**-53.

    That error is part of what :mod:`paramrob.bounds.rounding` charges for every weight.
    """
    if (np.abs(value) <= radius).any():
        raise BackendError(
            f"node {node.name!r} divides by a constant whose perturbation reaches 0; "
            "leave that layer out of the perturbation"
        )
    with np.errstate(over="ignore", divide="ignore"):
        centre = 1.0 / value
        # Each quotient is rounded up, also where it is subnormal.
        share = np.nextafter(radius / np.abs(value), np.inf)
        reach = np.nextafter(share / np.nextafter(np.abs(value) - radius, 0.0), np.inf)
    return centre, np.where(radius == 0, 0.0, reach)

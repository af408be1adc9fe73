"""The two networks as definitions: what both encodings have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import flint
import numpy as np

from paramrob.domain import Ball, Point
from paramrob.encoders.build import Builder
from paramrob.encoders.enclose import PRECISION, Enclosure, rational_ends
from paramrob.encoders.presolve import FREE, Presolve, pick
from paramrob.encoders.terms import (
    Constant,
    Term,
    Variable,
    add,
    divide,
    multiply,
    negate,
    subtract,
)
from paramrob.errors import BackendError
from paramrob.layers import Link, Stage
from paramrob.models.network import Dense, Elementwise, Network, Node
from paramrob.problem import Problem
from paramrob.replay_network import ExactRun
from paramrob.replay_numbers import Number

Values = Callable[[str], Sequence[Term]]
"""The numbers of a parameter as terms, flattened in row-major order."""
Layer = Callable[[int, Node, list[Term]], list[Term]]


@dataclass(frozen=True)
class Walked:
    """One network's terms: what each layer reads and what it computes."""

    inputs: list[list[Term]]
    results: list[list[Term]]


@dataclass(frozen=True)
class Names:
    """How a network's quantities are called: before and after an activation, and in words."""

    before: str
    after: str
    network: str


REFERENCE = Names("z", "h", "reference")
UNCERTAIN = Names("p", "g", "uncertain")


def declare_inputs(builder: Builder, problem: Problem) -> list[Term]:
    """Return the inputs: variables ``x0, x1, ...``, or a constant where there is no choice."""
    domain = problem.domain
    if isinstance(domain, Ball):
        raise BackendError("a formula takes no input radius yet; use --solver bounds")
    if isinstance(domain, Point):
        return [Constant(Fraction(v)) for v in domain.x]
    inputs: list[Term] = []
    for i, ends in enumerate(zip(domain.lower, domain.upper, strict=True)):
        low, high = _input_range(*ends)
        fixed = low == high
        inputs.append(Constant(low) if fixed else builder.declare(f"x{i}", low, high, f"input {i}"))
    return inputs


def _input_range(low: Fraction, high: Fraction) -> tuple[Fraction, Fraction]:
    """Return an input's ends; the float64 nearest to a fixed one counts as being in the domain."""
    if low != high:
        return low, high
    nearest = Fraction(float(low))
    return min(low, nearest), max(high, nearest)


def walk(
    builder: Builder,
    stages: Sequence[Stage],
    x: list[Term],
    names: Names,
    layer: Layer,
    known: Presolve | None,
) -> Walked:
    """Define a network layer by layer; ``layer`` makes the terms of an affine layer."""
    h, inputs, results = x, [], []
    for k, stage in enumerate(stages):
        inputs.append(h)
        ranges = known and (known.layers[k].z if names is REFERENCE else known.layers[k].p)
        called = "" if stage.node is None else f" '{stage.node.name}'"
        z = h if stage.node is None else layer(k, stage.node, h)
        words = f"{names.network} network, layer{called}, neuron"
        z = [
            builder.define(
                f"{names.before}{k}_{i}", t, pick(ranges, i) if ranges else FREE, f"{words} {i}"
            )
            for i, t in enumerate(z)
        ]
        results.append(z)
        if stage.activation is None:
            break
        words = f"{names.network} network, {stage.activation.kind} behind layer{called}, neuron"
        h = [
            builder.activate(f"{names.after}{k}_{i}", stage.activation, t, f"{words} {i}")
            for i, t in enumerate(z)
        ]
    return Walked(inputs, results)


def affine(network: Network, node: Node, h: list[Term], values: Values) -> list[Term]:
    """Return the results of a dense or elementwise layer.

    Raises:
        BackendError: any other node.
    """
    op = node.op
    if isinstance(op, Dense):
        out, width = node.shape[-1], len(h) // math.prod(node.shape[:-1])
        weight = values(op.weight)
        bias = values(op.bias) if op.bias else [Constant(Fraction(0))] * out
        return [
            add(
                *(multiply(weight[i * width + j], h[start + j]) for j in range(width)),
                bias[i],
            )
            for start in range(0, len(h), width)
            for i in range(out)
        ]
    if not isinstance(op, Elementwise):
        raise BackendError(f"node {node.name!r} has no encoding; use --solver bounds")
    constants = values(op.parameter)
    c = [constants[i] for i in broadcast(network, node)]
    combine: dict[str, Callable[[Term, Term], Term]] = {
        "add": add,
        "sub": subtract,
        "mul": multiply,
        "div": divide,
    }
    if op.kind == "rsub":
        return [add(a, negate(t)) for t, a in zip(h, c, strict=True)]
    return [combine[op.kind](t, a) for t, a in zip(h, c, strict=True)]


def broadcast(network: Network, node: Node) -> list[int]:
    """Return the flat index of an elementwise layer's constant at each of its results."""
    if not isinstance(node.op, Elementwise):
        return []
    value = network.parameters[node.op.parameter].value
    places = np.broadcast_to(np.arange(value.size).reshape(value.shape), node.shape)
    return [int(i) for i in places.ravel()]


def reference_values(problem: Problem) -> Values:
    """Return the reference's parameters as constants."""
    seen: dict[str, list[Term]] = {}

    def values(name: str) -> Sequence[Term]:
        if name not in seen:
            flat = problem.reference.parameters[name].value.ravel().tolist()
            seen[name] = [Constant(Fraction(v)) for v in flat]
        return seen[name]

    return values


def differences(
    builder: Builder, reference: Walked, uncertain: Walked, known: Presolve | None
) -> None:
    """Define how far each neuron moves, where its range is known: a bound that helps solvers."""
    if known is None:
        return
    for k, (ours, theirs) in enumerate(zip(reference.results, uncertain.results, strict=True)):
        for i, (z, p) in enumerate(zip(ours, theirs, strict=True)):
            if isinstance(z, Variable) and isinstance(p, Variable) and z != p:
                words = f"{p.name} - {z.name}"
                builder.define(f"e{k}_{i}", subtract(p, z), pick(known.layers[k].e, i), words)


def reference_scores(problem: Problem, link: Link) -> list[Number]:
    """Execute the reference exactly at a point.

    Returns:
        What the link is applied to: rationals, or balls behind a hidden sigmoid or tanh.
    """
    x = np.array(problem.domain.inner()[0])
    with flint.ctx.workprec(PRECISION):
        scores, outputs = ExactRun(problem.reference, x).run()
    has_link = link != "identity" and problem.output.kind in ("probability", "probabilities")
    return scores if has_link else outputs


def score_ends(scores: Sequence[Number]) -> list[Enclosure]:
    """Return exact ends of each score."""
    return [rational_ends(score) for score in scores]

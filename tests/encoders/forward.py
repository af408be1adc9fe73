"""A network run layer by layer in exact numbers, written apart from the encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from paramrob.encoders.evaluate import evaluate
from paramrob.encoders.terms import Query
from paramrob.layers import stages
from paramrob.models.network import Activation, Array, Dense, Elementwise, Network
from paramrob.problem import Problem


def rational(value: float | Fraction) -> Any:
    exact = Fraction(value)
    return flint.fmpq(exact.numerator, exact.denominator)


def layer_results(problem: Problem, x: Sequence[float], p: Mapping[str, Array]) -> list[list[Any]]:
    """Return the uncertain network's results of each affine layer, before the activation."""
    network = problem.uncertain.network
    _, found = stages(network, problem.output)
    h = [rational(v) for v in x]
    results = []
    for stage in found:
        op = None if stage.node is None else stage.node.op
        if isinstance(op, Dense):
            h = _dense(op, h, p)
        elif isinstance(op, Elementwise) and stage.node is not None:
            c = np.broadcast_to(p[op.parameter], stage.node.shape).ravel()
            h = [_combined(op.kind, a, rational(float(b))) for a, b in zip(h, c, strict=True)]
        results.append(h)
        if stage.activation is not None:
            h = [_activated(stage.activation, z) for z in h]
    return results


def _dense(op: Dense, h: list[Any], p: Mapping[str, Array]) -> list[Any]:
    weight = p[op.weight]
    bias = p[op.bias] if op.bias else np.zeros(weight.shape[0])
    result = []
    for start in range(0, len(h), weight.shape[1]):
        for row, b in zip(weight.tolist(), bias.tolist(), strict=True):
            total = rational(b)
            for j, w in enumerate(row):
                total = total + rational(w) * h[start + j]
            result.append(total)
    return result


def _combined(kind: str, a: Any, c: Any) -> Any:
    return (
        {"add": a + c, "sub": a - c, "mul": a * c, "rsub": c - a}[kind] if kind != "div" else a / c
    )


def _activated(op: Activation, z: Any) -> Any:
    if op.kind == "relu":
        return z if z > 0 else rational(0)
    if op.kind == "leaky_relu":
        return z if z > 0 else rational(op.slope) * z
    if op.kind == "sigmoid":
        return 1 / (1 + (-flint.arb(z)).exp())
    if op.kind == "tanh":
        return flint.arb(z).tanh()
    return z


def assignment(query: Query, problem: Problem, x: Array, p: Mapping[str, Array]) -> dict[str, Any]:
    """Return the values of all of a query's variables at an input and parameters.

    A slack is what is missing from the neuron's value, worked out by :func:`layer_results`.
    """
    results = layer_results(problem, x.tolist(), p)
    names = list(problem.uncertain.network.parameters)
    values: dict[str, Any] = {}
    for declaration in query.declarations:
        name = declaration.variable.name
        if name.startswith("x"):
            values[name] = rational(float(x[int(name[1:])]))
        elif name.startswith("theta"):
            first, *index = name[5:].split("_")
            array = p[names[int(first)]]
            values[name] = rational(float(array[tuple(map(int, index))] if index else array))
    for definition in query.definitions:
        name = definition.variable.name
        slack = "s" + name[1:]
        open_slack = name.startswith("p") and any(
            d.variable.name == slack and slack not in values for d in query.declarations
        )
        if open_slack:
            k, i = map(int, name[1:].split("_"))
            without = evaluate(definition.term, values | {slack: rational(0)})
            values[slack] = results[k][i] - without
        values[name] = evaluate(definition.term, values)
    return values


def centre(network: Network) -> dict[str, Array]:
    return {name: parameter.value for name, parameter in network.parameters.items()}

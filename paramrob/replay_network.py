"""A network executed exactly: rationals as long as they stay rational, then balls.

Every node is executed once, in topological order. Up to the first exponential, error function or
irrational root on each path numbers are exact; from there on they are arb balls, which enclose
the exact value at any working precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from paramrob.models.network import Activation, Array, Network, Node, Reshape, Shape, Softmax
from paramrob.replay_balls import BallSteps
from paramrob.replay_exact import Exact, exact_input, exact_step, stays_exact
from paramrob.replay_numbers import Number


def _is_trivial(node: Node) -> bool:
    """Whether the node keeps the flat sequence of numbers as it is."""
    op = node.op
    return isinstance(op, Reshape) or (isinstance(op, Activation) and op.kind == "identity")


@dataclass(frozen=True)
class _Step:
    """A node that changes numbers, the nodes whose numbers it reads, and their shapes there."""

    node: Node
    inputs: tuple[str, ...]
    before: tuple[Shape, ...]


@dataclass(frozen=True)
class _Plan:
    """What to execute in which order, and how often each node's numbers are read.

    ``scores`` is the node before the final sigmoid or softmax, ``None`` where there is none.
    """

    steps: tuple[_Step, ...]
    readers: Mapping[str, int]
    output: str
    scores: str | None
    squashed: str | None


# the networks of one problem are replayed over and over
_PLANS: WeakKeyDictionary[Network, _Plan] = WeakKeyDictionary()


def _plan(network: Network) -> _Plan:
    shapes = {node.name: node.shape for node in network.nodes}
    same: dict[str, str] = {}
    steps = []
    for node in network.nodes:
        inputs = tuple(same[name] for name in node.inputs)
        same[node.name] = inputs[0] if _is_trivial(node) else node.name
        if inputs and not _is_trivial(node):
            steps.append(_Step(node, inputs, tuple(shapes[name] for name in node.inputs)))
    last = network.final_node
    squashed = _squash(last, network.output_size)
    scores = same[last.inputs[0]] if squashed else None
    kept = [last.name] if scores is None else [last.name, scores]
    readers = Counter([*(name for step in steps for name in step.inputs), *kept])
    return _Plan(tuple(steps), readers, last.name, scores, squashed)


class ExactRun:
    """One network on one input, at any working precision.

    Args:
        network: any network; its stored parameters stand where ``parameters`` names none.
        x: the input, ``network.input_size`` float64 numbers in row-major order.
        parameters: values to use instead, by name.

    Attributes:
        squashed: ``sigmoid`` or ``softmax`` where that ends the network (one softmax, over all
            outputs), else ``None``.

    Raises:
        ReplayError: a division by a parameter that is zero, or by the root of a variance that
            is not positive.
    """

    def __init__(
        self, network: Network, x: Array, parameters: Mapping[str, Array] | None = None
    ) -> None:
        plan = _PLANS.get(network)
        if plan is None:
            plan = _PLANS[network] = _plan(network)
        stored = {name: p.value for name, p in network.parameters.items()}
        values: Mapping[str, Array] = stored | dict(parameters or {})
        self._balls = BallSteps(values)
        self._plan, self.squashed = plan, plan.squashed
        readers = Counter(plan.readers)
        self._exact = {network.nodes[0].name: exact_input(np.asarray(x, dtype=np.float64))}
        self._rest: list[_Step] = []
        for step in plan.steps:
            given = [self._exact[name] for name in step.inputs if name in self._exact]
            if len(given) < len(step.inputs) or not _goes_on(step.node, given, values):
                self._rest.append(step)
                continue
            self._exact[step.node.name] = exact_step(step.node, step.before, given, values)
            for name in step.inputs:
                _release(self._exact, readers, name)
        self._readers = readers

    def run(self) -> tuple[list[Number], list[Number]]:
        """Return ``(scores, outputs)`` at the working precision.

        ``scores`` are the numbers before the final sigmoid or softmax (``squashed``), the
        outputs themselves where there is none.
        """
        plan = self._plan
        if plan.output in self._exact:
            numbers = self._exact[plan.output].numbers()
            return numbers, numbers
        balls: dict[str, list[Number]] = {}
        readers = Counter(self._readers)
        for step in self._rest:
            given = [self._given(step.node, name, balls) for name in step.inputs]
            balls[step.node.name] = self._balls.step(step.node, step.before, given)
            for name in step.inputs:
                _release(balls, readers, name)
        outputs = balls[plan.output]
        if plan.scores is None:
            return outputs, outputs
        exact = self._exact.get(plan.scores)
        return (balls[plan.scores] if exact is None else exact.numbers()), outputs

    def _given(self, node: Node, name: str, balls: Mapping[str, list[Number]]) -> list[Number]:
        if name in balls:
            return balls[name]
        state = self._exact[name]
        return state.numbers() if isinstance(node.op, Softmax) else state.balls()


def _goes_on(node: Node, given: list[Exact], values: Mapping[str, Array]) -> bool:
    return stays_exact(node, values) and all(state.is_short() for state in given)


def _release(held: dict[str, Any], readers: Counter[str], name: str) -> None:
    """Count one reading of a node's numbers, and forget them after the last."""
    readers[name] -= 1
    if readers[name] == 0:
        held.pop(name, None)


def _squash(node: Node, size: int) -> str | None:
    if isinstance(node.op, Softmax):
        return "softmax" if node.shape[-1] == size else None
    return "sigmoid" if isinstance(node.op, Activation) and node.op.kind == "sigmoid" else None

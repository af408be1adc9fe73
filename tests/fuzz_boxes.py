"""Random pairs of networks over random boxes: do samples ever leave what is proved of them?

    python -m tests.fuzz_boxes --count 500 --seed 0

Exit code 1: a sample outside.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction

import click
import numpy as np

from paramrob.bounds.graph.boxes import BoxPass
from paramrob.bounds.graph.limits import Limits
from paramrob.domain import box_from_floats
from paramrob.engine import Settings
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Array, Network, Node, Quantize
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from tests.graphs import Graph
from tests.known_problems import random_network, sample_parameters

KINDS = ("relu", "tanh", "sigmoid", "leaky_relu")
SAMPLES, VECTORS = 200, 10
ROOM = 1e-9


def residual(seed: int, slim: bool = False) -> Network:
    """Return a convolutional network with a residual sum, and perhaps a batch norm."""
    graph = Graph((1, 4, 4), np.random.default_rng(seed))
    graph.conv(2, (3, 3), padding=1)
    first = graph.act("relu")
    graph.conv(2, (3, 3), padding=1)
    if not slim:
        graph.norm()
    second = graph.act("tanh")
    graph.sum(first, second)
    graph.flat()
    graph.dense(3)
    return graph.network()


def moved(network: Network, amount: float, seed: int) -> Network:
    """Return the network with every trained number moved by up to ``amount``."""
    rng = np.random.default_rng(seed)
    return Network(
        network.nodes,
        [
            p
            if p.fixed
            else replace(p, value=p.value + rng.uniform(-amount, amount, p.value.shape))
            for p in network.parameters.values()
        ],
    )


def with_grids(network: Network, scale: float) -> Network:
    """Round every activation's result to a grid of 8 bits."""
    nodes: list[Node] = []
    new: dict[str, str] = {}
    for node in network.nodes:
        inputs = tuple(new.get(name, name) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
        if isinstance(node.op, Activation):
            grid = Quantize(float(np.float32(scale)), 100, 0, 255)
            nodes.append(Node(f"{node.name}.grid", grid, (node.name,), node.shape))
            new[node.name] = f"{node.name}.grid"
    return Network(nodes, network.parameters.values())


def random_problem(seed: int) -> Problem:
    """Return two networks, a box of inputs and a box of parameters."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.4:
        first = residual(seed)
        second = residual(seed + 1, slim=bool(rng.random() < 0.5))
    else:
        hidden = rng.integers(2, 9, size=rng.integers(1, 4)).tolist()
        widths = [int(rng.integers(1, 5)), *hidden, int(rng.integers(1, 4))]
        kind = KINDS[rng.integers(len(KINDS))]
        first = random_network(rng, widths, kind, scale=10 ** rng.uniform(-0.5, 0.7))
        second = random_network(rng, [widths[0], 5, widths[-1]], "relu")
    if rng.random() < 0.7:
        second = moved(first, 10 ** rng.uniform(-5, -0.5), seed)
    if rng.random() < 0.5:
        second = with_grids(second, 10 ** rng.uniform(-3, 0))
    if rng.random() < 0.2:
        first = with_grids(first, 10 ** rng.uniform(-3, 0))
    radius = 10 ** rng.uniform(-3, 0.5)
    middle = rng.uniform(-1, 1, first.input_size)
    box = box_from_floats((middle - radius).tolist(), (middle + radius).tolist())
    delta = Fraction(float(10 ** rng.uniform(-5, -1.5)))
    single = first.output_size == 1
    output = OutputInfo("logit" if single else "logits", Fraction(1, 2) if single else None)
    if rng.random() < 0.4:
        output = OutputInfo("value", Fraction(0) if single else None)
    around = Perturbation.uniform(second, delta)
    return Problem(first, UncertainNetwork(second, around), box, output)


def contradictions(seed: int) -> list[str]:
    """Return what samples of one random problem contradict."""
    problem = random_problem(seed)
    rng = np.random.default_rng(seed)
    pass_ = BoxPass(problem, Settings())
    limits, _ = pass_.limits(*pass_.root)
    low, high = problem.domain.inner()
    x = rng.uniform(low, high, (SAMPLES, low.size))
    x[:50] = np.where(rng.random((50, low.size)) < 0.5, low, high)
    x = x.reshape(SAMPLES, *problem.reference.input_shape)
    z = problem.reference.evaluate(x).reshape(SAMPLES, -1)
    found = []
    for _ in range(VECTORS):
        parameters = sample_parameters(rng, problem)
        p = problem.uncertain.network.evaluate(x, parameters).reshape(SAMPLES, -1)
        found += _outside(problem, limits, z, p)
    return [f"seed {seed}: {said}" for said in dict.fromkeys(found)]


def _outside(problem: Problem, limits: Limits, z: Array, p: Array) -> list[str]:
    first, second = (_confidences(problem.output, y) for y in (z, p))
    found = []
    if np.abs(second - first).max() > float(limits.epsilon) * (1 + ROOM) + ROOM:
        found.append("epsilon")
    if not limits.sigma:
        return found
    if problem.reference.output_size > 1:
        flipped = z.argmax(1) != p.argmax(1)
        ranked = np.sort(z, 1)
        margins = {"sigma": (ranked[:, -1] - ranked[:, -2])[flipped]}
    else:
        level = 0.5 if problem.output.kind == "logit" else 0.0
        f, g = first[:, 0], second[:, 0]
        margins = {
            "sigma_above": (f - level)[(f > level) & (g <= level)],
            "sigma_below": (level - f)[(f <= level) & (g > level)],
        }
    for name, seen in margins.items():
        if seen.size and seen.max() > float(limits.sigma[name]) + ROOM:
            found.append(name)
    return found


def _confidences(output: OutputInfo, y: Array) -> Array:
    if output.kind == "logit":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * y)))
    if output.kind == "logits":
        shares = np.exp(y - y.max(1, keepdims=True))
        return np.asarray(shares / shares.sum(1, keepdims=True))
    return y


@click.command()
@click.option("--count", default=200, show_default=True, help="How many problems.")
@click.option("--seed", default=0, show_default=True, help="Of the first.")
def main(count: int, seed: int) -> None:
    """Hold samples of random problems against what is proved of them."""
    found = [said for number in range(seed, seed + count) for said in contradictions(number)]
    for said in found:
        click.echo(said)
    click.echo(f"{count} problems, {len(found)} contradictions")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

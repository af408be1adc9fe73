"""Random graphs at points and around them: do samples ever leave what any method proves?

    python -m tests.fuzz_points --count 500 --seed 0

Exit code 1: a sample outside.
"""

from __future__ import annotations

import sys
from fractions import Fraction

import click
import numpy as np
import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.sharpen import sharpened
from paramrob.engine import METHODS
from paramrob.models.network import Activation, Add, Network
from tests.bounds.graph.nets import RELU, Build, both_signs, graph_pass, inputs, members

CURVES = (
    *(Activation("relu"), Activation("leaky_relu", slope=0.1), Activation("sigmoid")),
    *(Activation("tanh"), Activation("softplus"), Activation("gelu")),
    *(Activation("silu"), Activation("hardswish")),
)
POINTS, RESULTS, VECTORS = 2, 3, 12
ROOM = 1e-9
"""What a sampled value in float64 may be off by, relative to the largest."""


def random_graph(seed: int) -> Network:
    """Return a convolution, perhaps a batch norm and a residual block, and dense layers."""
    rng = np.random.default_rng(seed)
    build = Build((int(rng.integers(1, 3)), *map(int, rng.integers(4, 7, size=2))), seed)
    height, width = map(int, rng.integers(1, 4, size=2))
    stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, 2))
    build.conv(int(rng.integers(1, 5)), (height, width), stride, padding, bias=rng.random() < 0.5)
    if rng.random() < 0.5:
        build.batch_norm()
    start = build.add(CURVES[int(rng.integers(len(CURVES)))])
    if rng.random() < 0.5:
        build.conv(build.shape(start)[0], (3, 3), padding=1)
        build.add(Add(), build.last, start)
        build.add(RELU)
    build.flatten()
    if rng.random() < 0.5:
        build.dense(int(rng.integers(3, 12)))
        build.add(RELU)
    build.dense(RESULTS)
    return build.network()


def best_bounds(bound_pass: GraphPass, low: Tensor, high: Tensor) -> Tensor:
    """Return the highest least values that any method proves, ``(batch, 2 results)``."""
    rows = both_signs(RESULTS, len(low))
    found = []
    for method in METHODS:
        analysis = bound_pass.analyse(low, high, method)
        found.append(bound_pass.bound(analysis, rows, method))
    found.append(optimised(sharpened(bound_pass, analysis), rows, 5))
    return torch.stack(found).amax(0)


def outside(seed: int) -> int:
    """Return how many samples of one random problem leave its bounds."""
    network, rng = random_graph(seed), np.random.default_rng(seed)
    delta = str(rng.choice(["0", "0.001", "0.03", "0.3"]))
    radius = float(rng.choice([0.0, 0.01, 0.2]))
    x = inputs(network, POINTS, seed) * float(rng.choice([0.1, 1.0, 10.0]))
    if rng.random() < 0.5:
        x = x.abs() + radius
    bound_pass = graph_pass(network, Fraction(delta))
    least = best_bounds(bound_pass, x - radius, x + radius).numpy()
    count = 0
    for chosen in members(network, float(delta), VECTORS, seed):
        moved = x.numpy() + radius * rng.choice([-1.0, 1.0, 0.3, 0.0], size=x.shape)
        seen = network.evaluate(moved.reshape(-1, *network.input_shape), chosen)
        both = np.concatenate([seen, -seen], axis=1)
        count += int((both < least - ROOM * max(1.0, np.abs(both).max())).sum())
    return count


@click.command()
@click.option("--count", default=500, help="Problems.")
@click.option("--seed", default=0, help="Of the first problem.")
def main(count: int, seed: int) -> None:
    """Draw problems, print the seeds of those that a sample contradicts."""
    wrong = [at for at in range(seed, seed + count) if outside(at)]
    click.echo(f"{count} problems, {len(wrong)} contradictions{': ' if wrong else ''}")
    for at in wrong:
        click.echo(f"seed {at}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""Proved intervals of quantization errors: their width beside what samples and searches reach.

    python -m benchmarks.quantization_errors                   # every instance
    python -m benchmarks.quantization_errors --only 784-100    # those whose name contains this

An instance is a trained network, a box of inputs around a point, and a width in bits for weights
(symmetric, one scale a tensor) and for values between layers (affine, calibrated on training data).
Asked is by how much each output of the quantized network differs from that of the float network on
the same input, over the whole box: one pass over both networks, no branching. The interval proved
for an output is divided by the range that 3,000 random inputs span, and by the range that inputs
span which search for roundings in the worst direction as well; the median over outputs counts. Any
error outside its interval ends the run with exit code 1.

Architectures, radii and widths are those that QEBVerif (Zhang, Song and Sun, CAV 2023) is evaluated
on; its networks are not at hand. Those with 784 inputs are trained here on scikit-learn's digits,
enlarged to 28 x 28; 5-6x50-5 on a smooth function of five inputs; all from fixed seeds.

Seconds are CPU seconds on one thread for building the joint program and bounding all outputs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from paramrob.bounds.graph.boxes import BoxPass
from paramrob.bounds.graph.execute import execute
from paramrob.domain import box_from_floats
from paramrob.engine import Settings
from paramrob.models.load import load
from paramrob.models.model import OutputInfo
from paramrob.models.network import Array, Network, Quantize
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.quantize.activations import calibrated, grids_for
from paramrob.quantize.deployment import Deployment
from paramrob.quantize.scheme import Scheme

RESULTS = Path(__file__).parent / "results" / "quantization_errors.md"
BITS = (6, 8, 10)
SMALL = ("5-6x50-5", (5, *[50] * 6, 5), (0.01, 0.025, 0.05))
LARGE = (
    ("784-100-10", (784, 100, 10)),
    ("784-2x100-10", (784, 100, 100, 10)),
    ("784-3x100-10", (784, 100, 100, 100, 10)),
    ("784-2x512-10", (784, 512, 512, 10)),
)
PIXEL = 1 / 255
SAMPLES, ATTACKED = 3000, 3
"""Random inputs, and outputs for which inputs are searched."""
POINT = 1500
"""The image around which boxes lie; those before it are for training."""


@dataclass(frozen=True)
class Instance:
    """One question."""

    name: str
    widths: tuple[int, ...]
    radius: float
    bits: int

    @property
    def title(self) -> str:
        """What the table calls it."""
        radius = f"{round(self.radius / PIXEL)}/255" if self.widths[0] == 784 else f"{self.radius}"
        return f"{self.name}, radius {radius}, {self.bits} bits"


@dataclass(frozen=True)
class Row:
    """One answer: medians over outputs, and seconds."""

    title: str
    width: float
    over_samples: float
    over_search: float
    seconds: float


def instances() -> Iterator[Instance]:
    """Yield every question."""
    name, widths, radii = SMALL
    for radius in radii:
        for bits in BITS:
            yield Instance(name, widths, radius, bits)
    for name, widths in LARGE:
        for radius in (PIXEL, 3 * PIXEL):
            for bits in BITS:
                yield Instance(name, widths, radius, bits)


@lru_cache
def images() -> tuple[Tensor, Tensor]:
    """Return all digits as 784 numbers in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    small = torch.tensor(found.images / 16.0, dtype=torch.float32).unsqueeze(1)
    large = nn.functional.interpolate(small, (28, 28), mode="bilinear")
    return large.reshape(-1, 784), torch.tensor(found.target)


@lru_cache
def trained(widths: tuple[int, ...]) -> tuple[Network, Array, Array]:
    """Return a network, its training inputs and the point around which boxes lie."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    x, y = images() if widths[0] == 784 else _smooth(4000, widths)
    loss = nn.functional.cross_entropy if widths[0] == 784 else nn.functional.mse_loss
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)
    last = min(POINT, len(x) - 1)
    for _ in range(400):
        index = torch.randint(0, last, (128,))
        optimiser.zero_grad()
        loss(model(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    network = load(model, input_shape=(widths[0],)).network
    return network, x[:last].double().numpy(), x[last].double().numpy()


def _smooth(count: int, widths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return inputs in [-1/2, 1/2] and distances to as many points as there are outputs."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.rand(widths[-1], widths[0], generator=generator) - 0.5
    x = torch.rand(count, widths[0], generator=generator) - 0.5
    return x, torch.cdist(x, centres)


def quantized(network: Network, data: Array, bits: int) -> Network:
    """Return the network with rounded weights and values."""
    rounded = Deployment(Scheme(f"int{bits}")).network(network)
    return grids_for(calibrated(network, data), f"uint{bits}", "training data").network(rounded)


class Errors:
    """Errors of a quantized network on many inputs at a time."""

    def __init__(self, network: Network, other: Network) -> None:
        self.pair = (network, other)
        self.values = [
            {name: torch.from_numpy(p.value.copy()) for name, p in n.parameters.items()}
            for n in self.pair
        ]
        self.many = vmap(self.one)

    def results(self, which: int, x: Tensor) -> Tensor:
        """Return one network's outputs at one input."""
        network = self.pair[which]
        return execute(network, self.values[which], x, network.nodes[-1].name)

    def one(self, x: Tensor) -> Tensor:
        """Return the error of each output at one input."""
        return self.results(1, x) - self.results(0, x)


def searched(errors: Errors, low: Tensor, high: Tensor, output: int, sign: float) -> float:
    """Return an error that inputs reach which search for roundings in one direction.

    The input's own grid moves each number by up to half a step: to the side that the output's
    gradient says, if the box lets it.
    """
    grid = next(n.op for n in errors.pair[1].nodes if isinstance(n.op, Quantize))
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(16, low.numel(), generator=generator, dtype=low.dtype)
    slopes = vmap(grad(lambda t: sign * errors.results(1, t)[output]))
    best = -float("inf")
    value = sign * errors.many(x)[:, output]
    for step in range(30):
        best = max(best, float(value.max()))
        side = torch.where(slopes(x) > 0, 0.5, -0.5)
        near = torch.round(x / grid.scale)
        wanted = (near + side) * grid.scale + 1e-9 * side.sign()
        other = (near - side) * grid.scale + 1e-9 * side.sign()
        target = torch.where((wanted >= low) & (wanted <= high), wanted, x)
        inside = (other >= low) & (other <= high) & (target == x)
        target = torch.where(inside, other, target)
        share = 0.9 if step < 3 else 0.1
        chosen = torch.rand(x.shape, generator=generator, dtype=low.dtype) < share
        moved = torch.where(chosen, target, x)
        reached = sign * errors.many(moved)[:, output]
        better = reached > value
        x, value = torch.where(better.unsqueeze(1), moved, x), torch.maximum(value, reached)
    return max(best, float(value.max()))


def answer(instance: Instance) -> Row:
    """Bound one instance and hold samples against the bounds.

    Raises:
        SystemExit: an error lies outside its interval.
    """
    network, data, point = trained(instance.widths)
    other = quantized(network, data, instance.bits)
    floor, ceiling = (0.0, 1.0) if instance.widths[0] == 784 else (-0.5, 0.5)
    low = np.maximum(point - instance.radius, floor)
    high = np.minimum(point + instance.radius, ceiling)
    subject = Problem(
        network,
        UncertainNetwork(other, Perturbation({})),
        box_from_floats(low.tolist(), high.tolist()),
        OutputInfo("value", None),
    )
    started = time.process_time()
    pass_ = BoxPass(subject, Settings())
    analysis = pass_.bounds.analyse(*pass_.root)
    size = instance.widths[-1]
    least = pass_.bounds.bound(analysis, pass_.question.rows[None, : 2 * size])[0]
    seconds = time.process_time() - started
    lower, upper = least[:size].numpy(), -least[size:].numpy()
    errors = Errors(network, other)
    ends = torch.from_numpy(low), torch.from_numpy(high)
    rng = np.random.default_rng(0)
    sampled = errors.many(torch.from_numpy(rng.uniform(low, high, (SAMPLES, low.size)))).numpy()
    first, last = sampled.min(0), sampled.max(0)
    over_samples = statistics.median(((upper - lower) / (last - first)).tolist())
    ratios = []
    for output in range(ATTACKED):
        top = max(searched(errors, *ends, output, 1.0), float(last[output]))
        bottom = min(-searched(errors, *ends, output, -1.0), float(first[output]))
        first[output], last[output] = bottom, top
        ratios.append(float(upper[output] - lower[output]) / (top - bottom))
    room = 1e-9 * (1 + np.abs(upper) + np.abs(lower))
    if (first < lower - room).any() or (last > upper + room).any():
        sys.exit(f"{instance.title}: an error lies outside its proved interval; report this")
    width = statistics.median((upper - lower).tolist())
    return Row(instance.title, width, over_samples, statistics.median(ratios), seconds)


def table(rows: list[Row]) -> str:
    """Return the table with its caption."""
    head = ("instance", "width proved", "over random samples", "over a search", "seconds")
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for row in rows:
        lines.append(
            f"| {row.title} | {row.width:.4g} | {row.over_samples:.2f} | {row.over_search:.2f} | "
            f"{row.seconds:.3f} |"
        )
    found = statistics.median(row.over_search for row in rows)
    within = sum(row.over_search <= 3 for row in rows)
    lines.append("")
    lines.append(
        f"Median over {len(rows)} instances: {found:.2f} times the searched range, "
        f"{statistics.median(row.over_samples for row in rows):.2f} times that of random samples; "
        f"{within} within 3 times the searched range. No error lay outside its interval."
    )
    return "\n".join(lines)


def main() -> None:
    """Run the instances and write the table."""
    parser = argparse.ArgumentParser(description="Widths of proved quantization errors.")
    parser.add_argument("--only", default="", help="instances whose name contains this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for instance in instances():
        if given.only in instance.title:
            rows.append(answer(instance))
            print(rows[-1], flush=True)
    if not rows:
        sys.exit(f"no instance's name contains {given.only!r}")
    text = f"# Quantization errors\n\n`python -m benchmarks.quantization_errors`\n\n{table(rows)}\n"
    if not given.only:
        RESULTS.write_text(text, encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()

"""Quantized files as paramrob reads them, beside what onnxruntime computes.

    python -m benchmarks.quantized_files              # prints the tables and writes them
    python -m benchmarks.quantized_files --inputs 200

Twenty trained networks, ten dense and ten convolutional, each quantized by onnxruntime in several
forms. At random inputs the exact results of the network that is read are compared with those of
onnxruntime, which is run node by node and with its default fusions. Where they differ, the cause
is looked for: a number that lies so near to a tie that float32 rounds it the other way, and that
alone turns the one result into the other. Every single rounding is compared as well, given the
numbers that onnxruntime has before it.

The deviation from the float file is bounded over a box of inputs, and sampled there as well.

Exit code 1: a difference without such a cause, or a deviation outside its bracket.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnxruntime
import torch
from torch import nn

import paramrob
from benchmarks.quantized_brackets import RADIUS, Held, held
from paramrob.models.network import Array, Network
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from tests.quantized_models import (
    VARIANTS,
    Data,
    Floats,
    Rounded,
    Tie,
    Variant,
    convolutional,
    dense,
    digits,
    explained,
    in_onnxruntime,
    last_step,
    moons,
    node_by_node,
    quantized,
    random_inputs,
    save_onnx,
    trained,
)

RESULTS = Path(__file__).parent / "results" / "quantized_files.md"
SEEDS = 5
FORMS = 4
"""Of the eight forms, how many each network gets."""
REPLAYED = 5
"""Inputs of each file at which the network is executed in rationals as well."""


@dataclass(frozen=True)
class Kind:
    """One architecture with its data."""

    name: str
    make: Callable[[], nn.Sequential]
    data: Callable[[], Data]


KINDS = (
    Kind("2-16-16-2 (moons)", lambda: dense((2, 16, 16, 2)), moons),
    Kind("64-32-16-10 (digits)", lambda: dense((64, 32, 16, 10)), digits),
    Kind("conv4-pool-conv8-10 (digits)", lambda: convolutional(4, True), lambda: digits(True)),
    Kind("conv4/2-conv8-10 (digits)", lambda: convolutional(4, False), lambda: digits(True)),
)


@dataclass(frozen=True)
class Odd:
    """An input at which the two differ."""

    network: str
    form: str
    run: str
    input: int
    steps: float
    tie: Tie | None


@dataclass(frozen=True)
class Row:
    """One file: how many inputs agree in each way of running it."""

    network: str
    form: str
    plain: int
    fused: int
    rounded: Rounded
    held: Held
    exceptions: tuple[Odd, ...]


def compared(name: str, form: str, plain: Path, file: Path, x: Floats, data: Data) -> Row:
    """Compare one file at all inputs, and its deviation from the float file over a box."""
    network = read_onnx(file)
    ours = network.evaluate(x.astype(np.float64))
    _check_exact(network, x, ours)
    step = last_step(network)
    agree, odd = [], []
    for run, optimized in (("node by node", False), ("default", True)):
        seen = in_onnxruntime(file, x, optimized)
        away = np.abs(ours - seen).max(axis=1) / step
        places = np.flatnonzero(away > 0.5)
        agree.append(len(x) - len(places))
        for i in places.tolist():
            tie = explained(network, x[i], seen[i])
            odd.append(Odd(name, form, run, i, float(away[i]), tie))
    rounded = node_by_node(file, network, x)
    around = held(plain, file, np.asarray(data.x[0], dtype=np.float32), len(x), 0)
    return Row(name, form, agree[0], agree[1], rounded, around, tuple(odd))


def _check_exact(network: Network, x: Floats, ours: Array) -> None:
    """Refuse results in float64 that are not those in rationals."""
    for i in range(REPLAYED):
        exact = evaluate_exact(network, x[i].astype(np.float64))
        if [float(v) for v in exact] != ours[i].tolist():
            raise SystemExit("results in float64 are not the exact ones: report this")


def rows(folder: Path, inputs: int) -> Iterator[Row]:
    """Train, quantize and compare all networks."""
    for number, kind in enumerate(KINDS):
        data = kind.data()
        for seed in range(SEEDS):
            model = trained(kind.make(), data, seed)
            file = save_onnx(model, data.x.shape[1:], folder / f"{number}-{seed}.onnx")
            for variant in _forms(seed):
                out = quantized(file, data, variant, folder / "quantized.onnx")
                x = random_inputs(data, inputs, seed)
                yield compared(f"{kind.name}, seed {seed}", variant.name, file, out, x, data)


def _forms(seed: int) -> list[Variant]:
    return [VARIANTS[(FORMS * (seed % 2) + i + seed // 2) % len(VARIANTS)] for i in range(FORMS)]


def table(found: list[Row], inputs: int) -> str:
    """Return the results as markdown."""
    odd = [e for row in found for e in row.exceptions]
    files, total = len(found), len(found) * inputs
    vnni = "yes" if "vnni" in Path("/proc/cpuinfo").read_text() else "no"
    lines = [
        "# Quantized files beside onnxruntime",
        "",
        f"paramrob {paramrob.__version__}, onnxruntime {onnxruntime.__version__}; processor with "
        f"VNNI: {vnni}. {SEEDS * len(KINDS)} trained networks, {files} files, {inputs} random "
        f"inputs each ({total} in all). Equal means that every output is the same step of the "
        "last grid.",
        "",
        "| network | form (activations/weights) | equal, node by node | equal, default fusions | "
        "width proved over sampled |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {r.network} | {r.form} | {r.plain} | {r.fused} | {r.held.ratio:.1f} |"
            for r in found
        ),
        "",
        _deviations(found),
        "",
        "## Exceptions",
        "",
        f"{sum(e.run != 'default' for e in odd)} of {total} results node by node and "
        f"{sum(e.run == 'default' for e in odd)} with default fusions differ. The cause of each "
        "is a number at the node named whose quotient by the scale lies so near to a tie that "
        "onnxruntime's float32 rounds it to the other neighbour: with that number alone turned, "
        "the network that is read returns onnxruntime's result.",
        "",
        _every_rounding(found),
        "",
        "| network | form | run | input | differs by (steps) | node | from a tie (steps) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *map(_exception, odd),
        "",
    ]
    return "\n".join(lines)


def _deviations(found: list[Row]) -> str:
    """Say what comes of samples of the deviation against its bracket."""
    all_of = [row.held for row in found]
    count = sum(h.samples for h in all_of)
    return (
        f"Deviation from the float file over a box of radius {RADIUS} around a data point, both "
        f"files in onnxruntime: of {count} samples {sum(h.outside for h in all_of)} lie outside "
        "the bracket proved for the file as it is specified, "
        f"{sum(h.outside_by_steps for h in all_of)} outside that for executions whose roundings "
        "are off by up to a step. The last column is the median over outputs of the bracket's "
        "width over the samples' range."
    )


def _every_rounding(found: list[Row]) -> str:
    """Say what comes of comparing each rounding alone."""
    all_of = [row.rounded for row in found]
    return (
        f"Given onnxruntime's own numbers before each rounding, {sum(r.odd for r in all_of)} of "
        f"{sum(r.count for r in all_of)} roundings go to another neighbour than the exact one, "
        f"never farther than {max(r.farthest for r in all_of):.0f} step, and none of these lies "
        f"more than {max(r.distance for r in all_of):.1e} steps from a tie."
    )


def _exception(e: Odd) -> str:
    cause = "not found | " if e.tie is None else f"{e.tie.node} | {e.tie.distance:.1e}"
    return f"| {e.network} | {e.form} | {e.run} | {e.input} | {e.steps:.0f} | {cause} |"


@click.command()
@click.option("--inputs", default=1000, show_default=True, help="Random inputs of each file.")
@click.option("--output", default=str(RESULTS), show_default=True, help="Where to write.")
def main(inputs: int, output: str) -> None:
    """Compare quantized files with onnxruntime."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(Path(folder), inputs))
    text = table(found, inputs)
    click.echo(text)
    Path(output).write_text(text, encoding="utf-8")
    unexplained = any(e.tie is None for row in found for e in row.exceptions)
    outside = any(row.held.outside_by_steps for row in found)
    if unexplained or outside or any(row.rounded.farthest > 1 for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The bound pass beside auto_LiRPA: speed, memory and width of the logits' intervals.

    python -m benchmarks.lirpa                    # every row
    python -m benchmarks.lirpa --only "radius"    # rows whose description contains this

Every engine answers every question in a process of its own, on one thread, in float64 unless the
row says that auto_LiRPA runs in float32. Both are given the network and its box beforehand; what is
timed is from the inputs to the intervals, after one call that is not timed, in CPU seconds, which
other work on the machine hardly changes. Random parameters and inputs of the box, and those that a
gradient search finds, are then held against both engines' intervals, and the intervals against each
other.

auto_LiRPA (https://github.com/Verified-Intelligence/auto_LiRPA) is used where it can be imported.
Without it the rows are ours alone. Exit code 1: a logit outside its interval, or intervals that do
not meet.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import paramrob
from benchmarks.graphs import attacked_ends, bound_pass_of, parameter_vectors
from benchmarks.lirpa_run import Answer, Job, question
from paramrob.models.network import Array

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "lirpa.md"
PEER = "auto_LiRPA"
POINTS = {"dense": 100, "conv": 10, "random": 1}
NAMES = {"dense": "64-100-100-10", "conv": "convolutional", "random": "784-512-512-10"}
HEAD = (
    "question", "paramrob: points a second", "GB", f"{PEER}: points a second", "GB",
    "width, ours / theirs: mean", "max", "ours wider",
)  # fmt: skip
WIDER = 1e-6
"""Relative: a difference below it counts as none."""
ROUNDING = 1e-9
SINGLE = 1e-4
"""Relative: what rounding may do to samples' logits in float64, and to bounds in float32."""

OURS = Job("paramrob", "dense", "crown", "0", 0.0, POINTS["dense"], 1)


def questions() -> Iterator[Job]:
    """Yield what is asked, as our own job."""
    for delta in ("0.0005", "0.001", "0.005"):
        boxed = replace(OURS, delta=delta)
        yield replace(boxed, method="ibp", at_once=100)
        yield boxed
        if delta == "0.001":
            yield replace(boxed, single=True)
            yield replace(boxed, at_once=100)
        yield replace(boxed, method="alpha", points=2)
    large = replace(OURS, network="random", delta="0.001", points=POINTS["random"])
    yield large
    yield replace(large, single=True)
    count = POINTS["conv"]
    yield replace(OURS, network="conv", delta="0.001", points=count, at_once=count)
    for radius in (0.01, 0.05):
        yield replace(OURS, radius=radius, at_once=100)
        yield replace(OURS, radius=radius)


def description(job: Job) -> str:
    """Return the question in words."""
    box = f"input radius {job.radius}" if job.radius else f"delta {job.delta}"
    count = f"{job.points} point{'s' if job.points > 1 else ''}"
    if job.points > 1:
        count += ", all at once" if job.at_once >= job.points else ", one at a time"
    kind = f", {PEER} in float32" if job.single else ""
    return f"{NAMES[job.network]}, {box}, {job.method}, {count}{kind}"


@dataclass(frozen=True)
class Pair:
    """Both answers to one question.

    Attributes:
        job: ours.
        ours: our answer.
        theirs: the peer's, or why there is none.
    """

    job: Job
    ours: Answer
    theirs: Answer | str

    def cells(self) -> list[str]:
        """Return the row of the table."""
        row = [description(self.job), *_cost(self.job, self.ours)]
        if isinstance(self.theirs, str):
            return [*row, self.theirs, "", "", "", ""]
        ratio = self.ratio
        more = SINGLE if self.job.single else WIDER
        wider = f"{int((ratio > 1 + more).sum())} of {ratio.size}"
        row += [*_cost(self.job, self.theirs), f"{ratio.mean():.4f}", f"{ratio.max():.4f}"]
        return [*row, wider]

    @cached_property
    def ratio(self) -> Array:
        """Our widths over theirs, ``(points, out)``."""
        if isinstance(self.theirs, str):
            raise ValueError("there is no second answer to compare with")
        ours, theirs = (
            np.subtract(np.array(a.upper), np.array(a.lower)) for a in (self.ours, self.theirs)
        )
        return np.asarray(ours / theirs)

    def contradictions(self, least: Array, most: Array) -> Iterator[str]:
        """Yield what is wrong.

        Args:
            least: smallest logits that were seen in the box, ``(points, out)``.
            most: largest ones.
        """
        name = description(self.job)
        low, high = np.array(self.ours.lower), np.array(self.ours.upper)
        if not _inside(least, most, low, high, ROUNDING):
            yield f"{name}: logits outside paramrob's intervals"
        if isinstance(self.theirs, str):
            return
        off = SINGLE if self.job.single else ROUNDING
        their_low, their_high = np.array(self.theirs.lower), np.array(self.theirs.upper)
        if not _inside(least, most, their_low, their_high, off):
            yield f"{name}: logits outside {PEER}'s intervals"
        last_start, first_end = np.maximum(low, their_low), np.minimum(high, their_high)
        if not (last_start <= first_end + off * (1 + np.abs(first_end))).all():
            yield f"{name}: intervals that do not meet"


def _cost(job: Job, answer: Answer) -> list[str]:
    speed = job.points / statistics.median(answer.seconds)
    return [f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}", f"{answer.peak:.2f}"]


def _inside(least: Array, most: Array, low: Array, high: Array, off: float) -> bool:
    """Whether nothing that was seen lies outside; a NaN does."""
    room = off * (1 + np.maximum(np.abs(least), np.abs(most)))
    return bool(((least >= low - room) & (most <= high + room)).all())


def seen(job: Job, samples: int, attacked: int) -> tuple[Array, Array]:
    """Return the least and largest logits found in the box, ``(job.points, out)``.

    Args:
        job: the question.
        samples: random parameter vectors, each at random inputs of the box.
        attacked: at how many points a gradient search is run for each logit and each end.
    """
    network, x = question(job.network, job.points)
    rng = np.random.default_rng(1)
    least = np.full((len(x), network.output_size), np.inf)
    most = -least
    for chosen in parameter_vectors(network, job.delta, samples):
        moved = x + job.radius * rng.uniform(-1, 1, x.shape)
        logits = network.evaluate(moved.reshape(-1, *network.input_shape), chosen)
        logits = logits.reshape(len(x), -1)
        least, most = np.minimum(least, logits), np.maximum(most, logits)
    few = torch.from_numpy(x[:attacked])
    reached = attacked_ends(bound_pass_of(network, job.delta)[1], few, job.radius)
    least[:attacked] = np.minimum(least[:attacked], reached[0].detach().numpy())
    most[:attacked] = np.maximum(most[:attacked], reached[1].detach().numpy())
    return least, most


def answered(job: Job, limit: float) -> Answer | str:
    """Run a job in a process of its own; a failure comes back in words."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        given.write_text(json.dumps(asdict(job)))
        command = [sys.executable, "-m", "benchmarks.lirpa_run", str(given), str(answer)]
        # The peer chats on both streams; of ours an error is worth seeing.
        errors = None if job.engine == "paramrob" else subprocess.DEVNULL
        try:
            ended = subprocess.run(
                command,
                cwd=ROOT,
                timeout=limit,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"not done in {limit:.0f} s"
        if ended.returncode < 0:
            return f"killed by signal {-ended.returncode} (9: out of memory)"
        if ended.returncode:
            return f"ended with exit code {ended.returncode}"
        read: dict[str, Any] = json.loads(answer.read_text())
    return str(read["failed"]) if "failed" in read else Answer(**read)


def peer() -> str:
    """Return the peer's version, or ``not installed`` and why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(PEER)
    except ImportError as error:
        return f"not installed ({error})"
    return str(getattr(module, "__version__", "of unknown version"))


def main() -> None:
    """Run, print and write the table."""
    options = _options()
    torch.set_num_threads(1)
    version = peer()
    wrong: list[str] = []
    lines = []
    for line in _report(options, version, wrong):
        print(line, flush=True)
        lines.append(line)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


def _report(options: argparse.Namespace, version: str, wrong: list[str]) -> Iterator[str]:
    yield (
        f"paramrob {paramrob.__version__}, {PEER}: {version}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}; one thread, CPU seconds, median of "
        f"{options.repeat} runs over all points (none begun after {options.budget:.0f} s). GB: the "
        "most that the process held, libraries included. Load average at the start: "
        f"{os.getloadavg()[0]:.1f}."
    )
    yield ""
    yield _line(HEAD)
    yield _line(["---"] * len(HEAD))
    held: dict[tuple[Any, ...], tuple[Array, Array]] = {}
    for asked in questions():
        if options.only not in description(asked):
            continue
        pair = _asked(asked, options, "" if version.startswith("not installed") else version)
        yield _line(pair.cells())
        key = (asked.network, asked.delta, asked.radius)
        if key not in held:
            whole = replace(asked, points=min(POINTS[asked.network], options.points))
            held[key] = seen(whole, options.samples, options.attacked)
        least, most = (ends[: pair.job.points] for ends in held[key])
        wrong += pair.contradictions(least, most)
    yield ""
    yield (
        f"Held against {options.samples} random parameter vectors, and a search at the first "
        f"{options.attacked} points: {len(wrong)} contradictions."
    )


def _asked(asked: Job, options: argparse.Namespace, version: str) -> Pair:
    job = replace(asked, repeat=options.repeat, budget=options.budget)
    job = replace(job, points=min(job.points, options.points))
    ours = answered(replace(job, single=False), options.time_limit)
    if isinstance(ours, str):
        sys.exit(f"{description(job)}: paramrob {ours}")
    if not version:
        return Pair(job, ours, "")
    return Pair(job, ours, answered(replace(job, engine="auto_LiRPA"), options.time_limit))


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="rows that contain this")
    parser.add_argument("--points", type=int, default=100, help="points at most (100)")
    parser.add_argument("--samples", type=int, default=200, help="parameter vectors (200)")
    parser.add_argument("--attacked", type=int, default=10, help="points searched (10)")
    parser.add_argument("--repeat", type=int, default=5, help="timed runs (5)")
    parser.add_argument(
        "--budget", type=float, default=40.0, help="seconds after which none is begun (40)"
    )
    parser.add_argument(
        "--time-limit", type=float, default=600.0, help="seconds of a process (600)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the table goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()

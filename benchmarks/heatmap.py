"""`paramrob heatmap` on the case studies: seconds of the whole process, and what stays open.

    python -m benchmarks.heatmap                 # median of 5 runs each
    python -m benchmarks.heatmap --repeat 1

Every run is a process of its own that draws both kinds: 1,000 random points and the regions. The
regions of the last run are then held against inputs drawn at random: behind at most one hidden
layer interval propagation gives the exact range of the logit at an input, up to rounding. Exit
code 1: an input contradicts its region, or a run fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import paramrob
from paramrob.models.network import Activation, Dense, Network

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "heatmap.md"
DELTA = 0.005
CASES = ("cats/model.pt", "athletes/relu.pt", "athletes/linear.pt")
HEAD = (
    "network", "wall s, whole process", "CPU s", "wall s, engine", "points open", "widest bracket",
    "stable", "flippable", "open", "inputs sampled", "contradictions",
)  # fmt: skip
UNSURE = 1e-9
"""A logit this close to the level may fall on either side by rounding here."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """What was measured on one network."""

    name: str
    seconds: list[float]
    cpu: list[float]
    report: dict[str, Any]
    sampled: int
    contradictions: int

    def cells(self) -> list[str]:
        """The row of the table."""
        epsilon, area = self.report["epsilon"], self.report["flips"]["area"]
        widths = np.subtract(epsilon["upper"], epsilon["lower"])
        return [
            self.name,
            f"{statistics.median(self.seconds):.2f} ({max(self.seconds):.2f} at most)",
            f"{statistics.median(self.cpu):.2f}",
            f"{self.report['engine_seconds']:.2f}",
            f"{epsilon['open']} of {epsilon['points']}",
            f"{widths.max():.1e}",
            *(f"{100 * area[state]:.2f} %" for state in ("stable", "flippable", "open")),
            f"{self.sampled}",
            f"{self.contradictions}",
        ]


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each command")
    parser.add_argument("--sample", type=int, default=100_000, help="inputs drawn")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    lines = [_setting(options.repeat), "", _line(HEAD), _line(["---"] * len(HEAD))]
    bad = 0
    print("\n".join(lines), flush=True)
    for name in CASES:
        row = _measured(name, options.repeat, options.sample)
        bad += row.contradictions
        lines.append(_line(row.cells()))
        print(lines[-1], flush=True)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n")
    if bad:
        sys.exit(f"{bad} inputs contradict their regions")


def _setting(repeat: int) -> str:
    return (
        f"`paramrob heatmap MODEL --delta {DELTA} -o FILE.png`, paramrob {paramrob.__version__}, "
        f"torch {version('torch')}, matplotlib {version('matplotlib')}, Python "
        f"{platform.python_version()}, {platform.machine()}; median of {repeat}."
    )


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _measured(name: str, repeat: int, count: int) -> Row:
    model = ROOT / "case_studies" / name
    with tempfile.TemporaryDirectory() as folder:
        report, picture = Path(folder) / "map.json", Path(folder) / "map.png"
        command = [sys.executable, "-m", "paramrob", "heatmap", str(model), "--delta", str(DELTA)]
        runs = [_timed([*command, "-o", str(picture)]) for _ in range(repeat)]
        _timed([*command, "--json", str(report)])
        read = json.loads(report.read_text())
    network = paramrob.load(model).network
    seconds, cpu = ([run[i] for run in runs] for i in (0, 1))
    return Row(name, seconds, cpu, read, count, _contradictions(network, read, count))


def _timed(command: list[str]) -> tuple[float, float]:
    """Run a process; return its wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def _contradictions(network: Network, report: dict[str, Any], count: int) -> int:
    """Return how many random inputs flip where nothing may, or do not where all must."""
    low, high = report["domain"]["lower"], report["domain"]["upper"]
    points = np.random.default_rng(1).uniform(low, high, (count, 2))
    state = _states(report["flips"], points)
    least, middle, most = _reach(network, points)
    flips = np.where(middle > 0, least <= 0, most > 0)
    sure = np.minimum(np.abs(least), np.abs(most)) > UNSURE
    wrong = ((state == "stable") & flips) | ((state == "flippable") & ~flips)
    return int((wrong & sure).sum())


def _states(flips: dict[str, Any], points: Floats) -> npt.NDArray[np.str_]:
    found = np.full(len(points), "nowhere", dtype="<U9")
    order = np.argsort(points[:, 0])
    x = points[order, 0]
    keys = ("x_lower", "x_upper", "y_lower", "y_upper", "state")
    for x0, x1, y0, y1, state in zip(*(flips[key] for key in keys), strict=True):
        rows = order[np.searchsorted(x, x0) : np.searchsorted(x, x1)]
        found[rows[(points[rows, 1] >= y0) & (points[rows, 1] < y1)]] = state
    return found


def _reach(network: Network, points: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the least, nominal and largest logit at each input."""
    least = middle = most = points
    for node in network.nodes[1:]:
        if isinstance(node.op, Dense):
            w = network.parameters[node.op.weight].value
            b = network.parameters[node.op.bias or ""].value
            corners = np.stack(
                [h[:, None] * v for h in (least, most) for v in (w - DELTA, w + DELTA)]
            )
            middle = middle @ w.T + b
            least = corners.min(axis=0).sum(axis=2) + b - DELTA
            most = corners.max(axis=0).sum(axis=2) + b + DELTA
        elif isinstance(node.op, Activation) and node.op.kind == "relu":
            least, middle, most = (np.maximum(h, 0.0) for h in (least, middle, most))
    return least[:, 0], middle[:, 0], most[:, 0]


if __name__ == "__main__":
    main()

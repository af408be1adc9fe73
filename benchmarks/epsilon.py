"""Global epsilon: paramrob beside SCIP on the same problems in one run, on one thread each.

    python -m benchmarks.epsilon                     # everything, median of 5
    python -m benchmarks.epsilon --only 2-10-10 --repeat 1
    python -m benchmarks.epsilon --no-scip --sample  # also try to break the brackets by sampling

Both get the same gap and the same time limit, and the wall time of the whole call is taken. A
run that reaches the limit is not repeated. Exit code 1: the two contradict each other, or a
sample lies outside a bracket.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import pyscipopt
import torch
from threadpoolctl import threadpool_limits

import paramrob
from benchmarks import scip
from benchmarks.networks import Case, cases
from benchmarks.sampling import Sampled, sample
from paramrob.engine import Settings, estimate
from paramrob.verdict import Bracket

RESULTS = Path(__file__).parent / "results" / "epsilon.md"
# SCIP's constraints hold within 1e-6, and its gap is closed only to that.
SCIP_TOLERANCE = 2e-6
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """What both said about one problem; seconds are medians."""

    case: Case
    gap: float
    bracket: Bracket
    seconds: float
    scip: scip.Answer | None
    scip_seconds: float
    sampled: Sampled | None

    @property
    def problems(self) -> list[str]:
        """What cannot be: two brackets that do not meet, a sample outside."""
        found = []
        if self.scip is not None:
            low = max(self.scip.lower, self.bracket.lower)
            high = min(self.scip.upper, self.bracket.upper)
            if low > high + SCIP_TOLERANCE:
                found.append(f"{self.case.name}: the brackets of paramrob and SCIP do not meet")
        if self.sampled is not None and self.sampled.breaks(self.bracket.upper):
            found.append(f"{self.case.name}: a sample moved by {self.sampled.largest!r}")
        return found

    def cells(self) -> list[str]:
        """The row of the table."""
        ours = [*_bracket_cells(self.bracket.lower, self.bracket.upper), f"{self.seconds:.3f}"]
        theirs = ["", "", "", ""]
        if self.scip is not None:
            width, seconds = self.scip.upper - self.scip.lower, f"{self.scip_seconds:.3f}"
            ends = _bracket_cells(self.scip.lower, self.scip.upper)
            theirs = [*ends, "LP error" if self.scip.failed else seconds, self._ratio(width)]
        sampled = f"{self.sampled.largest:.6f}" if self.sampled else ""
        return [self.case.name, f"{self.gap:g}", *ours, *theirs, sampled]

    def _ratio(self, scip_width: float) -> str:
        """SCIP's seconds over ours; a bound where one of the two did not finish."""
        ratio = f"{self.scip_seconds / self.seconds:.3g}"
        ours_open = self.bracket.width > self.gap * 1.001
        theirs_open = scip_width > self.gap * 1.001
        if ours_open and theirs_open:
            return "both open"
        return f"> {ratio}" if theirs_open else f"< {ratio}" if ours_open else ratio


HEAD = (
    "problem", "gap", "paramrob", "width", "s", "SCIP", "width", "s", "SCIP s / paramrob s",
    "sampled",
)  # fmt: skip


def main() -> None:
    """Run, print and write the table."""
    options = _options()
    torch.set_num_threads(1)
    lines = []
    problems: list[str] = []
    with threadpool_limits(1):
        for line, row in _table(options):
            print(line, flush=True)
            lines.append(line)
            problems += row.problems if row else []
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n")
    if problems:
        sys.exit("\n".join(problems))


def _table(options: argparse.Namespace) -> Iterator[tuple[str, Row | None]]:
    yield _setting(options), None
    yield "", None
    yield _line(HEAD), None
    yield _line(["---"] * len(HEAD)), None
    chosen = cases(options.only)
    if chosen:
        estimate(chosen[0].problem(), "epsilon", Settings(timeout=0.1, tolerance=1.0))
    for case in chosen:
        row = _row(case, options)
        yield _line(row.cells()), row


def _row(case: Case, options: argparse.Namespace) -> Row:
    gap = case.gap if options.gap is None else options.gap
    problem, settings = case.problem(), Settings(timeout=options.time_limit, tolerance=gap)
    outcome, seconds = _median(lambda: estimate(problem, "epsilon", settings), options)
    bracket = outcome.brackets["epsilon"]
    answer, scip_seconds = None, 0.0
    if not options.no_scip:
        limits = scip.Limits(gap, options.time_limit)
        answer, scip_seconds = _median(lambda: scip.solve(case, limits), options)
    sampled = None
    if options.sample:
        worst = None if bracket.witness is None else bracket.witness.input
        sampled = sample(case, worst, options.sample)
    return Row(case, gap, bracket, seconds, answer, scip_seconds, sampled)


def _median(run: Callable[[], T], options: argparse.Namespace) -> tuple[T, float]:
    """Return the last result and the median wall seconds."""
    seconds: list[float] = []
    while True:
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
        if len(seconds) >= options.repeat or seconds[-1] >= 0.95 * options.time_limit:
            return result, statistics.median(seconds)


def _setting(options: argparse.Namespace) -> str:
    return (
        f"paramrob {paramrob.__version__}, SCIP {pyscipopt.Model().version()} (PySCIPOpt "
        f"{version('PySCIPOpt')}), Python {platform.python_version()}, {platform.machine()}; "
        f"one thread each, median of {options.repeat}, time limit {options.time_limit:g} s."
    )


def _bracket_cells(lower: float, upper: float) -> list[str]:
    return [f"[{lower:.7f}, {upper:.7f}]", f"{upper - lower:.1e}"]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="the median of this many (5)")
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a call (10)")
    parser.add_argument("--gap", type=float, help="bracket width (1e-3; case studies 1e-6)")
    parser.add_argument("--no-scip", action="store_true", help="leave SCIP out")
    parser.add_argument(
        "--sample", type=int, nargs="?", const=100_000, default=0, help="vectors tried (100000)"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="where the table goes (results/epsilon.md)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

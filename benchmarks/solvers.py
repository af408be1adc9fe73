"""Estimation through each solver, beside the bound engine's bracket.

    python -m benchmarks.solvers                  # cats and both athletes networks
    python -m benchmarks.solvers --only cats      # problems whose name contains it
    python -m benchmarks.solvers --solvers z3 icp --time-limit 30

Each solver is asked in four ways: the direct and the aggregated formula, each with and without
presolve. Two things are asked of each way. *Estimate*: the bracket of epsilon, or of sigma above
and below the level. *Decide*: the property just below the bound engine's bracket, where it fails,
and just above, where it holds, ``--apart`` of the value away; both have to be answered. An
estimate with presolve starts from what the bound engine believes (nothing is concluded from it);
a decision has nothing to start from.

Exit code 1: a bracket that does not meet the bound engine's, or a verdict that contradicts it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import torch
from threadpoolctl import threadpool_limits

import paramrob
from benchmarks.networks import Case, case_study_cases
from paramrob.backends import backends
from paramrob.crosscheck import check_agreement
from paramrob.engine import Encoding, Settings, decide, estimate
from paramrob.errors import BackendError, SoundnessError
from paramrob.problem import Problem
from paramrob.properties import Property, Quantity
from paramrob.verdict import Bracket, Outcome, Verdict

RESULTS = Path(__file__).parent / "results" / "solvers.md"
DELTA = Fraction("0.005")
QUANTITIES: tuple[Quantity, ...] = ("epsilon", "sigma")
HEAD = (
    "problem", "quantity", "solver", "encoding", "presolve", "bracket", "width", "s",
    "decide below", "s", "decide above", "s",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One way to ask: a solver, a formula, and whether its variables are bounded beforehand."""

    solver: str
    encoding: Encoding | None = None
    presolve: bool = True

    def settings(self, options: argparse.Namespace) -> Settings:
        """Return the engine's settings."""
        return Settings(
            self.solver,
            timeout=options.time_limit,
            tolerance=options.tolerance,
            encoding=self.encoding,
            presolve=self.presolve,
        )

    def cells(self) -> list[str]:
        """Return the part of a row that names it."""
        if self.encoding is None:
            return [self.solver, "", ""]
        return [self.solver, self.encoding, "yes" if self.presolve else "no"]


@dataclass(frozen=True)
class Timed:
    """An outcome, or ``None`` with the reason, and the wall seconds of the whole call."""

    outcome: Outcome | None
    seconds: float
    reason: str = ""


def main() -> None:
    """Run, print and write the table."""
    options = _options()
    torch.set_num_threads(1)
    wrong: list[str] = []
    lines = []
    with threadpool_limits(1):
        for line in _table(options, wrong):
            print(line, flush=True)
            lines.append(line)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


def _table(options: argparse.Namespace, wrong: list[str]) -> Iterator[str]:
    installed = {b.name: b.version for b in backends() if b.version is not None}
    chosen = [name for name in options.solvers if name in installed]
    versions = ", ".join(f"{name} {installed[name]}" for name in chosen)
    yield (
        f"paramrob {paramrob.__version__}, {versions or 'no solver'}, Python "
        f"{platform.python_version()}, {platform.machine()}; one thread, one run each, time limit "
        f"{options.time_limit:g} s, tolerance {options.tolerance:g}."
    )
    missing = [name for name in options.solvers if name not in installed]
    if missing:
        yield ""
        yield f"Not installed here: {', '.join(missing)}."
    yield ""
    yield _line(list(HEAD))
    yield _line(["---"] * len(HEAD))
    ways = [
        Way(name, encoding, presolve)
        for name in chosen
        for encoding in get_args(Encoding)
        for presolve in (True, False)
    ]
    for case in _cases(options.only):
        _warm_up(case)
        for quantity in QUANTITIES:
            for row in _rows(case, quantity, ways, options, wrong):
                yield _line(row)


def _cases(only: str) -> list[Case]:
    return [c for c in case_study_cases() if c.delta == DELTA and only in c.name]


def _warm_up(case: Case) -> None:
    """Import what is imported when first used."""
    estimate(case.problem(), "epsilon", Settings("bounds", timeout=0.1, tolerance=1.0))


def _rows(
    case: Case,
    quantity: Quantity,
    ways: list[Way],
    options: argparse.Namespace,
    wrong: list[str],
) -> Iterator[list[str]]:
    problem = case.problem()
    bounds = Way("bounds")
    # What the others are held against is as narrow as the case study asks.
    told = _timed(
        lambda: estimate(problem, quantity, replace(bounds.settings(options), tolerance=case.gap))
    )
    if told.outcome is None:
        raise BackendError(told.reason)
    truth = told.outcome
    yield [case.name, quantity, *bounds.cells(), *_estimated(told), "", "", "", ""]
    for way in ways:
        settings = way.settings(options)
        found = _timed(lambda s=settings: estimate(problem, quantity, s))  # type: ignore[misc]
        wrong += _contradictions(case, way, problem, truth, found)
        sides = []
        for below in (True, False):
            asked, expected = _side(problem, quantity, truth.brackets, below, options.apart)
            said = _timed(lambda p=asked, s=settings: decide(p, s))  # type: ignore[misc]
            wrong += _contradictions(case, way, asked, Outcome(expected), said)
            sides += _decided(said)
        yield [case.name, quantity, *way.cells(), *_estimated(found), *sides]


def _side(
    problem: Problem,
    quantity: Quantity,
    brackets: Mapping[str, Bracket],
    below: bool,
    apart: float,
) -> tuple[Problem, Verdict]:
    """Return the property a share of the value below the bracket, or above, and its answer."""
    end = max(b.lower if below else b.upper for b in brackets.values())
    value = Fraction(end) * (1 + Fraction(-apart if below else apart))
    asked = (
        Property("confidence", epsilon=value)
        if quantity == "epsilon"
        else Property("margin", sigma=value)
    )
    return replace(problem, property=asked), Verdict.NOT_ROBUST if below else Verdict.ROBUST


def _timed(run: Callable[[], Outcome]) -> Timed:
    start = time.perf_counter()
    try:
        outcome = run()
    except BackendError as error:
        return Timed(None, time.perf_counter() - start, str(error))
    return Timed(outcome, time.perf_counter() - start)


def _contradictions(
    case: Case, way: Way, problem: Problem, truth: Outcome, found: Timed
) -> list[str]:
    if found.outcome is None:
        return []
    try:
        check_agreement(problem, truth, found.outcome)
    except SoundnessError as error:
        return [f"{case.name}, {' '.join(way.cells())}: {error}"]
    return []


def _estimated(found: Timed) -> list[str]:
    if found.outcome is None:
        return [found.reason, "", ""]
    brackets = found.outcome.brackets.values()
    ends = "<br>".join(f"[{b.lower:.7f}, {b.upper:.7f}]" for b in brackets)
    widths = "<br>".join(f"{b.width:.1e}" for b in brackets)
    return [ends, widths, f"{found.seconds:.2f}"]


def _decided(said: Timed) -> list[str]:
    if said.outcome is None or said.outcome.verdict is None:
        return ["refused", ""]
    return [said.outcome.verdict.value.replace("_", " "), f"{said.seconds:.2f}"]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    solvers = ["z3", "dreal", "icp"]
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--solvers", nargs="+", choices=solvers, default=solvers)
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a call (10)")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="bracket width (1e-6)")
    parser.add_argument(
        "--apart", type=float, default=0.02, help="of a decision from the value, relative (0.02)"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="where the table goes (results/solvers.md)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

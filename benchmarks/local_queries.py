"""Twenty local questions about 2-16-16-1 networks, through Z3 and the aggregated formula.

    python -m benchmarks.local_queries              # prints the table and writes it
    python -m benchmarks.local_queries --cold       # a new Z3 process for every question
    python -m benchmarks.local_queries --repeat 1

How far can the confidence move at one input, all parameters within 0.005? The bound engine tells
the value; Z3 is asked whether the confidence moves by more than slightly less (it does) and by
more than slightly more (it does not), ``--apart`` of the value away.

Exit code 1: an answer that contradicts the bound engine's bracket.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import paramrob
from benchmarks.networks import Case, random_layers, read_layers, trained_file
from paramrob.domain import Point
from paramrob.engine import Settings, decide, estimate
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.solvers.keep import kept_solvers
from paramrob.solvers.registry import solver_class
from paramrob.verdict import Verdict

RESULTS = Path(__file__).parent / "results" / "local_queries.md"
WIDTHS = (2, 16, 16, 1)
DELTA = Fraction("0.005")
POINTS = 5
SEED = 0
HEAD = ("network", "input", "epsilon", "asked", "answer", "s")


@dataclass(frozen=True)
class Question:
    """One problem with its property, and the answer that the bound engine's bracket implies."""

    network: str
    problem: Problem
    epsilon: float
    asked: Fraction
    expected: Verdict


@dataclass(frozen=True)
class Answered:
    """The verdicts of all runs of a question and their wall seconds."""

    question: Question
    verdicts: tuple[Verdict | None, ...]
    seconds: tuple[float, ...]

    @property
    def wrong(self) -> bool:
        """Whether a run contradicts the bound engine (leaving it open does not)."""
        return bool(set(self.verdicts) - {self.question.expected, Verdict.UNKNOWN})

    def cells(self) -> list[str]:
        """Return the row of the table."""
        asked = self.question
        point = asked.problem.domain.inner()[0]
        said = sorted({"none" if v is None else v.value for v in self.verdicts})
        return [
            asked.network,
            ", ".join(f"{v:.4f}" for v in point),
            f"{asked.epsilon:.6g}",
            f"{float(asked.asked):.6g}",
            " / ".join(said).replace("_", " "),
            f"{statistics.median(self.seconds):.2f}",
        ]


def main() -> None:
    """Run, print and write the table."""
    options = _options()
    torch.set_num_threads(1)
    answered = []
    with threadpool_limits(1):
        questions = list(_questions(options.apart))
        # What is imported once, here and in a process that is kept, is no question's time.
        with nullcontext() if options.cold else kept_solvers():
            _seconds(replace(questions[0], asked=Fraction(1)), options.time_limit)
            for question in questions:
                answered.append(_answered(question, options))
                print(_line(answered[-1].cells()), flush=True)
    text = "\n".join(_table(answered, options)) + "\n"
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text)
    print(_summary(answered))
    if any(a.wrong for a in answered):
        sys.exit("an answer contradicts the bound engine; see the table")


def _questions(apart: float) -> Iterator[Question]:
    rng = np.random.default_rng(SEED)
    for origin in ("random", "trained"):
        layers = random_layers(WIDTHS) if origin == "random" else read_layers(trained_file(WIDTHS))
        problem = Case(origin, layers, DELTA).problem()
        for x in rng.uniform(0, 1, (POINTS, WIDTHS[0])):
            here = replace(problem, domain=Point(tuple(x.tolist())))
            told = estimate(here, "epsilon", Settings("bounds", tolerance=1e-12, timeout=10.0))
            bracket = told.brackets["epsilon"]
            for end, share, expected in (
                (bracket.lower, 1 - apart, Verdict.NOT_ROBUST),
                (bracket.upper, 1 + apart, Verdict.ROBUST),
            ):
                asked = Fraction(end) * Fraction(share)
                property_ = Property("confidence", epsilon=asked)
                yield Question(
                    f"{origin} {here.reference.architecture}",
                    replace(here, property=property_),
                    bracket.lower,
                    asked,
                    expected,
                )


def _answered(question: Question, options: argparse.Namespace) -> Answered:
    runs = [_seconds(question, options.time_limit) for _ in range(options.repeat)]
    return Answered(question, tuple(v for v, _ in runs), tuple(s for _, s in runs))


def _seconds(question: Question, time_limit: float) -> tuple[Verdict | None, float]:
    settings = Settings("z3", encoding="aggregated", timeout=time_limit)
    start = time.perf_counter()
    verdict = decide(question.problem, settings).verdict
    return verdict, time.perf_counter() - start


def _table(answered: list[Answered], options: argparse.Namespace) -> Iterator[str]:
    version = solver_class("z3").state().version
    process = (
        "a new process for every question"
        if options.cold
        else "one process for all, started and warmed up before the clock, as are imports here"
    )
    yield (
        f"paramrob {paramrob.__version__}, z3 {version}, Python {platform.python_version()}, "
        f"{platform.machine()}; one thread, wall seconds of a whole decision (ranges, formula, Z3, "
        f"replay), median of {options.repeat}; Z3 in {process}; delta {float(DELTA)}, asked "
        f"{options.apart:.0%} below and above the value."
    )
    yield ""
    yield _line(list(HEAD))
    yield _line(["---"] * len(HEAD))
    for found in answered:
        yield _line(found.cells())
    yield ""
    yield _summary(answered)


def _summary(answered: list[Answered]) -> str:
    medians = [statistics.median(a.seconds) for a in answered]
    slowest = max(s for a in answered for s in a.seconds)
    verdicts = [v for a in answered for v in a.verdicts[:1]]
    counts = {word: verdicts.count(word) for word in (Verdict.NOT_ROBUST, Verdict.ROBUST)}
    left = len(verdicts) - sum(counts.values())
    return (
        f"{len(answered)} questions: {counts[Verdict.NOT_ROBUST]} not robust, "
        f"{counts[Verdict.ROBUST]} robust, {left} open. Largest median {max(medians):.2f} s, "
        f"slowest single run {slowest:.2f} s, mean {statistics.mean(medians):.2f} s."
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each question (3)")
    parser.add_argument("--cold", action="store_true", help="a new Z3 process every time")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a question (10)")
    parser.add_argument(
        "--apart", type=float, default=0.02, help="threshold from the value, relative (0.02)"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="where it goes (results/local_queries.md)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Random small problems through every installed engine: no two may contradict each other.

    python -m tests.fuzz_engines --count 200 --seed 0

prints one summary line; the exit code is 1 where engines contradict each other. Without
``--quiet`` every problem has a line of its own.

Problem ``i`` of a seed is always the same, but that half of the thresholds lie within a few
percent or less of what the bound engine brackets, where engines are the likeliest to differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from paramrob import engine
from paramrob.crosscheck import check_agreement
from paramrob.domain import Box, Domain, Point
from paramrob.engine import Settings
from paramrob.errors import BackendError, SoundnessError
from paramrob.models.model import OutputKind
from paramrob.models.network import Array, Dense, Network, Parameter
from paramrob.problem import Problem
from paramrob.properties import Property, Quantity
from paramrob.solvers.registry import states
from paramrob.verdict import Outcome, Verdict
from tests.known_problems import problem, random_network

HIDDEN = ("relu", "relu", "relu", "leaky_relu", "identity", "sigmoid", "tanh")
WIDTHS = ((1, 1), (1, 3, 1), (2, 3, 1), (2, 2, 2, 1), (3, 4, 1), (2, 3, 2), (2, 3, 3), (1, 2, 2, 1))
DELTAS = ("0", "0.001", "0.01", "0.05", "0.2")


@dataclass
class Tally:
    """What came of a run; ``decided`` counts answers by engine, ``contradictions`` are texts."""

    problems: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        engines = ", ".join(f"{n} {self.decided[n]}/{self.answers[n]}" for n in self.answers)
        return (
            f"{self.problems} problems, {len(self.contradictions)} contradictions; decided: "
            f"{engines}; {self.seconds:.0f} s"
        )


def engines(seconds: float) -> dict[str, Settings]:
    """Return the engines that are installed here, with what to call them."""
    found = {"bounds": Settings("bounds", timeout=seconds, tolerance=1e-4)}
    for solver, state in states():
        name = solver.capabilities.name
        if state.version is None:
            continue
        for encoding in ("aggregated", "direct"):
            found[f"{name} {encoding}"] = Settings(
                name, timeout=seconds, tolerance=1e-3, encoding=encoding
            )
    return found


def make(seed: int, index: int) -> tuple[Problem, Quantity | None]:
    """Return one random problem, and the quantity to estimate where none is to be decided."""
    rng = np.random.default_rng([seed, index])
    widths = WIDTHS[rng.integers(len(WIDTHS))]
    kind = HIDDEN[rng.integers(len(HIDDEN))]
    domain = _domain(rng, widths[0])
    network = random_network(rng, widths, kind)
    if rng.uniform() < 0.7:
        network = _through(network, rng.uniform(*domain.inner()))
    reference = None
    if rng.uniform() < 0.15:
        reference = random_network(rng, widths, kind)
    subject = problem(
        network,
        domain,
        Fraction(DELTAS[rng.integers(len(DELTAS))]),
        *_output(rng, widths[-1]),
        reference=reference,
    )
    has_labels = subject.output.kind != "value" or widths[-1] == 1
    if rng.uniform() < 0.3:
        return subject, "sigma" if has_labels and rng.uniform() < 0.5 else "epsilon"
    return _near(rng, replace(subject, property=_property(rng, has_labels))), None


def _through(network: Network, x: Array) -> Network:
    """Return the network with its boundary close to an input (at the level 1/2 of a logit)."""
    last = network.final_node.op
    if not isinstance(last, Dense) or last.bias is None:
        return network
    away = network.evaluate(x[None])[0]
    moved = [
        Parameter(p.name, (p.value - away).round(3)) if p.name == last.bias else p
        for p in network.parameters.values()
    ]
    return Network(network.nodes, moved)


def _near(rng: np.random.Generator, subject: Problem) -> Problem:
    """Return half of the problems with a threshold close to where the answer changes."""
    asked, close = subject.property, rng.uniform() < 0.5
    share = rng.choice([-1, 1]) * 10 ** -rng.uniform(1.5, 4.5)
    if asked is None or asked.name == "labels" or not close:
        return subject
    quantity: Quantity = "epsilon" if asked.name == "confidence" else "sigma"
    quick = Settings("bounds", timeout=0.5, tolerance=1e-5)
    found = engine.estimate(replace(subject, property=None), quantity, quick).brackets.values()
    value = max(b.lower for b in found)
    if value <= 0:
        return subject
    threshold = Fraction(f"{value * (1 + share):.6g}")
    return replace(
        subject,
        property=Property("confidence", epsilon=threshold)
        if quantity == "epsilon"
        else Property("margin", sigma=threshold),
    )


def _output(rng: np.random.Generator, outputs: int) -> tuple[OutputKind, Fraction | None]:
    if rng.uniform() < 0.3:
        return "value", Fraction(str(round(rng.normal() / 2, 2))) if outputs == 1 else None
    if outputs > 1:
        return "logits", None
    return "logit", Fraction(("0.5", "0.5", "0.3", "0.9")[rng.integers(4)])


def _domain(rng: np.random.Generator, size: int) -> Domain:
    x = rng.normal(size=size).round(2)
    if rng.uniform() < 0.4:
        return Point(tuple(x))
    half = np.abs(rng.normal(size=size)).round(2) * (rng.uniform(size=size) > 0.15)
    ends = [(Fraction(str(a)), Fraction(str(b))) for a, b in zip(x, half, strict=True)]
    return Box(tuple(a - b for a, b in ends), tuple(a + b for a, b in ends))


def _property(rng: np.random.Generator, has_labels: bool) -> Property:
    threshold = Fraction(str(round(abs(rng.normal()) / 8, 4)))
    choice = rng.integers(3) if has_labels else 0
    if choice == 0:
        return Property("confidence", epsilon=threshold)
    return Property("labels") if choice == 1 else Property("margin", sigma=threshold)


def answers(
    subject: Problem, quantity: Quantity | None, chosen: dict[str, Settings]
) -> dict[str, Outcome]:
    """Return what each engine says; one that cannot express the problem is left out."""
    found = {}
    for name, settings in chosen.items():
        try:
            if quantity is None:
                outcome = engine.decide(subject, settings)
            else:
                outcome = engine.estimate(subject, quantity, settings)
        except BackendError:
            continue
        found[name] = replace(outcome, solver=name)
    return found


def decided(outcome: Outcome, tolerance: float) -> bool:
    """Whether an engine answered, or closed its brackets."""
    if outcome.verdict is not None:
        return outcome.verdict is not Verdict.UNKNOWN
    return all(b.width <= tolerance for b in outcome.brackets.values())


def run(
    indices: Sequence[int], seed: int, chosen: dict[str, Settings], quiet: bool = True
) -> Tally:
    """Ask every engine about every problem and compare each two of them."""
    tally = Tally()
    started = time.monotonic()
    for index in indices:
        subject, quantity = make(seed, index)
        tally.problems += 1
        try:
            found = answers(subject, quantity, chosen)
            said = list(found.values())
            for i, first in enumerate(said):
                for second in said[i + 1 :]:
                    check_agreement(subject, first, second)
        except SoundnessError as error:
            tally.contradictions.append(f"problem {index}: {error}")
            print(tally.contradictions[-1], file=sys.stderr, flush=True)
            continue
        for name, outcome in found.items():
            tally.answers[name] += 1
            tally.decided[name] += decided(outcome, chosen[name].tolerance)
        if not quiet:
            print(index, _shown(subject, quantity), _said(found), flush=True)
    tally.seconds = time.monotonic() - started
    return tally


def _shown(subject: Problem, quantity: Quantity | None) -> str:
    asked = quantity if subject.property is None else subject.property.name
    return f"{subject.reference.architecture} {subject.output.kind} {subject.domain.scope} {asked}:"


def _said(found: dict[str, Outcome]) -> str:
    return "; ".join(
        f"{name} {outcome.verdict.value}"
        if outcome.verdict is not None
        else f"{name} {[(round(b.lower, 5), round(b.upper, 5)) for b in outcome.brackets.values()]}"
        for name, outcome in found.items()
    )


def main() -> int:
    """Run, print the summary line; 1 where engines contradict each other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="how many problems (200)")
    parser.add_argument("--seed", type=int, default=0, help="which problems (0)")
    parser.add_argument("--first", type=int, default=0, help="the first problem's number (0)")
    parser.add_argument("--seconds", type=float, default=2.0, help="each engine's time (2)")
    parser.add_argument("--quiet", action="store_true", help="the summary line alone")
    options = parser.parse_args()
    indices = range(options.first, options.first + options.count)
    tally = run(indices, options.seed, engines(options.seconds), options.quiet)
    print(f"seed {options.seed}: {tally}")
    return 1 if tally.contradictions else 0


if __name__ == "__main__":
    sys.exit(main())

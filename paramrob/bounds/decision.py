"""Deciding a property and estimating a quantity with the bound engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import torch

from paramrob.bounds.ascent import Candidate
from paramrob.bounds.assess import Assessor
from paramrob.bounds.branch import Explorer, Goal, Search
from paramrob.bounds.chain import Chain, build_chain
from paramrob.bounds.decode import decode
from paramrob.bounds.goals import change_targets, flip_targets
from paramrob.bounds.linear import BoundPass, Boxes
from paramrob.bounds.rounding import check_arithmetic, magnitudes
from paramrob.bounds.targets import Target
from paramrob.engine import Settings
from paramrob.errors import BackendError, InputError, ReplayError
from paramrob.exact import float_below
from paramrob.largest_delta import largest_delta
from paramrob.problem import Problem, check_labels
from paramrob.properties import Quantity
from paramrob.replay import refutes, replay
from paramrob.verdict import (
    INTERRUPTED,
    Approximation,
    Bracket,
    Interval,
    Outcome,
    Status,
    Verdict,
    Witness,
    verdict_from,
)

FAR = "no witness close to the proved end was found; ask again on a smaller box around the best"
NARROW = 128
"""Up to this width of a layer one thread is the faster."""
PRESPLIT = 6
"""Up to so many inputs, a domain that holds 0 is split there at once: |x| is linear then."""


@dataclass(frozen=True)
class _Run:
    """A problem made ready for the bound pass."""

    problem: Problem
    settings: Settings
    chain: Chain
    assessor: Assessor
    start: Boxes
    deadline: float

    def search(
        self,
        targets: list[Target],
        goal: Goal,
        name: str,
        deadline: float | None = None,
        found: Callable[[Target, Candidate], bool] | None = None,
    ) -> Search:
        """Run branch and bound on the targets."""
        progress = self.settings.progress
        explorer = Explorer(
            self.assessor,
            goal,
            deadline or self.deadline,
            found,
            None if progress is None else lambda low, high: progress(name, max(low, 0.0), high),
        )
        with threads(self.chain):
            return explorer.run(targets, self.start)

    def witness(self, candidate: Candidate) -> Witness | None:
        """Return the candidate as a witness that survived exact replay, or ``None``."""
        x = candidate.x.cpu().numpy()
        theta = {
            name: share.cpu().numpy()
            for name, share in zip(self.chain.sources, candidate.theta, strict=True)
            if name is not None
        }
        try:
            return replay(self.problem, x, decode(self.problem, x, theta))
        except ReplayError:
            return None


@contextmanager
def threads(chain: Chain) -> Iterator[None]:
    """Use one thread for narrow networks: handing small operations around costs more."""
    before = torch.get_num_threads()
    if max(layer.weight.shape[0] for layer in chain.layers) <= NARROW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ready(problem: Problem, settings: Settings, deadline: float) -> _Run:
    if settings.device != "cpu":
        raise BackendError(f"device {settings.device!r} is not supported yet; use --device cpu")
    check_arithmetic()
    chain = build_chain(problem)
    low, high = (torch.from_numpy(a) for a in problem.domain.outer())
    inner = [torch.from_numpy(a) for a in problem.domain.inner()]
    bound_pass = BoundPass(chain, magnitudes(chain, low, high))
    widest = max(layer.weight.shape[0] for layer in chain.layers)
    batch = max(8, min(1024, 1_500_000 // (4 * widest * widest)))
    steps = 0 if not chain.activations else 10
    assessor = Assessor(bound_pass, inner[0], inner[1], steps, batch, settings.seed)
    return _Run(problem, settings, chain, assessor, _start(low, high), deadline)


def _start(low: torch.Tensor, high: torch.Tensor) -> Boxes:
    lower, upper = low[None], high[None]
    if low.numel() > PRESPLIT:
        return Boxes(lower, upper)
    for i in range(low.numel()):
        if low[i] < 0 < high[i]:
            left, right = upper.clone(), lower.clone()
            left[:, i] = right[:, i] = 0.0
            lower, upper = torch.cat([lower, right]), torch.cat([left, upper])
    return Boxes(lower, upper)


def decide(problem: Problem, settings: Settings) -> Outcome:
    """Decide ``problem.property``.

    Raises:
        InputError: no property is asked.
        BackendError: the engine cannot express the problem.
    """
    started = time.monotonic()
    if problem.property is None:
        raise InputError("no property to decide; give one or estimate a quantity")
    outcome = _decide(problem, settings, started + settings.timeout)
    return replace(outcome, engine_seconds=time.monotonic() - started)


def _within(settings: Settings, problem: Problem, seconds: float) -> Outcome:
    return _decide(problem, settings, time.monotonic() + seconds)


def _decide(problem: Problem, settings: Settings, deadline: float) -> Outcome:
    run = _ready(problem, settings, deadline)
    asked = problem.property
    if asked is None:
        raise InputError("no property to decide; give one or estimate a quantity")
    if run.chain.is_rigid():
        return Outcome(Verdict.ROBUST, exact_encoding=run.chain.exact)
    found: list[Witness] = []

    def accept(target: Target, candidate: Candidate) -> bool:
        if asked.epsilon is not None and not candidate.value > float(asked.epsilon):
            return False
        witness = run.witness(candidate)
        if witness is None or not refutes(problem, witness):
            return False
        found.append(witness)
        return True

    if asked.name == "confidence":
        targets: list[Target] = list(change_targets(run.chain))
        goal = Goal(threshold=float_below(asked.epsilon or Fraction(0)))
    else:
        targets = [t for side in flip_targets(problem, run.chain).values() for t in side]
        goal = Goal(threshold=float_below(asked.sigma or Fraction(0)), strict=True)
    search = run.search(targets, goal, asked.name, found=accept)
    status = Status.UNKNOWN
    if found:
        status = Status.SAT
    elif bool(goal.done(torch.tensor([search.upper], dtype=torch.float64), -math.inf).all()):
        status = Status.UNSAT
    approximation = Approximation.EXACT if run.chain.exact else Approximation.OVER
    witness = found[-1] if found else None
    verdict = verdict_from(status, approximation, witness)
    reason = None
    if verdict is Verdict.UNKNOWN:
        reason = search.reason or "the search ended with boxes that it could not decide"
    return Outcome(verdict, reason, witness=witness, exact_encoding=run.chain.exact)


def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
    """Bracket a quantity.

    Raises:
        InputError: no such quantity, or one that needs labels or a property that are missing.
        BackendError: the engine cannot express the problem.
    """
    started = time.monotonic()
    deadline = started + settings.timeout
    if quantity == "epsilon":
        outcome = _epsilon(_ready(problem, settings, deadline))
    elif quantity == "sigma":
        check_labels(problem.reference, problem.output)
        outcome = _sigma(_ready(problem, settings, deadline))
    elif quantity == "delta":
        outcome = largest_delta(problem, settings, settings.timeout, partial(_within, settings))
    else:
        raise InputError(f"no quantity {quantity!r}; choose epsilon, sigma or delta")
    return replace(outcome, engine_seconds=time.monotonic() - started)


def _epsilon(run: _Run) -> Outcome:
    if run.chain.is_rigid():
        return Outcome(brackets={"epsilon": Bracket(0.0, 0.0)}, exact_encoding=run.chain.exact)
    goal = Goal(tolerance=0.9 * run.settings.tolerance, floor=0.0)
    search = run.search(list(change_targets(run.chain)), goal, "epsilon")
    bracket = _bracket(run, search, lambda w: w.change)
    return _estimated(run, {"epsilon": bracket}, [search])


def _sigma(run: _Run) -> Outcome:
    sides = flip_targets(run.problem, run.chain)
    if run.chain.is_rigid():
        still = {name: Bracket(0.0, 0.0) for name in sides}
        return Outcome(brackets=still, exact_encoding=run.chain.exact)
    goal = Goal(tolerance=0.9 * run.settings.tolerance, floor=0.0)
    brackets, searches = {}, []
    for left, (name, targets) in zip(range(len(sides), 0, -1), sides.items(), strict=True):
        now = time.monotonic()
        limit = now + max(run.deadline - now, 0.0) / left
        search = run.search(targets, goal, name, limit)
        searches.append(search)
        brackets[name] = _bracket(run, search, partial(_flipped_margin, name))
        if search.reason == INTERRUPTED:
            break
    for name in sides.keys() - brackets.keys():
        brackets[name] = Bracket(0.0, max(t.largest for t in sides[name]))
    return _estimated(run, brackets, searches)


def _flipped_margin(side: str, witness: Witness) -> Interval | None:
    """Return the margin if the label flips, and on that side: replay may see another flip."""
    first, second = witness.labels
    if first is None or second is None or first == second:
        return None
    starts_at = {"sigma_above": 1, "sigma_below": 0}.get(side, first)
    return witness.margin if first == starts_at else None


def _bracket(run: _Run, search: Search, measure: Callable[[Witness], Interval | None]) -> Bracket:
    """Return the bracket; its lower end is what the witness attains in exact replay."""
    upper = math.inf if math.isnan(search.upper) else max(search.upper, 0.0)
    witness = run.witness(search.best) if search.best else None
    attained = measure(witness) if witness else None
    if witness is None or attained is None or not attained.lower > 0:
        return Bracket(0.0, upper)
    return Bracket(attained.lower, upper, witness)


def _estimated(run: _Run, brackets: dict[str, Bracket], searches: list[Search]) -> Outcome:
    reason = None
    if any(b.width > run.settings.tolerance for b in brackets.values()):
        reasons = [s.reason for s in searches if s.reason]
        reason = reasons[0] if reasons else FAR
    return Outcome(None, reason, brackets=brackets, exact_encoding=run.chain.exact)

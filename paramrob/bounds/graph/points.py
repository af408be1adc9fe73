"""Many points at once: the cheapest bound that decides each, then a search, then finer bounds.

The points share their networks and perturbation; each is an input, or a small box around one
whose reference is taken at its centre.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.attack import Attack
from paramrob.bounds.graph.batches import in_batches
from paramrob.bounds.graph.chunk import TIME_UP, Chunk, left_open
from paramrob.bounds.graph.crown import CACHED, Analysis, GraphPass
from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.program import link_of, lower
from paramrob.bounds.graph.sharpen import sharpened
from paramrob.bounds.graph.specification import Lead, Specification
from paramrob.bounds.rounding import check_arithmetic
from paramrob.engine import Method
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.verdict import Bracket, Outcome

METHODS: tuple[Method, ...] = ("crown-ibp", "crown", "alpha")
"""In the order of their cost."""
ALPHA_STEPS = 20
FIRST_BATCH = 16
"""Points that go first where answers are wanted as they come."""
NO_MEMORY = "this point needs more memory than there is; raise --memory, or use a smaller network"
MEMORY = 1 << 30
"""Bytes that a pass may use by default, roughly."""
ROWS = 8
"""Of each point, rows that a pass on a CPU should hold at least."""
SHARE = 8
"""Of the memory, what one backward pass may hold: copies and gradients come on top."""


@dataclass(frozen=True)
class Proof:
    """What bounds say of some instances.

    Attributes:
        least: proved least values of the rows, ``(batch, rows)``.
        slack: how far each instance is proved, ``(batch,)``, on the CPU.
        at: the instances that the last analysis was about, ``(some,)``.
        analysis: that one.
    """

    least: Tensor
    slack: Tensor
    at: Tensor
    analysis: Analysis


class PointsPass:
    """Bounds and searches of one pair of networks at many points.

    Args:
        problem: any of the problems; domain and property are each problem's own.
        device: ``cpu`` or ``cuda``.
        memory: bytes that the pass may use, roughly.
        method: the only one to use; all by default, the cheapest first.

    Raises:
        BackendError: a layer that the bound pass does not know.
    """

    def __init__(
        self,
        problem: Problem,
        device: str = "cpu",
        memory: int = MEMORY,
        method: Method | None = None,
    ) -> None:
        check_arithmetic()
        uncertain = problem.uncertain
        self.device = device
        self.methods = METHODS if method is None else (method,)
        self.splits = method is None
        self.arithmetic, self.semantics = problem.arithmetic, problem.semantics
        program = lower(
            uncertain.network, uncertain.perturbation, problem.output, device, problem.arithmetic
        )
        self.budget = max(memory // (8 * SHARE), 1)
        self.uncertain = GraphPass(program, self.budget)
        still = lower(problem.reference, Perturbation({}), problem.output, device)
        self.reference = GraphPass(still, self.budget)
        self.attack = Attack(uncertain, last_node(problem), device)
        self.link, self.exact = program.link, program.exact

    def quick(self) -> None:
        """Leave out what takes longest: optimised slopes and branch and bound."""
        self.splits = False
        if len(self.methods) > 1:
            self.methods = tuple(m for m in self.methods if m != "alpha")

    def shrink(self) -> bool:
        """Halve what a backward pass may hold; false where it holds one row at a time already."""
        if self.budget <= self.uncertain.widest:
            return False
        self.budget //= 2
        self.uncertain.budget = self.reference.budget = self.budget
        return True

    @property
    def batch(self) -> int:
        """How many points go through at a time."""
        size = sum(step.size for step in self.uncertain.program.steps) * 64
        most = min(self.budget // size, self.budget // max(self.attack.numbers, 1), 256)
        if self.device == "cpu":  # so that several rows of each go through a pass
            most = min(most, CACHED // (ROWS * self.uncertain.widest))
        return max(1, most)

    def results(self, centres: Tensor) -> Interval:
        """Enclose the reference's results, ``(batch, out)``."""
        return self.reference.analyse(centres, centres, "ibp").intervals.known[-1]

    def proved(
        self,
        spec: Specification,
        low: Tensor,
        high: Tensor,
        method: Method,
        deadline: float = float("inf"),
    ) -> Proof:
        """Bound the rows of a specification.

        Args:
            spec: of all instances.
            low: least inputs, ``(batch, in)``.
            high: largest ones.
            method: of the bounds.
            deadline: of :func:`time.monotonic`, at which what is known by then has to do.
        """
        analysis = self.uncertain.analyse(low, high, method, deadline)
        least = self.uncertain.bound(analysis, spec.rows, method, deadline)
        at = torch.arange(len(low), device=low.device)
        # Hidden intervals are sharpened where rows of all their neurons are at hand.
        sharpens = any(self.uncertain.listed(k) for k in self.uncertain.read)
        for finer in () if method != "alpha" else (False, True) if sharpens else (False,):
            still = (spec.slack(least)[at] < 0).nonzero().squeeze(1)
            if not len(still) or time.monotonic() > deadline:
                break
            at, analysis = at[still], analysis.part(still)
            if finer:
                analysis = sharpened(self.uncertain, analysis, deadline=deadline)
            least[at] = self._climbed(spec.part(at), analysis, least[at], deadline)
        return Proof(least, spec.slack(least).cpu(), at, analysis)

    def _climbed(
        self, spec: Specification, analysis: Analysis, least: Tensor, deadline: float
    ) -> Tensor:
        """Return least values that optimised slopes raise, as many instances at a time as fit."""
        at_once = self._rows_at_once(spec.rows.shape[1])
        for start in range(0, len(least), at_once):
            if time.monotonic() > deadline:
                break
            part = torch.arange(start, min(start + at_once, len(least)), device=least.device)
            aim = spec.threshold[part] if isinstance(spec, Lead) else None
            better = optimised(analysis.part(part), spec.rows[part], ALPHA_STEPS, aim, deadline)
            least[part] = torch.maximum(least[part], better)
        return least

    def overflows(self, low: Tensor, high: Tensor) -> Tensor:
        """Return where overflow of the arithmetic's format is not excluded, ``(batch,)`` on CPU."""
        if self.arithmetic is None:
            return torch.zeros(low.shape[0], dtype=torch.bool, device="cpu")
        analysis = self.uncertain.analyse(low, high, self.methods[-1])
        return analysis.intervals.overflows().cpu()

    def _rows_at_once(self, rows: int) -> int:
        size = sum(step.size for step in self.uncertain.program.steps) * rows * 32
        return max(1, self.budget // max(size, 1))


def last_node(problem: Problem) -> str:
    """Return the uncertain network's node whose results a specification reads."""
    return link_of(problem.uncertain.network, problem.output)[1]


def decide_points(problems: Sequence[Problem], pass_: PointsPass, deadline: float) -> list[Outcome]:
    """Decide each problem's property; unknown where bounds and search leave it open.

    Args:
        problems: at points, or around them, with one property; of the networks of ``pass_``.
        pass_: made for them.
        deadline: of :func:`time.monotonic`.
    """
    return [o for part in stream(problems, pass_, deadline) for o in part]


def stream(
    problems: Sequence[Problem], pass_: PointsPass, deadline: float, first: int | None = None
) -> Iterator[list[Outcome]]:
    """Yield what :func:`decide_points` returns, in order, batch by batch.

    With ``pass_.quick()`` what takes longest is left to :func:`finish_points`.

    Args:
        problems: as there.
        pass_: as there.
        deadline: as there.
        first: points of the first batch; each is at most twice as large as the one before.
    """

    def decide(chunk: Sequence[Problem]) -> list[Outcome]:
        if time.monotonic() > deadline:
            return [left_open(pass_, TIME_UP) for _ in chunk]
        return Chunk(chunk, pass_, deadline).decide()

    return in_batches(problems, pass_, decide, lambda: left_open(pass_, NO_MEMORY), first)


def finish_points(problems: Sequence[Problem], pass_: PointsPass, deadline: float) -> list[Outcome]:
    """Ask what takes longest, and that alone, about problems that :func:`stream` left open."""

    def finish(chunk: Sequence[Problem]) -> list[Outcome]:
        return Chunk(chunk, pass_, deadline).finish()

    batches = in_batches(problems, pass_, finish, lambda: left_open(pass_, NO_MEMORY))
    return [outcome for batch in batches for outcome in batch]


def estimate_points(
    problems: Sequence[Problem], pass_: PointsPass, deadline: float
) -> list[Outcome]:
    """Bracket epsilon at each point."""

    def estimate(chunk: Sequence[Problem]) -> list[Outcome]:
        return Chunk(chunk, pass_, deadline).epsilon()

    def nothing() -> Outcome:
        unbounded = {"epsilon": Bracket(0.0, float("inf"))}
        return replace(left_open(pass_, NO_MEMORY), verdict=None, brackets=unbounded)

    batches = in_batches(problems, pass_, estimate, nothing)
    return [outcome for batch in batches for outcome in batch]

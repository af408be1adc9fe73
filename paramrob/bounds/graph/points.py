"""Many points at once: the cheapest bound that decides each, then a search, then finer bounds.

The points share their networks and perturbation; each is an input, or a small box around one
whose reference is taken at its centre.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.attack import Attack, Found
from paramrob.bounds.graph.batches import in_batches
from paramrob.bounds.graph.certainty import (
    LinkError,
    label_specification,
    sure_change,
    surely_refutes,
)
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.forward import Interval
from paramrob.bounds.graph.labels import told
from paramrob.bounds.graph.program import link_of, lower
from paramrob.bounds.graph.search import Splitter
from paramrob.bounds.graph.specification import (
    Lead,
    Specification,
    stay_of,
)
from paramrob.bounds.graph.spot import Spot
from paramrob.bounds.rounding import check_arithmetic
from paramrob.domain import Box
from paramrob.engine import Method
from paramrob.errors import ReplayError
from paramrob.models.network import Array
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.replay import replay
from paramrob.verdict import (
    Approximation,
    Bracket,
    Outcome,
    Status,
    Verdict,
    Witness,
    verdict_from,
)

METHODS: tuple[Method, ...] = ("crown-ibp", "crown", "alpha")
"""In the order of their cost."""
ALPHA_STEPS = 20
SEARCH, SPLIT = "search", "branch and bound"
"""What an outcome names as its method, beside those of the bounds."""
FIRST_BATCH = 16
"""Points that go first where answers are wanted as they come."""
OPEN = "the bounds and the search left this point open; raise --timeout, or ask for a smaller box"
OVERFLOW = (
    "overflow is not excluded: a value may be too large for the format; choose a wider "
    "--arithmetic, or ask for a smaller box"
)
TIME_UP = "the time was used up; raise --timeout"
NO_MEMORY = "this point needs more memory than there is; raise --memory, or use a smaller network"
NEAR = 1e-9
"""How near to a flip a candidate has to come in floating point to be replayed."""
MEMORY = 1 << 30
"""Bytes that a pass may use by default, roughly."""
SPLIT_SHARE = 0.5
"""Of the time left, what branch and bound gets before others are asked."""
SHARE = 8
"""Of the memory, what one backward pass may hold: copies and gradients come on top."""


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
        return max(1, min(self.budget // size, self.budget // max(self.attack.numbers, 1), 256))

    def results(self, centres: Tensor) -> Interval:
        """Enclose the reference's results, ``(batch, out)``."""
        return self.reference.analyse(centres, centres, "ibp").intervals.known[-1]

    def proved(
        self, spec: Specification, low: Tensor, high: Tensor, method: Method
    ) -> tuple[Tensor, Tensor]:
        """Return the rows' least values and how far each instance is proved, the latter on CPU."""
        analysis = self.uncertain.analyse(low, high, method)
        least = self.uncertain.bound(analysis, spec.rows, method)
        slack = spec.slack(least)
        open_ = (slack < 0).nonzero().squeeze(1)
        if method == "alpha" and open_.numel():
            at_once = self._rows_at_once(spec.rows.shape[1])
            for start in range(0, len(open_), at_once):
                part = open_[start : start + at_once]
                again = self.uncertain.analyse(low[part], high[part], method)
                enough = spec.part(part).threshold if isinstance(spec, Lead) else None
                better = optimised(
                    again, spec.rows[part], ALPHA_STEPS, float("inf") if enough is None else enough
                )
                least[part] = torch.maximum(least[part], better)
            slack = spec.slack(least)
        return least, slack.cpu()

    def overflows(self, low: Tensor, high: Tensor) -> Tensor:
        """Return where overflow of the arithmetic's format is not excluded, ``(batch,)``."""
        if self.arithmetic is None:
            return torch.zeros(low.shape[0], dtype=torch.bool)
        return self.uncertain.analyse(low, high, self.methods[-1]).intervals.overflows()

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
            return [_open(pass_, TIME_UP) for _ in chunk]
        return _Chunk(chunk, pass_, deadline).decide()

    return in_batches(problems, pass_, decide, lambda: _open(pass_, NO_MEMORY), first)


def finish_points(problems: Sequence[Problem], pass_: PointsPass, deadline: float) -> list[Outcome]:
    """Ask what takes longest, and that alone, about problems that :func:`stream` left open."""

    def finish(chunk: Sequence[Problem]) -> list[Outcome]:
        return _Chunk(chunk, pass_, deadline).finish()

    batches = in_batches(problems, pass_, finish, lambda: _open(pass_, NO_MEMORY))
    return [outcome for batch in batches for outcome in batch]


def estimate_points(
    problems: Sequence[Problem], pass_: PointsPass, deadline: float
) -> list[Outcome]:
    """Bracket epsilon at each point."""

    def estimate(chunk: Sequence[Problem]) -> list[Outcome]:
        return _Chunk(chunk, pass_, deadline).epsilon()

    def nothing() -> Outcome:
        return Outcome(None, NO_MEMORY, {"epsilon": Bracket(0.0, float("inf"))})

    batches = in_batches(problems, pass_, estimate, nothing)
    return [outcome for batch in batches for outcome in batch]


def _open(pass_: PointsPass, reason: str | None) -> Outcome:
    return Outcome(Verdict.UNKNOWN, reason, exact_encoding=pass_.exact, semantics=pass_.semantics)


class _Chunk:
    """Some points that go through together."""

    def __init__(self, problems: Sequence[Problem], pass_: PointsPass, deadline: float) -> None:
        self.problems, self.pass_, self.deadline = problems, pass_, deadline
        self.started = time.monotonic()
        spots = [Spot.of(p) for p in problems]

        def stack(values: list[Array]) -> Tensor:
            return torch.stack([torch.from_numpy(v) for v in values]).to(pass_.device)

        self.low, self.high = stack([s.low for s in spots]), stack([s.high for s in spots])
        self.reference = pass_.results(stack([s.centre for s in spots]))
        self.outcomes: list[Outcome | None] = [None] * len(problems)

    def decide(self) -> list[Outcome]:
        """Return one outcome a problem."""
        spec, index = self._specification()
        reason = OPEN
        for number, method in enumerate(self.pass_.methods):
            if not index.numel():
                break
            if number and time.monotonic() > self.deadline:
                reason = TIME_UP
                break
            part = spec.part(index)
            least, slack = self.pass_.proved(part, self.low[index], self.high[index], method)
            for i in index[slack >= 0].tolist():
                self._prove(i, method)
            left = slack < 0
            # A search is worth its time once, where the cheapest bounds do not decide.
            if number == 0 and bool(left.any()):
                self._refute(index[left], part.part(left.nonzero().squeeze(1)), least[left])
            index = torch.tensor(
                [i for i in index.tolist() if self.outcomes[i] is None], dtype=torch.long
            )
        if index.numel() and isinstance(spec, Lead) and self.pass_.splits:
            self._split(index, spec.part(index))
        self._explain(index)
        return self._found(reason)

    def finish(self) -> list[Outcome]:
        """Return what optimised slopes, then branch and bound, say of what was left open."""
        spec, index = self._specification()
        if index.numel():
            given = (spec.part(index), self.low[index], self.high[index])
            _, slack = self.pass_.proved(*given, "alpha")
            for i in index[slack >= 0].tolist():
                self._prove(i, "alpha")
            index = index[slack < 0]
        if index.numel() and isinstance(spec, Lead) and time.monotonic() < self.deadline:
            self._split(index, spec.part(index))
        return self._found(OPEN)

    def _found(self, reason: str) -> list[Outcome]:
        share = (time.monotonic() - self.started) / max(len(self.problems), 1)
        found = [o or _open(self.pass_, reason) for o in self.outcomes]
        return [replace(o, engine_seconds=share) for o in found]

    def _explain(self, index: Tensor) -> None:
        """Say of open points whether overflow is what keeps them open."""
        if self.pass_.arithmetic is None or not index.numel():
            return
        over = self.pass_.overflows(self.low[index], self.high[index])
        for i in index[over].tolist():
            self.outcomes[i] = self.outcomes[i] or _open(self.pass_, OVERFLOW)

    def epsilon(self) -> list[Outcome]:
        """Return a bracket of epsilon at each point."""
        error = LinkError.of(self.problems[0]).confidence
        spec = stay_of(self.reference, self.pass_.link, None, error)
        upper = torch.full((len(self.problems),), float("inf"), dtype=torch.float64)
        least = None
        for number, method in enumerate(self.pass_.methods):
            if number and time.monotonic() > self.deadline:
                break
            least, _ = self.pass_.proved(spec, self.low, self.high, method)
            upper = torch.minimum(upper, spec.largest(least).cpu())
        outcomes = []
        over = self.pass_.overflows(self.low, self.high).tolist()
        found = self._search(torch.arange(len(self.problems)), spec, least)
        for i, (problem, end) in enumerate(zip(self.problems, upper.tolist(), strict=True)):
            witness = self._replayed(problem, found, i)
            lower_end = 0.0 if witness is None else sure_change(problem, witness)
            bracket = Bracket(0.0, end)
            if lower_end > 0:
                bracket = Bracket(lower_end, end, witness)
            open_ = _open(self.pass_, OVERFLOW if over[i] else OPEN)
            outcomes.append(replace(open_, verdict=None, brackets={"epsilon": bracket}))
        share = (time.monotonic() - self.started) / max(len(self.problems), 1)
        return [replace(o, engine_seconds=share) for o in outcomes]

    def _specification(self) -> tuple[Specification, Tensor]:
        """Return the property's rows for all points, and the points that are not settled yet."""
        asked = self.problems[0].property
        every = torch.arange(len(self.problems))
        if asked is not None and asked.name == "confidence":
            error = LinkError.of(self.problems[0]).confidence
            return stay_of(self.reference, self.pass_.link, asked.epsilon, error), every
        labels = self._labels()
        # Where the reference's label cannot be told nothing can be proved about it.
        for i, label in enumerate(labels):
            if label is None:
                self.outcomes[i] = _open(
                    self.pass_, "the reference's label is a tie that cannot be told"
                )
        if asked is not None and asked.name == "margin":
            self._vacuous(asked.sigma)
        known = torch.tensor([0 if label is None else label for label in labels])
        known = known.to(self.pass_.device)
        spec = label_specification(self.problems[0], known)
        return spec, torch.tensor(
            [i for i in every.tolist() if self.outcomes[i] is None], dtype=torch.long
        )

    def _labels(self) -> list[int | None]:
        """Return the reference's labels, exactly where the enclosure does not tell."""
        quick = told(self.reference, self.pass_.link, self.problems[0].output)
        return [
            self._centre(problem).labels[0] if label is None else label
            for label, problem in zip(quick, self.problems, strict=True)
        ]

    def _centre(self, problem: Problem) -> Witness:
        """Replay the problem at its centre and the centre of its parameters."""
        domain = problem.domain
        x = domain.inner()[0] if isinstance(domain, Box) else domain.centre()
        return replay(problem, x, {})

    def _vacuous(self, sigma: Fraction | None) -> None:
        """A margin property says nothing where the reference is nearer than sigma."""
        for i, problem in enumerate(self.problems):
            margin = self._centre(problem).margin
            known = self.outcomes[i] is None and sigma is not None and margin is not None
            if known and margin.upper < sigma:  # type: ignore[operator, union-attr]
                self._prove(i)

    def _split(self, index: Tensor, spec: Lead) -> None:
        """Branch and bound on what slopes alone leave open."""
        end = time.monotonic() + SPLIT_SHARE * (self.deadline - time.monotonic())
        analysis = self.pass_.uncertain.analyse(self.low[index], self.high[index], "alpha")
        least = self.pass_.uncertain.bound(analysis, spec.rows)
        splitter = Splitter(analysis, spec.rows, spec.threshold, self.pass_.budget)
        proved = splitter.run(least, end).cpu()
        for i in index[proved].tolist():
            self._prove(i, SPLIT)

    def _prove(self, i: int, method: str | None = None) -> None:
        kind = Approximation.EXACT if self.pass_.exact else Approximation.OVER
        verdict = verdict_from(Status.UNSAT, kind, None)
        self.outcomes[i] = replace(_open(self.pass_, None), verdict=verdict, method=method)

    def _refute(self, index: Tensor, spec: Specification, least: Tensor) -> None:
        """Search for counterexamples and keep those that survive exact replay."""
        found = self._search(index, spec, least)
        near = spec.slack((spec.rows @ found.results.unsqueeze(-1)).squeeze(-1)) < NEAR
        for at in near.nonzero().squeeze(1).tolist():
            i = int(index[at])
            witness = self._replayed(self.problems[i], found, at)
            if witness is None or not surely_refutes(self.problems[i], witness):
                continue
            kind = Approximation.EXACT if self.pass_.exact else Approximation.OVER
            verdict = verdict_from(Status.SAT, kind, witness)
            self.outcomes[i] = replace(
                _open(self.pass_, None), verdict=verdict, witness=witness, method=SEARCH
            )

    def _search(self, index: Tensor, spec: Specification, least: Tensor | None) -> Found:
        known = spec.rows.new_zeros(spec.rows.shape[:2]) if least is None else least
        return self.pass_.attack.run(
            self.low[index], self.high[index], spec.aims(known), spec.objective
        )

    def _replayed(self, problem: Problem, found: Found, i: int) -> Witness | None:
        low, high = problem.domain.inner()
        x, parameters = found.x[i].cpu().numpy().clip(low, high), found.parameters_of(i)
        if self.pass_.arithmetic is not None:
            nearest = self.pass_.arithmetic.nearest_between
            x = nearest(x, low, high)
            for name, value in parameters.items():
                ends = (end.cpu().numpy() for end in self.pass_.attack.box[name])
                parameters[name] = nearest(value, *ends)
        try:
            return replay(problem, x, problem.uncertain.possible(parameters))
        except ReplayError:
            return None

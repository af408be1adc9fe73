"""Some points that go through together: what bounds prove of them, what a search refutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paramrob.bounds.graph.attack import Found
from paramrob.bounds.graph.certainty import (
    LinkError,
    label_specification,
    sure_change,
    surely_refutes,
)
from paramrob.bounds.graph.labels import told
from paramrob.bounds.graph.search import Splitter
from paramrob.bounds.graph.specification import Lead, Specification, stay_of
from paramrob.bounds.graph.spot import Spot
from paramrob.domain import Box
from paramrob.errors import ReplayError
from paramrob.models.network import Array
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

if TYPE_CHECKING:
    from paramrob.bounds.graph.points import PointsPass, Proof

SEARCH, SPLIT = "search", "branch and bound"
"""What an outcome names as its method, beside those of the bounds."""
OPEN = "the bounds and the search left this point open; raise --timeout, or ask for a smaller box"
OVERFLOW = (
    "overflow is not excluded: a value may be too large for the format; choose a wider "
    "--arithmetic, or ask for a smaller box"
)
TIME_UP = "the time was used up; raise --timeout"
NEAR = 1e-9
"""How near to a flip a candidate has to come in floating point to be replayed."""
RESTARTS = 6
"""Searches of a box of inputs that start elsewhere, where bounds and the first search fail."""
SPLIT_SHARE = 0.5
"""Of the time left, what branch and bound gets before others are asked."""


def left_open(pass_: PointsPass, reason: str | None) -> Outcome:
    """Return the outcome of a point that stays open."""
    return Outcome(Verdict.UNKNOWN, reason, exact_encoding=pass_.exact, semantics=pass_.semantics)


def places(values: Sequence[int]) -> Tensor:
    """Return places in a list; they stay on the CPU, which indexes tensors of every device."""
    return torch.tensor(values, dtype=torch.long, device="cpu")


class Chunk:
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
        reason, known = OPEN, None
        for number, method in enumerate(self.pass_.methods):
            if not index.numel():
                break
            if number and time.monotonic() > self.deadline:
                reason = TIME_UP
                break
            part = spec.part(index)
            given = (part, self.low[index], self.high[index])
            proof = self.pass_.proved(*given, method, self.deadline)
            for i in index[proof.slack >= 0].tolist():
                self._prove(i, method)
            left = proof.slack < 0
            known = (index, proof)
            # A search is worth its time once, where the cheapest bounds do not decide.
            if number == 0 and bool(left.any()):
                least = proof.least[left]
                self._refute(index[left], part.part(left.nonzero().squeeze(1)), least)
            index = places([i for i in index.tolist() if self.outcomes[i] is None])
        if known is not None and isinstance(spec, Lead) and self.pass_.splits:
            index = self._search_on(index, spec.part(index))
            self._split(index, spec.part(index), *known)
        self._explain(index)
        return self._found(reason)

    def finish(self) -> list[Outcome]:
        """Return what optimised slopes, then branch and bound, say of what was left open."""
        spec, index = self._specification()
        if index.numel():
            given = (spec.part(index), self.low[index], self.high[index])
            proof = self.pass_.proved(*given, "alpha", self.deadline)
            for i in index[proof.slack >= 0].tolist():
                self._prove(i, "alpha")
            asked, index = index, index[proof.slack < 0]
            if isinstance(spec, Lead) and time.monotonic() < self.deadline:
                index = self._search_on(index, spec.part(index))
                self._split(index, spec.part(index), asked, proof)
        return self._found(OPEN)

    def _found(self, reason: str) -> list[Outcome]:
        share = (time.monotonic() - self.started) / max(len(self.problems), 1)
        found = [o or left_open(self.pass_, reason) for o in self.outcomes]
        return [replace(o, engine_seconds=share) for o in found]

    def _explain(self, index: Tensor) -> None:
        """Say of open points whether overflow is what keeps them open."""
        if self.pass_.arithmetic is None or not index.numel():
            return
        over = self.pass_.overflows(self.low[index], self.high[index])
        for i in index[over].tolist():
            self.outcomes[i] = self.outcomes[i] or left_open(self.pass_, OVERFLOW)

    def epsilon(self) -> list[Outcome]:
        """Return a bracket of epsilon at each point."""
        error = LinkError.of(self.problems[0]).confidence
        spec = stay_of(self.reference, self.pass_.link, None, error)
        upper = torch.full((len(self.problems),), float("inf"), dtype=torch.float64, device="cpu")
        least = None
        for number, method in enumerate(self.pass_.methods):
            if number and time.monotonic() > self.deadline:
                break
            least = self.pass_.proved(spec, self.low, self.high, method, self.deadline).least
            upper = torch.minimum(upper, spec.largest(least).cpu())
        outcomes = []
        over = self.pass_.overflows(self.low, self.high).tolist()
        found = self._search(places(range(len(self.problems))), spec, least)
        for i, (problem, end) in enumerate(zip(self.problems, upper.tolist(), strict=True)):
            witness = self._replayed(problem, found, i)
            lower_end = 0.0 if witness is None else sure_change(problem, witness)
            bracket = Bracket(0.0, end)
            if lower_end > 0:
                bracket = Bracket(lower_end, end, witness)
            open_ = left_open(self.pass_, OVERFLOW if over[i] else OPEN)
            outcomes.append(replace(open_, verdict=None, brackets={"epsilon": bracket}))
        share = (time.monotonic() - self.started) / max(len(self.problems), 1)
        return [replace(o, engine_seconds=share) for o in outcomes]

    def _specification(self) -> tuple[Specification, Tensor]:
        """Return the property's rows for all points, and the points that are not settled yet."""
        asked = self.problems[0].property
        every = places(range(len(self.problems)))
        if asked is not None and asked.name == "confidence":
            error = LinkError.of(self.problems[0]).confidence
            return stay_of(self.reference, self.pass_.link, asked.epsilon, error), every
        labels = self._labels()
        # Where the reference's label cannot be told nothing can be proved about it.
        for i, label in enumerate(labels):
            if label is None:
                self.outcomes[i] = left_open(
                    self.pass_, "the reference's label is a tie that cannot be told"
                )
        if asked is not None and asked.name == "margin":
            self._vacuous(asked.sigma)
        known = places([0 if label is None else label for label in labels])
        known = known.to(self.pass_.device)
        spec = label_specification(self.problems[0], known)
        return spec, places([i for i in every.tolist() if self.outcomes[i] is None])

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

    def _search_on(self, index: Tensor, spec: Specification) -> Tensor:
        """Search boxes of inputs from other inputs than the middle; return what stays open."""
        random = torch.Generator("cpu").manual_seed(0)
        share = torch.full_like(self.low, 0.5)
        for number in range(RESTARTS):
            low, high = self.low[index], self.high[index]
            if not index.numel() or not bool((low < high).any()):
                break
            # Every other start lies opposite to the one before: so few leave out no side.
            if number % 2 == 0:
                share = torch.rand(share.shape, generator=random, dtype=low.dtype, device="cpu")
                share = share.to(low.device)
            else:
                share = 1 - share
            middle = ((self.reference.low + self.reference.high) / 2)[index]
            lead = (spec.rows @ middle.unsqueeze(-1)).squeeze(-1)
            self._refute(index, spec, lead, low + share[index] * (high - low))
            left = places([i for i, o in enumerate(self._of(index)) if o is None])
            index, spec = index[left], spec.part(left)
        return index

    def _of(self, index: Tensor) -> list[Outcome | None]:
        return [self.outcomes[i] for i in index.tolist()]

    def _split(self, index: Tensor, spec: Lead, asked: Tensor, proof: Proof) -> None:
        """Branch and bound on what slopes alone leave open.

        Args:
            index: the points that are open.
            spec: of these.
            asked: the points that bounds were asked about, these among them.
            proof: what the bounds said.
        """
        if not index.numel():
            return
        end = time.monotonic() + SPLIT_SHARE * (self.deadline - time.monotonic())
        place = {i: at for at, i in enumerate(asked[proof.at.cpu()].tolist())}
        part = torch.tensor([place[i] for i in index.tolist()], device=proof.at.device)
        analysis, least = proof.analysis.part(part), proof.least[proof.at[part]]
        uncertain = self.pass_.uncertain
        splitter = Splitter(analysis, spec.rows, spec.threshold, self.pass_.budget, uncertain)
        proved = splitter.run(least, end).cpu()
        for i in index[proved].tolist():
            self._prove(i, SPLIT)

    def _prove(self, i: int, method: str | None = None) -> None:
        kind = Approximation.EXACT if self.pass_.exact else Approximation.OVER
        verdict = verdict_from(Status.UNSAT, kind, None)
        self.outcomes[i] = replace(left_open(self.pass_, None), verdict=verdict, method=method)

    def _refute(
        self,
        index: Tensor,
        spec: Specification,
        least: Tensor,
        start: Tensor | None = None,
    ) -> None:
        """Search for counterexamples and keep those that survive exact replay."""
        found = self._search(index, spec, least, start)
        near = spec.slack((spec.rows @ found.results.unsqueeze(-1)).squeeze(-1)) < NEAR
        for at in near.nonzero().squeeze(1).tolist():
            i = int(index[at])
            witness = self._replayed(self.problems[i], found, at)
            if witness is None or not surely_refutes(self.problems[i], witness):
                continue
            kind = Approximation.EXACT if self.pass_.exact else Approximation.OVER
            verdict = verdict_from(Status.SAT, kind, witness)
            self.outcomes[i] = replace(
                left_open(self.pass_, None), verdict=verdict, witness=witness, method=SEARCH
            )

    def _search(
        self,
        index: Tensor,
        spec: Specification,
        least: Tensor | None,
        start: Tensor | None = None,
    ) -> Found:
        known = spec.rows.new_zeros(spec.rows.shape[:2]) if least is None else least
        return self.pass_.attack.run(
            self.low[index],
            self.high[index],
            spec.aims(known),
            spec.objective,
            start=start,
            deadline=self.deadline,
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

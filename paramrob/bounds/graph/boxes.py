"""Boxes of inputs for any two networks: branch and bound on the inputs.

Each piece of the box is bounded by one pass over both networks together
(:mod:`paramrob.bounds.graph.joint`), and the piece with the largest bound is cut in two along the
input on which the bound depends most. Counterexamples come from gradients and are replayed
exactly; the lower end of a bracket is what one attains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.joint import joined
from paramrob.bounds.graph.limits import MOST_CLASSES, Limits, Question
from paramrob.bounds.graph.pair_attack import PairAttack
from paramrob.bounds.graph.program import lower
from paramrob.bounds.rounding import check_arithmetic
from paramrob.engine import Settings
from paramrob.errors import BackendError, ReplayError
from paramrob.exact import float_above, float_below
from paramrob.layers import Link
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.replay import level_logit, replay
from paramrob.verdict import INTERRUPTED, TIME_UP, Interval, Witness

INF = float("inf")
HALF = Fraction(1, 2)
SHARE = 8
"""Part of the memory that one pass's rows may take: an eighth, at 8 bytes a number."""
MOST_PIECES = 1 << 18
REPLAYED = 2
"""Candidates of one search that are worth an exact replay."""
PATIENCE = 24
"""Rounds without a gain of one part in a thousand after which a search of many inputs ends."""
FEW_INPUTS = 8
"""Up to as many inputs a search goes on as long as there is time."""
MANY_PIECES = "the box was cut into too many pieces; narrow the domain, or widen --tolerance"
NO_GAIN = "cutting the box further gains too little; narrow the domain"
NO_MEMORY = "out of memory; lower --memory"
NO_NUMBER = "no finite bound in float64; narrow the domain or the perturbation"

Score = Callable[[Limits], Tensor]


@dataclass(frozen=True)
class Found:
    """The end of one search: the proved upper end, the best witness and why it ended early."""

    proved: float
    witness: Witness | None
    reason: str | None


@dataclass
class _Pieces:
    """Open pieces of the box."""

    low: Tensor
    high: Tensor
    score: Tensor
    axis: Tensor

    def part(self, index: Tensor) -> _Pieces:
        return _Pieces(self.low[index], self.high[index], self.score[index], self.axis[index])

    def with_more(self, other: _Pieces) -> _Pieces:
        pairs = ((getattr(self, n), getattr(other, n)) for n in ("low", "high", "score", "axis"))
        return _Pieces(*(torch.cat(pair) for pair in pairs))

    def __len__(self) -> int:
        return self.score.numel()


class BoxPass:
    """Bounds of one problem over a box of inputs.

    Args:
        problem: over a :class:`paramrob.domain.Box`.
        settings: device, memory and what else a search needs.

    Raises:
        BackendError: a layer that the pass does not know, or too many classes for their labels.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        check_arithmetic()
        self.problem, self.settings = problem, settings
        device = settings.device
        still = lower(problem.reference, Perturbation({}), problem.output, device)
        uncertain = problem.uncertain
        moved = lower(uncertain.network, uncertain.perturbation, problem.output, device)
        program = joined(still, moved)
        self.exact = program.exact
        self.bounds = GraphPass(program, max(settings.memory // (8 * SHARE), 1), single=True)
        size = still.steps[-1].size
        if moved.link == "softmax" and size > MOST_CLASSES:
            raise BackendError(
                f"over a box of inputs at most {MOST_CLASSES} classes are compared, the model has "
                f"{size}; ask about points (--at) instead"
            )
        self.level = _level(problem, moved.link)
        self.question = Question.of(moved.link, size, self.level, device)
        self.attack = PairAttack(problem, device)
        held = 64 * sum(step.size for step in program.steps)
        self.batch = max(1, min(512, self.bounds.budget // held))
        low, high = (torch.from_numpy(end).to(device) for end in problem.domain.outer())
        self.root = low[None], high[None]

    def limits(self, low: Tensor, high: Tensor) -> tuple[Limits, Tensor]:
        """Return limits of boxes ``(batch, in)``, and the axis to cut each along."""
        analysis = self.bounds.analyse(low, high)
        rows = self.question.rows.expand(low.shape[0], -1, -1)
        found = self.question.limits(self.bounds.bound(analysis, rows))
        third = self.question.rows.shape[0] // 3
        slopes = self.bounds.slopes(analysis, rows[:, : 2 * third]).abs()
        weight = slopes.nan_to_num(nan=0.0, posinf=0.0).sum(1)
        return found, (weight * (high - low)).argmax(1)

    def search(
        self,
        score: Score,
        name: str,
        deadline: float,
        enough: float | None = None,
        wanted: Callable[[Witness], bool] | None = None,
    ) -> Found:
        """Maximise a limit over the box.

        Args:
            score: the limit.
            name: of the bracket, which says what counterexamples are sought.
            deadline: of :func:`time.monotonic`.
            enough: pieces whose limit is not above it are closed; by default what a witness
                attains, and the tolerance.
            wanted: whether a witness ends the search.
        """
        return _Search(self, score, name, deadline, enough, wanted).run()

    def candidates(self, name: str, low: Tensor, high: Tensor) -> list[Witness]:
        """Return replayed candidates, one or none for each box."""
        low, high = low[: self._at_once], high[: self._at_once]
        if name == "epsilon":
            found = self.attack.largest_change(low, high)
        else:
            level = None if self.level is None else (self.level.lower + self.level.upper) / 2
            found = self.attack.widest_flip(low, high, level, name)
        least, most = self.problem.domain.inner()
        witnesses = []
        order = found.value.argsort(descending=True)[:REPLAYED]
        for i in order.tolist():
            x = found.x[i].cpu().numpy().clip(least, most)
            parameters = self.problem.uncertain.possible(found.parameters_of(i))
            try:
                witnesses.append(replay(self.problem, x, parameters))
            except ReplayError:
                continue
        return witnesses

    @property
    def _at_once(self) -> int:
        return max(1, min(32, self.bounds.budget // (8 * max(self.attack.numbers, 1))))


class _Search:
    """One run of branch and bound."""

    def __init__(
        self,
        pass_: BoxPass,
        score: Score,
        name: str,
        deadline: float,
        enough: float | None,
        wanted: Callable[[Witness], bool] | None,
    ) -> None:
        self.pass_, self.score, self.name, self.deadline = pass_, score, name, deadline
        self.enough, self.wanted = enough, wanted
        self.closed, self.attained = -INF, 0.0
        self.witness: Witness | None = None
        self.tolerance = 0.9 * pass_.settings.tolerance
        low, high = pass_.root
        every = torch.full_like(low[:, 0], INF)
        self.pieces = _Pieces(low, high, every, torch.zeros_like(every, dtype=torch.int64))

    def run(self) -> Found:
        """Search until nothing is open, time is up, or a witness is wanted."""
        reason: str | None
        try:
            reason = self._run()
        except torch.OutOfMemoryError:
            reason = NO_MEMORY
        except KeyboardInterrupt:
            reason = INTERRUPTED
        return Found(self._top(), self.witness, reason)

    def _run(self) -> str | None:
        low, high = self.pass_.root
        self._attack(*self._scattered(low, high))
        self.pieces = self._open(low, high)
        best, rounds, stale = INF, 0, 0
        while len(self.pieces) and not self._is_done():
            reason = self._stopped(stale)
            if reason is not None:
                return reason
            order = torch.argsort(self.pieces.score, descending=True)
            now = self.pieces.part(order[: self.pass_.batch])
            if rounds % 4 == 0:
                self._attack(now.low, now.high)
            # the halves are known before the whole is forgotten
            halves = self._open(*_halves(now))
            later = self.pieces.part(order[self.pass_.batch :])
            self.pieces = self._pruned(later.with_more(halves))
            top = self._top()
            stale = 0 if top < best * (1 - 1e-3) else stale + 1
            best, rounds = min(best, top), rounds + 1
            self._report(top)
        return None

    def _is_done(self) -> bool:
        return self.wanted is not None and self.witness is not None and self.wanted(self.witness)

    def _stopped(self, stale: int) -> str | None:
        pieces = self.pieces
        if time.monotonic() >= self.deadline:
            return TIME_UP
        if len(pieces) > MOST_PIECES:
            return MANY_PIECES
        if stale >= PATIENCE and pieces.low.shape[1] > FEW_INPUTS:
            return NO_GAIN
        widths = pieces.high - pieces.low
        stuck = (pieces.low + widths / 2 <= pieces.low).all(1) | torch.isnan(pieces.score)
        return NO_NUMBER if bool(stuck.any()) else None

    def _floor(self) -> float:
        return self.attained + self.tolerance if self.enough is None else self.enough

    def _open(self, low: Tensor, high: Tensor) -> _Pieces:
        parts = []
        for start in range(0, low.shape[0], self.pass_.batch):
            at = slice(start, start + self.pass_.batch)
            limits, axis = self.pass_.limits(low[at], high[at])
            parts.append((self.score(limits), axis))
        score, axis = (torch.cat(found) for found in zip(*parts, strict=True))
        score = torch.where(torch.isnan(score), INF, score)
        return self._pruned(_Pieces(low, high, score, axis))

    def _pruned(self, pieces: _Pieces) -> _Pieces:
        stays = pieces.score > self._floor()
        if not bool(stays.all()):
            self.closed = max(self.closed, float(pieces.score[~stays].max()))
        return pieces.part(stays.nonzero()[:, 0])

    def _top(self) -> float:
        """Return the largest limit of any piece, open or closed."""
        open_ = float(self.pieces.score.max()) if len(self.pieces) else -INF
        return max(open_, self.closed)

    def _attack(self, low: Tensor, high: Tensor) -> None:
        for witness in self.pass_.candidates(self.name, low, high):
            value = attained(self.name, witness)
            if value is None:
                continue
            better = self.witness is None or value > self.attained
            if better or (self.wanted is not None and self.wanted(witness)):
                self.attained, self.witness = max(value, self.attained), witness
            if self._is_done():
                return

    def _scattered(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the box itself and small boxes in it, for the first search."""
        generator = torch.Generator("cpu").manual_seed(self.pass_.settings.seed)
        share = torch.rand(31, low.shape[1], generator=generator, dtype=low.dtype, device="cpu")
        width = (high - low) / 4
        first = low + share.to(low.device) * (high - low - width)
        return torch.cat([low, first]), torch.cat([high, first + width])

    def _report(self, top: float) -> None:
        progress = self.pass_.settings.progress
        if progress is not None:
            progress(self.name, max(self.attained, 0.0), max(top, 0.0))


def _halves(pieces: _Pieces) -> tuple[Tensor, Tensor]:
    low, high = pieces.low, pieces.high
    at = pieces.axis.unsqueeze(1)
    middle = low.gather(1, at) + (high.gather(1, at) - low.gather(1, at)) / 2
    return (
        torch.cat([low, low.scatter(1, at, middle)]),
        torch.cat([high.scatter(1, at, middle), high]),
    )


def attained(name: str, witness: Witness) -> float | None:
    """Return what a witness attains of a bracket, ``None`` where it is no witness of that."""
    if name == "epsilon":
        return None if witness.change is None else witness.change.lower
    before, after = witness.labels
    if before is None or after is None or before == after or witness.margin is None:
        return None
    starts_at = {"sigma_above": 1, "sigma_below": 0}.get(name, before)
    return witness.margin.lower if before == starts_at else None


def _level(problem: Problem, link: Link) -> Interval | None:
    """Enclose the result at which a single label changes."""
    output = problem.output
    if problem.reference.output_size > 1:
        return None
    level = HALF if output.level is None and output.kind != "value" else output.level
    if level is None:
        return None
    if link == "sigmoid":
        return level_logit(level)
    return Interval(float_below(level), float_above(level))

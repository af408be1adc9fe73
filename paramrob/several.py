"""Several points: what the whole of their outcomes is, and how many of them are certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from paramrob.domain import Box
from paramrob.errors import InputError
from paramrob.problem import Problem, check_labels
from paramrob.requests.build import Request
from paramrob.verdict import Bracket, Outcome, Verdict

_RANK = {Verdict.NOT_ROBUST: 2, Verdict.UNKNOWN: 1, Verdict.ROBUST: 0}
_PARAMETERS_DROPPED = (
    "the parameters of some counterexamples were not kept, to save memory; ask about such a point "
    "alone to save its witness"
)


@dataclass(frozen=True)
class Accuracy:
    """Shares of points, for points whose true class is known.

    ``reference`` is the share that the reference labels correctly. The share that is still
    correct under the worst parameters, chosen anew for each point, lies between ``certified``
    (correct and proved) and ``at_most`` (correct and not refuted); both are ``None`` where the
    question was not about labels.
    """

    reference: float
    certified: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class PointsOutcome(Outcome):
    """The answer about several points: the worst verdict, and brackets of the worst point.

    ``points`` holds one outcome a point, ``witness`` is that of the first refuted one that was
    kept. ``labels`` holds the reference's label at each point where it was needed (for an
    accuracy or a table), ``None`` where there is none or where a tie cannot be told.
    """

    points: tuple[Outcome, ...] = ()
    accuracy: Accuracy | None = None
    labels: tuple[int | None, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """The share of points with each verdict, by the verdict's value; empty for estimates."""
        if self.verdict is None:
            return {}
        count = len(self.points)
        return {v.value: sum(o.verdict is v for o in self.points) / count for v in Verdict}


@dataclass(frozen=True)
class Tally:
    """How far a set of points has come."""

    total: int
    proved: int = 0
    refuted: int = 0
    open: int = 0
    estimated: int = 0

    @property
    def done(self) -> int:
        """How many points have their answer."""
        return self.proved + self.refuted + self.open + self.estimated

    def plus(self, outcome: Outcome) -> Tally:
        """Return the tally with one more answer."""
        if outcome.verdict is None:
            return replace(self, estimated=self.estimated + 1)
        if outcome.verdict is Verdict.ROBUST:
            return replace(self, proved=self.proved + 1)
        if outcome.verdict is Verdict.NOT_ROBUST:
            return replace(self, refuted=self.refuted + 1)
        return replace(self, open=self.open + 1)


OnPoints = Callable[[Tally], None]


def whole(
    request: Request, outcomes: Sequence[Outcome], labels: Sequence[int | None] | None
) -> PointsOutcome:
    """Return the answer about all points of a request.

    Args:
        request: what was asked.
        outcomes: one a point.
        labels: of the reference; ``None`` where they were not needed, or not all were found.
    """
    verdicts = [o.verdict for o in outcomes if o.verdict is not None]
    worst = max(verdicts, key=lambda v: _RANK[v]) if verdicts else None
    open_points = [o for o in outcomes if o.reason is not None]
    witnesses = [o.witness for o in outcomes if o.witness is not None]
    reason = None
    if open_points:
        reason = f"{len(open_points)} of {len(outcomes)} points are open: {open_points[0].reason}"
    return PointsOutcome(
        verdict=worst,
        reason=reason,
        brackets=_worst_brackets(outcomes),
        witness=next((w for w in witnesses if w.parameters), next(iter(witnesses), None)),
        solver=", ".join(dict.fromkeys(o.solver for o in outcomes)),
        engine_seconds=sum(o.engine_seconds for o in outcomes),
        exact_encoding=all(o.exact_encoding for o in outcomes),
        notes=tuple(dict.fromkeys(note for o in outcomes for note in o.notes)),
        points=tuple(outcomes),
        accuracy=accuracy_of(request, outcomes, labels),
        labels=() if labels is None else tuple(labels),
        semantics=request.problems[0].semantics,
    )


def accuracy_of(
    request: Request, outcomes: Sequence[Outcome], labels: Sequence[int | None] | None
) -> Accuracy | None:
    """Return the accuracy on points whose classes are known; see :func:`whole`."""
    if request.classes is None or labels is None:
        return None
    correct = [label == true for label, true in zip(labels, request.classes, strict=True)]
    count = len(correct)
    property_ = request.problems[0].property
    if property_ is None or property_.name != "labels":
        return Accuracy(sum(correct) / count)
    pairs = list(zip(correct, outcomes, strict=True))
    proved = sum(right and o.verdict is Verdict.ROBUST for right, o in pairs)
    standing = sum(right and o.verdict is not Verdict.NOT_ROBUST for right, o in pairs)
    return Accuracy(sum(correct) / count, proved / count, standing / count)


def reference_label(problem: Problem) -> int | None:
    """Return the reference's exact label at a point (``None`` where a tie cannot be told)."""
    from paramrob.replay import replay

    if isinstance(problem.domain, Box) or not has_labels(problem):
        return None
    return replay(problem, problem.domain.centre(), {}).labels[0]


def has_labels(problem: Problem) -> bool:
    """Whether the reference's outputs have labels."""
    try:
        check_labels(problem.reference, problem.output)
    except InputError:
        return False
    return True


class Keeper:
    """Keeps counterexamples within a budget of bytes: of those beyond it, no parameters.

    Args:
        budget: bytes for the parameters of all counterexamples; the first is always kept.
    """

    def __init__(self, budget: int) -> None:
        self._left = float(budget)
        self._first = True

    def kept(self, outcome: Outcome) -> Outcome:
        """Return the outcome, without its witness's parameters where they are too many."""
        witness = outcome.witness
        if witness is None:
            return outcome
        self._left -= sum(value.nbytes for value in witness.parameters.values())
        if self._first or self._left >= 0:
            self._first = False
            return outcome
        bare = replace(witness, parameters={})
        return replace(outcome, witness=bare, notes=(*outcome.notes, _PARAMETERS_DROPPED))


def _worst_brackets(outcomes: Sequence[Outcome]) -> Mapping[str, Bracket]:
    """Return brackets of the supremum over the points (for delta: of the infimum)."""
    shared = set.intersection(*(set(o.brackets) for o in outcomes))
    worst: dict[str, Bracket] = {}
    for name in sorted(shared):
        brackets = [o.brackets[name] for o in outcomes]
        if name == "delta":
            end = min(brackets, key=lambda b: b.upper)
            worst[name] = Bracket(min(b.lower for b in brackets), end.upper, end.witness)
        else:
            end = max(brackets, key=lambda b: b.lower)
            worst[name] = Bracket(end.lower, max(b.upper for b in brackets), end.witness)
    return worst

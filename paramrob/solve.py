"""Answering a request: one engine call for each problem, within one time budget.

An interrupt (Ctrl-C) reaches the engine as ``KeyboardInterrupt``; the engine returns what it
has, and nothing more is started.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import FrameType

from paramrob import engine
from paramrob.domain import Box
from paramrob.engine import Encoding, Settings
from paramrob.errors import BackendError, InputError, SoundnessError
from paramrob.problem import Problem, check_labels
from paramrob.properties import Quantity
from paramrob.requests.build import Request
from paramrob.solvers.keep import kept_solvers
from paramrob.verdict import Bracket, Outcome, Verdict

CHEAP_SECONDS = 2.0
"""How long ``check`` may go on for brackets that nobody asked for."""

_STOPPED = "stopped by an interrupt; run it again, or ask about fewer points"
_TIME_UP = "the time was used up before this could be answered; raise --timeout"
_BY_BOUNDS = "brackets that were not asked for are the bound engine's"
_RANK = {Verdict.NOT_ROBUST: 2, Verdict.UNKNOWN: 1, Verdict.ROBUST: 0}


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

    ``points`` holds one outcome a point, ``witness`` is that of the first refuted one.
    """

    points: tuple[Outcome, ...] = ()
    accuracy: Accuracy | None = None


@dataclass
class _Clock:
    """Engine wall time: what is left of a budget, as seen from now."""

    budget: float
    started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        return self.budget - (time.perf_counter() - self.started)


def make_settings(
    solver: str = "auto",
    timeout: float = 60.0,
    tolerance: float = 1e-6,
    device: str = "cpu",
    encoding: Encoding | None = None,
    presolve: bool = True,
    cross_check: str | None = None,
) -> Settings:
    """Return engine settings.

    Args:
        solver: one of ``paramrob.engine.SOLVERS``.
        timeout: engine wall time of the whole request in seconds.
        tolerance: absolute width at which a bracket is closed.
        device: ``cpu`` or ``cuda``.
        encoding: of the formula, ``direct`` or ``aggregated``; the solver's own by default.
        presolve: whether the bound engine bounds the formula's variables beforehand.
        cross_check: a second solver that has to agree.

    Raises:
        InputError: a value out of range, or a device that is not there.
    """
    for what, value in (("--timeout", timeout), ("--tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{what} {value!r}: give a finite number above 0")
    if device not in ("cpu", "cuda"):
        raise InputError(f"no device {device!r}; choose cpu or cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BackendError("no CUDA device is available here; use --device cpu")
    return Settings(
        solver=solver,
        timeout=timeout,
        tolerance=tolerance,
        device=device,
        encoding=encoding,
        presolve=presolve,
        cross_check=cross_check,
    )


def solve(request: Request, settings: Settings) -> Outcome:
    """Answer a request; a :class:`PointsOutcome` for several points.

    Raises:
        BackendError: the solver asked for cannot be used.
        SoundnessError: two results contradict each other.
    """
    clock = _Clock(settings.timeout)
    with _interrupts() as stopped, kept_solvers():
        outcomes = [
            _main(request, problem, _share(settings, clock, len(request.problems) - i), stopped)
            for i, problem in enumerate(request.problems)
        ]
        if request.asked.command == "check":
            extra = _Clock(min(CHEAP_SECONDS, clock.left))
            for i, problem in enumerate(request.problems):
                share = _share(settings, extra, len(outcomes) - i)
                outcomes[i] = _with_brackets(problem, outcomes[i], share, stopped)
    return _whole(request, outcomes) if request.several else outcomes[0]


def accuracy_of(request: Request, outcomes: list[Outcome]) -> Accuracy | None:
    """Return the accuracy on points whose classes are known, from exactly computed labels."""
    if request.classes is None:
        return None
    correct = [
        reference_label(problem) == true
        for problem, true in zip(request.problems, request.classes, strict=True)
    ]
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

    if isinstance(problem.domain, Box):
        return None
    centre = {name: p.value for name, p in problem.uncertain.network.parameters.items()}
    witness = replay(problem, problem.domain.centre(), centre)
    return witness.labels[0]


def unbounded(request: Request, quantity: Quantity) -> dict[str, Bracket]:
    """Return the brackets that hold before anything is known."""
    open_ended = Bracket(0.0, math.inf)
    if quantity == "sigma" and request.two_sided:
        return {"sigma_above": open_ended, "sigma_below": open_ended}
    return {quantity: open_ended}


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Note a Ctrl-C on its way to the engine, which swallows it; yields whether one came."""
    came = False

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: came
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _share(settings: Settings, clock: _Clock, problems_left: int) -> Settings:
    """Return the settings with an equal share of what is left; what one saves, others get."""
    return replace(settings, timeout=clock.left / problems_left)


def _main(
    request: Request, problem: Problem, settings: Settings, stopped: Callable[[], bool]
) -> Outcome:
    quantity = request.asked.quantity
    if stopped():
        return _open(request, _STOPPED)
    if settings.timeout <= 0:
        return _open(request, _TIME_UP)
    started = time.perf_counter()
    try:
        if quantity is None:
            return engine.decide(problem, settings)
        return engine.estimate(problem, quantity, settings)
    except KeyboardInterrupt:
        # The engine had not started its own watch yet, or a second interrupt came.
        return replace(_open(request, _STOPPED), engine_seconds=time.perf_counter() - started)


def _open(request: Request, reason: str) -> Outcome:
    quantity = request.asked.quantity
    if quantity is None:
        return Outcome(Verdict.UNKNOWN, reason)
    return Outcome(None, reason, unbounded(request, quantity))


def _with_brackets(
    problem: Problem, outcome: Outcome, settings: Settings, stopped: Callable[[], bool]
) -> Outcome:
    """Add the brackets of epsilon and sigma where they are cheap, and hold them to the verdict."""
    clock = _Clock(settings.timeout)
    outcome = _implied(problem, outcome)
    # Formulas are decided one threshold at a time: no bracket of theirs is cheap.
    cheap = replace(settings, solver="bounds", cross_check=None)
    missing = _missing(problem, outcome)
    if missing and settings.solver not in ("auto", "bounds"):
        outcome = replace(outcome, notes=(*outcome.notes, _BY_BOUNDS))
    for quantity in missing:
        if stopped() or clock.left <= 0:
            break
        try:
            extra = engine.estimate(problem, quantity, replace(cheap, timeout=clock.left))
        except KeyboardInterrupt:
            break
        found = {k: b for k, b in extra.brackets.items() if math.isfinite(b.upper)}
        outcome = replace(
            outcome,
            brackets={**found, **outcome.brackets},
            engine_seconds=outcome.engine_seconds + extra.engine_seconds,
        )
    check_agreement(problem, outcome)
    return outcome


def _has_labels(problem: Problem) -> bool:
    try:
        check_labels(problem.reference, problem.output)
    except InputError:
        return False
    return True


def _missing(problem: Problem, outcome: Outcome) -> list[Quantity]:
    missing: list[Quantity] = []
    if "epsilon" not in outcome.brackets:
        missing.append("epsilon")
    if _has_labels(problem) and not any(k.startswith("sigma") for k in outcome.brackets):
        # Whoever asks about labels wants this one first.
        missing.insert(0, "sigma")
    return missing


def _implied(problem: Problem, outcome: Outcome) -> Outcome:
    """Add ``sigma = 0``, which proved labels mean: there is no input whose label flips."""
    is_labels = problem.property is not None and problem.property.name == "labels"
    if not is_labels or outcome.verdict is not Verdict.ROBUST:
        return outcome
    names = ["sigma"] if problem.reference.output_size > 1 else ["sigma_above", "sigma_below"]
    zero = dict.fromkeys(names, Bracket(0.0, 0.0))
    return replace(outcome, brackets={**zero, **outcome.brackets})


def check_agreement(problem: Problem, outcome: Outcome) -> None:
    """Refuse a verdict and brackets that cannot both be true.

    Raises:
        SoundnessError: they contradict each other.
    """
    asked = problem.property
    if asked is None or outcome.verdict not in (Verdict.ROBUST, Verdict.NOT_ROBUST):
        return
    if asked.name == "confidence":
        names, threshold = ["epsilon"], asked.epsilon
    else:
        names = [k for k in outcome.brackets if k.startswith("sigma")]
        threshold = asked.sigma or Fraction(0)
    found = [outcome.brackets[k] for k in names if k in outcome.brackets]
    if not found or threshold is None:
        return
    above = any(b.lower > threshold for b in found)
    # A flip exactly at sigma refutes the margin, a change of exactly epsilon does not refute.
    reached = any(
        b.upper > threshold or (b.upper == threshold and asked.name != "confidence") for b in found
    )
    robust = outcome.verdict is Verdict.ROBUST
    if (robust and above) or (not robust and not reached):
        ends = "; ".join(f"[{b.lower!r}, {b.upper!r}]" for b in found)
        raise SoundnessError(
            f"the verdict {outcome.verdict.value} on {asked.name} contradicts the bracket {ends}; "
            "this is a defect of paramrob: please report it with the model"
        )


def _whole(request: Request, outcomes: list[Outcome]) -> PointsOutcome:
    verdicts = [o.verdict for o in outcomes if o.verdict is not None]
    worst = max(verdicts, key=lambda v: _RANK[v]) if verdicts else None
    open_points = [o for o in outcomes if o.reason is not None]
    reason = None
    if open_points:
        reason = f"{len(open_points)} of {len(outcomes)} points are open: {open_points[0].reason}"
    return PointsOutcome(
        verdict=worst,
        reason=reason,
        brackets=_worst_brackets(outcomes),
        witness=next((o.witness for o in outcomes if o.witness is not None), None),
        solver=outcomes[0].solver,
        engine_seconds=sum(o.engine_seconds for o in outcomes),
        exact_encoding=all(o.exact_encoding for o in outcomes),
        notes=tuple(dict.fromkeys(note for o in outcomes for note in o.notes)),
        points=tuple(outcomes),
        accuracy=accuracy_of(request, outcomes),
    )


def _worst_brackets(outcomes: list[Outcome]) -> dict[str, Bracket]:
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

"""Answering a request: one engine call for each problem, within one time budget.

An interrupt (Ctrl-C) reaches the engine as ``KeyboardInterrupt``; the engine returns what it
has, and nothing more is started.
"""

from __future__ import annotations

import importlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from paramrob import engine
from paramrob.cheap_brackets import CHEAP_SECONDS, check_agreement, implied, with_brackets
from paramrob.clock import Clock
from paramrob.domain import Box
from paramrob.engine import METHODS, Encoding, Method, Settings
from paramrob.errors import BackendError, InputError
from paramrob.point_table import PointTable, Row
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.requests.build import Request
from paramrob.requests.sizes import parse_memory
from paramrob.several import (
    Accuracy,
    Keeper,
    OnPoints,
    PointsOutcome,
    Tally,
    has_labels,
    reference_label,
    whole,
)
from paramrob.solvers.keep import kept_solvers
from paramrob.verdict import INTERRUPTED, Bracket, Outcome, Verdict

__all__ = [
    "CHEAP_SECONDS",
    "Accuracy",
    "PointsOutcome",
    "check_agreement",
    "interrupts",
    "make_settings",
    "reference_label",
    "solve",
    "unbounded",
]

_STOPPED = "stopped by an interrupt; run it again, or ask about fewer points"
_TIME_UP = "the time was used up before this could be answered; raise --timeout"
HANDFUL = 5
"""Points up to which ``check`` looks for brackets that nobody asked for."""
KEPT = 8
"""Of the memory, what the counterexamples of all points may hold."""


def make_settings(
    solver: str = "auto",
    timeout: float = 60.0,
    tolerance: float = 1e-6,
    device: str = "cpu",
    encoding: Encoding | None = None,
    presolve: bool = True,
    cross_check: str | None = None,
    method: Method | None = None,
    memory: str | int = "1GiB",
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
        method: of the bounds at points, one of ``paramrob.engine.METHODS``; the cheapest that
            decides by default.
        memory: that the bounds at points may use, roughly: bytes, or text such as ``512MiB``.

    Raises:
        InputError: a value out of range, or a device that is not there.
    """
    for what, value in (("--timeout", timeout), ("--tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{what} {value!r}: give a finite number above 0")
    if device not in ("cpu", "cuda"):
        raise InputError(f"no device {device!r}; choose cpu or cuda")
    if method not in (None, *METHODS):
        raise InputError(f"no method {method!r}; choose from {', '.join(METHODS)}")
    if method is not None and solver not in ("auto", "bounds"):
        raise InputError("--method chooses among the bound engine's; leave --solver out")
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
        method=method,
        memory=parse_memory(memory),
    )


def solve(
    request: Request,
    settings: Settings,
    table: PointTable | None = None,
    on_points: OnPoints | None = None,
) -> Outcome:
    """Answer a request; a :class:`PointsOutcome` for several points.

    Args:
        request: what is asked.
        settings: how to solve.
        table: rows of points that need no new answer; those of new answers are added to it.
        on_points: called after each point with how far the whole has come.

    Raises:
        InputError: settings that do not fit the request.
        BackendError: the solver asked for cannot be used.
        SoundnessError: two results contradict each other.
    """
    if settings.method is not None and any(isinstance(p.domain, Box) for p in request.problems):
        raise InputError("--method chooses among bounds at points: give points with --at")
    try:
        with interrupts() as stopped, kept_solvers():
            return _Run(request, settings, stopped, table, on_points).answer()
    finally:
        if table is not None:
            table.close()


class _Run:
    """One request on its way to its answer."""

    def __init__(
        self,
        request: Request,
        settings: Settings,
        stopped: Callable[[], bool],
        table: PointTable | None,
        on_points: OnPoints | None,
    ) -> None:
        self.request, self.stopped = request, stopped
        self.table, self.on_points = table, on_points
        _load_engine()
        self.clock = Clock(settings.timeout)
        self.few = len(request.problems) <= HANDFUL
        # One line cannot show both a bracket and how many points are done.
        counted = on_points is not None and not self.few and request.asked.quantity is None
        self.settings = replace(settings, progress=None) if counted else settings
        self.known = {} if table is None else dict(table.rows)
        self.outcomes = {i: row.outcome for i, row in self.known.items()}
        self.labels: list[int | None] | None = None

    def answer(self) -> Outcome:
        """Return the answer."""
        request, count = self.request, len(self.request.problems)
        interrupted = False
        try:
            if request.classes is not None or self.table is not None:
                self.labels = self._all_labels()
            self._points()
        except KeyboardInterrupt:
            # The engine had not started its own watch yet, or a second interrupt came.
            interrupted = True
        reason = _STOPPED if interrupted or self.stopped() else _TIME_UP
        notes = self._notes()
        found = [self.outcomes.get(i) or _open(request, reason) for i in range(count)]
        if request.asked.command in ("check", "compare"):
            found = self._with_brackets(found)
        outcome = whole(request, found, self.labels) if request.several else found[0]
        # Under another handler of the signal the engine's own words are all that tells.
        said = any(INTERRUPTED in (part.reason or "") for part in found)
        return replace(
            outcome,
            notes=(*outcome.notes, *notes),
            interrupted=interrupted or self.stopped() or said,
            taken=len(self.known),
        )

    def _all_labels(self) -> list[int | None]:
        """Return the reference's label at every point: exact execution is the last resort."""
        problems = self.request.problems
        labels = {i: row.label for i, row in self.known.items()}
        todo = [i for i in range(len(problems)) if i not in labels]
        if todo and has_labels(problems[0]):
            told = engine.reference_labels([problems[i] for i in todo], self.settings)
            for i, label in zip(todo, told, strict=True):
                labels[i] = reference_label(problems[i]) if label is None else label
        return [labels.get(i) for i in range(len(problems))]

    def _points(self) -> None:
        """Answer every point that has no row, and keep what is found."""
        tally = Tally(len(self.request.problems))
        for outcome in self.outcomes.values():
            tally = tally.plus(outcome)
        keeper = Keeper(self.settings.memory // KEPT)
        for i, outcome in self._stream():
            self.outcomes[i] = keeper.kept(outcome)
            # What an engine says when it is stopped is no answer for a table.
            if self.stopped():
                return
            tally = tally.plus(outcome)
            if self.on_points is not None and self.request.several:
                self.on_points(tally)
            if self.table is not None:
                label = None if self.labels is None else self.labels[i]
                self.table.add(i, Row(outcome, label))

    def _stream(self) -> Iterator[tuple[int, Outcome]]:
        """Yield places and outcomes of points without a row, for as long as there is time."""
        request, settings, clock = self.request, self.settings, self.clock
        todo = [i for i in range(len(request.problems)) if i not in self.known]
        problems = [request.problems[i] for i in todo]
        at_once = request.asked.quantity is None and len(todo) > 1
        if at_once and engine.takes_points(problems[0], settings):
            left = replace(settings, timeout=clock.left)
            yield from ((todo[at], o) for at, o in engine.decide_points(problems, left))
            return
        for at, problem in enumerate(problems):
            if self.stopped() or clock.left <= 0:
                return
            yield todo[at], _one(request, problem, _share(settings, clock, len(todo) - at))

    def _with_brackets(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Add what a verdict implies, and of a handful of points the brackets that are cheap."""
        problems = self.request.problems
        if not self.few:
            found = [implied(p, o) for p, o in zip(problems, outcomes, strict=True)]
            for problem, outcome in zip(problems, found, strict=True):
                check_agreement(problem, outcome)
            return found
        extra = Clock(min(CHEAP_SECONDS, self.clock.left))
        found = []
        for at, (problem, outcome) in enumerate(zip(problems, outcomes, strict=True)):
            share = _share(self.settings, extra, len(problems) - at)
            found.append(with_brackets(problem, outcome, share, self.stopped))
        return found

    def _notes(self) -> list[str]:
        """Say what came from the table, and what it still lacks."""
        if self.table is None:
            return []
        path, count = self.table.path, len(self.request.problems)
        notes = []
        if self.known:
            notes.append(f"{len(self.known)} of {count} points were taken from {path}")
        if any(row.outcome.verdict is Verdict.NOT_ROBUST for row in self.known.values()):
            notes.append(
                "a table keeps no counterexamples; ask about one of its refuted points alone for "
                "the witness"
            )
        if any(row.outcome.verdict is Verdict.UNKNOWN for row in self.known.values()):
            notes.append(f"to ask again about points that are open, delete their rows in {path}")
        if len(self.table.rows) < count:
            left = count - len(self.table.rows)
            notes.append(f"{left} of {count} points have no row yet; run this again to go on")
        return notes


def unbounded(request: Request, quantity: Quantity) -> dict[str, Bracket]:
    """Return the brackets that hold before anything is known."""
    open_ended = Bracket(0.0, math.inf)
    if quantity == "sigma" and request.two_sided:
        return {"sigma_above": open_ended, "sigma_below": open_ended}
    return {quantity: open_ended}


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
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


def _load_engine() -> None:
    """Import what takes seconds the first time, before the clock of the engine starts."""
    importlib.import_module("paramrob.bounds.graph.points")


def _share(settings: Settings, clock: Clock, problems_left: int) -> Settings:
    """Return the settings with an equal share of what is left; what one saves, others get."""
    return replace(settings, timeout=clock.left / problems_left)


def _one(request: Request, problem: Problem, settings: Settings) -> Outcome:
    quantity = request.asked.quantity
    if quantity is None:
        return engine.decide(problem, settings)
    return engine.estimate(problem, quantity, settings)


def _open(request: Request, reason: str) -> Outcome:
    quantity, semantics = request.asked.quantity, request.problems[0].semantics
    if quantity is None:
        return Outcome(Verdict.UNKNOWN, reason, semantics=semantics)
    return Outcome(None, reason, unbounded(request, quantity), semantics=semantics)

"""What every solver is: the answer to one query, and what its native words mean."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, TypeAlias

from paramrob.encoders.terms import LOGICS, Logic, Query
from paramrob.errors import BackendError, SoundnessError
from paramrob.solvers.process import Worker, WorkerError, WorkerTimeoutError
from paramrob.verdict import Status

Encoding: TypeAlias = Literal["direct", "aggregated"]
TIME_UP = "the time was used up before {name} had an answer; raise --timeout"


@dataclass(frozen=True)
class Answer:
    """What a solver says about one query.

    ``model`` holds a value of every declared variable where the status is ``SAT`` or
    ``DELTA_SAT``. It is a candidate, nothing more, until it is replayed. ``precision`` is how far
    a constraint may be from holding there (``None`` where the solver claims exactness).
    ``reason`` says why the status is ``UNKNOWN`` and what to do. ``seconds`` is wall time.
    """

    status: Status
    model: Mapping[str, Fraction] | None = None
    precision: float | None = None
    reason: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class State:
    """Whether a solver can be used here; ``version`` is ``None`` where it cannot.

    ``advice`` says how to get what is missing.
    """

    version: str | None
    advice: str


@dataclass(frozen=True)
class Capabilities:
    """What a solver can express, as data.

    ``exact`` are the logics that it decides; in the others it is complete up to a precision, or
    says unknown. ``encoding`` is what it is given where nobody chooses.
    """

    name: str
    logics: frozenset[Logic]
    exact: frozenset[Logic]
    encoding: Encoding
    decides: str


_NATIVE: Mapping[str, Mapping[str, Status]] = MappingProxyType(
    {
        "z3": {
            "sat": Status.SAT,
            "unsat": Status.UNSAT,
            "unknown": Status.UNKNOWN,
            # Refinement ended at a point that satisfies the formula up to a precision.
            "delta-sat": Status.DELTA_SAT,
        },
        "dreal": {
            "delta-sat": Status.DELTA_SAT,
            "unsat": Status.UNSAT,
            "unknown": Status.UNKNOWN,
        },
        "icp": {
            "sat": Status.SAT,
            "delta-sat": Status.DELTA_SAT,
            "unsat": Status.UNSAT,
            "unknown": Status.UNKNOWN,
        },
    }
)


def status_of(solver: str, native: object) -> Status:
    """Return what a solver's own word means.

    Raises:
        SoundnessError: the word is not in the table: it could mean anything.
    """
    table = _NATIVE[solver]
    if not isinstance(native, str) or native not in table:
        said = repr(native)
        said = said if len(said) <= 80 else said[:80] + "..."
        raise SoundnessError(
            f"{solver} answered {said}, which means nothing to paramrob; check that it is a "
            f"version that `paramrob solvers` lists, or use another --solver"
        )
    return table[native]


class Solver(ABC):
    """One solver. Close it, or use it as a context, so that no process stays behind."""

    capabilities: Capabilities

    @classmethod
    @abstractmethod
    def state(cls) -> State:
        """Return whether it can be used here, at little cost."""

    @abstractmethod
    def check(self, query: Query, budget: float, precision: float | None = None) -> Answer:
        """Decide whether the query can be satisfied.

        Args:
            query: what has to hold together.
            budget: wall time in seconds; afterwards the answer is ``UNKNOWN``.
            precision: of a delta-complete solver; its own by default.

        Raises:
            BackendError: the solver is missing or cannot express the query.
            SoundnessError: its answer has no meaning.
        """

    @abstractmethod
    def close(self) -> None:
        """End its process."""

    def __enter__(self) -> Solver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def require(self, query: Query) -> None:
        """Refuse a query that the solver cannot be asked.

        Raises:
            BackendError: with what to do instead.
        """
        name = self.capabilities.name
        state = self.state()
        if state.version is None:
            raise BackendError(f"--solver {name} is not installed here: {state.advice}")
        if query.logic not in self.capabilities.logics:
            known = ", ".join(logic for logic in LOGICS if logic in self.capabilities.logics)
            raise BackendError(f"{name} cannot express {query.logic} (only {known}); use icp")

    def asked(self, worker: Worker, question: Mapping[str, object], budget: float) -> Answer:
        """Ask the solver's worker and give its answer its meaning.

        The worker answers ``{"status", "model", "precision", "reason"}``, values of the model as
        exact text. A worker that is late or ends without an answer means ``UNKNOWN``.

        Raises:
            SoundnessError: the answer has no meaning.
        """
        name = self.capabilities.name
        started = time.monotonic()
        try:
            reply = worker.ask(question, budget)
        except WorkerTimeoutError:
            return _open(TIME_UP.format(name=name), started)
        except WorkerError as error:
            return _open(f"{name} gave no answer, {error}; try another --solver", started)
        status = status_of(name, reply.get("status"))
        reason = reply.get("reason")
        if status is Status.UNKNOWN and not isinstance(reason, str):
            reason = f"{name} gave up without a reason; try another --solver"
        given = reply.get("precision")
        precision = float.fromhex(given) if isinstance(given, str) else given
        model = _model(name, reply.get("model"))
        return Answer(status, model, precision, reason, time.monotonic() - started)


def _open(reason: str, started: float) -> Answer:
    return Answer(Status.UNKNOWN, reason=reason, seconds=time.monotonic() - started)


def _model(name: str, given: object) -> dict[str, Fraction] | None:
    if given is None:
        return None
    try:
        return {str(key): Fraction(str(value)) for key, value in dict(given).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError, ZeroDivisionError):
        raise SoundnessError(
            f"{name} answered with values that are no numbers; use another --solver"
        ) from None

"""What an answer is: verdict, bracket, witness, outcome, and the rule that makes a verdict."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from paramrob.errors import SoundnessError
from paramrob.models.network import Array

TIME_UP = "the time ran out; raise --timeout"
INTERRUPTED = "stopped by the user; let it run longer for a narrower bracket"
"""Reasons that engines share."""


class Verdict(enum.Enum):
    """What a user gets."""

    ROBUST = "robust"
    NOT_ROBUST = "not_robust"
    UNKNOWN = "unknown"


class Status(enum.Enum):
    """What an engine says about the *negation* of the property."""

    SAT = "sat"
    DELTA_SAT = "delta-sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"


class Approximation(enum.Enum):
    """How the encoded problem relates to the real one."""

    EXACT = "exact"
    OVER = "over"
    UNDER = "under"


@dataclass(frozen=True)
class Interval:
    """A proved enclosure of one real number."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or self.lower > self.upper:
            raise SoundnessError(f"an enclosure from {self.lower!r} to {self.upper!r}")


@dataclass(frozen=True, eq=False)
class Witness:
    """A counterexample: one input and one parameter vector, in float64.

    ``reference_output`` and ``perturbed_output`` enclose the exact outputs, one interval per
    output, in the meaning of the property (after sigmoid or softmax for logits). ``change``
    encloses the largest change of an output (what epsilon bounds). ``margin`` encloses how far
    the reference is from its decision boundary (what sigma bounds): ``|f0 - level|``, or the
    best logit less the second best. ``labels`` are those of reference and perturbed network;
    ``None`` where there are none or where a tie cannot be told. Only exact replay sets
    ``replayed``.
    """

    input: Array
    parameters: Mapping[str, Array]
    reference_output: tuple[Interval, ...] = ()
    perturbed_output: tuple[Interval, ...] = ()
    labels: tuple[int | None, int | None] = (None, None)
    change: Interval | None = None
    margin: Interval | None = None
    replayed: bool = False


@dataclass(frozen=True)
class RuntimeRun:
    """A counterexample to two files as a runtime executes them: what it shows, not what decides.

    Outputs are in the meaning of the property; ``None`` where a file was not run. ``labels`` are
    those of reference and model, the exact ones where a file was not run. ``deviation`` is how
    far each side's outputs lie from exact replay. ``reproduced`` says whether the runtime's
    outputs refute the claim as well, ``input_rounded`` that its input type could not hold the
    counterexample's input.
    """

    name: str
    version: str
    reference_output: tuple[float, ...] | None
    model_output: tuple[float, ...] | None
    labels: tuple[int | None, int | None]
    deviation: tuple[float | None, float | None]
    reproduced: bool
    input_rounded: bool = False


@dataclass(frozen=True)
class Bracket:
    """``lower <= true value <= upper``.

    For a supremum (epsilon, sigma) the lower end is attained by the witness and the upper end
    proved; for the largest tolerable delta the lower end is proved and the upper refuted.

    Raises:
        SoundnessError: the ends cross, or one is NaN.
    """

    lower: float
    upper: float
    witness: Witness | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper):
            raise SoundnessError("a bracket with NaN in it")
        if self.lower > self.upper:
            raise SoundnessError(f"a bracket whose ends cross: {self.lower!r} > {self.upper!r}")

    @property
    def width(self) -> float:
        """``upper - lower``."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Outcome:
    """The answer to one problem.

    ``verdict`` is ``None`` for an estimation. ``brackets`` may hold ``epsilon``, ``sigma_above``,
    ``sigma_below``, ``sigma`` and ``delta``. ``reason`` says why something is open and what to
    do about it. ``exact_encoding`` is false where shared parameters were relaxed or rounding was
    bounded. ``method`` is what decided within the solver, where it has several ways.
    ``semantics`` names the arithmetic of the uncertain network that the engine reasoned about;
    the reference is in real numbers. ``interrupted`` says that the user stopped the run: what is
    open was not asked to the end. ``taken`` counts the points whose answers were read from a table
    of an earlier run. ``runtime`` is what a runtime makes of the witness, where it was asked.
    """

    verdict: Verdict | None = None
    reason: str | None = None
    brackets: Mapping[str, Bracket] = field(default_factory=dict)
    witness: Witness | None = None
    solver: str = "bounds"
    engine_seconds: float = 0.0
    exact_encoding: bool = True
    notes: tuple[str, ...] = ()
    method: str | None = None
    semantics: str = "real"
    interrupted: bool = False
    taken: int = 0
    runtime: RuntimeRun | None = None


def verdict_from(status: Status, approximation: Approximation, witness: Witness | None) -> Verdict:
    """Turn an engine's answer about the negated property into a verdict.

    Only ``unsat`` of an exact or over-approximate encoding proves; only a witness that survived
    exact replay refutes; everything else is unknown.

    Raises:
        SoundnessError: ``status`` or ``approximation`` is not one of the enumerations' values.
    """
    if not isinstance(status, Status) or not isinstance(approximation, Approximation):
        raise SoundnessError(f"an answer that has no meaning: {status!r}, {approximation!r}")
    if status is Status.UNSAT:
        return Verdict.UNKNOWN if approximation is Approximation.UNDER else Verdict.ROBUST
    if status in (Status.SAT, Status.DELTA_SAT) and witness is not None and witness.replayed:
        return Verdict.NOT_ROBUST
    return Verdict.UNKNOWN

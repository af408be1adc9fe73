"""The fewest bits that keep a property: every width of an integer format under one scale rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from paramrob.clock import Clock
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.models.model import Model
from paramrob.quantize.scheme import NARROWEST, WIDEST, Scheme
from paramrob.requests.build import Asked, Request, build
from paramrob.solve import solve
from paramrob.verdict import Outcome, Verdict

WIDTHS = tuple(range(WIDEST, NARROWEST - 1, -1))
_TIME_UP = "the time was used up before this width; raise --timeout"


@dataclass(frozen=True)
class Width:
    """One width: what was asked about it, and the answer."""

    bits: int
    request: Request
    outcome: Outcome


@dataclass(frozen=True)
class FewestBits:
    """The answers for all widths, the widest first."""

    widths: tuple[Width, ...]

    @property
    def bits(self) -> int | None:
        """The fewest bits from which on every width up to the widest is proved, if any.

        A width below may be proved as well: fewer bits are not always worse, as the grids of
        different widths are not nested.
        """
        fewest = None
        for width in self.widths:
            if width.outcome.verdict is not Verdict.ROBUST:
                break
            fewest = width.bits
        return fewest

    @property
    def stopper(self) -> Width | None:
        """The widest width that was not proved."""
        left = (w for w in self.widths if w.outcome.verdict is not Verdict.ROBUST)
        return next(left, None)

    @property
    def witnessed(self) -> Width | None:
        """The widest width with a counterexample that is held."""
        refuted = (w for w in self.widths if w.outcome.witness is not None)
        return next(refuted, None)


def decide_widths(
    asked: Asked, model: Model, settings: Settings, widths: Sequence[int] = WIDTHS
) -> FewestBits:
    """Decide a property for every width of an integer format.

    Args:
        asked: with a scheme (or integer format) whose width is replaced, a property and where.
        model: what is quantized.
        settings: how to solve; each width may take an equal share of the time, and what is
            open then what the others left.
        widths: in bits, the widest first.

    Raises:
        InputError: no integer format, or a question that cannot be asked.
    """
    scheme = integer_scheme(asked)
    if asked.quantity is not None:
        raise InputError("the fewest bits keep a property: leave the quantity out")
    sign = "u" if scheme.is_unsigned else ""
    requests = {
        bits: build(
            replace(asked, command="estimate", quantize=replace(scheme, format=f"{sign}int{bits}")),
            model,
        )
        for bits in widths
    }
    outcomes = _answers(requests, settings)
    return FewestBits(tuple(Width(bits, requests[bits], outcomes[bits]) for bits in requests))


def integer_scheme(asked: Asked) -> Scheme:
    """Return the scheme of a question about widths.

    Raises:
        InputError: none, a float format, or layers that have formats already.
    """
    scheme = Scheme(asked.quantize) if isinstance(asked.quantize, str) else asked.quantize
    if scheme is None or scheme.is_float:
        raise InputError("the fewest bits of which format? give integers, such as int8")
    if scheme.layers:
        raise InputError("the fewest bits try every width: leave --quantize-layer out")
    return scheme


def _answers(requests: Mapping[int, Request], settings: Settings) -> dict[int, Outcome]:
    """Answer each width within its share, then what is open with what the others left."""
    clock = Clock(settings.timeout)
    first = next(iter(requests.values())).problems[0]
    nothing = Outcome(Verdict.UNKNOWN, _TIME_UP, semantics=first.semantics)
    outcomes = dict.fromkeys(requests, nothing)
    for _ in range(2):
        todo = [b for b, outcome in outcomes.items() if outcome.verdict is Verdict.UNKNOWN]
        for done, bits in enumerate(todo):
            left = clock.left / (len(todo) - done)
            if left <= 0:
                return outcomes
            outcomes[bits] = solve(requests[bits], replace(settings, timeout=left))
            if outcomes[bits].interrupted:
                return outcomes
    return outcomes

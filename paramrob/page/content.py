"""What a page says, as plain values; nothing here knows how it is drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "bad", "open", "plain"]
Share = float
"""Where something lies between two ends, 0 to 1."""


@dataclass(frozen=True)
class Number:
    """A number of the report's JSON object, in the same digits.

    ``path`` says where it stands there (``brackets.epsilon.lower``); ``None`` for a number that
    the page alone shows.
    """

    value: float | None
    path: str | None = None

    @property
    def text(self) -> str:
        """The shortest round-trip decimal, ``unbounded`` for null."""
        return "unbounded" if self.value is None else json.dumps(self.value)


@dataclass(frozen=True)
class Answer:
    """The answer: one word or number, what it rests on, and the statement in full."""

    tone: Tone
    word: str
    basis: str
    statement: str


@dataclass(frozen=True)
class BracketView:
    """A bracket: both ends short (rounded outward) and in full, and what each end is.

    ``top`` is the right end of the scale that it is drawn on, ``threshold`` what was asked.
    """

    name: str
    meaning: str
    short: tuple[str, str]
    lower: Number
    upper: Number
    lower_is: str
    upper_is: str
    top: float
    threshold: float | None = None


@dataclass(frozen=True)
class InputView:
    """One input of the witness, and where it lies in the box (``None`` for a point)."""

    name: str
    unit: str
    value: Number
    ends: tuple[Number, Number] | None = None

    @property
    def share(self) -> Share | None:
        """How far from the lower end to the upper; ``None`` without a box of any width."""
        if self.ends is None or self.value.value is None:
            return None
        low, high = (end.value or 0.0 for end in self.ends)
        if low == high:
            return None
        return min(max((self.value.value - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class OutputView:
    """One output of the witness, trained and perturbed."""

    name: str
    trained: Number
    perturbed: Number


@dataclass(frozen=True)
class MovedParameter:
    """One parameter of the witness.

    ``share`` is its change as a part of its half-width (1: at the edge of its interval),
    ``effect`` what moving it alone does to the output, in floating point.
    """

    name: str
    trained: float
    perturbed: float
    share: Share
    effect: float | None

    @property
    def change(self) -> float:
        """By how much it moved."""
        return self.perturbed - self.trained


@dataclass(frozen=True)
class WitnessView:
    """The counterexample.

    ``labels`` are names, ``None`` where there are none. ``level`` is where the label of a
    single output changes. ``moved`` holds the parameters that moved most; ``counts`` how many
    moved, how many of them to the edge of their interval, and how many there are. ``sides`` are
    what the two outputs are called, ``runtime`` is what a runtime shows, in one sentence.
    """

    point: int | None
    inputs: tuple[InputView, ...]
    input_count: int
    outputs: tuple[OutputView, ...]
    output_count: int
    labels: tuple[str | None, str | None]
    level: float | None
    moved: tuple[MovedParameter, ...]
    counts: tuple[int, int, int]
    replayed: bool
    about: str
    sides: tuple[str, str] = ("trained", "perturbed")
    runtime: str | None = None


@dataclass(frozen=True)
class PointView:
    """One of several points."""

    index: int
    at: str
    tone: Tone
    answer: str


@dataclass(frozen=True)
class PointsView:
    """Several points: how many of which verdict, the accuracy, and the ones worth a look."""

    summary: str
    accuracy: str | None
    shown: tuple[PointView, ...]
    left_out: int


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows in words.

    Args:
        title: its heading.
        alt: what a person who cannot see it needs to know.
        data: the file's bytes.
        media: ``image/svg+xml`` or ``image/png``.
        caption: explains colours and marks.
    """

    title: str
    alt: str
    data: bytes
    media: Literal["image/svg+xml", "image/png"]
    caption: str = ""


@dataclass(frozen=True)
class DomainRow:
    """The ends of one input; they agree at a point."""

    name: str
    unit: str
    lower: Number
    upper: Number


Facts = tuple[tuple[str, str | Number], ...]


@dataclass(frozen=True)
class Page:
    """Everything that a page says, in its order."""

    title: str
    kind: str
    question: str
    asked: Facts
    answer: Answer
    remarks: tuple[str, ...] = ()
    witness: WitnessView | None = None
    brackets: tuple[BracketView, ...] = ()
    figures: Facts = ()
    pictures: tuple[Picture, ...] = ()
    points: PointsView | None = None
    proved: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model: Facts = ()
    domain: tuple[DomainRow, ...] = ()
    domain_note: str = ""
    engine: Facts = ()
    commands: tuple[tuple[str, str], ...] = ()
    report: str | None = None

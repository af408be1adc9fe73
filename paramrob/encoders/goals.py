"""The negated properties and the quantities to maximise, as formulas over the two networks' ends.

Definitions 1 to 5 of Murthy, Das and Islam (arXiv 1903.10672), negated: a flip goes either way,
``(f0 <= l and fp > l) or (f0 > l and fp <= l)``, and the whole is conjoined with everything else.
Where a threshold on a confidence is moved to the logit, its logit is enclosed in rationals and the
end is taken that lets more points in; the same holds for a reference that is known only as an
enclosure. ``exact`` says that nothing was let in by that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from paramrob.encoders.build import Builder
from paramrob.encoders.enclose import Enclosure, logit_ends
from paramrob.encoders.terms import (
    FALSE,
    TRUE,
    Constant,
    Formula,
    Operator,
    Term,
    add,
    all_of,
    any_of,
    compare,
    subtract,
)
from paramrob.properties import Property

GoalName = Literal["property", "epsilon", "sigma", "sigma_above", "sigma_below"]
Above = Callable[[Fraction], Formula]


@dataclass(frozen=True)
class Known:
    """A number of the reference: the same term twice, or the ends of an enclosure."""

    low: Term
    high: Term

    @classmethod
    def exactly(cls, term: Term) -> Known:
        """Return the number that a term is."""
        return cls(term, term)

    @classmethod
    def between(cls, ends: Enclosure) -> Known:
        """Return a constant known up to its enclosure."""
        return cls(Constant(ends[0]), Constant(ends[1]))

    @property
    def exact(self) -> bool:
        """Whether it is no enclosure."""
        return self.low == self.high


@dataclass(frozen=True)
class Stated:
    """What a goal asks; ``above(t)`` adds "the quantity is at least t"."""

    formula: Formula
    exact: bool
    above: Above | None = None


@dataclass(frozen=True)
class Scale:
    """One number of either network that rises with the confidence.

    ``squashed``: the terms are logits of confidences in (0, 1); thresholds are confidences.
    """

    before: Known
    after: Term
    squashed: bool

    def is_exact(self, threshold: Fraction) -> bool:
        """Whether a comparison with this threshold lets nothing in."""
        moved = self.squashed and 0 < threshold < 1 and threshold != Fraction(1, 2)
        return self.before.exact and not moved

    def before_at_least(self, threshold: Fraction, strict: bool = False) -> Formula:
        """Return that the reference lies at or above (strictly: above) the threshold."""
        return self._at_least(self.before.high, threshold, strict)

    def before_at_most(self, threshold: Fraction) -> Formula:
        """Return that the reference lies at or below the threshold."""
        return self._at_most(self.before.low, threshold, strict=False)

    def after_at_least(self, threshold: Fraction, strict: bool = False) -> Formula:
        """Return that the uncertain network lies at or above the threshold."""
        return self._at_least(self.after, threshold, strict)

    def after_at_most(self, threshold: Fraction, strict: bool = False) -> Formula:
        """Return that the uncertain network lies at or below the threshold."""
        return self._at_most(self.after, threshold, strict)

    def _at_least(self, term: Term, threshold: Fraction, strict: bool) -> Formula:
        if self.squashed:
            if not 0 < threshold < 1:
                return TRUE if threshold <= 0 else FALSE
            threshold = logit_ends(threshold)[0]
        return compare(term, ">" if strict else ">=", Constant(threshold))

    def _at_most(self, term: Term, threshold: Fraction, strict: bool) -> Formula:
        if self.squashed:
            if not 0 < threshold < 1:
                return TRUE if threshold >= 1 else FALSE
            threshold = logit_ends(threshold)[1]
        return compare(term, "<" if strict else "<=", Constant(threshold))


def two_labels(scale: Scale, level: Fraction, goal: GoalName, asked: Property | None) -> Stated:
    """Return the flips of one output with a level, or the reference's distance from it."""
    falls = all_of(scale.before_at_least(level, strict=True), scale.after_at_most(level))
    rises = all_of(scale.before_at_most(level), scale.after_at_least(level, strict=True))

    def above(t: Fraction) -> Formula:
        return scale.before_at_least(level + t)

    def below(t: Fraction) -> Formula:
        return scale.before_at_most(level - t)

    exact = scale.is_exact(level)
    if goal == "property":
        sigma = asked.sigma if asked else None
        if not sigma:
            return Stated(any_of(falls, rises), exact)
        exact = exact and scale.is_exact(level + sigma) and scale.is_exact(level - sigma)
        far = any_of(all_of(above(sigma), falls), all_of(below(sigma), rises))
        return Stated(far, exact)
    exact = exact and not scale.squashed
    if goal == "sigma_above":
        return Stated(falls, exact, above)
    if goal == "sigma_below":
        return Stated(rises, exact, below)
    return Stated(any_of(falls, rises), exact, lambda t: any_of(above(t), below(t)))


def many_labels(
    before: list[Known], after: list[Term], goal: GoalName, asked: Property | None
) -> Stated:
    """Return that the argmax changes (ties to the lowest index), or the lead of the best score."""
    classes = range(len(after))

    def wins(best: int) -> Formula:
        top = before[best].high
        return all_of(
            *(compare(top, ">" if j < best else ">=", before[j].low) for j in classes if j != best)
        )

    def loses(best: int) -> Formula:
        top = after[best]
        return any_of(
            *(compare(after[j], ">=" if j < best else ">", top) for j in classes if j != best)
        )

    def leads(t: Fraction) -> Formula:
        return any_of(*(_lead(before, best, t) for best in classes))

    exact = all(score.exact for score in before)
    if goal == "property":
        sigma = (asked.sigma if asked else None) or Fraction(0)
        flips = (
            all_of(wins(a), loses(a), *([_lead(before, a, sigma)] if sigma else []))
            for a in classes
        )
        return Stated(any_of(*flips), exact)
    return Stated(any_of(*(all_of(wins(a), loses(a)) for a in classes)), exact, leads)


def _lead(before: list[Known], best: int, t: Fraction) -> Formula:
    top = before[best].high
    others = [known.low for j, known in enumerate(before) if j != best]
    return all_of(*(compare(top, ">=", add(other, Constant(t))) for other in others))


def change_by_thresholds(scale: Scale, confidence: Known, asked: Fraction | None) -> Stated:
    """Return that one confidence leaves the reference's, which is constant, by too much."""
    low, high = _value(confidence.low), _value(confidence.high)

    def beyond(t: Fraction, strict: bool) -> Formula:
        up = scale.after_at_least(low + t, strict)
        return any_of(up, scale.after_at_most(high - t, strict))

    exact = confidence.exact and not scale.squashed
    if asked is not None:
        return Stated(beyond(asked, strict=True), exact)
    return Stated(TRUE, exact, lambda t: beyond(t, strict=False))


def _value(term: Term) -> Fraction:
    return term.value if isinstance(term, Constant) else Fraction(0)


def largest_change(
    builder: Builder,
    before: list[Known],
    after: list[Term],
    known: Enclosure | None,
    asked: Fraction | None,
) -> Stated:
    """Return that some output moves by more than ``asked``, or by at least a threshold."""
    moves: list[tuple[Term, Term]] = []
    for k, (ours, theirs) in enumerate(zip(before, after, strict=True)):
        words = f"change of output {k}"
        bounds = known or (None, None)
        up = builder.define(f"up{k}", subtract(theirs, ours.low), bounds, words)
        if ours.exact:
            moves.append((up, up))
        else:
            down = builder.define(f"down{k}", subtract(theirs, ours.high), bounds, words)
            moves.append((up, down))

    def beyond(t: Fraction, strict: bool) -> Formula:
        more: Operator = ">" if strict else ">="
        less: Operator = "<" if strict else "<="
        return any_of(
            *(
                part
                for up, down in moves
                for part in (
                    compare(up, more, Constant(t)),
                    compare(down, less, Constant(-t)),
                )
            )
        )

    exact = all(ours.exact for ours in before)
    if asked is not None:
        return Stated(beyond(asked, strict=True), exact)
    return Stated(TRUE, exact, lambda t: beyond(t, strict=False))

"""The answer in one sentence: what was proved, what was refuted, what is open."""

from __future__ import annotations

import math
from fractions import Fraction

from paramrob.decimals import bracket_texts, rounded_down, rounded_up
from paramrob.domain import Ball, Box
from paramrob.exact import decimal_text
from paramrob.page.content import Answer, Tone
from paramrob.properties import Property
from paramrob.report import is_closed, label_name, reported_witness
from paramrob.requests.build import Request
from paramrob.solve import PointsOutcome
from paramrob.verdict import Outcome, Verdict
from paramrob.wording import (
    held_against,
    inputs_text,
    is_rigid,
    measured,
    movers,
    nobody_moves,
    vectors,
)

_BIG, _DIGITS = 4, 6
"""Digits of the headline and of sentences; the brackets themselves show all that there are."""
_SHORT = 4
"""How many inputs a sentence may list."""
_TONES: dict[Verdict, Tone] = {
    Verdict.ROBUST: "good",
    Verdict.NOT_ROBUST: "bad",
    Verdict.UNKNOWN: "open",
}
_WORDS = {
    Verdict.ROBUST: ("ROBUST", "proved"),
    Verdict.NOT_ROBUST: ("NOT ROBUST", "refuted by a counterexample that was replayed exactly"),
    Verdict.UNKNOWN: ("OPEN", "neither proved nor refuted"),
}


def answer_of(request: Request, outcome: Outcome, tolerance: float) -> Answer:
    """Return the answer of a check or an estimation."""
    if outcome.verdict is None:
        return _estimated(request, outcome, tolerance)
    word, basis = _WORDS[outcome.verdict]
    statement = {
        Verdict.ROBUST: _proved,
        Verdict.NOT_ROBUST: _refuted,
        Verdict.UNKNOWN: _undecided,
    }[outcome.verdict](request, outcome)
    return Answer(_TONES[outcome.verdict], word, basis, statement)


def verdict_answer(outcome: Outcome) -> tuple[Tone, str]:
    """Return tone and words for one of several points."""
    if outcome.verdict is not None:
        return _TONES[outcome.verdict], _WORDS[outcome.verdict][0].lower()
    texts = (
        f"{name.replace('_', ' ')} {' to '.join(bracket_texts(b.lower, b.upper))}"
        for name, b in outcome.brackets.items()
    )
    return "plain", "; ".join(texts)


def holds_words(request: Request) -> str:
    """Return what holds if the property does, for every input and parameter vector."""
    asked, output = request.asked.property(), request.model.output
    if asked.epsilon is not None and request.reference is not None:
        said = f"the {measured(output)} is within {decimal_text(asked.epsilon)}"
        return f"{said} of what {held_against(request)} gives"
    if asked.epsilon is not None:
        return f"the {measured(output)} moves by at most {decimal_text(asked.epsilon)}"
    same = f"the label is the one that {held_against(request)} gives"
    return same if asked.sigma is None else f"{same}, {_where_clear(request, asked)}"


def _where_clear(request: Request, asked: Property) -> str:
    """Return the margin's condition."""
    sigma = decimal_text(asked.sigma or Fraction(0))
    if request.two_sided:
        level = decimal_text(request.model.output.level or Fraction(0))
        return f"wherever {held_against(request)} is at least {sigma} from the level {level}"
    return f"wherever the best logit leads the second by at least {sigma}"


def _scope(request: Request, who: str | None = None) -> str:
    """Return the quantifiers with which a statement starts."""
    who = vectors(request) if who is None else who
    count, domain = len(request.problems), request.problems[0].domain
    if isinstance(domain, Ball):
        these = "this one" if count == 1 else f"each of the {count} points"
        return f"for every input within {decimal_text(domain.radius)} of {these} and {who}, "
    if count > 1:
        return f"at each of the {count} points, for {who}, "
    if isinstance(request.problems[0].domain, Box):
        return f"for every input of the box and {who}, "
    return f"at this input, for {who}, "


def _anywhere(request: Request) -> str:
    domain = request.problems[0].domain
    if isinstance(domain, Ball):
        return f"at any input within {decimal_text(domain.radius)} of what was asked about"
    if len(request.problems) > 1:
        return f"at any of the {len(request.problems)} points"
    is_box = isinstance(request.problems[0].domain, Box)
    return "at any input of the box" if is_box else "at this input"


def _proved(request: Request, outcome: Outcome) -> str:
    said = f"{_scope(request)}{holds_words(request)}."
    return _sentence(said)


def _refuted(request: Request, outcome: Outcome) -> str:
    asked, output = request.asked.property(), request.model.output
    at = f"at the input {_input_named(request, outcome)}"
    if isinstance(outcome, PointsOutcome) and len(outcome.points) > 1:
        count = sum(part.verdict is Verdict.NOT_ROBUST for part in outcome.points)
        at = f"at {count} of {len(outcome.points)} points (the first is below)"
    if is_rigid(request):
        return _sentence(f"{at}, {_parted(request, outcome)}.")
    if asked.epsilon is not None:
        done = f"move the {measured(output)} by more than {decimal_text(asked.epsilon)}"
        return _sentence(f"{at}, {movers(request)} {done}.")
    before, after = outcome.witness.labels if outcome.witness else (None, None)
    names = (label_name(output, before), label_name(output, after))
    one = len(request.problems) == 1 and None not in names
    change = f" from {names[0]} to {names[1]}" if one else ""
    clear = ""
    if asked.sigma is not None:
        sigma = decimal_text(asked.sigma)
        clear = f", although {held_against(request)} is at least {sigma} from its decision boundary"
    return _sentence(f"{at}, {movers(request)} change the label{change}{clear}.")


def _parted(request: Request, outcome: Outcome) -> str:
    """Return how two files differ, of which neither moves."""
    asked, output = request.asked.property(), request.model.output
    if asked.epsilon is not None:
        said = f"the {measured(output)}s of model and reference differ by more than"
        return f"{said} {decimal_text(asked.epsilon)}"
    before, after = outcome.witness.labels if outcome.witness else (None, None)
    names = (label_name(output, before), label_name(output, after))
    clear = ""
    if asked.sigma is not None:
        sigma = decimal_text(asked.sigma)
        clear = f", although the reference is at least {sigma} from its decision boundary"
    if len(request.problems) > 1 or None in names:
        return f"the model gives another label than the reference{clear}"
    return f"the model gives {names[1]} where the reference gives {names[0]}{clear}"


def _input_named(request: Request, outcome: Outcome) -> str:
    """Return the witness's input, where it is short enough for a sentence."""
    if outcome.witness is None or outcome.witness.input.size > _SHORT:
        return "below"
    return inputs_text(request.model, outcome.witness.input.ravel())


def _undecided(request: Request, outcome: Outcome) -> str:
    said = f"{_scope(request)}{holds_words(request)}"
    return f"It was neither proved nor refuted that {said}."


def _estimated(request: Request, outcome: Outcome, tolerance: float) -> Answer:
    if not outcome.brackets:
        return Answer("open", "OPEN", "nothing was proved", "No end of the bracket is known.")
    closed = is_closed(outcome, tolerance)
    statements = {"epsilon": _epsilon, "sigma": _sigma, "delta": _delta}
    word, statement = statements[request.asked.quantity or "epsilon"](request, outcome)
    if closed:
        basis = f"both ends within {tolerance:g} of each other"
    else:
        basis = f"the ends are more than {tolerance:g} apart; both hold"
    return Answer("plain" if closed else "open", word, basis, statement)


def _epsilon(request: Request, outcome: Outcome) -> tuple[str, str]:
    bracket, what = outcome.brackets["epsilon"], measured(request.model.output)
    lower, upper = _ends(bracket.lower, bracket.upper)
    one = "it" if request.asked.is_one_network() else "one"
    at_least = f"{one} moves it by at least {lower} (the witness below)"
    if math.isinf(bracket.upper):
        said = f"no upper end was proved for how far the {what} can move"
        word = f"at least {rounded_down(bracket.lower, _BIG)}" if bracket.lower > 0 else "OPEN"
    else:
        said = f"{nobody_moves(request)} the {what} {_anywhere(request)} "
        said += f"by more than {upper}"
        word = f"at most {rounded_up(bracket.upper, _BIG)}"
    if bracket.witness is not None and bracket.lower > 0:
        said += f"; {at_least}"
    return word, _sentence(f"{said}.")


def _sigma(request: Request, outcome: Outcome) -> tuple[str, str]:
    parts = []
    for name, bracket in outcome.brackets.items():
        lower, upper = _ends(bracket.lower, bracket.upper)
        far = {"sigma_above": "above the level", "sigma_below": "below the level"}.get(name)
        beyond = f"the trained network is farther than {upper} {far}"
        if far is None:
            beyond = f"the best logit leads the second by more than {upper}"
        if math.isinf(bracket.upper):
            side = "" if far is None else f" {far}"
            said = f"no upper end was proved for how far{side} a label can flip"
        else:
            said = f"no label flips {_anywhere(request)} where {beyond}"
        if bracket.witness is not None and bracket.lower > 0:
            said += f", and one flips at a distance of at least {lower}"
        parts.append(_sentence(f"{said}."))
    upper_end = max(b.upper for b in outcome.brackets.values())
    lower_end = max(b.lower for b in outcome.brackets.values())
    word = f"flips within {rounded_up(upper_end, _BIG)} only"
    if math.isinf(upper_end):
        far = f"flips as far as {rounded_down(lower_end, _BIG)} at least"
        word = far if lower_end > 0 else "OPEN"
    return word, " ".join(parts)


def _delta(request: Request, outcome: Outcome) -> tuple[str, str]:
    bracket = outcome.brackets["delta"]
    lower, upper = _ends(bracket.lower, bracket.upper)
    if bracket.lower > 0:
        who = f"every parameter vector within {lower} of the trained one"
        said = f"{_scope(request, who)}{holds_words(request)}"
    else:
        said = "no positive delta was proved"
    if reported_witness(outcome) is not None:
        said += f"; within {upper} it fails, as the witness below shows"
    word = f"up to {rounded_down(bracket.lower, _BIG)}" if bracket.lower > 0 else "no delta above 0"
    return word, _sentence(f"{said}.")


def _ends(lower: float, upper: float) -> tuple[str, str]:
    return rounded_down(lower, _DIGITS), rounded_up(upper, _DIGITS)


def _sentence(said: str) -> str:
    return said[:1].upper() + said[1:]

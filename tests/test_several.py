"""What the outcomes of several points make together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paramrob.requests.build import Asked, Request, build
from paramrob.several import Accuracy, Keeper, Tally, reference_label, whole
from paramrob.verdict import Bracket, Outcome, Verdict, Witness
from tests.small_models import classifier_model

PROVED, OPEN = Outcome(Verdict.ROBUST), Outcome(Verdict.UNKNOWN, "raise --timeout")


def refuted(x: float, numbers: int = 1) -> Outcome:
    parameters = {"0.bias": np.zeros(numbers)}
    witness = Witness(np.array([x, 0.0]), parameters, labels=(0, 1), replayed=True)
    return Outcome(Verdict.NOT_ROBUST, witness=witness)


def request(count: int, **options: object) -> Request:
    at = [[float(i), 0.0] for i in range(count)]
    return build(Asked(delta=1, at=at, **options), classifier_model())  # type: ignore[arg-type]


def test_shares_count_every_point() -> None:
    outcome = whole(request(5), [PROVED, OPEN, refuted(2), PROVED, refuted(4)], None)
    assert outcome.shares == {"robust": 0.4, "not_robust": 0.4, "unknown": 0.2}
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.accuracy is None
    estimates = [Outcome(None, brackets={"epsilon": Bracket(0, 1)})] * 2
    assert whole(request(2, command="estimate", quantity="epsilon"), estimates, None).shares == {}


def test_certified_is_correct_and_proved() -> None:
    asked = replace(request(5), classes=(0, 0, 0, 1, 1))
    outcomes = [PROVED, OPEN, refuted(2), PROVED, refuted(4)]
    found = whole(asked, outcomes, [0, 0, 0, 0, 1]).accuracy
    assert found == Accuracy(0.8, 0.2, 0.4)
    # A label that cannot be told is not the true one.
    assert whole(asked, outcomes, [None, 0, 0, 0, 1]).accuracy == Accuracy(0.6, 0.0, 0.2)
    assert whole(asked, outcomes, None).accuracy is None


def test_the_witness_of_the_whole_has_parameters() -> None:
    first, second = refuted(1), refuted(2)
    assert first.witness is not None
    bare = replace(first, witness=replace(first.witness, parameters={}))
    assert whole(request(2), [bare, second], None).witness is second.witness
    assert whole(request(2), [first, second], None).witness is first.witness


def test_witnesses_beyond_the_budget_lose_their_parameters() -> None:
    keeper = Keeper(budget=2 * 8 * 100)
    kept = [keeper.kept(refuted(float(i), 100)) for i in range(4)]
    sizes = [sum(v.size for v in o.witness.parameters.values()) for o in kept if o.witness]
    assert sizes == [100, 100, 0, 0]
    assert all("ask about such a point alone" in note for o in kept[2:] for note in o.notes)
    assert keeper.kept(PROVED) is PROVED
    first = Keeper(budget=0).kept(refuted(0, 100))
    assert first.witness is not None
    assert first.witness.parameters


def test_a_tally_counts_verdicts_and_estimates() -> None:
    tally = Tally(6)
    for outcome in (PROVED, OPEN, refuted(1), PROVED, Outcome(None)):
        tally = tally.plus(outcome)
    assert tally == Tally(6, proved=2, refuted=1, open=1, estimated=1)
    assert tally.done == 5


@pytest.mark.parametrize(("x", "label"), [((3, 0), 0), ((3, 4), 1), ((-1, -1), 2), ((1, 1), 0)])
def test_exact_labels(x: tuple[float, float], label: int) -> None:
    (problem,) = build(Asked(delta=1, at=[x]), classifier_model()).problems
    assert reference_label(problem) == label
    (ball,) = build(Asked(delta=1, at=[x], input_radius=9), classifier_model()).problems
    assert reference_label(ball) == label


def test_a_box_and_values_have_no_label() -> None:
    model = classifier_model()
    assert reference_label(build(Asked(delta=1), model).problems[0]) is None
    values = replace(model, output=replace(model.output, kind="value"))
    asked = Asked(delta=1, at=[[1, 2]], epsilon=1)
    assert reference_label(build(asked, values).problems[0]) is None

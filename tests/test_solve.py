from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from paramrob import engine
from paramrob.domain import Point
from paramrob.engine import Settings
from paramrob.errors import BackendError, InputError, SoundnessError
from paramrob.models.model import Model
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.requests.build import Asked, Request, build
from paramrob.solve import (
    CHEAP_SECONDS,
    PointsOutcome,
    check_agreement,
    make_settings,
    reference_label,
    solve,
)
from paramrob.verdict import Bracket, Outcome, Verdict, Witness
from tests.small_models import bare_model, classifier_model, named_model

Decide = Callable[[Problem, Settings], Outcome]
Estimate = Callable[[Problem, Quantity, Settings], Outcome]


def request_at(points: list[list[float]], model: Model | None = None) -> Request:
    return build(Asked(delta="0.1", at=points), model or bare_model())


def no_estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
    return Outcome(None)


def use(monkeypatch: pytest.MonkeyPatch, decide: Decide, estimate: Estimate = no_estimate) -> None:
    monkeypatch.setattr(engine, "decide", decide)
    monkeypatch.setattr(engine, "estimate", estimate)


def first_input(problem: Problem) -> float:
    assert isinstance(problem.domain, Point)
    return problem.domain.x[0]


def by_first_input(problem: Problem, settings: Settings) -> Outcome:
    """Refute below 1, leave open below 2, prove the rest."""
    x = first_input(problem)
    if x < 1:
        witness = Witness(np.array([x, 0.0]), {}, labels=(0, 1), replayed=True)
        return Outcome(Verdict.NOT_ROBUST, witness=witness, engine_seconds=1.0)
    if x < 2:
        return Outcome(Verdict.UNKNOWN, "out of time; raise --timeout", engine_seconds=1.0)
    return Outcome(Verdict.ROBUST, engine_seconds=1.0)


@pytest.mark.parametrize(
    ("points", "verdict"),
    [([2, 3], "robust"), ([3, 1, 2], "unknown"), ([3, 1, 0], "not_robust")],
)
def test_the_whole_is_as_bad_as_its_worst_point(
    monkeypatch: pytest.MonkeyPatch, points: list[float], verdict: str
) -> None:
    use(monkeypatch, by_first_input)
    outcome = solve(request_at([[x, 0.0] for x in points]), Settings())
    assert isinstance(outcome, PointsOutcome)
    assert outcome.verdict is Verdict(verdict)
    assert outcome.engine_seconds == len(points)
    assert [p.verdict for p in outcome.points] == [
        by_first_input(p, Settings()).verdict
        for p in request_at([[x, 0.0] for x in points]).problems
    ]


def test_the_first_refuted_point_gives_the_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, by_first_input)
    outcome = solve(request_at([[3, 0], [0.5, 0], [0.25, 0]]), Settings())
    assert outcome.witness is not None
    assert outcome.witness.input[0] == 0.5


def test_time_is_shared_and_what_is_saved_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def decide(problem: Problem, settings: Settings) -> Outcome:
        given.append(settings.timeout)
        return Outcome(Verdict.ROBUST)

    use(monkeypatch, decide)
    solve(request_at([[1, 0], [2, 0], [3, 0], [4, 0]]), Settings(timeout=4000))
    assert [round(t) for t in given] == [1000, 1333, 2000, 4000]


def test_points_past_the_timeout_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(problem: Problem, settings: Settings) -> Outcome:
        time.sleep(0.05)
        return Outcome(Verdict.ROBUST)

    use(monkeypatch, slow)
    outcome = solve(request_at([[x, 0.0] for x in range(10)]), Settings(timeout=0.01))
    assert isinstance(outcome, PointsOutcome)
    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.points[-1].verdict is Verdict.UNKNOWN
    assert "--timeout" in (outcome.reason or "")


def test_brackets_of_points_enclose_the_worst_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
        x = first_input(problem)
        return Outcome(None, brackets={quantity: Bracket(x, x + 0.5)})

    use(monkeypatch, by_first_input, estimate)
    for quantity, expected in (("epsilon", (3.0, 3.5)), ("delta", (1.0, 1.5))):
        delta = None if quantity == "delta" else 1
        asked = Asked("estimate", quantity, delta=delta, at=[[1, 0], [3, 0], [2, 0]])  # type: ignore[arg-type]
        outcome = solve(build(asked, bare_model()), Settings())
        bracket = outcome.brackets[quantity]
        assert (bracket.lower, bracket.upper) == expected
        assert outcome.verdict is None


def interrupt(problem: Problem, settings: Settings) -> Outcome:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
    raise AssertionError("the interrupt did not arrive")


def swallow(problem: Problem, settings: Settings) -> Outcome:
    try:
        return interrupt(problem, settings)
    except KeyboardInterrupt:
        bracket = Bracket(0.25, 0.5)
        return Outcome(Verdict.UNKNOWN, "stopped", brackets={"epsilon": bracket})


def test_an_interrupt_that_the_engine_swallows_ends_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, swallow)
    before = signal.getsignal(signal.SIGINT)
    outcome = solve(request_at([[1, 0], [2, 0], [3, 0]]), Settings())
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(outcome, PointsOutcome)
    assert outcome.points[0].brackets["epsilon"] == Bracket(0.25, 0.5)
    assert [p.verdict for p in outcome.points] == [Verdict.UNKNOWN] * 3
    assert "interrupt" in (outcome.points[2].reason or "")


def test_an_interrupt_that_the_engine_lets_through_is_an_open_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, interrupt)
    outcome = solve(build(Asked(delta=1), bare_model()), Settings())
    assert outcome.verdict is Verdict.UNKNOWN

    def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
        return interrupt(problem, settings)

    use(monkeypatch, interrupt, estimate)
    asked = Asked("estimate", "sigma", delta=1)
    outcome = solve(build(asked, bare_model()), Settings())
    assert outcome.brackets == dict.fromkeys(("sigma_above", "sigma_below"), Bracket(0.0, math.inf))
    outcome = solve(build(asked, classifier_model()), Settings())
    assert outcome.brackets == {"sigma": Bracket(0.0, math.inf)}


def test_check_adds_brackets_within_a_small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def decide(problem: Problem, settings: Settings) -> Outcome:
        return Outcome(Verdict.NOT_ROBUST, engine_seconds=1.0)

    def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
        asked.append((quantity, settings.timeout))
        if quantity == "epsilon":
            return Outcome(None, brackets={"epsilon": Bracket(0.0, math.inf)})
        sides = {"sigma_above": Bracket(0.1, 0.2), "sigma_below": Bracket(0.3, 0.3)}
        return Outcome(None, brackets=sides, engine_seconds=0.5)

    use(monkeypatch, decide, estimate)
    outcome = solve(build(Asked(delta=1), bare_model()), Settings(timeout=60))
    assert [name for name, _ in asked] == ["sigma", "epsilon"]
    assert all(0 < seconds <= CHEAP_SECONDS for _, seconds in asked)
    # A bracket without an upper end says nothing.
    assert set(outcome.brackets) == {"sigma_above", "sigma_below"}
    assert outcome.engine_seconds == 1.5


def test_proved_labels_mean_that_sigma_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
        asked.append(quantity)
        return Outcome(None, brackets={quantity: Bracket(0.1, 0.2)})

    use(monkeypatch, lambda p, s: Outcome(Verdict.ROBUST), estimate)
    outcome = solve(build(Asked(delta=1), bare_model()), Settings())
    assert asked == ["epsilon"]
    assert outcome.brackets["sigma_above"] == outcome.brackets["sigma_below"] == Bracket(0, 0)
    outcome = solve(build(Asked(delta=1), classifier_model()), Settings())
    assert outcome.brackets["sigma"] == Bracket(0, 0)


@pytest.mark.parametrize(
    ("asked", "verdict", "brackets"),
    [
        (Asked(delta=1, epsilon="0.3"), Verdict.ROBUST, {"epsilon": Bracket(0.31, 0.4)}),
        (Asked(delta=1, epsilon="0.3"), Verdict.NOT_ROBUST, {"epsilon": Bracket(0.1, 0.2)}),
        (Asked(delta=1, sigma="0.3"), Verdict.ROBUST, {"sigma_above": Bracket(0.31, 0.4)}),
        (
            Asked(delta=1, sigma="0.3"),
            Verdict.NOT_ROBUST,
            {"sigma_above": Bracket(0.1, 0.2), "sigma_below": Bracket(0.1, 0.29)},
        ),
        (Asked(delta=1), Verdict.ROBUST, {"sigma_below": Bracket(0.1, 0.2)}),
    ],
)
def test_a_verdict_against_its_bracket_is_refused(
    asked: Asked, verdict: Verdict, brackets: dict[str, Bracket]
) -> None:
    (problem,) = build(asked, bare_model()).problems
    with pytest.raises(SoundnessError, match="contradicts"):
        check_agreement(problem, Outcome(verdict, brackets=brackets))


@pytest.mark.parametrize(
    ("asked", "verdict", "brackets"),
    [
        (Asked(delta=1, epsilon=0.25), Verdict.ROBUST, {"epsilon": Bracket(0.25, 0.25)}),
        (Asked(delta=1, epsilon=0.25), Verdict.NOT_ROBUST, {"epsilon": Bracket(0.2, 0.3)}),
        (Asked(delta=1, sigma=0.25), Verdict.NOT_ROBUST, {"sigma_above": Bracket(0.2, 0.25)}),
        (Asked(delta=1, sigma=0.25), Verdict.ROBUST, {"sigma_above": Bracket(0.2, 0.25)}),
        (Asked(delta=1), Verdict.NOT_ROBUST, {"sigma_above": Bracket(0, 0)}),
        (Asked(delta=1), Verdict.UNKNOWN, {"sigma_above": Bracket(0.1, 0.2)}),
    ],
)
def test_a_verdict_that_touches_its_bracket_stands(
    asked: Asked, verdict: Verdict, brackets: dict[str, Bracket]
) -> None:
    (problem,) = build(asked, bare_model()).problems
    check_agreement(problem, Outcome(verdict, brackets=brackets))


def test_accuracy_counts_exact_labels_and_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, by_first_input)
    model = classifier_model()
    # Labels of the reference: 0, 0, 1 (4 > 3), 0; the truth differs at the last.
    request = request_at([[3, 0], [1, 0], [3, 4], [0.5, 0]], model)
    assert [reference_label(p) for p in request.problems] == [0, 0, 1, 0]
    outcome = solve(replace(request, classes=(0, 0, 1, 2)), Settings())
    assert isinstance(outcome, PointsOutcome)
    assert outcome.accuracy is not None
    assert outcome.accuracy.reference == 0.75
    assert outcome.accuracy.certified == 0.5
    assert outcome.accuracy.at_most == 0.75


def test_a_single_point_with_a_class_has_an_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, by_first_input)
    request = replace(request_at([[3, 0]], classifier_model()), classes=(0,))
    outcome = solve(request, Settings())
    assert isinstance(outcome, PointsOutcome)
    assert outcome.accuracy is not None
    assert outcome.accuracy.reference == 1


def test_the_exact_label_at_the_level_is_the_lower_class() -> None:
    model = named_model()
    half = replace(model, output=replace(model.output, level=Fraction(1, 2)))
    request = build(Asked(delta=1, at=[6.3, 2.0]), half)
    (problem,) = request.problems
    expected = int(model.network.evaluate(np.array([[6.3, 2.0]]))[0, 0] > 0.5)
    assert reference_label(problem) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"device": "tpu"}, "choose cpu or cuda"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, float | str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_settings(**options)  # type: ignore[arg-type]


def test_an_unknown_solver_is_refused() -> None:
    request = build(Asked(delta=1), bare_model())
    with pytest.raises(BackendError):
        solve(request, make_settings(solver="nobody"))

"""Whole sets of points through the real engine, against closed forms, samples and stopped runs."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paramrob
from paramrob import InputError, PointsOutcome, Verdict, engine
from paramrob.bounds.graph import points
from paramrob.domain import Ball
from paramrob.engine import Settings
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Array, Dense, Input, Network, Node, Parameter
from paramrob.point_table import PointTable
from paramrob.problem import Problem
from paramrob.requests.build import Asked, build
from paramrob.several import Tally
from paramrob.solve import make_settings, solve
from paramrob.verdict import Outcome
from tests.bounds.graph.nets import dense_network

LOGITS = OutputInfo("logits", None)


def model_of(*widths: int, seed: int = 0) -> Model:
    return Model(dense_network(widths, seed), InputInfo(), LOGITS)


def inputs(count: int, size: int) -> Array:
    return np.asarray(np.random.default_rng(7).uniform(-1, 1, (count, size)))


def least_lead(network: Network, x: Array, delta: float) -> float:
    """Return the least lead of the label over another class; exact with one hidden layer.

    Every hidden unit is a function of parameters of its own, and the difference of two logits is
    linear in each unit and in each difference of two weights.
    """
    w1, b1, w2, b2 = (p.value for p in network.parameters.values())
    label = int(network.evaluate(x[None])[0].argmax())
    reach = delta * (np.abs(x).sum() + 1)
    low, high = (np.maximum(w1 @ x + b1 + end, 0) for end in (-reach, reach))
    leads = []
    for other in range(len(b2)):
        if other == label:
            continue
        weight = w2[label] - w2[other] - 2 * delta
        worst = np.where(weight >= 0, weight * low, weight * high)
        leads.append(worst.sum() + b2[label] - b2[other] - 2 * delta)
    return float(min(leads))


@pytest.mark.parametrize("delta", ["0.001", "0.003"])
def test_verdicts_of_many_points_are_those_of_the_closed_form(delta: str) -> None:
    model, x = model_of(4, 160, 3), inputs(150, 4)
    assert model.network.parameter_count > 1000
    leads = np.array([least_lead(model.network, row, float(delta)) for row in x])
    assert np.abs(leads).min() > 1e-6
    assert 0.1 < (leads > 0).mean() < 0.9
    request = build(Asked(delta=delta, at=x), model)
    outcome = solve(request, make_settings(timeout=600))
    assert isinstance(outcome, PointsOutcome)
    for part, problem, lead in zip(outcome.points, request.problems, leads, strict=True):
        assert part.verdict is (Verdict.ROBUST if lead > 0 else Verdict.NOT_ROBUST)
        if part.witness is not None:
            out = _executed(model.network, part.witness.parameters, part.witness.input)
            before = model.network.evaluate(problem.domain.inner()[0][None])[0].argmax()
            assert out.argmax() != before


def _executed(network: Network, parameters: Any, x: Array) -> Array:
    w1, b1, w2, b2 = (parameters[name] for name in network.parameters)
    return np.asarray(w2 @ np.maximum(w1 @ x + b1, 0) + b2)


def linear_model(classes: int, size: int) -> Model:
    rng = np.random.default_rng(5)
    network = Network(
        [
            Node("x", Input(), (), (size,)),
            Node("0", Dense("0.weight", "0.bias"), ("x",), (classes,)),
        ],
        [
            Parameter("0.weight", rng.normal(size=(classes, size))),
            Parameter("0.bias", rng.normal(size=classes)),
        ],
    )
    return Model(network, InputInfo(), LOGITS)


@pytest.mark.parametrize(("delta", "radius"), [("0", "0.1"), ("0.05", "0"), ("0.05", "0.1")])
def test_an_input_radius_against_the_closed_form(delta: str, radius: str) -> None:
    """The difference of two logits of one layer is least coordinate by coordinate."""
    model, x = linear_model(3, 5), inputs(60, 5)
    weight, bias = (p.value for p in model.network.parameters.values())
    d, r = float(delta), float(radius)
    outcome = paramrob.check(model, delta=delta, at=x, input_radius=radius)
    assert isinstance(outcome, PointsOutcome)
    verdicts = set()
    for row, part in zip(x, outcome.points, strict=True):
        label = int((weight @ row + bias).argmax())
        least = math.inf
        for other in range(3):
            if other != label:
                difference = weight[label] - weight[other]
                corners = [
                    (difference + 2 * a * d) * (row + b * r) for a in (-1, 1) for b in (-1, 1)
                ]
                gap = bias[label] - bias[other] - 2 * d
                least = min(least, float(np.min(corners, axis=0).sum() + gap))
        assert abs(least) > 1e-9
        # Where a box of inputs meets one of parameters the bounds need not be tight.
        verdict = part.verdict
        verdicts.add(verdict)
        if least <= 0:
            assert verdict is not Verdict.ROBUST
        elif d == 0 or r == 0:
            assert verdict is Verdict.ROBUST
        else:
            assert verdict is not Verdict.NOT_ROBUST
        if verdict is Verdict.NOT_ROBUST:
            assert part.witness is not None
            assert np.abs(part.witness.input - row).max() <= r + 1e-12
    assert {Verdict.ROBUST, Verdict.NOT_ROBUST} <= verdicts


def test_level_0_of_a_value_is_a_level() -> None:
    network = Network(
        [Node("x", Input(), (), (1,)), Node("0", Dense("0.weight", "0.bias"), ("x",), (1,))],
        [Parameter("0.weight", np.array([[1.0]])), Parameter("0.bias", np.array([0.0]))],
    )
    model = Model(network, InputInfo(), OutputInfo("value", None))
    for level, verdict in (("0", Verdict.NOT_ROBUST), ("0.5", Verdict.ROBUST)):
        outcome = paramrob.check(model, delta="0.1", at=[0.05], level=level, method="crown")
        assert outcome.verdict is verdict


def test_methods_agree_and_say_which_they_are() -> None:
    model, x = model_of(4, 24, 24, 3), inputs(40, 4)
    found: dict[str, list[Verdict | None]] = {}
    for method in engine.METHODS:
        outcome = paramrob.check(model, delta="0.01", at=x, method=method)
        assert isinstance(outcome, PointsOutcome)
        assert {p.method for p in outcome.points if p.verdict is Verdict.ROBUST} == {method}
        found[method] = [p.verdict for p in outcome.points]
    for weaker, stronger in zip(engine.METHODS, engine.METHODS[1:], strict=False):
        proved = [v is Verdict.ROBUST for v in found[weaker]]
        assert all(found[stronger][i] is Verdict.ROBUST for i, p in enumerate(proved) if p)


def small_batches(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let a pass run out of memory where more than ``most`` points go through together."""
    tried: list[int] = []
    results = points.PointsPass.results

    def limited(self: points.PointsPass, centres: Any) -> Any:
        tried.append(len(centres))
        if len(centres) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return results(self, centres)

    monkeypatch.setattr(points.PointsPass, "results", limited)
    return tried


def test_batches_shrink_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = model_of(4, 160, 3), inputs(40, 4)
    free = paramrob.check(model, delta="0.002", at=x)
    tried = small_batches(monkeypatch, 5)
    tight = paramrob.check(model, delta="0.002", at=x)
    assert isinstance(free, PointsOutcome)
    assert isinstance(tight, PointsOutcome)
    assert [p.verdict for p in tight.points] == [p.verdict for p in free.points]
    assert max(tried) > 5


def test_a_point_that_no_memory_suffices_for_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 0)
    outcome = paramrob.check(linear_model(3, 5), delta="0.01", at=inputs(3, 5), input_radius="0.1")
    assert outcome.verdict is Verdict.UNKNOWN
    assert "--memory" in (outcome.reason or "")


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Interrupt the engine once it has answered about ``count`` points."""
    decide = engine.decide_points

    def stopping(problems: Sequence[Problem], settings: Settings) -> Iterator[tuple[int, Outcome]]:
        for done, found in enumerate(decide(problems, settings)):
            if done == count:
                os.kill(os.getpid(), signal.SIGINT)
            yield found

    monkeypatch.setattr(engine, "decide_points", stopping)


def test_a_stopped_run_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, x, path = model_of(4, 160, 3), inputs(40, 4), tmp_path / "rows.csv"
    free = paramrob.check(model, delta="0.002", at=x)
    assert isinstance(free, PointsOutcome)
    with monkeypatch.context() as patched:
        stop_after(patched, 10)
        first = paramrob.check(model, delta="0.002", at=x, csv=path)
    assert isinstance(first, PointsOutcome)
    assert sum(p.verdict is Verdict.UNKNOWN for p in first.points) == 30
    assert any("30 of 40 points have no row yet" in note for note in first.notes)
    rows = path.read_text().splitlines()
    assert len(rows) == 12
    asked: list[int] = []
    decide = engine.decide_points

    def counted(problems: Sequence[Problem], settings: Settings) -> Any:
        asked.append(len(problems))
        return decide(problems, settings)

    monkeypatch.setattr(engine, "decide_points", counted)
    second = paramrob.check(model, delta="0.002", at=x, csv=path)
    assert isinstance(second, PointsOutcome)
    assert asked == [30]
    assert [p.verdict for p in second.points] == [p.verdict for p in free.points]
    assert any("10 of 40 points were taken from" in note for note in second.notes)
    assert path.read_text().splitlines()[:12] == rows
    third = paramrob.check(model, delta="0.002", at=x, csv=path)
    assert isinstance(third, PointsOutcome)
    assert asked == [30]
    assert [p.verdict for p in third.points] == [p.verdict for p in free.points]
    assert third.labels == second.labels == tuple(model.network.evaluate(x).argmax(1).tolist())


def test_few_points_and_single_ones_have_rows_too(tmp_path: Path) -> None:
    model, path = model_of(4, 8, 3), tmp_path / "rows.csv"
    for at, count in ((inputs(2, 4), 2), (inputs(1, 4), 1)):
        path.unlink(missing_ok=True)
        paramrob.check(model, delta="0.001", at=at, csv=path, solver="bounds")
        assert len(path.read_text().splitlines()) == 2 + count
    path.unlink()
    for _ in range(2):
        outcome = paramrob.estimate(
            model, "epsilon", delta="0.001", at=inputs(2, 4), csv=path, tolerance=0.01
        )
        bracket = outcome.brackets["epsilon"]
        assert 0 < bracket.lower <= bracket.upper < 0.1
    assert any("taken from" in note for note in outcome.notes)


def test_a_table_about_float32_goes_on(tmp_path: Path) -> None:
    model, x, path = model_of(4, 160, 3), inputs(12, 4), tmp_path / "rows.csv"
    options: dict[str, Any] = {"delta": "0.001", "arithmetic": "float32", "csv": path}
    outcomes = [paramrob.check(model, at=x, limit=limit, **options) for limit in (6, 12, 12)]
    verdicts = []
    for outcome in outcomes:
        assert isinstance(outcome, PointsOutcome)
        assert {p.semantics for p in outcome.points} == {outcome.semantics} == {"float32"}
        verdicts.append([p.verdict for p in outcome.points])
    assert verdicts[1][:6] == verdicts[0]
    assert verdicts[2] == verdicts[1]
    assert Verdict.ROBUST in verdicts[2]


def test_progress_counts_what_is_done() -> None:
    model, x = model_of(4, 160, 3), inputs(20, 4)
    seen: list[Tally] = []
    request = build(Asked(delta="0.002", at=x), model)
    outcome = solve(request, make_settings(), None, seen.append)
    assert isinstance(outcome, PointsOutcome)
    assert [t.done for t in seen] == list(range(1, 21))
    assert seen[-1].proved == round(20 * outcome.shares["robust"])


def test_a_limit_takes_the_first_points() -> None:
    model, x = model_of(4, 8, 3), inputs(6, 4)
    request = build(Asked(delta="0.1", at=x, limit=2, input_radius="0.5"), model)
    assert (
        [p.domain for p in request.problems]
        == [
            Ball(tuple(row.tolist()), request.asked.radius() or 0)  # type: ignore[arg-type]
            for row in x[:2]
        ]
    )
    assert request.points_digest == build(Asked(delta="0.1", at=x), model).points_digest
    assert request.points_digest != build(Asked(delta="0.1", at=x[:2]), model).points_digest
    assert len(build(Asked(delta="0.1", at=x, limit=99), model).problems) == 6


def test_other_solvers_answer_one_by_one(tmp_path: Path) -> None:
    model, x = linear_model(2, 2), inputs(2, 2)
    request = build(Asked(delta="0.1", at=x), model)
    assert not engine.takes_points(request.problems[0], make_settings("z3"))
    table = PointTable(tmp_path / "rows.csv", request)
    outcome = solve(request, make_settings("z3", timeout=600), table)
    ours = paramrob.check(model, delta="0.1", at=x)
    assert isinstance(outcome, PointsOutcome)
    assert isinstance(ours, PointsOutcome)
    assert [p.verdict for p in outcome.points] == [p.verdict for p in ours.points]
    assert outcome.labels == tuple(model.network.evaluate(x).argmax(1).tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "ibp, crown-ibp"),
        ({"method": "crown", "solver": "z3"}, "--solver"),
        ({"method": "crown", "domain": (0, 1)}, "--at"),
        ({"memory": "much"}, "512MiB"),
        ({"memory": 5}, "16MiB"),
        ({"input_radius": "0.1", "domain": (0, 1)}, "--at"),
        ({"input_radius": "0.1"}, "--at"),
        ({"input_radius": "-0.1", "at": [0, 0]}, "negative"),
        ({"limit": 3}, "--at"),
        ({"limit": 0, "at": [0, 0]}, "1 or more"),
        ({"limit": True, "at": [0, 0]}, "1 or more"),
        ({"csv": "rows.csv"}, "--at"),
        ({"csv": "rows.csv", "domain": (0, 1)}, "--at"),
    ],
)
def test_wrong_use_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        paramrob.check(linear_model(2, 2), delta="0.1", **options)
    assert list(tmp_path.iterdir()) == []

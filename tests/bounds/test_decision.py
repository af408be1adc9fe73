"""What the searches report is proved at every step: no rounding to float32, no lost boxes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paramrob.bounds import branch, decision
from paramrob.bounds.assess import Assessed, Assessor
from paramrob.bounds.branch import Explorer, Goal, Tree
from paramrob.bounds.linear import Boxes
from paramrob.bounds.targets import Change
from paramrob.domain import Point
from paramrob.engine import Settings, decide, estimate
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem
from paramrob.properties import Property, Quantity
from paramrob.replay import replay
from paramrob.verdict import Outcome, Verdict
from tests.known_problems import (
    box,
    problem,
    random_network,
    sample_inputs,
    sample_parameters,
)
from tests.replay_networks import dense, stack

HALF = Fraction(1, 2)
QUICK = Settings(timeout=5.0)


def test_a_level_that_no_float32_holds() -> None:
    level = Fraction(33554435)
    network = stack(1, dense(0, [[1.0]], [0.0]))
    moved = Perturbation({"b0": Fraction(2)})
    subject = problem(network, box((level, level + HALF)), moved, "value", level)
    found = estimate(subject, "sigma", QUICK).brackets["sigma_above"]
    assert found.lower <= 0.5 <= found.upper


def test_a_bound_just_above_the_threshold_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # No time to search: only that a margin stays below 0.7 is known, and sigma is below that.
    monkeypatch.setattr(Assessor, "climb", lambda *_: None)
    network = stack(1, dense(0, [[1000.0]], [0.0]))
    asked = Property("margin", sigma=Fraction("0.699999989"))
    subject = problem(network, box((-1, 1)), "1000", "logit", Fraction("0.3"), asked)
    assert decide(subject, Settings(timeout=1e-9)).verdict is Verdict.UNKNOWN


def test_the_largest_margin_is_not_rounded_down() -> None:
    network = stack(1, dense(0, [[1000.0]], [0.0]))
    subject = problem(network, box((-1, 1)), "1000", "logit", Fraction("0.3"))
    found = estimate(subject, "sigma", QUICK).brackets["sigma_above"]
    assert found.upper >= 0.7


def two_sided() -> Problem:
    """Return a problem that needs many rounds: a random network over a wide box."""
    network = random_network(np.random.default_rng(3), [2, 6, 6, 1])
    return problem(network, box((-1, 1), (-1, 1)), "0.03")


def assert_covers(subject: Problem, outcome: Outcome) -> None:
    """No replayed sample lies above an upper end."""
    rng = np.random.default_rng(0)
    for x in sample_inputs(rng, subject, 60):
        seen = replay(subject, x, sample_parameters(rng, subject, "vertex"))
        first, second = seen.labels
        assert seen.change is not None
        assert seen.margin is not None
        if "epsilon" in outcome.brackets:
            assert seen.change.lower <= outcome.brackets["epsilon"].upper
        elif first != second:
            side = "sigma_below" if first == 0 else "sigma_above"
            assert seen.margin.lower <= outcome.brackets[side].upper


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the assessment number ``after`` be cut off by Ctrl-C."""
    calls = iter(range(10**9))
    assess = Assessor.assess

    def stops(self: Assessor, *args: Any) -> Assessed:
        if next(calls) == after:
            raise KeyboardInterrupt
        return assess(self, *args)

    monkeypatch.setattr(Assessor, "assess", stops)


@pytest.mark.parametrize("quantity", ["epsilon", "sigma"])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 6])
def test_an_interrupt_leaves_brackets_that_hold(
    monkeypatch: pytest.MonkeyPatch, quantity: Quantity, after: int
) -> None:
    interrupted(monkeypatch, after)
    outcome = estimate(two_sided(), quantity, Settings(timeout=20.0, tolerance=1e-9))
    assert outcome.reason is not None
    assert_covers(two_sided(), outcome)


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_an_interrupt_proves_nothing_that_is_false(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    seen = estimate(two_sided(), "epsilon", Settings(timeout=0.5)).brackets["epsilon"]
    asked = Property("confidence", epsilon=Fraction(seen.lower) - Fraction(1, 10**9))
    interrupted(monkeypatch, after)
    subject = replace(two_sided(), property=asked)
    monkeypatch.setattr(Assessor, "climb", lambda *_: None)
    assert decide(subject, QUICK).verdict is not Verdict.ROBUST


@pytest.mark.parametrize("quantity", ["epsilon", "sigma"])
@pytest.mark.parametrize("timeout", [1e-9, 0.02, 0.2])
def test_brackets_hold_when_the_time_is_up(quantity: Quantity, timeout: float) -> None:
    outcome = estimate(two_sided(), quantity, Settings(timeout=timeout, tolerance=1e-9))
    # A fast machine may have finished within all but the shortest of these limits.
    if timeout == 1e-9 or any(b.width > 1e-9 for b in outcome.brackets.values()):
        assert outcome.reason is not None
        assert "--timeout" in outcome.reason
    assert_covers(two_sided(), outcome)


def test_brackets_hold_when_the_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch, "MEMORY", 200)
    outcome = estimate(two_sided(), "epsilon", Settings(timeout=20.0, tolerance=1e-9))
    assert outcome.reason is not None
    assert "memory" in outcome.reason
    assert_covers(two_sided(), outcome)


def test_a_bound_that_cannot_be_improved_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assess = Assessor.assess

    def stuck(self: Assessor, *args: Any) -> Assessed:
        found = assess(self, *args)
        return replace(found, split=torch.full_like(found.split, -1))

    monkeypatch.setattr(Assessor, "assess", stuck)
    outcome = estimate(two_sided(), "epsilon", Settings(timeout=20.0, tolerance=1e-9))
    assert outcome.reason is not None
    assert_covers(two_sided(), outcome)


def test_children_cover_their_parents() -> None:
    subject = two_sided()
    seen: list[tuple[Boxes, Boxes]] = []
    original = Explorer._children

    class Watching(Explorer):
        def _children(self, tree: Tree, boxes: Boxes, split: Tensor, at: Tensor) -> Boxes:
            before = Boxes(
                boxes.lower.clone(),
                boxes.upper.clone(),
                None if boxes.cuts is None else boxes.cuts.clone(),
            )
            children = original(self, tree, boxes, split, at)
            seen.append((before, children))
            return children

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision, "Explorer", Watching)
        estimate(subject, "sigma", Settings(timeout=1.0, tolerance=1e-9))
        estimate(replace(subject, domain=Point((0.3, 0.2))), "epsilon", QUICK)
    assert seen
    for before, after in seen:
        count = before.lower.shape[0]
        for i in range(count):
            low, high = (after.lower[[i, i + count]], after.upper[[i, i + count]])
            assert torch.equal(low.amin(0), before.lower[i])
            assert torch.equal(high.amax(0), before.upper[i])
            # The two halves meet, in inputs or in one neuron.
            inside = torch.maximum(low[0], low[1]) <= torch.minimum(high[0], high[1])
            assert bool(inside.all())
            if after.cuts is None or before.cuts is None:
                continue
            both = after.cuts[[i, i + count]]
            assert torch.equal(both[:, 0::2].amin(0), before.cuts[i, 0::2])
            assert torch.equal(both[:, 1::2].amax(0), before.cuts[i, 1::2])


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_when_a_bound_is_good_enough() -> None:
    bounds = double(-torch.inf, 0.5, 1.0, torch.inf)
    assert Goal(threshold=0.5).done(bounds, 9.0).tolist() == [True, True, False, False]
    strict = Goal(threshold=0.5, strict=True)
    assert strict.done(bounds, 9.0).tolist() == [True, False, False, False]
    near = Goal(tolerance=0.25)
    assert near.done(bounds, 0.75).tolist() == [True, True, True, False]
    assert near.done(bounds, -torch.inf).tolist() == [True, False, False, False]


def test_what_is_taken_from_a_tree_counts_until_it_is_settled() -> None:
    bounds = double(3.0, 7.0, 5.0)
    corner = torch.zeros(3, 1, dtype=torch.float64)
    tree = Tree(Change(1.0, True), Boxes(corner, corner + 1), bounds, bounds.long(), bounds)
    taken = tree.take(1)
    assert taken[1].tolist() == [7.0]
    assert (tree.top(), tree.upper()) == (5.0, 7.0)
    tree.settle()
    assert tree.upper() == 5.0
    tree.prune(Goal(tolerance=0.5), 3.0)
    assert (tree.bound.tolist(), tree.closed, tree.upper()) == ([5.0], 3.0, 5.0)
    tree.prune(Goal(threshold=6.0), 0.0)
    assert (tree.top(), tree.upper()) == (-torch.inf, 5.0)

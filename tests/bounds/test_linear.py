"""The backward pass against exact rationals: its rows never exceed what they bound."""

from __future__ import annotations

from collections.abc import Sequence

import flint
import numpy as np
import pytest
import torch

from paramrob.bounds.branch import no_cuts
from paramrob.bounds.chain import build_chain
from paramrob.bounds.linear import BoundPass, Boxes, Forms
from paramrob.bounds.optimise import optimise
from paramrob.bounds.relaxations import Choice
from paramrob.bounds.rounding import magnitudes
from paramrob.bounds.targets import Flip
from paramrob.models.network import Array
from paramrob.problem import Problem
from paramrob.verdict import Interval
from tests.bounds.exact_chain import Exact, rational, results, stored
from tests.known_problems import (
    box,
    layered,
    problem,
    random_network,
    sample_inputs,
    sample_parameters,
    unit_box,
)

KINDS = ["identity", "relu", "leaky_relu", "sigmoid", "tanh"]


def bound_pass(subject: Problem) -> BoundPass:
    chain = build_chain(subject)
    low, high = (torch.from_numpy(a) for a in subject.domain.outer())
    return BoundPass(chain, magnitudes(chain, low, high))


def whole(subject: Problem) -> Boxes:
    low, high = (torch.from_numpy(a)[None] for a in subject.domain.outer())
    return Boxes(low, high)


def row_value(on_z: Array, on_e: Array, before: Sequence[Exact], after: Sequence[Exact]) -> Exact:
    total = rational(0.0)
    for a, b, z, p in zip(on_z, on_e, before, after, strict=True):
        total = total + rational(a) * z + rational(b) * (p - z)
    return total


def form_value(forms: Forms, i: int, r: int, x: Array) -> Exact:
    total = rational(float(forms.c[i, r]))
    for a, v in zip(forms.a[i, r].tolist(), x, strict=True):
        total = total + rational(a) * rational(v)
    return total


def random_choices(rng: np.random.Generator, shapes: Sequence[tuple[int, ...]]) -> list[Choice]:
    return [Choice(*(torch.from_numpy(rng.uniform(size=s)) for _ in range(5))) for s in shapes]


def holds(
    cuts: Array | None, before: Sequence[Sequence[Exact]], after: Sequence[Sequence[Exact]]
) -> bool:
    """Whether a sample satisfies the cuts ``(4, hidden)``."""
    if cuts is None:
        return True
    zs = [z for layer in before[:-1] for z in layer]
    ps = [p for layer in after[:-1] for p in layer]
    for ends, values in ((cuts[:2], zs), (cuts[2:], ps)):
        for low, high, value in zip(*ends, values, strict=True):
            if np.isfinite(low) and not value >= rational(low):
                return False
            if np.isfinite(high) and not value <= rational(high):
                return False
    return True


def check_rows(seed: int, kind: str, cut: bool, scale: float = 1.0) -> int:
    """Compare rows with samples; return how many samples counted."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, [2, *rng.integers(1, 5, size=rng.integers(1, 4)), 2], kind)
    domain = unit_box(2) if rng.uniform() < 0.5 else box((0, "0.7"), ("-0.3", "0.1"))
    subject = problem(network, domain, str(10.0 ** -rng.integers(1, 5)), "logits", None)
    engine = bound_pass(subject)
    boxes, cuts = whole(subject), None
    if cut:
        cuts = random_cuts(rng, subject, engine)
        boxes = Boxes(boxes.lower, boxes.upper, torch.from_numpy(cuts)[None])
    analysis = engine.analyse(boxes)
    on_z = torch.from_numpy(rng.normal(size=(1, 3, 2)) * scale)
    on_e = torch.from_numpy(rng.normal(size=(1, 3, 2)) * scale)
    shapes = [(1, r.ranges.zl.shape[1]) for r in analysis.relaxations]
    choices = random_choices(rng, shapes)
    relaxed = [r.at(c) for r, c in zip(analysis.relaxations, choices, strict=True)]
    multipliers = torch.from_numpy(rng.exponential(size=(1, 4, engine.hidden))) if cut else None
    tries = [
        engine.rows(analysis, on_z, on_e, multipliers=multipliers),
        engine.rows(analysis, on_z, on_e, relaxed, multipliers),
    ]
    counted = 0
    with flint.ctx.workprec(400):
        for x in sample_inputs(rng, subject, 16):
            p = sample_parameters(rng, subject)
            before, after = results(network, x, stored(network)), results(network, x, p)
            if not holds(cuts, before, after):
                continue
            counted += 1
            assert bool(analysis.feasible.all())
            for r in range(3):
                value = row_value(on_z[0, r].numpy(), on_e[0, r].numpy(), before[-1], after[-1])
                for forms in tries:
                    assert not form_value(forms, 0, r, x) > value
                    assert not rational(float(forms.least(boxes)[0, r])) > value
    return counted


def random_cuts(rng: np.random.Generator, subject: Problem, engine: BoundPass) -> Array:
    """Return cuts ``(4, hidden)`` on some neurons, through the values of one sample."""
    cuts: Array = no_cuts(1, engine.hidden)[0].numpy()
    network = subject.reference
    x, p = sample_inputs(rng, subject, 1)[0], sample_parameters(rng, subject)
    with flint.ctx.workprec(400):
        zs = [z for layer in results(network, x, stored(network))[:-1] for z in layer]
        ps = [z for layer in results(network, x, p)[:-1] for z in layer]
    for j in rng.integers(0, engine.hidden, size=2):
        kind = rng.integers(0, 4)
        middle = float(flint.arb(zs[j] if kind < 2 else ps[j]))
        away = rng.exponential() * 0.1
        cuts[kind, j] = middle - away if kind % 2 == 0 else middle + away
    return cuts


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_below_exact_values(kind: str) -> None:
    counted = sum(check_rows(seed, kind, cut=False) for seed in range(12))
    assert counted == 12 * 16


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_rows_with_cuts_and_multipliers_are_below_what_satisfies_the_cuts(kind: str) -> None:
    assert sum(check_rows(seed, kind, cut=True) for seed in range(100, 120)) > 40


def test_rows_of_huge_and_tiny_coefficients() -> None:
    for scale in (1e-200, 1e150):
        for seed in range(4):
            check_rows(seed, "relu", cut=False, scale=scale)


def test_a_cut_that_is_no_number_closes_nothing() -> None:
    network = random_network(np.random.default_rng(0), [2, 3, 1])
    subject = problem(network, unit_box(2))
    engine, boxes = bound_pass(subject), whole(subject)
    cuts = no_cuts(1, engine.hidden)
    cuts[0, 3, 1] = float("nan")
    assert bool(engine.analyse(Boxes(boxes.lower, boxes.upper, cuts)).feasible.all())


def test_cuts_that_exclude_every_input_are_infeasible() -> None:
    network = random_network(np.random.default_rng(0), [2, 3, 1])
    subject = problem(network, unit_box(2))
    engine, boxes = bound_pass(subject), whole(subject)
    cuts = no_cuts(1, engine.hidden)
    cuts[0, 0, 1] = 100.0
    assert not bool(engine.analyse(Boxes(boxes.lower, boxes.upper, cuts)).feasible.any())


@pytest.mark.parametrize("weight", [0.3, 0.999, 0.9999997, 1.0000001])
def test_a_constraint_far_from_zero_loses_nothing_to_rounding(weight: float) -> None:
    # z = level + x: what the constraint's constant rounds off is of the size of the level's ulp.
    rng = np.random.default_rng(4)
    for _ in range(20):
        level = float(rng.uniform(1e5, 1e7))
        network = layered([np.array([[2.0**-40]])], [np.array([level])], [])
        subject = problem(network, box((0, 1)), str(2.0**-60), "value", None)
        target = Flip(torch.ones(1, 1, dtype=torch.float64), 0, Interval(level, level))
        engine, boxes = bound_pass(subject), whole(subject)
        analysis = engine.analyse(boxes)
        rows = target.prepare(engine, analysis)
        weights = torch.full_like(rows.constant, weight)
        least = optimise(engine, analysis, rows, weights, 0).least[0]
        for x in (0.0, 0.5, 1.0):
            z = rational(2.0**-40) * rational(x) + rational(level)
            # at e = -(z - level) the constraint is exactly 0
            value = -(z - rational(level))
            assert rational(float(least[0])) <= value

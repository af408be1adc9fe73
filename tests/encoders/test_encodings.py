"""Both encodings against exact runs of the networks, answers of z3 and closed forms."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest

from paramrob.domain import Box, Point
from paramrob.encoders import aggregated, direct
from paramrob.encoders.evaluate import FLOAT, complete, holds
from paramrob.encoders.presolve import Presolve, presolve
from paramrob.encoders.terms import FALSE, Declaration, Definition, Query, Variable, children
from paramrob.errors import BackendError, SoundnessError
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.replay import evaluate_exact, refutes, replay
from paramrob.verdict import Approximation
from tests.encoders.cases import CASES, LABELS
from tests.encoders.forward import assignment, layer_results, rational
from tests.known_problems import (
    layered,
    problem,
    random_network,
    sample_inputs,
    sample_parameters,
    unit_box,
)
from tests.replay_networks import constant, dense, stack

ENCODERS = {"direct": direct.encode, "aggregated": aggregated.encode}


def queries(case: Problem, known: Presolve) -> dict[str, Query]:
    """Return every encoding of a problem."""
    return {
        f"{name}, {'presolved' if given else 'plain'}, invert={invert}": encode(
            case, "property", given, invert
        )
        for name, encode in ENCODERS.items()
        for given in (None, known)
        for invert in (False, True)
    }


def within(value: Any, lower: Fraction | None, upper: Fraction | None) -> bool:
    """Whether a number is not known to lie outside a range."""
    below = lower is not None and value < rational(lower)
    return not below and not (upper is not None and value > rational(upper))


def close(a: Any, b: Any) -> bool:
    """Whether two numbers may be the same (rationals: are)."""
    if isinstance(a, flint.fmpq) and isinstance(b, flint.fmpq):
        return bool(a == b)
    return bool(abs(flint.arb(a) - flint.arb(b)) < 1e-25)


def check_ranges(query: Query, values: dict[str, Any]) -> None:
    everything: list[Declaration | Definition] = [*query.declarations, *query.definitions]
    for known in everything:
        assert within(values[known.variable.name], known.lower, known.upper), known
    for declaration in query.declarations:
        if declaration.within is not None:
            reach = values[declaration.within.name]
            assert within(values[declaration.variable.name] - reach, None, Fraction(0))


@pytest.mark.parametrize("name", CASES)
def test_every_point_of_the_boxes_satisfies_a_query_iff_it_refutes_the_property(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(len(name))
    encoded = queries(case, presolve(case))
    samples = [(x, sample_parameters(rng, case)) for x in sample_inputs(rng, case, 10) * 2][:16]
    with flint.ctx.workprec(256):
        for x, p in samples:
            truth = refutes(case, replay(case, x, p))
            for which, query in encoded.items():
                values = assignment(query, case, x, p)
                check_ranges(query, values)
                answers = [holds(formula, values) for formula in query.constraints]
                if truth:
                    assert False not in answers, which
                elif query.approximation is Approximation.EXACT:
                    assert False in answers, which


@pytest.mark.parametrize("name", CASES)
def test_the_last_definitions_are_the_networks_outputs(name: str) -> None:
    case = replace(CASES[name], output=replace(CASES[name].output, kind="value"), property=None)
    case = replace(case, property=Property("confidence", Fraction(1, 10)))
    rng = np.random.default_rng(1)
    for encode in ENCODERS.values():
        query = encode(case, "property", None)
        for x in sample_inputs(rng, case, 3):
            p = sample_parameters(rng, case)
            with flint.ctx.workprec(256):
                values = assignment(query, case, x, p)
                ours = layer_results(case, x.tolist(), p)[-1]
            theirs = evaluate_exact(case.uncertain.network, x, p)
            for i, (mine, exact) in enumerate(zip(ours, theirs, strict=True)):
                last = f"p{len(layer_results(case, x.tolist(), p)) - 1}_{i}"
                assert close(mine, exact)
                if last in values:
                    assert close(values[last], exact)


def test_the_samples_hold_flips_and_others_in_most_cases() -> None:
    both = 0
    for name, case in CASES.items():
        rng = np.random.default_rng(len(name))
        found = {
            refutes(case, replay(case, x, sample_parameters(rng, case)))
            for x in sample_inputs(rng, case, 12)
            for _ in range(2)
        }
        both += len(found) == 2
    assert both >= len(CASES) // 3


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_decoded_model_lies_in_the_boxes_and_means_what_it_said(name: str, encoding: str) -> None:
    case = CASES[name]
    query = ENCODERS[encoding](case, "property", None)
    rng = np.random.default_rng(3)
    for x in sample_inputs(rng, case, 3):
        p = sample_parameters(rng, case, "vertex")
        with flint.ctx.workprec(256):
            values = assignment(query, case, x, p)
        model = {d.variable.name: _fraction(values[d.variable.name]) for d in query.declarations}
        found_x, found = query.decode(model)
        witness = replay(case, found_x, found)
        assert witness.replayed
        assert np.array_equal(found_x, x)
        if encoding == "direct":
            assert all(np.array_equal(found[n], p[n]) for n in p)
        elif query.approximation is Approximation.EXACT:
            # Other parameters, the same slacks: every neuron's value is the same.
            with flint.ctx.workprec(256):
                ours = layer_results(case, x.tolist(), found)
                theirs = layer_results(case, x.tolist(), p)
            for a, b in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
                assert float(a) == pytest.approx(float(b), abs=1e-12)


def _fraction(number: Any) -> Fraction:
    if isinstance(number, flint.fmpq):
        return Fraction(int(number.p), int(number.q))
    return Fraction(float(number))


@pytest.mark.parametrize("encoding", ENCODERS)
def test_an_empty_or_wild_model_still_decodes_into_the_boxes(encoding: str) -> None:
    for name in ("scaled", "tied", "relu labels", "tanh labels, local"):
        case = CASES[name]
        query = ENCODERS[encoding](case, "property", None)
        wild = {d.variable.name: Fraction(10) ** 30 for d in query.declarations}
        for model in ({}, wild):
            assert replay(case, *query.decode(model)).replayed


def test_the_logic_is_the_smallest() -> None:
    def logic(name: str, encoding: str, invert: bool) -> str:
        return ENCODERS[encoding](CASES[name], "property", None, invert).logic

    assert logic("relu labels", "aggregated", True) == "QF_LRA"
    assert logic("relu labels, level 0.3", "aggregated", True) == "QF_LRA"
    assert logic("leaky labels", "aggregated", True) == "QF_LRA"
    assert logic("relu margin", "aggregated", True) == "QF_LRA"
    assert logic("three classes", "aggregated", True) == "QF_LRA"
    assert logic("values", "aggregated", True) == "QF_LRA"
    assert logic("relu confidence, local", "aggregated", True) == "QF_LRA"
    assert logic("two classes confidence, local", "aggregated", True) == "QF_LRA"
    assert logic("relu labels", "direct", False) == "QF_NRA"
    assert logic("relu margin", "direct", False) == "QF_NRA_EXP"
    assert logic("relu margin", "direct", True) == "QF_NRA"
    assert logic("relu confidence", "aggregated", True) == "QF_NRA_EXP"
    assert logic("three classes confidence, local", "aggregated", True) == "QF_NRA_EXP"
    assert logic("tanh labels", "aggregated", True) == "QF_NRA_EXP"
    assert logic("logistic confidence, local", "direct", True) == "QF_LRA"


def test_what_is_exact_says_so() -> None:
    def kind(name: str, encoding: str, invert: bool) -> Approximation:
        return ENCODERS[encoding](CASES[name], "property", None, invert).approximation

    assert kind("relu labels", "aggregated", True) is Approximation.EXACT
    assert kind("relu labels, level 0.3", "aggregated", True) is Approximation.OVER
    assert kind("relu labels, level 0.3", "aggregated", False) is Approximation.EXACT
    assert kind("relu margin", "direct", False) is Approximation.EXACT
    assert kind("relu margin", "direct", True) is Approximation.OVER
    assert kind("tied", "direct", True) is Approximation.EXACT
    assert kind("tied", "aggregated", True) is Approximation.OVER
    assert kind("relu labels, local", "aggregated", True) is Approximation.EXACT
    assert kind("tanh labels, local", "aggregated", True) is Approximation.OVER
    assert kind("values, local", "aggregated", True) is Approximation.EXACT


@pytest.mark.parametrize("encoding", ENCODERS)
def test_the_size_is_linear_in_the_network(encoding: str) -> None:
    def nodes(width: int) -> tuple[int, int]:
        network = random_network(np.random.default_rng(0), (4, width, width, 1))
        query = ENCODERS[encoding](
            problem(network, unit_box(4), "0.01", asked=LABELS), "property", None
        )
        stack_ = [d.term for d in query.definitions]
        count = 0
        while stack_:
            term = stack_.pop()
            count += 1
            stack_ += children(term)
        return count + len(query.declarations), network.parameter_count

    for width in (4, 16, 64):
        size, parameters = nodes(width)
        assert size < 12 * parameters + 100


def test_known_phases_leave_no_maximum() -> None:
    network = layered(
        [np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([[1.0, -1.0]])],
        [np.array([3.0, -3.0]), np.array([0.0])],
        ["relu"],
    )
    case = problem(network, unit_box(2), "0.01", asked=LABELS)
    plain = aggregated.encode(case, "property", None)
    fixed = aggregated.encode(case, "property", presolve(case))
    assert sum("Maximum" in repr(d.term) for d in plain.definitions) == 6
    assert not any(
        "Maximum" in repr(d.term) for d in fixed.definitions if d.variable.name[0] in "hg"
    )


def test_nothing_moves_shares_the_reference() -> None:
    for encode in ENCODERS.values():
        query = encode(CASES["nothing moves"], "property", None)
        assert not any(d.variable.name.startswith("p") for d in query.definitions)
        assert [d.variable.name for d in query.declarations] == ["x0", "x1"]
    still = CASES["relu labels, local"]
    point = problem(still.reference, Point((0.25, 0.5)), "0", asked=LABELS)
    for encode in ENCODERS.values():
        assert encode(point, "property", None).constraints == (FALSE,)


def test_an_equation_is_no_reference_to_a_later_one() -> None:
    for case in CASES.values():
        known = presolve(case)
        for query in queries(case, known).values():
            seen = {d.variable.name for d in query.declarations}
            assert len(seen) == len(query.declarations)
            for definition in query.definitions:
                used = _variables(definition.term)
                assert used <= seen
                assert definition.variable.name not in seen
                seen.add(definition.variable.name)


def _variables(term: Any) -> set[str]:
    if isinstance(term, Variable):
        return {term.name}
    return set().union(*(_variables(t) for t in children(term)))


def test_thresholds_are_added_and_quantities_are_named() -> None:
    case = CASES["values"]
    query = direct.encode(case, "epsilon", None)
    wanted = query.with_threshold(Fraction(1, 4))
    assert len(wanted.constraints) == len(query.constraints) + 1
    rng = np.random.default_rng(2)
    for x in sample_inputs(rng, case, 6):
        p = sample_parameters(rng, case)
        change = replay(case, x, p).change
        assert change is not None
        values = assignment(query, case, x, p)
        for t in (change.lower, change.upper + 1e-9):
            answers = [
                holds(formula, values) for formula in query.with_threshold(Fraction(t)).constraints
            ]
            assert (False in answers) == (t > change.upper)
    with pytest.raises(SoundnessError, match="threshold"):
        direct.encode(case, "property", None).with_threshold(Fraction(1))


@pytest.mark.parametrize("name", ["relu margin", "value margin", "three classes margin"])
@pytest.mark.parametrize("encoding", ENCODERS)
def test_sigma_is_the_reference_margin_where_labels_flip(name: str, encoding: str) -> None:
    case = CASES[name]
    several = len(case.uncertain.network.parameters) and case.reference.output_size > 1
    goals = ("sigma",) if several else ("sigma", "sigma_above", "sigma_below")
    encoded = {goal: ENCODERS[encoding](case, goal, None) for goal in goals}  # type: ignore[arg-type]
    rng = np.random.default_rng(4)
    for x in sample_inputs(rng, case, 12):
        p = sample_parameters(rng, case)
        witness = replay(case, x, p)
        before, after = witness.labels
        assert witness.margin is not None
        sides = {"sigma": before != after}
        sides |= {
            "sigma_above": (before, after) == (1, 0),
            "sigma_below": (before, after) == (0, 1),
        }
        ends = ((witness.margin.lower, True), (witness.margin.upper + 1e-9, False))
        for (goal, query), (t, reached) in itertools.product(encoded.items(), ends):
            with flint.ctx.workprec(256):
                values = assignment(query, case, x, p)
                formulas = query.with_threshold(Fraction(t)).constraints
                assert all(holds(f, values) for f in formulas) == (sides[goal] and reached)


def test_a_fixed_input_that_is_no_float_holds_the_float_nearest_to_it() -> None:
    fixed = Box((Fraction("0.1"), Fraction(1, 2)), (Fraction("0.1"), Fraction(1, 2)))
    case = replace(CASES["relu labels"], domain=fixed)
    for encode in ENCODERS.values():
        (x0, *rest) = encode(case, "property", None).declarations
        assert x0.lower is not None
        assert x0.upper is not None
        assert x0.lower <= Fraction("0.1") <= x0.upper
        assert Fraction(0.1) in (x0.lower, x0.upper)
        assert "x1" not in {d.variable.name for d in rest}


def test_refusals_say_what_to_do() -> None:
    case = CASES["three classes"]
    with pytest.raises(BackendError, match="ask for sigma"):
        direct.encode(case, "sigma_above", None)
    with pytest.raises(BackendError, match="no property"):
        direct.encode(replace(case, property=None), "property", None)
    divides = stack(1, constant("div", [0.05]), dense(0, [[1.0]], [0.0]))
    for encode in ENCODERS.values():
        with pytest.raises(BackendError, match="leave that layer out"):
            encode(problem(divides, unit_box(1), "0.1", asked=LABELS), "property", None)


def test_different_architectures_need_no_presolve() -> None:
    rng = np.random.default_rng(0)
    student, teacher = random_network(rng, (2, 2, 1)), random_network(rng, (2, 3, 2, 1))
    case = problem(student, unit_box(2), "0.1", asked=LABELS, reference=teacher)
    with pytest.raises(BackendError, match="architecture"):
        presolve(case)
    for encode in ENCODERS.values():
        query = encode(case, "property", None)
        for x in sample_inputs(rng, case, 6):
            p = sample_parameters(rng, case)
            values = assignment(query, case, x, p)
            flips = refutes(case, replay(case, x, p))
            assert all(holds(f, values) for f in query.constraints) == flips


def test_presolved_ranges_hold_on_samples_in_floating_point() -> None:
    case = problem(random_network(np.random.default_rng(9), (3, 8, 8, 2)), unit_box(3), "0.05",
                   "logits", asked=LABELS)  # fmt: skip
    query = direct.encode(case, "property", presolve(case))
    rng = np.random.default_rng(1)
    low = {d.variable.name: d.lower for d in query.declarations}
    high = {d.variable.name: d.upper for d in query.declarations}
    for _ in range(50):
        declared = {
            name: low[name] + Fraction(float(rng.uniform())) * (high[name] - low[name])  # type: ignore[operator]
            for name in low
        }
        values = complete(query.definitions, declared, FLOAT)
        for d in query.definitions:
            assert d.lower is None or values[d.variable.name] >= float(d.lower) - 1e-9
            assert d.upper is None or values[d.variable.name] <= float(d.upper) + 1e-9

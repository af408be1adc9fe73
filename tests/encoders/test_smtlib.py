"""The printed formulas: read again by another reader, by z3, and compared with golden files."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import flint
import numpy as np
import pytest
import z3

from paramrob.domain import Box, Point
from paramrob.encoders import aggregated, direct
from paramrob.encoders.evaluate import holds
from paramrob.encoders.presolve import presolve
from paramrob.encoders.smtlib import Dialect, to_smtlib
from paramrob.encoders.symbolic import to_latex
from paramrob.encoders.terms import Query
from paramrob.engine import Settings, decide
from paramrob.exact import float_above, float_below
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.replay import refutes, replay
from paramrob.solvers.z3 import Z3
from paramrob.verdict import Verdict
from tests.encoders.cases import CASES, LABELS, epsilon, sigma
from tests.encoders.forward import assignment, rational
from tests.encoders.reader import parse, value
from tests.known_problems import box, layered, problem, sample_inputs, sample_parameters, unit_box
from tests.replay_networks import act, dense, stack
from tests.small_models import logistic

GOLDEN = Path(__file__).parent / "golden"
LINEAR = [name for name in CASES if aggregated.encode(CASES[name], "property").logic == "QF_LRA"]


def answer(query: Query) -> str:
    """Return what z3 says about the printed text."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(z3.parse_smt2_string(to_smtlib(query)))
    return str(solver.check())


@pytest.mark.parametrize("dialect", ["portable", "dreal"])
@pytest.mark.parametrize("name", CASES)
def test_the_text_means_what_the_query_means(name: str, dialect: Dialect) -> None:
    case = CASES[name]
    rng = np.random.default_rng(5)
    for encode in (direct.encode, aggregated.encode):
        query = encode(case, "property", presolve(case))
        text = to_smtlib(query, dialect)
        commands = parse(text)
        extra = {name: rational(exact) for name, exact in between_floats(text).items()}
        asserted = [command[1] for command in commands if command[0] == "assert"]
        declared = {command[1] for command in commands if command[0] == "declare-fun"}
        for x in sample_inputs(rng, case, 4):
            with flint.ctx.workprec(256):
                values = assignment(query, case, x, sample_parameters(rng, case))
                assert set(values) | set(extra) == declared
                values |= extra
                truth = [holds(formula, values) for formula in query.constraints]
                read = [value(tree, values) for tree in asserted]
            assert (False in read) == (False in truth)


def between_floats(text: str) -> dict[str, Fraction]:
    """Return what dReal's extra variables stand for; their bounds are the floats around it."""
    found = {}
    for name, spelled in re.findall(r"\(declare-fun (c\d+) \(\) Real\) ; (\S+), no float64", text):
        exact = Fraction(spelled)
        low, high = float_below(exact), float_above(exact)
        asserted = [c[1] for c in parse(text) if c[0] == "assert" and name in c[1][1:]]
        bounds = [tree for tree in asserted if tree[0] == "<="][:2]
        assert value(bounds[0][1], {}) == rational(low)
        assert value(bounds[1][2], {}) == rational(high)
        assert low < exact < high
        found[name] = exact
    return found


@pytest.mark.parametrize("name", LINEAR)
def test_z3_agrees_with_samples_and_bounds_with_and_without_presolve(name: str) -> None:
    case = CASES[name]
    query = aggregated.encode(case, "property", presolve(case))
    rng = np.random.default_rng(0)
    found = {answer(query), answer(aggregated.encode(case, "property", None))}
    assert len(found) == 1
    samples = ((x, sample_parameters(rng, case)) for x in sample_inputs(rng, case, 20))
    if any(refutes(case, replay(case, x, p)) for x, p in samples):
        assert found == {"sat"}
    verdict = decide(case, Settings(timeout=1)).verdict
    if verdict is Verdict.ROBUST:
        assert found == {"unsat"}
    elif verdict is Verdict.NOT_ROBUST:
        assert found == {"sat"}


@pytest.mark.parametrize("name", LINEAR)
def test_the_text_and_the_solver_interface_get_the_same_answer(name: str) -> None:
    query = aggregated.encode(CASES[name], "property", presolve(CASES[name]))
    with Z3() as solver:
        assert solver.check(query, 20.0).status.value == answer(query)


SMALL = layered(
    [np.array([[1.0, -0.5]]), np.array([[1.5]])], [np.array([0.25]), np.array([-0.75])], ["relu"]
)


@pytest.mark.parametrize("asked", [LABELS, sigma("0.01"), sigma("0.2")])
@pytest.mark.parametrize("delta", ["0", "0.001", "0.05"])
def test_direct_and_aggregated_get_the_same_answer(asked: Property, delta: str) -> None:
    case = problem(SMALL, unit_box(2), delta, asked=asked)
    known = presolve(case)
    found = {
        answer(encode(case, "property", given, True))
        for encode in (direct.encode, aggregated.encode)
        for given in (None, known)
    }
    assert len(found) == 1
    assert found <= {"sat", "unsat"}
    verdict = decide(case, Settings(timeout=20)).verdict
    assert found == {"unsat" if verdict is Verdict.ROBUST else "sat"}


def cats(delta: str, asked: Property | None = None) -> Problem:
    network = logistic([0.07577862, 1.18118408], -3.51518067)
    domain = box(("6.3", "20.5"), (2, "3.9"))
    return problem(network, domain, delta, "probability", asked=asked)


@pytest.mark.parametrize(
    ("delta", "above", "below"),
    [("0.005", 0.0243551, 0.0213440), ("0.01", 0.0522627, 0.0401376)],
)
def test_sigma_of_the_cats_is_the_published_closed_form(
    delta: str, above: float, below: float
) -> None:
    case = cats(delta)
    for goal, truth in (("sigma_above", above), ("sigma_below", below)):
        query = aggregated.encode(case, goal, presolve(case))  # type: ignore[arg-type]
        assert query.logic == "QF_LRA"
        assert answer(query.with_threshold(Fraction(truth) - Fraction("2e-7"))) == "sat"
        assert answer(query.with_threshold(Fraction(truth) + Fraction("2e-7"))) == "unsat"


def test_local_epsilon_of_a_logistic_model_is_its_closed_form() -> None:
    x = (8.0, 2.5)
    case = problem(cats("0").reference, Point(x), "0.01", "probability")
    z = 0.07577862 * x[0] + 1.18118408 * x[1] - 3.51518067
    reach = 0.01 * (1 + x[0] + x[1])
    truth = 1 / (1 + math.exp(-z)) - 1 / (1 + math.exp(reach - z))
    truth = max(truth, 1 / (1 + math.exp(-reach - z)) - 1 / (1 + math.exp(-z)))
    for encode in (direct.encode, aggregated.encode):
        query = encode(case, "epsilon", None, True)
        assert query.logic == "QF_LRA"
        assert answer(query.with_threshold(Fraction(truth) - Fraction("1e-12"))) == "sat"
        assert answer(query.with_threshold(Fraction(truth) + Fraction("1e-12"))) == "unsat"


def test_z3s_model_decodes_to_a_counterexample() -> None:
    case = CASES["relu labels"]
    query = aggregated.encode(case, "property", presolve(case))
    solver = z3.Solver()
    solver.add(z3.parse_smt2_string(to_smtlib(query)))
    # Away from the threshold: float64 parameters attain a slack only nearly.
    solver.add(z3.Or(z3.Real("p2_0") > 0.01, z3.Real("p2_0") < -0.01))
    assert solver.check() == z3.sat
    found = solver.model()
    model = {
        d.variable.name: Fraction(str(found.eval(z3.Real(d.variable.name), True).as_fraction()))
        for d in query.declarations
    }
    assert refutes(case, replay(case, *query.decode(model)))


def test_a_decimal_that_no_float_is_lets_more_in_for_dreal_never_less() -> None:
    case = cats("0.005", epsilon("0.028"))
    text = to_smtlib(direct.encode(case), "dreal")
    low, high = float_below(Fraction("0.028")), float_above(Fraction("0.028"))
    assert low < Fraction("0.028") < high
    assert f"(assert (<= {low.hex()} c0))" in text
    assert f"(assert (<= c0 {high.hex()}))" in text
    assert f"(assert (<= {float_below(Fraction('6.3')).hex()} x0))" in text


def test_names_from_a_file_cannot_break_out_of_a_comment() -> None:
    network = stack(1, dense(0, [[1.0]], [0.0]), act("relu"), dense(1, [[1.0]], [0.0]))
    case = problem(network, unit_box(1), "0.1", asked=LABELS)
    text = to_smtlib(direct.encode(case), comments=["evil\n(exit)\r(check-sat)"])
    assert [c[0] for c in parse(text)].count("exit") == 1
    latex = to_latex(direct.encode(case), ["evil\n\\input{x}"])
    assert "\n\\input" not in latex


def test_extreme_numbers_are_printed_exactly() -> None:
    network = stack(2, dense(0, [[5e-324, -1e300]], [1e-310]))
    case = problem(network, unit_box(2), "1e-320", "value", Fraction(0), LABELS)
    for dialect in ("portable", "dreal"):
        words = to_smtlib(aggregated.encode(case), dialect)
        assert "inf" not in words
        assert "nan" not in words
        assert [c[0] for c in parse(words)].count("check-sat") == 1
    read = value(parse("(+ (/ 1.0 3.0) 0x1.8p-1)")[0], {})
    assert read == rational(Fraction(1, 3) + Fraction(3, 4))


def golden() -> dict[str, str]:
    """Return the texts that the golden files hold; rewrite them with ``python -m`` this module."""
    two = cats("0.005", epsilon("0.028"))
    labels = cats("0.01", LABELS)
    small = problem(SMALL, Box((Fraction(-1), Fraction(0)), (Fraction(1), Fraction(1))), "0.1",
                    asked=sigma("0.05"))  # fmt: skip
    classes = CASES["three classes, local"]
    return {
        "cats-confidence-direct.smt2": to_smtlib(direct.encode(two)),
        "cats-confidence-direct-dreal.smt2": to_smtlib(direct.encode(two), "dreal"),
        "cats-confidence-direct.tex": to_latex(direct.encode(two)),
        "cats-labels-direct.smt2": to_smtlib(direct.encode(labels)),
        "cats-labels-aggregated.smt2": to_smtlib(aggregated.encode(labels)),
        "small-margin-aggregated.smt2": to_smtlib(aggregated.encode(small)),
        "small-margin-direct-dreal.smt2": to_smtlib(direct.encode(small), "dreal"),
        "small-margin-aggregated.tex": to_latex(aggregated.encode(small)),
        "classes-labels-aggregated.smt2": to_smtlib(aggregated.encode(classes)),
    }


@pytest.mark.parametrize("name", golden())
def test_the_text_is_the_golden_files(name: str) -> None:
    assert (GOLDEN / name).read_text() == golden()[name]


if __name__ == "__main__":
    for name, text in golden().items():
        (GOLDEN / name).write_text(text)

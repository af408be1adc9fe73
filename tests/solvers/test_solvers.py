"""Every installed solver on queries whose suprema are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import flint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramrob.encoders.terms import (
    Comparison,
    Declaration,
    Definition,
    Exp,
    Query,
    Sigmoid,
    Tanh,
    Variable,
    add,
    constant,
    divide,
    maximum,
    multiply,
    negate,
    scale,
    subtract,
)
from paramrob.solvers.base import Solver
from paramrob.solvers.evaluate import evaluate, holds, within_reach
from paramrob.solvers.program import Program, flatten
from paramrob.solvers.registry import REGISTRY, make_solver, solver_class
from paramrob.verdict import Approximation, Status
from tests.solvers.hand import query, slack_optimum, slack_query, undecoded

F = Fraction
X, Y = Variable("x"), Variable("y")


def linear(factor: Fraction | None = None) -> tuple[Query, float]:
    # relu(x - y) + y/3 on [-1, 2] x [0, 1]: largest at x = 2, y = 0.
    factor = factor or F(1, 3)
    term = add(maximum(subtract(X, Y), constant(0)), scale(factor, Y))
    boxes = {"x": ("-1", "2"), "y": ("0", "1")}
    return query(boxes, {"q": term}, logic="QF_LRA"), 2.0


def sigmoids() -> tuple[Query, float]:
    # sigmoid(x + 1) - sigmoid(x) is largest at x = -1/2.
    term = subtract(Sigmoid(add(X, constant(1))), Sigmoid(X))
    return query({"x": ("-5", "5")}, {"q": term}), math.tanh(0.25)


def tanhs() -> tuple[Query, float]:
    # tanh(x) + tanh(-x/2) is largest where (1 - tanh^2 x) = (1 - tanh^2 (x/2)) / 2.
    term = add(Tanh(X), Tanh(scale(F(-1, 2), X)))
    best = max(math.tanh(i / 1e5) - math.tanh(i / 2e5) for i in range(300_000))
    return query({"x": ("-3", "3")}, {"q": term}), best


def exponentials() -> tuple[Query, float]:
    # exp(x) / (1 + exp(x)) * (1 - x) on [0, 1]: the end x = 0 or inside.
    share = divide(constant(1), add(constant(1), Exp(negate(X))))
    best = max((1 - i / 1e5) / (1 + math.exp(-i / 1e5)) for i in range(100_001))
    return query(
        {"x": ("0", "1")}, {"s": share, "q": multiply(X_S, subtract(constant(1), X))}
    ), best


X_S = Variable("s")


def products() -> tuple[Query, float]:
    # x (1 - x) + x y on [0, 1]^2: y = 1, x = 1 -> 1.
    term = add(multiply(X, subtract(constant(1), X)), multiply(X, Y))
    return query({"x": ("0", "1"), "y": ("0", "1")}, {"q": term}, logic="QF_NRA"), 1.0


def slacks() -> tuple[Query, float]:
    return slack_query(F(1, 10)), slack_optimum(0.1)


CASES = (linear, sigmoids, tanhs, exponentials, products, slacks)


@pytest.fixture(scope="module", params=[name for name, _, _ in REGISTRY])
def solver(request: pytest.FixtureRequest) -> Iterator[Solver]:
    state = solver_class(request.param).state()
    if state.version is None:
        pytest.skip(f"{request.param} is not installed")
    with make_solver(request.param) as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_both_sides_of_the_supremum(solver: Solver, case: object) -> None:
    asked, best = case()  # type: ignore[operator]
    gap = F(1, 10**6)
    beyond = asked.with_threshold(F(best) + gap)
    assert solver.check(beyond, 20.0, 1e-7).status is Status.UNSAT
    within = asked.with_threshold(F(best) - gap)
    answer = solver.check(within, 20.0, 1e-7)
    assert answer.status in (Status.SAT, Status.DELTA_SAT)
    assert answer.model is not None
    assert set(answer.model) == {d.variable.name for d in asked.declarations}
    # Up to rounding, the point attains the threshold; a solver's own word is not asked.
    roughly = asked.with_threshold(F(best) - 3 * gap)
    with flint.ctx.workprec(128):
        program = flatten(roughly)
        assert not [c for c in program.constraints if not loosely(program, c, answer.model)]


def loosely(program: Program, clause: object, model: object) -> bool:
    from paramrob.solvers.evaluate import satisfied

    numbers = evaluate(program, model)  # type: ignore[arg-type]
    if program.says_slack(clause):  # type: ignore[arg-type]
        left, right = (numbers[k] for k in clause[2:])  # type: ignore[index]
        return bool(left - right < flint.arb(1e-12))
    return satisfied(clause, numbers)  # type: ignore[arg-type]


def test_z3_says_sat_only_of_a_solution() -> None:
    asked, best = sigmoids()
    with make_solver("z3") as z3:
        within = asked.with_threshold(F(best) - F(1, 1000))
        answer = z3.check(within, 20.0)
    assert answer.status is Status.SAT
    assert answer.model is not None
    with flint.ctx.workprec(128):
        assert holds(flatten(within), evaluate(flatten(within), answer.model))


@pytest.mark.parametrize("factor", [F(1, 3), F(1, 3) + F(1, 2**60)], ids=["short", "long"])
def test_z3_decides_a_linear_supremum_exactly(factor: Fraction) -> None:
    asked, best = linear(factor)
    with make_solver("z3") as z3:
        at = z3.check(asked.with_threshold(F(best)), 10.0)
        beyond = z3.check(asked.with_threshold(F(best) + F(1, 10**40)), 10.0)
    assert at.status is Status.SAT
    assert at.precision is None
    assert beyond.status is Status.UNSAT


@pytest.mark.parametrize("away", [F(1, 10**3), F(1, 10**12)])
def test_z3_decides_long_sums_exactly(away: Fraction) -> None:
    # c x + s with |s| <= d x on [0, 1]: the supremum is c + d.
    c, d = F("0.70710678118654752440"), F("0.01414213562373095049")
    x, s, r = Variable("x"), Variable("s"), Variable("r")
    declared = (Declaration(x, F(0), F(1), "input"), Declaration(s, -d, d, "slack", r))
    defined = (
        Definition(r, scale(d, x), F(0), d),
        Definition(Variable("q"), add(scale(c, x), s), F(0), c + d),
    )
    within = (Comparison("<=", s, r), Comparison("<=", negate(s), r))
    asked = Query("long", declared, defined, within, "QF_LRA", Approximation.EXACT, undecoded,
                  target=Variable("q"))  # fmt: skip
    with make_solver("z3") as z3:
        answer = z3.check(asked.with_threshold(c + d - away), 60.0)
        beyond = z3.check(asked.with_threshold(c + d + away), 60.0)
    assert answer.status is Status.SAT
    assert answer.model is not None
    assert c * answer.model["x"] + d * answer.model["x"] >= c + d - away
    assert beyond.status is Status.UNSAT


@settings(derandomize=True, database=None, deadline=None)
@given(
    st.fractions(0, 1, max_denominator=10**6),
    st.fractions(-1, 1, max_denominator=10**6),
    st.fractions(F(1, 100), 1, max_denominator=100),
)
def test_slacks_are_moved_into_their_reach_and_no_farther(
    x: Fraction, s: Fraction, delta: Fraction
) -> None:
    program = flatten(slack_query(delta).with_threshold(F(0)))
    moved = within_reach(program, {"x": x, "s": s})
    reach = delta * (x + 1)
    assert moved == {"x": x, "s": min(max(s, -reach), reach)}


@pytest.mark.parametrize("name", ["z3", "icp"])
def test_an_empty_formula_and_a_point(name: str) -> None:
    asked = query({"x": ("1/3", "1/3")}, {"q": scale(F(3), X)}, logic="QF_LRA")
    false = Comparison("<", X, constant(0))
    with make_solver(name) as solver:
        assert solver.check(asked, 10.0).status in (Status.SAT, Status.DELTA_SAT)
        beyond = asked.with_threshold(F(1) + F(1, 10**9))
        assert solver.check(beyond, 10.0).status is Status.UNSAT
        never = query({"x": ("0", "1")}, {"q": X}, false, logic="QF_LRA")
        assert solver.check(never, 10.0).status is Status.UNSAT


@pytest.mark.parametrize("name", ["z3", "icp"])
def test_time_runs_out(name: str) -> None:
    names = [f"x{i}" for i in range(8)]
    pairs = [(Variable(a), Variable(b)) for a in names for b in names if a < b]
    terms = [multiply(Sigmoid(multiply(a, b)), subtract(a, b)) for a, b in pairs]
    asked = query(dict.fromkeys(names, ("-2", "2")), {"q": add(*terms)})
    with make_solver(name) as solver:
        answer = solver.check(asked.with_threshold(F(45)), 1.0)
    assert answer.status is Status.UNKNOWN
    assert answer.reason is not None
    assert "raise --timeout" in answer.reason
    assert answer.seconds < 5


def test_a_program_survives_json() -> None:
    import json

    for case in CASES:
        program = flatten(case()[0].with_threshold(F(1, 7)))
        again = Program.from_json(json.loads(json.dumps(program.as_json())))
        assert json.dumps(again.as_json()) == json.dumps(program.as_json())

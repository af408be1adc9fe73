"""Queries in sympy: its own arithmetic as the oracle of terms, encodings and printers."""

from __future__ import annotations

import re

import flint
import numpy as np
import pytest
import sympy

from paramrob.encoders import aggregated, direct
from paramrob.encoders.evaluate import holds
from paramrob.encoders.symbolic import to_latex, to_sympy
from tests.encoders.cases import CASES
from tests.encoders.forward import assignment
from tests.known_problems import sample_inputs, sample_parameters

SOME = [
    "relu labels", "leaky confidence", "tanh confidence", "three classes confidence",
    "logistic margin", "scaled", "three classes margin, local", "relu confidence, local",
]  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_sympy_computes_the_same_values_and_truths(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(6)
    for encode in (direct.encode, aggregated.encode):
        query = encode(case, "property", None)
        symbolic = to_sympy(query)
        for x in sample_inputs(rng, case, 2):
            with flint.ctx.workprec(256):
                values = assignment(query, case, x, sample_parameters(rng, case))
                truth = [holds(formula, values) for formula in query.constraints]
            given = {
                symbolic.symbols[d.variable.name]: _sympy(values[d.variable.name])
                for d in query.declarations
            }
            assert all(bound.subs(given) == sympy.true for bound in symbolic.bounds)
            for symbol, expression in symbolic.definitions:
                given[symbol] = sympy.N(expression.subs(given), 40)
                expected = float(values[symbol.name])
                assert float(given[symbol]) == pytest.approx(expected, rel=1e-14, abs=1e-30)
            for formula, known in zip(symbolic.constraints, truth, strict=True):
                assert bool(formula.subs(given)) == known


def _sympy(number: object) -> sympy.Expr:
    if isinstance(number, flint.fmpq):
        return sympy.Rational(int(number.p), int(number.q))
    return sympy.Float(str(flint.arb(number).str(60, radius=False)), 60)


@pytest.mark.parametrize("name", SOME)
def test_latex_is_balanced_and_names_every_variable(name: str) -> None:
    query = aggregated.encode(CASES[name], "property", None)
    text = to_latex(query)
    plain = re.sub(r"\\[{}]", "", text)
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    for part in ("align*", "itemize", "document"):
        assert text.count(rf"\begin{{{part}}}") == text.count(rf"\end{{{part}}}") > 0
    count = len(query.declarations) + len(query.definitions)
    assert text.count(r"\item $") == count


def test_latex_symbols_are_subscripted() -> None:
    text = to_latex(direct.encode(CASES["tanh labels"], "property", None))
    assert r"\theta_{0,2,1}" in text
    assert r"\tanh{\left(p_{0,1} \right)}" in text
    slacks = to_latex(aggregated.encode(CASES["leaky labels"], "property", None))
    assert r"\left|g_{0,2}\right|" in slacks
    assert r"\left|x_{0}\right|" in slacks

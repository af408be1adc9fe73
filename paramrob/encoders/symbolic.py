"""Queries in sympy, and as LaTeX for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from paramrob.encoders.terms import (
    And,
    Comparison,
    Constant,
    Exp,
    Formula,
    Maximum,
    Product,
    Query,
    Quotient,
    Scaled,
    Sigmoid,
    Sum,
    Term,
    Variable,
)
from paramrob.exact import decimal_text


@dataclass(frozen=True)
class Symbolic:
    """A query in sympy.

    Attributes:
        symbols: by name, all real.
        bounds: of the declared variables.
        definitions: ``(symbol, expression)`` in order of dependence.
        constraints: relations and Boolean functions of them.
    """

    symbols: dict[str, Any]
    bounds: list[Any]
    definitions: list[tuple[Any, Any]]
    constraints: list[Any]


def to_sympy(query: Query, number: Callable[[Fraction], Any] | None = None) -> Symbolic:
    """Return a query in sympy; ``number`` makes its numbers (by default exact rationals)."""
    import sympy

    def rational(value: Fraction) -> Any:
        return sympy.Rational(value.numerator, value.denominator)

    names = [v.name for v, _ in _meanings(query)]
    symbols = {name: sympy.Symbol(name, real=True) for name in names}
    converter = _Converter(symbols, number or rational)
    bounds = []
    for declaration in query.declarations:
        symbol = symbols[declaration.variable.name]
        if declaration.lower is not None:
            bounds.append(sympy.Ge(symbol, converter.number(declaration.lower)))
        if declaration.upper is not None:
            bounds.append(sympy.Le(symbol, converter.number(declaration.upper)))
    definitions = [(symbols[d.variable.name], converter.term(d.term)) for d in query.definitions]
    constraints = [converter.formula(formula) for formula in query.constraints]
    return Symbolic(symbols, bounds, definitions, constraints)


class _Converter:
    """Terms and formulas to sympy."""

    def __init__(self, symbols: dict[str, Any], number: Callable[[Fraction], Any]) -> None:
        self._symbols = symbols
        self.number = number

    def term(self, term: Term) -> Any:
        """Return a term."""
        import sympy

        if isinstance(term, Constant):
            return self.number(term.value)
        if isinstance(term, Variable):
            return self._symbols[term.name]
        if isinstance(term, Sum):
            return sympy.Add(*(self.term(t) for t in term.terms), evaluate=False)
        if isinstance(term, Scaled):
            # As it stands: a product of two numbers' worth of symbols would be sorted by name.
            factors = (*sympy.Mul.make_args(self.number(term.factor)), self.term(term.term))
            return sympy.Mul(*factors, evaluate=False)
        if isinstance(term, (Product, Quotient, Maximum)):
            left, right = self.term(term.left), self.term(term.right)
            if isinstance(term, Maximum):
                return sympy.Max(left, right)
            return left * right if isinstance(term, Product) else left / right
        inside = self.term(term.term)
        if isinstance(term, Exp):
            return sympy.exp(inside)
        return 1 / (1 + sympy.exp(-inside)) if isinstance(term, Sigmoid) else sympy.tanh(inside)

    def formula(self, formula: Formula) -> Any:
        """Return a formula."""
        import sympy

        if isinstance(formula, Comparison):
            relations = {
                "<=": sympy.Le,
                "<": sympy.Lt,
                ">=": sympy.Ge,
                ">": sympy.Gt,
                "=": sympy.Eq,
            }
            left, right = self.term(formula.left), self.term(formula.right)
            return relations[formula.operator](left, right, evaluate=False)
        join = sympy.And if isinstance(formula, And) else sympy.Or
        return join(*(self.formula(part) for part in formula.parts), evaluate=False)


def to_latex(query: Query, comments: Sequence[str] = ()) -> str:
    r"""Return a query as LaTeX: a document with one ``align*`` for each part.

    Numbers are decimals; a long one is the shortest that names its float64.
    """
    import sympy

    symbolic = to_sympy(query, _shown)
    names = {symbol: _symbol(name) for name, symbol in symbolic.symbols.items()}

    def tex(expression: Any) -> str:
        return str(sympy.latex(expression, symbol_names=names, fold_short_frac=True, order="none"))

    lines = [f"% {''.join(c if c.isprintable() else ' ' for c in line)}" for line in comments]
    lines += [r"\documentclass{article}", r"\usepackage{amsmath}", r"\allowdisplaybreaks"]
    lines += [r"\begin{document}", _escaped(query.name) + "."]
    parts = (
        ("Ranges", _ranges(query)),
        ("Definitions", (f"{names[s]} &= {tex(e)}" for s, e in symbolic.definitions)),
        ("Constraints", (f"& {tex(f)}" for f in symbolic.constraints)),
    )
    for title, rows in parts:
        if body := list(rows):
            lines += [f"\\paragraph{{{title}}}", r"\begin{align*}"]
            lines += [" \\\\\n".join(body), r"\end{align*}"]
    lines += [r"\paragraph{Meaning}", r"\begin{itemize}"]
    lines += [f"\\item ${_symbol(v.name)}$: {_escaped(words)}" for v, words in _meanings(query)]
    return "\n".join([*lines, r"\end{itemize}", r"\end{document}", ""])


def _meanings(query: Query) -> list[tuple[Variable, str]]:
    declared = [(d.variable, d.meaning) for d in query.declarations]
    return declared + [(d.variable, d.meaning) for d in query.definitions]


def _ranges(query: Query) -> Iterator[str]:
    for declaration in query.declarations:
        name = _symbol(declaration.variable.name)
        low = "" if declaration.lower is None else f"{_decimal(declaration.lower)} \\le "
        high = "" if declaration.upper is None else f" \\le {_decimal(declaration.upper)}"
        if low or high:
            yield f"& {low}{name}{high}"


def _shown(value: Fraction) -> Any:
    """Return a number that sympy prints as a decimal and leaves alone."""
    import sympy

    if value.denominator == 1:
        return sympy.Integer(value.numerator)
    size = sympy.Symbol(_decimal(abs(value)), positive=True)
    return size if value > 0 else -size


def _decimal(value: Fraction) -> str:
    exact = decimal_text(value)
    if len(exact) <= 18 and "/" not in exact:
        return exact
    text = repr(float(value))
    mantissa, _, power = text.partition("e")
    return f"{mantissa} \\cdot 10^{{{int(power)}}}" if power else mantissa


def _symbol(name: str) -> str:
    r"""Return ``\theta_{0,1}`` for ``theta0_1``."""
    if name.startswith("abs_"):
        return rf"\left|{_symbol(name[4:])}\right|"
    match = re.fullmatch(r"([a-z]+?)_?(gap|odds)?(\d[\d_]*)?", name)
    if match is None:
        return name
    named = {"theta": r"\theta", "fp": "f_p", "up": r"\mathrm{up}", "down": r"\mathrm{down}"}
    letter = named.get(match[1], match[1])
    below = ",".join(filter(None, [match[2], (match[3] or "").replace("_", ",")]))
    if below and letter == "f_p":
        return f"f_{{p,{below}}}"
    return f"{letter}_{{{below}}}" if below else letter


def _escaped(text: str) -> str:
    kept = "".join(c if c.isprintable() else " " for c in text)
    kept = kept.replace("\\", r"\textbackslash ")
    return re.sub(r"([&%$#_{}])", r"\\\1", kept).replace("^", r"\^{}").replace("~", r"\~{}")

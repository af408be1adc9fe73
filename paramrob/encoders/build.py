"""What an encoder fills while it walks through the networks."""

from __future__ import annotations

from fractions import Fraction

from paramrob.encoders.enclose import activation_ends
from paramrob.encoders.presolve import FREE, Range
from paramrob.encoders.terms import (
    ZERO,
    Constant,
    Declaration,
    Definition,
    Formula,
    Maximum,
    Sigmoid,
    Tanh,
    Term,
    Variable,
    maximum,
    negate,
    scale,
)
from paramrob.errors import BackendError
from paramrob.models.network import Activation


class Builder:
    """Declarations, definitions and constraints so far, and what is known of each variable."""

    def __init__(self) -> None:
        self.declarations: list[Declaration] = []
        self.definitions: list[Definition] = []
        self.constraints: list[Formula] = []
        self._ranges: dict[str, Range] = {}
        self._magnitudes: dict[str, Term] = {}
        self._activated: dict[tuple[str, Activation], Term] = {}

    def declare(
        self,
        name: str,
        lower: Fraction | None,
        upper: Fraction | None,
        meaning: str,
        within: Variable | None = None,
    ) -> Variable:
        """Add a free variable."""
        variable = Variable(name)
        self.declarations.append(Declaration(variable, lower, upper, meaning, within))
        self._ranges[name] = (lower, upper)
        return variable

    def define(self, name: str, term: Term, known: Range = FREE, meaning: str = "") -> Term:
        """Name a term; constants and variables stay themselves."""
        if isinstance(term, (Constant, Variable)):
            return term
        variable = Variable(name)
        self.definitions.append(Definition(variable, term, *known, meaning))
        self._ranges[name] = known
        return variable

    def range_of(self, term: Term) -> Range:
        """Return what is known of a constant or variable."""
        if isinstance(term, Constant):
            return term.value, term.value
        return self._ranges[term.name] if isinstance(term, Variable) else FREE

    def magnitude(self, term: Term) -> Term:
        """Return ``|term|`` of a constant or variable, linear where its sign is known."""
        if isinstance(term, Constant):
            return Constant(abs(term.value))
        low, high = self.range_of(term)
        if low is not None and low >= 0:
            return term
        if high is not None and high <= 0:
            return negate(term)
        if not isinstance(term, Variable):
            return maximum(term, negate(term))
        if term.name not in self._magnitudes:
            self._magnitudes[term.name] = self.define(
                f"abs_{term.name}",
                Maximum(term, negate(term)),
                (Fraction(0), self.largest(term)),
                f"|{term.name}|",
            )
        return self._magnitudes[term.name]

    def largest(self, term: Term) -> Fraction | None:
        """Return the largest magnitude of a constant or variable, if it is known."""
        low, high = self.range_of(term)
        return None if low is None or high is None else max(-low, high)

    def activate(self, name: str, op: Activation, z: Term, meaning: str) -> Term:
        """Apply an activation to a constant or variable; a ReLU whose phase is known is linear.

        The same activation of the same variable is one definition: layers that do not move are
        shared by both networks.
        """
        key = (z.name if isinstance(z, Variable) else "", op)
        if isinstance(z, Variable) and key in self._activated:
            return self._activated[key]
        result = self._activate(name, op, z, meaning)
        self._activated[key] = result
        return result

    def _activate(self, name: str, op: Activation, z: Term, meaning: str) -> Term:
        low, high = self.range_of(z)
        if op.kind == "identity":
            return z
        if op.kind in ("relu", "leaky_relu"):
            slope = Fraction(op.slope) if op.kind == "leaky_relu" else Fraction(0)
            if low is not None and low >= 0:
                return z
            if high is not None and high <= 0:
                ends = _scaled(slope, low), _scaled(slope, high)
                return self.define(name, scale(slope, z), ends, meaning)
            known = _scaled(slope, low), None if high is None else max(high, slope * high)
            return self.define(name, maximum(z, scale(slope, z)), known, meaning)
        if op.kind not in ("sigmoid", "tanh"):
            raise BackendError(f"no encoding of the activation {op.kind!r}; use --solver bounds")
        term: Term = Sigmoid(z) if op.kind == "sigmoid" else Tanh(z)
        if z == ZERO:
            return Constant(Fraction(1, 2) if op.kind == "sigmoid" else Fraction(0))
        return self.define(name, term, activation_ends(op.kind, low, high), meaning)


def _scaled(slope: Fraction, end: Fraction | None) -> Fraction | None:
    if slope == 0:
        return Fraction(0)
    return None if end is None else slope * end

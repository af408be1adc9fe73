"""Activations that exporters write as several nodes, e.g. ``x * Sigmoid(x)`` for SiLU.

Every elementwise node with scalar constants is remembered. What it computes from an earlier
tensor ``z`` is a polynomial in ``z`` and in functions of such polynomials; a polynomial that is
one of the known forms is that activation of ``z``, in whatever order the nodes come. The
constants of a form, such as the root of 2 or one sixth, are the numbers whose nearest floats the
file holds; with any other constant it is no form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from paramrob.models.network import Activation, ActivationKind
from paramrob.models.onnx_activations import clip_bounds
from paramrob.models.onnx_builder import Builder
from paramrob.models.onnx_constants import Constant, RefusedError

# What the coefficients of one polynomial may differ by, having been multiplied out in float64.
_TOLERANCE = 2.0**-48
_INNER = math.sqrt(2 / math.pi)
_CONSTANTS = (
    0.5, 1.0, 2.0, 3.0, 6.0, 1 / 6, math.sqrt(2), math.sqrt(0.5), 0.044715, _INNER,
    _INNER * 0.044715,
)  # fmt: skip
_STORED: dict[str, Callable[[float], Any]] = {
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
}
_BINARY = ("Add", "Sub", "Mul", "Div", "Pow")
_FUNCTIONS = {"Erf": "erf", "Sigmoid": "sigmoid", "Tanh": "tanh"}
_ALIASES = ("Dropout", "Identity")
_RECORDED = (*_BINARY, *_FUNCTIONS, "Clip", "HardSigmoid")
# How far back and to how many terms to look: the longest known form takes nine nodes.
_FARTHEST = 12
_MOST_TERMS = 6
_HIGHEST_POWER = 4


@dataclass(frozen=True)
class Call:
    """A function of a polynomial; ``unit`` clamps to [0, 1]."""

    function: str
    argument: Polynomial


Factor = str | Call
"""``"z"``, or a function of a polynomial in it."""
Monomial = tuple[Factor, ...]
Polynomial = tuple[tuple[Monomial, float], ...]
"""Monomials with their coefficients; factors and monomials in a fixed order."""

Z: Polynomial = ((("z",), 1.0),)
_Operand = str | float


@dataclass(frozen=True)
class _Record:
    """An elementwise node: its operands are tensors or numbers."""

    kind: str
    operands: tuple[_Operand, ...]
    numbers: tuple[float, ...] = ()


class Forms:
    """What the elementwise nodes of one graph compute.

    Args:
        graph: the network so far, for constants and attributes.
    """

    def __init__(self, graph: Builder) -> None:
        self._graph = graph
        self._records: dict[str, _Record] = {}
        self._same: dict[str, str] = {}
        self._dims: dict[str, tuple[int, ...]] = {}
        self._elem_types: dict[str, int] = {}

    def match(self, node: onnx.NodeProto) -> tuple[Activation, str] | None:
        """Remember the node; return the activation that it completes, and of which tensor."""
        if node.op_type in _ALIASES:
            self._same[node.output[0]] = self._root(node.input[0])
        if node.op_type not in _RECORDED:
            return None
        record = self._record(node)
        if record is None:
            return None
        out = node.output[0]
        self._records[out] = record
        first = next(t for t in record.operands if isinstance(t, str))
        self._dims[out], self._elem_types[out] = self._kind_of(first) or ((), 0)
        for base in self._bases(out):
            found = self._expand(out, {base: Z}, _FARTHEST)
            for kind, form in _FORMS.items():
                if found is not None and _close(found, form):
                    return Activation(kind), base
        return None

    def knows(self, tensor: str) -> bool:
        """Whether the tensor may be a part of a form."""
        return tensor in self._records

    def _root(self, tensor: str) -> str:
        return self._same.get(tensor, tensor)

    def _kind_of(self, tensor: str) -> tuple[tuple[int, ...], int] | None:
        """Return a computed tensor's shape and element type."""
        value = self._graph.values.get(tensor)
        if value is not None:
            return None if value.padding else (value.dims, value.elem_type)
        if tensor in self._records:
            return self._dims[tensor], self._elem_types[tensor]
        return None

    def _record(self, node: onnx.NodeProto) -> _Record | None:
        """Return the node with its operands, if all have one shape or are single numbers."""
        kinds = [self._kind_of(self._root(t)) for t in node.input if self._graph.is_computed(t)]
        first = kinds[0] if kinds else None
        if first is None or any(kind != first for kind in kinds):
            return None
        if node.op_type == "Clip":
            try:
                low, high = clip_bounds(self._graph, node, first[1])
            except RefusedError:
                return None
            fits = low == 0 and high in _CONSTANTS
            return _Record("Clip", (self._root(node.input[0]),), (high or 0.0,)) if fits else None
        if node.op_type == "HardSigmoid":
            slope, shift = (self._graph.attribute(node, key) for key in ("alpha", "beta"))
            # attributes are float32 whatever the tensors are
            fits = (slope, shift) == (np.float32(1 / 6), 0.5)
            return _Record("HardSigmoid", (self._root(node.input[0]),)) if fits else None
        operands: list[_Operand | None] = []
        for tensor in node.input:
            if self._graph.is_computed(tensor):
                operands.append(self._root(tensor))
            else:
                constant = self._graph.constants[tensor]
                fits = len(constant.shape) <= len(first[0])
                operands.append(_meant(constant) if fits else None)
        known = tuple(o for o in operands if o is not None)
        return _Record(node.op_type, known) if len(known) == len(operands) else None

    def _bases(self, tensor: str) -> Iterator[str]:
        """Return tensors that this one is computed from and that the network holds."""
        seen, queue = {tensor}, [tensor]
        while queue and len(seen) <= _FARTHEST:
            record = self._records.get(queue.pop(0))
            for operand in record.operands if record else ():
                if isinstance(operand, str) and operand not in seen:
                    seen.add(operand)
                    queue.append(operand)
                    if operand in self._graph.values:
                        yield operand

    def _expand(
        self, operand: _Operand, known: dict[str, Polynomial | None], steps: int
    ) -> Polynomial | None:
        """Return what the operand computes from the base, ``None`` if that is no polynomial.

        ``known`` holds the base, and takes what is found on the way, at most ``steps`` back.
        """
        if isinstance(operand, float):
            return _number(operand)
        if operand not in known:
            known[operand] = None
            record = self._records.get(operand) if steps else None
            if record is not None:
                parts = [self._expand(o, known, steps - 1) for o in record.operands]
                whole = [p for p in parts if p is not None]
                known[operand] = _combine(record, whole) if len(whole) == len(parts) else None
        return known[operand]


def _meant(constant: Constant) -> float | None:
    """Return the number of a known form that a single stored constant is the nearest float of."""
    kind = _STORED.get(constant.stored)
    if kind is None or constant.value.size != 1:
        return None
    value = float(constant.value.item())
    for number in _CONSTANTS:
        # what is irrational was computed in float64, perhaps to the next float
        leeway = 2.0**-52 * number if kind is np.float64 else 0.0
        if abs(value - float(kind(number))) <= leeway:
            return number
    return None


def _combine(record: _Record, parts: list[Polynomial]) -> Polynomial | None:
    kind, first = record.kind, parts[0]
    if kind in _FUNCTIONS:
        return _call(_FUNCTIONS[kind], first)
    if kind == "Clip":  # clip(p, 0, high) = high clip(p / high, 0, 1)
        (high,) = record.numbers
        return _scaled(_call("unit", _scaled(first, 1 / high)), high)
    if kind == "HardSigmoid":
        affine = _sum(_scaled(first, 1 / 6), _number(0.5))
        return None if affine is None else _call("unit", affine)
    second = parts[1]
    if kind in ("Add", "Sub"):
        return _sum(first, _scaled(second, 1.0 if kind == "Add" else -1.0))
    if kind == "Mul":
        return _product(first, second)
    number = second[0][1] if len(second) == 1 and second[0][0] == () else 0.0
    if kind == "Div":
        return _scaled(first, 1 / number) if number else None
    square = _product(first, first) if number in (2.0, 3.0) else None
    return square if square is None or number == 2.0 else _product(square, first)


def _number(value: float) -> Polynomial:
    return (((), value),) if value else ()


def _call(function: str, argument: Polynomial) -> Polynomial:
    return (((Call(function, argument),), 1.0),)


def _scaled(p: Polynomial, factor: float) -> Polynomial:
    return tuple((monomial, c * factor) for monomial, c in p)


def _collected(terms: Iterable[tuple[Monomial, float]]) -> Polynomial | None:
    found: dict[Monomial, float] = {}
    for monomial, c in terms:
        found[monomial] = found.get(monomial, 0.0) + c
    long = len(found) > _MOST_TERMS or max(map(len, found), default=0) > _HIGHEST_POWER
    return None if long else tuple(sorted(found.items(), key=repr))


def _sum(p: Polynomial, q: Polynomial) -> Polynomial | None:
    return _collected((*p, *q))


def _product(p: Polynomial, q: Polynomial) -> Polynomial | None:
    return _collected((tuple(sorted((*a, *b), key=repr)), c * d) for a, c in p for b, d in q)


def _close(p: Polynomial, q: Polynomial) -> bool:
    """Whether two polynomials agree up to the rounding of their coefficients."""
    if len(p) != len(q):
        return False
    rest = list(q)
    for monomial, c in p:
        for term in rest:
            near = abs(c - term[1]) <= _TOLERANCE * abs(term[1])
            if near and _same_monomial(monomial, term[0]):
                rest.remove(term)
                break
        else:
            return False
    return True


def _same_monomial(a: Monomial, b: Monomial) -> bool:
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        if isinstance(x, Call) and isinstance(y, Call):
            if x.function != y.function or not _close(x.argument, y.argument):
                return False
        elif x != y:
            return False
    return True


def _known_forms() -> dict[ActivationKind, Polynomial]:
    """Return each activation as the polynomial that :meth:`Forms.match` makes of its nodes."""
    z: Factor = "z"
    gate = Call("unit", (((), 0.5), ((z,), 1 / 6)))
    error = Call("erf", (((z,), math.sqrt(0.5)),))
    cubic = Call("tanh", (((z,), _INNER), ((z, z, z), _INNER * 0.044715)))
    return {
        "silu": (((z, Call("sigmoid", Z)), 1.0),),
        "hardsigmoid": (((gate,), 1.0),),
        "hardswish": (((z, gate), 1.0),),
        "gelu": (((z,), 0.5), ((z, error), 0.5)),
        "gelu_tanh": (((z,), 0.5), ((z, cubic), 0.5)),
    }


_FORMS = _known_forms()

"""SMT-LIB text read and evaluated again, by a reader that knows nothing of the printer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import flint

from paramrob.replay_numbers import greater, maximum
from tests.encoders.forward import rational

Tree = Any


def parse(text: str) -> list[Tree]:
    """Return the commands of a file as nested lists of words."""
    without = "\n".join(line.split(";")[0] for line in text.splitlines())
    stack: list[list[Tree]] = [[]]
    for word in re.findall(r"[()]|[^\s()]+", without):
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    assert len(stack) == 1
    return stack[0]


def number(word: str) -> Any:
    """Return a literal's exact value."""
    if word.startswith("0x"):
        return rational(float.fromhex(word))
    assert re.fullmatch(r"\d+\.\d+", word), word
    return rational(Fraction(word))


def value(tree: Tree, values: Mapping[str, Any]) -> Any:
    """Evaluate a term (a number) or a formula (``True``, ``False``, ``None``: cannot tell)."""
    if isinstance(tree, str):
        if tree in ("true", "false"):
            return tree == "true"
        return values[tree] if tree in values else number(tree)
    head, *rest = tree
    arguments = [value(part, values) for part in rest]
    if head in ("and", "or"):
        stop = head == "or"
        if stop in arguments:
            return stop
        return None if None in arguments else not stop
    if head in ("<=", "<", ">=", ">", "="):
        return _compared(head, *arguments)
    if head == "ite":
        assert arguments[0] is not None or abs(arguments[1] - arguments[2]) < 1e-20
        return arguments[2] if arguments[0] is False else arguments[1]
    if head == "max":
        return maximum(arguments)
    if head in ("exp", "tanh"):
        return getattr(flint.arb(arguments[0]), head)()
    return _arithmetic(head, arguments)


def _arithmetic(head: str, arguments: list[Any]) -> Any:
    if head == "-" and len(arguments) == 1:
        return -arguments[0]
    total = arguments[0]
    for part in arguments[1:]:
        total = {
            "+": lambda a, b: a + b,
            "-": lambda a, b: a - b,
            "*": lambda a, b: a * b,
            "/": lambda a, b: a / b,
        }[head](total, part)
    return total


def _compared(head: str, a: Any, b: Any) -> bool | None:
    if head == "=":
        return None if not _same(a, b) else True
    if head in ("<", ">"):
        return greater(*((a, b) if head == ">" else (b, a)))
    beyond = greater(*((a, b) if head == "<=" else (b, a)))
    return None if beyond is None else not beyond


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, flint.fmpq) and isinstance(b, flint.fmpq):
        assert a == b
        return True
    assert abs(flint.arb(a) - flint.arb(b)) < 1e-25
    return True

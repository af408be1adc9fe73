"""Two engines on one problem: they agree, or both answers are saved and an error is raised."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from paramrob.errors import SoundnessError
from paramrob.problem import Problem
from paramrob.verdict import Bracket, Outcome, Verdict, Witness

_DECIDED = (Verdict.ROBUST, Verdict.NOT_ROBUST)


def check_agreement(problem: Problem, first: Outcome, second: Outcome) -> None:
    """Refuse two answers that cannot both be true.

    Raises:
        SoundnessError: opposite verdicts, or brackets that do not meet; the message names the
            file that holds both answers.
    """
    contradiction = _contradiction(first, second)
    if contradiction is None:
        return
    path = save_answers(problem, first, second)
    raise SoundnessError(
        f"{first.solver} and {second.solver} contradict each other: {contradiction}. Both answers "
        f"are in {path}; please report it with the model, and trust neither"
    )


def confirmed(first: Outcome, second: Outcome) -> Outcome:
    """Return the first answer, or the second where only that one decides, with what both say.

    Brackets are met: both are proved.
    """
    best = first
    if first.verdict is Verdict.UNKNOWN and second.verdict in _DECIDED:
        best = second
    brackets = {name: _met(b, second.brackets.get(name)) for name, b in first.brackets.items()}
    said = (
        "open"
        if second.verdict is Verdict.UNKNOWN
        else second.verdict.value
        if second.verdict is not None
        else ", ".join(f"{n} in [{b.lower:.9g}, {b.upper:.9g}]" for n, b in second.brackets.items())
    )
    return replace(
        best,
        brackets={**second.brackets, **brackets},
        engine_seconds=first.engine_seconds + second.engine_seconds,
        notes=(*best.notes, f"cross-checked: {second.solver} says {said}"),
    )


def _met(first: Bracket, second: Bracket | None) -> Bracket:
    if second is None:
        return first
    lower = max((first, second), key=lambda b: b.lower)
    upper = min((first, second), key=lambda b: b.upper)
    witness = lower.witness if lower.witness is not None else upper.witness
    return Bracket(lower.lower, upper.upper, witness)


def save_answers(problem: Problem, *outcomes: Outcome) -> Path:
    """Write the answers to a new file in the working directory (or the temporary one)."""
    here = Path.cwd()
    folder = here if os.access(here, os.W_OK) else Path(tempfile.gettempdir())
    handle, name = tempfile.mkstemp(".json", "paramrob-contradiction-", folder)
    said = {"problem": _problem(problem), "answers": [_answer(outcome) for outcome in outcomes]}
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(said, file, indent=1)
        file.write("\n")
    return Path(name)


def _contradiction(first: Outcome, second: Outcome) -> str | None:
    verdicts = (first.verdict, second.verdict)
    if all(v in _DECIDED for v in verdicts) and verdicts[0] is not verdicts[1]:
        return " against ".join(v.value for v in verdicts if v is not None)
    for name in first.brackets.keys() & second.brackets.keys():
        a, b = first.brackets[name], second.brackets[name]
        if a.lower > b.upper or b.lower > a.upper:
            return f"{name} in [{a.lower!r}, {a.upper!r}] against [{b.lower!r}, {b.upper!r}]"
    return None


def _problem(problem: Problem) -> dict[str, Any]:
    asked = problem.property
    low, high = problem.domain.outer()
    return {
        "architecture": problem.reference.architecture,
        "domain": {"lower": low.tolist(), "upper": high.tolist()},
        "perturbation": problem.uncertain.perturbation.as_json(),
        "property": None
        if asked is None
        else {
            "name": asked.name,
            "epsilon": None if asked.epsilon is None else str(asked.epsilon),
            "sigma": None if asked.sigma is None else str(asked.sigma),
        },
        "parameters": {n: p.value.tolist() for n, p in problem.reference.parameters.items()},
    }


def _answer(outcome: Outcome) -> dict[str, Any]:
    return {
        "solver": outcome.solver,
        "verdict": None if outcome.verdict is None else outcome.verdict.value,
        "reason": outcome.reason,
        "witness": _witness(outcome.witness),
        "brackets": {
            # JSON has no infinity.
            name: {"lower": repr(b.lower), "upper": repr(b.upper), "witness": _witness(b.witness)}
            for name, b in outcome.brackets.items()
        },
    }


def _witness(witness: Witness | None) -> dict[str, Any] | None:
    if witness is None:
        return None
    return {
        "input": witness.input.tolist(),
        "parameters": {name: value.tolist() for name, value in witness.parameters.items()},
        "labels": list(witness.labels),
        "change": None if witness.change is None else [witness.change.lower, witness.change.upper],
    }

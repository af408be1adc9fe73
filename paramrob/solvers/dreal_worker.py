"""Runs dReal as a child, so that whoever asks can kill both, and reads its answer.

Bindings, too, run in a child: they may hold the interpreter's lock for as long as they compute.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from typing import Any

from paramrob.solvers.lifeline import serve

_LARGEST_OUTPUT = 1 << 26
_TAIL = 300
_SAT = re.compile(r"delta-sat with delta = \S+\Z")
_VALUE = re.compile(r"(\S+) : \[\s*(\S+?),\s*(\S+?)\s*\]\Z")


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question of :class:`paramrob.solvers.dreal.DReal`."""
    how = question["how"]
    if how == "version":
        code, out, _ = _run([question["command"], "--version"], b"")
        return {"version": out.strip() if code == 0 else None}
    if how == "program":
        return _program(question)
    command = [sys.executable, "-P", "-m", "paramrob.solvers.dreal_bindings"]
    code, out, errors = _run(command, json.dumps(question).encode())
    if code != 0:
        return _ended(code, errors)
    reply: dict[str, Any] = json.loads(out)
    return reply


def _program(question: dict[str, Any]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".smt2", encoding="ascii") as file:
        file.write(question["text"])
        file.flush()
        code, out, errors = _run([question["command"], "--model", file.name], b"")
    if code != 0:
        return _ended(code, errors)
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    said = lines[0] if lines else ""
    if not _SAT.match(said):
        return {"status": said, "reason": "dReal says no more"}
    return {
        "status": "delta-sat",
        "precision": question["precision"],
        "model": _model(lines[1:], question["names"]),
    }


def _model(lines: list[str], names: list[str]) -> dict[str, str] | None:
    """Return the middles of dReal's intervals; ``None`` where a variable is missing."""
    found = {}
    for line in lines:
        match = _VALUE.match(line)
        if match and match[1] in names:
            with contextlib.suppress(ValueError, OverflowError):
                ends = [Fraction(float(match[k])) for k in (2, 3)]
                found[match[1]] = str(sum(ends) / 2)
    return found if len(found) == len(names) else None


def _run(command: list[str], given: bytes) -> tuple[int, str, str]:
    """Run a child in this process's group; its output goes through files of limited size."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(  # noqa: S603 (a path that shutil.which found, or ourselves)
                command, input=given, stdout=out, stderr=errors, check=False
            )
        except OSError as error:
            return 127, "", str(error)
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return done.returncode, texts[0], texts[1]


def _ended(code: int, errors: str) -> dict[str, Any]:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    said = " ".join(errors.split())[-_TAIL:]
    reason = f"dReal {how}" + (f": {said}" if said else "") + "; try another --solver"
    return {"status": "unknown", "reason": reason}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_OUTPUT, _LARGEST_OUTPUT))
    serve(answer)

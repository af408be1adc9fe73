"""dReal behind its interface: programs that misbehave, and the real one where it is installed."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from paramrob.encoders.terms import Variable, scale
from paramrob.errors import BackendError, SoundnessError
from paramrob.solvers import dreal
from paramrob.solvers.base import Answer
from paramrob.solvers.dreal import DReal
from paramrob.verdict import Status
from tests.solvers.hand import query

Install = Callable[[str], Path]
ASKED = query({"x": ("0", "1")}, {"q": scale(Fraction(2), Variable("x"))}, logic="QF_LRA")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what puts a shell script named dreal alone on the PATH."""
    monkeypatch.setattr(dreal, "_bindings", lambda: (None, "the bindings are not looked at"))
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def write(script: str) -> Path:
        path = folder / "dreal"
        path.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "pids"

    return write


def ask(seconds: float = 10.0) -> Answer:
    with DReal() as solver:
        return solver.check(ASKED.with_threshold(Fraction(1)), seconds)


def running(pids: Path) -> list[int]:
    """Return which of the processes still run."""
    found = []
    for text in pids.read_text().split():
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", text], capture_output=True, text=True, check=False
        ).stdout.strip()
        if state and not state.startswith("Z"):
            found.append(int(text))
    return found


def test_unsat_and_a_model(install: Install) -> None:
    install("echo unsat")
    assert ask().status is Status.UNSAT
    install("echo 'delta-sat with delta = 0.001'; echo 'x : [ 0.5, 0.75 ]'; echo 'q : [1, 1.5]'")
    answer = ask()
    assert answer.status is Status.DELTA_SAT
    assert answer.model == {"x": Fraction(5, 8)}
    assert answer.precision == dreal.PRECISION


def test_the_question_is_a_file_that_names_the_logic(install: Install, tmp_path: Path) -> None:
    install(f'cp "$2" {tmp_path}/asked.smt2; echo unsat')
    ask()
    text = (tmp_path / "asked.smt2").read_text()
    assert "(set-logic QF_NRA" in text
    assert "(check-sat)" in text


def test_one_that_hangs_is_killed_with_its_children(install: Install) -> None:
    pids = install(
        f"sh -c 'echo $$ >> \"$0\"; exec sleep 600' {'$(dirname $0)/../pids'} & sleep 600"
    )
    started = time.monotonic()
    answer = ask(1.5)
    assert time.monotonic() - started < 8
    assert answer.status is Status.UNKNOWN
    assert answer.reason is not None
    assert "raise --timeout" in answer.reason
    time.sleep(0.2)
    assert running(pids) == []


def test_one_that_crashes(install: Install) -> None:
    install("echo 'out of cheese' >&2; kill -SEGV $$")
    answer = ask()
    assert answer.status is Status.UNKNOWN
    assert answer.reason is not None
    assert "killed by signal 11" in answer.reason
    assert "out of cheese" in answer.reason


def test_one_that_says_unsat_and_then_fails(install: Install) -> None:
    install("echo unsat; exit 3")
    assert ask().status is Status.UNKNOWN


@pytest.mark.parametrize("said", ["flurble", "unsat?", "sat", "", "error: unsat", "delta-sat"])
def test_one_that_prints_garbage(install: Install, said: str) -> None:
    install(f"echo '{said}'")
    if said == "delta-sat":
        # Known, but without values: nothing to replay.
        assert ask().model is None
        return
    with pytest.raises(SoundnessError, match="means nothing to paramrob"):
        ask()


def test_values_that_are_none(install: Install) -> None:
    install("echo 'delta-sat with delta = 0.001'; echo 'x : [ nan, pony ]'")
    answer = ask()
    assert answer.status is Status.DELTA_SAT
    assert answer.model is None


def test_endless_output_ends(install: Install) -> None:
    install("yes unsat")
    answer = ask(20.0)
    assert answer.status is Status.UNKNOWN


def test_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    why = "libibex.so: cannot open shared object file"
    monkeypatch.setattr(dreal, "_bindings", lambda: (None, why))
    monkeypatch.setenv("PATH", str(tmp_path))
    state = DReal.state()
    assert state.version is None
    for part in (why, "IBEX 2.7.4", "libibex-dev", "paramrob[dreal]"):
        assert part in state.advice
    with pytest.raises(BackendError, match=r"IBEX 2\.7\.4"):
        ask()

"""Solvers that stay for several questions, and end with the block that keeps them."""

from __future__ import annotations

import threading
from fractions import Fraction

import pytest

import paramrob
from paramrob.encoders.terms import Query
from paramrob.errors import BackendError
from paramrob.solvers import keep
from paramrob.solvers.base import Answer, Capabilities, Solver, State
from paramrob.solvers.keep import kept_solvers, solver_for
from paramrob.solvers.registry import make_solver
from paramrob.solvers.z3 import Z3
from paramrob.verdict import Verdict
from tests.small_models import bare_model


class Idle(Solver):
    """A solver that only knows whether it was closed."""

    capabilities = Capabilities("idle", frozenset(), frozenset(), "direct", "nothing")

    def __init__(self) -> None:
        self.closed = 0

    @classmethod
    def state(cls) -> State:
        return State("1", "installed")

    def check(self, query: Query, budget: float, precision: float | None = None) -> Answer:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Idle]:
    found: list[Idle] = []

    def make(name: str) -> Solver:
        if name not in ("z3", "icp"):
            return make_solver(name)
        found.append(Idle())
        return found[-1]

    monkeypatch.setattr(keep, "make_solver", make)
    return found


def test_alone_each_question_has_its_own(made: list[Idle]) -> None:
    for _ in range(2):
        with solver_for("z3") as solver:
            assert isinstance(solver, Idle)
            assert not solver.closed
    assert [idle.closed for idle in made] == [1, 1]


def test_within_a_block_it_stays_until_the_end(made: list[Idle]) -> None:
    with kept_solvers():
        with solver_for("z3") as first, solver_for("icp") as other:
            assert first is not other
        with kept_solvers(), solver_for("z3") as again:
            assert again is first
        assert [idle.closed for idle in made] == [0, 0]
    assert [idle.closed for idle in made] == [1, 1]
    with solver_for("z3") as later:
        assert later is made[-1]
        assert len(made) == 3


def test_an_error_ends_them_too(made: list[Idle]) -> None:
    with pytest.raises(KeyboardInterrupt), kept_solvers(), solver_for("z3"):
        raise KeyboardInterrupt
    assert [idle.closed for idle in made] == [1]


def test_another_thread_has_its_own(made: list[Idle]) -> None:
    seen: list[Solver] = []

    def ask() -> None:
        with solver_for("z3") as solver:
            seen.append(solver)

    with kept_solvers(), solver_for("z3") as mine:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert seen
        assert seen[0] is not mine


def test_what_is_not_there_is_refused_in_a_block_too() -> None:
    with kept_solvers(), pytest.raises(BackendError, match="no solver 'cvc5'"), solver_for("cvc5"):
        pass


def test_several_points_are_asked_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[int | None] = []
    check = Z3.check

    def watched(self: Z3, query: Query, budget: float, precision: float | None = None) -> Answer:
        answer = check(self, query, budget, precision)
        process = self._worker._process
        processes.append(None if process is None else process.pid)
        return answer

    monkeypatch.setattr(Z3, "check", watched)
    points = [[0.0, 0.0], [0.5, 0.25], [1.0, 1.0]]
    outcome = paramrob.check(
        bare_model(), delta=Fraction(1, 100), at=points, solver="z3", timeout=300
    )
    assert outcome.verdict in (Verdict.ROBUST, Verdict.NOT_ROBUST)
    assert len(processes) == len(points)
    assert len(set(processes)) == 1
    assert None not in processes

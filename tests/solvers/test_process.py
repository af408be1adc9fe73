"""Workers: late ones are killed, dead ones are reported, none survives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paramrob.solvers.process import Worker, WorkerError, WorkerTimeoutError

CODE = """
import os, subprocess, sys, time
from paramrob.solvers.lifeline import serve

def answer(question):
    if "exit" in question:
        sys.stderr.write("dying words")
        os._exit(question["exit"])
    if "sleep" in question:
        child = subprocess.Popen(["sleep", "600"])
        open(question["pids"], "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(question["sleep"])
    if "print" in question:
        print("noise of a library")
    if "raw" in question:
        os.write(int(os.environ["RAW"]), b"not json\\n")
    return {"echo": question}

serve(answer)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "odd_worker.py").write_text(CODE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "odd_worker"


def gone(pids: Path) -> bool:
    for _ in range(50):
        alive = [p for p in pids.read_text().split() if _runs(int(p))]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _runs(pid: int) -> bool:
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return bool(said) and not said.startswith("Z")


def test_answers_come_back_and_the_process_stays(module: str) -> None:
    with Worker(module) as worker:
        assert worker.ask({"a": 1}, 20) == {"echo": {"a": 1}}
        assert worker.ask({"print": 2}, 20) == {"echo": {"print": 2}}
        big = {"b": "x" * 3_000_000}
        assert worker.ask(big, 20) == {"echo": big}


def test_a_late_worker_is_killed_with_its_child(module: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with Worker(module) as worker:
        with pytest.raises(WorkerTimeoutError):
            worker.ask({"sleep": 600, "pids": str(pids)}, 2)
        assert gone(pids)
        assert worker.ask({"again": 1}, 20) == {"echo": {"again": 1}}


def test_a_worker_that_dies_leaves_its_last_words(module: str) -> None:
    with Worker(module) as worker:
        with pytest.raises(WorkerError, match="ended with code 7: dying words"):
            worker.ask({"exit": 7}, 20)
        assert worker.ask({"again": 1}, 20) == {"echo": {"again": 1}}


def test_a_module_that_is_missing() -> None:
    worker = Worker("paramrob.solvers.no_such_worker")
    with pytest.raises(WorkerError, match="no_such_worker"):
        worker.ask({}, 20)


def test_no_worker_survives_a_killed_owner(module: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "from paramrob.solvers.process import Worker\n"
        f"Worker({module!r}).ask({{'sleep': 600, 'pids': {str(pids)!r}}}, 600)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([str(tmp_path), root])
    owner = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    for _ in range(100):
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
        time.sleep(0.1)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert gone(pids)


def test_the_interval_worker_imports_nothing_that_proves() -> None:
    code = (
        "import sys, paramrob.solvers.icp_worker\n"
        "heavy = {'torch', 'flint', 'z3', 'scipy'} & set(sys.modules)\n"
        "ours = {m for m in sys.modules if m.startswith('paramrob.')}\n"
        "print(heavy, sorted(ours))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.strip()
    assert said.startswith("set()"), said
    allowed = ["paramrob.solvers", "paramrob.solvers.icp_worker", "paramrob.solvers.lifeline"]
    assert said == f"set() {allowed}"

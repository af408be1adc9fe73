"""Solvers in processes of their own: killed when late, and never left behind.

A worker is ``python -m paramrob.solvers.NAME_worker``: it answers one line of JSON on its standard
output for each line on its standard input. It leads a process group, so that whatever it starts
dies with it; its standard input is its lifeline (see :mod:`paramrob.solvers.lifeline`): when that
ends, even because this process was killed, the worker ends its group.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

LONGEST_ANSWER = 1 << 28
"""Bytes of one answer beyond which a worker is taken to be out of its mind."""
_CHUNK = 1 << 16
_TAIL = 400


class WorkerError(Exception):
    """A worker gave no answer: it ended, or wrote something that is none."""


class WorkerTimeoutError(WorkerError):
    """A worker was killed because its time was up."""


class Worker:
    """One worker process, started with the first question and again after it was killed.

    Args:
        module: what ``python -m`` runs, e.g. ``paramrob.solvers.icp_worker``.
        arguments: command line of the module.
    """

    def __init__(self, module: str, arguments: Sequence[str] = ()) -> None:
        # -P: the folder of the module stays off sys.path, where its z3.py would hide z3 itself.
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._unread = bytearray()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Return the worker's answer; the worker is killed if there is none in time.

        Args:
            question: what can be written as JSON.
            seconds: wall time, starting the process included.

        Raises:
            WorkerTimeoutError: the time is up.
            WorkerError: the worker ended or wrote no JSON object; the message says what.
        """
        deadline = time.monotonic() + seconds
        finished = False
        try:
            process = self._started()
            self._send(process, json.dumps(question).encode() + b"\n", deadline)
            line = self._line(process, deadline)
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise WorkerError(f"its answer is no object: {_shown(line)}")
            finished = True
            return answer
        except (ValueError, RecursionError):
            raise WorkerError(f"its answer cannot be read: {_shown(line)}") from None
        finally:
            # Also on an interrupt: a process in the middle of something has no other use.
            if not finished:
                self.close()

    def close(self) -> None:
        """Kill the process group, if there is one, and wait for its end."""
        process, self._process = self._process, None
        self._unread.clear()
        if process is not None:
            _kill_group(process)
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and _is_running(self._process):
            return self._process
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(  # noqa: S603 (our own module)
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        return self._process

    def _send(self, process: subprocess.Popen[bytes], data: bytes, deadline: float) -> None:
        stream = process.stdin
        if stream is None:
            raise WorkerError("it has no standard input")
        os.set_blocking(stream.fileno(), False)
        view = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_WRITE)
            while view:
                _await(selector, deadline)
                try:
                    view = view[os.write(stream.fileno(), view[:_CHUNK]) :]
                except BrokenPipeError:
                    raise WorkerError(self._obituary(process)) from None

    def _line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        stream = process.stdout
        if stream is None:
            raise WorkerError("it has no standard output")
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                _await(selector, deadline)
                data = os.read(stream.fileno(), _CHUNK)
                if not data:
                    raise WorkerError(self._obituary(process))
                self._unread += data
                if len(self._unread) > LONGEST_ANSWER:
                    raise WorkerError("its answer is endless")
        line, _, rest = bytes(self._unread).partition(b"\n")
        self._unread[:] = rest
        return line

    def _obituary(self, process: subprocess.Popen[bytes]) -> str:
        _kill_group(process)
        said = ""
        if self._errors is not None:
            self._errors.seek(0)
            said = " ".join(self._errors.read().decode(errors="replace").split())[-_TAIL:]
        code = process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the process {how}" + (f": {said}" if said else "")


def _await(selector: selectors.BaseSelector, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not selector.select(left):
        raise WorkerTimeoutError("the time is up")


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    # Not poll(), which would reap the leader and so set its number free.
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The leader is not reaped yet, so its number still names this group and no other.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def _shown(line: bytes) -> str:
    return repr(line[:80].decode(errors="replace"))

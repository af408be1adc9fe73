"""What a worker process is made of: JSON lines in and out, and an end when its owner ends."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each JSON line of standard input with one on standard output, until the input ends.

    The input is read by a thread: when it ends, whoever asked has gone, and the whole process
    group ends at once, in the middle of whatever it does.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    # What a library prints must not pass for an answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        reply = answer(json.loads(lines.get()))
        out.write(json.dumps(reply).encode() + b"\n")
        out.flush()


def _read(lines: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    end_group()


def end_group() -> None:
    """Kill this process and everything that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)

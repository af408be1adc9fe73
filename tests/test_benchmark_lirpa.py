"""``python -m benchmarks.lirpa``: without the peer, with a false one, and with the real one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ("--points", "2", "--repeat", "1", "--samples", "20", "--attacked", "1")
# Bounds that hold nothing for batches, and nothing at all for single points.
FALSE = """
class PerturbationLpNorm:
    def __init__(self, norm, eps): pass

def BoundedTensor(x, box): return x

class BoundedModule:
    def __init__(self, module, x, bound_opts, device):
        self.module = module

    def compute_bounds(self, x, method):
        if len(x[0]) == 1:
            raise NotImplementedError("one point is too few")
        logits = self.module(x[0])
        return logits + 99, logits + 100
"""


def run(rows: str, folder: Path, peer: str | None = None) -> tuple[int, list[list[str]], str]:
    """Return the exit code, the table's rows below its head, and all that was said."""
    table = folder / "table.md"
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    if peer is not None:
        (folder / "auto_LiRPA.py").write_text(peer)
        path.insert(0, str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lirpa", "--only", rows, "--output", table, *SMALL],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert table.read_text() == done.stdout, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line]
    return done.returncode, lines[2:], done.stdout + done.stderr


def test_without_the_peer_our_rows_stand_alone(tmp_path: Path) -> None:
    missing = "raise ImportError('left out')"
    code, rows, said = run("radius 0.05, crown, 100 points, all", tmp_path, missing)
    assert code == 0
    assert "auto_LiRPA: not installed (left out)" in said
    [(question, speed, memory, *_)] = rows
    assert question == "64-100-100-10, input radius 0.05, crown, 2 points, all at once"
    assert float(speed.replace(",", "")) > 0
    assert float(memory) > 0


def test_wrong_bounds_and_failures_are_said(tmp_path: Path) -> None:
    code, rows, said = run("radius 0.05, crown", tmp_path, FALSE)
    assert code == 1
    assert said.count("logits outside auto_LiRPA's intervals") == 1
    assert said.count("intervals that do not meet") == 1
    assert "paramrob's" not in said
    assert [len(row) for row in rows] == [8, 4]
    assert rows[1][3] == "NotImplementedError: one point is too few"


@pytest.mark.skipif(
    importlib.util.find_spec("auto_LiRPA") is None, reason="auto_LiRPA is not installed"
)
def test_the_peer_is_nowhere_narrower_on_input_boxes(tmp_path: Path) -> None:
    code, rows, _ = run("radius 0.05, crown, 100 points, all", tmp_path)
    assert code == 0
    [(*_, mean, largest, wider)] = rows
    assert float(mean) <= 1.0
    assert float(largest) <= 1.0
    assert wider == "0 of 20"

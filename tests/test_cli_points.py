"""Sets of points on the command line: radii, limits, methods, memory, tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import paramrob as package
from paramrob import cli_options, engine
from paramrob.cli import main

DIGITS = Path(__file__).parent.parent / "case_studies" / "digits"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a classifier of two inputs, and six points with classes."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(2, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        layer.bias.zero_()
    torch.save(torch.nn.Sequential(layer), tmp_path / "model.pt")
    x = np.array([[1, 0], [0, 1], [-1, -1], [1, 0.9], [0.9, 1], [2, 0]])
    np.savez(tmp_path / "p.npz", x=x, y=np.array([0, 1, 2, 0, 1, 1]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*options: str, delta: str = "0.01") -> Result:
    return invoke("check", "model.pt", "--delta", delta, "--at", "p.npz", *options)


def test_spelled_out_methods_are_the_real_ones() -> None:
    assert cli_options.METHODS == engine.METHODS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--input-radius", "0.1"), ["--input-radius", "--at"]),
        (("--input-radius", "0.1", "--domain", "0:1"), ["--input-radius", "--at"]),
        (("--at", "p.npz", "--input-radius", "-1"), ["negative"]),
        (("--at", "p.npz", "--input-radius", "wide"), ["--input-radius", "not a finite decimal"]),
        (("--at", "p.npz", "--input-radius", "0.1", "--solver", "z3"), ["--solver bounds"]),
        (("--limit", "3"), ["--limit", "--at"]),
        (("--at", "p.npz", "--limit", "0"), ["1 or more"]),
        (("--at", "p.npz", "--limit", "x"), ["--limit"]),
        (("--at", "p.npz", "--method", "newton"), ["--method", "newton"]),
        (("--at", "p.npz", "--method", "crown", "--solver", "z3"), ["--method", "--solver"]),
        (("--method", "crown"), ["--method", "--at"]),
        (("--at", "p.npz", "--memory", "much"), ["--memory", "512MiB"]),
        (("--at", "p.npz", "--memory", "1KiB"), ["--memory", "16MiB"]),
        (("--csv", "rows.csv"), ["--csv", "--at"]),
        (("--at", "p.npz", "--csv", "gone/rows.csv"), ["--csv", "gone/rows.csv"]),
        (("--at", "p.npz", "--csv", "."), ["--csv"]),
        (("--at", "p.npz", "--csv", "p.npz"), ["--csv", "p.npz", "--at"]),
        (("--at", "p.npz", "--csv", "model.pt"), ["--csv", "model.pt", "MODEL"]),
    ],
)
def test_wrong_use_is_refused(folder: Path, options: tuple[str, ...], words: list[str]) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    result = invoke("check", "model.pt", "--delta", "0.01", "--json", "out.json", *options)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr, result.stderr
    if result.stderr.startswith("paramrob:"):
        assert len(result.stderr.splitlines()) == 1
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_table_that_cannot_be_written_is_refused(folder: Path) -> None:
    path = folder / "rows.csv"
    path.write_text("")
    path.chmod(0o400)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everything")
    result = check("--csv", "rows.csv")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_a_data_set_is_answered_point_by_point(folder: Path) -> None:
    result = check("--json", "out.json", "--csv", "rows.csv", delta="0.1")
    assert result.exit_code == 1, result.output
    said = " ".join(result.stdout.split())
    assert "4 robust, 2 not robust, 0 unknown of 6" in said
    report = json.loads((folder / "out.json").read_text())
    verdicts = [p["verdict"] for p in report["points"]]
    assert verdicts == ["robust", "robust", "robust", "not_robust", "not_robust", "robust"]
    assert [p["label"] for p in report["points"]] == [0, 1, 2, 0, 1, 0]
    assert [p["correct"] for p in report["points"]] == [True] * 5 + [False]
    assert report["shares"] == {"robust": 4 / 6, "not_robust": 2 / 6, "unknown": 0.0}
    assert report["accuracy"] == {"reference": 5 / 6, "certified": 0.5, "at_most": 0.5}
    assert "50 % correctly labelled and proved; 33.33 % of all refuted with a witness" in said
    rows = [line.split(",")[:5] for line in (folder / "rows.csv").read_text().splitlines()[2:]]
    assert [row[4] for row in rows] == verdicts
    assert rows[5] == ["5", "1", "0", "false", "robust"]


def test_the_table_answers_the_second_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check("--csv", "rows.csv", "--limit", "4", delta="0.1")
    rows = (folder / "rows.csv").read_text()
    assert first.exit_code == 1
    result = check("--csv", "rows.csv", "--json", "-", delta="0.1")
    report = json.loads(result.stdout)
    assert any("4 of 6 points were taken from rows.csv" in note for note in report["notes"])
    assert (folder / "rows.csv").read_text().startswith(rows)

    def nothing(*_: object) -> None:
        raise AssertionError("every point has its row")

    monkeypatch.setattr(engine, "decide", nothing)
    monkeypatch.setattr(engine, "decide_points", nothing)
    again = check("--csv", "rows.csv", "--json", "-", "--witness", "w.npz", delta="0.1")
    assert again.exit_code == 1
    points = json.loads(again.stdout)["points"]
    assert [p["verdict"] for p in points] == [p["verdict"] for p in report["points"]]
    assert not (folder / "w.npz").exists()
    assert "a table keeps no counterexamples" in again.stdout
    other = check("--csv", "rows.csv", delta="0.2")
    assert other.exit_code == 2
    assert "another perturbation" in other.stderr
    assert len(other.stderr.splitlines()) == 1


def test_an_input_radius_with_delta_0_is_ordinary_robustness(folder: Path) -> None:
    """The lead of class 0 at (1, 0) is 1 over both others and falls by 2 R, or by 3 R."""
    for radius, code in (("0.33", 0), ("0.51", 1)):
        options = ("--delta", "0", "--at", "1,0", "--input-radius", radius, "--json", "-")
        result = invoke("check", "model.pt", *options)
        assert result.exit_code == code, result.output
        domain = json.loads(result.stdout)["domain"]
        assert domain == {"kind": "ball", "x": [1.0, 0.0], "radius": float(radius)}
    several = check("--input-radius", "0.01", "--json", "-")
    assert json.loads(several.stdout)["domain"]["radius"] == 0.01
    words = " ".join(check("--input-radius", "0.01").stdout.split())
    assert "for every input within 0.01 of each of 6 points" in words


def test_methods_and_memory_reach_the_engine(folder: Path) -> None:
    for method in engine.METHODS:
        result = check("--method", method, "--memory", "64MiB", "--json", "-", "--limit", "3")
        points = json.loads(result.stdout)["points"]
        assert [p["method"] for p in points] == [method] * 3


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    root = str(Path(package.__file__ or "").parents[1])
    command = [sys.executable, "-m", "paramrob", "check", str(DIGITS / "conv.pt2")]
    command += ["--at", str(DIGITS / "test.npz"), "--delta", "0.0005", "--csv", str(rows), "-q"]
    with subprocess.Popen(
        [*command, "--timeout", "3600"],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not (rows.exists() and rows.read_bytes().count(b"\n") > 10):
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.02)
        finally:
            process.kill()
    complete = rows.read_bytes().rpartition(b"\n")[0]
    done = complete.count(b"\n") - 1
    known = {int(line.split(b",")[0]) for line in complete.splitlines()[2:]}
    missing = next(i for i in range(360) if i not in known)
    result = invoke(*command[3:-1], "--limit", missing + 1, "--json", "-")
    points = json.loads(result.stdout)["points"]
    assert points[missing]["verdict"] in ("robust", "not_robust")
    assert rows.read_bytes().startswith(complete)
    assert rows.read_bytes().count(b"\n") == 2 + done + 1

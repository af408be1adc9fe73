"""The README's commands and snippets do what it says."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_the_python_session_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testfile(str(README), module_relative=False)
    assert results.attempted >= 4
    assert results.failed == 0


def test_the_worked_example_prints_what_it_shows() -> None:
    shown = re.search(r"```\n\$ paramrob (.*?)\n(.*?)```", README.read_text(), re.S)
    assert shown
    run = subprocess.run(
        [sys.executable, "-m", "paramrob", *shown.group(1).split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    shown_lines, lines = shown.group(2).splitlines(), run.stdout.splitlines()
    assert _starting(lines, WORDS) == _starting(shown_lines, WORDS)
    # The last digits and where on the boundary the witness lies are not part of the claim.
    for name in ("epsilon", "sigma above", "sigma below"):
        (first,), (second,) = (_starting(each, (name,)) for each in (lines, shown_lines))
        numbers = [float(n) for line in (first, second) for n in re.findall(r"0\.\d+", line)]
        assert numbers[:2] == pytest.approx(numbers[2:], abs=1e-6)


WORDS = ("question", "model", "parameters", "inputs", "output", "answer")


def _starting(lines: list[str], words: tuple[str, ...]) -> list[str]:
    return [line for line in lines if line.startswith(words)]


def test_the_replay_snippet_shows_the_flip(tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    command = [sys.executable, "-m", "paramrob", "check", "case_studies/cats/model.pt"]
    options = ["--delta", "0.01", "--witness", str(witness), "-q"]
    subprocess.run([*command, *options], cwd=ROOT, capture_output=True, check=False)
    snippets = re.findall(r"```python\n(import numpy.*?)```", README.read_text(), re.S)
    code = snippets[0].replace('"w.npz"', repr(str(witness)))
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = (float(line.split()[-1]) for line in run.stdout.splitlines())
    assert (before > 0.5) != (after > 0.5)


def test_the_gate_opens_as_it_is_shown(tmp_path: Path) -> None:
    (shown,) = re.findall(r"run: >\n((?: {4}.*\n)+)", README.read_text())
    words = shown.split()
    assert words[:3] == ["paramrob", "check", "model.pt"]
    options = ["case_studies/cats/model.pt" if w == "model.pt" else w for w in words[2:]]
    files = {w for w in options if w.endswith((".xml", ".json", ".npz"))}
    options = [str(tmp_path / w) if w in files else w for w in options]
    run = subprocess.run(
        [sys.executable, "-m", "paramrob", "check", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"gate.xml", "gate.json"}
    artifacts = re.findall(r"^ {6}(\S+)$", README.read_text(), re.M)
    assert files <= set(artifacts)


def test_the_pytest_snippet_is_true(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(from paramrob.testing.*?)```", README.read_text(), re.S)
    model = str(ROOT / "case_studies" / "cats" / "model.pt")
    (tmp_path / "test_it.py").write_text(code.replace('"model.pt"', repr(model)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout

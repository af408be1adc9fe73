"""The project's own files: pins, make targets, licence, what starting up imports."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import paramrob

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = {"torch", "scipy", "onnx", "onnxruntime", "sklearn", "matplotlib"}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in wanted}


def direct_requirements() -> list[Requirement]:
    texts = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    texts += PROJECT["build-system"]["requires"]
    return [Requirement(text) for text in texts]


def required_by(name: str) -> list[Requirement]:
    texts = importlib.metadata.requires(name) or []
    found = [Requirement(text) for text in texts]
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def test_every_direct_requirement_is_pinned_within_its_range() -> None:
    for requirement in direct_requirements():
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])
    assert pins()["torch"] == "2.13.0"


def test_every_indirect_requirement_is_pinned() -> None:
    seen: set[str] = set()
    open_names = [canonicalize_name(r.name) for r in direct_requirements()]
    while open_names:
        name = open_names.pop()
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(name)
        assert name in pins()
        try:
            open_names += [canonicalize_name(r.name) for r in required_by(name)]
        except importlib.metadata.PackageNotFoundError:
            assert name in {"hatchling", "trove-classifiers"}
    assert len(seen) > 20


def test_the_version_is_the_packages() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "paramrob", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["paramrob", paramrob.__version__]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", paramrob.__version__)


def test_the_command_line_starts_without_heavy_imports() -> None:
    code = "import sys, paramrob, paramrob.cli; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(shown.stdout.split())


@needs_make
@pytest.mark.parametrize(
    "target", ["demo", "test", "lint", "types", "bench", "case-studies", "wheel"]
)
def test_make_knows_its_targets_and_makes_the_environment_first(
    target: str, tmp_path: Path
) -> None:
    shown = subprocess.run(
        ["make", "-n", target, f"VENV={tmp_path}/env", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"-m venv --clear {tmp_path}/env" in shown.stdout
    assert "-c constraints.txt" in shown.stdout


@needs_make
def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    check = "import sys; sys.version_info = (3, 10); sys.version = '3.10.4 (main)'; "
    old.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{check} $1"\n')
    old.chmod(0o755)
    for python, said in ((str(old), "needs Python 3.11"), ("/no/python", "not found")):
        shown = subprocess.run(
            ["make", f"PYTHON={python}", f"VENV={tmp_path}/env", f"{tmp_path}/env/.ready"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode != 0
        assert said in shown.stderr
        assert not (tmp_path / "env").exists()


def test_the_ci_script_can_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


def test_the_licence_is_apache_2() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert (
        "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    )


def test_the_athletes_data_is_not_in_the_tree_that_git_keeps() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    kept = subprocess.run(
        ["git", "ls-files", "*.csv"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "athletes.csv" not in kept.stdout

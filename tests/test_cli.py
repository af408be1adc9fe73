from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import paramrob as package
from paramrob import __version__, cli_options, engine
from paramrob.cli import main
from paramrob.engine import SOLVERS, Settings
from paramrob.errors import SoundnessError
from paramrob.models.model import OUTPUT_KINDS
from paramrob.problem import Problem
from paramrob.properties import Quantity
from paramrob.replay import replay
from paramrob.solvers.base import State
from paramrob.solvers.dreal import DReal
from paramrob.solvers.registry import REGISTRY
from paramrob.verdict import Bracket, Outcome, Verdict

SIDECAR = """
[input]
names = ["Hwt", "Bwt"]
units = ["g", "kg"]
lower = [6.3, 2.0]
upper = [20.5, 3.9]
[output]
labels = ["F", "M"]
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds model.pt (a bare Sequential) alone."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(2, 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.07577862, 1.18118408]]))
        layer.bias.fill_(-3.51518067)
    torch.save(torch.nn.Sequential(layer, torch.nn.Sigmoid()), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sidecar(folder: Path) -> Path:
    (folder / "model.toml").write_text(SIDECAR)
    return folder / "model.toml"


def use(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Let the engine answer a check with ``answer`` (an outcome, or an exception to raise)."""

    def decide(problem: Problem, settings: Settings) -> Outcome:
        if isinstance(answer, BaseException):
            raise answer
        outcome = answer(problem) if callable(answer) else answer
        assert isinstance(outcome, Outcome)
        return outcome

    def estimate(problem: Problem, quantity: Quantity, settings: Settings) -> Outcome:
        if isinstance(answer, BaseException):
            raise answer
        return Outcome(None, brackets={quantity: Bracket(0.25, 0.5)})

    monkeypatch.setattr(engine, "decide", decide)
    monkeypatch.setattr(engine, "estimate", estimate)


def refuted_at_a_corner(problem: Problem) -> Outcome:
    """Refute with the lower corner and the largest bias, whatever it does."""
    x = problem.domain.inner()[0]
    (bias,) = [p for n, p in problem.uncertain.network.parameters.items() if n.endswith("bias")]
    upper = problem.uncertain.perturbation.interval(bias).inner()[1]
    witness = replay(problem, x, {bias.name: upper})
    return Outcome(Verdict.NOT_ROBUST, witness=witness)


def refused(folder: Path, result: Result, *words: str) -> None:
    """Assert a clear error: exit 2, one line on stderr, nothing on stdout, nothing written."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    if result.stderr.startswith("paramrob:"):
        assert len(result.stderr.splitlines()) == 1
    assert not (folder / "out.json").exists()
    assert not (folder / "w.npz").exists()


OUT = ("--json", "out.json", "--witness", "w.npz")


def test_version_and_help() -> None:
    assert invoke("--version").output == f"paramrob {__version__}\n"
    for command in ("check", "estimate", "replay", "solvers"):
        assert command in invoke("--help").output
        assert invoke(command, "--help").exit_code == 0


def test_spelled_out_choices_are_the_real_ones() -> None:
    assert cli_options.SOLVERS == SOLVERS
    assert cli_options.OUTPUT_KINDS == OUTPUT_KINDS
    assert ("auto", "bounds", *(name for name, _, _ in REGISTRY)) == SOLVERS


def run_python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run another Python that finds this package wherever it runs."""
    root = str(Path(package.__file__ or "").parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root},
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, runpy; sys.argv = ['paramrob', '--help']\n"
        "try: runpy.run_module('paramrob', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'scipy', 'onnx', 'sklearn', 'numpy', 'flint', 'rich'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "check" in done.stdout


def test_the_solvers_are_listed_with_what_is_missing() -> None:
    result = invoke("solvers")
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    for name in SOLVERS[1:]:
        assert name in said
    # dReal is optional: it is there, or the list says how to get it.
    assert "installed (" in said or "IBEX 2.7.4" in said


def test_a_solver_that_is_missing_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(None, "install it from its shop")
    monkeypatch.setattr(DReal, "state", classmethod(lambda cls: state))
    result = invoke("check", "model.pt", "--delta", "0.1", "--solver", "dreal", *OUT)
    refused(folder, result, "--solver dreal", "install it from its shop")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(Verdict.ROBUST), 0),
        (refuted_at_a_corner, 1),
        (Outcome(Verdict.UNKNOWN, "out of time; raise --timeout"), 3),
    ],
)
def test_exit_codes_of_a_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, outcome: Any, code: int
) -> None:
    use(monkeypatch, outcome)
    result = invoke("check", "model.pt", "--delta", "0.01")
    assert result.exit_code == code, result.output
    assert result.stderr == ""


def test_json_on_standard_output_stands_alone(
    sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, refuted_at_a_corner)
    result = invoke("check", "model.pt", "--delta", "0.010", "--json", "-", "--witness", "w.npz")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["perturbation"] == {"kind": "uniform", "delta": "0.01"}
    assert report["model"]["path"] == "model.pt"
    assert report["domain"] == {"kind": "box", "lower": [6.3, 2.0], "upper": [20.5, 3.9]}
    assert report["witness"]["file"] == "w.npz"
    assert report["witness"]["replayed"] is True
    assert Path("w.npz").exists()


def test_json_in_a_file_goes_with_the_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Outcome(Verdict.ROBUST))
    result = invoke("check", "model.pt", "--delta", "0.01", *OUT, "-v")
    assert "ROBUST" in result.stdout
    assert "sha256" in result.stdout
    report = json.loads((folder / "out.json").read_text())
    assert report["verdict"] == "robust"
    assert report["assumptions"]
    assert not (folder / "w.npz").exists()
    assert "no counterexample, so w.npz was not written" in result.stderr


def test_estimates_exit_by_the_tolerance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Outcome(Verdict.ROBUST))
    arguments = ("estimate", "model.pt", "epsilon", "--delta", "0.01")
    assert invoke(*arguments).exit_code == 3
    result = invoke(*arguments, "--tolerance", "0.25", "-q")
    assert result.exit_code == 0
    assert result.output == "epsilon 0.25 .. 0.5\n"


def test_points_with_classes_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Outcome(Verdict.ROBUST))
    x = np.array([[7.0, 2.0], [16.0, 3.5], [9.0, 2.5]])
    np.savez("p.npz", x=x, y=np.array([0, 1, 1]))
    result = invoke("check", "model.pt", "--delta", "0.01", "--at", "p.npz", "--json", "-")
    report = json.loads(result.stdout)
    # The logits are -0.62, 1.83 and 0.12.
    assert report["accuracy"] == {"reference": 1.0, "certified": 1.0, "at_most": 1.0}
    assert len(report["points"]) == 3


def test_contradictions_and_defects_exit_4(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (SoundnessError("a bracket whose ends cross"), ZeroDivisionError("oops")):
        use(monkeypatch, error)
        result = invoke("check", "model.pt", "--delta", "0.01", *OUT)
        assert result.exit_code == 4
        assert str(error) in result.stderr
        assert "Traceback" not in result.stderr
        assert not (folder / "out.json").exists()
        assert "Traceback" in invoke("check", "model.pt", "--delta", "1", "-v").stderr


def test_an_interrupt_outside_the_engine_exits_3(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paramrob.requests.build.build", interrupted)
    assert invoke("check", "model.pt", "--delta", "0.01").exit_code == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["--delta", "--perturbation"]),
        (("--delta", "0.1", "--perturbation", "p.toml"), ["two perturbations"]),
        (("--delta", "-0.1"), ["negative"]),
        (("--delta", "nan"), ["nan", "finite"]),
        (("--delta", "inf"), ["inf", "finite"]),
        (("--delta", "1e999"), ["float64"]),
        (("--delta", "x"), ["not a finite decimal"]),
        (("--perturbation", "none.toml"), ["none.toml", "no such file"]),
        (("--delta", "0.1", "--leave-out", "1"), ["no layer '1'", "did you mean '0'"]),
        (("--delta", "0.1", "--domain", "0:1,0:1,0:1"), ["2 input"]),
        (("--delta", "0.1", "--domain", "1:0"), ["above"]),
        (("--delta", "0.1", "--domain", "nowhere"), ["neither a file nor pairs"]),
        (("--delta", "0.1", "--at", ""), ["empty"]),
        (("--delta", "0.1", "--at", "1"), ["2 input"]),
        (("--delta", "0.1", "--at", "1,2", "--domain", "0:1"), ["--at", "--domain"]),
        (("--delta", "0.1", "--level", "1.5"), ["outside (0, 1)"]),
        (("--delta", "0.1", "--level", "0"), ["outside (0, 1)"]),
        (("--delta", "0.1", "--level", "x"), ["not a finite decimal"]),
        (("--delta", "0.1", "--output", "logits"), ["logits"]),
        (("--delta", "0.1", "--output", "value"), ["--level"]),
        (("--delta", "0.1", "--output", "odd"), ["odd"]),
        (("--delta", "0.1", "--epsilon", "1", "--sigma", "1"), ["two questions"]),
        (("--delta", "0.1", "--property", "margin"), ["--sigma"]),
        (("--delta", "0.1", "--solver", "cvc5"), ["--solver", "cvc5"]),
        (("--delta", "0.1", "--solver", "cplex"), ["cplex"]),
        (("--delta", "0.1", "--timeout", "0"), ["--timeout"]),
        (("--delta", "0.1", "--timeout", "nan"), ["--timeout"]),
        (("--delta", "0.1", "--tolerance", "-1"), ["--tolerance"]),
        (("--delta", "0.1", "--sidecar", "none.toml"), ["none.toml"]),
        (("--delta", "0.1", "--json", "gone/out.json"), ["--json", "gone/out.json"]),
        (("--delta", "0.1", "--witness", "."), ["--witness"]),
        (("--delta", "0.1", "--unknown"), ["--unknown"]),
    ],
)
def test_bad_options_are_refused(folder: Path, options: tuple[str, ...], words: list[str]) -> None:
    given = options if {"--json", "--witness"} & set(options) else (*options, *OUT)
    refused(folder, invoke("check", "model.pt", *given), *words)


def test_an_empty_file_of_points_is_refused(folder: Path) -> None:
    Path("p.csv").write_text("")
    refused(folder, invoke("check", "model.pt", "--delta", "1", "--at", "p.csv", *OUT), "empty")
    np.savez("p.npz", x=np.zeros((0, 2)))
    refused(folder, invoke("check", "model.pt", "--delta", "1", "--at", "p.npz", *OUT), "no points")


def test_a_sidecar_with_an_unknown_key_names_the_nearest(folder: Path) -> None:
    Path("model.toml").write_text('[input]\nnmaes = ["a", "b"]\n')
    refused(folder, invoke("check", "model.pt", "--delta", "1", *OUT), "nmaes", "names")


def test_a_sidecar_with_a_bad_box_is_refused(folder: Path) -> None:
    Path("model.toml").write_text("[input]\nlower = [1, 1]\nupper = [0, 2]\n")
    refused(folder, invoke("check", "model.pt", "--delta", "1", *OUT), "above")


def test_unreadable_models_are_refused(folder: Path) -> None:
    whole = Path("model.pt").read_bytes()
    Path("half.pt").write_bytes(whole[: len(whole) // 2])
    Path("empty.pt").write_bytes(b"")
    Path("text.pt").write_text("hello")
    Path("text.onnx").write_text("hello")
    Path("model.xyz").write_text("hello")
    Path("folder.pt").mkdir()
    names = ["none.pt", "half.pt", "empty.pt", "text.pt", "text.onnx", "model.xyz", "folder.pt"]
    for name in names:
        refused(folder, invoke("check", name, "--delta", "1", *OUT), name)


def test_an_operator_without_meaning_is_named(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Mish()), "mish.pt")
    refused(folder, invoke("check", "mish.pt", "--delta", "1", *OUT), "Mish")


def test_parameters_that_are_no_numbers_are_refused(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.bias.fill_(float("nan"))
    torch.save(torch.nn.Sequential(layer), "nan.pt")
    refused(folder, invoke("check", "nan.pt", "--delta", "1", *OUT), "NaN")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "none.pt", "--delta", "0.01"),
        ("check", "none.pt", "--delta", "0.01", "--perturbation", "p.toml"),
        ("estimate", "none.pt", "zeta", "--delta", "0.01"),
        ("replay", "none.npz"),
        ("explode",),
    ],
)
def test_a_real_process_ends_with_2_and_one_message(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = run_python("-m", "paramrob", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_saved_witness_replays_or_not(sidecar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flipped(problem: Problem) -> Outcome:
        # At Hwt = 9.85, Bwt = 2.344 the logit is -0.0001; the largest bias lifts it above 0.
        x = np.array([9.85, 2.344])
        name = next(n for n in problem.reference.parameters if n.endswith("bias"))
        bias = problem.reference.parameters[name]
        upper = problem.uncertain.perturbation.interval(bias).inner()[1]
        return Outcome(Verdict.NOT_ROBUST, witness=replay(problem, x, {name: upper}))

    use(monkeypatch, flipped)
    assert invoke("check", "model.pt", "--delta", "0.01", "--witness", "w.npz").exit_code == 1
    result = invoke("replay", "w.npz")
    assert result.exit_code == 0, result.output
    assert "REPRODUCED" in result.output
    assert "Hwt = 9.85 g" in result.output
    assert invoke("replay", "w.npz", "-q").output == "reproduced\n"
    moved = Path("elsewhere.pt")
    Path("model.pt").rename(moved)
    refused(sidecar.parent / "x", invoke("replay", "w.npz"), "--model")
    assert invoke("replay", "w.npz", "--model", moved).exit_code == 0


def test_a_witness_that_refutes_nothing_is_said(
    sidecar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, refuted_at_a_corner)
    invoke("check", "model.pt", "--delta", "0.01", "--witness", "w.npz")
    result = invoke("replay", "w.npz")
    assert result.exit_code == 1
    assert "NOT REPRODUCED" in result.output
    with np.load("w.npz") as archive:
        arrays = dict(archive)
    arrays["x"] = arrays["x"] + 100
    np.savez("w.npz", **arrays)
    result = invoke("replay", "w.npz")
    assert result.exit_code == 1
    assert "outside" in result.output

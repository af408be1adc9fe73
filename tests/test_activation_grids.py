"""--activations through the whole: command line, Python, reports, witness files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import paramrob
from paramrob.cli import main
from paramrob.errors import InputError
from paramrob.verdict import Verdict


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    path = tmp_path / "model.pt"
    torch.save(net, path)
    (tmp_path / "model.toml").write_text(
        "[input]\nlower = -1.0\nupper = 1.0\n".replace("-1.0", "[-1.0, -1.0, -1.0]").replace(
            " 1.0\n", " [1.0, 1.0, 1.0]\n"
        )
    )
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calibration.npz", x=rng.uniform(-1, 1, (100, 3)))
    np.savez(tmp_path / "points.npz", x=rng.uniform(-1, 1, (12, 3)))
    return path


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(a) for a in args])
    if result.exit_code not in (0, 1, 2, 3):
        raise AssertionError(result.output)
    return result.exit_code, result.output


def answer(*args: object) -> tuple[int, Any]:
    code, text = run(*args, "--json", "-")
    return code, json.loads(text)


@pytest.mark.parametrize("calibration", [True, False])
@pytest.mark.parametrize("rest", [(), ("--quantize", "int8"), ("--delta", "0.001")])
def test_points_stay_or_are_refuted(model: Path, calibration: bool, rest: tuple[str, ...]) -> None:
    given = ["--calibration", model.with_name("calibration.npz")] if calibration else []
    points = ("--at", model.with_name("points.npz"))
    code, fine = answer("check", model, "--activations", "int16", *given, *rest, *points)
    grids = fine["perturbation"]["activations"]
    assert grids["format"] == "int16"
    assert len(grids["behind"]) == 3
    assert ("calibration" in grids["ranges"]) == calibration
    assert code == {"robust": 0, "not_robust": 1, "unknown": 3}[fine["verdict"]]
    _, coarse = answer("check", model, "--activations", "int2", *given, *rest, *points)
    proved = [[p["verdict"] for p in a["points"]].count("robust") for a in (fine, coarse)]
    assert proved[0] > proved[1]


def test_a_counterexample_is_replayed_with_its_grids(model: Path) -> None:
    saved = model.with_name("w.npz")
    given = ("--activations", "int2", "--calibration", model.with_name("calibration.npz"))
    code, text = run(
        "check", model, *given, "--at", model.with_name("points.npz"), "--witness", saved
    )
    assert code == 1
    assert "values between layers" in " ".join(text.split())
    assert run("replay", saved)[0] == 0
    with np.load(saved) as archive:
        contents = dict(archive)
    meta = json.loads(str(contents["meta"]))
    for grid in meta["activations"]["behind"].values():
        grid["scale"] = (2.0**-10).hex()
    np.savez(saved, **(contents | {"meta": np.array(json.dumps(meta))}))
    assert run("replay", saved)[0] == 1


def test_a_box_has_a_bracket_that_samples_respect(model: Path) -> None:
    outcome = paramrob.estimate(
        str(model),
        "epsilon",
        timeout=3,
        output="value",
        quantize="int8",
        activations="int8",
        calibration=str(model.with_name("calibration.npz")),
    )
    bracket = outcome.brackets["epsilon"]
    assert 0 < bracket.lower <= bracket.upper < 0.3


def test_python_takes_arrays_for_calibration(model: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    outcome = paramrob.check(
        str(model), activations="int16", calibration=x, at=[0.9, -0.9, 0.1], timeout=5
    )
    assert outcome.verdict in (Verdict.ROBUST, Verdict.NOT_ROBUST)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--activations", "fp8"), "no integer format"),
        (("--calibration", "c.npz", "--delta", "0.1"), "--calibration of what"),
        (("--activations", "int8", "--arithmetic", "float32"), "leave --arithmetic out"),
        (("--activations", "int8", "--leave-out", "0"), "nothing moves without it"),
        (("--activations", "int8", "--calibration", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_wrong_use_is_one_sentence(model: Path, args: tuple[str, ...], said: str) -> None:
    code, text = run("check", model, *args)
    assert code == 2
    assert said in " ".join(text.split())


def test_the_largest_delta_has_no_grids(model: Path) -> None:
    with pytest.raises(InputError, match="leave --activations out"):
        paramrob.estimate(str(model), "delta", activations="int8", at=[0.1, 0.2, 0.3])

"""The edge gate: committed files are what onnxruntime writes, and the gate decides as it says."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

import paramrob
from case_studies.digits import train
from case_studies.edge_gate import agreement, gate, quantize
from paramrob import PointsOutcome, Verdict
from paramrob.cli import main
from tests.quantized_models import in_onnxruntime

FOLDER = Path(gate.__file__).parent
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
REFUTED = 219
"""The only test point at which the file calibrated on raw pixels decides otherwise."""


def path(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


def constants(file: Path) -> dict[str, Any]:
    """Return every tensor that a file stores, by name."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}


def operators(file: Path) -> list[tuple[Any, ...]]:
    graph = onnx.load(file).graph
    return [(n.op_type, tuple(n.input), tuple(n.output)) for n in graph.node]


def points() -> tuple[Any, Any]:
    with np.load(gate.POINTS) as archive:
        return archive["x"], archive["y"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the script writes."""
    folder = tmp_path_factory.mktemp("written")
    quantize.export("dense", folder / "float.onnx")
    images = quantize.calibration_images()
    for name, scheme in quantize.SCHEMES.items():
        quantize.quantize(folder / "float.onnx", folder / f"{name}.onnx", scheme, images)
    return folder


@pytest.mark.parametrize("name", ["float", *quantize.SCHEMES])
def test_committed_files_hold_what_the_script_writes(written: Path, name: str) -> None:
    """Bytes depend on versions; operators, integers, scales and zero points do not."""
    assert path(name).stat().st_size < 300_000
    ours, new = constants(path(name)), constants(written / f"{name}.onnx")
    assert ours.keys() == new.keys()
    for key, value in ours.items():
        assert value.dtype == new[key].dtype
        if np.issubdtype(value.dtype, np.integer):
            assert np.array_equal(value, new[key])
        else:
            # ranges of activations come from float32 sums, whose order is the runtime's
            assert np.allclose(value, new[key], rtol=1e-6, atol=0)
    assert operators(path(name)) == operators(written / f"{name}.onnx")


def test_the_float_file_holds_the_trained_parameters() -> None:
    stored = constants(path("float"))
    trained = torch.export.load(train.FOLDER / "dense.pt2").state_dict
    assert stored.keys() == trained.keys()
    assert all(np.array_equal(stored[name], trained[name].numpy()) for name in trained)


def test_weights_are_int8_with_a_scale_a_channel_and_activations_as_said() -> None:
    for name, bits in (("int8", 8), ("int8_act16", 16), ("int8_raw", 8)):
        stored = constants(path(name))
        weights = [v for v in stored.values() if v.dtype == np.int8 and v.ndim == 2]
        assert [w.shape for w in weights] == [(100, 64), (100, 100), (10, 100)]
        scales = [v for k, v in stored.items() if k.endswith("weight_scale")]
        assert [s.shape for s in scales] == [(100,), (100,), (10,)]
        steps = stored["x_scale"]
        assert stored["x_zero_point"].dtype == f"uint{bits}"
        top = float(steps) * (2**bits - 1)
        assert top == pytest.approx(16 if name == "int8_raw" else 1, rel=1e-6)


def test_ties_and_levels_are_as_the_readme_says() -> None:
    """Distances in steps, in rationals."""
    for name, away in (("int8", 7.5e-6), ("int8_act16", 7.6e-6)):
        steps = Fraction(1, 2) / Fraction(float(constants(path(name))["x_scale"]))
        assert float(abs(steps - math.floor(steps) - Fraction(1, 2))) == pytest.approx(
            away, rel=0.02
        )
    scale = Fraction(float(constants(path("int8_raw"))["x_scale"]))
    levels = set()
    for pixel in range(17):
        low, value, high = (
            round((Fraction(pixel, 16) + Fraction(off, 100)) / scale) for off in (-1, 0, 1)
        )
        assert low == value == high
        levels.add(value)
    assert len(levels) == 17


def test_calibration_sees_no_test_image() -> None:
    x, _ = points()
    seen = {row.tobytes() for row in quantize.calibration_images()}
    assert len(quantize.calibration_images()) == quantize.CALIBRATION
    _, unseen = train.split(1797)
    every, _ = train.data()
    assert np.array_equal(x, every[unseen])
    assert not seen & {row.tobytes() for row in x}


def test_onnxruntime_decides_as_was_proved() -> None:
    """What the gate says about all points, seen in the runtime that the files are written for."""
    x, y = points()
    before = in_onnxruntime(path("float"), x).argmax(1)
    for name, found in EXPECTED.items():
        after = in_onnxruntime(path(name), x, optimized=True).argmax(1)
        refuted = found["rows"][0]["refuted_points"]
        assert np.flatnonzero(before != after).tolist() == refuted
        assert found["accuracy"] == pytest.approx(float((after == y).mean()), abs=1e-4)
    assert before[REFUTED] == y[REFUTED] == 8


def test_the_gate_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three points, the refuted one among them, through the very commands of the script."""
    x, y = points()
    few = [0, 1, REFUTED]
    np.savez(tmp_path / "few.npz", x=x[few], y=y[few])
    monkeypatch.setattr(gate, "POINTS", tmp_path / "few.npz")
    for step in gate.steps(tmp_path):
        result = CliRunner().invoke(main, list(step.words))
        assert result.exit_code == step.code, result.output
    for name in ("int8", "int8_act16"):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert "at each of the 3 points stated here, both files decide alike" in found["statement"]
        assert found["reference"]["sha256"] == paramrob.load(path("float")).sha256
        assert found["model"]["sha256"] == EXPECTED[name]["sha256"]
        suite = ElementTree.parse(tmp_path / f"{name}.xml").find("testsuite")
        assert suite is not None
        assert (suite.attrib["tests"], suite.attrib["failures"]) == ("3", "0")
    assert found["perturbation"]["runtime_steps"] == 1
    assert not (tmp_path / "int8_raw.json").exists()
    failures = ElementTree.parse(tmp_path / "int8_raw.xml").findall("testsuite/testcase/failure")
    assert len(failures) == 1
    assert "gives 2 where the reference gives 8" in failures[0].attrib["message"]
    with np.load(tmp_path / "int8_raw.npz") as archive:
        assert np.array_equal(archive["x"].ravel(), x[REFUTED].astype(np.float64))


def test_steps_that_end_otherwise_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert gate.run(gate.Step("a file that is missing", ("replay", "missing.npz"), 2))
    assert not gate.run(gate.Step("a file that is missing", ("replay", "missing.npz"), 0))
    assert "exit code 2, expected 0" in capfd.readouterr().out


def test_expected_figures_are_of_these_files_and_consistent() -> None:
    assert list(EXPECTED) == list(quantize.SCHEMES)
    for name, found in EXPECTED.items():
        assert found["sha256"] == paramrob.load(path(name)).sha256
        rows = found["rows"]
        assert [(r["radius"], r["runtime_steps"]) for r in rows] == [
            (radius, steps) for radius in agreement.RADII for steps in agreement.STEPS
        ]
        for row in rows:
            assert row["proved"] + row["refuted"] + row["open"] == 360
            assert row["refuted"] == len(row["refuted_points"]) == row["shown_by_onnxruntime"]
    assert EXPECTED["int8"]["rows"][0]["proved"] == 360
    assert EXPECTED["int8_act16"]["rows"][1]["proved"] == 360
    assert EXPECTED["int8_raw"]["rows"][0]["refuted_points"] == [REFUTED]
    assert agreement.table(EXPECTED) in (FOLDER / "README.md").read_text()


def test_a_few_points_are_decided_as_expected() -> None:
    x, _ = points()
    few = [0, 1, 2, REFUTED]
    for name in EXPECTED:
        outcome = paramrob.compare(path("float"), path(name), at=x[few], timeout=600)
        assert isinstance(outcome, PointsOutcome)
        last = Verdict.NOT_ROBUST if name == "int8_raw" else Verdict.ROBUST
        assert [p.verdict for p in outcome.points] == [*[Verdict.ROBUST] * 3, last]


def test_the_readme_names_the_commands_of_the_gate() -> None:
    text = (FOLDER / "README.md").read_text()
    for words in ("edge_gate.quantize", "edge_gate.agreement", "edge_gate.gate"):
        assert f"python -m case_studies.{words}" in text
    assert re.search(r"paramrob compare float\.onnx int8\.onnx .*--certificate", text, re.S)
    for name in EXPECTED:
        assert f"`{name}.onnx`" in text

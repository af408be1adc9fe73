"""What onnxruntime shows of a counterexample: the same, something else, or nothing at all."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import paramrob
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from paramrob.runtime import runtime_words
from paramrob.verdict import RuntimeRun, Verdict
from tests.models.onnx_graphs import node, run
from tests.quantized_graphs import boxed, model_of, scalar

SCALE = np.float32(0.1)


def _tie() -> tuple[np.float32, int]:
    """Return a float32 number that float32 division rounds over the next tie, and its step."""
    for steps in range(1, 200):
        x = np.float32((steps + 0.5) * float(SCALE))
        for _ in range(4):
            exact = Fraction(float(x)) / Fraction(float(SCALE))
            if round(exact) != int(np.rint(x / SCALE)) and round(exact) == steps:
                return x, steps
            x = np.nextafter(x, np.float32(-1))
    raise AssertionError("no such number")


def _files(folder: Path, above: float = -0.01) -> tuple[Path, Path, float]:
    """Return a reference, a model whose label at the input hangs on the tie, and the input.

    The reference's label changes ``above`` the input.
    """
    x, steps = _tie()
    between = np.float32((steps + 0.5) * float(SCALE))
    weight = np.array([[1.0, 0.0]], dtype=np.float32)
    grid = {"s": scalar(SCALE), "z": boxed(0)}
    rounded = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["h"]),
        node("Gemm", ["h", "w", "b"], ["y"], name="fc"),
    ]
    second = {"w": weight, "b": np.array([0.0, between], dtype=np.float32), **grid}
    first = {"w": weight, "b": np.array([0.0, float(x) + above], dtype=np.float32)}
    plain = [node("Gemm", ["x", "w", "b"], ["y"], name="fc")]
    paths = (folder / "reference.onnx", folder / "model.onnx")
    onnx.save(model_of(plain, first, ("N", 1)), paths[0])
    onnx.save(model_of(rounded, second, ("N", 1)), paths[1])
    return *paths, float(x)


def test_a_deviation_of_the_runtime_is_told(tmp_path: Path) -> None:
    reference, model, x = _files(tmp_path)
    outcome = paramrob.compare(reference, model, at=[x])
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.witness is not None
    assert outcome.witness.labels == (0, 1)
    found = outcome.runtime
    assert found is not None
    assert not found.reproduced
    assert found.labels == (0, 0)
    assert found.deviation[1] is not None
    assert found.deviation[1] > 0.01
    assert "runtime deviation: onnxruntime" in runtime_words(found, found.labels)
    exact = evaluate_exact(read_onnx(model), np.array([x]))
    assert exact[0] < exact[1]


def test_a_step_of_leave_covers_what_the_runtime_does(tmp_path: Path) -> None:
    # The label is the reference's in real numbers, but not in the runtime.
    reference, model, x = _files(tmp_path, 0.01)
    seen = [run(onnx.load(file), np.array([[x]], dtype=np.float32)) for file in (reference, model)]
    assert [int(np.argmax(y)) for y in seen] == [1, 0]
    assert paramrob.compare(reference, model, at=[x]).verdict is Verdict.ROBUST
    outcome = paramrob.compare(reference, model, at=[x], runtime_steps=1, timeout=5)
    assert outcome.verdict is Verdict.UNKNOWN


def test_without_onnxruntime_replay_alone_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, model, x = _files(tmp_path)
    find = importlib.util.find_spec

    def missing(name: str, *more: Any) -> Any:
        return None if name == "onnxruntime" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    outcome = paramrob.compare(reference, model, at=[x])
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.runtime is None


def test_a_file_that_onnxruntime_refuses_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paramrob import runtime

    def refuse(path: str, sha256: str | None) -> Any:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(runtime, "_session", refuse)
    reference, model, x = _files(tmp_path)
    outcome = paramrob.compare(reference, model, at=[x])
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.runtime is None
    assert any("cannot execute" in note and "no such operator" in note for note in outcome.notes)


def test_a_reference_that_is_no_onnx_file_is_executed_exactly(tmp_path: Path) -> None:
    reference, model, x = _files(tmp_path)
    outcome = paramrob.compare(paramrob.load(read_onnx(reference)), model, at=[x])
    found = outcome.runtime
    assert found is not None
    assert found.reference_output is None
    assert found.deviation[0] is None
    assert "the reference is no ONNX file" in runtime_words(found, found.labels)


def test_parameters_that_move_are_in_no_file(tmp_path: Path) -> None:
    reference, model, x = _files(tmp_path)
    outcome = paramrob.compare(reference, model, at=[x], delta="0.001")
    assert outcome.verdict is Verdict.NOT_ROBUST
    assert outcome.runtime is None


def test_an_input_that_the_file_cannot_hold_is_said(tmp_path: Path) -> None:
    reference, model, x = _files(tmp_path)
    outcome = paramrob.compare(reference, model, at=[x - 0.002 + 1e-12])
    assert outcome.runtime is not None
    assert outcome.runtime.input_rounded
    assert "was rounded" in runtime_words(outcome.runtime, (None, None))


def test_words_of_a_run_without_labels() -> None:
    made = RuntimeRun("rt", "1", (0.5,), (0.25,), (None, None), (1e-9, 0.0), True)
    assert runtime_words(made, (None, None)).startswith("rt 1 shows the same; its outputs lie")

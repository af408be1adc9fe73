"""Proved brackets of a quantized file's deviation over a box, beside samples in onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paramrob.bounds.graph.boxes import BoxPass
from paramrob.domain import box_from_floats
from paramrob.engine import Settings
from paramrob.models.model import OutputInfo
from paramrob.models.onnx_file import read_onnx
from paramrob.models.rounding import with_steps
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from tests.quantized_models import Floats, in_onnxruntime

RADIUS = 0.05
SINGLE = 1e-5
"""What onnxruntime's float32 may be off by in an output of the float file, relative to it and 1."""


@dataclass(frozen=True)
class Held:
    """Samples of one file's deviations against what is proved of them.

    Attributes:
        outside: samples outside the bracket of the file as it is specified.
        outside_by_steps: outside that of executions whose roundings may be off by a step.
        samples: how many inputs.
        ratio: median over outputs of the proved width over the sampled one.
    """

    outside: int
    outside_by_steps: int
    samples: int
    ratio: float


def held(plain: Path, quantized: Path, middle: Floats, samples: int, seed: int) -> Held:
    """Compare two files at random inputs of a box, in onnxruntime, and bound their difference.

    Args:
        plain: the float file.
        quantized: the quantized one.
        middle: an input.
        samples: how many inputs around it.
        seed: of the inputs.
    """
    rng = np.random.default_rng(seed)
    low, high = (middle + side * np.float32(RADIUS) for side in (-1, 1))
    x = rng.uniform(low, high, (samples, *middle.shape)).astype(np.float32)
    x = np.minimum(np.maximum(x, low), high)
    first, second = (
        in_onnxruntime(file, x, True).astype(np.float64) for file in (plain, quantized)
    )
    apart = (second - first).reshape(samples, -1)
    room = SINGLE * (1 + np.abs(first).reshape(samples, -1))
    outside = []
    ratio = 0.0
    for steps in (0, 1):
        lower, upper = _bracket(plain, quantized, low, high, steps)
        outside.append(int(((apart < lower - room) | (apart > upper + room)).any(axis=1).sum()))
        if steps == 0:
            seen = np.maximum(apart.max(axis=0) - apart.min(axis=0), 1e-9)
            ratio = float(np.median((upper - lower) / seen))
    return Held(outside[0], outside[1], samples, ratio)


def _bracket(
    plain: Path, quantized: Path, low: Floats, high: Floats, steps: int
) -> tuple[Floats, Floats]:
    """Return least and largest deviations ``(out,)``, by one pass over the box."""
    reference, network = read_onnx(plain), with_steps(read_onnx(quantized), steps)
    ends = (end.astype(np.float64).ravel().tolist() for end in (low, high))
    subject = Problem(
        reference,
        UncertainNetwork(network, Perturbation({})),
        box_from_floats(*ends),
        OutputInfo("value", None),
    )
    pass_ = BoxPass(subject, Settings())
    size = reference.output_size
    analysis = pass_.bounds.analyse(*pass_.root)
    least = pass_.bounds.bound(analysis, pass_.question.rows[None, : 2 * size])[0].numpy()
    return least[:size], -least[size:]

"""Networks that onnxruntime quantized are read as what it executes, to the last step."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from paramrob.models.network import Quantize
from paramrob.models.onnx_file import read_onnx
from paramrob.replay import evaluate_exact
from tests.quantized_models import (
    VARIANTS,
    Data,
    Variant,
    convolutional,
    dense,
    digits,
    explained,
    in_onnxruntime,
    last_step,
    node_by_node,
    quantized,
    random_inputs,
    save_branched,
    save_onnx,
    trained,
)

INPUTS = 300
# Those whose products of 8 bits no processor saturates when it sums them.
SAFE = [0, 1, 2, 3, 7]


def _dense() -> tuple[torch.nn.Sequential, Data]:
    return trained(dense((64, 32, 10)), digits(), 0), digits()


def _convolutional() -> tuple[torch.nn.Sequential, Data]:
    return trained(convolutional(4, True), digits(True), 1, 60), digits(True)


@cache
def _made(
    maker: Callable[[], tuple[torch.nn.Sequential, Data]],
) -> tuple[torch.nn.Sequential, Data]:
    return maker()


@pytest.mark.parametrize("number", SAFE)
@pytest.mark.parametrize("maker", [_dense, _convolutional])
def test_results_are_onnxruntimes_but_for_ties(
    maker: Callable[[], tuple[torch.nn.Sequential, Data]], number: int, tmp_path: Path
) -> None:
    model, data = _made(maker)
    path = save_onnx(model, data.x.shape[1:], tmp_path / "float.onnx")
    file = quantized(path, data, VARIANTS[number], tmp_path / "quantized.onnx")
    network = read_onnx(file)
    x = random_inputs(data, INPUTS, number)
    ours, truth = network.evaluate(x.astype(np.float64)), in_onnxruntime(file, x)
    step = last_step(network)
    odd = np.flatnonzero((np.abs(ours - truth) > step / 2).any(axis=1))
    assert len(odd) <= INPUTS // 50
    for i in odd.tolist():
        assert explained(network, x[i], truth[i]) is not None
    grid = [n.op for n in network.nodes if isinstance(n.op, Quantize)][-1]
    for i in range(3):
        exact = evaluate_exact(network, x[i].astype(np.float64))
        rationals = [Fraction(int(v.p), int(v.q)) for v in exact]
        assert rationals == [Fraction(v) for v in ours[i].tolist()]
        whole = [v / Fraction(grid.scale) for v in rationals]
        assert all(steps.denominator == 1 for steps in whole)


def test_weights_are_those_of_the_float_file_within_half_a_step(tmp_path: Path) -> None:
    model, data = _made(_dense)
    path = save_onnx(model, data.x.shape[1:], tmp_path / "float.onnx")
    file = quantized(path, data, VARIANTS[1], tmp_path / "quantized.onnx")
    before, after = read_onnx(path).parameters, read_onnx(file).parameters
    for name in ("0.weight", "2.weight"):
        stored = after[f"{name}_quantized"]
        assert stored.dtype == "int8"
        steps = np.abs(stored.value).max(axis=1, keepdims=True) / 127
        # the reader's scale is float32, as is the quotient that the quantizer rounded
        assert (np.abs(stored.value - before[name].value) <= steps * (0.5 + 1e-4)).all()


BRANCHED = (
    *(VARIANTS[i] for i in SAFE),
    Variant(activations="QInt16"),
    Variant(weights="QInt4", per_channel=True),
)


@pytest.mark.parametrize("variant", BRANCHED, ids=lambda v: v.name)
@pytest.mark.parametrize("pool", ["AveragePool", "MaxPool"])
def test_every_rounding_is_onnxruntimes_but_for_ties(
    pool: str, variant: Variant, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(256, 2, 6, 6)).astype(np.float32)
    opset = 21 if "int4" in variant.name else 13
    path = save_branched(tmp_path / "float.onnx", 2, pool, opset)
    data = Data(x, np.zeros(len(x), dtype=np.int64))
    file = quantized(path, data, variant, tmp_path / "quantized.onnx")
    found = node_by_node(file, read_onnx(file), x[:100])
    assert found.count > 30_000
    assert found.farthest <= 1
    # float32 has about 24 bits for a quotient of up to 8 bits, or of 16
    assert found.distance < (0.01 if "int16" in variant.name else 1e-4)
    # an average of four numbers of one grid is a tie for every other input
    assert found.odd < found.count / (100 if pool == "AveragePool" else 2000)

"""Grids against the tools' own arithmetic, number by number."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnxruntime.quantization import quant_utils
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

from paramrob.errors import InputError
from paramrob.models.network import Array
from paramrob.quantize.integers import Rounded, quantize_bias, round_array
from paramrob.quantize.scheme import Scheme

QUIET = settings(derandomize=True, database=None, deadline=None, max_examples=60)
ONNX = {
    name: getattr(TensorProto, name.upper())
    for name in ("int4", "int8", "int16", "uint4", "uint8", "uint16")
}
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHT = st.one_of(
    st.floats(-2, 2, width=32),
    st.floats(-(2.0**-130), 2.0**-130, width=32),
    st.integers(-128, 128).map(lambda k: k / 2),  # ties
    st.just(0.0),
    FLOAT32.filter(lambda v: abs(v) < 1e37),
)
ROWS = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(WEIGHT, min_size=n, max_size=n), min_size=1, max_size=3)
)
SIGN = st.sampled_from([None, 1.0, -1.0])


def matrix(rows: list[list[float]], sign: float | None) -> Array:
    value = np.array(rows)
    return value if sign is None else sign * np.abs(value)


@QUIET
@given(rows=ROWS, sign=SIGN, name=st.sampled_from(sorted(ONNX)), symmetric=st.booleans())
@example([[0.0, 0.0]], None, "uint8", False)
@example([[1e-40, -1e-42]], None, "uint8", True)
@example([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]], None, "int8", True)
@example([[7.5, -7.5, 3.0]], None, "int4", True)
def test_one_scale_a_tensor_is_onnxruntimes(
    rows: list[list[float]], sign: float | None, name: str, symmetric: bool
) -> None:
    value = matrix(rows, sign)
    found = round_array(value, Scheme(name, symmetric=symmetric))
    data = value.astype(np.float32).ravel()
    zero, scale, integers = quant_utils.quantize_data(data, ONNX[name], symmetric)
    check(found, scale, zero, np.asarray(integers).reshape(value.shape))


@QUIET
@given(rows=ROWS, sign=SIGN, name=st.sampled_from(sorted(ONNX)), symmetric=st.booleans())
def test_one_scale_a_channel_is_onnxruntimes(
    rows: list[list[float]], sign: float | None, name: str, symmetric: bool
) -> None:
    value = matrix(rows, sign)
    found = round_array(value, Scheme(name, "channel", symmetric))
    for i, row in enumerate(value.astype(np.float32)):
        zero, scale, integers = quant_utils.quantize_data(row, ONNX[name], symmetric)
        check(part(found, i), scale, zero, np.asarray(integers))


@QUIET
@given(
    rows=ROWS,
    sign=SIGN,
    name=st.sampled_from(sorted(ONNX)),
    symmetric=st.booleans(),
    size=st.integers(1, 3),
)
def test_groups_are_onnxruntimes_blocks(
    rows: list[list[float]], sign: float | None, name: str, symmetric: bool, size: int
) -> None:
    value = matrix(rows, sign)
    found = round_array(value, Scheme(name, f"group:{size}", symmetric))
    weights = value.astype(np.float32)
    zeros, scales = quant_utils.compute_scale_zp_blocked(weights, ONNX[name], 1, size, symmetric)
    for i, j in np.ndindex(*value.shape):
        zero, scale = zeros[i, j // size], scales[i, j // size]
        integer = quant_utils.quantize_nparray(ONNX[name], weights[i, j : j + 1], scale, zero)
        check(part(found, (i, slice(j, j + 1))), scale, zero, np.asarray(integer))


def part(found: Rounded, index: Any) -> Rounded:
    assert found.integers is not None
    arrays = (found.values, found.below, found.above, found.scale, found.zero, found.integers)
    return Rounded(*(a[index] for a in arrays))


def check(found: Rounded, scale: Any, zero: Any, integers: Any) -> None:
    assert found.integers is not None
    scale, zero = float(np.asarray(scale).item()), float(np.asarray(zero).item())
    assert (found.scale == scale).all()
    assert (found.zero == zero).all()
    assert np.array_equal(found.integers, integers.astype(np.float64))
    exact = [Fraction(scale) * Fraction(int(q) - int(zero)) for q in integers.ravel()]
    assert [Fraction(float(v)) for v in found.values.ravel()] == exact


@QUIET
@given(rows=ROWS, sign=SIGN, symmetric=st.booleans(), channel=st.booleans())
@example([[0.0]], None, True, True)
@example([[127.5, 0.5, 1.5, -2.5]], None, True, False)
def test_torchao_is_as_the_observers_and_quantize_affine(
    rows: list[list[float]], sign: float | None, symmetric: bool, channel: bool
) -> None:
    """The observers of torch.ao compute scales by the same formulas as choose_qparams_affine."""
    value = matrix(rows, sign)
    granularity = "channel" if channel else "tensor"
    found = round_array(value, Scheme("int8", granularity, symmetric, convention="torchao"))
    weights = torch.from_numpy(value.astype(np.float32))
    kind = "symmetric" if symmetric else "affine"
    if channel:
        scheme = getattr(torch, f"per_channel_{kind}")
        observer: Any = PerChannelMinMaxObserver(dtype=torch.qint8, qscheme=scheme)
    else:
        scheme = getattr(torch, f"per_tensor_{kind}")
        observer = MinMaxObserver(dtype=torch.qint8, qscheme=scheme)
    observer(weights)
    scale, zero = (t.reshape(-1, 1) for t in observer.calculate_qparams())
    integers = torch.clamp(torch.round(weights * (1.0 / scale)) + zero, -128, 127)
    assert found.integers is not None
    assert np.array_equal(found.integers, integers.double().numpy())
    assert np.array_equal(found.scale, scale.double().expand(weights.shape).numpy())
    assert np.array_equal(found.zero, zero.double().expand(weights.shape).numpy())


@pytest.mark.parametrize(("name", "q1"), [("int8", 127), ("int4", 7), ("int16", 32767)])
def test_litert_divides_the_largest_weight_by_the_largest_integer(name: str, q1: int) -> None:
    value = np.array([[0.3, -1.0, 0.25], [0.0, 0.0, 0.0]])
    found = round_array(value, Scheme(name, "channel", convention="litert"))
    assert found.integers is not None
    scale = np.float32(1) / np.float32(q1)
    assert found.scale[0].tolist() == [float(scale)] * 3
    assert found.integers[0].tolist() == [
        round(0.3 * q1),
        -q1,
        np.rint(np.float32(0.25) * (np.float32(1) / scale)),
    ]
    assert found.scale[1, 0] == float(np.float32(1e-9) / np.float32(q1))
    assert not found.values[1].any()


@QUIET
@given(
    rows=ROWS,
    sign=SIGN,
    name=st.sampled_from(["int2", "int3", "int8", "int16", "uint2", "uint5", "uint16"]),
    convention=st.sampled_from(["onnxruntime", "torchao", "litert"]),
    symmetric=st.booleans(),
    narrow=st.booleans(),
    granularity=st.sampled_from(["tensor", "channel", "group:1"]),
)
def test_neighbours_are_the_grids_nearest_on_either_side(
    rows: list[list[float]],
    sign: float | None,
    name: str,
    convention: Any,
    symmetric: bool,
    narrow: bool,
    granularity: str,
) -> None:
    try:
        scheme = Scheme(
            name, granularity, symmetric, "narrow" if narrow else "full", convention=convention
        )
    except InputError:
        return
    value = matrix(rows, sign)
    found = round_array(value, scheme)
    q0, q1 = scheme.integers()
    for i in range(value.size):
        exact = Fraction(float(value.flat[i]))
        scale, zero = Fraction(float(found.scale.flat[i])), int(found.zero.flat[i])
        first, last = (q0 - zero) * scale, (q1 - zero) * scale
        below, above = (Fraction(float(a.flat[i])) for a in (found.below, found.above))
        weight, single = np.float32(value.flat[i]), np.float32(scale)
        direct = convention == "onnxruntime"
        tools = float(weight / single if direct else weight * (np.float32(1) / single))
        floor = min(exact // scale, math.floor(tools)) * scale
        ceiling = max(-(-exact // scale), math.ceil(tools)) * scale
        assert below == max(min(floor, last), first)
        assert above == max(min(ceiling, last), first)
        assert below <= Fraction(float(found.values.flat[i])) <= above <= below + 2 * scale
        if first <= exact <= last:
            assert below <= exact <= above


def test_a_tool_whose_floor_is_another_step_is_covered() -> None:
    """Weights stored in float64 just beside a step fall on its other side in float32."""
    value = np.array([[1.0, 0.0]])
    scale = float(np.float32(1 / 127))
    step = 5 * scale
    rounded_down = np.float32(step) < step
    value[0, 1] = np.nextafter(step, np.inf if rounded_down else -np.inf)
    found = round_array(value, Scheme("int8"))
    assert found.scale[0, 1] == scale
    quotient = np.float32(value[0, 1]) / np.float32(scale)
    assert found.below[0, 1] <= math.floor(quotient) * scale
    assert found.above[0, 1] >= math.ceil(quotient) * scale
    assert found.below[0, 1] <= value[0, 1] <= found.above[0, 1]


def test_a_clipped_weight_has_the_end_of_the_grid_alone() -> None:
    found = round_array(np.array([[7.5, -7.5, 1.0]]), Scheme("int4", convention="torchao"))
    assert found.scale[0, 0] == 1.0
    assert (found.below[0, 0], found.above[0, 0]) == (7.0, 7.0)
    assert (found.below[0, 1], found.above[0, 1]) == (-8.0, -7.0)
    assert (found.below[0, 2], found.above[0, 2]) == (1.0, 1.0)


def test_float64_weights_are_rounded_as_stored_and_their_neighbours_are_exact() -> None:
    third = 1 / 3
    found = round_array(np.array([[1.0, third]]), Scheme("int2", range="narrow"))
    assert (found.below[0, 1], found.above[0, 1]) == (0.0, 1.0)
    just_above = 1.0 + 2.0**-40
    found = round_array(
        np.array([[2.0, just_above]]), Scheme("int3", range="full", symmetric=False)
    )
    assert found.scale[0, 0] == float(np.float32(2 / 7))
    assert found.below[0, 1] <= just_above <= found.above[0, 1]


def test_biases_are_onnxruntimes_int32() -> None:
    bias = np.array([0.1, -3.0, 1e9])
    integers, scale = quantize_bias(bias, 0.02, np.array([0.5, 0.25, 1e-9]))
    expected = np.float32(0.02) * np.array([0.5, 0.25, 1e-9], dtype=np.float32)
    assert scale.tolist() == expected.astype(np.float64).tolist()
    rounded = np.rint(bias.astype(np.float32).astype(np.float64) / expected.astype(np.float64))
    assert integers[:2].tolist() == rounded[:2].tolist()
    assert integers[2] == 2**31 - 1


@pytest.mark.parametrize(
    ("value", "scheme", "said"),
    [
        (np.ones((1, 3)), Scheme("int8", "group:2", convention="torchao"), "do not divide"),
        (np.ones((1, 1, 3)), Scheme("int8", "group:2"), "matrices"),
        (np.array([[1e39]]), Scheme("int8"), "beyond float32"),
        (np.array([[3e38, -3e38]]), Scheme("uint2", convention="torchao"), "range"),
    ],
)
def test_what_has_no_grid_is_refused(value: Array, scheme: Scheme, said: str) -> None:
    with pytest.raises(InputError, match=said):
        round_array(value, scheme)

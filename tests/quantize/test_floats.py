"""Float formats against numpy and ml_dtypes."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paramrob.errors import InputError
from paramrob.quantize.floats import FLOAT_FORMATS, round_float

QUIET = settings(derandomize=True, database=None, deadline=None, max_examples=150)
DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
TORCH = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
NAME = st.sampled_from(sorted(FLOAT_FORMATS))


def all_numbers(name: str) -> Any:
    """Every finite number of a format, in order."""
    wide = DTYPES[name]
    bits: Any = np.uint8 if np.dtype(wide).itemsize == 1 else np.uint16
    with np.errstate(invalid="ignore"):
        numbers = np.arange(np.iinfo(bits).max + 1).astype(bits).view(wide).astype(np.float64)
    return np.unique(numbers[np.isfinite(numbers)])


NUMBERS = {name: all_numbers(name) for name in FLOAT_FORMATS}


@pytest.mark.parametrize("name", sorted(FLOAT_FORMATS))
def test_every_number_of_a_format_is_its_own(name: str) -> None:
    numbers = NUMBERS[name]
    assert FLOAT_FORMATS[name].largest == numbers[-1]
    for found in round_float(numbers, name):
        assert np.array_equal(found, numbers)
    middle = (numbers[1:] + numbers[:-1]) / 2
    nearest, below, above = round_float(middle, name)
    assert np.array_equal(below, numbers[:-1])
    assert np.array_equal(above, numbers[1:])
    with np.errstate(over="ignore"):
        assert np.array_equal(nearest, middle.astype(np.float32).astype(DTYPES[name]))


@QUIET
@given(name=NAME, value=st.floats(width=32, allow_nan=False, allow_infinity=False))
@example("float16", 65503.0)
@example("float8_e4m3", 447.9)
@example("float8_e4m3", 2.0**-10)
@example("bfloat16", 1e-40)
@example("float16", -1e-8)
def test_rounding_is_numpys_and_torchs(name: str, value: float) -> None:
    if abs(value) > FLOAT_FORMATS[name].largest:
        with pytest.raises(InputError, match="keep that layer float"):
            round_float(np.array([value]), name)
        return
    (nearest,), (below,), (above,) = round_float(np.array([value]), name)
    single = np.array([value], dtype=np.float32)
    assert nearest == single.astype(DTYPES[name]).astype(np.float64)[0]
    assert nearest == torch.from_numpy(single).to(TORCH[name]).double().item()
    numbers = NUMBERS[name]
    assert below == numbers[numbers <= value][-1]
    assert above == numbers[numbers >= value][0]


@QUIET
@given(value=st.floats(-65504, 65504))
def test_float64_is_rounded_once(value: float) -> None:
    assert round_float(np.array([value]), "float16")[0][0] == float(np.float16(value))


def test_no_zero_keeps_a_minus_sign() -> None:
    for found in round_float(np.array([-1e-30, -0.0]), "float16"):
        assert math.copysign(1, found[1]) == 1
    assert math.copysign(1, round_float(np.array([-1e-30]), "float16")[0][0]) == 1

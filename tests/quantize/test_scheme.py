"""Schemes: defaults, words, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from paramrob.errors import InputError
from paramrob.quantize.scheme import Scheme


@pytest.mark.parametrize(
    ("scheme", "integers"),
    [
        (Scheme(), (-127, 127)),
        (Scheme("int4"), (-8, 7)),
        (Scheme("int4", range="narrow"), (-7, 7)),
        (Scheme("int8", range="full"), (-128, 127)),
        (Scheme("int8", symmetric=False), (-128, 127)),
        (Scheme("int8", convention="torchao"), (-128, 127)),
        (Scheme("int8", convention="litert"), (-127, 127)),
        (Scheme("uint8"), (0, 255)),
        (Scheme("uint16", symmetric=True), (0, 65535)),
        (Scheme("int2"), (-2, 1)),
    ],
)
def test_the_integers_of_a_scheme(scheme: Scheme, integers: tuple[int, int]) -> None:
    assert scheme.integers() == integers
    assert Scheme.from_json(scheme.as_json()).integers() == integers


def test_signed_formats_are_symmetric_by_default_and_unsigned_ones_affine() -> None:
    assert Scheme("int8").is_symmetric
    assert not Scheme("uint8").is_symmetric


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"format": "int1"}, "no format 'int1'; did you mean"),
        ({"format": "int17"}, "no format"),
        ({"format": "fp16"}, "float16"),
        ({"granularity": "row"}, "tensor, channel or group:N"),
        ({"granularity": "group:0"}, "group:N"),
        ({"range": "wide"}, "full or narrow"),
        ({"bias": "int8"}, "float or int32"),
        ({"convention": "tflite"}, "onnxruntime, litert, torchao"),
        ({"format": "float16", "granularity": "channel"}, "no scale, so no granularity"),
        ({"format": "bfloat16", "symmetric": True}, "no symmetry"),
        ({"format": "float8_e4m3", "range": "full"}, "no range"),
        ({"format": "float16", "bias": "int32"}, "no int32 bias"),
        ({"format": "uint8", "range": "narrow"}, "symmetric signed"),
        ({"symmetric": False, "range": "narrow"}, "symmetric signed"),
        ({"symmetric": False, "convention": "litert"}, "LiteRT"),
        ({"granularity": "group:32", "convention": "litert"}, "groups"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scheme(**given)


def test_a_scheme_survives_json() -> None:
    scheme = Scheme("uint4", "group:32", True, None, "int32", ("0", "fc.2"), "torchao")
    found = Scheme.from_json(scheme.as_json())
    assert found.as_json() == scheme.as_json()
    assert found.keep == ("0", "fc.2")
    for broken in ({}, {"format": 3}, {"format": "int8", "keep_float": [1]}, {"colour": "red"}):
        with pytest.raises(InputError, match="description"):
            Scheme.from_json(broken)

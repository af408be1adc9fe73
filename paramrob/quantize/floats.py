"""Floating-point formats: the numbers of a format next to a given one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paramrob.errors import InputError
from paramrob.models.network import Array


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format with subnormal numbers.

    Attributes:
        digits: of the significand, the leading one included.
        smallest: exponent of the smallest normal number.
        largest: the largest finite number.
    """

    digits: int
    smallest: int
    largest: float


FLOAT_FORMATS = {
    "float16": FloatFormat(11, -14, 65504.0),
    "bfloat16": FloatFormat(8, -126, (2 - 2.0**-7) * 2.0**127),
    "float8_e4m3": FloatFormat(4, -6, 448.0),
    "float8_e5m2": FloatFormat(3, -14, 57344.0),
}
"""IEEE 754-2019 binary16; bfloat16; and the two of Micikevicius et al., FP8 Formats for Deep
Learning (arXiv 2209.05433), e4m3 without infinities."""


def round_float(value: Array, name: str) -> tuple[Array, Array, Array]:
    """Return the nearest number of a format, the next one below and the next one above.

    Nearest is half to even; all three are the value itself where the format has it. They are
    computed by scaling with powers of two, which is exact. A float64 value is rounded once; a
    tool that goes through float32 rounds twice, to one of the same two neighbours.

    Args:
        value: float64, any shape.
        name: a key of ``FLOAT_FORMATS``.

    Returns:
        ``(nearest, below, above)``, float64 of the same shape.

    Raises:
        InputError: a value lies beyond the largest finite number, or is not finite.
    """
    form = FLOAT_FORMATS[name]
    value = np.asarray(value, dtype=np.float64)
    if not bool((np.abs(value) <= form.largest).all()):
        largest = float(np.max(np.abs(value)))
        raise InputError(
            f"{largest!r} lies beyond {name}, which ends at {form.largest!r}; keep that layer "
            "float or choose another format"
        )
    _, exponent = np.frexp(value)
    quantum = np.maximum(exponent - 1, form.smallest) - (form.digits - 1)
    steps = np.ldexp(value, -quantum)
    nearest, below, above = (
        np.asarray(np.ldexp(rounded(steps), quantum) + 0.0)  # no zero keeps a minus sign
        for rounded in (np.rint, np.floor, np.ceil)
    )
    return nearest, below, above

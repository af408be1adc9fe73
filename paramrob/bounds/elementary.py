"""Rigorous float64 enclosures of exp, sigmoid and tanh on tensors.

torch's own functions carry no proven error bound and differ between devices. These use only
operations that IEEE 754 rounds correctly (``+ - * /`` on two float64) and exact integer work on
the bits, one eager operation at a time, so that nothing is contracted to a fused operation.

Method (Tang, *Table-driven implementation of the exponential function*, ACM TOMS 15, 1989):
``x = k ln2/128 + r`` with ``k`` an integer and ``k = 128 m + j``, ``0 <= j < 128``, so that
``exp(x) = 2^m 2^(j/128) exp(r)``, the middle factor from a table, the last from its Taylor
polynomial. Let ``u = 2^-53`` bound the relative error of one operation.

*Reduction.* ``x`` is clamped to ``[-707, 709.79]``, so ``|k| < 2^18``. ``LN2_HI`` is a multiple of
``2^-43``: ``k LN2_HI`` is below ``2^10``, hence exact. For ``k != 0``, ``|x| > 2^-9`` is a multiple
of ``2^-61``, and so is ``x - k LN2_HI``, which is below ``2^-8``: exact. ``LN2_LO < 2^-44`` leaves
``|k| 2^-97`` of ln2/128, the product with ``k`` is rounded by at most ``2^-79``, the difference
by ``2^-62``: ``r`` is off by less than ``2^-61``. For ``k = 0`` it is exact. The product that is
rounded to ``k`` is off by less than ``2^-33``, so ``|r| <= rho = 0.002708 < 2^-8``.

*Polynomial.* ``q = r + r^2 (1/2 + r (1/6 + r (1/24 + r/120)))`` misses ``expm1(r)`` by at most
``1.001 rho^6/720 < 5.6e-19 < 0.0051 u``, relative to ``r`` by less than ``1.9 u``; evaluating it
adds ``1.01 u |q|``: the last addition, the rest being multiplied by ``|r|/2``.

*exp.* ``(1 + q) s`` with ``s`` the table's entry, exponent shifted exactly: ``0.004 u`` (r),
``0.0051 u`` and ``0.003 u`` (q), ``u`` (addition), ``u`` (table), ``u`` (product): below
``3.1 u``. No intermediate that matters is subnormal, so the bound holds under flush-to-zero too.

*sigmoid.* With ``e = exp(-|x|)``: ``e/(1+e)`` or ``1/(1+e)``; ``3.1 u`` at most passes through,
addition and division add ``u`` each: below ``5.2 u``.

*tanh.* With ``t = -2|x|`` and the table's own error ``c`` known to double precision,
``d = expm1(t) = (s - 1) + s (q + c)`` and ``tanh|x| = -d/(2 + d)``. ``s - 1`` is exact for
``s >= 1/2`` (Sterbenz), else off by ``u/2``. ``s (q + c)`` is off by at most ``6.5 rho u`` (``r``:
``1.5``, truncation ``1.9``, three roundings). So ``d`` is off by
``u |d| + 6.5 rho u + (u/2 where s < 1/2)``; relative error of ``d`` enters the quotient times
``2/(2+d)``. For ``k = 0``: ``d = q``, at most ``3 u``. Otherwise ``|d| >= 0.99 rho``: ``7.7 u`` up
to ``|d| = 0.01``, ``(1 + 1.8) u 4/3`` up to ``s = 1/2``, ``2 (1 + 1.02 + 0.04) u`` beyond. Addition
and division add ``2 u``: below ``9.8 u``.

The padding multiplies by ``1 -+ 8 u`` (exp, sigmoid) or ``1 -+ 16 u`` (tanh), one further ``u``
of rounding included.
"""

from __future__ import annotations

from functools import cache

import flint
import torch
from torch import Tensor

from paramrob.errors import SoundnessError

EXP_ERROR = 2.0**-50
"""Relative error of :func:`exp` (proved: 3.1 u) with room for the rounding of the padding."""
SIGMOID_ERROR = 2.0**-50
"""Relative error of :func:`sigmoid` (proved: 5.2 u) with room for the rounding of the padding."""
TANH_ERROR = 2.0**-49
"""Relative error of :func:`tanh` (proved: 9.8 u) with room for the rounding of the padding."""
UNDERFLOW = 2.0**-1018
"""Absolute error to add where a result may be below it: exp and sigmoid left of -707, tanh at 0."""

_SMALLEST, _LARGEST = -707.0, 709.79
_MAX = torch.finfo(torch.float64).max
_STEPS = 128


def _constants() -> tuple[float, float, float, list[float], list[float]]:
    """Return 128/ln2, both parts of ln2/128, the table and its relative corrections."""
    with flint.ctx.workprec(256):
        step = flint.arb(2).log() / _STEPS
        high = int((step * 2**43 + 0.5).floor().unique_fmpz()) / 2**43
        powers = [(step * j).exp() for j in range(_STEPS)]
        table = [float(p) for p in powers]
        corrections = [
            float(p / flint.arb(t) - 1) if j else 0.0
            for j, (p, t) in enumerate(zip(powers, table, strict=True))
        ]
        return float(1 / step), high, float(step - flint.arb(high)), table, corrections


_INVERSE, LN2_HI, LN2_LO, _TABLE, _CORRECTIONS = _constants()


@cache
def tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the bits of ``2^(j/128)`` and the relative corrections, ``(128,)`` each."""
    table, corrections = (
        torch.tensor(numbers, dtype=torch.float64, device=device)
        for numbers in (_TABLE, _CORRECTIONS)
    )
    return table.view(torch.int64), corrections


def checked(x: Tensor) -> Tensor:
    """Return ``x`` without its gradient.

    Raises:
        SoundnessError: it is not float64.
    """
    if x.dtype != torch.float64:
        raise SoundnessError(f"enclosures are proved for float64 only, got {x.dtype}; convert")
    return x.detach()


def reduce(x: Tensor, shift: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``q``, ``s * 2**shift`` and the table index for ``x`` (clamped by the caller).

    ``exp(x) = s (1 + q)``; the docstring of the module has the errors.
    """
    k = torch.round(x * _INVERSE)
    r = x - k * LN2_HI
    r -= k * LN2_LO
    bits = k.to(torch.int64)
    index = bits & (_STEPS - 1)
    bits -= index
    bits <<= 45
    bits += shift << 52
    bits += tables(x.device)[0][index]
    q = r * (1 / 120)
    q += 1 / 24
    q *= r
    q += 1 / 6
    q *= r
    q += 0.5
    q *= r
    q *= r
    q += r
    return q, bits.view(torch.float64), index


def _half_exp(x: Tensor) -> Tensor:
    """Return ``exp(x) / 2``: finite and normal for every ``x`` once clamped."""
    q, scale, _ = reduce(x.clamp(_SMALLEST, _LARGEST), -1)
    q += 1.0
    q *= scale
    return q


def exp_negative(magnitude: Tensor) -> Tensor:
    """Return ``exp(-magnitude)`` for ``magnitude >= 0``, as if it were at most 707.

    Relative error below ``3.1 u``.
    """
    q, scale, _ = reduce(magnitude.clamp(max=-_SMALLEST).neg_(), 0)
    q += 1.0
    q *= scale
    return q


def exp(x: Tensor) -> Tensor:
    """Compute exp to a relative error below ``EXP_ERROR``.

    Holds for ``-707 <= x`` where the result is finite. Left of -707 the value is that of -707
    (off by less than ``UNDERFLOW``). NaN stays NaN.
    """
    half = _half_exp(checked(x))
    return half.add_(half)


def sigmoid(x: Tensor) -> Tensor:
    """Compute 1/(1+exp(-x)) to a relative error below ``SIGMOID_ERROR``.

    Left of -707 the value is that of -707 (off by less than ``UNDERFLOW``). NaN stays NaN.
    """
    x = checked(x)
    e = exp_negative(x.abs())
    numerator = torch.where(x < 0, e, 1.0)
    e += 1.0
    return numerator.div_(e)


def _tanh_magnitude(x: Tensor) -> Tensor:
    t = x.abs()
    t += t
    t = t.clamp_(max=-_SMALLEST).neg_()
    q, scale, index = reduce(t, 0)
    q += tables(x.device)[1][index]
    q *= scale
    scale -= 1.0
    q += scale
    denominator = q + 2.0
    return q.neg_().div_(denominator)


def tanh(x: Tensor) -> Tensor:
    """Compute tanh to a relative error below ``TANH_ERROR``, plus ``UNDERFLOW``; odd in x."""
    x = checked(x)
    return torch.copysign(_tanh_magnitude(x), x)


def exp_bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose exp(x), elementwise, for float64 of any shape on any device.

    Returns:
        ``(lower, upper)`` of ``x``'s shape, about 8 ulp apart in ``[-707, 709.78]``; left of it
        ``lower`` is 0; where exp(x) overflows ``lower`` is the largest float64 and ``upper``
        infinite. NaN gives NaN.
    """
    x = checked(x)
    half = _half_exp(x)
    lower = half * (1 - EXP_ERROR)
    lower += lower
    lower.clamp_(max=_MAX).masked_fill_(x < _SMALLEST, 0.0)
    half *= 1 + EXP_ERROR
    return lower, half.add_(half)


def sigmoid_bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose 1/(1+exp(-x)), elementwise, for float64 of any shape on any device.

    Returns:
        ``(lower, upper)`` of ``x``'s shape in [0, 1], within 4 ulp of the value (relative to it,
        also in the left tail down to -707, where ``lower`` becomes 0). NaN gives NaN.
    """
    value = sigmoid(x)
    lower = value * (1 - SIGMOID_ERROR)
    lower.masked_fill_(x < _SMALLEST, 0.0)
    value *= 1 + SIGMOID_ERROR
    return lower, value.clamp_(max=1.0)


def tanh_bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose tanh(x), elementwise, for float64 of any shape on any device.

    Returns:
        ``(lower, upper)`` of ``x``'s shape in [-1, 1], within 8 ulp of the value (relative to
        it, also near 0 down to magnitudes of ``UNDERFLOW``). NaN gives NaN.
    """
    x = checked(x)
    value = _tanh_magnitude(x)
    low = value * (1 - TANH_ERROR)
    low -= UNDERFLOW
    value *= 1 + TANH_ERROR
    value += UNDERFLOW
    value.clamp_(max=1.0)
    negative = x < 0
    return torch.where(negative, -value, low), torch.where(negative, -low, value)

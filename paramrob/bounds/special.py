"""More functions with proved errors: what the tails of the smooth activations are made of.

Built on :mod:`paramrob.bounds.elementary` in the same way: only correctly rounded operations, one
at a time, and tables computed with ball arithmetic. ``u = 2^-53`` bounds one operation's relative
error, and ``e = exp(-x)`` comes with ``3.1 u``.

*logistic.* ``1 + e`` is off by ``u + 3.1 u e/(1+e) <= 2.6 u``. The quotient ``n = e/(1+e)`` depends
on ``e`` with relative sensitivity ``1/(1+e) <= 1``: ``3.1 u + 2 u``, below ``5.2 u``; ``n/(1+e)``
adds ``2.6 u + u``: below ``9 u``.

*expm1 and tanh.* Both modules' ``d = (s - 1) + s (q + c)`` is off by ``7.7 u``; ``exp`` is
``s (1 + q)``. ``2 + d`` with ``d >= -1`` is off by ``3.1 u`` (``2.8 u |d|`` up to ``|d| = 1/2``,
``2.1 u |d|`` beyond, and ``u``), so ``4 exp/(2+d)^2``, the derivative of tanh, is off by
``3.1 + 6.2 + 2``, below ``12 u``.

*log1p* of ``y`` in [0, 1]. With ``c = 1 + j/64`` nearest to ``1 + y``, ``g = y - j/64`` is exact
(Sterbenz) and ``log1p(y) = log c + 2 atanh(w)``, ``w = g/(2c + g)`` off by ``2 u``,
``|w| < 0.004``. Taylor's polynomial leaves ``w^8/9 < 2^-66`` relative to ``w``. The second term is
off by ``3.1 u`` with its last sum, the table by ``u``. For ``j = 0`` the table is 0; else the first
term is at most twice the result and the second no larger than it: below ``2 + 3.1 + 1 = 6.2 u``.
The sensitivity to ``y`` is ``y/((1+y) log1p(y)) <= 1``.

*Normal tail.* ``Q(x)``, the probability beyond ``x``, and the density ``f(x)``, for ``x`` in
[0, 37]. With ``c = j/256`` nearest to ``x`` and ``r = x - c`` (exact, ``|r| <= 2^-9``),
``f(x) = f(c) S`` and ``Q(x) = Q(c) - f(c) r T``, where ``S = sum a_n`` and
``T = sum a_n/(n+1)`` run over the terms of ``exp(-c r - r^2/2)`` sorted by powers of ``r``:
``a_n = -(c r a_{n-1} + r^2 a_{n-2})/n``. As ``|c r| <= 0.0723`` and ``r^2 <= 2^-18``, what follows
``n = 9`` is below ``0.01 u``; terms after the first sum to less than 0.078 and are off by a few
``u`` relative to that, so ``S`` and ``T`` are off by ``1.5 u``, ``f`` by ``3.6 u``. ``f/Q`` grows
like ``x``: ``|f(c) r T| <= 0.09 Q(x)`` and ``Q(c) <= 1.09 Q(x)``, so ``Q`` is off by
``0.09 (3 + 1.5) u + 1.09 u + u``, below ``2.6 u``.

``PRECISE`` covers what is below ``7 u`` and ``GOOD`` what is below ``15 u``, the rest of each being
room for the rounding of whoever uses them.
"""

from __future__ import annotations

from functools import cache

import flint
import torch
from torch import Tensor

from paramrob.bounds.elementary import checked, exp_negative, reduce, tables

PRECISE = 2.0**-50
"""Relative error (8 u) of :func:`logistic`'s and :func:`normal_tail`'s values and of exp."""
GOOD = 2.0**-49
"""Relative error (16 u) of expm1, log1p and the derivatives of :func:`logistic` and tanh."""
LARGEST_NORMAL = 37.0
"""Beyond it :func:`normal_tail` stays the same: off by less than 2^-980."""

_LARGEST = 707.0
_CELLS, _TERMS = 256, 10


def logistic(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``e = exp(-x)``, ``n = e/(1+e)`` and ``n (1-n)`` for ``x >= 0``, any shape.

    Relative errors below 3.1, 5.2 and 9 u up to ``x = 707``; beyond, the values stay (off by less
    than ``elementary.UNDERFLOW``). NaN stays NaN.
    """
    e = exp_negative(checked(x))
    denominator = e + 1.0
    n = e / denominator
    return e, n, n / denominator


def exp_expm1(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute exp and expm1 of ``x <= 0``, any shape, to relative errors below 3.1 and 7.7 u.

    Left of -707 the values stay (off by less than ``elementary.UNDERFLOW``). NaN stays NaN.
    """
    q, scale, index = reduce(checked(x).clamp(min=-_LARGEST), 0)
    exponential = q + 1.0
    exponential *= scale
    q += tables(x.device)[1][index]
    q *= scale
    scale -= 1.0
    q += scale
    return exponential, q


def tanh_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute tanh and its derivative, any shape: relative errors below 9.8 and 12 u.

    Both also within ``elementary.UNDERFLOW``, which is all that holds where they are below it.
    """
    magnitude = checked(x).abs()
    exponential, d = exp_expm1(magnitude * -2.0)
    denominator = d + 2.0
    slope = exponential.mul_(4.0).div_(denominator).div_(denominator)
    return torch.copysign(d.neg_().div_(denominator), x), slope


@cache
def _logarithms(device: torch.device) -> Tensor:
    with flint.ctx.workprec(128):
        values = [float((1 + flint.arb(j) / 64).log()) for j in range(65)]
    return torch.tensor(values, dtype=torch.float64, device=device)


def log1p_unit(y: Tensor) -> Tensor:
    """Compute log(1+y) for ``y`` in [0, 1], any shape, to a relative error below 6.2 u.

    Below ``2^-1020`` it is off by less than ``2^-1073`` instead.
    """
    j = torch.round(checked(y) * 64.0)
    base = j / 64.0
    g = y - base
    w = g / (base.add_(1.0).mul_(2.0).add_(g))
    square = w * w
    poly = square * (2.0 / 7.0)
    poly += 2.0 / 5.0
    poly *= square
    poly += 2.0 / 3.0
    poly *= square
    poly *= w
    poly += w.mul_(2.0)
    # NaN makes an index that no table has; the sum is NaN whatever the entry
    index = j.nan_to_num_(nan=0.0).to(torch.int64)
    return poly.add_(torch.take(_logarithms(y.device), index))


@cache
def _normal_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    with flint.ctx.workprec(128):
        root = flint.arb(2).sqrt()
        scale = 1 / (2 * flint.arb.pi()).sqrt()
        centres = [flint.arb(j) / _CELLS for j in range(int(LARGEST_NORMAL) * _CELLS + 1)]
        tails = [float((c / root).erfc() / 2) for c in centres]
        densities = [float((-c * c / 2).exp() * scale) for c in centres]
    return (
        torch.tensor(tails, dtype=torch.float64, device=device),
        torch.tensor(densities, dtype=torch.float64, device=device),
    )


def normal_tail(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the normal distribution's tail beyond ``x >= 0`` and its density at ``x``.

    Any shape; relative errors below 2.6 and 3.6 u up to ``LARGEST_NORMAL``, beyond which the
    values stay. NaN stays NaN.
    """
    x = checked(x).clamp(max=LARGEST_NORMAL)
    j = torch.round(x * float(_CELLS))
    c = j / _CELLS
    r = x - c
    h = c.mul_(r).neg_()
    square = (r * r).neg_()
    before, term = torch.zeros_like(x), torch.ones_like(x)
    density, integral = torch.zeros_like(x), torch.zeros_like(x)
    for n in range(1, _TERMS):
        before, term = term, (h * term).add_(square * before).mul_(1.0 / n)
        density += term
        integral += term * (1.0 / (n + 1))
    index = j.nan_to_num_(nan=0.0).to(torch.int64)
    tails, densities = _normal_tables(x.device)
    at = torch.take(densities, index)
    integral.add_(1.0).mul_(r).mul_(at)
    return torch.take(tails, index).sub_(integral), density.add_(1.0).mul_(at)

r"""What floating point can take away from a linear bound, charged once per layer.

A backward pass keeps the claim ``v >= A h + c`` with floating-point numbers ``A`` and ``c`` that
are exact from then on. A step computes new numbers; the claim stays true if ``c`` is lowered by
what the step's rounding can have cost: at most ``gamma_n`` times the sum of the magnitudes of all
products involved (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.1), each
taken at the largest magnitude that the layer's values reach on the whole domain. These
magnitudes are computed once, at the root of the search, so that a charge is one product of
``|A|`` with a fixed vector.

Let ``H`` bound ``|h|`` of reference and uncertain network at a layer's input. The vectors are

- ``z = |W| H + |b|``: for a coefficient on ``z``;
- ``e = 2 (|W| + 2|C| + 4R) H + 2|c| + 2r``: for a coefficient on ``e``, the slack included;
- ``q = z + (|W| + |C| + R) H + |b| + |c| + r + e + 8``: for a coefficient on the activation's
  result. Relaxations are built so that each line is valid up to ``64 u q``, slopes are at most 1
  and intercepts at most ``2 q``.

``factor`` is ``u`` times the number of roundings in a step, doubled: for the products, for the sum
into ``c`` over all steps, for the charge's own rounding, and for weights that are themselves off
by a few ``u`` (reciprocals). Underflow adds ``tiny`` to a step, and ``FLOOR`` to a magnitude, so
that large coefficients on tiny values are charged for. All of it rests on rounding to nearest and
on subnormal numbers being kept: :func:`check_arithmetic` makes sure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paramrob.bounds.chain import Chain
from paramrob.errors import BackendError

UNIT = 2.0**-53
SMALLEST_NORMAL = 2.0**-1022
INFLATE = 1.0 + 2.0**-30
FLOOR = 2.0**-900
"""No magnitude is smaller: what underflows in computing one, or a charge from it, is less."""


def check_arithmetic() -> None:
    """Make sure that this thread's float64 arithmetic is the one that the proofs assume.

    Raises:
        BackendError: subnormals are flushed to zero, or rounding is not to nearest.
    """
    small = torch.full((1,), SMALLEST_NORMAL, dtype=torch.float64, device="cpu")
    if not bool(small / 2 > 0):
        raise BackendError(
            "subnormal numbers are flushed to zero in this process; call "
            "torch.set_flush_denormal(False) first"
        )
    one = torch.ones(1, dtype=torch.float64, device="cpu")
    up, down = one + UNIT * 0.75, one - UNIT * 0.25
    if not (bool(up == 1) and bool(down == 1)):
        raise BackendError(
            "floating point does not round to nearest in this process; reset its rounding mode"
        )


@dataclass(frozen=True)
class Charges:
    """Charges of one affine layer and the activation behind it; each row vector is ``(out,)``."""

    factor: float
    z: Tensor
    e: Tensor
    q: Tensor
    tiny: float


@dataclass(frozen=True)
class Magnitudes:
    """Charges of every layer, and the largest magnitudes of the input ``(in,)``."""

    layers: tuple[Charges, ...]
    inputs: Tensor


def magnitudes(chain: Chain, lower: Tensor, upper: Tensor) -> Magnitudes:
    """Return the charges for inputs between ``lower`` and ``upper``, ``(in,)`` each."""
    h = torch.maximum(lower.abs(), upper.abs()) * INFLATE
    inputs = h
    charges: list[Charges] = []
    for k, layer in enumerate(chain.layers):
        weight, offset, radius = (
            layer.weight.abs(),
            layer.weight_offset.abs(),
            layer.weight_radius,
        )
        bias = layer.bias.abs()
        slack = layer.bias_offset.abs() + layer.bias_radius
        z = (weight @ h + bias) * INFLATE + FLOOR
        moved = ((weight + offset + radius) @ h + bias + slack) * INFLATE + FLOOR
        e = (2 * (weight + 2 * offset + 4 * radius) @ h + 2 * slack) * INFLATE + FLOOR
        q = z + moved + e + 8
        steps = sum(layer.weight.shape) + 48 + 12 * len(chain.layers)
        factor = 2 * steps * UNIT
        tiny = steps * SMALLEST_NORMAL * 2 * float(1 + z.sum() + e.sum() + q.sum() + h.sum())
        charges.append(Charges(factor, z, e, q, tiny))
        if k < len(chain.activations):
            bounded = chain.activations[k].kind in ("sigmoid", "tanh")
            h = torch.ones_like(moved) if bounded else moved
    return Magnitudes(tuple(charges), inputs)

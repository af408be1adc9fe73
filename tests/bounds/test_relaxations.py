"""Every line and plane against exact values, up to the rounding that the charges cover."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import flint
import numpy as np
import pytest
import torch
from torch import Tensor

from paramrob.bounds.relaxations import Choice, Line, Plane, Ranges, Relaxed, relax
from paramrob.bounds.rounding import UNIT
from paramrob.models.network import Activation

ACTIVATIONS = [
    Activation("identity"),
    Activation("relu"),
    Activation("leaky_relu", 0.1),
    Activation("leaky_relu", 0.7),
    Activation("sigmoid"),
    Activation("tanh"),
]
CLAIMED = 64
"""Units of roundoff, times q, up to which a line or plane may be wrong."""


def exact(value: float) -> flint.fmpq:
    f = Fraction(value)
    return flint.fmpq(f.numerator, f.denominator)


def phi(op: Activation, t: flint.fmpq) -> flint.arb:
    """Return a ball around the activation of a rational (a point where no exponential enters)."""
    if op.kind in ("sigmoid", "tanh"):
        factor = 2 if op.kind == "tanh" else 1
        scaled = flint.arb(t) * factor
        if scaled > 2000 or scaled < -2000:
            s = flint.arb(int(scaled > 0)) + flint.arb(0, 1e-300)
        else:
            s = 1 / (1 + (-scaled).exp())
        return 2 * s - 1 if op.kind == "tanh" else s
    if op.kind == "identity" or t > 0:
        return flint.arb(t)
    return flint.arb(exact(op.slope) * t)


def random_ranges(rng: np.random.Generator, count: int) -> tuple[Ranges, Tensor]:
    """Return ranges of every kind and a ``q`` as the magnitudes would give, ``(1, count)`` each."""
    rows: list[tuple[float, ...]] = []
    while len(rows) < count:
        size = 10.0 ** rng.choice([-300, -150, -12, -3, -1, 0, 0, 0, 1, 1, 2, 6, 100, 150])
        zl, zu = np.sort(rng.normal(size=2) * size)
        spread = size * 10.0 ** rng.choice([-20, -9, -3, -1, 0, 1])
        el, eu = np.sort(rng.normal(size=2) * spread)
        if rng.uniform() < 0.5:
            el, eu = -abs(el), abs(eu)
        if rng.uniform() < 0.15:
            zl = zu
        if rng.uniform() < 0.15:
            el = eu
        if rng.uniform() < 0.1:
            zl, zu = (0.0, abs(zu)) if rng.uniform() < 0.5 else (-abs(zl), 0.0)
        pl, pu = zl + el, zu + eu
        if rng.uniform() < 0.3:  # what a cut leaves
            middle = pl + rng.uniform() * (pu - pl)
            pl, pu = (middle, pu) if rng.uniform() < 0.5 else (pl, middle)
        if zl <= zu and el <= eu and pl <= pu:
            rows.append((zl, zu, el, eu, pl, pu))
    columns = torch.tensor(rows, dtype=torch.float64).T.unsqueeze(1)
    z = columns[:2].abs().amax(0)
    e = columns[2:4].abs().amax(0)
    return Ranges(*columns), 2 * z + e + e + 8


def points(rng: np.random.Generator, ends: tuple[float, ...]) -> Iterator[tuple[float, float]]:
    """Yield ``(z, e)`` with ``z``, ``e`` and ``z + e`` in their ranges, exactly."""
    zl, zu, el, eu, pl, pu = ends
    for i in range(24):
        s, t = rng.uniform(size=2) if i > 8 else (i % 3 / 2, i // 3 / 2)
        z = min(max(zl + s * (zu - zl), zl), zu)
        e = min(max(el + t * (eu - el), el), eu)
        if i % 4 == 1 and zl <= 0 <= zu:
            z = 0.0
        if i % 4 == 2 and el <= -z <= eu:
            e = -z
        if Fraction(pl) <= Fraction(z) + Fraction(e) <= Fraction(pu):
            yield z, e


def at(item: Line | Plane, i: int, z: flint.fmpq, e: flint.fmpq) -> flint.arb:
    if isinstance(item, Line):
        slope, intercept = exact(float(item.slope[0, i])), exact(float(item.intercept[0, i]))
        return flint.arb(slope * z + intercept)
    parts = [exact(float(v[0, i])) for v in (item.z, item.e, item.intercept)]
    return flint.arb(parts[0] * z + parts[1] * e + parts[2])


def assert_valid(op: Activation, r: Relaxed, i: int, point: tuple[float, float], q: float) -> None:
    z, e = exact(point[0]), exact(point[1])
    room = flint.arb(CLAIMED * UNIT * q)
    before, after = phi(op, z), phi(op, z + e)
    change = after - before
    for low, high, value in ((r.h_low, r.h_high, before), (r.d_low, r.d_high, change)):
        assert not at(low, i, z, e) > value + room, (op, i, point, "low")
        assert not at(high, i, z, e) < value - room, (op, i, point, "high")


def choices(rng: np.random.Generator, count: int) -> list[Choice | None]:
    def some(value: float | None) -> Tensor:
        if value is not None:
            return torch.full((1, count), value, dtype=torch.float64)
        return torch.from_numpy(rng.uniform(size=(1, count)))

    return [None, *(Choice(*(some(v) for _ in range(5))) for v in (0.0, 1.0, None))]


@pytest.mark.parametrize("op", ACTIVATIONS, ids=lambda op: f"{op.kind}{op.slope or ''}")
def test_lines_and_planes_hold_at_dense_samples(op: Activation) -> None:
    rng = np.random.default_rng(3)
    count = 90
    ranges, q = random_ranges(rng, count)
    relaxation = relax(op, ranges)
    with flint.ctx.workprec(1400):
        relaxed = [relaxation.at(c) for c in choices(rng, count)]
        for i in range(count):
            ends = tuple(float(v[0, i]) for v in vars(ranges).values())
            for point in points(rng, ends):
                for r in relaxed:
                    assert_valid(op, r, i, point, float(q[0, i]))


def test_infinite_ranges_give_no_wrong_line() -> None:
    inf = float("inf")
    ends = [(-inf, inf), (-inf, 2.0), (-2.0, inf), (3.0, inf), (-inf, -3.0)]
    for op in ACTIVATIONS:
        for zl, zu in ends:
            values = (zl, zu, -1.0, 1.0, zl - 1.0, zu + 1.0)
            ranges = Ranges(*(torch.tensor([[v]], dtype=torch.float64) for v in values))
            r = relax(op, ranges).at()
            for z in (-50.0, -1.0, 0.5, 50.0):
                if not zl <= z <= zu:
                    continue
                value = float(phi(op, exact(z)))
                low = r.h_low.slope * z + r.h_low.intercept
                high = r.h_high.slope * z + r.h_high.intercept
                assert not bool((low > value + 1e-9).any())
                assert not bool((high < value - 1e-9).any())

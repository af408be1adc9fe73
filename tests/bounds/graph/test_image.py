"""Images against ball arithmetic: they enclose, and they are tight."""

from __future__ import annotations

import math

import flint
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paramrob.bounds.graph.lines import image
from paramrob.errors import SoundnessError
from paramrob.models.ops import Activation
from tests.bounds.graph.activation_truth import MARKS, OPS, intervals, name_of, phi

every_op = pytest.mark.parametrize("op", OPS, ids=name_of)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_encloses(op: Activation, lower: Tensor, upper: Tensor) -> None:
    low, high = image(op, lower, upper)
    with flint.ctx.workprec(200):
        for a, b, least, most in zip(*(t.tolist() for t in (lower, upper, low, high)), strict=True):
            width = flint.arb(b) - flint.arb(a)
            inside = [flint.arb(a) + width * k / 9 for k in range(10)]
            inside += [flint.arb(m) for m in MARKS]
            for z in inside:
                if a <= z <= b:
                    value = phi(op, z)
                    assert not value < flint.arb(least), (a, b, z)
                    assert math.isinf(most) or not value > flint.arb(most), (a, b, z)


@every_op
def test_images_enclose_every_value(op: Activation) -> None:
    assert_encloses(op, *intervals(300, seed=11))


@every_op
@given(a=st.floats(allow_nan=False), b=st.floats(allow_nan=False))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_images_enclose_whatever_the_ends(op: Activation, a: float, b: float) -> None:
    least, most = min(a, b), max(a, b)
    low, high = image(op, double(least), double(most))
    assert not low.isnan().any()
    assert not high.isnan().any()
    finite = [v for v in (max(least, -1e308), min(most, 1e308)) if math.isfinite(v)]
    with flint.ctx.workprec(200):
        for z in (v for v in (*finite, 0.0, -1.0, 2.0) if least <= v <= most):
            value = phi(op, flint.arb(z))
            assert low == -math.inf or not value < flint.arb(float(low))
            assert high == math.inf or not value > flint.arb(float(high))


@every_op
def test_images_are_tight(op: Activation) -> None:
    lower, upper = intervals(300, seed=12)
    lower, upper = lower.clamp(-30, 30), upper.clamp(-30, 30)
    low, high = image(op, lower, upper)
    units = 8000 if op.kind == "gelu_tanh" or op.beta != 1.0 else 25
    turns = {"silu": -1.278464542761073795, "gelu": -0.751791524693564457898}
    turns |= {"gelu_tanh": -0.75246142207101625848795, "hardswish": -1.5}
    least = turns.get(op.kind, math.inf)
    for i, (a, b) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        at = [a, b, *([least] if a <= least <= b else [])]
        with flint.ctx.workprec(200):
            values = [float(phi(op, flint.arb(z))) for z in at]
        for got, wanted in ((float(low[i]), min(values)), (float(high[i]), max(values))):
            assert abs(got - wanted) <= units * 2.0**-53 * abs(wanted) + 1e-290, (a, b)


def test_straight_activations_are_exact() -> None:
    lower, upper = double(-1.0, 0.25, -3.0, 0.0), double(0.7, 0.3, -1.0, 0.0)
    low, high = image(Activation("relu"), lower, upper)
    assert low.tolist() == [0.0, 0.25, 0.0, 0.0]
    assert high.tolist() == [0.7, 0.3, 0.0, 0.0]
    low, high = image(Activation("identity"), lower, upper)
    assert torch.equal(low, lower)
    assert torch.equal(high, upper)
    low, high = image(Activation("clamp", low=-0.5, high=0.28), lower, upper)
    assert low.tolist() == [-0.5, 0.25, -0.5, 0.0]
    assert high.tolist() == [0.28, 0.28, -0.5, 0.0]


@pytest.mark.parametrize(
    ("op", "everything"),
    [
        (Activation("relu"), (0.0, math.inf)),
        (Activation("leaky_relu", slope=0.1), (-math.inf, math.inf)),
        (Activation("leaky_relu", slope=0.0), (0.0, math.inf)),
        (Activation("identity"), (-math.inf, math.inf)),
        (Activation("clamp", low=-1.0, high=2.0), (-1.0, 2.0)),
        (Activation("sigmoid"), (0.0, 1.0)),
        (Activation("tanh"), (-1.0, 1.0)),
        (Activation("softplus"), (0.0, math.inf)),
        (Activation("elu", alpha=0.5), (-0.5, math.inf)),
        (Activation("hardsigmoid"), (0.0, 1.0)),
        (Activation("hardswish"), (-0.375, math.inf)),
        (Activation("silu"), (-0.27846454276107385, math.inf)),
        (Activation("gelu"), (-0.16997120747990369, math.inf)),
        (Activation("gelu_tanh"), (-0.1700407505712541, math.inf)),
    ],
    ids=lambda v: v.kind if isinstance(v, Activation) else "",
)
def test_infinite_and_missing_ends(op: Activation, everything: tuple[float, float]) -> None:
    inf, nan = math.inf, math.nan
    low, high = image(op, double(-inf, nan, 0.0, 1.0), double(inf, 0.0, nan, 0.0))
    assert (float(low[0]), float(high[0])) == everything
    assert (low[1:] == -inf).all()
    assert (high[1:] == inf).all()


def test_shapes_and_dtypes() -> None:
    lower = torch.zeros(2, 1, 3, dtype=torch.float64)
    assert image(Activation("gelu"), lower, lower + 1)[0].shape == (2, 1, 3)
    assert image(Activation("gelu"), lower[:0], lower[:0])[1].shape == (0, 1, 3)
    with pytest.raises(SoundnessError, match="float64"):
        image(Activation("relu"), lower.float(), lower)

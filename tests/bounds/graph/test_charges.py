"""What rounding and underflow are charged, each against exact rationals, and each to the point.

Every network here is one whose bound would be wrong without the charge: the test takes the charge
away and sees the bound cross the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from paramrob.bounds.graph import backward, crown, forward
from paramrob.bounds.graph.backward import Rows
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.lines import Lines
from paramrob.bounds.graph.program import lower
from paramrob.engine import METHODS, Method
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Network
from paramrob.perturbation import Perturbation
from tests.bounds.graph.adversarial import dense
from tests.bounds.graph.exact_graph import evaluate
from tests.bounds.graph.nets import Build


def chain(weights: list[float], op: Activation | None = None) -> Network:
    """Return numbers multiplied one after the other, without biases."""
    build = Build((1,))
    for i, weight in enumerate(weights):
        if i and op is not None:
            build.add(op)
        dense(build, [[weight]])
    return build.network()


RELU = Activation("relu")
UNDERFLOWS = {
    # The pulled coefficient 2^-1200 is no number, the input that it meets is huge.
    "coefficients": (chain([-(2.0**-600), 2.0**-600]), 2.0**1000),
    "coefficients behind a ReLU": (chain([2.0**-600, -(2.0**-600)], RELU), 2.0**1000),
    "rows of neurons": (chain([2.0**500, 2.0**-600, -(2.0**-600)], RELU), 2.0**500),
}


def least(network: Network, x: Tensor, method: Method) -> Tensor:
    bound_pass = GraphPass(lower(network, Perturbation({}), OutputInfo("value", None)))
    analysis = bound_pass.analyse(x, x, method)
    rows = torch.eye(network.output_size, dtype=torch.float64).expand(len(x), -1, -1)
    return bound_pass.bound(analysis, rows, method)


def wrong(network: Network, x: Tensor, methods: tuple[Method, ...] = METHODS) -> int:
    """Return how many of the methods' bounds lie above the exact value."""
    count = 0
    for method in methods:
        found = least(network, x, method)
        for point, bounds in zip(x.numpy(), found.tolist(), strict=True):
            exact = evaluate(network, point)
            count += sum(Fraction(b) > v for b, v in zip(bounds, exact, strict=True))
    return count


def without(monkeypatch: pytest.MonkeyPatch, name: str, nothing: Callable[..., object]) -> None:
    for module in (forward, backward, crown):
        monkeypatch.setattr(module, name, nothing)


@pytest.mark.parametrize("name", UNDERFLOWS)
def test_what_underflows_is_charged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, place = UNDERFLOWS[name]
    x = torch.tensor([[place]], dtype=torch.float64)
    assert evaluate(network, [place])[0] < 0
    assert wrong(network, x) == 0
    without(monkeypatch, "tiny", lambda terms, *sizes: torch.zeros_like(sizes[0][:, 0]))
    assert wrong(network, x) > 0


def rounded_network(layers: int) -> Network:
    build = Build((7,), 3)
    for i in range(layers):
        if i:
            build.add(Activation("leaky_relu", slope=0.3))
        build.dense(9)
    return build.network()


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_what_is_rounded_is_charged(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a perturbation the bounds are the value itself, up to rounding."""
    network = rounded_network(layers)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(12, 7)))
    assert wrong(network, x) == 0
    without(monkeypatch, "factor", lambda terms: 0.0)
    monkeypatch.setattr(backward, "UNIT", 0.0)
    assert wrong(network, x) > 0


def test_a_row_through_relaxed_signs_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products with slopes and intercepts round as well; a ReLU bends here at every input."""
    build = Build((2,), 4)
    dense(build, build.rng.normal(size=(40, 2)))
    build.add(RELU)
    dense(build, build.rng.normal(size=(12, 40)))
    network = build.network()
    centre = np.random.default_rng(2).normal(size=(6, 2)) * 1e-3
    low, high = torch.from_numpy(centre - 1e-3), torch.from_numpy(centre + 1e-3)
    bound_pass = GraphPass(lower(network, Perturbation({}), OutputInfo("value", None)))
    rows = torch.eye(12, dtype=torch.float64).expand(6, -1, -1)
    charged = bound_pass.bound(bound_pass.analyse(low, high), rows)
    without(monkeypatch, "factor", lambda terms: 0.0)
    free = bound_pass.bound(bound_pass.analyse(low, high), rows)
    assert bool((charged < free).all())
    assert float((free - charged).max()) < 1e-12


@pytest.mark.parametrize("per_row", [False, True])
def test_lines_take_no_more_than_is_charged(per_row: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim that a step makes, in rationals, on values at either end; any lines will do."""
    count, rng = 300, np.random.default_rng(5)
    build = Build((count,))
    build.add(RELU)
    network = build.network()
    bound_pass = GraphPass(lower(network, Perturbation({}), OutputInfo("value", None)))
    ends = torch.from_numpy(rng.uniform(1, 3, size=(1, count)))
    intervals = bound_pass.analyse(-ends, ends).intervals
    shape = (4, count) if per_row else (count,)
    low_slope, low, high_slope, high = torch.from_numpy(rng.uniform(-1, 1, size=(4, 1, *shape)))
    line = Lines(low_slope, low * 1e3, high_slope, high * 1e3)
    a = torch.from_numpy(rng.normal(size=(1, 4, count)))

    def crossed() -> int:
        rows = Rows({}, torch.zeros(1, 4).double(), torch.zeros(1, 4).double())
        backward._activation(rows, a, intervals, 1, line)
        found = backward.least(rows)[0].tolist()
        pulled = rows.on[0][0]
        above = 0
        for sign in (-1, 1):
            for row in range(4):
                exact = claimed = Fraction(0)
                given = (t[0, row] if per_row else t[0] for t in line.__dict__.values())
                numbers = zip(a[0, row], ends[0] * sign, *given, pulled[row], strict=True)
                for r, z, ls, lo, hs, hi, p in (map(Fraction, map(float, n)) for n in numbers):
                    exact += r * (ls * z + lo) if r > 0 else r * (hs * z + hi)
                    claimed += p * z
                above += claimed + Fraction(found[row]) > exact
        return above

    assert crossed() == 0
    monkeypatch.setattr(backward, "factor", lambda terms: 0.0)
    monkeypatch.setattr(backward, "UNIT", 0.0)
    assert crossed() > 0

"""Bounds of floating-point execution against emulated machines and torch's own low precisions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import numpy as np
import pytest
import torch

import paramrob
from paramrob.arithmetic import Arithmetic, arithmetic_from
from paramrob.bounds.graph.alpha import optimised
from paramrob.bounds.graph.crown import GraphPass
from paramrob.bounds.graph.program import lower
from paramrob.engine import METHODS, Method
from paramrob.errors import BackendError
from paramrob.models.model import OutputInfo
from paramrob.models.network import (
    Activation,
    ActivationKind,
    Add,
    Array,
    BatchNorm,
    Conv,
    Dense,
    Elementwise,
    Network,
    Pool,
    Reshape,
    Transpose,
)
from paramrob.perturbation import Perturbation
from tests.bounds.graph.nets import NETWORKS, Build, both_signs, dense_network, inputs, members
from tests.machine import Machine, machines

FORMATS = [
    ("float32", "float32"),
    ("float32", "float64"),
    ("float16", "float32"),
    ("bfloat16", "float32"),
    ("float16", "float16"),
    ("bfloat16", "bfloat16"),
]
VALUE = OutputInfo("value", None)


def named(storage: str, accumulator: str) -> Arithmetic:
    found = arithmetic_from(storage, accumulator)
    assert found is not None
    return found


def ends(
    network: Network,
    x: torch.Tensor,
    delta: str,
    arithmetic: Arithmetic | None,
    method: Method = "crown",
) -> tuple[Array, Array]:
    """Return bounds of every output, ``(batch, out)``."""
    box = Perturbation.uniform(network, Fraction(delta))
    bound_pass = GraphPass(lower(network, box, VALUE, "cpu", arithmetic))
    analysis = bound_pass.analyse(x, x, method)
    rows = both_signs(network.output_size, x.shape[0])
    least = bound_pass.bound(analysis, rows, method)
    if method == "alpha":
        least = torch.maximum(least, optimised(analysis, rows, 5))
    size = network.output_size
    return least[:, :size].numpy(), -least[:, size:].numpy()


def executions(
    network: Network,
    x: torch.Tensor,
    delta: str,
    arithmetic: Arithmetic,
    vectors: int = 1,
) -> Array:
    """Return ``(machines / batch, batch, out)``: every machine executes one of the inputs.

    Parameters are drawn from the box, ``vectors`` of them in turn.
    """
    chosen = members(network, float(delta), vectors)
    known = machines(arithmetic.storage.name, arithmetic.accumulator.name)
    batch = len(x)
    found = []
    for i, machine in enumerate(known[: len(known) // batch * batch]):
        values = {n: p.value for n, p in network.parameters.items()} | chosen[i % vectors]
        found.append(machine.run(network, x[i % batch].numpy(), values))
    return np.array(found).reshape(-1, batch, network.output_size)


def assert_inside(seen: Array, found: tuple[Array, Array]) -> None:
    assert np.isfinite(seen).all()
    assert (seen >= found[0]).all()
    assert (seen <= found[1]).all()


DEPLOYED = [*((f, "0") for f in FORMATS), (FORMATS[0], "0.01"), (FORMATS[3], "0.01")]


@pytest.mark.parametrize(("formats", "delta"), DEPLOYED, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_execution_leaves_the_bounds(name: str, formats: tuple[str, str], delta: str) -> None:
    network, arithmetic = NETWORKS[name], named(*formats)
    x = inputs(network, 2)
    seen = executions(network, x, delta, arithmetic, 16)
    for method in METHODS:
        assert_inside(seen, ends(network, x, delta, arithmetic, method))
    # What rounding adds is seen: bounds of the real network alone would be left.
    if delta == "0":
        low, high = ends(network, x, delta, None)
        assert ((seen < low) | (seen > high)).any()


KINDS: Sequence[ActivationKind] = (
    "relu", "leaky_relu", "sigmoid", "tanh", "clamp", "softplus", "elu", "silu", "gelu",
    "gelu_tanh", "hardswish", "hardsigmoid",
)  # fmt: skip


@pytest.mark.parametrize("formats", FORMATS[1:3], ids="/".join)
@pytest.mark.parametrize("kind", KINDS)
def test_activations_of_a_library_stay_inside(
    kind: ActivationKind, formats: tuple[str, str]
) -> None:
    op = Activation(kind, slope=0.1, low=-0.3, high=0.7, alpha=1.3, beta=2.1)
    network = dense_network((4, 6, 5, 2), 5, op)
    arithmetic = named(*formats)
    x = 3 * inputs(network, 2)
    seen = executions(network, x, "0", arithmetic, 4)
    for method in METHODS[2:]:
        assert_inside(seen, ends(network, x, "0", arithmetic, method))


def mixed() -> Network:
    """Sums of three values, one of them twice, constants of every kind, a sigmoid at the end."""
    build = Build((6,), 8)
    start = build.dense(6)
    other = build.add(Activation("tanh"))
    build.add(Add(), start, other, other)
    build.add(Elementwise("div", build.parameter(build.rng.uniform(0.5, 2, size=6))))
    build.add(Elementwise("sub", build.normal(6)))
    build.add(Elementwise("add", build.normal(1)))
    build.dense(3)
    build.add(Activation("sigmoid"))
    return build.network()


@pytest.mark.parametrize("formats", FORMATS, ids="/".join)
def test_sums_of_several_values_and_constants(formats: tuple[str, str]) -> None:
    network, arithmetic = mixed(), named(*formats)
    x = inputs(network, 3)
    for delta in ("0", "0.002"):
        seen = executions(network, x, delta, arithmetic, 8)
        for method in METHODS:
            assert_inside(seen, ends(network, x, delta, arithmetic, method))


def alone(kind: str) -> Network:
    """Return one operation by itself, its parameters exact in every format."""
    build = Build((4, 4), 12)

    def held(*values: float, fixed: bool = False) -> str:
        return build.parameter(np.array(values), fixed)

    if kind == "storing":
        build.add(Activation("relu"))
    elif kind == "product":
        build.add(Elementwise("mul", held(1.25, -1.5, 0.75, 1.75)))
    elif kind == "quotient":
        build.add(Elementwise("div", held(1.25, -1.5, 0.75, 1.75)))
    elif kind == "constant":
        build.add(Elementwise("rsub", held(1.25, -1.5, 0.75, 0.0625)))
    elif kind == "bias":
        # Products and biases all but cancel.
        build.add(Dense(build.parameter(np.diag([1.0] * 4)), held(-0.625, -0.75, 0.75, 0.5)))
    elif kind == "shared":
        build.add(Reshape(), shape=(1, 4, 4))
        kernel = build.parameter(np.array([1.25]).reshape(1, 1, 1, 1))
        build.add(Conv(kernel, held(0.75), (1, 1), ((0, 0), (0, 0)), (1, 1)))
    elif kind == "positions":
        build.add(Dense(build.parameter(np.diag([1.25, 0.75, 1.5, 1.75])), held(0.5, -0.5, 1, 0)))
    elif kind in ("sum", "sums"):
        turned = build.add(Transpose((1, 0)), "x")
        others = [build.add(Activation("relu"), "x")] if kind == "sums" else []
        build.add(Add(), "x", turned, *others)
    elif kind == "average":
        build.add(Reshape(), shape=(1, 4, 4))
        build.add(Pool("average", (3, 3), (1, 1), ((0, 1), (0, 0)), (1, 1), False))
    elif kind == "norm":
        mean = held(0.5, -0.25, 8, 0.0, fixed=True)
        variance = held(1.0, 0.5, 2, 0.25, fixed=True)
        build.add(BatchNorm(mean, variance, 2.0**-9, held(1.5, 0.5, 1, 2), held(0.25, 1, 0, 4)))
    else:
        build.add(Activation(cast(ActivationKind, kind), slope=0.1, low=-0.3, high=0.3))
    return build.network()


ALONE = (
    "storing", "product", "quotient", "constant", "bias", "shared", "positions", "sum", "sums",
    "average", "norm", *KINDS[1:],
)  # fmt: skip


@pytest.mark.parametrize("formats", [FORMATS[i] for i in (0, 2, 3, 4)], ids="/".join)
@pytest.mark.parametrize("kind", ALONE)
def test_errors_of_one_operation_alone(kind: str, formats: tuple[str, str]) -> None:
    """Rows follow the signs of the errors of each execution: no two of them cancel."""
    network, arithmetic = alone(kind), named(*formats)
    rng = np.random.default_rng(2)
    for scale in (1.0, 20.0, 4 * arithmetic.storage.smallest):
        x = scale * rng.uniform(-1, 1, size=(1, 16))
        if kind != "storing":
            x = arithmetic.storage.nearest(x)
        real = network.evaluate(x.reshape(1, *network.input_shape)).reshape(-1)
        seen = executions(network, torch.from_numpy(x), "0", arithmetic)[:, 0]
        box = Perturbation.uniform(network, Fraction(0))
        bound_pass = GraphPass(lower(network, box, VALUE, "cpu", arithmetic))
        signs = np.where(seen > real, 1.0, -1.0)
        rows = np.concatenate([signs, -signs, np.eye(real.size), -np.eye(real.size)])
        for method in (METHODS[0], METHODS[2]):
            analysis = bound_pass.analyse(torch.from_numpy(x), torch.from_numpy(x), method)
            given = torch.from_numpy(rows).unsqueeze(0)
            least = bound_pass.bound(analysis, given, method)[0].numpy()
            exact = (seen[:, None] * rows[None]).sum(-1)
            assert (exact >= least).all(), method


def cancelling(size: int, terms: int, arithmetic: Arithmetic, seed: int = 3) -> Network:
    """Large stored weights whose products all but cancel: the order of a sum decides its result."""
    build = Build((terms,), seed)
    half = build.rng.uniform(0.5, 1, size=(size, terms // 2)) * 1000
    half = arithmetic.storage.nearest(half)
    weight = np.concatenate([half, -half], axis=1)
    network = dense_network((terms, size), seed)
    name = next(n for n, p in network.parameters.items() if p.value.ndim == 2)
    parameters = [
        type(p)(p.name, weight if p.name == name else p.value) for p in network.parameters.values()
    ]
    return Network(network.nodes, parameters)


@pytest.mark.parametrize("formats", [FORMATS[0], FORMATS[4], FORMATS[5]], ids="/".join)
def test_cancellation_is_within_the_bounds_and_they_are_not_absurd(
    formats: tuple[str, str],
) -> None:
    arithmetic = named(*formats)
    network = cancelling(6, 40, arithmetic)
    x = torch.from_numpy(arithmetic.storage.nearest(np.full((1, 40), 0.7310585786300049)))
    seen = executions(network, x, "0", arithmetic)
    low, high = ends(network, x, "0", arithmetic)
    assert_inside(seen, (low, high))
    middle = (low + high) / 2
    ratio = ((high - low) / 2).max() / np.abs(seen - middle).max()
    assert ratio < 100
    assert (seen.max(0) - seen.min(0)).max() > 0


@pytest.mark.parametrize(
    ("formats", "most"), [(FORMATS[0], 250), (FORMATS[2], 80), (FORMATS[3], 80)], ids=str
)
def test_the_widening_is_of_the_size_of_what_is_seen(formats: tuple[str, str], most: float) -> None:
    network, arithmetic = dense_network((20, 30, 30, 3), 4), named(*formats)
    x = inputs(network, 4)
    seen = executions(network, x, "0", arithmetic)
    low, high = ends(network, x, "0", arithmetic)
    real = network.evaluate(x.numpy())
    off = np.abs(seen - real).max(axis=(0, 2))
    room = np.maximum(high - real, real - low).max(axis=1)
    assert (room >= off).all()
    assert float((room / off).mean()) < most


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_torch_itself_stays_inside(name: str) -> None:
    torch.manual_seed(1)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 8),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 3),
    ).eval()
    network = paramrob.load(layers, input_shape=(2, 6, 6), output="logits").network
    arithmetic = named(name, "float32")
    x = torch.rand(5, 72, dtype=torch.float64)
    dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
    low, high = ends(network, x, "0", arithmetic)
    with torch.no_grad():
        deployed = layers.to(dtype)(x.reshape(5, 2, 6, 6).to(dtype)).double().numpy()
    assert_inside(deployed, (low, high))
    assert np.abs(deployed - network.evaluate(x.numpy().reshape(5, 2, 6, 6))).max() > 0


def ones(terms: int) -> Network:
    """Return ``W2 relu(W1 x)`` with ``W1`` and ``W2`` all ones."""
    build = Build((terms,))
    build.add(Dense(build.parameter(np.ones((2, terms)))))
    build.add(Activation("relu"))
    build.add(Dense(build.parameter(np.full((1, 2), 0.01))))
    return build.network()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_what_may_overflow_has_no_bounds(name: str) -> None:
    network = ones(3)
    arithmetic = named(name, "float32")
    ordinary = torch.ones(1, 3, dtype=torch.float64)
    scale = 0.4 * arithmetic.storage.largest
    assert np.isfinite(ends(network, ordinary * scale / 2, "0", arithmetic)[0]).all()
    for method in METHODS:
        low, high = ends(network, ordinary * scale, "0", arithmetic, method)
        assert np.isinf(low).all()
        assert np.isinf(high).all()
    machine = Machine(name, "float32")
    values = {n: p.value for n, p in network.parameters.items()}
    assert not np.isfinite(machine.run(network, ordinary.numpy()[0] * scale, values)).all()


@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "clamp", "hardsigmoid"])
def test_overflow_before_a_bounded_activation_has_no_bounds(kind: ActivationKind) -> None:
    build = Build((2,))
    build.add(Dense(build.parameter(np.array([[2.0, 2.0]]))))
    build.add(Dense(build.parameter(np.array([[1.0], [-1.0]]))))
    build.add(Dense(build.parameter(np.array([[1.0, 1.0]]))))  # infinity less infinity
    build.add(Activation(kind, low=-1.0, high=1.0))
    network, arithmetic = build.network(), named("float16", "float32")
    x = torch.full((1, 2), 3e4, dtype=torch.float64)
    values = {n: p.value for n, p in network.parameters.items()}
    assert np.isnan(Machine("float16", "float32").run(network, x[0].numpy(), values)).all()
    for method in METHODS:
        low, high = ends(network, x, "0", arithmetic, method)
        assert np.isinf(low).all()
        assert np.isinf(high).all()


def test_overflow_of_one_input_leaves_the_others_their_bounds() -> None:
    network = dense_network((3, 4, 2), 1)
    x = torch.tensor([[0.5, -0.25, 1.0], [6e4, 6e4, 6e4], [0.1, 0.2, 0.3]], dtype=torch.float64)
    low, _ = ends(network, x, "0.001", named("float16", "float32"))
    assert np.isfinite(low).all(1).tolist() == [True, False, True]


def test_partial_sums_count_for_overflow() -> None:
    build = Build((4,), 0)
    weight = build.parameter(np.array([[3e4, 3e4, -3e4, -3e4]]))
    build.add(Dense(weight))
    network = build.network()
    x = torch.ones(1, 4, dtype=torch.float64)
    assert np.isfinite(ends(network, 0.1 * x, "0", named("float16", "float16"))[0]).all()
    assert np.isinf(ends(network, x, "0", named("float16", "float16"))[0]).all()
    # A wider accumulator holds them.
    assert np.isfinite(ends(network, x, "0", named("float16", "float32"))[0]).all()


def test_sums_too_long_for_the_accumulator_are_refused() -> None:
    network = dense_network((300, 2), 0)
    box = Perturbation({})
    with pytest.raises(BackendError, match="choose a wider --accumulate"):
        lower(network, box, VALUE, "cpu", named("bfloat16", "bfloat16"))
    lower(network, box, VALUE, "cpu", named("bfloat16", "float32"))


def test_parameters_beyond_the_format_are_refused() -> None:
    network = cancelling(2, 4, named("float16", "float32"))
    large = Network(
        network.nodes,
        [type(p)(p.name, p.value * 1000) for p in network.parameters.values()],
    )
    with pytest.raises(BackendError, match="choose a wider --arithmetic"):
        lower(large, Perturbation({}), VALUE, "cpu", named("float16", "float32"))


def test_a_variance_that_the_format_loses_is_refused() -> None:
    build = Build((2, 3), 0)
    mean = build.parameter(np.zeros(2), fixed=True)
    variance = build.parameter(np.array([1e-6, 1.0]), fixed=True)
    build.add(BatchNorm(mean, variance, 1e-9))
    network = build.network()
    x = inputs(network, 2)
    with pytest.raises(BackendError, match="variance"):
        ends(network, x, "0", named("float16", "float32"))
    ordinary = named("float32", "float32")
    assert_inside(executions(network, x, "0", ordinary), ends(network, x, "0", ordinary))

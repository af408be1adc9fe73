"""``.pt`` files against torch's own outputs; what is refused stands in ``test_torch_refusals``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paramrob.errors import InputError, ModelError, UnsupportedOperatorError
from paramrob.models.network import Activation, Network, Softmax
from paramrob.models.torch_file import read_torch
from paramrob.models.torch_module import from_torch
from tests.models.torch_crafted import saved, small, unzipped, zipped


def check_outputs(network: Network, model: nn.Module, seed: int = 0, tolerance: float = 0) -> None:
    """Compare a network with torch's outputs for the same inputs."""
    parameters = list(model.parameters())
    dtype = parameters[0].dtype if parameters else torch.float64
    generator = torch.Generator().manual_seed(seed)
    shape = (16, *network.input_shape)
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 3).to(dtype)
    with torch.no_grad():
        expected = model.eval()(x).double().numpy()
    tolerance = tolerance or (1e-12 if dtype == torch.float64 else 1e-4)
    got = network.evaluate(x.double().numpy()).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


LAYERS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    nn.LeakyReLU,
    lambda: nn.LeakyReLU(0.2),
    nn.Sigmoid,
    nn.Tanh,
    nn.Identity,
    nn.Flatten,
    nn.Dropout,
    lambda: nn.Softmax(dim=-1),
    lambda: nn.Softmax(dim=1),
)


@st.composite
def models(draw: st.DrawFn) -> nn.Sequential:
    """Draw nested Sequentials."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        block: list[nn.Module] = [nn.Linear(before, after, bias=draw(st.booleans()))]
        block += [layer() for layer in draw(st.lists(st.sampled_from(LAYERS), max_size=2))]
        layers += [nn.Sequential(*block)] if draw(st.booleans()) else block
    return nn.Sequential(*layers)


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(models(), st.booleans(), st.booleans())
def test_any_architecture_gives_the_frameworks_outputs(
    model: nn.Sequential, double: bool, zip_format: bool
) -> None:
    model = model.double() if double else model
    network = read_torch(saved(model, zip_format))
    check_outputs(network, model)
    named = dict(model.named_parameters())
    assert set(network.parameters) == set(named)
    for name, parameter in network.parameters.items():
        assert np.array_equal(parameter.value, named[name].detach().double().numpy())
        assert f"torch.{parameter.dtype}" == str(named[name].dtype)
    paths = {name for name, _ in model.named_modules()}
    assert {node.name for node in network.nodes[1:]} <= paths
    live = from_torch(model)
    assert live.nodes == network.nodes
    assert all(
        np.array_equal(live.parameters[n].value, p.value) for n, p in network.parameters.items()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_keep_their_exact_values(dtype: torch.dtype) -> None:
    model = small().to(dtype)
    network = read_torch(saved(model))
    weight = model[0].weight.detach().double().numpy()  # type: ignore[operator]
    assert np.array_equal(network.parameters["0.weight"].value, weight)
    assert network.parameters["0.weight"].dtype == str(dtype).removeprefix("torch.")


def test_images_are_flattened() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1))
    check_outputs(read_torch(saved(model), input_shape=(3, 4)), model)
    assert read_torch(saved(model)).input_shape == (12,)
    rows = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Flatten(start_dim=1), nn.Linear(6, 1))
    check_outputs(read_torch(saved(rows), input_shape=(3, 4)), rows)
    part = nn.Sequential(nn.Flatten(2), nn.Linear(8, 2), nn.Flatten(1, 2))
    check_outputs(read_torch(saved(part), input_shape=(3, 4, 2)), part)


def test_training_mode_does_not_matter() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9)).train()
    check_outputs(read_torch(saved(model)), model)


def test_a_bare_linear_is_called_linear() -> None:
    model = nn.Linear(3, 2)
    network = read_torch(saved(model))
    assert [node.name for node in network.nodes] == ["input", "linear"]
    assert set(network.parameters) == {"linear.weight", "linear.bias"}
    check_outputs(network, model)
    check_outputs(read_torch(saved(model.state_dict()), layers=["linear:"]), model)


def test_a_module_called_input_is_no_clash() -> None:
    model = nn.Sequential(OrderedDict(input=nn.Linear(2, 2), input_=nn.ReLU()))
    check_outputs(read_torch(saved(model)), model)


def test_a_state_dict_with_layers() -> None:
    model = nn.Sequential(
        nn.Linear(2, 3), nn.LeakyReLU(0.2), nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 2)
    )
    layers = ["linear:0", "leaky_relu:0.2", "dropout", "linear:2", "tanh", "flatten", "linear:4"]
    for zip_format in (True, False):
        network = read_torch(saved(model.state_dict(), zip_format), layers=layers)
        check_outputs(network, model)
        assert set(network.parameters) == set(model.state_dict())
    assert network.nodes[2].op == Activation("leaky_relu", 0.2)
    plain = read_torch(saved(dict(model.state_dict())), layers=[*layers, "softmax", "identity"])
    assert isinstance(plain.nodes[-1].op, Softmax)
    default = read_torch(saved(model.state_dict()), layers=["leaky_relu", *layers])
    assert default.nodes[1].op == Activation("leaky_relu", 0.01)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (None, r'layers = \["linear:0", "relu", "linear:2"\]'),
        (["linear:0", "relu"], r"no layer of the sidecar uses: \['2.bias', '2.weight'\]"),
        (["linear:0", "rellu", "linear:2"], "did you mean 'relu'"),
        (["linear:0", "relu:3", "linear:2"], "nothing after a colon"),
        (["linear:0", "relu", "linear:3"], r"no '3\.weight'; did you mean"),
        (["linear:0", "relu", "linear"], "write linear:NAME"),
        (["linear:0", "leaky_relu:x", "linear:2"], "the slope is no number"),
        (["linear:0", "leaky_relu:-1", "linear:2"], r"outside \[0, 1\]"),
        (["linear:0", "leaky_relu:nan", "linear:2"], r"outside \[0, 1\]"),
        (["linear:2", "relu", "linear:0"], "does not fit an input"),
    ],
)
def test_layers_that_do_not_fit_a_state_dict(layers: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_torch(saved(small().state_dict()), layers=layers)


def test_a_state_dict_with_a_bias_of_the_wrong_size() -> None:
    state = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(3)}
    with pytest.raises(ModelError, match="bias of shape"):
        read_torch(saved(state), layers=["linear:a"])


def test_checkpoints_and_tensors_are_no_models() -> None:
    with pytest.raises(ModelError, match="training checkpoint"):
        read_torch(saved({"model": small().state_dict(), "epoch": 3}))
    with pytest.raises(ModelError, match="a tensor, no model"):
        read_torch(saved(torch.zeros(3)))
    with pytest.raises(ModelError, match="no model"):
        read_torch(saved([1, 2]))
    with pytest.raises(ModelError, match="no model"):
        read_torch(saved({}))
    with pytest.raises(InputError, match="only for a state_dict"):
        read_torch(saved(small()), layers=["relu"])


def test_a_module_used_twice_is_shared() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Tanh(), nn.Linear(2, 1))
    for network in (read_torch(saved(model)), read_torch(saved(model, False)), from_torch(model)):
        check_outputs(network, model)
        assert set(network.parameters) == {"0.weight", "0.bias", "4.weight", "4.bias"}
        assert network.is_shared("0.weight")
        assert not network.is_shared("4.weight")


def test_two_parameters_with_one_storage_are_one() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model[2].weight = nn.Parameter(model[0].weight.data)  # type: ignore[arg-type]
    assert model[2].weight is not model[0].weight
    state = saved(model.state_dict())
    layers = ["linear:0", "relu", "linear:2"]
    networks = [read_torch(saved(model)), from_torch(model), read_torch(state, layers=layers)]
    for network in networks:
        check_outputs(network, model)
        assert set(network.parameters) == {"0.weight", "0.bias", "2.bias"}
        assert network.is_shared("0.weight")


def test_pieces_of_one_storage_are_independent_where_they_do_not_overlap() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    flat = torch.randn(12)
    pieces = {0: (flat[:4], flat[4:6]), 2: (flat[6:10], flat[10:])}
    for index, (weight, bias) in pieces.items():
        model[index].weight = nn.Parameter(weight.view(2, 2).t())
        model[index].bias = nn.Parameter(bias)
    for network in (read_torch(saved(model)), from_torch(model)):
        check_outputs(network, model)
        assert not any(network.is_shared(name) for name in network.parameters)


@pytest.mark.parametrize(
    "view", [lambda w: w.t(), lambda w: w.flatten()[1:].as_strided((2, 2), (1, 2), 0)]
)
def test_overlapping_views_are_refused(view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model[2].weight = nn.Parameter(view(model[0].weight.data))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"'0\.weight' and '2\.weight' share memory"):
        read_torch(saved(model))
    with pytest.raises(ModelError, match=r"'0\.weight' and '2\.weight' share memory"):
        from_torch(model)


def test_old_softmax_without_dim_follows_torch() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Softmax())
    with pytest.warns(UserWarning, match="Implicit dimension"):
        check_outputs(read_torch(saved(model)), model)
    with pytest.raises(UnsupportedOperatorError, match="axis 0"):
        read_torch(saved(model), input_shape=(4, 2))


def test_big_endian_files_are_understood() -> None:
    model = small()
    entries = unzipped(saved(model))
    for name in entries:
        if name.startswith("data/"):
            entries[name] = np.frombuffer(entries[name], "<f4").astype(">f4").tobytes()
    network = read_torch(zipped(entries | {"byteorder": b"big"}))
    check_outputs(network, model)


def test_a_model_without_parameters_needs_a_shape() -> None:
    with pytest.raises(ModelError, match="input_shape"):
        read_torch(saved(nn.Sequential(nn.ReLU())))
    assert read_torch(saved(nn.Sequential(nn.ReLU())), input_shape=(4,)).output_shape == (4,)

"""``.pt`` files against torch's own outputs, and what is refused in them."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paramrob.errors import InputError, ModelError, ParamrobError, UnsupportedOperatorError
from paramrob.models.network import Activation, Network, Softmax
from paramrob.models.torch_archive import Archive
from paramrob.models.torch_file import read_torch
from paramrob.models.torch_module import from_torch
from tests.models.torch_crafted import saved, small, unzipped, with_pickle, zipped


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


@settings(max_examples=40, deadline=None)
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


def _set(path: int, name: str, value: object) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        vars(model[path])[name] = value

    return change


def _expand(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(1, 2).expand(3, 2))


def _buffer(model: nn.Sequential) -> None:
    model[0].register_buffer("mask", torch.ones(3, 2))


def _prune(model: nn.Sequential) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(model[0], "weight", 0.5)  # type: ignore[no-untyped-call]


def _hook(model: nn.Sequential) -> None:
    model[0]._forward_hooks[1] = 5  # type: ignore[assignment]


def _dtype(dtype: torch.dtype) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        value = torch.ones(3, 2).to(dtype)
        model[0].weight = nn.Parameter(value, requires_grad=False)

    return change


def _sparse(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(3, 2).to_sparse(), requires_grad=False)


def _meta(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(3, 2, device="meta"))


def _quantized(model: nn.Sequential) -> None:
    value = torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8)
    model[0].weight = nn.Parameter(value, requires_grad=False)


def _value(value: float) -> Callable[[nn.Sequential], None]:
    def change(model: nn.Sequential) -> None:
        model.state_dict()["0.weight"][1, 1] = value

    return change


def _softmax(dim: int | None) -> Callable[[nn.Sequential], None]:
    return lambda model: model.add_module("4", nn.Softmax(dim))


def _nested(depth: int) -> object:
    value: object = ()
    for _ in range(depth):
        value = (value, value)
    return value


REFUSED: dict[str, tuple[Callable[[nn.Sequential], Any], str]] = {
    "in_features": (_set(0, "in_features", 5), "declares"),
    "a string as in_features": (_set(0, "in_features", "2"), "Linear layer that tells"),
    "an instance attribute": (_set(1, "forward", 3), "'forward'"),
    "a huge slope": (lambda m: m.add_module("4", nn.LeakyReLU(2**2000)), r"outside \[0, 1\]"),
    "nested in_features": (_set(0, "out_features", _nested(40)), "declares of type tuple"),
    "an unknown attribute": (_set(1, "extra", 3), "'extra'"),
    "a hook": (_hook, "hooks"),
    "hooks of the wrong type": (_set(1, "_forward_hooks", [1]), "hooks"),
    "a buffer": (_buffer, r"\['mask'\]"),
    "pruning": (_prune, "hooks|pruned|_rebuild|prune"),
    "no buffers": (_set(1, "_buffers", None), "lacks its _buffers"),
    "modules in a leaf": (_set(1, "_modules", {"a": nn.ReLU()}), r"\['a'\]"),
    "a missing bias": (_set(0, "_parameters", {"weight": None}), "bias"),
    "a weight that is no tensor": (
        _set(0, "_parameters", {"weight": 1, "bias": None}),
        "no tensor",
    ),
    "an expanded weight": (_expand, "one number at several places"),
    "integers": (_dtype(torch.int64), "dtype int64"),
    "bool": (_dtype(torch.bool), "dtype bool"),
    "complex": (_dtype(torch.complex64), "dtype complex64"),
    "float8": (_dtype(torch.float8_e4m3fn), "float8"),
    "sparse": (_sparse, "sparse"),
    "meta": (_meta, "meta|without numbers"),
    "quantized": (_quantized, "quantized"),
    "NaN": (_value(float("nan")), "NaN"),
    "infinity": (_value(float("-inf")), "NaN or infinite"),
    "softmax over the batch": (_softmax(0), "softmax over axis 0"),
    "softmax over no axis": (_softmax(3), "no axis 3"),
    "a negative slope": (lambda m: m.add_module("4", nn.LeakyReLU(-0.1)), r"outside \[0, 1\]"),
    "a slope that is none": (lambda m: m.add_module("4", nn.LeakyReLU("x")), "no number"),  # type: ignore[arg-type]
    "flatten with the batch": (lambda m: m.add_module("4", nn.Flatten(0)), "batch axis"),
    "a child that is none": (lambda m: m.register_module("4", None), "'4'"),
    "a wrong width": (lambda m: m.add_module("4", nn.Linear(2, 1)), "does not fit"),
    "an empty weight": (lambda m: m.add_module("4", nn.Linear(1, 0)), "empty"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_what_may_change_the_meaning_is_refused(case: str) -> None:
    change, message = REFUSED[case]
    model = small()
    change(model)
    with pytest.raises(ModelError, match=message):
        read_torch(saved(model))


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


@pytest.mark.parametrize("zip_format", [True, False])
def test_truncated_files_end_in_a_clear_error(zip_format: bool) -> None:
    data = saved(small(), zip_format)
    for length in sorted({*range(1, 40), *range(40, len(data) - 1, 53), len(data) - 1}):
        with pytest.raises(ModelError) as caught:
            read_torch(data[:length])
        assert str(caught.value).strip()


@pytest.mark.parametrize("zip_format", [True, False])
def test_damaged_files_end_in_a_clear_error_or_a_network(zip_format: bool) -> None:
    data = saved(small(), zip_format)
    draw = random.Random(1)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        with suppress(ParamrobError):
            assert isinstance(read_torch(bytes(damaged)), Network)


def test_damaged_pickles_end_in_a_clear_error_or_a_network() -> None:
    entries = unzipped(saved(small()))
    draw = random.Random(3)
    for _ in range(400):
        content = bytearray(entries["data.pkl"])
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.choice([draw.randrange(256), *b"RbQ}t)"])
        with suppress(ParamrobError):
            assert isinstance(read_torch(zipped(entries | {"data.pkl": bytes(content)})), Network)


def test_a_changed_storage_is_noticed() -> None:
    entries = unzipped(saved(small()))
    with pytest.raises(ModelError, match="instead of 6"):
        read_torch(zipped(entries | {"data/0": entries["data/0"][:-4]}))
    del entries["data/0"]
    with pytest.raises(ModelError, match="lacks its part"):
        read_torch(zipped(entries))


def test_other_zip_files_are_no_models() -> None:
    with pytest.raises(ModelError, match="no model"):
        read_torch(zipped({"readme.txt": "hello"}))
    with pytest.raises(ModelError, match="no model"):
        read_torch(with_pickle(b"\x80\x02N."))
    with pytest.raises(ModelError, match="lacks its part"):
        Archive(zipped({"a": "b"})).read("c")

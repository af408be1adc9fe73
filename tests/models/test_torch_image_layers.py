"""Sequentials of image layers in files against torch, and what is refused in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paramrob.errors import ModelError, ParamrobError
from paramrob.models.load import load
from paramrob.models.network import Activation, AdaptivePool, Network, Pool
from paramrob.models.torch_file import read_torch
from paramrob.models.torch_module import from_torch
from tests.models.image_modules import IMAGE, lenet, scrambled
from tests.models.test_torch_file import check_outputs
from tests.models.torch_crafted import Command, runs, saved, unzipped, zipped


def read(model: nn.Module, shape: tuple[int, ...] | None = None) -> Network:
    """Read a module from its file, and check it against torch and against the live module."""
    network = read_torch(saved(model), input_shape=shape)
    check_outputs(network, model)
    live = from_torch(model, shape)
    assert live.nodes == network.nodes
    return network


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    axes = data.draw(st.integers(1, 2))
    groups = data.draw(st.integers(1, 2))
    numbers = st.tuples(*[st.integers(1, 3)] * axes)
    stride = data.draw(numbers)
    same = st.just("same") if set(stride) == {1} else st.just("valid")
    padding: Any = data.draw(st.tuples(*[st.integers(0, 2)] * axes) | same | st.just("valid"))
    kind: Any = nn.Conv1d if axes == 1 else nn.Conv2d
    model = kind(
        2 * groups,
        2 * groups,
        data.draw(numbers),
        stride,
        padding,
        data.draw(st.tuples(*[st.integers(1, 2)] * axes)),
        groups,
        data.draw(st.booleans()),
    )
    read(scrambled(nn.Sequential(model)), (2 * groups, 9, 7)[: axes + 1])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_pool(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 2))
    numbers = st.tuples(*[st.integers(1, 3)] * axes)
    kernel = data.draw(numbers)
    stride = data.draw(st.none() | numbers)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode = data.draw(st.booleans())
    if data.draw(st.booleans()):
        kind: Any = nn.MaxPool1d if axes == 1 else nn.MaxPool2d
        dilation = data.draw(st.tuples(*[st.integers(1, 2)] * axes))
        model = kind(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    else:
        kind = nn.AvgPool1d if axes == 1 else nn.AvgPool2d
        counted = data.draw(st.booleans()) and not (ceil_mode and any(padding))
        model = kind(kernel, stride, padding, ceil_mode, counted)
    read(nn.Sequential(model), (2, 8, 7)[: axes + 1])


@pytest.mark.parametrize("size", [1, 3, (2, 5), (None, 3), (6, None)])
def test_adaptive_pools(size: Any) -> None:
    for kind in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d):
        network = read(nn.Sequential(kind(size)), IMAGE)
        assert isinstance(network.nodes[-1].op, AdaptivePool)
    if not isinstance(size, tuple):
        for line in (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d):
            read(nn.Sequential(line(size)), (2, 7))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norms(affine: bool) -> None:
    torch.manual_seed(0)
    model = scrambled(nn.Sequential(nn.BatchNorm2d(2, 1e-3, affine=affine)))
    network = read(model, IMAGE)
    assert network.parameters["0.running_mean"].fixed
    assert network.parameter_count == (4 if affine else 0)
    read(scrambled(nn.Sequential(nn.BatchNorm1d(4, affine=affine))), (4,))
    read(scrambled(nn.Sequential(nn.BatchNorm1d(4, affine=affine))), (4, 3))
    assert read(scrambled(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))).input_shape == (3,)


ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU6,
    lambda: nn.ReLU6(inplace=True),
    nn.Hardtanh,
    lambda: nn.Hardtanh(-0.25, 2),
    nn.Softplus,
    lambda: nn.Softplus(2.0, 40),
    nn.ELU,
    lambda: nn.ELU(0.3),
    nn.SiLU,
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_activations(number: int) -> None:
    layer = ACTIVATIONS[number]()
    read(nn.Sequential(layer), (2, 6) if isinstance(layer, nn.Dropout1d) else IMAGE)


def test_a_softplus_means_its_formula_beyond_the_threshold() -> None:
    network = read_torch(saved(nn.Sequential(nn.Softplus())), input_shape=(1,))
    assert network.nodes[-1].op == Activation("softplus", beta=1.0)
    x = torch.tensor([[20.5], [36.0]]).double()
    distance = abs(network.evaluate(x.numpy()) - nn.Softplus()(x).numpy())
    assert 0 < distance.max() < 2.1e-9


def test_a_lenet_of_each_kind_of_file() -> None:
    torch.manual_seed(0)
    model = scrambled(lenet())
    network = read(model, IMAGE)
    assert network.architecture == "2x6x6-conv3-conv4-5-3"
    assert [n.name for n in network.nodes if isinstance(n.op, Pool)] == ["2", "5"]
    check_outputs(read_torch(saved(model, zip_format=False), input_shape=IMAGE), model)


def test_an_image_from_a_row_of_numbers() -> None:
    model = scrambled(nn.Sequential(nn.Unflatten(1, (2, 6, 6)), lenet()))
    assert read(model).input_shape == (72,)
    read(scrambled(nn.Sequential(nn.Unflatten(-1, (2, -1)), nn.Conv1d(2, 1, 3))), (16,))


def test_the_size_of_an_image_comes_from_the_sidecar(tmp_path: Any) -> None:
    model = scrambled(lenet())
    file = tmp_path / "model.pt"
    file.write_bytes(saved(model))
    with pytest.raises(ModelError, match=r"\[input\] shape = \[...\].*sidecar.*input_shape"):
        load(file)
    file.with_suffix(".toml").write_text("[input]\nshape = [2, 6, 6]\n")
    check_outputs(load(file).network, model)
    check_outputs(load(model, input_shape=IMAGE).network, model)
    file.with_suffix(".toml").write_text("[input]\nshape = [2, 36]\n")
    with pytest.raises(ModelError, match="2 channels and 2 more axes, not of shape"):
        load(file)


def blocks() -> nn.Sequential:
    """Return one layer of each family."""
    return nn.Sequential(
        nn.Conv2d(2, 2, 3),
        nn.BatchNorm2d(2),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.GELU(),
        nn.Hardtanh(),
        nn.Unflatten(1, (1, 2)),
    )


def _nested(depth: int) -> object:
    value: object = ()
    for _ in range(depth):
        value = (value, value)
    return value


SETTINGS: dict[str, tuple[int, str, object, str]] = {
    "reflected padding": (0, "padding_mode", "reflect", "padding_mode 'reflect'"),
    "a transposed flag": (0, "transposed", True, "transposed=True"),
    "no flag": (0, "transposed", None, "transposed=None"),
    "more channels": (0, "in_channels", 4, "declares"),
    "groups that divide nothing": (0, "groups", 3, "declares|groups"),
    "no groups": (0, "groups", 0, "groups"),
    "another kernel": (0, "kernel_size", (2, 3), "declares"),
    "a nested kernel": (0, "kernel_size", _nested(40), "kernel_size of 2 entries"),
    "a negative padding": (0, "padding", (-1, 0), "padding"),
    "a strange padding": (0, "padding", "full", "padding 'full'"),
    "a stride of 0": (0, "stride", (0, 1), "start at 1"),
    "a stride of three": (0, "stride", (1, 1, 1), "stride of 3 entries"),
    "a huge stride": (0, "stride", 2**2000, "stride"),
    "no stride": (0, "stride", None, "stride None"),
    "a boolean dilation": (0, "dilation", True, "dilation True"),
    "an attribute of a convolution": (0, "weight_g", 3, "'weight_g'"),
    "a forward of a convolution": (0, "forward", 3, "'forward'"),
    "a hook of a convolution": (0, "_forward_hooks", {1: 2}, "hooks"),
    "a pre-hook of a batch norm": (1, "_forward_pre_hooks", {1: 2}, "hooks"),
    "an attribute of a batch norm": (1, "process_group", None, "'process_group'"),
    "no statistics": (1, "track_running_stats", False, "without running statistics"),
    "features": (1, "num_features", 3, "declares 3 features"),
    "affine": (1, "affine", False, "affine=False"),
    "a text as eps": (1, "eps", "0", "eps '0' is no number"),
    "a negative eps": (1, "eps", -5.0, "epsilon"),
    "NaN as eps": (1, "eps", float("nan"), "epsilon"),
    "buffers of another name": (1, "_buffers", {"mean": 1}, "running_mean"),
    "a buffer that is no tensor": (
        1,
        "_buffers",
        {"running_mean": 1, "running_var": 2, "num_batches_tracked": None},
        "no tensor",
    ),
    "indices": (2, "return_indices", True, "return_indices=True"),
    "a large padding": (2, "padding", 2, "above half"),
    "a text as ceil_mode": (2, "ceil_mode", "no", "ceil_mode"),
    "a window without size": (2, "kernel_size", 0, "start at 1"),
    "a huge window": (2, "kernel_size", 99, "larger than its input"),
    "a divisor": (3, "divisor_override", 3, "divisor_override"),
    "a number as count_include_pad": (3, "count_include_pad", 1, "count_include_pad"),
    "an empty output": (4, "output_size", 0, "pools"),
    "a text as output": (4, "output_size", "1", "output_size '1'"),
    "outputs for three axes": (4, "output_size", (1, 1, 1), "output_size of 3 entries"),
    "another GELU": (5, "approximate", "fast", "gelu 'fast'"),
    "no GELU": (5, "approximate", None, "gelu None"),
    "a hook of a GELU": (5, "_forward_hooks", {1: 2}, "hooks"),
    "bounds that cross": (6, "min_val", 3.0, "no interval"),
    "infinite bounds": (6, "max_val", float("inf"), "no interval"),
    "text bounds": (6, "max_val", "1", "max_val '1' is no number"),
    "a huge bound": (6, "max_val", 2**2000, "beyond 2"),
    "sizes that do not fit": (7, "unflattened_size", (3, 1), "not made up"),
    "two unknown sizes": (7, "unflattened_size", (-1, -1), "not made up"),
    "no sizes": (7, "unflattened_size", 2, "Unflatten without"),
    "the batch axis": (7, "dim", 0, "batch axis"),
    "no such axis": (7, "dim", 9, "no axis 9"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_crafted_settings_are_refused(case: str) -> None:
    index, name, value, message = SETTINGS[case]
    model = blocks()
    vars(model[index])[name] = value
    with pytest.raises(ModelError, match=message):
        read_torch(saved(model), input_shape=(2, 12, 12))


def test_the_blocks_themselves_are_read() -> None:
    read(scrambled(blocks()), (2, 12, 12))


@pytest.mark.parametrize("index", range(8))
def test_a_command_in_an_image_layer_is_not_run(index: int, tmp_path: Any) -> None:
    marker = tmp_path / "marker"
    for name in ("forward", "extra"):
        model = blocks()
        vars(model[index])[name] = Command(marker)
        data = saved(model)
        assert runs(data, marker)
        with pytest.raises(ModelError, match="system"):
            read_torch(data, input_shape=(2, 12, 12))
        assert not marker.exists()


def test_batch_norms_that_fit_no_input() -> None:
    for layer, shape in ((nn.BatchNorm2d(4), (4, 3)), (nn.BatchNorm1d(4), (4, 3, 3))):
        with pytest.raises(ModelError, match="does not fit an input of shape"):
            read_torch(saved(nn.Sequential(layer)), input_shape=shape)
    with pytest.raises(ModelError, match="without running statistics"):
        read_torch(
            saved(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))), input_shape=(2,)
        )
    broken = nn.Sequential(nn.BatchNorm1d(2))
    broken[0].running_var.fill_(-1.0)  # type: ignore[operator]
    with pytest.raises(ModelError, match="variance below 0"):
        read_torch(saved(broken), input_shape=(2,))


def test_other_refusals() -> None:
    counted = nn.Sequential(nn.AvgPool2d(3, 2, 1, ceil_mode=True))
    with pytest.raises(ModelError, match="ceil_mode with counted padding"):
        read_torch(saved(counted), input_shape=(1, 6, 6))
    with pytest.raises(ModelError, match="threshold below 20"):
        read_torch(saved(nn.Sequential(nn.Softplus(1.0, 5.0))), input_shape=(2,))
    with pytest.raises(ModelError, match="pools 2 axes"):
        read_torch(saved(nn.Sequential(nn.MaxPool2d(2))), input_shape=(4, 4))
    for layer in (nn.ConvTranspose2d(1, 1, 2), nn.LayerNorm(4), nn.PReLU(), nn.LPPool2d(2, 2)):
        with pytest.raises(ModelError, match=f"{type(layer).__name__}.*paramrob reads"):
            read_torch(saved(nn.Sequential(layer)), input_shape=(1, 4, 4))


def test_damaged_pickles_end_in_a_clear_error_or_a_network() -> None:
    entries = unzipped(saved(blocks()))
    draw = random.Random(5)
    for _ in range(300):
        content = bytearray(entries["data.pkl"])
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.choice([draw.randrange(256), *b"RbQ}t)"])
        damaged = zipped(entries | {"data.pkl": bytes(content)})
        with suppress(ParamrobError):
            assert isinstance(read_torch(damaged, input_shape=(2, 12, 12)), Network)


def test_changed_settings_mean_what_torch_computes_or_are_refused() -> None:
    draw = random.Random(6)
    odd: list[object] = [None, -1, 0, 1, 2, 3, 2**40, 2**2000, 1.5, float("nan"), "same", "", True]
    odd += [(), (1,), (2, 2), (1, 2), (0, -1), (2**31, 1), [3, 3], (None, 1), ("a", 1), {1: 2}]
    odd += ["zeros", "tanh", 40.0]
    x = torch.randn(2, 2, 12, 12, dtype=torch.float64)
    compared = 0
    for _ in range(400):
        model = blocks()
        for _ in range(draw.randint(1, 2)):
            layer = vars(model[draw.randrange(8)])
            names = [name for name in layer if "hook" not in name and name != "training"]
            layer[draw.choice(names)] = draw.choice(odd)
        try:
            network = read_torch(saved(model), input_shape=(2, 12, 12))
            with torch.no_grad():
                expected = scrambled(model)(x).numpy()
        except (ParamrobError, RuntimeError, TypeError, ValueError, AttributeError):
            continue
        network = read_torch(saved(model), input_shape=(2, 12, 12))
        np.testing.assert_allclose(network.evaluate(x.numpy()), expected, rtol=1e-11, atol=1e-11)
        compared += 1
    assert compared > 40

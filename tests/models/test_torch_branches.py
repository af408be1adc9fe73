"""Graphs with convolutions and branches, live, exported and scripted, against torch itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramrob.errors import ModelError, ParamrobError, UnsupportedOperatorError
from paramrob.models.load import load
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Network,
    Pool,
    Transpose,
)
from paramrob.models.pt2 import read_pt2
from paramrob.models.torch_file import read_torch
from paramrob.models.torch_module import from_torch
from tests.models.image_modules import CASES, IMAGE, Residual, Separable, lenet, scrambled
from tests.models.test_pt2 import Json, _Two, exported
from tests.models.test_torch_file import check_outputs
from tests.models.test_torch_script import archived
from tests.models.torch_crafted import unzipped, zipped


def made(case: str) -> nn.Module:
    torch.manual_seed(1)
    return scrambled(CASES[case]())


def kinds(network: Network) -> set[type]:
    return {type(node.op) for node in network.nodes}


@pytest.mark.parametrize("case", CASES)
def test_live_modules(case: str) -> None:
    model = made(case)
    network = from_torch(model, IMAGE)
    check_outputs(network, model)
    assert set(network.parameters) == {
        name for name in model.state_dict() if not name.endswith("num_batches_tracked")
    }
    for name, parameter in network.parameters.items():
        assert parameter.fixed == (".running_" in name)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_exported_modules(case: str, dynamic: bool) -> None:
    model = made(case)
    network = read_pt2(exported(model, (2, *IMAGE), dynamic))
    check_outputs(network, model if dynamic else _Two(model))
    live = from_torch(model, IMAGE)
    assert live.parameters.keys() == network.parameters.keys()
    assert [n.op for n in live.nodes] == [n.op for n in network.nodes]


@pytest.mark.parametrize("case", ["residual", "dense", "lenet"])
def test_decomposed_programs(case: str) -> None:
    model = made(case)
    check_outputs(read_pt2(exported(model, (2, *IMAGE), decomposed=True)), _Two(model))


def test_a_decomposed_silu_is_one_again() -> None:
    model = scrambled(nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2)))
    network = read_pt2(exported(model, (2, 3), decomposed=True))
    check_outputs(network, _Two(model))
    assert [n.op for n in network.nodes[2:3]] == [Activation("silu")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_scripts_and_traces(case: str) -> None:
    model = made(case)
    traced = torch.jit.trace(model, torch.zeros(2, *IMAGE).double())  # type: ignore[no-untyped-call]
    for script in (torch.jit.script(model), traced):
        if script is traced and case == "mixed":  # its sizes become tensors
            continue
        network = read_torch(archived(script), input_shape=IMAGE, trust=True)
        check_outputs(network, model)


class OldValue(nn.Module):
    """Uses a value by the name that it had before it was overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        z = torch.relu_(y)
        return y + z


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_value_in_a_script_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match="overwritten by an operator in place"):
        read_torch(archived(torch.jit.script(OldValue())), trust=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_says_what_it_needs() -> None:
    script = torch.jit.script(scrambled(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))))
    with pytest.raises(ModelError, match=r"\[input\] shape"):
        read_torch(archived(script), trust=True)
    with pytest.raises(ModelError, match="channels and 2 more axes"):
        read_torch(archived(script), input_shape=(4, 4), trust=True)


def test_what_a_residual_block_becomes() -> None:
    network = from_torch(made("residual"), IMAGE)
    assert network.architecture == "2x6x6-conv4-conv4-conv4-conv4-3"
    nodes = {node.name: node for node in network.nodes}
    assert nodes["bn1"].inputs == ("conv1",)
    assert isinstance(nodes["short.1"].op, BatchNorm)
    (plus, _) = (n for n in network.nodes if isinstance(n.op, Add))
    assert plus.inputs == ("bn2", "short.1")
    assert {Conv, BatchNorm, Add, AdaptivePool} < kinds(network)
    assert network.output_shape == (3,)


def test_what_the_others_become() -> None:
    assert {Concat, Pool} < kinds(from_torch(made("dense"), IMAGE))
    assert {Transpose, Pool, AdaptivePool} < kinds(from_torch(made("mixed"), IMAGE))
    separable = from_torch(made("separable"), IMAGE)
    depth = next(n.op for n in separable.nodes if n.name == "depth")
    assert isinstance(depth, Conv)
    assert depth.groups == 6


def test_names_are_the_modules_paths() -> None:
    model = made("separable")
    network = from_torch(model, IMAGE)
    paths = {name for name, _ in model.named_modules()}
    assert {"wide.0", "wide.1", "wide.2", "depth", "norm", "point", "pool"} < paths
    assert {"wide.0", "wide.1", "wide.2", "depth", "norm", "point", "pool"} < {
        node.name for node in network.nodes
    }


def _forward(function: Callable[[Any, Tensor], object], shape: tuple[int, ...] = IMAGE) -> Network:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)
            self.norm = nn.BatchNorm2d(2)
            self.free = nn.BatchNorm2d(2, track_running_stats=False)
            self.up = nn.ConvTranspose2d(2, 2, 2)
            self.fc = nn.Linear(6, 6)
            self.register_buffer("rows", torch.ones(7, 1, 6, 6))

        def forward(self, x: Tensor) -> object:
            return function(self, x)

    model = scrambled(Net())
    network = from_torch(model, shape)
    check_outputs(network, model)
    return network


def _overwritten(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.conv(x)
    z = F.relu_(y)
    return y + z


def _overwritten_view(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.conv(x)
    F.relu_(y.flatten(1))
    return y * 2


def _overwritten_late(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.conv(x)
    z = y.view(-1, 72)
    y += x
    return z


def _overwritten_parameter(m: Any, x: Tensor) -> Tensor:
    m.norm.running_mean.add_(1.0)
    out: Tensor = m.norm(x)
    return out


def _written_out(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.conv(x)
    torch.add(x, 1.0, out=y)
    return y + x


REFUSED: dict[str, tuple[Callable[[Any, Tensor], object], str]] = {
    "a value whose view was overwritten": (
        _overwritten_view,
        "overwritten by an operator in place",
    ),
    "a view of a value that was overwritten": (_overwritten_late, "overwritten|no value"),
    "a parameter overwritten": (_overwritten_parameter, "overwrites a parameter|buffers|traced"),
    "an output argument": (_written_out, "out=|traced"),
    "batch statistics": (lambda m, x: m.free(x), "without running statistics"),
    "a training mode": (
        lambda m, x: F.batch_norm(x, m.norm.running_mean, m.norm.running_var, training=True),
        "training mode|buffers|node",
    ),
    "a transposed convolution": (lambda m, x: m.up(x), "'conv_transpose2d'"),
    "broadcasting": (lambda m, x: x + x.mean((2, 3), keepdim=True), "different shapes"),
    "a product": (lambda m, x: m.conv(x) * torch.sigmoid(x), "both sides"),
    "a mean over channels": (lambda m, x: x.mean(1), "behind the channels"),
    "a mean over the batch": (lambda m, x: x.mean(0), "batch axis"),
    "a mean over everything": (lambda m, x: x.mean(), "batch axis"),
    "joining the batch": (lambda m, x: torch.cat([x, x], 0), "batch axis"),
    "joining a constant": (
        lambda m, x: torch.cat([x, torch.ones(7, 1, 6, 6).double()], 1),
        "'ones'",
    ),
    "joining a parameter": (lambda m, x: torch.cat([x, m.rows], 1), "must depend"),
    "moving the batch": (lambda m, x: x.permute(1, 0, 2, 3), "batch axis"),
    "indices": (lambda m, x: F.max_pool2d(x, 2, return_indices=True)[1] + 0.5, "node|one output"),
    "a divisor": (lambda m, x: F.avg_pool2d(x, 2, divisor_override=3), "divisor_override"),
    "an early softplus": (lambda m, x: F.softplus(x, 1.0, 5.0), "threshold below 20"),
    "an open clamp": (lambda m, x: torch.clamp(x, max=1.0), "clamp"),
    "selu": (lambda m, x: F.selu(x), "'selu'"),
    "a lonely image": (lambda m, x: F.conv2d(x[0], m.conv.weight), "'select'"),
    "a flat image": (lambda m, x: F.max_pool1d(x.flatten(1), 2), "pools 1 axes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_here_is_refused(case: str) -> None:
    function, message = REFUSED[case]
    with pytest.raises(ModelError, match=message):
        _forward(function)


def test_values_that_are_overwritten_and_not_used_again() -> None:
    def plus(m: Any, x: Tensor) -> Tensor:
        y: Tensor = m.conv(x)
        y += x
        y.mul_(2.0)
        return F.hardtanh_(y.clone()) + y

    network = _forward(plus)
    assert Activation("clamp", low=-1.0, high=1.0) in [n.op for n in network.nodes]


FORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "conv same": lambda m, x: F.conv2d(x, m.conv.weight, padding="same", dilation=(2, 1)),
    "clamps": lambda m, x: torch.clamp(x, min=0).clamp(-0.5, 2),
    "pools": lambda m, x: (
        F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        + F.avg_pool2d(x, (3, 3), 2, 1, count_include_pad=False, ceil_mode=True)
    ),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, (None, 4)) + F.adaptive_max_pool2d(x, (6, 4)),
    "maxima": lambda m, x: torch.amax(x, (2, 3)) + torch.amax(x, (-1, -2), keepdim=True).flatten(1),
    "joined rows": lambda m, x: torch.cat((x, m.fc(x), x.transpose(2, 3)), -2),
    "one joined": lambda m, x: torch.cat([x], 1) + 1,
    "unflatten": lambda m, x: torch.unflatten(x.flatten(1), 1, (3, -1)),
    "an old value": _overwritten,
    "twice the same": lambda m, x: x + x,
    "activations": lambda m, x: F.hardsigmoid(
        F.softplus(F.elu(F.gelu(x, approximate="tanh"), 0.3))
    ),
    "a dead end": lambda m, x: (m.up(x) if False else m.norm(x), m.conv(x))[1],
}


@pytest.mark.parametrize("case", FORMS)
def test_functional_forms(case: str) -> None:
    _forward(FORMS[case])


def test_what_the_output_does_not_need_is_left_out() -> None:
    network = _forward(FORMS["a dead end"])
    assert set(network.parameters) == {"conv.weight", "conv.bias"}


def test_a_statistic_that_is_also_a_constant_is_refused() -> None:
    with pytest.raises(ModelError, match="running statistic at one place"):
        _forward(
            lambda m, x: (
                m.norm(x - m.norm.running_mean.view(1, 2, 1, 1))
                if False
                else m.norm(x).flatten(2).transpose(1, 2) + m.norm.running_mean
            )
        )


def test_the_size_of_an_image_has_to_be_said() -> None:
    for model in (lenet(), Residual(), Separable()):
        with pytest.raises(ModelError, match=r"\[input\] shape = \[...\].*input_shape"):
            from_torch(scrambled(model))
    with pytest.raises(ModelError, match="more axes"):
        load(scrambled(lenet()), input_shape=(6, 6))
    assert load(scrambled(lenet()), input_shape=IMAGE).network.output_size == 3


def test_a_crafted_graph_cannot_use_a_second_output() -> None:
    data = exported(
        scrambled(nn.Sequential(nn.Conv2d(2, 2, 1), nn.AdaptiveMaxPool2d(2))), (2, *IMAGE)
    )
    parts = unzipped(data)
    name = "models/model.json"
    content = json.loads(parts[name])
    node = next(
        n for n in content["graph_module"]["graph"]["nodes"] if "adaptive_max" in n["target"]
    )
    first, second = (output["as_tensor"]["name"] for output in node["outputs"])
    (out,) = content["graph_module"]["signature"]["output_specs"]
    assert out["user_output"]["arg"]["as_tensor"]["name"] == first
    out["user_output"]["arg"]["as_tensor"]["name"] = second
    with pytest.raises(ModelError, match="no value"):
        read_pt2(zipped(parts | {name: json.dumps(content)}))
    node["outputs"].pop()
    with pytest.raises(UnsupportedOperatorError, match="1 outputs"):
        read_pt2(zipped(parts | {name: json.dumps(content)}))


def test_changed_graphs_end_in_a_clear_error_or_a_network() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.GELU("tanh"))
    parts = unzipped(exported(scrambled(model), (2, *IMAGE)))
    name = "models/model.json"
    nodes = json.loads(parts[name])["graph_module"]["graph"]["nodes"]
    draw = random.Random(7)
    odd: list[Json] = [{"as_none": True}, {"as_int": 0}, {"as_int": -1}, {"as_int": 2**70}]
    odd += [{"as_ints": []}, {"as_ints": [0, 0]}, {"as_ints": [2**40, 1]}, {"as_string": "same"}]
    odd += [{"as_float": 0.5}, {"as_bool": True}, {"as_ints": [[1]]}, {"as_tensors": []}]
    odd += [{"as_tensor": {"name": n["outputs"][0]["as_tensor"]["name"]}} for n in nodes]
    for _ in range(500):
        content = json.loads(parts[name])
        graph = content["graph_module"]["graph"]
        for _ in range(draw.randint(1, 2)):
            node = draw.choice(graph["nodes"])
            draw.choice(node["inputs"])["arg"] = draw.choice(odd)
        with suppress(ParamrobError):
            assert isinstance(read_pt2(zipped(parts | {name: json.dumps(content)})), Network)

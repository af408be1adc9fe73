"""State_dicts with image layers and the sidecar's list of layers, against torch."""

from __future__ import annotations

import pytest
from torch import nn

from paramrob.errors import InputError, ModelError
from paramrob.models.torch_file import read_torch
from tests.models.image_modules import IMAGE, scrambled
from tests.models.test_torch_file import check_outputs
from tests.models.torch_crafted import saved

STATE: list[tuple[nn.Module, list[str], tuple[int, ...] | None]] = [
    (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1, groups=2),
            nn.BatchNorm2d(4, eps=1e-3),
            nn.ReLU6(),
            nn.MaxPool2d(2, 1, 1),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
        [
            "conv2d:0,stride=2,padding=1,groups=2",
            "batchnorm:1,eps=1e-3",
            "relu6",
            "maxpool2d:2,stride=1,padding=1",
            "adaptive_avgpool2d:2x1",
            "flatten",
            "linear:6",
        ],
        IMAGE,
    ),
    (
        nn.Sequential(
            nn.Conv1d(2, 3, 3, padding="same", dilation=2),
            nn.BatchNorm1d(3),
            nn.AvgPool1d(3, 2, 1),
            nn.ELU(0.5),
            nn.Conv1d(3, 2, 2, bias=False),
            nn.AdaptiveMaxPool1d(1),
        ),
        [
            "conv1d:0,padding=same,dilation=2",
            "batchnorm:1",
            "avgpool1d:3,stride=2,padding=1",
            "elu:alpha=0.5",
            "conv1d:4",
            "adaptive_maxpool1d:1",
        ],
        (2, 9),
    ),
    (
        nn.Sequential(
            nn.Linear(3, 3),
            nn.Hardtanh(-0.5, 2.0),
            nn.Softplus(2.0),
            nn.SiLU(),
            nn.GELU(),
            nn.GELU("tanh"),
            nn.Hardswish(),
            nn.Hardsigmoid(),
            nn.BatchNorm1d(3),
        ),
        [
            "linear:0",
            "hardtanh:min_val=-0.5,max_val=2",
            "softplus:beta=2",
            "silu",
            "gelu",
            "gelu:approximate=tanh",
            "hardswish",
            "hardsigmoid",
            "batchnorm:8",
        ],
        None,
    ),
]


@pytest.mark.parametrize("number", range(len(STATE)))
def test_a_state_dict_with_layers(number: int) -> None:
    model, layers, shape = STATE[number]
    model = scrambled(model)
    network = read_torch(saved(model.state_dict()), layers=layers, input_shape=shape)
    check_outputs(network, model)
    named = set(dict(model.named_parameters()))
    assert {name for name, p in network.parameters.items() if not p.fixed} == named


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (None, r'layers = \["conv2d:0", "batchnorm:1", "relu", "flatten", "linear:3"\]'),
        (["conv2d", "batchnorm:1", "flatten", "linear:3"], r"conv2d:NAME,stride=\.\.\."),
        (["conv2d:0,strid=2"], r"no option 'strid=2'; there are stride=\.\.\."),
        (["conv2d:0,stride=a"], "'stride=a' is no number"),
        (["conv2d:0,stride=0", "batchnorm:1", "flatten", "linear:3"], "start at 1"),
        (["maxpool2d:a"], r"no whole number; write e\.g\. maxpool2d:2"),
        (["maxpool2d"], "write maxpool2d:SIZE"),
        (["relu6:2"], "takes nothing after a colon"),
        (["elu:2"], r"write elu:alpha=\.\.\."),
        (["batchnorm:7"], "no '7.running_mean'"),
        (["conv1d:0", "batchnorm:1", "flatten", "linear:3"], "no conv1d has a weight of shape"),
        (["maxpool2d:2", "conv2d:0", "linear:3"], r"uses: \['1\.bias'"),
        (["conv2d:0", "gelu:approximate=x", "batchnorm:1", "flatten", "linear:3"], "gelu 'x'"),
    ],
)
def test_layers_that_do_not_fit(layers: list[str] | None, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    state = saved(model.state_dict())
    with pytest.raises(InputError, match=message):
        read_torch(state, layers=layers, input_shape=IMAGE)


def test_a_state_dict_of_an_image_needs_its_shape() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    layers = ["conv2d:0", "flatten", "linear:2"]
    with pytest.raises(ModelError, match=r"\[input\] shape"):
        read_torch(saved(model.state_dict()), layers=layers)

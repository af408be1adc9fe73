"""TorchScript of a trusted origin against its own outputs."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.torch_file import read_torch
from tests.models.test_torch_file import check_outputs
from tests.models.test_torch_module import Shared
from tests.models.torch_crafted import small, unzipped, zipped

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def archived(module: object) -> bytes:
    """Return what torch.jit.save writes."""
    target = io.BytesIO()
    torch.jit.save(module, target)
    return target.getvalue()


@pytest.mark.parametrize("double", [False, True])
def test_scripted_and_traced_modules(double: bool) -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(True), nn.Dropout(), nn.Sequential(nn.Linear(4, 2), nn.LeakyReLU())
    )
    model = model.double() if double else model
    example = torch.zeros(2, 3, dtype=model[0].weight.dtype)  # type: ignore[arg-type]
    for script in (torch.jit.script(model), torch.jit.trace(model.eval(), example)):  # type: ignore[no-untyped-call]
        network = read_torch(archived(script), trust=True)
        check_outputs(network, model)
        assert set(network.parameters) == set(dict(model.named_parameters()))


class Scripted(nn.Module):
    """Functional forms and literals."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer((x - 0.5) / 2.0) + self.shift
        x = F.dropout(F.leaky_relu(x, 0.3), 0.5, self.training)
        return torch.flatten(F.softmax(3 * x, dim=1), 1)


def test_functional_forms() -> None:
    model = Scripted().eval()
    script = torch.jit.script(model)
    network = read_torch(archived(script), trust=True)
    check_outputs(network, model)
    assert {"layer.weight", "layer.bias"} < set(network.parameters)


def test_images() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1))
    traced = torch.jit.trace(model, torch.zeros(2, 3, 4))  # type: ignore[no-untyped-call]
    check_outputs(read_torch(archived(traced), input_shape=(3, 4), trust=True), model)


def test_parameters_that_torchscript_merges_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for index in (0, 2):
        nn.init.zeros_(model[index].bias)  # type: ignore[arg-type]
    script = torch.jit.script(model)
    with pytest.raises(ModelError, match="same numbers as another"):
        read_torch(archived(script), trust=True)


def test_unsupported_operators_and_damaged_files() -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Mish()))
    with pytest.raises(UnsupportedOperatorError, match="mish"):
        read_torch(archived(script), trust=True)
    entries = unzipped(archived(torch.jit.script(small())))
    broken = {name: b"###" for name in entries if name.startswith("code/") and name.endswith(".py")}
    with pytest.raises(ModelError, match="cannot load"):
        read_torch(zipped(entries | broken), trust=True)


class Hidden(nn.Module):
    """Uses a parameter through a number and through a decision."""

    def __init__(self, decide: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.decide = decide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.decide:
            return torch.relu(self.layer(x)) if bool(self.layer.bias.sum() > 0) else self.layer(x)
        y: torch.Tensor = self.layer(x)
        return y * float(self.layer.bias.sum().item())


@pytest.mark.parametrize("decide", [True, False])
def test_parameters_are_not_folded_away(decide: bool) -> None:
    script = torch.jit.script(Hidden(decide))
    with pytest.raises(UnsupportedOperatorError, match="aten::sum"):
        read_torch(archived(script), trust=True)


def test_sharing() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    network = read_torch(archived(torch.jit.script(model)), trust=True)
    check_outputs(network, model)
    assert network.is_shared("0.weight")
    assert network.is_shared("0.bias")


def test_numbers_in_traced_arithmetic_are_refused() -> None:
    traced = torch.jit.trace(Shared(), torch.zeros(2, 2))  # type: ignore[no-untyped-call]
    with pytest.raises(UnsupportedOperatorError, match=r"mul|rsub"):
        read_torch(archived(traced), trust=True)

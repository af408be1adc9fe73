"""Live modules against their own outputs; what tracing cannot express is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.torch_module import from_torch
from tests.models.test_torch_file import check_outputs
from tests.models.torch_crafted import small


class Functional(nn.Module):
    """Functional forms, a scaler as buffers, a squeeze at the end."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.out = nn.Linear(4, 1)
        self.register_buffer("mean", torch.tensor([0.5, 1.0, -2.0]))
        self.register_buffer("scale", torch.tensor([[2.0, 0.25, 3.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.scale
        x = F.leaky_relu(self.hidden(x), 0.3)
        x = F.dropout(x, 0.5, self.training)
        x = x.view(x.size(0), -1)
        return torch.sigmoid(self.out(torch.tanh(x)).squeeze(-1))


def test_functional_forms() -> None:
    model = Functional().train()
    network = from_torch(model)
    assert model.training
    assert model.hidden.training
    check_outputs(network, model)
    layers = network.layer_parameters()
    assert layers["hidden.0"] == ("hidden.0.weight", "hidden.0.bias")
    assert layers["out"] == ("out.weight", "out.bias")
    assert {"mean", "scale"} < set(network.parameters)
    assert network.output_size == 1


class Shapes(nn.Module):
    """An image, flattened after a first layer along its rows, and softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(4, 2, bias=False)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.rows(x).reshape(x.shape[0], 3, 2, 1).unsqueeze(1).squeeze()
        x = F.relu(torch.flatten(x, 1), inplace=True)
        return F.softmax(self.last(x), dim=1)


def test_shapes() -> None:
    model = Shapes()
    check_outputs(from_torch(model, (3, 4)), model)
    with pytest.raises(ModelError, match=r"cannot be traced for inputs of shape \(4,\)"):
        from_torch(model)


class Shared(nn.Module):
    """One layer at two places, and a third layer with the first one's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.matrix = nn.Parameter(torch.randn(2, 3))
        self.shift = nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(self.first(self.first(x))))
        return 1 - 2 * (x @ self.matrix + self.shift)


def test_sharing_and_plain_parameters() -> None:
    model = Shared()
    network = from_torch(model)
    check_outputs(network, model)
    assert network.is_shared("first.weight")
    assert network.is_shared("first.bias")
    assert not network.is_shared("second.bias")
    assert "second.weight" not in network.parameters
    names = [node.name for node in network.nodes]
    assert {"first", "first#2", "second"} <= set(names)
    assert np.array_equal(
        network.parameters["matrix"].value, model.matrix.detach().double().numpy().T
    )


class Hooked(nn.Module):
    """Adds a constant to a layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.net(x)
        return y


def test_hooks_of_a_live_module_are_part_of_it() -> None:
    model = small()
    model[0].register_forward_hook(lambda _module, _inputs, output: output + 1.5)
    check_outputs(from_torch(model), model)
    nested = Hooked()
    nested.net[0].register_forward_hook(lambda _module, _inputs, output: output * 0.5)
    check_outputs(from_torch(nested), nested)


def test_subclasses_and_replaced_forwards_are_traced() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(2, 2), nn.ReLU())
    check_outputs(from_torch(model), model)
    patched = small()
    patched[1].forward = torch.tanh
    check_outputs(from_torch(patched), patched)


def test_a_bare_linear_and_scripts() -> None:
    assert set(from_torch(nn.Linear(2, 1)).parameters) == {"linear.weight", "linear.bias"}
    script = torch.jit.script(small())
    with pytest.warns(DeprecationWarning, match="freeze"):
        check_outputs(from_torch(script.eval()), script)


def _forward(function: Callable[[nn.Linear, torch.Tensor], object]) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.normal = nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> object:
            return function(self.layer, x)

    return Net()


COLUMN = torch.ones(7, 1)

UNSUPPORTED: dict[str, tuple[Callable[[nn.Linear, torch.Tensor], object], str]] = {
    "an operator": (lambda m, x: torch.sin(m(x)), "'sin'"),
    "a product of values": (lambda m, x: m(x) * m(x), "both sides"),
    "a difference of values": (lambda m, x: m(x) - x, "both sides"),
    "several outputs": (lambda m, x: (m(x), m(x)), "2 output"),
    "an old value as output": (lambda m, x: (torch.relu_(m(x)), x)[1], "unchanged"),
    "softmax over the batch": (lambda m, x: torch.softmax(m(x), 0), "axis 0"),
    "a reshape of the batch": (lambda m, x: m(x).reshape(-1), "batch axis"),
    "mixing the batch": (lambda m, x: m(x).reshape(4, -1), "batch axis"),
    "a transpose": (lambda m, x: m(x).t(), "batch axis"),
    "a constant divided": (lambda m, x: m.bias / m(x), "divided"),
    "alpha": (lambda m, x: torch.add(m(x), m.bias, alpha=2), "alpha"),
    "rounding": (lambda m, x: torch.div(m(x), 2.0, rounding_mode="floor"), "rounding"),
    "integers": (lambda m, x: m(x).to(torch.int64), "conversions"),
    "half": (lambda m, x: m(x.half().float()), "conversions"),
    "computed weights": (lambda m, x: F.linear(x, m.weight * 2), "computes a parameter"),
    "active dropout": (lambda m, x: F.dropout(m(x)), "after model.eval"),
    "a random number": (lambda m, x: m(x) + torch.rand(4), "'rand'"),
    "a decision on values": (lambda m, x: m(x) if x.sum() > 0 else x, "cannot be traced"),
    "a weight both ways": (lambda m, x: m(x) @ m.weight, "share memory"),
    "a constant along the batch": (lambda m, x: m(x) + COLUMN, "batch axis"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_tracing_cannot_express_is_refused(case: str) -> None:
    function, message = UNSUPPORTED[case]
    with pytest.raises(ModelError, match=message):
        from_torch(_forward(function))


def test_unsupported_modules_are_named() -> None:
    with pytest.raises(UnsupportedOperatorError, match="'layer_norm'"):
        from_torch(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    with pytest.raises(ModelError):
        from_torch(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))))
    with pytest.raises(ModelError, match="input_shape"):
        from_torch(nn.Sequential(nn.Mish()))


def test_odd_tensors_are_refused() -> None:
    model = small()
    model[0].weight = nn.Parameter(torch.ones(3, 2, device="meta"))
    with pytest.raises(ModelError, match="no numbers"):
        from_torch(model)
    model[0].weight = nn.Parameter(torch.ones(3, 2).to_sparse(), requires_grad=False)
    with pytest.raises(ModelError, match="no plain dense tensor"):
        from_torch(model)


def test_reading_leaves_random_numbers_and_the_module_alone() -> None:
    model = Functional()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    from_torch(model)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

"""Modules with convolutions, batch norms, pools and branches, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scrambled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module in float64 with running statistics and affine maps that matter."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(0.2 + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype))
        elif name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype))
    for child in module.modules():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)) and child.affine:
            for value in (child.weight, child.bias):
                noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                value.data.copy_(value.data + 0.5 * noise)
    return module


class Residual(nn.Module):
    """A ResNet block with a projection, and one without; activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4, eps=1e-3)
        self.short = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
        self.last = nn.Conv2d(4, 4, 3, padding="same", dilation=2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        y += self.short(x)
        y = self.act(y)
        y = self.act(self.last(y) + y)
        out: Tensor = self.fc(y.mean((2, 3)))
        return out


class Dense(nn.Module):
    """Two DenseNet layers: each takes all values before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(2), nn.BatchNorm2d(5)])
        self.convs = nn.ModuleList([nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)])
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(8 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x), inplace=True))], 1)
        out: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return out


class Separable(nn.Module):
    """An inverted residual: depthwise separable, ReLU6 and hardswish, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(2, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.point = nn.Conv2d(6, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.point(F.hardswish(self.norm(self.depth(self.wide(x)))))
        return torch.flatten(self.pool(x + y), 1)


def lenet() -> nn.Module:
    """Return a small LeNet with max pools."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(4, 5),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(5, 3),
    )


class Mixed(nn.Module):
    """Shapes turned around, one-dimensional layers, adaptive pools and two more sums."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 4, 3, padding=2, dilation=2, groups=2)
        self.norm = nn.BatchNorm1d(4)
        self.down = nn.MaxPool1d(3, stride=2, padding=1)
        self.most = nn.AdaptiveMaxPool1d(3)
        self.mean = nn.AdaptiveAvgPool1d(3)
        self.flat = nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 1, 3).reshape(x.shape[0], 6, -1)
        x = self.down(self.norm(self.conv(x)))
        x = F.silu(self.most(x)) + F.gelu(self.mean(x))
        y = x.transpose(1, 2).flatten(1)
        out: Tensor = self.flat(F.elu(y, 0.5)) + y.view(-1, 3, 4).permute(0, 2, 1).flatten(1)
        return out


IMAGE = (2, 6, 6)
CASES: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "dense": Dense,
    "separable": Separable,
    "lenet": lenet,
    "mixed": Mixed,
}

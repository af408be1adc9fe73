"""Trains the three networks of the case study: ``python -m case_studies.digits.train``.

Data: scikit-learn's 8x8 digits (1797 images), every pixel divided by 16, so that it lies in
[0, 1] and is exact in binary. A fifth, drawn with a fixed seed, is kept for testing and written
to ``test.npz``.

Training is plain (Adam, cross-entropy, no attacks and no bounds) but for one term: the mean sum
of the hidden activations, times ``--penalty``. When every weight of a layer is off by delta, a
neuron is off by at most delta times that sum, so fewer and smaller activations make the same delta
hurt less. torch 2.13.0 on a CPU, one thread; another version may give other last digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).parent
TEST = 360
EPOCHS = 60
BATCH = 64
PENALTY = 3e-3
SEED = 0


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norms, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, height, width)``, of the shape of the input."""
        y = functional.relu(self.norm1(self.first(x)))
        return functional.relu(self.norm2(self.second(y)) + x)


def dense(*widths: int) -> nn.Sequential:
    """Return layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional() -> nn.Sequential:
    """Return a convolution, a residual block, and two dense layers on flat inputs."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Residual(32),
        nn.Flatten(),
        nn.Linear(512, 160),
        nn.ReLU(),
        nn.Linear(160, 10),
    )


MAKERS: dict[str, Callable[[], nn.Sequential]] = {
    "dense": lambda: dense(64, 100, 100, 10),
    "conv": convolutional,
    "wide": lambda: dense(64, 256, 256, 256, 10),
}
RATES = {"dense": 1e-2, "conv": 3e-2, "wide": 1e-2}
"""The highest learning rate of each, in a schedule that rises and falls once."""


def data() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the pixels ``(1797, 64)`` in [0, 1] and the digits ``(1797,)``."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int64)


def split(count: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the row numbers for training and for testing."""
    order = np.random.default_rng(SEED).permutation(count)
    return order[TEST:], order[:TEST]


def train(kind: str, x: Tensor, y: Tensor, penalty: float = PENALTY) -> nn.Sequential:
    """Return a trained network, in evaluation mode."""
    torch.manual_seed(SEED)
    model = MAKERS[kind]()
    sums: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, (nn.ReLU, Residual)):
            module.register_forward_hook(lambda _, __, out: sums.append(out.flatten(1).sum(1)))
    optimiser = torch.optim.Adam(model.parameters(), lr=RATES[kind])
    batches = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATES[kind], total_steps=EPOCHS * batches
    )
    order = torch.Generator().manual_seed(SEED)
    for _ in range(EPOCHS):
        shuffled = torch.randperm(len(x), generator=order)
        for start in range(0, batches * BATCH, BATCH):
            batch = shuffled[start : start + BATCH]
            sums.clear()
            loss: Any = functional.cross_entropy(model(x[batch]), y[batch])
            loss = loss + penalty * torch.stack(sums).sum(0).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    for module in model.modules():
        module._forward_hooks.clear()
    return model.requires_grad_(False).eval()


def main() -> None:
    """Train the networks, write them and the test points, and print the accuracies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the files go")
    parser.add_argument(
        "--penalty", type=float, default=PENALTY, help=f"on the hidden activations ({PENALTY})"
    )
    parser.add_argument("kinds", nargs="*", default=list(MAKERS), help="which networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    x, y = data()
    seen, unseen = split(len(x))
    np.savez_compressed(options.output / "test.npz", x=x[unseen], y=y[unseen])
    given = [torch.from_numpy(a) for a in (x[seen], y[seen], x[unseen], y[unseen])]
    for kind in options.kinds:
        model = train(kind, given[0], given[1], options.penalty)
        right = [(model(given[i]).argmax(1) == given[i + 1]).float().mean().item() for i in (0, 2)]
        count = sum(p.numel() for p in model.parameters())
        program = torch.export.export(model, (given[2][:1],))
        torch.export.save(program, options.output / f"{kind}.pt2")
        print(f"{kind}: {count} parameters, {right[0]:.1%} in training, {right[1]:.1%} in testing")


if __name__ == "__main__":
    main()

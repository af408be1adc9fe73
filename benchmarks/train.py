"""Trains the networks of the benchmark: ``python -m benchmarks.train``.

Two inputs: scikit-learn's moons; five inputs: its synthetic classification problem with four
informative features. Both are scaled to ``[0, 1]^n``. Full-batch Adam in float32 from five fixed
seeds, of which the one with the smallest loss is kept: from a single seed a network of ten hidden
units may stay at the straight line that gets 87 % of the moons right. The files in
``benchmarks/networks`` come from torch 2.13.0 on a CPU; another version may give other last
digits.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import make_classification, make_moons
from torch import nn

from benchmarks.networks import ARCHITECTURES, FOLDER, sequential, trained_file

STEPS = 1000
SEEDS = range(5)


def data(inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points ``(1000, inputs)`` in the unit box and their labels ``(1000, 1)``."""
    if inputs == 2:
        x, y = make_moons(n_samples=1000, noise=0.1, random_state=0)
    else:
        x, y = make_classification(
            n_samples=1000, n_features=5, n_informative=4, n_redundant=1, random_state=0
        )
    x = (x - x.min(axis=0)) / np.ptp(x, axis=0)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


def train(widths: tuple[int, ...], seed: int) -> tuple[float, nn.Sequential, float]:
    """Return the final loss, the network and its accuracy on the data it was trained on."""
    torch.manual_seed(seed)
    model = sequential(widths)
    x, y = data(widths[0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
    loss_of = nn.BCEWithLogitsLoss()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        loss = loss_of(model(x), y).item()
        accuracy = ((model(x) > 0) == (y > 0.5)).double().mean().item()
    return loss, model.requires_grad_(False).eval(), accuracy


def main() -> None:
    """Train all five and print their accuracies."""
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for widths in ARCHITECTURES:
        runs = (train(widths, seed) for seed in SEEDS)
        _, model, accuracy = min(runs, key=lambda run: run[0])
        torch.save(model, trained_file(widths))
        print(f"{trained_file(widths).name}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()

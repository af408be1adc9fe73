"""Trains the two 2-3-1 networks of the case study: ``python train.py athletes.csv``.

Input: the CSV of the public ``rio2016`` data set. Rows without height or weight are left out;
one in five of the others, drawn with a fixed seed, is kept for testing.

The networks are trained on standardised inputs, because weights in kilograms make gradient
descent unstable. The scaler is then folded into the first layer, so that the files take raw
inputs, height in m and weight in kg, and every parameter of theirs is one that a perturbation
moves. torch 2.13.0 on a CPU; another version may give other last digits.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).parent
STEPS = 1500
KINDS = ("relu", "linear")
SEED = 0


def data(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return height (m) and weight (kg), ``(rows, 2)``, and 1 for male, 0 for female."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["height"] and r["weight"]]
    x = torch.tensor([[float(r["height"]), float(r["weight"])] for r in rows], dtype=torch.float64)
    male = torch.tensor([r["sex"] == "male" for r in rows], dtype=torch.float64)
    return x, male[:, None]


def split(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the row numbers for training (four in five) and for testing."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    return order[rows // 5 :], order[: rows // 5]


def train_scaled(kind: str, z: torch.Tensor, y: torch.Tensor, seed: int = SEED) -> nn.Sequential:
    """Return a network trained on standardised inputs ``z``.

    With one seed both kinds start from the same 13 numbers.
    """
    torch.manual_seed(seed)
    hidden = [nn.ReLU()] if kind == "relu" else []
    model = nn.Sequential(nn.Linear(2, 3), *hidden, nn.Linear(3, 1), nn.Sigmoid()).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    loss_of = nn.BCELoss()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model(z), y).backward()
        optimizer.step()
    return model.requires_grad_(False).eval()


def train(kind: str, x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    """Return a network trained on raw inputs ``x``, with the scaler folded in."""
    mean, scale = x.mean(dim=0), x.std(dim=0)
    model = train_scaled(kind, (x - mean) / scale, y)
    first = model[0]
    if not isinstance(first, nn.Linear):
        raise TypeError("the first layer is the one that takes the scaler")
    with torch.no_grad():
        first.weight /= scale
        first.bias.sub_(first.weight @ mean)
    return model


def main() -> None:
    """Train both networks, write them and print their accuracies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="athletes.csv of the rio2016 data set")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the .pt files go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, y = data(options.data)
    seen, unseen = split(len(x))
    print(f"{len(x)} rows, {len(seen)} for training, {len(unseen)} for testing")
    for kind in KINDS:
        model = train(kind, x[seen], y[seen])
        right = (model(x) > 0.5) == (y > 0.5)
        active = (model[0](x) > 0).double().mean(dim=0)
        torch.save(model, options.output / f"{kind}.pt")
        print(
            f"{kind}: accuracy {right[seen].double().mean():.1%} in training, "
            f"{right[unseen].double().mean():.1%} in testing; "
            f"hidden units positive on {', '.join(f'{a:.0%}' for a in active)} of the rows"
        )


if __name__ == "__main__":
    main()

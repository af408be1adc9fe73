"""Writes ``model.pt`` from the paper's parameters and checks the accuracy that the paper reports.

    python case_studies/cats/make_model.py

The parameters are those of the logistic model for ``cats`` in Murthy, Das and Islam,
*Robustness of Neural Networks to Parameter Quantization* (arXiv 1903.10672).
"""

from __future__ import annotations

import csv
from math import ceil, comb
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent
INTERCEPT, HWT, BWT = -3.51518067, 0.07577862, 1.18118408
TEST_SHARE, PAPER_ACCURACY = 0.22, 0.875


def model() -> nn.Sequential:
    """Return the paper's classifier in float64: inputs Hwt (g), Bwt (kg); output P(male)."""
    import torch
    from torch import nn

    linear = nn.Linear(2, 1, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[HWT, BWT]], dtype=torch.float64))
        linear.bias.copy_(torch.tensor([INTERCEPT], dtype=torch.float64))
    return nn.Sequential(linear, nn.Sigmoid()).requires_grad_(False).eval()


def correct() -> tuple[int, int]:
    """Return how many rows of ``cats.csv`` the model gets right, and how many there are."""
    import torch

    with (FOLDER / "cats.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    x = torch.tensor([[float(r["Hwt"]), float(r["Bwt"])] for r in rows], dtype=torch.float64)
    male = torch.tensor([r["Sex"] == "M" for r in rows])
    return int(((model()(x)[:, 0] > 0.5) == male).sum()), len(rows)


def chance_of_split(right: int, rows: int, test: int, test_right: int) -> tuple[float, float]:
    """Return the chances that ``test`` random rows hold exactly, and at least, ``test_right``."""
    ways = [comb(right, k) * comb(rows - right, test - k) for k in range(test + 1)]
    return ways[test_right] / comb(rows, test), sum(ways[test_right:]) / comb(rows, test)


def main() -> None:
    """Write the file and print what can be said of the accuracy."""
    import torch

    torch.save(model(), FOLDER / "model.pt")
    right, rows = correct()
    test = ceil(TEST_SHARE * rows)
    test_right = round(PAPER_ACCURACY * test)
    exactly, at_least = chance_of_split(right, rows, test, test_right)
    print(f"all rows: {right} of {rows} right, {right / rows:.1%}")
    print(f"{TEST_SHARE:.0%} of {rows} rows are {test}; {PAPER_ACCURACY:.1%} of them {test_right}")
    print(f"a random split has exactly {test_right} right: {exactly:.1%}; or more: {at_least:.1%}")
    rest = rows - test
    print(
        f"the other rows would then be {right - test_right} of {rest}: "
        f"{(right - test_right) / rest:.1%}"
    )


if __name__ == "__main__":
    main()

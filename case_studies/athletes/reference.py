"""Epsilon and sigma of both networks without paramrob: closed form at a point, dense search.

python -m case_studies.athletes.reference
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from case_studies.closed_form import OneHidden, search

FOLDER = Path(__file__).parent
LOWER, UPPER = np.array([1.21, 31.0]), np.array([2.18, 170.0])
DELTAS = ("0.001", "0.005", "0.01")
KINDS = ("relu", "linear")


def network(kind: str) -> OneHidden:
    """Read the parameters of ``relu.pt`` or ``linear.pt``."""
    allowed: list[Any] = [nn.Sequential, nn.Linear, nn.ReLU, nn.Sigmoid]
    with torch.serialization.safe_globals(allowed):
        model = torch.load(FOLDER / f"{kind}.pt", weights_only=True)
    first, last = (m for m in model if isinstance(m, nn.Linear))
    return OneHidden(
        first.weight.numpy(),
        first.bias.numpy(),
        last.weight.numpy()[0],
        float(last.bias[0]),
        relu=kind == "relu",
    )


def expected(kind: str, delta: float) -> dict[str, dict[str, object]]:
    """Return epsilon and sigma on both sides, with the inputs that attain them."""
    net = network(kind)
    found = {
        "epsilon": search(lambda x: net.change(x, delta), LOWER, UPPER),
        "sigma_above": search(lambda x: net.flip_distance(x, delta, True), LOWER, UPPER),
        "sigma_below": search(lambda x: net.flip_distance(x, delta, False), LOWER, UPPER),
    }
    return {
        name: {"value": round(value, 9), "at": [round(c, 6) for c in at.tolist()]}
        for name, (value, at) in found.items()
    }


def main() -> None:
    """Print the reference values and write them to ``expected.json``."""
    table = {kind: {d: expected(kind, float(d)) for d in DELTAS} for kind in KINDS}
    text = json.dumps(table, indent=2)
    (FOLDER / "expected.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

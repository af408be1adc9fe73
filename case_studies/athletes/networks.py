"""The networks of the seed study: trained with the data, then kept in ``networks.json``.

    python -m case_studies.athletes.networks athletes.csv

writes the file; everything after the training needs the file alone. A network is kept as it was
trained, on standardised inputs; :func:`raw` folds the scaler into its first layer.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[np.float64]
FILE = Path(__file__).parent / "networks.json"
SEEDS = range(20)
KINDS = ("relu", "linear")


@dataclass(frozen=True)
class Scaler:
    """``z = (x - mean) / scale``, per input."""

    mean: tuple[float, float]
    scale: tuple[float, float]


@dataclass(frozen=True)
class Trained:
    """One network: ``sigmoid(v act(W z + b) + c)``, and its accuracies in training and testing."""

    kind: str
    seed: int
    weight: tuple[tuple[float, float], ...]
    bias: tuple[float, ...]
    out_weight: tuple[float, ...]
    out_bias: float
    accuracy: tuple[float, float]


def read(path: Path = FILE) -> tuple[Scaler, list[Trained]]:
    """Return the scaler and all networks, by kind and seed."""
    said = json.loads(path.read_text())
    scaler = Scaler(tuple(said["mean"]), tuple(said["scale"]))
    return scaler, [
        Trained(
            entry["kind"],
            entry["seed"],
            tuple(tuple(row) for row in entry["weight"]),
            tuple(entry["bias"]),
            tuple(entry["out_weight"]),
            entry["out_bias"],
            tuple(entry["accuracy"]),
        )
        for entry in said["networks"]
    ]


def raw(network: Trained, scaler: Scaler) -> Trained:
    """Return the network on raw inputs, with the scaler folded into the first layer.

    Elementwise float64 operations in a fixed order: every machine gets the same bits.
    """
    (m0, m1), (s0, s1) = scaler.mean, scaler.scale
    weight = tuple((w0 / s0, w1 / s1) for w0, w1 in network.weight)
    bias = tuple(b - (w0 * m0 + w1 * m1) for b, (w0, w1) in zip(network.bias, weight, strict=True))
    return Trained(
        network.kind,
        network.seed,
        weight,
        bias,
        network.out_weight,
        network.out_bias,
        network.accuracy,
    )


def module(network: Trained) -> nn.Sequential:
    """Return the network as a torch module in float64."""
    import torch
    from torch import nn

    hidden = [nn.ReLU()] if network.kind == "relu" else []
    first, last = nn.Linear(2, 3).double(), nn.Linear(3, 1).double()
    with torch.no_grad():
        for parameter, value in (
            (first.weight, network.weight),
            (first.bias, network.bias),
            (last.weight, [network.out_weight]),
            (last.bias, [network.out_bias]),
        ):
            parameter.copy_(torch.tensor(value, dtype=torch.float64))
    return nn.Sequential(first, *hidden, last, nn.Sigmoid()).requires_grad_(False).eval()


def train_all(data_file: Path) -> dict[str, Any]:
    """Train both kinds with every seed on the same rows; return the object to be written."""
    import torch

    from case_studies.athletes.train import data, split, train_scaled

    torch.set_num_threads(1)
    x, y = data(data_file)
    seen, unseen = split(len(x))
    mean, scale = x[seen].mean(dim=0), x[seen].std(dim=0)
    z = (x - mean) / scale
    networks = []
    for kind in KINDS:
        for seed in SEEDS:
            model = train_scaled(kind, z[seen], y[seen], seed)
            right = (model(z) > 0.5) == (y > 0.5)
            accuracy = [float(right[rows].double().mean()) for rows in (seen, unseen)]
            values = [p.tolist() for p in model.parameters()]
            networks.append(
                {
                    "kind": kind,
                    "seed": seed,
                    "weight": values[0],
                    "bias": values[1],
                    "out_weight": values[2][0],
                    "out_bias": values[3][0],
                    "accuracy": accuracy,
                }
            )
            shares = ", ".join(f"{share:.1%}" for share in accuracy)
            print(f"{kind} {seed}: accuracy {shares} (training, testing)")
    about = {"torch": torch.__version__.split("+")[0], "rows": len(x), "training": len(seen)}
    return about | {"mean": mean.tolist(), "scale": scale.tolist(), "networks": networks}


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="athletes.csv of the rio2016 data set")
    parser.add_argument("--output", type=Path, default=FILE, help="the file to write")
    options = parser.parse_args()
    said = train_all(options.data)
    entries = ",\n  ".join(json.dumps(entry) for entry in said.pop("networks"))
    head = json.dumps(said)[:-1]
    options.output.write_text(f'{head},\n "networks": [\n  {entries}\n ]}}\n')


if __name__ == "__main__":
    main()

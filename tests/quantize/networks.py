"""Networks with every kind of parameter."""

from __future__ import annotations

import numpy as np
import torch

from paramrob.models.network import BatchNorm, Conv, Dense, Input, Network, Node, Parameter, Reshape


def image_network() -> Network:
    rng = np.random.default_rng(3)
    values = {
        "conv.weight": rng.normal(size=(2, 1, 3, 3)),
        "conv.bias": rng.normal(size=2),
        "norm.weight": rng.uniform(0.5, 2, 2),
        "norm.bias": rng.normal(size=2),
        "fc.weight": rng.normal(size=(3, 8)),
    }
    fixed = {"norm.mean": np.zeros(2), "norm.variance": np.ones(2)}
    conv = Conv("conv.weight", "conv.bias", (1, 1), ((0, 0), (0, 0)), (1, 1))
    norm = BatchNorm("norm.mean", "norm.variance", 1e-5, "norm.weight", "norm.bias")
    return Network(
        [
            Node("input", Input(), (), (1, 4, 4)),
            Node("conv", conv, ("input",), (2, 2, 2)),
            Node("norm", norm, ("conv",), (2, 2, 2)),
            Node("flat", Reshape(), ("norm",), (8,)),
            Node("fc", Dense("fc.weight"), ("flat",), (3,)),
        ],
        [Parameter(n, v) for n, v in values.items()]
        + [Parameter(n, v, fixed=True) for n, v in fixed.items()],
    )


def dense_network(layers: list[torch.nn.Linear]) -> Network:
    nodes = [Node("input", Input(), (), (layers[0].in_features,))]
    parameters = []
    for i, layer in enumerate(layers):
        nodes.append(Node(f"n{i}", Dense(f"w{i}"), (nodes[-1].name,), (layer.out_features,)))
        parameters.append(Parameter(f"w{i}", layer.weight.detach().double().numpy()))
    return Network(nodes, parameters)

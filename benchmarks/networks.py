"""The networks and problems of the epsilon benchmark.

Five architectures, each once trained (``benchmarks/networks/*.pt``, written by
``benchmarks/train.py``) and once random, at two perturbations: twenty problems. Hidden units are
ReLU, the one output is a logit, and the question is always the same: over all inputs in
``[0, 1]^n`` and all parameters within ``delta``, how far can the confidence after the sigmoid
move?
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paramrob.domain import Box
from paramrob.models.model import OutputInfo
from paramrob.models.network import Activation, Array, Dense, Input, Network, Node, Parameter
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork

if TYPE_CHECKING:
    from torch import nn

FOLDER = Path(__file__).parent / "networks"
ARCHITECTURES = ((2, 10, 1), (2, 10, 10, 1), (2, 16, 16, 1), (2, 32, 32, 32, 1), (5, 10, 1))
DELTAS = (Fraction(1, 1000), Fraction(5, 1000))

Layers = tuple[tuple[Array, Array], ...]
"""Weight ``(out, in)`` and bias ``(out,)`` of each dense layer, ReLU between them."""


@dataclass(frozen=True)
class Case:
    """One problem: a ReLU network with one logit, on ``[0, 1]^n``, and a ``delta``."""

    origin: str
    layers: Layers
    delta: Fraction

    @property
    def architecture(self) -> str:
        """Layer widths, e.g. ``2-10-1``."""
        return "-".join(map(str, (self.inputs, *(len(b) for _, b in self.layers))))

    @property
    def name(self) -> str:
        """``<origin>-<architecture>@<delta>``."""
        return f"{self.origin}-{self.architecture}@{float(self.delta)}"

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        return int(self.layers[0][0].shape[1])

    def problem(self) -> Problem:
        """Return the problem as paramrob takes it."""
        network = network_of(self.layers)
        perturbation = Perturbation.uniform(network, self.delta)
        box = Box((Fraction(0),) * self.inputs, (Fraction(1),) * self.inputs)
        uncertain = UncertainNetwork(network, perturbation)
        return Problem(network, uncertain, box, OutputInfo("logit"))


def network_of(layers: Layers) -> Network:
    """Return the IR of a dense ReLU network."""
    nodes = [Node("input", Input(), (), (layers[0][0].shape[1],))]
    parameters = []
    for i, (weight, bias) in enumerate(layers):
        parameters += [Parameter(f"{2 * i}.weight", weight), Parameter(f"{2 * i}.bias", bias)]
        dense = Dense(f"{2 * i}.weight", f"{2 * i}.bias")
        nodes.append(Node(f"{2 * i}", dense, (nodes[-1].name,), bias.shape))
        if i < len(layers) - 1:
            relu = Activation("relu")
            nodes.append(Node(f"{2 * i + 1}", relu, (nodes[-1].name,), bias.shape))
    return Network(nodes, parameters)


def random_layers(widths: tuple[int, ...]) -> Layers:
    """Return He-initialised layers: ``N(0, 2 / n_in)`` weights, ``0.1 N(0, 1)`` biases, seed 0."""
    rng = np.random.default_rng(0)
    layers = []
    for before, after in itertools.pairwise(widths):
        weight = rng.standard_normal((after, before)) * np.sqrt(2 / before)
        layers.append((weight, 0.1 * rng.standard_normal(after)))
    return tuple(layers)


def sequential(widths: tuple[int, ...]) -> nn.Sequential:
    """Return a fresh torch module of this architecture, in float32."""
    from torch import nn

    modules: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        modules += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def trained_file(widths: tuple[int, ...]) -> Path:
    """Return where the trained network of this architecture lies."""
    data = "moons" if widths[0] == 2 else "synthetic"
    return FOLDER / f"{data}-{'-'.join(map(str, widths))}.pt"


def trained_layers(widths: tuple[int, ...]) -> Layers:
    """Read the layers of a trained network."""
    import torch
    from torch import nn

    with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.ReLU]):  # type: ignore[no-untyped-call]
        model = torch.load(trained_file(widths), weights_only=True)
    dense = [m for m in model if isinstance(m, nn.Linear)]
    return tuple(
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in dense
    )


def cases(only: str = "") -> list[Case]:
    """Return the problems whose name contains ``only``."""
    found = []
    for origin, layers_of in (("trained", trained_layers), ("random", random_layers)):
        for widths in ARCHITECTURES:
            layers = layers_of(widths)
            found += [Case(origin, layers, delta) for delta in DELTAS]
    return [case for case in found if only in case.name]

"""The networks and problems of the epsilon benchmark.

The question is always the same: over all inputs in a box and all parameters within ``delta``, how
far can the confidence after the sigmoid move?

Five architectures, each once trained (``benchmarks/networks/*.pt``, written by
``benchmarks/train.py``) and once random, at two perturbations: twenty problems. Hidden units are
ReLU, the one output is a logit, the inputs lie in ``[0, 1]^n``.

Beside them, the networks of the case studies in their own boxes: eight more.
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
CASE_STUDIES = Path(__file__).parent.parent / "case_studies"
ARCHITECTURES = ((2, 10, 1), (2, 10, 10, 1), (2, 16, 16, 1), (2, 32, 32, 32, 1), (5, 10, 1))
DELTAS = (Fraction(1, 1000), Fraction(5, 1000))

Layers = tuple[tuple[Array, Array], ...]
"""Weight ``(out, in)`` and bias ``(out,)`` of each dense layer."""


@dataclass(frozen=True)
class Case:
    """One problem: a network with one logit, a box of inputs (``[0, 1]^n``), and a ``delta``.

    Hidden units are ReLU or, where ``relu`` is false, linear. ``gap`` is the width to reach.
    """

    origin: str
    layers: Layers
    delta: Fraction
    box: Box | None = None
    relu: bool = True
    gap: float = 1e-3

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
        network = network_of(self.layers, self.relu)
        perturbation = Perturbation.uniform(network, self.delta)
        uncertain = UncertainNetwork(network, perturbation)
        return Problem(network, uncertain, self.domain(), OutputInfo("logit"))

    def domain(self) -> Box:
        """Return the box of inputs."""
        return self.box or Box((Fraction(0),) * self.inputs, (Fraction(1),) * self.inputs)


def network_of(layers: Layers, relu: bool = True) -> Network:
    """Return the IR of a dense network, ReLU or linear."""
    nodes = [Node("input", Input(), (), (layers[0][0].shape[1],))]
    parameters = []
    for i, (weight, bias) in enumerate(layers):
        parameters += [Parameter(f"{2 * i}.weight", weight), Parameter(f"{2 * i}.bias", bias)]
        dense = Dense(f"{2 * i}.weight", f"{2 * i}.bias")
        nodes.append(Node(f"{2 * i}", dense, (nodes[-1].name,), bias.shape))
        if relu and i < len(layers) - 1:
            after = Activation("relu")
            nodes.append(Node(f"{2 * i + 1}", after, (nodes[-1].name,), bias.shape))
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


def read_layers(path: Path) -> Layers:
    """Read the dense layers of a ``.pt`` file of this project."""
    import torch
    from torch import nn

    with torch.serialization.safe_globals([nn.Sequential, nn.Linear, nn.ReLU, nn.Sigmoid]):
        model = torch.load(path, weights_only=True)
    dense = [m for m in model if isinstance(m, nn.Linear)]
    return tuple(
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in dense
    )


def benchmark_cases() -> list[Case]:
    """Return the twenty problems."""
    found = []
    for origin in ("trained", "random"):
        for widths in ARCHITECTURES:
            trained = origin == "trained"
            layers = read_layers(trained_file(widths)) if trained else random_layers(widths)
            found += [Case(origin, layers, delta) for delta in DELTAS]
    return found


def case_study_cases() -> list[Case]:
    """Return the problems of the case studies: cats at two deltas, athletes at three."""
    cats = Box((Fraction("6.3"), Fraction("2.0")), (Fraction("20.5"), Fraction("3.9")))
    athletes = Box((Fraction("1.21"), Fraction(31)), (Fraction("2.18"), Fraction(170)))
    layers = read_layers(CASE_STUDIES / "cats" / "model.pt")
    found = [Case("cats", layers, Fraction(d), cats, gap=1e-6) for d in ("0.005", "0.01")]
    for kind in ("relu", "linear"):
        layers = read_layers(CASE_STUDIES / "athletes" / f"{kind}.pt")
        for d in ("0.001", "0.005", "0.01"):
            relu = kind == "relu"
            found.append(Case(f"athletes-{kind}", layers, Fraction(d), athletes, relu, 1e-6))
    return found


def cases(only: str = "") -> list[Case]:
    """Return the problems whose name contains ``only``, case studies first.

    The last, ``random-5-20-20-1@0.005``, needs a longer time limit: it has to be named.
    """
    large = Case("random", random_layers((5, 20, 20, 1)), DELTAS[1])
    named = [large] if only and only in large.name and "20" in only else []
    found = (*case_study_cases(), *benchmark_cases(), *named)
    return [case for case in found if only in case.name]

"""Small problems whose answers a test can work out another way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from paramrob.domain import Box, Domain, Point
from paramrob.models.model import OutputInfo, OutputKind
from paramrob.models.network import Activation, Array, Network
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property
from tests.replay_networks import act, dense, stack

HALF = Fraction(1, 2)


def box(*ends: tuple[float | str | Fraction, float | str | Fraction]) -> Box:
    """Return the box with these ends, one pair an input."""
    return Box(tuple(Fraction(a) for a, _ in ends), tuple(Fraction(b) for _, b in ends))


def unit_box(size: int, half: float = 1.0) -> Box:
    return box(*[(-half, half)] * size)


def problem(
    network: Network,
    domain: Domain,
    delta: str | Fraction | Perturbation = "0.01",
    kind: OutputKind = "logit",
    level: Fraction | None = HALF,
    asked: Property | None = None,
    reference: Network | None = None,
) -> Problem:
    """Return a problem about a network and a uniform box (or any perturbation) around it."""
    if not isinstance(delta, Perturbation):
        delta = Perturbation.uniform(network, Fraction(delta))
    return Problem(
        reference or network,
        UncertainNetwork(network, delta),
        domain,
        OutputInfo(kind, level),
        asked,
    )


def layered(
    weights: Sequence[Array], biases: Sequence[Array], kinds: Sequence[str], slope: float = 0.1
) -> Network:
    """Return dense layers with an activation behind each but the last (``kinds`` may end one)."""
    layers = []
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        layers.append(dense(i, w.tolist(), b.tolist()))
        if i < len(kinds):
            layers.append(act(kinds[i], slope if kinds[i] == "leaky_relu" else 0.0))
    return stack(weights[0].shape[1], *layers)


def random_network(
    rng: np.random.Generator, widths: Sequence[int], kind: str = "relu", scale: float = 1.0
) -> Network:
    """Return He-like weights and small biases; ``widths`` from input to output."""
    pairs = list(itertools.pairwise(widths))
    weights = [rng.normal(size=(b, a)) * np.sqrt(2 / a) * scale for a, b in pairs]
    biases = [rng.normal(size=b) * 0.2 for _, b in pairs]
    return layered(weights, biases, [kind] * (len(pairs) - 1))


def is_smooth(network: Network) -> bool:
    """Whether an exact run of the network needs balls."""
    kinds = [n.op.kind for n in network.nodes if isinstance(n.op, Activation)]
    return "sigmoid" in kinds or "tanh" in kinds


def sample_parameters(
    rng: np.random.Generator, subject: Problem, how: str = "mixed"
) -> dict[str, Array]:
    """Return a parameter vector of the box: a vertex, an interior one, or a mixture of both."""
    uncertain = subject.uncertain
    chosen: dict[str, Array] = {}
    for name, parameter in uncertain.network.parameters.items():
        low, high = uncertain.perturbation.interval(parameter).inner()
        share = rng.uniform(size=low.shape)
        vertex = (share > 0.5).astype(float)
        if how == "vertex" or (how == "mixed" and rng.uniform() < 0.5):
            share = vertex
        value = low + share * (high - low)
        chosen[name] = np.minimum(np.maximum(value, low), high)
    return chosen


def sample_inputs(rng: np.random.Generator, subject: Problem, count: int) -> list[Array]:
    """Return corners, edges and interior points of the domain."""
    low, high = subject.domain.inner()
    if isinstance(subject.domain, Point):
        return [low]
    found = []
    for _ in range(count):
        share = rng.uniform(size=low.shape)
        share = np.where(rng.uniform(size=low.shape) < 0.4, np.round(share), share)
        found.append(np.minimum(np.maximum(low + share * (high - low), low), high))
    return found


def values_of(theta: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(value, dtype=np.float64) for name, value in theta.items()}

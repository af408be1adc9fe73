"""Tries to break a bracket: many random parameter vectors, at random inputs and at the worst one.

Half of the vectors are vertices of the box, half lie inside: with two hidden layers the worst
parameters may be an interior point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.networks import Case
from paramrob.models.network import Array

BATCH = 1000
# The samples are computed in float64 and rounded; the bracket is proved for real numbers.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Sampled:
    """The largest change of the confidence found, at random inputs and at the worst input."""

    random: float
    worst: float

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.random, self.worst)

    def breaks(self, upper: float) -> bool:
        """Whether a sample lies above a proved upper end."""
        return self.largest > upper + ROUNDING


def sample(case: Case, worst: Array | None, count: int = 100_000, seed: int = 0) -> Sampled:
    """Return the largest changes among ``count`` parameter vectors within ``case.delta``.

    Args:
        case: the problem.
        worst: the input ``(n,)`` of the bracket's witness, if there is one.
        count: how many vectors; each is tried at an input of its own and at ``worst``.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    lower, upper = case.domain().inner()
    found = np.zeros(2)
    done = 0
    while done < count:
        size = min(BATCH, count - done)
        x = np.empty((size, 2, case.inputs))
        x[:, 0] = rng.uniform(lower, upper, (size, case.inputs))
        x[:, 1] = x[:, 0] if worst is None else worst
        vertices = np.arange(done, done + size) % 2 == 0
        change = np.abs(_confidence(case, x, rng, vertices) - _confidence(case, x, None, vertices))
        found = np.maximum(found, change.max(axis=0))
        done += size
    return Sampled(float(found[0]), float(found[1]))


def _confidence(case: Case, x: Array, rng: np.random.Generator | None, vertices: Array) -> Array:
    """Return confidences ``(batch, points)`` at ``x`` ``(batch, points, n)``."""
    h = x
    for number, (weight, bias) in enumerate(case.layers):
        w = _drawn(weight, float(case.delta), rng, vertices)
        b = _drawn(bias, float(case.delta), rng, vertices)
        h = h @ np.swapaxes(w, -1, -2) + b[:, None, :]
        if case.relu and number < len(case.layers) - 1:
            h = np.maximum(h, 0.0)
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * h[..., 0])))


def _drawn(centre: Array, delta: float, rng: np.random.Generator | None, vertices: Array) -> Array:
    """Return one draw of a parameter for each of the batch: a vertex, or uniform inside."""
    shape = (len(vertices), *centre.shape)
    if rng is None:
        return np.broadcast_to(centre, shape)
    unit = rng.uniform(-1.0, 1.0, shape)
    at_vertex = vertices.reshape(-1, *(1,) * centre.ndim)
    return np.asarray(centre + delta * np.where(at_vertex, np.sign(unit), unit))

"""Networks made to break bounds: extreme magnitudes, cancellation, wide sums, odd geometry."""

from __future__ import annotations

from typing import Any

import numpy as np

from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    Array,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Network,
    Pool,
    Reshape,
    Transpose,
)
from tests.bounds.graph.nets import Build

RELU = Activation("relu")


def extreme(rng: np.random.Generator, shape: tuple[int, ...], span: float = 30) -> Array:
    """Return numbers of either sign whose magnitudes span ``10**-span .. 10**span``."""
    return np.asarray(rng.choice([-1, 1], size=shape) * 10 ** rng.uniform(-span, span, size=shape))


def dense(build: Build, weight: Any, bias: Any = None) -> str:
    name = None if bias is None else build.parameter(np.asarray(bias, dtype=float))
    return build.add(Dense(build.parameter(np.asarray(weight, dtype=float)), name))


def magnitudes(span: float, seed: int) -> Network:
    build = Build((4,), seed)
    dense(build, extreme(build.rng, (6, 4), span), extreme(build.rng, (6,), span))
    build.add(RELU)
    dense(build, extreme(build.rng, (5, 6), span), extreme(build.rng, (5,), span))
    build.add(Activation("leaky_relu", slope=0.25))
    dense(build, extreme(build.rng, (2, 5), span), extreme(build.rng, (2,), span))
    return build.network()


def cancelling() -> Network:
    """Sums of ``1e16``s that leave ones, then their difference magnified again."""
    build = Build((3,), 5)
    dense(build, [[1e16, -1e16, 1], [1e16, -1e16, 3], [1, 1, -2]], [0.1, -0.1, 0])
    build.add(RELU)
    dense(build, [[1e15, -1e15, 1], [-1e15, 1e15, 1e-3]], [1, -1])
    build.add(Activation("hardswish"))
    dense(build, [[1, -1], [1e8, 1e8]])
    return build.network()


def wide(terms: int) -> Network:
    build = Build((terms,), 6)
    dense(build, build.rng.normal(size=(2, terms)), [0.0, 1.0])
    build.add(RELU)
    dense(build, [[1.0, -1.0]])
    return build.network()


def wide_inside(terms: int) -> Network:
    """A wide hidden layer whose sum cancels."""
    build = Build((2,), 7)
    half = build.rng.normal(size=(terms // 2, 2))
    dense(build, np.concatenate([half, half]), np.zeros(terms))
    build.add(RELU)
    dense(build, np.concatenate([np.ones((1, terms // 2)), -np.ones((1, terms // 2))], axis=1))
    return build.network()


def subnormal() -> Network:
    build = Build((3,), 8)
    dense(build, [[5e-324, -1e-310, 3e-308], [2e-308, 1e-320, -5e-324], [1e-300, 1e-308, 0]])
    build.add(RELU)
    dense(build, [[1e300, -1e308, 1e-308], [1e-10, 5e-324, 1e300]], [5e-324, -1e-310])
    return build.network()


def overflowing() -> Network:
    build = Build((2,), 9)
    dense(build, [[1e200, -1e200], [1e308, 1e308], [1, 1]], [1e308, -1e308, 0])
    build.add(RELU)
    dense(build, [[1e200, 1, -1], [-1e-308, 1e-308, 1]])
    build.add(RELU)
    dense(build, [[1e-300, 1], [0, 1]])
    return build.network()


def tiny_variance() -> Network:
    build = Build((2, 3), 10)
    build.add(Conv(build.parameter(build.rng.normal(size=(3, 2, 1))), None, (1,), ((0, 0),), (1,)))
    mean = build.parameter(np.array([1e8, -0.3, 1e-9]), fixed=True)
    variance = build.parameter(np.array([1e-30, 3e-300, 0.0]), fixed=True)
    weight, bias = build.parameter(np.array([1.0, 1e-140, 3.0])), build.normal(3)
    build.add(BatchNorm(mean, variance, 2.0**-120, weight, bias))
    build.add(RELU)
    build.add(Reshape(), shape=(9,))
    dense(build, build.rng.normal(size=(2, 9)))
    return build.network()


def windows() -> Network:
    """Uneven padding, strides, dilation and groups, on one axis after two."""
    build = Build((4, 6, 5), 11)
    kernel = build.parameter(extreme(build.rng, (6, 2, 3, 2), 4))
    build.add(Conv(kernel, build.normal(6), (2, 1), ((2, 0), (0, 3)), (1, 2), 2))
    build.add(Activation("clamp", low=-1.5, high=6.0))
    size = int(np.prod(build.shape(build.last)[1:]))
    build.add(Reshape(), shape=(6, size))
    kernel = build.parameter(build.rng.normal(size=(3, 2, 4)))
    build.add(Conv(kernel, None, (3,), ((1, 2),), (2,), 3))
    build.add(AdaptivePool("average"), shape=(3, 2))
    build.add(Reshape(), shape=(6,))
    dense(build, build.rng.normal(size=(2, 6)), [0.5, -0.5])
    return build.network()


def branches() -> Network:
    """Values that cancel exactly in real numbers, twice the same, and one parameter used twice."""
    build = Build((3,), 12)
    weight = build.normal(3, 3)
    first = build.add(Dense(weight))
    build.add(Elementwise("mul", build.parameter(np.full(3, -1.0))))
    build.add(Add(), build.last, first, first)
    build.add(RELU)
    again = build.add(Dense(weight))
    build.add(Concat(0), again, first)
    build.add(Elementwise("div", build.parameter(np.array([3.0, -7.0, 1e-3, 1e9, 11.0, -0.3]))))
    dense(build, build.rng.normal(size=(2, 6)))
    return build.network()


def maxima() -> Network:
    """Ties, padding beside negative values, overlapping windows."""
    build = Build((2, 4, 4), 13)
    build.add(Conv(build.normal(2, 1, 1, 1), None, (1, 1), ((0, 0), (0, 0)), (1, 1), 2))
    build.add(Pool("max", (3, 2), (1, 2), ((1, 1), (1, 1)), (1, 1)))
    build.add(Pool("average", (2, 2), (1, 1), ((1, 0), (0, 1)), (1, 1), False))
    build.add(Transpose((2, 0, 1)))
    build.add(AdaptivePool("max"), shape=(build.shape(build.last)[0], 2, 1))
    size = int(np.prod(build.shape(build.last)))
    build.add(Reshape(), shape=(size,))
    dense(build, build.rng.normal(size=(2, size)))
    return build.network()


ADVERSARIAL = {
    "magnitudes 30": (magnitudes(30, 1), 1.0),
    "magnitudes 8": (magnitudes(8, 2), 1.0),
    "magnitudes 150": (magnitudes(150, 3), 1.0),
    "cancelling": (cancelling(), 1.0),
    "wide": (wide(10_000), 1.0),
    "wide inside": (wide_inside(2_000), 1.0),
    "subnormal": (subnormal(), 1e-10),
    "overflowing": (overflowing(), 1.0),
    "tiny variance": (tiny_variance(), 1.0),
    "windows": (windows(), 1.0),
    "branches": (branches(), 1.0),
    "maxima": (maxima(), 1.0),
}
"""Networks and the scale of their inputs."""

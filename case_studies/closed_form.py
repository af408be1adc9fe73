"""Epsilon and sigma of networks with one hidden layer, by closed form and dense search.

At one input, the logits of a network with one hidden layer whose parameters move by at most
``delta`` fill an interval: the hidden units move independently, each within an interval that a
monotone activation maps end to end, and each output weight meets one of them only. Over a box of
inputs this module searches those exact ends densely and zooms in on the best cells. What it finds
is attained, up to rounding; that nothing larger exists it does not prove.

Nothing here imports paramrob: it is what the tests compare paramrob with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Measure = Callable[[Array], Array]


@dataclass(frozen=True)
class OneHidden:
    """``sigmoid(v act(W x + b) + c)``: ``W (hidden, in)``, ``b (hidden,)``, ``v (hidden,)``."""

    weight: Array
    bias: Array
    out_weight: Array
    out_bias: float
    relu: bool

    def logit(self, x: Array) -> Array:
        """Return the reference logits ``(batch,)`` at ``x`` ``(batch, in)``."""
        z = x @ self.weight.T + self.bias
        h = np.maximum(z, 0.0) if self.relu else z
        return np.asarray(h @ self.out_weight + self.out_bias)

    def logit_range(self, x: Array, delta: float) -> tuple[Array, Array]:
        """Return the least and greatest logits, each ``(batch,)``, attained at ``x``."""
        z = x @ self.weight.T + self.bias
        reach = delta * (np.abs(x).sum(axis=1, keepdims=True) + 1.0)
        low, high = z - reach, z + reach
        if self.relu:
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
        v = self.out_weight
        products = np.stack([(v + s) * h for s in (-delta, delta) for h in (low, high)])
        return (
            products.min(axis=0).sum(axis=1) + self.out_bias - delta,
            products.max(axis=0).sum(axis=1) + self.out_bias + delta,
        )

    def change(self, x: Array, delta: float) -> Array:
        """Return the largest change of the confidence at each ``x``: the local epsilon."""
        low, high = (sigmoid(z) for z in self.logit_range(x, delta))
        centre = sigmoid(self.logit(x))
        return np.maximum(high - centre, centre - low)

    def flip_distance(self, x: Array, delta: float, above: bool) -> Array:
        """Return ``|f0 - 1/2|`` where a label can change on that side of 1/2, else ``-inf``."""
        centre = self.logit(x)
        low, high = self.logit_range(x, delta)
        flips = (centre > 0) & (low <= 0) if above else (centre <= 0) & (high > 0)
        return np.where(flips, np.abs(sigmoid(centre) - 0.5), -np.inf)


def sigmoid(z: Array) -> Array:
    """Return ``1 / (1 + exp(-z))`` without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def search(
    measure: Measure,
    lower: Array,
    upper: Array,
    *,
    cells: int = 600,
    keep: int = 8,
    zooms: int = 34,
) -> tuple[float, Array]:
    """Maximise over a two-dimensional box: a grid, then finer grids around its best points.

    Each grid's step is half the last one's, but it reaches twenty of its own steps: where the
    best point lies on the curve that bounds the inputs with a flip, the search must be able to
    slide along it.

    Args:
        measure: values ``(batch,)`` of points ``(batch, 2)``.
        lower: the box's lower corner ``(2,)``.
        upper: its upper corner.
        cells: how many cells a side of the first grid has.
        keep: around how many of the best points the search goes on.
        zooms: how often.

    Returns:
        The largest value found, ``-inf`` if none is finite, and where.
    """
    best = _grid(lower, upper, cells)
    values = measure(best)
    step = (upper - lower) / cells
    for _ in range(zooms):
        best = best[np.argsort(values)[-keep:]]
        step = step / 2
        reach = 20 * step
        grids = [
            _grid(np.maximum(p - reach, lower), np.minimum(p + reach, upper), 40) for p in best
        ]
        best = np.concatenate([best, *grids])
        values = measure(best)
    return float(values.max()), np.asarray(best[values.argmax()])


def _grid(lower: Array, upper: Array, cells: int) -> Array:
    axes = [np.linspace(a, b, cells + 1) for a, b in zip(lower, upper, strict=True)]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1)

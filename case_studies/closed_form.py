"""Epsilon and sigma of networks with one hidden layer, by closed form and dense search.

At one input, the logits of a network with one hidden layer whose parameters move by at most
``delta`` fill an interval: the hidden units move independently, each within an interval that a
monotone activation maps end to end, and each output weight meets one of them only. Over a box of
inputs this module searches those exact ends densely and zooms in on the best. What it finds
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
    measure: Measure, lower: Array, upper: Array, *, slices: int = 240, keep: int = 4
) -> tuple[float, Array]:
    """Maximise over a two-dimensional box, slice by slice.

    Along each slice parallel to an axis a dense grid is followed by finer grids around its best
    point, which also finds the border of the inputs with a flip; over the slices the same is
    done around the best of them. Both axes are tried.

    Args:
        measure: values ``(batch,)`` of points ``(batch, 2)``, ``-inf`` outside a feasible set.
        lower: the box's lower corner ``(2,)``.
        upper: its upper corner.
        slices: how many slices the search starts from.
        keep: around how many of the best slices it goes on.

    Returns:
        The largest value found, ``-inf`` if none is finite, and where.
    """
    best, at = -np.inf, lower
    for axis in (0, 1):
        low, high = lower[1 - axis], upper[1 - axis]
        places, step = np.linspace(low, high, slices + 1), (high - low) / slices
        for _ in range(10):
            points, values = _slice_maxima(measure, axis, places, (lower[axis], upper[axis]))
            if values.max() > best:
                best, at = float(values.max()), points[values.argmax()]
            around = places[np.argsort(values)[-keep:]][:, None]
            places = np.clip((around + step * np.linspace(-1, 1, 21)).ravel(), low, high)
            step /= 10
    return best, np.asarray(at)


def _slice_maxima(
    measure: Measure, axis: int, places: Array, ends: tuple[float, float], cells: int = 600
) -> tuple[Array, Array]:
    """Return the best point ``(slices, 2)`` of each slice and its value ``(slices,)``.

    A slice runs along ``axis`` between ``ends``, the other coordinate fixed to its place.
    """
    row = np.arange(len(places))
    centre = np.full(len(places), (ends[0] + ends[1]) / 2)
    half, offsets = (ends[1] - ends[0]) / 2, np.linspace(-1, 1, cells + 1)
    points, values = np.full((len(places), 2), ends[0]), np.full(len(places), -np.inf)
    for _ in range(12):
        grid = np.empty((len(places), len(offsets), 2))
        grid[..., axis] = np.clip(centre[:, None] + half * offsets, *ends)
        grid[..., 1 - axis] = places[:, None]
        found = measure(grid.reshape(-1, 2)).reshape(len(places), -1)
        index = found.argmax(axis=1)
        better = found[row, index] > values
        values = np.where(better, found[row, index], values)
        points = np.where(better[:, None], grid[row, index], points)
        centre, half, offsets = (
            points[:, axis],
            half * 2 / (len(offsets) - 1),
            np.linspace(-1, 1, 21),
        )
    return points, values

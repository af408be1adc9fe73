"""Where each number of a node's result stands in its inputs: flat indices, row-major."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paramrob.models.network import AdaptivePool, Concat, Conv, Pool, Shape, Transpose
from paramrob.models.shapes import conv_windows, pool_windows


def moved(op: Transpose | Concat, before: Sequence[Shape]) -> list[int]:
    """Return for each result its place in the inputs, written one after the other."""
    places, start = [], 0
    for shape in before:
        size = math.prod(shape)
        places.append(np.arange(start, start + size).reshape(shape))
        start += size
    if isinstance(op, Transpose):
        together = places[0].transpose(op.order)
    else:
        together = np.concatenate(places, axis=op.axis)
    found: list[int] = together.ravel().tolist()
    return found


def conv_columns(op: Conv, kernel: Shape, before: Shape, after: Shape) -> list[list[int]]:
    """Return what a convolution multiplies its kernel with, as one matrix for each group.

    Args:
        op: the convolution.
        kernel: the shape of its weight, ``(out, channels / groups, *kernel)``.
        before: its input's shape.
        after: its result's shape.

    Returns:
        For each group the flat ``(channels / groups * kernel positions, positions)`` indices
        into the input, -1 for a zero of the padding.
    """
    windows = conv_windows(op, kernel[2:], before[1:], after[1:]).T
    starts = np.arange(before[0])[:, None, None] * math.prod(before[1:])
    places = np.where(windows >= 0, starts + windows, -1).reshape(op.groups, -1)
    groups: list[list[int]] = places.tolist()
    return groups


def pool_rows(
    op: Pool | AdaptivePool, before: Shape, after: Shape
) -> tuple[list[list[int]], list[int]]:
    """Return for each result of a pool what it covers, and what an average divides by."""
    windows, divisors = pool_windows(op, before[1:], after[1:])
    size = math.prod(before[1:])
    rows = [[i for i in row if i >= 0] for row in windows.tolist()]
    every = [[start + i for i in row] for start in range(0, before[0] * size, size) for row in rows]
    return every, np.tile(divisors, before[0]).tolist()

"""Small chains of layers for the replay tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from paramrob.models.network import (
    Activation,
    Array,
    Dense,
    Elementwise,
    Input,
    Network,
    Node,
    Op,
    Parameter,
    Reshape,
)

SPECIAL = [0.0, -0.0, 5e-324, -(2.0**-1022), 1e150, -1e150, 1e-150, 0.1, -1.0, 3.0]
VALUES = st.one_of(
    st.sampled_from(SPECIAL), st.floats(-4, 4), st.floats(-1e200, 1e200, allow_subnormal=True)
)


def stack(size: int, *layers: tuple[Op, dict[str, Array]]) -> Network:
    """Return the chain of the layers; shapes follow from the weights."""
    shape: tuple[int, ...] = (size,)
    nodes, parameters = [Node("input", Input(), (), shape)], []
    for i, (op, values) in enumerate(layers):
        if isinstance(op, Dense):
            shape = (*shape[:-1], values[op.weight].shape[0])
        if isinstance(op, Reshape):
            shape = (1, math.prod(shape))
        nodes.append(Node(f"n{i}", op, (nodes[-1].name,), shape))
        parameters += [Parameter(name, value) for name, value in values.items()]
    return Network(nodes, parameters)


def dense(
    i: int, weight: Sequence[Sequence[float]], bias: Sequence[float] | None = None
) -> tuple[Op, dict[str, Array]]:
    values = {f"w{i}": np.array(weight, dtype=np.float64)}
    if bias is None:
        return Dense(f"w{i}"), values
    return Dense(f"w{i}", f"b{i}"), values | {f"b{i}": np.array(bias, dtype=np.float64)}


def act(kind: str, slope: float = 0.0) -> tuple[Op, dict[str, Array]]:
    return Activation(kind, slope), {}  # type: ignore[arg-type]


def constant(kind: str, values: Sequence[float]) -> tuple[Op, dict[str, Array]]:
    return Elementwise(kind, f"c{kind}"), {f"c{kind}": np.array(values)}  # type: ignore[arg-type]

"""What a node of a network computes: one small frozen class for each kind of layer.

Shapes never include the batch axis: an image is ``(channels, height, width)``, a signal
``(channels, length)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActivationKind = Literal[
    "identity",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "clamp",
    "softplus",
    "elu",
    "silu",
    "gelu",
    "gelu_tanh",
    "hardswish",
    "hardsigmoid",
]
ElementwiseKind = Literal["add", "sub", "mul", "div", "rsub"]
PoolKind = Literal["average", "max"]


@dataclass(frozen=True)
class Input:
    """The network's single input."""


@dataclass(frozen=True)
class Dense:
    """``y = W h + b`` on the last axis; ``weight`` names a ``(out, in)`` parameter."""

    weight: str
    bias: str | None = None


@dataclass(frozen=True)
class Conv:
    """Cross-correlation over the last one or two axes of ``(channels, *size)``.

    ``weight`` names an ``(out, channels / groups, *kernel)`` parameter, ``bias`` an ``(out,)``
    one. ``padding`` counts the zeros before and after each axis.
    """

    weight: str
    bias: str | None
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class BatchNorm:
    """``(h - mean) / sqrt(variance + epsilon) * weight + bias``, channel by channel (axis 0).

    All name ``(channels,)`` parameters. ``mean`` and ``variance`` are running statistics, which
    no perturbation moves.
    """

    mean: str
    variance: str
    epsilon: float
    weight: str | None = None
    bias: str | None = None


@dataclass(frozen=True)
class Elementwise:
    """An operation with a constant that broadcasts to the input's shape.

    ``add``: ``h + c``, ``sub``: ``h - c``, ``mul``: ``h * c``, ``div``: ``h / c``,
    ``rsub``: ``c - h``.
    """

    kind: ElementwiseKind
    parameter: str


@dataclass(frozen=True)
class Add:
    """The sum of two or more earlier nodes of one shape."""


@dataclass(frozen=True)
class Concat:
    """Two or more earlier nodes, one after the other along ``axis`` (not negative)."""

    axis: int


@dataclass(frozen=True)
class Pool:
    """Average or maximum over windows of ``(channels, *size)``, channel by channel.

    ``padding`` counts positions before and after each axis. They take no part in a maximum; in
    an average they count as zeros where ``include_padding``, else not at all.
    """

    kind: PoolKind
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    include_padding: bool = True


@dataclass(frozen=True)
class AdaptivePool:
    """Average or maximum over windows that share each axis out among the node's shape.

    Output ``i`` of ``n`` over an axis of length ``m`` covers ``floor(i m / n)`` to
    ``ceil((i + 1) m / n)``, as in PyTorch; ``n = 1`` is a global pool.
    """

    kind: PoolKind


@dataclass(frozen=True)
class Activation:
    """An elementwise activation.

    ``relu``: ``max(z, 0)``; ``leaky_relu``: ``slope z`` left of 0; ``clamp``: ``z`` within
    ``low`` and ``high`` (ReLU6, hardtanh); ``softplus``: ``log(1 + exp(beta z)) / beta``;
    ``elu``: ``alpha (exp(z) - 1)`` left of 0; ``silu``: ``z sigmoid(z)``; ``gelu``:
    ``z Phi(z)`` with the normal distribution function; ``gelu_tanh``: its approximation
    ``z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))``; ``hardsigmoid``: ``clamp(z/6 + 1/2, 0, 1)``;
    ``hardswish``: ``z`` times that. Every field is an exact float64.
    """

    kind: ActivationKind
    slope: float = 0.0
    low: float = 0.0
    high: float = 0.0
    alpha: float = 1.0
    beta: float = 1.0


@dataclass(frozen=True)
class Quantize:
    """Rounding to a grid and back, number by number, as ONNX's QuantizeLinear and DequantizeLinear.

    ``(clamp(round(h / scale) + zero_point, low, high) - zero_point) * scale``, ties to the even
    integer. ``scale`` is a positive float32 number, so that every result is a float64 one. An
    execution may deviate from the rounding by ``deviation`` steps of the grid either way (never
    beyond its ends); a replay takes none.
    """

    scale: float
    zero_point: int
    low: int
    high: int
    deviation: int = 0

    @property
    def least(self) -> float:
        """The smallest result, exactly."""
        return (self.low - self.zero_point) * self.scale

    @property
    def most(self) -> float:
        """The largest result, exactly."""
        return (self.high - self.zero_point) * self.scale


@dataclass(frozen=True)
class Softmax:
    """Softmax over the last axis."""


@dataclass(frozen=True)
class Reshape:
    """The same numbers in row-major order under the node's shape."""


@dataclass(frozen=True)
class Transpose:
    """The axes in another order: axis ``i`` of the result is axis ``order[i]`` of the input."""

    order: tuple[int, ...]


Op = (
    Input
    | Dense
    | Conv
    | BatchNorm
    | Elementwise
    | Add
    | Concat
    | Pool
    | AdaptivePool
    | Activation
    | Quantize
    | Softmax
    | Reshape
    | Transpose
)


def node_parameters(op: Op) -> tuple[str, ...]:
    """Return the names of the parameters that ``op`` uses."""
    if isinstance(op, (Dense, Conv)):
        return (op.weight,) if op.bias is None else (op.weight, op.bias)
    if isinstance(op, BatchNorm):
        given = (op.weight, op.bias, op.mean, op.variance)
        return tuple(name for name in given if name is not None)
    if isinstance(op, Elementwise):
        return (op.parameter,)
    return ()

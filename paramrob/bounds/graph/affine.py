"""Affine layers with boxed parameters as linear maps that can be pulled back.

A layer maps ``h`` to ``(W + D) h + b + d`` with ``|D| <= R`` and ``|d| <= r`` componentwise. Its
parameters are eliminated: the result is ``W h + b + s`` with ``|s_i| <= sum_j R_ij |h_j| + r_i``
(Prabhakar & Afzal, *Abstraction based output range analysis for neural networks*, NeurIPS 2019).
That is exact where each parameter is used once and a relaxation where one is used at several
positions, as in a convolution: every position then chooses its own worst kernel. A row ``A`` on
the result knows better. With ``h = m + d``, ``|d| <= e`` its share of a parameter that moves by
``D`` is ``D (G + rest)`` where ``G`` sums ``A m`` over all positions *with signs*, so that the
parameters cost at most ``sum R |G| + |A| R e`` (:meth:`Affine.shared_cost` is the first of these).

Flat vectors are row-major. Nothing here is rounded outward: :mod:`paramrob.bounds.graph.charges`
says what floating point can cost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
import torch.nn.functional as f
from torch import Tensor


class Affine(ABC):
    """One affine layer.

    Attributes:
        bias: ``(out,)``.
        bias_radius: ``(out,)``, rounded up.
        perturbed: whether a weight can move.
        terms_forward: how many products a value of the result sums.
        terms_backward: how many products a pulled coefficient sums.
        working: how many numbers one pulled row needs at a time.
        shared: whether a parameter is used at several positions.
    """

    bias: Tensor
    bias_radius: Tensor
    perturbed: bool
    terms_forward: int
    terms_backward: int
    working: int
    shared: bool = False

    @cached_property
    def bias_moves(self) -> bool:
        """Whether a bias can move."""
        return bool(self.bias_radius.any())

    @abstractmethod
    def value(self, h: Tensor) -> Tensor:
        """Return ``W h``, ``(batch, out)`` from ``(batch, in)``."""

    @abstractmethod
    def magnitude(self, h: Tensor) -> Tensor:
        """Return ``|W| h``."""

    @abstractmethod
    def reach(self, h: Tensor) -> Tensor:
        """Return ``R h`` for ``h >= 0``."""

    def ends(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``|W + R| h`` and ``|W - R| h``, or what is not less, for ``h >= 0``."""
        most = self.magnitude(h) + self.reach(h)
        return most, most

    @abstractmethod
    def pull(self, a: Tensor) -> Tensor:
        """Return ``a W``, ``(..., in)`` from ``(..., out)``."""

    @abstractmethod
    def pull_radius(self, size: Tensor) -> Tensor:
        """Return ``size R`` for ``size >= 0``; its last axis may be 1 where all agree."""

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return ``W[index]`` and ``R[index]``, ``(batch, rows, in)``, where that is cheap."""
        return None

    def shared_cost(self, a: Tensor, middle: Tensor) -> Tensor:
        """Return what weights can take from rows where the layer reads exactly ``middle``.

        Args:
            a: ``(batch or 1, rows, out)``.
            middle: ``(batch, in)``.

        Returns:
            ``(batch, rows)``.
        """
        raise NotImplementedError

    def bias_cost(self, a: Tensor, size: Tensor) -> Tensor:
        """Return what biases can take from rows ``a`` of magnitudes ``size``.

        Args:
            a: ``(batch or 1, rows, out)``.
            size: ``|a|``.
        """
        return size @ self.bias_radius


def uniform_rows(radius: Tensor) -> Tensor | None:
    """Return one radius a row, ``(out,)``, where all numbers of a row agree."""
    flat = radius.reshape(radius.shape[0], -1)
    first = flat[:, :1]
    return first.squeeze(1) if bool((flat == first).all()) else None


class WeightMap(Affine):
    """A layer given by one tensor of weights, however these are used.

    Attributes:
        weight, radius: of one shape.
        size: ``|weight|``.
    """

    weight: Tensor
    radius: Tensor
    size: Tensor

    def value(self, h: Tensor) -> Tensor:
        """Return ``W h``."""
        return self._each(h, self.weight)

    def magnitude(self, h: Tensor) -> Tensor:
        """Return ``|W| h``."""
        return self._each(h, self.size)

    def ends(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return both products."""
        upper, lower = self._extremes
        return self._each(h, upper), self._each(h, lower)

    def pull(self, a: Tensor) -> Tensor:
        """Return ``a W``."""
        return self._back(a, self.weight)

    @cached_property
    def _extremes(self) -> tuple[Tensor, Tensor]:
        return (self.weight + self.radius).abs(), (self.weight - self.radius).abs()

    @abstractmethod
    def _each(self, h: Tensor, weight: Tensor) -> Tensor:
        """Return what the layer makes of ``h`` with other weights and no biases."""

    @abstractmethod
    def _back(self, a: Tensor, weight: Tensor) -> Tensor:
        """Return what it makes of rows ``a`` on their way back."""


class DenseMap(WeightMap):
    """``W`` on the last of ``positions`` times ``in`` numbers.

    Args:
        weight, radius: ``(out, in)``.
        bias, bias_radius: ``(out,)``.
        positions: how many times the layer is applied side by side.
    """

    def __init__(
        self, weight: Tensor, radius: Tensor, bias: Tensor, bias_radius: Tensor, positions: int = 1
    ) -> None:
        self.weight, self.radius, self.positions = weight, radius, positions
        self.size = weight.abs()
        self.bias, self.bias_radius = bias.repeat(positions), bias_radius.repeat(positions)
        self.perturbed = bool(radius.any())
        self.uniform = uniform_rows(radius)
        self.shared = positions > 1
        self.terms_backward, self.terms_forward = weight.shape
        if self.shared:
            self.terms_backward += positions + weight.numel()
        self.working = positions * sum(weight.shape) + (weight.numel() if self.shared else 0)

    def reach(self, h: Tensor) -> Tensor:
        """Return ``R h``."""
        if self.uniform is None:
            return self._each(h, self.radius)
        total = h.reshape(*h.shape[:-1], self.positions, -1).sum(-1, keepdim=True)
        return (total * self.uniform).reshape(*h.shape[:-1], -1)

    def pull_radius(self, size: Tensor) -> Tensor:
        """Return ``size R``."""
        if self.uniform is None:
            return self._back(size, self.radius)
        if self.positions == 1:
            return (size @ self.uniform).unsqueeze(-1)
        each = size.reshape(*size.shape[:-1], self.positions, -1) @ self.uniform
        each = each.unsqueeze(-1).expand(*each.shape, self.weight.shape[1])
        return each.reshape(*size.shape[:-1], -1)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return ``W[index]`` and ``R[index]``."""
        if self.positions != 1:
            return None
        radius = self.radius if self.uniform is None else self.uniform.unsqueeze(-1)
        return self.weight[index], radius[index]

    def shared_cost(self, a: Tensor, middle: Tensor) -> Tensor:
        """Return ``sum R |G|``."""
        seen = middle.reshape(middle.shape[0], 1, self.positions, -1)
        rows = a.reshape(*a.shape[:-1], self.positions, -1).transpose(-1, -2)
        return ((rows @ seen).abs() * self.radius).sum((-1, -2))

    def bias_cost(self, a: Tensor, size: Tensor) -> Tensor:
        """Return the cost of biases that all positions share."""
        if self.positions == 1:
            return size @ self.bias_radius
        total = a.reshape(*a.shape[:-1], self.positions, -1).sum(-2)
        return total.abs() @ self.bias_radius[: self.weight.shape[0]]

    def _each(self, h: Tensor, weight: Tensor) -> Tensor:
        if self.positions == 1:
            return h @ weight.T
        seen = h.reshape(*h.shape[:-1], self.positions, -1)
        return (seen @ weight.T).reshape(*h.shape[:-1], -1)

    def _back(self, a: Tensor, weight: Tensor) -> Tensor:
        if self.positions == 1:
            return a @ weight
        seen = a.reshape(*a.shape[:-1], self.positions, -1)
        return (seen @ weight).reshape(*a.shape[:-1], -1)


class DiagonalMap(Affine):
    """``scale * h + bias``, coordinate by coordinate; all ``(n,)``.

    ``places`` neighbours at a time have one and the same parameters.
    """

    def __init__(
        self,
        scale: Tensor,
        radius: Tensor,
        bias: Tensor,
        bias_radius: Tensor,
        places: int = 1,
    ) -> None:
        self.scale, self.radius, self.places = scale, radius, places
        self.shared = places > 1
        self.bias, self.bias_radius = bias, bias_radius
        self.perturbed = bool(radius.any())
        self.terms_forward, self.terms_backward = 1, scale.numel()
        self.working = scale.numel()

    def value(self, h: Tensor) -> Tensor:
        """Return the products."""
        return h * self.scale

    def magnitude(self, h: Tensor) -> Tensor:
        """Return ``|scale| h``."""
        return h * self.scale.abs()

    def reach(self, h: Tensor) -> Tensor:
        """Return ``radius h``."""
        return h * self.radius

    def ends(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return both products."""
        return h * (self.scale + self.radius).abs(), h * (self.scale - self.radius).abs()

    def pull(self, a: Tensor) -> Tensor:
        """Return the products."""
        return a * self.scale

    def pull_radius(self, size: Tensor) -> Tensor:
        """Return the products."""
        return size * self.radius

    def shared_cost(self, a: Tensor, middle: Tensor) -> Tensor:
        """Return ``sum R |G|``, channel by channel."""
        return self._summed(a * middle.unsqueeze(1)).abs() @ self.radius[:: self.places]

    def bias_cost(self, a: Tensor, size: Tensor) -> Tensor:
        """Return the cost of biases that a channel shares."""
        return self._summed(a).abs() @ self.bias_radius[:: self.places]

    def _summed(self, a: Tensor) -> Tensor:
        return a.reshape(*a.shape[:-1], -1, self.places).sum(-1)


class AverageMap(Affine):
    """Averages over windows, channel by channel.

    Args:
        windows: ``(positions, members)`` indices into a channel, -1 for none.
        divisors: ``(positions,)``.
        channels: how many there are.
        size: numbers in a channel of the input.
    """

    def __init__(self, windows: Tensor, divisors: Tensor, channels: int, size: int) -> None:
        self.channels, self.size = channels, size
        self.windows = torch.where(windows < 0, size, windows)
        self.divisors = divisors
        positions, members = windows.shape
        self.bias = torch.zeros(channels * positions, dtype=divisors.dtype, device=divisors.device)
        self.bias_radius = self.bias
        self.perturbed = False
        self.terms_forward = members + 2
        self.terms_backward = positions + 2
        self.working = channels * positions * members

    def value(self, h: Tensor) -> Tensor:
        """Return the averages."""
        seen = f.pad(h.reshape(*h.shape[:-1], self.channels, self.size), (0, 1))
        total = seen[..., self.windows].sum(-1) / self.divisors
        return total.reshape(*h.shape[:-1], -1)

    def magnitude(self, h: Tensor) -> Tensor:
        """Return the averages: no weight is negative."""
        return self.value(h)

    def reach(self, h: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(self.value(h))

    def pull(self, a: Tensor) -> Tensor:
        """Return each position's share."""
        share = a.reshape(*a.shape[:-1], self.channels, -1) / self.divisors
        spread = share.unsqueeze(-1).expand(*share.shape, self.windows.shape[1])
        spread = spread.reshape(*a.shape[:-1], self.channels, -1)
        zero = spread.new_zeros(*a.shape[:-1], self.channels, self.size + 1)
        total = zero.index_add(-1, self.windows.reshape(-1), spread)
        return total[..., : self.size].reshape(*a.shape[:-1], -1)

    def pull_radius(self, size: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(size[..., :1])

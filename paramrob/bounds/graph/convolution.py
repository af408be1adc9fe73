"""Convolutions as affine maps: :mod:`paramrob.bounds.graph.affine`."""

from __future__ import annotations

import torch
import torch.nn.functional as f
from torch import Tensor

from paramrob.bounds.graph.affine import WeightMap, uniform_rows


class ConvMap(WeightMap):
    """A convolution of ``(channels, height, width)`` by unfolding and one matrix product.

    Args:
        weight, radius: ``(out, channels / groups, kernel height, kernel width)``.
        bias, bias_radius: ``(out,)``.
        size: ``(channels, height, width)`` of the input.
        stride, dilation: ``(vertical, horizontal)``.
        padding: zeros above, below, left and right.
        groups: of channels that do not mix.
    """

    def __init__(
        self,
        weight: Tensor,
        radius: Tensor,
        bias: Tensor,
        bias_radius: Tensor,
        size: tuple[int, int, int],
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int],
        groups: int = 1,
    ) -> None:
        self.groups, self.stride, self.dilation = groups, stride, dilation
        self.kernel = (weight.shape[2], weight.shape[3])
        self.image, self.padding = size, padding
        top, bottom, left, right = padding
        self.padded = (size[1] + top + bottom, size[2] + left + right)
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, self.kernel, strict=True)]
        counts = [(n - s) // t + 1 for n, s, t in zip(self.padded, spans, stride, strict=True)]
        self.positions = counts[0] * counts[1]
        self.out = weight.shape[0]
        matrix = (groups, self.out // groups, -1)
        self.weight, self.radius = weight.reshape(matrix), radius.reshape(matrix)
        self.size = self.weight.abs()
        self.bias = bias.repeat_interleave(self.positions)
        self.bias_radius = bias_radius.repeat_interleave(self.positions)
        self.perturbed = bool(radius.any())
        self.uniform = uniform_rows(radius)
        members = self.kernel[0] * self.kernel[1]
        self.terms_forward = self.weight.shape[2]
        self.terms_backward = self.weight.shape[1] + members + self.positions + weight.numel()
        self.working = size[0] * members * self.positions + self.out * self.positions
        self.working += self.weight.numel()
        self.shared = self.positions > 1

    def reach(self, h: Tensor) -> Tensor:
        """Return the cross-correlation with the radii."""
        return self._each(h, self.radius)

    def pull_radius(self, size: Tensor) -> Tensor:
        """Return the transposed convolution with the radii."""
        if self.uniform is None:
            return self._back(size, self.radius)
        # All inputs of a group within a window weigh the same.
        batch = size.shape[:-1]
        seen = size.reshape(-1, self.groups, self.out // self.groups, self.positions)
        total = (seen * self.uniform.reshape(1, self.groups, -1, 1)).sum(2)
        members = self.kernel[0] * self.kernel[1]
        spread = total.unsqueeze(2).expand(-1, -1, members, -1)
        plane = self._fold(spread.reshape(total.shape[0], -1, self.positions), self.groups)
        plane = plane.repeat_interleave(self.image[0] // self.groups, dim=1)
        return plane.reshape(*batch, -1)

    def shared_cost(self, a: Tensor, middle: Tensor) -> Tensor:
        """Return ``sum R |G|`` with ``G`` the kernel's gradient."""
        batch, rows = a.shape[:2]
        seen = self._unfolded(middle).transpose(-1, -2)
        each = a.reshape(batch, rows, self.groups, -1, self.positions).transpose(1, 2)
        flat = each.reshape(batch, self.groups, -1, self.positions)
        gradient = (flat @ seen).reshape(len(flat), self.groups, rows, -1, seen.shape[-1])
        if self.uniform is None:
            return (gradient.abs() * self.radius.unsqueeze(1)).sum((1, 3, 4))
        uniform = self.uniform.reshape(self.groups, 1, -1)
        size: Tensor = torch.linalg.vector_norm(gradient, 1, dim=-1)
        return (size * uniform).sum((1, 3))

    def bias_cost(self, a: Tensor, size: Tensor) -> Tensor:
        """Return the cost of biases that all positions share."""
        total = a.reshape(*a.shape[:-1], self.out, self.positions).sum(-1)
        return total.abs() @ self.bias_radius[:: self.positions]

    def _unfolded(self, h: Tensor) -> Tensor:
        top, bottom, left, right = self.padding
        image = f.pad(h.reshape(-1, *self.image), (left, right, top, bottom))
        seen = f.unfold(image, self.kernel, self.dilation, 0, self.stride)
        return seen.reshape(seen.shape[0], self.groups, -1, self.positions)

    def _each(self, h: Tensor, weight: Tensor) -> Tensor:
        return (weight @ self._unfolded(h)).reshape(*h.shape[:-1], -1)

    def _back(self, a: Tensor, weight: Tensor) -> Tensor:
        batch = a.shape[:-1]
        seen = a.reshape(-1, self.groups, self.out // self.groups, self.positions)
        columns = weight.transpose(1, 2) @ seen
        columns = columns.reshape(seen.shape[0], -1, self.positions)
        return self._fold(columns, self.image[0]).reshape(*batch, -1)

    def _fold(self, columns: Tensor, channels: int) -> Tensor:
        whole = f.fold(columns, self.padded, self.kernel, self.dilation, 0, self.stride)
        top, _, left, _ = self.padding
        _, height, width = self.image
        inside = whole[:, :, top : top + height, left : left + width]
        return inside.reshape(whole.shape[0], channels, -1)

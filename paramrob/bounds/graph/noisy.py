"""Affine layers whose results are off by errors of their own, as rounding makes them."""

from __future__ import annotations

from torch import Tensor

from paramrob.bounds.graph.affine import Affine


class Noisy(Affine):
    """A layer with errors that every result makes on its own, as rounding does.

    They differ from moved parameters in that positions never share them.

    Args:
        base: the layer.
        noise: a layer of the same form without radii: result ``i`` is off by at most
            ``noise.value(|h|)[i] + noise.bias[i]``; no number in it is negative.
    """

    def __init__(self, base: Affine, noise: Affine) -> None:
        self.base, self.noise = base, noise
        self.bias, self.bias_radius = base.bias, base.bias_radius + noise.bias
        self.perturbed, self.shared = True, base.shared
        self.terms_forward = base.terms_forward + noise.terms_forward
        self.terms_backward = base.terms_backward + noise.terms_backward
        self.working = base.working + noise.working

    def value(self, h: Tensor) -> Tensor:
        """Return the layer's."""
        return self.base.value(h)

    def magnitude(self, h: Tensor) -> Tensor:
        """Return the layer's."""
        return self.base.magnitude(h)

    def reach(self, h: Tensor) -> Tensor:
        """Return the layer's and the noise's."""
        noise = self.noise.value(h)
        return noise + self.base.reach(h) if self.base.perturbed else noise

    def pull(self, a: Tensor) -> Tensor:
        """Return the layer's."""
        return self.base.pull(a)

    def pull_radius(self, size: Tensor) -> Tensor:
        """Return the layer's and the noise's."""
        noise = self.noise.pull(size)
        return noise + self.base.pull_radius(size) if self.base.perturbed else noise

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the layer's, the noise added to the radii."""
        base, noise = self.base.rows(index), self.noise.rows(index)
        return None if base is None or noise is None else (base[0], base[1] + noise[0])

    def shared_cost(self, a: Tensor, middle: Tensor) -> Tensor:
        """Return the layer's and what the noise takes at every position."""
        noise = self.noise.pull(a.abs()) * middle.abs().unsqueeze(1)
        return self.base.shared_cost(a, middle) + noise.sum(-1)

    def bias_cost(self, a: Tensor, size: Tensor) -> Tensor:
        """Return the layer's and the noise's."""
        return self.base.bias_cost(a, size) + size @ self.noise.bias

"""Open pieces of a search: parts of the inputs and activations' inputs of some instances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Ends = dict[int, tuple[Tensor, Tensor]]
"""``(low, high)`` by step, ``(pieces, n)`` each."""


@dataclass
class Pieces:
    """Open pieces: of which instance and row, what splits say of them, and their bounds so far.

    Attributes:
        instance, row: ``(pieces,)``.
        cuts: what splits of activations say of the step that each reads; infinite where nothing.
        known: intervals proved for the piece's own box of inputs, which is that of step 0; empty
            where inputs are not split, and those of the root hold.
        bound: ``(pieces,)``.
    """

    instance: Tensor
    row: Tensor
    cuts: Ends
    known: Ends
    bound: Tensor

    def part(self, index: Tensor) -> Pieces:
        """Return some of them, as copies."""
        cuts = {k: (a[index], b[index]) for k, (a, b) in self.cuts.items()}
        known = {k: (a[index], b[index]) for k, (a, b) in self.known.items()}
        return Pieces(self.instance[index], self.row[index], cuts, known, self.bound[index])

    @classmethod
    def joined(cls, parts: list[Pieces]) -> Pieces:
        """Return all of them together."""

        def together(ends: list[Ends]) -> Ends:
            return {
                k: (torch.cat([e[k][0] for e in ends]), torch.cat([e[k][1] for e in ends]))
                for k in ends[0]
            }

        return cls(
            torch.cat([p.instance for p in parts]),
            torch.cat([p.row for p in parts]),
            together([p.cuts for p in parts]),
            together([p.known for p in parts]),
            torch.cat([p.bound for p in parts]),
        )

    def __len__(self) -> int:
        return self.instance.numel()

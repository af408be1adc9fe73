r"""Two networks on the same inputs as one program.

The program computes the reference's results and the uncertain network's. Everything linear about
them meets again at the input, where a backward pass subtracts one from the other for nothing. What
does not are the activations: each activation of the uncertain network that has a partner in the
reference is therefore computed as ``phi(z) + (phi(z + e) - phi(z))``, with ``z`` the partner's
input and ``e`` the difference of the two inputs, whose bounds are proved for themselves. Any
activation of the same kind and size may be the partner: the identity holds whatever it is, and
only its usefulness depends on the choice. Partners are sought in order, as long as possible
(the longest common subsequence of the activations).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from paramrob.bounds.graph.change import KINDS, Change
from paramrob.bounds.graph.program import Join, Program, Start, Step, Sum
from paramrob.bounds.graph.snap import Snap
from paramrob.errors import BackendError
from paramrob.models.network import Activation

RELU = Activation("relu")


def joined(reference: Program, uncertain: Program) -> Program:
    """Return the program whose result is the reference's, then the uncertain network's.

    Args:
        reference: of a network whose parameters do not move.
        uncertain: of the networks that it is compared with, on the same inputs.

    Raises:
        BackendError: the two do not have the same inputs or results.
    """
    if reference.steps[0].size != uncertain.steps[0].size:
        raise BackendError("the two networks have different inputs")
    if reference.steps[-1].size != uncertain.steps[-1].size:
        raise BackendError("the two networks have different results")
    return _Joiner(reference, _with_relus(uncertain)).run()


@dataclass
class _Joiner:
    """Collects the steps: the reference's as they are, then the uncertain network's."""

    reference: Program
    uncertain: Program

    def __post_init__(self) -> None:
        self.steps = list(self.reference.steps)
        self.at: list[int] = []

    def run(self) -> Program:
        """Return the joint program."""
        pairs = _partners(self.reference, self.uncertain)
        for k, step in enumerate(self.uncertain.steps):
            if isinstance(step.kind, Start):
                self.at.append(0)
                continue
            inputs = tuple(self.at[i] for i in step.inputs)
            if k in pairs:
                self.at.append(self._changed(step, inputs[0], pairs[k]))
            else:
                kind = step.kind
                if isinstance(kind, Sum) and kind.larger is not None:
                    a, b = kind.larger
                    kind = replace(kind, larger=(self.at[a], self.at[b]))
                self.at.append(self._add(replace(step, kind=kind, inputs=inputs)))
        ends = (len(self.reference.steps) - 1, self.at[-1])
        size = sum(self.steps[i].size for i in ends)
        self._add(Step(Join(), ends, size))
        exact = self.reference.exact and self.uncertain.exact
        return Program(tuple(self.steps), self.uncertain.link, exact)

    def _changed(self, step: Step, shifted: int, partner: int) -> int:
        """Return ``phi(z)`` and what it changes by."""
        still = self.reference.steps[partner].inputs[0]
        if not isinstance(step.kind, Activation):
            raise BackendError("only activations have partners")
        apart = self._add(Step(Sum((1, -1)), (shifted, still), step.size, step.source))
        change = Change(step.kind)
        moved = self._add(Step(change, (still, apart, shifted), step.size, step.source))
        result = Sum((1, 1), image=(step.kind, shifted))
        return self._add(Step(result, (partner, moved), step.size, step.source))

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1


def _with_relus(program: Program) -> Program:
    """Put a ReLU before each clamp to numbers of 0 or more that stands in for one.

    A file whose values are rounded to a grid that begins at 0 has no ReLU before it.
    """
    steps: list[Step] = []
    at: list[int] = []
    for step in program.steps:
        inputs = tuple(at[i] for i in step.inputs)
        kind = step.kind
        if isinstance(kind, Sum) and kind.larger is not None:
            kind = replace(kind, larger=(at[kind.larger[0]], at[kind.larger[1]]))
        if isinstance(kind, Activation) and kind.kind == "clamp" and kind.low >= 0:
            before = steps[inputs[0]].kind
            if before != RELU and not isinstance(before, (Snap, Start)):
                steps.append(Step(RELU, inputs, step.size, step.source))
                inputs = (len(steps) - 1,)
        steps.append(replace(step, kind=kind, inputs=inputs))
        at.append(len(steps) - 1)
    return replace(program, steps=tuple(steps))


def _partners(reference: Program, uncertain: Program) -> dict[int, int]:
    """Return the reference's step for activations of the uncertain network."""
    ours, theirs = _bent(reference), _bent(uncertain)
    longest = [[0] * (len(ours) + 1) for _ in range(len(theirs) + 1)]
    for i in range(len(theirs) - 1, -1, -1):
        for j in range(len(ours) - 1, -1, -1):
            if theirs[i][1:] == ours[j][1:]:
                longest[i][j] = 1 + longest[i + 1][j + 1]
            else:
                longest[i][j] = max(longest[i + 1][j], longest[i][j + 1])
    found = {}
    i = j = 0
    while i < len(theirs) and j < len(ours):
        if theirs[i][1:] == ours[j][1:]:
            found[theirs[i][0]] = ours[j][0]
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _bent(program: Program) -> list[tuple[int, Activation, int]]:
    return [
        (k, step.kind, step.size)
        for k, step in enumerate(program.steps)
        if isinstance(step.kind, Activation) and step.kind.kind in KINDS
    ]

"""Narrower intervals of hidden steps: slopes optimised for each neuron of them.

What optimised slopes gain at the results is limited by the intervals that all relaxations rest
on; those may be optimised as well (Xu et al., *Fast and complete*, ICLR 2021).
"""

from __future__ import annotations

import time

from torch import Tensor

from paramrob.bounds.graph.alpha import climbed
from paramrob.bounds.graph.backward import Rows
from paramrob.bounds.graph.crown import (
    Analysis,
    GraphPass,
    different,
    needed,
    steep_and_flat,
)
from paramrob.bounds.graph.forward import Interval, Intervals
from paramrob.bounds.graph.lines import Lines
from paramrob.bounds.graph.snap import Snap, snap_lines
from paramrob.errors import SoundnessError
from paramrob.models.network import Activation

STEPS = 10
"""Gradient steps for each neuron."""
MOST = 1 << 22
"""Numbers that the rows of one step may hold for one input; what needs more is left as it is."""
COPIES = 16
"""Numbers that a search holds for each of a row: slopes, their means, and what gradients need."""


def sharpened(
    bound_pass: GraphPass,
    analysis: Analysis,
    steps: int = STEPS,
    deadline: float = float("inf"),
) -> Analysis:
    """Return an analysis with narrower intervals, and with the choices of lines of the given one.

    Args:
        bound_pass: that made the analysis.
        analysis: of the ``crown`` method.
        steps: of each search.
        deadline: of :func:`time.monotonic`, after which no search goes on; what was found counts.

    Raises:
        SoundnessError: two proved ends cross.
    """
    known = analysis.intervals.known
    choices: list[dict[int, Lines]] = [{}, {}, analysis.plain, analysis.lines, analysis.flat]

    def refine(intervals: Intervals, k: int) -> None:
        intervals.known[k] = intervals.known[k].met(known[k])
        if k in bound_pass.read and not intervals.tight[k] and bound_pass.listed(k):
            _narrow(bound_pass, intervals, choices, k, steps, deadline)
        step = bound_pass.program.steps[k]
        if isinstance(step.kind, Activation):
            given = intervals.known[step.inputs[0]]
            choices[0][k], choices[1][k] = steep_and_flat(step.kind, given)
        elif isinstance(step.kind, Snap):
            given = intervals.known[step.inputs[0]]
            choices[0][k], choices[1][k] = snap_lines(step.kind, given.low, given.high)

    start = Intervals.start(bound_pass.program, known[0].low, known[0].high)
    plain, *more = choices[2:]
    return Analysis(start.run(refine), choices[0], choices[1], plain, tuple(more))


def _narrow(
    bound_pass: GraphPass,
    intervals: Intervals,
    choices: list[dict[int, Lines]],
    k: int,
    steps: int,
    deadline: float,
) -> None:
    """Optimise slopes for the neurons of step ``k`` whose interval matters."""
    known = intervals.known[k]
    index, count = needed(bound_pass.matters(k, known, intervals))
    if count * 2 * bound_pass.widest > MOST or not choices[0]:
        return
    batch, size = known.low.shape
    at_once = max(1, bound_pass.budget // (COPIES * 2 * batch * bound_pass.widest))
    known_choices = different([{j: c[j] for j in choices[0]} for c in choices])
    for first in range(0, count, at_once):
        if time.monotonic() > deadline:
            break
        part = index[:, first : first + at_once]

        def start(at: Tensor, part: Tensor = part) -> Rows:
            return bound_pass.neurons(intervals, k, part[at], size)

        found = climbed(intervals, known_choices, start, steps, deadline=deadline)
        width = part.shape[1]
        known = Interval(
            known.low.scatter_reduce(1, part, found[:, :width], "amax"),
            known.high.scatter_reduce(1, part, -found[:, width:], "amin"),
        )
    if bool((known.low > known.high).any()):
        raise SoundnessError(
            f"two proved ends of step {k} cross; this is a defect of paramrob: please report it"
        )
    intervals.known[k] = known

"""Counterexamples re-executed exactly: nothing is reported that this module has not confirmed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import flint
import numpy as np

from paramrob.domain import Ball, Box, Domain
from paramrob.errors import ReplayError
from paramrob.models.model import OutputInfo
from paramrob.models.network import Array, Network
from paramrob.perturbation import GivenInterval, ParameterInterval, PartialInterval
from paramrob.problem import Problem, UncertainNetwork
from paramrob.replay_network import ExactRun
from paramrob.replay_numbers import (
    Number,
    clipped,
    dyadic,
    greater,
    is_accurate,
    maximum,
    outward,
    sigmoid,
    softmax,
    to_arb,
    to_fmpq,
)
from paramrob.verdict import Interval, Witness

FIRST_PRECISION = 128
LAST_PRECISION = 4096
"""Bits at which an open label or a wide ball is accepted as such."""


def evaluate_exact(
    network: Network, x: Array, parameters: Mapping[str, Array] | None = None
) -> tuple[Number, ...]:
    """Execute the network in exact arithmetic.

    Args:
        network: any network.
        x: one input; its float64 numbers in row-major order are taken as they are.
        parameters: values to use instead of the stored ones, by name.

    Returns:
        One number for each output, in row-major order: ``flint.fmpq`` (exact) where only
        rational operations were passed, else ``flint.arb``, a ball around the exact value, with
        a relative radius below 2**-70 or an absolute one below 2**-200 (wider only if 4096 bits
        do not suffice). Sigmoids, exponentials, error functions and roots are not rational, nor
        is a batch normalisation, unless it divides by roots of squares; rationals that grow
        beyond 65536 bits become balls too.

    Raises:
        ReplayError: a wrong number of inputs, an unknown parameter, a wrong shape, NaN or
            infinity, a division by a parameter that is zero, or a variance that is not positive.
    """
    given = {n: _checked_array(network, n, v) for n, v in (parameters or {}).items()}
    run = ExactRun(network, _finite_input(network.input_size, x), given)
    precision = FIRST_PRECISION
    while True:
        with flint.ctx.workprec(precision):
            outputs = tuple(run.run()[1])
            if precision >= LAST_PRECISION or all(is_accurate(y) for y in outputs):
                return outputs
        precision *= 2


def replay(problem: Problem, x: Array, parameters: Mapping[str, Array]) -> Witness:
    """Confirm that a counterexample belongs to the problem and execute both networks exactly.

    Args:
        problem: what the counterexample is one of; its property is not looked at.
        x: one input of ``problem.reference.input_size`` float64 numbers, any shape.
        parameters: parameter values of the uncertain network by name, each of its parameter's
            shape; one that is not named takes a possible value, the trained one if it is.

    Returns:
        The witness, ``replayed``, with every parameter of the uncertain network.

    Raises:
        ReplayError: the input is outside the domain, a parameter outside its interval, or
            something in them is no finite number or has the wrong shape.
    """
    x = _finite_input(problem.domain.size, x)
    if not problem.domain.contains(x):
        raise ReplayError(_outside_domain(problem.domain, x))
    chosen = _checked_parameters(problem.uncertain, parameters)
    domain = problem.domain
    # Around a point the reference is taken at the point itself.
    seen = domain.centre() if isinstance(domain, Ball) else x
    reference = ExactRun(problem.reference, seen)
    perturbed = ExactRun(problem.uncertain.network, x, chosen)
    precision = FIRST_PRECISION
    while True:
        with flint.ctx.workprec(precision):
            found = _compare(problem.output, reference, perturbed)
            if precision >= LAST_PRECISION or found.is_settled():
                return found.witness(x, chosen)
        precision *= 2


def refutes(problem: Problem, witness: Witness) -> bool:
    """Whether this replayed witness refutes ``problem.property``.

    Only what its enclosures prove counts: a label that cannot be told refutes nothing.
    """
    claim = problem.property
    if claim is None or not witness.replayed:
        return False
    if claim.name == "confidence":
        return witness.change is not None and _at_least(witness.change, claim.epsilon, strict=True)
    before, after = witness.labels
    if before is None or after is None or before == after:
        return False
    if claim.name == "labels":
        return True
    return witness.margin is not None and _at_least(witness.margin, claim.sigma, strict=False)


@lru_cache(maxsize=64)
def level_logit(level: Fraction) -> Interval:
    """Enclose ``log(level / (1 - level))``, the logit at which a probability has that level.

    Args:
        level: strictly between 0 and 1. Level 1/2 gives exactly [0, 0].
    """
    if level == Fraction(1, 2):
        return Interval(0.0, 0.0)
    with flint.ctx.workprec(256):
        return outward(_level_logit(level))


def _level_logit(level: Fraction) -> Number:
    if level == Fraction(1, 2):
        return flint.fmpq(0)
    return to_arb(to_fmpq(level / (1 - level))).log()


@dataclass(frozen=True)
class _Comparison:
    """Both executions at one working precision; ``margin`` is ``None`` where no labels are."""

    outputs: tuple[list[Number], list[Number]]
    bounded: tuple[bool, bool]
    change: Number
    labels: tuple[int | None, int | None] = (None, None)
    margin: Number | None = None

    def is_settled(self) -> bool:
        if self.margin is not None and None in self.labels:
            return False
        margin = [] if self.margin is None else [self.margin]
        return all(map(is_accurate, (*self.outputs[0], *self.outputs[1], self.change, *margin)))

    def witness(self, x: Array, parameters: Mapping[str, Array]) -> Witness:
        reference, perturbed = (
            tuple(_rounded(y, bounded) for y in side)
            for side, bounded in zip(self.outputs, self.bounded, strict=True)
        )
        return Witness(
            input=x,
            parameters=parameters,
            reference_output=reference,
            perturbed_output=perturbed,
            labels=self.labels,
            change=_rounded(self.change, all(self.bounded)),
            margin=None if self.margin is None else clipped(outward(self.margin), 0.0, math.inf),
            replayed=True,
        )


def _is_bounded(info: OutputInfo, run: ExactRun) -> bool:
    """Whether a sigmoid or softmax keeps the outputs, and so their change, within [0, 1]."""
    return info.kind in ("logit", "logits") or run.squashed is not None


def _rounded(number: Number, bounded: bool) -> Interval:
    return clipped(outward(number), 0.0, 1.0) if bounded else outward(number)


def _compare(info: OutputInfo, reference: ExactRun, perturbed: ExactRun) -> _Comparison:
    sides = [_meaning(info, run) for run in (reference, perturbed)]
    outputs = (sides[0][1], sides[1][1])
    change = maximum([_distance(a, b) for a, b in zip(*outputs, strict=True)])
    ends = (_is_bounded(info, reference), _is_bounded(info, perturbed))
    if len(outputs[0]) > 1:
        if info.kind == "value":
            return _Comparison(outputs, ends, change)
        labels = (_argmax(sides[0][0]), _argmax(sides[1][0]))
        return _Comparison(outputs, ends, change, labels, _lead(sides[0][0], labels[0]))
    if info.level is None:
        return _Comparison(outputs, ends, change)
    label0 = _binary_label(info, info.level, reference, sides[0][0][0])
    label1 = _binary_label(info, info.level, perturbed, sides[1][0][0])
    margin = _distance(outputs[0][0], to_fmpq(info.level))
    return _Comparison(outputs, ends, change, (label0, label1), margin)


def _meaning(info: OutputInfo, run: ExactRun) -> tuple[list[Number], list[Number]]:
    """Return what decides the labels, and the outputs in the meaning of the property."""
    scores, outputs = run.run()
    if info.kind == "logit":
        return outputs, [sigmoid(z) for z in outputs]
    if info.kind == "logits":
        top = _highest(outputs)
        return outputs, softmax([z - outputs[top] for z in outputs])
    if info.kind == "probability" and run.squashed == "sigmoid":
        return scores, outputs
    if info.kind == "probabilities" and run.squashed == "softmax":
        return scores, outputs
    return outputs, outputs


def _binary_label(info: OutputInfo, level: Fraction, run: ExactRun, score: Number) -> int | None:
    is_logit = info.kind == "logit" or (info.kind == "probability" and run.squashed == "sigmoid")
    above = greater(score, _level_logit(level) if is_logit else to_fmpq(level))
    return None if above is None else int(above)


def _distance(a: Number, b: Number) -> Number:
    if isinstance(a, flint.fmpq) and isinstance(b, flint.fmpq):
        return abs(a - b)
    return abs(to_arb(a) - to_arb(b))


def _highest(scores: list[Number]) -> int:
    """Return the index of the largest centre, the lowest such index (a guess for balls)."""
    best = 0
    centres = [s if isinstance(s, flint.fmpq) else s.mid() for s in scores]
    for i, centre in enumerate(centres):
        if centre > centres[best]:
            best = i
    return best


def _argmax(scores: list[Number]) -> int | None:
    """Return the class, ties to the lowest index; ``None`` where balls cannot tell."""
    best = _highest(scores)
    for i, score in enumerate(scores):
        wins = greater(scores[best], score) if i < best else _negated(greater(score, scores[best]))
        if i != best and not wins:
            return None
    return best


def _negated(known: bool | None) -> bool | None:
    return None if known is None else not known


def _lead(scores: list[Number], best: int | None) -> Number:
    """Return the best score less the second best."""
    candidates = range(len(scores)) if best is None else [best]
    leads = []
    for i in candidates:
        second = maximum([s for j, s in enumerate(scores) if j != i])
        exact = isinstance(scores[i], flint.fmpq) and isinstance(second, flint.fmpq)
        leads.append(scores[i] - second if exact else to_arb(scores[i]) - to_arb(second))
    # every other candidate's lead is at most 0, so the largest is the true one
    return maximum(leads)


def _at_least(known: Interval, threshold: Fraction | None, *, strict: bool) -> bool:
    if threshold is None or not math.isfinite(known.lower):
        return False
    lower = Fraction(known.lower)
    return lower > threshold if strict else lower >= threshold


def _finite_input(size: int, x: Array) -> Array:
    flat = np.array(x, dtype=np.float64).ravel()
    if flat.size != size:
        raise ReplayError(f"the input has {flat.size} number(s), the model takes {size}")
    if not np.isfinite(flat).all():
        raise ReplayError("the input holds NaN or infinity, so it lies in no domain")
    flat.flags.writeable = False
    return flat


def _outside_domain(domain: Domain, x: Array) -> str:
    if isinstance(domain, Ball):
        return "the input lies farther from the point than the input radius"
    if not isinstance(domain, Box):
        return "the input is not the point that the problem is about"
    for i, (value, low, high) in enumerate(zip(x, domain.lower, domain.upper, strict=True)):
        if not Box((low,), (high,)).contains(np.array([value])):
            ends = f"[{float(low)!r}, {float(high)!r}]"
            return f"input {i} is {float(value)!r}, outside the domain's {ends}"
    return "the input lies outside the domain"


def _checked_array(network: Network, name: str, value: Array) -> Array:
    if name not in network.parameters:
        known = ", ".join(sorted(network.parameters))
        raise ReplayError(f"the network has no parameter {name!r}; it has {known}")
    array = np.array(value, dtype=np.float64)
    shape = network.parameters[name].value.shape
    if array.shape != shape:
        raise ReplayError(f"parameter {name!r} has shape {array.shape}, the network's {shape}")
    if not np.isfinite(array).all():
        raise ReplayError(f"parameter {name!r} holds NaN or infinity")
    array.flags.writeable = False
    return array


def _checked_parameters(
    uncertain: UncertainNetwork, parameters: Mapping[str, Array]
) -> dict[str, Array]:
    """Return a value for every parameter, each proved to lie in its interval."""
    network = uncertain.network
    box = uncertain.perturbation
    chosen = {name: box.interval(p).start() for name, p in network.parameters.items()}
    for name, value in parameters.items():
        array = _checked_array(network, name, value)
        interval = box.interval(network.parameters[name])
        outside = _first_outside(interval, array)
        if outside is not None:
            low, high = interval.exact(outside)
            ends = f"about [{float(low)!r}, {float(high)!r}]"
            what = "neither end of its interval" if box.only_ends else "outside its exact interval"
            raise ReplayError(
                f"parameter {name!r}, value {outside} is {float(array.flat[outside])!r}, {what}, "
                f"{ends}"
            )
        chosen[name] = array
    return chosen


def _first_outside(interval: ParameterInterval, value: Array) -> int | None:
    """Return the flat index of the first value outside its exact interval.

    ``|p - w| <= a + r |w|`` is decided on integers: with ``p, w`` multiples of one power of two
    and ``a, r`` over one denominator.
    """
    if isinstance(interval, GivenInterval):
        return interval.first_outside(value)
    if isinstance(interval, PartialInterval) and (first := interval.first_moved(value)) is not None:
        return first
    centre = interval.centre
    if np.array_equal(centre, value):
        return None
    absolute, relative = interval.absolute, interval.relative
    both, exponent = dyadic(np.stack([centre.ravel(), value.ravel()]))
    half = centre.size
    denominator = absolute.denominator * relative.denominator
    constant = absolute.numerator * relative.denominator << max(-exponent, 0)
    factor = relative.numerator * absolute.denominator << max(exponent, 0)
    scale = denominator << max(exponent, 0)
    for i in range(half):
        w, p = both[i], both[half + i]
        if scale * abs(p - w) > constant + factor * abs(w):
            return i
    return None

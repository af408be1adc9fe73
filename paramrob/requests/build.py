"""One question of a person, and the problems that answer it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paramrob.arithmetic import arithmetic_from
from paramrob.domain import Ball, Domain, Point
from paramrob.errors import InputError
from paramrob.exact import parse_decimal
from paramrob.models.model import Model
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork, check_labels
from paramrob.properties import Property, Quantity, property_from
from paramrob.requests.domains import (
    DomainLike,
    Number,
    PointsLike,
    assumed_box,
    bounding_box,
    parse_domain,
    parse_points,
)
from paramrob.requests.perturbations import from_table, uniform

Command = Literal["check", "estimate", "heatmap", "compare"]
PerturbationLike = Perturbation | str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the options say; contradictions among them are refused before any file is read.

    Raises:
        InputError: two perturbations or none, points together with a domain, a radius or a limit
            without points, or a property that its threshold contradicts.
    """

    command: Command = "check"
    quantity: Quantity | None = None
    delta: Number | None = None
    perturbation: PerturbationLike | None = None
    leave_out: tuple[str, ...] = ()
    domain: DomainLike | None = None
    domain_from: str | Path | None = None
    at: PointsLike | None = None
    epsilon: Number | None = None
    sigma: Number | None = None
    property_name: str | None = None
    input_radius: Number | None = None
    limit: int | None = None
    arithmetic: str = "real"
    accumulate: str | None = None
    runtime_steps: int = 0

    def __post_init__(self) -> None:
        if self.quantity not in (None, "epsilon", "sigma", "delta"):
            raise InputError(f"no quantity {self.quantity!r}; choose epsilon, sigma or delta")
        self._check_perturbation()
        if self.at is not None and (self.domain is not None or self.domain_from is not None):
            raise InputError("--at asks about points, --domain about a box; give one of them")
        if self.domain is not None and self.domain_from is not None:
            raise InputError("--domain and --domain-from both name the box; give one of them")
        self._check_points()
        if self.quantity in ("epsilon", "sigma") and self._names_a_property():
            raise InputError(
                f"estimate {self.quantity} takes no --epsilon, --sigma or --property: the value "
                "itself is computed; use check to decide a threshold"
            )
        self.property()
        self.exact_delta()
        arithmetic_from(self.arithmetic, self.accumulate)

    def _names_a_property(self) -> bool:
        return any(v is not None for v in (self.epsilon, self.sigma, self.property_name))

    def _check_points(self) -> None:
        self.radius()
        if self.at is None and self.input_radius is not None:
            raise InputError("--input-radius goes with points: give --at, or a box with --domain")
        if self.at is None and self.limit is not None:
            raise InputError("--limit N takes the first N points: give them with --at")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise InputError(f"--limit {self.limit!r}: give a whole number of points, 1 or more")

    def _check_perturbation(self) -> None:
        if self.delta is not None and self.perturbation is not None:
            raise InputError("two perturbations at once: give either --delta or --perturbation")
        if self.quantity == "delta":
            if self.delta is not None:
                raise InputError(
                    "estimate delta computes the largest delta: leave --delta out (choose the "
                    "parameters that move with --perturbation or --leave-out)"
                )
        elif self.command == "compare" and self.delta is None and self.perturbation is None:
            if self.leave_out:
                raise InputError("--leave-out goes with --delta; nothing moves without it")
        elif self.delta is None and self.perturbation is None:
            raise InputError("how far can the parameters move? give --delta D or --perturbation")
        if self.leave_out and self.perturbation is not None:
            raise InputError(
                "--leave-out goes with --delta; in a perturbation file give the layer delta = 0"
            )

    def property(self) -> Property:
        """Return the property asked about."""
        epsilon = None if self.epsilon is None else parse_decimal(self.epsilon, "--epsilon")
        sigma = None if self.sigma is None else parse_decimal(self.sigma, "--sigma")
        return property_from(self.property_name, epsilon, sigma)

    def radius(self) -> Fraction | None:
        """Return the input radius as the decimal that was written."""
        if self.input_radius is None:
            return None
        radius = parse_decimal(self.input_radius, "--input-radius")
        if radius < 0:
            raise InputError("--input-radius is negative; it is a distance: give 0 or more")
        return radius

    def exact_delta(self) -> Fraction | None:
        """Return ``delta`` as the decimal that was written."""
        if self.delta is None:
            return None
        delta = parse_decimal(self.delta, "--delta")
        if delta < 0:
            raise InputError("--delta is negative; it is a distance: give 0 or more")
        return delta


@dataclass(frozen=True)
class Request:
    """A question with everything filled in: one problem, or one for each point.

    ``classes`` are the true classes of the points, where the file has them. ``assumptions``
    are the sentences about what nobody said. ``points_digest`` is that of all points and
    classes that were given, also of those beyond a limit. ``reference`` is the other file of a
    comparison; inputs and outputs of ``model`` are then called as it calls them.
    """

    asked: Asked
    model: Model
    problems: tuple[Problem, ...]
    classes: tuple[int, ...] | None
    assumptions: tuple[str, ...]
    points_digest: str | None = None
    reference: Model | None = None

    @property
    def perturbation(self) -> Perturbation:
        """The box of parameters, the same in every problem."""
        return self.problems[0].uncertain.perturbation

    @property
    def several(self) -> bool:
        """Whether the question is about a set of points (also one whose class is known)."""
        return len(self.problems) > 1 or self.classes is not None

    @property
    def two_sided(self) -> bool:
        """Whether sigma is bracketed above and below a level (one output) or as one number."""
        return self.model.network.output_size == 1


@dataclass(frozen=True)
class _Where:
    """The domains of the problems, and what is known of them."""

    domains: Sequence[Domain]
    classes: tuple[int, ...] | None = None
    assumed: str | None = None
    digest: str | None = None


def build(asked: Asked, model: Model, reference: Model | None = None) -> Request:
    """Return the problems that answer a question about a model.

    Args:
        asked: the question.
        model: whose parameters move.
        reference: what it is compared with, where that is another file; see
            :func:`paramrob.requests.compare.matched`, which makes the two fit.

    Raises:
        InputError: whatever does not fit, with what to do instead.
    """
    held = model if reference is None else reference
    where = _where(asked, held)
    uncertain = UncertainNetwork(model.network, _perturbation(asked, model))
    property_ = asked.property() if asked.quantity in (None, "delta") else None
    if asked.quantity == "sigma":
        check_labels(model.network, model.output)
    arithmetic = arithmetic_from(asked.arithmetic, asked.accumulate)
    problems = tuple(
        Problem(held.network, uncertain, domain, held.output, property_, arithmetic)
        for domain in where.domains
    )
    assumptions = (*model.assumptions, *([where.assumed] if where.assumed else []))
    if arithmetic is not None:
        assumptions = (*assumptions, *arithmetic.assumptions())
    return Request(asked, model, problems, where.classes, assumptions, where.digest, reference)


def _where(asked: Asked, model: Model) -> _Where:
    if asked.at is not None:
        points, classes = parse_points(asked.at, model)
        digest = _digest(points, classes)
        points = points[: asked.limit]
        radius = asked.radius()
        domains = points if radius is None else [Ball(point.x, radius) for point in points]
        known = None if classes is None else tuple(classes[: asked.limit])
        return _Where(domains, known, digest=digest)
    if asked.domain is not None:
        return _Where([parse_domain(asked.domain, model)])
    if asked.domain_from is not None:
        return _Where([bounding_box(asked.domain_from, model)])
    box, said = assumed_box(model)
    return _Where([box], assumed=said)


def _digest(points: Sequence[Point], classes: Sequence[int] | None) -> str:
    found = hashlib.sha256(repr(classes).encode())
    for point in points:
        found.update(np.array(point.x).tobytes())
    return found.hexdigest()


def _perturbation(asked: Asked, model: Model) -> Perturbation:
    given, network = asked.perturbation, model.network
    delta = asked.exact_delta()
    if delta is not None:
        return uniform(network, delta, asked.leave_out)
    if given is None and asked.command == "compare":
        return Perturbation({}, kind="none")
    if given is None:
        return uniform(network, Fraction(0), asked.leave_out)
    box = given if isinstance(given, Perturbation) else from_table(given, network)
    if asked.quantity != "delta":
        return box
    if any(box.interval(p).relative for p in network.parameters.values()):
        raise InputError(
            "estimate delta looks for one absolute delta; a relative perturbation has none: "
            "leave relative out of the perturbation"
        )
    return box

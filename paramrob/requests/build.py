"""One question of a person, and the problems that answer it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from paramrob.quantize.activations import Grids, calibrated, check_format, grids_for, sites
from paramrob.quantize.deployment import Deployment
from paramrob.quantize.scheme import Scheme
from paramrob.requests.domains import (
    DomainLike,
    Number,
    PointsLike,
    assumed_box,
    bounding_box,
    parse_domain,
    parse_points,
)
from paramrob.requests.perturbations import from_table, noise, uniform

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
    quantize: Scheme | str | None = None
    any_rounding: bool = False
    prune: Number | None = None
    any_pruning: bool = False
    noise: Number | None = None
    runtime_steps: int = 0
    activations: str | None = None
    calibration: PointsLike | None = None

    def __post_init__(self) -> None:
        if self.quantity not in (None, "epsilon", "sigma", "delta"):
            raise InputError(f"no quantity {self.quantity!r}; choose epsilon, sigma or delta")
        self._check_perturbation()
        self._check_activations()
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
        given = {
            "--delta": self.delta is not None,
            "--perturbation": self.perturbation is not None,
            "--noise": self.noise is not None,
            "--quantize": self.quantize is not None or self.any_rounding,
            "--prune": self.prune is not None or self.any_pruning,
        }
        names = [name for name, is_given in given.items() if is_given]
        if len(names) > 1 and names != ["--quantize", "--prune"]:
            raise InputError(
                f"two perturbations at once: give either {' or '.join(names)} (--prune and "
                "--quantize together prune first)"
            )
        if self.quantity == "delta":
            self._check_largest_delta(names)
        elif not names and (self.command == "compare" or self.activations is not None):
            if self.leave_out:
                raise InputError("--leave-out goes with --delta; nothing moves without it")
        elif not names:
            raise InputError(
                "how far can the parameters move? give --delta D, --perturbation, --quantize "
                "FORMAT, --prune FRACTION or --noise RELATIVE (or --activations FORMAT alone)"
            )
        if self.leave_out and names in (["--perturbation"], ["--quantize"]):
            instead = "--keep-float LAYER" if names == ["--quantize"] else "delta = 0"
            raise InputError(
                "--leave-out goes with --delta, --noise and --prune; here give the layer " + instead
            )
        self.deployment()
        self.exact_noise()

    def _check_activations(self) -> None:
        if self.activations is None:
            if self.calibration is not None:
                raise InputError("--calibration of what? give --activations FORMAT as well")
            return
        check_format(self.activations)
        if self.quantity == "delta":
            raise InputError("estimate delta moves parameters alone: leave --activations out")
        if self.arithmetic != "real":
            raise InputError(
                "--activations speaks of real numbers between the grids; leave --arithmetic out"
            )

    def _check_largest_delta(self, names: Sequence[str]) -> None:
        if "--delta" in names:
            raise InputError(
                "estimate delta computes the largest delta: leave --delta out (choose the "
                "parameters that move with --perturbation or --leave-out)"
            )
        if names not in ([], ["--perturbation"]):
            raise InputError(
                f"estimate delta computes the largest delta: leave {' and '.join(names)} out"
            )

    def deployment(self) -> Deployment | None:
        """Return what is done to the network, where that is quantization or pruning."""
        if self.quantize is None and self.prune is None and not self.any_pruning:
            if self.any_rounding:
                raise InputError("--any-rounding to which format? give --quantize FORMAT")
            return None
        scheme = Scheme(self.quantize) if isinstance(self.quantize, str) else self.quantize
        share = None if self.prune is None else parse_decimal(self.prune, "--prune")
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"--prune {self.prune}: give a share of the weights, 0 to 1")
        return Deployment(scheme, self.any_rounding, share, self.any_pruning, self.leave_out)

    def is_one_network(self) -> bool:
        """Whether the parameters are known: rounded or pruned in one way."""
        deployment = self.deployment()
        return deployment is not None and not deployment.is_grid

    def exact_noise(self) -> Fraction | None:
        """Return ``noise`` as the decimal that was written."""
        if self.noise is None:
            return None
        relative = parse_decimal(self.noise, "--noise")
        if relative < 0:
            raise InputError("--noise is negative; it is a share of each magnitude: give 0 or more")
        return relative

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
    comparison; inputs and outputs of ``model`` are then called as it calls them. ``grids`` are
    what values between layers are rounded to.
    """

    asked: Asked
    model: Model
    problems: tuple[Problem, ...]
    classes: tuple[int, ...] | None
    assumptions: tuple[str, ...]
    points_digest: str | None = None
    reference: Model | None = None
    grids: Grids | None = None

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
    grids = _grids(asked, model, uncertain, where.domains)
    if grids is not None:
        uncertain = replace(uncertain, network=grids.network(model.network))
    property_ = asked.property() if asked.quantity in (None, "delta") else None
    if asked.quantity == "sigma":
        check_labels(model.network, model.output)
    arithmetic = arithmetic_from(asked.arithmetic, asked.accumulate)
    problems = tuple(
        Problem(held.network, uncertain, domain, held.output, property_, arithmetic)
        for domain in where.domains
    )
    deployment = asked.deployment()
    known = _about_the_model(model, deployment)
    assumptions = (*known, *([where.assumed] if where.assumed else []))
    if deployment is not None:
        assumptions = (*assumptions, *deployment.assumptions(model.network))
    if arithmetic is not None:
        assumptions = (*assumptions, *arithmetic.assumptions())
    return Request(
        asked, model, problems, where.classes, assumptions, where.digest, reference, grids
    )


def _grids(
    asked: Asked, model: Model, uncertain: UncertainNetwork, domains: Sequence[Domain]
) -> Grids | None:
    """Return what values between layers are rounded to."""
    if asked.activations is None:
        return None
    network = model.network
    if asked.calibration is not None:
        points, _ = parse_points(asked.calibration, model)
        ranges = calibrated(network, np.array([point.x for point in points]))
        source = f"from {len(points)} calibration point(s)"
    else:
        from paramrob.bounds.graph.value_ranges import value_ranges

        ranges = value_ranges(uncertain, domains, model.output, sites(network))
        source = "those proved for all inputs and parameters asked about"
    return grids_for(ranges, asked.activations, source)


def _about_the_model(model: Model, deployment: Deployment | None) -> tuple[str, ...]:
    if deployment is None:
        return model.assumptions
    from paramrob.models.load import others_move

    # Quantization and pruning say themselves what they leave alone.
    wrong = others_move(model)
    return tuple(said for said in model.assumptions if said not in wrong)


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
    deployment, relative = asked.deployment(), asked.exact_noise()
    if deployment is not None:
        return deployment.perturbation(network)
    if relative is not None:
        return noise(network, relative, asked.leave_out)
    if given is None and (asked.command == "compare" or asked.activations is not None):
        return Perturbation({}, kind="none")
    if given is None:
        return uniform(network, Fraction(0), asked.leave_out)
    box = given if isinstance(given, Perturbation) else from_table(given, network)
    if asked.quantity != "delta":
        return box
    if box.is_given:
        raise InputError(
            "estimate delta looks for one absolute delta; a box given value by value has none: "
            "leave it out"
        )
    if any(box.interval(p).relative for p in network.parameters.values()):
        raise InputError(
            "estimate delta looks for one absolute delta; a relative perturbation has none: "
            "leave relative out of the perturbation"
        )
    return box

"""One question of a person, and the problems that answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from paramrob.arithmetic import arithmetic_from
from paramrob.domain import Domain
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

Command = Literal["check", "estimate", "heatmap"]
PerturbationLike = Perturbation | str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the options say; contradictions among them are refused before any file is read.

    Raises:
        InputError: two perturbations or none, points together with a domain, or a property
            that its threshold contradicts.
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
    arithmetic: str = "real"
    accumulate: str | None = None

    def __post_init__(self) -> None:
        if self.quantity not in (None, "epsilon", "sigma", "delta"):
            raise InputError(f"no quantity {self.quantity!r}; choose epsilon, sigma or delta")
        self._check_perturbation()
        if self.at is not None and (self.domain is not None or self.domain_from is not None):
            raise InputError("--at asks about points, --domain about a box; give one of them")
        if self.domain is not None and self.domain_from is not None:
            raise InputError("--domain and --domain-from both name the box; give one of them")
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

    def _check_perturbation(self) -> None:
        if self.delta is not None and self.perturbation is not None:
            raise InputError("two perturbations at once: give either --delta or --perturbation")
        if self.quantity == "delta":
            if self.delta is not None:
                raise InputError(
                    "estimate delta computes the largest delta: leave --delta out (choose the "
                    "parameters that move with --perturbation or --leave-out)"
                )
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
    are the sentences about what nobody said.
    """

    asked: Asked
    model: Model
    problems: tuple[Problem, ...]
    classes: tuple[int, ...] | None
    assumptions: tuple[str, ...]

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


def build(asked: Asked, model: Model) -> Request:
    """Return the problems that answer a question about a model.

    Raises:
        InputError: whatever does not fit, with what to do instead.
    """
    domains, classes, assumed = _domains(asked, model)
    uncertain = UncertainNetwork(model.network, _perturbation(asked, model))
    property_ = asked.property() if asked.quantity in (None, "delta") else None
    if asked.quantity == "sigma":
        check_labels(model.network, model.output)
    arithmetic = arithmetic_from(asked.arithmetic, asked.accumulate)
    problems = tuple(
        Problem(model.network, uncertain, domain, model.output, property_, arithmetic)
        for domain in domains
    )
    assumptions = (*model.assumptions, *([assumed] if assumed else []))
    if arithmetic is not None:
        assumptions = (*assumptions, *arithmetic.assumptions())
    return Request(asked, model, problems, classes, assumptions)


def _domains(asked: Asked, model: Model) -> tuple[list[Domain], tuple[int, ...] | None, str | None]:
    if asked.at is not None:
        points, classes = parse_points(asked.at, model)
        return [*points], None if classes is None else tuple(classes), None
    if asked.domain is not None:
        return [parse_domain(asked.domain, model)], None, None
    if asked.domain_from is not None:
        return [bounding_box(asked.domain_from, model)], None, None
    box, said = assumed_box(model)
    return [box], None, said


def _perturbation(asked: Asked, model: Model) -> Perturbation:
    given, network = asked.perturbation, model.network
    delta = asked.exact_delta()
    if delta is not None:
        return uniform(network, delta, asked.leave_out)
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

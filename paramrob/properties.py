"""The properties of Murthy, Das and Islam (arXiv 1903.10672), Definitions 1 to 5."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from paramrob.errors import InputError

PropertyName = Literal["labels", "confidence", "margin"]
Quantity = Literal["epsilon", "sigma", "delta"]


@dataclass(frozen=True)
class Property:
    """What must hold for every input of the domain and every parameter vector of the box.

    ``confidence``: the confidence moves by at most ``epsilon`` (infinity norm over outputs;
    Definitions 1 and 2). ``labels``: the label stays (3 and 4). ``margin``: the label stays
    where the reference is at least ``sigma`` away from the level (5); with several outputs
    where the best logit leads the second by at least ``sigma``.
    """

    name: PropertyName
    epsilon: Fraction | None = None
    sigma: Fraction | None = None

    def __post_init__(self) -> None:
        needs = {"labels": (False, False), "confidence": (True, False), "margin": (False, True)}
        if self.name not in needs:
            raise InputError(f"no property {self.name!r}; choose from {', '.join(needs)}")
        given = (self.epsilon is not None, self.sigma is not None)
        if given != needs[self.name]:
            raise InputError(
                "confidence takes an epsilon, margin a sigma, labels neither; give "
                "--epsilon E for confidence or --sigma S for margin"
            )
        if (self.epsilon or 0) < 0 or (self.sigma or 0) < 0:
            raise InputError("epsilon and sigma are distances: give 0 or more")


def property_from(
    name: str | None = None, epsilon: Fraction | None = None, sigma: Fraction | None = None
) -> Property:
    """Return the property that the options name (``--property`` may only repeat it).

    Raises:
        InputError: both thresholds, a threshold missing, or a name that contradicts them.
    """
    if epsilon is not None and sigma is not None:
        raise InputError("--epsilon (confidence) and --sigma (margin) ask two questions; give one")
    implied: PropertyName = "labels"
    if epsilon is not None:
        implied = "confidence"
    elif sigma is not None:
        implied = "margin"
    if name is not None and name != implied:
        missing = {"confidence": "--epsilon E", "margin": "--sigma S", "labels": "no threshold"}
        if name not in missing:
            raise InputError(f"no property {name!r}; choose labels, confidence or margin")
        raise InputError(f"--property {name} needs {missing[name]}")
    return Property(implied, epsilon, sigma)

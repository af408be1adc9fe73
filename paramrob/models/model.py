"""A network together with what its file and sidecar say about inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from paramrob.models.network import Activation, Network, Softmax

OutputKind = Literal["probability", "logit", "probabilities", "logits", "value"]
OUTPUT_KINDS: tuple[OutputKind, ...] = (
    "probability",
    "logit",
    "probabilities",
    "logits",
    "value",
)


@dataclass(frozen=True)
class InputInfo:
    """What is known of the inputs; ``lower`` and ``upper`` are exact, one per input."""

    names: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    lower: tuple[Fraction, ...] | None = None
    upper: tuple[Fraction, ...] | None = None


@dataclass(frozen=True)
class OutputInfo:
    """What the outputs mean.

    ``kind``: ``probability`` and ``logit`` are one output, ``probabilities`` and ``logits``
    several, ``value`` any number. ``level`` is where the label changes: after the sigmoid for
    the first two, in the output's own unit for ``value`` (``None``: no labels asked for).
    """

    kind: OutputKind
    level: Fraction | None = Fraction(1, 2)
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Model:
    """A network with its meaning and origin.

    ``assumptions`` are sentences about what neither the file nor an option said; they are shown
    with every result. ``folded`` says that batch norms were folded into the layers before them.
    """

    network: Network
    inputs: InputInfo
    output: OutputInfo
    path: str | None = None
    sha256: str | None = None
    assumptions: tuple[str, ...] = field(default=())
    folded: bool = False


def assumed_output(network: Network) -> tuple[OutputInfo, str]:
    """Return what the outputs mean when nobody says, and the sentence that says so."""
    last = network.last_layer.op
    if network.output_size == 1:
        if isinstance(last, Activation) and last.kind == "sigmoid":
            return OutputInfo("probability"), "the output is a probability (its last layer is one)"
        return OutputInfo("logit"), "the one output is a logit (class 1 above 0)"
    if isinstance(last, Softmax):
        return OutputInfo("probabilities", None), "the outputs are class probabilities (softmax)"
    return OutputInfo("logits", None), "the several outputs are class logits (label = argmax)"

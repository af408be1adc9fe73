"""The one problem that every engine solves: reference, uncertain network, domain, property."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paramrob.arithmetic import Arithmetic
from paramrob.domain import Domain
from paramrob.errors import BackendError, InputError
from paramrob.models.model import OUTPUT_KINDS, OutputInfo
from paramrob.models.network import Activation, Array, Network, Softmax
from paramrob.perturbation import ParameterInterval, Perturbation
from paramrob.properties import Property


@dataclass(frozen=True)
class UncertainNetwork:
    """All networks ``f_p``: an architecture and a box of parameters."""

    network: Network
    perturbation: Perturbation

    def possible(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """Return parameters inside the box, moved to an end where only ends are possible."""
        return {
            name: self.interval(name).possible(np.asarray(value))
            for name, value in parameters.items()
        }

    def interval(self, name: str) -> ParameterInterval:
        """Return the interval of one of the network's parameters."""
        return self.perturbation.interval(self.network.parameters[name])


@dataclass(frozen=True)
class Problem:
    """``reference`` against every network of ``uncertain`` on every input of ``domain``.

    ``property`` is ``None`` where a quantity is to be estimated rather than a claim decided.
    ``arithmetic`` is what the uncertain network is executed in, ``None`` for real numbers; the
    reference is always in real numbers.
    """

    reference: Network
    uncertain: UncertainNetwork
    domain: Domain
    output: OutputInfo
    property: Property | None = None
    arithmetic: Arithmetic | None = None

    def __post_init__(self) -> None:
        network = self.reference
        if self.domain.size != network.input_size:
            raise InputError(
                f"the model takes {network.input_size} input(s), the domain has {self.domain.size}"
            )
        other = self.uncertain.network
        if (other.input_size, other.output_size) != (network.input_size, network.output_size):
            raise InputError("the two networks have different inputs or outputs")
        unknown = sorted(set(self.uncertain.perturbation.parameters) - set(other.parameters))
        if unknown:
            raise InputError(
                f"the perturbation names parameters that the network lacks: {unknown}; "
                f"it has {sorted(other.parameters)}"
            )
        for name in self.uncertain.perturbation.parameters:
            if other.parameters[name].fixed:
                raise InputError(
                    f"parameter {name!r} was counted, not trained, and does not move; leave it "
                    "out of the perturbation"
                )
        check_output(network, self.output)
        if self.property and self.property.name != "confidence":
            check_labels(network, self.output)

    @builtins.property
    def semantics(self) -> str:
        """What the statement about the uncertain network speaks of: ``real``, ``float32``, ..."""
        return "real" if self.arithmetic is None else self.arithmetic.name


def check_real(problem: Problem, who: str) -> None:
    """Refuse a problem about floating-point arithmetic where only real numbers are known.

    Raises:
        BackendError: with what to do instead.
    """
    if problem.arithmetic is not None:
        raise BackendError(
            f"{who} knows real numbers only; for --arithmetic {problem.semantics} ask about points "
            "(--at) with --solver bounds"
        )


def check_output(network: Network, output: OutputInfo) -> None:
    """Refuse an output kind that does not fit the network.

    Raises:
        InputError: with the kinds that fit.
    """
    if output.kind not in OUTPUT_KINDS:
        raise InputError(f"no output kind {output.kind!r}; choose from {', '.join(OUTPUT_KINDS)}")
    several = network.output_size > 1
    if several == (output.kind in ("probability", "logit")) and output.kind != "value":
        fits = "logits, probabilities or value" if several else "logit, probability or value"
        raise InputError(
            f"output kind {output.kind!r} on {network.output_size} output(s); use {fits}"
        )
    last = network.final_node.op
    if isinstance(last, Softmax) and network.output_size == 1:
        raise InputError("a softmax over one output is always 1; leave it out or use a sigmoid")
    if output.kind == "logits" and isinstance(last, Softmax):
        raise InputError("the last layer is a softmax: its outputs are probabilities, not logits")
    if output.kind == "logit" and isinstance(last, Activation) and last.kind == "sigmoid":
        raise InputError("the last layer is a sigmoid: its output is a probability, not a logit")
    if output.kind == "probabilities":
        if not isinstance(last, Softmax):
            raise InputError('outputs are probabilities only behind a softmax; say kind = "logits"')
        if network.final_node.shape[-1] != network.output_size:
            raise InputError(
                "the softmax makes several distributions, not one over all outputs; "
                'say kind = "value"'
            )
    is_probability = output.kind in ("probability", "logit") and output.level is not None
    if is_probability and not 0 < (output.level or 0) < 1:
        raise InputError(
            f"the level {float(output.level or 0)!r} of a probability lies outside (0, 1)"
        )


def check_labels(network: Network, output: OutputInfo) -> None:
    """Refuse questions about labels where there are none.

    Raises:
        InputError: with the option that is missing.
    """
    if output.kind != "value":
        return
    if network.output_size > 1:
        raise InputError("a network of several values has no labels; ask for --epsilon instead")
    if output.level is None:
        raise InputError("where does the label of this value change? give --level L")

"""What is done to a trained network before it runs, as a box of parameters and in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from paramrob.errors import InputError
from paramrob.exact import decimal_text
from paramrob.models.network import Array, BatchNorm, Network
from paramrob.perturbation import Perturbation
from paramrob.quantize.apply import pruned_values, rounded, with_values
from paramrob.quantize.scheme import Scheme
from paramrob.quantize.targets import Targets

KINDS = ("quantize", "prune")
_LIMITS = (
    "holds for nearest, floor, stochastic and learned rounding (AdaRound), not for methods that "
    "move weights further (GPTQ, AWQ)"
)
_OTHERS = 6
_RATIONAL = re.compile(r"\d{1,50}(\.\d{1,50}|/[1-9]\d{0,49})?\Z", re.ASCII)


@dataclass(frozen=True)
class Deployment:
    """Pruning, quantization, or pruning and then quantization.

    Attributes:
        scheme: how parameters are rounded, if they are.
        any_rounding: each rounded parameter is either of its two neighbours, rather than the
            nearest value.
        prune: the share of the weights that magnitude pruning sets to 0.
        any_pruning: any subset of the weights becomes 0.
        leave_out: layers that are not pruned.

    Raises:
        InputError: nothing to do, or settings that contradict each other.
    """

    scheme: Scheme | None = None
    any_rounding: bool = False
    prune: Fraction | None = None
    any_pruning: bool = False
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.any_pruning and self.prune is not None:
            raise InputError("--any-pruning covers every share of the weights; leave --prune out")
        if self.any_pruning and self.scheme is not None:
            raise InputError(
                "--any-pruning cannot be combined with --quantize; give --prune FRACTION instead"
            )
        if self.any_rounding and self.scheme is None:
            raise InputError("--any-rounding to which format? give --quantize FORMAT")
        if self.scheme is None and self.prune is None and not self.any_pruning:
            raise InputError("nothing is done to the network; give a scheme or a pruning")

    @property
    def kind(self) -> str:
        """``quantize`` (perhaps of a pruned network) or ``prune``."""
        return "prune" if self.scheme is None else "quantize"

    @property
    def is_grid(self) -> bool:
        """Whether each parameter is one of two values, rather than one value."""
        return self.any_rounding or self.any_pruning

    def perturbation(self, network: Network) -> Perturbation:
        """Return the box: points, or grids of two values a parameter.

        Raises:
            InputError: what the network's layers or values do not allow.
        """
        return Perturbation.explicit(
            self._ends(network),
            kind=self.kind,
            description=self.as_json(),
            only_ends=self.is_grid,
            words=self.words(),
        )

    def network(self, network: Network) -> Network:
        """Return the deployed network where it is a single one.

        Raises:
            InputError: it is not, or what its layers or values do not allow.
        """
        if self.is_grid:
            raise InputError("any rounding or pruning is many networks; ask for one of them")
        return with_values(network, {n: low for n, (low, _) in self._ends(network).items()})

    def _ends(self, network: Network) -> dict[str, tuple[Array, Array]]:
        if self.any_pruning:
            names = Targets.of(network, self.leave_out).weights
            values = {name: network.parameters[name].value for name in names}
            return {n: (np.minimum(v, 0.0), np.maximum(v, 0.0)) for n, v in values.items()}
        ends: dict[str, tuple[Array, Array]] = {}
        if self.prune is not None:
            values = pruned_values(network, self.prune, self.leave_out)
            ends = {name: (value, value) for name, value in values.items()}
            network = with_values(network, values)
        if self.scheme is not None:
            for name, part in rounded(network, self.scheme).items():
                nearest = (part.values, part.values)
                ends[name] = (part.below, part.above) if self.any_rounding else nearest
        return ends

    def words(self) -> str:
        """Return which parameters are possible, in one sentence."""
        unpruned = _but_for(self.leave_out)
        if self.any_pruning:
            return f"any pruning: each weight{unpruned} is 0 or as trained, whatever the subset"
        share = "" if self.prune is None else f"{decimal_text(self.prune * 100)} %"
        if self.scheme is None:
            return (
                f"this pruning: the {share} of the weights{unpruned} that are smallest in "
                "magnitude are 0, the others as trained"
            )
        scheme = self.scheme
        what = "weight and bias" if scheme.is_float and scheme.bias is None else "weight"
        what += _but_for(scheme.keep)
        first = f" after the smallest {share} of the weights{unpruned} were set to 0"
        first = first if share else ""
        if self.any_rounding:
            each = f"each {what} on either neighbour in {scheme.words()}{first}"
            return f"any rounding: {each}; {_LIMITS}"
        return f"this rounding: each {what} is exactly its nearest value in {scheme.words()}{first}"

    def assumptions(self, network: Network) -> tuple[str, ...]:
        """Return sentences about what stays as it is, and about choices of ours."""
        keep = self.leave_out if self.scheme is None else self.scheme.keep
        targets = Targets.of(network, keep)
        said = []
        scheme = self.scheme
        if targets.biases and (scheme is None or not scheme.is_float or scheme.bias == "float"):
            why = ""
            if scheme is not None and scheme.bias == "int32":
                why = (
                    ": int32 biases need the scales of activations, which only a quantized file "
                    "has (paramrob compare)"
                )
            said.append(f"biases keep their stored values{why}")
        if targets.others:
            names = ", ".join(targets.others[:_OTHERS])
            more = len(targets.others) - _OTHERS
            names += f" and {more} more" if more > 0 else ""
            fold = any(isinstance(node.op, BatchNorm) for node in network.nodes)
            advice = " (--fold-batch-norm folds batch norms into weights first)" if fold else ""
            said.append(f"the parameters of {names} keep their stored values{advice}")
        if scheme is not None and not scheme.is_float:
            kinds = sorted({network.parameters[n].dtype for n in targets.weights})
            odd = [kind for kind in kinds if kind in ("float16", "bfloat16")]
            if odd:
                said.append(f"scales are float32, also of weights stored as {', '.join(odd)}")
        if self.prune is not None and self._ties(network):
            said.append(
                "weights of the same magnitude lie on either side of the pruning threshold: the "
                "first ones are pruned"
            )
        return tuple(said)

    def _ties(self, network: Network) -> bool:
        """Whether a pruned weight is as large as one that stays."""
        if self.prune is None:
            return False
        after = pruned_values(network, self.prune, self.leave_out)
        before = {name: np.abs(network.parameters[name].value) for name in after}
        gone = [before[n][(after[n] == 0) & (before[n] > 0)] for n in after]
        left = [before[n][after[n] != 0] for n in after]
        smallest = min((float(part.min()) for part in left if part.size), default=np.inf)
        largest = max((float(part.max()) for part in gone if part.size), default=0.0)
        return largest >= smallest

    def as_json(self) -> dict[str, object]:
        """Return the deployment for reports and witness files; :meth:`from_json` reads it."""
        said: dict[str, object] = {}
        if self.scheme is not None:
            said = {**self.scheme.as_json(), "rounding": "any" if self.any_rounding else "nearest"}
        if self.prune is not None or self.any_pruning:
            said["pruned"] = "any" if self.prune is None else decimal_text(self.prune)
            said["leave_out"] = list(self.leave_out)
        return said | {"statement": self.words()}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Deployment:
        """Return the deployment that :meth:`as_json` described.

        Raises:
            InputError: the object is not one of its.
        """
        given = dict(said)
        given.pop("statement", None)
        rounding, share = given.pop("rounding", None), given.pop("pruned", None)
        leave_out = given.pop("leave_out", [])
        if rounding not in (None, "any", "nearest") or not isinstance(share, str | None):
            raise InputError("this is no description of a deployment; save the witness again")
        if not isinstance(leave_out, list) or not all(isinstance(v, str) for v in leave_out):
            raise InputError("this is no description of a deployment; save the witness again")
        prune = None if share is None or share == "any" else _share(share)
        return cls(
            Scheme.from_json(given) if rounding is not None else None,
            rounding == "any",
            prune,
            share == "any",
            tuple(leave_out),
        )


def _but_for(layers: tuple[str, ...]) -> str:
    return f" (but for {', '.join(layers)})" if layers else ""


def _share(text: str) -> Fraction:
    if not _RATIONAL.match(text):
        raise InputError("this is no description of a deployment; save the witness again")
    return Fraction(text)


def same_box(a: Perturbation, b: Perturbation, network: Network) -> bool:
    """Whether two boxes of a network are the same, end by end."""
    if a.only_ends != b.only_ends or set(a.parameters) != set(b.parameters):
        return False
    pairs = [
        (a.interval(network.parameters[n]), b.interval(network.parameters[n])) for n in a.parameters
    ]
    return all(
        np.array_equal(p, q) for x, y in pairs for p, q in zip(x.inner(), y.inner(), strict=True)
    )

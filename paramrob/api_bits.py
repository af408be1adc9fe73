"""The Python API: the fewest bits that keep a property, for all layers or layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paramrob.api import meant
from paramrob.bit_widths import FewestBits, decide_widths
from paramrob.mixed_widths import MixedWidths, mixed_widths
from paramrob.models.model import OutputKind
from paramrob.quantize.scheme import Scheme
from paramrob.requests.build import Asked
from paramrob.requests.domains import DomainLike, Number, PointsLike
from paramrob.solve import make_settings


def fewest_bits(
    model: Any,
    *,
    quantize: Scheme | str = "int8",
    any_rounding: bool = False,
    prune: Number | None = None,
    leave_out: Sequence[str] = (),
    domain: DomainLike | None = None,
    at: PointsLike | None = None,
    epsilon: Number | None = None,
    sigma: Number | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    solver: str = "auto",
    timeout: float = 60.0,
) -> FewestBits:
    """Decide for every integer width from 16 down to 2 whether a property holds.

    Args:
        model: as in :func:`check`, like everything that is not explained here.
        quantize: a scheme with integers, whose width is replaced.
        any_rounding: each rounded weight may be either of its neighbours.
        prune: a share of the weights to prune first.
        leave_out: layers that are not pruned.
        domain: a box.
        at: points.
        epsilon: the property's threshold; without one labels have to stay.
        sigma: the property's threshold.
        level: where the label changes.
        output: what the outputs mean.
        solver: which engine.
        timeout: seconds, of all widths together.

    Returns:
        The outcome of each width; ``bits`` is the fewest from which on all wider ones are proved.

    Raises:
        InputError: a question that cannot be asked, with what to do instead.
        SoundnessError: two results contradict each other.
    """
    asked = _asked(quantize, any_rounding, prune, leave_out, domain, at, epsilon, sigma)
    settings = make_settings(solver=solver, timeout=timeout)
    return decide_widths(asked, meant(model, output, level, False), settings)


def mixed_bits(
    model: Any,
    *,
    quantize: Scheme | str = "int8",
    any_rounding: bool = False,
    prune: Number | None = None,
    leave_out: Sequence[str] = (),
    domain: DomainLike | None = None,
    at: PointsLike | None = None,
    epsilon: Number | None = None,
    sigma: Number | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    solver: str = "auto",
    timeout: float = 60.0,
) -> MixedWidths:
    """Search for integer widths layer by layer, of small total size, that keep a property.

    Args:
        model: as in :func:`fewest_bits`, like all others.
        quantize: a scheme with integers, whose width is replaced.
        any_rounding: each rounded weight may be either of its neighbours.
        prune: a share of the weights to prune first.
        leave_out: layers that are not pruned.
        domain: a box.
        at: points.
        epsilon: the property's threshold; without one labels have to stay.
        sigma: the property's threshold.
        level: where the label changes.
        output: what the outputs mean.
        solver: which engine.
        timeout: seconds, of everything.

    Returns:
        The widths; its ``scheme`` is what :func:`check` takes as ``quantize``, and ``proved``
        says whether the property was proved with it from scratch.

    Raises:
        InputError: a question that cannot be asked, with what to do instead.
        SoundnessError: two results contradict each other.
    """
    asked = _asked(quantize, any_rounding, prune, leave_out, domain, at, epsilon, sigma)
    settings = make_settings(solver=solver, timeout=timeout)
    return mixed_widths(asked, meant(model, output, level, False), settings)


def _asked(
    quantize: Scheme | str,
    any_rounding: bool,
    prune: Number | None,
    leave_out: Sequence[str],
    domain: DomainLike | None,
    at: PointsLike | None,
    epsilon: Number | None,
    sigma: Number | None,
) -> Asked:
    return Asked(
        "estimate",
        quantize=quantize,
        any_rounding=any_rounding,
        prune=prune,
        leave_out=tuple(leave_out),
        domain=domain,
        at=at,
        epsilon=epsilon,
        sigma=sigma,
    )

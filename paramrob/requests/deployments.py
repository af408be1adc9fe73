"""Quantization, pruning and noise from the options of a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramrob.errors import InputError
from paramrob.quantize.scheme import Scheme

_SETTINGS = {
    "granularity": "granularity",
    "symmetric": "symmetric",
    "integer_range": "range",
    "convention": "convention",
    "bias_format": "bias",
    "keep_float": "keep",
    "quantize_layer": "layers",
}
"""Options that say how to quantize, and the settings of a scheme that they are."""
_WRITTEN = {
    "symmetric": "--symmetric/--affine",
    "integer_range": "--range",
    "bias_format": "--bias",
    "keep_float": "--keep-float",
    "quantize_layer": "--quantize-layer",
}


def deployment_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``Asked`` takes of a command's options.

    Args:
        options: by name; one that was not given is ``None`` or empty.

    Raises:
        InputError: settings of a quantization without one, or that contradict each other.
    """
    given = {n: options[n] for n in _SETTINGS if options[n] is not None and options[n] != ()}
    form = options["quantize"]
    if given and form is None:
        names = " and ".join(_WRITTEN.get(name, f"--{name}") for name in given)
        raise InputError(f"{names} of which quantization? give --quantize FORMAT as well")
    if "quantize_layer" in given:
        given["quantize_layer"] = tuple(_layer_format(text) for text in given["quantize_layer"])
    scheme = None
    if form is not None:
        scheme = Scheme(form, **{_SETTINGS[name]: value for name, value in given.items()})
    others = ("any_rounding", "prune", "any_pruning", "activations", "calibration")
    return {"quantize": scheme} | {name: options[name] for name in others}


def _layer_format(text: str) -> tuple[str, str]:
    """Return the layer and the format of ``NAME=FORMAT``; a name may hold ``=``."""
    name, sign, form = text.rpartition("=")
    if not sign or not name:
        raise InputError(f"--quantize-layer {text}: write NAME=FORMAT, such as fc1=int4")
    return name, form

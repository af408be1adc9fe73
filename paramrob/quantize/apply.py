"""Schemes applied to networks, and magnitude pruning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from paramrob.errors import InputError
from paramrob.models.network import Array, Network
from paramrob.quantize.floats import round_float
from paramrob.quantize.integers import Rounded, round_array
from paramrob.quantize.scheme import Scheme
from paramrob.quantize.targets import Targets
from paramrob.requests.suggest import nearest


def rounded(network: Network, scheme: Scheme) -> dict[str, Rounded]:
    """Return every parameter that a scheme rounds, by name.

    These are the weights of dense and convolutional layers and, in a float format without
    ``bias="float"``, their biases. In an integer format biases stay float: an int32 bias has the
    scale of the layer's input times that of its weights, and where only weights are quantized
    inputs have none. Batch norms, scalers and other elementwise constants keep their values.

    Raises:
        InputError: a layer to keep or with a format of its own that is not there, a parameter
            that is used in two ways, or values that the format cannot hold.
    """
    targets = Targets.of(network, scheme.keep)
    names = targets.weights
    if scheme.is_float and scheme.bias is None:
        names = (*names, *targets.biases)
    schemes = _schemes(network, scheme, names)
    found = {}
    for name in names:
        value, own = network.parameters[name].value, schemes[name]
        try:
            found[name] = _float(value, own) if own.is_float else round_array(value, own)
        except InputError as error:
            raise InputError(f"parameter {name!r}: {error}") from None
    return found


def _schemes(network: Network, scheme: Scheme, names: Iterable[str]) -> dict[str, Scheme]:
    """Return the scheme of each of these parameters, by name."""
    wanted, layers = set(names), network.layer_parameters()
    for layer in scheme.formats:
        if layer not in layers:
            raise InputError(f"no layer {layer!r} with parameters; {nearest(layer, layers)}")
    found: dict[str, Scheme] = {}
    for layer, parameters in layers.items():
        own = scheme.of_layer(layer)
        ours = wanted & set(parameters)
        if layer in scheme.formats and not ours:
            raise InputError(f"layer {layer!r} has no weights to round; leave its format out")
        for name in ours:
            if found.setdefault(name, own) != own:
                raise InputError(
                    f"layer {layer!r} shares {name!r} with a layer in another format; give both "
                    "the same"
                )
    return found


def quantized(network: Network, scheme: Scheme) -> Network:
    """Return the network whose parameters are rounded to the nearest value of a scheme.

    Raises:
        InputError: see :func:`rounded`.
    """
    return with_values(network, {n: r.values for n, r in rounded(network, scheme).items()})


def pruned_values(
    network: Network, fraction: Fraction, leave_out: Iterable[str] = ()
) -> dict[str, Array]:
    """Return the weights after global magnitude pruning, by name.

    As ``torch.nn.utils.prune.global_unstructured`` with ``L1Unstructured`` and ``amount``
    ``fraction``: of all weights of dense and convolutional layers together the
    ``round(fraction * count)`` smallest in magnitude become 0. Among equal magnitudes the first
    in the network's order does; PyTorch does not say which.

    Args:
        network: any network.
        fraction: 0 to 1.
        leave_out: layers that are not pruned; their weights are not counted.

    Raises:
        InputError: a fraction out of range, or as :meth:`Targets.of`.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"a share of {float(fraction)!r} cannot be pruned; give 0 to 1")
    names = Targets.of(network, leave_out).weights
    values = {name: np.array(network.parameters[name].value) for name in names}
    flat = np.concatenate([value.ravel() for value in values.values()])
    count = round(float(fraction) * flat.size)
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0.0
    for value in values.values():
        value.ravel()[:] = flat[: value.size]
        flat = flat[value.size :]
    return values


def pruned(network: Network, fraction: Fraction, leave_out: Iterable[str] = ()) -> Network:
    """Return the network after global magnitude pruning; see :func:`pruned_values`.

    Raises:
        InputError: see :func:`pruned_values`.
    """
    return with_values(network, pruned_values(network, fraction, leave_out))


def with_values(network: Network, values: Mapping[str, Array]) -> Network:
    """Return a network with other values of some parameters, stored as float64."""
    parameters = [
        replace(p, value=values[name], dtype="float64") if name in values else p
        for name, p in network.parameters.items()
    ]
    return Network(network.nodes, parameters)


def _float(value: Array, scheme: Scheme) -> Rounded:
    values, below, above = round_float(value, scheme.format)
    return Rounded(values, below, above, np.ones_like(value), np.zeros_like(value), None)

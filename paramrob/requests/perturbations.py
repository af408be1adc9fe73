"""Perturbations from options, TOML files and Python mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from paramrob.errors import InputError
from paramrob.exact import decimal_text, parse_decimal
from paramrob.models.network import BatchNorm, Conv, Dense, Elementwise, Network, Node
from paramrob.perturbation import Perturbation
from paramrob.requests.suggest import nearest
from paramrob.requests.tables import read_toml

_KEYS = ("delta", "relative", "weights", "biases")


def uniform(network: Network, delta: Fraction, leave_out: Sequence[str] = ()) -> Perturbation:
    """Return one half-width for all parameters but those of the layers left out.

    Raises:
        InputError: an unknown layer, with the nearest valid name.
    """
    layers = network.layer_parameters()
    for name in leave_out:
        if name not in layers:
            raise InputError(f"no layer {name!r} with parameters; {nearest(name, layers)}")
    return Perturbation.uniform(network, delta, leave_out)


def noise(network: Network, relative: Fraction, leave_out: Sequence[str] = ()) -> Perturbation:
    """Return a half-width of ``relative * |w|`` for each parameter but those of layers left out.

    Raises:
        InputError: an unknown layer, with the nearest valid name.
    """
    moved = uniform(network, Fraction(0), leave_out).parameters
    said: dict[str, object] = {"relative": decimal_text(relative)}
    if leave_out:
        said["leave_out"] = list(leave_out)
    sizes = dict.fromkeys(moved, Fraction(0)), dict.fromkeys(moved, relative)
    return Perturbation(*sizes, kind="noise", description=said)


def from_table(
    source: str | Path | Mapping[str, Any], network: Network, what: str = "--perturbation"
) -> Perturbation:
    """Return the perturbation that a TOML file, or a mapping of the same form, describes.

    ``[default]`` and ``[layer."NAME"]`` hold ``delta``, ``relative``, ``weights`` and
    ``biases``; a layer's table overrides the default key by key. A parameter ``w`` moves by at
    most ``delta + relative * |w|``; ``weights = false`` or ``biases = false`` keeps them fixed.

    Raises:
        InputError: unknown keys or layers (with the nearest valid one), values that are no
            decimals or negative, or a shared parameter with two different sizes.
    """
    from_file = isinstance(source, (str, Path))
    table: Mapping[str, Any] = read_toml(source, what) if from_file else source  # type: ignore[arg-type, assignment]
    where = f"{what}: {source}" if from_file else "perturbation"
    _known(table, ("default", "layer"), where)
    default = _settings(table.get("default", {}), f"{where}: [default]")
    layers = _table(table.get("layer", {}), f"{where}: [layer]")
    nodes = {n.name: n for n in network.nodes if n.name in network.layer_parameters()}
    for name in layers:
        if name not in nodes:
            raise InputError(f"{where}: no layer {name!r} with parameters; {nearest(name, nodes)}")
    own = {name: _settings(value, f'{where}: [layer."{name}"]') for name, value in layers.items()}
    sizes: dict[str, tuple[Fraction, Fraction]] = {}
    for name, node in nodes.items():
        for parameter, size in _sizes(node, default | own.get(name, {})).items():
            if sizes.setdefault(parameter, size) != size:
                raise InputError(
                    f"{where}: parameter {parameter!r} is shared by several layers, which say "
                    "different sizes; say the same in each"
                )
    description: dict[str, object] = {"file": str(source)} if from_file else {}
    description["default"] = _said(default)
    description["layers"] = {name: _said(value) for name, value in own.items()}
    moved = {name: size for name, size in sizes.items() if any(size)}
    if not moved:
        raise InputError(
            f"{where} moves no parameter; give a delta or relative above 0 (delta = 0 on the "
            "command line asks about the network as it is)"
        )
    return Perturbation(
        {name: absolute for name, (absolute, _) in moved.items()},
        {name: relative for name, (_, relative) in moved.items() if relative},
        description=description,
    )


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a table of keys, got {value!r}")
    return value


def _known(table: Mapping[str, Any], valid: Sequence[str], where: str) -> None:
    for key in table:
        if key not in valid:
            raise InputError(f"{where}: no key {key!r}; {nearest(str(key), valid)}")


def _settings(value: Any, where: str) -> dict[str, Any]:
    table = _table(value, where)
    _known(table, _KEYS, where)
    settings: dict[str, Any] = {}
    for key, item in table.items():
        if key in ("weights", "biases"):
            if not isinstance(item, bool):
                raise InputError(f"{where}: {key} is true or false, got {item!r}")
            settings[key] = item
            continue
        if not isinstance(item, (str, int, float, Fraction)):
            raise InputError(f'{where}: {key} is a decimal such as "0.01", got {item!r}')
        settings[key] = parse_decimal(item, f"{where}: {key}")
        if settings[key] < 0:
            raise InputError(f"{where}: {key} is negative; give 0 or more")
    return settings


def _sizes(node: Node, settings: Mapping[str, Any]) -> dict[str, tuple[Fraction, Fraction]]:
    zero = Fraction(0)
    size = (settings.get("delta", zero), settings.get("relative", zero))
    fixed = (zero, zero)
    weights = size if settings.get("weights", True) else fixed
    biases = size if settings.get("biases", True) else fixed
    if isinstance(node.op, (Dense, Conv, BatchNorm)):
        sizes = {} if node.op.weight is None else {node.op.weight: weights}
        if node.op.bias is not None:
            sizes[node.op.bias] = biases
        return sizes
    if isinstance(node.op, Elementwise):
        is_bias = node.op.kind in ("add", "sub", "rsub")
        return {node.op.parameter: biases if is_bias else weights}
    return {}


def _said(settings: Mapping[str, Any]) -> dict[str, object]:
    return {k: decimal_text(v) if isinstance(v, Fraction) else v for k, v in settings.items()}

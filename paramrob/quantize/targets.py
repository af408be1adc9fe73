"""Which parameters of a network quantization and pruning change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paramrob.errors import InputError
from paramrob.models.network import Conv, Dense, Network, Node, node_parameters
from paramrob.requests.suggest import nearest

_FLOAT = "float"


@dataclass(frozen=True)
class Targets:
    """Parameters by name.

    Attributes:
        weights: of dense and convolutional layers.
        biases: of the same layers.
        others: layers with other parameters (batch norms, scalers), which are left alone.
    """

    weights: tuple[str, ...]
    biases: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, network: Network, keep: Iterable[str] = ()) -> Targets:
        """Return the targets of a network.

        Args:
            network: any network.
            keep: layers to leave alone.

        Raises:
            InputError: no such layer, a parameter that is used in two ways, or nothing left.
        """
        layers, keep = network.layer_parameters(), tuple(keep)
        for name in keep:
            if name not in layers:
                raise InputError(f"no layer {name!r} with parameters; {nearest(name, layers)}")
        roles: dict[str, str] = {}
        for node in network.nodes:
            for parameter, role in _roles(network, node, node.name in keep).items():
                if roles.setdefault(parameter, role) != role:
                    raise InputError(
                        f"layer {node.name!r} shares {parameter!r} with a layer that is treated "
                        "otherwise; keep both as they are"
                    )
        if "weight" not in roles.values():
            raise InputError("no dense or convolutional layer is left to change; keep fewer layers")
        return cls(
            tuple(name for name, role in roles.items() if role == "weight"),
            tuple(name for name, role in roles.items() if role == "bias"),
            tuple(
                node.name
                for node in network.nodes
                if node.name in layers
                and node.name not in keep
                and not isinstance(node.op, (Dense, Conv))
            ),
        )


def _roles(network: Network, node: Node, is_kept: bool) -> dict[str, str]:
    roles = dict.fromkeys(node_parameters(node.op), _FLOAT)
    if isinstance(node.op, (Dense, Conv)) and not is_kept:
        roles[node.op.weight] = "weight"
        if node.op.bias is not None:
            roles[node.op.bias] = "bias" if node.op.bias != node.op.weight else _FLOAT
    return {n: _FLOAT if network.parameters[n].fixed else role for n, role in roles.items()}

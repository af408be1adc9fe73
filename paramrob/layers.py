"""A network as alternating affine layers and activations, then the link to its confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paramrob.errors import BackendError
from paramrob.models.model import OutputInfo
from paramrob.models.network import (
    Activation,
    Dense,
    Elementwise,
    Network,
    Node,
    Reshape,
    Softmax,
)

Link = Literal["identity", "sigmoid", "softmax"]
IDENTITY = Activation("identity")
CHAIN_KINDS = ("identity", "relu", "leaky_relu", "sigmoid", "tanh")


@dataclass(frozen=True)
class Stage:
    """One affine layer and the activation behind it.

    ``node`` is a dense or elementwise node, ``None`` where an identity was put in; ``activation``
    is ``None`` behind the last layer.
    """

    node: Node | None
    activation: Activation | None

    @property
    def kind(self) -> tuple[object, Activation | None]:
        """What two networks of one architecture have in common here."""
        return (None if self.node is None else type(self.node.op), self.activation)


def stages(network: Network, output: OutputInfo) -> tuple[Link, tuple[Stage, ...]]:
    """Return what turns the last layer's result into the confidence, and the layers before it.

    Layers and activations alternate, a layer first and last: two layers in a row get an identity
    activation between them, two activations (or one at an end) an identity layer.

    Raises:
        BackendError: the graph is no chain of dense or elementwise layers and activations.
    """
    link, nodes = _split(network, output)
    found: list[Stage] = []
    layer: Node | None = None
    waiting = False
    for node in nodes:
        if isinstance(node.op, Activation):
            found.append(Stage(layer, node.op))
            layer, waiting = None, False
            continue
        if waiting:
            found.append(Stage(layer, IDENTITY))
        layer, waiting = node, True
    return link, (*found, Stage(layer, None))


def _split(network: Network, output: OutputInfo) -> tuple[Link, list[Node]]:
    """Return the link and the nodes before it."""
    nodes = [n for n in network.nodes[1:] if not isinstance(n.op, Reshape)]
    for before, node in zip(network.nodes, network.nodes[1:], strict=False):
        if node.inputs != (before.name,):
            raise BackendError(
                f"node {node.name!r}: only chains of layers have a formula; use --solver bounds "
                "at points (--at)"
            )
    link: Link = "identity"
    if output.kind in ("logit", "logits"):
        link = "sigmoid" if output.kind == "logit" else "softmax"
    elif output.kind in ("probability", "probabilities") and nodes:
        last = nodes[-1].op
        if isinstance(last, Softmax):
            link = "softmax"
        elif isinstance(last, Activation) and last.kind == "sigmoid":
            link = "sigmoid"
        if link != "identity":
            nodes = nodes[:-1]
    for node in nodes:
        _check(node)
    return link, nodes


def _check(node: Node) -> None:
    if isinstance(node.op, Softmax):
        raise BackendError(
            f"node {node.name!r}: a softmax is supported only as the last layer of a "
            "classifier; set the output kind to probabilities"
        )
    op = node.op
    if not isinstance(op, (Dense, Elementwise, Activation)):
        raise BackendError(
            f"node {node.name!r}: a {type(op).__name__} is not supported in a formula; use "
            "--solver bounds"
        )
    if isinstance(op, Activation) and op.kind not in CHAIN_KINDS:
        raise BackendError(
            f"node {node.name!r}: the activation {op.kind} is not supported here; use "
            "--solver bounds at points"
        )
    if isinstance(op, Activation) and op.kind == "leaky_relu" and not 0 <= op.slope <= 1:
        raise BackendError(
            f"node {node.name!r}: a leaky ReLU of slope {op.slope} is not "
            "supported; slopes lie in [0, 1]"
        )

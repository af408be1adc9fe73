"""Values between layers on integer grids: which nodes, which ranges, and the network that results.

A grid stands behind the input and behind each node whose result a quantized graph stores: not
behind one that only moves numbers (reshapes, transposes, joins, maxima), not between a layer and
the activation or batch norm that reads it alone, and not behind a last sigmoid or softmax, which
runtimes compute in floating point. That is how ONNX Runtime's static quantization places its
QuantizeLinear nodes for these layers.

The range of a grid is a choice, not a claim: numbers beyond it saturate in the network that is
asked about, and proofs cover that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paramrob.errors import InputError
from paramrob.models.network import (
    Activation,
    AdaptivePool,
    Add,
    Array,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Network,
    Node,
    Pool,
    Quantize,
    Reshape,
    Softmax,
    Transpose,
    apply_node,
)
from paramrob.quantize.integers import affine_grid
from paramrob.quantize.scheme import Scheme
from paramrob.requests.suggest import nearest

Ranges = Mapping[str, tuple[float, float]]
SUFFIX = "/grid"
_BATCH = 256
_FORMAT = re.compile(r"u?int([2-9]|1[0-6])\Z")


@dataclass(frozen=True)
class Grids:
    """The grid behind each node that has one, by node name, and where the ranges come from."""

    format: str
    source: str
    behind: Mapping[str, Quantize]

    def network(self, network: Network) -> Network:
        """Return the network with a rounding behind each of these nodes.

        Raises:
            InputError: the network has no such node.
        """
        names = {node.name for node in network.nodes}
        if missing := sorted(set(self.behind) - names):
            raise InputError(f"the model has no node {missing[0]!r}; calibrate it anew")
        nodes: list[Node] = []
        new: dict[str, str] = {}
        for node in network.nodes:
            nodes.append(replace(node, inputs=tuple(new.get(n, n) for n in node.inputs)))
            if node.name in self.behind:
                name = _fresh(node.name + SUFFIX, names)
                nodes.append(Node(name, self.behind[node.name], (node.name,), node.shape))
                new[node.name] = name
        return Network(nodes, network.parameters.values())

    def words(self) -> str:
        """Return what happens to values between layers, in one clause."""
        return f"values between layers are rounded to {self.format}, their ranges {self.source}"

    def as_json(self) -> dict[str, object]:
        """Return the grids for reports and witness files; :meth:`from_json` reads them."""
        behind = {
            name: {
                "scale": op.scale.hex(),
                "zero_point": op.zero_point,
                "low": op.low,
                "high": op.high,
            }
            for name, op in self.behind.items()
        }
        return {"format": self.format, "ranges": self.source, "behind": behind}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Grids:
        """Return the grids that :meth:`as_json` described.

        Raises:
            InputError: the object is not one of its.
        """
        form, source, behind = (said.get(key) for key in ("format", "ranges", "behind"))
        wrong = InputError("this is no description of grids; save the witness again")
        if not (isinstance(form, str) and isinstance(source, str) and isinstance(behind, dict)):
            raise wrong
        found = {}
        for name, grid in behind.items():
            try:
                numbers = [int(grid[key]) for key in ("zero_point", "low", "high")]
                found[name] = Quantize(float.fromhex(grid["scale"]), *numbers)
            except (KeyError, TypeError, ValueError, OverflowError):
                raise wrong from None
        return cls(form, source, found)


def _fresh(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name


def sites(network: Network) -> tuple[str, ...]:
    """Return the nodes behind which a grid stands, in order."""
    readers: dict[str, list[Node]] = {node.name: [] for node in network.nodes}
    for node in network.nodes:
        for name in node.inputs:
            readers[name].append(node)
    last = network.final_node
    return tuple(
        node.name
        for node in network.nodes
        if not _only_moves(node) and not _fused(readers[node.name], node) and not _ends(node, last)
    )


def _only_moves(node: Node) -> bool:
    op = node.op
    if isinstance(op, (Pool, AdaptivePool)):
        return op.kind == "max"
    straight = isinstance(op, Activation) and op.kind == "identity"
    return straight or isinstance(op, (Reshape, Transpose, Concat, Quantize))


def _fused(readers: list[Node], node: Node) -> bool:
    """Whether the one reader is part of the same layer."""
    layer = isinstance(node.op, (Dense, Conv, BatchNorm, Elementwise, Add))
    if not layer or len(readers) != 1:
        return False
    op = readers[0].op
    bends = isinstance(op, Activation) and op.kind != "identity"
    return bends or isinstance(op, (BatchNorm, Elementwise, Quantize))


def _ends(node: Node, last: Node) -> bool:
    squashes = isinstance(node.op, Activation) and node.op.kind == "sigmoid"
    return isinstance(node.op, Softmax) or (squashes and node.name == last.name)


def grids_for(ranges: Ranges, form: str, source: str) -> Grids:
    """Return the affine grids of a format over ranges.

    Args:
        ranges: least and largest value by node; 0 is always in.
        form: ``int2`` .. ``int16`` or ``uint2`` .. ``uint16``.
        source: where the ranges come from, in words.

    Raises:
        InputError: no such format, or a range that is not finite.
    """
    check_format(form)
    scheme = Scheme(form, symmetric=False, range="full")
    low, high = scheme.integers()
    behind = {}
    for name, (least, most) in ranges.items():
        if not (math.isfinite(least) and math.isfinite(most)):
            raise InputError(
                f"the values of {name!r} have no finite range; give --calibration data.npz"
            )
        scale, zero = affine_grid(least, most, scheme)
        behind[name] = Quantize(scale, zero, low, high)
    return Grids(form, source, behind)


def check_format(form: str) -> None:
    """Refuse a format that values between layers cannot have.

    Raises:
        InputError: with what there is.
    """
    if not _FORMAT.match(form):
        raise InputError(
            f"--activations {form}: no integer format; "
            f"{nearest(form, ('int8', 'uint8', 'int16', 'int4'))} (int2 to int16, uint2 to "
            "uint16; for floating point see --arithmetic)"
        )


def calibrated(network: Network, x: Array) -> dict[str, tuple[float, float]]:
    """Return the least and the largest value behind each site, over a set of inputs.

    That is onnxruntime's MinMax calibration, in float64.

    Args:
        network: the trained one.
        x: ``(points, *input_shape)``.

    Raises:
        InputError: there is no point, or a value overflows.
    """
    if not len(x):
        raise InputError("--calibration: there is no point in it; give one at least")
    values = {name: parameter.value for name, parameter in network.parameters.items()}
    wanted = set(sites(network))
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(x), _BATCH):
        part = np.asarray(x[start : start + _BATCH], dtype=np.float64)
        seen = {network.nodes[0].name: part.reshape(len(part), *network.input_shape)}
        for node in network.nodes:
            if node.inputs:
                given = [seen[name] for name in node.inputs]
                seen[node.name] = apply_node(node.op, given, node.shape, values)
            if node.name in wanted:
                ends = float(seen[node.name].min()), float(seen[node.name].max())
                found[node.name] = united(found.get(node.name, ends), ends)
    return found


def united(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return the range that holds both."""
    return min(a[0], b[0]), max(a[1], b[1])

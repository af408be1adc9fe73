"""Digests that say which network and which points a statement is about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from paramrob.domain import Ball, Point
from paramrob.models.network import Network
from paramrob.perturbation import Perturbation


def network_digest(network: Network) -> str:
    """Return the SHA-256 of a network as it was read: its layers and every parameter.

    Unlike the digest of a model's file it covers what stands elsewhere (weights beside an ONNX
    file, layers that a sidecar lists) and what an option did (folded batch norms).
    """
    found = hashlib.sha256(repr(network.nodes).encode())
    for name, parameter in sorted(network.parameters.items()):
        found.update(repr((name, parameter.value.shape)).encode())
        found.update(parameter.value.tobytes())
    return found.hexdigest()


def ends_digest(network: Network, perturbation: Perturbation) -> str | None:
    """Return the SHA-256 of a box that its description does not spell out; ``None`` for another.

    That is a box whose ends were given value by value, or one of some values of a parameter.

    By parameter name, in alphabetic order: name and shape, then the lower and the upper ends as
    little-endian float64 numbers.
    """
    if not (perturbation.is_given or perturbation.is_part):
        return None
    found = hashlib.sha256(repr(perturbation.only_ends).encode())
    for name, parameter in sorted(network.parameters.items()):
        found.update(repr((name, parameter.value.shape)).encode())
        for end in perturbation.interval(parameter).inner():
            found.update(np.ascontiguousarray(end, dtype="<f8").tobytes())
    return found.hexdigest()


def points_digest(points: Iterable[Point | Ball]) -> str:
    """Return the SHA-256 of points one after the other, as little-endian float64 numbers.

    For an array ``x`` of points that is ``hashlib.sha256(x.astype("<f8").tobytes())``.
    """
    found = hashlib.sha256()
    for point in points:
        found.update(np.array(point.x, dtype="<f8").tobytes())
    return found.hexdigest()

"""What the pass over graphs leaves open is said to be open, whatever the reason."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

import paramrob.replay
from paramrob import engine
from paramrob.arithmetic import arithmetic_from
from paramrob.bounds.graph import points
from paramrob.domain import Ball, Point
from paramrob.engine import Settings
from paramrob.models.model import OutputInfo
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.verdict import Witness
from tests.bounds.graph.nets import dense_network, inputs


def problem(outputs: int, delta: str, point: int = 0) -> Problem:
    network = dense_network((4, 8, outputs), 3)
    info = OutputInfo("logits", None) if outputs > 1 else OutputInfo("logit")
    box = UncertainNetwork(network, Perturbation.uniform(network, Fraction(delta)))
    x = tuple(inputs(network, 5)[point].tolist())
    return Problem(network, box, Ball(x, Fraction("0.3")), info)


@pytest.mark.parametrize("name", [None, "float32"])
def test_epsilon_without_memory_is_open_and_of_the_arithmetic_asked(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: points.PointsPass, centres: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(points.PointsPass, "results", full)
    asked = problem(3, "0.01")
    if name is not None:
        x = Point(tuple(asked.domain.inner()[0].tolist()))
        asked = replace(asked, domain=x, arithmetic=arithmetic_from(name, name))
    found = engine.estimate(asked, "epsilon", Settings(timeout=10, method="crown"))
    assert found.verdict is None
    assert (found.brackets["epsilon"].lower, found.brackets["epsilon"].upper) == (0, float("inf"))
    assert found.semantics == asked.semantics
    assert "--memory" in (found.reason or "")


@pytest.mark.parametrize("outputs", [1, 3])
def test_sigma_is_open_where_replay_tells_no_margin(
    outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = problem(outputs, "0.2")
    settings = Settings(timeout=10, method="crown")
    known = engine.estimate(asked, "sigma", settings)
    assert max(b.upper for b in known.brackets.values()) > 0
    told = paramrob.replay.replay

    def silent(*given: Any) -> Witness:
        return replace(told(*given), margin=None)

    monkeypatch.setattr(paramrob.replay, "replay", silent)
    found = engine.estimate(asked, "sigma", settings)
    assert set(found.brackets) == set(known.brackets)
    assert all((b.lower, b.upper) == (0, float("inf")) for b in found.brackets.values())
    assert found.reason

"""The bound engine alone: what it leaves open goes to no other solver."""

from __future__ import annotations

import pytest

from paramrob import engine


@pytest.fixture(autouse=True)
def _bounds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_second_solver", lambda *_: None)

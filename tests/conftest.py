"""After every test the processor rounds to nearest: codac must never be imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def rounds_to_nearest() -> Iterator[None]:
    yield
    tiny = float.fromhex("0x1p-60")
    # Upward, the first would grow; downward or towards 0, the second would shrink.
    assert 1.0 + tiny == 1.0
    assert 1.0 - tiny == 1.0
    assert -1.0 - tiny == -1.0
    assert "codac" not in sys.modules

"""Wall time of the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Engine wall time: what is left of a budget, as seen from now."""

    budget: float
    started: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds, below 0 where there is nothing left."""
        return self.budget - (time.perf_counter() - self.started)

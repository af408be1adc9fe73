"""A live line with the current bracket or the points done, for anything over a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.status import Status

from paramrob.decimals import bracket_texts
from paramrob.several import Tally

_PATIENCE = 1.0
_INTERVAL = 0.1


class ProgressLine:
    """The engine's progress callback; shows nothing where ``console`` is no terminal.

    Args:
        console: where the line goes (standard error, so that reports stay clean).
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last = -_INTERVAL
        self._status: Status | None = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, name: str, lower: float, upper: float) -> None:
        """Show the current bracket of a quantity."""
        self._show(lambda elapsed: progress_text(name, lower, upper, elapsed))

    def points(self, tally: Tally) -> None:
        """Show how far a set of points has come."""
        self._show(lambda elapsed: points_text(tally, elapsed))

    def _show(self, text: Callable[[float], str]) -> None:
        elapsed = time.monotonic() - self._started
        if not self._console.is_terminal or elapsed < _PATIENCE:
            return
        if elapsed - self._last < _INTERVAL:
            return
        self._last = elapsed
        line = text(elapsed)
        if self._status is None:
            self._status = self._console.status(line)
            self._status.start()
        else:
            self._status.update(line)


def points_text(tally: Tally, elapsed: float) -> str:
    """Return the line's text about points."""
    said = f"{tally.done} of {tally.total} points"
    if not tally.estimated:
        said += f": {tally.proved} proved, {tally.refuted} refuted, {tally.open} open"
    return f"{said}  {elapsed:.0f} s  (Ctrl-C keeps these)"


def progress_text(name: str, lower: float, upper: float, elapsed: float) -> str:
    """Return the line's text."""
    ends = " .. ".join(bracket_texts(lower, upper))
    return f"{name.replace('_', ' ')} {ends}  {elapsed:.0f} s  (Ctrl-C keeps this bracket)"

"""A live line with the current bracket, for anything that takes over a second."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

from paramrob.decimals import bracket_texts

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
        elapsed = time.monotonic() - self._started
        if not self._console.is_terminal or elapsed < _PATIENCE:
            return
        if elapsed - self._last < _INTERVAL:
            return
        self._last = elapsed
        line = progress_text(name, lower, upper, elapsed)
        if self._status is None:
            self._status = self._console.status(line)
            self._status.start()
        else:
            self._status.update(line)


def progress_text(name: str, lower: float, upper: float, elapsed: float) -> str:
    """Return the line's text."""
    ends = " .. ".join(bracket_texts(lower, upper))
    return f"{name.replace('_', ' ')} {ends}  {elapsed:.0f} s  (Ctrl-C keeps this bracket)"

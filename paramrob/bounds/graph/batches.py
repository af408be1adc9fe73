"""Many points in batches that shrink where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
_MESSAGES = ("can't allocate memory", "out of memory", "not enough memory")


class Shrinkable(Protocol):
    """A computation that can do with less memory."""

    @property
    def batch(self) -> int:
        """How many items go through at a time."""

    def shrink(self) -> bool:
        """Use less for one item; false where that is not possible."""


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out: numpy's, or torch's on CPU or CUDA."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error).lower() for m in _MESSAGES)


def in_batches(
    items: Sequence[T],
    how: Shrinkable,
    run: Callable[[Sequence[T]], list[R]],
    nothing: Callable[[], R],
    first: int | None = None,
) -> Iterator[list[R]]:
    """Yield the results of all items, in order, batch by batch.

    A batch that runs out of memory is tried again with half the items; a single item that does,
    with half the memory for its rows, as long as that is possible.

    Args:
        items: what is computed on.
        how: says how many go through at a time.
        run: computes one batch; one result an item.
        nothing: the result of an item that no memory suffices for.
        first: items of the first batch, doubled from batch to batch; all that fit by default.
    """
    start, limit = 0, first or how.batch
    while start < len(items):
        part = items[start : start + min(limit, how.batch)]
        found = _tried(run, part)
        if found is None:
            _release()
            if len(part) > 1:
                limit = len(part) // 2
                continue
            if how.shrink():
                continue
            found = [nothing()]
        elif first is not None:
            limit *= 2
        start += len(part)
        yield found


def _tried(run: Callable[[Sequence[T]], list[R]], part: Sequence[T]) -> list[R] | None:
    """Return the batch's results, or ``None`` where memory ran out.

    On return nothing holds the failed batch's tensors: the error and its frames are gone.
    """
    try:
        return run(part)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    return None


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from paramrob.errors import InputError


@contextmanager
def replacing(path: Path, what: str) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file beside ``path`` that takes its place if the block succeeds.

    Args:
        path: the file to write; an existing one is replaced, a link keeps pointing at it.
        what: is written, for messages (``the witness``).

    Raises:
        InputError: the file cannot be written, or is no regular file.
    """
    target = _target(path, what)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            yield file, temporary
        temporary.replace(target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written: {reason}; give another file") from None
    finally:
        _quietly(lambda: temporary.unlink(missing_ok=True))


def write_whole(path: str | os.PathLike[str], data: bytes, what: str) -> None:
    """Write a file, whole or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        data: its bytes.
        what: they are, for messages.

    Raises:
        InputError: the file cannot be written, or is no regular file.
    """
    with replacing(Path(path), what) as (file, _):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def discard(path: str | os.PathLike[str], what: str) -> bool:
    """Remove a file of an earlier run, so that it cannot pass for an answer of this one.

    Args:
        path: the file, which need not exist.
        what: it is, for messages.

    Returns:
        Whether there was one.

    Raises:
        InputError: it is no regular file, or cannot be removed.
    """
    try:
        _target(path, what).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be replaced: {reason}; give another file") from None
    return True


def _target(path: str | os.PathLike[str], what: str) -> Path:
    """Return the file behind a path and its links, which may not exist."""
    try:
        target = Path(os.path.realpath(path))
        is_odd = target.exists() and not stat.S_ISREG(target.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written: {reason}; give another file") from None
    if is_odd:
        raise InputError(f"{path} is no regular file; give another name for {what}")
    return target


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except (OSError, ValueError):
        return

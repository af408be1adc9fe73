"""Sizes of memory from text."""

from __future__ import annotations

import re

from paramrob.errors import InputError

LEAST = 16 << 20
"""Bytes below which no network worth the name goes through."""
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kKMGT]i?)?B?\Z", re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_memory(size: str | int, what: str = "--memory") -> int:
    """Return a size in bytes.

    Args:
        size: bytes, or text such as ``512MiB``, ``1.5GiB`` or ``2GB``; ``Ki``, ``Mi``, ``Gi`` and
            ``Ti`` count in 1024, ``k``, ``M``, ``G`` and ``T`` in 1000.
        what: the option, for messages.

    Raises:
        InputError: no such size, or one below ``LEAST``.
    """
    match = None if isinstance(size, bool) else _SIZE.match(str(size).strip())
    if match is None:
        raise InputError(f"{what}: {size!r} is no size; write e.g. 512MiB or 2GiB")
    number, unit = match.groups()
    base = 1024 if unit and unit.endswith("i") else 1000
    found = int(float(number) * base ** (_POWERS[unit[0].lower()] if unit else 0))
    if found < LEAST:
        raise InputError(
            f"{what} {size} is too little to compute in; give {LEAST >> 20}MiB or more"
        )
    return found

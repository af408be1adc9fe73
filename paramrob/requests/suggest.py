"""The nearest valid name, for error messages about an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """Return a clause such as ``did you mean 'delta'? (delta, relative)``."""
    names = sorted(valid)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.0)
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"did you mean {close[0]!r}? (valid: {shown})" if close else "none is valid here"

"""A page in a real browser: what its DOM holds once it is shown, and what it complains of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
_SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def shown(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the DOM of a page as the browser serialises it, and its console's lines."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            *_SWITCHES,
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--dump-dom",
            page.absolute().as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

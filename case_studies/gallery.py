"""The pictures of the case studies and of the README.

    python -m case_studies.gallery

draws the paper's Figures 6 to 8, proved instead of sampled, and takes a picture of a report in
chromium, where that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
PICTURES = FOLDER / "pictures"
REPORT = ("check", "case_studies/cats/model.pt", "--delta", "0.01")
MAPS = {
    "cats-0.005.png": ("cats/model.pt", "0.005"),
    "cats-0.01.png": ("cats/model.pt", "0.01"),
    "athletes-relu-0.005.png": ("athletes/relu.pt", "0.005"),
    "athletes-linear-0.005.png": ("athletes/linear.pt", "0.005"),
}
"""Picture, model and delta: Figure 6 (cats), 7 (ReLU) and 8 (linear) of the paper."""
COLOURS = 128
SIZE = (960, 1190)
"""Of the report's picture, in pixels: down to the parameters that moved."""


def browser() -> str | None:
    """Return chromium's command, ``None`` where it is missing."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def paramrob(*arguments: str) -> None:
    """Run a command as a user does.

    Raises:
        RuntimeError: it fails (a refuted check, exit code 1, does not).
    """
    command = [sys.executable, "-m", "paramrob", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"paramrob {' '.join(arguments)}: {done.stderr}")


def screenshot(page: Path, picture: Path, chromium: str) -> None:
    """Save what chromium shows of a page.

    Raises:
        RuntimeError: chromium makes no picture.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            f"--screenshot={picture}",
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not picture.exists():
        raise RuntimeError(f"chromium made no picture: {done.stderr}")


def report() -> None:
    """Take the picture of a refuted check."""
    chromium = browser()
    if chromium is None:
        print("report.png stays as it is: chromium is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        paramrob(*REPORT, "--html", str(page))
        screenshot(page, PICTURES / "report.png", chromium)
        shrink(PICTURES / "report.png")
    print("report.png")


def shrink(picture: Path) -> None:
    """Save a picture again with few colours: a quarter of the bytes, and the eye sees no change."""
    from PIL import Image

    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


def maps() -> None:
    """Draw where confidence moves and labels flip."""
    for name, (model, delta) in MAPS.items():
        picture = str(PICTURES / name)
        paramrob("heatmap", f"case_studies/{model}", "--delta", delta, "-o", picture)
        shrink(PICTURES / name)
        print(name)


def main() -> None:
    """Make all pictures."""
    PICTURES.mkdir(exist_ok=True)
    maps()
    report()


if __name__ == "__main__":
    main()

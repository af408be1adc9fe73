"""The release gate on the committed files: ``python -m case_studies.edge_gate.gate``.

Runs the commands of a pipeline one after the other and checks their exit codes: the int8 file is
certified, so is the one with 16-bit activations for every runtime that rounds one step off, the
one calibrated on raw pixels is refused with a counterexample, and the counterexample is replayed.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
POINTS = FOLDER.parent / "digits" / "test.npz"
SECONDS = "600"


@dataclass(frozen=True)
class Step:
    """One command of the gate: what it shows, its words, and the exit code that is expected."""

    shows: str
    words: tuple[str, ...]
    code: int


def shown(path: Path) -> str:
    """Return a path as one types it: from the current folder where it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def steps(output: Path) -> list[Step]:
    """Return the commands.

    Args:
        output: the folder that certificates, JUnit reports and the counterexample go to.
    """

    def compare(name: str, *more: str) -> tuple[str, ...]:
        files = tuple(shown(FOLDER / f"{stem}.onnx") for stem in ("float", name))
        junit, certificate = str(output / f"{name}.xml"), str(output / f"{name}.json")
        asked = ("--at", shown(POINTS), "--timeout", SECONDS, *more)
        return ("compare", *files, *asked, "--junit", junit, "--certificate", certificate)

    witness = str(output / "int8_raw.npz")
    return [
        Step("int8 decides as the float network does", compare("int8"), 0),
        Step(
            "int8 with 16-bit activations does, in every runtime that rounds one step off",
            compare("int8_act16", "--runtime-steps", "1"),
            0,
        ),
        Step("calibrated on raw pixels it does not", compare("int8_raw", "--witness", witness), 1),
        Step("the counterexample holds when executed again", ("replay", witness), 0),
    ]


def run(step: Step) -> bool:
    """Run a command, and return whether it ended as expected."""
    print(f"== {step.shows}\n$ {shlex.join(('paramrob', *step.words))}", flush=True)
    code = subprocess.run([sys.executable, "-m", "paramrob", *step.words], check=False).returncode
    said = "as expected" if code == step.code else f"expected {step.code}"
    print(f"exit code {code}, {said}\n", flush=True)
    return code == step.code


def main() -> None:
    """Run the gate, and exit with 1 where a command did not end as expected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("build/edge_gate"), help="where the files go"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    ended = [run(step) for step in steps(options.output)]
    sys.exit(0 if all(ended) else 1)


if __name__ == "__main__":
    main()

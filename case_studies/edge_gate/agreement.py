"""Certified agreement of the three files: ``python -m case_studies.edge_gate.agreement``.

At how many of the test points, or within a radius of them, does each quantized file provably give
the label that the float network gives at the point? Writes ``expected.json`` and prints the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import paramrob
from case_studies.edge_gate.gate import POINTS
from case_studies.edge_gate.quantize import SCHEMES
from paramrob import PointsOutcome, Verdict

FOLDER = Path(__file__).parent
RADII = ("0", "0.001", "0.01")
STEPS = (0, 1)


def agreement(name: str, radius: str, steps: int, seconds: float, count: int | None) -> Any:
    """Return how many points are proved, refuted and open, and which are refuted.

    Args:
        name: of the quantized file.
        radius: of the inputs around each point.
        steps: by how many steps of its grid each rounding may be off.
        seconds: for all points.
        count: only the first so many points; all by default.
    """
    outcome = paramrob.compare(
        FOLDER / "float.onnx",
        FOLDER / f"{name}.onnx",
        at=POINTS,
        limit=count,
        input_radius=None if radius == "0" else radius,
        runtime_steps=steps,
        timeout=seconds,
    )
    parts = outcome.points if isinstance(outcome, PointsOutcome) else (outcome,)
    verdicts = [part.verdict for part in parts]
    refuted = [i for i, v in enumerate(verdicts) if v is Verdict.NOT_ROBUST]
    shown = [parts[i].runtime for i in refuted]
    return {
        "radius": radius,
        "runtime_steps": steps,
        "proved": verdicts.count(Verdict.ROBUST),
        "refuted": len(refuted),
        "open": verdicts.count(Verdict.UNKNOWN),
        "refuted_points": refuted,
        "shown_by_onnxruntime": sum(run is not None and run.reproduced for run in shown),
        "seconds": round(outcome.engine_seconds, 1),
    }


def accuracy(name: str) -> float:
    """Return the share of the test points that a file labels correctly, in real numbers."""
    with np.load(POINTS) as archive:
        x, y = archive["x"].astype(np.float64), archive["y"]
    network = paramrob.load(FOLDER / f"{name}.onnx").network
    return round(float((network.evaluate(x).argmax(1) == y).mean()), 4)


def table(found: dict[str, Any]) -> str:
    """Return the figures as a table in Markdown: proved .. not refuted, of all points."""
    lines = [
        "| inputs | each rounding | " + " | ".join(f"`{name}`" for name in found) + " |",
        "| --- | --- |" + " --- |" * len(found),
    ]
    for row in zip(*(each["rows"] for each in found.values()), strict=True):
        radius, steps = row[0]["radius"], row[0]["runtime_steps"]
        at = "the points" if radius == "0" else f"within {radius} of them"
        off = f"up to {steps} step off" if steps else "exact"
        cells = [f"{r['proved']} .. {r['proved'] + r['open']}" for r in row]
        lines.append(f"| {at} | {off} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Ask every question, write the answers and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, help="only the first so many test points")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each question")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the file goes")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in SCHEMES:
        rows = []
        for radius in RADII:
            for steps in STEPS:
                row = agreement(name, radius, steps, options.seconds, options.points)
                print(name, " ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                rows.append(row)
        sha256 = paramrob.load(FOLDER / f"{name}.onnx").sha256
        found[name] = {"sha256": sha256, "accuracy": accuracy(name), "rows": rows}
    (options.output / "expected.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()

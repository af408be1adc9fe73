"""Certified accuracy of the three networks over delta: ``python -m case_studies.digits.certify``.

For each network and each delta, smallest first: at which test points does the label stay for every
parameter vector within delta of the trained one? Boxes are nested, so a point that was refuted
for a smaller delta is refuted for a larger one and is not asked about again. Writes
``results.json`` and ``certified.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import paramrob
from paramrob import Outcome, PointsOutcome, Verdict

FOLDER = Path(__file__).parent
KINDS = ("dense", "conv", "wide")
NAMES = {"dense": "64-100-100-10", "conv": "convolutional", "wide": "64-256-256-256-10"}
DELTAS = ("0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02")
COLOURS = {"dense": "#0072b2", "conv": "#d55e00", "wide": "#009e73"}


def asked(model: Any, x: Any, delta: str, seconds: float) -> list[Outcome]:
    """Return one outcome a point."""
    outcome = paramrob.check(model, delta=delta, at=x, timeout=seconds, solver="bounds")
    return list(outcome.points) if isinstance(outcome, PointsOutcome) else [outcome]


def certify(kind: str, deltas: tuple[str, ...], count: int | None, seconds: float) -> Any:
    """Return the results of one network.

    Args:
        kind: which.
        deltas: in rising order.
        count: how many of the test points; all by default.
        seconds: for each delta.
    """
    model = paramrob.load(FOLDER / f"{kind}.pt2")
    with np.load(FOLDER / "test.npz") as archive:
        x, y = archive["x"][:count].astype(np.float64), archive["y"][:count]
    right = model.network.evaluate(x).argmax(1) == y
    refuted = np.zeros(len(x), dtype=bool)
    rows = []
    for delta in deltas:
        left = np.flatnonzero(~refuted)
        outcomes = asked(model, x[left], delta, seconds) if len(left) else []
        proved = np.zeros(len(x), dtype=bool)
        proved[left] = [o.verdict is Verdict.ROBUST for o in outcomes]
        refuted[left] = [o.verdict is Verdict.NOT_ROBUST for o in outcomes]
        row = {
            "delta": delta,
            "proved": int(proved.sum()),
            "refuted": int(refuted.sum()),
            "open": int((~proved & ~refuted).sum()),
            "certified": round(float((right & proved).mean()), 4),
            "at_most": round(float((right & ~refuted).mean()), 4),
            "seconds": round(sum(o.engine_seconds for o in outcomes), 1),
        }
        rows.append(row)
        print(kind, " ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return {
        "sha256": model.sha256,
        "parameters": model.network.parameter_count,
        "points": len(x),
        "accuracy": round(float(right.mean()), 4),
        "deltas": rows,
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw certified accuracy (lines) and what no counterexample was found for (dashes)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 2.6), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for kind, found in results.items():
        deltas = [float(row["delta"]) for row in found["deltas"]]
        certified = [100 * row["certified"] for row in found["deltas"]]
        at_most = [100 * row["at_most"] for row in found["deltas"]]
        style: dict[str, Any] = {"color": COLOURS[kind], "linewidth": 1.2}
        axes.fill_between(deltas, certified, at_most, color=COLOURS[kind], alpha=0.12, linewidth=0)
        axes.plot(deltas, certified, marker="o", markersize=2.5, label=NAMES[kind], **style)
        axes.plot(deltas, at_most, linestyle="--", **style)
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlabel("delta, of every parameter", fontsize=8)
    axes.set_ylabel("correct, % of test points", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=7, loc="lower left", title="proved; dashed: not refuted", title_fontsize=7)
    figure.savefig(path)


def table(results: dict[str, Any]) -> str:
    """Return the results as a table in Markdown: certified and at most, in per cent."""
    heads = " | ".join(f"{NAMES[kind]}" for kind in results)
    lines = [f"| delta | {heads} |", "| --- |" + " --- |" * len(results)]
    rows = zip(*(found["deltas"] for found in results.values()), strict=True)
    for row in rows:
        cells = [f"{100 * r['certified']:.1f} .. {100 * r['at_most']:.1f}" for r in row]
        lines.append(f"| {row[0]['delta']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Certify, write the results and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", help=f"networks: {', '.join(KINDS)}")
    parser.add_argument("--points", type=int, help="only the first so many test points")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each delta")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where the files go")
    options = parser.parse_args()
    kinds = options.kinds or KINDS
    results = {k: certify(k, DELTAS, options.points, options.seconds) for k in kinds}
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.output / "certified.png")
    print(table(results))


if __name__ == "__main__":
    main()

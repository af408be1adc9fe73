"""The tables of the case studies' READMEs, from committed results.

    python -m case_studies.tables

rewrites what stands between the markers of ``case_studies/README.md`` (published against
proved) and ``case_studies/athletes/README.md`` (twenty seeds).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from case_studies.cats.table1 import NAMES, PUBLISHED, Row

FOLDER = Path(__file__).parent
ACCURACIES = {"relu": 0.772, "linear": 0.774}
"""What the paper reports for its two athletes networks."""
FALLING = (0.166, 0.0825)
"""Another row of Table 1: eps at a delta and at twice that delta."""
TESTED = 2171
"""Athletes in our test split; the paper's is not known."""
KIND_NAMES = {"relu": "ReLU", "linear": "linear"}
Cells = tuple[str, ...]


def read(*parts: str) -> Any:
    """Return a committed JSON file."""
    return json.loads(FOLDER.joinpath(*parts).read_text())


def published() -> list[Cells]:
    """Return study, figure, published, ours, judgement and why, for every published figure."""
    return [*_cats(), *_athletes_accuracy(), *_athletes_bounds(), _claim(), _falling()]


def _cats() -> list[Cells]:
    known = read("cats", "expected.json")
    rows = []
    for delta, figures in PUBLISHED.items():
        for name, figure in figures.items():
            entry = known[delta][name]
            row = Row(delta, name, figure, entry["value"], entry["value"])
            word, _, why = row.judgement.partition(": ")
            at = "Hwt {:g} g, Bwt {:g} kg".format(*(round(v, 3) for v in entry["at"]))
            reason = f"{why}: at {at} the change is larger" if why else "agrees to the last digit"
            rows.append(
                (
                    "cats",
                    f"{NAMES[name]}, delta {delta}",
                    f"{figure}",
                    f"{entry['value']:.7f}",
                    f"**{word}**",
                    reason,
                )
            )
    why = "the split is not given; 12 % of random splits of 22 % reach it"
    return [*rows, ("cats", "accuracy", "87.5 %", "78.5 % on all 144 rows", "not comparable", why)]


def _athletes_accuracy() -> list[Cells]:
    known = read("athletes", "seeds.json")["accuracy"]
    rows = []
    for kind, figure in ACCURACIES.items():
        said = known[kind]
        error = 2 * math.sqrt(figure * (1 - figure) / TESTED)
        close = abs(said["mean"] - figure) <= error
        ours = f"{said['mean']:.1%}, from {said['least']:.1%} to {said['most']:.1%}"
        apart = "within" if close else "outside"
        why = f"{apart} two standard errors ({error:.1%}) of a test split; twenty trainings"
        word = "**confirmed**" if close else "**refuted**"
        rows.append(("athletes", f"accuracy, {KIND_NAMES[kind]}", f"{figure:.1%}", ours, word, why))
    return [tuple(cell.replace("%", " %") for cell in row) for row in rows]


def _athletes_bounds() -> list[Cells]:
    known = read("athletes", "expected.json")
    why = "the paper prints its weights in a figure only; a retrained network is another network"
    rows: list[Cells] = []
    for kind, named in KIND_NAMES.items():
        for delta in ("0.005", "0.01"):
            for name, said in NAMES.items():
                value = known[kind][delta][name]["value"]
                figure = f"{said}, {named}, delta {delta}"
                rows.append(
                    ("athletes", figure, "of other weights", f"{value:.6f}", "not comparable", why)
                )
    return rows


def _claim() -> Cells:
    compared = read("athletes", "seeds.json")["comparisons"]
    counts = {
        word: sum(c["finding"] == word for c in compared)
        for word in ("ReLU is more robust", "linear is more robust", "no difference shown")
    }
    linear, undecided = counts["linear is more robust"], counts["no difference shown"]
    ours = f"linear in {linear} of {len(compared)} comparisons, undecided in {undecided}"
    holds = counts["ReLU is more robust"] == len(compared)
    word = "**confirmed**" if holds else "**refuted** as a rule"
    why = "twenty seeds of each, same data; the paper says it of its own pair, which is one draw"
    return ("athletes", "which is more robust", "ReLU", ours, word, why)


def _falling() -> Cells:
    figure = f"{FALLING[0]}, then {FALLING[1]}"
    why = "the smaller box lies in the larger one, so eps cannot fall"
    name = "eps of one network as delta doubles"
    return ("Table 1", name, figure, "never falls", "**refuted**", why)


def seeds() -> list[Cells]:
    """Return one row for each comparison of ReLU and linear."""
    rows = []
    for said in read("athletes", "seeds.json")["comparisons"]:
        spreads = [
            f"{said[kind]['mean']:.4f} ± {said[kind]['deviation']:.4f} "
            f"[{said[kind]['low']:.4f}, {said[kind]['high']:.4f}]"
            for kind in KIND_NAMES
        ]
        gap = said["difference"]
        difference = f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        quantity = {"epsilon": "eps"}.get(said["quantity"], said["quantity"])
        tests = [f"{said[name]:.1g}" for name in ("t_p", "wilcoxon_p")]
        count = f"{said['relu_smaller']} of 20"
        rows.append(
            (
                said["inputs"],
                said["delta"],
                quantity,
                *spreads,
                difference,
                count,
                *tests,
                said["finding"],
            )
        )
    return rows


TABLES: dict[str, tuple[Path, Sequence[str], Callable[[], list[Cells]]]] = {
    "published": (
        FOLDER / "README.md",
        ("study", "figure", "published", "ours", "judgement", "why"),
        published,
    ),
    "seeds": (
        FOLDER / "athletes" / "README.md",
        (
            "inputs",
            "delta",
            "quantity",
            "ReLU",
            "linear",
            "ReLU less linear",
            "ReLU smaller",
            "p, t",
            "p, Wilcoxon",
            "finding",
        ),
        seeds,
    ),
}


def markdown(headings: Sequence[str], rows: Sequence[Cells]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_table(text: str, name: str, table: str) -> str:
    """Return a README with one table replaced, between its markers."""
    begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{table}\n{end}{after}"


def main() -> None:
    """Rewrite the tables."""
    for name, (path, headings, rows) in TABLES.items():
        text = with_table(path.read_text(), name, markdown(headings, rows()))
        path.write_text(text)
        print(f"{path.parent.name}/{path.name}: table {name}")


if __name__ == "__main__":
    main()

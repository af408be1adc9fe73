"""Prints the row of the paper's Table 1 for cats beside what paramrob proves.

    python case_studies/cats/table1.py

Exit code 1: a bracket is not as narrow as asked, or disagrees with ``expected.json``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
TOLERANCE = 1e-6
PUBLISHED = {
    "0.005": {"epsilon": 0.00691, "sigma_above": 0.024, "sigma_below": 0.021},
    "0.01": {"epsilon": 0.05054, "sigma_above": 0.052, "sigma_below": 0.04},
}
"""Table 1 of arXiv 1903.10672; its sigmas are printed to two or three places."""
ROUNDING = {"epsilon": 5e-6, "sigma_above": 5e-4, "sigma_below": 5e-4}
NAMES = {"epsilon": "eps", "sigma_above": "sigma, male", "sigma_below": "sigma, female"}


@dataclass(frozen=True)
class Row:
    """One published figure and what is proved about it."""

    delta: str
    name: str
    published: float
    lower: float
    upper: float

    @property
    def judgement(self) -> str:
        """Whether the figure, which claims to be the supremum, can be true as printed."""
        half = ROUNDING[self.name]
        if self.published + half < self.lower:
            return "refuted: too small"
        return "refuted: too large" if self.published - half > self.upper else "confirmed"

    @property
    def sound(self) -> bool:
        """Whether the bracket is closed and holds the value found without paramrob."""
        known = json.loads((FOLDER / "expected.json").read_text())[self.delta][self.name]["value"]
        closed = self.upper - self.lower <= TOLERANCE * 1.001
        return bool(closed and self.lower - 1e-11 <= known <= self.upper + 1e-11)


def rows() -> list[Row]:
    """Return Table 1's row with the brackets that paramrob proves."""
    import paramrob

    model = paramrob.load(FOLDER / "model.pt")
    found = []
    for delta, published in PUBLISHED.items():
        brackets = dict(paramrob.estimate(model, "epsilon", delta=delta).brackets)
        brackets |= paramrob.estimate(model, "sigma", delta=delta).brackets
        for name, figure in published.items():
            bracket = brackets[name]
            found.append(Row(delta, name, figure, bracket.lower, bracket.upper))
    return found


def main() -> None:
    """Print the table."""
    print(f"{'delta':<6} {'quantity':<14} {'paper':<8} {'proved':<24} figure")
    for row in rows():
        proved = f"[{row.lower:.7f}, {row.upper:.7f}]"
        print(
            f"{row.delta:<6} {NAMES[row.name]:<14} {row.published:<8} {proved:<24} {row.judgement}"
        )
        if not row.sound:
            sys.exit("this bracket is open or disagrees with expected.json")


if __name__ == "__main__":
    main()

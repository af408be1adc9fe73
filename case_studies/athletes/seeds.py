"""ReLU against linear hidden units over twenty seeds: eps and sigma proved, means compared.

    python -m case_studies.athletes.seeds

reads ``networks.json`` (no data needed), proves both quantities of all forty networks at two
deltas, on raw and on standardised inputs, and writes ``seeds.json``: every bracket, and the
comparison.

- raw: the scaler is folded into the first layer, inputs are metres and kilograms, and delta moves
  the folded weights.
- scaled: the scaler stays outside and does not move; inputs are the same athletes, standardised,
  and delta moves the weights as they were trained.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from case_studies.athletes.networks import KINDS, Scaler, Trained, module, raw, read
from case_studies.athletes.seed_statistics import comparison

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "seeds.json"
DELTAS = ("0.005", "0.01")
INPUTS = ("raw", "scaled")
QUANTITIES = ("epsilon", "sigma")
LOWER, UPPER = (Fraction("1.21"), Fraction(31)), (Fraction("2.18"), Fraction(170))
TOLERANCE = 1e-6


def domain(inputs: str, scaler: Scaler) -> Any:
    """Return the box of the athletes, in raw or in standardised units, exactly."""
    from paramrob import Box

    if inputs == "raw":
        return Box(LOWER, UPPER)
    ends = (
        tuple(
            (value - Fraction(mean)) / Fraction(scale)
            for value, mean, scale in zip(end, scaler.mean, scaler.scale, strict=True)
        )
        for end in (LOWER, UPPER)
    )
    return Box(*ends)


def brackets(network: Trained, scaler: Scaler, inputs: str, delta: str) -> dict[str, list[float]]:
    """Return the proved brackets of one network; sigma is the larger of its two sides."""
    import paramrob

    model = module(raw(network, scaler) if inputs == "raw" else network)
    box = domain(inputs, scaler)
    found: dict[str, list[float]] = {}
    for quantity in ("epsilon", "sigma"):
        outcome = paramrob.estimate(
            model, quantity, delta=delta, domain=box, output="probability", tolerance=TOLERANCE
        )
        for name, bracket in outcome.brackets.items():
            found[name] = [bracket.lower, bracket.upper]
    sides = (found["sigma_above"], found["sigma_below"])
    found["sigma"] = [max(side[i] for side in sides) for i in (0, 1)]
    return found


def prove() -> list[dict[str, Any]]:
    """Return one entry for each network, kind of inputs and delta."""
    scaler, networks = read()
    return [
        {
            "kind": network.kind,
            "seed": network.seed,
            "inputs": inputs,
            "delta": delta,
            **brackets(network, scaler, inputs, delta),
        }
        for inputs in INPUTS
        for delta in DELTAS
        for network in networks
    ]


def values(
    entries: list[dict[str, Any]], kind: str, inputs: str, delta: str, quantity: str
) -> list[float]:
    """Return the proved upper ends of one kind by seed."""
    wanted = (kind, inputs, delta)
    chosen = [e for e in entries if (e["kind"], e["inputs"], e["delta"]) == wanted]
    return [e[quantity][1] for e in sorted(chosen, key=lambda e: int(e["seed"]))]


def comparisons(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the statistics of ReLU against linear, one for each question."""
    return [
        {"inputs": inputs, "delta": delta, "quantity": quantity}
        | comparison(*(values(entries, kind, inputs, delta, quantity) for kind in KINDS))
        for inputs in INPUTS
        for delta in DELTAS
        for quantity in QUANTITIES
    ]


def accuracies() -> dict[str, dict[str, Any]]:
    """Return mean, standard deviation and range of the accuracies in testing."""
    from case_studies.athletes.seed_statistics import spread

    _, networks = read()
    tests = {k: [n.accuracy[1] for n in networks if n.kind == k] for k in KINDS}
    return {k: spread(v) | {"least": min(v), "most": max(v)} for k, v in tests.items()}


def main() -> None:
    """Prove, compare, print and write."""
    entries = prove()
    compared = comparisons(entries)
    lines = ",\n  ".join(json.dumps(entry) for entry in entries)
    means = ",\n  ".join(json.dumps(entry) for entry in compared)
    accuracy = json.dumps(accuracies())
    RESULTS.write_text(
        f'{{"tolerance": {TOLERANCE},\n "accuracy": {accuracy},\n "comparisons": [\n  {means}\n ],'
        f'\n "networks": [\n  {lines}\n ]}}\n'
    )
    for said in compared:
        print(
            f"{said['inputs']:<6} {said['delta']:<6} {said['quantity']:<8} "
            f"relu {said['relu']['mean']:.4f} ({said['relu']['deviation']:.4f})  "
            f"linear {said['linear']['mean']:.4f} ({said['linear']['deviation']:.4f})  "
            f"difference {said['difference']['mean']:+.4f} "
            f"[{said['difference']['low']:+.4f}, {said['difference']['high']:+.4f}]  "
            f"t p={said['t_p']:.2g}  Wilcoxon p={said['wilcoxon_p']:.2g}  {said['finding']}"
        )


if __name__ == "__main__":
    main()

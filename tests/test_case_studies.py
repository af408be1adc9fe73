"""The case studies: committed files, reference values found without paramrob, and its answers."""

from __future__ import annotations

import csv
import json
import math
import textwrap
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paramrob
from case_studies.athletes import reference
from case_studies.athletes.train import data, split, train
from case_studies.cats import closed_form, make_model, table1
from case_studies.closed_form import search

CASES = Path(__file__).parent.parent / "case_studies"
CATS = CASES / "cats"
ATHLETES = CASES / "athletes"
SIGMAS = ("sigma_above", "sigma_below")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def cats_confidence(hwt: float, bwt: float, shift: float = 0.0) -> float:
    c0, c1, c2 = (c + shift for c in (make_model.INTERCEPT, make_model.HWT, make_model.BWT))
    return 1 / (1 + math.exp(-(c0 + c1 * hwt + c2 * bwt)))


def test_the_cats_file_holds_the_papers_parameters() -> None:
    network = paramrob.load(CATS / "model.pt").network
    values = {name: p.value.ravel().tolist() for name, p in network.parameters.items()}
    assert values == {"0.weight": [0.07577862, 1.18118408], "0.bias": [-3.51518067]}
    made = make_model.model().state_dict()
    assert made["0.weight"].tolist() == [[0.07577862, 1.18118408]]
    assert made["0.bias"].tolist() == [-3.51518067]


def test_the_cats_accuracy_fits_the_papers() -> None:
    right, rows = make_model.correct()
    assert (right, rows) == (113, 144)
    exactly, at_least = make_model.chance_of_split(right, rows, 32, 28)
    assert 0.07 < exactly < at_least < 0.13
    assert sum(make_model.chance_of_split(3, 5, 2, k)[0] for k in range(3)) == pytest.approx(1)


def test_the_cats_box_is_the_range_of_the_data() -> None:
    with (CATS / "cats.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    box = tomllib.loads((CATS / "model.toml").read_text())["input"]
    for i, name in enumerate(box["names"]):
        values = [float(row[name]) for row in rows]
        assert (min(values), max(values)) == (box["lower"][i], box["upper"][i])
    assert tuple(Fraction(repr(v)) for v in box["lower"]) == closed_form.LOWER
    assert tuple(Fraction(repr(v)) for v in box["upper"]) == closed_form.UPPER


def test_the_closed_form_of_cats_is_what_the_file_says() -> None:
    assert read_json(CATS / "expected.json") == closed_form.expected()


@pytest.mark.parametrize(
    ("delta", "values"),
    [("0.005", (0.0285255, 0.0243551, 0.0213440)), ("0.01", (0.0575258, 0.0522627, 0.0401376))],
)
def test_the_closed_form_of_cats_is_tight(delta: str, values: tuple[float, ...]) -> None:
    exact = Fraction(delta)
    found = [
        closed_form.epsilon(exact),
        closed_form.sigma(exact, above=True),
        closed_form.sigma(exact, above=False),
    ]
    for supremum, value in zip(found, values, strict=True):
        assert supremum.lower <= supremum.upper <= supremum.lower + 2e-12
        assert supremum.upper == pytest.approx(value, abs=6e-8)


def test_the_closed_form_of_cats_bounds_random_changes() -> None:
    rng = np.random.default_rng(0)
    lower, upper = (
        np.array([float(v) for v in end]) for end in (closed_form.LOWER, closed_form.UPPER)
    )
    x = np.hstack([rng.uniform(lower, upper, (20000, 2)), np.ones((20000, 1))])
    p0 = np.array([make_model.HWT, make_model.BWT, make_model.INTERCEPT])
    p = p0 + 0.01 * np.sign(rng.uniform(-1, 1, (20000, 3)))
    f0, fp = (1 / (1 + np.exp(-(x * q).sum(axis=1))) for q in (p0, p))
    assert np.abs(fp - f0).max() <= closed_form.epsilon(Fraction("0.01")).upper
    for above in (True, False):
        flips = (f0 > 0.5) & (fp <= 0.5) if above else (f0 <= 0.5) & (fp > 0.5)
        assert np.abs(f0[flips] - 0.5).max() <= closed_form.sigma(Fraction("0.01"), above).upper


def test_the_published_epsilons_are_below_an_attained_change() -> None:
    for delta, published in table1.PUBLISHED.items():
        hwt, bwt = read_json(CATS / "expected.json")[delta]["epsilon"]["at"]
        change = cats_confidence(hwt, bwt) - cats_confidence(hwt, bwt, -float(delta))
        rise = cats_confidence(hwt, bwt, float(delta)) - cats_confidence(hwt, bwt)
        assert max(change, rise) > published["epsilon"] + 0.006


@pytest.mark.parametrize("delta", ["0.005", "0.01"])
def test_cats_is_bracketed(delta: str) -> None:
    known = read_json(CATS / "expected.json")[delta]
    path = str(CATS / "model.pt")
    brackets = dict(paramrob.estimate(path, "epsilon", delta=delta).brackets)
    brackets |= paramrob.estimate(path, "sigma", delta=delta).brackets
    for name, entry in known.items():
        assert brackets[name].lower - 1e-11 <= entry["value"] <= brackets[name].upper + 1e-11
        assert brackets[name].width <= 1.001e-6


def test_table_1_is_judged_figure_by_figure() -> None:
    rows = table1.rows()
    assert all(row.sound for row in rows)
    judged = {(row.delta, row.name): row.judgement for row in rows}
    for delta in ("0.005", "0.01"):
        assert judged[delta, "epsilon"] == "refuted: too small"
        assert all(judged[delta, name] == "confirmed" for name in SIGMAS)


def test_the_readme_of_cats_shows_the_reference_values() -> None:
    text = (CATS / "README.md").read_text()
    for entries in read_json(CATS / "expected.json").values():
        for entry in entries.values():
            assert f"{entry['value']:.7f}" in text


def test_the_snippet_in_the_readme_of_cats_prints_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = (CATS / "README.md").read_text().split("\n\n")
    code = next(i for i, block in enumerate(blocks) if "from math import" in block)
    exec(textwrap.dedent(blocks[code]), {})
    printed = [[float(v) for v in line.split()] for line in capsys.readouterr().out.splitlines()]
    said = [[float(v) for v in line.split()] for line in blocks[code + 2].splitlines()]
    assert printed == [pytest.approx(line, rel=1e-12) for line in said]


def test_the_readme_of_athletes_shows_the_reference_values() -> None:
    text = (ATHLETES / "README.md").read_text()
    for kind, deltas in read_json(ATHLETES / "expected.json").items():
        for delta, entry in deltas.items():
            row = next(
                line for line in text.splitlines() if line.startswith(f"| {kind} | {delta} |")
            )
            assert all(f"{found['value']:.6f}" in row for found in entry.values())


@pytest.mark.parametrize("kind", reference.KINDS)
def test_the_athletes_networks_are_not_degenerate(kind: str) -> None:
    net = reference.network(kind)
    x = np.random.default_rng(0).uniform(reference.LOWER, reference.UPPER, (20000, 2))
    confidence = net.change(x, 0.0)
    assert np.allclose(confidence, 0.0)
    assert 0.1 < (net.logit(x) > 0).mean() < 0.9
    active = (x @ net.weight.T + net.bias > 0).mean(axis=0)
    assert ((active > 0.02) & (active < 0.98)).all()


@pytest.mark.parametrize("kind", reference.KINDS)
def test_the_athletes_files_read_as_torch_reads_them(kind: str) -> None:
    model = paramrob.load(ATHLETES / f"{kind}.pt")
    x = np.random.default_rng(1).uniform(reference.LOWER, reference.UPPER, (100, 2))
    logit = reference.network(kind).logit(x)
    assert np.allclose(model.network.evaluate(x)[:, 0], 1 / (1 + np.exp(-logit)), atol=1e-12)
    assert model.inputs.names == ("height", "weight")
    assert model.inputs.lower == (Fraction("1.21"), Fraction(31))
    assert model.inputs.upper == (Fraction("2.18"), Fraction(170))


@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("delta", reference.DELTAS)
def test_athletes_agree_with_the_dense_search(kind: str, delta: str) -> None:
    known = read_json(ATHLETES / "expected.json")[kind][delta]
    path = str(ATHLETES / f"{kind}.pt")
    brackets = dict(paramrob.estimate(path, "epsilon", delta=delta).brackets)
    brackets |= paramrob.estimate(path, "sigma", delta=delta).brackets
    for name, entry in known.items():
        # The search attains its value up to its rounding to nine places.
        assert entry["value"] <= brackets[name].upper + 1e-9
        assert entry["value"] >= brackets[name].lower - 2e-8
        assert brackets[name].width <= 1.001e-6


def test_the_dense_search_is_what_the_file_says() -> None:
    known = read_json(ATHLETES / "expected.json")
    for kind in reference.KINDS:
        found = reference.expected(kind, 0.005)
        for name, entry in found.items():
            assert entry["value"] == pytest.approx(known[kind]["0.005"][name]["value"], abs=2e-9)


def test_the_dense_search_finds_a_constrained_maximum() -> None:
    def measure(x: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        inside = x[:, 0] ** 2 + x[:, 1] ** 2 <= 1
        return np.where(inside, x[:, 0] + 0.01 * x[:, 1], -np.inf)

    value, at = search(measure, np.array([-2.0, -2.0]), np.array([2.0, 2.0]))
    assert value == pytest.approx(math.hypot(1, 0.01), abs=1e-12)
    assert at[0] ** 2 + at[1] ** 2 <= 1


def test_training_folds_the_scaler_into_raw_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    male = rng.random(300) < 0.5
    height = rng.normal(1.68 + 0.12 * male, 0.07)
    weight = rng.normal(62 + 18 * male, 8)
    file = tmp_path / "athletes.csv"
    lines = [
        f"{'male' if m else 'female'},{h:.2f},{w:.0f}"
        for m, h, w in zip(male, height, weight, strict=True)
    ]
    file.write_text("\n".join(["sex,height,weight", *lines, "male,,80", "female,1.7,"]) + "\n")
    x, y = data(file)
    seen, unseen = split(len(x))
    assert len(x) == 300
    assert sorted([*seen.tolist(), *unseen.tolist()]) == list(range(300))
    right = (train("linear", x[seen], y[seen])(x) > 0.5) == (y > 0.5)
    assert right.double().mean().item() > 0.8

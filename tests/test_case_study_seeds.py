"""The seed study: networks, brackets and statistics, checked without trusting their script."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paramrob
from case_studies import tables
from case_studies.athletes import networks, seed_statistics, seeds
from case_studies.closed_form import OneHidden, search

ATHLETES = Path(seeds.__file__).parent
STUDY: dict[str, Any] = json.loads(seeds.RESULTS.read_text())
ENTRIES: list[dict[str, Any]] = STUDY["networks"]
SCALER, NETWORKS = networks.read()
T_975_19 = 2.093024
"""The 97.5 % point of Student's t with 19 degrees of freedom, from a printed table."""


def entry(kind: str, seed: int, inputs: str, delta: str) -> dict[str, Any]:
    wanted = (kind, seed, inputs, delta)
    (found,) = [e for e in ENTRIES if (e["kind"], e["seed"], e["inputs"], e["delta"]) == wanted]
    return found


def trained(kind: str, seed: int) -> networks.Trained:
    return next(n for n in NETWORKS if (n.kind, n.seed) == (kind, seed))


def closed_form(network: networks.Trained) -> OneHidden:
    return OneHidden(
        np.array(network.weight),
        np.array(network.bias),
        np.array(network.out_weight),
        network.out_bias,
        relu=network.kind == "relu",
    )


def test_every_network_box_and_quantity_is_there_and_closed() -> None:
    found = [(e["inputs"], e["delta"], e["kind"], e["seed"]) for e in ENTRIES]
    assert sorted(found) == sorted(product(seeds.INPUTS, seeds.DELTAS, networks.KINDS, range(20)))
    for e in ENTRIES:
        for name in ("epsilon", "sigma_above", "sigma_below", "sigma"):
            low, high = e[name]
            assert 0 <= low <= high <= low + 1.001e-6
        assert e["sigma"][1] == max(e["sigma_above"][1], e["sigma_below"][1])
        assert e["sigma"][1] <= 0.5
        larger = entry(e["kind"], e["seed"], e["inputs"], "0.01")
        assert larger["epsilon"][1] >= e["epsilon"][0]
        assert larger["sigma"][1] >= e["sigma"][0]


def test_folding_the_scaler_keeps_the_function() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform([1.21, 31.0], [2.18, 170.0], (500, 2))
    z = (x - np.array(SCALER.mean)) / np.array(SCALER.scale)
    for network in NETWORKS:
        folded = closed_form(networks.raw(network, SCALER))
        assert folded.logit(x) == pytest.approx(closed_form(network).logit(z), abs=1e-9)


def test_seed_0_is_the_network_of_the_file() -> None:
    for kind in networks.KINDS:
        model = paramrob.load(ATHLETES / f"{kind}.pt").network
        folded = networks.raw(trained(kind, 0), SCALER)
        values = [p.value.ravel() for p in model.parameters.values()]
        mine = [np.ravel(v) for v in (folded.weight, folded.bias, folded.out_weight)]
        for a, b in zip(values, [*mine, [folded.out_bias]], strict=True):
            assert a == pytest.approx(np.array(b), rel=1e-9)


def test_the_scaled_box_is_the_raw_one() -> None:
    box = seeds.domain("scaled", SCALER)
    for ends, given in ((box.lower, seeds.LOWER), (box.upper, seeds.UPPER)):
        for z, x, mean, scale in zip(ends, given, SCALER.mean, SCALER.scale, strict=True):
            assert z * Fraction(scale) + Fraction(mean) == x


def test_all_linear_networks_are_one_function() -> None:
    z = np.random.default_rng(0).uniform(-4, 8, (500, 2))
    logits = [closed_form(n).logit(z) for n in NETWORKS if n.kind == "linear"]
    confidence = 1 / (1 + np.exp(-np.array(logits)))
    assert np.ptp(confidence, axis=0).max() < 1e-13


@pytest.mark.parametrize(
    ("kind", "seed", "inputs", "delta"),
    [("relu", 3, "raw", "0.005"), ("linear", 11, "scaled", "0.01"), ("relu", 17, "scaled", "0.01")],
)
def test_proved_again_and_found_by_dense_search(
    kind: str, seed: int, inputs: str, delta: str
) -> None:
    known = entry(kind, seed, inputs, delta)
    network = trained(kind, seed)
    again = seeds.brackets(network, SCALER, inputs, delta)
    net = closed_form(networks.raw(network, SCALER) if inputs == "raw" else network)
    box = seeds.domain(inputs, SCALER)
    low, high = (np.array([float(v) for v in end]) for end in (box.lower, box.upper))
    d = float(delta)
    searched = {
        "epsilon": search(lambda x: net.change(x, d), low, high)[0],
        "sigma_above": search(lambda x: net.flip_distance(x, d, True), low, high)[0],
        "sigma_below": search(lambda x: net.flip_distance(x, d, False), low, high)[0],
    }
    for name, value in searched.items():
        assert again[name][0] - 2e-8 <= value <= again[name][1] + 1e-9
        assert again[name] == pytest.approx(known[name], abs=2e-6)


def test_the_statistics_are_what_the_textbook_says() -> None:
    relu, linear = (
        np.array(seeds.values(ENTRIES, kind, "raw", "0.005", "epsilon")) for kind in networks.KINDS
    )
    said = seed_statistics.comparison(relu.tolist(), linear.tolist())
    gap = relu - linear
    reach = T_975_19 * gap.std(ddof=1) / math.sqrt(20)
    assert said["difference"]["mean"] == pytest.approx(gap.mean())
    assert said["difference"]["low"] == pytest.approx(gap.mean() - reach, rel=1e-5)
    assert said["difference"]["high"] == pytest.approx(gap.mean() + reach, rel=1e-5)
    assert said["relu"]["deviation"] == pytest.approx(relu.std(ddof=1))
    assert said["relu_smaller"] == (gap < 0).sum()
    assert said["wilcoxon_p"] == pytest.approx(exact_wilcoxon(gap), rel=1e-9)
    # Student's t with 19 degrees of freedom, integrated numerically.
    t = abs(gap.mean()) / (gap.std(ddof=1) / math.sqrt(20))
    u = np.linspace(t, t + 400, 2_000_001)
    density = math.gamma(10) / (math.sqrt(19 * math.pi) * math.gamma(9.5)) * (1 + u**2 / 19) ** -10
    assert said["t_p"] == pytest.approx(2 * float(np.trapezoid(density, u)), rel=1e-4)


def exact_wilcoxon(gap: Any) -> float:
    """Return the exact two-sided p-value, by counting the rank sums of all sign patterns."""
    ranks = np.argsort(np.argsort(np.abs(gap))) + 1
    smaller = int(min(ranks[gap > 0].sum(), ranks[gap < 0].sum()))
    ways = np.zeros(sum(range(len(gap) + 1)) + 1)
    ways[0] = 1
    for rank in range(1, len(gap) + 1):
        ways[rank:] = ways[rank:] + ways[: len(ways) - rank]
    return float(2 * ways[: smaller + 1].sum() / 2 ** len(gap))


def test_a_finding_needs_both_tests_and_a_sign() -> None:
    base = [0.1 + 0.001 * i for i in range(20)]
    noise = [0.001 * (-1) ** i * (1 + i / 50) for i in range(20)]
    lower = [b - 0.05 + n for b, n in zip(base, noise, strict=True)]
    finding = seed_statistics.comparison
    assert finding(lower, base)["finding"] == "ReLU is more robust"
    assert finding(base, lower)["finding"] == "linear is more robust"
    near = [b + n for b, n in zip(base, noise, strict=True)]
    assert finding(near, base)["finding"] == "no difference shown"


def test_the_committed_comparisons_follow_from_the_committed_brackets() -> None:
    again = seeds.comparisons(ENTRIES)
    assert [c["finding"] for c in again] == [c["finding"] for c in STUDY["comparisons"]]
    for mine, known in zip(again, STUDY["comparisons"], strict=True):
        for name in ("relu", "linear", "difference"):
            assert mine[name] == pytest.approx(known[name], rel=1e-9)
        assert mine["t_p"] == pytest.approx(known["t_p"], rel=1e-6)
    accuracies = seeds.accuracies()
    for kind in networks.KINDS:
        assert accuracies[kind] == pytest.approx(STUDY["accuracy"][kind])


def test_the_tables_in_the_readmes_are_made_from_the_results() -> None:
    for name, (path, headings, rows) in tables.TABLES.items():
        text = path.read_text()
        assert tables.with_table(text, name, tables.markdown(headings, rows())) == text


def test_every_published_figure_is_judged() -> None:
    rows = tables.published()
    judged = {(study, figure): word for study, figure, _, _, word, _ in rows}
    assert len(judged) == len(rows) == 6 + 1 + 2 + 12 + 1 + 1
    for delta in ("0.005", "0.01"):
        assert judged["cats", f"eps, delta {delta}"] == "**refuted**"
        for side in ("male", "female"):
            assert judged["cats", f"sigma, {side}, delta {delta}"] == "**confirmed**"
    assert judged["athletes", "accuracy, ReLU"] == "**confirmed**"
    assert judged["athletes", "which is more robust"] == "**refuted** as a rule"
    assert judged["cats", "accuracy"] == "not comparable"


def test_training_with_one_seed_starts_both_kinds_from_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    from case_studies.athletes import train

    monkeypatch.setattr(train, "STEPS", 0)
    z = torch.zeros(4, 2, dtype=torch.float64)
    first = [train.train_scaled(kind, z, z[:, :1], 5) for kind in networks.KINDS]
    for a, b in zip(*(model.parameters() for model in first), strict=True):
        assert bool((a == b).all())
    first_weights = next(first[0].parameters())
    other = next(train.train_scaled("relu", z, z[:, :1], 6).parameters())
    assert not bool((other == first_weights).all())

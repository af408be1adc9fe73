"""The digits: committed networks read as torch runs them, and their verdicts beside samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import paramrob
from case_studies.digits import certify, train
from paramrob import PointsOutcome, Verdict
from paramrob.models.network import Array, BatchNorm

DIGITS = Path(__file__).parent.parent / "case_studies" / "digits"
EXPECTED = json.loads((DIGITS / "expected.json").read_text())
RESULTS = json.loads((DIGITS / "results.json").read_text())


def points() -> tuple[Array, Any]:
    with np.load(DIGITS / "test.npz") as archive:
        return archive["x"].astype(np.float64), archive["y"]


def module(kind: str) -> torch.nn.Module:
    """Return the network as torch reads it, in float64."""
    loaded = torch.export.load(DIGITS / f"{kind}.pt2").module()
    return loaded.double() if isinstance(loaded, torch.nn.Module) else pytest.fail("no module")


@pytest.mark.parametrize("kind", certify.KINDS)
def test_the_files_are_what_was_asked_for(kind: str) -> None:
    path = DIGITS / f"{kind}.pt2"
    assert path.stat().st_size < 2_000_000
    network = paramrob.load(path).network
    count = sum(p.value.size for p in network.parameters.values() if not p.fixed)
    made = train.MAKERS[kind]()
    assert count == sum(p.numel() for p in made.parameters()) == EXPECTED[kind]["parameters"]
    if kind == "conv":
        assert count >= 100_000
        assert sum(isinstance(node.op, BatchNorm) for node in network.nodes) == 3
        assert any(len(node.inputs) == 2 for node in network.nodes)


@pytest.mark.parametrize("kind", certify.KINDS)
def test_the_files_read_as_torch_runs_them(kind: str) -> None:
    x, y = points()
    network = paramrob.load(DIGITS / f"{kind}.pt2").network
    ours = network.evaluate(x)
    theirs = torch.cat([module(kind)(torch.from_numpy(row[None])) for row in x[:20]])
    assert np.allclose(ours[:20], theirs.numpy(), rtol=1e-9, atol=1e-9)
    assert float((ours.argmax(1) == y).mean()) == pytest.approx(EXPECTED[kind]["accuracy"])
    assert EXPECTED[kind]["accuracy"] >= 0.95


def test_the_test_points_are_those_of_the_split() -> None:
    pytest.importorskip("sklearn")
    x, y = points()
    every, classes = train.data()
    seen, unseen = train.split(len(every))
    assert np.array_equal(x, every[unseen])
    assert np.array_equal(y, classes[unseen])
    assert sorted([*seen, *unseen]) == list(range(1797))
    assert x.min() == 0
    assert x.max() == 1


def test_training_is_deterministic_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    x, y = train.data()
    few = (torch.from_numpy(x[:256]), torch.from_numpy(y[:256]))
    for kind in ("dense", "conv"):
        first, second = train.train(kind, *few), train.train(kind, *few)
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert not any(m._forward_hooks for m in first.modules())


def members(kind: str, delta: float, count: int) -> list[dict[str, Tensor]]:
    """Return parameter vectors within delta: vertices of the box, and members of its inside."""
    rng = torch.Generator().manual_seed(0)
    centre = {name: p.detach() for name, p in module(kind).named_parameters()}
    found = []
    for i in range(count):
        share = {
            name: torch.rand(p.shape, generator=rng, dtype=torch.float64) * 2 - 1
            for name, p in centre.items()
        }
        moved = {n: s.sign() if i % 2 else s for n, s in share.items()}
        found.append({name: p + delta * moved[name] for name, p in centre.items()})
    return found


@pytest.mark.parametrize("kind", certify.KINDS)
def test_verdicts_are_the_expected_ones_and_samples_agree(kind: str) -> None:
    expected = EXPECTED[kind]
    x, _y = points()
    chosen = x[expected["points"]]
    options: dict[str, Any] = {"delta": expected["delta"], "at": chosen, "timeout": 600}
    outcome = paramrob.check(DIGITS / f"{kind}.pt2", **options)
    assert isinstance(outcome, PointsOutcome)
    assert [o.verdict.value for o in outcome.points if o.verdict] == expected["verdicts"]
    model = module(kind)
    batch = torch.from_numpy(chosen)
    before = torch.cat([model(row[None]) for row in batch]).argmax(1)
    for moved in members(kind, 0.999 * float(expected["delta"]), 6):
        after = torch.cat([functional_call(model, moved, (row[None],)) for row in batch]).argmax(1)
        for part, a, b in zip(outcome.points, before, after, strict=True):
            assert part.verdict is not Verdict.ROBUST or a == b
    for part, row, a in zip(outcome.points, batch, before, strict=True):
        if part.witness is None:
            continue
        names = dict(model.named_parameters())
        moved = {
            n: torch.from_numpy(np.array(v)).reshape(names[n].shape)
            for n, v in part.witness.parameters.items()
            if n in names
        }
        assert set(moved) == set(names)
        assert max(float((moved[n] - p).abs().max()) for n, p in names.items()) <= float(
            expected["delta"]
        ) * (1 + 1e-9)
        assert functional_call(model, moved, (row[None],)).argmax(1).item() != a


def test_results_fit_the_files_and_fall_as_delta_grows() -> None:
    assert set(RESULTS) == set(certify.KINDS)
    for kind, found in RESULTS.items():
        model = paramrob.load(DIGITS / f"{kind}.pt2")
        assert found["sha256"] == model.sha256
        assert [row["delta"] for row in found["deltas"]] == list(certify.DELTAS)
        for row in found["deltas"]:
            assert row["proved"] + row["refuted"] + row["open"] == found["points"] == 360
            assert row["certified"] <= row["at_most"] <= found["accuracy"]
        at_most = [row["at_most"] for row in found["deltas"]]
        assert at_most == sorted(at_most, reverse=True)


def test_the_convolutional_network_is_certified_where_it_is_not_refuted() -> None:
    """At some delta over 80 % of the correct points are proved and under 5 % of all refuted."""
    found = RESULTS["conv"]
    assert any(
        row["certified"] >= 0.8 * found["accuracy"] and row["refuted"] < 0.05 * found["points"]
        for row in found["deltas"]
    )


def test_the_readme_shows_the_results() -> None:
    text = (DIGITS / "README.md").read_text()
    assert certify.table(RESULTS) in text


def test_a_small_run_of_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {"dense": certify.certify("dense", ("0.0001", "0.05"), 6, 600.0)}
    first, second = results["dense"]["deltas"]
    assert first["proved"] == 6
    assert second["refuted"] > 0
    certify.draw(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "| 0.0001 | 100.0 .. 100.0 |" in certify.table(results)
    assert "dense delta 0.0001" in capsys.readouterr().out

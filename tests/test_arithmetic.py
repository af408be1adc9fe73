"""Formats against numpy's and torch's own, and questions about floating-point execution."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import paramrob
from paramrob.arithmetic import STORED, Format, arithmetic_from
from paramrob.bounds.graph.certainty import sure_change, surely_refutes
from paramrob.cli import main
from paramrob.domain import Box, Point
from paramrob.engine import Settings, decide, estimate
from paramrob.errors import BackendError, InputError, SoundnessError
from paramrob.models.model import OutputInfo
from paramrob.perturbation import Perturbation
from paramrob.problem import Problem, UncertainNetwork
from paramrob.properties import Property, Quantity
from paramrob.replay import replay
from paramrob.verdict import Outcome, Verdict
from tests.bounds.graph.nets import dense_network
from tests.machine import machines, rounded
from tests.small_models import logistic

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FLOAT16 = STORED["float16"]
NUMBERS = st.one_of(
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 6e-5, 6.2e-5, 2.0**-14, 2.0**-24, 65504.0, 65519.0, 65520.0, 1e-45]),
)


@pytest.mark.parametrize("name", STORED)
def test_the_constants_are_torchs(name: str) -> None:
    found, known = STORED[name], torch.finfo(TORCH[name])
    assert found.largest == known.max
    assert found.smallest == known.tiny
    assert found.unit == known.eps / 2


@pytest.mark.parametrize("name", ["float32", "float16"])
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(value=NUMBERS)
def test_rounding_is_numpys(name: str, value: float) -> None:
    with np.errstate(over="ignore"):
        theirs = float(np.array(value).astype(name))
    ours = float(STORED[name].nearest(np.array(value)))
    assert ours == (theirs if np.isfinite(theirs) else value)
    assert float(rounded(np.array(value), name)) == theirs
    normal = theirs == 0 or STORED[name].smallest <= abs(theirs)
    assert bool(STORED[name].holds(np.array(value))) == (theirs == value and normal)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(value=st.floats(-(2.0**100), 2.0**100, width=32))
def test_rounding_to_bfloat16_is_torchs(value: float) -> None:
    theirs = torch.tensor(value, dtype=torch.float32).to(torch.bfloat16).item()
    assert float(STORED["bfloat16"].nearest(np.array(value))) == theirs
    assert float(rounded(np.array(value), "bfloat16")) == theirs


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(
    centre=st.floats(-100, 100),
    radius=st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
    share=st.floats(-1, 1),
    name=st.sampled_from(sorted(STORED)),
    flush=st.booleans(),
)
def test_stored_values_lie_in_the_widened_interval(
    centre: float, radius: float, share: float, name: str, flush: bool
) -> None:
    arithmetic = arithmetic_from(name)
    assert arithmetic is not None
    value = Fraction(centre) + Fraction(radius) * Fraction(share)
    kept = Fraction(float(rounded(np.array(float(value)), name, flush)))
    wide = arithmetic.stored_radius("w", np.array(centre), np.array(radius))
    assert abs(kept - Fraction(centre)) <= Fraction(float(wide))
    low, high = arithmetic.stored_box(np.array(centre - radius), np.array(centre + radius))
    inside = min(max(float(value), centre - radius), centre + radius)
    assert float(low) <= float(rounded(np.array(inside), name, flush)) <= float(high)
    exact = radius == 0 and float(kept) == centre and abs(centre) >= STORED[name].smallest
    assert not exact or float(wide) == 0


def test_gamma_is_highams() -> None:
    arithmetic = arithmetic_from("bfloat16", "bfloat16")
    assert arithmetic is not None
    exact = Fraction(100, 256) / (1 - Fraction(100, 256))
    assert exact <= Fraction(arithmetic.gamma(100, "0")) <= exact * Fraction(1000001, 1000000)
    with pytest.raises(BackendError, match=r"layer '0'.*choose a wider --accumulate"):
        arithmetic.gamma(256, "0")


@pytest.mark.parametrize(
    ("name", "accumulate", "said"),
    [
        ("float8", None, "choose real, float32"),
        ("float32", "int8", "to accumulate in"),
        ("float32", "float16", "choose float32"),
        ("bfloat16", "float16", "choose bfloat16"),
        ("float16", "bfloat16", "choose float16"),
        ("real", "float32", "--accumulate goes with"),
    ],
)
def test_senseless_choices_are_refused(name: str, accumulate: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        arithmetic_from(name, accumulate)


def problem(
    name: str,
    asked: Property | None,
    delta: str = "0.001",
    domain: Any = None,
    kind: Any = "logits",
    seed: int = 1,
) -> Problem:
    network = dense_network((6, 8, 3), seed)
    x = domain or Point((0.5, -0.25, 1.0, 0.75, -0.5, 0.125))
    box = Perturbation.uniform(network, Fraction(delta))
    said = OutputInfo(kind, None)
    uncertain = UncertainNetwork(network, box)
    return Problem(network, uncertain, x, said, asked, arithmetic_from(name))


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_epsilon_encloses_every_execution(name: str) -> None:
    from tests.bounds.graph.nets import members

    given_ = problem(name, None)
    outcome = estimate(given_, "epsilon", Settings(timeout=20))
    bracket = outcome.brackets["epsilon"]
    assert outcome.semantics == name
    assert not outcome.exact_encoding
    assert isinstance(given_.domain, Point)
    x = given_.domain.centre()

    def shares(z: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        e = np.exp(z - z.max())
        return e / e.sum()

    trained = shares(given_.reference.evaluate(x[None])[0])
    witnesses = [bracket.witness] if bracket.witness is not None else []
    drawn = [*members(given_.reference, 0.001, 16), *[dict(w.parameters) for w in witnesses]]
    stored = {n: p.value for n, p in given_.reference.parameters.items()}
    for machine, chosen in zip([*machines(name, "float32")] * 2, drawn, strict=False):
        deployed = shares(machine.run(given_.reference, x, stored | chosen))
        assert np.abs(deployed - trained).max() <= bracket.upper
    if bracket.witness is not None:
        for machine in machines(name, "float32"):
            deployed = shares(machine.run(given_.reference, x, dict(bracket.witness.parameters)))
            assert np.abs(deployed - trained).max() >= bracket.lower - 1e-12
    real = estimate(problem("real", None), "epsilon", Settings(timeout=20, method="alpha"))
    assert bracket.upper > real.brackets["epsilon"].upper
    assert bracket.lower <= real.brackets["epsilon"].lower + 1e-9


def test_verdicts_about_labels_and_their_witnesses() -> None:
    labels = Property("labels")
    proved = decide(problem("float32", labels), Settings(timeout=20))
    assert proved.verdict is Verdict.ROBUST
    asked = problem("float32", labels, "0.5")
    refuted = decide(asked, Settings(timeout=20))
    assert refuted.verdict is Verdict.NOT_ROBUST
    assert refuted.witness is not None
    assert surely_refutes(asked, refuted.witness)
    x, parameters = refuted.witness.input, dict(refuted.witness.parameters)
    for machine in machines("float32", "float32"):
        got = int(machine.run(asked.reference, x, parameters).argmax())
        assert got == refuted.witness.labels[1] != refuted.witness.labels[0]


def test_a_flip_that_rounding_may_undo_refutes_nothing() -> None:
    # The logit is 2**-30 above 0, far below what float16 keeps of the product.
    network = logistic([0.5], -0.25 + 2.0**-30)
    asked = Problem(
        network,
        UncertainNetwork(network, Perturbation.uniform(network, Fraction(1, 2**29))),
        Point((0.5,)),
        OutputInfo("probability", Fraction(1, 2)),
        Property("labels"),
    )
    from dataclasses import replace

    assert decide(asked, Settings(timeout=20)).verdict is Verdict.NOT_ROBUST
    outcome = decide(replace(asked, arithmetic=arithmetic_from("float16")), Settings(timeout=20))
    assert outcome.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_the_networks_own_sigmoid_is_rounded_too(name: str) -> None:
    network = logistic([1.0, -2.0], 0.5)
    arithmetic = arithmetic_from(name)
    assert arithmetic is not None
    uncertain = UncertainNetwork(network, Perturbation.uniform(network, Fraction(0)))
    level = Fraction(1, 2)
    for x in ((0.5, 0.25), (0.5, 0.49), (-0.5, 0.5), (1.0, 0.7490234375)):
        for asked in (Property("labels"), Property("confidence", epsilon=Fraction(1, 50))):
            about = Problem(
                network, uncertain, Point(x), OutputInfo("probability", level), asked, arithmetic
            )
            outcome = decide(about, Settings(timeout=10))
            trained = float(network.evaluate(np.array([x]))[0, 0])
            values = {n: p.value for n, p in network.parameters.items()}
            for machine in machines(name, "float32"):
                deployed = float(machine.run(network, np.array(x), values)[0])
                same = (deployed > 0.5) == (trained > 0.5)
                holds = same if asked.name == "labels" else abs(deployed - trained) <= 0.02
                assert outcome.verdict is not (Verdict.NOT_ROBUST if holds else Verdict.ROBUST)


def test_the_networks_own_softmax_is_rounded_too() -> None:
    linear = torch.nn.Linear(3, 3)
    layers = torch.nn.Sequential(linear, torch.nn.Softmax(dim=-1))
    with torch.no_grad():
        linear.weight.copy_(torch.eye(3))
        linear.bias.zero_()
    clear, near = [1.0, 0.0, -1.0], [1.0, 0.9375, 0.0]
    for x, verdict in ((clear, Verdict.ROBUST), (near, Verdict.UNKNOWN)):
        outcome = paramrob.check(layers, delta=0, at=[x], arithmetic="bfloat16", timeout=10)
        assert outcome.verdict is verdict
    # The logits themselves are exact here, so that a question about them is answered.
    logits = paramrob.check(
        linear, delta=0, at=[near], arithmetic="bfloat16", output="logits", timeout=10
    )
    assert logits.verdict is Verdict.ROBUST


def test_overflow_is_the_reason() -> None:
    asked = problem("float16", Property("labels"), domain=Point((6e4, 6e4, 6e4, 6e4, 6e4, -6e4)))
    outcome = decide(asked, Settings(timeout=10))
    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.reason is not None
    assert "overflow is not excluded" in outcome.reason
    bracket = estimate(asked, "epsilon", Settings(timeout=10)).brackets["epsilon"]
    assert bracket.upper >= 1


def test_boxes_beyond_the_format_stay_open() -> None:
    for property_ in (Property("labels"), Property("confidence", epsilon=Fraction(1, 2))):
        asked = problem("float16", property_, "100000")
        outcome = decide(asked, Settings(timeout=10))
        assert outcome.verdict is not Verdict.ROBUST
        if outcome.verdict is Verdict.UNKNOWN:
            assert outcome.reason is not None
            assert "overflow" in outcome.reason


def test_engines_that_know_real_numbers_only_refuse() -> None:
    labels = Property("labels")
    box = Box((Fraction(0),) * 6, (Fraction(1),) * 6)
    with pytest.raises(BackendError, match="ask about points"):
        decide(problem("float32", labels, domain=box))
    quantities: tuple[Quantity, ...] = ("epsilon", "sigma", "delta")
    for quantity in quantities:
        with pytest.raises(BackendError, match="ask about points"):
            estimate(problem("float32", labels, domain=box), quantity)
    with pytest.raises(BackendError, match="ask about points"):
        decide(problem("float32", labels), Settings(solver="z3"))
    with pytest.raises(BackendError, match="ask about points"):
        estimate(problem("float32", None), "epsilon", Settings(solver="z3"))


def test_the_largest_delta_is_of_the_arithmetic() -> None:
    found = {}
    for name in ("real", "float32", "float16"):
        asked = problem(name, Property("labels"))
        outcome = estimate(asked, "delta", Settings(timeout=20, tolerance=1e-3, method="crown"))
        assert outcome.semantics == name
        found[name] = outcome.brackets["delta"]
    assert 0 < found["float16"].lower < found["float32"].upper
    assert found["float32"].lower <= found["real"].upper
    assert found["float16"].lower <= found["real"].upper


def test_an_answer_about_another_arithmetic_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from paramrob.bounds import route

    monkeypatch.setattr(route, "decide", lambda *_: Outcome(Verdict.ROBUST))
    with pytest.raises(SoundnessError, match="answered for real"):
        decide(problem("float32", Property("labels")), Settings(timeout=5))


def test_sure_changes_are_below_the_exact_one() -> None:
    asked = problem("float16", None)
    assert isinstance(asked.domain, Point)
    moved = {n: FLOAT16.nearest(p.value + 0.00098) for n, p in asked.reference.parameters.items()}
    wide = problem("float16", None, "0.01")
    witness = replay(wide, asked.domain.centre(), moved)
    assert witness.change is not None
    assert sure_change(wide, witness) < witness.change.lower
    assert sure_change(problem("real", None, "0.01"), witness) <= witness.change.lower


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    torch.save(layers, tmp_path / "m.pt")
    return str(tmp_path / "m.pt")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_the_command_line_says_which_arithmetic(model: str, tmp_path: Path) -> None:
    at = ("--at", "0.5,0.25,-1,0.75", "--timeout", "20")
    code, text = run("check", model, "--delta", "1e-5", *at, "--arithmetic", "float32")
    assert code == 0
    assert "float32 semantics with sums in float32 (trained network: real numbers)" in " ".join(
        text.split()
    )
    assert "TF32" in text
    saved, report = tmp_path / "w.npz", tmp_path / "a.json"
    code, _ = run(
        "check", model, "--delta", "2", *at, "--arithmetic", "float16", "--accumulate", "float16",
        "--json", str(report), "--witness", str(saved),
    )  # fmt: skip
    assert code == 1
    said = json.loads(report.read_text())
    assert said["semantics"] == "float16"
    assert said["accumulate"] == "float16"
    assert said["reference_semantics"] == "real"
    assert any("rounded" in sentence for sentence in said["assumptions"])
    code, text = run("replay", str(saved))
    assert code == 0
    code, text = run("check", model, "--delta", "1e-5", *at)
    assert "real-number semantics" in text


def test_the_command_line_refuses_what_has_no_meaning(model: str) -> None:
    at = ("--at", "0.5,0.25,-1,0.75")
    code, text = run("check", model, "--delta", "1e-5", *at, "--accumulate", "float32")
    assert (code, "--accumulate goes with" in text) == (2, True)
    code, text = run("check", model, "--delta", "1e-5", "--arithmetic", "float32")
    assert (code, "--at" in text) == (2, True)
    code, text = run(
        "check", model, "--delta", "1", *at, "--arithmetic", "float32", "--solver", "z3"
    )
    assert (code, "real numbers only" in " ".join(text.split())) == (2, True)


def test_the_formats_are_as_described() -> None:
    assert Format("tiny", 3, 2).largest == 7.0
    assert Format("tiny", 3, 2).smallest == 0.5
    assert Format("tiny", 3, 2).holds(np.array([0.5, 0.625, 0.375, 7.0, 6.5, 8.0])).tolist() == [
        True, True, False, True, False, False,
    ]  # fmt: skip

"""The fewest bits: every width decided as it is alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import paramrob
from paramrob.bit_widths import FewestBits, Width, decide_widths
from paramrob.cli import main
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.quantize.apply import quantized
from paramrob.quantize.scheme import Scheme
from paramrob.report_bits import exit_code_of_bits
from paramrob.requests.build import Asked, build
from paramrob.verdict import Outcome, Verdict
from tests.small_models import logistic, named_model

CATS = Path(__file__).parent.parent / "case_studies" / "cats" / "model.pt"
ROBUST, NOT, OPEN = Verdict.ROBUST, Verdict.NOT_ROBUST, Verdict.UNKNOWN


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_every_width_is_decided_as_a_sample_says() -> None:
    """At one input the change of a rounded network is a number that numpy computes."""
    model = Model(logistic([0.3, -0.71, 0.11], 0.2), InputInfo(), OutputInfo("probability"))
    x = np.array([[0.9, -0.4, 0.7]])
    asked = Asked("estimate", quantize="int8", at=x[0], epsilon="0.003")
    found = decide_widths(asked, model, Settings(timeout=60))
    assert [w.bits for w in found.widths] == list(range(16, 1, -1))
    before = model.network.evaluate(x)
    held = []
    for width in found.widths:
        after = quantized(model.network, Scheme(f"int{width.bits}")).evaluate(x)
        holds = float(np.abs(after - before).max()) <= 0.003
        assert width.outcome.verdict is (ROBUST if holds else NOT)
        held.append(holds)
    assert found.bits == 16 - held.index(False) + 1
    assert found.stopper is not None
    assert found.stopper.bits == found.bits - 1
    assert found.witnessed is found.stopper


def answers(*verdicts: Verdict) -> FewestBits:
    request = build(Asked(quantize="int8"), named_model())
    widths = enumerate(verdicts)
    return FewestBits(tuple(Width(16 - i, request, Outcome(v)) for i, v in widths))


@pytest.mark.parametrize(
    ("verdicts", "bits", "code"),
    [
        ((ROBUST, ROBUST, ROBUST), 14, 0),
        ((ROBUST, NOT, ROBUST), 16, 0),
        ((ROBUST, ROBUST, OPEN), 15, 0),
        ((NOT, ROBUST, ROBUST), None, 1),
        ((OPEN, ROBUST, ROBUST), None, 3),
    ],
)
def test_a_width_counts_only_if_all_wider_ones_are_proved(
    verdicts: tuple[Verdict, ...], bits: int | None, code: int
) -> None:
    found = answers(*verdicts)
    assert found.bits == bits
    assert exit_code_of_bits(found) == code


def test_the_command_prints_every_width_and_writes_json(tmp_path: Path) -> None:
    witness = tmp_path / "w.npz"
    result = invoke("estimate", CATS, "bits", "--epsilon", "0.02", "--witness", witness)
    assert result.exit_code == 0
    assert "6 BITS: every width from 6 to 16 is proved, 5 bits are refuted" in result.stdout
    assert "16 bits" in result.stdout
    assert invoke("replay", witness).exit_code == 0
    result = invoke("estimate", CATS, "bits", "--epsilon", "0.02", "--json", "-")
    found: Any = json.loads(result.stdout)
    assert (found["quantity"], found["bits"]) == ("bits", 6)
    assert [w["bits"] for w in found["widths"]] == list(range(16, 1, -1))
    assert [w["verdict"] for w in found["widths"]] == ["robust"] * 11 + ["not_robust"] * 4
    assert found["widths"][8]["perturbation"]["format"] == "int8"
    assert "perturbation" not in found
    assert found["property"]["epsilon"] == 0.02
    assert invoke("estimate", CATS, "bits", "--epsilon", "0.02", "-q").stdout == "bits 6\n"


def test_settings_hold_for_every_width() -> None:
    given = ("--granularity", "channel", "--affine", "--any-rounding", "--prune", "0.5")
    result = invoke("estimate", CATS, "bits", *given, "--json", "-")
    assert result.exit_code == 1
    found: Any = json.loads(result.stdout)
    assert found["bits"] is None
    for width in found["widths"]:
        said = width["perturbation"]
        assert (said["granularity"], said["symmetric"], said["pruned"]) == ("channel", False, "0.5")
        assert said["rounding"] == "any"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--quantize", "int8"), "leave --quantize out"),
        (("--csv", "rows.csv"), "no --csv"),
        (("--html", "page.html"), "no --html"),
        (("--delta", "0.1"), "two perturbations"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("estimate", CATS, "bits", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_floats_and_other_quantities_have_no_bits() -> None:
    settings = Settings()
    with pytest.raises(InputError, match="integers"):
        decide_widths(Asked("estimate", quantize="float16"), named_model(), settings)
    with pytest.raises(InputError, match="integers"):
        decide_widths(Asked("estimate", delta="0.1"), named_model(), settings)
    with pytest.raises(InputError, match="leave the quantity out"):
        decide_widths(Asked("estimate", "epsilon", quantize="int8"), named_model(), settings)


def test_the_python_function_is_the_command() -> None:
    found = paramrob.fewest_bits(CATS, epsilon="0.02", quantize=Scheme("uint8", "channel"))
    assert found.bits == min(w.bits for w in found.widths if w.outcome.verdict is ROBUST)
    assert all(
        w.request.perturbation.description["format"] == f"uint{w.bits}" for w in found.widths
    )

"""Widths layer by layer: what the search returns is proved again by an ordinary check."""

from __future__ import annotations

import functools
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import paramrob
from paramrob.cli import main
from paramrob.engine import Settings
from paramrob.errors import InputError
from paramrob.mixed_widths import LayerWidth, MixedWidths, mixed_widths, scheme_of
from paramrob.quantize.apply import quantized
from paramrob.quantize.scheme import Scheme
from paramrob.requests.build import Asked
from paramrob.verdict import Verdict
from tests.small_models import named_model

CATS = Path(__file__).parent.parent / "case_studies" / "cats" / "model.pt"
POINTS = np.random.default_rng(4).uniform(size=(6, 2))


CHANNELS = Scheme("int8", "channel")


def module() -> torch.nn.Sequential:
    torch.manual_seed(3)
    layers = (torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    return torch.nn.Sequential(*layers).double()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@functools.cache
def searched() -> MixedWidths:
    return paramrob.mixed_bits(module(), at=POINTS, epsilon="0.001", quantize=CHANNELS, timeout=600)


def test_what_is_found_is_smaller_and_robust_when_checked_again() -> None:
    found = searched()
    assert found.proved
    assert found.start is not None
    assert found.scheme is not None
    assert found.size < found.uniform_size
    assert [w.layers for w in found.widths] == [("0",), ("2",)]
    assert found.size == 16 * found.widths[0].bits + 8 * found.widths[1].bits
    again = paramrob.check(module(), quantize=found.scheme, at=POINTS, epsilon="0.001", timeout=600)
    assert again.verdict is Verdict.ROBUST
    network = paramrob.load(module()).network
    before, after = (
        1 / (1 + np.exp(-n.evaluate(POINTS))) for n in (network, quantized(network, found.scheme))
    )
    assert float(np.abs(after - before).max()) <= 0.001


def test_no_layer_can_be_lowered_any_further() -> None:
    """The descent stops where no single layer can be lowered, whatever the width."""
    found = searched()
    network = paramrob.load(module()).network
    before = 1 / (1 + np.exp(-network.evaluate(POINTS)))
    last = found.widths[-1]
    for bits in range(2, last.bits):
        lower = scheme_of(CHANNELS, [found.widths[0], LayerWidth(last.layers, 8, bits)])
        after = 1 / (1 + np.exp(-quantized(network, lower).evaluate(POINTS)))
        assert float(np.abs(after - before).max()) > 0.001


def test_one_layer_has_the_fewest_bits_of_all() -> None:
    found = paramrob.mixed_bits(CATS, epsilon="0.02", timeout=600)
    assert [w.bits for w in found.widths] == [6]
    assert found.proved
    assert found.size == found.uniform_size == 12


def test_the_most_common_width_is_the_format() -> None:
    widths = [LayerWidth(("a", "b"), 5, 4), LayerWidth(("c",), 9, 7), LayerWidth(("d",), 1, 2)]
    found = scheme_of(Scheme("uint8", "channel"), widths)
    assert found.format == "uint4"
    assert found.layers == (("c", "uint7"), ("d", "uint2"))
    assert found.granularity == "channel"


def test_the_command_names_the_command_that_proves_it_again(tmp_path: Path) -> None:
    model, points, out = tmp_path / "m y.pt", tmp_path / "p.npz", tmp_path / "m.json"
    torch.save(module(), model)
    np.savez(points, x=POINTS)
    given = (model, "--at", points, "--epsilon", "0.001", "--granularity", "channel")
    result = invoke("estimate", model, "bits", "--per-layer", *given[1:], "--json", out)
    assert result.exit_code == 0, result.output
    found: Any = json.loads(out.read_text())
    assert (found["quantity"], found["per_layer"], found["verdict"]) == ("bits", True, "robust")
    assert found["size_bits"] < found["uniform"]["size_bits"]
    assert found["size_bits"] == sum(w["bits"] * w["weights"] for w in found["layers"])
    assert "PROVED" in result.stdout
    program, *words = shlex.split(found["repeat"])
    assert program == "paramrob"
    assert words[0] == "check"
    again = invoke(*words, "--json", "-")
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout)
    assert told["verdict"] == "robust"
    assert told["perturbation"] == found["perturbation"]
    assert told["perturbation"]["granularity"] == "channel"


def test_without_a_start_there_is_nothing_to_lower() -> None:
    given = ("estimate", CATS, "bits", "--per-layer", "--epsilon", "0")
    result = invoke(*given)
    assert result.exit_code == 1
    assert "NONE" in result.stdout
    found: Any = json.loads(invoke(*given, "--json", "-").stdout)
    assert found["layers"] is None
    assert found["bits"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("epsilon", "--per-layer", "--delta", "0.1"), "goes with estimate MODEL bits"),
        (("bits", "--per-layer", "--quantize", "int8"), "leave --quantize out"),
        (("bits", "--quantize-layer", "0=int4"), "leave --quantize-layer out"),
        (("bits", "--per-layer", "--witness", "w.npz"), "no --witness"),
        (("bits", "--per-layer", "--csv", "w.csv"), "no --csv"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("estimate", CATS, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_layers_that_have_formats_are_not_searched() -> None:
    asked = Asked("estimate", quantize=Scheme(layers={"0": "int4"}))
    with pytest.raises(InputError, match="leave --quantize-layer out"):
        mixed_widths(asked, named_model(), Settings())

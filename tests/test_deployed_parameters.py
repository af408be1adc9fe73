"""Quantized, pruned and noisy networks, from the question to the counterexample."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import paramrob
from paramrob.cli import main
from paramrob.engine import Settings, estimate
from paramrob.errors import InputError
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import Activation, Array, Dense, Input, Network, Node, Parameter
from paramrob.perturbation import Perturbation
from paramrob.quantize.apply import rounded
from paramrob.quantize.deployment import Deployment
from paramrob.quantize.scheme import Scheme
from paramrob.requests.build import Asked, build
from paramrob.verdict import Verdict
from tests.known_problems import random_network
from tests.page.pages import answered, asked, checked
from tests.small_models import logistic, named_model

STUDIES = Path(__file__).parent.parent / "case_studies"
CATS, ATHLETES = STUDIES / "cats" / "model.pt", STUDIES / "athletes" / "relu.pt"
DIGITS = STUDIES / "digits"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def report(*arguments: object) -> tuple[int, Any]:
    result = invoke(*arguments, "--json", "-")
    return result.exit_code, json.loads(result.stdout)


def roundings(network: Network, scheme: Scheme) -> list[dict[str, Array]]:
    """Return every choice of neighbours, by name."""
    found = rounded(network, scheme)
    flat = [
        sorted({float(r.below.flat[i]), float(r.above.flat[i])})
        for r in found.values()
        for i in range(r.below.size)
    ]
    every = []
    for choice in itertools.product(*flat):
        values = iter(choice)
        every.append(
            {
                name: np.array([next(values) for _ in range(r.below.size)]).reshape(r.below.shape)
                for name, r in found.items()
            }
        )
    return every


@pytest.mark.parametrize("scheme", [Scheme("int3"), Scheme("uint4", "channel"), Scheme("bfloat16")])
@pytest.mark.parametrize("any_rounding", [True, False])
def test_the_logistic_model_is_bracketed_by_its_roundings(
    scheme: Scheme, any_rounding: bool
) -> None:
    """A fine grid of the inputs in all roundings comes near the supremum, and not above it."""
    model = named_model()
    outcome = paramrob.estimate(
        model, "epsilon", quantize=scheme, any_rounding=any_rounding, tolerance=1e-6
    )
    bracket = outcome.brackets["epsilon"]
    axes = [np.linspace(6.3, 20.5, 143), np.linspace(2.0, 3.9, 96)]
    x = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    choices = roundings(model.network, scheme)
    if not any_rounding:
        nearest = {n: r.values for n, r in rounded(model.network, scheme).items()}
        choices = [nearest]
    before = model.network.evaluate(x)
    seen = max(float(np.abs(model.network.evaluate(x, c) - before).max()) for c in choices)
    assert seen <= bracket.upper + 1e-12
    assert bracket.lower <= seen + 2e-3
    assert bracket.width <= 1e-6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["int2", "int3", "float8_e5m2"])
def test_no_rounding_at_all_leaves_the_bracket_and_its_witness_is_one(seed: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, [1, 3, 1])
    scheme = Scheme(form, bias="float")
    choices = roundings(network, scheme)
    model = Model(network, InputInfo(), OutputInfo("value", None))
    request = build(Asked(quantize=scheme, any_rounding=True, domain=[(-1, 1)], epsilon=1), model)
    outcome = estimate(request.problems[0], "epsilon", Settings(solver="bounds", timeout=5))
    bracket = outcome.brackets["epsilon"]
    x = np.linspace(-1, 1, 41)[:, None]
    before = network.evaluate(x)
    seen = max(float(np.abs(network.evaluate(x, c) - before).max()) for c in choices)
    assert seen <= bracket.upper + 1e-12
    assert bracket.witness is not None
    on_grid = [
        all(np.array_equal(bracket.witness.parameters[n], v) for n, v in c.items()) for c in choices
    ]
    assert any(on_grid)
    assert bracket.lower <= bracket.upper


@pytest.mark.parametrize("model", [CATS, ATHLETES])
@pytest.mark.parametrize("any_rounding", [True, False])
def test_engines_agree_on_rounded_networks(model: Path, any_rounding: bool) -> None:
    given: dict[str, Any] = {"quantize": "int8", "any_rounding": any_rounding}
    bracket = paramrob.estimate(model, "epsilon", **given, tolerance=1e-4).brackets["epsilon"]
    for share, verdict in ((0.9, Verdict.NOT_ROBUST), (1.1, Verdict.ROBUST)):
        epsilon = round(share * bracket.upper, 6)
        outcome = paramrob.check(
            model, **given, epsilon=epsilon, solver="bounds", cross_check="z3", timeout=60
        )
        assert outcome.verdict is verdict


def test_noise_is_a_share_of_every_magnitude() -> None:
    network = logistic([2.0, -4.0], 8.0)
    model = Model(network, InputInfo(), OutputInfo("probability"))
    request = build(Asked(noise="0.25", at=[1.0, 1.0]), model)
    box = request.perturbation
    assert box.kind == "noise"
    ends = [box.interval(network.parameters["0.weight"]).exact(i) for i in range(2)]
    assert ends == [(Fraction(3, 2), Fraction(5, 2)), (Fraction(-5), Fraction(-3))]
    assert box.interval(network.parameters["0.bias"]).exact(0) == (Fraction(6), Fraction(10))
    kept = build(Asked(noise="0.25", at=[1.0, 1.0], leave_out=("0",)), model).perturbation
    assert not kept.parameters


def test_pruning_a_logistic_model_has_a_closed_form() -> None:
    model = Model(logistic([1.0, -3.0], 0.0), InputInfo(), OutputInfo("probability"))
    this = paramrob.estimate(model, "epsilon", prune="0.5", at=[2.0, 0.5]).brackets["epsilon"]
    expected = abs(1 / (1 + np.exp(1.5)) - 1 / (1 + np.exp(-0.5)))
    assert this.lower <= expected + 1e-12
    assert expected <= this.upper + 1e-12
    every = paramrob.estimate(model, "epsilon", any_pruning=True, at=[2.0, 0.5]).brackets["epsilon"]
    largest = max(abs(1 / (1 + np.exp(-z)) - 1 / (1 + np.exp(-0.5))) for z in (0.5, -1.5, 2.0, 0.0))
    assert every.lower <= largest + 1e-12 <= every.upper + 1e-6
    assert every.width <= 1e-6


def between_network() -> Model:
    """``1 - 2 |w x - 1/2|`` with ``w = 1``: far higher between the grid's 0 and 1 than at them."""
    network = Network(
        [
            Node("input", Input(), (), (1,)),
            Node("a", Dense("a.w"), ("input",), (1,)),
            Node("b", Dense("b.w", "b.b"), ("a",), (2,)),
            Node("r", Activation("relu"), ("b",), (2,)),
            Node("c", Dense("c.w", "c.b"), ("r",), (1,)),
        ],
        [
            Parameter("a.w", np.array([[1.0]])),
            Parameter("b.w", np.array([[1.0], [-1.0]])),
            Parameter("b.b", np.array([-0.5, 0.5])),
            Parameter("c.w", np.array([[-2.0, -2.0]])),
            Parameter("c.b", np.array([1.0])),
        ],
    )
    return Model(network, InputInfo(), OutputInfo("value", Fraction(1, 2)))


def test_a_counterexample_between_two_values_is_none() -> None:
    """Only w = 1/2 changes the label at 1; neither the trained 1 nor the pruned 0 does."""
    outcome = paramrob.check(
        between_network(),
        any_pruning=True,
        leave_out=("b", "c"),
        at=[1.0],
        solver="z3",
    )
    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.witness is None
    assert outcome.reason is not None
    assert "no counterexamples" in outcome.reason
    again = paramrob.check(between_network(), perturbation=half_way(), at=[1.0])
    assert again.verdict is Verdict.NOT_ROBUST


def half_way() -> Perturbation:
    ends = (np.array([[0.0]]), np.array([[1.0]]))
    return Perturbation.explicit({"a.w": ends}, "given")


def test_the_command_line_says_which_rounding() -> None:
    code, this = report("check", CATS, "--quantize", "int8")
    assert code == 1
    assert this["perturbation"]["kind"] == "quantize"
    assert this["perturbation"]["rounding"] == "nearest"
    assert this["perturbation"]["statement"].startswith("this rounding: each weight is exactly")
    assert this["exact_encoding"]
    assert "biases keep their stored values" in this["assumptions"]
    code, every = report("check", CATS, "--quantize", "int8", "--any-rounding")
    assert code == 1
    assert every["perturbation"]["statement"].startswith("any rounding: each weight on either")
    low, high = (r["brackets"]["epsilon"]["upper"] for r in (this, every))
    assert low < high
    text = invoke("check", ATHLETES, "--quantize", "int4", "--any-rounding").stdout
    assert "every rounding of the parameters to int4" in " ".join(text.split())
    assert "GPTQ, AWQ" in " ".join(text.split())


def test_every_setting_reaches_the_scheme() -> None:
    settings = ("--granularity", "group:1", "--affine", "--range", "full", "--convention")
    kept = ("torchao", "--bias", "float", "--keep-float", "2")
    code, found = report("check", ATHLETES, "--quantize", "int8", *settings, *kept)
    assert code == 1
    del found["perturbation"]["statement"]
    assert found["perturbation"] == {
        "kind": "quantize",
        "format": "int8",
        "granularity": "group:1",
        "symmetric": False,
        "range": "full",
        "convention": "torchao",
        "bias": "float",
        "keep_float": ["2"],
        "rounding": "nearest",
    }


def test_digits_at_points_rounded_and_pruned() -> None:
    given = ("--at", DIGITS / "test.npz", "--limit", "8")
    code, this = report("check", DIGITS / "dense.pt2", "--quantize", "int8", *given)
    assert code == 0
    assert this["verdict"] == "robust"
    code, every = report(
        "check", DIGITS / "dense.pt2", "--quantize", "float16", "--any-rounding", *given
    )
    assert code == 0
    assert "each weight and bias on either" in every["perturbation"]["statement"]
    code, both = report(
        "check", DIGITS / "dense.pt2", "--quantize", "int2", "--prune", "0.9", *given
    )
    assert code == 1
    assert both["perturbation"]["pruned"] == "0.9"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--quantize", "int8", "--delta", "0.1"), "two perturbations"),
        (("--noise", "0.1", "--prune", "0.1"), "two perturbations"),
        (("--quantize", "int99"), "no format 'int99'"),
        (("--granularity", "channel", "--delta", "0.1"), "--quantize FORMAT as well"),
        (("--affine", "--keep-float", "0", "--noise", "0.1"), "--symmetric/--affine and --keep"),
        (("--any-rounding",), "--any-rounding to which format"),
        (("--quantize", "int8", "--keep-float", "7"), "no layer '7'"),
        (("--quantize", "int8", "--leave-out", "0"), "--keep-float"),
        (("--prune", "1.5"), "0 to 1"),
        (("--noise", "-1"), "negative"),
        (("--any-pruning", "--quantize", "int8"), "--prune FRACTION instead"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("check", CATS, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("arguments", [("--quantize", "int8"), ("--noise", "0.1")])
def test_the_largest_delta_of_a_rounding_is_no_question(arguments: tuple[str, ...]) -> None:
    result = invoke("estimate", CATS, "delta", *arguments)
    assert result.exit_code == 2
    assert "computes the largest delta" in result.stderr
    with pytest.raises(InputError, match="value by value"):
        paramrob.estimate(between_network(), "delta", perturbation=half_way(), at=[1.0])


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    path = tmp_path / "w.npz"
    given = ("--quantize", "int4", "--any-rounding", "--witness", path)
    assert invoke("check", ATHLETES, *given).exit_code == 1
    return path


def saved_again(path: Path, change: Any) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays["meta"]))
    change(arrays, meta)
    arrays["meta"] = np.array(json.dumps(meta))
    np.savez(path, **arrays)


def test_a_witness_is_replayed_on_its_grid(witness: Path) -> None:
    result = invoke("replay", witness)
    assert result.exit_code == 0
    assert "any rounding: each weight on either neighbour in int4" in result.stdout

    def nudge(arrays: dict[str, Any], meta: Any) -> None:
        arrays["param/0.weight"][0, 0] += 1e-9

    saved_again(witness, nudge)
    result = invoke("replay", witness)
    assert result.exit_code == 1
    assert "neither end of its interval" in " ".join(result.stdout.split())


def test_a_witness_whose_grid_is_not_its_schemes_is_refused(witness: Path) -> None:
    def other(arrays: dict[str, Any], meta: Any) -> None:
        meta["perturbation"]["description"]["format"] = "int3"

    saved_again(witness, other)
    result = invoke("replay", witness)
    assert result.exit_code == 2
    assert "not on the grid that its scheme gives" in result.stderr


@pytest.mark.parametrize(
    ("given", "statement"),
    [
        ({"quantize": "int8"}, "the parameters rounded to int8"),
        ({"quantize": "int8", "any_rounding": True}, "every rounding of the parameters to int8"),
        ({"prune": "0.5"}, "the pruned weights"),
        ({"any_pruning": True}, "every pruning of the weights"),
    ],
)
@pytest.mark.parametrize("question", [{"epsilon": "0.999"}, {"epsilon": "0.000001"}, {}])
def test_pages_speak_of_the_rounding(
    given: dict[str, Any], statement: str, question: dict[str, Any]
) -> None:
    request = asked(delta=None, **given, **question)
    page, places = checked(request, answered(request))
    text = " ".join(page.text.split())
    assert statement in text
    assert "parameter vector" not in text
    assert "within their box" not in text
    assert ("witness.input.0" in places) == (question != {"epsilon": "0.999"})


def test_pages_of_estimates_speak_of_the_rounding() -> None:
    request = asked(delta=None, quantize="int8", quantity="epsilon")
    page, _ = checked(request, answered(request))
    assert "Rounding the parameters to int8 does not move the confidence" in page.text
    request = asked(delta=None, any_pruning=True, quantity="epsilon")
    page, _ = checked(request, answered(request))
    assert "No pruning moves the confidence" in page.text


def test_the_command_on_a_page_keeps_the_switch(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = ("--quantize", "uint8", "--affine", "--any-rounding", "--html", page)
    assert invoke("check", CATS, *given).exit_code == 1
    assert "--quantize uint8 --any-rounding --affine" in page.read_text()


def test_formulas_of_rounded_networks() -> None:
    formula = invoke("export", CATS, "--quantize", "int8", "-o", "-").stdout
    assert "; perturbation: kind quantize, format int8" in formula


def test_heatmaps_show_noise_but_no_boxes_that_miss_the_trained_network(tmp_path: Path) -> None:
    """A cell where a rounded network has one label says nothing of the trained network's."""
    target = tmp_path / "map.json"
    given = ("--noise", "0.001", "--points", "5", "--json", target)
    assert invoke("heatmap", CATS, *given).exit_code == 0
    assert json.loads(target.read_text())["perturbation"] == {"kind": "noise", "relative": "0.001"}
    box = Deployment(Scheme("int4")).perturbation(named_model().network)
    for kind in ("epsilon", "flips"):
        with pytest.raises(InputError, match="boxes around the trained parameters"):
            paramrob.heatmap(named_model(), perturbation=box, kind=kind)


def test_proofs_of_floating_point_execution_hold_for_rounded_parameters() -> None:
    given = ("--at", DIGITS / "test.npz", "--limit", "4", "--arithmetic", "float16")
    code, found = report("check", DIGITS / "dense.pt2", "--quantize", "float16", *given)
    assert code == 0
    assert found["semantics"] == "float16"

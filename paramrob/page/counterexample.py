"""The witness as a page shows it: input, outputs, and the parameters that moved most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from paramrob.domain import Box
from paramrob.models.model import Model, OutputInfo
from paramrob.models.network import Activation as Act
from paramrob.models.network import Array, Network, activate
from paramrob.page.content import InputView, MovedParameter, Number, OutputView, WitnessView
from paramrob.perturbation import GivenInterval, Perturbation
from paramrob.problem import Problem
from paramrob.report import label_name, reported_witness, witness_problem
from paramrob.requests.build import Request
from paramrob.runtime import runtime_words
from paramrob.solve import PointsOutcome
from paramrob.verdict import Outcome, Witness
from paramrob.wording import sides

SHOWN_INPUTS = 30
SHOWN_OUTPUTS = 12
SHOWN_PARAMETERS = 10
EFFECTS_OF_ALL = 2000
"""Up to so many moved parameters, the effect of each decides which of equal changes come first."""
_AT_EDGE = 1 - 1e-9


def witness_view(request: Request, outcome: Outcome, report: dict[str, Any]) -> WitnessView | None:
    """Return the reported counterexample, ``None`` where there is none."""
    witness = reported_witness(outcome)
    said = report["witness"]
    if witness is None or said is None:
        return None
    problem = witness_problem(request, outcome) or request.problems[0]
    model = request.model
    moved, counts = moved_parameters(problem, witness)
    inputs = _inputs(model, problem, said["input"])
    outputs = _outputs(model, said)
    first, second = (None if label is None else str(label) for label in said["labels"])
    level = model.output.level
    return WitnessView(
        point=_point(request, outcome, witness),
        inputs=inputs[:SHOWN_INPUTS],
        input_count=len(inputs),
        outputs=_foremost(outputs, witness),
        output_count=len(outputs),
        labels=(first, second),
        level=None if level is None else float(level),
        moved=moved,
        counts=counts,
        replayed=bool(said["replayed"]),
        about=_about(request, outcome, witness),
        sides=sides(request),
        runtime=_runtime(request, outcome),
    )


def _runtime(request: Request, outcome: Outcome) -> str | None:
    if outcome.runtime is None:
        return None
    names = [label_name(request.model.output, label) for label in outcome.runtime.labels]
    return f"In a runtime: {runtime_words(outcome.runtime, names)}."


def moved_parameters(
    problem: Problem, witness: Witness
) -> tuple[tuple[MovedParameter, ...], tuple[int, int, int]]:
    """Return the parameters that moved most, and how many moved, reached an edge, and exist.

    Equal changes come in the order of their effect on the output where that is cheap, else in
    the network's order.
    """
    network, box = problem.uncertain.network, problem.uncertain.perturbation
    changes = _changes(network, witness)
    flat = np.concatenate([change.ravel() for change in changes.values()])
    moving = np.flatnonzero(flat)
    few = len(moving) <= EFFECTS_OF_ALL
    if not few:
        moving = moving[np.argsort(-np.abs(flat[moving]), kind="stable")[:SHOWN_PARAMETERS]]
    places = {int(i): _place(changes, int(i)) for i in moving}
    effects = {i: _effect(problem, witness, *place) for i, place in places.items()}
    order = list(places)
    if few:
        # Changes that differ in their last digits alone are all at the edge of the same box.
        order.sort(key=lambda i: (-_rough(float(flat[i])), -abs(effects[i] or 0.0)))
    shown = tuple(
        _moved(network, box, witness, *places[i], effects[i]) for i in order[:SHOWN_PARAMETERS]
    )
    return shown, (int(np.count_nonzero(flat)), _at_edge(network, box, witness, changes), len(flat))


def _place(changes: Mapping[str, Array], index: int) -> tuple[str, int]:
    """Return parameter and flat index in it of an index into all of them."""
    for name, change in changes.items():
        if index < change.size:
            return name, index
        index -= change.size
    raise IndexError(index)


def _rough(value: float) -> float:
    return float(f"{abs(value):.6g}")


def _changes(network: Network, witness: Witness) -> dict[str, Array]:
    return {
        name: np.asarray(witness.parameters.get(name, p.value), dtype=np.float64) - p.value
        for name, p in network.parameters.items()
    }


def _at_edge(
    network: Network, box: Perturbation, witness: Witness, changes: Mapping[str, Array]
) -> int:
    count = 0
    for name, change in changes.items():
        interval = box.interval(network.parameters[name])
        moved = np.abs(change) > 0
        if isinstance(interval, GivenInterval):
            value = np.asarray(witness.parameters.get(name, interval.start()))
            count += int((moved & ((value == interval.lower) | (value == interval.upper))).sum())
            continue
        radius = interval.radius()
        count += int((moved & (np.abs(change) >= _AT_EDGE * radius)).sum())
    return count


def _moved(
    network: Network,
    box: Perturbation,
    witness: Witness,
    name: str,
    index: int,
    effect: float | None,
) -> MovedParameter:
    parameter = network.parameters[name]
    low, high = box.interval(parameter).exact(index)
    trained = float(parameter.value.flat[index])
    perturbed = float(np.asarray(witness.parameters[name]).flat[index])
    radius = (high - low) / 2
    # A box given by its ends need not hold the trained value: how far from its middle, then.
    middle = (low + high) / 2 if box.is_given else Fraction(trained)
    share = abs(Fraction(perturbed) - middle) / radius if radius else Fraction(1)
    return MovedParameter(
        _entry_name(name, parameter.value.shape, index), trained, perturbed, float(share), effect
    )


def _entry_name(name: str, shape: tuple[int, ...], index: int) -> str:
    if not shape:
        return name
    place = ", ".join(str(int(i)) for i in np.unravel_index(index, shape))
    return f"{name}[{place}]"


def _effect(problem: Problem, witness: Witness, name: str, index: int) -> float | None:
    """Return what moving one parameter alone does to the output at the witness's input.

    Of several outputs the change that is largest. In floating point: it explains, and proves
    nothing.
    """
    network = problem.uncertain.network
    moved = np.array(network.parameters[name].value)
    moved.flat[index] = np.asarray(witness.parameters[name]).flat[index]
    x = witness.input.reshape(1, -1)
    with np.errstate(all="ignore"):
        before = confidence(network.evaluate(x).reshape(-1), problem.output)
        after = confidence(network.evaluate(x, {name: moved}).reshape(-1), problem.output)
        change = after - before
    largest = float(change[np.abs(change).argmax()])
    return largest if math.isfinite(largest) else None


def confidence(outputs: Array, meaning: OutputInfo) -> Array:
    """Return outputs ``(out,)`` in the meaning of the property, in floating point."""
    if meaning.kind == "logit":
        return activate(Act("sigmoid"), outputs)
    if meaning.kind == "logits":
        powers = np.exp(outputs - outputs.max())
        return np.asarray(powers / powers.sum())
    return outputs


def input_names(model: Model, count: int) -> list[tuple[str, str]]:
    """Return name and unit of every input."""
    names = model.inputs.names or tuple(f"x{i}" for i in range(count))
    units = model.inputs.units or ("",) * count
    return list(zip(names, units, strict=True))


def _inputs(model: Model, problem: Problem, values: list[float]) -> tuple[InputView, ...]:
    named = input_names(model, len(values))
    domain = problem.domain
    views = []
    for i, (value, (name, unit)) in enumerate(zip(values, named, strict=True)):
        ends = None
        if isinstance(domain, Box):
            ends = (
                Number(float(domain.lower[i]), f"domain.lower.{i}"),
                Number(float(domain.upper[i]), f"domain.upper.{i}"),
            )
        views.append(InputView(name, unit, Number(value, f"witness.input.{i}"), ends))
    return tuple(views)


def _outputs(model: Model, said: dict[str, Any]) -> tuple[OutputView, ...]:
    pairs = (said["reference_output"], said["perturbed_output"])
    keys = ("witness.reference_output", "witness.perturbed_output")
    if not isinstance(pairs[0], list):
        trained, perturbed = (Number(v, key) for v, key in zip(pairs, keys, strict=True))
        return (OutputView(output_name(model.output, 1), trained, perturbed),)
    return tuple(
        OutputView(
            output_name(model.output, i), Number(a, f"{keys[0]}.{i}"), Number(b, f"{keys[1]}.{i}")
        )
        for i, (a, b) in enumerate(zip(*pairs, strict=True))
    )


def output_name(output: OutputInfo, label: int) -> str:
    """Return what one output is called: the single one stands for class 1."""
    if output.kind == "value":
        return "output"
    named = label_name(output, label)
    return f"confidence in {named if output.labels else f'class {named}'}"


def _foremost(outputs: tuple[OutputView, ...], witness: Witness) -> tuple[OutputView, ...]:
    """Return the outputs to show: all, or both labels' and those that change most."""
    if len(outputs) <= SHOWN_OUTPUTS:
        return outputs

    def rank(i: int) -> tuple[bool, float]:
        view = outputs[i]
        change = abs((view.perturbed.value or 0.0) - (view.trained.value or 0.0))
        return i not in witness.labels, -change

    chosen = sorted(range(len(outputs)), key=rank)[:SHOWN_OUTPUTS]
    return tuple(outputs[i] for i in sorted(chosen))


def _point(request: Request, outcome: Outcome, witness: Witness) -> int | None:
    if not isinstance(outcome, PointsOutcome):
        return None
    for i, part in enumerate(outcome.points):
        held = (part.witness, *(b.witness for b in part.brackets.values()))
        if any(w is witness for w in held):
            return i
    return None


def _about(request: Request, outcome: Outcome, witness: Witness) -> str:
    """Return which claim the witness belongs to, where that is not the verdict."""
    if outcome.verdict is not None:
        return ""
    for name, bracket in outcome.brackets.items():
        if bracket.witness is witness:
            if name == "delta":
                return "It refutes the property at the upper end of the bracket."
            return f"It attains the lower end of the bracket of {name.replace('_', ' ')}."
    return ""

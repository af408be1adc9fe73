"""Questions, boxes and meanings in plain words, for every form of report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from paramrob.decimals import middle, nearest_text
from paramrob.domain import Ball, Box, Domain, Point
from paramrob.exact import decimal_text
from paramrob.models.model import Model, OutputInfo
from paramrob.problem import Problem
from paramrob.properties import Property
from paramrob.quantize.deployment import Deployment
from paramrob.report import label_name
from paramrob.requests.build import Request
from paramrob.several import PointsOutcome
from paramrob.verdict import Bracket, Interval, Outcome, Verdict, Witness

SHOWN_INPUTS = 8
_SHOWN_OUTPUTS = 10
_BRACKETS = {
    "epsilon": "largest change of the {output}",
    "sigma": "farthest flip: lead of the best logit",
    "sigma_above": "farthest flip above the level",
    "sigma_below": "farthest flip below the level",
    "delta": "largest delta that keeps the property",
}


def question(request: Request) -> str:
    """Return what was asked, in plain words."""
    asked, output = request.asked, request.model.output
    holds = claim_words(request)
    at = where(request)
    moved = vectors(request)
    if request.reference is not None:
        return f"{holds}, {at}{_and_moved(request)}?"
    if asked.quantity is None:
        return f"{holds}, {at} and {moved}?"
    if asked.quantity == "epsilon":
        return f"how far can the {measured(output)} move, {at} and {moved}?"
    if asked.quantity == "sigma":
        return f"how far from the decision boundary can a label flip, {at} and {moved}?"
    return f"up to which delta {holds}, {at}?"


def claim_words(request: Request) -> str:
    """Return what a check or a comparison asks, but for inputs and parameters, as a question."""
    if request.reference is not None:
        return agreement_words(request.asked.property(), request.model.output)
    return property_words(request.asked.property(), request.problems[0])


def vectors(request: Request) -> str:
    """Return which parameters a statement ranges over, to stand behind "for"."""
    return f"{_vectors(request)}{_and_grids(request)}"


def _and_grids(request: Request) -> str:
    grids = request.grids
    return "" if grids is None else f", with values between layers rounded to {grids.format}"


def _vectors(request: Request) -> str:
    deployment = request.asked.deployment()
    if is_rigid(request):
        return "the model as it stands in its file"
    if request.grids is not None and not request.perturbation.parameters:
        return "the trained parameters"
    if deployment is None:
        return "every parameter vector in the box"
    to = _rounded_to(deployment)
    if deployment.is_grid:
        return f"every rounding of the parameters{to}" if to else "every pruning of the weights"
    return f"the parameters rounded{to}" if to else "the pruned weights"


def movers(request: Request) -> str:
    """Return who changes something in a counterexample, in the plural."""
    deployment, grids = request.asked.deployment(), _and_grids(request)
    if request.grids is not None and not request.perturbation.parameters:
        return vectors(request)
    if deployment is None:
        return f"parameters within their box{grids}"
    if not deployment.is_grid:
        return vectors(request)
    to = _rounded_to(deployment)
    found = f"parameters rounded{to} one way or the other" if to else "weights, some of them 0,"
    return f"{found}{grids}"


def nobody_moves(request: Request) -> str:
    """Return the subject and verb of a sentence about what no parameters do."""
    deployment = request.asked.deployment()
    if request.grids is not None:
        what = "rounding values between layers"
        parameters = f" with {_vectors(request)}" if request.perturbation.parameters else ""
        return f"{what} to {request.grids.format}{parameters} never moves"
    if deployment is None:
        return "no parameter vector in the box moves"
    to = _rounded_to(deployment)
    if deployment.is_grid:
        return f"no rounding of the parameters{to} moves" if to else "no pruning moves"
    return f"rounding the parameters{to} does not move" if to else "this pruning does not move"


def accuracy_under(request: Request) -> str:
    """Return which parameters an accuracy is counted with, to stand behind its ends."""
    if request.reference is not None:
        moved = "" if is_rigid(request) else f", for {vectors(request)}"
        return f"labelled correctly by the model as well{moved}"
    if request.asked.is_one_network():
        return f"with {vectors(request)}"
    return "under the worst parameters for each point"


def _rounded_to(deployment: Deployment) -> str:
    return "" if deployment.scheme is None else f" to {deployment.scheme.name}"


def is_rigid(request: Request) -> bool:
    """Whether two files are compared of which neither moves."""
    return request.reference is not None and not request.perturbation.parameters


def relaxed_words(request: Request) -> str:
    """Return what was relaxed where a proof holds but an open answer may stay open."""
    if request.perturbation.only_ends:
        return (
            "proofs cover all that lies between a parameter's two values, counterexamples these "
            "alone: an open answer may stay open"
        )
    rounds = is_rigid(request) or request.grids is not None
    what = "roundings" if rounds else "shared parameters"
    return f"{what} were relaxed: proofs hold, but an open answer may stay open"


def held_against(request: Request) -> str:
    """Return what the model is compared with."""
    return "the trained network" if request.reference is None else "the reference"


def sides(request: Request) -> tuple[str, str]:
    """Return what the two outputs of a witness are called."""
    return ("trained", "perturbed") if request.reference is None else ("reference", "model")


def agreement_words(asked: Property, output: OutputInfo) -> str:
    """Return what is asked of two files as the first half of a question."""
    if asked.epsilon is not None:
        return (
            f"do the {measured(output)}s of the two differ by at most {decimal_text(asked.epsilon)}"
        )
    if asked.sigma is None:
        return "does the model give the label that the reference gives"
    where_clear = (
        f"the reference is at least {decimal_text(asked.sigma)} from its decision boundary"
    )
    return f"does the model give the label that the reference gives where {where_clear}"


def _and_moved(request: Request) -> str:
    return "" if is_rigid(request) else f" and {vectors(request)}"


def property_words(asked: Property, problem: Problem) -> str:
    """Return the property as the first half of a question."""
    output = problem.output
    if asked.epsilon is not None:
        return f"does the {measured(output)} move by at most {decimal_text(asked.epsilon)}"
    if asked.sigma is None:
        return "does the label stay the same"
    sigma = decimal_text(asked.sigma)
    if problem.reference.output_size == 1:
        level = decimal_text(output.level or Fraction(0))
        return (
            "does the label stay the same where the trained network is at least "
            f"{sigma} from the level {level}"
        )
    return f"does the label stay the same where the best logit leads by at least {sigma}"


def measured(output: OutputInfo) -> str:
    """Return the word for what epsilon measures."""
    return "output" if output.kind == "value" else "confidence"


def where(request: Request) -> str:
    """Return for which inputs the question is asked."""
    radius = request.asked.radius()
    near = "" if radius is None else f"within {decimal_text(radius)} of "
    if request.several:
        count = len(request.problems)
        points = "this input" if count == 1 else f"each of {count} points"
        return f"for every input {near}{points}" if near else f"at {points}"
    if isinstance(request.problems[0].domain, Box):
        return "for every input of the box"
    return f"for every input {near}this one" if near else "at this input"


def perturbation_words(request: Request) -> str:
    """Return which parameters move how far, and what values between layers are rounded to."""
    if request.grids is None:
        return _parameter_words(request)
    return f"{_parameter_words(request) or 'as trained'}; {request.grids.words()}"


def _parameter_words(request: Request) -> str:
    box = request.perturbation
    network = request.problems[0].uncertain.network
    every = [p for p in network.parameters.values() if not p.fixed]
    moved = [p for p in every if p.name in box.parameters]
    if box.words is not None:
        return box.words
    if is_rigid(request):
        steps = request.asked.runtime_steps
        off = f"; each rounding may be off by {steps} step(s) of its grid" if steps else ""
        return f"as they stand in the file{off}"
    if request.asked.quantity == "delta":
        return _of_which([p.name for p in moved], len(every), "delta is what is asked")
    sizes = {(box.interval(p).absolute, box.interval(p).relative) for p in moved}
    if len(sizes) == 1:
        absolute, relative = next(iter(sizes))
        said = _size_words(absolute, relative)
        return _of_which([p.name for p in moved], len(every), f"each within {said}")
    return "; ".join(
        f"{p.name} within {_size_words(box.interval(p).absolute, box.interval(p).relative)}"
        for p in moved
    )


def _of_which(moved: list[str], total: int, said: str) -> str:
    return f"all, {said}" if len(moved) == total else f"{', '.join(moved)}: {said}"


def _size_words(absolute: Fraction, relative: Fraction) -> str:
    parts = [decimal_text(absolute)] if absolute or not relative else []
    if relative:
        parts.append(f"{decimal_text(relative * 100)} % of its magnitude")
    return f"{' plus '.join(parts)} of the trained value"


def domain_words(model: Model, domain: Domain) -> str:
    """Return the inputs with the names and units that the sidecar gives."""
    if isinstance(domain, Ball):
        return f"within {_plain(domain.radius)} of {inputs_text(model, domain.x)}"
    if isinstance(domain, Point):
        return inputs_text(model, domain.x)
    pairs = list(zip(domain.lower, domain.upper, strict=True))
    if len(set(pairs)) == 1 and (len(pairs) > 1 and model.inputs.names is None):
        low, high = pairs[0]
        return f"each of {len(pairs)} from {_plain(low)} to {_plain(high)}"
    said = [f"from {_plain(low)} to {_plain(high)}" for low, high in pairs]
    return _inputs(model, said, "")


def inputs_text(model: Model, x: Iterable[float]) -> str:
    """Return an input with the names and units that the sidecar gives."""
    return _inputs(model, [_short(repr(float(v))) for v in x], "= ")


def _inputs(model: Model, said: Sequence[str], link: str) -> str:
    names = model.inputs.names or [f"x{i}" for i in range(len(said))]
    units = model.inputs.units or [""] * len(said)
    parts = [
        f"{name} {link}{text} {unit}".rstrip()
        for name, text, unit in zip(names, said, units, strict=True)
    ]
    more = len(parts) - SHOWN_INPUTS
    if more > 0:
        parts = [*parts[:SHOWN_INPUTS], f"and {more} more"]
    return ", ".join(parts)


def _plain(value: Fraction) -> str:
    return _short(repr(float(value)))


def _short(text: str) -> str:
    return text.removesuffix(".0")


def output_words(model: Model) -> str:
    """Return what the outputs mean and where the label changes."""
    output = model.output
    if model.network.output_size > 1:
        return f"{model.network.output_size} {output.kind}"
    if output.level is None:
        return output.kind
    zero, one = (label_name(output, label) for label in (0, 1))
    level = decimal_text(output.level)
    after = " after the sigmoid" if output.kind == "logit" else ""
    return f"{output.kind}; label {one} above {level}{after}, else {zero}"


def outputs_text(outputs: Sequence[Interval], meaning: OutputInfo) -> str:
    """Return the first outputs of a network, short, and how many more there are."""
    digits = 10 if len(outputs) == 1 else 4
    texts = [nearest_text(middle(interval), digits) for interval in outputs[:_SHOWN_OUTPUTS]]
    level = None if meaning.level is None else nearest_text(float(meaning.level), digits)
    if len(outputs) == 1 and texts[0] == level:
        # Rounded, it would stand on the boundary that it may lie beside.
        texts = [repr(middle(outputs[0]))]
    more = len(outputs) - _SHOWN_OUTPUTS
    return " ".join(texts) + (f" and {more} more" if more > 0 else "")


def witness_lines(
    model: Model, witness: Witness, called: tuple[str, str] = ("trained", "perturbed")
) -> tuple[str, ...]:
    """Return a counterexample in words: its input, then the outputs of both networks.

    Args:
        model: for the names of inputs and labels.
        witness: the counterexample.
        called: what the two networks are called, as :func:`sides` says it.
    """
    lines = [inputs_text(model, witness.input.ravel())]
    outputs = (witness.reference_output, witness.perturbed_output)
    for side, values, label in zip(called, outputs, witness.labels, strict=True):
        name = label_name(model.output, label)
        said = "" if name is None else f", label {name}"
        lines.append(f"{side}: {outputs_text(values, model.output)}{said}")
    return tuple(lines)


def refuted_words(request: Request, outcome: Outcome) -> str:
    """Return what a counterexample to one problem of a check does, in one line.

    A point whose answer was read from a table has no counterexample any more.
    """
    asked, witness = request.asked.property(), outcome.witness
    done = _changed(request, witness) if request.reference is None else _differ(request, witness)
    if asked.sigma is not None:
        done += f" at least {decimal_text(asked.sigma)} from the decision boundary"
    if witness is None:
        return f"{done} (the counterexample was not kept)"
    return f"{done} at {inputs_text(request.model, witness.input.ravel())}"


def _changed(request: Request, witness: Witness | None) -> str:
    """Return what moved parameters do in a counterexample."""
    epsilon, output = request.asked.property().epsilon, request.model.output
    if epsilon is not None:
        return f"the {measured(output)} moves by more than {decimal_text(epsilon)}"
    if witness is None or None in witness.labels:
        return "the label changes"
    before, after = (label_name(output, label) for label in witness.labels)
    return f"the label changes from {before} to {after}"


def _differ(request: Request, witness: Witness | None) -> str:
    """Return how two files differ in a counterexample."""
    epsilon, output = request.asked.property().epsilon, request.model.output
    if epsilon is not None:
        return f"the {measured(output)}s of the two differ by more than {decimal_text(epsilon)}"
    if witness is None or None in witness.labels:
        return "the model gives another label than the reference"
    before, after = (label_name(output, label) for label in witness.labels)
    return f"the model gives {after} where the reference gives {before}"


def counts_words(outcome: PointsOutcome) -> str:
    """Return how many of the points were proved, refuted and left open."""
    verdicts = [part.verdict for part in outcome.points]
    proved, refuted, left = (
        verdicts.count(v) for v in (Verdict.ROBUST, Verdict.NOT_ROBUST, Verdict.UNKNOWN)
    )
    return f"{proved} of {len(verdicts)} points were proved, {refuted} refuted, {left} left open"


def passed_words(outcome: Outcome) -> str:
    """Return the sentence about an answer that proves nothing and is let pass all the same."""
    said = "neither proved nor refuted"
    if isinstance(outcome, PointsOutcome):
        said = counts_words(outcome)
    return f"{said}: the gate lets this pass, because it fails on what is refuted alone"


def percent(share: float) -> str:
    """Return a share in percent, to four digits."""
    return f"{100 * share:.4g} %"


def ends_said(brackets: Iterable[Bracket], is_delta: bool) -> str:
    """Return which end of the brackets is attained and which is proved."""
    if is_delta:
        return "lower end proved, upper end refuted by a replayed witness"
    if any(b.witness is not None for b in brackets):
        return "lower end attained by a replayed witness, upper end proved"
    return "upper end proved"


def bracket_meaning(name: str, output: OutputInfo) -> str:
    """Return what a bracket's name means."""
    return _BRACKETS.get(name, "").format(output=measured(output))

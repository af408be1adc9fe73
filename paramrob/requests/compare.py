"""Two files that are compared: whether their inputs and outputs mean the same."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from paramrob.errors import InputError
from paramrob.models.load import about_parameters
from paramrob.models.model import Model, OutputInfo, assumed_output
from paramrob.models.network import Quantize, Shape
from paramrob.models.rounding import count_roundings, with_steps
from paramrob.problem import check_output
from paramrob.requests.build import Asked, Request, build


def compare(asked: Asked, reference: Model, model: Model) -> Request:
    """Return the problems that hold a model against a reference.

    Args:
        asked: the question; its perturbation moves the model's parameters.
        reference: of any architecture; it is called by its names, its box is the domain.
        model: with the same inputs and outputs.

    Raises:
        InputError: the two do not fit, or the question does not fit them.
    """
    model = matched(reference, model)
    still = (asked.delta, asked.perturbation, asked.noise, asked.deployment())
    moved = any(given is not None for given in still)
    said = _assumptions(asked, reference, model, moved)
    network = with_steps(model.network, asked.runtime_steps)
    held = replace(reference, output=_compared(reference, model))
    return build(asked, replace(model, network=network, assumptions=said), held)


def matched(reference: Model, model: Model) -> Model:
    """Return the model with the meaning of the reference's inputs and outputs.

    What the model's own sidecar says has to agree; what nobody says of it is taken over.

    Raises:
        InputError: they do not fit, with what to do about it.
    """
    ours, theirs = reference.network, model.network
    if (ours.input_size, ours.output_size) != (theirs.input_size, theirs.output_size):
        raise InputError(
            f"{_called(reference)} takes {ours.input_size} input(s) and gives {ours.output_size} "
            f"output(s), {_called(model)} takes {theirs.input_size} and gives "
            f"{theirs.output_size}; compare two files with the same inputs and outputs"
        )
    if not _same_order(ours.input_shape, theirs.input_shape):
        raise InputError(
            f"{_called(reference)} takes inputs of shape {ours.input_shape}, {_called(model)} of "
            f"shape {theirs.input_shape}; export both with their axes in one order"
        )
    for what, first, second in (
        ("inputs", reference.inputs.names, model.inputs.names),
        ("labels", reference.output.labels, model.output.labels),
    ):
        if first is not None and second is not None and first != second:
            raise InputError(
                f"the sidecars of {_called(reference)} and {_called(model)} name different "
                f"{what}, or in another order; correct one of them"
            )
    return replace(model, inputs=reference.inputs, output=_output(reference, model))


def _called(model: Model) -> str:
    return model.path or "a model given as an object"


def _same_order(first: Shape, second: Shape) -> bool:
    """Whether the same number comes first, second, ... in row-major order."""
    a, b = (tuple(size for size in shape if size != 1) for shape in (first, second))
    return a == b or len(a) <= 1 or len(b) <= 1


def _output(reference: Model, model: Model) -> OutputInfo:
    """Return what both outputs mean."""
    ours, theirs = reference.output, model.output
    guess, sentence = assumed_output(model.network)
    is_guess = sentence in model.assumptions and guess.kind == theirs.kind
    # One may say what the other leaves open, but a probability is no logit.
    if is_guess and ours.kind == "value":
        return ours
    if ours.kind != theirs.kind:
        raise InputError(
            f"the output of {_called(reference)} is of kind {ours.kind!r}, that of "
            f"{_called(model)} {theirs.kind!r}; export both alike, or say what both mean with "
            "--output"
        )
    if ours.level != theirs.level and not is_guess:
        ends = " and at ".join(_level(info.level) for info in (ours, theirs))
        raise InputError(
            f"the label changes at {ends} in the two files; say one level for both with --level"
        )
    check_output(model.network, ours)
    return ours if ours.labels is not None else replace(ours, labels=theirs.labels)


def _compared(reference: Model, model: Model) -> OutputInfo:
    """Return what the engines are told: a value, where one probability alone is rounded.

    Probabilities are compared before the sigmoid that ends both networks. One that is rounded
    behind its sigmoid has no such score, and its level is that of the number itself.
    """
    ends = {isinstance(m.network.final_node.op, Quantize) for m in (reference, model)}
    if model.output.kind == "probability" and len(ends) == 2:
        return replace(model.output, kind="value")
    return model.output


def _level(level: Fraction | None) -> str:
    return "no level" if level is None else f"{float(level):g}"


def _assumptions(asked: Asked, reference: Model, model: Model, moved: bool) -> tuple[str, ...]:
    """Return what is assumed of both, without what is said of parameters that do not move."""
    still = about_parameters(reference)
    said = [text for text in reference.assumptions if text not in still]
    if moved:
        said += about_parameters(model)
    count = count_roundings(model.network)
    if count and asked.runtime_steps:
        steps = asked.runtime_steps
        said.append(
            f"each of the model's {count} roundings may be off by {steps} step(s) of its grid"
        )
    elif count:
        said.append(
            f"the model's {count} roundings are those of the file in real numbers; a runtime that "
            "computes in float32 may round a number near a tie the other way (--runtime-steps 1 "
            "allows for that)"
        )
    return tuple(said)

"""A question written as a formula that other solvers, or people, read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from paramrob.errors import InputError
from paramrob.exact import decimal_text
from paramrob.models.model import Model
from paramrob.problem import Problem, check_real
from paramrob.requests.build import Request

if TYPE_CHECKING:
    from paramrob.encoders.terms import Query

Encoding = Literal["direct", "aggregated"]
Format = Literal["smtlib", "dreal", "latex"]


def export_text(
    request: Request,
    encoding: Encoding = "direct",
    form: Format = "smtlib",
    use_presolve: bool = True,
) -> str:
    """Return the negated property of a request as text.

    Args:
        request: one problem with a property.
        encoding: ``direct``, a variable per parameter, or ``aggregated``, a slack per neuron.
        form: ``smtlib`` (portable), ``dreal`` or ``latex``. In ``smtlib``, and in every form of
            the aggregated encoding, thresholds on a final sigmoid are moved to its logit where
            that removes the sigmoid (``labels``, ``margin``, and ``confidence`` at a point), so
            that solvers without ``exp`` can read them. The direct formula for dReal and in LaTeX
            is the paper's, sigmoid and all. The comments say which it is.
        use_presolve: bound every neuron and fix ReLUs by the bound engine first.

    Raises:
        InputError: several points are asked about.
        BackendError: the network has no such encoding.
    """
    from paramrob.encoders import aggregated, direct
    from paramrob.encoders.presolve import presolve
    from paramrob.encoders.smtlib import to_smtlib
    from paramrob.encoders.symbolic import to_latex

    if len(request.problems) != 1:
        raise InputError(
            f"{len(request.problems)} points make {len(request.problems)} formulas; export one "
            "at a time: --at with one point"
        )
    problem = request.problems[0]
    check_real(problem, "a formula")
    known = presolve(problem) if use_presolve else None
    invert = form == "smtlib" or encoding == "aggregated"
    encoder = direct if encoding == "direct" else aggregated
    query = encoder.encode(problem, "property", known, invert)
    comments = _comments(request, problem, query, use_presolve)
    if form == "latex":
        return to_latex(query, comments)
    return to_smtlib(query, "dreal" if form == "dreal" else "portable", comments)


def _comments(request: Request, problem: Problem, query: Query, use_presolve: bool) -> list[str]:
    model = request.model
    box = ", ".join(
        f"{key} {value}" for key, value in problem.uncertain.perturbation.as_json().items()
    )
    level = problem.output.level
    kind = problem.output.kind + ("" if level is None else f", level {decimal_text(level)}")
    source = f"{_file_name(model)}, {model.network.architecture}"
    lines = [
        f"model {source}, sha256 {model.sha256 or 'unknown'}",
        f"perturbation: {box}",
        f"output: {kind}",
        *_link_words(problem, query),
        "ranges of neurons: " + ("proved beforehand" if use_presolve else "none but the boxes"),
    ]
    lines += [f"assumed: {said}" for said in request.assumptions]
    return lines + _input_names(model)


def _link_words(problem: Problem, query: Query) -> list[str]:
    """Say what the formula compares where the model ends in a sigmoid or softmax."""
    from paramrob.layers import stages

    link, _ = stages(problem.reference, problem.output)
    if link == "identity":
        return []
    # What the uncertain network's confidence is defined as; see encoders.common.
    if any(d.variable.name.startswith("fp") for d in query.definitions):
        return [f"compared: confidences, behind the final {link}"]
    if link == "softmax" and problem.property and problem.property.name != "confidence":
        return ["compared: the classes' scores before the final softmax"]
    return [
        "compared: the score before the final sigmoid, with thresholds moved to their logits "
        "(irrational ones to a rational that lets more points in)"
    ]


def _file_name(model: Model) -> str:
    return "in memory" if model.path is None else model.path.replace("\\", "/").split("/")[-1]


def _input_names(model: Model) -> list[str]:
    names, units = model.inputs.names, model.inputs.units
    if names is None:
        return []
    shown = [
        f"x{i} is {name}" + (f" in {units[i]}" if units and units[i] else "")
        for i, name in enumerate(names)
    ]
    return [f"inputs: {', '.join(shown)}"]

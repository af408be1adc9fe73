"""From a problem and a goal to a query; the encodings differ in the uncertain network's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from paramrob.domain import Point
from paramrob.encoders.build import Builder
from paramrob.encoders.enclose import activation_ends, sigmoid_ends, softmax_ends
from paramrob.encoders.goals import (
    GoalName,
    Known,
    Scale,
    Stated,
    change_by_thresholds,
    largest_change,
    many_labels,
    two_labels,
)
from paramrob.encoders.networks import (
    REFERENCE,
    UNCERTAIN,
    affine,
    declare_inputs,
    differences,
    reference_scores,
    reference_values,
    score_ends,
    walk,
)
from paramrob.encoders.parameters import ParameterBox
from paramrob.encoders.presolve import Presolve
from paramrob.encoders.terms import (
    ONE,
    Exp,
    Query,
    Sigmoid,
    Term,
    add,
    comparisons,
    divide,
    logic_of,
    subtract,
)
from paramrob.errors import BackendError
from paramrob.layers import Link, Stage, stages
from paramrob.models.network import Array, Elementwise, Node, node_parameters
from paramrob.problem import Problem, check_labels
from paramrob.replay_numbers import Number
from paramrob.verdict import Approximation

UNIT = (Fraction(0), Fraction(1))
CHANGE = (Fraction(-1), Fraction(1))


class Encoder(Protocol):
    """What an encoding adds: the uncertain network's layers and the way back to parameters."""

    exact: bool

    def layer(self, k: int, node: Node, h: list[Term]) -> list[Term]:
        """Return the terms of the uncertain network's affine layer ``k``."""
        ...

    def decode(self, model: Mapping[str, Fraction]) -> tuple[Array, dict[str, Array]]:
        """Return the input and parameters that a solver's values mean."""
        ...


@dataclass(frozen=True)
class Ends:
    """Both networks' last results: the reference's perhaps only enclosed, ``scores`` at a point."""

    before: list[Known]
    after: list[Term]
    scores: list[Number] | None


def encode(
    problem: Problem,
    goal: GoalName,
    known: Presolve | None,
    invert: bool,
    make: Callable[[Builder, ParameterBox], Encoder],
    name: str,
) -> Query:
    """Return the query of one encoding.

    Args:
        problem: the problem; its property is what ``goal="property"`` negates.
        goal: the property, or a quantity that :meth:`Query.with_threshold` bounds from below.
        known: proved ranges; ``None`` bounds and simplifies nothing.
        invert: whether thresholds on a sigmoid's confidence move to its logit.
        make: the encoding.
        name: what the encoding is called.

    Raises:
        BackendError: the graph is no chain of dense layers and activations.
        InputError: labels are asked of a network that has none.
    """
    if goal != "epsilon" and (problem.property is None or problem.property.name != "confidence"):
        check_labels(problem.reference, problem.output)
    if goal == "property" and problem.property is None:
        raise BackendError("no property to encode; give one or name a quantity")
    builder = Builder()
    box = ParameterBox(problem.uncertain)
    encoder = make(builder, box)
    link, ends = _networks(builder, problem, known, encoder, box)
    stated = _state(builder, problem, goal, link, ends, invert)
    builder.constraints.append(stated.formula)
    terms = [d.term for d in builder.definitions]
    terms += [t for f in builder.constraints for c in comparisons(f) for t in (c.left, c.right)]
    exact = encoder.exact and stated.exact
    return Query(
        name=f"{name}: {_words(problem, goal)}",
        declarations=tuple(builder.declarations),
        definitions=tuple(builder.definitions),
        constraints=tuple(builder.constraints),
        logic=logic_of(iter(terms)),
        approximation=Approximation.EXACT if exact else Approximation.OVER,
        decode=encoder.decode,
        above=stated.above,
        comments=(_words(problem, goal),),
    )


def _networks(
    builder: Builder,
    problem: Problem,
    known: Presolve | None,
    encoder: Encoder,
    box: ParameterBox,
) -> tuple[Link, Ends]:
    link, ours = stages(problem.reference, problem.output)
    other_link, theirs = stages(problem.uncertain.network, problem.output)
    if link != other_link:
        raise BackendError("one network ends in a sigmoid or softmax, the other does not")
    if known is not None and [s.kind for s in ours] != [s.kind for s in theirs]:
        raise BackendError("the two networks differ in architecture: encode them without presolve")
    x = declare_inputs(builder, problem)
    if isinstance(problem.domain, Point):
        scores = reference_scores(problem, link)
        uncertain = walk(builder, theirs, x, UNCERTAIN, encoder.layer, known)
        before = [Known.between(ends) for ends in score_ends(scores)]
        return link, Ends(before, uncertain.results[-1], scores)
    values = reference_values(problem)

    def reference_layer(k: int, node: Node, h: list[Term]) -> list[Term]:
        return affine(problem.reference, node, h, values)

    reference = walk(builder, ours, x, REFERENCE, reference_layer, known)

    def uncertain_layer(k: int, node: Node, h: list[Term]) -> list[Term]:
        if _is_reference(problem, box, ours, k, node) and h == reference.inputs[k]:
            return reference.results[k]
        return encoder.layer(k, node, h)

    uncertain = walk(builder, theirs, x, UNCERTAIN, uncertain_layer, known)
    differences(builder, reference, uncertain, known)
    before = [Known.exactly(z) for z in reference.results[-1]]
    return link, Ends(before, uncertain.results[-1], None)


def _is_reference(
    problem: Problem, box: ParameterBox, ours: Sequence[Stage], k: int, node: Node
) -> bool:
    """Whether layer ``k`` of the uncertain network is the reference's: nothing in it moves."""
    mine = ours[k].node if k < len(ours) else None
    if mine is None or type(mine.op) is not type(node.op):
        return False
    kinds = {op.kind for op in (mine.op, node.op) if isinstance(op, Elementwise)}
    if len(kinds) > 1:
        return False
    names, others = node_parameters(mine.op), node_parameters(node.op)
    return len(names) == len(others) and all(
        box.is_still(other, problem.reference.parameters[name].value)
        for name, other in zip(names, others, strict=True)
    )


def _state(
    builder: Builder, problem: Problem, goal: GoalName, link: Link, ends: Ends, invert: bool
) -> Stated:
    asked = problem.property if goal == "property" else None
    if goal == "epsilon" or (asked is not None and asked.name == "confidence"):
        return _change(builder, link, ends, invert, asked.epsilon if asked else None)
    if len(ends.after) > 1:
        if goal in ("sigma_above", "sigma_below"):
            raise BackendError(f"{goal} is a quantity of one output; ask for sigma")
        return many_labels(ends.before, ends.after, goal, asked)
    level = Fraction(1, 2) if problem.output.level is None else problem.output.level
    exact_already = goal == "property" and not (asked and asked.sigma) and level == Fraction(1, 2)
    if link == "sigmoid" and (invert or exact_already):
        return two_labels(Scale(ends.before[0], ends.after[0], True), level, goal, asked)
    if link == "sigmoid":
        (before,), (after,) = _confidences(builder, link, ends)
        return two_labels(Scale(before, after, False), level, goal, asked)
    return two_labels(Scale(ends.before[0], ends.after[0], False), level, goal, asked)


def _change(
    builder: Builder, link: Link, ends: Ends, invert: bool, epsilon: Fraction | None
) -> Stated:
    if link == "identity":
        return largest_change(builder, ends.before, ends.after, None, epsilon)
    if len(ends.after) == 2:
        link, ends = "sigmoid", _one_logit(builder, ends)
    if link == "sigmoid" and invert and ends.scores is not None:
        confidence = Known.between(sigmoid_ends(ends.scores[0]))
        scale = Scale(ends.before[0], ends.after[0], True)
        return change_by_thresholds(scale, confidence, epsilon)
    before, after = _confidences(builder, link, ends)
    return largest_change(builder, before, after, CHANGE, epsilon)


def _one_logit(builder: Builder, ends: Ends) -> Ends:
    """Two classes: the first one's probability is the sigmoid of the two scores' difference."""
    after = _gap(builder, "p_gap", ends.after)
    if ends.scores is not None:
        score = ends.scores[0] - ends.scores[1]
        return Ends([Known.between(score_ends([score])[0])], [after], [score])
    before = _gap(builder, "z_gap", [known.low for known in ends.before])
    return Ends([Known.exactly(before)], [after], None)


def _gap(builder: Builder, name: str, pair: Sequence[Term]) -> Term:
    (a, b), (c, d) = (builder.range_of(term) for term in pair)
    low = None if a is None or d is None else a - d
    high = None if b is None or c is None else b - c
    return builder.define(name, subtract(pair[0], pair[1]), (low, high), "score 0 - score 1")


def _confidences(builder: Builder, link: Link, ends: Ends) -> tuple[list[Known], list[Term]]:
    """Return the confidences of both networks behind their link."""
    after = _linked(builder, link, ends.after, "fp", "uncertain")
    if ends.scores is None:
        terms = _linked(builder, link, [known.low for known in ends.before], "f", "reference")
        return [Known.exactly(term) for term in terms], after
    if link == "sigmoid":
        return [Known.between(sigmoid_ends(ends.scores[0]))], after
    return [Known.between(ends) for ends in softmax_ends(ends.scores)], after


def _linked(
    builder: Builder, link: Link, scores: list[Term], name: str, network: str
) -> list[Term]:
    if link == "sigmoid":
        known = activation_ends("sigmoid", *builder.range_of(scores[0]))
        words = f"confidence of the {network} network"
        return [builder.define(name, Sigmoid(scores[0]), known, words)]
    found = []
    for k, own in enumerate(scores):
        odds: list[Term] = [ONE]
        for j, other in enumerate(scores):
            if j != k:
                words = f"exp(score {j} - score {k}), {network} network"
                power = Exp(subtract(other, own))
                odds.append(
                    builder.define(f"{name}_odds{k}_{j}", power, (Fraction(0), None), words)
                )
        words = f"probability of class {k}, {network} network"
        found.append(builder.define(f"{name}{k}", divide(ONE, add(*odds)), UNIT, words))
    return found


def _words(problem: Problem, goal: GoalName) -> str:
    claim = problem.property
    scope = problem.domain.scope
    if goal != "property":
        return f"{goal}, {scope}: reached by some input and parameters of the boxes"
    if claim is None:
        return scope
    threshold = claim.epsilon if claim.epsilon is not None else claim.sigma
    at = "" if threshold is None else f" {float(threshold):.12g}"
    return f"{claim.name}{at}, {scope}: violated by some input and parameters of the boxes"

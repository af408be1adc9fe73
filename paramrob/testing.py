"""Proofs as tests: what a test suite calls so that a network that is not robust fails it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from paramrob import api
from paramrob.certificate import no_certificate, save_certificate
from paramrob.decimals import bracket_texts
from paramrob.errors import InputError
from paramrob.files import discard
from paramrob.report import FailOn, lets_pass
from paramrob.requests.build import PerturbationLike, Request
from paramrob.requests.domains import DomainLike, Number, PointsLike
from paramrob.several import PointsOutcome
from paramrob.verdict import Outcome, Verdict
from paramrob.witnesses import save_reported
from paramrob.wording import (
    bracket_meaning,
    counts_words,
    domain_words,
    passed_words,
    perturbation_words,
    question,
    refuted_words,
    witness_lines,
)

__all__ = ["assert_robust"]

_SHOWN_POINTS = 10
_HEADS = {Verdict.NOT_ROBUST: "not robust", Verdict.UNKNOWN: "neither proved nor refuted"}


def assert_robust(
    model: Any,
    *,
    delta: Number | None = None,
    perturbation: PerturbationLike | None = None,
    at: PointsLike | None = None,
    domain: DomainLike | None = None,
    epsilon: Number | None = None,
    sigma: Number | None = None,
    fail_on: FailOn = "unknown",
    timeout: float = 60.0,
    witness: str | Path | None = None,
    certificate: str | Path | None = None,
    **options: Any,
) -> Outcome:
    """Assert that a property of a network holds for every parameter vector and every input.

    Args:
        model: a path, a ``torch.nn.Module``, or whatever else :func:`paramrob.check` takes.
        delta: every parameter within this distance of its trained value.
        perturbation: instead of ``delta`` sizes by layer.
        at: a point, several, or a file of them.
        domain: instead of ``at`` a box.
        epsilon: ask whether the confidence moves by at most this much; labels otherwise.
        sigma: ask whether labels stay where the trained network is this far from its boundary.
        fail_on: ``unknown`` fails also on what stays open; with ``refuted`` that passes, with a
            warning.
        timeout: engine wall time in seconds.
        witness: where a counterexample is saved (``.npz``), for ``paramrob replay``.
        certificate: where a certificate of what was proved is saved (``.json``); an older file
            there is removed first.
        **options: every other keyword of :func:`paramrob.check`.

    Returns:
        The outcome; its verdict is ``robust``, or ``unknown`` with ``fail_on="refuted"``.

    Raises:
        AssertionError: the property was refuted, or stays open; the message says what was asked,
            what is known, and which input and outputs refute it.
        InputError: a question that cannot be asked, with what to do instead.
        SoundnessError: two results contradict each other.

    >>> import torch
    >>> layer = torch.nn.Linear(1, 1).double()
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(2.0), layer.bias.fill_(-1.0)
    >>> assert_robust(layer, delta="0.01", domain=(0.75, 1)).verdict
    <Verdict.ROBUST: 'robust'>
    """
    __tracebackhide__ = True
    given = {"delta": delta, "perturbation": perturbation, "at": at, "domain": domain}
    given |= {"epsilon": epsilon, "sigma": sigma, "timeout": timeout, **options}
    try:
        if fail_on not in get_args(FailOn):
            raise InputError(f"no fail_on {fail_on!r}; choose refuted or unknown")
        if certificate is not None:
            discard(certificate, "the certificate")
        request, outcome = api.answered("check", None, _arguments(model, given))
    except InputError as error:
        # The way through the package is of no use to who mistyped a question.
        raise error.with_traceback(None) from None
    if outcome.interrupted:
        raise KeyboardInterrupt
    saved = save_reported(request, outcome, None if witness is None else str(witness))
    if lets_pass(outcome, fail_on):
        warnings.warn(f"{question(request)} {passed_words(outcome)}", stacklevel=2)
    elif outcome.verdict is not Verdict.ROBUST:
        raise AssertionError(_message(request, outcome, saved))
    if certificate is not None and no_certificate(outcome) is None:
        save_certificate(certificate, request, outcome)
    return outcome


def _arguments(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every argument of ``check``, by name."""
    try:
        bound = inspect.signature(api.check).bind(model, **given)
    except TypeError as error:
        raise InputError(f"{error}; assert_robust takes the keywords of paramrob.check") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def _message(request: Request, outcome: Outcome, saved: str | None) -> str:
    """Return what an assertion that failed says, one fact a line."""
    model, verdict = request.model, outcome.verdict or Verdict.UNKNOWN
    rows = [("model", f"{model.path or 'given as an object'}: {model.network.architecture}")]
    rows.append(("parameters", perturbation_words(request)))
    if not request.several:
        rows.append(("inputs", domain_words(model, request.problems[0].domain)))
    if isinstance(outcome, PointsOutcome):
        rows += _points(request, outcome)
    elif verdict is Verdict.NOT_ROBUST:
        rows.append(("refuted", refuted_words(request, outcome)))
    for name, bracket in outcome.brackets.items():
        ends = " .. ".join(bracket_texts(bracket.lower, bracket.upper))
        rows.append((name.replace("_", " "), f"{ends}  {bracket_meaning(name, model.output)}"))
    if outcome.witness is not None:
        first, *rest = witness_lines(model, outcome.witness)
        rows += [("witness", first), *(("", line) for line in rest)]
    if saved is not None:
        repeat = "" if model.path is None else f"; repeat it with: paramrob replay {saved}"
        rows.append(("saved", f"{saved}{repeat}"))
    if outcome.reason:
        rows.append(("open", outcome.reason))
    rows += [("assumed", said) for said in request.assumptions]
    rows += [("note", said) for said in outcome.notes]
    lines = (f"  {name:<12}{text}".rstrip() for name, text in rows)
    return "\n".join((f"{_HEADS[verdict]}: {question(request)}", *lines))


def _points(request: Request, outcome: PointsOutcome) -> list[tuple[str, str]]:
    """Return how many points were proved, and the first that were not."""
    refuted = [i for i, o in enumerate(outcome.points) if o.verdict is Verdict.NOT_ROBUST]
    rows = [("points", counts_words(outcome))]
    for i in refuted[:_SHOWN_POINTS]:
        rows.append((f"point {i}", refuted_words(request, outcome.points[i])))
    if len(refuted) > _SHOWN_POINTS:
        rows.append(("", f"and {len(refuted) - _SHOWN_POINTS} more refuted points"))
    return rows

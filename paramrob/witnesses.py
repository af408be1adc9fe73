"""Counterexamples between an answer and a file: saved with their claim, replayed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from paramrob.errors import InputError, ReplayError
from paramrob.models.model import Model
from paramrob.problem import Problem
from paramrob.report import reported_witness, witness_problem
from paramrob.requests.build import Request
from paramrob.verdict import Outcome, Witness


@dataclass(frozen=True)
class Replayed:
    """What came of re-executing a saved counterexample.

    ``witness`` is ``None`` where exact replay refused it; ``reason`` says why it does not
    refute the saved claim, ``None`` if it does. ``reference`` is the first of two files.
    """

    model: Model
    problem: Problem
    witness: Witness | None
    reason: str | None
    reference: Model | None = None

    @property
    def reproduced(self) -> bool:
        """Whether the counterexample refutes the claim that it was saved with."""
        return self.reason is None


def save_reported(request: Request, outcome: Outcome, path: str | None) -> str | None:
    """Save the reported witness with the claim that it refutes; return where, if anywhere.

    Raises:
        InputError: the file cannot be written.
    """
    witness = reported_witness(outcome)
    problem = witness_problem(request, outcome)
    if path is None or witness is None or problem is None:
        return None
    from paramrob.witness_file import save_witness
    from paramrob.witness_meta import problem_meta

    steps, grids = request.asked.runtime_steps, request.grids
    meta = problem_meta(request.model, problem, request.reference, steps, grids)
    save_witness(path, witness, meta)
    return path


def replay_file(
    path: str,
    model_path: str | None = None,
    trust: bool = False,
    reference_path: str | None = None,
) -> Replayed:
    """Re-execute a saved counterexample in exact arithmetic.

    Args:
        path: an ``.npz`` written by ``--witness``.
        model_path: the model file, where it is not the one that the witness names.
        trust: whether a TorchScript model may be loaded.
        reference_path: the reference's file, where it is not the one that the witness names.

    Raises:
        InputError: the witness or a model cannot be read, or they do not fit.
    """
    from paramrob.replay import refutes, replay
    from paramrob.witness_file import load_witness
    from paramrob.witness_meta import problem_from_meta

    x, parameters, meta = load_witness(path)
    reference = None
    if meta.get("reference") is not None:
        reference = _recorded(path, meta, "reference", reference_path, trust)
    elif reference_path is not None:
        raise InputError(f"{path} is about one model; leave --reference out")
    model = _recorded(path, meta, "model", model_path, trust)
    problem = problem_from_meta(meta, model, reference)
    model = replace(model, output=problem.output)
    try:
        witness = replay(problem, x, parameters)
    except ReplayError as error:
        return Replayed(model, problem, None, str(error), reference)
    reason = None if refutes(problem, witness) else "it does not refute the claim"
    return Replayed(model, problem, witness, reason or _undone(problem, witness), reference)


def _recorded(
    path: str, meta: Mapping[str, object], key: str, given: str | None, trust: bool
) -> Model:
    """Return one of the models that a witness is about."""
    from paramrob.models.load import load

    said = meta.get(key)
    source = given or (said.get("path") if isinstance(said, dict) else None)
    if not isinstance(source, str):
        raise InputError(f"{path} names no {key} file; give it with --{key} PATH")
    if given is None and not Path(source).exists():
        raise InputError(f"{path} is about {source}, which is not there; give --{key} PATH")
    fold = isinstance(said, dict) and said.get("folded_batch_norm") is True
    return load(source, trust=trust, fold_batch_norm=fold)


def _undone(problem: Problem, witness: Witness) -> str | None:
    """Return why rounding may undo what the witness does in real numbers, if it may."""
    if problem.arithmetic is None:
        return None
    from paramrob.bounds.graph.certainty import surely_refutes

    if surely_refutes(problem, witness):
        return None
    return f"it refutes the claim in real numbers, but rounding to {problem.semantics} may undo it"

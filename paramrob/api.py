"""The Python API: what the command line does, on files and objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from paramrob.engine import Encoding, Method, Progress
from paramrob.exact import parse_decimal
from paramrob.models.model import Model, OutputInfo, OutputKind
from paramrob.point_table import PointTable
from paramrob.properties import Quantity
from paramrob.quantize.scheme import Scheme
from paramrob.requests.build import Asked, Command, PerturbationLike, Request, build
from paramrob.requests.domains import DomainLike, Number, PointsLike
from paramrob.solve import make_settings, solve
from paramrob.verdict import Outcome

_QUESTION = (
    *("delta", "perturbation", "domain", "at", "epsilon", "sigma", "input_radius", "limit"),
    *("arithmetic", "accumulate"),
    *("quantize", "any_rounding", "prune", "any_pruning", "noise", "activations", "calibration"),
)
_ENGINE = (
    *("solver", "timeout", "tolerance", "device", "encoding", "presolve", "cross_check"),
    *("method", "memory"),
)


def load(
    source: Any,
    *,
    sidecar: str | Path | None = None,
    output: OutputKind | None = None,
    level: Number | None = None,
    input_shape: Sequence[int] | None = None,
    trust: bool = False,
    fold_batch_norm: bool = False,
) -> Model:
    """Read a network.

    Args:
        source: the path of a ``.pt``, ``.pth``, ``.pt2`` or ``.onnx`` file, a
            ``torch.nn.Module``, an ONNX model or a scikit-learn estimator.
        sidecar: a TOML file about inputs and outputs, instead of the one beside a model file.
        output: what the outputs mean; ``probability``, ``logit``, ``probabilities``,
            ``logits`` or ``value``.
        level: where the label changes, as an exact decimal.
        input_shape: shape of one input without a batch axis, where the model does not say it.
        trust: load TorchScript, which can run code from its file.
        fold_batch_norm: fold batch norms into the layers before them, so that the folded
            parameters are what moves; otherwise those of the model are.

    Raises:
        InputError: what is wrong with the file or object, and what to do instead.

    >>> import paramrob, torch
    >>> layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> paramrob.load(layers).network.architecture
    '2-3-1'
    """
    from paramrob.models.load import load as load_model

    return load_model(
        source,
        sidecar=sidecar,
        output_kind=output,
        level=None if level is None else parse_decimal(level, "level"),
        input_shape=None if input_shape is None else tuple(input_shape),
        trust=trust,
        fold_batch_norm=fold_batch_norm,
    )


def check(
    model: Any,
    *,
    delta: Number | None = None,
    perturbation: PerturbationLike | None = None,
    leave_out: Sequence[str] = (),
    quantize: Scheme | str | None = None,
    any_rounding: bool = False,
    prune: Number | None = None,
    any_pruning: bool = False,
    noise: Number | None = None,
    activations: str | None = None,
    calibration: PointsLike | None = None,
    domain: DomainLike | None = None,
    at: PointsLike | None = None,
    epsilon: Number | None = None,
    sigma: Number | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    arithmetic: str = "real",
    accumulate: str | None = None,
    fold_batch_norm: bool = False,
    solver: str = "auto",
    timeout: float = 60.0,
    tolerance: float = 1e-6,
    device: str = "cpu",
    encoding: Encoding | None = None,
    presolve: bool = True,
    cross_check: str | None = None,
    progress: Progress | None = None,
    input_radius: Number | None = None,
    limit: int | None = None,
    method: Method | None = None,
    memory: str | int = "1GiB",
    csv: str | Path | None = None,
) -> Outcome:
    """Prove or refute that labels stay, or the property that a threshold names.

    Numbers mean the decimals that they are written as: ``0.01`` is one hundredth, exactly.

    Args:
        model: a :class:`~paramrob.models.model.Model`, or anything that :func:`load` takes.
        delta: every parameter within this distance of its trained value.
        perturbation: instead of ``delta`` sizes by layer: a TOML file, a mapping of the same
            form, or a :class:`~paramrob.perturbation.Perturbation`.
        leave_out: layers that do not move.
        quantize: instead, weights rounded to a format such as ``int8``, or as a
            :class:`~paramrob.quantize.scheme.Scheme` says.
        any_rounding: each rounded weight may be either of its neighbours.
        prune: instead, or before quantization, this share of the weights, the smallest, set to 0.
        any_pruning: instead, any subset of the weights set to 0.
        noise: instead, every parameter within this share of its magnitude.
        activations: an integer format that values between layers are rounded to, alone or
            besides what is done to the parameters.
        calibration: points, or a file of them, that give these values' ranges; otherwise ranges
            are proved for all that is asked about.
        domain: a box: ``[(lower, upper), ...]``, one such pair for all inputs, text as on the
            command line, or a :class:`~paramrob.domain.Box`. What the model says by default,
            else [0, 1] for each input.
        at: instead of ``domain`` one point, several (one a row), or a file of them.
        epsilon: ask whether the confidence moves by at most this much.
        sigma: ask whether labels stay where the trained network is this far from its boundary.
        level: where the label changes.
        output: what the outputs mean; see :func:`load`.
        arithmetic: what the network runs in: ``real``, ``float32``, ``float16`` or ``bfloat16``
            (at points). The trained network that it is compared with is in real numbers.
        accumulate: what its sums are formed in, ``float32`` by default.
        fold_batch_norm: see :func:`load`.
        solver: one of ``paramrob.engine.SOLVERS``.
        timeout: engine wall time in seconds, shared by all points.
        tolerance: absolute width at which a bracket is closed.
        device: ``cpu`` or ``cuda``.
        encoding: of the formula that a solver gets: ``direct``, a variable per parameter, or
            ``aggregated``, a slack per neuron; the solver's own by default.
        presolve: whether the bound engine bounds the formula's variables beforehand.
        cross_check: a second solver, which has to agree; both get half of the time.
        progress: called now and then with a quantity's name and the ends of its bracket.
        input_radius: ask about every input within this distance of a point, coordinate by
            coordinate; labels and confidences are compared with those at the point itself.
        limit: only the first so many points.
        method: of the bounds at points, one of ``paramrob.engine.METHODS``; the cheapest that
            decides by default.
        memory: that the bounds at points may use, roughly; bytes, or text such as ``512MiB``.
        csv: a table of points, one row each; points that have a row are not computed again.

    Returns:
        The verdict, brackets and witness; for several points a
        :class:`~paramrob.solve.PointsOutcome`, whose ``points`` holds one outcome each and
        whose verdict is the worst. What had to be assumed stands in ``notes``.

    Raises:
        InputError: a question that cannot be asked, or a solver that cannot be used, with what
            to do instead.
        SoundnessError: two results contradict each other.

    >>> import paramrob, torch
    >>> layer = torch.nn.Linear(1, 1).double()
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(2.0), layer.bias.fill_(-1.0)
    >>> network = torch.nn.Sequential(layer, torch.nn.Sigmoid())
    >>> paramrob.check(network, delta=0.01, domain=[(0.75, 1)]).verdict
    <Verdict.ROBUST: 'robust'>
    >>> outcome = paramrob.check(network, delta="0.01", domain=(0, 1))
    >>> outcome.verdict, sorted(outcome.witness.labels)
    (<Verdict.NOT_ROBUST: 'not_robust'>, [0, 1])
    """
    return _answer("check", None, locals())


def estimate(
    model: Any,
    quantity: Quantity,
    *,
    delta: Number | None = None,
    perturbation: PerturbationLike | None = None,
    leave_out: Sequence[str] = (),
    quantize: Scheme | str | None = None,
    any_rounding: bool = False,
    prune: Number | None = None,
    any_pruning: bool = False,
    noise: Number | None = None,
    activations: str | None = None,
    calibration: PointsLike | None = None,
    domain: DomainLike | None = None,
    at: PointsLike | None = None,
    epsilon: Number | None = None,
    sigma: Number | None = None,
    level: Number | None = None,
    output: OutputKind | None = None,
    arithmetic: str = "real",
    accumulate: str | None = None,
    fold_batch_norm: bool = False,
    solver: str = "auto",
    timeout: float = 60.0,
    tolerance: float = 1e-6,
    device: str = "cpu",
    encoding: Encoding | None = None,
    presolve: bool = True,
    cross_check: str | None = None,
    progress: Progress | None = None,
    input_radius: Number | None = None,
    limit: int | None = None,
    method: Method | None = None,
    memory: str | int = "1GiB",
    csv: str | Path | None = None,
) -> Outcome:
    """Bracket a quantity: ``epsilon``, ``sigma`` or ``delta``.

    Args:
        model: a :class:`~paramrob.models.model.Model`, or anything that :func:`load` takes.
        quantity: ``epsilon``, the largest change of the confidence; ``sigma``, the distance
            from the decision boundary within which labels flip; ``delta``, the largest box
            for which labels stay, or the property that ``epsilon`` or ``sigma`` names.
        delta: as in :func:`check`; not for the quantity ``delta``.
        perturbation: as in :func:`check`; for ``delta`` it says which parameters move.
        leave_out: as in :func:`check`, like everything below.
        quantize: weights rounded.
        any_rounding: to either neighbour.
        prune: the smallest weights set to 0.
        any_pruning: any weights set to 0.
        noise: a share of each magnitude.
        activations: an integer format for values between layers.
        calibration: points that give these values' ranges.
        domain: a box.
        at: points.
        epsilon: the property's threshold, for the quantity ``delta`` only.
        sigma: the property's threshold, for the quantity ``delta`` only.
        level: where the label changes.
        output: what the outputs mean.
        arithmetic: what the network runs in.
        accumulate: what its sums are formed in.
        fold_batch_norm: see :func:`load`.
        solver: which engine.
        timeout: seconds.
        tolerance: absolute width at which the bracket is closed.
        device: ``cpu`` or ``cuda``.
        encoding: of a solver's formula.
        presolve: whether its variables are bounded beforehand.
        cross_check: a second solver, whose bracket has to meet the first one's.
        progress: a callback.
        input_radius: around each point.
        limit: only the first so many points.
        method: of the bounds at points.
        memory: bytes, or text such as ``512MiB``.
        csv: a table of points.

    Returns:
        The outcome; ``brackets`` holds ``epsilon`` or ``delta``; for sigma ``sigma_above`` and
        ``sigma_below`` with one output, ``sigma`` with several. Its ``verdict`` is ``None``.

    Raises:
        InputError: a question that cannot be asked, or a solver that cannot be used, with what
            to do instead.
        SoundnessError: two results contradict each other.

    >>> import paramrob, torch
    >>> layer = torch.nn.Linear(1, 1).double()
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(2.0), layer.bias.fill_(-1.0)
    >>> outcome = paramrob.estimate(layer, "epsilon", delta="0.5", domain=(0, 2), output="value")
    >>> bracket = outcome.brackets["epsilon"]  # 0.5 * 2 + 0.5, at the upper end
    >>> bracket.lower <= 1.5 <= bracket.upper, bracket.width <= 1e-6
    (True, True)
    """
    return _answer("estimate", quantity, locals())


def _answer(command: Command, quantity: Quantity | None, given: Mapping[str, Any]) -> Outcome:
    """Answer a question from the arguments of the function that asks it, by name."""
    request, outcome = answered(command, quantity, given)
    return replace(outcome, notes=(*request.assumptions, *outcome.notes))


def answered(
    command: Command, quantity: Quantity | None, given: Mapping[str, Any]
) -> tuple[Request, Outcome]:
    """Answer a question, and return with the answer what was asked, for reports.

    Args:
        command: ``check`` or ``estimate``.
        quantity: to estimate.
        given: every argument of :func:`check`, by name.

    Raises:
        InputError: as :func:`check`.
        SoundnessError: as :func:`check`.
    """
    options = {name: given[name] for name in _QUESTION}
    asked = Asked(command, quantity, leave_out=tuple(given["leave_out"]), **options)
    settings = make_settings(**{name: given[name] for name in _ENGINE})
    subject = meant(given["model"], given["output"], given["level"], given["fold_batch_norm"])
    request = build(asked, subject)
    table = None if given["csv"] is None else PointTable(given["csv"], request)
    return request, solve(request, replace(settings, progress=given["progress"]), table)


def meant(model: Any, output: OutputKind | None, level: Number | None, fold: bool) -> Model:
    """Return a model whose outputs mean what the caller says."""
    if not isinstance(model, Model):
        return load(model, output=output, level=level, fold_batch_norm=fold)
    if fold:
        from paramrob.models.load import folded

        return meant(folded(model), output, level, False)
    said = model.output
    if output is not None and output != said.kind:
        half = Fraction(1, 2) if output in ("probability", "logit") else None
        said = OutputInfo(output, half, said.labels)
    if level is not None:
        said = replace(said, level=parse_decimal(level, "level"))
    return replace(model, output=said)

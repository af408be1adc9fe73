"""One entry to every reader: a path or an object in, a :class:`Model` with its meaning out."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramrob.errors import InputError, ModelError, ParamrobError, UnsafeModelError
from paramrob.exact import parse_decimal
from paramrob.models.model import InputInfo, Model, OutputInfo, OutputKind, assumed_output
from paramrob.models.network import BatchNorm, Elementwise, Network
from paramrob.models.sidecar import Sidecar, find_sidecar, read_sidecar
from paramrob.problem import check_output

if TYPE_CHECKING:
    from collections.abc import Sequence

READABLE = (
    ".pt and .pth (torch.save of a module or state_dict), .pt2 (torch.export.save), .onnx; in "
    "Python also a torch.nn.Module, an ONNX ModelProto or a scikit-learn estimator"
)
_PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".dill")
_LISTED = 8
_TORCH = (".pt", ".pth", ".pt2", ".ckpt", ".bin")


def load(
    source: Any,
    *,
    sidecar: str | os.PathLike[str] | None = None,
    output_kind: OutputKind | None = None,
    level: Fraction | str | float | None = None,
    input_shape: Sequence[int] | None = None,
    trust: bool = False,
    fold_batch_norm: bool = False,
) -> Model:
    """Read a network and what is known of its inputs and outputs.

    What the source does not say comes from the sidecar, then from the options; what is still
    missing is assumed, and said in ``Model.assumptions``.

    Args:
        source: the path of a model file, a ``torch.nn.Module``, an ONNX ``ModelProto``, a
            scikit-learn estimator, a :class:`Network` or a :class:`Model`.
        sidecar: a TOML file to use instead of the one beside a model file.
        output_kind: what the outputs mean.
        level: where the label changes, an exact decimal.
        input_shape: of one input, without batch axis.
        trust: load TorchScript, which can run code that stands in its file.
        fold_batch_norm: fold batch norms into the layers before them (see
            :func:`paramrob.models.fold.fold_batch_norm`), so that the folded parameters are
            boxed; otherwise those of the file are.

    Raises:
        UnsafeModelError: reading the file would run code from it.
        UnsupportedOperatorError: a layer or operator without a meaning here.
        ModelError: the source is missing, damaged, or no model.
        InputError: the sidecar or an option does not fit the model.
    """
    shape = _checked_shape(input_shape)
    is_path = isinstance(source, (str, os.PathLike))
    beside = sidecar if sidecar is not None or not is_path else find_sidecar(source)
    said = Sidecar() if beside is None else read_sidecar(beside)
    wanted = shape or said.shape
    if is_path:
        found, silent = _from_path(Path(source), said, wanted, trust), True
    else:
        found, silent = _from_object(source, said, wanted)
    if shape is not None and found.network.input_shape != shape:
        raise InputError(
            f"the model takes inputs of shape {found.network.input_shape}, input_shape says "
            f"{shape}; leave it out"
        )
    if fold_batch_norm:
        found = _folded(found) if silent else folded(found)
    return _with_meaning(found, silent, said, output_kind, level)


def folded(model: Model) -> Model:
    """Return a model with its batch norms folded into the layers before them, and say so.

    Raises:
        ModelError: a folded number is beyond float64.
    """
    result = _folded(model)
    if result is model:
        return model
    stale = set(about_parameters(model))
    kept = (text for text in model.assumptions if text not in stale)
    return replace(result, assumptions=(*kept, *about_parameters(result)))


def _folded(model: Model) -> Model:
    from paramrob.models.fold import fold_batch_norm

    network = fold_batch_norm(model.network)
    return model if network is model.network else replace(model, network=network, folded=True)


def _checked_shape(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    sizes = tuple(shape)
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise InputError(f"input_shape {sizes} must hold positive whole numbers, e.g. (28, 28)")
    return sizes


def _bare(network: Network) -> Model:
    """Return a model of which only the network is known."""
    return Model(network, InputInfo(), assumed_output(network)[0])


def _from_path(path: Path, said: Sidecar, shape: tuple[int, ...] | None, trust: bool) -> Model:
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; give the model file in it")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError, MemoryError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); check the file") from error
    if not data:
        raise ModelError(f"{path} is empty; copy or save the model again")
    try:
        network = _network(path, data, said, shape, trust)
    except ParamrobError as error:
        raise type(error)(f"{path}: {error}") from error
    return replace(_bare(network), path=str(path), sha256=hashlib.sha256(data).hexdigest())


def _network(
    path: Path, data: bytes, said: Sidecar, shape: tuple[int, ...] | None, trust: bool
) -> Network:
    suffix = path.suffix.lower()
    from paramrob.models.torch_archive import LEGACY_MAGIC, ZIP_MAGIC

    if data.startswith((ZIP_MAGIC, LEGACY_MAGIC)) or suffix in _TORCH:
        from paramrob.models.pt2 import is_pt2, read_pt2
        from paramrob.models.torch_file import read_torch

        if not is_pt2(data):
            return read_torch(data, layers=said.layers, input_shape=shape, trust=trust)
        network = read_pt2(data)
    elif suffix == ".onnx":
        from paramrob.models.onnx_file import read_onnx

        network = read_onnx(path)
    elif suffix in _PICKLES or data[:1] == b"\x80":
        raise UnsafeModelError(
            "a pickle, and loading one can run code that stands in it; load it yourself if you "
            "trust it and pass the object to paramrob.load in Python, or export it to ONNX"
        )
    else:
        raise ModelError(f"unknown kind of file {suffix!r}; paramrob reads {READABLE}")
    if said.layers is not None:
        raise InputError(f"{said.path}: [model] layers is only for a bare state_dict; remove it")
    return network


def _from_object(source: Any, said: Sidecar, shape: tuple[int, ...] | None) -> tuple[Model, bool]:
    """Return the model of an object, and whether it is silent about its outputs' meaning."""
    if said.layers is not None:
        raise InputError(f"{said.path}: [model] layers is only for a bare state_dict; remove it")
    if isinstance(source, Model):
        return source, False
    if isinstance(source, Network):
        return _bare(source), True
    # An object's framework is imported already: importing others would only cost time.
    torch, onnx = sys.modules.get("torch"), sys.modules.get("onnx")
    sklearn = sys.modules.get("sklearn.base")
    if torch is not None and isinstance(source, torch.nn.Module):
        from paramrob.models.torch_module import from_torch

        return _bare(from_torch(source, shape)), True
    if onnx is not None and isinstance(source, onnx.ModelProto):
        from paramrob.models.onnx_file import read_onnx

        return _bare(read_onnx(source)), True
    if sklearn is not None and isinstance(source, sklearn.BaseEstimator):
        from paramrob.models.sklearn_model import from_sklearn

        return from_sklearn(source), False
    raise ModelError(
        f"an object of type {type(source).__name__} is no model; paramrob reads {READABLE}"
    )


def _with_meaning(
    found: Model,
    silent: bool,
    said: Sidecar,
    output_kind: OutputKind | None,
    level: Fraction | str | float | None,
) -> Model:
    """Return the model with what sidecar and options say, the rest assumed."""
    network = found.network
    inputs = said.input_info(network)
    given = {k: v for k, v in vars(inputs).items() if v is not None}
    output, assumed = found.output, assumed_output(network)[1]
    kind = output_kind or said.kind
    if kind is not None and kind != output.kind:
        half = Fraction(1, 2) if kind in ("probability", "logit") else None
        output = OutputInfo(kind, half, output.labels)
    assumptions = [text for text in found.assumptions if kind is None or text != assumed]
    if kind is None and silent:
        assumptions.append(assumed)
    if said.level is not None and said.kind in (None, output.kind):
        output = replace(output, level=said.level)
    if level is not None:
        output = replace(output, level=parse_decimal(level, "level"))
    if output.kind in ("probabilities", "logits") and output.level is not None:
        raise InputError(
            "several outputs have no level: the label is the largest output; leave the level out"
        )
    output = replace(output, labels=said.checked_labels(network) or output.labels)
    check_output(network, output)
    if silent:
        assumptions += about_parameters(found)
    return replace(
        found,
        inputs=replace(found.inputs, **given),
        output=output,
        assumptions=tuple(assumptions),
    )


def about_parameters(model: Model) -> list[str]:
    """Return sentences about parameters that are not what they seem."""
    network = model.network
    sentences = []
    movable = [name for name, p in network.parameters.items() if not p.fixed]
    shared = [name for name in movable if network.is_shared(name)]
    if shared:
        sentences.append(
            f"parameters used at several places ({_listed(shared)}) may be bounded as if each use "
            "had its own: bounds hold, but need not be the tightest"
        )
    norms = [n.name for n in network.nodes if isinstance(n.op, BatchNorm)]
    if model.folded:
        rest = f"; {_listed(norms)} could not be folded" if norms else ""
        sentences.append(
            "batch norms were folded into the layers before them (each number rounded once to "
            f"float64), and the folded parameters are perturbed{rest}"
        )
    return sentences + others_move(model)


def others_move(model: Model) -> list[str]:
    """Return sentences about constants and batch norms, which move like weights.

    They are among the model's assumptions, and hold for perturbations of all parameters.
    """
    network = model.network
    layers = network.layer_parameters()
    constants = [
        n.name for n in network.nodes if isinstance(n.op, Elementwise) and n.name in layers
    ]
    norms = [n.name for n in network.nodes if isinstance(n.op, BatchNorm)]
    sentences = []
    if constants:
        sentences.append(
            f"the constants of layers {_listed(constants)} are perturbed like weights; leave "
            "those layers out of the perturbation to keep them fixed"
        )
    if norms and not model.folded:
        sentences.append(
            f"the parameters of batch norms ({_listed(norms)}) are perturbed as they stand in the "
            "model, before any folding; running statistics are not"
        )
    return sentences


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
